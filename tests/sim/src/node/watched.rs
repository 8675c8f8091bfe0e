//! A log that is looked over the shoulder: what was ordered, cut and made durable, for those who judge.

use crate::facts::Placed;
use bytes::Bytes;
use chronik_core::batch;
use chronik_core::ids::Offset;
use chronik_core::pending::{Done, Started};
use chronik_core::time::Timestamp;
use chronik_core::wal::{Appended, Chunk, LogState, ReadRange, Refused, Rejected, Run, Segmented, Wal, WalError};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Syncs that may be asked for before somebody looks at what was ordered, which is after every turn. Whoever asks for more
/// asks for ever, and the clock stands still meanwhile: no other rule would ever see it.
const SYNCS_PER_TURN_MAX: u64 = 10_000;

/// What was ordered of a log.
#[derive(Clone, Copy, Debug)]
pub enum Ordered {
    Append(Placed),
    Cut(Offset),
    Reset(Offset),
    Trim(Offset),
    Refused(Refused),
}

/// See the module's head.
pub struct Watched {
    inner: Arc<dyn Wal>,
    seen: Mutex<Vec<Ordered>>,
    syncs: AtomicU64,
}

/// What a stored run holds; `None` if it is no batch.
pub fn placed(bytes: &chronik_core::payload::Payload) -> Option<Vec<Placed>> {
    let one = |batch: batch::Batch| {
        let header = batch.header;
        Placed {
            base: header.base_offset,
            next: header.next_offset(),
            epoch: header.leader_epoch,
            crc: header.crc,
            producer: header.producer_id.0,
            sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
        }
    };
    batch::batches(bytes).map(|batch| batch.ok().filter(batch::Batch::is_intact).map(one)).collect()
}

impl Watched {
    pub fn over(inner: Arc<dyn Wal>) -> Arc<Self> {
        Arc::new(Self { inner, seen: Mutex::default(), syncs: AtomicU64::new(0) })
    }

    /// Since the last call, in order.
    pub fn take_seen(&self) -> Vec<Ordered> {
        self.syncs.store(0, Ordering::Relaxed);
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn see(&self, what: Ordered) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}

impl Wal for Watched {
    fn state(&self) -> LogState {
        self.inner.state()
    }

    fn append(
        &self,
        run: Run,
        done: Done<Result<Appended, WalError>>,
    ) -> Result<Started<Result<Appended, WalError>>, Box<Rejected>> {
        let batches = placed(&run.bytes).unwrap_or_default();
        let started = self.inner.append(run, done).inspect_err(|rejected| self.see(Ordered::Refused(rejected.why)))?;
        batches.into_iter().for_each(|batch| self.see(Ordered::Append(batch)));
        Ok(started)
    }

    fn write_queued(&self) {
        self.inner.write_queued();
    }

    fn sync(&self, upto: Offset, done: Done<Result<Offset, WalError>>) -> Started<Result<Offset, WalError>> {
        let before = self.syncs.fetch_add(1, Ordering::Relaxed);
        assert!(before < SYNCS_PER_TURN_MAX, "a sync up to {upto} is asked for again and again: {:?}", self.state());
        self.inner.sync(upto, done)
    }

    fn read(&self, range: ReadRange, done: Done<Result<Chunk, WalError>>) -> Started<Result<Chunk, WalError>> {
        self.inner.read(range, done)
    }

    fn truncate_suffix(&self, from: Offset, done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        self.see(Ordered::Cut(from));
        self.inner.truncate_suffix(from, done)
    }

    fn truncate_prefix(&self, upto: Offset, done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        self.see(Ordered::Trim(upto));
        self.inner.truncate_prefix(upto, done)
    }

    fn reset(&self, start: Offset, done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        self.see(Ordered::Reset(start));
        self.inner.reset(start, done)
    }

    fn offset_for_timestamp(
        &self,
        time: Timestamp,
        done: Done<Result<Option<Offset>, WalError>>,
    ) -> Started<Result<Option<Offset>, WalError>> {
        self.inner.offset_for_timestamp(time, done)
    }

    fn meta_put(
        &self,
        entries: Vec<(String, Option<Bytes>)>,
        done: Done<Result<(), WalError>>,
    ) -> Started<Result<(), WalError>> {
        self.inner.meta_put(entries, done)
    }

    fn meta_get(
        &self,
        key: &str,
        done: Done<Result<Option<Bytes>, WalError>>,
    ) -> Started<Result<Option<Bytes>, WalError>> {
        self.inner.meta_get(key, done)
    }

    fn segmented(&self) -> Option<&dyn Segmented> {
        self.inner.segmented()
    }

    fn close(&self, done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        self.inner.close(done)
    }
}
