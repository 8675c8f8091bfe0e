//! The only place where an image changes: one record after another.
//!
//! Applying checks what every record relies on, so that a log that does not make sense stops the broker instead of being
//! half believed, and so that a decision with a flaw is found before it is written: deciders apply to a clone first.

use super::image::{Broker, ConfigResource, Image, Listener, Partition, Topic};
use super::records::{
    BrokerStateRecord, BrokerUnregisteredRecord, ConfigRecord, Facts, FeatureLevelRecord, FeatureRangeRecord,
    ListenerRecord, LogRecord, METADATA_VERSION, METADATA_VERSION_LATEST, METADATA_VERSION_MIN, PartitionRecord,
    Record, RegisterBrokerRecord, RequestRecord, TopicRecord,
};
use crate::ids::{LeaderEpoch, LogId, NodeId, Offset, TopicId};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Kafka's numbers for kinds of resources.
pub const RESOURCE_TOPIC: i32 = 2;
pub const RESOURCE_BROKER: i32 = 4;

/// Why a record cannot follow what came before it. The image is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("a record at offset {offset} cannot follow one that ends at {next}")]
    OutOfOrder { offset: Offset, next: Offset },
    #[error("a record of metadata.version {needs} is in the log, whose level is {level}")]
    Gated { needs: i16, level: i16 },
    #[error(
        "metadata.version {level} is not among the levels {METADATA_VERSION_MIN} to {METADATA_VERSION_LATEST} that this release knows"
    )]
    UnknownLevel { level: i32 },
    #[error("the log names two clusters, {had} and {has}")]
    OtherCluster { had: String, has: String },
    #[error("a topic or partition is named that does not exist: {0}")]
    NoSuchTopic(String),
    #[error("topic {0} exists already")]
    TopicExists(String),
    #[error("partition {partition} of topic {topic} has epoch {was} and cannot get {is}")]
    EpochFell { topic: String, partition: i32, was: i32, is: i32 },
    #[error("broker {node} is registered in epoch {was} and cannot be again in {is}")]
    BrokerEpochFell { node: NodeId, was: Offset, is: Offset },
    /// The entry is not carried out, and nothing is wrong with the log.
    #[error("{0}")]
    Stale(#[from] Stale),
    #[error("producer ids were given out up to {was}, and cannot be again from {is}")]
    ProducerIdsFell { was: i64, is: i64 },
    #[error("a field makes no sense: {0}")]
    Malformed(&'static str),
}

/// Why an entry that was written is not carried out: what it was decided for is over. Every node finds the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    #[error("request {seq} of broker {node} came after its request {last} was decided")]
    Decided { node: NodeId, seq: i64, last: i64 },
    #[error("broker {node} has no registration in epoch {asked}")]
    OtherEpoch { node: NodeId, asked: Offset },
    #[error("it was decided in term {decided} and written in term {written}")]
    OtherTerm { decided: u64, written: u64 },
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    Applied,
    /// Only the position has moved.
    Discarded(Stale),
}

/// What a record changed, for those who must act on it.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Cluster,
    Features,
    BrokerRegistered(NodeId),
    /// It is fenced or not, about to stop, or other logs of it have failed.
    BrokerState(NodeId),
    /// With what it was.
    BrokerUnregistered(Arc<Broker>),
    TopicCreated(TopicId),
    PartitionAdded {
        topic: TopicId,
        partition: i32,
    },
    /// Leader, epochs or replica sets.
    PartitionChanged {
        topic: TopicId,
        partition: i32,
    },
    /// With what it was.
    TopicDeleted(Arc<Topic>),
    /// What is in effect for a topic is new.
    TopicConfig(TopicId),
    BrokerConfig,
    ProducerIds,
}

/// What a run of records changed, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    pub changes: Vec<Change>,
}

impl Image {
    /// Applies the record at `offset`, written in `epoch`.
    pub fn apply(
        &mut self,
        offset: Offset,
        epoch: LeaderEpoch,
        record: &Record,
        delta: &mut Delta,
    ) -> Result<(), ApplyError> {
        self.check_order(offset)?;
        self.apply_at(offset, record, delta)?;
        self.move_past(offset, epoch);
        Ok(())
    }

    /// Applies all records of the entry at `index`, written in `epoch`, or none of them. They share the index: it is the
    /// broker epoch of whoever they register. An entry without records only moves on.
    pub fn apply_entry(
        &mut self,
        index: Offset,
        epoch: LeaderEpoch,
        records: &[Record],
        delta: &mut Delta,
    ) -> Result<Entry, ApplyError> {
        self.check_order(index)?;
        let mut next = self.clone();
        let mut changed = Delta::default();
        let outcome = match records.iter().try_for_each(|record| next.apply_at(index, record, &mut changed)) {
            Ok(()) => {
                *self = next;
                delta.changes.append(&mut changed.changes);
                Entry::Applied
            }
            Err(ApplyError::Stale(why)) => Entry::Discarded(why),
            Err(why) => return Err(why),
        };
        self.move_past(index, epoch);
        Ok(outcome)
    }

    /// Applies what the Raft log's entry at `index`, written in `term`, says; see [`Image::apply_entry`].
    pub fn apply_facts(
        &mut self,
        index: Offset,
        term: u64,
        facts: &Facts,
        delta: &mut Delta,
    ) -> Result<Entry, ApplyError> {
        let epoch = LeaderEpoch(i32::try_from(term).unwrap_or(i32::MAX));
        if facts.term == term {
            return self.apply_entry(index, epoch, &facts.records, delta);
        }
        self.apply_entry(index, epoch, &[], delta)?;
        Ok(Entry::Discarded(Stale::OtherTerm { decided: facts.term, written: term }))
    }

    fn check_order(&self, offset: Offset) -> Result<(), ApplyError> {
        if offset < self.position.next {
            return Err(ApplyError::OutOfOrder { offset, next: self.position.next });
        }
        Ok(())
    }

    fn move_past(&mut self, offset: Offset, epoch: LeaderEpoch) {
        self.position.next = offset + 1;
        self.position.epoch = epoch;
    }

    /// One of perhaps several records at `offset`; the position is left to the caller.
    pub(super) fn apply_at(&mut self, offset: Offset, record: &Record, delta: &mut Delta) -> Result<(), ApplyError> {
        self.check_gate(record)?;
        match record {
            Record::Cluster(cluster) => {
                if !self.cluster_id.is_empty() && *self.cluster_id != cluster.cluster_id {
                    return Err(ApplyError::OtherCluster {
                        had: self.cluster_id.to_string(),
                        has: cluster.cluster_id.clone(),
                    });
                }
                self.cluster_id = Arc::from(cluster.cluster_id.as_str());
                delta.changes.push(Change::Cluster);
            }
            Record::FeatureLevel(feature) => self.apply_feature(offset, feature, delta)?,
            Record::RegisterBroker(broker) => self.apply_registration(offset, broker, delta)?,
            Record::BrokerState(state) => self.apply_broker_state(state, delta)?,
            Record::BrokerUnregistered(gone) => self.apply_unregistration(gone, delta)?,
            Record::Request(request) => self.apply_request(request)?,
            Record::Topic(topic) => self.apply_topic(topic, delta)?,
            Record::Partition(partition) => self.apply_partition(partition, delta)?,
            Record::TopicDeleted(deleted) => {
                let id = topic_id(&deleted.topic_id)?;
                let topic = Arc::make_mut(&mut self.topics).remove(&id).ok_or_else(|| no_such(id))?;
                Arc::make_mut(&mut self.topic_ids).remove(&topic.name);
                let resource = ConfigResource::Topic(topic.name.to_string());
                if self.configs.contains_key(&resource) {
                    Arc::make_mut(&mut self.configs).remove(&resource);
                }
                delta.changes.push(Change::TopicDeleted(topic));
            }
            Record::Config(config) => self.apply_config(config, delta)?,
            Record::ProducerIds(ids) => {
                if ids.next < self.next_producer_id {
                    return Err(ApplyError::ProducerIdsFell { was: self.next_producer_id, is: ids.next });
                }
                self.next_producer_id = ids.next;
                delta.changes.push(Change::ProducerIds);
            }
        }
        Ok(())
    }

    /// Nothing of a level above the finalized one, except what comes before any level is finalized.
    fn check_gate(&self, record: &Record) -> Result<(), ApplyError> {
        let level = self.metadata_version();
        match record {
            Record::Cluster(_) => Ok(()),
            Record::FeatureLevel(feature) if feature.name == METADATA_VERSION => Ok(()),
            _ if record.since() > level => Err(ApplyError::Gated { needs: record.since(), level }),
            _ => Ok(()),
        }
    }

    fn apply_feature(
        &mut self,
        offset: Offset,
        feature: &FeatureLevelRecord,
        delta: &mut Delta,
    ) -> Result<(), ApplyError> {
        let unknown = ApplyError::UnknownLevel { level: feature.level };
        let level = i16::try_from(feature.level).map_err(|_| ApplyError::Malformed("a feature's level"))?;
        if feature.name == METADATA_VERSION && !(METADATA_VERSION_MIN..=METADATA_VERSION_LATEST).contains(&level) {
            return Err(unknown);
        }
        let features = Arc::make_mut(&mut self.features);
        if level == 0 {
            features.remove(&feature.name);
        } else {
            features.insert(feature.name.clone(), level);
        }
        self.features_epoch = self.features_epoch.max(feature.features_epoch.unwrap_or(offset.0));
        delta.changes.push(Change::Features);
        Ok(())
    }

    fn apply_registration(
        &mut self,
        offset: Offset,
        record: &RegisterBrokerRecord,
        delta: &mut Delta,
    ) -> Result<(), ApplyError> {
        let broker = broker(offset, record)?;
        let id = broker.id;
        if let Some(was) = self.brokers.get(&id).filter(|was| broker.epoch <= was.epoch) {
            return Err(ApplyError::BrokerEpochFell { node: id, was: was.epoch, is: broker.epoch });
        }
        Arc::make_mut(&mut self.brokers).insert(id, Arc::new(broker));
        delta.changes.push(Change::BrokerRegistered(id));
        // The process is new: what the old one had in memory is gone, so whatever it led begins a new epoch.
        let leads = |topic: &Topic| topic.partitions.iter().any(|partition| partition.leader == Some(id));
        if !self.topics.values().any(|topic| leads(topic)) {
            return Ok(());
        }
        for topic in Arc::make_mut(&mut self.topics).values_mut().filter(|topic| leads(topic)) {
            let topic = Arc::make_mut(topic);
            for (partition, number) in topic.partitions.iter_mut().zip(0..) {
                if partition.leader == Some(id) {
                    partition.leader_epoch.0 = partition.leader_epoch.0.saturating_add(1);
                    partition.partition_epoch = partition.partition_epoch.saturating_add(1);
                    delta.changes.push(Change::PartitionChanged { topic: topic.id, partition: number });
                }
            }
        }
        Ok(())
    }

    fn apply_broker_state(&mut self, record: &BrokerStateRecord, delta: &mut Delta) -> Result<(), ApplyError> {
        let mut offline = record.offline.iter().map(log_id).collect::<Result<Vec<_>, _>>()?;
        offline.sort_unstable();
        offline.dedup();
        let broker = self.registered(record.node_id, record.broker_epoch)?;
        broker.fenced = record.fenced;
        broker.in_controlled_shutdown = record.in_controlled_shutdown;
        broker.offline = offline;
        delta.changes.push(Change::BrokerState(NodeId(record.node_id)));
        Ok(())
    }

    fn apply_unregistration(&mut self, record: &BrokerUnregisteredRecord, delta: &mut Delta) -> Result<(), ApplyError> {
        self.registered(record.node_id, record.broker_epoch)?;
        let gone = Arc::make_mut(&mut self.brokers).remove(&NodeId(record.node_id));
        delta.changes.extend(gone.map(Change::BrokerUnregistered));
        Ok(())
    }

    fn apply_request(&mut self, record: &RequestRecord) -> Result<(), ApplyError> {
        let &RequestRecord { node_id, seq, broker_epoch } = record;
        let broker = self.registered(node_id, broker_epoch)?;
        if seq <= broker.last_seq {
            return Err(Stale::Decided { node: NodeId(node_id), seq, last: broker.last_seq }.into());
        }
        broker.last_seq = seq;
        Ok(())
    }

    /// The broker, to be changed, if it is still in that epoch.
    fn registered(&mut self, node: i32, epoch: i64) -> Result<&mut Broker, Stale> {
        let stale = Stale::OtherEpoch { node: NodeId(node), asked: Offset(epoch) };
        // Looked up first, so that nothing is copied for a refusal.
        if self.broker(NodeId(node)).is_none_or(|broker| broker.epoch != Offset(epoch)) {
            return Err(stale);
        }
        Arc::make_mut(&mut self.brokers).get_mut(&NodeId(node)).map(Arc::make_mut).ok_or(stale)
    }

    fn apply_topic(&mut self, record: &TopicRecord, delta: &mut Delta) -> Result<(), ApplyError> {
        let id = topic_id(&record.topic_id)?;
        if self.topic(&record.name).is_some() || self.topic_by_id(id).is_some() {
            return Err(ApplyError::TopicExists(record.name.clone()));
        }
        let topic = self.new_topic(id, &record.name);
        Arc::make_mut(&mut self.topic_ids).insert(topic.name.clone(), id);
        Arc::make_mut(&mut self.topics).insert(id, Arc::new(topic));
        delta.changes.push(Change::TopicCreated(id));
        Ok(())
    }

    fn apply_partition(&mut self, record: &PartitionRecord, delta: &mut Delta) -> Result<(), ApplyError> {
        let id = topic_id(&record.topic_id)?;
        let number = record.partition;
        let place = usize::try_from(number).map_err(|_| ApplyError::Malformed("a partition's number"))?;
        let partition = Partition {
            leader: (record.leader >= 0).then_some(NodeId(record.leader)),
            leader_epoch: LeaderEpoch(record.leader_epoch),
            partition_epoch: record.partition_epoch,
            replicas: node_ids(&record.replicas),
            isr: node_ids(&record.isr),
            elr: node_ids(&record.elr),
            last_known_elr: node_ids(&record.last_known_elr),
            last_known_leader: record.last_known_leader.map(NodeId),
            adding: node_ids(&record.adding_replicas),
            removing: node_ids(&record.removing_replicas),
            unclean_epoch: record.unclean_epoch.map(LeaderEpoch),
            unsynced: record.unsynced,
        };
        check_sets(&partition)?;
        // In place wherever nobody else holds the topic, as while one with many partitions is being made.
        let topic = Arc::make_mut(&mut self.topics).get_mut(&id).ok_or_else(|| no_such(id))?;
        let name = topic.name.clone();
        let fell = |was, is| ApplyError::EpochFell { topic: name.to_string(), partition: number, was, is };
        let added = topic.partitions.len();
        match topic.partitions.get(place) {
            Some(was) if partition.leader_epoch < was.leader_epoch => {
                Err(fell(was.leader_epoch.0, partition.leader_epoch.0))
            }
            Some(was) if partition.partition_epoch <= was.partition_epoch => {
                Err(fell(was.partition_epoch, partition.partition_epoch))
            }
            Some(was) if partition.leader != was.leader && partition.leader_epoch == was.leader_epoch => {
                Err(fell(was.leader_epoch.0, partition.leader_epoch.0))
            }
            Some(_) => {
                Arc::make_mut(topic).partitions[place] = partition;
                delta.changes.push(Change::PartitionChanged { topic: id, partition: number });
                Ok(())
            }
            None if place == added => {
                Arc::make_mut(topic).partitions.push(partition);
                delta.changes.push(Change::PartitionAdded { topic: id, partition: number });
                Ok(())
            }
            None => Err(ApplyError::NoSuchTopic(format!("{name}-{number}"))),
        }
    }

    fn apply_config(&mut self, record: &ConfigRecord, delta: &mut Delta) -> Result<(), ApplyError> {
        let resource = match (record.resource_type, record.resource_name.as_str()) {
            (RESOURCE_TOPIC, name) if self.topic(name).is_none() => {
                return Err(ApplyError::NoSuchTopic(name.to_owned()));
            }
            (RESOURCE_TOPIC, name) => ConfigResource::Topic(name.to_owned()),
            (RESOURCE_BROKER, "") => ConfigResource::AllBrokers,
            (RESOURCE_BROKER, id) => {
                ConfigResource::Broker(NodeId(id.parse().map_err(|_| ApplyError::Malformed("a broker's id"))?))
            }
            _ => return Err(ApplyError::Malformed("a kind of resource")),
        };
        let configs = Arc::make_mut(&mut self.configs);
        let values = Arc::make_mut(configs.entry(resource.clone()).or_default());
        match &record.value {
            Some(value) => drop(values.insert(record.name.clone(), value.clone())),
            None => drop(values.remove(&record.name)),
        }
        if values.is_empty() {
            configs.remove(&resource);
        }
        match &resource {
            ConfigResource::Topic(name) => {
                let topic = self.topic(name).cloned();
                self.refresh_configs(topic.into_iter().collect(), delta);
            }
            ConfigResource::Broker(_) => delta.changes.push(Change::BrokerConfig),
            ConfigResource::AllBrokers => {
                delta.changes.push(Change::BrokerConfig);
                self.refresh_configs(self.topics().cloned().collect(), delta);
            }
        }
        Ok(())
    }

    /// Resolves these topics' configurations again, and touches only those for which something is different.
    fn refresh_configs(&mut self, topics: Vec<Arc<Topic>>, delta: &mut Delta) {
        for topic in topics {
            let config = self.effective_config(self.overrides(&ConfigResource::Topic(topic.name.to_string())));
            if config != *topic.config {
                delta.changes.push(Change::TopicConfig(topic.id));
                let fresh = Topic { config: Arc::new(config), ..Topic::clone(&topic) };
                Arc::make_mut(&mut self.topics).insert(topic.id, Arc::new(fresh));
            }
        }
    }
}

fn no_such(topic: TopicId) -> ApplyError {
    ApplyError::NoSuchTopic(topic.to_string())
}

fn sixteen(bytes: &[u8], what: &'static str) -> Result<[u8; 16], ApplyError> {
    bytes.try_into().map_err(|_| ApplyError::Malformed(what))
}

fn topic_id(bytes: &[u8]) -> Result<TopicId, ApplyError> {
    sixteen(bytes, "a topic's id").map(TopicId)
}

fn node_ids(ids: &[i32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn log_id(log: &LogRecord) -> Result<LogId, ApplyError> {
    Ok(LogId { topic: topic_id(&log.topic_id)?, partition: log.partition })
}

/// What every partition keeps to, whoever decided it.
fn check_sets(partition: &Partition) -> Result<(), ApplyError> {
    let all_in = |some: &[NodeId], whole: &[NodeId]| some.iter().all(|node| whole.contains(node));
    let Partition { replicas, isr, elr, .. } = partition;
    if !all_in(isr, replicas) || !all_in(elr, replicas) || isr.iter().any(|node| elr.contains(node)) {
        return Err(ApplyError::Malformed("a partition's in-sync and eligible replicas"));
    }
    if !all_in(&partition.adding, replicas) || !all_in(&partition.removing, replicas) {
        return Err(ApplyError::Malformed("a partition's replicas that come and go"));
    }
    if partition.leader.is_some_and(|leader| !isr.contains(&leader)) {
        return Err(ApplyError::Malformed("a partition's leader, who is not in sync"));
    }
    Ok(())
}

fn broker(offset: Offset, record: &RegisterBrokerRecord) -> Result<Broker, ApplyError> {
    let listener = |listener: &ListenerRecord| -> Result<Listener, ApplyError> {
        Ok(Listener {
            name: listener.name.clone(),
            host: listener.host.clone(),
            port: u16::try_from(listener.port).map_err(|_| ApplyError::Malformed("a listener's port"))?,
        })
    };
    Ok(Broker {
        id: NodeId(record.node_id),
        epoch: record.broker_epoch.map_or(offset, Offset),
        incarnation: sixteen(&record.incarnation, "an incarnation")?,
        directory_id: sixteen(&record.directory_id, "a directory's id")?,
        rack: record.rack.clone(),
        listeners: record.listeners.iter().map(listener).collect::<Result<_, _>>()?,
        clean: record.clean,
        damaged: record.damaged.iter().map(log_id).collect::<Result<_, _>>()?,
        fenced: record.fenced,
        in_controlled_shutdown: false,
        offline: Vec::new(),
        replication_address: record.replication_address.clone(),
        features: record.features.iter().map(feature_range).collect::<Result<_, _>>()?,
        last_seq: record.last_seq.unwrap_or(0),
    })
}

fn feature_range(range: &FeatureRangeRecord) -> Result<(String, RangeInclusive<i16>), ApplyError> {
    let level = |level: i32| i16::try_from(level).map_err(|_| ApplyError::Malformed("a feature's level"));
    Ok((range.name.clone(), level(range.min)?..=level(range.max)?))
}
