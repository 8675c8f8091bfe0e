//! From a topic and a partition as a client names them to a replica on this broker.

use crate::broker::Broker;
use crate::kafka::fetch_sessions::TopicRef;
use crate::partitions::Partition;
use chronik_core::ids::TopicId;
use chronik_core::metadata::{Image, Topic};
use chronik_proto_kafka::{ErrorCode, Uuid};
use std::collections::BTreeSet;
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

/// The partition, if this broker has a replica of it.
pub fn replica(broker: &Broker, topic: &Topic, index: i32) -> Result<Arc<Partition>, ErrorCode> {
    let facts = topic.partition(index).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    match broker.partitions.get(topic.id, index) {
        Some(partition) if !partition.is_closed() => Ok(partition),
        // The metadata has it here, and its log could not be opened (or is being closed): not "unknown", which would make a
        // client give up.
        _ if facts.replicas.contains(&broker.node) => Err(ErrorCode::KAFKA_STORAGE_ERROR),
        _ => Err(ErrorCode::NOT_LEADER_OR_FOLLOWER),
    }
}

/// The partition, if this broker leads it.
pub fn leader(broker: &Broker, topic: &Topic, index: i32) -> Result<Arc<Partition>, ErrorCode> {
    let partition = replica(broker, topic, index)?;
    if partition.standing().leads { Ok(partition) } else { Err(ErrorCode::NOT_LEADER_OR_FOLLOWER) }
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

/// The first of each: whatever is named again is not told again, since a few bytes of request could ask for any amount
/// of answer.
pub fn once<T, K: Ord>(named: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut seen = BTreeSet::new();
    named.into_iter().filter(|one| seen.insert(key(one))).collect()
}
