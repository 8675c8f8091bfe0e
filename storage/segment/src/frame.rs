//! How a run lies in a segment file: a header of 64 bytes, then the run's bytes as they came.
//!
//! ```text
//!  0 magic        4 header checksum   8 payload bytes   12 payload checksum
//! 16 base        24 next offset      32 previous end    40 durable end
//! 48 max timestamp                   56 epoch           60 zero
//! ```
//!
//! Little-endian. Two checksums (CRC-32C), so that a walk over headers need not read payloads and is still sure of every
//! step; the header's covers the payload's, and begins from a *salt* made of the log and the segment, so that a frame that
//! strayed from another file is not taken for one of ours. A header of zeros has no magic: zeros are the end.
//!
//! **Two fields are there for recovery.** *Previous end* chains the frames: a missing frame or file shows, though offsets
//! may have gaps. *Durable end* is what the log had promised when the frame was written: a bad frame before a good one
//! that knows it as durable is damage, while anything else that is bad at the end is a torn tail.

use chronik_core::crc32c;
use chronik_core::ids::{LeaderEpoch, LogId, Offset};
use chronik_core::payload::Payload;
use chronik_core::time::Timestamp;

pub const HEADER_BYTES: usize = 64;

const MAGIC: [u8; 4] = *b"cRn1";

/// The header's checksum begins here: after itself.
const CHECKED_FROM: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    pub payload_bytes: u32,
    pub payload_crc: u32,
    pub base: Offset,
    pub next_offset: Offset,
    /// The log's end before this run.
    pub previous_end: Offset,
    /// The log's durable end when the frame was written.
    pub durable_end: Offset,
    pub max_timestamp: Timestamp,
    pub epoch: LeaderEpoch,
}

impl FrameHeader {
    /// Header and payload.
    pub fn frame_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.payload_bytes)
    }

    pub fn encode(&self, salt: u32) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC);
        put(8, &self.payload_bytes.to_le_bytes());
        put(12, &self.payload_crc.to_le_bytes());
        put(16, &self.base.0.to_le_bytes());
        put(24, &self.next_offset.0.to_le_bytes());
        put(32, &self.previous_end.0.to_le_bytes());
        put(40, &self.durable_end.0.to_le_bytes());
        put(48, &self.max_timestamp.0.to_le_bytes());
        put(56, &self.epoch.0.to_le_bytes());
        let crc = crc32c::crc32c_append(salt, &bytes[CHECKED_FROM..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header at the beginning of `bytes`, if there is a sound one.
    pub fn decode(bytes: &[u8], salt: u32) -> Option<Self> {
        let bytes = bytes.first_chunk::<HEADER_BYTES>()?;
        if bytes[..4] != MAGIC || crc32c::crc32c_append(salt, &bytes[CHECKED_FROM..]) != u32_at(bytes, 4) {
            return None;
        }
        let header = Self {
            payload_bytes: u32_at(bytes, 8),
            payload_crc: u32_at(bytes, 12),
            base: Offset(i64_at(bytes, 16)),
            next_offset: Offset(i64_at(bytes, 24)),
            previous_end: Offset(i64_at(bytes, 32)),
            durable_end: Offset(i64_at(bytes, 40)),
            max_timestamp: Timestamp(i64_at(bytes, 48)),
            epoch: LeaderEpoch(u32_at(bytes, 56).cast_signed()),
        };
        (header.previous_end <= header.base && header.base < header.next_offset).then_some(header)
    }

    /// The header's own checksum, which stands for the whole frame.
    pub fn crc(bytes: &[u8; HEADER_BYTES]) -> u32 {
        u32_at(bytes, 4)
    }
}

/// Where in `bytes` a header may begin, from `from` on.
pub fn find_magic(bytes: &[u8], from: usize) -> Option<usize> {
    let window = bytes.get(from..)?;
    window.windows(MAGIC.len()).position(|four| four == MAGIC).map(|at| from + at)
}

/// What the header checksums of a segment's frames begin from.
pub fn salt(log: LogId, segment_base: Offset) -> u32 {
    let mut crc = crc32c::crc32c(&log.topic.0);
    crc = crc32c::crc32c_append(crc, &log.partition.to_le_bytes());
    crc32c::crc32c_append(crc, &segment_base.0.to_le_bytes())
}

pub fn payload_crc(payload: &Payload) -> u32 {
    payload.parts().iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part))
}

/// Fixed-width fields at places the caller knows to lie inside.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |field| u32::from_le_bytes(*field))
}

pub fn i64_at(bytes: &[u8], at: usize) -> i64 {
    bytes[at..].first_chunk().map_or(0, |field| i64::from_le_bytes(*field))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FrameHeader {
        FrameHeader {
            payload_bytes: 5,
            payload_crc: 6,
            base: Offset(10),
            next_offset: Offset(12),
            previous_end: Offset(9),
            durable_end: Offset(4),
            max_timestamp: Timestamp(77),
            epoch: LeaderEpoch(3),
        }
    }

    #[test]
    fn a_header_survives_and_any_flipped_bit_is_seen() {
        let bytes = header().encode(1);
        assert_eq!(FrameHeader::decode(&bytes, 1), Some(header()));
        assert_eq!(FrameHeader::decode(&bytes, 2), None, "from another file");
        assert_eq!(FrameHeader::decode(&[0; HEADER_BYTES], 1), None, "zeros are the end");
        for bit in 0..HEADER_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::decode(&damaged, 1), None, "bit {bit}");
        }
    }
}
