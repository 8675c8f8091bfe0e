//! OffsetFetch (9): reads groups' committed offsets. From version 8 several groups at once (KIP-709), from 10 by topic id.
//!
//! What nobody has committed is offset −1 without an error, also in a group that nobody has heard of. Null topics ask for
//! all of a group's offsets.

use crate::kafka::context::{Operation, Resource};
use crate::kafka::coordination::coordinator;
use crate::kafka::fetch_sessions::TopicRef;
use crate::kafka::handler::{Call, Handler, Reply};
use crate::kafka::resolve;
use chronik_core::group::Reply as GroupReply;
use chronik_core::group::committed::Offsets;
use chronik_core::group::records::CommittedOffset;
use chronik_core::ids::TopicId;
use chronik_core::metadata::Image;
use chronik_proto_kafka::api::offset_fetch::*;
use chronik_proto_kafka::{ErrorCode, Str, Uuid};
use std::collections::BTreeSet;
use tokio::sync::oneshot;

pub use chronik_proto_kafka::api::offset_fetch::OffsetFetchRequest;

const SEVERAL_SINCE: i16 = 8;
const TOPIC_IDS_SINCE: i16 = 10;
/// Before it there is no error of the group as a whole: each partition carries it.
const GROUP_ERROR_SINCE: i16 = 2;

impl Handler for OffsetFetchRequest {
    fn handle(mut self, call: Call) -> Reply<OffsetFetchResponse> {
        self.groups = resolve::once(self.groups, |group| group.group_id.clone());
        let unsettled = unsettled(&call, &self);
        if unsettled.is_empty() {
            return Reply::Now(fetch(&call, self));
        }
        Reply::later(async move {
            for settled in unsettled {
                let _ = settled.await;
            }
            fetch(&call, self)
        })
    }
}

/// The commits on their way that must be read here: a client that has sent one, and without waiting asks for it, finds it.
fn unsettled(call: &Call, request: &OffsetFetchRequest) -> Vec<oneshot::Receiver<GroupReply>> {
    let groups = request.groups.iter().map(|group| &group.group_id);
    let groups = groups.chain((call.version() < SEVERAL_SINCE).then_some(&request.group_id));
    let wait = |group: &Str| {
        let shard = coordinator(call, group, Operation::Describe).ok()?;
        let mut settled = false;
        let answer = shard.ask(|coordinator, _, key| settled = coordinator.when_settled(group, key).is_some());
        (!settled).then_some(answer)
    };
    groups.filter_map(wait).collect()
}

fn fetch(call: &Call, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if call.version() >= SEVERAL_SINCE {
        let groups = request.groups.into_iter().map(|group| fetch_group(call, group)).collect();
        return OffsetFetchResponse { groups, ..Default::default() };
    }
    // The old form is the new one with a single group.
    let topics = request.topics.map(|topics| {
        let topic = |topic: OffsetFetchRequestTopic| OffsetFetchRequestTopics {
            name: topic.name,
            partition_indexes: topic.partition_indexes,
            ..Default::default()
        };
        topics.into_iter().map(topic).collect()
    });
    let group = OffsetFetchRequestGroup { group_id: request.group_id, topics, ..Default::default() };
    let answer = fetch_group(call, group);
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
    OffsetFetchResponse {
        topics: answer.topics.into_iter().map(topic).collect(),
        error_code: answer.error_code,
        ..Default::default()
    }
}

fn fetch_group(call: &Call, asked: OffsetFetchRequestGroup) -> OffsetFetchResponseGroup {
    let by_id = call.version() >= TOPIC_IDS_SINCE;
    let image = call.broker.metadata.image();
    let shard = match coordinator(call, &asked.group_id, Operation::Describe) {
        Ok(shard) => Ok(Some(shard)),
        // Without the topic of offsets nobody can have committed any.
        Err(ErrorCode::COORDINATOR_NOT_AVAILABLE) if !call.broker.groups.exist() => Ok(None),
        Err(code) => Err(code),
    };
    let (shard, code) = match shard {
        Ok(shard) => (shard, ErrorCode::NONE),
        Err(code) => (None, code),
    };
    let answer = |offsets: &Offsets| match asked.topics {
        Some(topics) => {
            each_once(topics).into_iter().map(|topic| asked_topic(call, &image, topic, offsets, by_id)).collect()
        }
        None => all_topics(call, &image, offsets, by_id),
    };
    let none = Offsets::default();
    let topics = match shard {
        Some(shard) => shard.look(|groups| answer(groups.group(&asked.group_id).map_or(&none, |group| &group.offsets))),
        None => answer(&none),
    };
    OffsetFetchResponseGroup { group_id: asked.group_id, topics, error_code: code.0 }
}

/// Each partition once: with a few bytes each of them asks for as much as a commit's metadata may be long.
fn each_once(mut topics: Vec<OffsetFetchRequestTopics>) -> Vec<OffsetFetchRequestTopics> {
    let mut seen = BTreeSet::new();
    for topic in &mut topics {
        let OffsetFetchRequestTopics { name, topic_id, partition_indexes } = topic;
        partition_indexes.retain(|index| seen.insert((name.clone(), *topic_id, *index)));
    }
    topics
}

fn may_describe(call: &Call, topic: &str) -> bool {
    call.broker.authorizer.allows(&call.context, Operation::Describe, Resource::Topic(topic))
}

fn asked_topic(
    call: &Call,
    image: &Image,
    asked: OffsetFetchRequestTopics,
    offsets: &Offsets,
    by_id: bool,
) -> OffsetFetchResponseTopics {
    let topic: Result<(&str, TopicId), ErrorCode> = if by_id {
        resolve::topic(image, &TopicRef::Id(resolve::topic_id(asked.topic_id))).map(|topic| (&*topic.name, topic.id))
    } else {
        Ok((&asked.name, image.topic(&asked.name).map_or(TopicId::NONE, |topic| topic.id)))
    };
    let topic = topic.and_then(|(name, id)| {
        may_describe(call, name).then_some((name, id)).ok_or(ErrorCode::TOPIC_AUTHORIZATION_FAILED)
    });
    let partition = |index: &i32| match topic {
        Ok((name, id)) => partition(*index, offsets.get_of(name, id, *index)),
        Err(code) => OffsetFetchResponsePartitions { error_code: code.0, ..partition(*index, None) },
    };
    OffsetFetchResponseTopics {
        partitions: asked.partition_indexes.iter().map(partition).collect(),
        topic_id: asked.topic_id,
        name: asked.name,
    }
}

fn all_topics(call: &Call, image: &Image, offsets: &Offsets, by_id: bool) -> Vec<OffsetFetchResponseTopics> {
    let mut topics = Vec::new();
    for (name, partitions) in offsets.topics().filter(|(name, _)| may_describe(call, name)) {
        let id = image.topic(name).map_or(TopicId::NONE, |topic| topic.id);
        // A topic that is gone has no id to be named by.
        if by_id && id == TopicId::NONE {
            continue;
        }
        let of_topic = partitions.keys().filter_map(|index| Some((*index, offsets.get_of(name, id, *index)?)));
        let partitions: Vec<_> = of_topic.map(|(index, committed)| partition(index, Some(committed))).collect();
        if !partitions.is_empty() {
            let (name, topic_id) = if by_id { (Str::default(), resolve::uuid(id)) } else { (name.into(), Uuid::ZERO) };
            topics.push(OffsetFetchResponseTopics { name, topic_id, partitions });
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
