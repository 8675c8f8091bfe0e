//! UnregisterBroker (64): takes a broker out for good. One that is at work is refused: its process would go on without being a
//! part of the cluster, and what it leads would be nobody's until it is started again.

pub use chronik_proto_kafka::api::unregister_broker::UnregisterBrokerRequest;

use crate::kafka::context::{Operation, Resource};
use crate::kafka::handler::{Call, Handler, Reply};
use crate::kafka::refusal::{Refusal, pair};
use chronik_core::ids::NodeId;
use chronik_core::metadata::Image;
use chronik_core::metadata::controller::{self, NotRegistered};
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::unregister_broker::*;

/// Why a broker stays.
#[derive(Debug, thiserror::Error)]
enum UnregisterError {
    #[error(transparent)]
    NotRegistered(#[from] NotRegistered),
    #[error("broker {0} is at work; stop it first")]
    AtWork(NodeId),
}

impl Refusal for UnregisterError {
    fn code(&self) -> ErrorCode {
        match self {
            UnregisterError::NotRegistered(_) => ErrorCode::BROKER_ID_NOT_REGISTERED,
            UnregisterError::AtWork(_) => ErrorCode::INVALID_REQUEST,
        }
    }
}

impl Handler for UnregisterBrokerRequest {
    const BY_CONTROLLER: bool = true;

    fn handle(self, call: Call) -> Reply<UnregisterBrokerResponse> {
        if !call.broker.authorizer.allows(&call.context, Operation::Alter, Resource::Cluster) {
            let error_code = ErrorCode::CLUSTER_AUTHORIZATION_FAILED.0;
            return Reply::Now(UnregisterBrokerResponse { error_code, ..Default::default() });
        }
        let node = NodeId(self.broker_id);
        Reply::exclusive(async move {
            let decide = move |image: &Image| {
                if image.is_active(node) {
                    return Err(UnregisterError::AtWork(node));
                }
                Ok(controller::unregister_broker(image, node)?)
            };
            let decided = call.broker.metadata.propose(decide).await;
            let (error_code, error_message) = pair(&decided);
            UnregisterBrokerResponse { error_code, error_message, ..Default::default() }
        })
    }
}
