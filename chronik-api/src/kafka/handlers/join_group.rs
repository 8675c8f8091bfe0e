//! JoinGroup (11): becomes a member of a classic group, or joins its next generation. Answered when the rebalance is over.

use crate::kafka::context::Operation;
use crate::kafka::coordination::{code, coordinator_of_members};
use crate::kafka::handler::{Call, Handler, Reply};
use crate::metadata::random;
use chronik_core::group::Reply as GroupReply;
use chronik_core::group::joining::Join;
use chronik_core::group::members::Protocol;
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::join_group::*;

pub use chronik_proto_kafka::api::join_group::JoinGroupRequest;

/// First versions with a rebalance time-out of its own, with KIP-394's member ids, and with KIP-814's hint.
const REBALANCE_TIMEOUT_SINCE: i16 = 1;
const KNOWN_MEMBER_ID_SINCE: i16 = 4;
const SKIP_ASSIGNMENT_SINCE: i16 = 9;
/// From then on a missing protocol is null, before it was empty.
const NULL_PROTOCOL_SINCE: i16 = 7;

impl Handler for JoinGroupRequest {
    fn handle(self, call: Call) -> Reply<JoinGroupResponse> {
        let version = call.version();
        let refused = move |code: ErrorCode, member_id| JoinGroupResponse {
            error_code: code.0,
            member_id,
            protocol_name: (version < NULL_PROTOCOL_SINCE).then(Default::default),
            ..Default::default()
        };
        let shard = match coordinator_of_members(&call, &self.group_id, Operation::Read) {
            Ok(shard) => shard,
            Err(code) => return Reply::Now(refused(code, self.member_id)),
        };
        let member_id = self.member_id.clone();
        let join = join_of(self, &call);
        let answer = shard.ask(|coordinator, now, key| coordinator.join(now, join, key));
        Reply::later(async move {
            let joined = match answer.await {
                Ok(GroupReply::Joined(joined)) => joined,
                Ok(_) | Err(_) => return refused(ErrorCode::COORDINATOR_NOT_AVAILABLE, member_id),
            };
            let protocol_name = joined.protocol.map(Into::into);
            let protocol_name =
                if version < NULL_PROTOCOL_SINCE { Some(protocol_name.unwrap_or_default()) } else { protocol_name };
            let member = |member: chronik_core::group::coordinator::JoinedMember| JoinGroupResponseMember {
                member_id: member.member_id.into(),
                group_instance_id: member.instance_id.map(Into::into),
                metadata: member.metadata,
            };
            JoinGroupResponse {
                error_code: joined.error.map_or(ErrorCode::NONE, code).0,
                generation_id: joined.generation,
                protocol_type: joined.protocol_type.map(Into::into),
                protocol_name,
                leader: joined.leader.into(),
                skip_assignment: joined.skip_assignment,
                member_id: joined.member_id.into(),
                members: joined.members.into_iter().map(member).collect(),
                ..Default::default()
            }
        })
    }
}

fn join_of(request: JoinGroupRequest, call: &Call) -> Join {
    let client_id = call.context.client_id.as_deref().unwrap_or_default().to_owned();
    let instance_id = request.group_instance_id.map(|id| id.to_string());
    let version = call.version();
    let rebalance_timeout_ms =
        if version >= REBALANCE_TIMEOUT_SINCE { request.rebalance_timeout_ms } else { request.session_timeout_ms };
    let protocols = request.protocols.into_iter();
    Join {
        group: request.group_id.to_string(),
        member_id: request.member_id.to_string(),
        fresh: u128::from_be_bytes(random::identity()),
        instance_id,
        client_id,
        client_host: format!("/{}", call.context.connection.peer.ip()),
        protocol_type: request.protocol_type.to_string(),
        protocols: protocols
            // A copy, so that what a group keeps of a request does not keep the whole of it.
            .map(|protocol| Protocol {
                name: protocol.name.to_string(),
                metadata: bytes::Bytes::copy_from_slice(&protocol.metadata),
            })
            .collect(),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms,
        requires_known_member_id: version >= KNOWN_MEMBER_ID_SINCE,
        knows_skip_assignment: version >= SKIP_ASSIGNMENT_SINCE,
    }
}
