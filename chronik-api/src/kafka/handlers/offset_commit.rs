//! OffsetCommit (8): stores a group's offsets. Answered when they are committed. From version 10 topics have ids.

use crate::kafka::context::{Operation, Resource};
use crate::kafka::coordination::{code, coordinator, stored};
use crate::kafka::fetch_sessions::TopicRef;
use crate::kafka::handler::{Call, Handler, Reply};
use crate::kafka::resolve;
use chronik_core::group::GroupError;
use chronik_core::group::offsets::{Commit, OffsetToCommit};
use chronik_core::metadata::{Image, Topic};
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::offset_commit::*;
use std::collections::BTreeMap;

pub use chronik_proto_kafka::api::offset_commit::OffsetCommitRequest;

const TOPIC_IDS_SINCE: i16 = 10;
/// Before it, a member of a group that is not there is told that its generation is wrong.
const NOT_FOUND_SINCE: i16 = 9;

impl Handler for OffsetCommitRequest {
    fn handle(self, call: Call) -> Reply<OffsetCommitResponse> {
        let shard = match coordinator(&call, &self.group_id, Operation::Read) {
            Ok(shard) => shard,
            Err(code) => return Reply::Now(respond(self, |_, _| code)),
        };
        // Each partition's own refusal, in the order of the request, `NONE` for those that are handed on.
        let mut refused: Vec<Vec<ErrorCode>> = Vec::with_capacity(self.topics.len());
        let mut offsets: Vec<OffsetToCommit> = Vec::new();
        // Of a partition that is named again the last offset counts.
        let mut named = BTreeMap::new();
        let mut places = Vec::new();
        let image = call.broker.metadata.image();
        for (at, topic) in self.topics.iter().enumerate() {
            let known = known(&call, &image, topic);
            let mut codes = Vec::with_capacity(topic.partitions.len());
            for (place, partition) in topic.partitions.iter().enumerate() {
                match known.and_then(|known| has(known, partition.partition_index)) {
                    Ok(known) => {
                        let which = *named.entry((known.id, partition.partition_index)).or_insert(offsets.len());
                        places.push((at, place, which));
                        let wanted = OffsetToCommit {
                            topic: known.name.to_string(),
                            topic_id: known.id,
                            partition: partition.partition_index,
                            offset: partition.committed_offset,
                            leader_epoch: partition.committed_leader_epoch,
                            metadata: partition.committed_metadata.as_deref().unwrap_or_default().to_owned(),
                        };
                        match offsets.get_mut(which) {
                            Some(before) => *before = wanted,
                            None => offsets.push(wanted),
                        }
                        codes.push(ErrorCode::NONE);
                    }
                    Err(code) => codes.push(code),
                }
            }
            refused.push(codes);
        }
        let commit = Commit {
            group: self.group_id.to_string(),
            member_id: self.member_id.to_string(),
            instance_id: self.group_instance_id.as_ref().map(|id| id.to_string()),
            generation: self.generation_id_or_member_epoch,
            // −1 in every version that does not have it, and from those who leave it to the broker.
            retention_ms: Some(self.retention_time_ms).filter(|ms| *ms >= 0),
            offsets,
        };
        let version = call.version();
        let code = |error| match error {
            GroupError::NotFound if version < NOT_FOUND_SINCE => ErrorCode::ILLEGAL_GENERATION,
            other => code(other),
        };
        let mut outcome = Ok(Vec::new());
        let answer = shard.ask(|coordinator, now, key| {
            outcome = coordinator.commit(now, commit, key).map_err(|(error, _)| code(error));
        });
        match outcome {
            Err(whole) => Reply::Now(respond(self, |at, place| match refused[at][place] {
                ErrorCode::NONE => whole,
                own => own,
            })),
            Ok(each) => {
                for (at, place, which) in places {
                    if let Some(error) = each.get(which).copied().flatten() {
                        refused[at][place] = code(error);
                    }
                }
                Reply::later(async move {
                    let whole = stored(answer).await;
                    respond(self, |at, place| match refused[at][place] {
                        ErrorCode::NONE => whole,
                        own => own,
                    })
                })
            }
        }
    }
}

/// The topic, if the client may read it.
fn known<'a>(call: &Call, image: &'a Image, topic: &OffsetCommitRequestTopic) -> Result<&'a Topic, ErrorCode> {
    let wanted = if call.version() >= TOPIC_IDS_SINCE {
        TopicRef::Id(resolve::topic_id(topic.topic_id))
    } else {
        TopicRef::Name((&*topic.name).into())
    };
    let topic = resolve::topic(image, &wanted)?;
    if !call.broker.authorizer.allows(&call.context, Operation::Read, Resource::Topic(&topic.name)) {
        return Err(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
    }
    Ok(topic)
}

fn has(topic: &Topic, partition: i32) -> Result<&Topic, ErrorCode> {
    topic.partition(partition).map(|_| topic).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
}

fn respond(request: OffsetCommitRequest, code: impl Fn(usize, usize) -> ErrorCode) -> OffsetCommitResponse {
    let topics = request.topics.into_iter().enumerate().map(|(at, topic)| OffsetCommitResponseTopic {
        name: topic.name,
        topic_id: topic.topic_id,
        partitions: topic
            .partitions
            .iter()
            .enumerate()
            .map(|(place, partition)| OffsetCommitResponsePartition {
                partition_index: partition.partition_index,
                error_code: code(at, place).0,
            })
            .collect(),
    });
    OffsetCommitResponse { topics: topics.collect(), ..Default::default() }
}
