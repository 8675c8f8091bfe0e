//! OffsetDelete (47): forgets a group's offsets of partitions, except of topics that it consumes (KIP-496).

use crate::kafka::context::{Operation, Resource};
use crate::kafka::coordination::{code, coordinator, stored};
use crate::kafka::handler::{Call, Handler, Reply};
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::offset_delete::*;

pub use chronik_proto_kafka::api::offset_delete::OffsetDeleteRequest;

impl Handler for OffsetDeleteRequest {
    fn handle(self, call: Call) -> Reply<OffsetDeleteResponse> {
        let refused = |code: ErrorCode| OffsetDeleteResponse { error_code: code.0, ..Default::default() };
        let shard = match coordinator(&call, &self.group_id, Operation::Delete) {
            Ok(shard) => shard,
            Err(ErrorCode::COORDINATOR_NOT_AVAILABLE) if !call.broker.groups.exist() => {
                return Reply::Now(refused(ErrorCode::GROUP_ID_NOT_FOUND));
            }
            Err(code) => return Reply::Now(refused(code)),
        };
        let may_read =
            |topic: &str| call.broker.authorizer.allows(&call.context, Operation::Read, Resource::Topic(topic));
        let wanted = self.topics.iter().filter(|topic| may_read(&topic.name));
        let partitions: Vec<(String, i32)> = wanted
            .flat_map(|topic| topic.partitions.iter().map(|at| (topic.name.to_string(), at.partition_index)))
            .collect();
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
            let mut each = partitions.into_iter().zip(each).peekable();
            let topics = self.topics.into_iter().map(|topic| {
                let partitions = topic.partitions.iter().map(|at| {
                    let own =
                        each.next_if(|((name, index), _)| topic.name == *name.as_str() && *index == at.partition_index);
                    let error_code = match own {
                        Some((_, error)) => error.map_or(ErrorCode::NONE, code),
                        None => ErrorCode::TOPIC_AUTHORIZATION_FAILED,
                    };
                    OffsetDeleteResponsePartition { partition_index: at.partition_index, error_code: error_code.0 }
                });
                OffsetDeleteResponseTopic { partitions: partitions.collect(), name: topic.name }
            });
            OffsetDeleteResponse { topics: topics.collect(), ..Default::default() }
        })
    }
}
