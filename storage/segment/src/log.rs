//! One log: its logical state, the queue of what is ordered, and the tail kept in memory.
//!
//! **How it works.** A call that changes the log takes effect at once on the logical state, under one short lock, and goes
//! on the queue; the log's *writer* — whichever thread has that role — takes from the queue in order and does to the
//! files what was ordered. Reads look at the logical state and find their runs in the tail or, by the position that was
//! given out when they were ordered, in a file.
//!
//! **What must stay true.**
//! - No system call under the lock, and no other log's lock.
//! - There is one writer at a time, and none only if the queue is empty or waits for room on the device; so an append
//!   whose caller finds a writer at work will be written.
//! - What is not in the tail is written.
//! - `start ≤ durable_end ≤ written_end ≤ end` in every answer.

mod ahead;
mod change;
mod in_files;
mod order;
mod read;
mod survey;
mod sync;
mod whole;
mod write;

use crate::control::Control;
use crate::disk::DiskFile;
use crate::segment::{Segment, SegmentFile};
use crate::shared::Shared;
use crate::tail::Tail;
use ahead::Ahead;
pub use ahead::{AheadLogs, write_zeros};
use bytes::Bytes;
use change::Change;
use chronik_core::ids::{LeaderEpoch, LogId, Offset};
use chronik_core::payload::Payload;
use chronik_core::pending::{Done, Started};
use chronik_core::time::Timestamp;
use chronik_core::wal::{
    Appended, Cause, Chunk, ChunkInFiles, LogState, ReadRange, Rejected, Run, SegmentInfo, Segmented, Wal, WalError,
};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
pub use sync::Round;
use whole::Whole;

type Answer<T> = Result<T, WalError>;

/// A run on its way to its file.
struct QueuedRun {
    segment: Arc<SegmentFile>,
    position: u64,
    base: Offset,
    next_offset: Offset,
    previous_end: Offset,
    max_timestamp: Timestamp,
    epoch: LeaderEpoch,
    payload: Payload,
    era: u64,
    done: Done<Answer<Appended>>,
}

enum Op {
    Append(QueuedRun),
    Change(Change),
}

struct SyncWaiter {
    upto: Offset,
    done: Done<Answer<Offset>>,
}

/// Written data that no sync has covered; holds its file open until one has.
struct Dirty {
    segment: Arc<SegmentFile>,
    file: Arc<dyn DiskFile>,
    /// From the first to the last byte written.
    range: Range<u64>,
}

/// Where a reader left off: it will ask for the run at `offset` next.
struct Bookmark {
    offset: Offset,
    segment: u64,
    position: u64,
}

/// Readers at different places of one log that are remembered. More than a few groups on one partition are rare, and one
/// that is forgotten costs a look-up.
const BOOKMARKS_MAX: usize = 8;

struct Inner {
    /// Why an append or a sync failed; only opening the log again can help.
    failed: Option<Cause>,
    /// In a log that failed: the segment and position of the first run that was ordered and will never be written.
    unwritten_from: Option<(u64, u64)>,
    /// Let go of, or about to be once what is queued is done.
    closed: bool,
    start: Offset,
    /// The start that outlives a power cut.
    durable_start: Offset,
    end: Offset,
    written_end: Offset,
    durable_end: Offset,
    last_epoch: LeaderEpoch,
    epoch_before_start: LeaderEpoch,
    /// In order; the last may be the one that is appended to.
    segments: VecDeque<Segment>,
    segment_bytes: u64,
    tail: Tail,
    queue: VecDeque<Op>,
    /// Somebody has the writer's role.
    writing: bool,
    /// The device was full; the writer's role is taken up again when there may be room.
    stalled: bool,
    /// Cuts so far: a truncation of the suffix, or a reset. What was ordered before one may not speak for what came after.
    era: u64,
    dirty: Vec<Dirty>,
    /// Names of new segment files that no sync has covered.
    dirty_names: bool,
    /// Written since the last round began.
    dirty_bytes: u64,
    ahead: Ahead,
    /// A segment was sealed, and no index file covers it yet.
    seal_pending: bool,
    /// Cuts that are ordered but not done.
    cuts_pending: usize,
    sync_waiters: Vec<SyncWaiter>,
    /// In the syncer's queue, or in a round.
    syncing: bool,
    /// A sync of its own files is under way, whose outcome is not taken in yet.
    own_sync: bool,
    bookmarks: VecDeque<Bookmark>,
    whole: Whole,
    values: BTreeMap<String, Bytes>,
    queued_puts: Vec<Put>,
    /// A job is at work on `queued_puts`.
    putting: bool,
    /// The closing that is under way has written everything and waits for it to be durable.
    closing: bool,
    /// Who waits for the closing to be over.
    close_waiters: Vec<Done<Answer<()>>>,
    /// The closing is over.
    gone: bool,
}

struct Put {
    entries: Vec<(String, Option<Bytes>)>,
    done: Done<Answer<()>>,
}

/// The log's directory as far as names in it change; whoever makes, replaces or removes a file holds this.
struct Directory {
    control: Control,
    /// The directory is no longer this log's: another may have been made under its name.
    gone: bool,
}

/// What opening found.
pub struct Found {
    pub control: Control,
    pub segments: VecDeque<Segment>,
    pub end: Offset,
    pub last_epoch: LeaderEpoch,
}

pub struct SegmentLog {
    id: LogId,
    dir: Arc<Path>,
    shared: Arc<Shared>,
    me: Weak<SegmentLog>,
    inner: Mutex<Inner>,
    directory: Mutex<Directory>,
}

impl SegmentLog {
    pub fn new(id: LogId, dir: Arc<Path>, shared: Arc<Shared>, found: Found, segment_bytes: u64) -> Arc<Self> {
        let inner = Inner {
            failed: None,
            unwritten_from: None,
            closed: false,
            start: found.control.start,
            durable_start: found.control.start,
            end: found.end,
            written_end: found.end,
            durable_end: found.end,
            last_epoch: found.last_epoch,
            epoch_before_start: found.control.epoch_before_start,
            segments: found.segments,
            segment_bytes,
            tail: Tail::new(found.end),
            queue: VecDeque::new(),
            writing: false,
            stalled: false,
            era: 0,
            dirty: Vec::new(),
            dirty_names: false,
            dirty_bytes: 0,
            ahead: Ahead::default(),
            seal_pending: false,
            cuts_pending: 0,
            sync_waiters: Vec::new(),
            syncing: false,
            own_sync: false,
            bookmarks: VecDeque::new(),
            whole: Whole::default(),
            values: found.control.values.clone(),
            queued_puts: Vec::new(),
            putting: false,
            closing: false,
            close_waiters: Vec::new(),
            gone: false,
        };
        Arc::new_cyclic(|me| Self {
            id,
            dir,
            shared,
            me: me.clone(),
            inner: Mutex::new(inner),
            directory: Mutex::new(Directory { control: found.control, gone: false }),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| {
            // Somebody panicked halfway through a change: nothing here can be relied on any more.
            let mut inner = poisoned.into_inner();
            inner.failed.get_or_insert_with(|| Cause::new("a thread panicked while it changed the log"));
            inner
        })
    }

    fn directory(&self) -> MutexGuard<'_, Directory> {
        // `control` is replaced whole, after the file was: valid whatever a panicking holder left undone.
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This log as something a job can own. There is none only while the log is being dropped, and then nobody calls.
    fn arc(&self) -> Option<Arc<Self>> {
        self.me.upgrade()
    }

    /// Lets go of written runs up to `upto`.
    pub fn evict_tail(&self, upto: Offset) {
        let (bytes, gone) = self.inner().tail.evict(upto);
        self.shared.cache.give_back(bytes);
        drop(gone);
    }

    /// Whether calls are answered by more than "closed" or "failed".
    pub fn is_usable(&self) -> bool {
        self.inner().check_open().is_ok()
    }

    pub fn has_failed(&self) -> bool {
        self.inner().failed.is_some()
    }

    /// A sync of its files has failed, or may have and it is not known yet.
    pub fn is_doubtful(&self) -> bool {
        let inner = self.inner();
        inner.own_sync || inner.failed.is_some()
    }

    pub fn id(&self) -> LogId {
        self.id
    }

    pub fn bytes(&self) -> u64 {
        self.inner().bytes()
    }

    /// After opening: which timestamps count in the segment that the start lies in.
    pub fn look_at_own_start(&self) -> Answer<()> {
        let view = {
            let inner = self.inner();
            let first = inner.segments.front().filter(|first| first.file.base < inner.start);
            first.map(|first| (survey::View::from(first), inner.start))
        };
        if let Some((view, start)) = view {
            let (_, live) = self.look_at_start(&view, start)?;
            if let Some(first) = self.inner().segments.front_mut() {
                first.live_max_timestamp = live;
            }
        }
        Ok(())
    }
}

impl Drop for SegmentLog {
    /// A log dropped without being closed: what the engine counts for it must not stay counted.
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.shared.cache.give_back(inner.tail.clear(inner.end));
        for op in inner.queue.drain(..) {
            if let Op::Append(run) = op {
                self.shared.room.give_back(run.frame_bytes());
            }
        }
    }
}

impl Inner {
    fn check_open(&self) -> Answer<()> {
        match &self.failed {
            _ if self.closed => Err(WalError::Closed),
            Some(cause) => Err(WalError::Failed(cause.clone())),
            None => Ok(()),
        }
    }

    fn out_of_range(&self) -> WalError {
        WalError::OutOfRange { start: self.start, end: self.end }
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    fn state(&self) -> LogState {
        // A start moved beyond what is durable counts once it is durable itself: until then a power cut would bring the
        // old one back, and with it an older durable end.
        let start = if self.start <= self.durable_end { self.start } else { self.durable_end.max(self.durable_start) };
        let durable_end = self.durable_end.max(start);
        let live = self.segments.iter().map(|segment| segment.live_max_timestamp);
        LogState {
            start,
            end: self.end,
            written_end: self.written_end.max(durable_end),
            durable_end,
            bytes: self.bytes(),
            last_epoch: self.last_epoch,
            max_timestamp: live.max().unwrap_or(Timestamp::NONE),
        }
    }

    fn segment_of(&self, number: u64) -> Option<&Segment> {
        self.segments.iter().find(|segment| segment.file.number == number)
    }

    /// How far the segment's file may be read: its runs from there on are in the tail.
    fn on_disk_bytes(&self, segment: &Segment) -> u64 {
        // Segments' numbers rise along the log.
        match self.tail.front().map(|run| (run.segment, run.position)).or(self.unwritten_from) {
            Some((number, position)) if number == segment.file.number => position,
            Some((number, _)) if number < segment.file.number => 0,
            _ => segment.bytes,
        }
    }
}

impl Wal for SegmentLog {
    fn state(&self) -> LogState {
        self.inner().state()
    }

    fn append(&self, run: Run, done: Done<Answer<Appended>>) -> Result<Started<Answer<Appended>>, Box<Rejected>> {
        self.order_append(run, done)?;
        Ok(Started::Later)
    }

    fn write_queued(&self) {
        self.write_as_caller();
    }

    fn sync(&self, upto: Offset, done: Done<Answer<Offset>>) -> Started<Answer<Offset>> {
        self.start_sync(upto, done)
    }

    fn read(&self, range: ReadRange, done: Done<Answer<Chunk>>) -> Started<Answer<Chunk>> {
        self.inline_or_later(done, move |log, wait| log.try_read(range, wait))
    }

    fn in_files(&self, range: ReadRange) -> Option<ChunkInFiles> {
        self.locate(range)
    }

    fn truncate_suffix(&self, from: Offset, done: Done<Answer<()>>) -> Started<Answer<()>> {
        self.order_cut(from, done)
    }

    fn truncate_prefix(&self, upto: Offset, done: Done<Answer<()>>) -> Started<Answer<()>> {
        self.order_advance(upto, done)
    }

    fn reset(&self, start: Offset, done: Done<Answer<()>>) -> Started<Answer<()>> {
        self.order_reset(start, done)
    }

    fn offset_for_timestamp(
        &self,
        time: Timestamp,
        done: Done<Answer<Option<Offset>>>,
    ) -> Started<Answer<Option<Offset>>> {
        self.inline_or_later(done, move |log, wait| log.try_offset_for_timestamp(time, wait))
    }

    fn meta_put(&self, entries: Vec<(String, Option<Bytes>)>, done: Done<Answer<()>>) -> Started<Answer<()>> {
        self.order_put(Put { entries, done })
    }

    fn meta_get(&self, key: &str, _done: Done<Answer<Option<Bytes>>>) -> Started<Answer<Option<Bytes>>> {
        let inner = self.inner();
        Started::Now(if inner.closed { Err(WalError::Closed) } else { Ok(inner.values.get(key).cloned()) })
    }

    fn segmented(&self) -> Option<&dyn Segmented> {
        Some(self)
    }

    fn close(&self, done: Done<Answer<()>>) -> Started<Answer<()>> {
        self.order_close(done)
    }
}

impl Segmented for SegmentLog {
    fn segments(&self) -> Vec<SegmentInfo> {
        let inner = self.inner();
        let mut segments: Vec<_> = inner.segments.iter().map(Segment::info).collect();
        if segments.last().is_none_or(|last| last.sealed) {
            let max_timestamp = Timestamp::NONE;
            segments.push(SegmentInfo { base: inner.end, end: inner.end, bytes: 0, max_timestamp, sealed: false });
        }
        segments
    }

    fn roll(&self) {
        if let Some(last) = self.inner().segments.back_mut() {
            last.sealed = true;
        }
    }

    fn set_segment_bytes(&self, segment_bytes: u64) {
        self.inner().segment_bytes = segment_bytes;
    }
}
