//! What the handlers share, and how the replicas here follow the metadata.

use crate::clock::Clock;
use crate::cluster::asks::Asks;
use crate::cluster::node::QuorumStatus;
use crate::cluster::replicate::Replication;
use crate::config::Config;
use crate::groups::Groups;
use crate::kafka::connection::MemoryBudget;
use crate::kafka::context::Authorizer;
use crate::kafka::fetch_sessions::FetchSessions;
use crate::metadata::{Applied, Creation, MetadataLog, ProducerIds};
use crate::metrics::{Metrics, MetricsSource, PartitionSample, Snapshot};
use crate::partitions::PartitionTable;
use crate::partitions::table::Assignment;
use crate::partitions::upkeep;
use async_trait::async_trait;
use chronik_core::driver::{Assumption, Part};
use chronik_core::ids::{LeaderEpoch, LogId, NodeId, TopicId};
use chronik_core::metadata::controller::Lost;
use chronik_core::metadata::names::CONSUMER_OFFSETS;
use chronik_core::metadata::{Change, Delta, Image, Topic};
use chronik_core::partition::leader::Durability;
use chronik_core::partition::replicas::Membership;
use chronik_core::partition::retention::Retention;
use chronik_core::wal::Survives;
use chronik_link::raft::RaftLanes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

/// One broker, as its handlers see it.
pub struct Broker {
    pub config: Config,
    pub node: NodeId,
    pub clock: Clock,
    pub metadata: MetadataLog,
    pub partitions: Arc<PartitionTable>,
    pub producer_ids: ProducerIds,
    pub creation: Creation,
    pub groups: Arc<Groups>,
    pub sessions: Arc<FetchSessions>,
    pub metrics: Arc<Metrics>,
    pub authorizer: Box<dyn Authorizer>,
    /// What a broker among others has besides.
    pub cluster: Option<InCluster>,
    /// What answers with records in them may hold together until they are sent.
    pub answer_memory: MemoryBudget,
}

/// See [`Broker::cluster`].
pub struct InCluster {
    pub asks: Arc<Asks>,
    pub status: watch::Receiver<QuorumStatus>,
    pub raft: Arc<RaftLanes>,
    pub replication: Arc<Replication>,
}

impl Broker {
    /// Whom clients are to ask what a controller decides: the controller, or where it cannot be sent to, another broker,
    /// since all of them hand on. A client that is told of nobody, or of one that is not among the brokers, may not look
    /// again for minutes.
    pub fn controller(&self, image: &Image) -> Option<NodeId> {
        let Some(cluster) = &self.cluster else { return Some(self.node) };
        let named = cluster.asks.controller().into_iter().chain([self.node]).chain(image.brokers().keys().copied());
        named.into_iter().find(|node| image.is_active(*node))
    }

    /// What upkeep goes by, for a topic that exists.
    pub fn upkeep_rules(&self, topic: TopicId) -> Option<upkeep::Rules> {
        let image = self.metadata.image();
        let config = &image.topic_by_id(topic)?.config;
        Some(upkeep::Rules {
            retention: Retention { age_ms_max: config.retention_ms, bytes_max: config.retention_bytes },
            segment_ms: config.segment_ms,
            deletes: config.cleanup_policy.delete,
        })
    }
}

/// Opens, changes and deletes logs as the metadata says.
pub struct FollowMetadata {
    pub node: NodeId,
    pub clock: Clock,
    /// For how long a replica in sync may lack records.
    pub replica_lag_max: Duration,
    pub partitions: Arc<PartitionTable>,
    pub metrics: Arc<Metrics>,
    /// Set once they are up.
    pub groups: OnceLock<Arc<Groups>>,
}

impl FollowMetadata {
    fn assignment(&self, topic: &Topic, partition: i32) -> Option<Assignment> {
        let facts = topic.partition(partition)?;
        if !facts.replicas.contains(&self.node) {
            return None;
        }
        let part = if facts.leader == Some(self.node) {
            let membership = Membership {
                replicas: facts.replicas.iter().copied().collect(),
                in_sync: facts.isr.iter().copied().collect(),
                in_sync_min: facts.in_sync_min(&topic.config),
                partition_epoch: facts.partition_epoch,
            };
            Part::Lead { membership, lag_max: self.replica_lag_max }
        } else {
            Part::Follow { leader: facts.leader, unclean_epoch: facts.unclean_epoch }
        };
        // What was acknowledged under another durability holds until all in sync are known to have synced it.
        let durability =
            if facts.is_unsynced(&topic.config) { Durability::Replicated } else { topic.config.durability };
        // Which of the two lists counts is a matter of the role; who is in sync is never throttled.
        let throttled = if facts.leader == Some(self.node) {
            topic.config.leader_throttled_replicas.contains(partition, self.node)
        } else {
            topic.config.follower_throttled_replicas.contains(partition, self.node) && !facts.isr.contains(&self.node)
        };
        Some(Assignment {
            id: LogId { topic: topic.id, partition },
            topic: topic.name.to_string(),
            storage: topic.config.storage.clone(),
            metrics: self.metrics.topic(&topic.name),
            assumption: Assumption { epoch: facts.leader_epoch, durability, throttled, part },
            segment_bytes: topic.config.segment_bytes,
            is_replaceable: facts.leader.is_some_and(|leader| leader != self.node) && !facts.counts_on(self.node),
            may_begin: true,
        })
    }

    /// Opens everything that the image says this node has.
    async fn open_all(&self, image: &Image) {
        let of = |topic: &Arc<Topic>| {
            let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
            (0..count).filter_map(|partition| self.assignment(topic, partition)).collect::<Vec<_>>()
        };
        self.assign(image.topics().flat_map(of).collect()).await;
    }

    /// Opens what the image says this node has, as nobody's followers; says what is not as it was. What each is follows when
    /// this process is registered. What is missing is begun only after that: were it begun before, and the process killed,
    /// the next one would find a log that is empty and nothing that is missing.
    pub async fn open_idle(&self, image: &Image) -> Lost {
        let idle = |mut assignment: Assignment| {
            assignment.assumption.epoch = LeaderEpoch(-1);
            assignment.assumption.part = Part::Follow { leader: None, unclean_epoch: None };
            assignment.is_replaceable = false;
            assignment.may_begin = false;
            assignment
        };
        let of = |topic: &Arc<Topic>| {
            let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
            (0..count).filter_map(|partition| self.assignment(topic, partition)).map(idle).collect::<Vec<_>>()
        };
        let all: Vec<_> = image.topics().flat_map(of).collect();
        let gone = |assignment: &&Assignment| {
            let stored = self.partitions.engines().stored(&assignment.storage);
            stored.is_some_and(|stored| stored.survives == Survives::Nothing)
        };
        let mut damaged: BTreeSet<_> = all.iter().filter(gone).map(|assignment| assignment.id).collect();
        self.assign(all).await;
        damaged.extend(self.partitions.damaged());
        Lost { damaged: damaged.into_iter().collect(), missing: self.partitions.missing() }
    }

    fn throttle(&self, image: &Image) {
        self.partitions.throttling().configure(self.clock, image.broker_config(self.node));
    }

    async fn assign(&self, assignments: Vec<Assignment>) {
        for failure in self.partitions.assign(assignments).await {
            // The others serve; clients of this one are told of a storage error until the cause is mended.
            tracing::error!(error = &failure as &dyn std::error::Error, "a partition is offline");
        }
    }

    fn reconfigure(&self, topic: &Topic) {
        for partition in 0..i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX) {
            let Some(replica) = self.partitions.get(topic.id, partition) else { continue };
            if let Some(segmented) = replica.log().segmented() {
                segmented.set_segment_bytes(topic.config.segment_bytes);
            }
        }
    }
}

#[async_trait]
impl Applied for FollowMetadata {
    async fn begin(&self, image: &Arc<Image>) {
        self.throttle(image);
        self.open_all(image).await;
    }

    async fn applied(&self, image: &Arc<Image>, delta: &Delta) {
        // A topic's creation and its first settings speak of the same replicas.
        let mut assigned = BTreeMap::new();
        let mut gone = Vec::new();
        let mut coordinators_moved = false;
        for change in &delta.changes {
            match change {
                Change::PartitionAdded { topic, partition } | Change::PartitionChanged { topic, partition } => {
                    let Some(of) = image.topic_by_id(*topic) else { continue };
                    coordinators_moved |= &*of.name == CONSUMER_OFFSETS;
                    match self.assignment(of, *partition) {
                        Some(assignment) => drop(assigned.insert(assignment.id, assignment)),
                        // It was moved to other nodes.
                        None if self.partitions.get(*topic, *partition).is_some() => {
                            gone.push((of.clone(), LogId { topic: *topic, partition: *partition }));
                        }
                        None => {}
                    }
                }
                Change::TopicDeleted(topic) => {
                    let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
                    let logs = (0..count).map(|partition| LogId { topic: topic.id, partition });
                    if let Err(failure) = self.partitions.delete(&topic.config.storage, logs).await {
                        tracing::error!(
                            topic = &*topic.name,
                            error = &failure as &dyn std::error::Error,
                            "a deleted topic's log could not be removed: its space is not given back"
                        );
                    }
                    self.metrics.forget_topic(&topic.name);
                    if let Some(groups) = self.groups.get() {
                        groups.topic_deleted(&topic.name, topic.id);
                    }
                }
                Change::TopicConfig(topic) => {
                    if let Some(topic) = image.topic_by_id(*topic) {
                        self.reconfigure(topic);
                        let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
                        // How many must be in sync may be different now.
                        let all = (0..count).filter_map(|partition| self.assignment(topic, partition));
                        assigned.extend(all.map(|assignment| (assignment.id, assignment)));
                    }
                }
                Change::BrokerConfig => self.throttle(image),
                Change::TopicCreated(_)
                | Change::Cluster
                | Change::Features
                | Change::BrokerRegistered(_)
                | Change::BrokerState(_)
                | Change::BrokerUnregistered(_)
                | Change::ProducerIds => {}
            }
        }
        self.assign(assigned.into_values().collect()).await;
        for (topic, log) in gone {
            if let Err(failure) = self.partitions.delete(&topic.config.storage, [log]).await {
                tracing::error!(
                    topic = &*topic.name,
                    partition = log.partition,
                    error = &failure as &dyn std::error::Error,
                    "a log that was moved to other nodes could not be removed: its space is not given back"
                );
            }
        }
        if let (true, Some(groups)) = (coordinators_moved, self.groups.get()) {
            groups.adopt(image.clone()).await;
        }
    }
}

#[async_trait]
impl MetricsSource for Broker {
    async fn snapshot(&self) -> Snapshot {
        self.metrics.fetch_sessions.set(i64::try_from(self.sessions.len()).unwrap_or(i64::MAX));
        let image = self.metadata.image();
        let sample = |partition: Arc<crate::partitions::Partition>| {
            let standing = partition.standing();
            let log = partition.log_state();
            let under_min_isr = partition.with_leader(|leader| leader.replicas().are_enough().is_err()) == Some(true);
            let facts = image.partition(partition.id().topic, partition.id().partition);
            let replicas = facts.map_or(0, |facts| facts.replicas.len());
            let lag = partition.with_leader(|leader| {
                let slowest = leader.replicas().followers().map(|(_, written, ..)| written).min();
                slowest.map_or(0, |slowest| leader.log_end().since(slowest))
            });
            PartitionSample {
                topic: partition.topic().to_owned(),
                partition: partition.index(),
                log_start: standing.log_start.0,
                high_watermark: standing.high_watermark.0,
                log_end: standing.log_end.0,
                durable_end: log.durable_end.0,
                log_bytes: log.bytes,
                under_min_isr,
                offline: partition.has_failed(),
                leads: standing.leads,
                under_replicated: standing.leads && facts.is_some_and(|facts| facts.isr.len() < replicas),
                leader_epoch: standing.epoch.0,
                follower_lag: lag.unwrap_or(0),
            }
        };
        Snapshot {
            partitions: self.partitions.all().into_iter().map(sample).collect(),
            groups: self.groups.samples(&image),
            storage: Some(self.partitions.engines().usage()),
            throttles: self.partitions.throttling().samples().to_vec(),
        }
    }
}
