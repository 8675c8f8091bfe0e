//! Configurations as DescribeConfigs and CreateTopics report them: value, where it comes from, and what it covers.

use super::broker_config::BrokerSettings;
use super::dynamic_broker_config::{DYNAMIC_BROKER_CONFIGS, DynamicBrokerConfigDef};
use super::image::{ConfigResource, Image};
use super::topic_config::{Kind, TOPIC_CONFIGS, TopicConfigDef};
use crate::ids::NodeId;
use std::collections::BTreeMap;

/// Where a value comes from; the numbers are DescribeConfigs' own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    Topic = 1,
    /// Set at run time for one broker.
    DynamicBroker = 2,
    /// Set at run time for all brokers.
    DynamicDefaultBroker = 3,
    /// The configuration file.
    StaticBroker = 4,
    Default = 5,
}

/// A value that would be in effect if those before it were not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSynonym {
    pub name: &'static str,
    pub value: String,
    pub source: ConfigSource,
}

/// One configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    pub name: &'static str,
    pub value: String,
    pub source: ConfigSource,
    pub read_only: bool,
    pub kind: Kind,
    pub documentation: &'static str,
    /// The value in effect first, then what it covers.
    pub synonyms: Vec<ConfigSynonym>,
}

/// Every configuration of a topic, or of one that is to be created, with these overrides.
pub fn topic_entries(image: &Image, overrides: &BTreeMap<String, String>) -> Vec<ConfigEntry> {
    let listed = TOPIC_CONFIGS.iter().filter(|def| !def.internal || overrides.contains_key(def.name));
    let entry = |def: &'static TopicConfigDef| {
        let own = overrides.get(def.name).map(|value| ConfigSynonym {
            name: def.name,
            value: value.clone(),
            source: ConfigSource::Topic,
        });
        let synonyms: Vec<_> = own.into_iter().chain(broker_synonyms(image, def)).collect();
        // Without a synonym of its own in a broker, a default stands for itself and is not listed as one.
        let (value, source) = match synonyms.first() {
            Some(first) => (first.value.clone(), first.source),
            None => (image.topic_default(def), ConfigSource::Default),
        };
        ConfigEntry {
            name: def.name,
            value,
            source,
            read_only: def.fixed,
            kind: def.kind,
            documentation: def.documentation,
            synonyms,
        }
    };
    listed.map(entry).collect()
}

/// Every configuration of one broker: its settings, what may be altered while it runs, and the topic defaults that hold on
/// it, in the order of their names.
pub fn broker_entries(image: &Image, broker: NodeId, settings: &BrokerSettings) -> Vec<ConfigEntry> {
    let source = |from_file| if from_file { ConfigSource::StaticBroker } else { ConfigSource::Default };
    let own = settings.iter().map(|(def, setting)| ConfigEntry {
        name: def.name,
        value: setting.value.clone(),
        source: source(setting.from_file),
        read_only: true,
        kind: def.kind,
        documentation: def.documentation,
        synonyms: vec![ConfigSynonym {
            name: def.name,
            value: setting.value.clone(),
            source: source(setting.from_file),
        }],
    });
    let dynamic = DYNAMIC_BROKER_CONFIGS.iter().map(|def| {
        let synonyms: Vec<_> = dynamic_synonyms(image, broker, def).collect();
        let source = synonyms.first().map_or(ConfigSource::Default, |first| first.source);
        ConfigEntry {
            name: def.name,
            value: image.broker_config_text(broker, def),
            source,
            read_only: false,
            kind: def.kind,
            documentation: def.documentation,
            synonyms,
        }
    });
    let of_topics = TOPIC_CONFIGS.iter().filter_map(|def| {
        let synonyms: Vec<_> = broker_synonyms(image, def).collect();
        let first = synonyms.first()?;
        Some(ConfigEntry {
            name: first.name,
            value: first.value.clone(),
            source: first.source,
            // For one broker alone they cannot be altered; for all of them they can.
            read_only: true,
            kind: def.kind,
            documentation: def.documentation,
            synonyms,
        })
    });
    let mut entries: Vec<_> = own.chain(dynamic).chain(of_topics).collect();
    entries.sort_unstable_by_key(|entry| entry.name);
    entries
}

/// What was set for all brokers at run time, and only that.
pub fn all_brokers_entries(image: &Image) -> Vec<ConfigEntry> {
    let set = image.overrides(&ConfigResource::AllBrokers);
    let of_topics = TOPIC_CONFIGS.iter().filter_map(|def| Some((def.synonym()?, def.kind, def.documentation)));
    let dynamic = DYNAMIC_BROKER_CONFIGS.iter().map(|def| (def.name, def.kind, def.documentation));
    let entry = |(name, kind, documentation)| {
        let value: &String = set.get(name)?;
        let source = ConfigSource::DynamicDefaultBroker;
        let synonyms = vec![ConfigSynonym { name, value: value.clone(), source }];
        Some(ConfigEntry { name, value: value.clone(), source, read_only: false, kind, documentation, synonyms })
    };
    let mut entries: Vec<_> = of_topics.chain(dynamic).filter_map(entry).collect();
    entries.sort_unstable_by_key(|entry| entry.name);
    entries
}

/// What one broker's configuration may come from, the strongest first.
fn dynamic_synonyms(
    image: &Image,
    broker: NodeId,
    def: &'static DynamicBrokerConfigDef,
) -> impl Iterator<Item = ConfigSynonym> {
    let set = |resource, source| {
        let value = image.overrides(&resource).get(def.name)?.clone();
        Some(ConfigSynonym { name: def.name, value, source })
    };
    let default = ConfigSynonym { name: def.name, value: def.default.to_owned(), source: ConfigSource::Default };
    [
        set(ConfigResource::Broker(broker), ConfigSource::DynamicBroker),
        set(ConfigResource::AllBrokers, ConfigSource::DynamicDefaultBroker),
        Some(default),
    ]
    .into_iter()
    .flatten()
}

/// What a broker says about a topic configuration, the strongest first.
fn broker_synonyms(image: &Image, def: &'static TopicConfigDef) -> impl Iterator<Item = ConfigSynonym> {
    let of = |name, value: Option<String>, source| value.map(|value| ConfigSynonym { name, value, source });
    let by_name = def.synonym().map(|name| {
        let set = image.overrides(&ConfigResource::AllBrokers).get(name).cloned();
        let file = image.defaults().topic(def.name).map(str::to_owned);
        [
            of(name, set, ConfigSource::DynamicDefaultBroker),
            of(name, file, ConfigSource::StaticBroker),
            of(name, Some(def.default.to_owned()), ConfigSource::Default),
        ]
    });
    by_name.into_iter().flatten().flatten()
}
