//! What several rounds say of a figure, and of the ratio of two.
//!
//! Medians have the interval that order statistics give, which is exact and asks nothing of how figures are distributed. Ratios
//! are the mean of log-ratios, pair by pair, so that what befell a whole round cancels out; their interval is a bootstrap
//! one. Bootstrap intervals of few values are too narrow, by what Student's distribution and the number of values say;
//! they are stretched by that.

use crate::stats::Dice;
use serde::{Deserialize, Serialize};

/// With fewer pairs nothing is said about a difference.
pub const PAIRS_MIN: usize = 10;

/// Enough that the interval's ends are settled to a fraction of its width.
const RESAMPLES: usize = 4_000;

/// Where a figure lies with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

impl Interval {
    pub fn covers(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }
}

/// How many times one is the other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    pub ratio: f64,
    /// None with fewer than [`PAIRS_MIN`] pairs.
    pub interval: Option<Interval>,
    pub pairs: usize,
}

/// The middle of several figures; with an even number of them, between the two in the middle.
pub fn median(figures: &[f64]) -> f64 {
    let sorted = sorted(figures);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// Where the median of what these were drawn from lies, with at least 95 % confidence. Fewer than six cannot tell.
pub fn median_interval(figures: &[f64]) -> Option<Interval> {
    let sorted = sorted(figures);
    let count = sorted.len();
    // The chance that at most `below` of them are under the median, while that is at most 2.5 %.
    let mut term = 0.5_f64.powi(i32::try_from(count).ok()?);
    let (mut chance, mut below) = (term, 0);
    if chance > 0.025 || count < 2 {
        return None;
    }
    while below + 1 < count / 2 {
        term *= (count - below) as f64 / (below + 1) as f64;
        if chance + term > 0.025 {
            break;
        }
        chance += term;
        below += 1;
    }
    Some(Interval { low: sorted[below], high: sorted[count - 1 - below] })
}

/// How many times the first of each pair is the second. None without pairs, or where a figure is not above zero.
pub fn paired(pairs: &[(f64, f64)], seed: u64) -> Option<Ratio> {
    let logs: Option<Vec<f64>> = pairs.iter().map(|(one, other)| Some(log(*one)? - log(*other)?)).collect();
    let logs = logs.filter(|logs| !logs.is_empty())?;
    let centre = mean(&logs);
    let means = resampled(seed, |dice| mean_of_drawn(&logs, dice));
    let interval = (logs.len() >= PAIRS_MIN).then(|| stretched(centre, &means, logs.len()));
    Some(Ratio { ratio: centre.exp(), interval, pairs: logs.len() })
}

/// The same for figures that are no pairs, as those of two runs: what befell one run alone does not cancel out.
pub fn unpaired(ones: &[f64], others: &[f64], seed: u64) -> Option<Ratio> {
    let logs = |figures: &[f64]| -> Option<Vec<f64>> {
        let logs: Option<Vec<f64>> = figures.iter().map(|figure| log(*figure)).collect();
        logs.filter(|logs| !logs.is_empty())
    };
    let (ones, others) = (logs(ones)?, logs(others)?);
    let centre = mean(&ones) - mean(&others);
    let means = resampled(seed, |dice| mean_of_drawn(&ones, dice) - mean_of_drawn(&others, dice));
    let fewer = ones.len().min(others.len());
    let interval = (fewer >= PAIRS_MIN).then(|| stretched(centre, &means, fewer));
    Some(Ratio { ratio: centre.exp(), interval, pairs: fewer })
}

fn log(figure: f64) -> Option<f64> {
    (figure > 0.0 && figure.is_finite()).then(|| figure.ln())
}

fn sorted(figures: &[f64]) -> Vec<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn mean_of_drawn(values: &[f64], dice: &mut Dice) -> f64 {
    let drawn = |dice: &mut Dice| values[usize::try_from(dice.roll(values.len() as u64)).unwrap_or(0)];
    (0..values.len()).map(|_| drawn(dice)).sum::<f64>() / values.len() as f64
}

fn resampled(seed: u64, mut once: impl FnMut(&mut Dice) -> f64) -> Vec<f64> {
    let mut dice = Dice(seed);
    let mut means: Vec<f64> = (0..RESAMPLES).map(|_| once(&mut dice)).collect();
    means.sort_by(f64::total_cmp);
    means
}

/// The middle 95 % of what was resampled, stretched from the centre; out of logarithms.
fn stretched(centre: f64, means: &[f64], count: usize) -> Interval {
    let degrees = count.saturating_sub(1).max(1);
    let factor = student(degrees) / NORMAL * (count as f64 / degrees as f64).sqrt();
    let tail = means.len() / 40;
    let (low, high) = (means[tail], means[means.len() - 1 - tail]);
    Interval { low: (centre + (low - centre) * factor).exp(), high: (centre + (high - centre) * factor).exp() }
}

/// The 97.5th percentile of the normal distribution.
const NORMAL: f64 = 1.959_964;

/// The same of Student's distribution.
fn student(degrees: usize) -> f64 {
    const UP_TO_30: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
        2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
    ];
    // Beyond the table its expansion in the degrees is right to a thousandth.
    UP_TO_30.get(degrees.saturating_sub(1)).copied().unwrap_or(NORMAL + 2.37 / degrees as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// About normal, with mean zero and deviation one.
    fn noise(dice: &mut Dice) -> f64 {
        let one = |dice: &mut Dice| dice.roll(1 << 32) as f64 / (1u64 << 32) as f64;
        (0..12).map(|_| one(dice)).sum::<f64>() - 6.0
    }

    /// Ten pairs of one and the same, in a round that drifts by a half and with a noise of a twentieth each.
    fn against_itself(seed: u64, truly: f64) -> Vec<(f64, f64)> {
        let mut dice = Dice(seed);
        let mut pair = || {
            let round = 1000.0 * (0.5 * noise(&mut dice)).exp();
            let mut one = |times: f64| round * times * (0.05 * noise(&mut dice)).exp();
            (one(truly), one(1.0))
        };
        (0..PAIRS_MIN).map(|_| pair()).collect()
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_medians_interval_is_that_of_the_order_statistics() {
        let figures = |count: u32| (1..=count).map(f64::from).collect::<Vec<_>>();
        assert_eq!(median_interval(&figures(5)), None, "the chance that all lie on one side is 6 %");
        assert_eq!(median_interval(&figures(6)), Some(Interval { low: 1.0, high: 6.0 }));
        // From tables of the sign test: the 2nd and 9th of 10, the 6th and 15th of 20, the 40th and 61st of 100.
        assert_eq!(median_interval(&figures(10)), Some(Interval { low: 2.0, high: 9.0 }));
        assert_eq!(median_interval(&figures(20)), Some(Interval { low: 6.0, high: 15.0 }));
        assert_eq!(median_interval(&figures(100)), Some(Interval { low: 40.0, high: 61.0 }));
    }

    #[test]
    fn the_same_against_itself_shows_no_difference() {
        let shown = (0..400).filter(|seed| {
            let ratio = paired(&against_itself(*seed, 1.0), 3).expect("there are pairs");
            !ratio.interval.expect("enough pairs").covers(1.0)
        });
        // One in twenty is what the interval promises; of 400 hardly ever more than 33.
        let shown = shown.count();
        assert!(shown <= 33, "{shown} of 400");
        assert!(shown >= 5, "{shown} of 400: an interval that always covers tells nothing");
    }

    #[test]
    fn a_tenth_more_is_seen_through_a_drift_of_a_half() {
        let seen = (0..100).filter(|seed| {
            let ratio = paired(&against_itself(*seed, 1.1), 3).expect("there are pairs");
            ratio.interval.expect("enough pairs").low > 1.0
        });
        let seen = seen.count();
        assert!(seen > 90, "{seen} of 100");
    }

    #[test]
    fn the_ratio_is_the_geometric_mean_and_few_pairs_have_no_interval() {
        let ratio = paired(&[(2.0, 1.0), (8.0, 1.0)], 1).expect("there are pairs");
        assert!((ratio.ratio - 4.0).abs() < 1e-9);
        assert_eq!((ratio.interval, ratio.pairs), (None, 2));
        assert_eq!(paired(&[], 1), None);
        assert_eq!(paired(&[(0.0, 1.0)], 1), None, "there is no ratio to nothing");
        assert_eq!(unpaired(&[1.0], &[], 1), None);
    }

    #[test]
    fn two_runs_that_do_not_differ_show_no_difference_and_two_that_do_show_it() {
        let run = |seed: u64, truly: f64| -> Vec<f64> {
            let mut dice = Dice(seed);
            (0..12).map(|_| truly * (0.05 * noise(&mut dice)).exp()).collect()
        };
        let differs = |truly: f64| {
            let shows = |seed: &u64| {
                let ratio = unpaired(&run(*seed, truly), &run(seed + 1_000_000, 1.0), 3).expect("there are figures");
                !ratio.interval.expect("enough").covers(1.0)
            };
            (0..200).filter(shows).count()
        };
        let (same, other) = (differs(1.0), differs(1.15));
        assert!(same <= 20, "{same} of 200");
        assert!(other >= 190, "{other} of 200");
    }
}
