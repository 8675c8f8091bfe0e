//! What a log must be, in the fewest words: a list of runs. Slow, and compared against after every step of a history.

use super::driver::{Log, everything, run_of};
use chronik_core::ids::{LeaderEpoch, Offset};
use chronik_core::payload::Payload;
use chronik_core::time::Timestamp;
use chronik_core::wal::{ReadRange, Run, WalError};

#[derive(Clone, Debug, Default)]
pub struct Model {
    pub start: i64,
    pub end: i64,
    pub epoch_before_start: i32,
    pub runs: Vec<Run>,
}

/// A seeded sequence of numbers (splitmix64), the same on every machine.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}

impl Model {
    /// Runs that reach past the start.
    pub fn live(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(|run| run.next_offset.0 > self.start)
    }

    pub fn last_epoch(&self) -> i32 {
        self.live().last().map_or(self.epoch_before_start, |run| run.epoch.0)
    }

    pub fn append(&mut self, run: Run) {
        self.end = run.next_offset.0;
        self.runs.push(run);
    }

    /// Whether a truncation there is allowed.
    pub fn is_boundary(&self, at: i64) -> bool {
        let inside = |run: &Run| run.base.0 < at && at < run.next_offset.0;
        at == self.start || self.start <= at && at <= self.end && !self.live().any(inside)
    }

    pub fn truncate_suffix(&mut self, from: i64) {
        if from < self.end {
            self.runs.retain(|run| run.next_offset.0 <= from);
            self.end = self.live().last().map_or(self.start, |run| run.next_offset.0);
        }
    }

    pub fn truncate_prefix(&mut self, upto: i64) {
        if upto > self.start {
            let before = self.live().filter(|run| run.base.0 < upto).last();
            self.epoch_before_start = before.map_or(self.epoch_before_start, |run| run.epoch.0);
            self.start = upto;
        }
    }

    pub fn reset(&mut self, start: i64) {
        *self = Self { start, end: start, ..Self::default() };
    }

    /// One step of a history, done to both.
    pub async fn step(&mut self, log: &Log, dice: &mut Dice) {
        match dice.below(20) {
            0 => {
                let from = self.start + dice.below((self.end - self.start + 1) as u64) as i64;
                let outcome = log.truncate_suffix(from).await;
                if self.is_boundary(from) {
                    self.truncate_suffix(from);
                    assert!(outcome.is_ok(), "truncating at a boundary, {from}: {outcome:?}");
                } else {
                    assert!(matches!(outcome, Err(WalError::OutOfRange { .. })), "inside a run, {from}: {outcome:?}");
                }
            }
            1 => {
                let upto = self.start + dice.below((self.end - self.start + 1) as u64) as i64;
                let outcome = log.truncate_prefix(upto).await;
                assert!(outcome.is_ok(), "moving the start to {upto}: {outcome:?}");
                self.truncate_prefix(upto);
            }
            2 if dice.below(10) == 0 => {
                let start = dice.below(10_000) as i64;
                let outcome = log.reset(start).await;
                assert!(outcome.is_ok(), "resetting to {start}: {outcome:?}");
                self.reset(start);
            }
            3 => {
                log.sync().await;
            }
            4 => {
                if let Some(segmented) = log.segmented() {
                    segmented.roll();
                }
            }
            _ => {
                let gap = if dice.below(8) == 0 { dice.below(50) as i64 } else { 0 };
                let epoch = self.last_epoch() + i32::from(dice.below(16) == 0);
                let timestamp = if dice.below(10) == 0 { -1 } else { dice.below(1000) as i64 };
                let bytes = if dice.below(30) == 0 { 6000 } else { dice.below(300) as usize };
                let run = run_of(self.end + gap, 1 + dice.below(5) as i64, epoch, timestamp, bytes);
                self.append(run.clone());
                log.append(run).await;
            }
        }
    }

    /// Compares everything that can be asked.
    pub async fn compare(&self, log: &Log, dice: &mut Dice) {
        let state = log.state();
        assert_eq!((state.start.0, state.end.0), (self.start, self.end), "start and end");
        assert_eq!(state.last_epoch, LeaderEpoch(self.last_epoch()), "the last epoch");
        let greatest = self.live().map(|run| run.max_timestamp).max().unwrap_or(Timestamp::NONE);
        assert_eq!(state.max_timestamp, greatest, "the greatest timestamp");

        let all: Payload = self.live().flat_map(|run| run.bytes.clone()).collect();
        if self.start < self.end {
            let read = log.read(everything(Offset(self.start))).await.bytes;
            assert!(read == all, "everything in large reads: {} bytes instead of {}", read.len(), all.len());
        }
        let read = log.read_all(Offset(self.start)).await;
        assert!(read == all, "everything in small reads: {} bytes instead of {}", read.len(), all.len());

        let from = self.start + dice.below((self.end - self.start + 1) as u64) as i64;
        let range = ReadRange {
            from: Offset(from),
            upto: Offset(from + dice.below(100) as i64),
            max_bytes: dice.below(2000) as usize,
            min_one: dice.below(2) == 0,
        };
        let chunk = log.read(range).await;
        let mut expected = self.live().filter(|run| run.next_offset.0 > from);
        let (mut at, mut bytes) = (Offset(from), Payload::new());
        while at < chunk.next_offset {
            let run = expected.next().unwrap_or_else(|| panic!("{range:?} gives more than there is"));
            if bytes.is_empty() && at == range.from {
                assert_eq!(chunk.base, run.base, "{range:?} begins with the run that holds `from`");
            }
            at = run.next_offset;
            bytes.append(run.bytes.clone());
        }
        assert_eq!(chunk.bytes, bytes, "{range:?}");
        assert!(chunk.next_offset <= range.upto || chunk.next_offset == range.from, "{range:?} reaches past `upto`");
        if let Some(first) = self.live().find(|run| run.next_offset.0 > from) {
            let fits = first.next_offset <= range.upto && (range.min_one || first.bytes.len() <= range.max_bytes);
            assert_eq!(chunk.next_offset > range.from, fits, "{range:?}: whether the first run comes");
            let over = chunk.bytes.len() > range.max_bytes;
            assert!(!over || range.min_one && chunk.next_offset == first.next_offset, "{range:?} gives too much");
        }

        let time = dice.below(1100) as i64;
        let found = self.live().find(|run| run.max_timestamp.0 >= time).map(|run| run.base);
        assert_eq!(log.offset_for_timestamp(time).await, found, "the first run at time {time}");
    }
}
