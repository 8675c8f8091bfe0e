//! How a storage call completes: by putting its outcome into an inbox, and nothing else.
//!
//! A call *starts in order and completes later*: it returns [`Started::Now`] with the result, or [`Started::Later`] and
//! then completes its [`Done`] exactly once, from any thread, even before the call itself has returned. Completing only
//! enqueues: the caller's code never runs inside the engine, so an engine may complete under its own locks, and a
//! simulator may reorder completions at will. [`Pending`] turns one such call into a future, for tests and for cold
//! paths.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// What a started call gave: its result at once, or the promise that its [`Done`] will be completed.
#[derive(Debug)]
pub enum Started<T> {
    Now(T),
    Later,
}

/// Where outcomes arrive. Shared by any number of calls; `token` tells them apart.
pub trait Inbox<T>: Send + Sync {
    /// Takes an outcome. Only enqueues: must not block, nor call back into the engine.
    fn deliver(&self, token: u64, outcome: T);
}

/// The right, and the duty, to complete one call.
///
/// Dropping it without completing means that the call's outcome is never known; engines must not, and the conformance
/// suite looks.
pub struct Done<T> {
    inbox: Arc<dyn Inbox<T>>,
    token: u64,
}

impl<T> Done<T> {
    pub fn new(inbox: Arc<dyn Inbox<T>>, token: u64) -> Self {
        Self { inbox, token }
    }

    pub fn complete(self, outcome: T) {
        self.inbox.deliver(self.token, outcome);
    }
}

impl<T> fmt::Debug for Done<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Done").field("token", &self.token).finish_non_exhaustive()
    }
}

/// One call's outcome as a future.
#[derive(Debug)]
pub struct Pending<T> {
    slot: Arc<Slot<T>>,
}

#[derive(Debug)]
struct Slot<T>(Mutex<(Option<T>, Option<Waker>)>);

impl<T> Slot<T> {
    fn with<R>(&self, change: impl FnOnce(&mut (Option<T>, Option<Waker>)) -> R) -> R {
        // The lock guards two plain options, valid whatever a panicking holder left behind.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T: Send> Inbox<T> for Slot<T> {
    fn deliver(&self, _token: u64, outcome: T) {
        let waker = self.with(|(slot, waker)| {
            *slot = Some(outcome);
            waker.take()
        });
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T: Send + 'static> Pending<T> {
    /// Starts a call with a fresh [`Done`]; awaiting the result gives the call's outcome, whichever way it came.
    pub fn start(call: impl FnOnce(Done<T>) -> Started<T>) -> Self {
        let slot = Arc::new(Slot(Mutex::new((None, None))));
        if let Started::Now(outcome) = call(Done::new(slot.clone(), 0)) {
            slot.with(|(slot, _)| *slot = Some(outcome));
        }
        Self { slot }
    }
}

impl<T> Future for Pending<T> {
    type Output = T;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.slot.with(|(slot, waker)| match slot.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
        })
    }
}
