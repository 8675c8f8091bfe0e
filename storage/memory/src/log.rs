//! One log as the contract sees it: order checked, every call done at once.

use crate::engine::Budget;
use crate::runs::{Runs, occupies};
use bytes::Bytes;
use chronik_core::ids::Offset;
use chronik_core::pending::{Done, Started};
use chronik_core::time::Timestamp;
use chronik_core::wal::{
    Appended, Chunk, LogState, ReadRange, Refused, Rejected, Run, SegmentInfo, Segmented, Wal, WalError,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What outlives a log's closing: everything but the permission to use it.
#[derive(Debug)]
pub struct Kept {
    runs: Runs,
    meta: BTreeMap<String, Bytes>,
}

impl Kept {
    pub fn new(segment_bytes: u64) -> Self {
        Self { runs: Runs::new(segment_bytes), meta: BTreeMap::new() }
    }

    pub fn bytes(&self) -> u64 {
        self.runs.state().bytes
    }

    pub fn set_segment_bytes(&mut self, segment_bytes: u64) {
        self.runs.set_segment_bytes(segment_bytes);
    }
}

#[derive(Debug)]
pub struct MemoryLog {
    kept: Arc<Mutex<Kept>>,
    budget: Arc<Budget>,
    closed: AtomicBool,
}

impl MemoryLog {
    pub fn over(kept: Arc<Mutex<Kept>>, budget: Arc<Budget>) -> Self {
        Self { kept, budget, closed: AtomicBool::new(false) }
    }

    pub fn shut(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Every change below is made in steps that leave the runs valid, so a panicking holder left nothing half done.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does one call whole: refused when closed, otherwise under the lock.
    fn now<T>(&self, act: impl FnOnce(&mut Kept) -> Result<T, WalError>) -> Started<Result<T, WalError>> {
        Started::Now(if self.is_closed() { Err(WalError::Closed) } else { act(&mut self.kept()) })
    }

    /// Like [`Self::now`] for a change of the runs, which may free bytes and may be out of range.
    fn change<T, E>(&self, act: impl FnOnce(&mut Runs) -> Result<T, E>) -> Started<Result<T, WalError>> {
        self.now(|kept| {
            let before = kept.runs.state();
            let outcome = act(&mut kept.runs);
            self.budget.give_back(before.bytes - kept.runs.state().bytes);
            outcome.map_err(|_| WalError::OutOfRange { start: before.start, end: before.end })
        })
    }
}

impl Wal for MemoryLog {
    fn state(&self) -> LogState {
        self.kept().runs.state()
    }

    fn append(
        &self,
        run: Run,
        _done: Done<Result<Appended, WalError>>,
    ) -> Result<Started<Result<Appended, WalError>>, Box<Rejected>> {
        let mut kept = self.kept();
        let LogState { end, last_epoch, .. } = kept.runs.state();
        let why = if self.is_closed() {
            Refused::Closed
        } else if run.base < end || run.next_offset <= run.base {
            Refused::OutOfOrder { expected: end }
        } else if run.epoch < last_epoch {
            Refused::Fenced { current: last_epoch }
        } else if run.bytes.len() > self.budget.run_bytes_max() {
            Refused::TooLarge { max: self.budget.run_bytes_max() }
        } else if !self.budget.take(occupies(&run)) {
            Refused::Full
        } else {
            let written_end = run.next_offset;
            kept.runs.append(run);
            return Ok(Started::Now(Ok(Appended { written_end })));
        };
        Err(Box::new(Rejected { why, run }))
    }

    fn sync(&self, _upto: Offset, _done: Done<Result<Offset, WalError>>) -> Started<Result<Offset, WalError>> {
        self.now(|kept| Ok(kept.runs.state().durable_end))
    }

    fn read(&self, range: ReadRange, _done: Done<Result<Chunk, WalError>>) -> Started<Result<Chunk, WalError>> {
        self.change(|runs| runs.read(range))
    }

    fn truncate_suffix(&self, from: Offset, _done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        self.change(|runs| runs.truncate_suffix(from))
    }

    fn truncate_prefix(&self, upto: Offset, _done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        self.change(|runs| runs.truncate_prefix(upto))
    }

    fn reset(&self, start: Offset, _done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        self.change(|runs| {
            runs.reset(start);
            Ok::<(), WalError>(())
        })
    }

    fn offset_for_timestamp(
        &self,
        time: Timestamp,
        _done: Done<Result<Option<Offset>, WalError>>,
    ) -> Started<Result<Option<Offset>, WalError>> {
        self.now(|kept| Ok(kept.runs.offset_for_timestamp(time)))
    }

    fn meta_put(
        &self,
        entries: Vec<(String, Option<Bytes>)>,
        _done: Done<Result<(), WalError>>,
    ) -> Started<Result<(), WalError>> {
        self.now(|kept| {
            for (key, value) in entries {
                match value {
                    Some(value) => kept.meta.insert(key, value),
                    None => kept.meta.remove(&key),
                };
            }
            Ok(())
        })
    }

    fn meta_get(
        &self,
        key: &str,
        _done: Done<Result<Option<Bytes>, WalError>>,
    ) -> Started<Result<Option<Bytes>, WalError>> {
        self.now(|kept| Ok(kept.meta.get(key).cloned()))
    }

    fn segmented(&self) -> Option<&dyn Segmented> {
        Some(self)
    }

    fn close(&self, _done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        self.now(|_| {
            self.shut();
            Ok(())
        })
    }
}

impl Segmented for MemoryLog {
    fn segments(&self) -> Vec<SegmentInfo> {
        self.kept().runs.segments()
    }

    fn roll(&self) {
        self.kept().runs.roll();
    }

    fn set_segment_bytes(&self, segment_bytes: u64) {
        self.kept().set_segment_bytes(segment_bytes);
    }
}
