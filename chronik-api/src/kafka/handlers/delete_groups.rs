//! DeleteGroups (42): deletes groups without members, and their offsets (KIP-229).

use crate::kafka::context::Operation;
use crate::kafka::coordination::{coordinator, stored};
use crate::kafka::handler::{Call, Handler, Reply};
use chronik_proto_kafka::api::delete_groups::*;
use chronik_proto_kafka::{ErrorCode, Str};
use std::collections::BTreeSet;

pub use chronik_proto_kafka::api::delete_groups::DeleteGroupsRequest;

impl Handler for DeleteGroupsRequest {
    fn handle(self, call: Call) -> Reply<DeleteGroupsResponse> {
        // All are asked before any is waited for, so that they share a sync.
        let delete = |group_id: Str| {
            let answer = match coordinator(&call, &group_id, Operation::Delete) {
                Ok(shard) => Ok(shard.ask(|coordinator, _, key| coordinator.delete_group(&group_id, key))),
                Err(ErrorCode::COORDINATOR_NOT_AVAILABLE) if !call.broker.groups.exist() => {
                    Err(ErrorCode::GROUP_ID_NOT_FOUND)
                }
                Err(code) => Err(code),
            };
            (group_id, answer)
        };
        // A group that is named twice is deleted, and answered, once.
        let mut named = BTreeSet::new();
        let once = self.groups_names.into_iter().filter(|group| named.insert(group.clone()));
        let asked: Vec<_> = once.map(delete).collect();
        Reply::later(async move {
            let mut results = Vec::with_capacity(asked.len());
            for (group_id, answer) in asked {
                let code = match answer {
                    Ok(answer) => stored(answer).await,
                    Err(code) => code,
                };
                results.push(DeletableGroupResult { group_id, error_code: code.0 });
            }
            DeleteGroupsResponse { results, ..Default::default() }
        })
    }
}
