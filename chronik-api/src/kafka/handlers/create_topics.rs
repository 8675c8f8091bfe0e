//! CreateTopics (19). Each topic by itself; from version 5 on the answer tells what it came to, configurations included.

pub use chronik_proto_kafka::api::create_topics::CreateTopicsRequest;

use crate::kafka::context::{Operation, Resource};
use crate::kafka::handler::{Call, Handler, Reply};
use crate::kafka::refusal::Refusal;
use crate::metadata::random;
use chronik_core::ids::NodeId;
use chronik_core::metadata::controller::{self, CreatedTopic, NewTopic};
use chronik_core::metadata::{Image, describe_config};
use chronik_proto_kafka::api::create_topics::*;
use chronik_proto_kafka::{ErrorCode, Uuid};
use std::convert::Infallible;

impl Handler for CreateTopicsRequest {
    const BY_CONTROLLER: bool = true;

    fn handle(self, call: Call) -> Reply<CreateTopicsResponse> {
        Reply::exclusive(async move {
            let topics = create(self, &call).await;
            CreateTopicsResponse { throttle_time_ms: 0, topics }
        })
    }
}

async fn create(request: CreateTopicsRequest, call: &Call) -> Vec<CreatableTopicResult> {
    let may = |resource: Resource<'_>| call.broker.authorizer.allows(&call.context, Operation::Create, resource);
    let (allowed, forbidden): (Vec<_>, Vec<_>) =
        request.topics.into_iter().partition(|topic| may(Resource::Cluster) || may(Resource::Topic(&topic.name)));
    let wanted: Vec<NewTopic> = allowed.iter().map(new_topic).collect();
    let validate_only = request.validate_only;
    let decided = call.broker.metadata.propose_sure::<_, Infallible>(move |image| {
        let decision = controller::create_topics(image, &wanted, random::topic_id);
        if validate_only { decision.without_records() } else { decision }
    });
    let mut results: Vec<CreatableTopicResult> = match decided.await {
        Ok(outcomes) => {
            let image = call.broker.metadata.image();
            let each = outcomes.into_iter().map(|(name, outcome)| match outcome {
                Ok(created) => success(&image, name, created, validate_only),
                Err(why) => failure(name, &why),
            });
            each.collect()
        }
        Err(why) => allowed.iter().map(|topic| failure(topic.name.to_string(), &why)).collect(),
    };
    results.extend(forbidden.into_iter().map(|topic| CreatableTopicResult {
        name: topic.name,
        error_code: ErrorCode::TOPIC_AUTHORIZATION_FAILED.0,
        ..Default::default()
    }));
    results
}

fn new_topic(topic: &CreatableTopic) -> NewTopic {
    let assignment = |assignment: &CreatableReplicaAssignment| {
        (assignment.partition_index, assignment.broker_ids.iter().copied().map(NodeId).collect())
    };
    NewTopic {
        name: topic.name.to_string(),
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: topic.assignments.iter().map(assignment).collect(),
        configs: topic
            .configs
            .iter()
            .map(|config| (config.name.to_string(), config.value.as_ref().map(|value| value.to_string())))
            .collect(),
    }
}

fn success(image: &Image, name: String, created: CreatedTopic, validate_only: bool) -> CreatableTopicResult {
    let configs =
        describe_config::topic_entries(image, &created.configs).into_iter().map(|entry| CreatableTopicConfigs {
            name: entry.name.into(),
            value: Some(entry.value.into()),
            read_only: entry.read_only,
            config_source: entry.source as i8,
            is_sensitive: false,
        });
    CreatableTopicResult {
        name: name.into(),
        // A topic that was only thought of has no identity.
        topic_id: if validate_only { Uuid::ZERO } else { Uuid(created.id.0) },
        error_code: ErrorCode::NONE.0,
        error_message: None,
        num_partitions: created.partitions,
        replication_factor: created.replication_factor,
        configs: Some(configs.collect()),
        topic_config_error_code: ErrorCode::NONE.0,
    }
}

fn failure(name: String, why: &impl Refusal) -> CreatableTopicResult {
    let (error_code, error_message) = why.pair();
    CreatableTopicResult {
        name: name.into(),
        error_code,
        error_message,
        configs: Some(Vec::new()),
        ..Default::default()
    }
}
