//! Whether there is room: on the device, so that a lack of it is known before an append is ordered, and in memory for what
//! waits to be written.
//!
//! The device's free space is sampled now and then, and what is ordered counted against the sample. Others may use the
//! device too, so a write can still find it full: then the log keeps what it has ordered, tries again later, and the whole
//! engine answers "full" until one such write goes through.

use crate::disk::Disk;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// Sample again after so many bytes were ordered.
const SAMPLE_BYTES: u64 = 64 << 20;

/// Below this, sample after every write.
const SCARCE_BYTES: i64 = 256 << 20;

pub struct Room {
    unwritten_bytes: AtomicU64,
    unwritten_bytes_max: u64,
    free_bytes_min: u64,
    /// Of the device, less what must stay free, less what was ordered since it was sampled.
    left_bytes: AtomicI64,
    since_sample_bytes: AtomicU64,
    /// A write found the device full, and none has gone through since.
    stuck: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    Device,
    Memory,
}

impl Room {
    pub fn new(unwritten_bytes_max: u64, free_bytes_min: u64) -> Self {
        Self {
            unwritten_bytes: AtomicU64::new(0),
            unwritten_bytes_max,
            free_bytes_min,
            left_bytes: AtomicI64::new(0),
            since_sample_bytes: AtomicU64::new(0),
            stuck: AtomicBool::new(false),
        }
    }

    pub fn unwritten_bytes(&self) -> u64 {
        self.unwritten_bytes.load(Ordering::Relaxed)
    }

    /// Takes room for a frame about to be ordered.
    pub fn take(&self, frame_bytes: u64) -> Result<(), NoRoom> {
        if self.stuck.load(Ordering::Relaxed) {
            return Err(NoRoom::Device);
        }
        // One frame is always let in: it may be larger than the bound by itself.
        let more =
            |held: u64| (held == 0 || held + frame_bytes <= self.unwritten_bytes_max).then_some(held + frame_bytes);
        if self.unwritten_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            return Err(NoRoom::Memory);
        }
        let bytes = i64::try_from(frame_bytes).unwrap_or(i64::MAX);
        if self.left_bytes.fetch_sub(bytes, Ordering::Relaxed) < bytes {
            self.left_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.unwritten_bytes.fetch_sub(frame_bytes, Ordering::Relaxed);
            return Err(NoRoom::Device);
        }
        self.since_sample_bytes.fetch_add(frame_bytes, Ordering::Relaxed);
        Ok(())
    }

    /// What was ordered is written, or never will be.
    pub fn give_back(&self, frame_bytes: u64) {
        self.unwritten_bytes.fetch_sub(frame_bytes, Ordering::Relaxed);
    }

    pub fn set_stuck(&self, stuck: bool) {
        self.stuck.store(stuck, Ordering::Relaxed);
    }

    /// Asks the device, if it is time to. Called after writes, without locks.
    pub fn sample_if_due(&self, disk: &dyn Disk) {
        let since = self.since_sample_bytes.load(Ordering::Relaxed);
        if since > SAMPLE_BYTES || since > 0 && self.left_bytes.load(Ordering::Relaxed) < SCARCE_BYTES {
            self.sample(disk);
        }
    }

    /// Asks the device. One that does not say counts as having room: its writes will tell.
    pub fn sample(&self, disk: &dyn Disk) {
        self.since_sample_bytes.store(0, Ordering::Relaxed);
        let free = disk.space().map_or(u64::MAX, |space| space.free);
        let left = free.saturating_sub(self.free_bytes_min).saturating_sub(self.unwritten_bytes());
        self.left_bytes.store(i64::try_from(left).unwrap_or(i64::MAX), Ordering::Relaxed);
    }
}
