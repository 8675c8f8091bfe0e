//! Those who judge: each watches all facts for one thing that must hold whatever happens.
//!
//! They share one picture of the world ([`picture::Picture`]), which is drawn from facts alone and never asks a machine:
//! what a machine believes of itself is what is on trial.

pub mod clients;
pub mod committed;
pub mod groups;
pub mod leaders;
pub mod metadata;
pub mod picture;

use crate::facts::Fact;
use crate::rt::Sim;
use picture::Picture;
use std::collections::BTreeMap;

/// Something that must never be has been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub rule: &'static str,
    pub what: String,
}

/// One rule, or a few that look at the same.
pub trait Judge {
    fn hear(&mut self, fact: &Fact, picture: &Picture) -> Result<(), Violation>;
}

pub fn broken(rule: &'static str, what: String) -> Result<(), Violation> {
    Err(Violation { rule, what })
}

/// All of them.
pub struct Judges {
    pub picture: Picture,
    judges: Vec<Box<dyn Judge>>,
    /// The first thing that was wrong.
    pub verdict: Option<Violation>,
    /// How often each kind of thing happened: a story in which nothing happens proves nothing.
    pub seen: BTreeMap<&'static str, u64>,
}

impl Default for Judges {
    fn default() -> Self {
        Self {
            picture: Picture::default(),
            judges: vec![
                Box::new(leaders::OneLeader::default()),
                Box::new(leaders::Watermarks::default()),
                Box::new(leaders::Complete::default()),
                Box::new(committed::Committed::default()),
                Box::new(committed::Durable),
                Box::new(committed::InSync),
                Box::new(clients::Promises::default()),
                Box::new(clients::Reads::default()),
                Box::new(clients::Shown::default()),
                Box::new(groups::OneOwner::default()),
                Box::new(groups::CommittedOffsets::default()),
                Box::new(metadata::SameStory::default()),
                Box::new(metadata::OneController::default()),
            ],
            verdict: None,
            seen: BTreeMap::new(),
        }
    }
}

impl Judges {
    pub fn hear(&mut self, sim: &Sim, fact: &Fact) {
        if self.verdict.is_some() {
            return;
        }
        sim.mark(kind(fact).1);
        sim.trace().hear(sim.elapsed(), fact);
        let learnt = self.picture.learn(fact);
        for happened in self.picture.take_happened() {
            *self.seen.entry(happened).or_default() += 1;
        }
        let verdict = learnt.and_then(|()| {
            let picture = &self.picture;
            self.judges.iter_mut().try_for_each(|judge| judge.hear(fact, picture))
        });
        if let Err(violation) = verdict {
            sim.tell(|| format!("!! {}: {}", violation.rule, violation.what));
            self.verdict = Some(violation);
        }
    }

    pub fn count(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }
}

/// A name and a number that tells a fact from others, for the trace.
fn kind(fact: &Fact) -> (&'static str, u64) {
    let of = |kind: u64, more: u64| kind.rotate_left(56) ^ more;
    match fact {
        Fact::Opened { runs, .. } => ("opened", of(1, runs.len() as u64)),
        Fact::Appended { run, .. } => {
            ("appended", of(2, u64::from(run.crc) ^ run.base.0.unsigned_abs().rotate_left(32)))
        }
        Fact::Cut { from, .. } => ("cut", of(3, from.0.unsigned_abs())),
        Fact::Reset { start, .. } => ("reset", of(4, start.0.unsigned_abs())),
        Fact::Trimmed { start, .. } => ("trimmed", of(5, start.0.unsigned_abs())),
        Fact::Durable { end, .. } => ("durable", of(6, end.0.unsigned_abs())),
        Fact::Stands { standing, .. } => (
            "stands",
            of(7, standing.high_watermark.0.unsigned_abs() ^ standing.log_end.0.unsigned_abs().rotate_left(24)),
        ),
        Fact::Deleted { .. } => ("deleted", of(8, 0)),
        Fact::Spoiled { node, .. } => ("spoiled", of(20, node.0.unsigned_abs().into())),
        Fact::ToldNoPlace { sequence, .. } => ("told no place", of(21, sequence.unsigned_abs().into())),
        Fact::Ended { node, .. } => ("ended", of(9, node.0.unsigned_abs().into())),
        Fact::Acknowledged { base, .. } => ("acknowledged", of(10, base.0.unsigned_abs())),
        Fact::Read { from, batches, .. } => ("read", of(11, from.0.unsigned_abs() ^ (batches.len() as u64) << 32)),
        Fact::Latest { high_watermark, .. } => ("latest", of(12, high_watermark.0.unsigned_abs())),
        Fact::Applied { index, content, .. } => ("applied", of(13, index ^ content)),
        Fact::Installed { index, .. } => ("installed", of(14, *index)),
        Fact::Controls { term, .. } => ("controls", of(15, *term)),
        Fact::Healed => ("healed", of(16, 0)),
        Fact::Assigned { generation, logs, .. } => {
            ("assigned", of(17, u64::from(generation.unsigned_abs()) ^ (logs.len() as u64) << 32))
        }
        Fact::OffsetCommitted { offset, .. } => ("offset committed", of(18, offset.0.unsigned_abs())),
        Fact::OffsetFetched { offset, .. } => ("offset fetched", of(19, offset.unwrap_or(-1).unsigned_abs())),
    }
}
