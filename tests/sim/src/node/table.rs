//! The replicas of a node, opened, changed and deleted as the metadata says.

use super::Around;
use super::group::Group;
use super::groups::Groups;
use super::partition::{Partition, read_all};
use super::watched::Watched;
use crate::facts::{Fact, Replica};
use chronik_core::driver::{Assumption, Part};
use chronik_core::ids::{LeaderEpoch, LogId, NodeId, Offset};
use chronik_core::metadata::controller::Lost;
use chronik_core::metadata::{Change, Delta, Image, Topic};
use chronik_core::partition::leader::Durability;
use chronik_core::partition::replicas::Membership;
use chronik_core::replication::{Attached, Event, Message};
use chronik_core::wal::{EngineError, LogState, OpenMode, OpenOptions, Wal, WalEngine, WalError};
use chronik_storage_segment::SegmentEngine;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug)]
struct Assignment {
    id: LogId,
    assumption: Assumption,
    segment_bytes: u64,
    is_replaceable: bool,
    may_begin: bool,
}

/// See the module's head.
pub struct Table {
    around: Around,
    engine: SegmentEngine,
    lag_max: Duration,
    /// Whoever acts on the metadata does so alone, so that nobody acts on an older image after a newer one.
    turn: futures::lock::Mutex<()>,
    replicas: RefCell<BTreeMap<LogId, Rc<Partition>>>,
    damaged: RefCell<Vec<LogId>>,
    missing: RefCell<BTreeSet<LogId>>,
    /// With whether that is because they are damaged.
    unopened: RefCell<BTreeMap<LogId, bool>>,
    sessions: RefCell<BTreeMap<NodeId, Offset>>,
    /// The node has them; they know of this table themselves.
    groups: RefCell<Weak<Groups>>,
}

impl Table {
    pub fn new(around: Around, engine: SegmentEngine, lag_max: Duration) -> Rc<Self> {
        Rc::new(Self {
            around,
            engine,
            lag_max,
            turn: futures::lock::Mutex::new(()),
            replicas: RefCell::default(),
            damaged: RefCell::default(),
            missing: RefCell::default(),
            unopened: RefCell::default(),
            sessions: RefCell::default(),
            groups: RefCell::default(),
        })
    }

    pub fn get(&self, id: LogId) -> Option<Rc<Partition>> {
        self.replicas.borrow().get(&id).cloned()
    }

    pub fn all(&self) -> Vec<Rc<Partition>> {
        self.replicas.borrow().values().cloned().collect()
    }

    pub fn offline(&self) -> Vec<LogId> {
        let mut offline: BTreeSet<LogId> = self.unopened.borrow().keys().copied().collect();
        offline.extend(self.all().iter().filter(|partition| partition.has_failed()).map(|partition| partition.id));
        offline.into_iter().collect()
    }

    /// Logs that cannot be read any more: somebody has to throw them away.
    pub fn corrupt(&self) -> Vec<LogId> {
        let unopened = self.unopened.borrow();
        let mut corrupt: Vec<_> = unopened.iter().filter(|(_, corrupt)| **corrupt).map(|(id, _)| *id).collect();
        corrupt.extend(self.all().iter().filter(|partition| partition.is_corrupt()).map(|partition| partition.id));
        corrupt
    }

    pub fn session(&self, peer: NodeId) -> Option<Offset> {
        self.sessions.borrow().get(&peer).copied()
    }

    fn assignment(&self, topic: &Topic, partition: i32) -> Option<Assignment> {
        let facts = topic.partition(partition)?;
        let node = self.around.node;
        if !facts.replicas.contains(&node) {
            return None;
        }
        let part = if facts.leader == Some(node) {
            let membership = Membership {
                replicas: facts.replicas.iter().copied().collect(),
                in_sync: facts.isr.iter().copied().collect(),
                in_sync_min: facts.in_sync_min(&topic.config),
                partition_epoch: facts.partition_epoch,
            };
            Part::Lead { membership, lag_max: self.lag_max }
        } else {
            Part::Follow { leader: facts.leader, unclean_epoch: facts.unclean_epoch }
        };
        let durability =
            if facts.is_unsynced(&topic.config) { Durability::Replicated } else { topic.config.durability };
        Some(Assignment {
            id: LogId { topic: topic.id, partition },
            assumption: Assumption { epoch: facts.leader_epoch, durability, throttled: false, part },
            segment_bytes: topic.config.segment_bytes,
            is_replaceable: facts.leader.is_some_and(|leader| leader != node) && !facts.counts_on(node),
            may_begin: true,
        })
    }

    fn assignments(&self, image: &Image) -> Vec<Assignment> {
        let of = |topic: &Arc<Topic>| {
            let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
            (0..count).filter_map(|partition| self.assignment(topic, partition)).collect::<Vec<_>>()
        };
        image.topics().flat_map(of).collect()
    }

    /// From now on it hears of every change of the metadata; opens what there is.
    pub async fn begin(self: &Rc<Self>, group: &Group, groups: &Rc<Groups>) {
        let _turn = self.turn.lock().await;
        let image = group.listen(self);
        self.assign(self.assignments(&image)).await;
        groups.adopt(&image);
        *self.groups.borrow_mut() = Rc::downgrade(groups);
    }

    /// As nobody's followers; begins none.
    pub async fn open_idle(&self, image: &Image) -> Lost {
        let idle = |mut assignment: Assignment| {
            assignment.assumption.epoch = LeaderEpoch(-1);
            assignment.assumption.part = Part::Follow { leader: None, unclean_epoch: None };
            assignment.is_replaceable = false;
            assignment.may_begin = false;
            assignment
        };
        self.assign(self.assignments(image).into_iter().map(idle).collect()).await;
        Lost { damaged: self.damaged.borrow().clone(), missing: self.missing.borrow().iter().copied().collect() }
    }

    async fn assign(&self, assignments: Vec<Assignment>) {
        let latest: BTreeMap<LogId, Assignment> = assignments.into_iter().map(|wanted| (wanted.id, wanted)).collect();
        for wanted in latest.into_values() {
            let id = wanted.id;
            let damaged = self.get(id).filter(|open| open.is_corrupt() && wanted.is_replaceable);
            if let Some(damaged) = &damaged {
                self.take_out(damaged);
            }
            match self.get(id) {
                Some(open) => adopt(&open, wanted.assumption),
                None => {
                    let opened = match damaged {
                        Some(_) => self.begin_anew(wanted).await,
                        None => match self.open(wanted.clone()).await {
                            Err(NotOpened { what: Unopened::Damaged, .. }) if wanted.is_replaceable => {
                                self.begin_anew(wanted).await
                            }
                            outcome => outcome,
                        },
                    };
                    match opened {
                        Ok(()) => drop(self.unopened.borrow_mut().remove(&id)),
                        Err(NotOpened { what: Unopened::Missing, .. }) => drop(self.missing.borrow_mut().insert(id)),
                        Err(NotOpened { why, what }) => {
                            self.around.sim.tell(|| format!("n{} has no log {id}: {why}", self.around.node));
                            self.unopened.borrow_mut().insert(id, what == Unopened::Damaged);
                        }
                    }
                }
            }
        }
    }

    /// What is there is damaged, and nobody counts on it.
    async fn begin_anew(&self, wanted: Assignment) -> Result<(), NotOpened> {
        let id = wanted.id;
        match self.engine.set_aside(id).await {
            Ok(()) | Err(EngineError::NotFound(_)) => {}
            Err(why) => return Err(why.into()),
        }
        self.around.sim.tell(|| format!("n{} begins {id} anew, for it was damaged", self.around.node));
        let replica = Replica { node: self.around.node, life: self.around.process.0, log: id };
        self.around.tell(Fact::Deleted { replica });
        self.open(wanted).await
    }

    /// Whether a log that has lost what was committed may be opened as it is, as the broker has it.
    fn may_lack(&self, id: LogId, assumption: &Assumption) -> bool {
        let is_alone = matches!(&assumption.part, Part::Lead { membership, .. } if membership.in_sync.len() <= 1);
        assumption.epoch < LeaderEpoch(0) || is_alone || self.damaged.borrow().contains(&id)
    }

    fn take_out(&self, partition: &Partition) {
        self.replicas.borrow_mut().remove(&partition.id);
        partition.close();
        self.around.tell(Fact::Deleted { replica: partition.replica });
    }

    /// Opens it as it is.
    async fn open(&self, wanted: Assignment) -> Result<(), NotOpened> {
        let Assignment { id, assumption, segment_bytes, may_begin, .. } = wanted;
        let node = self.around.node;
        // Small segments, so that logs have several.
        let segment_bytes = segment_bytes.min(self.around.segment_bytes);
        let mode = if may_begin { OpenMode::CreateIfMissing } else { OpenMode::Existing };
        let log = Watched::over(self.engine.open(id, OpenOptions { mode, segment_bytes }).await?);
        let replica = Replica { node, life: self.around.process.0, log: id };
        let (runs, unreadable_from) = read_all(&*log).await?;
        let recovered = Partition::read_back(&self.around, &*log).await?;
        if recovered.is_damaged() && !self.may_lack(id, &assumption) {
            // Found after the registration: those who count on it still do.
            let why = "it has lost what was committed, and nobody was told".to_owned();
            return Err(NotOpened { why, what: Unopened::Damaged });
        }
        let LogState { start, end, .. } = log.state();
        self.around.tell(Fact::Opened { replica, start, end, runs, unreadable_from });
        if recovered.is_damaged() {
            self.around.sim.tell(|| format!("n{node} {id} has lost what was committed"));
            self.damaged.borrow_mut().push(id);
        }
        let known = self.sessions.borrow().keys().copied().collect();
        let partition = Partition::open(id, log, recovered, assumption, known, self.around.clone());
        self.replicas.borrow_mut().insert(id, partition);
        Ok(())
    }

    /// What the replication channel reports.
    pub fn take(&self, event: Event) {
        match event {
            Event::Message { from, log, message } => {
                if let Some(partition) = self.get(log) {
                    partition.received(from, message);
                } else if let Message::Attach(attach) = message {
                    let answer = Attached::NotYet { epoch: attach.epoch };
                    self.around.net.replicate_to(self.around.node, from, log, Message::Attached(answer));
                }
            }
            Event::Up { peer, broker_epoch } => {
                self.sessions.borrow_mut().insert(peer, broker_epoch);
                self.all().iter().for_each(|partition| partition.session_up(peer));
            }
            Event::Down { peer } => {
                self.sessions.borrow_mut().remove(&peer);
                self.all().iter().for_each(|partition| partition.session_down(peer));
            }
        }
    }

    async fn delete(&self, ids: impl IntoIterator<Item = LogId>) {
        for id in ids {
            self.unopened.borrow_mut().remove(&id);
            match self.get(id) {
                Some(partition) => self.take_out(&partition),
                // It could not be opened; what is left of it is nobody's any more, also where deleting it fails halfway.
                None => {
                    let replica = Replica { node: self.around.node, life: self.around.process.0, log: id };
                    self.around.tell(Fact::Deleted { replica });
                }
            }
            match self.engine.delete(id).await {
                Ok(()) | Err(EngineError::NotFound(_)) => {}
                Err(why) => self.around.sim.tell(|| format!("n{} cannot delete {id}: {why:?}", self.around.node)),
            }
        }
    }

    /// The metadata has changed.
    pub async fn applied(&self, image: &Arc<Image>, delta: &Delta) {
        let _turn = self.turn.lock().await;
        let mut assigned = BTreeMap::new();
        let mut gone = Vec::new();
        for change in &delta.changes {
            match change {
                Change::PartitionAdded { topic, partition } | Change::PartitionChanged { topic, partition } => {
                    let Some(of) = image.topic_by_id(*topic) else { continue };
                    let id = LogId { topic: *topic, partition: *partition };
                    match self.assignment(of, *partition) {
                        Some(assignment) => drop(assigned.insert(id, assignment)),
                        None if self.get(id).is_some() => gone.push(id),
                        None => {}
                    }
                }
                Change::TopicDeleted(topic) => {
                    let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
                    self.delete((0..count).map(|partition| LogId { topic: topic.id, partition })).await;
                    let groups = self.groups.borrow().upgrade();
                    if let Some(groups) = groups {
                        groups.topic_deleted(&topic.name, topic.id);
                    }
                }
                Change::TopicConfig(topic) => {
                    if let Some(topic) = image.topic_by_id(*topic) {
                        let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
                        let all = (0..count).filter_map(|partition| self.assignment(topic, partition));
                        assigned.extend(all.map(|assignment| (assignment.id, assignment)));
                    }
                }
                _ => {}
            }
        }
        self.assign(assigned.into_values().collect()).await;
        self.delete(gone).await;
        let groups = self.groups.borrow().upgrade();
        if let Some(groups) = groups {
            groups.adopt(image);
        }
    }
}

/// Why there is no log.
struct NotOpened {
    why: String,
    what: Unopened,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unopened {
    /// What is stored of it is not what it was.
    Damaged,
    Missing,
    /// Perhaps it can be opened later.
    Failed,
}

impl From<EngineError> for NotOpened {
    fn from(why: EngineError) -> Self {
        let what = match why {
            EngineError::Corrupt { .. } => Unopened::Damaged,
            EngineError::NotFound(_) => Unopened::Missing,
            _ => Unopened::Failed,
        };
        Self { what, why: format!("{why:?}") }
    }
}

impl From<WalError> for NotOpened {
    fn from(why: WalError) -> Self {
        let what = if matches!(why, WalError::Corrupt { .. }) { Unopened::Damaged } else { Unopened::Failed };
        Self { what, why: format!("{why:?}") }
    }
}

fn adopt(partition: &Rc<Partition>, wanted: Assumption) {
    let membership = match &wanted.part {
        Part::Lead { membership, .. } => Some((wanted.epoch, membership.clone())),
        Part::Follow { .. } => None,
    };
    let durability = wanted.durability;
    partition.assume(wanted);
    partition.set_durability(durability);
    if let Some((epoch, membership)) = membership {
        partition.applied(epoch, membership);
    }
}
