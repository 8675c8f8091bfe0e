//! Truncations, resets, small values and closing: what is done to a log besides appending and reading.
//!
//! The logical part happens when the call is ordered; a [`Change`] then goes through the queue and is done to the files by
//! the writer, after everything that was ordered before it. What takes more than one atomic step on disk is first noted as
//! an intent in the control file, so that it happens whole or not at all.

use super::write::{Outcomes, is_full};
use super::{Answer, Inner, Op, Put, SegmentLog};
use crate::control::{Control, Intent, VALUES_BYTES_MAX};
use crate::disk::remove_if_there;
use crate::journal::Before;
use crate::segment::{Segment, SegmentFile};
use crate::threads::Lane;
use chronik_core::ids::{LeaderEpoch, Offset};
use chronik_core::pending::{Done, Started};
use chronik_core::wal::{Cause, WalError};
use std::io;
use std::sync::{Arc, MutexGuard};

pub(super) enum Change {
    /// Runs that reach past `from` go.
    Cut {
        from: Offset,
        /// The segment that is cut within, and what is left of it.
        shortened: Option<(Arc<SegmentFile>, u64)>,
        removed: Vec<Arc<SegmentFile>>,
        /// The log's end after it.
        end: Offset,
        era: u64,
        done: Done<Answer<()>>,
    },
    /// The start moves; `removed` lies wholly below it.
    Advance { start: Offset, epoch_before_start: LeaderEpoch, removed: Vec<Arc<SegmentFile>>, done: Done<Answer<()>> },
    /// Every run goes, and the log begins again.
    Reset { start: Offset, removed: Vec<Arc<SegmentFile>>, done: Done<Answer<()>> },
    /// What was ordered before is written: sync it, and let go.
    Close,
}

impl Change {
    pub(super) fn done(self) -> Option<Done<Answer<()>>> {
        match self {
            Change::Cut { done, .. } | Change::Advance { done, .. } | Change::Reset { done, .. } => Some(done),
            Change::Close => None,
        }
    }
}

impl SegmentLog {
    pub(super) fn order_cut(&self, from: Offset, done: Done<Answer<()>>) -> Started<Answer<()>> {
        // The host orders changes and appends one after the other, so what is found here stays true until it is used.
        let kept = match self.survey_cut(from) {
            Ok(Some(kept)) => kept,
            Ok(None) => return Started::Now(Ok(())),
            Err(error) => return Started::Now(Err(error)),
        };
        let mut outcomes = Outcomes::default();
        let mut inner = self.inner();
        let removed: Vec<_> = inner.segments.drain(kept.segments..).map(|segment| segment.file).collect();
        let mut shortened = None;
        if let (Some(part), Some(last)) = (kept.part, inner.segments.back_mut()) {
            shortened = Some((last.file.clone(), part.bytes));
            let number = self.shared.next_segment_number();
            self.shared.handles.forget(last.file.number);
            // Readers of the part that stays must not meet what others keep of the whole under its number.
            let file = Arc::new(SegmentFile::new(number, self.id, last.file.base, self.dir.clone()));
            let whole = std::mem::replace(last, Segment { file, ..part });
            inner.tail.renumber(whole.file.number, number);
        } else if let (Some(last), false) = (inner.segments.back_mut(), removed.is_empty()) {
            // Whole, but the log's last again; it stays sealed, since its index may be in a file only.
            last.sealed = true;
        }
        inner.era += 1;
        inner.cuts_pending += 1;
        inner.ahead.forget();
        inner.bookmarks.clear();
        inner.whole.clear();
        inner.end = kept.end;
        inner.last_epoch = kept.last_epoch;
        inner.written_end = inner.written_end.min(kept.end);
        inner.durable_end = inner.durable_end.min(kept.end);
        let freed = inner.tail.cut(from, kept.end);
        inner.shorten_sync_waiters(&mut outcomes);
        let era = inner.era;
        let end = kept.end;
        inner.queue.push_back(Op::Change(Change::Cut { from, shortened, removed, end, era, done }));
        self.write_on_a_thread(inner);
        self.shared.cache.give_back(freed);
        outcomes.deliver();
        Started::Later
    }

    pub(super) fn order_advance(&self, upto: Offset, done: Done<Answer<()>>) -> Started<Answer<()>> {
        let advanced = match self.survey_advance(upto) {
            Ok(Some(advanced)) => advanced,
            Ok(None) => return Started::Now(Ok(())),
            Err(error) => return Started::Now(Err(error)),
        };
        let mut inner = self.inner();
        let removed = inner.segments.drain(..advanced.dropped).map(|segment| segment.file).collect();
        if let (Some(first), Some(live)) = (inner.segments.front_mut(), advanced.live_max_timestamp) {
            first.live_max_timestamp = live;
        }
        let epoch_before_start = advanced.epoch_before_start;
        inner.start = upto;
        inner.epoch_before_start = epoch_before_start;
        inner.queue.push_back(Op::Change(Change::Advance { start: upto, epoch_before_start, removed, done }));
        self.write_on_a_thread(inner);
        self.evict_tail(upto);
        Started::Later
    }

    pub(super) fn order_reset(&self, start: Offset, done: Done<Answer<()>>) -> Started<Answer<()>> {
        let mut outcomes = Outcomes::default();
        let mut inner = self.inner();
        if let Err(error) = inner.check_open() {
            return Started::Now(Err(error));
        }
        let removed = inner.segments.drain(..).map(|segment| segment.file).collect();
        inner.era += 1;
        inner.cuts_pending += 1;
        inner.bookmarks.clear();
        inner.whole.clear();
        inner.start = start;
        inner.end = start;
        inner.written_end = start;
        inner.durable_end = start;
        inner.last_epoch = LeaderEpoch::default();
        inner.epoch_before_start = LeaderEpoch::default();
        let freed = inner.tail.clear(start);
        inner.shorten_sync_waiters(&mut outcomes);
        inner.queue.push_back(Op::Change(Change::Reset { start, removed, done }));
        self.write_on_a_thread(inner);
        self.shared.cache.give_back(freed);
        outcomes.deliver();
        Started::Later
    }

    /// Does a change to the files. The caller is the writer.
    pub(super) fn perform(&self, change: Change) {
        let outcome = match &change {
            Change::Cut { from, shortened, removed, .. } => self.cut_files(*from, shortened.as_ref(), removed),
            Change::Advance { start, epoch_before_start, removed, .. } => {
                self.advance_files(*start, *epoch_before_start, removed)
            }
            Change::Reset { start, removed, .. } => self.reset_files(*start, removed),
            Change::Close => return self.close_when_durable(),
        };
        let mut outcomes = Outcomes::default();
        let mut inner = self.inner();
        if let Change::Cut { .. } | Change::Reset { .. } = change {
            inner.cuts_pending -= 1;
        }
        let answer = match (outcome, &inner.failed) {
            (Ok(()), None) => {
                match &change {
                    // All that was ordered before is written by now, and what is left of it ends here.
                    Change::Cut { end, era, .. } if *era == inner.era => {
                        inner.written_end = inner.written_end.max(*end)
                    }
                    Change::Advance { start, .. } | Change::Reset { start, .. } => inner.durable_start = *start,
                    Change::Cut { .. } | Change::Close => {}
                }
                Ok(())
            }
            // The files stay as they were, and the next advance writes the start again.
            (Err(error), None) if matches!(change, Change::Advance { .. }) && is_full(&error) => Err(WalError::Full),
            // Whether it happened is not known, and appends ordered after it rely on it.
            (Err(error), _) => Err(WalError::Failed(inner.fail(Cause::new(error), &mut outcomes, &self.shared))),
            (Ok(()), Some(cause)) => Err(WalError::Failed(cause.clone())),
        };
        drop(inner);
        if let Some(done) = change.done() {
            outcomes.other(done, answer);
        }
        outcomes.deliver();
    }

    /// Changes the control file, durably; the caller holds the directory.
    fn change_control(&self, directory: &mut super::Directory, change: impl FnOnce(&mut Control)) -> io::Result<()> {
        if directory.gone {
            return Err(io::Error::other("the log was deleted"));
        }
        let mut control = directory.control.clone();
        change(&mut control);
        control.store(&*self.shared.disk, &self.dir)?;
        directory.control = control;
        Ok(())
    }

    fn cut_files(
        &self,
        from: Offset,
        shortened: Option<&(Arc<SegmentFile>, u64)>,
        removed: &[Arc<SegmentFile>],
    ) -> io::Result<()> {
        self.shared.journal.void(&self.shared, self.id, Before::Cut)?;
        let mut directory = self.directory();
        // A single file's change of length, or removal, is atomic by itself.
        let steps = usize::from(shortened.is_some()) + removed.len();
        if steps > 1 {
            self.change_control(&mut directory, |control| control.intent = Some(Intent::Cut(from)))?;
        }
        self.remove_segments(&directory, removed)?;
        if let Some((segment, bytes)) = shortened {
            // The index file first, and durably: it must not vouch for what will be written in place of what goes.
            remove_if_there(&*self.shared.disk, &segment.index_path())?;
            self.shared.disk.sync_dir(&self.dir)?;
            let file = self.shared.disk.open(&segment.path())?;
            file.set_len(*bytes)?;
            file.sync_data()?;
        }
        if steps > 1 {
            self.change_control(&mut directory, |control| control.intent = None)?;
        }
        Ok(())
    }

    fn advance_files(
        &self,
        start: Offset,
        epoch_before_start: LeaderEpoch,
        removed: &[Arc<SegmentFile>],
    ) -> io::Result<()> {
        let mut directory = self.directory();
        self.change_control(&mut directory, |control| {
            control.start = start;
            control.epoch_before_start = epoch_before_start;
        })?;
        // Opening the log removes what lies below the start, so these need not be durable.
        removed.iter().try_for_each(|segment| self.remove_segment(segment))
    }

    fn reset_files(&self, start: Offset, removed: &[Arc<SegmentFile>]) -> io::Result<()> {
        self.shared.journal.void(&self.shared, self.id, Before::Cut)?;
        let mut directory = self.directory();
        self.change_control(&mut directory, |control| {
            control.start = start;
            control.epoch_before_start = LeaderEpoch::default();
            control.intent = Some(Intent::Reset);
        })?;
        self.remove_segments(&directory, removed)?;
        self.change_control(&mut directory, |control| control.intent = None)
    }

    /// Durable on return.
    fn remove_segments(&self, directory: &super::Directory, removed: &[Arc<SegmentFile>]) -> io::Result<()> {
        if directory.gone {
            return Err(io::Error::other("the log was deleted"));
        }
        if removed.is_empty() {
            return Ok(());
        }
        removed.iter().try_for_each(|segment| self.remove_segment(segment))?;
        self.shared.disk.sync_dir(&self.dir)
    }

    fn remove_segment(&self, segment: &SegmentFile) -> io::Result<()> {
        self.shared.handles.forget(segment.number);
        remove_if_there(&*self.shared.disk, &segment.index_path())?;
        remove_if_there(&*self.shared.disk, &segment.path())
    }

    pub(super) fn order_put(&self, put: Put) -> Started<Answer<()>> {
        let mut inner = self.inner();
        if let Err(error) = inner.check_open() {
            return Started::Now(Err(error));
        }
        inner.queued_puts.push(put);
        if !std::mem::replace(&mut inner.putting, true) {
            drop(inner);
            if let Some(log) = self.arc() {
                self.shared.threads.run(Lane::Work, Box::new(move || log.put_queued()));
            }
        }
        Started::Later
    }

    /// Writes small values, all that are queued in one go, until none are.
    fn put_queued(&self) {
        loop {
            let mut inner = self.inner();
            let puts = std::mem::take(&mut inner.queued_puts);
            if puts.is_empty() {
                inner.putting = false;
                return;
            }
            drop(inner);
            let mut outcomes = Outcomes::default();
            let mut fitting = Vec::new();
            let mut directory = self.directory();
            let mut values = directory.control.values.clone();
            for put in puts {
                let before = values.clone();
                for (key, value) in put.entries {
                    match value {
                        Some(value) => values.insert(key, value),
                        None => values.remove(&key),
                    };
                }
                let bytes: usize = values.iter().map(|(key, value)| key.len() + value.len()).sum();
                if bytes > VALUES_BYTES_MAX {
                    values = before;
                    let cause = Cause::new(format!("a log's small values may come to {VALUES_BYTES_MAX} bytes"));
                    outcomes.other(put.done, Err(WalError::Io(cause)));
                } else {
                    fitting.push(put.done);
                }
            }
            let stored = self.change_control(&mut directory, |control| control.values = values.clone());
            drop(directory);
            let answer = match stored {
                Ok(()) => {
                    self.inner().values = values;
                    Ok(())
                }
                Err(error) if is_full(&error) => Err(WalError::Full),
                Err(error) => Err(WalError::Io(Cause::new(error))),
            };
            fitting.into_iter().for_each(|done| outcomes.other(done, answer.clone()));
            outcomes.deliver();
        }
    }

    pub(super) fn order_close(&self, done: Done<Answer<()>>) -> Started<Answer<()>> {
        let mut inner = self.inner();
        if inner.closed {
            return Started::Now(Err(WalError::Closed));
        }
        inner.close_waiters.push(done);
        self.begin_closing(inner);
        Started::Later
    }

    /// Tells `done` when the log is let go of, having it closed first if nobody has.
    pub fn when_gone(&self, done: Done<Answer<()>>) -> Started<Answer<()>> {
        let mut inner = self.inner();
        if inner.gone {
            return Started::Now(Ok(()));
        }
        inner.close_waiters.push(done);
        if !inner.closed {
            self.begin_closing(inner);
        }
        Started::Later
    }

    fn begin_closing(&self, mut inner: MutexGuard<'_, Inner>) {
        inner.closed = true;
        // One more try, if the device was full; after that there is no waiting.
        inner.stalled = false;
        inner.queue.push_back(Op::Change(Change::Close));
        self.write_on_a_thread(inner);
    }

    /// Everything is written. What the syncer still has to do it does before the log is let go of.
    fn close_when_durable(&self) {
        self.inner().closing = true;
        self.close_if_durable();
    }

    /// Lets go of a log that is being closed, once it is durable or has failed.
    pub(super) fn close_if_durable(&self) {
        let inner = self.inner();
        if !inner.closing || inner.gone || inner.syncing {
            return;
        }
        if inner.failed.is_none() && inner.durable_end < inner.end {
            return self.sync_if_due(inner);
        }
        let sound = inner.failed.is_none();
        drop(inner);
        if sound {
            // Opening reads less with it, and does without if it cannot be written.
            self.write_indexes();
        }
        let mut outcomes = Outcomes::default();
        let mut inner = self.inner();
        inner.gone = true;
        let answer = inner.failed.clone().map_or(Ok(()), |cause| Err(WalError::Failed(cause)));
        inner.close_waiters.drain(..).for_each(|done| outcomes.other(done, answer.clone()));
        let end = inner.end;
        let freed = inner.tail.clear(end);
        let dirty = std::mem::take(&mut inner.dirty);
        let segments: Vec<_> = inner.segments.iter().map(|segment| segment.file.number).collect();
        drop(inner);
        drop(dirty);
        self.shared.cache.give_back(freed);
        segments.into_iter().for_each(|number| self.shared.handles.forget(number));
        outcomes.deliver();
    }

    /// Answers "closed" from now on, and touches no file by name any more: the directory is about to go.
    pub fn abandon(&self) {
        let mut outcomes = Outcomes::default();
        let mut inner = self.inner();
        inner.closed = true;
        inner.gone = true;
        inner.fail(Cause::new("the log was deleted"), &mut outcomes, &self.shared);
        inner.close_waiters.drain(..).for_each(|done| outcomes.other(done, Ok(())));
        let end = inner.end;
        let freed = inner.tail.clear(end);
        let dirty = std::mem::take(&mut inner.dirty);
        let segments: Vec<_> = inner.segments.drain(..).map(|segment| segment.file.number).collect();
        drop(inner);
        drop(dirty);
        self.shared.cache.give_back(freed);
        segments.into_iter().for_each(|number| self.shared.handles.forget(number));
        outcomes.deliver();
        self.directory().gone = true;
    }
}
