//! The engine: which logs there are, and how many bytes they may hold together.

use crate::log::{Kept, MemoryLog};
use async_trait::async_trait;
use chronik_core::ids::LogId;
use chronik_core::wal::{Capabilities, EngineError, OpenMode, OpenOptions, Survives, Usage, Wal, WalEngine};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The largest single run, unless the whole engine may hold less: Kafka counts a batch's length in an `i32`.
const RUN_BYTES_MAX: u64 = 1 << 30;

/// How many bytes the engine's logs hold, and may hold.
#[derive(Debug)]
pub struct Budget {
    held: AtomicU64,
    bytes_max: u64,
}

impl Budget {
    /// Counts `bytes` more, unless that would exceed the bound.
    pub fn take(&self, bytes: u64) -> bool {
        let more = |held: u64| held.checked_add(bytes).filter(|&sum| sum <= self.bytes_max);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub fn give_back(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub fn run_bytes_max(&self) -> usize {
        usize::try_from(self.bytes_max.min(RUN_BYTES_MAX)).unwrap_or(usize::MAX)
    }
}

#[derive(Debug)]
struct Stored {
    kept: Arc<Mutex<Kept>>,
    /// The one that is open, if it is: the contract allows one at a time.
    open: Arc<MemoryLog>,
}

#[derive(Debug, Default)]
struct Logs {
    closed: bool,
    stored: BTreeMap<LogId, Stored>,
}

/// Logs in memory, gone with the process. See the crate's head.
#[derive(Debug)]
pub struct MemoryEngine {
    budget: Arc<Budget>,
    logs: Mutex<Logs>,
}

impl MemoryEngine {
    /// An engine whose logs together hold at most `bytes_max` bytes, overhead included.
    pub fn new(bytes_max: u64) -> Self {
        Self { budget: Arc::new(Budget { held: AtomicU64::new(0), bytes_max }), logs: Mutex::default() }
    }

    fn logs(&self) -> MutexGuard<'_, Logs> {
        // The map is changed by single inserts and removals, valid after each.
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn usable(&self) -> Result<MutexGuard<'_, Logs>, EngineError> {
        let logs = self.logs();
        if logs.closed { Err(EngineError::Closed) } else { Ok(logs) }
    }
}

#[async_trait]
impl WalEngine for MemoryEngine {
    fn capabilities(&self) -> Capabilities {
        Capabilities { survives: Survives::Nothing, segments: true, run_bytes_max: self.budget.run_bytes_max() }
    }

    async fn open(&self, id: LogId, options: OpenOptions) -> Result<Arc<dyn Wal>, EngineError> {
        let mut logs = self.usable()?;
        let stored = match logs.stored.entry(id) {
            Entry::Vacant(_) if options.mode == OpenMode::Existing => return Err(EngineError::NotFound(id)),
            Entry::Occupied(_) if options.mode == OpenMode::CreateNew => return Err(EngineError::AlreadyExists(id)),
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(free) => {
                let kept = Arc::new(Mutex::new(Kept::new(options.segment_bytes)));
                let open = Arc::new(MemoryLog::over(kept.clone(), self.budget.clone()));
                free.insert(Stored { kept, open })
            }
        };
        if stored.open.is_closed() {
            stored.kept.lock().unwrap_or_else(PoisonError::into_inner).set_segment_bytes(options.segment_bytes);
            stored.open = Arc::new(MemoryLog::over(stored.kept.clone(), self.budget.clone()));
        }
        Ok(stored.open.clone())
    }

    async fn list(&self) -> Result<Vec<LogId>, EngineError> {
        Ok(self.usable()?.stored.keys().copied().collect())
    }

    async fn delete(&self, id: LogId) -> Result<(), EngineError> {
        let stored = self.usable()?.stored.remove(&id).ok_or(EngineError::NotFound(id))?;
        stored.open.shut();
        // An append that overlapped has either been counted here or found the log closed: both happen under this lock.
        let bytes = stored.kept.lock().unwrap_or_else(PoisonError::into_inner).bytes();
        self.budget.give_back(bytes);
        Ok(())
    }

    fn usage(&self) -> Usage {
        let held = self.budget.held.load(Ordering::Relaxed);
        Usage {
            logs: self.logs().stored.len() as u64,
            bytes: held,
            memory_bytes: held,
            device_total_bytes: Some(self.budget.bytes_max),
            device_free_bytes: Some(self.budget.bytes_max.saturating_sub(held)),
        }
    }

    async fn close(&self) -> Result<(), EngineError> {
        let mut logs = self.logs();
        logs.closed = true;
        logs.stored.values().for_each(|stored| stored.open.shut());
        Ok(())
    }
}
