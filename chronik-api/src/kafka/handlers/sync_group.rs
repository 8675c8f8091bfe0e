//! SyncGroup (14): the leader hands in the assignments of a generation, everyone gets their own. Answered when stored.

use crate::kafka::context::Operation;
use crate::kafka::coordination::{code, coordinator_of_members};
use crate::kafka::handler::{Call, Handler, Reply};
use bytes::Bytes;
use chronik_core::group::Reply as GroupReply;
use chronik_core::group::membership::Sync;
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::sync_group::*;

pub use chronik_proto_kafka::api::sync_group::SyncGroupRequest;

/// From then on the protocol that the client believes in is part of the request, and must be.
const PROTOCOL_SINCE: i16 = 5;

impl Handler for SyncGroupRequest {
    fn handle(self, call: Call) -> Reply<SyncGroupResponse> {
        let refused = |code: ErrorCode| SyncGroupResponse { error_code: code.0, ..Default::default() };
        if call.version() >= PROTOCOL_SINCE && (self.protocol_type.is_none() || self.protocol_name.is_none()) {
            return Reply::Now(refused(ErrorCode::INCONSISTENT_GROUP_PROTOCOL));
        }
        let shard = match coordinator_of_members(&call, &self.group_id, Operation::Read) {
            Ok(shard) => shard,
            Err(code) => return Reply::Now(refused(code)),
        };
        let assignments = self.assignments.into_iter();
        let sync = Sync {
            group: self.group_id.to_string(),
            member_id: self.member_id.to_string(),
            instance_id: self.group_instance_id.map(|id| id.to_string()),
            generation: self.generation_id,
            protocol_type: self.protocol_type.map(|text| text.to_string()),
            protocol: self.protocol_name.map(|text| text.to_string()),
            assignments: assignments
                // A copy, so that what a group keeps of a request does not keep the whole of it.
                .map(|one| (one.member_id.to_string(), Bytes::copy_from_slice(&one.assignment)))
                .collect(),
        };
        let answer = shard.ask(|coordinator, now, key| coordinator.sync(now, sync, key));
        Reply::later(async move {
            match answer.await {
                Ok(GroupReply::Synced(Ok(synced))) => SyncGroupResponse {
                    protocol_type: synced.protocol_type.map(Into::into),
                    protocol_name: synced.protocol.map(Into::into),
                    assignment: synced.assignment,
                    ..Default::default()
                },
                Ok(GroupReply::Synced(Err(error))) => refused(code(error)),
                Ok(_) | Err(_) => refused(ErrorCode::COORDINATOR_NOT_AVAILABLE),
            }
        })
    }
}
