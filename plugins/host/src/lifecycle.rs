//! Calls that may block for long, each on a thread of its own and with a deadline: a plug-in that hangs on open costs a
//! thread, and whoever waits gets an answer.

use chronik_core::pending::{Done, Pending, Started};
use std::io;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Why a lifecycle call has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("the plug-in has not answered `{call}` for {waited:?}")]
    Late { call: &'static str, waited: Duration },
    #[error("no thread for the call")]
    NoThread(#[source] io::Error),
}

/// Starts `work`. If its answer comes after the deadline, `too_late` gets it.
pub(crate) fn run<T: Send + 'static>(
    call: &'static str,
    deadline: Duration,
    work: impl FnOnce() -> T + Send + 'static,
    too_late: impl FnOnce(T) + Send + 'static,
) -> Pending<Result<T, NoAnswer>> {
    Pending::start(|done| {
        // Whoever takes it answers: the worker, or the thread that keeps the time.
        let done = Arc::new(Mutex::new(Some(done)));
        let take = |done: &Mutex<Option<Done<_>>>| done.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (over, wait) = channel::<()>();
        let worker_done = done.clone();
        let worker = move || {
            let answer = work();
            match take(&worker_done) {
                Some(done) => done.complete(Ok(answer)),
                None => too_late(answer),
            }
            drop(over);
        };
        let clock_done = done.clone();
        let clock = move || {
            if wait.recv_timeout(deadline) == Err(RecvTimeoutError::Timeout)
                && let Some(done) = take(&clock_done)
            {
                done.complete(Err(NoAnswer::Late { call, waited: deadline }));
            }
        };
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| thread::Builder::new().name(name.into()).spawn(work);
        let started = spawn("plugin-clock", Box::new(clock)).and_then(|_| spawn("plugin-call", Box::new(worker)));
        if let Err(error) = started
            && let Some(done) = take(&done)
        {
            drop(done);
            return Started::Now(Err(NoAnswer::NoThread(error)));
        }
        Started::Later
    })
}

/// Waits for a call in place.
pub(crate) fn wait<T: Send + 'static>(pending: Pending<T>) -> T {
    struct Unpark(thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut pending = std::pin::pin!(pending);
    loop {
        match pending.as_mut().poll(&mut context) {
            std::task::Poll::Ready(answer) => return answer,
            std::task::Poll::Pending => thread::park(),
        }
    }
}

use std::future::Future;
