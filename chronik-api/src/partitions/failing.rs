//! An engine for tests, which fails when it is told to.

use async_trait::async_trait;
use bytes::Bytes;
use chronik_core::ids::{LogId, Offset};
use chronik_core::pending::{Done, Started};
use chronik_core::time::Timestamp;
use chronik_core::wal::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What fails.
#[derive(Default)]
pub(crate) struct Failures {
    pub syncs: AtomicBool,
    /// For want of room.
    pub appends: AtomicBool,
    /// As one that has dropped what it was asked to, and has no room to note it.
    pub trims_said: AtomicBool,
}

struct Failing {
    inner: Arc<dyn Wal>,
    failures: Arc<Failures>,
}

impl Wal for Failing {
    fn state(&self) -> LogState {
        self.inner.state()
    }
    fn append(
        &self,
        run: Run,
        done: Done<Result<Appended, WalError>>,
    ) -> Result<Started<Result<Appended, WalError>>, Box<Rejected>> {
        if self.failures.appends.load(Ordering::Relaxed) {
            return Err(Box::new(Rejected { why: Refused::Full, run }));
        }
        self.inner.append(run, done)
    }
    fn sync(&self, upto: Offset, done: Done<Result<Offset, WalError>>) -> Started<Result<Offset, WalError>> {
        if self.failures.syncs.load(Ordering::Relaxed) {
            return Started::Now(Err(WalError::Failed(Cause::new("the disk is on fire"))));
        }
        self.inner.sync(upto, done)
    }
    fn read(&self, range: ReadRange, done: Done<Result<Chunk, WalError>>) -> Started<Result<Chunk, WalError>> {
        self.inner.read(range, done)
    }
    fn truncate_suffix(&self, from: Offset, done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        self.inner.truncate_suffix(from, done)
    }
    fn truncate_prefix(&self, upto: Offset, done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        match self.inner.truncate_prefix(upto, done) {
            Started::Now(Ok(())) if self.failures.trims_said.load(Ordering::Relaxed) => {
                Started::Now(Err(WalError::Full))
            }
            started => started,
        }
    }
    fn reset(&self, start: Offset, done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
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
    fn close(&self, done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        self.inner.close(done)
    }
}

pub(crate) struct FailingEngine {
    inner: Arc<dyn WalEngine>,
    pub failures: Arc<Failures>,
}

impl FailingEngine {
    pub fn over(inner: Arc<dyn WalEngine>) -> Self {
        Self { inner, failures: Arc::default() }
    }
}

#[async_trait]
impl WalEngine for FailingEngine {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    async fn open(&self, id: LogId, options: OpenOptions) -> Result<Arc<dyn Wal>, EngineError> {
        let inner = self.inner.open(id, options).await?;
        Ok(Arc::new(Failing { inner, failures: self.failures.clone() }))
    }
    async fn list(&self) -> Result<Vec<LogId>, EngineError> {
        self.inner.list().await
    }
    async fn delete(&self, id: LogId) -> Result<(), EngineError> {
        self.inner.delete(id).await
    }
    fn usage(&self) -> Usage {
        self.inner.usage()
    }
    async fn close(&self) -> Result<(), EngineError> {
        self.inner.close().await
    }
}
