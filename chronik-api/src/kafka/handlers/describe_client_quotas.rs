//! DescribeClientQuotas (48, KIP-546). No client is throttled here, so there is nothing to list.

pub use chronik_proto_kafka::api::describe_client_quotas::DescribeClientQuotasRequest;

use crate::kafka::context::{Operation, Resource};
use crate::kafka::handler::{Call, Handler, Reply};
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::describe_client_quotas::*;

impl Handler for DescribeClientQuotasRequest {
    fn handle(self, call: Call) -> Reply<DescribeClientQuotasResponse> {
        let (error_code, entries) =
            if call.broker.authorizer.allows(&call.context, Operation::DescribeConfigs, Resource::Cluster) {
                (ErrorCode::NONE, Some(Vec::new()))
            } else {
                (ErrorCode::CLUSTER_AUTHORIZATION_FAILED, None)
            };
        Reply::Now(DescribeClientQuotasResponse { error_code: error_code.0, entries, ..Default::default() })
    }
}
