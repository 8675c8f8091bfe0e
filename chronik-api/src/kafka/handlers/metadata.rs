//! Metadata (3): which brokers and topics there are, and who leads what.
//!
//! - Version 0 asks for all topics with an empty list, later versions with null, and an empty list asks for none.
//! - A topic that may be created on demand is, and its logs are open, before the answer.
//! - The addresses are those of the listener that the request came in on.
//! - Operations that the client may do are worked out only where it asks.

use crate::kafka::context::{Operation, Resource};
use crate::kafka::fetch_sessions::TopicRef;
use crate::kafka::handler::{Call, Handler, Reply};
use crate::kafka::{authorized, nodes, resolve};
use chronik_core::ids::LogId;
use chronik_core::metadata::controller::NewTopic;
use chronik_core::metadata::{Image, Topic, names};
use chronik_proto_kafka::api::metadata::*;
use chronik_proto_kafka::{ErrorCode, Str, Uuid};
use std::sync::Arc;

/// First version in which a client may forbid creation on demand; before, it is always asked for.
const CREATION_IS_A_CHOICE_SINCE: i16 = 4;

fn may_describe(call: &Call, topic: &str) -> bool {
    call.broker.authorizer.allows(&call.context, Operation::Describe, Resource::Topic(topic))
}

impl Handler for MetadataRequest {
    fn handle(mut self, call: Call) -> Reply<MetadataResponse> {
        self.topics = self.topics.map(|topics| resolve::once(topics, |topic| (topic.name.clone(), topic.topic_id)));
        let create = call.broker.config.topics.auto_create
            && (self.allow_auto_topic_creation || call.version() < CREATION_IS_A_CHOICE_SINCE);
        let image = call.broker.metadata.image();
        let missing: Vec<String> = match &self.topics {
            Some(topics) if create => {
                let names = topics.iter().filter_map(|topic| topic.name.as_ref());
                let missing = names.filter(|name| image.topic(name).is_none() && !names::is_internal(name));
                missing.filter(|name| names::check_topic_name(name).is_ok()).map(Str::to_string).collect()
            }
            _ => Vec::new(),
        };
        if missing.is_empty() {
            return Reply::Now(respond(&self, &call, &[]));
        }
        Reply::exclusive(async move {
            let refused = create_on_demand(&call, missing).await;
            respond(&self, &call, &refused)
        })
    }
}

/// Creates what is missing, and gives those that could not be.
async fn create_on_demand(call: &Call, mut missing: Vec<String>) -> Vec<(String, ErrorCode)> {
    missing.sort_unstable();
    missing.dedup();
    let allowed =
        |name: &String| call.broker.authorizer.allows(&call.context, Operation::Create, Resource::Topic(name));
    missing.retain(allowed);
    let wanted: Vec<NewTopic> = missing.iter().map(NewTopic::with_defaults).collect();
    let refused = call.broker.creation.create(wanted).await;
    refused.into_iter().map(|(name, refused)| (name, code(refused))).collect()
}

/// What a client is told of a topic that was not created on demand.
fn code(refused: ErrorCode) -> ErrorCode {
    match refused {
        ErrorCode::INVALID_REPLICATION_FACTOR | ErrorCode::INVALID_TOPIC_EXCEPTION => refused,
        _ => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
    }
}

fn respond(request: &MetadataRequest, call: &Call, refused: &[(String, ErrorCode)]) -> MetadataResponse {
    let image = call.broker.metadata.image();
    let all = match &request.topics {
        None => true,
        Some(topics) => call.version() == 0 && topics.is_empty(),
    };
    let describe = |topic: &Arc<Topic>| describe(topic, &image, call, request.include_topic_authorized_operations);
    let topics = if all {
        image.topics().filter(|topic| may_describe(call, &topic.name)).map(describe).collect()
    } else {
        let wanted = request.topics.iter().flatten();
        wanted
            .map(|wanted| match find(&image, wanted) {
                Ok(topic) if may_describe(call, &topic.name) => describe(topic),
                Ok(_) => unknown(wanted, ErrorCode::TOPIC_AUTHORIZATION_FAILED),
                Err(code) => {
                    let name = wanted.name.as_deref().unwrap_or_default();
                    let refused = refused.iter().find(|(refused, _)| refused == name).map(|(_, code)| *code);
                    unknown(wanted, refused.unwrap_or(code))
                }
            })
            .collect()
    };
    MetadataResponse {
        brokers: nodes::alive(call, &image).into_iter().map(broker).collect(),
        cluster_id: Some(image.cluster_id().into()),
        controller_id: call.broker.controller(&image).map_or(-1, |node| node.0),
        topics,
        cluster_authorized_operations: authorized::operations(
            call,
            Resource::Cluster,
            request.include_cluster_authorized_operations,
        ),
        ..Default::default()
    }
}

fn broker(node: nodes::Address) -> MetadataResponseBroker {
    MetadataResponseBroker { node_id: node.id.0, host: node.host, port: node.port, rack: node.rack }
}

fn find<'a>(image: &'a Image, wanted: &MetadataRequestTopic) -> Result<&'a Arc<Topic>, ErrorCode> {
    match &wanted.name {
        Some(name) if names::check_topic_name(name).is_err() => Err(ErrorCode::INVALID_TOPIC_EXCEPTION),
        Some(name) => resolve::topic(image, &TopicRef::Name((&**name).into())),
        None => resolve::topic(image, &TopicRef::Id(resolve::topic_id(wanted.topic_id))),
    }
}

fn unknown(wanted: &MetadataRequestTopic, code: ErrorCode) -> MetadataResponseTopic {
    MetadataResponseTopic {
        error_code: code.0,
        name: wanted.name.clone(),
        topic_id: if wanted.name.is_none() { wanted.topic_id } else { Uuid::ZERO },
        is_internal: wanted.name.as_deref().is_some_and(names::is_internal),
        topic_authorized_operations: authorized::NOT_ASKED,
        ..Default::default()
    }
}

fn describe(topic: &Arc<Topic>, image: &Image, call: &Call, with_operations: bool) -> MetadataResponseTopic {
    let partitions = topic.partitions.iter().zip(0..).map(|(partition, index)| MetadataResponsePartition {
        error_code: if partition.leader.is_some() { 0 } else { ErrorCode::LEADER_NOT_AVAILABLE.0 },
        partition_index: index,
        leader_id: partition.leader.map_or(-1, |leader| leader.0),
        leader_epoch: partition.leader_epoch.0,
        replica_nodes: partition.replicas.iter().map(|replica| replica.0).collect(),
        isr_nodes: partition.isr.iter().map(|replica| replica.0).collect(),
        offline_replicas: nodes::offline(image, LogId { topic: topic.id, partition: index }, &partition.replicas),
    });
    MetadataResponseTopic {
        error_code: 0,
        name: Some((&*topic.name).into()),
        topic_id: resolve::uuid(topic.id),
        is_internal: topic.internal,
        partitions: partitions.collect(),
        topic_authorized_operations: authorized::operations(call, Resource::Topic(&topic.name), with_operations),
    }
}
