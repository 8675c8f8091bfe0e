//! What the engine does on this machine: throughput, what a sync costs, reads, and memory of idle logs.
//!
//! `cargo run --release -p chronik-storage-segment --example measure [-- DIRECTORY [CASE]]`. The defaults in
//! `SegmentOptions` come from this; wall-clock figures of a shared machine vary by a factor of two, ratios within one run
//! less.

use bytes::Bytes;
use chronik_core::ids::{LeaderEpoch, LogId, Offset, TopicId};
use chronik_core::payload::Payload;
use chronik_core::pending::{Done, Inbox, Pending, Started};
use chronik_core::time::Timestamp;
use chronik_core::wal::{OpenMode, OpenOptions, ReadRange, Refused, Run, Wal, WalEngine};
use chronik_storage_segment::{SegmentEngine, SegmentOptions, SyncFilesystem, SyncPolicy};
use futures::executor::block_on;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().unwrap_or_else(|| "target/measure".into()));
    let only = arguments.next();
    let wanted = |case: &str| only.as_deref().is_none_or(|only| only == case);
    if wanted("append") {
        for (batch_bytes, total) in [(1 << 10, 256 << 20), (10_000, 1 << 30), (1 << 20, 2 << 30)] {
            append(&dir, batch_bytes, total)?;
        }
    }
    if wanted("durable") {
        for batch_bytes in [10_000, 64 << 10, 1 << 20] {
            durable(&dir, batch_bytes, 512 << 20)?;
        }
    }
    if wanted("sync") {
        for logs in [1, 4, 8, 16, 64, 1000] {
            let ways = [
                ("fdatasync", SyncFilesystem::Never, 0),
                ("syncfs", SyncFilesystem::Always, 0),
                ("journal", SyncFilesystem::Never, SyncPolicy::default().journal_bytes),
            ];
            for (name, filesystem, journal_bytes) in ways {
                for threads in [4, 8, 16] {
                    if name == "fdatasync" || threads == 4 && logs > 1 {
                        let policy = SyncPolicy {
                            threads,
                            filesystem,
                            filesystem_from_logs: 2,
                            journal_bytes,
                            gather_wait: Duration::ZERO,
                        };
                        for ahead in [0, 256 << 10] {
                            sync(&dir, logs, name, policy, ahead)?;
                        }
                    }
                }
            }
        }
    }
    if wanted("read") {
        read(&dir)?;
    }
    if wanted("idle") {
        idle(&dir)?;
    }
    Ok(())
}

fn id(partition: i32) -> LogId {
    LogId { topic: TopicId([1; 16]), partition }
}

fn fresh(dir: &Path, options: SegmentOptions) -> Result<SegmentEngine, Box<dyn Error>> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    Ok(SegmentEngine::start(dir.to_path_buf(), options)?)
}

fn open(engine: &SegmentEngine, partition: i32) -> Result<Arc<dyn Wal>, Box<dyn Error>> {
    let options = OpenOptions { mode: OpenMode::CreateIfMissing, segment_bytes: 1 << 30 };
    Ok(block_on(engine.open(id(partition), options))?)
}

/// A run of one-kibibyte records, in two pieces as batches come.
fn run(base: i64, bytes: &Bytes) -> Run {
    let payload: Payload = [bytes.slice(..61), bytes.slice(61..)].into_iter().collect();
    Run {
        base: Offset(base),
        next_offset: Offset(base + (bytes.len() as i64 / 1024).max(1)),
        epoch: LeaderEpoch(0),
        max_timestamp: Timestamp(base),
        bytes: payload,
    }
}

/// Seconds of processor time this process has used.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

fn resident_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// Counts completions, and wakes who waits for them.
#[derive(Default)]
struct Count(Mutex<usize>, Condvar);

impl<T> Inbox<T> for Count {
    fn deliver(&self, _token: u64, _outcome: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.1.notify_one();
    }
}

impl Count {
    fn wait(&self, until: usize) {
        let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while *count < until {
            count = self.1.wait(count).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// One caller, written but not durable: what acks=1 costs.
fn append(dir: &Path, batch_bytes: usize, total: usize) -> Outcome {
    let engine = fresh(dir, SegmentOptions::default())?;
    let log = open(&engine, 0)?;
    let bytes = Bytes::from(vec![7; batch_bytes]);
    let count = Arc::new(Count::default());
    let (mut base, batches) = (0, total / batch_bytes);
    let (cpu, start) = (cpu_seconds(), Instant::now());
    for _ in 0..batches {
        // As from a network: each batch is a buffer of its own.
        let run = run(base, &Bytes::copy_from_slice(&bytes));
        base = run.next_offset.0;
        while let Err(rejected) = log.append(run.clone(), Done::new(count.clone(), 0)) {
            assert_eq!(rejected.why, Refused::Busy);
            std::thread::yield_now();
        }
        log.write_queued();
    }
    count.wait(batches);
    let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let gb = total as f64 / 1e9;
    println!(
        "append  {batch_bytes:>8} B   {:>7.0} MB/s  {:>9.0} batches/s  {:.2} CPU s/GB",
        gb * 1e3 / wall,
        batches as f64 / wall,
        cpu / gb
    );
    block_on(engine.close())?;
    Ok(())
}

/// One caller with five batches in flight, each waiting to be durable: what acks=all costs.
fn durable(dir: &Path, batch_bytes: usize, total: usize) -> Outcome {
    let engine = fresh(dir, SegmentOptions::default())?;
    let log = open(&engine, 0)?;
    let bytes = Bytes::from(vec![7; batch_bytes]);
    let written = Arc::new(Count::default());
    let (mut base, batches) = (0, total / batch_bytes);
    let mut flight = std::collections::VecDeque::new();
    let (cpu, start) = (cpu_seconds(), Instant::now());
    for _ in 0..batches {
        let run = run(base, &Bytes::copy_from_slice(&bytes));
        base = run.next_offset.0;
        if log.append(run, Done::new(written.clone(), 0)).is_err() {
            return Err("refused".into());
        }
        log.write_queued();
        flight.push_back(Pending::start(|done| log.sync(Offset(base), done)));
        if flight.len() == 5
            && let Some(first) = flight.pop_front()
        {
            block_on(first)?;
        }
    }
    for sync in flight {
        block_on(sync)?;
    }
    let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let gb = total as f64 / 1e9;
    println!("durable {batch_bytes:>8} B   {:>7.0} MB/s  {:.2} CPU s/GB", gb * 1e3 / wall, cpu / gb);
    block_on(engine.close())?;
    Ok(())
}

/// All logs get 1 KiB and wait to be durable, over and over.
fn sync(dir: &Path, logs: i32, name: &str, policy: SyncPolicy, write_ahead_bytes: u64) -> Outcome {
    let engine = fresh(dir, SegmentOptions { sync: policy, write_ahead_bytes, ..SegmentOptions::default() })?;
    let logs: Vec<_> = (0..logs).map(|partition| open(&engine, partition)).collect::<Result<_, _>>()?;
    let bytes = Bytes::from(vec![7; 1024]);
    let written = Arc::new(Count::default());
    let mut rounds = Vec::new();
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    for round in 0.. {
        if begun.elapsed() > Duration::from_secs(2) && round > 5 {
            break;
        }
        let start = Instant::now();
        let waiting: Vec<_> = logs
            .iter()
            .map(|log| {
                let ordered = log.append(run(round, &bytes), Done::new(written.clone(), 0));
                assert!(ordered.is_ok());
                log.write_queued();
                Pending::start(|done| log.sync(Offset(round + 1), done))
            })
            .collect();
        for sync in waiting {
            block_on(sync)?;
        }
        rounds.push(start.elapsed());
    }
    // The first makes files.
    rounds.remove(0);
    rounds.sort();
    let at = |part: f64| rounds[((rounds.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    let cpu = (cpu_seconds() - cpu) / begun.elapsed().as_secs_f64() * 100.0;
    println!(
        "sync    {:>5} logs  {name:>9} x{:<2} {:>3} KiB ahead  p50 {:>8.3} ms  p99 {:>8.3} ms  {cpu:.0} % CPU",
        logs.len(),
        policy.threads,
        write_ahead_bytes >> 10,
        at(0.5),
        at(0.99)
    );
    block_on(engine.close())?;
    Ok(())
}

fn read(dir: &Path) -> Outcome {
    const TOTAL: i64 = 1 << 20;
    for batch_bytes in [16 << 10, 1 << 20] {
        let engine = fresh(dir, SegmentOptions::default())?;
        let log = open(&engine, 0)?;
        let bytes = Bytes::from(vec![7; batch_bytes]);
        let written = Arc::new(Count::default());
        while log.state().end < Offset(TOTAL) {
            let ordered = log.append(run(log.state().end.0, &bytes), Done::new(written.clone(), 0));
            assert!(ordered.is_ok());
            log.write_queued();
        }
        for (what, tail) in [("page cache", false), ("tail", true), ("device", false)] {
            if what == "device" {
                block_on(engine.close())?;
                drop_page_cache(dir)?;
            }
            let reopened;
            let (engine, log) = match what {
                "device" => {
                    reopened = SegmentEngine::start(dir.to_path_buf(), SegmentOptions::default())?;
                    (&reopened, open(&reopened, 0)?)
                }
                _ => (&engine, log.clone()),
            };
            let from = if tail { log.state().end.0 - (16 << 10) } else { 0 };
            let repeats = if tail { 200 } else { 1 };
            let inline = AtomicUsize::new(0);
            let (mut total, mut calls) = (0, 0);
            let (cpu, start) = (cpu_seconds(), Instant::now());
            for _ in 0..repeats {
                let mut at = Offset(from);
                while at < log.state().end {
                    let range = ReadRange { from: at, upto: log.state().end, max_bytes: 1 << 20, min_one: true };
                    let chunk = block_on(Pending::start(|done| {
                        let started = log.read(range, done);
                        inline.fetch_add(usize::from(matches!(started, Started::Now(_))), Ordering::Relaxed);
                        started
                    }))?;
                    at = chunk.next_offset;
                    total += chunk.bytes.len();
                    calls += 1;
                }
            }
            let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
            let gb = total as f64 / 1e9;
            let inline = inline.into_inner() * 100 / calls.max(1);
            println!(
                "read    {batch_bytes:>8} B   {what:>10}  {:>7.0} MB/s  {:.3} CPU s/GB  {inline} % at once",
                gb * 1e3 / wall,
                cpu / gb
            );
            if what == "device" {
                block_on(engine.close())?;
            }
        }
    }
    Ok(())
}

fn drop_page_cache(dir: &Path) -> Outcome {
    for log in fs::read_dir(dir)? {
        let log = log?.path();
        if log.is_dir() {
            for file in fs::read_dir(log)? {
                let file = fs::File::open(file?.path())?;
                file.sync_all()?;
                rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
            }
        }
    }
    Ok(())
}

fn idle(dir: &Path) -> Outcome {
    let before = resident_mib();
    let engine = fresh(dir, SegmentOptions::default())?;
    let start = Instant::now();
    let logs: Vec<_> = (0..1000).map(|partition| open(&engine, partition)).collect::<Result<_, _>>()?;
    println!("idle    1000 logs made in {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    println!("idle    1000 empty logs      {:.1} MiB", resident_mib() - before);
    let bytes = Bytes::from(vec![7; 10_000]);
    let written = Arc::new(Count::default());
    for log in &logs {
        for batch in 0..10 {
            let ordered = log.append(run(batch * 9, &Bytes::copy_from_slice(&bytes)), Done::new(written.clone(), 0));
            assert!(ordered.is_ok());
        }
        log.write_queued();
    }
    println!("idle    after 100 MB in all  {:.1} MiB, {} files", resident_mib() - before, engine.open_files());
    drop(logs);
    let start = Instant::now();
    block_on(engine.close())?;
    println!("idle    closed in            {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    drop(engine);
    let (before, start) = (resident_mib(), Instant::now());
    let engine = SegmentEngine::start(dir.to_path_buf(), SegmentOptions::default())?;
    let logs: Vec<_> = (0..1000).map(|partition| open(&engine, partition)).collect::<Result<_, _>>()?;
    let opened = start.elapsed().as_secs_f64() * 1e3;
    println!(
        "idle    opened in            {opened:.0} ms, {:.1} MiB more, {} files",
        resident_mib() - before,
        engine.open_files()
    );
    drop(logs);
    block_on(engine.close())?;
    Ok(())
}
