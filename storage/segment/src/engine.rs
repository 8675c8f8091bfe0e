//! The engine: which logs there are, and their beginnings and ends.

use crate::disk::{Disk, HostDisk};
use crate::gate::{Gate, Inside};
use crate::journal::Before;
use crate::log::SegmentLog;
use crate::options::{OptionsError, SegmentOptions};
use crate::recover::{Effort, Refusal, io_error, recover};
use crate::shared::Shared;
use crate::threads::{Lane, ThreadPools, Threads};
use async_trait::async_trait;
use chronik_core::ids::LogId;
use chronik_core::pending::{Pending, Started};
use chronik_core::wal::{
    Capabilities, Cause, EngineError, OpenMode, OpenOptions, Survives, Usage, Wal, WalEngine, WalError,
};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Ends the name of a log's directory that is being removed.
const DELETED: &str = ".deleted";

/// Ends the name of a log's directory that was set aside.
const SET_ASIDE: &str = ".damaged";

/// The root of the data directory, as the disk names it.
const ROOT: &str = "";

/// Larger than Kafka's largest; an index file of a larger one would not be read back.
const SEGMENT_BYTES_MAX: u64 = 8 << 30;

/// Why the engine could not start.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StartError {
    #[error("another process uses {}", .dir.display())]
    InUse { dir: PathBuf },
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[error("the data directory {} cannot be used", .dir.display())]
    Io { dir: PathBuf, source: Cause },
}

/// Logs in segment files under one directory. See the crate's head.
pub struct SegmentEngine {
    engine: Arc<Engine>,
}

struct Engine {
    shared: Arc<Shared>,
    logs: Mutex<Logs>,
    gate: Arc<Gate>,
    deletions: AtomicU64,
}

#[derive(Default)]
struct Logs {
    closed: bool,
    /// Every log there is, with the one that is open if it is.
    known: BTreeMap<LogId, Option<Arc<SegmentLog>>>,
}

impl SegmentEngine {
    /// Takes the directory `dir`, created if it is missing, and finds the logs in it. Reads no log yet, but the journal
    /// that a process left that had no time to end in order.
    pub fn start(dir: PathBuf, options: SegmentOptions) -> Result<Self, StartError> {
        let threads = ThreadPools::new(options.read_threads, options.sync.threads);
        Self::start_with(threads, dir, options)
    }

    /// The same, on threads that the caller starts.
    pub fn start_with(threads: ThreadPools, dir: PathBuf, options: SegmentOptions) -> Result<Self, StartError> {
        options.validate()?;
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock => StartError::InUse { dir: dir.clone() },
            _ => StartError::Io { dir: dir.clone(), source: Cause::new(error) },
        };
        let disk = HostDisk::take(dir.clone()).map_err(failed)?;
        Self::over(Arc::new(disk), Arc::new(threads), options).map_err(failed)
    }

    /// The engine over any disk and any threads: what a simulator starts. `options` are valid.
    pub fn over(disk: Arc<dyn Disk>, threads: Arc<dyn Threads>, options: SegmentOptions) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(disk, threads, options)?);
        let mut known = BTreeMap::new();
        for entry in shared.disk.entries(Path::new(ROOT))?.into_iter().filter(|entry| entry.is_dir) {
            if let Some(id) = log_of(&entry.name) {
                known.insert(id, None);
            } else if entry.name.ends_with(DELETED) {
                remove_later(&shared, entry.name.into());
            }
        }
        if !known.is_empty() {
            // A process before this one may have made a directory, and failed to sync its name, or ended before it could:
            // what is synced within such a one would go with it.
            shared.disk.sync_dir(Path::new(ROOT))?;
        }
        let logs = Mutex::new(Logs { closed: false, known });
        let engine = Engine { shared, logs, gate: Arc::default(), deletions: AtomicU64::new(0) };
        Ok(Self { engine: Arc::new(engine) })
    }

    /// Segment files open now; for tests and metrics.
    pub fn open_files(&self) -> usize {
        self.engine.shared.handles.len()
    }
}

/// The log whose directory is called that.
fn log_of(name: &str) -> Option<LogId> {
    let (topic, partition) = name.split_at_checked(32)?;
    let id = LogId { topic: topic.parse().ok()?, partition: partition.strip_prefix('-')?.parse().ok()? };
    (id.to_string() == name).then_some(id)
}

fn set_aside_of(id: LogId) -> PathBuf {
    PathBuf::from(format!("{id}{SET_ASIDE}"))
}

/// Removes the contents of a directory, which nobody looks into any more, and then itself. What fails is tried again at
/// the next start.
fn remove_later(shared: &Arc<Shared>, dir: PathBuf) {
    let disk = shared.disk.clone();
    let remove = move || -> io::Result<()> {
        for entry in disk.entries(&dir)? {
            disk.remove_file(&dir.join(entry.name))?;
        }
        disk.remove_dir(&dir)
    };
    shared.threads.run(
        Lane::Work,
        Box::new(move || {
            let _tried_again_at_start = remove();
        }),
    );
}

impl Engine {
    fn logs(&self) -> MutexGuard<'_, Logs> {
        // Single inserts and removals leave the map valid.
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn usable(&self) -> Result<MutexGuard<'_, Logs>, EngineError> {
        let logs = self.logs();
        if logs.closed { Err(EngineError::Closed) } else { Ok(logs) }
    }

    /// Runs `act` on a thread that may wait for the device.
    async fn on_a_thread<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let threads = &self.shared.threads;
        Pending::start(|done| {
            threads.run(Lane::Work, Box::new(move || done.complete(act())));
            Started::Later
        })
        .await
    }

    /// Reads a log's directory, which exists, and makes the log of it.
    fn load(&self, id: LogId, segment_bytes: u64, effort: Effort) -> Result<Arc<SegmentLog>, Refusal> {
        let dir: Arc<Path> = Path::new(&id.to_string()).into();
        let found = recover(&self.shared, id, &dir, effort)?;
        let segment_bytes = segment_bytes.clamp(1, SEGMENT_BYTES_MAX);
        let log = SegmentLog::new(id, dir, self.shared.clone(), found, segment_bytes);
        log.look_at_own_start().map_err(|error| match error {
            WalError::Corrupt { offset } => {
                EngineError::Corrupt { log: id, offset, what: "a frame is not sound".into() }
            }
            error => EngineError::Io { doing: format!("reading the start of log {id}"), source: Cause::new(error) },
        })?;
        let mut logs = self.usable()?;
        logs.known.insert(id, Some(log.clone()));
        Ok(log)
    }

    fn create(&self, id: LogId) -> Result<(), EngineError> {
        let dir = PathBuf::from(id.to_string());
        let made = match self.shared.disk.create_dir(&dir) {
            // Left by an attempt that failed after it: nobody has been told of it, and there is nothing in it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            outcome => outcome,
        };
        let made = made.and_then(|()| self.shared.disk.sync_dir(Path::new(ROOT)));
        made.map_err(|error| io_error(format!("creating log {id}"), error))
    }

    fn open_fully(
        &self,
        id: LogId,
        options: OpenOptions,
        exists: bool,
        effort: Effort,
    ) -> Result<Arc<SegmentLog>, EngineError> {
        if !exists {
            self.create(id)?;
        }
        if effort == Effort::Distrustful {
            let redone = self.shared.journal.redo(&self.shared, id);
            redone.map_err(|error| io_error(format!("reading the journal for log {id}"), error))?;
        }
        match self.load(id, options.segment_bytes, effort) {
            Ok(log) => Ok(log),
            Err(Refusal::Error(error)) => Err(error),
            Err(Refusal::NeedsEffort) => unreachable!("only a quick try is refused so"),
        }
    }

    /// Lets go of a log, and of what the journal holds of it: its directory may then be moved.
    fn abandon(&self, id: LogId, log: Option<Arc<SegmentLog>>) -> io::Result<()> {
        if let Some(log) = log {
            log.abandon();
        }
        self.shared.journal.void(&self.shared, id, Before::Removal)
    }

    fn delete_dir(&self, id: LogId) -> io::Result<()> {
        self.remove(id, Path::new(&id.to_string()))?;
        self.logs().known.remove(&id);
        self.remove_what_was_set_aside(id)?;
        self.shared.disk.sync_dir(Path::new(ROOT))
    }

    fn set_dir_aside(&self, id: LogId) -> io::Result<()> {
        self.remove_what_was_set_aside(id)?;
        self.shared.disk.rename(Path::new(&id.to_string()), &set_aside_of(id))?;
        self.logs().known.remove(&id);
        self.shared.disk.sync_dir(Path::new(ROOT))
    }

    fn remove_what_was_set_aside(&self, id: LogId) -> io::Result<()> {
        let aside = set_aside_of(id);
        match self.shared.disk.entries(&aside) {
            Ok(_) => self.remove(id, &aside),
            Err(_) => Ok(()),
        }
    }

    /// Gives a directory of the log's a name under which it is removed, if not now then at the next start.
    fn remove(&self, id: LogId, dir: &Path) -> io::Result<()> {
        let disk = &self.shared.disk;
        // Not the name of one that an earlier process had no time to remove.
        let gone = loop {
            let number = self.deletions.fetch_add(1, Ordering::Relaxed);
            let gone = PathBuf::from(format!("{id}.{number}{DELETED}"));
            if disk.entries(&gone).is_err() {
                break gone;
            }
        };
        disk.rename(dir, &gone)?;
        remove_later(&self.shared, gone);
        Ok(())
    }
}

#[async_trait]
impl WalEngine for SegmentEngine {
    fn capabilities(&self) -> Capabilities {
        let run_bytes_max = self.engine.shared.options.run_bytes_max as usize;
        Capabilities { survives: Survives::PowerLoss, segments: true, run_bytes_max }
    }

    async fn open(&self, id: LogId, options: OpenOptions) -> Result<Arc<dyn Wal>, EngineError> {
        let engine = &self.engine;
        let inside: Inside = engine.gate.enter(id).await;
        let known = engine.usable()?.known.get(&id).cloned();
        let exists = known.is_some();
        match options.mode {
            OpenMode::Existing if !exists => return Err(EngineError::NotFound(id)),
            OpenMode::CreateNew if exists => return Err(EngineError::AlreadyExists(id)),
            _ => {}
        }
        let mut effort = Effort::Full;
        if let Some(log) = known.flatten() {
            if log.is_usable() {
                return Ok(log);
            }
            // Being closed, or failed: the files must be let go of before they are opened anew.
            if log.has_failed() {
                effort = Effort::Distrustful;
            }
            let _whether_it_failed = Pending::start(|done| log.when_gone(done)).await;
        } else if exists {
            // Opening what was closed well takes a few small reads, less than a thread's wake-up does.
            match engine.load(id, options.segment_bytes, Effort::Quick) {
                Ok(log) => return Ok(log),
                Err(Refusal::Error(error)) => return Err(error),
                Err(Refusal::NeedsEffort) => {}
            }
        }
        let worker = engine.clone();
        let open = move || {
            let opened = worker.open_fully(id, options, exists, effort);
            // Here and not by the caller, who may have stopped waiting.
            drop(inside);
            opened
        };
        Ok(engine.on_a_thread(open).await?)
    }

    async fn list(&self) -> Result<Vec<LogId>, EngineError> {
        Ok(self.engine.usable()?.known.keys().copied().collect())
    }

    async fn delete(&self, id: LogId) -> Result<(), EngineError> {
        let inside = self.engine.gate.enter(id).await;
        let known = self.engine.usable()?.known.get(&id).cloned();
        let worker = self.engine.clone();
        let delete = move || {
            let deleted = match known {
                Some(log) => worker.abandon(id, log).and_then(|()| worker.delete_dir(id)).map(Ok),
                // It may have been set aside, and not created since.
                None => worker.remove_what_was_set_aside(id).map(|()| Err(EngineError::NotFound(id))),
            };
            drop(inside);
            deleted.unwrap_or_else(|error| Err(io_error(format!("deleting log {id}"), error)))
        };
        self.engine.on_a_thread(delete).await
    }

    async fn set_aside(&self, id: LogId) -> Result<(), EngineError> {
        let inside = self.engine.gate.enter(id).await;
        let log = self.engine.usable()?.known.get(&id).cloned().ok_or(EngineError::NotFound(id))?;
        let worker = self.engine.clone();
        let set_aside = move || {
            let outcome = worker.abandon(id, log).and_then(|()| worker.set_dir_aside(id));
            drop(inside);
            outcome.map_err(|error| io_error(format!("setting log {id} aside"), error))
        };
        self.engine.on_a_thread(set_aside).await
    }

    fn usage(&self) -> Usage {
        let shared = &self.engine.shared;
        let logs: Vec<_> = self.engine.logs().known.values().cloned().collect();
        let space = shared.disk.space().ok();
        Usage {
            logs: logs.len() as u64,
            bytes: logs.iter().flatten().map(|log| log.bytes()).sum(),
            memory_bytes: shared.cache.bytes() + shared.room.unwritten_bytes() + shared.handles.entries_bytes(),
            device_total_bytes: space.map(|space| space.total),
            device_free_bytes: space.map(|space| space.free),
        }
    }

    async fn close(&self) -> Result<(), EngineError> {
        let logs: Vec<_> = {
            let mut logs = self.engine.logs();
            if std::mem::replace(&mut logs.closed, true) {
                return Err(EngineError::Closed);
            }
            logs.known.values().flatten().cloned().collect()
        };
        // All at once, so that they share syncs.
        let closing: Vec<_> = logs.iter().map(|log| Pending::start(|done| log.when_gone(done))).collect();
        let mut outcome = Ok(());
        for (log, closed) in logs.iter().zip(closing) {
            if let Err(error) = closed.await {
                outcome =
                    Err(EngineError::Io { doing: format!("closing log {}", log.id()), source: Cause::new(error) });
            }
        }
        let worker = self.engine.clone();
        self.engine.on_a_thread(move || worker.shared.journal.close(&*worker.shared.disk)).await;
        self.engine.shared.disk.release();
        outcome
    }
}
