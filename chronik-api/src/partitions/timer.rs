//! One timer for a deadline that moves: the earliest one counts.
//!
//! A partition says its deadline after each change, mostly the same one again, or a later one: that costs one look at a
//! number. An earlier one takes the place of the one before, since what is due in milliseconds (what followers are told of
//! the watermark) must not wait for what is due in a second (a replica that is throttled). When a timer goes off the deadline
//! is looked at anew.

use chronik_core::time::Monotonic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio::task::AbortHandle;

const UNSET: u64 = u64::MAX;

/// See the module's head.
#[derive(Debug)]
pub struct Timer {
    /// When it goes off, in nanoseconds; changed only under the lock.
    at: AtomicU64,
    task: Mutex<Option<AbortHandle>>,
}

impl Default for Timer {
    fn default() -> Self {
        Self { at: AtomicU64::new(UNSET), task: Mutex::default() }
    }
}

fn nanos(at: Monotonic) -> u64 {
    // Centuries away is never.
    u64::try_from(at.0.as_nanos()).unwrap_or(UNSET - 1).min(UNSET - 1)
}

impl Timer {
    /// Makes sure that one goes off at `at` or before. `spawn` starts a task that waits until then and calls
    /// [`Timer::went_off`] before it looks what is due.
    pub fn set(&self, at: Monotonic, spawn: impl FnOnce() -> AbortHandle) {
        let at = nanos(at);
        // One that has gone off since then looks after what the caller has done, and sets the next itself.
        if self.at.load(Ordering::Acquire) <= at {
            return;
        }
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if self.at.load(Ordering::Acquire) <= at {
            return;
        }
        if let Some(later) = task.replace(spawn()) {
            later.abort();
        }
        self.at.store(at, Ordering::Release);
    }

    /// The one for `at` goes off. It may be that another has taken its place just then: both look, which does no harm.
    pub fn went_off(&self, at: Monotonic) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if self.at.load(Ordering::Acquire) == nanos(at) {
            self.at.store(UNSET, Ordering::Release);
            *task = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::sync::mpsc;

    #[tokio::test(start_paused = true)]
    async fn the_earliest_deadline_counts_and_each_goes_off_once() {
        let start = tokio::time::Instant::now();
        let timer = Arc::new(Timer::default());
        let (sender, mut gone_off) = mpsc::unbounded_channel();
        let set = |ms: u64| {
            let at = Monotonic(Duration::from_millis(ms));
            timer.set(at, || {
                let (timer, sender) = (timer.clone(), sender.clone());
                let wait = async move {
                    tokio::time::sleep_until(start + at.0).await;
                    timer.went_off(at);
                    let _ = sender.send(ms);
                };
                tokio::spawn(wait).abort_handle()
            });
        };
        [1_000, 2_000, 1_000, 5, 7, 1_000].into_iter().for_each(&set);
        assert_eq!(gone_off.recv().await, Some(5));
        set(1_000);
        set(1_500);
        assert_eq!(gone_off.recv().await, Some(1_000));
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(gone_off.try_recv().is_err(), "nothing else was set");
    }
}
