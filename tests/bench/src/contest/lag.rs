//! Whether a generator that was to send at fixed times did so. Where it did not, latencies are those of the generator.

use crate::stats::Latencies;

/// More than this part of the sends may not have been late …
const LATE_SHARE: f64 = 0.01;
/// … by more than the time between two of them, or than this where that is less: the system's own wake-ups take as long.
const LATE_MICROS_MIN: f64 = 1_000.0;

/// Why the latencies do not count, or none.
pub fn judge(lag: &Latencies, per_second: f64) -> Option<String> {
    let late = lag.micros(1.0 - LATE_SHARE);
    let allowed = (1e6 / per_second).max(LATE_MICROS_MIN);
    (late > allowed).then(|| {
        format!("the generator lagged: one in a hundred was sent more than {late:.0} µs after its time ({allowed:.0} µs are allowed)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_few_may_be_late_but_no_more() {
        let lag = |late: u32| {
            let mut lag = Latencies::new();
            (0..1_000).for_each(|number| lag.record(Duration::from_micros(if number < late { 20_000 } else { 10 })));
            lag
        };
        assert_eq!(judge(&lag(5), 1000.0), None);
        assert!(judge(&lag(20), 1000.0).is_some_and(|why| why.contains("the generator lagged")));
        assert_eq!(judge(&lag(20), 10.0), None, "at ten a second twenty milliseconds are soon");
    }
}
