//! How fast records may go where that is limited (KIP-73): a bucket of bytes that fills with time.
//!
//! **What is limited** is decided elsewhere: only replicas that are not in sync, and that their topic names. Whoever sends to
//! such a one, or gives credit as one, asks first. What is in sync never asks, so it waits for nobody here.
//!
//! **Bounds.** Over any time no more is given than the rate allows and one burst, a second's worth; what turns out larger
//! than it was thought (a batch goes in one piece) is made up for by those who ask next. Whoever gets nothing is told when to
//! ask again, each a little later than the one before, so that a thousand who wait do not all ask at once; and as long as
//! somebody waits nobody is given more than a small portion.

use crate::time::Monotonic;
use std::sync::Arc;
use std::time::Duration;

/// Nothing is given before so much can be, and while others wait no more than that: small against a message, large against
/// what giving it costs. Less where the rate fills it in no short time ([`PORTION_TIME`]).
const PORTION_BYTES: u64 = 64 << 10;
/// Waiting for a portion takes no longer than this, if nothing is owed.
const PORTION_TIME: Duration = Duration::from_millis(100);
/// What nobody took is kept as long as this.
const BURST: Duration = Duration::from_secs(1);
/// Whoever waits asks again after so long at the latest: the limit may have been lifted.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Bytes that were filled by a rate over nanoseconds, exactly: a billion are a byte.
type Fill = i128;
const BYTE: Fill = 1_000_000_000;

/// What one broker may still send, or take.
#[derive(Clone, Debug, Default)]
pub struct Bucket {
    /// Bytes a second; `None`: no limit.
    rate: Option<u64>,
    /// Below zero if more was used than there was.
    fill: Fill,
    filled_at: Monotonic,
    /// When the last of those who wait is to ask again.
    last_turn: Monotonic,
}

impl Bucket {
    /// Changes the limit; another one begins with a full bucket, and what was owed is forgotten.
    pub fn set_rate(&mut self, now: Monotonic, rate: Option<u64>) {
        if rate != self.rate {
            let fill = filled(rate.unwrap_or(0), BURST);
            *self = Self { rate, fill, filled_at: now, last_turn: now };
        }
    }

    pub fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// How many of these bytes may be used now, or when to ask again.
    pub fn ask(&mut self, now: Monotonic, wanted: u64) -> Result<u64, Monotonic> {
        let Some(rate) = self.rate else { return Ok(wanted) };
        self.refill(now, rate);
        let portion = filled(rate, PORTION_TIME).clamp(BYTE, Fill::from(PORTION_BYTES) * BYTE);
        if self.fill >= portion {
            let most = if self.last_turn > now { portion } else { self.fill };
            let given = u64::try_from(most / BYTE).unwrap_or(u64::MAX).min(wanted);
            self.fill -= Fill::from(given) * BYTE;
            return Ok(given);
        }
        let latest = now + ASK_AGAIN;
        let turn = match Fill::from(rate) {
            0 => latest,
            rate => {
                let takes = |fill: Fill| {
                    let nanos = u64::try_from(fill.div_euclid(rate) + 1).unwrap_or(u64::MAX);
                    Duration::from_nanos(nanos)
                };
                (now + takes(portion - self.fill)).max(self.last_turn + takes(portion)).min(latest)
            }
        };
        self.last_turn = turn;
        Err(turn)
    }

    /// Of what was given so much was used: the rest is there again, or more is owed.
    pub fn settle(&mut self, given: u64, used: u64) {
        if self.rate.is_some() {
            self.fill += (Fill::from(given) - Fill::from(used)) * BYTE;
        }
    }

    fn refill(&mut self, now: Monotonic, rate: u64) {
        let passed = now.0.saturating_sub(self.filled_at.0);
        self.filled_at = self.filled_at.max(now);
        self.fill = (self.fill + filled(rate, passed)).min(filled(rate, BURST));
    }
}

fn filled(rate: u64, time: Duration) -> Fill {
    let nanos = Fill::try_from(time.as_nanos()).unwrap_or(Fill::MAX);
    Fill::from(rate).saturating_mul(nanos)
}

/// A bucket that all replicas on a broker share: the host keeps it behind a lock.
pub trait Throttle: Send + Sync {
    /// See [`Bucket::ask`].
    fn ask(&self, now: Monotonic, wanted: u64) -> Result<u64, Monotonic>;

    /// See [`Bucket::settle`].
    fn settle(&self, given: u64, used: u64);
}

/// No limit at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unlimited;

impl Throttle for Unlimited {
    fn ask(&self, _: Monotonic, wanted: u64) -> Result<u64, Monotonic> {
        Ok(wanted)
    }

    fn settle(&self, _: u64, _: u64) {}
}

/// A broker's two.
#[derive(Clone)]
pub struct Throttles {
    /// For what it sends as a leader.
    pub leader: Arc<dyn Throttle>,
    /// For what it takes as a follower.
    pub follower: Arc<dyn Throttle>,
}

impl Throttles {
    pub fn unlimited() -> Self {
        Self { leader: Arc::new(Unlimited), follower: Arc::new(Unlimited) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::{Dice, Seed};

    fn at(ms: u64) -> Monotonic {
        Monotonic(Duration::from_millis(ms))
    }

    fn bucket(rate: u64) -> Bucket {
        let mut bucket = Bucket::default();
        bucket.set_rate(at(0), Some(rate));
        bucket
    }

    #[test]
    fn without_a_limit_all_is_given_and_with_one_a_burst_and_then_what_it_fills() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.ask(at(0), u64::MAX), Ok(u64::MAX));
        bucket.set_rate(at(0), Some(1_000));
        assert_eq!(bucket.ask(at(0), 600), Ok(600));
        assert_eq!(bucket.ask(at(0), 600), Ok(400), "that was a second's worth");
        let turn = bucket.ask(at(0), 600).expect_err("it is empty");
        assert!((100..=101).contains(&turn.0.as_millis()), "a portion takes a tenth of a second: {turn:?}");
        assert_eq!(bucket.ask(turn, 600), Ok(100));
        assert_eq!(bucket.ask(at(60_000), u64::MAX), Ok(1_000), "a minute's silence saves no more than a burst");
        bucket.set_rate(at(60_000), None);
        assert_eq!(bucket.ask(at(60_000), u64::MAX), Ok(u64::MAX));
    }

    #[test]
    fn what_was_larger_than_given_is_owed_and_what_was_not_used_is_there_again() {
        let mut bucket = bucket(1_000);
        assert_eq!(bucket.ask(at(0), 1_000), Ok(1_000));
        bucket.settle(1_000, 3_000);
        let turn = bucket.ask(at(0), 1).expect_err("two seconds are owed");
        assert_eq!(turn, at(0) + ASK_AGAIN, "and yet it is asked again sooner, since the limit may be lifted");
        assert!(bucket.ask(at(2_000), 1).is_err());
        assert_eq!(bucket.ask(at(3_500), 1_000), Ok(1_000), "owed no more");
        bucket.settle(1_000, 0);
        assert_eq!(bucket.ask(at(3_500), 1_000), Ok(1_000));
        bucket.settle(1_000, 1_000_000);
        bucket.set_rate(at(3_500), Some(2_000));
        assert_eq!(bucket.ask(at(3_500), 500), Ok(500), "another limit begins anew");
    }

    #[test]
    fn a_rate_of_nothing_gives_nothing_and_is_asked_again() {
        let mut bucket = bucket(0);
        assert_eq!(bucket.ask(at(7), 1), Err(at(7) + ASK_AGAIN));
        assert_eq!(bucket.ask(at(1_000_000), 1), Err(at(1_000_000) + ASK_AGAIN));
        bucket.set_rate(at(1_000_001), None);
        assert_eq!(bucket.ask(at(1_000_001), 1), Ok(1));
    }

    #[test]
    fn those_who_wait_are_called_one_after_the_other_and_get_a_portion_each() {
        let mut bucket = bucket(1_000);
        bucket.ask(at(0), 1_000).expect("there is a burst");
        let turns: Vec<_> = (0..5).map(|_| bucket.ask(at(0), 1_000).expect_err("empty")).collect();
        assert!(turns.is_sorted_by(|a, b| b.0.saturating_sub(a.0) >= PORTION_TIME), "{turns:?}");
        for turn in &turns[..4] {
            assert_eq!(bucket.ask(*turn, 1_000), Ok(100), "others wait");
        }
    }

    /// Whoever asks, whenever, for however much, and uses more or less than that: no more than the rate and a burst, and
    /// one batch each of those that were under way; and those who do as they are told get what the rate allows.
    #[test]
    fn over_any_time_the_rate_is_kept_and_used() {
        for seed in 0..200 {
            let _seed = Seed(seed);
            let mut dice = Dice(seed);
            let rate = [1, 90, 10_000, 3_000_000, 400_000_000][dice.roll(5) as usize];
            let batch_max = 1 + dice.roll(rate.min(1 << 20));
            let mut bucket = bucket(rate);
            let waiting = 1 + dice.roll(20) as usize;
            let mut turns = vec![at(0); waiting];
            let (mut used, mut now) = (0u64, at(0));
            while now < at(10_000) {
                let who = (0..waiting).min_by_key(|who| turns[*who]).expect("somebody");
                now = now.max(turns[who]);
                match bucket.ask(now, 1 << 20) {
                    Ok(given) => {
                        // Whole batches, one at least.
                        let takes = batch_max * (given / batch_max).max(1);
                        bucket.settle(given, takes);
                        used += takes;
                        turns[who] = now + Duration::from_micros(dice.roll(2_000));
                    }
                    Err(turn) => {
                        assert!(turn > now, "it makes sense to wait");
                        turns[who] = turn;
                    }
                }
                let allowed = u128::from(rate) * (now.0 + BURST).as_nanos() / 1_000_000_000;
                assert!(u128::from(used) <= allowed + u128::from(batch_max), "{used} of {allowed} at {now:?}");
            }
            assert!(used >= rate * 8, "{used} of {}: what may be used is used", rate * 10);
        }
    }
}
