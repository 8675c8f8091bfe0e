//! A comparison as it is reported: everything that was measured and what it depends on, for people and for programs.
//!
//! - [`summary`]: from what rounds showed to medians, intervals and ratios.
//! - [`anatomy`]: where the time of acknowledged records went.
//! - [`table`], [`html`] (with [`chart`]): for people. `--json` is the report as it is.
//! - [`baseline`]: what has changed since an earlier report.
//! - [`options`]: what all comparisons can be told.

pub mod anatomy;
pub mod baseline;
pub mod chart;
pub mod html;
pub mod options;
pub mod summary;
pub mod table;

use crate::contest::Better;
use crate::stats::Interval;
use serde::{Deserialize, Serialize};

/// Reports of another format are not read.
pub const FORMAT: u32 = 1;

/// See the module's head.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub format: u32,
    pub benchmark: String,
    /// What was typed.
    pub command: String,
    /// Seconds since 1970.
    pub began: u64,
    pub took_seconds: f64,
    pub seed: u64,
    pub rounds: usize,
    pub candidates: Vec<String>,
    /// The candidate that the others are compared with.
    pub reference: String,
    pub machine: Vec<Fact>,
    /// What else figures depend on: durability, encryption, versions of what was measured.
    pub conditions: Vec<Fact>,
    pub cases: Vec<Case>,
    pub notes: Vec<String>,
}

/// A name and a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    pub name: String,
    pub value: String,
}

impl Fact {
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into() }
    }
}

/// One kind of work, and how all candidates did it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Case {
    pub name: String,
    pub about: String,
    pub rounds: usize,
    /// Rounds that were disturbed, and do not count.
    pub made_again: usize,
    pub candidates: Vec<Candidate>,
    pub ratios: Vec<Compared>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Candidate {
    pub name: String,
    pub facts: Vec<Fact>,
    /// Rounds whose latencies do not count since the generator lagged, and why the first of them.
    pub invalid_rounds: usize,
    pub invalid_because: Option<String>,
    pub figures: Vec<Summary>,
    pub latencies: Vec<Distribution>,
    /// Where the time of acknowledged records went, over all rounds together, where brokers tell it. Reports of earlier
    /// releases have none.
    #[serde(default)]
    pub stages: Vec<Stage>,
}

/// A part of the time of acknowledged records; see [`anatomy`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// What it stands in a row with: those may be added.
    pub row: String,
    pub name: String,
    /// Batches that were followed.
    pub count: u64,
    pub mean_micros: f64,
    /// None where that cannot be told.
    pub p99_micros_at_most: Option<f64>,
}

/// A figure over all rounds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    pub name: String,
    pub unit: String,
    pub better: Better,
    pub median: f64,
    /// Of the median, 95 %; none with fewer than six rounds.
    pub interval: Option<Interval>,
    /// Of each round; none where it does not count.
    pub values: Vec<Option<f64>>,
}

/// How long something took, over all rounds together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Distribution {
    pub name: String,
    pub count: u64,
    /// Quantiles with microseconds, the last one the maximum.
    pub micros: Vec<(f64, f64)>,
}

/// What a ratio says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Better,
    Worse,
    /// Higher or lower, of a figure that is no goal.
    Differs,
    NoDifference,
    TooFewPairs,
}

/// A candidate's figure as a multiple of the reference's, pair by pair.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Compared {
    pub figure: String,
    pub candidate: String,
    pub ratio: f64,
    pub interval: Option<Interval>,
    pub pairs: usize,
    pub verdict: Verdict,
}

impl Verdict {
    pub fn of(ratio: &crate::stats::Ratio, better: Better) -> Self {
        let Some(interval) = ratio.interval else { return Verdict::TooFewPairs };
        if interval.covers(1.0) {
            return Verdict::NoDifference;
        }
        match (better, interval.low > 1.0) {
            (Better::Neither, _) => Verdict::Differs,
            (Better::Higher, true) | (Better::Lower, false) => Verdict::Better,
            (Better::Higher, false) | (Better::Lower, true) => Verdict::Worse,
        }
    }

    pub fn words(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::Differs => "differs",
            Verdict::NoDifference => "no difference seen",
            Verdict::TooFewPairs => "too few rounds to tell",
        }
    }
}
