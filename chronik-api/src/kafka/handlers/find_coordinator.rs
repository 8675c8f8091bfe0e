//! FindCoordinator (10): which broker coordinates a group. From version 4 several keys at once (KIP-699).
//!
//! The first look for a group's coordinator creates `__consumer_offsets`. There are no transactions: their coordinator is
//! refused for good, since "not available" would keep clients looking for ever.

use crate::kafka::context::{Operation, Resource};
use crate::kafka::handler::{Call, Handler, Reply};
use crate::kafka::nodes;
use chronik_proto_kafka::api::find_coordinator::*;
use chronik_proto_kafka::{ErrorCode, Str};

pub use chronik_proto_kafka::api::find_coordinator::FindCoordinatorRequest;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const BATCHED_SINCE: i16 = 4;

impl Handler for FindCoordinatorRequest {
    fn handle(self, call: Call) -> Reply<FindCoordinatorResponse> {
        Reply::exclusive(async move {
            if call.version() >= BATCHED_SINCE {
                let mut coordinators = Vec::with_capacity(self.coordinator_keys.len());
                for key in &self.coordinator_keys {
                    coordinators.push(find(&call, self.key_type, key).await);
                }
                return FindCoordinatorResponse { coordinators, ..Default::default() };
            }
            let Coordinator { node_id, host, port, error_code, error_message, .. } =
                find(&call, self.key_type, &self.key).await;
            FindCoordinatorResponse { error_code, error_message, node_id, host, port, ..Default::default() }
        })
    }
}

async fn find(call: &Call, key_type: i8, key: &Str) -> Coordinator {
    let refused = |code: ErrorCode, words: &'static str| Coordinator {
        key: key.clone(),
        node_id: -1,
        port: -1,
        error_code: code.0,
        error_message: Some(Str::from_static(words)),
        ..Default::default()
    };
    match key_type {
        GROUP => {
            if !call.broker.authorizer.allows(&call.context, Operation::Describe, Resource::Group(key)) {
                return refused(ErrorCode::GROUP_AUTHORIZATION_FAILED, "not allowed to describe the group");
            }
            let coordinator = match call.broker.groups.coordinator(key).await {
                Ok(node) => node,
                Err(code) => return refused(code, "the group's coordinator is not available now"),
            };
            let image = call.broker.metadata.image();
            let reached = nodes::alive(call, &image).into_iter().find(|node| node.id == coordinator);
            match reached {
                Some(node) => Coordinator {
                    key: key.clone(),
                    node_id: node.id.0,
                    host: node.host,
                    port: node.port,
                    ..Default::default()
                },
                None => refused(ErrorCode::COORDINATOR_NOT_AVAILABLE, "the group's coordinator is not available now"),
            }
        }
        TRANSACTION => refused(
            ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            "this broker has no transactions: configure the producer without a transactional id",
        ),
        _ => refused(ErrorCode::INVALID_REQUEST, "this broker coordinates consumer groups only"),
    }
}
