//! IncrementalAlterConfigs (44, KIP-339): sets, removes, appends to and subtracts from single configurations.

pub use chronik_proto_kafka::api::incremental_alter_configs::IncrementalAlterConfigsRequest;

use super::alter_configs::{Outcome, carry_out};
use crate::kafka::handler::{Call, Handler, Reply};
use chronik_core::metadata::controller::{self, AlterOp, AlterResource, ResourceAlteration};
use chronik_proto_kafka::api::incremental_alter_configs::*;

impl Handler for IncrementalAlterConfigsRequest {
    const BY_CONTROLLER: bool = true;

    fn handle(self, call: Call) -> Reply<IncrementalAlterConfigsResponse> {
        Reply::exclusive(async move {
            let alteration = |resource: AlterConfigsResource| ResourceAlteration {
                resource: AlterResource { kind: resource.resource_type, name: resource.resource_name.to_string() },
                configs: resource.configs.iter().map(|config| (config.name.to_string(), operation(config))).collect(),
            };
            let asked = self.resources.into_iter().map(alteration).collect();
            let outcomes = carry_out(&call, asked, self.validate_only, controller::alter_configs).await;
            let response = |(resource, (error_code, error_message)): Outcome| AlterConfigsResourceResponse {
                error_code,
                error_message,
                resource_type: resource.kind,
                resource_name: resource.name.into(),
            };
            IncrementalAlterConfigsResponse {
                throttle_time_ms: 0,
                responses: outcomes.into_iter().map(response).collect(),
            }
        })
    }
}

fn operation(config: &AlterableConfig) -> AlterOp {
    let value = config.value.as_ref().map(|value| value.to_string());
    match config.config_operation {
        0 => AlterOp::Set(value),
        1 => AlterOp::Delete,
        2 => AlterOp::Append(value),
        3 => AlterOp::Subtract(value),
        number => AlterOp::Unknown(number),
    }
}
