//! What one log holds, as far as it is in memory: a line for every run, and the bytes of those that are not written yet. No
//! database, lock or thread.
//!
//! Changes take effect here at the call, in their order; the writer makes the same of the database afterwards.

use crate::store::{Head, RUN_OVERHEAD_BYTES, Record};
use chronik_plugin_sdk::ids::{LeaderEpoch, Offset};
use chronik_plugin_sdk::payload::Payload;
use chronik_plugin_sdk::time::Timestamp;
use chronik_plugin_sdk::wal::{LogState, ReadRange, Run};
use std::collections::VecDeque;

/// One run.
#[derive(Clone, Debug)]
pub struct Entry {
    pub head: Head,
    pub len: u32,
    /// Counts this log's appends: another run may come to the place of one that was cut off.
    pub number: u64,
    /// Its bytes, until they are in the database.
    pub unwritten: Option<Payload>,
}

/// The log does not hold what was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct OutOfRange;

/// What is to be done to the database: runs that go, and what then holds for the log.
#[derive(Debug, PartialEq, Eq)]
pub struct Removal {
    pub record: Record,
    pub bases: Vec<Offset>,
}

/// What a read gives.
#[derive(Debug)]
pub struct Chosen {
    pub base: Offset,
    pub next: Offset,
    pub entries: Vec<Entry>,
    /// [`Index::removals`] when it was chosen.
    pub removals: u64,
}

#[derive(Debug)]
pub struct Index {
    start: Offset,
    end: Offset,
    epoch_before_start: LeaderEpoch,
    life: u32,
    entries: VecDeque<Entry>,
    bytes: u64,
    max_timestamp: Timestamp,
    written_end: Offset,
    durable_end: Offset,
    appended: u64,
    /// How often something was removed: what a read has chosen before may be gone since.
    removals: u64,
}

fn occupies(entry: &Entry) -> u64 {
    u64::from(entry.len) + RUN_OVERHEAD_BYTES
}

impl Index {
    /// Of a log whose runs are all written, and durable.
    pub fn of(record: &Record, entries: VecDeque<Entry>) -> Self {
        let end = entries.back().map_or(record.start, |last| last.head.next).max(record.start);
        let mut index = Self {
            start: record.start,
            end,
            epoch_before_start: record.epoch_before_start,
            life: record.life,
            appended: entries.len() as u64,
            entries,
            bytes: 0,
            max_timestamp: Timestamp::NONE,
            written_end: end,
            durable_end: end,
            removals: 0,
        };
        index.count();
        index
    }

    /// Counts again, after a removal, what an append keeps count of.
    fn count(&mut self) {
        self.bytes = self.entries.iter().map(occupies).sum();
        let reaching = self.entries.range(self.past(self.start)..);
        self.max_timestamp = reaching.map(|entry| entry.head.max_timestamp).max().unwrap_or(Timestamp::NONE);
    }

    /// The place of the first entry that reaches past `offset`.
    fn past(&self, offset: Offset) -> usize {
        self.entries.partition_point(|entry| entry.head.next <= offset)
    }

    pub fn state(&self) -> LogState {
        let last = self.entries.back().filter(|last| last.head.next > self.start);
        LogState {
            start: self.start,
            end: self.end,
            written_end: self.written_end.min(self.end).max(self.start),
            durable_end: self.durable_end.min(self.end).max(self.start),
            bytes: self.bytes,
            last_epoch: last.map_or(self.epoch_before_start, |entry| entry.head.epoch),
            max_timestamp: self.max_timestamp,
        }
    }

    /// Bytes of memory that the lines take.
    pub fn memory_bytes(&self) -> u64 {
        (self.entries.capacity() * size_of::<Entry>()) as u64
    }

    /// The caller has checked that the run is in order and not too large. Gives its number and its line.
    pub fn append(&mut self, run: Run, crc: u32) -> (u64, Head) {
        let head = Head {
            base: run.base,
            next: run.next_offset,
            after: self.end,
            epoch: run.epoch,
            max_timestamp: run.max_timestamp,
            crc,
        };
        self.appended += 1;
        let len = u32::try_from(run.bytes.len()).unwrap_or(u32::MAX);
        let entry = Entry { head, len, number: self.appended, unwritten: Some(run.bytes) };
        self.end = head.next;
        self.bytes += occupies(&entry);
        self.max_timestamp = self.max_timestamp.max(head.max_timestamp);
        self.entries.push_back(entry);
        (self.appended, head)
    }

    /// Runs up to the one with this number are in the database.
    pub fn written(&mut self, number: u64) {
        let upto = self.entries.partition_point(|entry| entry.number <= number);
        for entry in self.entries.range_mut(..upto).rev() {
            if entry.unwritten.take().is_none() {
                break;
            }
        }
        if let Some(last) = upto.checked_sub(1).and_then(|last| self.entries.get(last)) {
            self.written_end = self.written_end.max(last.head.next);
        }
    }

    /// What was written so far is durable.
    pub fn durable(&mut self) {
        self.durable_end = self.durable_end.max(self.state().written_end);
    }

    pub fn choose(&self, range: ReadRange) -> Result<Chosen, OutOfRange> {
        if range.from < self.start || range.from > self.end {
            return Err(OutOfRange);
        }
        let mut chosen = Chosen { base: range.from, next: range.from, entries: Vec::new(), removals: self.removals };
        let mut bytes = 0usize;
        for entry in self.entries.range(self.past(range.from)..) {
            let fits = bytes.saturating_add(entry.len as usize) <= range.max_bytes;
            let first = chosen.entries.is_empty();
            if entry.head.next > range.upto || !(fits || first && range.min_one) {
                break;
            }
            if first {
                chosen.base = entry.head.base;
            }
            bytes = bytes.saturating_add(entry.len as usize);
            chosen.next = entry.head.next;
            chosen.entries.push(entry.clone());
        }
        Ok(chosen)
    }

    /// Whether nothing has been removed since that was chosen.
    pub fn undisturbed(&self, chosen: &Chosen) -> bool {
        self.removals == chosen.removals
    }

    fn record(&self) -> Record {
        Record { start: self.start, epoch_before_start: self.epoch_before_start, life: self.life, ..Record::default() }
    }

    fn removed(&mut self, gone: impl Iterator<Item = Entry>) -> Removal {
        let bases = gone.map(|entry| entry.head.base).collect();
        self.removals += 1;
        self.count();
        Removal { record: self.record(), bases }
    }

    pub fn truncate_suffix(&mut self, from: Offset) -> Result<Removal, OutOfRange> {
        let at = self.past(from);
        let inside = self.entries.get(at).is_some_and(|entry| entry.head.base < from);
        if from < self.start || from > self.end || from > self.start && inside {
            return Err(OutOfRange);
        }
        let gone = self.entries.split_off(at);
        self.end = self.entries.back().map_or(self.start, |last| last.head.next).max(self.start);
        self.written_end = self.written_end.min(self.end);
        self.durable_end = self.durable_end.min(self.end);
        let mut removal = self.removed(gone.into_iter());
        removal.record.cut = removal.bases.first().copied();
        Ok(removal)
    }

    /// `None` where there is nothing to do.
    pub fn truncate_prefix(&mut self, upto: Offset) -> Result<Option<Removal>, OutOfRange> {
        if upto > self.end {
            return Err(OutOfRange);
        }
        if upto <= self.start {
            return Ok(None);
        }
        let begun = self.entries.partition_point(|entry| entry.head.base < upto);
        if let Some(before) = begun.checked_sub(1).and_then(|last| self.entries.get(last)) {
            self.epoch_before_start = before.head.epoch;
        }
        self.start = upto;
        let kept = self.entries.split_off(self.past(upto));
        let gone = std::mem::replace(&mut self.entries, kept);
        Ok(Some(self.removed(gone.into_iter())))
    }

    pub fn reset(&mut self, start: Offset) -> Removal {
        let gone = std::mem::take(&mut self.entries);
        (self.start, self.end, self.written_end, self.durable_end) = (start, start, start, start);
        self.epoch_before_start = LeaderEpoch::default();
        let mut removal = self.removed(gone.into_iter());
        removal.record.cut = removal.bases.first().copied();
        removal
    }

    pub fn offset_for_timestamp(&self, time: Timestamp) -> Option<Offset> {
        let mut reaching = self.entries.range(self.past(self.start)..);
        reaching.find(|entry| entry.head.max_timestamp >= time).map(|entry| entry.head.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(base: i64, next: i64, epoch: i32) -> Run {
        Run {
            base: Offset(base),
            next_offset: Offset(next),
            epoch: LeaderEpoch(epoch),
            max_timestamp: Timestamp(base),
            bytes: Payload::new(),
        }
    }

    #[test]
    fn an_append_to_the_place_of_one_that_was_cut_off_is_not_taken_for_it() {
        let mut index = Index::of(&Record::default(), VecDeque::new());
        let (first, _) = index.append(run(0, 2, 0), 0);
        let (second, _) = index.append(run(2, 4, 0), 0);
        let removal = index.truncate_suffix(Offset(2)).expect("between two runs");
        assert_eq!((removal.bases, removal.record.cut), (vec![Offset(2)], Some(Offset(2))));
        let (third, head) = index.append(run(2, 3, 1), 0);
        assert_eq!(head.after, Offset(2));
        index.written(second);
        assert_eq!(index.state().written_end, Offset(2), "the first is written, and the one that is gone");
        index.written(third);
        index.durable();
        let state = index.state();
        assert_eq!((state.written_end, state.durable_end, state.end), (Offset(3), Offset(3), Offset(3)));
        assert!(first < second && second < third);
    }

    #[test]
    fn a_start_inside_a_run_keeps_the_run_and_the_epoch_before_it() {
        let mut index = Index::of(&Record::default(), VecDeque::new());
        index.append(run(0, 4, 3), 0);
        index.append(run(4, 8, 5), 0);
        let removal = index.truncate_prefix(Offset(6)).expect("in the log").expect("it moves");
        assert_eq!((removal.bases, removal.record.start, removal.record.cut), (vec![Offset(0)], Offset(6), None));
        assert_eq!(index.truncate_prefix(Offset(6)), Ok(None));
        let removal = index.truncate_suffix(Offset(6)).expect("the start");
        assert_eq!((removal.bases, removal.record.cut), (vec![Offset(4)], Some(Offset(4))));
        assert_eq!(index.state().last_epoch, LeaderEpoch(5), "of the run that began before the start");
    }
}
