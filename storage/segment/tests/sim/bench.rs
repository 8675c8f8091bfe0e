//! A log on a simulated disk, driven step by step.

use super::{SimDisk, SimThreads};
use chronik_conformance::wal::{Log, run_of};
use chronik_core::ids::{LogId, Offset};
use chronik_core::payload::Payload;
use chronik_core::pending::Pending;
use chronik_core::wal::{EngineError, OpenMode, OpenOptions, ReadRange, Refused, Run, WalError};
use chronik_storage_segment::{SegmentEngine, SegmentOptions};
use std::path::PathBuf;
use std::sync::Arc;

pub fn options() -> SegmentOptions {
    // Nothing stays in memory: every read is one of the disk.
    SegmentOptions { tail_cache_bytes: 0, open_files_max: 8, write_ahead_bytes: 700, ..SegmentOptions::default() }
}

/// The one log of these tests, and where its files are.
pub const LOG: LogId = LogId { topic: chronik_core::ids::TopicId([7; 16]), partition: 0 };

pub fn path(name: &str) -> PathBuf {
    PathBuf::from(LOG.to_string()).join(name)
}

pub struct Bench {
    pub disk: SimDisk,
    pub threads: SimThreads,
    pub engine: SegmentEngine,
    pub log: Log,
}

impl Bench {
    pub fn open(disk: &SimDisk, seed: u64) -> Result<Self, EngineError> {
        Self::open_with(disk, seed, options())
    }

    pub fn open_with(disk: &SimDisk, seed: u64, options: SegmentOptions) -> Result<Self, EngineError> {
        use chronik_core::wal::WalEngine;
        let threads = SimThreads::new(seed);
        let engine = SegmentEngine::over(Arc::new(disk.clone()), Arc::new(threads.clone()), options);
        let engine = engine.map_err(|error| EngineError::Io {
            doing: "starting".into(),
            source: chronik_core::wal::Cause::new(error),
        })?;
        let how = OpenOptions { mode: OpenMode::CreateIfMissing, segment_bytes: 2000 };
        let wal = threads.drive(engine.open(LOG, how))?;
        Ok(Self { disk: disk.clone(), threads, engine, log: Log { wal } })
    }

    /// Orders a run and has it written.
    pub fn append(&self, run: Run) -> Result<(), Failure> {
        let ordered = self.log.order(run).map_err(Failure::Refused)?;
        self.log.wal.write_queued();
        self.threads.drive(ordered).map(|_| ()).map_err(Failure::Failed)
    }

    pub fn sync(&self) -> Result<Offset, WalError> {
        self.threads.drive(self.log.try_sync(self.log.state().end))
    }

    pub fn truncate_suffix(&self, from: i64) -> Result<(), WalError> {
        self.threads.drive(self.log.truncate_suffix(from))
    }

    pub fn truncate_prefix(&self, upto: i64) -> Result<(), WalError> {
        self.threads.drive(self.log.truncate_prefix(upto))
    }

    pub fn close(&self) -> Result<(), WalError> {
        self.threads.drive(self.log.close())
    }

    /// Runs from `from` on, one read after the other, up to the end or the first error.
    pub fn read_from(&self, from: Offset) -> (Payload, Offset, Option<WalError>) {
        let (mut all, mut at, end) = (Payload::new(), from, self.log.state().end);
        while at < end {
            let range = ReadRange { from: at, upto: end, max_bytes: 700, min_one: true };
            let started = Pending::start(|done| self.log.wal.read(range, done));
            match self.threads.drive(started) {
                Ok(chunk) => {
                    assert!(chunk.next_offset > at, "a read below the end gives something");
                    at = chunk.next_offset;
                    all.append(chunk.bytes);
                }
                Err(error) => return (all, at, Some(error)),
            }
        }
        (all, at, None)
    }

    /// `count` runs of mixed sizes from the end on.
    pub fn fill(&self, count: i64) -> Vec<Run> {
        let sizes = [10, 0, 300, 64, 1, 129, 700, 40];
        let mut runs = Vec::new();
        for number in 0..count {
            let base = self.log.state().end.0;
            let run = run_of(base, 1 + number % 3, 0, base, sizes[number as usize % sizes.len()]);
            self.append(run.clone()).expect("the disk is sound");
            runs.push(run);
        }
        runs
    }
}

#[derive(Debug)]
pub enum Failure {
    Refused(Refused),
    Failed(WalError),
}

/// What runs read as.
pub fn bytes_of(runs: &[Run]) -> Payload {
    runs.iter().flat_map(|run| run.bytes.clone()).collect()
}
