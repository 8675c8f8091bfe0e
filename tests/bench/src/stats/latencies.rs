//! How long things took, in a histogram of high dynamic range: three digits at every magnitude.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What takes longer counts as this long, and shows as the maximum.
const LONGEST_NS: u64 = 300_000_000_000;

/// See the module's head.
#[derive(Clone, Debug, PartialEq)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Latencies {
    pub fn new() -> Self {
        Self(
            Histogram::new_with_bounds(1, LONGEST_NS, 3)
                .expect("the bounds and the digits are what the library allows"),
        )
    }

    pub fn record(&mut self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record(ns.max(1));
    }

    pub fn add(&mut self, other: &Self) {
        // Both have the same bounds, so nothing is out of range.
        let _ = self.0.add(&other.0);
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Microseconds at a quantile from 0 to 1.
    pub fn micros(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }

    pub fn max_micros(&self) -> f64 {
        self.0.max() as f64 / 1e3
    }

    /// For another process.
    pub fn counts(&self) -> Counts {
        Counts(self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect())
    }
}

/// Values in nanoseconds, and how often each was met.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Counts(Vec<(u64, u64)>);

impl From<Counts> for Latencies {
    fn from(counts: Counts) -> Self {
        let mut latencies = Self::new();
        for (value, count) in counts.0 {
            latencies.0.saturating_record_n(value, count);
        }
        latencies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_told_to_three_digits_and_survives_the_way_to_another_process() {
        let mut latencies = Latencies::new();
        for micros in 1..=10_000 {
            latencies.record(Duration::from_micros(micros));
        }
        latencies.record(Duration::from_secs(3_600));
        let near = |is: f64, wanted: f64| assert!((is / wanted - 1.0).abs() < 2e-3, "{is} is not {wanted}");
        near(latencies.micros(0.5), 5_000.0);
        near(latencies.micros(0.99), 9_900.0);
        near(latencies.max_micros(), 300e6);
        let told = serde_json::to_string(&latencies.counts()).expect("it can be told");
        let heard = Latencies::from(serde_json::from_str::<Counts>(&told).expect("it can be heard"));
        assert_eq!(heard.count(), latencies.count());
        for quantile in [0.0, 0.5, 0.9, 0.99, 0.999, 1.0] {
            assert_eq!(heard.micros(quantile), latencies.micros(quantile));
        }
    }

    #[test]
    fn sums_are_of_both() {
        let one = |micros| {
            let mut one = Latencies::new();
            one.record(Duration::from_micros(micros));
            one
        };
        let mut sum = one(10);
        sum.add(&one(1_000));
        assert_eq!(sum.count(), 2);
        assert!(sum.micros(0.0) < 11.0 && sum.micros(1.0) > 999.0);
    }
}
