//! What the handlers share, and how the led partitions follow the metadata.

use crate::clock::Clock;
use crate::config::Config;
use crate::groups::Groups;
use crate::kafka::connection::MemoryBudget;
use crate::kafka::context::Authorizer;
use crate::kafka::fetch_sessions::FetchSessions;
use crate::metadata::{Applied, MetadataLog, ProducerIds};
use crate::metrics::{Metrics, MetricsSource, PartitionSample, Snapshot};
use crate::partitions::PartitionTable;
use crate::partitions::table::Assignment;
use crate::partitions::upkeep;
use async_trait::async_trait;
use chronik_core::ids::{LogId, NodeId, TopicId};
use chronik_core::metadata::{Change, Delta, Image, Topic};
use chronik_core::partition::retention::Retention;
use std::sync::{Arc, OnceLock};

/// One broker, as its handlers see it.
pub struct Broker {
    pub config: Config,
    pub node: NodeId,
    pub clock: Clock,
    pub metadata: MetadataLog,
    pub partitions: Arc<PartitionTable>,
    pub producer_ids: ProducerIds,
    pub groups: Arc<Groups>,
    pub sessions: Arc<FetchSessions>,
    pub metrics: Arc<Metrics>,
    pub authorizer: Box<dyn Authorizer>,
    /// What answers with records in them may hold together until they are sent.
    pub answer_memory: MemoryBudget,
}

impl Broker {
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
    pub partitions: Arc<PartitionTable>,
    pub metrics: Arc<Metrics>,
    /// Set once they are up.
    pub groups: OnceLock<Arc<Groups>>,
}

impl FollowMetadata {
    fn assignment(&self, topic: &Topic, partition: i32) -> Option<Assignment> {
        let facts = topic.partition(partition)?;
        (facts.leader == Some(self.node)).then(|| Assignment {
            id: LogId { topic: topic.id, partition },
            topic: topic.name.to_string(),
            metrics: self.metrics.topic(&topic.name),
            leader_epoch: facts.leader_epoch,
            durability: topic.config.durability,
            segment_bytes: topic.config.segment_bytes,
        })
    }

    /// Opens everything that the image says this node leads: at start.
    pub async fn open_all(&self, image: &Image) {
        let of = |topic: &Arc<Topic>| {
            let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
            (0..count).filter_map(|partition| self.assignment(topic, partition)).collect::<Vec<_>>()
        };
        self.open(image.topics().flat_map(of).collect()).await;
    }

    async fn open(&self, assignments: Vec<Assignment>) {
        for failure in self.partitions.open(assignments, self.clock.wall()).await {
            // The others serve; clients of this one are told of a storage error until the cause is mended.
            tracing::error!(error = &failure as &dyn std::error::Error, "a partition is offline");
        }
    }

    fn reconfigure(&self, topic: &Topic) {
        for partition in 0..i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX) {
            let Some(led) = self.partitions.get(topic.id, partition) else { continue };
            led.change_leader(|leader| leader.set_durability(topic.config.durability));
            if let Some(segmented) = led.log().segmented() {
                segmented.set_segment_bytes(topic.config.segment_bytes);
            }
        }
    }
}

#[async_trait]
impl Applied for FollowMetadata {
    async fn applied(&self, image: &Arc<Image>, delta: &Delta) {
        let mut open = Vec::new();
        for change in &delta.changes {
            match change {
                Change::PartitionAdded { topic, partition } => {
                    open.extend(image.topic_by_id(*topic).and_then(|topic| self.assignment(topic, *partition)));
                }
                Change::TopicDeleted(topic) => {
                    let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
                    let logs = (0..count).map(|partition| LogId { topic: topic.id, partition });
                    if let Err(failure) = self.partitions.delete(logs).await {
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
                    }
                }
                // With one node a partition's leader changes only in its epoch, before its log is opened.
                Change::PartitionChanged { .. }
                | Change::TopicCreated(_)
                | Change::Cluster
                | Change::Features
                | Change::BrokerRegistered(_)
                | Change::BrokerConfig
                | Change::ProducerIds => {}
            }
        }
        self.open(open).await;
    }
}

#[async_trait]
impl MetricsSource for Broker {
    async fn snapshot(&self) -> Snapshot {
        self.metrics.fetch_sessions.set(i64::try_from(self.sessions.len()).unwrap_or(i64::MAX));
        let image = self.metadata.image();
        let sample = |partition: Arc<crate::partitions::Partition>| {
            let position = partition.position();
            let log = partition.log_state();
            let wanted = image.topic_by_id(partition.id().topic).map_or(1, |topic| topic.config.min_insync_replicas);
            PartitionSample {
                topic: partition.topic().to_owned(),
                partition: partition.index(),
                log_start: position.log_start.0,
                high_watermark: position.high_watermark.0,
                log_end: position.log_end.0,
                durable_end: log.durable_end.0,
                log_bytes: log.bytes,
                under_min_isr: wanted > 1,
                offline: partition.has_failed(),
            }
        };
        Snapshot {
            partitions: self.partitions.all().into_iter().map(sample).collect(),
            groups: self.groups.samples(&image),
            storage: Some(self.partitions.engine().usage()),
        }
    }
}
