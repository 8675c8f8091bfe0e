//! AlterConfigs and IncrementalAlterConfigs (KIP-339).
//!
//! Topics take every topic configuration. Brokers take what [`dynamic_broker_config`] declares, one by one or all at once,
//! and all at once the cluster-wide defaults of topic configurations, under Kafka's broker names. Everything else about a
//! broker is said by its configuration file and is refused here, since accepting what has no effect would be a lie.

use super::Decision;
use super::draft::Draft;
use super::settle::Lead;
use crate::ids::{LogId, NodeId};
use crate::metadata::engines::STORAGE;
use crate::metadata::image::{ConfigResource, Image, Partition};
use crate::metadata::names::{self, BadTopicName};
use crate::metadata::records::Record;
use crate::metadata::snapshot::config_record;
use crate::metadata::topic_config::{self, Durability, InvalidConfig, Kind, TopicConfig, TopicConfigDef, Valid};
use crate::metadata::{broker_config, dynamic_broker_config};
use std::collections::{BTreeMap, BTreeSet};

/// Kafka's numbers for kinds of resources.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

/// A resource as a request names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AlterResource {
    /// Kafka's number.
    pub kind: i8,
    pub name: String,
}

/// What to do with one configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlterOp {
    Set(Option<String>),
    Delete,
    /// Adds to a list what is not in it.
    Append(Option<String>),
    /// Takes out of a list.
    Subtract(Option<String>),
    /// A number that means nothing.
    Unknown(i8),
}

/// What to do with one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceAlteration<T> {
    pub resource: AlterResource,
    /// By name.
    pub configs: Vec<(String, T)>,
}

/// Why a resource was left as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlterConfigError {
    #[error("Each resource must appear at most once.")]
    DuplicateResource,
    #[error("Error due to duplicate config keys")]
    DuplicateKeys,
    #[error("Null value not supported for : {0}")]
    NullValue(String),
    #[error("The topic '{0}' does not exist.")]
    UnknownTopic(String),
    #[error("{0}")]
    BadTopicName(#[from] BadTopicName),
    #[error("Node id must be an integer, but it is: {0}")]
    NotANode(String),
    #[error("No broker {0} is registered.")]
    UnknownBroker(NodeId),
    #[error(
        "{name} cannot be altered for one broker: topic defaults are the same on all. Alter it for all brokers (the empty \
         resource name; kafka-configs --entity-default)."
    )]
    OneBrokerOnly { name: String },
    #[error("{name} is read-only: set it in the broker's configuration file and restart.")]
    ReadOnly { name: String },
    #[error("Unknown broker config name: {0}")]
    UnknownBrokerConfig(String),
    #[error("Can't {operation} to key {name} because its type is not LIST.")]
    NotAList { operation: &'static str, name: String },
    #[error("Unknown operations type {0}")]
    UnknownOperation(i8),
    #[error("Configurations of {0} are not supported by this broker.")]
    Unsupported(&'static str),
    #[error("Unknown resource type {0}")]
    UnknownResource(i8),
    #[error("{0}")]
    Invalid(#[from] InvalidConfig),
}

/// Each resource's outcome, in the order asked for.
pub type AlterConfigsReply = Vec<(AlterResource, Result<(), AlterConfigError>)>;

/// Changes what is named and leaves the rest (IncrementalAlterConfigs).
pub fn alter_configs(image: &Image, asked: &[ResourceAlteration<AlterOp>]) -> Decision<AlterConfigsReply> {
    decide(image, asked, |resource, configs| {
        let resource = resolve(image, resource)?;
        let nulls = configs
            .iter()
            .filter(|(_, op)| matches!(op, AlterOp::Set(None) | AlterOp::Append(None) | AlterOp::Subtract(None)));
        refuse_nulls(nulls.map(|(name, _)| name))?;
        let before = image.overrides(&resource);
        let mut after = before.clone();
        for (name, op) in configs {
            // What is to go need not be known: it may stem from a release that knew it.
            if *op == AlterOp::Delete && !before.contains_key(name) {
                continue;
            }
            let config = editable(image, &resource, name)?;
            let now = before.get(name).unwrap_or(&config.fallback);
            let text = match op {
                AlterOp::Set(text) => text.clone(),
                AlterOp::Delete => None,
                AlterOp::Append(more) => Some(config.edit_list(name, "APPEND", now, more.as_deref(), append)?),
                AlterOp::Subtract(less) => Some(config.edit_list(name, "SUBTRACT", now, less.as_deref(), subtract)?),
                AlterOp::Unknown(number) => return Err(AlterConfigError::UnknownOperation(*number)),
            };
            match text {
                Some(text) => {
                    config.check(name, &text)?;
                    after.insert(name.clone(), text);
                }
                None => drop(after.remove(name)),
            }
        }
        difference(image, &resource, before, &after)
    })
}

/// Makes what is named all there is (AlterConfigs).
pub fn replace_configs(image: &Image, asked: &[ResourceAlteration<Option<String>>]) -> Decision<AlterConfigsReply> {
    decide(image, asked, |resource, configs| {
        let resource = resolve(image, resource)?;
        refuse_nulls(configs.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| name))?;
        let mut after = topic_config::fixed(image.overrides(&resource));
        for (name, text) in configs {
            let text = text.clone().unwrap_or_default();
            editable(image, &resource, name)?.check(name, &text)?;
            after.insert(name.clone(), text);
        }
        difference(image, &resource, image.overrides(&resource), &after)
    })
}

fn decide<T>(
    image: &Image,
    asked: &[ResourceAlteration<T>],
    alter: impl Fn(&AlterResource, &[(String, T)]) -> Result<Vec<Record>, AlterConfigError>,
) -> Decision<AlterConfigsReply> {
    let mut times: BTreeMap<&AlterResource, usize> = BTreeMap::new();
    for alteration in asked {
        *times.entry(&alteration.resource).or_default() += 1;
    }
    let mut records = Vec::new();
    let outcome = |alteration: &ResourceAlteration<T>| {
        if times[&alteration.resource] > 1 {
            return Err(AlterConfigError::DuplicateResource);
        }
        let mut names = BTreeSet::new();
        if !alteration.configs.iter().all(|(name, _)| names.insert(name.as_str())) {
            return Err(AlterConfigError::DuplicateKeys);
        }
        alter(&alteration.resource, &alteration.configs)
    };
    let mut reply = Vec::with_capacity(asked.len());
    for alteration in asked {
        let done = outcome(alteration).map(|mut new| records.append(&mut new));
        reply.push((alteration.resource.clone(), done));
    }
    consequences(image, records).decide(reply)
}

/// What other configurations mean for partitions, in the same decision: where fewer need to be in sync, records are
/// committed without the eligible replicas from now on, so these are eligible no longer (KIP-966); a partition without a
/// leader may get one; and what was acknowledged unsynced stays so until it is known to be synced.
fn consequences(image: &Image, records: Vec<Record>) -> Draft {
    let mut draft = Draft::new(image);
    records.into_iter().for_each(|record| draft.push(record));
    let matters =
        |config: &TopicConfig| (config.min_insync_replicas, config.durability, config.unclean_leader_election_enable);
    for was in image.topics() {
        let Some(config) = draft.image().topic_by_id(was.id).map(|topic| topic.config.clone()) else { continue };
        if matters(&config) == matters(&was.config) {
            continue;
        }
        for (partition, state) in (0..).zip(&was.partitions) {
            let unsynced = state.is_unsynced(&was.config) && config.durability == Durability::Fsync;
            let target = Partition { unsynced, ..state.clone() };
            draft.settle_as(LogId { topic: was.id, partition }, target, &BTreeSet::new(), Lead::Keep);
        }
    }
    draft
}

fn resolve(image: &Image, asked: &AlterResource) -> Result<ConfigResource, AlterConfigError> {
    match (asked.kind, asked.name.as_str()) {
        (TOPIC, name) => {
            names::check_topic_name(name)?;
            match image.topic(name) {
                Some(_) => Ok(ConfigResource::Topic(name.to_owned())),
                None => Err(AlterConfigError::UnknownTopic(name.to_owned())),
            }
        }
        (BROKER, "") => Ok(ConfigResource::AllBrokers),
        (BROKER, name) => {
            let id = NodeId(name.parse().map_err(|_| AlterConfigError::NotANode(name.to_owned()))?);
            match image.broker(id) {
                Some(_) => Ok(ConfigResource::Broker(id)),
                None => Err(AlterConfigError::UnknownBroker(id)),
            }
        }
        (BROKER_LOGGER, _) => Err(AlterConfigError::Unsupported("loggers")),
        (CLIENT_METRICS, _) => Err(AlterConfigError::Unsupported("client metrics")),
        (GROUP, _) => Err(AlterConfigError::Unsupported("groups")),
        (kind, _) => Err(AlterConfigError::UnknownResource(kind)),
    }
}

fn refuse_nulls<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), AlterConfigError> {
    let names: Vec<&str> = names.map(String::as_str).collect();
    if names.is_empty() { Ok(()) } else { Err(AlterConfigError::NullValue(names.join(", "))) }
}

/// What a value has to be, and the text that is in effect where the resource itself has none.
struct Editable {
    kind: Kind,
    valid: Valid,
    fallback: String,
}

/// The configuration behind a name, if it may be altered on this resource.
fn editable(image: &Image, resource: &ConfigResource, name: &str) -> Result<Editable, AlterConfigError> {
    let of_topics = match resource {
        ConfigResource::Topic(_) => topic_config::definition(name),
        ConfigResource::Broker(_) | ConfigResource::AllBrokers => topic_config::definition_by_synonym(name),
    };
    match (resource, of_topics, dynamic_broker_config::definition(name)) {
        (ConfigResource::Topic(_), None, _) => Err(InvalidConfig::UnknownName(name.to_owned()).into()),
        (ConfigResource::Broker(_), Some(_), _) => Err(AlterConfigError::OneBrokerOnly { name: name.to_owned() }),
        (_, Some(def), _) => Ok(Editable { kind: def.kind, valid: def.valid, fallback: image.topic_default(def) }),
        (ConfigResource::Broker(id), None, Some(def)) => {
            Ok(Editable { kind: def.kind, valid: def.valid, fallback: image.broker_config_text(*id, def) })
        }
        (_, None, Some(def)) => Ok(Editable { kind: def.kind, valid: def.valid, fallback: def.default.to_owned() }),
        _ if broker_config::is_known(name) => Err(AlterConfigError::ReadOnly { name: name.to_owned() }),
        _ => Err(AlterConfigError::UnknownBrokerConfig(name.to_owned())),
    }
}

impl Editable {
    /// Reads the value for its refusal, which names the configuration as the asker did.
    fn check(&self, name: &str, text: &str) -> Result<(), AlterConfigError> {
        Ok(topic_config::parse(name, self.kind, self.valid, text).map(drop)?)
    }

    fn edit_list(
        &self,
        name: &str,
        operation: &'static str,
        now: &str,
        with: Option<&str>,
        edit: impl Fn(&mut Vec<String>, String),
    ) -> Result<String, AlterConfigError> {
        if self.kind != Kind::List {
            return Err(AlterConfigError::NotAList { operation, name: name.to_owned() });
        }
        let mut items = topic_config::split_list(now);
        topic_config::split_list(with.unwrap_or("")).into_iter().for_each(|item| edit(&mut items, item));
        Ok(items.join(","))
    }
}

fn append(items: &mut Vec<String>, item: String) {
    if !items.contains(&item) {
        items.push(item);
    }
}

fn subtract(items: &mut Vec<String>, item: String) {
    items.retain(|had| *had != item);
}

/// The records that lead from one set of overrides to another, once the new set is known to make sense together.
fn difference(
    image: &Image,
    resource: &ConfigResource,
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Result<Vec<Record>, AlterConfigError> {
    let engines = &image.defaults().storage;
    match resource {
        ConfigResource::Topic(_) => {
            let text_of =
                |def: &TopicConfigDef| after.get(def.name).cloned().unwrap_or_else(|| image.topic_default(def));
            topic_config::check_fixed(before, after)?;
            topic_config::check_together(text_of)?;
            engines.check_promises(text_of)?;
        }
        ConfigResource::AllBrokers => {
            let default_by = |all: &BTreeMap<String, String>, def: &TopicConfigDef| {
                let set = def.synonym().and_then(|name| all.get(name)).cloned();
                let in_file = || image.defaults().topic(def.name).map(str::to_owned);
                set.or_else(in_file).unwrap_or_else(|| topic_config::table_default(def))
            };
            let default = |def: &TopicConfigDef| default_by(after, def);
            topic_config::check_together(default)?;
            engines.check_promises(|def| match def.name {
                STORAGE => engines.default_name().to_owned(),
                _ => default(def),
            })?;
            // Topics that say nothing themselves follow. Where a promise is beyond an engine already (another engine may have
            // taken the name) no change here is to blame.
            for topic in image.topics() {
                let own = image.overrides(&ConfigResource::Topic(topic.name.to_string()));
                let kept = |all: &BTreeMap<String, String>| {
                    engines.check_promises(|def| own.get(def.name).cloned().unwrap_or_else(|| default_by(all, def)))
                };
                if let (Err(why), Ok(())) = (kept(after), kept(before)) {
                    return Err(InvalidConfig::Conflict(format!("for topic {}: {why}", topic.name)).into());
                }
            }
        }
        ConfigResource::Broker(_) => {}
    }
    let removed = before.keys().filter(|name| !after.contains_key(*name));
    let removed = removed.map(|name| config_record(resource, name, None));
    let set = after.iter().filter(|(name, value)| before.get(*name) != Some(value));
    Ok(removed.chain(set.map(|(name, value)| config_record(resource, name, Some(value.clone())))).collect())
}
