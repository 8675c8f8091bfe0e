//! DescribeTopicPartitions (75, KIP-966): topics page by page, in the order of their names.

pub use chronik_proto_kafka::api::describe_topic_partitions::DescribeTopicPartitionsRequest;

use crate::kafka::context::{Operation, Resource};
use crate::kafka::handler::{Call, Handler, Reply};
use crate::kafka::{authorized, resolve};
use chronik_core::ids::NodeId;
use chronik_core::metadata::{Partition, names};
use chronik_proto_kafka::api::describe_topic_partitions::*;
use chronik_proto_kafka::{ErrorCode, Str};
use std::collections::BTreeSet;

impl Handler for DescribeTopicPartitionsRequest {
    fn handle(self, call: Call) -> Reply<DescribeTopicPartitionsResponse> {
        let image = call.broker.metadata.image();
        let all = self.topics.is_empty();
        let from = self.cursor.as_ref();
        let wanted: BTreeSet<Str> = if all {
            image.topics().map(|topic| Str::from(&*topic.name)).collect()
        } else {
            self.topics.iter().map(|topic| topic.name.clone()).collect()
        };
        let limit = call.broker.config.limits.request_partitions as usize;
        let mut left = usize::try_from(self.response_partition_limit).unwrap_or(0).clamp(1, limit);
        let mut topics = Vec::new();
        let mut next_cursor = None;
        for name in wanted.into_iter().filter(|name| from.is_none_or(|from| *name >= from.topic_name)) {
            if !call.broker.authorizer.allows(&call.context, Operation::Describe, Resource::Topic(&name)) {
                // To whom may not see it, it is not there.
                if !all {
                    topics.push(unknown(name, ErrorCode::TOPIC_AUTHORIZATION_FAILED));
                }
                continue;
            }
            let Some(topic) = image.topic(&name) else {
                let bad_name = names::check_topic_name(&name).is_err();
                let code =
                    if bad_name { ErrorCode::INVALID_TOPIC_EXCEPTION } else { ErrorCode::UNKNOWN_TOPIC_OR_PARTITION };
                topics.push(unknown(name, code));
                continue;
            };
            let first = from.filter(|from| from.topic_name == name).map_or(0, |from| from.partition_index.max(0));
            if left == 0 {
                next_cursor = Some(ResponseCursor { topic_name: name, partition_index: first });
                break;
            }
            let rest = (first..).zip(topic.partitions.iter().skip(usize::try_from(first).unwrap_or(0)));
            let partitions: Vec<_> = rest.take(left).map(|(index, state)| partition(index, state)).collect();
            left -= partitions.len();
            let upto = first.saturating_add(i32::try_from(partitions.len()).unwrap_or(i32::MAX));
            topics.push(DescribeTopicPartitionsResponseTopic {
                error_code: ErrorCode::NONE.0,
                name: Some(name.clone()),
                topic_id: resolve::uuid(topic.id),
                is_internal: topic.internal,
                partitions,
                topic_authorized_operations: authorized::operations(&call, Resource::Topic(&name), true),
            });
            if topic.partition(upto).is_some() {
                next_cursor = Some(ResponseCursor { topic_name: name, partition_index: upto });
                break;
            }
        }
        Reply::Now(DescribeTopicPartitionsResponse { throttle_time_ms: 0, topics, next_cursor })
    }
}

fn unknown(name: Str, code: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic { error_code: code.0, name: Some(name), ..Default::default() }
}

fn partition(index: i32, state: &Partition) -> DescribeTopicPartitionsResponsePartition {
    let numbers = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
    let error = if state.leader.is_some() { ErrorCode::NONE } else { ErrorCode::LEADER_NOT_AVAILABLE };
    DescribeTopicPartitionsResponsePartition {
        error_code: error.0,
        partition_index: index,
        leader_id: state.leader.map_or(-1, |leader| leader.0),
        leader_epoch: state.leader_epoch.0,
        replica_nodes: numbers(&state.replicas),
        isr_nodes: numbers(&state.isr),
        eligible_leader_replicas: Some(numbers(&state.elr)),
        last_known_elr: Some(Vec::new()),
        offline_replicas: Vec::new(),
    }
}
