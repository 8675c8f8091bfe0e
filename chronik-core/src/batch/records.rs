//! The records inside a batch: varint-framed, walked without copying.
//!
//! ```text
//! length varint, attributes i8, timestamp delta varlong, offset delta varint,
//! key length varint (−1 = null), key, value length varint, value, headers count varint, {key length, key, value length, value}…
//! ```

/// Why bytes are no record, in Kafka's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotARecord {
    #[error("a record ends beyond its batch")]
    Truncated,
    #[error("a variable-length integer is longer than its type allows")]
    LongVarint,
    #[error("a record's length is {0}")]
    Length(i32),
    #[error("a record's header count is {0}")]
    HeaderCount(i32),
    #[error("a record's header has no key")]
    NullHeaderKey,
    #[error("a record holds {0} bytes more than its fields")]
    Surplus(usize),
}

/// One record, borrowed from its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    header_count: u32,
    header_bytes: &'a [u8],
}

/// One header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader<'a> {
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// The record's headers. They were checked when the record was read.
    pub fn headers(&self) -> impl Iterator<Item = RecordHeader<'a>> + use<'a> {
        let mut cursor = Cursor(self.header_bytes);
        (0..self.header_count).map_while(move |_| cursor.header().ok())
    }
}

/// Reads varint-framed fields off the front of a slice.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    #[inline]
    fn byte(&mut self) -> Result<u8, NotARecord> {
        let (&first, rest) = self.0.split_first().ok_or(NotARecord::Truncated)?;
        self.0 = rest;
        Ok(first)
    }

    /// Zigzag, at most five bytes. Nearly every field of a record fits into three; the loop is for the rest.
    #[inline]
    fn varint(&mut self) -> Result<i32, NotARecord> {
        let raw = match self.short() {
            Some(raw) => raw,
            None => self.long(35)? as u32,
        };
        Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    /// Zigzag, at most ten bytes.
    #[inline]
    fn varlong(&mut self) -> Result<i64, NotARecord> {
        let raw = match self.short() {
            Some(raw) => u64::from(raw),
            None => self.long(70)?,
        };
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// The next integer, as it was before the zigzag, if it has no more than three bytes.
    #[inline]
    fn short(&mut self) -> Option<u32> {
        let seven = |byte: u8| u32::from(byte & 0x7f);
        let (raw, rest) = match *self.0 {
            [a, ref rest @ ..] if a < 0x80 => (seven(a), rest),
            [a, b, ref rest @ ..] if b < 0x80 => (seven(a) | seven(b) << 7, rest),
            [a, b, c, ref rest @ ..] if c < 0x80 => (seven(a) | seven(b) << 7 | seven(c) << 14, rest),
            _ => return None,
        };
        self.0 = rest;
        Some(raw)
    }

    /// One of any length below this many bits, seven to a byte; those beyond its type's are lost.
    #[cold]
    fn long(&mut self, bits: u32) -> Result<u64, NotARecord> {
        let mut raw = 0u64;
        for shift in (0..bits).step_by(7) {
            let byte = self.byte()?;
            raw |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(raw);
            }
        }
        Err(NotARecord::LongVarint)
    }

    #[inline]
    fn take(&mut self, len: i32) -> Result<&'a [u8], NotARecord> {
        let len = usize::try_from(len).map_err(|_| NotARecord::Length(len))?;
        let (taken, rest) = self.0.split_at_checked(len).ok_or(NotARecord::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    /// Kafka reads any negative length as null.
    #[inline]
    fn nullable(&mut self) -> Result<Option<&'a [u8]>, NotARecord> {
        match self.varint()? {
            ..0 => Ok(None),
            len => self.take(len).map(Some),
        }
    }

    fn header(&mut self) -> Result<RecordHeader<'a>, NotARecord> {
        let key = self.nullable()?.ok_or(NotARecord::NullHeaderKey)?;
        Ok(RecordHeader { key, value: self.nullable()? })
    }

    #[inline]
    fn record(&mut self) -> Result<Record<'a>, NotARecord> {
        let length = self.varint()?;
        let mut fields = Cursor(self.take(length)?);
        let _attributes = fields.byte()?;
        let timestamp_delta = fields.varlong()?;
        let offset_delta = fields.varint()?;
        let key = fields.nullable()?;
        let value = fields.nullable()?;
        let count = fields.varint()?;
        let header_count = u32::try_from(count).map_err(|_| NotARecord::HeaderCount(count))?;
        let header_bytes = fields.0;
        for _ in 0..header_count {
            fields.header()?;
        }
        match fields.0.len() {
            0 => Ok(Record { timestamp_delta, offset_delta, key, value, header_count, header_bytes }),
            surplus => Err(NotARecord::Surplus(surplus)),
        }
    }
}

/// The records of an uncompressed body. Ends after the first error.
#[derive(Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// Bytes not yet walked.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, NotARecord>;
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let mut cursor = Cursor(self.rest);
        let record = cursor.record();
        self.rest = if record.is_ok() { cursor.0 } else { &[] };
        Some(record)
    }
}

/// Walks all records structurally, calling `each` with its place and the record; gives how many there were.
pub fn walk<'a, E: From<NotARecord>>(
    body: &'a [u8],
    mut each: impl FnMut(usize, &Record<'a>) -> Result<(), E>,
) -> Result<usize, E> {
    let mut count = 0;
    for record in Records::new(body) {
        each(count, &record?)?;
        count += 1;
    }
    Ok(count)
}
