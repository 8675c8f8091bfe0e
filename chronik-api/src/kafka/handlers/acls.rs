//! DescribeAcls (29), CreateAcls (30), DeleteAcls (31). There is no authorizer yet, and Kafka's answer to that is
//! SECURITY_DISABLED: a list that is empty would say that rules exist and allow nothing.

pub use chronik_proto_kafka::api::create_acls::CreateAclsRequest;
pub use chronik_proto_kafka::api::delete_acls::DeleteAclsRequest;
pub use chronik_proto_kafka::api::describe_acls::DescribeAclsRequest;

use crate::kafka::handler::{Call, Handler, Reply};
use chronik_proto_kafka::api::create_acls::{AclCreationResult, CreateAclsResponse};
use chronik_proto_kafka::api::delete_acls::{DeleteAclsFilterResult, DeleteAclsResponse};
use chronik_proto_kafka::api::describe_acls::DescribeAclsResponse;
use chronik_proto_kafka::{ErrorCode, Str};

const CODE: i16 = ErrorCode::SECURITY_DISABLED.0;
const WORDS: Str = Str::from_static("No Authorizer is configured.");

impl Handler for DescribeAclsRequest {
    fn handle(self, _: Call) -> Reply<DescribeAclsResponse> {
        Reply::Now(DescribeAclsResponse { error_code: CODE, error_message: Some(WORDS), ..Default::default() })
    }
}

impl Handler for CreateAclsRequest {
    fn handle(self, _: Call) -> Reply<CreateAclsResponse> {
        let refused = |_| AclCreationResult { error_code: CODE, error_message: Some(WORDS) };
        let results = self.creations.iter().map(refused).collect();
        Reply::Now(CreateAclsResponse { throttle_time_ms: 0, results })
    }
}

impl Handler for DeleteAclsRequest {
    fn handle(self, _: Call) -> Reply<DeleteAclsResponse> {
        let refused =
            |_| DeleteAclsFilterResult { error_code: CODE, error_message: Some(WORDS), matching_acls: Vec::new() };
        let filter_results = self.filters.iter().map(refused).collect();
        Reply::Now(DeleteAclsResponse { throttle_time_ms: 0, filter_results })
    }
}
