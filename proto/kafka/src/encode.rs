//! Writing to a rope: small fields into chunks, large ones spliced in by reference.

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

/// Byte fields at least this long are spliced in; shorter ones are copied, which is cheaper than one more slice to
/// gather-write.
pub const SPLICE_BYTES_MIN: usize = 512;

/// A message's bytes as a list of slices.
pub type Rope = SmallVec<[Bytes; 4]>;

/// Collects a message.
#[derive(Debug, Default)]
pub struct Encoder {
    parts: Rope,
    parts_bytes: usize,
    tail: BytesMut,
}

impl Encoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.parts_bytes + self.tail.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where small fields go.
    pub fn out(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Adds bytes, by reference if they are many.
    pub fn splice(&mut self, bytes: Bytes) {
        if bytes.len() < SPLICE_BYTES_MIN {
            self.tail.put_slice(&bytes);
            return;
        }
        self.flush_tail();
        self.parts_bytes += bytes.len();
        self.parts.push(bytes);
    }

    fn flush_tail(&mut self) {
        if !self.tail.is_empty() {
            let tail = self.tail.split().freeze();
            self.parts_bytes += tail.len();
            self.parts.push(tail);
        }
    }

    pub fn unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.tail.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.tail.put_u8(value as u8);
    }

    /// The length before a string, byte field or array; see [`crate::Decoder::length`].
    pub fn length(&mut self, length: Option<usize>, flexible: bool, short: bool) {
        // A message of over two gigabytes cannot be framed in any case; saturating makes the peer refuse it.
        let length = length.map(|length| i32::try_from(length).unwrap_or(i32::MAX));
        match (flexible, short) {
            (true, _) => self.unsigned_varint(length.map_or(0, |length| length as u32 + 1)),
            (false, true) => self.tail.put_i16(length.map_or(-1, |length| i16::try_from(length).unwrap_or(i16::MAX))),
            (false, false) => self.tail.put_i32(length.unwrap_or(-1)),
        }
    }

    /// Adds what another encoder has collected.
    pub fn append(&mut self, other: Encoder) {
        for part in other.parts {
            self.splice(part);
        }
        self.tail.extend_from_slice(&other.tail);
    }

    /// The message without a length prefix.
    pub fn finish(mut self) -> Rope {
        self.flush_tail();
        self.parts
    }

    /// The message as a frame: its length in four bytes, then its bytes.
    pub fn finish_framed(mut self) -> Rope {
        self.flush_tail();
        let mut frame = Rope::with_capacity(self.parts.len() + 1);
        let length = i32::try_from(self.parts_bytes).unwrap_or(i32::MAX);
        frame.push(Bytes::copy_from_slice(&length.to_be_bytes()));
        frame.extend(self.parts);
        frame
    }
}
