//! The end of one log as it is in memory: everything that waits to be written, and before it what was written lately.
//!
//! Contiguous: it holds every run of the log from `floor` on, so whether a read is served from here is one comparison.

use chronik_core::ids::{LeaderEpoch, Offset};
use chronik_core::payload::Payload;
use chronik_core::time::Timestamp;
use std::collections::VecDeque;

/// What a run kept in memory costs besides its bytes: the entry here, its rope's allocation, its share of bookkeeping.
const RUN_OVERHEAD_BYTES: u64 = 192;

#[derive(Clone, Debug)]
pub struct TailRun {
    pub base: Offset,
    pub next_offset: Offset,
    pub max_timestamp: Timestamp,
    pub epoch: LeaderEpoch,
    pub payload: Payload,
    /// The number of the segment it belongs to, and its frame's place there.
    pub segment: u64,
    pub position: u64,
    /// How many cuts the log had seen when it was ordered.
    pub era: u64,
}

impl TailRun {
    pub fn memory_bytes(&self) -> u64 {
        self.payload.len() as u64 + RUN_OVERHEAD_BYTES
    }
}

#[derive(Debug, Default)]
pub struct Tail {
    runs: VecDeque<TailRun>,
    /// How many of `runs`, from the front, are written.
    written: usize,
    floor: Offset,
}

impl Tail {
    /// Empty: everything below `floor` is on disk.
    pub fn new(floor: Offset) -> Self {
        Self { floor, ..Self::default() }
    }

    /// Whether a run at or after `offset` would be here.
    pub fn covers(&self, offset: Offset) -> bool {
        offset >= self.floor
    }

    /// The first run that reaches past `offset`, and those after it.
    pub fn past(&self, offset: Offset) -> impl Iterator<Item = &TailRun> {
        self.runs.range(self.place_past(offset)..)
    }

    /// Where the first run is that reaches past `offset`. Nearly always it is one of the last, and each other that is looked
    /// at is a line of memory that nobody has touched for long: so the search begins at the end, in growing steps.
    fn place_past(&self, offset: Offset) -> usize {
        let is_past = |place: usize| self.runs.get(place).is_some_and(|run| run.next_offset > offset);
        let (mut below, mut past, mut step) = (0, self.runs.len(), 1);
        while past > step {
            if !is_past(past - step) {
                below = past - step + 1;
                break;
            }
            past -= step;
            step *= 2;
        }
        while below < past {
            let middle = below + (past - below) / 2;
            if is_past(middle) { past = middle } else { below = middle + 1 }
        }
        past
    }

    pub fn front(&self) -> Option<&TailRun> {
        self.runs.front()
    }

    pub fn push(&mut self, run: TailRun) {
        self.runs.push_back(run);
    }

    /// Counts runs up to `upto` as written, if they were ordered in `era` or before; gives their memory bytes.
    pub fn mark_written(&mut self, upto: Offset, era: u64) -> u64 {
        let mut bytes = 0;
        while let Some(run) = self.runs.get(self.written).filter(|run| run.era <= era && run.next_offset <= upto) {
            bytes += run.memory_bytes();
            self.written += 1;
        }
        bytes
    }

    /// Lets go of written runs up to `upto`, oldest first; gives their memory bytes, and the runs, to be dropped by a
    /// caller that holds no lock.
    pub fn evict(&mut self, upto: Offset) -> (u64, Vec<TailRun>) {
        let reach = self.runs.partition_point(|run| run.next_offset <= upto).min(self.written);
        let gone: Vec<_> = self.runs.drain(..reach).collect();
        self.written -= reach;
        if let Some(last) = gone.last() {
            self.floor = last.next_offset;
        }
        (gone.iter().map(TailRun::memory_bytes).sum(), gone)
    }

    /// Removes the runs that reach past `from`, so that the log ends at `end`; gives the memory bytes of those that were
    /// written.
    pub fn cut(&mut self, from: Offset, end: Offset) -> u64 {
        let keep = self.runs.partition_point(|run| run.next_offset <= from);
        let bytes = self.runs.range(keep.min(self.written)..self.written).map(TailRun::memory_bytes).sum();
        self.runs.truncate(keep);
        self.written = self.written.min(keep);
        self.floor = self.floor.min(end);
        bytes
    }

    /// The segment numbered `from` goes by another number now.
    pub fn renumber(&mut self, from: u64, to: u64) {
        self.runs.iter_mut().filter(|run| run.segment == from).for_each(|run| run.segment = to);
    }

    /// Forgets what is not written, for a log that can write no more; gives the segment and position where that begins.
    pub fn drop_unwritten(&mut self) -> Option<(u64, u64)> {
        let first = self.runs.get(self.written).map(|run| (run.segment, run.position));
        self.runs.truncate(self.written);
        first
    }

    /// Empties it, so that everything below `floor` counts as on disk; gives the memory bytes of what was written.
    pub fn clear(&mut self, floor: Offset) -> u64 {
        let bytes = self.runs.range(..self.written).map(TailRun::memory_bytes).sum();
        *self = Self::new(floor);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_run_past_an_offset_is_found_wherever_it_is() {
        for runs in 0..40 {
            let mut tail = Tail::new(Offset(5));
            let mut base = Offset(5);
            for number in 0..runs {
                // Runs of one, two and three offsets.
                let next_offset = base + (1 + number % 3);
                tail.push(TailRun {
                    base,
                    next_offset,
                    max_timestamp: Timestamp::NONE,
                    epoch: LeaderEpoch(0),
                    payload: Payload::default(),
                    segment: 0,
                    position: 0,
                    era: 0,
                });
                base = next_offset;
            }
            for offset in 0..base.0 + 3 {
                let found = tail.past(Offset(offset)).next().map(|run| run.base);
                let expected = tail.runs.iter().find(|run| run.next_offset > Offset(offset)).map(|run| run.base);
                assert_eq!(found, expected, "{offset} among {runs} runs");
            }
        }
    }
}
