//! A disk that forgets: two logs and some values, as `store` lays Raft's state on them.

use crate::dice::Dice;
use crate::ids::Offset;
use crate::metadata::raft::Recovered;
use crate::metadata::raft::store::{self, HARD_STATE, Log, SNAPSHOT, Step, Survey};
use crate::payload::Payload;
use crate::wal::{LogState, Run};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;

/// A log that holds to the contract of `Wal`, and keeps of what was not synced as much as chance leaves it.
#[derive(Clone, Default)]
struct ModelLog {
    start: Offset,
    runs: Vec<Run>,
    durable: usize,
}

impl ModelLog {
    fn end(&self) -> Offset {
        self.runs.last().map_or(self.start, |run| run.next_offset)
    }

    fn state(&self) -> LogState {
        LogState { start: self.start, end: self.end(), ..LogState::default() }
    }

    fn append(&mut self, run: &Run) {
        assert_eq!(run.base, self.end(), "an append that is not at the end");
        let before = self.runs.last().map_or(run.epoch, |last| last.epoch);
        assert!(run.epoch >= before, "an append with an epoch lower than the one before");
        self.runs.push(run.clone());
    }

    fn cut_suffix(&mut self, from: Offset) {
        assert!(from >= self.start && from <= self.end(), "a cut at {from} outside the log");
        self.runs.retain(|run| run.next_offset <= from);
        // A truncation is durable on completion, and with it all that it left.
        self.durable = self.runs.len();
    }

    fn cut_prefix(&mut self, upto: Offset) {
        assert!(upto <= self.end(), "a cut up to {upto} beyond the log");
        let gone = self.runs.iter().take_while(|run| run.next_offset <= upto).count();
        self.runs.drain(..gone);
        self.durable = self.durable.saturating_sub(gone);
        self.start = self.start.max(upto);
    }

    fn read(&self, range: &Range<Offset>) -> Payload {
        let within = self.runs.iter().filter(|run| run.base >= range.start && run.next_offset <= range.end);
        within.flat_map(|run| run.bytes.clone()).collect()
    }

    fn crash(&mut self, dice: &mut Dice) {
        let unsure = (self.runs.len() - self.durable) as u64;
        self.runs.truncate(self.durable + dice.roll(unsure + 1) as usize);
        self.durable = self.runs.len();
    }
}

#[derive(Clone, Default)]
pub struct Disk {
    values: BTreeMap<&'static str, Bytes>,
    entries: ModelLog,
    snapshots: ModelLog,
}

impl Disk {
    fn log(&mut self, log: Log) -> &mut ModelLog {
        match log {
            Log::Entries => &mut self.entries,
            Log::Snapshots => &mut self.snapshots,
        }
    }

    pub fn snapshots_end(&self) -> Offset {
        self.snapshots.end()
    }

    pub fn carry_out(&mut self, step: &Step) {
        match step {
            Step::Put { key, value } => drop(self.values.insert(key, value.clone())),
            Step::Append(log, run) => self.log(*log).append(run),
            Step::Sync(log, upto) => {
                let log = self.log(*log);
                log.durable = log.durable.max(log.runs.iter().filter(|run| run.next_offset <= *upto).count());
            }
            Step::CutSuffix(log, from) => self.log(*log).cut_suffix(*from),
            Step::CutPrefix(log, upto) => self.log(*log).cut_prefix(*upto),
            Step::Reset(log, start) => *self.log(*log) = ModelLog { start: *start, ..ModelLog::default() },
        }
    }

    /// The power fails.
    pub fn crash(&mut self, dice: &mut Dice) {
        self.entries.crash(dice);
        self.snapshots.crash(dice);
    }

    fn survey(&self) -> Survey {
        let value = |key| self.values.get(key).map(|value| &value[..]);
        store::survey(value(HARD_STATE), value(SNAPSHOT), &self.entries.state(), &self.snapshots.state())
            .expect("a crash is no damage")
    }

    /// As a driver recovers.
    pub fn recover(&mut self) -> Recovered {
        let survey = self.survey();
        for step in &survey.finish {
            self.carry_out(step);
        }
        let (image, entries) = (self.snapshots.read(&survey.image), self.entries.read(&survey.entries));
        survey.recover(&image, &entries).expect("a crash is no damage")
    }

    /// What would be there after a crash at this moment that takes everything it may.
    pub fn durably(&self) -> Recovered {
        let mut after = self.clone();
        after.entries.runs.truncate(after.entries.durable);
        after.snapshots.runs.truncate(after.snapshots.durable);
        after.recover()
    }
}

type Part = (LogState, Payload);

impl Disk {
    /// Values, entries, pieces of images: where the logs stand and what is in them.
    pub fn parts(&self) -> (BTreeMap<&'static str, Bytes>, Part, Part) {
        let part = |log: &ModelLog| (log.state(), log.runs.iter().flat_map(|run| run.bytes.clone()).collect());
        (self.values.clone(), part(&self.entries), part(&self.snapshots))
    }
}
