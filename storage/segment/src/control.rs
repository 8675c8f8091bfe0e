//! The small file beside a log's segments: where the log starts, the values kept with it, and what was begun.
//!
//! Replaced whole, so each write of it is one atomic step. A change of several files (cutting across segments, a reset)
//! is first written here as an *intent*, then done, then the intent is taken back; opening a log finishes what it finds.
//! A log that never needed any of this has no such file.

use crate::disk::{Disk, Durable, read_small, replace};
use crate::frame::{i64_at, u32_at};
use bytes::Bytes;
use chronik_core::crc32c;
use chronik_core::ids::{LeaderEpoch, Offset};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

const FILE: &str = "control";
const MAGIC: [u8; 4] = *b"cRc1";
const FIXED_BYTES: usize = 37;

/// What the values of one log may come to, keys included: they are written whole each time.
pub const VALUES_BYTES_MAX: usize = 1 << 20;

/// The file's size can not exceed the values' by more than lengths and fixed fields do.
const FILE_BYTES_MAX: usize = 8 * VALUES_BYTES_MAX;

/// A change of several files that must be finished once begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Runs that reach past this offset are to go.
    Cut(Offset),
    /// Every run is to go.
    Reset,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    pub start: Offset,
    /// What to answer for the last epoch when no run reaches past `start`.
    pub epoch_before_start: LeaderEpoch,
    pub intent: Option<Intent>,
    pub values: BTreeMap<String, Bytes>,
}

impl Control {
    /// What the log's directory says; the default if it says nothing. [`io::ErrorKind::InvalidData`] if it is damaged.
    pub fn load(disk: &dyn Disk, dir: &Path) -> io::Result<Self> {
        let Some(bytes) = read_small(disk, &dir.join(FILE), FILE_BYTES_MAX)? else { return Ok(Self::default()) };
        Self::decode(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the control file is damaged"))
    }

    /// Durable on return.
    pub fn store(&self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        replace(disk, dir, FILE, &self.encode(), Durable::Now)
    }

    /// Bytes of keys and values.
    pub fn values_bytes(&self) -> usize {
        self.values.iter().map(|(key, value)| key.len() + value.len()).sum()
    }

    fn encode(&self) -> Vec<u8> {
        let (tag, offset) = match self.intent {
            None => (0, Offset::ZERO),
            Some(Intent::Cut(from)) => (1, from),
            Some(Intent::Reset) => (2, Offset::ZERO),
        };
        let mut bytes = Vec::with_capacity(FIXED_BYTES + self.values_bytes() + 8 * self.values.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.start.0.to_le_bytes());
        bytes.extend_from_slice(&self.epoch_before_start.0.to_le_bytes());
        bytes.push(tag);
        bytes.extend_from_slice(&offset.0.to_le_bytes());
        bytes.extend_from_slice(&(self.values.len() as u64).to_le_bytes());
        for (key, value) in &self.values {
            for field in [key.as_bytes(), value] {
                bytes.extend_from_slice(&(field.len() as u32).to_le_bytes());
                bytes.extend_from_slice(field);
            }
        }
        let crc = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < FIXED_BYTES || bytes[..4] != MAGIC || crc32c::crc32c(&bytes[8..]) != u32_at(bytes, 4) {
            return None;
        }
        let offset_at = |at| Some(Offset(i64_at(bytes, at))).filter(|offset| *offset >= Offset::ZERO);
        let start = offset_at(8)?;
        let intent = match bytes[20] {
            0 => None,
            1 => Some(Intent::Cut(offset_at(21)?)),
            2 => Some(Intent::Reset),
            _ => return None,
        };
        let mut rest = &bytes[FIXED_BYTES..];
        let mut field = || {
            let (length, after) = rest.split_first_chunk()?;
            let (field, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = after;
            Some(field)
        };
        let mut values = BTreeMap::new();
        for _ in 0..i64_at(bytes, 29) {
            let key = String::from_utf8(field()?.to_vec()).ok()?;
            values.insert(key, Bytes::copy_from_slice(field()?));
        }
        if !rest.is_empty() {
            return None;
        }
        let epoch_before_start = LeaderEpoch(u32_at(bytes, 16).cast_signed());
        Some(Self { start, epoch_before_start, intent, values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_log_starts_or_is_cut_before_the_first_offset_and_nothing_follows_the_values() {
        let of = |start: i64, cut: i64| Control {
            start: Offset(start),
            intent: Some(Intent::Cut(Offset(cut))),
            ..Control::default()
        };
        assert!(Control::decode(&of(0, 0).encode()).is_some());
        assert_eq!(Control::decode(&of(-1, 0).encode()), None);
        assert_eq!(Control::decode(&of(0, i64::MIN).encode()), None);
        let mut longer = of(0, 0).encode();
        longer.push(0);
        let crc = crc32c::crc32c(&longer[8..]);
        longer[4..8].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Control::decode(&longer), None);
    }

    #[test]
    fn a_control_file_survives_and_damage_is_seen() {
        let control = Control {
            start: Offset(7),
            epoch_before_start: LeaderEpoch(-3),
            intent: Some(Intent::Cut(Offset(9))),
            values: [("vote".into(), Bytes::from_static(b"1")), ("".into(), Bytes::new())].into(),
        };
        let bytes = control.encode();
        assert_eq!(Control::decode(&bytes), Some(control));
        assert_eq!(Control::decode(&Control::default().encode()), Some(Control::default()));
        for at in 0..bytes.len() {
            assert_eq!(Control::decode(&bytes[..at]), None, "cut at {at}");
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(Control::decode(&damaged), None, "flipped at {at}");
        }
    }
}
