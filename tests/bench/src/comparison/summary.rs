//! From what rounds showed to medians, intervals, ratios and distributions.

use super::anatomy;
use super::{Candidate, Case, Compared, Distribution, Fact, Summary, Verdict};
use crate::anatomy::Stages;
use crate::contest::{Better, Observation, Outcome};
use crate::stats::{Latencies, median, median_interval, paired};
use std::collections::BTreeSet;

/// Where latencies are told, round by round and overall.
pub const QUANTILES: [(f64, &str); 4] = [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9")];

/// Where a distribution is drawn.
const DRAWN: [f64; 16] =
    [0.0, 0.1, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999];

/// A case's outcome as it is reported; ratios are to the candidate with the number `reference`.
pub fn case(outcome: &Outcome, names: &[String], reference: usize, seed: u64) -> Case {
    let candidates: Vec<Candidate> =
        outcome.observed.iter().zip(names).map(|(rounds, name)| candidate(name, rounds)).collect();
    let ratios = ratios(&candidates, reference, seed);
    Case {
        name: outcome.case.name.clone(),
        about: outcome.case.about.clone(),
        rounds: outcome.observed.first().map_or(0, Vec::len),
        made_again: outcome.made_again,
        candidates,
        ratios,
    }
}

fn candidate(name: &str, rounds: &[Observation]) -> Candidate {
    let mut figures: Vec<Summary> = Vec::new();
    let mut add = |round: usize, name: String, unit: &str, better: Better, value: f64| {
        let place = figures.iter().position(|figure| figure.name == name).unwrap_or_else(|| {
            let values = vec![None; rounds.len()];
            let unit = unit.to_owned();
            figures.push(Summary { name, unit, better, median: 0.0, interval: None, values });
            figures.len() - 1
        });
        figures[place].values[round] = value.is_finite().then_some(value);
    };
    let mut stages = Stages::default();
    rounds.iter().for_each(|shown| stages.add(&shown.stages));
    let mut sums: Vec<(&'static str, Latencies)> = Vec::new();
    for (round, shown) in rounds.iter().enumerate() {
        for (figure, value) in &shown.figures {
            add(round, figure.name.to_owned(), figure.unit, figure.better, *value);
        }
        if shown.invalid.is_some() {
            continue;
        }
        for (name, latencies) in shown.latencies.iter().filter(|(_, latencies)| latencies.count() > 0) {
            for (quantile, called) in QUANTILES {
                add(round, format!("{name} {called}"), "µs", Better::Lower, latencies.micros(quantile));
            }
            add(round, format!("{name} max"), "µs", Better::Lower, latencies.max_micros());
            match sums.iter_mut().find(|(of, _)| of == name) {
                Some((_, sum)) => sum.add(latencies),
                None => sums.push((name, latencies.clone())),
            }
        }
    }
    for figure in &mut figures {
        let values: Vec<f64> = figure.values.iter().flatten().copied().collect();
        figure.median = median(&values);
        figure.interval = median_interval(&values);
    }
    // A figure that no round could tell says nothing, and JSON has no word for it.
    figures.retain(|figure| figure.median.is_finite());
    let facts: BTreeSet<(&str, &str)> =
        rounds.iter().flat_map(|shown| &shown.facts).map(|(name, value)| (*name, value.as_str())).collect();
    let invalid: Vec<&String> = rounds.iter().filter_map(|shown| shown.invalid.as_ref()).collect();
    Candidate {
        name: name.to_owned(),
        facts: facts.into_iter().map(|(name, value)| Fact::new(name, value)).collect(),
        invalid_rounds: invalid.len(),
        invalid_because: invalid.first().map(ToString::to_string),
        figures,
        stages: anatomy::reported(&stages),
        latencies: sums.into_iter().map(|(name, sum)| distribution(name, &sum)).collect(),
    }
}

fn distribution(name: &str, sum: &Latencies) -> Distribution {
    // Beyond what so many can tell there is only the maximum.
    let told = DRAWN.into_iter().filter(|quantile| (1.0 - quantile) * sum.count() as f64 >= 1.0);
    let mut micros: Vec<(f64, f64)> = told.map(|quantile| (quantile, sum.micros(quantile))).collect();
    micros.push((1.0, sum.max_micros()));
    Distribution { name: name.to_owned(), count: sum.count(), micros }
}

fn ratios(candidates: &[Candidate], reference: usize, seed: u64) -> Vec<Compared> {
    let Some(to) = candidates.get(reference) else { return Vec::new() };
    let others = candidates.iter().enumerate().filter(|(number, _)| *number != reference).map(|(_, other)| other);
    let of = |candidate: &Candidate| -> Vec<Compared> {
        let compared = |figure: &Summary| {
            let other = to.figures.iter().find(|other| other.name == figure.name)?;
            let both = figure.values.iter().zip(&other.values);
            let pairs: Vec<(f64, f64)> = both.filter_map(|(one, other)| Some(((*one)?, (*other)?))).collect();
            let ratio = paired(&pairs, seed)?;
            Some(Compared {
                figure: figure.name.clone(),
                candidate: candidate.name.clone(),
                ratio: ratio.ratio,
                interval: ratio.interval,
                pairs: ratio.pairs,
                verdict: Verdict::of(&ratio, figure.better),
            })
        };
        candidate.figures.iter().filter_map(compared).collect()
    };
    others.flat_map(of).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::contest::{self, Figure};
    use std::time::Duration;

    const SPEED: Figure = Figure::higher("throughput", "MB/s");
    const CPU: Figure = Figure::lower("CPU", "s/GB");

    fn shown(speed: f64, micros: u64) -> Observation {
        let mut latencies = Latencies::new();
        for number in 0..2_000 {
            latencies.record(Duration::from_micros(micros + number / 10));
        }
        let shown = Observation::default().figure(SPEED, speed).figure(CPU, 1000.0 / speed);
        let stages = anatomy::tests::stages(100.0 / speed);
        Observation {
            latencies: vec![("round trip", latencies)],
            facts: vec![("sockets", "2".into())],
            stages,
            ..shown
        }
    }

    /// Two candidates over twelve rounds that drift, the second half as fast; in its third round the generator lagged.
    pub(crate) fn outcome() -> Outcome {
        let drift = |round: u32| 100.0 * f64::from(round % 5 + 1) * (1.0 + 0.01 * f64::from(round));
        let fast = (0..12).map(|round| shown(drift(round) * 2.0, 40)).collect();
        let mut slow: Vec<Observation> = (0..12).map(|round| shown(drift(round), 80)).collect();
        slow[2].invalid = Some("the generator lagged".into());
        let case = contest::Case { name: "bulk".into(), about: "Frames of 64 KiB.".into() };
        Outcome { case, observed: vec![fast, slow], made_again: 1 }
    }

    #[test]
    fn a_ratio_is_seen_through_the_drift_and_told_apart_from_the_medians() {
        let case = case(&outcome(), &["a".into(), "b".into()], 0, 1);
        let of = |figure: &str| case.ratios.iter().find(|ratio| ratio.figure == figure).expect("it is compared");
        let speed = of("throughput");
        assert!((speed.ratio - 0.5).abs() < 1e-9);
        assert_eq!((speed.candidate.as_str(), speed.pairs, speed.verdict), ("b", 12, Verdict::Worse));
        assert_eq!(of("CPU").verdict, Verdict::Worse, "twice the CPU is not better");
        assert_eq!(case.candidates[0].figures[0].values.len(), 12);
        assert_eq!(case.candidates[0].facts, [Fact::new("sockets", "2")]);
    }

    #[test]
    fn latencies_of_a_generator_that_lagged_do_not_count_and_other_figures_do() {
        let case = case(&outcome(), &["a".into(), "b".into()], 0, 1);
        let slow = &case.candidates[1];
        assert_eq!((slow.invalid_rounds, slow.invalid_because.as_deref()), (1, Some("the generator lagged")));
        let figure = |name: &str| slow.figures.iter().find(|figure| figure.name == name).expect("it is there");
        assert_eq!(figure("round trip p50").values[2], None);
        assert!(figure("throughput").values.iter().all(Option::is_some));
        assert_eq!(slow.latencies[0].count, 11 * 2_000);
        let ratio = case.ratios.iter().find(|ratio| ratio.figure == "round trip p50").expect("it is compared");
        assert_eq!(ratio.pairs, 11, "the pair goes as a whole");
    }

    #[test]
    fn a_distribution_tells_no_quantile_that_its_number_cannot() {
        let mut few = Latencies::new();
        (0..100).for_each(|_| few.record(Duration::from_micros(5)));
        let told = distribution("x", &few);
        assert_eq!(told.micros.iter().rev().nth(1).map(|step| step.0), Some(0.99));
        assert_eq!(told.micros.last().map(|step| step.0), Some(1.0));
    }
}
