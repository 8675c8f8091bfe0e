//! The cluster's metadata at one point of its log: immutable once published, cheap to clone, and shared.
//!
//! Maps are ordered and lie behind `Arc`s of their own, so that a clone copies pointers, and a change copies only the map
//! it touches (copy on write). Readers look up by name and by id without locks.
//!
//! Two parts are not replicated: [`ClusterDefaults`], which this node's configuration file gives, and what is derived from
//! it ([`Topic::config`]). Nodes of one cluster must agree on them.

use super::dynamic_broker_config::{DynamicBrokerConfig, DynamicBrokerConfigDef};
use super::engines::StorageEngines;
use super::names;
use super::topic_config::{self, Durability, InvalidConfig, TOPIC_CONFIGS, TopicConfig, TopicConfigDef, Unit};
use crate::ids::{LeaderEpoch, LogId, NodeId, Offset, TopicId};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// How far into its log an image has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The next record to apply.
    pub next: Offset,
    /// Epoch (or term) of the last record applied.
    pub epoch: LeaderEpoch,
}

/// Where clients reach a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub name: String,
    pub host: String,
    pub port: u16,
}

/// A broker that has registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub id: NodeId,
    /// The offset of its latest registration: grows with every start of the process.
    pub epoch: Offset,
    pub incarnation: [u8; 16],
    pub directory_id: [u8; 16],
    pub rack: Option<String>,
    pub listeners: Vec<Listener>,
    /// The process before stopped in order, with everything synced.
    pub clean: bool,
    /// Logs that came back with less than they had.
    pub damaged: Vec<LogId>,
    /// It leads nothing and is in no in-sync set: it has not caught up with its registration, or was not heard of for too
    /// long.
    pub fenced: bool,
    /// It is about to stop: it gets no lead and joins no in-sync set.
    pub in_controlled_shutdown: bool,
    /// Logs that have failed there since it registered, in order.
    pub offline: Vec<LogId>,
    /// Where other brokers open their sessions with it, `host:port`.
    pub replication_address: Option<String>,
    /// What its release can work with, by feature.
    pub features: BTreeMap<String, RangeInclusive<i16>>,
    /// The last request of this process that was decided; zero: none. A request with this number or a lower one is refused.
    pub last_seq: i64,
}

impl Broker {
    /// Whether it may be given a lead, or join an in-sync set.
    pub fn is_active(&self) -> bool {
        !self.fenced && !self.in_controlled_shutdown
    }

    /// Whether it can serve this log: it is not fenced, and the log has not failed.
    pub fn serves(&self, log: LogId) -> bool {
        !self.fenced && self.offline.binary_search(&log).is_err()
    }
}

/// A partition's place in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partition {
    pub leader: Option<NodeId>,
    /// Never falls over the life of a topic id.
    pub leader_epoch: LeaderEpoch,
    /// Counts all changes of this partition.
    pub partition_epoch: i32,
    /// In order of preference: the first should lead.
    pub replicas: Vec<NodeId>,
    pub isr: Vec<NodeId>,
    /// Eligible leader replicas (KIP-966): out of sync, but known to hold everything committed. None while enough are in
    /// sync, since then more is committed without them.
    pub elr: Vec<NodeId>,
    /// Who was in either set since too few are in sync, and is in none now.
    pub last_known_elr: Vec<NodeId>,
    /// While there is no leader: who led last.
    pub last_known_leader: Option<NodeId>,
    /// Replicas that a reassignment adds (KIP-455): they are among `replicas`, and not yet of what was asked for.
    pub adding: Vec<NodeId>,
    /// Replicas that go once all those are in sync; they are the last of `replicas`.
    pub removing: Vec<NodeId>,
    /// The last leader epoch that began with an unclean election. A replica whose last records are of an earlier epoch must
    /// expect to be cut below its watermark; any other that is asked to has met a mistake, and goes offline instead.
    pub unclean_epoch: Option<LeaderEpoch>,
    /// Records were acknowledged under `chronik.durability=replicated`, which is not in effect any more, and not all replicas
    /// in sync are known to have synced them. Until the leader reports so, the partition goes on under `replicated`.
    pub unsynced: bool,
}

impl Partition {
    /// How many replicas must be in sync for records to be committed: `min.insync.replicas`, but no more than there are.
    pub fn in_sync_min(&self, config: &TopicConfig) -> usize {
        config.min_insync_replicas.min(self.replicas.len())
    }

    /// Whether replicas are being exchanged (KIP-455).
    pub fn is_reassigning(&self) -> bool {
        !self.adding.is_empty() || !self.removing.is_empty()
    }

    /// The replicas that are to stay, in order of preference.
    pub fn staying(&self) -> impl Iterator<Item = NodeId> {
        self.replicas.iter().copied().filter(|node| !self.removing.contains(node))
    }

    /// Whether a replica that did not stop in order may have lost what was committed: it was not synced everywhere.
    pub fn is_unsynced(&self, config: &TopicConfig) -> bool {
        self.unsynced || config.durability == Durability::Replicated
    }

    /// Whether what a replica holds may be needed: it is in a set from which leaders are elected, or it is one of the last
    /// that were. What is on any other may be fetched anew from the leader.
    pub fn counts_on(&self, node: NodeId) -> bool {
        [&self.isr, &self.elr, &self.last_known_elr].into_iter().any(|set| set.contains(&node))
            || self.last_known_leader == Some(node)
    }

    /// Whether what was committed before `epoch` may be missing since.
    pub fn was_unclean_since(&self, epoch: LeaderEpoch) -> bool {
        self.unclean_epoch.is_some_and(|unclean| unclean > epoch)
    }
}

/// A topic and its partitions, whose numbers are their places.
#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    pub id: TopicId,
    pub name: Arc<str>,
    /// The broker's own, such as `__consumer_offsets`.
    pub internal: bool,
    pub partitions: Vec<Partition>,
    /// What is in effect, overrides and defaults together.
    pub config: Arc<TopicConfig>,
}

impl Topic {
    pub fn partition(&self, number: i32) -> Option<&Partition> {
        self.partitions.get(usize::try_from(number).ok()?)
    }

    /// How many replicas its first partition has: the topic's replication factor towards admin clients.
    pub fn replication_factor(&self) -> usize {
        self.partitions.first().map_or(0, |partition| partition.replicas.len())
    }
}

/// What configurations belong to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigResource {
    Topic(String),
    Broker(NodeId),
    /// Every broker: the cluster-wide defaults.
    AllBrokers,
}

/// What this node's configuration file says about topics.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterDefaults {
    /// Partitions of a topic whose creator leaves it to the broker.
    pub partitions: i32,
    pub replication_factor: i16,
    /// Partitions that all topics together may have.
    pub partitions_max: usize,
    /// Where records may be kept.
    pub storage: StorageEngines,
    /// By topic configuration name.
    topic: BTreeMap<String, String>,
}

impl Default for ClusterDefaults {
    fn default() -> Self {
        Self {
            partitions: 1,
            replication_factor: 1,
            partitions_max: usize::MAX,
            storage: StorageEngines::default(),
            topic: BTreeMap::new(),
        }
    }
}

impl ClusterDefaults {
    /// Sets a default by the topic configuration's name or one of its broker synonyms (`log.retention.hours`).
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), InvalidConfig> {
        let by_synonym = |def: &'static TopicConfigDef| {
            def.synonyms.iter().find(|synonym| synonym.name == name).map(|synonym| (def, synonym.unit))
        };
        let (def, unit) = topic_config::definition(name)
            .map(|def| (def, Unit::Same))
            .or_else(|| TOPIC_CONFIGS.iter().find_map(by_synonym))
            .ok_or_else(|| InvalidConfig::UnknownName(name.to_owned()))?;
        let factor: i64 = match unit {
            Unit::Same => 1,
            Unit::Minutes => 60_000,
            Unit::Hours => 3_600_000,
        };
        let value = def.parse(text)?;
        let text = if factor == 1 { text.to_owned() } else { scaled(value.as_i64(), factor).to_string() };
        def.parse(&text)?;
        self.topic.insert(def.name.to_owned(), text);
        Ok(())
    }

    /// What the file says, if it says anything.
    pub fn topic(&self, name: &str) -> Option<&str> {
        self.topic.get(name).map(String::as_str)
    }
}

/// Negative numbers mean "no limit" in any unit.
fn scaled(value: i64, factor: i64) -> i64 {
    if value < 0 { -1 } else { value.saturating_mul(factor) }
}

/// One configuration resource's values, by name.
type Configs = Arc<BTreeMap<String, String>>;

/// The whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    pub(super) position: Position,
    pub(super) cluster_id: Arc<str>,
    pub(super) features: Arc<BTreeMap<String, i16>>,
    pub(super) features_epoch: i64,
    pub(super) brokers: Arc<BTreeMap<NodeId, Arc<Broker>>>,
    /// The only holder of topics, so that a topic that is being built is changed in place.
    pub(super) topics: Arc<BTreeMap<TopicId, Arc<Topic>>>,
    pub(super) topic_ids: Arc<BTreeMap<Arc<str>, TopicId>>,
    pub(super) configs: Arc<BTreeMap<ConfigResource, Configs>>,
    pub(super) next_producer_id: i64,
    pub(super) defaults: Arc<ClusterDefaults>,
}

impl Image {
    /// Before the first record.
    pub fn empty(defaults: ClusterDefaults) -> Self {
        Image {
            position: Position::default(),
            cluster_id: Arc::from(""),
            features: Arc::default(),
            // Kafka's "unknown": there are no finalized features yet.
            features_epoch: -1,
            brokers: Arc::default(),
            topics: Arc::default(),
            topic_ids: Arc::default(),
            configs: Arc::default(),
            next_producer_id: 0,
            defaults: Arc::new(defaults),
        }
    }

    pub fn position(&self) -> Position {
        self.position
    }

    /// Empty before the cluster's first record.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Finalized features and their levels.
    pub fn features(&self) -> &BTreeMap<String, i16> {
        &self.features
    }

    /// Never falls; −1 before any feature is finalized.
    pub fn features_epoch(&self) -> i64 {
        self.features_epoch
    }

    /// The level that gates record formats; zero before it is finalized.
    pub fn metadata_version(&self) -> i16 {
        self.features.get(super::records::METADATA_VERSION).copied().unwrap_or(0)
    }

    pub fn brokers(&self) -> &BTreeMap<NodeId, Arc<Broker>> {
        &self.brokers
    }

    pub fn broker(&self, id: NodeId) -> Option<&Arc<Broker>> {
        self.brokers.get(&id)
    }

    /// Whether the broker is registered and may be given a lead, or join an in-sync set.
    pub fn is_active(&self, id: NodeId) -> bool {
        self.broker(id).is_some_and(|broker| broker.is_active())
    }

    /// All topics, in the order of their names.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topic_ids.values().filter_map(|id| self.topics.get(id))
    }

    pub fn topics_count(&self) -> usize {
        self.topics.len()
    }

    pub fn partitions_count(&self) -> usize {
        self.topics.values().map(|topic| topic.partitions.len()).sum()
    }

    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(self.topic_ids.get(name)?)
    }

    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(&id)
    }

    pub fn partition(&self, topic: TopicId, partition: i32) -> Option<&Partition> {
        self.topic_by_id(topic)?.partition(partition)
    }

    /// How many partitions one request may still make: what it may make at all, and what the cluster has room for.
    pub(super) fn partitions_left(&self) -> usize {
        let room = self.defaults.partitions_max.saturating_sub(self.partitions_count());
        room.min(super::controller::PARTITIONS_PER_REQUEST_MAX)
    }

    /// What was set for one resource itself.
    pub fn overrides(&self, resource: &ConfigResource) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.configs.get(resource).map_or(&NONE, |configs| configs)
    }

    /// Producer ids below this have been handed out.
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    pub fn defaults(&self) -> &ClusterDefaults {
        &self.defaults
    }

    /// The text of a configuration for topics that say nothing themselves.
    pub fn topic_default(&self, def: &TopicConfigDef) -> String {
        let cluster_wide = def.synonym().and_then(|name| self.overrides(&ConfigResource::AllBrokers).get(name));
        cluster_wide
            .cloned()
            .or_else(|| self.defaults.topic(def.name).map(str::to_owned))
            .unwrap_or_else(|| topic_config::table_default(def))
    }

    /// The text of a configuration that is in effect on one broker.
    pub fn broker_config_text(&self, broker: NodeId, def: &DynamicBrokerConfigDef) -> String {
        let own = self.overrides(&ConfigResource::Broker(broker)).get(def.name);
        let set = own.or_else(|| self.overrides(&ConfigResource::AllBrokers).get(def.name));
        set.map_or_else(|| def.default.to_owned(), String::clone)
    }

    /// One broker's typed configuration.
    pub fn broker_config(&self, broker: NodeId) -> DynamicBrokerConfig {
        DynamicBrokerConfig::resolve(|def| self.broker_config_text(broker, def))
    }

    /// A topic's typed configuration from these overrides.
    pub fn effective_config(&self, overrides: &BTreeMap<String, String>) -> TopicConfig {
        TopicConfig::resolve(|def| overrides.get(def.name).cloned().unwrap_or_else(|| self.topic_default(def)))
    }

    /// A topic without partitions, as its first record makes it.
    pub(super) fn new_topic(&self, id: TopicId, name: &str) -> Topic {
        let config = self.effective_config(self.overrides(&ConfigResource::Topic(name.to_owned())));
        Topic {
            id,
            name: Arc::from(name),
            internal: names::is_internal(name),
            partitions: Vec::new(),
            config: Arc::new(config),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_defaults_may_be_set_by_any_of_kafkas_names() {
        let mut defaults = ClusterDefaults::default();
        defaults.set("log.retention.hours", "2").expect("a synonym of retention.ms");
        defaults.set("min.insync.replicas", "2").expect("a topic configuration");
        defaults.set("log.roll.hours", "1").expect("a synonym of segment.ms");
        assert_eq!(defaults.topic("retention.ms"), Some("7200000"));
        assert_eq!(defaults.topic("segment.ms"), Some("3600000"));
        defaults.set("log.retention.minutes", "-1").expect("no limit");
        assert_eq!(defaults.topic("retention.ms"), Some("-1"));
        assert_eq!(defaults.set("retention.msec", "1"), Err(InvalidConfig::UnknownName("retention.msec".into())));
        let config = Image::empty(defaults).effective_config(&BTreeMap::new());
        assert_eq!((config.retention_ms, config.min_insync_replicas), (None, 2));
    }
}
