//! Writing to a rope: small fields into chunks, large ones spliced in by reference, and what lies in files left there.

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;
use std::fmt;
use std::os::fd::AsFd;
use std::sync::Arc;

/// Byte fields at least this long are spliced in; shorter ones are copied, which is cheaper than one more slice to
/// gather-write.
pub const SPLICE_BYTES_MIN: usize = 512;
/// The first chunk of a frame: most responses without records fit.
const FIRST_CHUNK_BYTES: usize = 256;
/// A frame's length stands in front of it, as an `i32`.
const LENGTH_BYTES: usize = 4;

/// A message's bytes as a list of slices.
pub type Rope = SmallVec<[Bytes; 4]>;

/// Bytes that lie in a file, to be sent from there. Encoding counts them and never looks at them.
#[derive(Clone)]
pub struct InFile {
    pub file: Arc<dyn AsFd + Send + Sync>,
    pub position: u64,
    pub bytes: usize,
}

impl fmt::Debug for InFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {} of a file", self.bytes, self.position)
    }
}

/// A stretch of a message.
#[derive(Clone, Debug)]
pub enum Part {
    Bytes(Bytes),
    InFile(InFile),
}

impl Part {
    pub fn len(&self) -> usize {
        match self {
            Part::Bytes(bytes) => bytes.len(),
            Part::InFile(part) => part.bytes,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `None` if it lies in a file.
    pub fn in_memory(self) -> Option<Bytes> {
        match self {
            Part::Bytes(bytes) => Some(bytes),
            Part::InFile(_) => None,
        }
    }
}

impl From<Bytes> for Part {
    fn from(bytes: Bytes) -> Self {
        Part::Bytes(bytes)
    }
}

/// A message's bytes, wherever they are: only records that a broker answers with may lie in files.
pub type Parts = SmallVec<[Part; 4]>;

/// A message all of whose bytes are in memory; `None` if some are not.
pub fn in_memory(parts: Parts) -> Option<Rope> {
    parts.into_iter().map(Part::in_memory).collect()
}

/// Collects a message.
#[derive(Debug, Default)]
pub struct Encoder {
    /// The first chunk, still open so that a frame's length can be written into it at the end.
    first: Option<BytesMut>,
    /// What follows the first chunk.
    parts: Parts,
    parts_bytes: usize,
    tail: BytesMut,
    framed: bool,
}

impl Encoder {
    /// For bytes that go into something else.
    pub fn new() -> Self {
        Self::default()
    }

    /// For a frame: [`Encoder::finish`] puts the length in front, in the same slice as the first fields.
    pub fn framed() -> Self {
        let mut tail = BytesMut::with_capacity(FIRST_CHUNK_BYTES);
        tail.put_bytes(0, LENGTH_BYTES);
        Self { tail, framed: true, ..Self::default() }
    }

    /// Bytes written so far, a frame's length included.
    pub fn len(&self) -> usize {
        self.first.as_ref().map_or(0, BytesMut::len) + self.parts_bytes + self.tail.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where small fields go.
    pub fn out(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Adds bytes, by reference if they are many.
    pub fn splice(&mut self, bytes: &Bytes) {
        if bytes.len() < SPLICE_BYTES_MIN {
            self.tail.put_slice(bytes);
            return;
        }
        self.flush_tail();
        self.push(bytes.clone().into());
    }

    /// Adds what is and stays in a file.
    pub fn splice_in_file(&mut self, part: &InFile) {
        self.flush_tail();
        self.push(Part::InFile(part.clone()));
    }

    fn push(&mut self, part: Part) {
        self.parts_bytes += part.len();
        self.parts.push(part);
    }

    fn flush_tail(&mut self) {
        if self.first.is_none() {
            self.first = Some(self.tail.split());
        } else if !self.tail.is_empty() {
            let tail = self.tail.split().freeze();
            self.push(tail.into());
        }
    }

    pub fn unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.tail.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.tail.put_u8(value as u8);
    }

    /// The length before a string, byte field or array; see [`crate::Decoder::length`]. Strings that are too long for
    /// two bytes do not come here ([`crate::wire::STRING_BYTES_MAX`]).
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
        for part in other.finish() {
            match part {
                Part::Bytes(bytes) => self.splice(&bytes),
                Part::InFile(part) => self.splice_in_file(&part),
            }
        }
    }

    /// What was written; none of the slices is empty.
    pub fn finish(mut self) -> Parts {
        self.flush_tail();
        let length = i32::try_from(self.len().saturating_sub(LENGTH_BYTES)).unwrap_or(i32::MAX);
        let Some(mut first) = self.first.filter(|first| !first.is_empty()) else { return self.parts };
        if self.framed {
            first[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
        }
        let mut parts = Parts::with_capacity(self.parts.len() + 1);
        parts.push(first.freeze().into());
        parts.extend(self.parts);
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_fields_are_the_same_memory_and_small_ones_share_a_chunk() {
        let large = Bytes::from(vec![7; SPLICE_BYTES_MIN]);
        let mut out = Encoder::framed();
        out.out().put_i32(1);
        out.splice(&Bytes::from_static(b"small"));
        out.splice(&large);
        out.splice(&large);
        out.out().put_u8(9);
        let rope = in_memory(out.finish()).expect("no file");
        let lengths: Vec<usize> = rope.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [4 + 4 + 5, SPLICE_BYTES_MIN, SPLICE_BYTES_MIN, 1]);
        assert_eq!(rope[1].as_ptr(), large.as_ptr());
        let length = 4 + 5 + 2 * SPLICE_BYTES_MIN as i32 + 1;
        assert_eq!(rope[0][..4], length.to_be_bytes());
    }

    #[test]
    fn a_frame_without_large_fields_is_one_slice_however_long() {
        let mut out = Encoder::framed();
        for number in 0..1000 {
            out.out().put_i32(number);
        }
        let rope = in_memory(out.finish()).expect("no file");
        assert_eq!(rope.len(), 1);
        assert_eq!(rope[0][..4], 4000i32.to_be_bytes());
    }

    #[test]
    fn what_lies_in_a_file_is_counted_in_its_place_and_left_there() {
        let file: Arc<dyn AsFd + Send + Sync> = Arc::new(std::io::stderr());
        let mut out = Encoder::framed();
        out.out().put_i32(1);
        out.splice_in_file(&InFile { file, position: 7, bytes: 1000 });
        out.out().put_u8(9);
        let parts = out.finish();
        let [Part::Bytes(first), Part::InFile(InFile { position: 7, bytes: 1000, .. }), Part::Bytes(last)] = &parts[..]
        else {
            panic!("{parts:?}")
        };
        assert_eq!((&first[..4], &last[..]), (&1005i32.to_be_bytes()[..], &[9][..]));
        assert!(in_memory(parts).is_none());
    }

    #[test]
    fn what_starts_with_a_large_field_has_no_empty_slice() {
        let mut out = Encoder::new();
        out.splice(&Bytes::from(vec![7; SPLICE_BYTES_MIN]));
        assert_eq!(out.len(), SPLICE_BYTES_MIN);
        assert_eq!(out.finish().len(), 1);
        assert_eq!(Encoder::new().finish().len(), 0);
    }
}
