//! Executions that do not end: a thread of its own looks at what the workers are at.
//!
//! **It counts its own looks, not the clock.** A process that is stopped, or that others keep from the processors, does not
//! hang: no time passes for it, and none for whoever watches in it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// An execution that works for longer than this, twice in a row, fails. Inputs are a few kilobytes: most take microseconds.
pub const SLOW: Duration = Duration::from_secs(1);
/// How often the watchdog looks.
pub const LOOK_EVERY: Duration = Duration::from_millis(200);
/// One that has not come back after this, in looks, is taken never to. Far above [`SLOW`], since a machine may have other
/// things to do.
pub const HUNG: Duration = Duration::from_secs(30);

/// How often whoever waits is told how far it is.
pub const TELL_EVERY: Duration = Duration::from_secs(60);

/// What a worker is at, and how often it was found at it.
#[derive(Debug, Default)]
pub struct Desk(Mutex<Option<Work>>);

#[derive(Debug, Default)]
struct Work {
    target: &'static str,
    input: Vec<u8>,
    looks: u32,
    /// Executions begun, of this target and since [`Desk::leave`].
    begun: u64,
}

impl Desk {
    pub fn begin(&self, target: &'static str, input: &[u8]) {
        let mut work = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The buffer is used again: this happens before every execution.
        let work = work.get_or_insert_default();
        (work.target, work.looks, work.begun) = (target, 0, work.begun + 1);
        work.input.clear();
        work.input.extend_from_slice(input);
    }

    /// The worker has nothing in hand any more.
    pub fn leave(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What it is at, and how many executions it has begun.
    pub fn begun(&self) -> Option<(&'static str, u64)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|work| (work.target, work.begun))
    }

    /// Called every [`LOOK_EVERY`]: the target and the input that has been found in hand for [`HUNG`].
    pub fn look(&self) -> Option<(&'static str, Vec<u8>)> {
        let mut work = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let work = work.as_mut()?;
        work.looks += 1;
        (LOOK_EVERY * work.looks > HUNG).then(|| (work.target, work.input.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_found_at_the_same_again_and_again_hangs_and_who_goes_on_does_not() {
        let desk = Desk::default();
        let looks = || (0..1_000).position(|_| desk.look().is_some());
        assert_eq!(looks(), None, "nobody is at it");
        desk.begin("target", b"input");
        let patience = looks();
        assert_eq!(patience, Some((HUNG.as_millis() / LOOK_EVERY.as_millis()) as usize));
        assert_eq!(desk.look(), Some(("target", b"input".to_vec())));
        desk.begin("target", b"another");
        assert_eq!(desk.begun(), Some(("target", 2)));
        assert_eq!(looks(), patience, "it begins anew with each input");
        desk.leave();
        assert_eq!(looks(), None);
    }
}
