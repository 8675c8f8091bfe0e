//! One replica: the production driver over its log, with the host's part around it, as the broker does that part.
//!
//! What the broker does on several threads happens here in turns of their own: writing what was ordered, taking in what the
//! log has reported, cutting, trimming. Between any two of them other things may happen, as there.

use super::Around;
use super::watched::{Ordered, Watched, placed};
use crate::facts::{Fact, Placed as PlacedBatch, Replica};
use bytes::Bytes;
use chronik_core::batch::{self, CheckedBatch};
use chronik_core::driver::{
    AppendError, Assumption, Completion, Cut, Environment, Inboxes, Outward, PartitionDriver, Placed, Standing,
};
use chronik_core::ids::{LeaderEpoch, LogId, NodeId, Offset};
use chronik_core::partition::checkpoint::META_KEY;
use chronik_core::partition::follower::Phase;
use chronik_core::partition::leader::{Abandoned, Acks, Durability, Leader};
use chronik_core::partition::recovery::{Recovered, Recovering};
use chronik_core::partition::replicas::{InSyncQuestion, Membership};
use chronik_core::pending::{Inbox, Pending};
use chronik_core::replication::Message;
use chronik_core::throttle::Throttles;
use chronik_core::time::{Monotonic, Now};
use chronik_core::wal::{Appended, Cause, Chunk, ReadRange, Wal, WalError};
use futures::channel::oneshot;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

pub type Waiter = oneshot::Sender<Result<(), Abandoned>>;
pub type AckReceiver = oneshot::Receiver<Result<(), Abandoned>>;

/// Where completions of the log arrive, and who is woken for them.
#[derive(Default)]
struct Completions {
    queue: Mutex<Vec<Completion>>,
    drainer: Mutex<Option<Waker>>,
}

impl Completions {
    fn push(&self, completion: Completion) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push(completion);
        if let Some(waker) = self.drainer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }

    fn take(&self) -> Vec<Completion> {
        std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct WrittenInbox(Arc<Completions>);
struct DurableInbox(Arc<Completions>);
struct ReadInbox(Arc<Completions>);

impl Inbox<Result<Appended, WalError>> for WrittenInbox {
    fn deliver(&self, token: u64, outcome: Result<Appended, WalError>) {
        self.0.push(Completion::Written(token, outcome));
    }
}
impl Inbox<Result<Offset, WalError>> for DurableInbox {
    fn deliver(&self, token: u64, outcome: Result<Offset, WalError>) {
        self.0.push(Completion::Durable(token, outcome));
    }
}
impl Inbox<Result<Chunk, WalError>> for ReadInbox {
    fn deliver(&self, token: u64, outcome: Result<Chunk, WalError>) {
        self.0.push(Completion::Read(token, outcome));
    }
}

/// See the module's head.
pub struct Partition {
    pub id: LogId,
    pub replica: Replica,
    around: Around,
    log: Arc<Watched>,
    driver: RefCell<PartitionDriver<Waiter>>,
    completions: Arc<Completions>,
    saving: futures::lock::Mutex<()>,
    /// What the last checkpoint says is committed; at least this is known when the log is opened again.
    checkpointed_watermark: Cell<Offset>,
    has_timer: Cell<bool>,
    is_writing: Cell<bool>,
    is_closed: Cell<bool>,
    /// It has failed because what is stored cannot be read.
    is_corrupt: Cell<bool>,
    last: Cell<Option<(Standing, Offset)>>,
    me: RefCell<std::rc::Weak<Partition>>,
}

/// When the disk is full: how long until a log that is to be cut is tried again.
const CUT_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Everything a log holds, in order; or what can be read of it, and where that ends.
pub async fn read_all(log: &dyn Wal) -> Result<(Vec<PlacedBatch>, Option<Offset>), WalError> {
    let state = log.state();
    let mut all = Vec::new();
    let mut from = state.start;
    while from < state.end {
        let range = ReadRange { from, upto: state.end, max_bytes: 1 << 20, min_one: true };
        let chunk = match Pending::start(|done| log.read(range, done)).await {
            Ok(chunk) => chunk,
            Err(WalError::Corrupt { .. }) => return Ok((all, Some(from))),
            Err(why) => return Err(why),
        };
        if chunk.bytes.is_empty() {
            break;
        }
        let Some(batches) = placed(&chunk.bytes) else { return Ok((all, Some(from))) };
        from = chunk.next_offset;
        all.extend(batches);
    }
    Ok((all, None))
}

async fn recover(log: &dyn Wal) -> Result<Recovering, WalError> {
    let saved = Pending::start(|done| log.meta_get(META_KEY, done)).await?;
    let state = log.state();
    let mut recovering = Recovering::new(state, saved.as_deref());
    if let Some(replacement) = recovering.replacement() {
        let entries = vec![(META_KEY.to_owned(), Some(Bytes::from(replacement.encode())))];
        Pending::start(|done| log.meta_put(entries, done)).await?;
    }
    while let Some(from) = recovering.next_read() {
        let range = ReadRange { from, upto: state.end, max_bytes: 1 << 20, min_one: true };
        let chunk = Pending::start(|done| log.read(range, done)).await?;
        for batch in batch::batches(&chunk.bytes) {
            let batch = batch.map_err(|what| WalError::Failed(Cause::new(what)))?;
            recovering.replay(&batch.header);
        }
        recovering.skip_to(if chunk.bytes.is_empty() { state.end } else { chunk.next_offset });
    }
    Ok(recovering)
}

impl Partition {
    /// Reads a log back, before it has a role.
    pub async fn read_back(around: &Around, log: &dyn Wal) -> Result<Recovered, WalError> {
        recover(log).await.map(|recovering| recovering.finish(around.now().wall))
    }

    pub fn open(
        id: LogId,
        log: Arc<Watched>,
        recovered: Recovered,
        first: Assumption,
        sessions: BTreeSet<NodeId>,
        around: Around,
    ) -> Rc<Self> {
        let completions = Arc::<Completions>::default();
        let inboxes = Inboxes {
            written: Arc::new(WrittenInbox(completions.clone())),
            durable: Arc::new(DurableInbox(completions.clone())),
            read: Arc::new(ReadInbox(completions.clone())),
        };
        let now = around.now();
        let throttles = Throttles::unlimited();
        let environment = Environment { node: around.node, log: log.clone(), inboxes, throttles };
        let driver = PartitionDriver::new(environment, recovered, first, sessions, now);
        let replica = Replica { node: around.node, life: around.process.0, log: id };
        let partition = Rc::new(Self {
            id,
            replica,
            around,
            log,
            driver: RefCell::new(driver),
            completions,
            saving: futures::lock::Mutex::new(()),
            checkpointed_watermark: Cell::new(Offset::ZERO),
            has_timer: Cell::new(false),
            is_writing: Cell::new(false),
            is_closed: Cell::new(false),
            is_corrupt: Cell::new(false),
            last: Cell::new(None),
            me: RefCell::default(),
        });
        *partition.me.borrow_mut() = Rc::downgrade(&partition);
        partition.change(|_, _| ());
        let (sim, of) = (partition.around.sim.clone(), partition.around.process);
        let weak = Rc::downgrade(&partition);
        let inbox = partition.completions.clone();
        sim.clone().spawn(of, async move {
            loop {
                std::future::poll_fn(|cx| {
                    if inbox.queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                        *inbox.drainer.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
                        std::task::Poll::Pending
                    } else {
                        std::task::Poll::Ready(())
                    }
                })
                .await;
                let span = sim.roll(|dice| dice.span(Duration::ZERO, Duration::from_micros(150)));
                sim.sleep(of, span).await;
                let Some(partition) = weak.upgrade() else { return };
                partition.drain();
            }
        });
        partition
    }

    pub fn standing(&self) -> Standing {
        self.driver.borrow().standing()
    }

    pub fn phase(&self) -> Option<(LeaderEpoch, Phase)> {
        self.driver.borrow().follower().map(|follower| (follower.epoch(), follower.phase()))
    }

    pub fn has_failed(&self) -> bool {
        self.driver.borrow().has_failed()
    }

    pub fn is_corrupt(&self) -> bool {
        self.is_corrupt.get()
    }

    pub fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    pub fn with_leader<R>(&self, look: impl FnOnce(&Leader<Waiter>) -> R) -> Option<R> {
        self.driver.borrow().leader().map(look)
    }

    /// Which epoch wrote what, and where the log ends.
    pub fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let driver = self.driver.borrow();
        match (driver.leader(), driver.follower()) {
            (Some(leader), _) => leader.epochs().end_of(epoch, leader.log_end()),
            (None, Some(follower)) => follower.epochs().end_of(epoch, follower.log_end()),
            (None, None) => None,
        }
    }

    pub fn log(&self) -> &Arc<Watched> {
        &self.log
    }

    /// A change of the driver, and what follows from it.
    fn change<R>(&self, change: impl FnOnce(&mut PartitionDriver<Waiter>, Now) -> R) -> R {
        let now = self.around.now();
        let (result, outward, deadline) = {
            let mut driver = self.driver.borrow_mut();
            let result = change(&mut driver, now);
            (result, driver.take_outward(), driver.deadline())
        };
        self.report();
        self.carry_out(outward);
        self.set_timer(deadline);
        result
    }

    /// The driver is to be told when its deadline has come.
    fn set_timer(&self, deadline: Option<Monotonic>) {
        let Some(at) = deadline else { return };
        if self.has_timer.replace(true) {
            return;
        }
        let Some(partition) = self.me.borrow().upgrade() else { return };
        let sleep = self.around.sim.sleep_until(self.around.process, at);
        self.around.sim.spawn(self.around.process, async move {
            sleep.await;
            partition.has_timer.set(false);
            if !partition.is_closed() {
                partition.change(|driver, now| driver.tick(now));
            }
        });
    }

    /// Tells those who judge what has become of the log and the role.
    fn report(&self) {
        let replica = self.replica;
        for ordered in self.log.take_seen() {
            self.around.tell(match ordered {
                Ordered::Append(run) => Fact::Appended { replica, run },
                Ordered::Cut(from) => Fact::Cut { replica, from },
                Ordered::Reset(start) => Fact::Reset { replica, start },
                Ordered::Trim(start) => Fact::Trimmed { replica, start },
                Ordered::Refused(why) => {
                    self.around.sim.tell(|| format!("n{} {} takes no more: {why}", replica.node, self.id));
                    continue;
                }
            });
        }
        let (standing, end) = (self.standing(), self.log.state().durable_end);
        let before = self.last.replace(Some((standing, end)));
        if before.is_none_or(|(_, known)| known != end) {
            self.around.tell(Fact::Durable { replica, end });
        }
        if before.is_none_or(|(known, _)| known != standing) {
            self.around.tell(Fact::Stands { replica, standing });
        }
    }

    pub fn assume(&self, next: Assumption) {
        self.change(|driver, now| driver.assume(next, now));
        self.write_soon();
    }

    pub fn applied(&self, epoch: LeaderEpoch, membership: Membership) {
        self.change(|driver, now| driver.applied(epoch, membership, now));
    }

    pub fn set_durability(&self, durability: Durability) {
        self.change(|driver, now| driver.set_durability(durability, now));
    }

    pub fn session_up(&self, peer: NodeId) {
        self.change(|driver, now| driver.session_up(peer, now));
    }

    pub fn session_down(&self, peer: NodeId) {
        self.change(|driver, now| driver.session_down(peer, now));
    }

    pub fn received(&self, from: NodeId, message: Message) {
        let brings_records = matches!(&message, Message::Records(records) if !records.batches.is_empty());
        self.change(|driver, now| driver.received(from, message, now));
        if brings_records {
            self.write_soon();
        }
    }

    pub fn ask_in_sync(&self) -> Option<InSyncQuestion> {
        self.change(|driver, now| driver.ask_in_sync(now))
    }

    pub fn question_refused(&self, question: &InSyncQuestion) {
        self.change(|driver, now| driver.question_refused(question, now));
    }

    pub fn append(&self, batch: CheckedBatch, acks: Acks) -> Result<(Placed, Option<AckReceiver>), AppendError> {
        let (key, receiver) = match acks {
            Acks::None => (None, None),
            _ => {
                let (sender, receiver) = oneshot::channel();
                (Some(sender), Some(receiver))
            }
        };
        let placed = self.change(|driver, now| driver.append(batch, acks, key, now))?;
        self.write_soon();
        Ok((placed, receiver))
    }

    /// Some thread writes what was ordered, now or a moment later.
    fn write_soon(&self) {
        if self.is_writing.replace(true) {
            return;
        }
        let Some(partition) = self.me.borrow().upgrade() else { return };
        let span = self.around.sim.roll(|dice| dice.span(Duration::ZERO, Duration::from_micros(400)));
        self.around.sim.after(self.around.process, span, move || {
            partition.is_writing.set(false);
            partition.log.write_queued();
            partition.drain();
        });
    }

    fn drain(&self) {
        loop {
            let completions = self.completions.take();
            if completions.is_empty() {
                return;
            }
            self.change(|driver, now| {
                completions.into_iter().for_each(|completion| driver.complete(completion, now));
            });
        }
    }

    fn carry_out(&self, outward: Vec<Outward<Waiter>>) {
        for effect in outward {
            match effect {
                // A receiver that is gone belonged to a request that was given up.
                Outward::Acknowledge { key } => drop(key.send(Ok(()))),
                Outward::Abandon { key, why } => drop(key.send(Err(why))),
                Outward::WatermarkAdvanced { .. } => {}
                Outward::Send { to, message } => {
                    self.around.net.replicate_to(self.around.node, to, self.id, message);
                }
                Outward::Cut(cut) => self.begin(move |partition| async move { partition.cut(cut).await }),
                Outward::Trim { upto } => self.begin(move |partition| async move {
                    let _tried_again_with_the_next_news = partition.trim(upto).await;
                }),
                Outward::Failed { cause } => {
                    if matches!(cause, WalError::Corrupt { .. }) {
                        self.is_corrupt.set(true);
                        self.around.judges.borrow_mut().count("damage found while reading");
                    }
                    self.around.sim.tell(|| format!("n{} {} failed: {cause:?}", self.around.node, self.id));
                }
                Outward::Offline(why) => {
                    self.around.sim.tell(|| format!("n{} {} is offline: {why}", self.around.node, self.id));
                }
            }
        }
    }

    fn begin<F: Future<Output = ()> + 'static>(&self, work: impl FnOnce(Rc<Partition>) -> F) {
        if let Some(partition) = self.me.borrow().upgrade() {
            self.around.sim.spawn(self.around.process, work(partition));
        }
    }

    async fn cut(self: Rc<Self>, cut: Cut) {
        let outcome = loop {
            match self.cut_and_recover(cut.clone()).await {
                Err(WalError::Full) if !self.is_closed() => {
                    self.around.sim.sleep(self.around.process, CUT_AGAIN_AFTER).await;
                }
                outcome => break outcome,
            }
        };
        match outcome {
            Ok(recovered) => {
                let end = recovered.log.end;
                self.around.sim.tell(|| format!("n{} cut {} to {end}", self.around.node, self.id));
                self.change(|driver, now| driver.cut(recovered, now));
                self.write_soon();
            }
            Err(cause) => self.change(|driver, now| driver.cut_failed(cause, now)),
        }
    }

    async fn cut_and_recover(&self, cut: Cut) -> Result<Recovered, WalError> {
        let _alone = self.saving.lock().await;
        let log = &self.log;
        let saved = Pending::start(|done| log.meta_get(META_KEY, done)).await?;
        if let Some(checkpoint) = cut.checkpoint(saved.as_deref()) {
            self.checkpointed_watermark.set(checkpoint.high_watermark);
            let entries = vec![(META_KEY.to_owned(), Some(Bytes::from(checkpoint.encode())))];
            Pending::start(|done| log.meta_put(entries, done)).await?;
        }
        let cut = match cut {
            Cut::From(from) => Pending::start(|done| log.truncate_suffix(from, done)),
            Cut::All { start, .. } => Pending::start(|done| log.reset(start, done)),
        };
        self.report();
        cut.await?;
        recover(&**log).await.map(|recovering| recovering.finish(self.around.now().wall))
    }

    /// A client's read met damage.
    pub fn found_damaged(&self, offset: Offset) {
        self.change(|driver, now| driver.found_damaged(offset, now));
    }

    /// Starts a read of whole batches below `upto`.
    pub fn read(&self, range: ReadRange) -> Pending<Result<Chunk, WalError>> {
        Pending::start(|done| self.log.read(range, done))
    }

    pub async fn trim(&self, upto: Offset) -> Result<Offset, WalError> {
        if !self.save_checkpoint().await? {
            return Err(WalError::Failed(Cause::new("what its log holds is not known for now")));
        }
        let trimmed = Pending::start(|done| self.log.truncate_prefix(upto, done));
        self.report();
        let trimmed = trimmed.await;
        let start = self.log.state().start;
        self.change(|driver, now| driver.trimmed(start, now));
        trimmed.map(|()| start)
    }

    pub async fn save_checkpoint(&self) -> Result<bool, WalError> {
        let _alone = self.saving.lock().await;
        let Some(checkpoint) = self.driver.borrow().checkpoint() else { return Ok(false) };
        let (upto, watermark) = (checkpoint.upto, checkpoint.high_watermark);
        let checkpoint = checkpoint.encode();
        Pending::start(|done| self.log.sync(upto, done)).await?;
        let entries = vec![(META_KEY.to_owned(), Some(Bytes::from(checkpoint)))];
        Pending::start(|done| self.log.meta_put(entries, done)).await?;
        self.checkpointed_watermark.set(watermark);
        Ok(true)
    }

    pub fn checkpointed_watermark(&self) -> Offset {
        self.checkpointed_watermark.get()
    }

    pub fn close(&self) {
        self.is_closed.set(true);
        self.change(|driver, now| driver.close(now));
    }
}
