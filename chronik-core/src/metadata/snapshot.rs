//! An image as records: what a log may be cut down to.
//!
//! Applying them to an empty image gives the same image. They stand in the order in which records rely on each other, and
//! carry what elsewhere follows from a record's place in the log: broker epochs and the features' epoch.

use super::apply::{RESOURCE_BROKER, RESOURCE_TOPIC};
use super::image::{Broker, ConfigResource, Image, Listener, Partition, Position};
use super::records::{
    BrokerStateRecord, ClusterRecord, ConfigRecord, FeatureLevelRecord, FeatureRangeRecord, ListenerRecord, LogRecord,
    METADATA_VERSION, PartitionRecord, ProducerIdsRecord, Record, RegisterBrokerRecord, TopicRecord,
};
use crate::ids::{LogId, NodeId, TopicId};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

impl Image {
    /// Everything, as records.
    pub fn to_records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        if !self.cluster_id.is_empty() {
            records.push(Record::Cluster(ClusterRecord { cluster_id: self.cluster_id.to_string() }));
        }
        // The level that gates all others comes first.
        let (gate, others): (Vec<_>, Vec<_>) = self.features.iter().partition(|(name, _)| *name == METADATA_VERSION);
        records.extend(gate.into_iter().chain(others).map(|(name, level)| {
            Record::FeatureLevel(FeatureLevelRecord {
                name: name.clone(),
                level: i32::from(*level),
                features_epoch: Some(self.features_epoch),
            })
        }));
        for broker in self.brokers.values() {
            records.push(Record::RegisterBroker(registration(broker)));
            // What a registration does not say.
            if broker.in_controlled_shutdown || !broker.offline.is_empty() {
                records.push(broker_state_record(broker));
            }
        }
        for topic in self.topics() {
            records.push(topic_record(topic.id, &topic.name));
            records
                .extend((0..).zip(&topic.partitions).map(|(number, state)| partition_record(topic.id, number, state)));
        }
        for (resource, values) in self.configs.iter() {
            records.extend(values.iter().map(|(name, value)| config_record(resource, name, Some(value.clone()))));
        }
        if self.next_producer_id > 0 {
            records.push(Record::ProducerIds(ProducerIdsRecord { next: self.next_producer_id }));
        }
        records
    }

    /// Takes over an image that was read from a snapshot, as being at this place of the log.
    pub fn at(self, position: Position) -> Image {
        Image { position, ..self }
    }

    /// Whether two images say the same of the cluster, wherever they are in their logs.
    pub fn says_the_same_as(&self, other: &Image) -> bool {
        self.clone().at(Position::default()) == other.clone().at(Position::default())
    }
}

fn registration(broker: &Broker) -> RegisterBrokerRecord {
    RegisterBrokerRecord {
        node_id: broker.id.0,
        incarnation: broker.incarnation.to_vec(),
        directory_id: broker.directory_id.to_vec(),
        rack: broker.rack.clone(),
        listeners: listener_records(&broker.listeners),
        clean: broker.clean,
        damaged: broker.damaged.iter().map(log_record).collect(),
        broker_epoch: Some(broker.epoch.0),
        fenced: broker.fenced,
        replication_address: broker.replication_address.clone(),
        features: feature_records(&broker.features),
        last_seq: (broker.last_seq > 0).then_some(broker.last_seq),
    }
}

pub(super) fn listener_records(listeners: &[Listener]) -> Vec<ListenerRecord> {
    let record = |listener: &Listener| ListenerRecord {
        name: listener.name.clone(),
        host: listener.host.clone(),
        port: u32::from(listener.port),
    };
    listeners.iter().map(record).collect()
}

pub(super) fn feature_records(features: &BTreeMap<String, RangeInclusive<i16>>) -> Vec<FeatureRangeRecord> {
    let record = |(name, levels): (&String, &RangeInclusive<i16>)| FeatureRangeRecord {
        name: name.clone(),
        min: i32::from(*levels.start()),
        max: i32::from(*levels.end()),
    };
    features.iter().map(record).collect()
}

pub(super) fn log_record(log: &LogId) -> LogRecord {
    LogRecord { topic_id: log.topic.0.to_vec(), partition: log.partition }
}

/// The record that makes a broker fit for what this one is.
pub(super) fn broker_state_record(broker: &Broker) -> Record {
    Record::BrokerState(BrokerStateRecord {
        node_id: broker.id.0,
        broker_epoch: broker.epoch.0,
        fenced: broker.fenced,
        in_controlled_shutdown: broker.in_controlled_shutdown,
        offline: broker.offline.iter().map(log_record).collect(),
    })
}

/// The record that makes a topic, still without partitions.
pub(super) fn topic_record(id: TopicId, name: &str) -> Record {
    Record::Topic(TopicRecord { topic_id: id.0.to_vec(), name: name.to_owned() })
}

/// The record that gives a partition this state.
pub(super) fn partition_record(topic: TopicId, partition: i32, state: &Partition) -> Record {
    let numbers = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
    Record::Partition(PartitionRecord {
        topic_id: topic.0.to_vec(),
        partition,
        replicas: numbers(&state.replicas),
        isr: numbers(&state.isr),
        leader: state.leader.map_or(-1, |leader| leader.0),
        leader_epoch: state.leader_epoch.0,
        partition_epoch: state.partition_epoch,
        elr: numbers(&state.elr),
        last_known_elr: numbers(&state.last_known_elr),
        last_known_leader: state.last_known_leader.map(|node| node.0),
        adding_replicas: numbers(&state.adding),
        removing_replicas: numbers(&state.removing),
        unclean_epoch: state.unclean_epoch.map(|epoch| epoch.0),
        unsynced: state.unsynced,
    })
}

/// The record that sets a configuration, or with `None` removes it.
pub(super) fn config_record(resource: &ConfigResource, name: &str, value: Option<String>) -> Record {
    let (resource_type, resource_name) = match resource {
        ConfigResource::Topic(topic) => (RESOURCE_TOPIC, topic.clone()),
        ConfigResource::Broker(id) => (RESOURCE_BROKER, id.to_string()),
        ConfigResource::AllBrokers => (RESOURCE_BROKER, String::new()),
    };
    Record::Config(ConfigRecord { resource_type, resource_name, name: name.to_owned(), value })
}
