//! The coordinators of groups on a node: the production machine over the partitions of `__consumer_offsets` that the node
//! leads, with the broker's part around it.

use super::Around;
use super::group::Group;
use super::partition::{AckReceiver, Partition};
use super::table::Table;
use crate::rt::Changes;
use chronik_core::batch::{Builder, CheckedBatch, RecordOut, Records, batches};
use chronik_core::group::records::{CommittedOffset, RawRecord};
use chronik_core::group::{Coordinator, Effect, Reply, Settings, coordinator_partition, snapshot};
use chronik_core::ids::{LeaderEpoch, LogId, Offset, TopicId};
use chronik_core::metadata::names::CONSUMER_OFFSETS;
use chronik_core::metadata::{Image, Topic};
use chronik_core::partition::leader::Acks;
use chronik_core::time::{Monotonic, Now};
use chronik_core::wal::{ReadRange, WalError};
use futures::channel::oneshot;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

pub type Key = oneshot::Sender<Reply>;

/// How often a log that is to be loaded is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Until groups that could not be read back are read again.
const LOAD_AGAIN: Duration = Duration::from_millis(500);
/// What a member may choose as its session; short, so that members are lost within a story.
pub const SESSION_MS: i32 = 1_500;

fn settings() -> Settings {
    Settings {
        session_timeout_ms_min: 100,
        session_timeout_ms_max: 60_000,
        initial_rebalance_delay: Duration::from_millis(200),
        group_members_max: 100,
        groups_max: 1_000,
        offset_metadata_bytes_max: 4_096,
        offsets_retention_ms: i64::MAX / 2,
        // Small, so that a story has several.
        snapshot: snapshot::Settings { log_bytes_min: 6 << 10, part_bytes: 1 << 10 },
    }
}

struct Served {
    topic: TopicId,
    epoch: LeaderEpoch,
    shard: Rc<Shard>,
}

/// See the module's head.
pub struct Groups {
    around: Around,
    group: Rc<Group>,
    table: Rc<Table>,
    shards: RefCell<BTreeMap<i32, Served>>,
}

/// Why a group's request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoCoordinator {
    NotHere,
    Loading,
}

fn partitions_of(topic: &Topic) -> i32 {
    i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX)
}

impl Groups {
    pub fn new(around: Around, group: Rc<Group>, table: Rc<Table>) -> Rc<Self> {
        Rc::new(Self { around, group, table, shards: RefCell::default() })
    }

    /// Coordinators for what this node leads by now, and none for anything else.
    pub fn adopt(&self, image: &Image) {
        let Some(topic) = image.topic(CONSUMER_OFFSETS) else { return };
        let mut shards = self.shards.borrow_mut();
        shards.retain(|_, served| served.topic == topic.id || served.shard.dismiss());
        for index in 0..partitions_of(topic) {
            let partition = self.table.get(LogId { topic: topic.id, partition: index });
            let partition = partition.filter(|partition| partition.standing().leads);
            let epoch = partition.as_ref().map(|partition| partition.standing().epoch);
            if shards.get(&index).is_some_and(|served| Some(served.epoch) != epoch)
                && let Some(served) = shards.remove(&index)
            {
                served.shard.dismiss();
            }
            let (Some(partition), Some(epoch)) = (partition, epoch) else { continue };
            shards.entry(index).or_insert_with(|| {
                let shard = Shard::begin(self.around.clone(), partition, self.group.clone());
                Served { topic: topic.id, epoch, shard }
            });
        }
    }

    /// A topic is gone, and so are its offsets.
    pub fn topic_deleted(&self, name: &str, id: TopicId) {
        let all: Vec<_> = self.shards.borrow().values().map(|served| served.shard.clone()).collect();
        for shard in all.into_iter().filter(|shard| shard.is_loaded.get()) {
            shard.with(|coordinator, _| coordinator.topic_deleted(name, id));
        }
    }

    /// Who coordinates that group here, with the partition and the epoch it does so in.
    pub fn find(&self, group: &str) -> Result<(Rc<Shard>, LogId, LeaderEpoch), NoCoordinator> {
        let image = self.group.image();
        let topic = image.topic(CONSUMER_OFFSETS).ok_or(NoCoordinator::NotHere)?;
        let index = coordinator_partition(group, partitions_of(topic));
        let shards = self.shards.borrow();
        let served = shards.get(&index).filter(|served| served.topic == topic.id).ok_or(NoCoordinator::NotHere)?;
        if !served.shard.is_loaded.get() {
            return Err(NoCoordinator::Loading);
        }
        Ok((served.shard.clone(), LogId { topic: topic.id, partition: index }, served.epoch))
    }
}

struct Appended {
    ticket: u64,
    at: Offset,
    ack: Option<AckReceiver>,
}

/// A coordinator and its partition.
pub struct Shard {
    around: Around,
    partition: Rc<Partition>,
    coordinator: RefCell<Coordinator<Key>>,
    awaiting: RefCell<VecDeque<Appended>>,
    appended: Changes,
    is_loaded: Cell<bool>,
    is_over: Cell<bool>,
    timer_at: Cell<Option<Monotonic>>,
    me: RefCell<std::rc::Weak<Shard>>,
}

impl Shard {
    fn begin(around: Around, partition: Rc<Partition>, group: Rc<Group>) -> Rc<Self> {
        let shard = Rc::new(Self {
            around,
            partition,
            coordinator: RefCell::new(Coordinator::new(settings())),
            awaiting: RefCell::default(),
            appended: Changes::default(),
            is_loaded: Cell::new(false),
            is_over: Cell::new(false),
            timer_at: Cell::new(None),
            me: RefCell::default(),
        });
        *shard.me.borrow_mut() = Rc::downgrade(&shard);
        let running = shard.clone();
        shard.around.sim.spawn(shard.around.process, async move { running.run(group).await });
        shard
    }

    /// It coordinates no more. Always false.
    fn dismiss(&self) -> bool {
        self.is_over.set(true);
        self.appended.tell();
        false
    }

    async fn load(&self) -> bool {
        let standing = loop {
            if self.is_over.get() || self.partition.has_failed() {
                return false;
            }
            let standing = self.partition.standing();
            if standing.high_watermark == standing.log_end {
                break standing;
            }
            self.around.sim.sleep(self.around.process, LOOK_AGAIN).await;
        };
        let mut from = standing.log_start;
        while from < standing.log_end {
            let range = ReadRange { from, upto: standing.log_end, max_bytes: 16 << 10, min_one: true };
            let chunk = match self.partition.read(range).await {
                Ok(chunk) => chunk,
                Err(why) => {
                    if let WalError::Corrupt { offset } = why {
                        // Another replica leads then, if there is one.
                        self.partition.found_damaged(offset);
                    }
                    return false;
                }
            };
            if chunk.bytes.is_empty() {
                break;
            }
            for batch in batches(&chunk.bytes) {
                let Ok(batch) = batch else { return false };
                for record in Records::new(&batch.records) {
                    let Ok(record) = record else { return false };
                    let Some(key) = record.key else { continue };
                    let value = record.value.map(|value| batch.records.slice_ref(value));
                    if self.coordinator.borrow_mut().replay(batch.records.slice_ref(key), value).is_err() {
                        return false;
                    }
                }
            }
            from = chunk.next_offset;
        }
        true
    }

    async fn run(self: Rc<Self>, group: Rc<Group>) {
        while !self.load().await {
            if self.is_over.get() {
                return;
            }
            self.around.judges.borrow_mut().count("groups could not be loaded");
            self.around.sim.sleep(self.around.process, LOAD_AGAIN).await;
            *self.coordinator.borrow_mut() = Coordinator::new(settings());
        }
        if self.is_over.get() {
            return;
        }
        self.around.judges.borrow_mut().count("groups loaded by a coordinator");
        let image = group.image();
        let is_gone = |name: &str, committed: &CommittedOffset| match image.topic(name) {
            Some(topic) => committed.topic != TopicId::NONE && committed.topic != topic.id,
            None => true,
        };
        self.with(|coordinator, now| coordinator.loaded(now, is_gone));
        self.is_loaded.set(true);
        loop {
            let next = self
                .appended
                .wait_for(|| match self.is_over.get() {
                    true => Some(None),
                    false => self.awaiting.borrow_mut().pop_front().map(Some),
                })
                .await;
            let Some(Appended { ticket, at, ack }) = next else { return };
            let stored = match ack {
                Some(ack) => matches!(ack.await, Ok(Ok(()))),
                None => true,
            };
            if self.is_over.get() {
                return;
            }
            self.with(|coordinator, now| match stored {
                true => coordinator.committed(ticket, at, now),
                false => coordinator.failed(ticket, now),
            });
        }
    }

    pub fn look<R>(&self, look: impl FnOnce(&Coordinator<Key>) -> R) -> R {
        look(&self.coordinator.borrow())
    }

    /// A command, and what follows from it.
    pub fn with<R>(&self, command: impl FnOnce(&mut Coordinator<Key>, Now) -> R) -> R {
        let now = self.around.now();
        let result = command(&mut self.coordinator.borrow_mut(), now);
        let mut refused = false;
        loop {
            let effect = self.coordinator.borrow_mut().poll_effect();
            match effect {
                None => break,
                // Whoever asked may be gone.
                Some(Effect::Reply { key, reply }) => drop(key.send(reply)),
                Some(Effect::Write { ticket, records }) => match self.append(&records, now, refused) {
                    Some((at, ack)) => {
                        self.awaiting.borrow_mut().push_back(Appended { ticket, at, ack });
                        self.appended.tell();
                    }
                    None => {
                        refused = true;
                        self.coordinator.borrow_mut().failed(ticket, now);
                    }
                },
                Some(Effect::Trim { upto }) => self.trim(upto),
            }
        }
        self.set_timer();
        result
    }

    /// A command whose answer comes later.
    pub fn ask(&self, command: impl FnOnce(&mut Coordinator<Key>, Now, Key)) -> oneshot::Receiver<Reply> {
        let (key, answer) = oneshot::channel();
        self.with(|coordinator, now| command(coordinator, now, key));
        answer
    }

    fn append(&self, records: &[RawRecord], now: Now, refused: bool) -> Option<(Offset, Option<AckReceiver>)> {
        if refused {
            return None;
        }
        let mut builder = Builder::new(now.wall);
        for (key, value) in records {
            builder.push(&RecordOut { key: Some(key), value: value.as_deref(), ..RecordOut::default() });
        }
        let (placed, ack) = self.partition.append(CheckedBatch::trusted(builder.build()), Acks::All).ok()?;
        Some((placed.base_offset, ack))
    }

    fn trim(&self, upto: Offset) {
        let Some(shard) = self.me.borrow().upgrade() else { return };
        self.around.judges.borrow_mut().count("groups' log cut down to what is live");
        self.around.sim.spawn(self.around.process, async move {
            let dropped = shard.partition.clone().trim(upto).await.is_ok();
            if !shard.is_over.get() {
                shard.with(|coordinator, _| coordinator.trimmed(dropped));
            }
        });
    }

    fn set_timer(&self) {
        let Some(at) = self.coordinator.borrow().deadline() else { return };
        if self.timer_at.get().is_some_and(|set| set <= at) {
            return;
        }
        self.timer_at.set(Some(at));
        let Some(shard) = self.me.borrow().upgrade() else { return };
        let sleep = self.around.sim.sleep_until(self.around.process, at);
        self.around.sim.spawn(self.around.process, async move {
            sleep.await;
            if shard.timer_at.get() == Some(at) && !shard.is_over.get() {
                shard.timer_at.set(None);
                shard.with(|coordinator, now| coordinator.tick(now));
            }
        });
    }
}
