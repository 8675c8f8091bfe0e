//! One led partition: the driver behind its short lock, the inbox for its log's completions, and those who wait for it.
//!
//! **No hop when uncontended.** The task that appends also writes ([`Wal::write_queued`]) and then drains the inbox
//! itself, so an acks=1 answer exists before it lets go. Durable completions come from the log's syncer: they enqueue,
//! and one drainer task runs what follows.
//!
//! **One drainer.** Effects come out of the driver in order under its lock, and are carried out after it is released;
//! nothing here holds two locks at once except driver → watchers, in that order.

use super::stall::StallWatch;
use crate::metrics::TopicMetrics;
use bytes::Bytes;
use chronik_core::batch::CheckedBatch;
use chronik_core::driver::{AppendError, Completion, Inboxes, Outward, PartitionDriver, Placed};
use chronik_core::ids::{LogId, Offset};
use chronik_core::partition::checkpoint::META_KEY;
use chronik_core::partition::leader::{Acks, Leader};
use chronik_core::pending::{Inbox, Pending};
use chronik_core::time::Timestamp;
use chronik_core::wal::{Appended, Chunk, LogState, ReadRange, Wal, WalError};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use tokio::sync::{Notify, oneshot};

/// What a waiting producer is told: stored as it asked, or perhaps not ([`Abandoned`]).
pub type AckReceiver = oneshot::Receiver<()>;
type Waiter = oneshot::Sender<()>;

/// The log failed while the answer was awaited: the records may or may not be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the partition's log failed before the records were stored as asked")]
pub struct Abandoned;

/// Where a partition stands, taken in one look.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    pub log_start: Offset,
    pub high_watermark: Offset,
    pub log_end: Offset,
    pub leader_epoch: i32,
}

/// Where completions of the log arrive. Holds the partition weakly: the partition holds the log, and the log this.
struct Completions {
    queue: Mutex<Vec<Completion>>,
    scheduled: AtomicBool,
    partition: OnceLock<Weak<Partition>>,
    runtime: tokio::runtime::Handle,
}

/// The two halves of the inbox: whether someone must be woken depends on who reports.
struct WrittenInbox(Arc<Completions>);
struct DurableInbox(Arc<Completions>);

impl Completions {
    fn push(&self, completion: Completion) {
        lock(&self.queue).push(completion);
    }

    /// Makes sure that a drainer will look.
    fn schedule(&self) {
        if self.scheduled.swap(true, Ordering::AcqRel) {
            return;
        }
        let Some(partition) = self.partition.get().and_then(Weak::upgrade) else { return };
        self.runtime.spawn(async move { partition.drain() });
    }
}

impl Inbox<Result<Appended, WalError>> for WrittenInbox {
    fn deliver(&self, _: u64, outcome: Result<Appended, WalError>) {
        self.0.push(Completion::Written(outcome));
        // Whoever is writing drains afterwards; but it may be writing for another partition's sake, or be an engine's own
        // thread, so a drainer is always made sure of unless the writer has announced itself.
        if !WRITING.with(|writing| writing.get()) {
            self.0.schedule();
        }
    }
}

impl Inbox<Result<Offset, WalError>> for DurableInbox {
    fn deliver(&self, _: u64, outcome: Result<Offset, WalError>) {
        self.0.push(Completion::Durable(outcome));
        self.0.schedule();
    }
}

thread_local! {
    /// This thread is inside [`Partition::write`], which drains the inbox when the write returns. Inline writes carry one
    /// log only, so the completions that arrive on this thread meanwhile are that log's.
    static WRITING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while a lock is held is a bug that must stay visible where it happened; others go on with what is there,
    // which every section below leaves consistent before it calls out.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A partition led by this broker.
pub struct Partition {
    id: LogId,
    topic: String,
    metrics: Arc<TopicMetrics>,
    log: Arc<dyn Wal>,
    driver: Mutex<PartitionDriver<Waiter>>,
    completions: Arc<Completions>,
    /// Long polls to be woken by the next change. Emptied when it comes: who still waits registers again.
    watchers: Mutex<Vec<Arc<Notify>>>,
    /// The partition is being deleted or handed over: polls must look again and find that out.
    closed: AtomicBool,
    stalls: Arc<StallWatch>,
    /// Bytes appended since the last checkpoint.
    uncheckpointed_bytes: AtomicU64,
    /// When the last segment got its first record, by the broker's clock; zero if it has none yet.
    segment_began_ms: AtomicU64,
}

impl Partition {
    /// Takes up the lead of a recovered log.
    pub fn lead(
        id: LogId,
        topic: (String, Arc<TopicMetrics>),
        log: Arc<dyn Wal>,
        leader: Leader<Waiter>,
        now: Timestamp,
        stalls: Arc<StallWatch>,
        runtime: tokio::runtime::Handle,
    ) -> Arc<Self> {
        let completions = Arc::new(Completions {
            queue: Mutex::new(Vec::new()),
            scheduled: AtomicBool::new(false),
            partition: OnceLock::new(),
            runtime,
        });
        let inboxes = Inboxes {
            written: Arc::new(WrittenInbox(completions.clone())),
            durable: Arc::new(DurableInbox(completions.clone())),
        };
        let driver = PartitionDriver::new(leader, log.clone(), inboxes);
        let began = if log.state().bytes > 0 { now.0.unsigned_abs() } else { 0 };
        let (topic, metrics) = topic;
        let partition = Arc::new(Self {
            id,
            topic,
            metrics,
            log,
            driver: Mutex::new(driver),
            completions,
            watchers: Mutex::new(Vec::new()),
            closed: AtomicBool::new(false),
            stalls,
            uncheckpointed_bytes: AtomicU64::new(0),
            segment_began_ms: AtomicU64::new(began),
        });
        // Set once, here; completions that came before are still in the queue.
        let _ = partition.completions.partition.set(Arc::downgrade(&partition));
        partition.completions.scheduled.store(false, Ordering::Release);
        partition.drain();
        partition
    }

    pub fn id(&self) -> LogId {
        self.id
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The totals of its topic.
    pub fn metrics(&self) -> &TopicMetrics {
        &self.metrics
    }

    pub fn index(&self) -> i32 {
        self.id.partition
    }

    pub fn log(&self) -> &Arc<dyn Wal> {
        &self.log
    }

    pub fn position(&self) -> Position {
        let driver = lock(&self.driver);
        let leader = driver.leader();
        Position {
            log_start: leader.log_start(),
            high_watermark: leader.high_watermark(),
            log_end: leader.log_end(),
            leader_epoch: leader.epoch().0,
        }
    }

    pub fn log_state(&self) -> LogState {
        self.log.state()
    }

    pub fn has_failed(&self) -> bool {
        lock(&self.driver).leader().has_failed()
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// A look at the leader, under the lock: keep it short.
    pub fn with_leader<R>(&self, look: impl FnOnce(&Leader<Waiter>) -> R) -> R {
        look(lock(&self.driver).leader())
    }

    /// A change of the leader, and what follows from it.
    pub fn change_leader<R>(&self, change: impl FnOnce(&mut Leader<Waiter>) -> R) -> R {
        let (result, outward) = {
            let mut driver = lock(&self.driver);
            (driver.change(change), driver.take_outward())
        };
        self.carry_out(outward);
        result
    }

    /// Orders a batch at the log's end. With acks other than [`Acks::None`] the receiver tells when it is met.
    ///
    /// Only orders: call [`Partition::write`] afterwards, once for all partitions of a request that were appended to.
    pub fn append(
        &self,
        batch: CheckedBatch,
        acks: Acks,
        now: Timestamp,
    ) -> Result<(Placed, Option<AckReceiver>), AppendError> {
        let bytes = batch.header().size_bytes() as u64;
        let records = u64::from(batch.header().records_count.unsigned_abs());
        let (key, receiver) = match acks {
            Acks::None => (None, None),
            _ => {
                let (sender, receiver) = oneshot::channel();
                (Some(sender), Some(receiver))
            }
        };
        let (placed, outward) = {
            let mut driver = lock(&self.driver);
            let placed = driver.append(batch, acks, key, now)?;
            (placed, driver.take_outward())
        };
        if !placed.duplicate {
            self.uncheckpointed_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.metrics.produced_batches.one();
            self.metrics.produced_bytes.add(bytes);
            self.metrics.produced_records.add(records);
        }
        if self.segment_began_ms.load(Ordering::Relaxed) == 0 {
            self.segment_began_ms.store(now.0.unsigned_abs(), Ordering::Relaxed);
        }
        self.carry_out(outward);
        Ok((placed, receiver))
    }

    /// Writes what was ordered, in this thread, unless another is at it; then takes in what the log reported.
    pub fn write(self: &Arc<Self>) {
        WRITING.with(|writing| writing.set(true));
        self.stalls.during(|| self.log.write_queued());
        WRITING.with(|writing| writing.set(false));
        self.drain();
    }

    /// Appends what the broker itself has built, and waits until it is committed.
    pub async fn append_committed(
        self: &Arc<Self>,
        batch: CheckedBatch,
        now: Timestamp,
    ) -> Result<Placed, InternalAppendError> {
        let (placed, receiver) = self.append(batch, Acks::All, now)?;
        self.write();
        match receiver {
            Some(receiver) => receiver.await.map_err(|_| InternalAppendError::Abandoned(Abandoned)).map(|()| placed),
            None => Ok(placed),
        }
    }

    /// Takes in the log's completions and carries out what follows, until there are no more.
    fn drain(&self) {
        loop {
            self.completions.scheduled.store(false, Ordering::Release);
            let completions = std::mem::take(&mut *lock(&self.completions.queue));
            if completions.is_empty() {
                return;
            }
            let outward = {
                let mut driver = lock(&self.driver);
                completions.into_iter().for_each(|completion| driver.complete(completion));
                driver.take_outward()
            };
            self.carry_out(outward);
        }
    }

    fn carry_out(&self, outward: Vec<Outward<Waiter>>) {
        let mut wake = false;
        for effect in outward {
            match effect {
                // A receiver that is gone belonged to a connection that is gone.
                Outward::Acknowledge { key } => drop(key.send(())),
                // Dropping the sender tells the receiver.
                Outward::Abandon { key } => drop(key),
                Outward::WatermarkAdvanced { .. } => wake = true,
                Outward::Failed { cause } => {
                    wake = true;
                    tracing::error!(
                        topic = self.topic,
                        partition = self.id.partition,
                        error = &cause as &dyn std::error::Error,
                        "the partition's log failed: it takes no more records until the broker is restarted"
                    );
                }
            }
        }
        if wake {
            self.wake_watchers();
        }
    }

    /// Wakes this poll at the partition's next change. Register first, look second, so that no change is missed.
    pub fn watch(&self, poll: &Arc<Notify>) {
        let mut watchers = lock(&self.watchers);
        if !watchers.iter().any(|known| Arc::ptr_eq(known, poll)) {
            // Polls that ended leave their entry behind until the next change; on a silent partition that adds up.
            if watchers.len() == watchers.capacity() {
                watchers.retain(|known| Arc::strong_count(known) > 1);
            }
            watchers.push(poll.clone());
        }
    }

    fn wake_watchers(&self) {
        for poll in std::mem::take(&mut *lock(&self.watchers)) {
            poll.notify_one();
        }
    }

    /// Starts a read of whole batches below `upto`.
    pub fn read(&self, range: ReadRange) -> Pending<Result<Chunk, WalError>> {
        Pending::start(|done| self.log.read(range, done))
    }

    /// Drops what lies below `upto`, for good: saves first what only the dropped part of the log knew.
    pub async fn trim(&self, upto: Offset) -> Result<Offset, WalError> {
        self.save_checkpoint().await?;
        let trimmed = {
            let _serialised = lock(&self.driver);
            Pending::start(|done| self.log.truncate_prefix(upto, done))
        };
        trimmed.await?;
        let start = self.log.state().start;
        self.change_leader(|leader| leader.trimmed(start));
        self.wake_watchers();
        Ok(start)
    }

    /// Saves producers and epochs beside the log.
    pub async fn save_checkpoint(&self) -> Result<(), WalError> {
        let (checkpoint, upto) = self.with_leader(|leader| {
            let checkpoint = leader.checkpoint();
            (checkpoint.encode(), checkpoint.upto)
        });
        self.uncheckpointed_bytes.store(0, Ordering::Relaxed);
        // What the checkpoint speaks of must not be lost while the checkpoint is kept.
        Pending::start(|done| self.log.sync(upto, done)).await?;
        let entries = vec![(META_KEY.to_owned(), Some(Bytes::from(checkpoint)))];
        Pending::start(|done| self.log.meta_put(entries, done)).await
    }

    /// Bytes appended since the last checkpoint.
    pub fn uncheckpointed_bytes(&self) -> u64 {
        self.uncheckpointed_bytes.load(Ordering::Relaxed)
    }

    /// When the last segment got its first record; `None` while it has none.
    pub fn segment_began(&self) -> Option<Timestamp> {
        match self.segment_began_ms.load(Ordering::Relaxed) {
            0 => None,
            ms => Some(Timestamp(i64::try_from(ms).unwrap_or(i64::MAX))),
        }
    }

    /// The last segment was sealed.
    pub fn segment_rolled(&self) {
        self.segment_began_ms.store(0, Ordering::Relaxed);
    }

    /// No more appends; polls look again and find it gone.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.change_leader(Leader::fail);
        self.wake_watchers();
    }
}

/// Why the broker's own records were not stored.
#[derive(Debug, thiserror::Error)]
pub enum InternalAppendError {
    #[error(transparent)]
    Refused(#[from] AppendError),
    #[error(transparent)]
    Abandoned(Abandoned),
}
