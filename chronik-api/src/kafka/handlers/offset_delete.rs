//! OffsetDelete (47): forgets a group's offsets of partitions, except of topics that it consumes (KIP-496).

use crate::kafka::context::{Operation, Resource};
use crate::kafka::coordination::{code, coordinator_of_members, stored};
use crate::kafka::handler::{Call, Handler, Reply};
use chronik_core::metadata::Image;
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::offset_delete::*;
use std::collections::BTreeMap;

pub use chronik_proto_kafka::api::offset_delete::OffsetDeleteRequest;

impl Handler for OffsetDeleteRequest {
    fn handle(self, call: Call) -> Reply<OffsetDeleteResponse> {
        let refused = |code: ErrorCode| OffsetDeleteResponse { error_code: code.0, ..Default::default() };
        let shard = match coordinator_of_members(&call, &self.group_id, Operation::Delete) {
            Ok(shard) => shard,
            Err(ErrorCode::COORDINATOR_NOT_AVAILABLE) if !call.broker.groups.exist() => {
                return Reply::Now(refused(ErrorCode::GROUP_ID_NOT_FOUND));
            }
            Err(code) => return Reply::Now(refused(code)),
        };
        // Each partition's own refusal, in the order of the request, `NONE` for those that are handed on.
        let image = call.broker.metadata.image();
        let mut codes = Vec::new();
        let mut partitions = Vec::new();
        // Which of the partitions that are handed on each one is; one that is named again is handed on once.
        let mut places = Vec::new();
        let mut named = BTreeMap::new();
        for topic in &self.topics {
            for at in &topic.partitions {
                let own = check(&call, &image, &topic.name, at.partition_index);
                if !own.is_error() {
                    let which = *named.entry((&topic.name, at.partition_index)).or_insert(partitions.len());
                    if which == partitions.len() {
                        partitions.push((topic.name.to_string(), at.partition_index));
                    }
                    places.push(which);
                }
                codes.push(own);
            }
        }
        let mut outcome = Ok(Vec::new());
        let answer = shard.ask(|coordinator, _, key| {
            outcome = coordinator.delete_offsets(&self.group_id, &partitions, key).map_err(|(error, _)| code(error));
        });
        let each = match outcome {
            Ok(each) => each,
            Err(code) => return Reply::Now(refused(code)),
        };
        Reply::later(async move {
            let whole = stored(answer).await;
            if whole.is_error() {
                return refused(whole);
            }
            let handed_on = codes.iter_mut().filter(|own| !own.is_error());
            for (own, which) in handed_on.zip(places) {
                *own = each.get(which).copied().flatten().map_or(ErrorCode::NONE, code);
            }
            let mut codes = codes.into_iter();
            let topics = self.topics.into_iter().map(|topic| {
                let partitions = topic.partitions.iter().zip(&mut codes);
                let partitions = partitions.map(|(at, own)| OffsetDeleteResponsePartition {
                    partition_index: at.partition_index,
                    error_code: own.0,
                });
                OffsetDeleteResponseTopic { partitions: partitions.collect(), name: topic.name }
            });
            OffsetDeleteResponse { topics: topics.collect(), ..Default::default() }
        })
    }
}

fn check(call: &Call, image: &Image, topic: &str, partition: i32) -> ErrorCode {
    if !call.broker.authorizer.allows(&call.context, Operation::Read, Resource::Topic(topic)) {
        return ErrorCode::TOPIC_AUTHORIZATION_FAILED;
    }
    match image.topic(topic).and_then(|topic| topic.partition(partition)) {
        Some(_) => ErrorCode::NONE,
        // Offsets of a topic that is gone go with it, without being asked to.
        None => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
    }
}
