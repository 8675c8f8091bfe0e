//! Heartbeat (12): a member of a classic group lives, and learns whether a rebalance has begun.

use crate::kafka::context::Operation;
use crate::kafka::coordination::{code_of, coordinator_of_members};
use crate::kafka::handler::{Call, Handler, Reply};
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::heartbeat::*;

pub use chronik_proto_kafka::api::heartbeat::HeartbeatRequest;

impl Handler for HeartbeatRequest {
    fn handle(self, call: Call) -> Reply<HeartbeatResponse> {
        let code = match coordinator_of_members(&call, &self.group_id, Operation::Read) {
            Ok(shard) => code_of(&shard.with(|coordinator, now| {
                let instance = self.group_instance_id.as_deref();
                coordinator.heartbeat(now, &self.group_id, &self.member_id, instance, self.generation_id)
            })),
            // Nothing is known of the member yet; telling it so would only make it look for another coordinator.
            Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS) => ErrorCode::NONE,
            Err(code) => code,
        };
        Reply::Now(HeartbeatResponse { error_code: code.0, ..Default::default() })
    }
}
