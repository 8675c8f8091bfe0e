//! Topics that the broker itself creates: on demand, and for groups' offsets. In a cluster the controller decides, and this
//! broker waits until it knows of them.

use super::{MetadataLog, random};
use crate::cluster::asks::Asks;
use crate::cluster::forward;
use crate::kafka::refusal::Refusal;
use chronik_core::metadata::controller::{self, NewTopic};
use chronik_proto_kafka::api::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse,
};
use chronik_proto_kafka::{ErrorCode, decode_response, encode_request};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// How long to wait until a topic that the controller has made is known here.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);

/// See the module's head.
#[derive(Clone)]
pub struct Creation {
    metadata: MetadataLog,
    asks: Option<Arc<Asks>>,
}

impl Creation {
    pub fn new(metadata: MetadataLog, asks: Option<Arc<Asks>>) -> Self {
        Self { metadata, asks }
    }

    /// Creates these; gives what became of each that is not there now.
    pub async fn create(&self, wanted: Vec<NewTopic>) -> Vec<(String, ErrorCode)> {
        let names: Vec<String> = wanted.iter().map(|topic| topic.name.clone()).collect();
        let refused = match &self.asks {
            Some(asks) if !asks.is_controller() => self.ask(asks, wanted).await,
            _ => self.decide(wanted).await,
        };
        let expected = names.iter().filter(|name| !refused.iter().any(|(refused, _)| refused == *name));
        let mut images = self.metadata.subscribe();
        let known = images.wait_for(|image| expected.clone().all(|name| image.topic(name).is_some()));
        let is_known = tokio::time::timeout(KNOWN_WITHIN, known).await.is_ok();
        if !is_known {
            tracing::warn!("the controller has made topics that do not show here yet");
        }
        refused.into_iter().filter(|(_, code)| *code != ErrorCode::TOPIC_ALREADY_EXISTS).collect()
    }

    async fn decide(&self, wanted: Vec<NewTopic>) -> Vec<(String, ErrorCode)> {
        let names: Vec<String> = wanted.iter().map(|topic| topic.name.clone()).collect();
        let created = self
            .metadata
            .propose_sure::<_, Infallible>(move |image| controller::create_topics(image, &wanted, random::topic_id))
            .await;
        match created {
            Ok(outcomes) => {
                outcomes.into_iter().filter_map(|(name, outcome)| Some((name, outcome.err()?.code()))).collect()
            }
            Err(why) => {
                tracing::warn!(%why, "topics cannot be created now");
                names.into_iter().map(|name| (name, why.code())).collect()
            }
        }
    }

    async fn ask(&self, asks: &Asks, wanted: Vec<NewTopic>) -> Vec<(String, ErrorCode)> {
        const VERSION: i16 = 7;
        let names: Vec<String> = wanted.iter().map(|topic| topic.name.clone()).collect();
        let topic = |topic: NewTopic| CreatableTopic {
            name: topic.name.into(),
            num_partitions: topic.partitions,
            replication_factor: topic.replication_factor,
            configs: topic
                .configs
                .into_iter()
                .map(|(name, value)| CreatableTopicConfig { name: name.into(), value: value.map(Into::into) })
                .collect(),
            ..CreatableTopic::default()
        };
        let timeout_ms = i32::try_from(KNOWN_WITHIN.as_millis()).unwrap_or(i32::MAX);
        let topics = wanted.into_iter().map(topic).collect();
        let request = CreateTopicsRequest { topics, timeout_ms, ..CreateTopicsRequest::default() };
        let frame = encode_request(&request, VERSION, 0, Some("chronik")).concat().split_off(4);
        let answered = forward::to_controller(asks, "", frame.into()).await;
        let read = answered
            .map_err(|why| why.to_string())
            .and_then(|frame| decode_response::<CreateTopicsRequest>(frame, VERSION).map_err(|why| why.to_string()));
        match read {
            Ok((_, CreateTopicsResponse { topics, .. })) => {
                let refused = topics.into_iter().filter(|topic| topic.error_code != 0);
                refused.map(|topic| (topic.name.to_string(), ErrorCode(topic.error_code))).collect()
            }
            Err(why) => {
                tracing::warn!("the controller cannot create topics now: {why}");
                names.into_iter().map(|name| (name, ErrorCode::REQUEST_TIMED_OUT)).collect()
            }
        }
    }
}
