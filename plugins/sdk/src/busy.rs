//! Who was told `BUSY`, and hears `ready` when it is worth trying again.
//!
//! What must stay true: each `BUSY` is followed by exactly one `ready`, whoever completes what. An engine's logs may share one
//! bound, so that one log is refused for what the others have in flight: completions of any log count for all.

use crate::table::host;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// One engine's appends.
#[derive(Default)]
pub(crate) struct Appends {
    /// Begun and not completed, or being refused.
    pending: AtomicU64,
    /// How many are in `told`: looked at after every append, without a lock.
    waiting: AtomicU64,
    /// Logs' contexts, once for each `BUSY`.
    told: Mutex<Vec<u64>>,
}

impl Appends {
    pub fn begin(&self) {
        self.pending.fetch_add(1, Ordering::SeqCst);
    }

    /// An append has completed, or was refused for another reason than `BUSY`.
    pub fn end(&self) {
        self.pending.fetch_sub(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.tell();
        }
    }

    /// An append is about to be answered `BUSY`. Where nothing is pending any more, nobody else would say that it is over.
    pub fn refuse(&self, log_context: u64) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(log_context);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        if self.pending.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.tell();
        }
    }

    fn tell(&self) {
        let told = std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner));
        self.waiting.fetch_sub(told.len() as u64, Ordering::SeqCst);
        let Some(host) = host() else { return };
        for log_context in told {
            // SAFETY: the host's function, for a log that it has opened; one that it has closed meanwhile it only notes.
            unsafe { (host.ready)(log_context) };
        }
    }
}
