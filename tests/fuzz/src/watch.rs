//! Executions that do not end: a thread of its own looks at what the workers are at.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// An execution that works for longer than this, twice in a row, fails. Inputs are a few kilobytes: most take microseconds.
pub const SLOW: Duration = Duration::from_secs(1);
/// One that has not come back after this is taken never to. Far above [`SLOW`], since a machine may have other things to do.
pub const HUNG: Duration = Duration::from_secs(30);

/// What a worker is at.
#[derive(Debug, Default)]
pub struct Desk(Mutex<Option<(Instant, &'static str, Vec<u8>)>>);

impl Desk {
    pub fn begin(&self, target: &'static str, input: &[u8]) {
        let mut work = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match work.as_mut() {
            // The buffer is used again: this happens before every execution.
            Some((since, name, copy)) => {
                (*since, *name) = (Instant::now(), target);
                copy.clear();
                copy.extend_from_slice(input);
            }
            None => *work = Some((Instant::now(), target, input.to_vec())),
        }
    }

    /// The worker has nothing in hand any more.
    pub fn leave(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The target and the input that has been executed for longer than [`HUNG`].
    pub fn hung(&self) -> Option<(&'static str, Vec<u8>)> {
        let work = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work.as_ref().filter(|(since, ..)| since.elapsed() > HUNG).map(|(_, name, input)| (*name, input.clone()))
    }
}
