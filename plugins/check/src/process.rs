//! P: what a plug-in does as a part of its process, and what outlives what.

use crate::judge::Judge;
use crate::subject::whole;
use chronik_conformance::wal::{Log, everything, run_of};
use chronik_core::ids::Offset;
use chronik_core::pending::{Done, Inbox, Pending, Started};
use chronik_core::time::Timestamp;
use chronik_core::wal::{Run, Survives, WalEngine, WalError};
use chronik_plugin_host::{HostMinor, PluginEngine};
use futures::executor::block_on;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Threads and files that are on their way to be gone get so much time.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);
/// As the contract says.
const RETURNS_WITHIN: Duration = Duration::from_millis(1);
/// Calls of each kind.
const RETURNS_OF: usize = 20;
/// How many logs are opened and closed when leaks are looked for.
const ROUNDS: u8 = 40;
/// Files and threads that may come once and stay, for all logs together: pools grow a little.
const SLACK: usize = 8;

fn place() -> TempDir {
    tempfile::tempdir().unwrap_or_else(|error| panic!("no directory for temporary files: {error}"))
}

fn started(judge: &Judge, directory: &Path) -> PluginEngine {
    judge.subject.start(directory).unwrap_or_else(|error| panic!("{}", whole(&error)))
}

fn closed(engine: &PluginEngine) {
    if let Err(error) = block_on(engine.close()) {
        panic!("the engine does not close: {}", whole(&error));
    }
}

/// A bit of everything.
fn work(engine: &PluginEngine, number: u8) {
    block_on(async {
        let log = Log::open(engine, number).await;
        log.fill(20).await;
        log.sync().await;
        log.read_all(log.state().start).await;
        let put = log.put(&[("key", Some("value"))]).await;
        assert!(put.is_ok(), "setting a value: {put:?}");
        let truncated = log.truncate_prefix(log.state().start.0 + 3).await;
        assert!(truncated.is_ok(), "moving the start: {truncated:?}");
        let closed = log.close().await;
        assert!(closed.is_ok(), "closing a log: {closed:?}");
    });
}

pub(crate) fn loads(judge: &Judge) {
    let place = place();
    let engine = started(judge, &place.path().join("data"));
    closed(&engine);
}

pub(crate) fn newer_host(judge: &Judge) {
    served_by_turns(judge, HostMinor::Later);
}

pub(crate) fn older_host(judge: &Judge) {
    served_by_turns(judge, HostMinor::Earliest);
}

/// This host and one of another minor version take turns over one log: each finds what the other has left, where the engine
/// keeps anything beyond its end.
fn served_by_turns(judge: &Judge, other: HostMinor) {
    let place = place();
    let directory = place.path().join("data");
    let mut kept = 0;
    for turn in 0..4 {
        let minor = if turn % 2 == 0 { other } else { HostMinor::Own };
        let engine = judge.subject.start_by(minor, &directory).unwrap_or_else(|error| panic!("{}", whole(&error)));
        work(&engine, 1);
        block_on(async {
            let log = Log::open(&engine, 2).await;
            let there = log.read_all(log.state().start).await.len();
            assert!(there == kept, "turn {turn}: of {kept} bytes there are {there}");
            log.fill(10).await;
            kept = log.read_all(log.state().start).await.len();
        });
        if engine.capabilities().survives == Survives::Nothing {
            kept = 0;
        }
        closed(&engine);
    }
}

pub(crate) fn buffers_stay(judge: &Judge) {
    let place = place();
    let engine = started(judge, &place.path().join("data"));
    let (log, all) = block_on(async {
        let log = Log::open(&engine, 1).await;
        log.fill(50).await;
        let all = log.read_all(Offset(0)).await.to_bytes().to_vec();
        (log, all)
    });
    let held = block_on(log.read(everything(Offset(0)))).bytes;
    block_on(async {
        log.fill(50).await;
        let reset = log.reset(0).await;
        assert!(reset.is_ok(), "resetting: {reset:?}");
        log.append(run_of(0, 1, 0, 0, 20_000)).await;
        let closed = log.close().await;
        assert!(closed.is_ok(), "closing a log: {closed:?}");
    });
    assert!(held.to_bytes() == all, "what was read has changed by the time its log is reset and closed");
    drop(log);
    closed(&engine);
    drop(engine);
    assert!(held.to_bytes() == all, "what was read has changed by the time its engine is closed");
}

/// What the system says of a thread or of this process, by its names.
fn status(of: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(of.join("status")).unwrap_or_default();
    text.lines().filter_map(|line| line.split_once(':')).map(|(name, is)| (name.into(), is.trim().into())).collect()
}

fn threads() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn number_in(status: &BTreeMap<String, String>, name: &str) -> u64 {
    status.get(name).and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(0)
}

/// Waits until something holds, or panics with the words.
fn settles(mut holds: impl FnMut() -> Result<(), String>) {
    let began = Instant::now();
    loop {
        match holds() {
            Ok(()) => return,
            Err(why) if began.elapsed() > SETTLED_WITHIN => panic!("{why}"),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

pub(crate) fn signals(judge: &Judge) {
    // SIGKILL and SIGSTOP cannot be blocked; of the others those up to 31 are what others send.
    const BLOCKED: u64 = 0x7fff_ffff & !(1 << 8) & !(1 << 18);
    // Ours, by name: threads of a plug-in may have the name of the thread that started them, but those of calls end.
    let place = place();
    let before = threads();
    let engine = started(judge, &place.path().join("data"));
    work(&engine, 1);
    let log = block_on(Log::open(&engine, 2));
    block_on(log.fill(5));
    settles(|| {
        for thread in threads().into_iter().filter(|thread| !before.contains(thread)) {
            let is = status(&thread);
            let name = is.get("Name").cloned().unwrap_or_default();
            let open = BLOCKED & !number_in(&is, "SigBlk");
            if !is.is_empty() && name != "plugin-reaper" && open != 0 {
                return Err(format!("a thread named {name:?} lets signals through (bits {open:#x})"));
            }
        }
        Ok(())
    });
    closed(&engine);
}

pub(crate) fn process_is_left_alone(judge: &Judge) {
    let look = || {
        let is = status(Path::new("/proc/self"));
        let of = |name: &str| is.get(name).cloned().unwrap_or_default();
        let directory = std::env::current_dir().map(|path| path.display().to_string()).unwrap_or_default();
        let children: String =
            threads().iter().filter_map(|task| fs::read_to_string(task.join("children")).ok()).collect();
        [
            ("the working directory", directory),
            ("the umask", of("Umask")),
            ("the locale", chronik_plugin_host::locale()),
            ("signals that are ignored", of("SigIgn")),
            ("signals that are caught", of("SigCgt")),
            ("child processes", children.trim().to_owned()),
        ]
    };
    let place = place();
    // Loading may prepare the process, with handlers of the runtime it brings: what counts is what working does.
    let before = look();
    let engine = started(judge, &place.path().join("data"));
    work(&engine, 1);
    let during = look();
    closed(&engine);
    let after = look();
    for ((what, before), (now, then)) in
        before.iter().zip(during.iter().map(|(_, now)| now).zip(after.iter().map(|(_, then)| then)))
    {
        assert!(before == now && before == then, "{what}: {before:?} before, {now:?} at work, {then:?} after");
    }
}

pub(crate) fn leaks(judge: &Judge) {
    let open_files = || fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let place = place();
    let engine = started(judge, &place.path().join("data"));
    work(&engine, 1);
    let (mut files, mut running) = (usize::MAX, usize::MAX);
    // Threads of calls that have just returned may still be there.
    settles(|| {
        let still = (open_files(), threads().len()) == (files, running);
        (files, running) = (open_files(), threads().len());
        if still { Ok(()) } else { Err("the engine keeps changing its files and threads".to_owned()) }
    });
    for round in 0..ROUNDS {
        work(&engine, 2 + round);
    }
    settles(|| {
        let (more_files, more_threads) = (open_files().saturating_sub(files), threads().len().saturating_sub(running));
        let retained = engine.retained_bytes();
        if more_files <= SLACK && more_threads <= SLACK && retained == 0 {
            return Ok(());
        }
        Err(format!(
            "after {ROUNDS} logs that were closed there are {more_files} more open files, {more_threads} more threads, and \
             {retained} bytes handed out"
        ))
    });
    closed(&engine);
}

pub(crate) fn engines_apart(judge: &Judge) {
    let place = place();
    let one = started(judge, &place.path().join("one"));
    let other = started(judge, &place.path().join("other"));
    block_on(async {
        let (log, another) = (Log::open(&one, 1).await, Log::open(&other, 1).await);
        log.fill(30).await;
        assert_eq!(another.state().end, Offset(0), "a log of one engine grows by appends to another engine's");
        another.fill(7).await;
        assert_eq!(another.read_all(Offset(0)).await.len(), another.read(everything(Offset(0))).await.bytes.len());
        Log::open(&other, 9).await;
        let listed = one.list().await.map(|logs| logs.len());
        assert!(matches!(listed, Ok(1)), "an engine with one log lists {listed:?}");
    });
    closed(&one);
    block_on(async {
        let log = Log::open(&other, 1).await;
        log.fill(5).await;
    });
    closed(&other);
}

/// Looks at how long calls stay inside, also those that are to wait for the disk. The fastest of many counts: a machine with
/// other work makes any of them slow, but not all.
pub(crate) fn returns_soon(judge: &Judge) {
    let place = place();
    let engine = started(judge, &place.path().join("data"));
    let log = block_on(Log::open(&engine, 1));
    let mut fastest = BTreeMap::new();
    for _ in 0..RETURNS_OF {
        let mut inside = |name: &'static str, began: Instant| {
            let took = began.elapsed();
            fastest.entry(name).and_modify(|least: &mut Duration| *least = took.min(*least)).or_insert(took);
        };
        let state = log.state();
        let run = run_of(state.end.0, 1, 0, 0, 16 << 10);
        let began = Instant::now();
        let append = log.order(run);
        inside("append", began);
        log.wal.write_queued();
        let appended = append.map(|append| block_on(append).is_ok());
        assert!(appended.is_ok_and(|done| done), "an append is not written");
        let range = everything(state.start);
        macro_rules! inside {
            ($($name:literal: $call:expr;)*) => {$(
                let began = Instant::now();
                let pending = Pending::start($call);
                inside($name, began);
                if let Err(error) = block_on(pending) {
                    panic!("{} does not work: {}", $name, whole(&error));
                }
            )*};
        }
        inside! {
            "sync": |done| log.wal.sync(state.end + 1, done);
            "read": |done| log.wal.read(range, done);
            "truncate_prefix": |done| log.wal.truncate_prefix(state.end, done);
            "offset_for_timestamp": |done| log.wal.offset_for_timestamp(Timestamp(0), done);
            "meta_put": |done| log.wal.meta_put(vec![("key".into(), Some("value".into()))], done);
            "meta_get": |done| log.wal.meta_get("key", done);
        }
    }
    let slow: Vec<_> = fastest.iter().filter(|(_, least)| **least > RETURNS_WITHIN).collect();
    assert!(slow.is_empty(), "of {RETURNS_OF} calls each, the fastest took so long to return: {slow:?}");
    closed(&engine);
}

/// Takes what calls give that nobody waits for, and counts it.
#[derive(Default)]
struct Unattended {
    begun: AtomicUsize,
    ended: AtomicUsize,
    failed: AtomicUsize,
}

impl<T: Send> Inbox<Result<T, WalError>> for Unattended {
    fn deliver(&self, _token: u64, outcome: Result<T, WalError>) {
        self.failed.fetch_add(usize::from(matches!(outcome, Err(WalError::Failed(_)))), Ordering::SeqCst);
        self.ended.fetch_add(1, Ordering::SeqCst);
    }
}

impl Unattended {
    fn begin<T: Send>(self: &Arc<Self>, call: impl FnOnce(Done<Result<T, WalError>>) -> Started<Result<T, WalError>>) {
        self.begun.fetch_add(1, Ordering::SeqCst);
        if let Started::Now(outcome) = call(Done::new(self.clone(), 0)) {
            self.deliver(0, outcome);
        }
    }

    fn append(self: &Arc<Self>, log: &Log, run: Run) {
        self.begin(|done| log.wal.append(run, done).unwrap_or_else(|_| Started::Now(Err(WalError::Full))));
    }
}

pub(crate) fn cancelled(judge: &Judge) {
    let place = place();
    let engine = started(judge, &place.path().join("data"));
    block_on(async {
        let log = Log::open(&engine, 1).await;
        let calls = Arc::new(Unattended::default());
        for round in 0..200 {
            let base = log.state().end.0;
            calls.append(&log, run_of(base, 1, 0, 0, 300));
            calls.begin(|done| log.wal.sync(Offset(base), done));
            calls.begin(|done| log.wal.read(everything(Offset(0)), done));
            if round % 10 == 0 {
                log.wal.write_queued();
                calls.begin(|done| log.wal.truncate_prefix(Offset(base / 2), done));
            }
        }
        log.wal.write_queued();
        log.sync().await;
        let end = log.state().end;
        assert_eq!(end, Offset(200), "where the log ends");
        for _ in 0..50 {
            calls.begin(|done| log.wal.read(everything(Offset(100)), done));
        }
        let closed = log.close().await;
        let of = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        let (begun, ended, failed) = (of(&calls.begun), of(&calls.ended), of(&calls.failed));
        assert!(closed.is_ok(), "closing a log: {closed:?}");
        assert!(
            ended == begun && failed == 0,
            "the log is closed; of {begun} calls {ended} have ended, {failed} failed"
        );
        let log = Log::open(&engine, 1).await;
        assert_eq!(log.state().end, end, "where the log ends once it is opened again");
        log.read_all(log.state().start).await;
    });
    closed(&engine);
    settles(|| match engine.retained_bytes() {
        0 => Ok(()),
        bytes => Err(format!("{bytes} bytes that nobody reads are still handed out")),
    });
}
