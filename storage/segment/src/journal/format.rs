//! What a journal file looks like.
//!
//! ```text
//! batch:  0 magic      4 crc of what follows     8 generation     16 sequence     24 body bytes     28 zero
//!         32 the body: entries, one after the other; then zeros up to the next block
//! entry:  0 kind       1 topic     17 partition
//!         21 segment base     29 position     37 bytes     41 the bytes                        (Kind::Bytes only)
//! ```
//!
//! Little-endian. Each batch fills whole blocks and is synced before the next is written, so no block that was ever durable
//! is written again, and only the last batch can be torn. A file is used again from its beginning under the next
//! generation: what an older one left behind it does not carry its number, and ends the reading.

use crate::frame::{i64_at, u32_at};
use chronik_core::crc32c;
use chronik_core::ids::{LogId, Offset, TopicId};

/// The device's and the page cache's unit: a batch never shares one with another.
pub const BLOCK_BYTES: u64 = 4096;

const HEADER_BYTES: usize = 32;
const MAGIC: [u8; 4] = *b"cRj1";

/// The checksum begins here: after itself.
const CHECKED_FROM: usize = 8;

const KIND_BYTES: u8 = 1;
const KIND_VOID: u8 = 2;

/// Of an entry without its bytes.
pub const ENTRY_BYTES: usize = 41;
const VOID_BYTES: usize = 21;

/// One line of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// What the log's segment holds at a place.
    Bytes { log: LogId, segment: Offset, position: u64, bytes: &'a [u8] },
    /// What was said of this log before counts no more.
    Void { log: LogId },
}

impl Entry<'_> {
    pub fn log(&self) -> LogId {
        match self {
            Entry::Bytes { log, .. } | Entry::Void { log } => *log,
        }
    }
}

/// A batch that is being put together.
pub struct Draft {
    buffer: Vec<u8>,
}

impl Draft {
    /// With room for entries of so many bytes, which it need not be moved for.
    pub fn with_room(entries_bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity((HEADER_BYTES + entries_bytes).next_multiple_of(BLOCK_BYTES as usize));
        buffer.resize(HEADER_BYTES, 0);
        Self { buffer }
    }

    pub fn new() -> Self {
        Self::with_room(0)
    }

    pub fn is_empty(&self) -> bool {
        self.buffer.len() == HEADER_BYTES
    }

    /// What the file must have room for, with `more` bytes in another entry.
    pub fn file_bytes(&self, more: usize) -> u64 {
        (self.buffer.len() + more).next_multiple_of(BLOCK_BYTES as usize) as u64
    }

    /// Adds an entry whose bytes `fill` puts into the buffer it is given; without effect if that fails.
    pub fn push_bytes<E>(
        &mut self,
        log: LogId,
        segment: Offset,
        position: u64,
        bytes: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let before = self.buffer.len();
        self.push_log(KIND_BYTES, log);
        self.buffer.extend_from_slice(&segment.0.to_le_bytes());
        self.buffer.extend_from_slice(&position.to_le_bytes());
        // Parts are bounded far below this by who makes them.
        self.buffer.extend_from_slice(&(bytes as u32).to_le_bytes());
        let from = self.buffer.len();
        self.buffer.resize(from + bytes, 0);
        let filled = fill(&mut self.buffer[from..]);
        if filled.is_err() {
            self.buffer.truncate(before);
        }
        filled
    }

    pub fn push_void(&mut self, log: LogId) {
        self.push_log(KIND_VOID, log);
    }

    fn push_log(&mut self, kind: u8, log: LogId) {
        self.buffer.push(kind);
        self.buffer.extend_from_slice(&log.topic.0);
        self.buffer.extend_from_slice(&log.partition.to_le_bytes());
    }

    /// The batch as it goes to the file.
    pub fn finish(mut self, generation: u64, sequence: u64) -> Vec<u8> {
        let body_bytes = (self.buffer.len() - HEADER_BYTES) as u32;
        let mut put = |at: usize, field: &[u8]| self.buffer[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC);
        put(8, &generation.to_le_bytes());
        put(16, &sequence.to_le_bytes());
        put(24, &body_bytes.to_le_bytes());
        let crc = crc32c::crc32c(&self.buffer[CHECKED_FROM..]);
        self.buffer[4..8].copy_from_slice(&crc.to_le_bytes());
        let padded = self.file_bytes(0) as usize;
        self.buffer.resize(padded, 0);
        self.buffer
    }
}

/// The sound batches of one file: of the generation that its first one has, without a gap.
pub struct Batches<'a> {
    file: &'a [u8],
    at: usize,
    expected: Option<(u64, u64)>,
}

impl<'a> Batches<'a> {
    pub fn of(file: &'a [u8]) -> Self {
        Self { file, at: 0, expected: None }
    }

    /// The file's generation, if it begins with a sound batch.
    pub fn generation(file: &'a [u8]) -> Option<u64> {
        let mut batches = Self::of(file);
        batches.next()?;
        batches.expected.map(|(generation, _)| generation)
    }

    /// The highest generation of any batch that lies in the file, whether or not it is part of what is read.
    pub fn highest_generation(file: &'a [u8]) -> u64 {
        let at_block = |block: usize| {
            let rest = &file[block * BLOCK_BYTES as usize..];
            let header = rest.first_chunk::<HEADER_BYTES>().filter(|header| header[..4] == MAGIC)?;
            let (generation, sequence) = (i64_at(header, 8).cast_unsigned(), i64_at(header, 16).cast_unsigned());
            let mut batch = Self { file: rest, at: 0, expected: Some((generation, sequence)) };
            batch.next().map(|_| generation)
        };
        (0..file.len() / BLOCK_BYTES as usize).filter_map(at_block).max().unwrap_or(0)
    }

    /// Whether a file that begins so holds nothing but an empty batch, followed by none that belongs to it.
    pub fn is_empty(beginning: &'a [u8]) -> bool {
        let mut batches = Self::of(beginning);
        let Some(first) = batches.next() else { return false };
        let Some(next) = beginning.get(batches.at..).and_then(|rest| rest.first_chunk::<HEADER_BYTES>()) else {
            return false;
        };
        let number = (i64_at(next, 8).cast_unsigned(), i64_at(next, 16).cast_unsigned());
        first.is_empty() && (next[..4] != MAGIC || Some(number) != batches.expected)
    }
}

impl<'a> Iterator for Batches<'a> {
    /// The entries, in order.
    type Item = Vec<Entry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.file.get(self.at..)?;
        let header = rest.first_chunk::<HEADER_BYTES>()?;
        let body_bytes = u32_at(header, 24) as usize;
        let whole = rest.get(..HEADER_BYTES.checked_add(body_bytes)?)?;
        if header[..4] != MAGIC || crc32c::crc32c(&whole[CHECKED_FROM..]) != u32_at(header, 4) {
            return None;
        }
        let (generation, sequence) = (i64_at(header, 8).cast_unsigned(), i64_at(header, 16).cast_unsigned());
        if (generation, sequence) != self.expected.unwrap_or((generation, 0)) {
            return None;
        }
        self.expected = Some((generation, sequence + 1));
        self.at += whole.len().next_multiple_of(BLOCK_BYTES as usize);
        entries(&whole[HEADER_BYTES..])
    }
}

/// The entries of a body; `None` if it is none of ours after all.
fn entries(mut body: &[u8]) -> Option<Vec<Entry<'_>>> {
    let mut entries = Vec::new();
    while !body.is_empty() {
        let (head, mut rest) = body.split_at_checked(VOID_BYTES)?;
        let topic = TopicId(*head[1..].first_chunk()?);
        let log = LogId { topic, partition: u32_at(head, 17).cast_signed() };
        let entry = match head[0] {
            KIND_VOID => Entry::Void { log },
            KIND_BYTES => {
                let (place, after) = rest.split_at_checked(ENTRY_BYTES - VOID_BYTES)?;
                let (bytes, after) = after.split_at_checked(u32_at(place, 16) as usize)?;
                rest = after;
                Entry::Bytes {
                    log,
                    segment: Offset(i64_at(place, 0)),
                    position: i64_at(place, 8).cast_unsigned(),
                    bytes,
                }
            }
            _ => return None,
        };
        entries.push(entry);
        body = rest;
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(partition: i32) -> LogId {
        LogId { topic: TopicId([7; 16]), partition }
    }

    fn batch(generation: u64, sequence: u64, bytes: &[u8]) -> Vec<u8> {
        let mut draft = Draft::new();
        let fill = |buffer: &mut [u8]| -> Result<(), ()> {
            buffer.copy_from_slice(bytes);
            Ok(())
        };
        draft.push_bytes(log(1), Offset(40), 9, bytes.len(), fill).expect("it fits");
        draft.push_void(log(2));
        draft.finish(generation, sequence)
    }

    #[test]
    fn batches_are_read_as_they_were_written_up_to_the_first_that_is_torn() {
        let (first, second) = (batch(3, 0, b"one"), batch(3, 1, &[5; 5000]));
        let file = [first.clone(), second.clone()].concat();
        let read: Vec<_> = Batches::of(&file).collect();
        assert_eq!(read.len(), 2);
        let expected = Entry::Bytes { log: log(1), segment: Offset(40), position: 9, bytes: b"one" };
        assert_eq!(read[0], [expected, Entry::Void { log: log(2) }]);
        assert_eq!(Batches::generation(&file), Some(3));
        for at in [0, 5, 9, 17, 30, 40, 100, 4999] {
            let mut torn = file.clone();
            torn[first.len() + at] ^= 1;
            assert_eq!(Batches::of(&torn).count(), 1, "flipped at {at}");
        }
    }

    #[test]
    fn what_an_older_generation_left_is_not_read() {
        let file = [batch(4, 0, b"new"), batch(2, 1, b"old")].concat();
        assert_eq!(Batches::of(&file).count(), 1);
        let gap = [batch(4, 0, b"new"), batch(4, 2, b"later")].concat();
        assert_eq!(Batches::of(&gap).count(), 1);
        assert_eq!(Batches::of(&batch(4, 1, b"no beginning")).count(), 0);
        assert_eq!(Batches::of(&[0; 8192]).count(), 0);
        assert_eq!(Batches::highest_generation(&[batch(4, 0, b"new"), batch(6, 3, b"torn before")].concat()), 6);
    }

    #[test]
    fn a_file_left_empty_is_known_by_its_beginning() {
        let empty = Draft::new().finish(5, 0);
        assert!(Batches::is_empty(&[empty.clone(), batch(3, 1, b"old")].concat()));
        assert!(Batches::is_empty(&[empty.clone(), vec![0; 4096]].concat()));
        assert!(!Batches::is_empty(&[empty.clone(), batch(5, 1, b"first")].concat()));
        assert!(!Batches::is_empty(&batch(5, 0, b"first")));
        assert!(!Batches::is_empty(&empty), "what follows is not known");
    }
}
