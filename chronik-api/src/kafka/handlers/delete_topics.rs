//! DeleteTopics (20): by name up to version 5, by name or id from version 6 on. A deleted topic's logs are gone, and its
//! long polls woken, when the answer goes out.

pub use chronik_proto_kafka::api::delete_topics::DeleteTopicsRequest;

use crate::kafka::context::{Operation, Resource};
use crate::kafka::handler::{Call, Handler, Reply};
use crate::kafka::refusal::{Refusal, pair};
use crate::kafka::resolve;
use chronik_core::ids::TopicId;
use chronik_core::metadata::controller::{self, TopicRef};
use chronik_proto_kafka::api::delete_topics::*;
use chronik_proto_kafka::{ErrorCode, Str};
use std::convert::Infallible;

impl Handler for DeleteTopicsRequest {
    const BY_CONTROLLER: bool = true;

    fn handle(self, call: Call) -> Reply<DeleteTopicsResponse> {
        Reply::exclusive(async move {
            let by_name = |name: &Str| DeleteTopicState { name: Some(name.clone()), ..Default::default() };
            let asked = if call.version() >= 6 { self.topics } else { self.topic_names.iter().map(by_name).collect() };
            DeleteTopicsResponse { throttle_time_ms: 0, responses: delete(asked, &call).await }
        })
    }
}

async fn delete(asked: Vec<DeleteTopicState>, call: &Call) -> Vec<DeletableTopicResult> {
    let image = call.broker.metadata.image();
    let (allowed, forbidden): (Vec<_>, Vec<_>) = asked.into_iter().partition(|topic| {
        let by_id = || image.topic_by_id(resolve::topic_id(topic.topic_id)).map(|topic| topic.name.to_string());
        let name = topic.name.as_ref().map(|name| name.to_string()).or_else(by_id);
        // Nothing is told of a topic that does not exist anyway.
        name.is_none_or(|name| call.broker.authorizer.allows(&call.context, Operation::Delete, Resource::Topic(&name)))
    });
    let named: Vec<TopicRef> = allowed
        .iter()
        .map(|topic| TopicRef { name: topic.name.as_ref().map(|name| name.to_string()), id: TopicId(topic.topic_id.0) })
        .collect();
    let decided =
        call.broker.metadata.propose_sure::<_, Infallible>(move |image| controller::delete_topics(image, &named)).await;
    let result = |topic: DeleteTopicState, (error_code, error_message): (i16, Option<Str>)| DeletableTopicResult {
        name: topic.name,
        topic_id: topic.topic_id,
        error_code,
        error_message,
    };
    let mut results: Vec<DeletableTopicResult> = match decided {
        Ok(outcomes) => allowed
            .into_iter()
            .zip(outcomes)
            .map(|(topic, outcome)| {
                let answer = result(topic, pair(&outcome));
                match outcome {
                    Ok(deleted) => DeletableTopicResult {
                        name: Some(deleted.name.into()),
                        topic_id: resolve::uuid(deleted.id),
                        ..answer
                    },
                    Err(_) => answer,
                }
            })
            .collect(),
        Err(why) => allowed.into_iter().map(|topic| result(topic, why.pair())).collect(),
    };
    results.extend(forbidden.into_iter().map(|topic| result(topic, (ErrorCode::TOPIC_AUTHORIZATION_FAILED.0, None))));
    results
}
