//! OffsetFetch (9): reads groups' committed offsets. From version 8 several groups at once (KIP-709), from 10 by topic id.
//!
//! What nobody has committed is offset −1 without an error, also in a group that nobody has heard of. Null topics ask for
//! all of a group's offsets.

use crate::kafka::context::{Operation, Resource};
use crate::kafka::coordination::coordinator;
use crate::kafka::fetch_sessions::TopicRef;
use crate::kafka::handler::{Call, Handler, Reply};
use crate::kafka::resolve;
use chronik_core::group::records::CommittedOffset;
use chronik_proto_kafka::api::offset_fetch::*;
use chronik_proto_kafka::{ErrorCode, Str, Uuid};
use std::collections::BTreeMap;

pub use chronik_proto_kafka::api::offset_fetch::OffsetFetchRequest;

const SEVERAL_SINCE: i16 = 8;
const TOPIC_IDS_SINCE: i16 = 10;
/// Before it there is no error of the group as a whole: each partition carries it.
const GROUP_ERROR_SINCE: i16 = 2;

type Offsets = BTreeMap<(String, i32), CommittedOffset>;

impl Handler for OffsetFetchRequest {
    fn handle(self, call: Call) -> Reply<OffsetFetchResponse> {
        if call.version() >= SEVERAL_SINCE {
            let groups = self.groups.into_iter().map(|group| fetch_group(&call, group)).collect();
            return Reply::Now(OffsetFetchResponse { groups, ..Default::default() });
        }
        // The old form is the new one with a single group.
        let topics = self.topics.map(|topics| {
            let topic = |topic: OffsetFetchRequestTopic| OffsetFetchRequestTopics {
                name: topic.name,
                partition_indexes: topic.partition_indexes,
                ..Default::default()
            };
            topics.into_iter().map(topic).collect()
        });
        let group = OffsetFetchRequestGroup { group_id: self.group_id, topics, ..Default::default() };
        let answer = fetch_group(&call, group);
        let in_partitions = if call.version() < GROUP_ERROR_SINCE { answer.error_code } else { 0 };
        let topic = |topic: OffsetFetchResponseTopics| OffsetFetchResponseTopic {
            name: topic.name,
            partitions: topic
                .partitions
                .into_iter()
                .map(|partition| OffsetFetchResponsePartition {
                    partition_index: partition.partition_index,
                    committed_offset: partition.committed_offset,
                    committed_leader_epoch: partition.committed_leader_epoch,
                    metadata: partition.metadata,
                    error_code: if partition.error_code == 0 { in_partitions } else { partition.error_code },
                })
                .collect(),
        };
        Reply::Now(OffsetFetchResponse {
            topics: answer.topics.into_iter().map(topic).collect(),
            error_code: answer.error_code,
            ..Default::default()
        })
    }
}

fn fetch_group(call: &Call, asked: OffsetFetchRequestGroup) -> OffsetFetchResponseGroup {
    let by_id = call.version() >= TOPIC_IDS_SINCE;
    let offsets = coordinator(call, &asked.group_id, Operation::Describe).map(|shard| {
        shard.look(|groups| groups.group(&asked.group_id).map(|group| group.offsets.clone()).unwrap_or_default())
    });
    let (offsets, code) = match offsets {
        Ok(offsets) => (offsets, ErrorCode::NONE),
        // Without the topic of offsets nobody can have committed any.
        Err(ErrorCode::COORDINATOR_NOT_AVAILABLE) if !call.broker.groups.exist() => (Offsets::new(), ErrorCode::NONE),
        Err(code) => (Offsets::new(), code),
    };
    let topics = match asked.topics {
        Some(topics) => topics.into_iter().map(|topic| asked_topic(call, topic, &offsets, by_id)).collect(),
        None => all_topics(call, &offsets, by_id),
    };
    OffsetFetchResponseGroup { group_id: asked.group_id, topics, error_code: code.0 }
}

fn may_describe(call: &Call, topic: &str) -> bool {
    call.broker.authorizer.allows(&call.context, Operation::Describe, Resource::Topic(topic))
}

fn asked_topic(
    call: &Call,
    asked: OffsetFetchRequestTopics,
    offsets: &Offsets,
    by_id: bool,
) -> OffsetFetchResponseTopics {
    let name = if by_id {
        let image = call.broker.metadata.image();
        resolve::topic(&image, &TopicRef::Id(resolve::topic_id(asked.topic_id))).map(|topic| topic.name.to_string())
    } else {
        Ok(asked.name.to_string())
    };
    let name = name
        .and_then(|name| if may_describe(call, &name) { Ok(name) } else { Err(ErrorCode::TOPIC_AUTHORIZATION_FAILED) });
    let partition = |index: &i32| match &name {
        Ok(name) => partition(*index, offsets.get(&(name.clone(), *index))),
        Err(code) => OffsetFetchResponsePartitions { error_code: code.0, ..partition(*index, None) },
    };
    OffsetFetchResponseTopics {
        partitions: asked.partition_indexes.iter().map(partition).collect(),
        name: asked.name,
        topic_id: asked.topic_id,
    }
}

fn all_topics(call: &Call, offsets: &Offsets, by_id: bool) -> Vec<OffsetFetchResponseTopics> {
    let image = call.broker.metadata.image();
    let mut topics: Vec<OffsetFetchResponseTopics> = Vec::new();
    let mut last = None;
    for ((name, index), offset) in offsets.iter().filter(|((name, _), _)| may_describe(call, name)) {
        let topic_id = image.topic(name).map_or(Uuid::ZERO, |topic| resolve::uuid(topic.id));
        if by_id && topic_id == Uuid::ZERO {
            // A topic that is gone has no id to be named by.
            continue;
        }
        if last != Some(name) {
            last = Some(name);
            let name = if by_id { Str::default() } else { name.as_str().into() };
            topics.push(OffsetFetchResponseTopics { name, topic_id, partitions: Vec::new() });
        }
        if let Some(topic) = topics.last_mut() {
            topic.partitions.push(partition(*index, Some(offset)));
        }
    }
    topics
}

fn partition(partition_index: i32, offset: Option<&CommittedOffset>) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: offset.map_or(-1, |offset| offset.offset),
        committed_leader_epoch: offset.map_or(-1, |offset| offset.leader_epoch),
        metadata: Some(offset.map(|offset| offset.metadata.as_str().into()).unwrap_or_default()),
        error_code: 0,
    }
}
