//! DeleteGroups (42): deletes groups without members, and their offsets (KIP-229).

use crate::kafka::context::Operation;
use crate::kafka::coordination::{coordinator, stored};
use crate::kafka::handler::{Call, Handler, Reply};
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::delete_groups::*;

pub use chronik_proto_kafka::api::delete_groups::DeleteGroupsRequest;

impl Handler for DeleteGroupsRequest {
    fn handle(self, call: Call) -> Reply<DeleteGroupsResponse> {
        Reply::exclusive(async move {
            let mut results = Vec::with_capacity(self.groups_names.len());
            for group_id in self.groups_names {
                let code = match coordinator(&call, &group_id, Operation::Delete) {
                    Ok(shard) => {
                        stored(shard.ask(|coordinator, _, key| coordinator.delete_group(&group_id, key))).await
                    }
                    Err(ErrorCode::COORDINATOR_NOT_AVAILABLE) if !call.broker.groups.exist() => {
                        ErrorCode::GROUP_ID_NOT_FOUND
                    }
                    Err(code) => code,
                };
                results.push(DeletableGroupResult { group_id, error_code: code.0 });
            }
            DeleteGroupsResponse { results, ..Default::default() }
        })
    }
}
