//! Several candidates at the same work, in turns: what one turn shows, and what all rounds of them showed.

pub mod lag;
pub mod progress;
pub mod rounds;

pub use rounds::{Bout, Outcomes, Plan, run};

use crate::anatomy::Stages;
use crate::stats::Latencies;
use serde::{Deserialize, Serialize};

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    Higher,
    Lower,
    /// It explains others, and is no goal.
    Neither,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    pub name: &'static str,
    pub unit: &'static str,
    pub better: Better,
}

impl Figure {
    pub const fn higher(name: &'static str, unit: &'static str) -> Self {
        Self { name, unit, better: Better::Higher }
    }

    pub const fn lower(name: &'static str, unit: &'static str) -> Self {
        Self { name, unit, better: Better::Lower }
    }

    pub const fn neither(name: &'static str, unit: &'static str) -> Self {
        Self { name, unit, better: Better::Neither }
    }
}

/// What one turn showed of one case.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// In the order in which they are shown.
    pub figures: Vec<(Figure, f64)>,
    pub latencies: Vec<(&'static str, Latencies)>,
    /// What holds for the candidate in every round, as how many sockets it has.
    pub facts: Vec<(&'static str, String)>,
    /// Where the time of acknowledged records went, the warm-up's included, where brokers tell it.
    pub stages: Stages,
    /// Why its latencies do not count, where they do not.
    pub invalid: Option<String>,
}

impl Observation {
    pub fn figure(mut self, figure: Figure, value: f64) -> Self {
        self.figures.push((figure, value));
        self
    }

    /// One that may not be known.
    pub fn perhaps(self, figure: Figure, value: Option<f64>) -> Self {
        match value {
            Some(value) => self.figure(figure, value),
            None => self,
        }
    }
}

/// What is measured of a candidate in one case.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    /// What is done, in a sentence.
    pub about: String,
}

/// What all rounds showed of one case.
#[derive(Clone)]
pub struct Outcome {
    pub case: Case,
    /// For each candidate what each round that counts showed: the same rounds for all.
    pub observed: Vec<Vec<Observation>>,
    /// Rounds that were made again because processors were taken away, and what is said of them.
    pub made_again: usize,
}
