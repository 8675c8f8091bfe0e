//! DescribeGroups (15): the state and members of classic groups. One that does not exist is `Dead`; from version 6 it is an
//! error (KIP-1043).

use crate::kafka::authorized;
use crate::kafka::context::{Operation, Resource};
use crate::kafka::coordination::coordinator;
use crate::kafka::handler::{Call, Handler, Reply};
use crate::kafka::resolve;
use chronik_core::group::state::{Group, State};
use chronik_proto_kafka::api::describe_groups::*;
use chronik_proto_kafka::{ErrorCode, Str};

pub use chronik_proto_kafka::api::describe_groups::DescribeGroupsRequest;

const UNKNOWN_IS_AN_ERROR_SINCE: i16 = 6;

impl Handler for DescribeGroupsRequest {
    fn handle(self, call: Call) -> Reply<DescribeGroupsResponse> {
        let asked = self.include_authorized_operations;
        let groups = resolve::once(self.groups, |id: &Str| id.clone()).into_iter().map(|id| {
            let operations = authorized::operations(&call, Resource::Group(&id), asked);
            DescribedGroup { authorized_operations: operations, ..describe(&call, id) }
        });
        Reply::Now(DescribeGroupsResponse { groups: groups.collect(), ..Default::default() })
    }
}

fn describe(call: &Call, group_id: Str) -> DescribedGroup {
    let found = match coordinator(call, &group_id, Operation::Describe) {
        Ok(shard) => shard.look(|groups| groups.group(&group_id).map(described)),
        Err(ErrorCode::COORDINATOR_NOT_AVAILABLE) if !call.broker.groups.exist() => None,
        Err(code) => return DescribedGroup { error_code: code.0, group_id, ..Default::default() },
    };
    match found {
        Some(group) => DescribedGroup { group_id, ..group },
        None if call.version() >= UNKNOWN_IS_AN_ERROR_SINCE => DescribedGroup {
            error_code: ErrorCode::GROUP_ID_NOT_FOUND.0,
            error_message: Some(format!("Group {group_id} not found.").into()),
            group_state: Str::from_static("Dead"),
            group_id,
            ..Default::default()
        },
        None => DescribedGroup { group_state: Str::from_static("Dead"), group_id, ..Default::default() },
    }
}

fn described<K>(group: &Group<K>) -> DescribedGroup {
    // While members change there is no protocol that all of them were told, whose metadata could be shown.
    let protocol = match group.state {
        State::Stable => group.protocol.clone().unwrap_or_default(),
        State::Empty | State::PreparingRebalance | State::CompletingRebalance => String::new(),
    };
    let members = group.members.iter().map(|(id, member)| DescribedGroupMember {
        member_id: id.into(),
        group_instance_id: member.instance_id.as_deref().map(Into::into),
        client_id: member.client_id.as_str().into(),
        client_host: member.client_host.as_str().into(),
        member_metadata: member.metadata(&protocol),
        member_assignment: member.assignment.clone(),
    });
    DescribedGroup {
        group_state: Str::from_static(group.state.name()),
        protocol_type: group.protocol_type.as_deref().unwrap_or_default().into(),
        members: members.collect(),
        protocol_data: protocol.into(),
        ..Default::default()
    }
}
