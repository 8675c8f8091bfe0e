//! AlterPartitionReassignments (45, KIP-455, KIP-860): other replicas for partitions, while they are being used.

pub use chronik_proto_kafka::api::alter_partition_reassignments::AlterPartitionReassignmentsRequest;

use crate::kafka::context::{Operation, Resource};
use crate::kafka::handler::{Call, Handler, Reply};
use crate::kafka::refusal::{Refusal, pair};
use chronik_core::ids::NodeId;
use chronik_core::metadata::controller::{self, ReassignReply, Reassignment};
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::alter_partition_reassignments::*;
use std::convert::Infallible;

impl Handler for AlterPartitionReassignmentsRequest {
    const BY_CONTROLLER: bool = true;

    fn handle(self, call: Call) -> Reply<AlterPartitionReassignmentsResponse> {
        let allow_replication_factor_change = self.allow_replication_factor_change;
        let failed = move |code: ErrorCode| AlterPartitionReassignmentsResponse {
            error_code: code.0,
            allow_replication_factor_change,
            ..Default::default()
        };
        if !call.broker.authorizer.allows(&call.context, Operation::Alter, Resource::Cluster) {
            return Reply::Now(failed(ErrorCode::CLUSTER_AUTHORIZATION_FAILED));
        }
        let asked: Vec<Reassignment> = self
            .topics
            .into_iter()
            .flat_map(|ReassignableTopic { name, partitions }| {
                partitions.into_iter().map(move |partition| Reassignment {
                    topic: name.to_string(),
                    partition: partition.partition_index,
                    replicas: partition.replicas.map(|nodes| nodes.into_iter().map(NodeId).collect()),
                })
            })
            .collect();
        Reply::exclusive(async move {
            let decided = call.broker.metadata.propose_sure::<_, Infallible>(move |image| {
                controller::reassign_partitions(image, &asked, allow_replication_factor_change)
            });
            match decided.await {
                Ok(outcomes) => AlterPartitionReassignmentsResponse {
                    allow_replication_factor_change,
                    responses: by_topic(outcomes),
                    ..Default::default()
                },
                Err(why) => failed(why.code()),
            }
        })
    }
}

/// In the order asked; neighbours of one topic together.
fn by_topic(outcomes: ReassignReply) -> Vec<ReassignableTopicResponse> {
    let mut topics: Vec<ReassignableTopicResponse> = Vec::new();
    for (topic, partition_index, outcome) in outcomes {
        let (error_code, error_message) = pair(&outcome);
        let answer = ReassignablePartitionResponse { partition_index, error_code, error_message };
        match topics.last_mut().filter(|last| *last.name == *topic) {
            Some(last) => last.partitions.push(answer),
            None => topics.push(ReassignableTopicResponse { name: topic.into(), partitions: vec![answer] }),
        }
    }
    topics
}
