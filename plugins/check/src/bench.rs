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
    let open = OpenOptions { mode: OpenMode::CreateNew, segment_bytes: SEGMENT_BYTES };
    let log = Log { wal: block_on(wal.open(id(1), open)).map_err(|error| whole(&error))? };
    let (count, took) = repeated(|| append(&log, LARGE_BYTES))?;
    let append_mib_per_s = mib(count * LARGE_BYTES as u64) / took;
    // As much for every engine, however fast it is: what is near decides how fast reads are.
    block_on(log.reset(0)).map_err(|error| whole(&error))?;
    let read = LARGE_BYTES as u64 * 256;
    for _ in 0..read / LARGE_BYTES as u64 {
        append(&log, LARGE_BYTES)?;
    }
    let mut bytes = 0;
    let mut from = log.state().start;
    let (_, took) = repeated(|| {
        if from >= log.state().end {
            from = log.state().start;
        }
        let range = ReadRange { from, upto: Offset(i64::MAX), max_bytes: 1 << 20, min_one: true };
        let chunk = block_on(log.try_read(range)).map_err(|error| whole(&error))?;
        bytes += chunk.bytes.len() as u64;
        from = chunk.next_offset;
        Ok(())
    })?;
    let read_mib_per_s = mib(bytes) / took;
    let (count, took) = repeated(|| append(&log, SMALL_BYTES))?;
    let small_appends_per_s = count as f64 / took;
    let (count, took) = repeated(|| {
        append(&log, SMALL_BYTES)?;
        block_on(log.try_sync(log.state().end)).map(drop).map_err(|error| whole(&error))
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

/// Appends and waits until it is written; empties the log before it grows too large.
fn append(log: &Log, bytes: usize) -> Result<(), String> {
    let state = log.state();
    if state.bytes > LOG_BYTES_MAX {
        block_on(log.reset(0)).map_err(|error| whole(&error))?;
    }
    // The bytes are made once per size: what is measured is the engine.
    thread_local! {
        static MADE: std::cell::RefCell<Option<Run>> = const { std::cell::RefCell::new(None) };
    }
    let end = log.state().end;
    let run = MADE.with_borrow_mut(|made| {
        let fits = made.as_ref().is_some_and(|run| run.bytes.len() == bytes);
        let run = if fits { made.take() } else { None }.unwrap_or_else(|| run_of(0, 1, 0, 0, bytes));
        let run = Run { base: end, next_offset: end + 1, ..run };
        *made = Some(run.clone());
        run
    });
    let ordered = log.order(run).map_err(|why| format!("an append was refused: {why}"))?;
    log.wal.write_queued();
    block_on(ordered).map(drop).map_err(|error| whole(&error))
}
