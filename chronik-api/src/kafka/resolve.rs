//! From a topic and a partition as a client names them to what this broker leads.

use crate::broker::Broker;
use crate::kafka::fetch_sessions::TopicRef;
use crate::partitions::Partition;
use chronik_core::ids::TopicId;
use chronik_core::metadata::{Image, Topic};
use chronik_proto_kafka::{ErrorCode, Uuid};
use std::sync::Arc;

/// The codec's and the core's ids are the same sixteen bytes.
pub fn topic_id(id: Uuid) -> TopicId {
    TopicId(id.0)
}

pub fn uuid(id: TopicId) -> Uuid {
    Uuid(id.0)
}

/// The topic, by name or by id; the error tells which of the two was not known.
pub fn topic<'a>(image: &'a Image, wanted: &TopicRef) -> Result<&'a Arc<Topic>, ErrorCode> {
    match wanted {
        TopicRef::Name(name) => image.topic(name).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        TopicRef::Id(id) => image.topic_by_id(*id).ok_or(ErrorCode::UNKNOWN_TOPIC_ID),
    }
}

/// The partition, if this broker leads it.
pub fn partition(broker: &Broker, topic: &Topic, index: i32) -> Result<Arc<Partition>, ErrorCode> {
    match broker.partitions.get(topic.id, index) {
        Some(partition) if !partition.is_closed() => Ok(partition),
        // The metadata has it, and its log could not be opened (or is being closed): not "unknown", which would make a
        // client give up.
        _ if topic.partition(index).is_some() => Err(ErrorCode::KAFKA_STORAGE_ERROR),
        _ => Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
    }
}

/// Compares the leader epoch that a client knows (−1: none) with the partition's (KIP-320).
pub fn check_leader_epoch(known: i32, current: i32) -> Result<(), ErrorCode> {
    match known {
        ..0 => Ok(()),
        known if known < current => Err(ErrorCode::FENCED_LEADER_EPOCH),
        known if known > current => Err(ErrorCode::UNKNOWN_LEADER_EPOCH),
        _ => Ok(()),
    }
}
