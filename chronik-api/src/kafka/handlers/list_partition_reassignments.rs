//! ListPartitionReassignments (46, KIP-455): which partitions are on their way to other replicas.

pub use chronik_proto_kafka::api::list_partition_reassignments::ListPartitionReassignmentsRequest;

use crate::kafka::context::{Operation, Resource};
use crate::kafka::handler::{Call, Handler, Reply};
use chronik_core::ids::NodeId;
use chronik_core::metadata::controller;
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::list_partition_reassignments::*;
use std::collections::BTreeMap;

impl Handler for ListPartitionReassignmentsRequest {
    const BY_CONTROLLER: bool = true;

    fn handle(self, call: Call) -> Reply<ListPartitionReassignmentsResponse> {
        if !call.broker.authorizer.allows(&call.context, Operation::Describe, Resource::Cluster) {
            let error_code = ErrorCode::CLUSTER_AUTHORIZATION_FAILED.0;
            return Reply::Now(ListPartitionReassignmentsResponse { error_code, ..Default::default() });
        }
        let named = self.topics.map(|topics| {
            let each = topics.into_iter().flat_map(|topic| {
                topic.partition_indexes.into_iter().map(move |number| (topic.name.to_string(), number))
            });
            each.collect::<Vec<_>>()
        });
        let mut by_topic: BTreeMap<String, Vec<OngoingPartitionReassignment>> = BTreeMap::new();
        for under_way in controller::reassignments(&call.broker.metadata.image(), named.as_deref()) {
            let numbers = |nodes: Vec<NodeId>| nodes.into_iter().map(|node| node.0).collect();
            by_topic.entry(under_way.topic).or_default().push(OngoingPartitionReassignment {
                partition_index: under_way.partition,
                replicas: numbers(under_way.replicas),
                adding_replicas: numbers(under_way.adding),
                removing_replicas: numbers(under_way.removing),
            });
        }
        let topic = |(name, partitions): (String, _)| OngoingTopicReassignment { name: name.into(), partitions };
        let topics = by_topic.into_iter().map(topic).collect();
        Reply::Now(ListPartitionReassignmentsResponse { topics, ..Default::default() })
    }
}
