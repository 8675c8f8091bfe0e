//! Rounds: what one sync of a log covers, and whom it serves.
//!
//! A round writes what is queued, notes how far that reaches and which files it went to, syncs those, and then speaks for
//! exactly that. What is written meanwhile is for the next round, which begins at once if anybody waits for it.

use super::survey::Blind;
use super::write::Outcomes;
use super::{Answer, Dirty, Inner, SegmentLog, SyncWaiter};
use crate::disk::{Disk, DiskFile, Durable, Wait, read_full, replace};
use crate::frame::{FrameHeader, HEADER_BYTES};
use crate::index::{self, Covered};
use crate::journal::PART_BYTES_MAX;
use crate::segment::SegmentFile;
use chronik_core::ids::Offset;
use chronik_core::pending::{Done, Started};
use chronik_core::time::Timestamp;
use chronik_core::wal::Cause;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, MutexGuard};

/// What a round has to make durable, where that is one piece of one file.
pub struct Part {
    pub segment: Arc<SegmentFile>,
    pub file: Arc<dyn DiskFile>,
    pub range: Range<u64>,
}

impl Part {
    pub fn bytes(&self) -> usize {
        // At most `PART_BYTES_MAX`.
        (self.range.end - self.range.start) as usize
    }
}

/// One sync of one log.
pub struct Round {
    dir: Arc<Path>,
    dirty: Vec<Dirty>,
    names: bool,
    upto: Offset,
    era: u64,
}

impl Round {
    /// Syncs each of the files by itself.
    pub fn sync_files(&self, disk: &dyn Disk) -> Result<(), Arc<io::Error>> {
        self.dirty.iter().try_for_each(|dirty| dirty.file.sync_data())?;
        if self.names {
            disk.sync_dir(&self.dir)?;
        }
        Ok(())
    }
}

impl Round {
    /// What it has to make durable, with what lies between.
    pub fn bytes(&self) -> u64 {
        self.dirty.iter().map(|dirty| dirty.range.end - dirty.range.start).sum()
    }

    /// Whether it is one short piece of a file whose name is durable.
    pub fn is_small(&self) -> bool {
        self.dirty.len() == 1 && !self.names && self.bytes() <= PART_BYTES_MAX
    }
}

impl SegmentLog {
    /// What the round has to make durable, if it is small, nothing is about to be cut off, and its file is the log's: of one
    /// that was cut off, before the round began or since, another may have the name.
    pub fn part_of(&self, round: &Round) -> Option<Part> {
        let dirty = round.dirty.first().filter(|_| round.is_small())?;
        let inner = self.inner();
        let is_there = || inner.segments.iter().rev().any(|segment| segment.file.number == dirty.segment.number);
        let valid = inner.cuts_pending == 0 && !inner.gone && inner.failed.is_none() && is_there();
        valid.then(|| Part { segment: dirty.segment.clone(), file: dirty.file.clone(), range: dirty.range.clone() })
    }

    /// The round is synced in the log's own files from here on, up to its end.
    pub fn begin_own_sync(&self) {
        self.inner().own_sync = true;
    }

    /// Fails the log: what was durable elsewhere could not be made so in its own files.
    pub fn fail_for(&self, error: io::Error) {
        let mut outcomes = Outcomes::default();
        self.inner().fail(Cause::new(error), &mut outcomes, &self.shared);
        outcomes.deliver();
    }

    pub(super) fn start_sync(&self, upto: Offset, done: Done<Answer<Offset>>) -> Started<Answer<Offset>> {
        let mut inner = self.inner();
        if let Err(error) = inner.check_open() {
            return Started::Now(Err(error));
        }
        let upto = upto.min(inner.end);
        if upto <= inner.durable_end {
            return Started::Now(Ok(inner.durable_end));
        }
        inner.sync_waiters.push(SyncWaiter { upto, done });
        if !inner.syncing && !inner.stalled {
            self.add_to_syncer(inner);
        }
        Started::Later
    }

    fn add_to_syncer(&self, mut inner: MutexGuard<'_, Inner>) {
        if let Some(log) = self.arc() {
            inner.syncing = true;
            drop(inner);
            self.shared.syncer.add(&self.shared, log);
        }
    }

    /// Begins a round if there is a reason to. Called by whoever may have made one: the writer, and the end of a round.
    pub(super) fn sync_if_due(&self, inner: MutexGuard<'_, Inner>) {
        let wanted = !inner.sync_waiters.is_empty() || inner.closing;
        let more = inner.written_end > inner.durable_end || inner.may_write();
        let due = wanted && more || inner.seal_pending || inner.dirty_bytes >= self.shared.options.checkpoint_bytes;
        if due && !inner.syncing && !inner.gone && inner.failed.is_none() {
            self.add_to_syncer(inner);
        }
    }

    pub fn begin_round(&self) -> Round {
        self.write_on_this_thread();
        let mut inner = self.inner();
        inner.seal_pending = false;
        let dirty_bytes = std::mem::take(&mut inner.dirty_bytes);
        inner.ahead.note_round(dirty_bytes);
        Round {
            dir: self.dir.clone(),
            dirty: std::mem::take(&mut inner.dirty),
            names: std::mem::take(&mut inner.dirty_names),
            upto: inner.written_end,
            era: inner.era,
        }
    }

    pub fn end_round(&self, round: Round, outcome: Result<(), Arc<io::Error>>) {
        let mut outcomes = Outcomes::default();
        let mut inner = self.inner();
        match outcome {
            Ok(()) if inner.failed.is_none() => {
                // What was cut meanwhile is nothing to speak for; the next round speaks for what is left.
                if round.era == inner.era {
                    inner.durable_end = inner.durable_end.max(round.upto);
                }
                inner.answer_sync_waiters(&mut outcomes);
            }
            Ok(()) => {}
            Err(error) => {
                inner.fail(Cause::new(error), &mut outcomes, &self.shared);
            }
        }
        drop(inner);
        outcomes.deliver();
        self.write_due_indexes();
        let mut inner = self.inner();
        inner.syncing = false;
        inner.own_sync = false;
        self.sync_if_due(inner);
        self.close_if_durable();
        // Files that nobody else holds are closed here, without the lock.
        drop(round);
    }

    fn write_due_indexes(&self) {
        let inner = self.inner();
        let due = |segment: &crate::segment::Segment| {
            let uncovered = segment.bytes - segment.covered_bytes;
            segment.sealed && uncovered > 0 || uncovered >= self.shared.options.checkpoint_bytes
        };
        let any_due = inner.segments.iter().rev().take_while(|segment| !segment.sealed || due(segment)).any(due);
        drop(inner);
        if any_due {
            self.write_indexes();
        }
    }

    /// Has index files cover what is durable. What cannot be written is left: opening the log reads more then.
    pub(super) fn write_indexes(&self) {
        let directory = self.directory();
        if directory.gone {
            return;
        }
        let numbers: Vec<_> = {
            let inner = self.inner();
            let uncovered = inner.segments.iter().filter(|segment| segment.covered_bytes < segment.bytes);
            uncovered.map(|segment| segment.file.number).collect()
        };
        for number in numbers {
            let _left_for_opening = self.write_index(number);
        }
    }

    /// The caller holds the directory.
    fn write_index(&self, number: u64) -> io::Result<()> {
        let inner = self.inner();
        let (durable_end, closing, era) = (inner.durable_end, inner.closing, inner.era);
        // The end of a cut that is not done yet would be covered, and then its index file removed by the cut.
        let Some(segment) = inner.segment_of(number).filter(|_| inner.cuts_pending == 0) else { return Ok(()) };
        let (bytes, last_position) = if segment.end <= durable_end && (segment.sealed || closing) {
            (segment.bytes, segment.last_position)
        } else {
            // Up to a block that begins at or before the durable end, and so all before it is durable.
            match index::block_of(&segment.recent, durable_end).map(|block| segment.recent[block]) {
                Some(block) if block.position > segment.covered_bytes => (block.position, block.previous),
                _ => return Ok(()),
            }
        };
        let (segment_bytes, zeros_follow) = (segment.bytes, inner.ahead.is_in(number));
        let file = segment.file.clone();
        let covered_before = segment.covered_bytes;
        let first_previous_end = segment.first_previous_end;
        let added: Vec<_> = segment.recent.iter().copied().take_while(|block| block.position < bytes).collect();
        drop(inner);

        let handle = self.shared.open_segment(&file)?;
        let mut entries = match covered_before {
            0 => Vec::new(),
            _ => match self.entries(&file, &handle, covered_before, Wait::Yes) {
                Ok(entries) => entries.to_vec(),
                Err(Blind::Io(error)) => return Err(error),
                Err(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "the segment is damaged, or gone")),
            },
        };
        entries.extend_from_slice(&added);
        let mut header = [0; HEADER_BYTES];
        read_full(&*handle.file, &mut header, last_position, Wait::Yes)?;
        if FrameHeader::decode(&header, file.salt).is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the last frame is damaged"));
        }
        let max_timestamp = entries.iter().map(|entry| entry.max_timestamp).max().unwrap_or(Timestamp::NONE);
        let last_crc = FrameHeader::crc(&header);
        let covered = Covered { bytes, first_previous_end, max_timestamp, last_position, last_crc };
        let name = crate::segment::SegmentFile::index_name(file.base);
        replace(&*self.shared.disk, &self.dir, &name, &index::encode(&covered, &entries), Durable::Eventually)?;

        if bytes == segment_bytes && zeros_follow {
            // The writer has gone on to another segment, or will write no more.
            handle.file.set_len(bytes)?;
        }
        let mut inner = self.inner();
        if bytes == segment_bytes && inner.ahead.is_in(number) {
            inner.ahead.forget();
        }
        if inner.era == era
            && let Some(segment) = inner.segments.iter_mut().find(|segment| segment.file.number == number)
        {
            segment.covered_bytes = bytes;
            segment.recent.drain(..added.len());
        }
        drop(inner);
        // Readers fetch the longer list when they need it.
        self.shared.handles.forget(number);
        Ok(())
    }
}

impl Inner {
    pub(super) fn answer_sync_waiters(&mut self, outcomes: &mut Outcomes) {
        let durable_end = self.durable_end;
        for waiter in self.sync_waiters.extract_if(.., |waiter| waiter.upto <= durable_end) {
            outcomes.sync(waiter.done, Ok(durable_end));
        }
    }

    /// Who waits for what was cut off waits for the end instead.
    pub(super) fn shorten_sync_waiters(&mut self, outcomes: &mut Outcomes) {
        let end = self.end;
        self.sync_waiters.iter_mut().for_each(|waiter| waiter.upto = waiter.upto.min(end));
        self.answer_sync_waiters(outcomes);
    }
}
