//! AlterConfigs (33): what is named becomes all there is. Deprecated in favour of IncrementalAlterConfigs, and still used.

pub use chronik_proto_kafka::api::alter_configs::AlterConfigsRequest;

use crate::kafka::context::{Operation, RequestContext, Resource};
use crate::kafka::handler::{Call, Handler, Reply};
use crate::kafka::refusal::{Refusal, pair};
use chronik_core::metadata::Image;
use chronik_core::metadata::controller::{self, AlterConfigsReply, AlterResource, Decision, ResourceAlteration};
use chronik_proto_kafka::api::alter_configs::*;
use chronik_proto_kafka::{ErrorCode, Str};
use std::convert::Infallible;

/// Kafka's number for topics; everything else belongs to the cluster.
const TOPIC: i8 = 2;

impl Handler for AlterConfigsRequest {
    const BY_CONTROLLER: bool = true;

    fn handle(self, call: Call) -> Reply<AlterConfigsResponse> {
        Reply::exclusive(async move {
            let alteration = |resource: AlterConfigsResource| ResourceAlteration {
                resource: AlterResource { kind: resource.resource_type, name: resource.resource_name.to_string() },
                configs: resource
                    .configs
                    .iter()
                    .map(|config| (config.name.to_string(), config.value.as_ref().map(|value| value.to_string())))
                    .collect(),
            };
            let asked = self.resources.into_iter().map(alteration).collect();
            let outcomes = carry_out(&call, asked, self.validate_only, controller::replace_configs).await;
            let response = |(resource, (error_code, error_message)): Outcome| AlterConfigsResourceResponse {
                error_code,
                error_message,
                resource_type: resource.kind,
                resource_name: resource.name.into(),
            };
            AlterConfigsResponse { throttle_time_ms: 0, responses: outcomes.into_iter().map(response).collect() }
        })
    }
}

/// What became of a resource: code and words.
pub type Outcome = (AlterResource, (i16, Option<Str>));

/// Decides and, unless it is only to be checked, commits. For both ways of altering.
pub async fn carry_out<T: Send + 'static>(
    call: &Call,
    asked: Vec<ResourceAlteration<T>>,
    validate_only: bool,
    decide: fn(&Image, &[ResourceAlteration<T>]) -> Decision<AlterConfigsReply>,
) -> Vec<Outcome> {
    let (allowed, forbidden): (Vec<_>, Vec<_>) =
        asked.into_iter().partition(|alteration| may_alter(call, &call.context, &alteration.resource));
    let resources: Vec<AlterResource> = allowed.iter().map(|alteration| alteration.resource.clone()).collect();
    let decided = call.broker.metadata.propose_sure::<_, Infallible>(move |image| {
        let decision = decide(image, &allowed);
        if validate_only { decision.without_records() } else { decision }
    });
    let mut outcomes: Vec<Outcome> = match decided.await {
        Ok(reply) => reply.into_iter().map(|(resource, outcome)| (resource, pair(&outcome))).collect(),
        Err(why) => resources.into_iter().map(|resource| (resource, why.pair())).collect(),
    };
    outcomes.extend(forbidden.into_iter().map(|alteration| {
        let code = match alteration.resource.kind {
            TOPIC => ErrorCode::TOPIC_AUTHORIZATION_FAILED,
            _ => ErrorCode::CLUSTER_AUTHORIZATION_FAILED,
        };
        (alteration.resource, (code.0, None))
    }));
    outcomes
}

fn may_alter(call: &Call, context: &RequestContext, resource: &AlterResource) -> bool {
    let resource = if resource.kind == TOPIC { Resource::Topic(&resource.name) } else { Resource::Cluster };
    call.broker.authorizer.allows(context, Operation::AlterConfigs, resource)
}
