//! The broker's clocks: the one place that asks what time it is. Everything that decides is handed a [`Now`].

use chronik_core::time::{Monotonic, Now, Timestamp};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Reads both clocks of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Monotonic time counts from here.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    pub fn now(&self) -> Now {
        Now { monotonic: Monotonic(self.start.elapsed()), wall: self.wall() }
    }

    /// Milliseconds since 1970; zero for a clock set before that.
    pub fn wall(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// The moment on tokio's clock that `at` names.
    pub fn instant(&self, at: Monotonic) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.start + at.0)
    }
}
