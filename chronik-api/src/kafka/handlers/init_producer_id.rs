//! InitProducerId (22): a number for an idempotent producer (KIP-98, KIP-360).
//!
//! Numbers come from durably reserved blocks, so none is given out twice. There are no transactions: a transactional id
//! is refused for good, so that a client fails at once instead of looking for a coordinator for ever.

pub use chronik_proto_kafka::api::init_producer_id::InitProducerIdRequest;

use crate::kafka::context::{Operation, Resource};
use crate::kafka::handler::{Call, Handler, Reply};
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::init_producer_id::*;

impl Handler for InitProducerIdRequest {
    fn handle(self, call: Call) -> Reply<InitProducerIdResponse> {
        if self.transactional_id.is_some() {
            // Not retriable in any client; "no coordinator" would be.
            return Reply::Now(refused(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED));
        }
        if !call.broker.authorizer.allows(&call.context, Operation::IdempotentWrite, Resource::Cluster) {
            return Reply::Now(refused(ErrorCode::CLUSTER_AUTHORIZATION_FAILED));
        }
        Reply::later(async move {
            match call.broker.producer_ids.next().await {
                Ok(id) => InitProducerIdResponse { producer_id: id.0, producer_epoch: 0, ..Default::default() },
                Err(cause) => {
                    tracing::warn!(%cause, "no producer id can be given out");
                    refused(ErrorCode::COORDINATOR_NOT_AVAILABLE)
                }
            }
        })
    }
}

fn refused(code: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse { error_code: code.0, producer_id: -1, producer_epoch: -1, ..Default::default() }
}
