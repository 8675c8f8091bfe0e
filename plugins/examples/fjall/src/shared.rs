//! What logs, writer and readers share: the work that waits, and how much of it may.
//!
//! What must stay true: nothing here holds the database, so that logs which the broker has not let go of yet do not keep it
//! open; and work is queued under the lock of its log, so that it is in the order of the calls.

use crate::index::{Chosen, Removal};
use crate::log::Log;
use crate::store::Head;
use chronik_plugin_sdk::bytes::Bytes;
use chronik_plugin_sdk::ids::{LogId, Offset};
use chronik_plugin_sdk::payload::Payload;
use chronik_plugin_sdk::pending::Done;
use chronik_plugin_sdk::wal::{Appended, Chunk, ReadRange, Refused, WalError};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Room on the device that appends leave: the database moves what it has before it gives space back.
const FREE_BYTES_MIN: u64 = 64 << 20;

/// What is to be done to the database.
pub enum Work {
    Append {
        log: LogId,
        number: u64,
        head: Head,
        body: Payload,
        done: Done<Result<Appended, WalError>>,
    },
    Sync {
        log: LogId,
        done: Done<Result<Offset, WalError>>,
    },
    Put {
        log: LogId,
        entries: Vec<(String, Option<Bytes>)>,
        done: Done<Result<(), WalError>>,
    },
    Get {
        log: LogId,
        key: String,
        done: Done<Result<Option<Bytes>, WalError>>,
    },
    Remove {
        log: LogId,
        removal: Removal,
        done: Done<Result<(), WalError>>,
    },
    /// Without a `Done` where the engine closes.
    Close {
        log: LogId,
        done: Option<Done<Result<(), WalError>>>,
    },
}

/// A read that must look into the database.
pub struct Read {
    pub log: LogId,
    pub range: ReadRange,
    pub chosen: Chosen,
    pub done: Done<Result<Chunk, WalError>>,
}

/// What waits for a thread.
struct Queue<T> {
    waiting: Mutex<(VecDeque<T>, bool)>,
    wake: Condvar,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { waiting: Mutex::default(), wake: Condvar::new() }
    }
}

impl<T> Queue<T> {
    fn lock(&self) -> MutexGuard<'_, (VecDeque<T>, bool)> {
        // A queue and a flag: valid after each change.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, item: T) {
        self.lock().0.push_back(item);
        self.wake.notify_one();
    }

    fn stop(&self) {
        self.lock().1 = true;
        self.wake.notify_all();
    }

    /// Takes what `take` takes, once there is something; `None` when it is stopped and empty.
    fn wait<R>(&self, take: impl FnOnce(&mut VecDeque<T>) -> R) -> Option<R> {
        let mut queue = self.lock();
        while queue.0.is_empty() {
            if queue.1 {
                return None;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        Some(take(&mut queue.0))
    }
}

/// See the module's head.
pub struct Shared {
    pub run_bytes_max: u64,
    directory: PathBuf,
    works: Queue<Work>,
    reads: Queue<Read>,
    /// Bytes of appends that are not written yet, and how many there may be.
    unwritten: AtomicU64,
    unwritten_max: u64,
    /// Of the device, when it was last asked.
    free: AtomicU64,
    /// Those that are open.
    logs: Mutex<BTreeMap<LogId, Arc<Log>>>,
}

impl Shared {
    pub fn new(directory: &Path, run_bytes_max: u64, unwritten_max: u64) -> Self {
        let shared = Self {
            run_bytes_max,
            directory: directory.to_owned(),
            works: Queue::default(),
            reads: Queue::default(),
            unwritten: AtomicU64::new(0),
            unwritten_max,
            free: AtomicU64::new(u64::MAX),
            logs: Mutex::default(),
        };
        shared.ask_device();
        shared
    }

    /// Total and free bytes of the device; `None` where it does not say.
    pub fn ask_device(&self) -> Option<(u64, u64)> {
        let is = rustix::fs::statvfs(&self.directory).ok()?;
        let free = is.f_bavail.saturating_mul(is.f_frsize);
        self.free.store(free, Ordering::Relaxed);
        Some((is.f_blocks.saturating_mul(is.f_frsize), free))
    }

    pub fn unwritten(&self) -> u64 {
        self.unwritten.load(Ordering::Acquire)
    }

    /// Counts an append, unless there is no room for it.
    pub fn take_room(&self, bytes: u64) -> Result<(), Refused> {
        let queued = self.unwritten();
        // One alone is taken however large it is: nothing would say when to try again.
        if queued > 0 && queued.saturating_add(bytes) > self.unwritten_max {
            return Err(Refused::Busy);
        }
        let wanted = FREE_BYTES_MIN.saturating_add(queued).saturating_add(bytes);
        let is_full = || self.free.load(Ordering::Relaxed) < wanted;
        // It is asked again before anybody is refused: room comes without our doing.
        if is_full() && self.ask_device().is_some() && is_full() {
            return Err(Refused::Full);
        }
        self.unwritten.fetch_add(bytes, Ordering::AcqRel);
        Ok(())
    }

    pub fn give_back(&self, bytes: u64) {
        self.unwritten.fetch_sub(bytes, Ordering::AcqRel);
    }

    pub fn queue(&self, work: Work) {
        self.works.push(work);
    }

    /// All that waits, in order.
    pub fn wait_for_work(&self) -> Option<VecDeque<Work>> {
        self.works.wait(std::mem::take)
    }

    pub fn read(&self, read: Read) {
        self.reads.push(read);
    }

    pub fn wait_for_read(&self) -> Option<Read> {
        self.reads.wait(VecDeque::pop_front).flatten()
    }

    /// The threads end when they have done what waits.
    pub fn stop(&self) {
        self.works.stop();
        self.reads.stop();
    }

    pub fn logs(&self) -> MutexGuard<'_, BTreeMap<LogId, Arc<Log>>> {
        // Single inserts and removals: valid after each.
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn log(&self, id: LogId) -> Option<Arc<Log>> {
        self.logs().get(&id).cloned()
    }
}
