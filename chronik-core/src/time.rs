//! Time as a value that is passed in. A machine never asks what time it is.

use std::fmt;
use std::time::Duration;

/// Wall time in milliseconds since 1970: what records carry and retention compares. It may jump; no decision of safety
/// rests on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// In a batch: "no timestamp".
    pub const NONE: Timestamp = Timestamp(-1);
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Time that never goes backwards, since some start that is the same for all who share a driver: what time-outs use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(pub Duration);

impl std::ops::Add<Duration> for Monotonic {
    type Output = Monotonic;
    fn add(self, wait: Duration) -> Monotonic {
        Monotonic(self.0.saturating_add(wait))
    }
}

/// Both clocks, read together by a driver and handed to a machine with an input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    pub monotonic: Monotonic,
    pub wall: Timestamp,
}
