//! Reading from a frame: a cursor that never looks beyond the bytes that are there.

use bytes::{Buf, Bytes};

/// Unknown tagged fields that one tagged section may hold. Kafka's own messages have fewer than ten known ones; a frame
/// of millions of two-byte fields is an attack (CVE-2026-111115).
pub const UNKNOWN_TAGS_MAX: u32 = 64;
/// What decoding may build for each byte of the frame …
///
/// Of all that clients send in numbers, a Metadata request's short topic names grow the most: 48 bytes in memory for six
/// on the wire. A frame of nothing but empty elements would grow up to eighty times and is refused (CVE-2026-111108).
pub const MEMORY_PER_FRAME_BYTE: usize = 8;
/// … and besides, so that small requests need not be dense.
pub const MEMORY_BASE_BYTES: usize = 64 * 1024;

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
    #[error("has a string that is too long")]
    LongString,
    #[error("has a string that is not UTF-8")]
    NotUtf8,
    #[error("counts more elements than it has bytes")]
    Count,
    #[error("would need too much memory")]
    Memory,
    #[error("has more elements than are taken")]
    Elements,
    #[error("has too many tagged fields")]
    Tags,
    #[error("has tagged fields out of order")]
    TagOrder,
    #[error("has a tagged field that its version does not have")]
    TagVersion,
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
    /// Where `rest` ends in the frame: its end, except inside a tagged field.
    end: usize,
    frame_bytes: usize,
    memory_left: usize,
    elements_left: usize,
}

impl Decoder {
    pub fn new(frame: Bytes) -> Self {
        let frame_bytes = frame.len();
        let memory_left = frame_bytes.saturating_mul(MEMORY_PER_FRAME_BYTE).saturating_add(MEMORY_BASE_BYTES);
        Self { rest: frame, end: frame_bytes, frame_bytes, memory_left, elements_left: usize::MAX }
    }

    /// Bounds the elements of all arrays together: whoever works on a message needs memory for each of them, also where
    /// decoding needs little.
    pub fn with_elements_max(self, elements: usize) -> Self {
        Self { elements_left: elements, ..self }
    }

    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The error that something is wrong here.
    pub fn error(&self, what: Malformed) -> DecodeError {
        DecodeError { what, at: self.end.saturating_sub(self.rest.len()), of: self.frame_bytes }
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

    /// Reads `count` elements. Every one needs at least a byte, so that a count above the bytes that are left is refused
    /// before any memory is taken; what they need in memory comes off the frame's budget; and room is made only as
    /// elements turn out to be there: never for more than they are, so that while an array moves it takes at most twice.
    pub fn elements<T>(
        &mut self,
        count: usize,
        mut element: impl FnMut(&mut Decoder) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        /// Elements that room is made for at once.
        const AT_ONCE_MAX: usize = 1024;
        if count > self.rest.len() {
            return Err(self.error(Malformed::Count));
        }
        let memory = count.saturating_mul(size_of::<T>());
        self.elements_left = self.elements_left.checked_sub(count).ok_or_else(|| self.error(Malformed::Elements))?;
        self.memory_left = self.memory_left.checked_sub(memory).ok_or_else(|| self.error(Malformed::Memory))?;
        let mut elements = Vec::with_capacity(count.min(AT_ONCE_MAX));
        for index in 0..count {
            if index == elements.capacity() {
                elements.reserve_exact(index.min(count - index));
            }
            elements.push(element(self)?);
        }
        Ok(elements)
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
            let rest = self.take(size)?;
            let end = self.end.saturating_sub(self.remaining());
            let mut inside = Decoder {
                rest,
                end,
                frame_bytes: self.frame_bytes,
                memory_left: self.memory_left,
                elements_left: self.elements_left,
            };
            if field(tag, &mut inside)? {
                if inside.remaining() > 0 {
                    return Err(self.error(Malformed::TagSize));
                }
                self.memory_left = inside.memory_left;
                self.elements_left = inside.elements_left;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn varint(bytes: &'static [u8]) -> Result<u32, Malformed> {
        Decoder::new(Bytes::from_static(bytes)).unsigned_varint().map_err(|error| error.what)
    }

    #[test]
    fn a_varint_has_at_most_five_bytes_and_32_bits() {
        assert_eq!(varint(b"\x00"), Ok(0));
        assert_eq!(varint(b"\xac\x02"), Ok(300));
        assert_eq!(varint(b"\xff\xff\xff\xff\x0f"), Ok(u32::MAX));
        assert_eq!(varint(b"\xff\xff\xff\xff\x1f"), Err(Malformed::LongVarint));
        assert_eq!(varint(b"\x80\x80\x80\x80\x80\x00"), Err(Malformed::LongVarint));
        assert_eq!(varint(b"\x80\x80"), Err(Malformed::Truncated));
    }

    #[test]
    fn an_error_says_at_which_byte_of_the_frame_also_inside_a_tagged_field() {
        // One field, tag 0, of three bytes; its second byte begins an integer that is cut.
        let mut input = Decoder::new(Bytes::from_static(b"\x01\x00\x03\x00\x00\x00after"));
        let error = input.tagged_fields(|_, inside| {
            inside.array::<1>()?;
            inside.i32().map(|_| true)
        });
        assert_eq!(error, Err(DecodeError { what: Malformed::Truncated, at: 4, of: 11 }));
    }

    #[test]
    fn tagged_fields_come_in_order_and_fill_their_size() {
        let read = |bytes: &'static [u8]| {
            let mut input = Decoder::new(Bytes::from_static(bytes));
            let known = |tag, inside: &mut Decoder| if tag == 0 { inside.i16().map(|_| true) } else { Ok(false) };
            input.tagged_fields(known).and_then(|()| input.finish()).map_err(|error| error.what)
        };
        assert_eq!(read(b"\x00"), Ok(()));
        assert_eq!(read(b"\x02\x00\x02ab\x05\x01c"), Ok(()));
        assert_eq!(read(b"\x02\x05\x01c\x00\x02ab"), Err(Malformed::TagOrder));
        assert_eq!(read(b"\x02\x00\x02ab\x00\x02ab"), Err(Malformed::TagOrder));
        assert_eq!(read(b"\x01\x00\x03abc"), Err(Malformed::TagSize));
        assert_eq!(read(b"\x01\x00\x01a"), Err(Malformed::Truncated));
        assert_eq!(read(b"\x01\x09\xff\xff\xff\xff\x0f"), Err(Malformed::Truncated));
        assert_eq!(read(b"\x00z"), Err(Malformed::Trailing));
    }

    #[test]
    fn room_is_made_for_what_is_there_and_no_more() {
        let mut input = Decoder::new(Bytes::from(vec![0; 5000]));
        let elements = input.elements(5000, |input| input.array::<1>()).unwrap_or_default();
        assert_eq!((elements.len(), elements.capacity()), (5000, 5000));
        let mut input = Decoder::new(Bytes::from_static(b"abc"));
        let error = input.elements(4, |input| input.array::<1>()).map_err(|error| error.what);
        assert_eq!(error, Err(Malformed::Count));
    }

    #[test]
    fn elements_are_counted_over_all_arrays_also_inside_tagged_fields() {
        let read = |elements_max| {
            let mut input = Decoder::new(Bytes::from_static(b"ab\x01\x00\x02cdef")).with_elements_max(elements_max);
            input.elements(2, |input| input.array::<1>())?;
            input.tagged_fields(|_, inside| inside.elements(2, |input| input.array::<1>()).map(|_| true))?;
            input.elements(2, |input| input.array::<1>()).map(drop)
        };
        assert_eq!(read(6), Ok(()));
        for too_few in [5, 3, 1] {
            assert_eq!(read(too_few).map_err(|error| error.what), Err(Malformed::Elements));
        }
    }
}
