//! ListPartitionReassignments (46, KIP-455). Nothing is ever on its way between the replicas of one node.

pub use chronik_proto_kafka::api::list_partition_reassignments::ListPartitionReassignmentsRequest;

use crate::kafka::context::{Operation, Resource};
use crate::kafka::handler::{Call, Handler, Reply};
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::list_partition_reassignments::*;

impl Handler for ListPartitionReassignmentsRequest {
    fn handle(self, call: Call) -> Reply<ListPartitionReassignmentsResponse> {
        let allowed = call.broker.authorizer.allows(&call.context, Operation::Describe, Resource::Cluster);
        let error = if allowed { ErrorCode::NONE } else { ErrorCode::CLUSTER_AUTHORIZATION_FAILED };
        Reply::Now(ListPartitionReassignmentsResponse { error_code: error.0, ..Default::default() })
    }
}
