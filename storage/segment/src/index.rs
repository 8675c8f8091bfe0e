//! Where in a segment's file its runs lie: one entry per block of runs, and the file that keeps the entries.
//!
//! A block begins at an entry's run and ends where the next entry begins. What the last index file covers need not be in
//! memory: a log keeps only the entries after that, and readers fetch the file's when they go there.
//!
//! **An index file is a certificate.** It is written only after what it covers was made durable, so opening a log after a
//! crash reads and checks only what no index file covers. It names the last frame it covers by position and checksum, so
//! that damage there shows at once. It need not be durable itself: a file that is missing or torn is ignored, one that is
//! old covers less. It is removed, durably, before what it covers is.

use crate::frame::{i64_at, u32_at};
use chronik_core::crc32c;
use chronik_core::ids::Offset;
use chronik_core::time::Timestamp;

/// Bytes of a block, unless a single run is larger. A look-up walks headers of half a block on average; an entry costs
/// 32 bytes, so a segment of 1 GiB needs 256 KiB of them, read only when a reader starts anew in a sealed segment.
pub const BLOCK_BYTES: u64 = 128 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Base of the block's first run.
    pub base: Offset,
    /// Greatest timestamp of the block's runs.
    pub max_timestamp: Timestamp,
    /// Where in the file the block begins.
    pub position: u64,
    /// Where the run before the block begins, so that a file covering all before the block can name its last frame.
    pub previous: u64,
}

/// The last entry that begins at or before `offset`.
pub fn block_of(entries: &[Entry], offset: Offset) -> Option<usize> {
    entries.partition_point(|entry| entry.base <= offset).checked_sub(1)
}

/// What an index file says of the part of the segment that it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covered {
    /// From the segment's beginning; all of it durable.
    pub bytes: u64,
    /// The log's end before the segment's first run.
    pub first_previous_end: Offset,
    pub max_timestamp: Timestamp,
    /// Where the last frame covered begins …
    pub last_position: u64,
    /// … and its header's checksum.
    pub last_crc: u32,
}

const MAGIC: [u8; 4] = *b"cRi1";
const SUMMARY_BYTES: usize = 56;
const ENTRY_BYTES: usize = 32;

pub fn encode(covered: &Covered, entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SUMMARY_BYTES + entries.len() * ENTRY_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&covered.last_crc.to_le_bytes());
    bytes.extend_from_slice(&covered.bytes.to_le_bytes());
    bytes.extend_from_slice(&covered.first_previous_end.0.to_le_bytes());
    bytes.extend_from_slice(&covered.max_timestamp.0.to_le_bytes());
    bytes.extend_from_slice(&covered.last_position.to_le_bytes());
    bytes.extend_from_slice(&(entries.len() as u64).to_le_bytes());
    for entry in entries {
        bytes.extend_from_slice(&entry.base.0.to_le_bytes());
        bytes.extend_from_slice(&entry.max_timestamp.0.to_le_bytes());
        bytes.extend_from_slice(&entry.position.to_le_bytes());
        bytes.extend_from_slice(&entry.previous.to_le_bytes());
    }
    // The summary has a checksum of its own, so that opening a log need not read the entries.
    let entries_crc = crc32c::crc32c(&bytes[SUMMARY_BYTES..]);
    bytes[8..12].copy_from_slice(&entries_crc.to_le_bytes());
    let summary_crc = crc32c::crc32c(&bytes[8..SUMMARY_BYTES]);
    bytes[4..8].copy_from_slice(&summary_crc.to_le_bytes());
    bytes
}

/// Bytes that [`decode_summary`] needs of an index file.
pub const SUMMARY_READ_BYTES: usize = SUMMARY_BYTES;

pub fn decode_summary(bytes: &[u8]) -> Option<Covered> {
    let bytes = bytes.first_chunk::<SUMMARY_BYTES>()?;
    if bytes[..4] != MAGIC || crc32c::crc32c(&bytes[8..]) != u32_at(bytes, 4) {
        return None;
    }
    Some(Covered {
        last_crc: u32_at(bytes, 12),
        bytes: i64_at(bytes, 16).cast_unsigned(),
        first_previous_end: Offset(i64_at(bytes, 24)),
        max_timestamp: Timestamp(i64_at(bytes, 32)),
        last_position: i64_at(bytes, 40).cast_unsigned(),
    })
}

pub fn decode(bytes: &[u8]) -> Option<(Covered, Vec<Entry>)> {
    let covered = decode_summary(bytes)?;
    let entries = &bytes[SUMMARY_BYTES..];
    let count = i64_at(bytes, 48).cast_unsigned();
    if entries.len() as u64 != count.checked_mul(ENTRY_BYTES as u64)? || crc32c::crc32c(entries) != u32_at(bytes, 8) {
        return None;
    }
    let entry = |bytes: &[u8]| Entry {
        base: Offset(i64_at(bytes, 0)),
        max_timestamp: Timestamp(i64_at(bytes, 8)),
        position: i64_at(bytes, 16).cast_unsigned(),
        previous: i64_at(bytes, 24).cast_unsigned(),
    };
    let entries: Vec<Entry> = entries.chunks_exact(ENTRY_BYTES).map(entry).collect();
    is_sound(&covered, &entries).then_some((covered, entries))
}

/// Whether the blocks cover what they must, one after the other. Readers go by it; of what is not so they would ask for
/// ranges that end before they begin.
fn is_sound(covered: &Covered, entries: &[Entry]) -> bool {
    let begins = entries.first().is_some_and(|first| first.position == 0);
    let follow = entries.windows(2).all(|two| two[0].position < two[1].position && two[0].base < two[1].base);
    begins && follow && entries.last().is_some_and(|last| last.position < covered.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_do_not_follow_each_other_are_no_index() {
        let covered = Covered {
            bytes: 400,
            first_previous_end: Offset(0),
            max_timestamp: Timestamp(9),
            last_position: 300,
            last_crc: 77,
        };
        let entry = |base: i64, position: u64| Entry {
            base: Offset(base),
            max_timestamp: Timestamp(9),
            position,
            previous: position.saturating_sub(1),
        };
        let is_read = |entries: &[Entry]| decode(&encode(&covered, entries)).is_some();
        assert!(is_read(&[entry(5, 0), entry(6, 100)]));
        assert!(!is_read(&[]), "nothing is covered by nothing");
        assert!(!is_read(&[entry(5, 10), entry(6, 100)]), "the first bytes");
        assert!(!is_read(&[entry(5, 0), entry(6, 300), entry(7, 100)]));
        assert!(!is_read(&[entry(5, 0), entry(5, 100)]));
        assert!(!is_read(&[entry(5, 0), entry(6, 400)]), "beyond what is covered");
    }

    #[test]
    fn an_index_file_survives_and_damage_is_seen() {
        let covered = Covered {
            bytes: 400,
            first_previous_end: Offset(3),
            max_timestamp: Timestamp(9),
            last_position: 300,
            last_crc: 77,
        };
        let entry = |at: u64| Entry {
            base: Offset(5 + at as i64),
            max_timestamp: Timestamp(9),
            position: at,
            previous: at.wrapping_sub(1),
        };
        let entries = vec![entry(0), entry(100)];
        let bytes = encode(&covered, &entries);
        assert_eq!(decode(&bytes), Some((covered, entries)));
        for at in 0..bytes.len() {
            assert_eq!(decode(&bytes[..at]), None, "cut at {at}");
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged), None, "flipped at {at}");
        }
    }
}
