//! A log is closed when every call before has ended: the contract wants it, and an engine's reads may take longer than its close.
//!
//! What must stay true: the close's outcome is told once, by whoever ends last, the close among them.

use chronik_core::wal::WalError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The close's context and outcome.
type Closed = (u64, Result<(), WalError>);

/// One log's calls, but for appends, which an engine's close completes by itself.
#[derive(Default)]
pub(crate) struct Calls {
    /// Begun and not ended.
    pending: AtomicU64,
    /// The engine has closed the log: looked at after every call, without a lock.
    closed: AtomicBool,
    outcome: Mutex<Option<Closed>>,
}

/// A call that has begun. It has ended when this is dropped; one that ends later is [`Begun::ends_later`].
pub(crate) struct Begun<'a> {
    calls: &'a Calls,
    tell: fn(Closed),
}

impl Calls {
    pub fn begin(&self, tell: fn(Closed)) -> Begun<'_> {
        self.pending.fetch_add(1, Ordering::SeqCst);
        Begun { calls: self, tell }
    }

    /// The engine has closed the log. The close itself has begun and not ended.
    pub fn close(&self, context: u64, outcome: Result<(), WalError>) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some((context, outcome));
        self.closed.store(true, Ordering::SeqCst);
    }

    pub fn end(&self, tell: fn(Closed)) {
        // The close is one of those that are pending until it is marked: who ends last sees the mark.
        if self.pending.fetch_sub(1, Ordering::SeqCst) != 1 || !self.closed.load(Ordering::SeqCst) {
            return;
        }
        let closed = self.outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(closed) = closed {
            tell(closed);
        }
    }
}

impl Begun<'_> {
    /// Whoever completes it says so.
    pub fn ends_later(self) {
        std::mem::forget(self);
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.calls.end(self.tell);
    }
}
