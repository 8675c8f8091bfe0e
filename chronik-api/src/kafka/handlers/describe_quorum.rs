//! DescribeQuorum (55, KIP-595, KIP-836): the metadata log's leader and voters. One node is all of them.

pub use chronik_proto_kafka::api::describe_quorum::DescribeQuorumRequest;

use crate::kafka::context::{Operation, Resource};
use crate::kafka::handler::{Call, Handler, Reply};
use chronik_core::metadata::names;
use chronik_proto_kafka::api::describe_quorum::*;
use chronik_proto_kafka::{ErrorCode, Uuid};

impl Handler for DescribeQuorumRequest {
    fn handle(self, call: Call) -> Reply<DescribeQuorumResponse> {
        if !call.broker.authorizer.allows(&call.context, Operation::Describe, Resource::Cluster) {
            let error_code = ErrorCode::CLUSTER_AUTHORIZATION_FAILED.0;
            return Reply::Now(DescribeQuorumResponse { error_code, ..Default::default() });
        }
        let topics = self.topics.into_iter().map(|topic| {
            let partition = |asked: &PartitionData| match (&*topic.topic_name, asked.partition_index) {
                (names::CLUSTER_METADATA, 0) => quorum(&call),
                (_, partition_index) => ResponsePartitionData {
                    partition_index,
                    error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0,
                    leader_id: -1,
                    leader_epoch: -1,
                    high_watermark: -1,
                    ..Default::default()
                },
            };
            let partitions = topic.partitions.iter().map(partition).collect();
            ResponseTopicData { topic_name: topic.topic_name, partitions }
        });
        let topics = topics.collect();
        let listener = &call.context.connection.listener;
        let own = Listener {
            // Java's client refuses a listener's name that is not in capitals.
            name: listener.config.name.to_uppercase().as_str().into(),
            host: listener.advertised_host.as_str().into(),
            port: listener.advertised_port,
        };
        Reply::Now(DescribeQuorumResponse {
            topics,
            nodes: vec![Node { node_id: call.broker.node.0, listeners: vec![own] }],
            ..Default::default()
        })
    }
}

fn quorum(call: &Call) -> ResponsePartitionData {
    let position = call.broker.metadata.image().position();
    let now = call.broker.clock.wall().0;
    let own = ReplicaState {
        replica_id: call.broker.node.0,
        replica_directory_id: Uuid(call.broker.metadata.directory_id()),
        log_end_offset: position.next.0,
        // A leader is never behind itself.
        last_fetch_timestamp: now,
        last_caught_up_timestamp: now,
    };
    ResponsePartitionData {
        partition_index: 0,
        leader_id: call.broker.node.0,
        leader_epoch: position.epoch.0,
        high_watermark: position.next.0,
        current_voters: vec![own],
        ..Default::default()
    }
}
