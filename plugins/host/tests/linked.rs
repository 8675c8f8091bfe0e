//! The boundary without a library: a plug-in that is part of this program, made by the SDK over the engine in memory.
//!
//! That is the whole contract once more, and it is what tools can look into that know only Rust. Miri judges the unsafe code
//! of both sides by it: `cargo +nightly miri test -p chronik-plugin-host --test linked` (see plugins/README.md).

use async_trait::async_trait;
use bytes::Bytes;
use chronik_conformance::wal::{Directory, Log, everything, id, run_of};
use chronik_core::ids::{LogId, Offset};
use chronik_core::pending::{Done, Inbox, Pending, Started};
use chronik_core::time::Timestamp;
use chronik_core::wal::{
    Appended, Capabilities, Chunk, EngineError, LogState, OpenMode, OpenOptions, ReadRange, Rejected, Run, Segmented,
    Usage, Wal, WalEngine, WalError,
};
use chronik_plugin_host::{HostMinor, PluginEngine, PluginOptions};
use chronik_plugin_sdk::abi::{ck_host, ck_plugin};
use chronik_plugin_sdk::{Author, Table, enter};
use chronik_storage_memory::MemoryEngine;
use futures::executor::block_on;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

/// More than any rule stores.
const MEMORY_BYTES: u64 = 16 << 20;

type Answer<T> = Result<T, WalError>;

struct Memory;

impl Author for Memory {
    const NAME: &'static str = "memory";
    const VERSION: &'static str = "1";
    const SEGMENTS: bool = true;
    type Engine = Later;

    fn start(_: &Path, options: &str) -> Result<Later, String> {
        let (complete, outcomes) = channel::<Outcome>();
        chronik_plugin_sdk::spawn("completes", move || outcomes.into_iter().for_each(|outcome| outcome()))
            .map_err(|why| why.to_string())?;
        let complete = options.contains("later").then_some(complete);
        Ok(Later { engine: MemoryEngine::new(MEMORY_BYTES), complete })
    }
}

/// What completes a call.
type Outcome = Box<dyn FnOnce() + Send>;

/// The engine in memory, which completes its calls at once, or as it is told on another thread.
struct Later {
    engine: MemoryEngine,
    complete: Option<Sender<Outcome>>,
}

struct LaterLog {
    log: Arc<dyn Wal>,
    complete: Sender<Outcome>,
    /// Of the one test that counts.
    is_counted: bool,
}

/// Logs from this number on are counted while they are there.
const COUNTED_FROM: i32 = 200;
static COUNTED: AtomicUsize = AtomicUsize::new(0);

impl Drop for LaterLog {
    fn drop(&mut self) {
        COUNTED.fetch_sub(usize::from(self.is_counted), Ordering::SeqCst);
    }
}

impl LaterLog {
    fn put_off<T: Send + 'static>(&self, done: Done<T>, call: impl FnOnce(Done<T>) -> Started<T>) -> Started<T> {
        struct Nobody;
        impl<T: Send> Inbox<T> for Nobody {
            fn deliver(&self, _: u64, _: T) {
                unreachable!("the engine in memory completes its calls at once");
            }
        }
        let Started::Now(outcome) = call(Done::new(Arc::new(Nobody), 0)) else { return Started::Later };
        self.complete.send(Box::new(move || done.complete(outcome))).expect("the thread lives as long as the engine");
        Started::Later
    }
}

#[async_trait]
impl WalEngine for Later {
    fn capabilities(&self) -> Capabilities {
        self.engine.capabilities()
    }
    async fn open(&self, id: LogId, options: OpenOptions) -> Result<Arc<dyn Wal>, EngineError> {
        let log = self.engine.open(id, options).await?;
        Ok(match &self.complete {
            Some(complete) => {
                let is_counted = id.partition >= COUNTED_FROM;
                COUNTED.fetch_add(usize::from(is_counted), Ordering::SeqCst);
                Arc::new(LaterLog { log, complete: complete.clone(), is_counted })
            }
            None => log,
        })
    }
    async fn list(&self) -> Result<Vec<LogId>, EngineError> {
        self.engine.list().await
    }
    async fn delete(&self, id: LogId) -> Result<(), EngineError> {
        self.engine.delete(id).await
    }
    fn usage(&self) -> Usage {
        self.engine.usage()
    }
    async fn close(&self) -> Result<(), EngineError> {
        self.engine.close().await
    }
}

impl Wal for LaterLog {
    fn state(&self) -> LogState {
        self.log.state()
    }
    fn append(&self, run: Run, done: Done<Answer<Appended>>) -> Result<Started<Answer<Appended>>, Box<Rejected>> {
        let mut rejected = None;
        let started = self.put_off(done, |done| {
            self.log.append(run, done).unwrap_or_else(|why| {
                rejected = Some(why);
                Started::Later
            })
        });
        rejected.map_or(Ok(started), Err)
    }
    fn sync(&self, upto: Offset, done: Done<Answer<Offset>>) -> Started<Answer<Offset>> {
        self.put_off(done, |done| self.log.sync(upto, done))
    }
    fn read(&self, range: ReadRange, done: Done<Answer<Chunk>>) -> Started<Answer<Chunk>> {
        self.put_off(done, |done| self.log.read(range, done))
    }
    fn truncate_suffix(&self, from: Offset, done: Done<Answer<()>>) -> Started<Answer<()>> {
        self.put_off(done, |done| self.log.truncate_suffix(from, done))
    }
    fn truncate_prefix(&self, upto: Offset, done: Done<Answer<()>>) -> Started<Answer<()>> {
        self.put_off(done, |done| self.log.truncate_prefix(upto, done))
    }
    fn reset(&self, start: Offset, done: Done<Answer<()>>) -> Started<Answer<()>> {
        self.put_off(done, |done| self.log.reset(start, done))
    }
    fn offset_for_timestamp(
        &self,
        time: Timestamp,
        done: Done<Answer<Option<Offset>>>,
    ) -> Started<Answer<Option<Offset>>> {
        self.put_off(done, |done| self.log.offset_for_timestamp(time, done))
    }
    fn meta_put(&self, entries: Vec<(String, Option<Bytes>)>, done: Done<Answer<()>>) -> Started<Answer<()>> {
        self.put_off(done, |done| self.log.meta_put(entries, done))
    }
    fn meta_get(&self, key: &str, done: Done<Answer<Option<Bytes>>>) -> Started<Answer<Option<Bytes>>> {
        self.put_off(done, |done| self.log.meta_get(key, done))
    }
    fn segmented(&self) -> Option<&dyn Segmented> {
        self.log.segmented()
    }
    fn close(&self, done: Done<Answer<()>>) -> Started<Answer<()>> {
        self.put_off(done, |done| self.log.close(done))
    }
}

unsafe extern "C" fn entry(host: *const ck_host) -> *const ck_plugin {
    static TABLE: Table = Table::of::<Memory>();
    enter(host, &TABLE)
}

fn start_by(minor: HostMinor, options: &str, directory: &Path) -> PluginEngine {
    let options = options.to_owned();
    let options = PluginOptions { minor, options, ..PluginOptions::new("/linked".into(), directory.to_owned()) };
    // SAFETY: the table is a static of this program, and the SDK keeps the contract.
    unsafe { PluginEngine::start_linked(entry, options) }.expect("it starts")
}

fn start(directory: &Path) -> Arc<dyn WalEngine> {
    Arc::new(start_by(HostMinor::Own, "later", directory))
}

chronik_conformance::wal_suite!(Directory::new(start));

/// Whether it comes to be so, though another thread has still to do its part.
fn in_time(is_so: impl Fn() -> bool) -> bool {
    let patience = Instant::now() + Duration::from_secs(60);
    while !is_so() && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(1));
    }
    is_so()
}

/// Both ways to complete, and every version of the host.
fn each_way(story: impl Fn(PluginEngine)) {
    for (minor, options) in
        [(HostMinor::Own, "{}"), (HostMinor::Own, "later"), (HostMinor::Earliest, "later"), (HostMinor::Later, "later")]
    {
        let place = tempfile::tempdir().expect("a directory");
        story(start_by(minor, options, place.path()));
    }
}

#[test]
fn what_is_kept_and_handed_out_outlives_log_and_engine() {
    each_way(|engine| {
        let log = block_on(Log::open(&engine, 1));
        // In pieces, as it comes from a socket; each is kept for itself.
        let bytes = Bytes::from((0..=255u8).collect::<Vec<_>>());
        let pieces = [(1, 9), (9, 10), (10, 200)].into_iter().map(|(from, to)| bytes.slice(from..to));
        block_on(log.append(Run { bytes: pieces.collect(), ..run_of(0, 1, 0, 0, 1) }));
        block_on(log.append(run_of(1, 1, 0, 0, 300)));
        assert!(!bytes.is_unique(), "the engine has them without a copy");
        let held = block_on(log.read(everything(Offset(0)))).bytes;
        assert!(engine.retained_bytes() > 0);
        // It comes back as it was, and what the plug-in had kept of it, it has released.
        log.refused(run_of(0, 1, 0, 0, 50));
        let put = block_on(log.put(&[("key", Some("value")), ("other", None)]));
        assert!(put.is_ok() && block_on(log.get("key")).as_deref() == Some("value"));
        assert_eq!(block_on(log.get("other")), None);
        assert_eq!(block_on(engine.list()).expect("listed"), [id(1)]);
        assert!(block_on(log.close()).is_ok());
        drop(log);
        block_on(engine.close()).expect("closed");
        assert!(engine.retained_bytes() > 0, "what was read is still there");
        drop(engine);
        assert!(held.to_bytes().starts_with(&bytes[1..200]));
        drop(held);
        // Whoever completed the close may be the last to let go of the log, and with it of what it has kept.
        assert!(in_time(|| bytes.is_unique()), "somebody has kept what was appended");
    });
}

/// Miri takes its time.
const ROUNDS: i64 = if cfg!(miri) { 4 } else { 20 };

#[test]
fn calls_that_nobody_waits_for_leave_nothing_behind() {
    each_way(|engine| {
        let open = OpenOptions { mode: OpenMode::CreateNew, segment_bytes: 1 << 20 };
        let wal = block_on(engine.open(id(1), open)).expect("opened");
        for base in 0..ROUNDS {
            let run = run_of(base, 1, 0, 0, 64);
            drop(Pending::start(|done| wal.append(run, done).expect("taken")));
            drop(Pending::start(|done| wal.read(everything(Offset(0)), done)));
            drop(Pending::start(|done| wal.truncate_prefix(Offset(base / 2), done)));
        }
        assert_eq!(wal.state().end, Offset(ROUNDS));
        drop(wal);
        block_on(engine.close()).expect("closed");
        assert_eq!(engine.retained_bytes(), 0);
    });
}

#[test]
fn logs_that_are_closed_are_released_when_others_are_opened() {
    let place = tempfile::tempdir().expect("a directory");
    let engine = start_by(HostMinor::Own, "later", place.path());
    for number in 200..240 {
        let log = block_on(Log::open(&engine, number));
        assert!(block_on(log.close()).is_ok());
    }
    // One that was closed is opened again, under the name that has been let go of.
    let again = block_on(Log::open(&engine, 200));
    let last = block_on(Log::open(&engine, 240));
    // Whoever completed the last close may be the last to name that log.
    let are_two = in_time(|| COUNTED.load(Ordering::SeqCst) == 2);
    assert!(are_two, "{} logs are kept, of two that are open", COUNTED.load(Ordering::SeqCst));
    block_on(again.append(run_of(0, 1, 0, 0, 64)));
    block_on(last.append(run_of(0, 1, 0, 0, 64)));
}
