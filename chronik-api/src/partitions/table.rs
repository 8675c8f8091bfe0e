//! All replicas on this broker, by log id.
//!
//! The metadata says which there are and what they are; [`PartitionTable::assign`] and [`PartitionTable::delete`] make it so.
//! A log that the metadata does not know is left alone: deleting needs a committed decision, never a mere absence.
//!
//! **Sessions.** Every replica knows of every session with another node, from its first moment on: whoever adds a replica or
//! tells of a session holds the same lock.

use super::Partition;
use super::partition::Surroundings;
use super::recovery::{self, RecoverError};
use super::throttle::Throttling;
use crate::assemble::engines::{Engines, LogError};
use crate::metrics::TopicMetrics;
use chronik_core::batch;
use chronik_core::driver::{Assumption, Part};
use chronik_core::ids::{LeaderEpoch, LogId, NodeId, Offset, TopicId};
use chronik_core::replication::Event;
use chronik_core::wal::{EngineError, OpenMode, OpenOptions, WalError};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::task::JoinSet;

/// Logs opened at the same time: enough to keep a disk busy, few enough to bound memory during recovery.
const OPENING_MAX: usize = 32;

/// A replica as the metadata wants it here.
#[derive(Clone, Debug)]
pub struct Assignment {
    pub id: LogId,
    pub topic: String,
    /// The engine that keeps it, by name.
    pub storage: String,
    pub metrics: Arc<TopicMetrics>,
    pub assumption: Assumption,
    pub segment_bytes: u64,
    /// Another node leads, and nobody counts on what is here: a log that turns out to be damaged may begin anew.
    pub is_replaceable: bool,
    /// One that is not there is begun; else it is told ([`PartitionTable::missing`]).
    pub may_begin: bool,
}

/// Why a partition could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("partition {index} of topic {topic} cannot be opened")]
    Engine { topic: String, index: i32, source: LogError },
    #[error("the log of partition {index} of topic {topic} cannot be read back")]
    Log { topic: String, index: i32, source: WalError },
    #[error("partition {index} of topic {topic}: {what}")]
    NotBatches { topic: String, index: i32, what: batch::NotABatch },
    /// Found after the registration, which is where a process says what it has lost: those who count on it still do.
    #[error("the log of partition {index} of topic {topic} has come back without records that were committed")]
    Lost { topic: String, index: i32 },
    /// It was not to be begun ([`Assignment::may_begin`]).
    #[error("partition {index} of topic {topic} is to be here, and there is no log of it")]
    Missing { topic: String, index: i32 },
}

impl OpenError {
    /// Whether what is stored is not what was stored, and opening it again will not help.
    fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Engine { source: LogError::Engine(EngineError::Corrupt { .. }), .. }
                | Self::Log { source: WalError::Corrupt { .. }, .. }
                | Self::NotBatches { .. }
                | Self::Lost { .. }
        )
    }
}

/// See the module's head.
pub struct PartitionTable {
    engines: Arc<Engines>,
    around: Surroundings,
    replicas: RwLock<HashMap<LogId, Arc<Partition>>>,
    /// Logs that came back with less than was committed.
    damaged: Mutex<Vec<LogId>>,
    /// Logs that are to be here, are not, and were not to be begun.
    missing: Mutex<BTreeSet<LogId>>,
    /// Logs that are to be here and could not be opened.
    unopened: Mutex<BTreeSet<LogId>>,
    /// Held while replicas are opened and given their roles: of two that find a log not open yet, each would open it.
    assigning: tokio::sync::Mutex<()>,
    /// Other nodes, with the broker epochs that their sessions are bound to.
    sessions: Mutex<BTreeMap<NodeId, Offset>>,
}

impl PartitionTable {
    pub fn new(engines: Arc<Engines>, around: Surroundings) -> Self {
        Self {
            engines,
            around,
            replicas: RwLock::default(),
            damaged: Mutex::default(),
            missing: Mutex::default(),
            unopened: Mutex::default(),
            assigning: tokio::sync::Mutex::default(),
            sessions: Mutex::default(),
        }
    }

    pub fn engines(&self) -> &Arc<Engines> {
        &self.engines
    }

    pub fn get(&self, topic: TopicId, partition: i32) -> Option<Arc<Partition>> {
        self.replicas.read().unwrap_or_else(PoisonError::into_inner).get(&LogId { topic, partition }).cloned()
    }

    /// How fast replicas that are throttled may catch up.
    pub fn throttling(&self) -> &Throttling {
        &self.around.throttling
    }

    /// All of them, in the order of their ids.
    pub fn all(&self) -> Vec<Arc<Partition>> {
        let mut all: Vec<_> = self.replicas.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        all.sort_unstable_by_key(|partition| partition.id());
        all
    }

    pub fn len(&self) -> usize {
        self.replicas.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes these replicas what the metadata wants: opens those that are not open yet, and gives the others their role.
    /// What opened stays open also if others fail; the failures come back. Of two assignments of one replica the later one
    /// counts: two of them over one log would each believe to be the only one.
    pub async fn assign(&self, assignments: Vec<Assignment>) -> Vec<OpenError> {
        let _alone = self.assigning.lock().await;
        let mut waiting = Vec::new();
        let latest: BTreeMap<LogId, Assignment> = assignments.into_iter().map(|wanted| (wanted.id, wanted)).collect();
        for wanted in latest.into_values() {
            match self.get(wanted.id.topic, wanted.id.partition) {
                Some(open) if open.is_damaged() && wanted.is_replaceable => {
                    self.take_out(wanted.id);
                    waiting.push((wanted, true));
                }
                Some(open) => adopt(&open, wanted.assumption),
                None => waiting.push((wanted, false)),
            }
        }
        let mut opening = JoinSet::new();
        let mut failures = Vec::new();
        loop {
            while opening.len() < OPENING_MAX
                && let Some((wanted, is_damaged)) = waiting.pop()
            {
                let (id, engines) = (wanted.id, self.engines.clone());
                let may_lack = self.may_lack(&wanted);
                opening.spawn(async move { (id, open_log(engines, wanted, is_damaged, may_lack).await) });
            }
            match opening.join_next().await {
                None => return failures,
                Some(Ok((id, Ok((wanted, log, recovering))))) => {
                    self.unopened.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                    let recovered = recovering.finish(self.around.clock.wall());
                    if recovered.is_damaged() {
                        tracing::error!(
                            topic = wanted.topic,
                            partition = wanted.id.partition,
                            "the log has come back without records that were committed"
                        );
                        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).push(wanted.id);
                    }
                    let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
                    let Assignment { topic, storage, metrics, assumption, .. } = wanted;
                    let known = sessions.keys().copied().collect();
                    let around = self.around.clone();
                    // It asks its leader as soon as it is open, and the answer must find it here.
                    let mut replicas = self.replicas.write().unwrap_or_else(PoisonError::into_inner);
                    let topic = (topic, storage, metrics);
                    let partition = Partition::open(id, topic, log, recovered, assumption, known, around);
                    replicas.insert(id, partition);
                }
                Some(Ok((id, Err(missing @ OpenError::Missing { .. })))) => {
                    tracing::warn!("{missing}");
                    self.missing.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
                }
                Some(Ok((id, Err(failure)))) => {
                    self.unopened.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
                    failures.push(failure);
                }
                Some(Err(panicked)) => std::panic::resume_unwind(panicked.into_panic()),
            }
        }
    }

    /// Whether a log that has lost what was committed may be opened as it is: the controller is told, or has been, or nobody
    /// else has more. A log that could not be opened before the registration, and can be now, would otherwise keep its place
    /// among those who have everything.
    fn may_lack(&self, wanted: &Assignment) -> bool {
        let is_idle = wanted.assumption.epoch < LeaderEpoch(0);
        let is_alone =
            matches!(&wanted.assumption.part, Part::Lead { membership, .. } if membership.in_sync.len() <= 1);
        is_idle || is_alone || self.damaged.lock().unwrap_or_else(PoisonError::into_inner).contains(&wanted.id)
    }

    /// Hands on what the replication channel reports.
    pub fn take(&self, event: Event) {
        match event {
            Event::Message { from, log, message } => {
                if let Some(partition) = self.get(log.topic, log.partition) {
                    partition.received(from, message);
                } else if let chronik_core::replication::Message::Attach(attach) = message {
                    // Its metadata is ahead of ours, or behind: it asks again.
                    let answer = chronik_core::replication::Attached::NotYet { epoch: attach.epoch };
                    self.around.channel.send(from, log, chronik_core::replication::Message::Attached(answer));
                }
            }
            Event::Up { peer, broker_epoch } => {
                let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
                sessions.insert(peer, broker_epoch);
                self.all().iter().for_each(|partition| partition.session_up(peer));
            }
            Event::Down { peer } => {
                let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
                sessions.remove(&peer);
                self.all().iter().for_each(|partition| partition.session_down(peer));
            }
        }
    }

    /// Logs that came back with less than was committed.
    pub fn damaged(&self) -> Vec<LogId> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Logs that were to be opened, and are not there.
    pub fn missing(&self) -> Vec<LogId> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Logs that have failed, or could not be opened, in order: whoever gives leads must know of both.
    pub fn offline(&self) -> Vec<LogId> {
        let mut offline = self.unopened.lock().unwrap_or_else(PoisonError::into_inner).clone();
        offline.extend(self.all().iter().filter(|partition| partition.has_failed()).map(|partition| partition.id()));
        offline.into_iter().collect()
    }

    /// The broker epoch that the session with a node is bound to, if there is one.
    pub fn session(&self, peer: NodeId) -> Option<Offset> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).get(&peer).copied()
    }

    /// Deletes replicas of a topic that the metadata says are not to be here any more, from the engine that keeps them.
    pub async fn delete(&self, storage: &str, ids: impl IntoIterator<Item = LogId>) -> Result<(), LogError> {
        for id in ids {
            self.take_out(id);
            self.unopened.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            self.engines.delete(storage, id).await?;
        }
        Ok(())
    }

    fn take_out(&self, id: LogId) {
        let gone = self.replicas.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some(partition) = gone {
            partition.close();
        }
    }

    /// Saves what a restart would have to read back, and closes the engines.
    pub async fn shut_down(&self) -> Result<(), EngineError> {
        for partition in self.all() {
            if partition.uncheckpointed_bytes() > 0
                && let Err(failure) = partition.save_checkpoint().await
            {
                // The log itself is closed, and synced, below; without a checkpoint a restart only takes longer.
                tracing::warn!(
                    topic = partition.topic(),
                    partition = partition.index(),
                    error = &failure as &dyn std::error::Error,
                    "no checkpoint was saved"
                );
            }
        }
        self.engines.close().await
    }
}

fn adopt(partition: &Arc<Partition>, wanted: Assumption) {
    let membership = match &wanted.part {
        Part::Lead { membership, .. } => Some((wanted.epoch, membership.clone())),
        Part::Follow { .. } => None,
    };
    let Assumption { epoch, durability, throttled, .. } = wanted;
    partition.assume(wanted);
    partition.set_durability(durability);
    partition.set_throttled(epoch, throttled);
    if let Some((epoch, membership)) = membership {
        partition.applied(epoch, membership);
    }
}

type OpenLog = (Assignment, Arc<dyn chronik_core::wal::Wal>, chronik_core::partition::recovery::Recovering);

/// Opens a log; one that is damaged is set aside, and begins anew, if nobody counts on it.
async fn open_log(
    engines: Arc<Engines>,
    wanted: Assignment,
    is_known_damaged: bool,
    may_lack: bool,
) -> Result<OpenLog, OpenError> {
    let (id, topic) = (wanted.id, wanted.topic.clone());
    if !is_known_damaged {
        let opened = match open_as_it_is(&engines, wanted.clone()).await {
            Ok((_, _, recovering)) if recovering.is_damaged() && !may_lack => {
                Err(OpenError::Lost { topic: topic.clone(), index: id.partition })
            }
            outcome => outcome,
        };
        let failure = match opened {
            Err(failure) if failure.is_damage() && wanted.is_replaceable => failure,
            outcome => return outcome,
        };
        tracing::error!(error = &failure as &dyn std::error::Error, "the log is damaged");
    }
    if let Err(source) = engines.set_aside(&wanted.storage, id).await {
        return Err(OpenError::Engine { topic, index: id.partition, source });
    }
    tracing::warn!(
        topic,
        partition = id.partition,
        log = %id,
        storage = wanted.storage,
        "the damaged log was set aside, and is filled anew by its leader: its files have the same name with .damaged behind it, \
         or are where its storage plug-in has put them"
    );
    open_as_it_is(&engines, wanted).await
}

async fn open_as_it_is(engines: &Engines, wanted: Assignment) -> Result<OpenLog, OpenError> {
    let (topic, index) = (wanted.topic.clone(), wanted.id.partition);
    let mode = if wanted.may_begin { OpenMode::CreateIfMissing } else { OpenMode::Existing };
    let options = OpenOptions { mode, segment_bytes: wanted.segment_bytes };
    let log = match engines.open(&wanted.storage, wanted.id, options).await {
        Ok(log) => log,
        Err(LogError::Engine(EngineError::NotFound(_))) if !wanted.may_begin => {
            return Err(OpenError::Missing { topic, index });
        }
        Err(source) => return Err(OpenError::Engine { topic, index, source }),
    };
    match recovery::recover(&log).await {
        Ok(recovering) => Ok((wanted, log, recovering)),
        Err(RecoverError::Log(source)) => Err(OpenError::Log { topic, index, source }),
        Err(RecoverError::NotBatches(what)) => Err(OpenError::NotBatches { topic, index, what }),
    }
}
