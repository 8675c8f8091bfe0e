//! One led partition: the driver behind its short lock, the inbox for its log's completions, and those who wait for it.
//!
//! **No hop when uncontended.** The task that appends also writes ([`Wal::write_queued`]) and then drains the inbox
//! itself, so an acks=1 answer exists before it lets go. Durable completions come from the log's syncer: they enqueue,
//! and one drainer task runs what follows.
//!
//! **One drainer.** Effects come out of the driver in order under its lock, and are carried out after it is released,
//! except messages to other nodes, which are handed on under it: their order is what the receiver goes by. Nothing here
//! holds two locks at once except driver → watchers, driver → a lane's queue, and driver → what is followed of a batch
//! ([`Watch`]), in that order.

use super::anatomy::{Arrival, Ordered, Sampling, Ticket, Watch};
use super::recovery::{self, RecoverError};
use super::stall::StallWatch;
use super::throttle::Throttling;
use super::timer::Timer;
use crate::clock::Clock;
use crate::metrics::TopicMetrics;
use bytes::Bytes;
use chronik_core::batch::CheckedBatch;
use chronik_core::driver::{
    AppendError, Assumption, Completion, Cut, Environment, Found, Inboxes, Outward, PartitionDriver, Placed, Standing,
};
use chronik_core::ids::{LeaderEpoch, LogId, NodeId, Offset};
use chronik_core::partition::checkpoint::META_KEY;
use chronik_core::partition::epochs::Epochs;
use chronik_core::partition::follower::Phase;
use chronik_core::partition::leader::{Abandoned, Acks, Durability, Leader};
use chronik_core::partition::recovery::Recovered;
use chronik_core::partition::replicas::{InSyncQuestion, Membership};
use chronik_core::pending::{Inbox, Pending};
use chronik_core::replication::{Message, ReplicationChannel};
use chronik_core::time::{Monotonic, Now, Timestamp};
use chronik_core::wal::{Appended, Cause, Chunk, ChunkInFiles, LogState, ReadRange, Wal, WalError};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

/// When the disk is full: how long until a log that is to be cut is tried again. Room does not come in less.
const CUT_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What a waiting producer is told: stored as it asked, or perhaps not; if nothing comes any more, the latter.
pub type AckReceiver = oneshot::Receiver<Result<(), Abandoned>>;
type Waiter = oneshot::Sender<Result<(), Abandoned>>;

/// Where completions of the log arrive. Holds the partition weakly: the partition holds the log, and the log this.
struct Completions {
    queue: Mutex<Vec<Completion>>,
    scheduled: AtomicBool,
    partition: OnceLock<Weak<Partition>>,
    runtime: tokio::runtime::Handle,
    watch: Arc<Watch>,
}

/// The parts of the inbox: whether someone must be woken depends on who reports.
struct WrittenInbox(Arc<Completions>);
struct DurableInbox(Arc<Completions>);
struct ReadInbox(Arc<Completions>);

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
    fn deliver(&self, token: u64, outcome: Result<Appended, WalError>) {
        if let Ok(appended) = &outcome {
            self.0.watch.written(appended.written_end);
        }
        self.0.push(Completion::Written(token, outcome));
        // Whoever is writing drains afterwards; but it may be writing for another partition's sake, or be an engine's own
        // thread, so a drainer is always made sure of unless the writer has announced itself.
        if !WRITING.with(|writing| writing.get()) {
            self.0.schedule();
        }
    }
}

impl Inbox<Result<Offset, WalError>> for DurableInbox {
    fn deliver(&self, token: u64, outcome: Result<Offset, WalError>) {
        if let Ok(end) = &outcome {
            self.0.watch.durable(*end);
        }
        self.0.push(Completion::Durable(token, outcome));
        self.0.schedule();
    }
}

impl Inbox<Result<Chunk, WalError>> for ReadInbox {
    fn deliver(&self, token: u64, outcome: Result<Chunk, WalError>) {
        self.0.push(Completion::Read(token, outcome));
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

/// What partitions of one broker share.
#[derive(Clone)]
pub struct Surroundings {
    pub node: NodeId,
    pub clock: Clock,
    pub stalls: Arc<StallWatch>,
    pub channel: Arc<dyn ReplicationChannel>,
    pub throttling: Throttling,
    pub sampling: Arc<Sampling>,
    pub runtime: tokio::runtime::Handle,
}

/// A replica of a partition on this broker, which leads or follows.
pub struct Partition {
    id: LogId,
    topic: String,
    metrics: Arc<TopicMetrics>,
    watch: Arc<Watch>,
    log: Arc<dyn Wal>,
    driver: Mutex<PartitionDriver<Waiter>>,
    completions: Arc<Completions>,
    /// Long polls to be woken by the next change. Emptied when it comes: who still waits registers again.
    watchers: Mutex<Vec<Arc<Notify>>>,
    /// Reading found that what is stored is not what was stored.
    damaged: AtomicBool,
    /// The partition is being deleted: polls must look again and find that out.
    closed: AtomicBool,
    around: Surroundings,
    /// For the driver's deadline.
    timer: Timer,
    /// Held while a checkpoint is saved, and while the log is cut: one that was taken before a cut must not be saved after.
    saving: tokio::sync::Mutex<()>,
    /// Bytes appended since the last checkpoint.
    uncheckpointed_bytes: AtomicU64,
    /// What the last checkpoint says is committed.
    checkpointed_watermark: AtomicU64,
    /// When the last segment got its first record, by the broker's clock; zero if it has none yet.
    segment_began_ms: AtomicU64,
}

impl Partition {
    /// Takes up a role over a recovered log. Of the topic: its name, the engine that keeps it, its totals.
    pub fn open(
        id: LogId,
        topic: (String, String, Arc<TopicMetrics>),
        log: Arc<dyn Wal>,
        recovered: Recovered,
        first: Assumption,
        sessions: BTreeSet<NodeId>,
        around: Surroundings,
    ) -> Arc<Self> {
        let (topic, storage, metrics) = topic;
        let watch = Watch::new(around.sampling.clone(), &storage);
        watch.set_durability(first.durability);
        let completions = Arc::new(Completions {
            queue: Mutex::new(Vec::new()),
            scheduled: AtomicBool::new(false),
            partition: OnceLock::new(),
            runtime: around.runtime.clone(),
            watch: watch.clone(),
        });
        let inboxes = Inboxes {
            written: Arc::new(WrittenInbox(completions.clone())),
            durable: Arc::new(DurableInbox(completions.clone())),
            read: Arc::new(ReadInbox(completions.clone())),
        };
        let now = around.clock.now();
        let watermark = recovered.checkpoint.high_watermark.0.unsigned_abs();
        let throttles = around.throttling.throttles();
        let environment = Environment { node: around.node, log: log.clone(), inboxes, throttles };
        let driver = PartitionDriver::new(environment, recovered, first, sessions, now);
        let began = if log.state().bytes > 0 { now.wall.0.unsigned_abs() } else { 0 };
        let partition = Arc::new(Self {
            id,
            topic,
            metrics,
            watch,
            log,
            driver: Mutex::new(driver),
            completions,
            watchers: Mutex::new(Vec::new()),
            damaged: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            around,
            timer: Timer::default(),
            saving: tokio::sync::Mutex::new(()),
            uncheckpointed_bytes: AtomicU64::new(0),
            checkpointed_watermark: AtomicU64::new(watermark),
            segment_began_ms: AtomicU64::new(began),
        });
        // Set once, here; completions that came before are still in the queue.
        let _ = partition.completions.partition.set(Arc::downgrade(&partition));
        partition.completions.scheduled.store(false, Ordering::Release);
        partition.change(|_, _| ());
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

    /// Where it stands, in either role.
    pub fn standing(&self) -> Standing {
        lock(&self.driver).standing()
    }

    /// How a follower stands with its leader, and in which epoch; `None` if this broker leads.
    pub fn phase(&self) -> Option<(LeaderEpoch, Phase)> {
        lock(&self.driver).follower().map(|follower| (follower.epoch(), follower.phase()))
    }

    pub fn log_state(&self) -> LogState {
        self.log.state()
    }

    pub fn has_failed(&self) -> bool {
        lock(&self.driver).has_failed()
    }

    /// The log failed for what was read of it, and would again.
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Acquire)
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// A look at the leader, under the lock: keep it short. `None` if this broker does not lead.
    pub fn with_leader<R>(&self, look: impl FnOnce(&Leader<Waiter>) -> R) -> Option<R> {
        lock(&self.driver).leader().map(look)
    }

    /// Which epoch wrote what, and where the log ends.
    pub fn with_epochs<R>(&self, look: impl FnOnce(&Epochs, Offset) -> R) -> R {
        let driver = lock(&self.driver);
        match (driver.leader(), driver.follower()) {
            (Some(leader), _) => look(leader.epochs(), leader.log_end()),
            (None, Some(follower)) => look(follower.epochs(), follower.log_end()),
            (None, None) => unreachable!("a partition leads or follows"),
        }
    }

    /// A change of the driver, and what follows from it.
    fn change<R>(self: &Arc<Self>, change: impl FnOnce(&mut PartitionDriver<Waiter>, Now) -> R) -> R {
        self.change_at(self.around.clock.now(), change)
    }

    fn change_at<R>(self: &Arc<Self>, now: Now, change: impl FnOnce(&mut PartitionDriver<Waiter>, Now) -> R) -> R {
        let (result, outward, deadline) = {
            let mut driver = lock(&self.driver);
            let result = change(&mut driver, now);
            if self.watch.is_open()
                && let Some(leader) = driver.leader()
            {
                let since = self.around.clock.instant(now.monotonic).into_std();
                self.watch.look(leader, self.around.node, since);
            }
            (result, self.send(driver.take_outward()), driver.deadline())
        };
        self.carry_out(outward);
        self.set_timer(deadline);
        result
    }

    /// The metadata gives this replica a role in a new epoch.
    pub fn assume(self: &Arc<Self>, next: Assumption) {
        self.watch.set_durability(next.durability);
        self.change(|driver, now| driver.assume(next, now));
        self.write();
        // Who waits for records of a leader that is none any more must look again.
        self.wake_watchers();
    }

    /// What the metadata says of the replicas in this epoch has changed.
    pub fn applied(self: &Arc<Self>, epoch: LeaderEpoch, membership: Membership) {
        self.change(|driver, now| driver.applied(epoch, membership, now));
    }

    pub fn set_durability(self: &Arc<Self>, durability: Durability) {
        self.watch.set_durability(durability);
        self.change(|driver, now| driver.set_durability(durability, now));
    }

    /// Whether replicas that are not in sync are throttled in this epoch.
    pub fn set_throttled(self: &Arc<Self>, epoch: LeaderEpoch, throttled: bool) {
        self.change(|driver, now| driver.set_throttled(epoch, throttled, now));
    }

    pub fn expire_producers(&self, horizon: Timestamp, count_max: usize) {
        lock(&self.driver).expire_producers(horizon, count_max);
    }

    pub fn session_up(self: &Arc<Self>, peer: NodeId) {
        self.change(|driver, now| driver.session_up(peer, now));
    }

    pub fn session_down(self: &Arc<Self>, peer: NodeId) {
        self.change(|driver, now| driver.session_down(peer, now));
    }

    /// Another replica's node has sent something.
    pub fn received(self: &Arc<Self>, from: NodeId, message: Message) {
        let brings_records = matches!(&message, Message::Records(records) if !records.batches.is_empty());
        let now = self.around.clock.now();
        if let Message::Records(records) = &message {
            self.watch.arrived(now.monotonic, &records.batches);
            let bytes: usize = records.batches.iter().map(|batch| batch.header.size_bytes()).sum();
            self.uncheckpointed_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        self.change_at(now, |driver, now| driver.received(from, message, now));
        if brings_records {
            self.write();
            if self.watch.awaits_frame() {
                // Of what an engine does at once it reports nothing.
                let log = self.log.state();
                self.watch.written(log.written_end);
                self.watch.durable(log.durable_end);
            }
        }
    }

    /// The in-sync set that the controller is to be asked for now; see [`PartitionDriver::ask_in_sync`].
    pub fn ask_in_sync(self: &Arc<Self>) -> Option<InSyncQuestion> {
        self.change(|driver, now| driver.ask_in_sync(now))
    }

    /// The controller has said no, for good.
    pub fn question_refused(self: &Arc<Self>, question: &InSyncQuestion) {
        self.change(|driver, now| driver.question_refused(question, now));
    }

    /// Orders a batch at the log's end. With acks other than [`Acks::None`] the receiver tells when it is met.
    ///
    /// Only orders: call [`Partition::write`] afterwards, once for all partitions of a request that were appended to.
    pub fn append(
        self: &Arc<Self>,
        batch: CheckedBatch,
        acks: Acks,
        now: Now,
    ) -> Result<(Placed, Option<AckReceiver>), AppendError> {
        self.append_from(None, batch, acks, now).map(|(placed, receiver, _)| (placed, receiver))
    }

    /// As [`Partition::append`], of a request that came so; if its batch is followed, it holds the ticket until it is
    /// answered.
    pub fn append_from(
        self: &Arc<Self>,
        request: Option<Arrival>,
        batch: CheckedBatch,
        acks: Acks,
        now: Now,
    ) -> Result<(Placed, Option<AckReceiver>, Option<Ticket>), AppendError> {
        let is_followed = |_: &Arrival| acks != Acks::None && self.watch.is_due(now.monotonic);
        let request = request.filter(is_followed).map(|arrival| (arrival, Instant::now()));
        let bytes = batch.header().size_bytes() as u64;
        let records = u64::from(batch.header().records_count.unsigned_abs());
        let (key, receiver) = match acks {
            Acks::None => (None, None),
            _ => {
                let (sender, receiver) = oneshot::channel();
                (Some(sender), Some(receiver))
            }
        };
        let (placed, ticket, outward) = {
            let mut driver = lock(&self.driver);
            let placed = driver.append(batch, acks, key, now)?;
            let ticket = match (request, driver.leader()) {
                (Some((arrival, checked)), Some(leader)) if placed.found == Found::New => {
                    let Placed { base_offset: base, next_offset, .. } = placed;
                    let ordered = Ordered { arrival, checked, base, next_offset, acks };
                    self.watch.begin(now.monotonic, ordered, leader, self.around.node)
                }
                _ => None,
            };
            (placed, ticket, self.send(driver.take_outward()))
        };
        if placed.found == Found::New {
            self.uncheckpointed_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.metrics.produced_batches.one();
            self.metrics.produced_bytes.add(bytes);
            self.metrics.produced_records.add(records);
        }
        if self.segment_began_ms.load(Ordering::Relaxed) == 0 {
            self.segment_began_ms.store(now.wall.0.unsigned_abs(), Ordering::Relaxed);
        }
        self.carry_out(outward);
        Ok((placed, receiver, ticket))
    }

    /// Writes what was ordered, in this thread, unless another is at it; then takes in what the log reported.
    pub fn write(self: &Arc<Self>) {
        self.watch.writes();
        WRITING.with(|writing| writing.set(true));
        self.around.stalls.during(|| self.log.write_queued());
        WRITING.with(|writing| writing.set(false));
        self.drain();
    }

    /// Takes in the log's completions and carries out what follows, until there are no more.
    fn drain(self: &Arc<Self>) {
        loop {
            self.completions.scheduled.store(false, Ordering::Release);
            let completions = std::mem::take(&mut *lock(&self.completions.queue));
            if completions.is_empty() {
                return;
            }
            self.change(|driver, now| {
                completions.into_iter().for_each(|completion| driver.complete(completion, now));
            });
        }
    }

    /// Hands messages to the channel, which only takes them, and gives back the rest. Done under the driver's lock: of two
    /// threads that change the partition one after the other, the later one's message must not be taken first.
    fn send(&self, mut outward: Vec<Outward<Waiter>>) -> Vec<Outward<Waiter>> {
        for effect in outward.extract_if(.., |effect| matches!(effect, Outward::Send { .. })) {
            if let Outward::Send { to, message } = effect {
                if let Message::Records(records) = &message {
                    self.watch.sends(&records.batches);
                }
                self.around.channel.send(to, self.id, message);
            }
        }
        outward
    }

    fn carry_out(self: &Arc<Self>, outward: Vec<Outward<Waiter>>) {
        let mut wake = false;
        for effect in outward {
            match effect {
                // A receiver that is gone belonged to a connection that is gone.
                Outward::Acknowledge { key } => drop(key.send(Ok(()))),
                Outward::Abandon { key, why } => drop(key.send(Err(why))),
                Outward::WatermarkAdvanced { .. } => wake = true,
                // Sent already.
                Outward::Send { .. } => {}
                Outward::Cut(cut) => {
                    let partition = self.clone();
                    self.around.runtime.spawn(async move { partition.cut(cut).await });
                }
                Outward::Trim { upto } => {
                    let partition = self.clone();
                    self.around.runtime.spawn(async move {
                        if let Err(cause) = partition.trim(upto).await {
                            partition.warn(&cause, "what the leader has dropped could not be dropped here");
                        }
                    });
                }
                Outward::Failed { cause } => {
                    wake = true;
                    if matches!(cause, WalError::Corrupt { .. }) {
                        self.damaged.store(true, Ordering::Release);
                    }
                    tracing::error!(
                        topic = self.topic,
                        partition = self.id.partition,
                        error = &cause as &dyn std::error::Error,
                        "the partition's log failed: it takes no more records until the broker is restarted"
                    );
                }
                // Its topic was deleted, or it is not this broker's any more.
                Outward::Offline(_) if self.is_closed() => wake = true,
                Outward::Offline(why) => {
                    wake = true;
                    tracing::error!(
                        topic = self.topic,
                        partition = self.id.partition,
                        reason = %why,
                        "this replica cannot follow its leader"
                    );
                }
            }
        }
        if wake {
            self.wake_watchers();
        }
    }

    fn warn(&self, cause: &(dyn std::error::Error + 'static), what: &str) {
        tracing::warn!(topic = self.topic, partition = self.id.partition, error = cause, "{what}");
    }

    /// The driver is to be told when its deadline has come.
    fn set_timer(self: &Arc<Self>, deadline: Option<Monotonic>) {
        let Some(at) = deadline else { return };
        self.timer.set(at, || {
            let partition = self.clone();
            let wait = async move {
                tokio::time::sleep_until(partition.around.clock.instant(at)).await;
                partition.timer.went_off(at);
                if !partition.is_closed() {
                    partition.change(|driver, now| driver.tick(now));
                }
            };
            self.around.runtime.spawn(wait).abort_handle()
        });
    }

    /// Cuts a follower's log and reads it back.
    async fn cut(self: &Arc<Self>, cut: Cut) {
        let outcome = loop {
            match self.cut_and_recover(cut.clone()).await {
                // The log is as it was: it is cut when there is room. Until then this replica takes no part.
                Err(RecoverError::Log(WalError::Full)) if !self.is_closed() => {
                    self.warn(&WalError::Full, "the log cannot be cut to what its leader has: tried again");
                    tokio::time::sleep(CUT_AGAIN_AFTER).await;
                }
                outcome => break outcome,
            }
        };
        match outcome {
            Ok(recovered) => {
                tracing::info!(
                    topic = self.topic,
                    partition = self.id.partition,
                    log_end = recovered.log.end.0,
                    "the log was cut to what its leader has"
                );
                self.change(|driver, now| driver.cut(recovered, now));
                self.write();
            }
            Err(RecoverError::Log(cause)) => self.change(|driver, now| driver.cut_failed(cause, now)),
            Err(RecoverError::NotBatches(what)) => {
                let cause = WalError::Failed(chronik_core::wal::Cause::new(what));
                self.change(|driver, now| driver.cut_failed(cause, now));
            }
        }
    }

    async fn cut_and_recover(&self, cut: Cut) -> Result<Recovered, RecoverError> {
        let _alone = self.saving.lock().await;
        let log = &self.log;
        let saved = Pending::start(|done| log.meta_get(META_KEY, done)).await.map_err(RecoverError::Log)?;
        if let Some(checkpoint) = cut.checkpoint(saved.as_deref()) {
            self.checkpointed_watermark.store(checkpoint.high_watermark.0.unsigned_abs(), Ordering::Relaxed);
            let entries = vec![(META_KEY.to_owned(), Some(Bytes::from(checkpoint.encode())))];
            Pending::start(|done| log.meta_put(entries, done)).await.map_err(RecoverError::Log)?;
        }
        let cut = match cut {
            Cut::From(from) => Pending::start(|done| log.truncate_suffix(from, done)),
            Cut::All { start, .. } => Pending::start(|done| log.reset(start, done)),
        };
        cut.await.map_err(RecoverError::Log)?;
        recovery::recover(log).await.map(|recovering| recovering.finish(self.around.clock.wall()))
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

    /// A client's read met damage; see [`PartitionDriver::found_damaged`].
    pub fn found_damaged(self: &Arc<Self>, offset: Offset) {
        self.change(|driver, now| driver.found_damaged(offset, now));
        if self.has_failed() {
            // Perhaps before this was told: a plug-in that gives damaged bytes fails in all it does meanwhile.
            self.damaged.store(true, Ordering::Release);
        }
    }

    /// Starts a read of whole batches below `upto`.
    pub fn read(&self, range: ReadRange) -> Pending<Result<Chunk, WalError>> {
        Pending::start(|done| self.log.read(range, done))
    }

    /// Where a read would find what it gives, to be sent from there; `None` if it must be read.
    pub fn in_files(&self, range: ReadRange) -> Option<ChunkInFiles> {
        self.log.in_files(range)
    }

    /// Drops what lies below `upto`, for good: saves first what only the dropped part of the log knew.
    pub async fn trim(self: &Arc<Self>, upto: Offset) -> Result<Offset, WalError> {
        if !self.save_checkpoint().await? {
            return Err(WalError::Failed(Cause::new(
                "what its log holds is not known for now, so that nothing is dropped",
            )));
        }
        let trimmed = {
            let _serialised = lock(&self.driver);
            Pending::start(|done| self.log.truncate_prefix(upto, done))
        };
        let trimmed = trimmed.await;
        // Also where it failed, as for want of room for a note of it: the log may begin there all the same.
        let start = self.log.state().start;
        self.change(|driver, now| driver.trimmed(start, now));
        self.wake_watchers();
        trimmed.map(|()| start)
    }

    /// Saves producers and epochs beside the log; false if they are not known, as while it is being cut.
    pub async fn save_checkpoint(&self) -> Result<bool, WalError> {
        let _alone = self.saving.lock().await;
        let Some(checkpoint) = lock(&self.driver).checkpoint() else { return Ok(false) };
        let upto = checkpoint.upto;
        self.checkpointed_watermark.store(checkpoint.high_watermark.0.unsigned_abs(), Ordering::Relaxed);
        let checkpoint = checkpoint.encode();
        self.uncheckpointed_bytes.store(0, Ordering::Relaxed);
        // What the checkpoint speaks of must not be lost while the checkpoint is kept.
        Pending::start(|done| self.log.sync(upto, done)).await?;
        let entries = vec![(META_KEY.to_owned(), Some(Bytes::from(checkpoint)))];
        Pending::start(|done| self.log.meta_put(entries, done)).await?;
        Ok(true)
    }

    /// More is committed than the last checkpoint says.
    pub fn watermark_is_uncheckpointed(&self) -> bool {
        self.standing().high_watermark.0.unsigned_abs() > self.checkpointed_watermark.load(Ordering::Relaxed)
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
    pub fn close(self: &Arc<Self>) {
        self.closed.store(true, Ordering::Release);
        self.change(|driver, now| driver.close(now));
        self.wake_watchers();
    }
}
