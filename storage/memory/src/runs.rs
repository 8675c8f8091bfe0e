//! What one log holds: runs in segments, and the rules for changing them. No locks, no completion, no engine.
//!
//! Segments exist only so that retention drops data in the same steps as an engine that keeps files. There is always a
//! last one, the one being appended to; it may be empty.

use chronik_core::ids::{LeaderEpoch, Offset};
use chronik_core::time::Timestamp;
use chronik_core::wal::{Chunk, LogState, ReadRange, Run, SegmentInfo};
use std::collections::VecDeque;

/// What a run occupies besides its bytes: its entry here and its rope.
const RUN_OVERHEAD_BYTES: u64 = 128;

/// What a run counts for.
pub fn occupies(run: &Run) -> u64 {
    run.bytes.len() as u64 + RUN_OVERHEAD_BYTES
}

#[derive(Debug, Default)]
struct Segment {
    base: Offset,
    runs: Vec<Run>,
    bytes: u64,
}

impl Segment {
    fn at(base: Offset) -> Self {
        Self { base, ..Self::default() }
    }
}

#[derive(Debug)]
pub struct Runs {
    start: Offset,
    end: Offset,
    /// The epoch to answer when no run reaches past `start`.
    epoch_before_start: LeaderEpoch,
    /// Never empty.
    segments: VecDeque<Segment>,
    segment_bytes: u64,
    bytes: u64,
    last_epoch: LeaderEpoch,
    max_timestamp: Timestamp,
}

/// The log does not hold what was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct OutOfRange;

impl Runs {
    pub fn new(segment_bytes: u64) -> Self {
        Self {
            start: Offset::ZERO,
            end: Offset::ZERO,
            epoch_before_start: LeaderEpoch::default(),
            segments: [Segment::default()].into(),
            segment_bytes,
            bytes: 0,
            last_epoch: LeaderEpoch::default(),
            max_timestamp: Timestamp::NONE,
        }
    }

    /// The runs that reach past `offset`, in order.
    fn past(&self, offset: Offset) -> impl Iterator<Item = &Run> {
        let below = |segment: &Segment| segment.runs.last().is_some_and(|run| run.next_offset <= offset);
        let first = self.segments.partition_point(below);
        self.segments
            .range(first..)
            .flat_map(move |segment| &segment.runs[segment.runs.partition_point(|run| run.next_offset <= offset)..])
    }

    pub fn state(&self) -> LogState {
        LogState {
            start: self.start,
            end: self.end,
            written_end: self.end,
            durable_end: self.end,
            bytes: self.bytes,
            last_epoch: self.last_epoch,
            max_timestamp: self.max_timestamp,
        }
    }

    /// Counts again, after a truncation, what an append keeps count of.
    fn count(&mut self) {
        if self.segments.is_empty() {
            self.segments.push_back(Segment::at(self.end));
        }
        self.bytes = self.segments.iter().flat_map(|segment| &segment.runs).map(occupies).sum();
        self.max_timestamp = self.past(self.start).map(|run| run.max_timestamp).max().unwrap_or(Timestamp::NONE);
        self.last_epoch = self.past(self.start).last().map_or(self.epoch_before_start, |run| run.epoch);
    }

    fn last(&mut self) -> &mut Segment {
        let last = self.segments.len() - 1;
        &mut self.segments[last]
    }

    /// The caller has checked that the run is in order.
    pub fn append(&mut self, run: Run) {
        let (bytes, segment_bytes) = (occupies(&run), self.segment_bytes);
        let last = self.last();
        if !last.runs.is_empty() && last.bytes + bytes > segment_bytes {
            self.roll();
        }
        self.end = run.next_offset;
        self.bytes += bytes;
        self.last_epoch = run.epoch;
        self.max_timestamp = self.max_timestamp.max(run.max_timestamp);
        let last = self.last();
        if last.runs.is_empty() {
            last.base = run.base;
        }
        last.bytes += bytes;
        last.runs.push(run);
    }

    pub fn read(&self, range: ReadRange) -> Result<Chunk, OutOfRange> {
        if range.from < self.start || range.from > self.end {
            return Err(OutOfRange);
        }
        let mut chunk = Chunk { base: range.from, next_offset: range.from, ..Chunk::default() };
        for run in self.past(range.from) {
            let first = chunk.bytes.is_empty() && chunk.base == chunk.next_offset;
            let fits = chunk.bytes.len() + run.bytes.len() <= range.max_bytes;
            if run.next_offset > range.upto || !(fits || first && range.min_one) {
                break;
            }
            if first {
                chunk.base = run.base;
            }
            chunk.next_offset = run.next_offset;
            chunk.bytes.append(run.bytes.clone());
        }
        Ok(chunk)
    }

    pub fn truncate_suffix(&mut self, from: Offset) -> Result<(), OutOfRange> {
        let inside = self.past(from).next().is_some_and(|run| run.base < from);
        if from < self.start || from > self.end || from > self.start && inside {
            return Err(OutOfRange);
        }
        for segment in &mut self.segments {
            segment.runs.retain(|run| run.next_offset <= from);
            segment.bytes = segment.runs.iter().map(occupies).sum();
        }
        while self.segments.back().is_some_and(|last| last.runs.is_empty()) {
            self.segments.pop_back();
        }
        self.end = self.segments.back().and_then(|last| last.runs.last()).map_or(self.start, |run| run.next_offset);
        self.end = self.end.max(self.start);
        self.count();
        Ok(())
    }

    pub fn truncate_prefix(&mut self, upto: Offset) -> Result<(), OutOfRange> {
        if upto > self.end {
            return Err(OutOfRange);
        }
        if upto > self.start {
            let runs = self.segments.iter().flat_map(|segment| &segment.runs);
            let before = runs.take_while(|run| run.base < upto).last();
            self.epoch_before_start = before.map_or(self.epoch_before_start, |run| run.epoch);
            self.start = upto;
            while self.segments.front().and_then(|first| first.runs.last()).is_some_and(|run| run.next_offset <= upto) {
                self.segments.pop_front();
            }
            self.count();
        }
        Ok(())
    }

    pub fn reset(&mut self, start: Offset) {
        *self = Self { start, end: start, segments: [Segment::at(start)].into(), ..Self::new(self.segment_bytes) };
    }

    pub fn offset_for_timestamp(&self, time: Timestamp) -> Option<Offset> {
        self.past(self.start).find(|run| run.max_timestamp >= time).map(|run| run.base)
    }

    pub fn segments(&self) -> Vec<SegmentInfo> {
        let last = self.segments.len().saturating_sub(1);
        let info = |(place, segment): (usize, &Segment)| SegmentInfo {
            base: segment.base,
            end: segment.runs.last().map_or(segment.base, |run| run.next_offset),
            bytes: segment.bytes,
            max_timestamp: segment.runs.iter().map(|run| run.max_timestamp).max().unwrap_or(Timestamp::NONE),
            sealed: place < last,
        };
        self.segments.iter().enumerate().map(info).collect()
    }

    pub fn roll(&mut self) {
        if !self.last().runs.is_empty() {
            self.segments.push_back(Segment::at(self.end));
        }
    }

    pub fn set_segment_bytes(&mut self, segment_bytes: u64) {
        self.segment_bytes = segment_bytes;
    }
}
