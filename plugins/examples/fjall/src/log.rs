//! One log as the contract sees it: order checked and the index changed at the call, the database by the writer afterwards.

use crate::index::{Index, OutOfRange, Removal};
use crate::shared::{Read, Shared, Work};
use crate::store::Place;
use chronik_plugin_sdk::bytes::Bytes;
use chronik_plugin_sdk::crc32c;
use chronik_plugin_sdk::ids::{LogId, Offset};
use chronik_plugin_sdk::pending::{Done, Started};
use chronik_plugin_sdk::time::Timestamp;
use chronik_plugin_sdk::wal::{Appended, Cause, Chunk, LogState, ReadRange, Refused, Rejected, Run, Wal, WalError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How far a log has come on its way to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Open,
    /// What was ordered before is still written.
    Closing,
    Closed,
}

struct Inner {
    index: Index,
    life: Life,
    failed: Option<Cause>,
}

/// See the module's head.
pub struct Log {
    pub id: LogId,
    pub place: Place,
    shared: Arc<Shared>,
    inner: Mutex<Inner>,
    closed: Condvar,
}

impl Log {
    pub fn new(place: Place, index: Index, shared: Arc<Shared>) -> Self {
        let inner = Mutex::new(Inner { index, life: Life::Open, failed: None });
        Self { id: place.log, place, shared, inner, closed: Condvar::new() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // The index is changed in steps that leave it valid.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn with_index<T>(&self, change: impl FnOnce(&mut Index) -> T) -> T {
        change(&mut self.inner().index)
    }

    /// A write or sync has failed: nobody knows what is there.
    pub fn fail(&self, cause: &Cause) {
        self.inner().failed.get_or_insert_with(|| cause.clone());
    }

    pub fn failure(&self) -> Option<Cause> {
        self.inner().failed.clone()
    }

    pub fn is_closing(&self) -> bool {
        self.inner().life != Life::Open
    }

    /// Nothing more is ordered; gives whether this is the first to ask.
    pub fn begin_closing(&self) -> bool {
        let mut inner = self.inner();
        let first = inner.life == Life::Open;
        if first {
            inner.life = Life::Closing;
        }
        first
    }

    pub fn finish_closing(&self) {
        self.inner().life = Life::Closed;
        self.closed.notify_all();
    }

    pub fn wait_closed(&self) {
        let mut inner = self.inner();
        while inner.life != Life::Closed {
            inner = self.closed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// For calls that change something: `act` makes the change and gives the work for the database, if there is any.
    fn change(
        &self,
        done: Done<Result<(), WalError>>,
        act: impl FnOnce(&mut Index) -> Result<Option<Removal>, OutOfRange>,
    ) -> Started<Result<(), WalError>> {
        let mut inner = self.inner();
        if let Some(error) = inner.refuses() {
            return Started::Now(Err(error));
        }
        match act(&mut inner.index) {
            Ok(None) => Started::Now(Ok(())),
            Ok(Some(removal)) => {
                // Under the lock: work is queued in the order of the calls.
                self.shared.queue(Work::Remove { log: self.id, removal, done });
                Started::Later
            }
            Err(OutOfRange) => Started::Now(Err(inner.out_of_range())),
        }
    }
}

impl Inner {
    fn refuses(&self) -> Option<WalError> {
        match &self.failed {
            _ if self.life != Life::Open => Some(WalError::Closed),
            Some(cause) => Some(WalError::Failed(cause.clone())),
            None => None,
        }
    }

    fn out_of_range(&self) -> WalError {
        let LogState { start, end, .. } = self.index.state();
        WalError::OutOfRange { start, end }
    }
}

impl Wal for Log {
    fn state(&self) -> LogState {
        self.inner().index.state()
    }

    fn append(
        &self,
        run: Run,
        done: Done<Result<Appended, WalError>>,
    ) -> Result<Started<Result<Appended, WalError>>, Box<Rejected>> {
        let mut inner = self.inner();
        let LogState { end, last_epoch, .. } = inner.index.state();
        let bytes = run.bytes.len() as u64;
        let why = match inner.refuses() {
            Some(WalError::Failed(_)) => Refused::Failed,
            Some(_) => Refused::Closed,
            None if run.base < end || run.next_offset <= run.base => Refused::OutOfOrder { expected: end },
            None if run.epoch < last_epoch => Refused::Fenced { current: last_epoch },
            None if bytes > self.shared.run_bytes_max => {
                Refused::TooLarge { max: usize::try_from(self.shared.run_bytes_max).unwrap_or(usize::MAX) }
            }
            None => match self.shared.take_room(bytes) {
                Err(why) => why,
                Ok(()) => {
                    let crc = run.bytes.parts().iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part));
                    let body = run.bytes.clone();
                    let (number, head) = inner.index.append(run, crc);
                    self.shared.queue(Work::Append { log: self.id, number, head, body, done });
                    return Ok(Started::Later);
                }
            },
        };
        Err(Box::new(Rejected { why, run }))
    }

    fn sync(&self, _upto: Offset, done: Done<Result<Offset, WalError>>) -> Started<Result<Offset, WalError>> {
        let inner = self.inner();
        if let Some(error) = inner.refuses() {
            return Started::Now(Err(error));
        }
        self.shared.queue(Work::Sync { log: self.id, done });
        Started::Later
    }

    fn read(&self, range: ReadRange, done: Done<Result<Chunk, WalError>>) -> Started<Result<Chunk, WalError>> {
        let inner = self.inner();
        // What is there may be read also after a write has failed.
        if inner.life != Life::Open {
            return Started::Now(Err(WalError::Closed));
        }
        let Ok(chosen) = inner.index.choose(range) else { return Started::Now(Err(inner.out_of_range())) };
        if chosen.entries.iter().all(|entry| entry.unwritten.is_some()) {
            let mut chunk = Chunk { base: chosen.base, next_offset: chosen.next, ..Chunk::default() };
            chosen.entries.into_iter().filter_map(|entry| entry.unwritten).for_each(|body| chunk.bytes.append(body));
            return Started::Now(Ok(chunk));
        }
        drop(inner);
        self.shared.read(Read { log: self.id, range, chosen, done });
        Started::Later
    }

    fn truncate_suffix(&self, from: Offset, done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        self.change(done, |index| index.truncate_suffix(from).map(Some))
    }

    fn truncate_prefix(&self, upto: Offset, done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        self.change(done, |index| index.truncate_prefix(upto))
    }

    fn reset(&self, start: Offset, done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        self.change(done, |index| Ok(Some(index.reset(start))))
    }

    fn offset_for_timestamp(
        &self,
        time: Timestamp,
        _done: Done<Result<Option<Offset>, WalError>>,
    ) -> Started<Result<Option<Offset>, WalError>> {
        let inner = self.inner();
        Started::Now(match inner.life {
            Life::Open => Ok(inner.index.offset_for_timestamp(time)),
            _ => Err(WalError::Closed),
        })
    }

    fn meta_put(
        &self,
        entries: Vec<(String, Option<Bytes>)>,
        done: Done<Result<(), WalError>>,
    ) -> Started<Result<(), WalError>> {
        let inner = self.inner();
        if let Some(error) = inner.refuses() {
            return Started::Now(Err(error));
        }
        self.shared.queue(Work::Put { log: self.id, entries, done });
        Started::Later
    }

    fn meta_get(
        &self,
        key: &str,
        done: Done<Result<Option<Bytes>, WalError>>,
    ) -> Started<Result<Option<Bytes>, WalError>> {
        let inner = self.inner();
        if inner.life != Life::Open {
            return Started::Now(Err(WalError::Closed));
        }
        // In the writer's turn: what was put before is found.
        self.shared.queue(Work::Get { log: self.id, key: key.to_owned(), done });
        Started::Later
    }

    fn close(&self, done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        if !self.begin_closing() {
            return Started::Now(Err(WalError::Closed));
        }
        self.shared.queue(Work::Close { log: self.id, done: Some(done) });
        Started::Later
    }
}
