//! Reading from a frame: a cursor that never looks beyond the bytes that are there.

use bytes::{Buf, Bytes};

/// Unknown tagged fields that one tagged section may hold. Kafka's own messages have fewer than ten known ones; a frame
/// of millions of two-byte fields is an attack (CVE-2026-111115).
pub const UNKNOWN_TAGS_MAX: u32 = 64;
/// What decoding may build for each byte of the frame …
const MEMORY_PER_FRAME_BYTE: usize = 16;
/// … and besides. The smallest elements of real requests (a topic's name) need about ten times their wire size.
const MEMORY_BASE_BYTES: usize = 64 * 1024;

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("ends too early")]
    Truncated,
    #[error("has a negative length")]
    NegativeLength,
    #[error("has a variable-length integer that is too long")]
    LongVarint,
    #[error("has null where a value is needed")]
    Null,
    #[error("has a string that is not UTF-8")]
    NotUtf8,
    #[error("counts more elements than it has bytes")]
    Count,
    #[error("would need too much memory")]
    Memory,
    #[error("has too many tagged fields")]
    Tags,
    #[error("has tagged fields out of order")]
    TagOrder,
    #[error("has a tagged field whose size does not match")]
    TagSize,
    #[error("has bytes after its end")]
    Trailing,
}

/// A frame that is no message, and where that showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message {what} (at byte {at} of {of})")]
pub struct DecodeError {
    pub what: Malformed,
    pub at: usize,
    pub of: usize,
}

/// A cursor over one frame.
#[derive(Clone, Debug)]
pub struct Decoder {
    rest: Bytes,
    frame_bytes: usize,
    memory_left: usize,
}

impl Decoder {
    pub fn new(frame: Bytes) -> Self {
        let frame_bytes = frame.len();
        let memory_left = frame_bytes.saturating_mul(MEMORY_PER_FRAME_BYTE).saturating_add(MEMORY_BASE_BYTES);
        Self { rest: frame, frame_bytes, memory_left }
    }

    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The error that something is wrong here.
    pub fn error(&self, what: Malformed) -> DecodeError {
        DecodeError { what, at: self.frame_bytes.saturating_sub(self.rest.len()), of: self.frame_bytes }
    }

    /// The message must end here.
    pub fn finish(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.error(Malformed::Trailing)) }
    }

    /// The next `N` bytes, by value.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let array = *self.rest.first_chunk::<N>().ok_or_else(|| self.error(Malformed::Truncated))?;
        self.rest.advance(N);
        Ok(array)
    }

    /// The next `len` bytes, sharing the frame.
    pub fn take(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        if len > self.rest.len() {
            return Err(self.error(Malformed::Truncated));
        }
        Ok(self.rest.split_to(len))
    }

    pub fn i16(&mut self) -> Result<i16, DecodeError> {
        self.array().map(i16::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    /// An unsigned varint of at most five bytes and 32 bits.
    pub fn unsigned_varint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            if shift == 28 && byte > 0x0f {
                return Err(self.error(Malformed::LongVarint));
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.error(Malformed::LongVarint))
    }

    /// The length before a string, byte field or array: `None` is null. `short` strings have two bytes before them in
    /// messages that are not flexible, everything else four.
    pub fn length(&mut self, flexible: bool, short: bool) -> Result<Option<usize>, DecodeError> {
        if flexible {
            return Ok(self.unsigned_varint()?.checked_sub(1).map(|length| length as usize));
        }
        let length = if short { i32::from(self.i16()?) } else { self.i32()? };
        match length {
            -1 => Ok(None),
            ..-1 => Err(self.error(Malformed::NegativeLength)),
            length => Ok(Some(length as usize)),
        }
    }

    /// Checks an array's count against the bytes that are left, of which every element needs at least one, and gives how
    /// many elements to make room for at once.
    pub fn expect_elements(&mut self, count: usize, element_memory: usize) -> Result<usize, DecodeError> {
        /// More room is made as elements turn out to be there.
        const AT_ONCE_MAX: usize = 4096;
        if count > self.rest.len() {
            return Err(self.error(Malformed::Count));
        }
        let memory = count.saturating_mul(element_memory);
        self.memory_left = self.memory_left.checked_sub(memory).ok_or_else(|| self.error(Malformed::Memory))?;
        Ok(count.min(AT_ONCE_MAX))
    }

    /// Reads a section of tagged fields, handing each to `field`, which gives `false` for one that it does not know.
    pub fn tagged_fields(
        &mut self,
        mut field: impl FnMut(u32, &mut Decoder) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        let count = self.unsigned_varint()?;
        let mut unknown = 0;
        let mut previous = None;
        for _ in 0..count {
            let tag = self.unsigned_varint()?;
            if previous.is_some_and(|previous| tag <= previous) {
                return Err(self.error(Malformed::TagOrder));
            }
            previous = Some(tag);
            let size = self.unsigned_varint()? as usize;
            let mut inside = Decoder {
                rest: self.take(size)?,
                frame_bytes: self.frame_bytes - self.remaining(),
                memory_left: self.memory_left,
            };
            if field(tag, &mut inside)? {
                if inside.remaining() > 0 {
                    return Err(self.error(Malformed::TagSize));
                }
                self.memory_left = inside.memory_left;
            } else {
                unknown += 1;
                if unknown > UNKNOWN_TAGS_MAX {
                    return Err(self.error(Malformed::Tags));
                }
            }
        }
        Ok(())
    }
}
