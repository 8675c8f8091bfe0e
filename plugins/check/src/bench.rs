//! A short measurement beside the built-in engines, in the same run: what counts is how they compare, not the numbers.

use crate::Subject;
use crate::subject::whole;
use chronik_conformance::wal::{Log, id, run_of};
use chronik_core::ids::Offset;
use chronik_core::wal::{OpenMode, OpenOptions, ReadRange, Run, WalEngine};
use chronik_storage_memory::MemoryEngine;
use chronik_storage_segment::{SegmentEngine, SegmentOptions};
use futures::executor::block_on;
use std::time::{Duration, Instant};

/// For each engine and kind of work.
const TIME: Duration = Duration::from_millis(700);
/// A batch as a busy producer sends it, and a small one.
const LARGE_BYTES: usize = 64 << 10;
const SMALL_BYTES: usize = 200;
/// A log is emptied when it holds so much: no disk is filled.
const LOG_BYTES_MAX: u64 = 256 << 20;
const SEGMENT_BYTES: u64 = 64 << 20;
/// What is read: large batches, 16 MiB of them.
const READ_BATCHES: usize = 256;

/// What one engine did.
#[derive(Clone, Debug)]
pub struct Measured {
    pub engine: String,
    /// Appends of 64 KiB, one after the other, each waited for until written.
    pub append_mib_per_s: f64,
    /// As above, of 200 bytes.
    pub small_appends_per_s: f64,
    /// An append of 200 bytes and a sync, each waited for.
    pub syncs_per_s: f64,
    /// All of a log, in reads of 1 MiB.
    pub read_mib_per_s: f64,
}

/// Measures the plug-in, `segment` and `memory`.
///
/// # Errors
/// In words, where an engine does not start or work.
pub fn beside_built_in(subject: &Subject, name: &str) -> Result<Vec<Measured>, String> {
    let place = tempfile::tempdir().map_err(|error| error.to_string())?;
    let at = |name: &str| place.path().join(name);
    let plugin = subject.start(&at("plugin")).map_err(|error| whole(&error))?;
    let segment = SegmentEngine::start(at("segment"), SegmentOptions::default()).map_err(|error| whole(&error))?;
    let memory = MemoryEngine::new(LOG_BYTES_MAX * 2);
    Ok(vec![
        measured(format!("plugin {name}"), &plugin)?,
        measured("segment".to_owned(), &segment)?,
        measured("memory".to_owned(), &memory)?,
    ])
}

fn measured(engine: String, wal: &dyn WalEngine) -> Result<Measured, String> {
    let mut bench = Bench::open(wal)?;
    let (count, took) = repeated(|| bench.append(LARGE_BYTES))?;
    let append_mib_per_s = mib(count * LARGE_BYTES as u64) / took;
    // As much for every engine, however fast it is: what is near decides how fast reads are.
    bench.empty()?;
    for _ in 0..READ_BATCHES {
        bench.append(LARGE_BYTES)?;
    }
    let mut bytes = 0;
    let (_, took) = repeated(|| {
        bytes += bench.read(1 << 20)?;
        Ok(())
    })?;
    let read_mib_per_s = mib(bytes) / took;
    let (count, took) = repeated(|| bench.append(SMALL_BYTES))?;
    let small_appends_per_s = count as f64 / took;
    let (count, took) = repeated(|| {
        bench.append(SMALL_BYTES)?;
        bench.sync()
    })?;
    let syncs_per_s = count as f64 / took;
    block_on(wal.close()).map_err(|error| whole(&error))?;
    Ok(Measured { engine, append_mib_per_s, small_appends_per_s, syncs_per_s, read_mib_per_s })
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// How often something could be done, and the seconds it took.
fn repeated(mut work: impl FnMut() -> Result<(), String>) -> Result<(u64, f64), String> {
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < TIME {
        work()?;
        count += 1;
    }
    Ok((count, began.elapsed().as_secs_f64()))
}

/// A log of an engine, and work on it, for whoever measures: each call returns when it is done.
pub struct Bench {
    log: Log,
    /// The bytes are made once for each size: what is measured is the engine.
    made: Option<Run>,
    next_read: Offset,
}

impl Bench {
    /// A new log of its own.
    ///
    /// # Errors
    /// As all of these: in words, where the engine does not work.
    pub fn open(engine: &dyn WalEngine) -> Result<Self, String> {
        let open = OpenOptions { mode: OpenMode::CreateNew, segment_bytes: SEGMENT_BYTES };
        let log = Log { wal: block_on(engine.open(id(1), open)).map_err(|error| whole(&error))? };
        let next_read = log.state().start;
        Ok(Self { log, made: None, next_read })
    }

    /// Appends a batch and waits until it is written; empties the log before it grows too large.
    ///
    /// # Errors
    /// See [`Self::open`].
    pub fn append(&mut self, bytes: usize) -> Result<(), String> {
        if self.log.state().bytes > LOG_BYTES_MAX {
            self.empty()?;
        }
        let end = self.log.state().end;
        let made = self.made.take().filter(|run| run.bytes.len() == bytes);
        let run = made.unwrap_or_else(|| run_of(0, 1, 0, 0, bytes));
        let run = Run { base: end, next_offset: end + 1, ..run };
        self.made = Some(run.clone());
        let ordered = self.log.order(run).map_err(|why| format!("an append was refused: {why}"))?;
        self.log.wal.write_queued();
        block_on(ordered).map(drop).map_err(|error| whole(&error))
    }

    /// Syncs all that was appended.
    ///
    /// # Errors
    /// See [`Self::open`].
    pub fn sync(&self) -> Result<(), String> {
        block_on(self.log.try_sync(self.log.state().end)).map(drop).map_err(|error| whole(&error))
    }

    /// Reads on, so many bytes at most, and from the start again where all has been read; gives how many they were.
    ///
    /// # Errors
    /// See [`Self::open`].
    pub fn read(&mut self, max_bytes: usize) -> Result<u64, String> {
        let state = self.log.state();
        if self.next_read >= state.end || self.next_read < state.start {
            self.next_read = state.start;
        }
        let range = ReadRange { from: self.next_read, upto: Offset(i64::MAX), max_bytes, min_one: true };
        let chunk = block_on(self.log.try_read(range)).map_err(|error| whole(&error))?;
        self.next_read = chunk.next_offset;
        Ok(chunk.bytes.len() as u64)
    }

    /// Empties the log.
    ///
    /// # Errors
    /// See [`Self::open`].
    pub fn empty(&mut self) -> Result<(), String> {
        block_on(self.log.reset(0)).map_err(|error| whole(&error))
    }
}
