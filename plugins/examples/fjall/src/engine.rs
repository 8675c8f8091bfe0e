//! The engine: which logs there are, how one is opened, and the threads.

use crate::index::{Entry, Index};
use crate::log::Log;
use crate::shared::{Shared, Work};
use crate::store::{Record, Store, StoreError};
use crate::{reader, writer};
use async_trait::async_trait;
use chronik_plugin_sdk::ids::{LeaderEpoch, LogId};
use chronik_plugin_sdk::wal::{
    Capabilities, Cause, EngineError, OpenMode, OpenOptions, Survives, Usage, Wal, WalEngine,
};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// The largest run: far above any batch that a broker takes by default, far below what a value may be.
const RUN_BYTES_MAX: u64 = 64 << 20;
/// Threads for reads that look into the database.
const READERS: usize = 2;

/// What an engine may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Blocks and bodies that the database keeps in memory.
    pub cache_bytes: u64,
    /// Appends of all logs together that wait to be written; beyond it they are refused as `Busy`.
    pub unwritten_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { cache_bytes: 32 << 20, unwritten_bytes: 32 << 20 }
    }
}

struct Running {
    store: Arc<Store>,
    threads: Vec<JoinHandle<()>>,
}

/// See the crate's head.
pub struct FjallEngine {
    shared: Arc<Shared>,
    /// `None` once closed. Opening, deleting and closing take turns.
    running: Mutex<Option<Running>>,
    /// Every log, with the bytes that it held when it was last open here.
    known: Mutex<BTreeMap<LogId, u64>>,
}

fn io(doing: &str) -> impl FnOnce(StoreError) -> EngineError {
    move |error| EngineError::Io { doing: doing.to_owned(), source: Cause::new(error) }
}

impl FjallEngine {
    pub fn start(directory: &Path, limits: Limits) -> Result<Self, StoreError> {
        let store = Arc::new(Store::open(directory, limits.cache_bytes)?);
        // What a process before has written, and nobody has synced, counts as durable from here on.
        store.sync()?;
        let mut known = BTreeMap::new();
        for (log, record) in store.logs()? {
            if record.deleted {
                store.finish_deleting(log, record)?;
            } else {
                known.insert(log, 0);
            }
        }
        let shared = Arc::new(Shared::new(directory, RUN_BYTES_MAX, limits.unwritten_bytes));
        let mut engine = Self { shared, running: Mutex::default(), known: Mutex::new(known) };
        let mut running = Running { store, threads: Vec::new() };
        let spawned = engine.spawn(&mut running);
        *engine.running.get_mut().unwrap_or_else(PoisonError::into_inner) = Some(running);
        match spawned {
            Ok(()) => Ok(engine),
            Err(error) => {
                engine.stop();
                Err(StoreError(format!("no thread: {error}")))
            }
        }
    }

    fn spawn(&self, running: &mut Running) -> std::io::Result<()> {
        let mut spawn = |name: &str, run: fn(&Shared, &Store)| {
            let (shared, store) = (self.shared.clone(), running.store.clone());
            let thread = std::thread::Builder::new().name(name.into()).spawn(move || run(&shared, &store))?;
            running.threads.push(thread);
            Ok(())
        };
        spawn("fjall-write", writer::run)?;
        (0..READERS).try_for_each(|_| spawn("fjall-read", reader::run))
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<LogId, u64>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log, if it is open; one that is being closed is waited for.
    fn open_log(&self, id: LogId) -> Option<Arc<Log>> {
        let log = self.shared.log(id)?;
        if log.is_closing() {
            log.wait_closed();
            return None;
        }
        Some(log)
    }

    fn close_log(&self, log: &Log) {
        let bytes = log.state().bytes;
        self.known().entry(log.id).and_modify(|known| *known = bytes);
        if log.begin_closing() {
            self.shared.queue(Work::Close { log: log.id, done: None });
        }
        log.wait_closed();
    }

    /// Ends the threads, and with them the database.
    fn stop(&self) {
        let Some(running) = self.running().take() else { return };
        let open: Vec<_> = self.shared.logs().values().cloned().collect();
        open.iter().for_each(|log| self.close_log(log));
        self.shared.stop();
        for thread in running.threads {
            // A panic was caught inside, and told to whom it concerned.
            let _ended = thread.join();
        }
    }
}

impl Drop for FjallEngine {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Reads a log's lines, finishes what was interrupted, and looks whether the runs follow one another.
fn load(store: &Store, id: LogId, record: Record) -> Result<Index, EngineError> {
    let corrupt = |offset, what: &str| EngineError::Corrupt { log: id, offset, what: what.to_owned() };
    let mut entries: VecDeque<Entry> = VecDeque::new();
    let mut gone = Vec::new();
    let mut end = None;
    let mut epoch = LeaderEpoch::default();
    let place = record.place(id);
    for head in store.heads(place) {
        let (head, len) = head.map_err(io("reading a log's runs"))?;
        if record.cut.is_some_and(|cut| head.base >= cut) {
            gone.push(head.base);
            continue;
        }
        if head.base < head.after || head.next <= head.base || head.epoch < epoch {
            return Err(corrupt(head.base, "the run there does not follow the one before it"));
        }
        // What went before the first one that is left must lie before the start.
        if end.map_or(head.after > record.start, |end| end != head.after) {
            return Err(corrupt(end.unwrap_or(record.start), "runs are missing from there on"));
        }
        (end, epoch) = (Some(head.next), head.epoch);
        if head.next <= record.start {
            gone.push(head.base);
        } else {
            entries.push_back(Entry { head, len, number: entries.len() as u64 + 1, unwritten: None });
        }
    }
    store.remove_runs(place, &gone).map_err(io("finishing what was interrupted"))?;
    let record = Record { cut: None, ..record };
    if !gone.is_empty() {
        let mut changes = store.changes();
        changes.record(id, &record);
        changes.commit(true).map_err(io("finishing what was interrupted"))?;
    }
    Ok(Index::of(&record, entries))
}

#[async_trait]
impl WalEngine for FjallEngine {
    fn capabilities(&self) -> Capabilities {
        let run_bytes_max = usize::try_from(RUN_BYTES_MAX).unwrap_or(usize::MAX);
        Capabilities { survives: Survives::PowerLoss, segments: false, run_bytes_max }
    }

    async fn open(&self, id: LogId, options: OpenOptions) -> Result<Arc<dyn Wal>, EngineError> {
        let running = self.running();
        let store = &running.as_ref().ok_or(EngineError::Closed)?.store;
        if let Some(open) = self.open_log(id) {
            return if options.mode == OpenMode::CreateNew { Err(EngineError::AlreadyExists(id)) } else { Ok(open) };
        }
        let (index, place) = match store.record(id).map_err(io("looking for a log"))? {
            Some(_) if options.mode == OpenMode::CreateNew => return Err(EngineError::AlreadyExists(id)),
            Some(record) => (load(store, id, record)?, record.place(id)),
            None if options.mode == OpenMode::Existing => return Err(EngineError::NotFound(id)),
            None => {
                let record = store.first_record(id).map_err(io("creating a log"))?;
                let mut changes = store.changes();
                changes.record(id, &record);
                changes.commit(true).map_err(io("creating a log"))?;
                (Index::of(&record, VecDeque::new()), record.place(id))
            }
        };
        let log = Arc::new(Log::new(place, index, self.shared.clone()));
        self.shared.logs().insert(id, log.clone());
        self.known().insert(id, 0);
        Ok(log)
    }

    async fn list(&self) -> Result<Vec<LogId>, EngineError> {
        if self.running().is_none() {
            return Err(EngineError::Closed);
        }
        Ok(self.known().keys().copied().collect())
    }

    async fn delete(&self, id: LogId) -> Result<(), EngineError> {
        let running = self.running();
        let store = &running.as_ref().ok_or(EngineError::Closed)?.store;
        if let Some(open) = self.open_log(id) {
            self.close_log(&open);
        }
        let Some(record) = store.record(id).map_err(io("looking for a log"))? else {
            store.remove_aside(id).map_err(io("deleting what was set aside of a log"))?;
            return Err(EngineError::NotFound(id));
        };
        store.delete(id, record).map_err(io("deleting a log"))?;
        self.known().remove(&id);
        Ok(())
    }

    async fn set_aside(&self, id: LogId) -> Result<(), EngineError> {
        let running = self.running();
        let store = &running.as_ref().ok_or(EngineError::Closed)?.store;
        if let Some(open) = self.open_log(id) {
            self.close_log(&open);
        }
        let record = store.record(id).map_err(io("looking for a log"))?.ok_or(EngineError::NotFound(id))?;
        store.set_aside(id, record).map_err(io("setting a log aside"))?;
        self.known().remove(&id);
        Ok(())
    }

    fn usage(&self) -> Usage {
        let device = self.shared.ask_device();
        let (mut bytes, mut memory_bytes) = (0, self.shared.unwritten());
        let known = self.known().clone();
        for (id, closed_with) in &known {
            match self.shared.log(*id) {
                Some(log) => {
                    bytes += log.state().bytes;
                    memory_bytes += log.with_index(|index| index.memory_bytes());
                }
                None => bytes += closed_with,
            }
        }
        Usage {
            logs: known.len() as u64,
            bytes,
            memory_bytes,
            device_total_bytes: device.map(|(total, _)| total),
            device_free_bytes: device.map(|(_, free)| free),
        }
    }

    async fn close(&self) -> Result<(), EngineError> {
        self.stop();
        Ok(())
    }
}
