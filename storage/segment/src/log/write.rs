//! The writer: takes what is ordered from the queue, in order, and does it to the files.
//!
//! Whoever calls [`chronik_core::wal::Wal::write_queued`] becomes the writer if there is none, and writes what is queued,
//! also what others queue meanwhile, up to a bound; the rest is handed to a thread, so that a caller who came with one run
//! does not stay for everybody's. Changes that wait for the device longer than a write does always go to a thread.

use super::ahead::write_zeros;
use super::change::Change;
use super::{Answer, Dirty, Inner, Op, QueuedRun, SegmentLog, SyncWaiter};
use crate::disk::DiskFile;
use crate::frame::{self, FrameHeader};
use crate::shared::Shared;
use crate::threads::Lane;
use chronik_core::ids::Offset;
use chronik_core::pending::Done;
use chronik_core::wal::{Appended, Cause, WalError};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::{Arc, MutexGuard};

/// Bytes taken from the queue at once. Large enough that a call's fixed cost does not show, small enough that who waits
/// for the first of them does not wait long.
const BATCH_BYTES_MAX: u64 = 2 << 20;

/// Runs taken at once: as many as one gather write takes, at three slices each.
const BATCH_RUNS_MAX: usize = 340;

/// Batches a caller writes, of which it usually came with the first.
const CALLER_BATCHES_MAX: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Caller,
    Thread,
}

/// Outcomes to be delivered once no lock is held.
#[derive(Default)]
pub(super) struct Outcomes {
    appends: Vec<(Done<Answer<Appended>>, Answer<Appended>)>,
    syncs: Vec<(Done<Answer<Offset>>, Answer<Offset>)>,
    others: Vec<(Done<Answer<()>>, Answer<()>)>,
}

impl Outcomes {
    pub(super) fn other(&mut self, done: Done<Answer<()>>, outcome: Answer<()>) {
        self.others.push((done, outcome));
    }

    pub(super) fn sync(&mut self, done: Done<Answer<Offset>>, outcome: Answer<Offset>) {
        self.syncs.push((done, outcome));
    }

    pub(super) fn deliver(self) {
        self.appends.into_iter().for_each(|(done, outcome)| done.complete(outcome));
        self.syncs.into_iter().for_each(|(done, outcome)| done.complete(outcome));
        self.others.into_iter().for_each(|(done, outcome)| done.complete(outcome));
    }
}

enum Next {
    Nothing,
    HandOver,
    Runs(Vec<QueuedRun>),
    Change(Change),
}

/// Files written to, for the syncs to come.
#[derive(Default)]
struct Written {
    dirty: Vec<Dirty>,
    bytes: u64,
    new_names: bool,
    ahead: Option<(u64, u64)>,
}

impl SegmentLog {
    pub(super) fn write_as_caller(&self) {
        let mut inner = self.inner();
        if inner.take_writers_role() {
            self.write(inner, Place::Caller);
        }
    }

    /// Writes what is queued on the calling thread, which may wait for the device.
    pub(super) fn write_on_this_thread(&self) {
        let mut inner = self.inner();
        if inner.take_writers_role() {
            self.write(inner, Place::Thread);
        }
    }

    /// Has a thread write what is queued, unless somebody is at it.
    pub(super) fn write_on_a_thread(&self, mut inner: MutexGuard<'_, Inner>) {
        if inner.take_writers_role() {
            drop(inner);
            self.hand_over();
        }
    }

    /// Gives the writer's role, which the caller has, to a thread.
    fn hand_over(&self) {
        if let Some(log) = self.arc() {
            self.shared.threads.run(Lane::Work, Box::new(move || log.write(log.inner(), Place::Thread)));
        }
    }

    /// Does what is queued; the caller has the writer's role.
    fn write<'a>(&'a self, mut inner: MutexGuard<'a, Inner>, place: Place) {
        let mut batches = 0;
        loop {
            match inner.next(place, batches) {
                Next::Nothing => break,
                Next::HandOver => {
                    drop(inner);
                    return self.hand_over();
                }
                Next::Runs(runs) => {
                    batches += 1;
                    let durable_end = inner.durable_end;
                    let ahead = runs.last().and_then(|last| self.ahead_of(&mut inner, last));
                    drop(inner);
                    let outcome = self.write_runs(&runs, durable_end, ahead);
                    inner = match self.settle_runs(runs, outcome) {
                        Some(inner) => inner,
                        None => return,
                    };
                }
                Next::Change(change) => {
                    drop(inner);
                    self.perform(change);
                    inner = self.inner();
                }
            }
        }
        inner.writing = false;
        self.sync_if_due(inner);
    }

    /// What to fill with zeros once `last` is written.
    fn ahead_of(&self, inner: &mut Inner, last: &QueuedRun) -> Option<Range<u64>> {
        let end = last.position + last.frame_bytes();
        let window_bytes = self.shared.options.write_ahead_bytes;
        let segment_bytes = inner.segment_bytes;
        inner.ahead.due(&self.shared.ahead_logs, last.segment.number, end, window_bytes, segment_bytes)
    }

    fn write_runs(&self, runs: &[QueuedRun], durable_end: Offset, ahead: Option<Range<u64>>) -> io::Result<Written> {
        let mut written = Written::default();
        for runs in runs.chunk_by(|run, next| run.segment.number == next.segment.number) {
            let [first, ..] = runs else { continue };
            let file = self.file_to_write(first, &mut written)?;
            let headers: Vec<_> = runs.iter().map(|run| run.header(durable_end).encode(run.segment.salt)).collect();
            let mut slices = Vec::with_capacity(3 * runs.len());
            for (run, header) in runs.iter().zip(&headers) {
                slices.push(IoSlice::new(header));
                slices.extend(run.payload.parts().iter().map(|part| IoSlice::new(part)));
            }
            write_slices(&*file, &mut slices, first.position)?;
            written.bytes += runs.iter().map(QueuedRun::frame_bytes).sum::<u64>();
            let end = first.position + runs.iter().map(QueuedRun::frame_bytes).sum::<u64>();
            written.dirty.push(Dirty { segment: first.segment.clone(), file, range: first.position..end });
        }
        if let (Some(range), Some(last)) = (ahead, written.dirty.last()) {
            let upto = range.end;
            // Where they cannot be written, for want of space perhaps, syncs take longer, and that is all.
            written.ahead = write_zeros(&*last.file, range).ok().map(|()| (last.segment.number, upto));
        }
        Ok(written)
    }

    /// The file that a run goes to, created if the run is its segment's first.
    fn file_to_write(&self, run: &QueuedRun, written: &mut Written) -> io::Result<Arc<dyn DiskFile>> {
        if run.position > 0 {
            return Ok(self.shared.open_segment(&run.segment)?.file.clone());
        }
        let directory = self.directory();
        if directory.gone {
            return Err(io::Error::other("the log was deleted"));
        }
        written.new_names = true;
        match self.shared.disk.create(&run.segment.path()) {
            Ok(file) => Ok(self.shared.handles.put(run.segment.number, file).file.clone()),
            // A write that found the device full has come as far as this before.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Ok(self.shared.open_segment(&run.segment)?.file.clone())
            }
            Err(error) => Err(error),
        }
    }

    /// Counts what was written and tells who waits; `None` if the writer has to stop.
    fn settle_runs(&self, runs: Vec<QueuedRun>, outcome: io::Result<Written>) -> Option<MutexGuard<'_, Inner>> {
        let frames_bytes = runs.iter().map(QueuedRun::frame_bytes).sum();
        let mut inner = self.inner();
        let mut outcomes = Outcomes::default();
        let mut evictable = None;
        match outcome {
            // A log that is being closed does not wait for room: there may never be any.
            Err(error) if is_full(&error) && inner.failed.is_none() && !inner.closed => {
                self.stall(inner, runs);
                return None;
            }
            // A sync may have failed the log meanwhile: then this is not written either, as far as anybody may know.
            Ok(written) if inner.failed.is_none() => {
                if let Some(last) = runs.last() {
                    let cached = inner.tail.mark_written(last.next_offset, last.era);
                    evictable = Some((last.next_offset, cached));
                    if last.era == inner.era {
                        inner.written_end = inner.written_end.max(last.next_offset);
                        // What was written of an earlier era lies before the cut, or is cut off before more is written.
                        for file in &written.dirty {
                            inner.whole.add(file.segment.number, file.range.clone());
                        }
                    }
                }
                inner.seal_pending |= runs.iter().any(|run| run.position == 0);
                inner.count_written(written);
                let written_end = runs.last().map_or(inner.written_end, |last| last.next_offset);
                outcomes.appends.extend(runs.into_iter().map(|run| (run.done, Ok(Appended { written_end }))));
            }
            outcome => {
                let cause = outcome.map_or_else(Cause::new, |_| Cause::new("the log failed before"));
                let cause = inner.fail(cause, &mut outcomes, &self.shared);
                outcomes.appends.extend(runs.into_iter().map(|run| (run.done, Err(WalError::Failed(cause.clone())))));
            }
        }
        drop(inner);
        self.shared.room.give_back(frames_bytes);
        if evictable.is_some() {
            self.shared.room.set_stuck(false);
            self.shared.room.sample_if_due(&*self.shared.disk);
        }
        outcomes.deliver();
        if let Some((upto, bytes)) = evictable {
            self.shared.cache.add(&self.me, upto, bytes);
        }
        Some(self.inner())
    }

    /// The device is full: what was ordered goes back to the front of the queue until there may be room.
    fn stall(&self, mut inner: MutexGuard<'_, Inner>, runs: Vec<QueuedRun>) {
        for run in runs.into_iter().rev() {
            inner.queue.push_front(Op::Append(run));
        }
        inner.writing = false;
        inner.stalled = true;
        drop(inner);
        self.shared.room.set_stuck(true);
        if let Some(log) = self.arc() {
            self.shared.when_full_is_over(move || {
                // This write says anew whether the device is full. Where there is none any more, because the log was
                // deleted or has failed meanwhile, nobody else would say that it is not.
                log.shared.room.set_stuck(false);
                log.inner().stalled = false;
                log.write_on_this_thread();
            });
        }
    }
}

impl QueuedRun {
    fn header(&self, durable_end: Offset) -> FrameHeader {
        FrameHeader {
            // Bounded by `run_bytes_max`, itself a u32.
            payload_bytes: self.payload.len() as u32,
            payload_crc: frame::payload_crc(&self.payload),
            base: self.base,
            next_offset: self.next_offset,
            previous_end: self.previous_end,
            durable_end,
            max_timestamp: self.max_timestamp,
            epoch: self.epoch,
        }
    }
}

impl Inner {
    /// Whether something is queued that nobody is writing, and that need not wait for room.
    pub(super) fn may_write(&self) -> bool {
        !self.writing && !self.stalled && !self.queue.is_empty()
    }

    fn take_writers_role(&mut self) -> bool {
        let free = self.may_write();
        self.writing |= free;
        free
    }

    fn next(&mut self, place: Place, batches: usize) -> Next {
        let handing_over = place == Place::Caller && batches >= CALLER_BATCHES_MAX;
        match self.queue.front() {
            None => return Next::Nothing,
            Some(Op::Append(_)) if handing_over => return Next::HandOver,
            Some(Op::Change(_)) if place == Place::Caller => return Next::HandOver,
            Some(Op::Append(_)) => {}
            Some(Op::Change(_)) => match self.queue.pop_front() {
                Some(Op::Change(change)) => return Next::Change(change),
                _ => unreachable!("it was seen at the front, under the same lock"),
            },
        }
        let (mut runs, mut bytes) = (Vec::new(), 0);
        while runs.len() < BATCH_RUNS_MAX
            && bytes < BATCH_BYTES_MAX
            && let Some(Op::Append(run)) = self.queue.pop_front_if(|op| matches!(op, Op::Append(_)))
        {
            bytes += run.frame_bytes();
            runs.push(run);
        }
        Next::Runs(runs)
    }

    fn count_written(&mut self, written: Written) {
        self.dirty_names |= written.new_names;
        self.dirty_bytes += written.bytes;
        if let Some((segment, upto)) = written.ahead {
            self.ahead.wrote(segment, upto);
        }
        for file in written.dirty {
            match self.dirty.iter_mut().find(|dirty| dirty.segment.number == file.segment.number) {
                Some(dirty) => {
                    dirty.range.start = dirty.range.start.min(file.range.start);
                    dirty.range.end = dirty.range.end.max(file.range.end);
                }
                None => self.dirty.push(file),
            }
        }
    }

    /// From now on the log answers "failed"; who waits is told so. What is queued to close it stays.
    pub(super) fn fail(&mut self, cause: Cause, outcomes: &mut Outcomes, shared: &Shared) -> Cause {
        let cause = self.failed.get_or_insert(cause).clone();
        let deleted = self.closed && self.gone;
        let failed = || if deleted { WalError::Closed } else { WalError::Failed(cause.clone()) };
        for op in std::mem::take(&mut self.queue) {
            match op {
                Op::Append(run) => {
                    shared.room.give_back(run.frame_bytes());
                    outcomes.appends.push((run.done, Err(failed())));
                }
                Op::Change(Change::Close) => self.queue.push_back(Op::Change(Change::Close)),
                Op::Change(change) => outcomes.others.extend(change.done().map(|done| (done, Err(failed())))),
            }
        }
        for SyncWaiter { done, .. } in self.sync_waiters.drain(..) {
            outcomes.sync(done, Err(failed()));
        }
        let unwritten_from = self.tail.drop_unwritten();
        self.unwritten_from = self.unwritten_from.or(unwritten_from);
        cause
    }
}

/// Writes all slices, one after the other, from `position` on.
fn write_slices(file: &dyn DiskFile, mut slices: &mut [IoSlice<'_>], mut position: u64) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        let written = file.write_at(slices, position)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        position += written as u64;
        IoSlice::advance_slices(&mut slices, written);
    }
    Ok(())
}

pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
