//! LeaveGroup (13): members leave a classic group; from version 3 several at once (KIP-345).

use crate::kafka::context::Operation;
use crate::kafka::coordination::{code_of, coordinator_of_members};
use crate::kafka::handler::{Call, Handler, Reply};
use chronik_core::group::membership::Leaver;
use chronik_proto_kafka::api::leave_group::*;

pub use chronik_proto_kafka::api::leave_group::LeaveGroupRequest;

const SEVERAL_SINCE: i16 = 3;

impl Handler for LeaveGroupRequest {
    fn handle(self, call: Call) -> Reply<LeaveGroupResponse> {
        let shard = match coordinator_of_members(&call, &self.group_id, Operation::Read) {
            Ok(shard) => shard,
            Err(code) => return Reply::Now(LeaveGroupResponse { error_code: code.0, ..Default::default() }),
        };
        let leave = |leavers: &[Leaver]| shard.with(|coordinator, now| coordinator.leave(now, &self.group_id, leavers));
        if call.version() < SEVERAL_SINCE {
            let outcomes = leave(&[Leaver { member_id: self.member_id.to_string(), instance_id: None }]);
            let error_code = outcomes.first().map(code_of).unwrap_or_default().0;
            return Reply::Now(LeaveGroupResponse { error_code, ..Default::default() });
        }
        let leaver = |member: &MemberIdentity| Leaver {
            member_id: member.member_id.to_string(),
            instance_id: member.group_instance_id.as_ref().map(|id| id.to_string()),
        };
        let outcomes = leave(&self.members.iter().map(leaver).collect::<Vec<_>>());
        let members = self.members.into_iter().zip(&outcomes).map(|(member, outcome)| MemberResponse {
            member_id: member.member_id,
            group_instance_id: member.group_instance_id,
            error_code: code_of(outcome).0,
        });
        Reply::Now(LeaveGroupResponse { members: members.collect(), ..Default::default() })
    }
}
