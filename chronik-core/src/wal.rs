//! The storage contract: what a broker asks of a log, and what an engine promises.
//!
//! The broker owns the record batch format and its CRC-32C, leader epochs, producer state, the high watermark, and the
//! decisions of retention and compaction. The engine owns framing, torn-tail repair, its own integrity check, offset and
//! time indexes (from the arguments of [`Wal::append`]: it never parses a batch), segments, and coalescing of syncs.
//!
//! **Order.** The host serialises `append`, `truncate_*`, `reset`, `roll` and `close` per log, and they take effect in
//! call order; reads and syncs overlap them. A call *starts in order and completes later* ([`Started`], [`Done`]).
//!
//! **Refusal happens only at the call**: nothing is ordered and the input comes back ([`Rejected`]). Once ordered, an
//! append succeeds or the whole *log* is [`WalError::Failed`], sticky until it is opened again, since followers may
//! already hold what was ordered. A failed sync is sticky too: after one nobody knows what the disk holds, and asking
//! the disk again would only hear "fine" (the kernel forgets a write-back error once it has told it).
//!
//! **Three ends.** `end`: ordered and readable. `written_end`: handed to the operating system; outlives the process.
//! `durable_end`: outlives a power cut. `start ≤ durable_end ≤ written_end ≤ end`, and `durable_end` never regresses,
//! also not across a reopen.

use crate::ids::{LeaderEpoch, LogId, Offset};
use crate::payload::Payload;
use crate::pending::{Done, Started};
use crate::time::Timestamp;
use async_trait::async_trait;
use bytes::Bytes;
use std::error::Error;
use std::fmt;
use std::os::fd::AsFd;
use std::sync::Arc;

/// A run of records that is stored and read whole: one record batch, or one Raft entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Offset of the first record.
    pub base: Offset,
    /// Offset after the last record; greater than `base`.
    pub next_offset: Offset,
    /// Leader epoch (or Raft term) the run was appended in; never less than that of the run before.
    pub epoch: LeaderEpoch,
    /// Greatest timestamp of its records, for the time index; [`Timestamp::NONE`] if it has none.
    pub max_timestamp: Timestamp,
    pub bytes: Payload,
}

/// Where a log stands. One consistent view, cheap to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// First offset that may be read. A record below it is gone, whether or not its space is reclaimed yet.
    pub start: Offset,
    /// Next offset to be appended.
    pub end: Offset,
    pub written_end: Offset,
    pub durable_end: Offset,
    /// Bytes the log occupies in its engine, framing included.
    pub bytes: u64,
    /// What an append may not fall below: the epoch of the last run at or reaching past `start`; if there is none, that of
    /// the last run that began before `start` when [`Wal::truncate_prefix`] moved it there; zero in a log that is new or
    /// was reset.
    pub last_epoch: LeaderEpoch,
    /// Greatest timestamp of any run at or reaching past `start`; [`Timestamp::NONE`] if there is none.
    pub max_timestamp: Timestamp,
}

/// What an append completes with: everything below `written_end` is with the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub written_end: Offset,
}

/// Whole runs, in order, as they were appended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Base of the first run; where `from` lay inside a gap, past it. Equals `next_offset` in an empty chunk.
    pub base: Offset,
    /// Where to read on.
    pub next_offset: Offset,
    pub bytes: Payload,
}

/// Bytes of a log as they lie in a file, for whoever can have the kernel send them from there. Nothing here looks at the
/// file; holding it keeps the bytes, also when the log has deleted it.
#[derive(Clone)]
pub struct InFile {
    pub file: Arc<dyn AsFd + Send + Sync>,
    pub position: u64,
    pub bytes: usize,
}

impl fmt::Debug for InFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {} of a file", self.bytes, self.position)
    }
}

/// As a [`Chunk`], with its bytes, in order, still in files.
#[derive(Clone, Debug)]
pub struct ChunkInFiles {
    pub base: Offset,
    pub next_offset: Offset,
    /// At least one.
    pub parts: Vec<InFile>,
}

/// What to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRange {
    /// Runs from the one that holds this offset, which may begin before it.
    pub from: Offset,
    /// Only runs that end at or below this; at most the log's `end`.
    pub upto: Offset,
    /// Stop before exceeding this many bytes …
    pub max_bytes: usize,
    /// … but give the first run even if it alone exceeds them.
    pub min_one: bool,
}

/// Why an append was not ordered. Nothing has changed; the run comes back in [`Rejected`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The device has no room. Try again when it has: the log is intact.
    #[error("no room left on the log's device")]
    Full,
    /// Too much is queued for writing. Try again once an append has completed.
    #[error("too many bytes wait to be written")]
    Busy,
    #[error("the log ends at {expected}")]
    OutOfOrder { expected: Offset },
    /// A later epoch has written here.
    #[error("epoch {current} has written to the log")]
    Fenced { current: LeaderEpoch },
    /// The log failed earlier; only opening it again can help.
    #[error("the log failed and must be opened again")]
    Failed,
    #[error("the log is closed")]
    Closed,
    /// The run is larger than the engine can hold in one piece.
    #[error("a run may hold at most {max} bytes")]
    TooLarge { max: usize },
}

/// A refused append with its input; boxed where it is returned, since refusals are rare and runs are large.
#[derive(Debug)]
pub struct Rejected {
    pub why: Refused,
    pub run: Run,
}

/// An error's cause, shared by all who wait for the same failure.
#[derive(Clone, Debug)]
pub struct Cause(Arc<dyn Error + Send + Sync>);

impl Cause {
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Arc::from(cause.into()))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// Why a started call did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WalError {
    /// The offsets asked for are not, or no longer, in the log.
    #[error("the log holds offsets from {start} up to {end}")]
    OutOfRange { start: Offset, end: Offset },
    /// The engine's integrity check failed at this offset: do not serve it; fetch it from a replica.
    #[error("the log is damaged at offset {offset}")]
    Corrupt { offset: Offset },
    /// An append or a sync failed, now or earlier. Sticky: only opening the log again can help.
    #[error("the log failed and must be opened again")]
    Failed(#[source] Cause),
    #[error("the log is closed")]
    Closed,
    /// The device has no room for what was asked; the log is intact.
    #[error("no room left on the log's device")]
    Full,
    /// Reading failed; the log may be fine.
    #[error("input or output failed")]
    Io(#[source] Cause),
}

/// One log. See the module's head for what holds among its calls.
pub trait Wal: Send + Sync {
    fn state(&self) -> LogState;

    /// Orders a run after all others, readable on return. Completes when it is *written* (not durable).
    ///
    /// `run.base` must be at or after `end`: a leader appends contiguously, a follower or a rewriter may leave gaps.
    /// Only orders, so it is cheap and may be called under a lock; the work happens in [`Wal::write_queued`].
    fn append(
        &self,
        run: Run,
        done: Done<Result<Appended, WalError>>,
    ) -> Result<Started<Result<Appended, WalError>>, Box<Rejected>>;

    /// Does, in the caller's context, the writing that [`Wal::append`] ordered, unless another caller is at it, who then
    /// carries this too. May block on the device for as long as a write takes: call it without locks. An engine that
    /// writes on threads of its own, or at once, has nothing to do here.
    fn write_queued(&self) {}

    /// Makes at least everything below `upto` durable and gives the new durable end. Many waiters share one sync; what is
    /// ordered but not yet written when the sync begins is written first. An `upto` beyond the end, or one that a truncation
    /// cuts off meanwhile, means the end.
    fn sync(&self, upto: Offset, done: Done<Result<Offset, WalError>>) -> Started<Result<Offset, WalError>>;

    /// Whole runs from the one that holds `from`. At `from == end` an empty chunk; otherwise outside the log
    /// [`WalError::OutOfRange`]. Inside a gap, the next run. May give fewer runs than the range allows, where more would
    /// mean waiting for the device, but never none where one is allowed.
    fn read(&self, range: ReadRange, done: Done<Result<Chunk, WalError>>) -> Started<Result<Chunk, WalError>>;

    /// Where [`Wal::read`] would find what it gives, for who only wants it sent: sparing the copies and checks of a read
    /// that has been made before. `None` where the engine has no files, has not known these bytes whole in this life of the
    /// log, would have to wait for the device, or deems them too few to be worth it; then read. May give fewer runs than
    /// a read. Until they are sent a truncation of the suffix may take them away, which shows as a file too short, or as other
    /// bytes in their place: ask for what will not be cut, as what lies below a high watermark is not.
    fn in_files(&self, range: ReadRange) -> Option<ChunkInFiles> {
        let _ = range;
        None
    }

    /// Removes every run that reaches past `from`; the end is then that of the last run left, or `start`. Durable on
    /// completion, and all or nothing if interrupted. `from` must be `start`, the end, or lie between two runs; else
    /// [`WalError::OutOfRange`]. Finding the place may read a little from the device in the call.
    fn truncate_suffix(&self, from: Offset, done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>>;

    /// Moves `start` to `upto` (which may lie inside a run); durable on completion. Space is reclaimed when the engine
    /// pleases. Below the present start: nothing to do. Above `end`: [`WalError::OutOfRange`].
    fn truncate_prefix(&self, upto: Offset, done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>>;

    /// Empties the log and begins again at `start`; durable on completion, and all or nothing if interrupted.
    fn reset(&self, start: Offset, done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>>;

    /// Base of the first run at or reaching past `start` whose `max_timestamp` is at or after `time`.
    fn offset_for_timestamp(
        &self,
        time: Timestamp,
        done: Done<Result<Option<Offset>, WalError>>,
    ) -> Started<Result<Option<Offset>, WalError>>;

    /// Sets (or with `None` removes) small values kept beside the log: all of them or none, durable on completion. Not
    /// ordered against appends.
    fn meta_put(
        &self,
        entries: Vec<(String, Option<Bytes>)>,
        done: Done<Result<(), WalError>>,
    ) -> Started<Result<(), WalError>>;

    /// A value that [`Wal::meta_put`] set, also in an earlier life of the log.
    fn meta_get(
        &self,
        key: &str,
        done: Done<Result<Option<Bytes>, WalError>>,
    ) -> Started<Result<Option<Bytes>, WalError>>;

    /// For engines that keep segments.
    fn segmented(&self) -> Option<&dyn Segmented> {
        None
    }

    /// Writes and syncs what is ordered, and lets go. Later calls are answered `Closed`.
    fn close(&self, done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>>;
}

/// A stretch of a log that is stored, kept and dropped as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    pub base: Offset,
    pub end: Offset,
    pub bytes: u64,
    pub max_timestamp: Timestamp,
    /// No append goes to it any more.
    pub sealed: bool,
}

/// What engines that keep segments can do besides.
pub trait Segmented: Send + Sync {
    /// All of them from the start on; the last one is the one being appended to.
    fn segments(&self) -> Vec<SegmentInfo>;

    /// Seals the last segment, so that the next append begins another. Nothing to do if it is empty.
    fn roll(&self);

    /// Takes effect from the next append on.
    fn set_segment_bytes(&self, segment_bytes: u64);
}

/// What a log's engine promises once it says so; a broker refuses configurations that ask for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Survives {
    /// Nothing outlives the process.
    Nothing,
    /// Written data outlives the process but not a power cut; `sync` adds nothing.
    Process,
    /// Synced data outlives a power cut.
    PowerLoss,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    pub survives: Survives,
    /// [`Wal::segmented`] answers.
    pub segments: bool,
    /// The largest run it takes, in bytes.
    pub run_bytes_max: usize,
}

/// How to open a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    pub mode: OpenMode,
    /// Size at which an engine with segments begins another.
    pub segment_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// [`EngineError::NotFound`] if there is none.
    Existing,
    /// [`EngineError::AlreadyExists`] if there is one. Durable on return.
    CreateNew,
    /// Either.
    CreateIfMissing,
}

/// Why an engine's lifecycle call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    #[error("there is no log {0}")]
    NotFound(LogId),
    #[error("log {0} exists already")]
    AlreadyExists(LogId),
    /// Damage that is not a torn tail: repairing it here could lose acknowledged records.
    #[error("log {log} is damaged at offset {offset}: {what}")]
    Corrupt { log: LogId, offset: Offset, what: String },
    #[error("no room left on the device")]
    Full,
    #[error("the engine is closed")]
    Closed,
    /// [`WalEngine::set_aside`] is not among what this engine can do.
    #[error("the engine cannot set a log aside: what is left of it must be moved or deleted by hand")]
    CannotSetAside,
    #[error("{doing}")]
    Io { doing: String, source: Cause },
}

/// What an engine occupies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub logs: u64,
    pub bytes: u64,
    /// Bytes of memory held for logs: what waits to be written, and what is kept to be read again.
    pub memory_bytes: u64,
    /// Of the device; `None` where there is no such thing.
    pub device_total_bytes: Option<u64>,
    pub device_free_bytes: Option<u64>,
}

/// Keeps logs. At most one [`Wal`] exists per log at a time: opening one that is open gives the same.
#[async_trait]
pub trait WalEngine: Send + Sync {
    fn capabilities(&self) -> Capabilities;

    /// Opens a log, repairing a torn tail: what follows the last whole run is cut off.
    async fn open(&self, id: LogId, options: OpenOptions) -> Result<Arc<dyn Wal>, EngineError>;

    /// Every log there is, in order.
    async fn list(&self) -> Result<Vec<LogId>, EngineError>;

    /// Removes a log for good, and what was set aside of it; one that is open is closed first. Durable on return.
    async fn delete(&self, id: LogId) -> Result<(), EngineError>;

    /// Puts what is stored of a log where nothing but a person finds it, in the place of what was put there before: the log
    /// is there no more, and can be created. One that is open is let go of first. Durable on return.
    ///
    /// For damaged logs that are to be filled again: what is left in them is not thrown away.
    async fn set_aside(&self, _id: LogId) -> Result<(), EngineError> {
        Err(EngineError::CannotSetAside)
    }

    fn usage(&self) -> Usage;

    /// Closes every open log (write, sync), and then the engine.
    async fn close(&self) -> Result<(), EngineError>;
}
