//! Where the time of acknowledged records went, as brokers tell it in their metrics (`chronik_ack_stage_seconds`): read before
//! and after what is measured, of all nodes.
//!
//! Other brokers, and older ones of ours, tell nothing of the kind: then there is nothing, and nothing is said.

use crate::admin;
use std::collections::BTreeMap;

const FAMILY: &str = "chronik_ack_stage_seconds_";

/// The times of one stage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Times {
    pub count: u64,
    pub sum_seconds: f64,
    /// How many took no longer than so many microseconds; the last bound is beyond every number.
    pub buckets: Vec<(f64, u64)>,
}

impl Times {
    pub fn mean_micros(&self) -> f64 {
        self.sum_seconds * 1e6 / self.count as f64
    }

    /// What a hundredth at most exceeded: the bound of its bucket, so up to twice the truth. None of so few that it would be
    /// the longest of them, or beyond all bounds.
    pub fn p99_micros_at_most(&self) -> Option<f64> {
        const COUNT_MIN: u64 = 200;
        let rank = (self.count as f64 * 0.99).ceil() as u64;
        let found = self.buckets.iter().find(|(_, below)| *below >= rank);
        found.map(|(bound, _)| *bound).filter(|bound| bound.is_finite() && self.count >= COUNT_MIN)
    }

    fn combine(&mut self, other: &Times, with: impl Fn(u64, u64) -> u64, sum: f64) {
        self.count = with(self.count, other.count);
        self.sum_seconds += sum * other.sum_seconds;
        if self.buckets.is_empty() {
            self.buckets = other.buckets.iter().map(|(bound, _)| (*bound, 0)).collect();
        }
        for ((_, own), (_, others)) in self.buckets.iter_mut().zip(&other.buckets) {
            *own = with(*own, *others);
        }
    }
}

/// All stages, by path and name; of all engines, transports and kinds of acknowledgement together, of which a turn has one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stages(pub BTreeMap<(String, String), Times>);

impl Stages {
    /// Of nodes, by the addresses of their admin ports. Who does not answer tells nothing.
    pub fn of(nodes: &[String]) -> Self {
        let mut all = Self::default();
        for node in nodes {
            if let Some((200, text)) = admin::get(node, "/metrics") {
                all.add(&parsed(&text));
            }
        }
        all
    }

    pub fn add(&mut self, other: &Self) {
        for (stage, times) in &other.0 {
            self.0.entry(stage.clone()).or_default().combine(times, |a, b| a + b, 1.0);
        }
    }

    /// What came since `before`; stages of which nothing came are left out.
    pub fn since(mut self, before: &Self) -> Self {
        for (stage, times) in &before.0 {
            if let Some(now) = self.0.get_mut(stage) {
                now.combine(times, u64::saturating_sub, -1.0);
            }
        }
        self.0.retain(|_, times| times.count > 0);
        self
    }

    /// What `work` adds to them.
    pub fn during<T, E>(nodes: &[String], work: impl FnOnce() -> Result<T, E>) -> Result<(T, Self), E> {
        let before = Self::of(nodes);
        let done = work()?;
        Ok((done, Self::of(nodes).since(&before)))
    }
}

fn parsed(text: &str) -> Stages {
    let mut stages = Stages::default();
    for line in text.lines() {
        let Some((kind, rest)) = line.strip_prefix(FAMILY).and_then(|rest| rest.split_once('{')) else { continue };
        let Some((labels, value)) = rest.split_once("} ") else { continue };
        let label = |name: &str| {
            let parts = labels.split(',').filter_map(|label| label.split_once("=\""));
            parts.filter(|(key, _)| *key == name).find_map(|(_, value)| value.strip_suffix('"'))
        };
        let (Some(path), Some(stage)) = (label("path"), label("stage")) else { continue };
        let times = stages.0.entry((path.to_owned(), stage.to_owned())).or_default();
        let value = value.split(' ').next().unwrap_or_default();
        match kind {
            "sum" => times.sum_seconds += value.parse().unwrap_or(0.0),
            "count" => times.count += value.parse().unwrap_or(0),
            "bucket" => {
                let bound = label("le").map_or(f64::NAN, |bound| match bound {
                    "+Inf" => f64::INFINITY,
                    bound => bound.parse().map_or(f64::NAN, |seconds: f64| (seconds * 1e6).round()),
                });
                let count = value.parse().unwrap_or(0);
                match times.buckets.iter_mut().find(|(known, _)| *known == bound) {
                    Some((_, known)) => *known += count,
                    None => times.buckets.push((bound, count)),
                }
            }
            _ => {}
        }
    }
    stages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(acks: &str, counts: [u64; 3], sum: f64) -> String {
        let labels = format!("path=\"request\",stage=\"reply\",engine=\"segment\",transport=\"tcp\",acks=\"{acks}\"");
        let [one, two, all] = counts;
        format!(
            "# TYPE chronik_ack_stage_seconds histogram\nchronik_ready 1\n{FAMILY}sum{{{labels}}} {sum}\n\
             {FAMILY}count{{{labels}}} {all}\n{FAMILY}bucket{{le=\"1e-6\",{labels}}} {one}\n\
             {FAMILY}bucket{{le=\"0.000002\",{labels}}} {two}\n{FAMILY}bucket{{le=\"+Inf\",{labels}}} {all}\n"
        )
    }

    fn reply(stages: &Stages) -> &Times {
        &stages.0[&("request".to_owned(), "reply".to_owned())]
    }

    #[test]
    fn what_came_between_two_looks_is_told_over_all_series_of_a_stage() {
        let before = parsed(&text("all", [1, 2, 2], 0.5));
        let both = text("all", [1, 302, 302], 0.503) + &text("1", [100, 100, 100], 0.0005);
        let came = parsed(&both).since(&before);
        let times = reply(&came);
        assert_eq!((times.count, times.buckets.clone()), (400, vec![(1.0, 100), (2.0, 400), (f64::INFINITY, 400)]));
        assert!((times.mean_micros() - 0.0035 * 1e6 / 400.0).abs() < 1e-6, "{}", times.mean_micros());
        assert_eq!(times.p99_micros_at_most(), Some(2.0));
        assert_eq!(parsed(&both).since(&parsed(&both)), Stages::default(), "nothing came");
    }

    #[test]
    fn a_hundredth_of_few_or_beyond_all_bounds_is_not_told() {
        assert_eq!(reply(&parsed(&text("all", [10, 199, 199], 1.0))).p99_micros_at_most(), None);
        assert_eq!(reply(&parsed(&text("all", [10, 900, 1000], 1.0))).p99_micros_at_most(), None);
    }

    #[test]
    fn a_broker_that_tells_nothing_of_it_has_none() {
        assert_eq!(parsed("# EOF\nkafka_requests_total 7\n"), Stages::default());
        assert_eq!(Stages::of(&["127.0.0.1:1".to_owned()]), Stages::default());
    }
}
