//! The two buckets that all replicas on this broker share: how fast it sends to replicas that catch up, and takes as one.
//!
//! The rates are the metadata's ([`Throttling::configure`]); what the buckets decide is [`chronik_core::throttle`]'s. A lock here
//! is held for a few operations on numbers, also while a partition's driver is locked, and never the other way round.

use crate::clock::Clock;
use crate::metrics::Count;
use chronik_core::metadata::dynamic_broker_config::DynamicBrokerConfig;
use chronik_core::throttle::{Bucket, Throttle, Throttles};
use chronik_core::time::Monotonic;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One side's bucket, and what went through it.
#[derive(Debug, Default)]
pub struct Shared {
    bucket: Mutex<Bucket>,
    /// Bytes that were sent, or that leaders may send, while there was a limit.
    bytes: Count,
    /// How often somebody had to wait.
    waits: Count,
}

impl Shared {
    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        // Nothing in here can panic halfway.
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sample(&self, side: &'static str) -> ThrottleSample {
        let rate = self.bucket().rate();
        ThrottleSample { side, rate, bytes: self.bytes.get(), waits: self.waits.get() }
    }
}

impl Throttle for Shared {
    fn ask(&self, now: Monotonic, wanted: u64) -> Result<u64, Monotonic> {
        let answer = self.bucket().ask(now, wanted);
        if answer.is_err() {
            self.waits.one();
        }
        answer
    }

    fn settle(&self, given: u64, used: u64) {
        let mut bucket = self.bucket();
        bucket.settle(given, used);
        if bucket.rate().is_some() {
            self.bytes.add(used);
        }
    }
}

/// What one side's throttle has done so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThrottleSample {
    /// `leader` or `follower`.
    pub side: &'static str,
    /// Bytes a second; `None`: no limit.
    pub rate: Option<u64>,
    pub bytes: u64,
    pub waits: u64,
}

/// See the module's head.
#[derive(Clone, Debug, Default)]
pub struct Throttling {
    leader: Arc<Shared>,
    follower: Arc<Shared>,
}

impl Throttling {
    /// What drivers ask.
    pub fn throttles(&self) -> Throttles {
        Throttles { leader: self.leader.clone(), follower: self.follower.clone() }
    }

    /// The rates are these from now on.
    pub fn configure(&self, clock: Clock, config: DynamicBrokerConfig) {
        let now = clock.now().monotonic;
        self.leader.bucket().set_rate(now, config.leader_throttled_rate);
        self.follower.bucket().set_rate(now, config.follower_throttled_rate);
    }

    pub fn samples(&self) -> [ThrottleSample; 2] {
        [self.leader.sample("leader"), self.follower.sample("follower")]
    }
}
