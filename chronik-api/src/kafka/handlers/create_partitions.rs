//! CreatePartitions (37). The new partitions are open when the answer goes out.

pub use chronik_proto_kafka::api::create_partitions::CreatePartitionsRequest;

use crate::kafka::context::{Operation, Resource};
use crate::kafka::handler::{Call, Handler, Reply};
use crate::kafka::refusal::{Refusal, pair};
use chronik_core::ids::NodeId;
use chronik_core::metadata::controller::{self, MorePartitions};
use chronik_proto_kafka::api::create_partitions::*;
use chronik_proto_kafka::{ErrorCode, Str};
use std::convert::Infallible;

impl Handler for CreatePartitionsRequest {
    const BY_CONTROLLER: bool = true;

    fn handle(self, call: Call) -> Reply<CreatePartitionsResponse> {
        Reply::exclusive(
            async move { CreatePartitionsResponse { throttle_time_ms: 0, results: create(self, &call).await } },
        )
    }
}

async fn create(request: CreatePartitionsRequest, call: &Call) -> Vec<CreatePartitionsTopicResult> {
    let (allowed, forbidden): (Vec<_>, Vec<_>) = request.topics.into_iter().partition(|topic| {
        call.broker.authorizer.allows(&call.context, Operation::Alter, Resource::Topic(&topic.name))
    });
    let brokers = |assignment: &CreatePartitionsAssignment| assignment.broker_ids.iter().copied().map(NodeId).collect();
    let more = |topic: &CreatePartitionsTopic| MorePartitions {
        topic: topic.name.to_string(),
        count: topic.count,
        assignments: topic.assignments.as_ref().map(|given| given.iter().map(brokers).collect()),
    };
    let wanted: Vec<MorePartitions> = allowed.iter().map(more).collect();
    let validate_only = request.validate_only;
    let decided = call.broker.metadata.propose_sure::<_, Infallible>(move |image| {
        let decision = controller::create_partitions(image, &wanted);
        if validate_only { decision.without_records() } else { decision }
    });
    let result = |name: Str, (error_code, error_message): (i16, Option<Str>)| CreatePartitionsTopicResult {
        name,
        error_code,
        error_message,
    };
    let mut results: Vec<_> = match decided.await {
        Ok(outcomes) => outcomes.into_iter().map(|(name, outcome)| result(name.into(), pair(&outcome))).collect(),
        Err(why) => allowed.into_iter().map(|topic| result(topic.name, why.pair())).collect(),
    };
    let no = (ErrorCode::TOPIC_AUTHORIZATION_FAILED.0, None);
    results.extend(forbidden.into_iter().map(|topic| result(topic.name, no.clone())));
    results
}
