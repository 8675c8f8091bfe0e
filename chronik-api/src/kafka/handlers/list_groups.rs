//! ListGroups (16): all groups, by state (KIP-518) and type (KIP-848) if asked. There are classic groups only.

use crate::kafka::context::{Operation, Resource};
use crate::kafka::handler::{Call, Handler, Reply};
use chronik_proto_kafka::api::list_groups::*;
use chronik_proto_kafka::{ErrorCode, Str};

pub use chronik_proto_kafka::api::list_groups::ListGroupsRequest;

const CLASSIC: &str = "classic";

impl Handler for ListGroupsRequest {
    fn handle(self, call: Call) -> Reply<ListGroupsResponse> {
        let named = |filter: &[Str], name: &str| {
            filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
        };
        let mut groups = Vec::new();
        let mut code = ErrorCode::NONE;
        if named(&self.types_filter, CLASSIC) {
            for shard in call.broker.groups.shards() {
                if !shard.is_loaded() {
                    code = ErrorCode::COORDINATOR_LOAD_IN_PROGRESS;
                    continue;
                }
                shard.look(|coordinator| {
                    for (id, group) in coordinator.groups() {
                        let allowed =
                            call.broker.authorizer.allows(&call.context, Operation::Describe, Resource::Group(id));
                        if allowed && named(&self.states_filter, group.state.name()) {
                            groups.push(ListedGroup {
                                group_id: id.into(),
                                protocol_type: group.protocol_type.as_deref().unwrap_or_default().into(),
                                group_state: Str::from_static(group.state.name()),
                                group_type: Str::from_static(CLASSIC),
                            });
                        }
                    }
                });
            }
        }
        Reply::Now(ListGroupsResponse { error_code: code.0, groups, ..Default::default() })
    }
}
