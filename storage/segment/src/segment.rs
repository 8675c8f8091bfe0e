//! One segment as its log knows it: what was ordered into it, and how to find it again.
//!
//! Everything here is *logical*: it changes when a call is ordered, under the log's lock; the file follows when the log's
//! writer gets there. So a run's place in its file is known before it is written.

use crate::frame;
use crate::index::{BLOCK_BYTES, Entry};
use chronik_core::ids::{LeaderEpoch, LogId, Offset};
use chronik_core::time::Timestamp;
use chronik_core::wal::SegmentInfo;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The names of a segment.
#[derive(Debug)]
pub struct SegmentFile {
    /// Never used again in this process, unlike the base.
    pub number: u64,
    pub base: Offset,
    /// See [`frame::salt`].
    pub salt: u32,
    dir: Arc<Path>,
}

impl SegmentFile {
    pub fn new(number: u64, log: LogId, base: Offset, dir: Arc<Path>) -> Self {
        Self { number, base, salt: frame::salt(log, base), dir }
    }

    /// File names sort as the offsets do.
    pub fn name(base: Offset) -> String {
        format!("{:020}.log", base.0)
    }

    pub fn index_name(base: Offset) -> String {
        format!("{:020}.index", base.0)
    }

    /// The base that a segment's file name says.
    pub fn base_of(name: &str) -> Option<Offset> {
        let digits = name.strip_suffix(".log")?;
        let base = digits.parse().ok().map(Offset).filter(|base| *base >= Offset::ZERO)?;
        (Self::name(base) == name).then_some(base)
    }

    /// Likewise of its index file's name.
    pub fn base_of_index(name: &str) -> Option<Offset> {
        let digits = name.strip_suffix(".index")?;
        let base = digits.parse().ok().map(Offset).filter(|base| *base >= Offset::ZERO)?;
        (Self::index_name(base) == name).then_some(base)
    }

    pub fn path(&self) -> PathBuf {
        self.dir.join(Self::name(self.base))
    }

    pub fn index_path(&self) -> PathBuf {
        self.dir.join(Self::index_name(self.base))
    }
}

/// What a segment needs to know of a run.
#[derive(Clone, Copy, Debug)]
pub struct Ordered {
    pub base: Offset,
    pub next_offset: Offset,
    pub max_timestamp: Timestamp,
    pub epoch: LeaderEpoch,
    pub frame_bytes: u64,
}

#[derive(Debug)]
pub struct Segment {
    pub file: Arc<SegmentFile>,
    /// Next offset of its last run; its base while it has none.
    pub end: Offset,
    /// Of its frames: where the next one goes.
    pub bytes: u64,
    /// The log's end before its first run.
    pub first_previous_end: Offset,
    /// Where its last run begins.
    pub last_position: u64,
    pub last_epoch: LeaderEpoch,
    pub max_timestamp: Timestamp,
    /// The same over the runs that reach past the log's start.
    pub live_max_timestamp: Timestamp,
    pub sealed: bool,
    /// How much of it an index file covers, and so how much opening need not read.
    pub covered_bytes: u64,
    /// The entries of blocks after that.
    pub recent: Vec<Entry>,
}

impl Segment {
    pub fn new(file: Arc<SegmentFile>, previous_end: Offset) -> Self {
        Self {
            end: file.base,
            file,
            bytes: 0,
            first_previous_end: previous_end,
            last_position: 0,
            last_epoch: LeaderEpoch::default(),
            max_timestamp: Timestamp::NONE,
            live_max_timestamp: Timestamp::NONE,
            sealed: false,
            covered_bytes: 0,
            recent: Vec::new(),
        }
    }

    /// Puts a run at the end, and gives its place in the file.
    pub fn push(&mut self, run: Ordered) -> u64 {
        let position = self.bytes;
        match self.recent.last_mut() {
            Some(block) if position - block.position < BLOCK_BYTES => {
                block.max_timestamp = block.max_timestamp.max(run.max_timestamp);
            }
            _ => self.recent.push(Entry {
                base: run.base,
                max_timestamp: run.max_timestamp,
                position,
                previous: self.last_position,
            }),
        }
        self.end = run.next_offset;
        self.bytes += run.frame_bytes;
        self.last_position = position;
        self.last_epoch = run.epoch;
        self.max_timestamp = self.max_timestamp.max(run.max_timestamp);
        self.live_max_timestamp = self.live_max_timestamp.max(run.max_timestamp);
        position
    }

    pub fn info(&self) -> SegmentInfo {
        SegmentInfo {
            base: self.file.base,
            end: self.end,
            bytes: self.bytes,
            max_timestamp: self.max_timestamp,
            sealed: self.sealed,
        }
    }
}
