//! DescribeConfigs (32): configurations of topics and brokers with their sources, and on demand what they cover and mean.
//!
//! This broker alone speaks for itself: another broker's configuration is refused, as in Kafka. Loggers, client metrics
//! and groups have no configurations here.

pub use chronik_proto_kafka::api::describe_configs::DescribeConfigsRequest;

use crate::assemble::stored::Stored;
use crate::kafka::context::{Operation, Resource};
use crate::kafka::handler::{Call, Handler, Reply};
use crate::kafka::resolve;
use crate::metadata::settings;
use chronik_core::metadata::ConfigResource;
use chronik_core::metadata::describe_config::{self, ConfigEntry, ConfigSource};
use chronik_core::metadata::{Image, names};
use chronik_proto_kafka::api::describe_configs::*;
use chronik_proto_kafka::{ErrorCode, Str};

/// Shown for topics, too.
const STORAGE_SURVIVES: &str = "chronik.storage.survives";
/// What records outlive in an engine that this broker does not have.
const UNKNOWN: &str = "unknown";

/// Kafka's numbers for kinds of resources.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

impl Handler for DescribeConfigsRequest {
    fn handle(mut self, call: Call) -> Reply<DescribeConfigsResponse> {
        let resources = std::mem::take(&mut self.resources);
        let resources = resolve::once(resources, |asked| (asked.resource_type, asked.resource_name.clone()));
        let image = call.broker.metadata.image();
        let results = resources.iter().map(|resource| {
            let (entries, error_code, error_message) = match entries(&call, &image, resource) {
                Ok(entries) => (entries, ErrorCode::NONE, None),
                Err((code, words)) => (Vec::new(), code, Some(words.into())),
            };
            // No list of names, or an empty one, means all.
            let names = resource.configuration_keys.as_ref().filter(|names| !names.is_empty());
            let wanted = |entry: &ConfigEntry| names.is_none_or(|names| names.iter().any(|name| *name == entry.name));
            DescribeConfigsResult {
                error_code: error_code.0,
                error_message,
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
                configs: entries.into_iter().filter(wanted).map(|entry| row(entry, &self)).collect(),
            }
        });
        Reply::Now(DescribeConfigsResponse { throttle_time_ms: 0, results: results.collect() })
    }
}

fn entries(
    call: &Call,
    image: &Image,
    asked: &DescribeConfigsResource,
) -> Result<Vec<ConfigEntry>, (ErrorCode, String)> {
    let invalid = |words: String| (ErrorCode::INVALID_REQUEST, words);
    let allowed = |resource| call.broker.authorizer.allows(&call.context, Operation::DescribeConfigs, resource);
    let name = &*asked.resource_name;
    if asked.resource_type == TOPIC {
        if !allowed(Resource::Topic(name)) {
            return Err((ErrorCode::TOPIC_AUTHORIZATION_FAILED, "Topic authorization failed.".into()));
        }
        names::check_topic_name(name).map_err(|why| (ErrorCode::INVALID_TOPIC_EXCEPTION, why.to_string()))?;
        if image.topic(name).is_none() {
            let words = format!("This server does not host topic '{name}'.");
            return Err((ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, words));
        }
        let mut entries =
            describe_config::topic_entries(image, image.overrides(&ConfigResource::Topic(name.to_owned())));
        // What a topic's records outlive nobody sets for the topic, but who looks at its durability must see it.
        let broker = describe_config::broker_entries(image, call.broker.node, &own_settings(call, image));
        // As a default: tools that set again whatever is none leave it alone.
        let engine = image.topic(name).map_or("", |topic| &topic.config.storage);
        let survives = call.broker.partitions.engines().stored(engine).map_or(UNKNOWN, Stored::survives);
        let shown = broker.into_iter().filter(|entry| entry.name == STORAGE_SURVIVES);
        entries.extend(shown.map(|entry| ConfigEntry {
            value: survives.to_owned(),
            source: ConfigSource::Default,
            synonyms: Vec::new(),
            ..entry
        }));
        entries.sort_by_key(|entry| entry.name);
        return Ok(entries);
    }
    if !allowed(Resource::Cluster) {
        return Err((ErrorCode::CLUSTER_AUTHORIZATION_FAILED, "Cluster authorization failed.".into()));
    }
    match asked.resource_type {
        BROKER if name.is_empty() => Ok(describe_config::all_brokers_entries(image)),
        BROKER => {
            check_own_id(call, name)?;
            Ok(describe_config::broker_entries(image, call.broker.node, &own_settings(call, image)))
        }
        // The broker's log levels are its own business; there are no Kafka loggers to be listed.
        BROKER_LOGGER => check_own_id(call, name).map(|()| Vec::new()),
        CLIENT_METRICS => Err(invalid("Configurations of client metrics are not supported by this broker.".into())),
        GROUP => Err(invalid("Configurations of groups are not supported by this broker.".into())),
        kind => Err(invalid(format!("Unsupported resource type: {kind}"))),
    }
}

fn check_own_id(call: &Call, name: &str) -> Result<(), (ErrorCode, String)> {
    let own = call.broker.node.0;
    match name.parse::<i32>() {
        Ok(id) if id == own => Ok(()),
        Ok(id) => Err((ErrorCode::INVALID_REQUEST, format!("Unexpected broker id, expected {own}, but received {id}"))),
        Err(_) => Err((ErrorCode::INVALID_REQUEST, format!("Broker id must be an integer, but it is: {name}"))),
    }
}

fn own_settings(call: &Call, image: &Image) -> chronik_core::metadata::broker_config::BrokerSettings {
    let config = &call.broker.config;
    let listens = config
        .listeners()
        .into_iter()
        .map(|listener| format!("{}://{}:{}", listener.name, listener.listen.host, listener.listen.port));
    let registered = image.broker(call.broker.node).map(|broker| broker.listeners.clone()).unwrap_or_default();
    let advertised = registered.iter().map(|to| format!("{}://{}:{}", to.name, to.host, to.port));
    settings::broker_settings(
        config,
        call.broker.partitions.engines(),
        &listens.collect::<Vec<_>>(),
        &advertised.collect::<Vec<_>>(),
    )
}

fn row(entry: ConfigEntry, request: &DescribeConfigsRequest) -> DescribeConfigsResourceResult {
    let synonyms =
        entry.synonyms.into_iter().filter(|_| request.include_synonyms).map(|synonym| DescribeConfigsSynonym {
            name: Str::from_static(synonym.name),
            value: Some(synonym.value.into()),
            source: synonym.source as i8,
        });
    DescribeConfigsResourceResult {
        name: Str::from_static(entry.name),
        value: Some(entry.value.into()),
        read_only: entry.read_only,
        config_source: entry.source as i8,
        is_sensitive: false,
        synonyms: synonyms.collect(),
        config_type: entry.kind as i8,
        documentation: request.include_documentation.then(|| Str::from_static(entry.documentation)),
    }
}
