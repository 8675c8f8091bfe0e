//! CreateTopics, and auto-creation: names, placement, configurations.

use super::placement::{self, BadAssignment, BadReplication};
use super::{Decision, no_room};
use crate::ids::{NodeId, TopicId};
use crate::metadata::engines::{BUILT_IN, STORAGE};
use crate::metadata::image::{ConfigResource, Image};
use crate::metadata::names::{self, BadTopicName};
use crate::metadata::snapshot::{config_record, partition_record, topic_record};
use crate::metadata::topic_config::{self, InvalidConfig, TopicConfigDef};
use std::collections::{BTreeMap, BTreeSet};

/// A topic that somebody wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTopic {
    pub name: String,
    /// −1: the cluster's default.
    pub partitions: i32,
    /// −1: the cluster's default.
    pub replication_factor: i16,
    /// Replicas by partition, where they are chosen by hand; the two numbers above are −1 then.
    pub assignments: Vec<(i32, Vec<NodeId>)>,
    pub configs: Vec<(String, Option<String>)>,
}

impl NewTopic {
    /// One that takes every default.
    pub fn with_defaults(name: impl Into<String>) -> Self {
        NewTopic { name: name.into(), partitions: -1, replication_factor: -1, ..NewTopic::default() }
    }
}

/// A topic that exists as soon as the decision is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    pub id: TopicId,
    pub partitions: i32,
    pub replication_factor: i16,
    /// Its own configurations.
    pub configs: BTreeMap<String, String>,
}

/// Why a topic was not created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateTopicError {
    #[error("{0}")]
    BadName(#[from] BadTopicName),
    #[error("Topic '{name}' collides with existing topic: {existing}")]
    Collides { name: String, existing: String },
    #[error("Duplicate topic name.")]
    Duplicate,
    #[error("Creation of internal topic {0} is prohibited.")]
    Prohibited(String),
    #[error("Topic '{0}' already exists.")]
    Exists(String),
    #[error("Number of partitions was set to an invalid non-positive value.")]
    BadPartitions,
    /// One request, or the cluster, may not have that many.
    #[error("{0}")]
    TooManyPartitions(String),
    #[error("{0}")]
    BadReplication(#[from] BadReplication),
    #[error("{0}")]
    BadAssignment(#[from] BadAssignment),
    #[error("A manual partition assignment was specified, but {0} was not set to -1.")]
    AssignmentAndNumber(&'static str),
    #[error("{0}")]
    InvalidConfig(#[from] InvalidConfig),
}

/// Each topic's outcome, in the order asked for.
pub type CreateTopicsReply = Vec<(String, Result<CreatedTopic, CreateTopicError>)>;

/// Decides for each topic by itself. `new_id` draws random ids; those that [`names::is_usable_topic_id`] refuses or that
/// are taken are drawn again.
pub fn create_topics(
    image: &Image,
    wanted: &[NewTopic],
    mut new_id: impl FnMut() -> TopicId,
) -> Decision<CreateTopicsReply> {
    let mut repeated = BTreeMap::new();
    for topic in wanted {
        *repeated.entry(topic.name.as_str()).or_insert(0usize) += 1;
    }
    let mut records = Vec::new();
    let mut reply = Vec::with_capacity(wanted.len());
    let mut made = BTreeSet::new();
    let mut partitions_left = image.partitions_left();
    // Made only once a request gets that far, and then once for all its topics.
    let mut taken_keys: Option<BTreeMap<String, String>> = None;
    for topic in wanted {
        let mut create = || -> Result<CreatedTopic, CreateTopicError> {
            if repeated[topic.name.as_str()] > 1 {
                return Err(CreateTopicError::Duplicate);
            }
            check_name(image, &topic.name)?;
            let keys = taken_keys.get_or_insert_with(|| collision_keys(image));
            let key = names::collision_key(&topic.name);
            if let Some(existing) = keys.get(&key) {
                return Err(CreateTopicError::Collides { name: topic.name.clone(), existing: existing.clone() });
            }
            let id = std::iter::repeat_with(&mut new_id)
                .find(|&id| names::is_usable_topic_id(id) && image.topic_by_id(id).is_none() && !made.contains(&id))
                .expect("the iterator never ends");
            let placed = placement_of(image, topic, id, partitions_left)?;
            let states = placement::all_fresh(image, 0, placed)?;
            let configs = check_configs(image, topic)?;
            partitions_left -= states.len();
            made.insert(id);
            // Only a topic with a '.' or '_' can collide with another one.
            if key.contains('_') {
                keys.insert(key, topic.name.clone());
            }
            let created = CreatedTopic {
                id,
                partitions: i32::try_from(states.len()).unwrap_or(i32::MAX),
                replication_factor: states
                    .first()
                    .map_or(0, |(_, state)| i16::try_from(state.replicas.len()).unwrap_or(i16::MAX)),
                configs,
            };
            let resource = ConfigResource::Topic(topic.name.clone());
            records.push(topic_record(id, &topic.name));
            for (name, value) in &created.configs {
                records.push(config_record(&resource, name, Some(value.clone())));
            }
            records.extend(states.iter().map(|(number, state)| partition_record(id, *number, state)));
            Ok(created)
        };
        let outcome = create();
        reply.push((topic.name.clone(), outcome));
    }
    Decision::new(records, reply)
}

fn check_name(image: &Image, name: &str) -> Result<(), CreateTopicError> {
    names::check_topic_name(name)?;
    if name == names::CLUSTER_METADATA {
        return Err(CreateTopicError::Prohibited(name.to_owned()));
    }
    if image.topic(name).is_some() {
        return Err(CreateTopicError::Exists(name.to_owned()));
    }
    Ok(())
}

/// The names that a new one could be mistaken for, by what they become in metrics.
fn collision_keys(image: &Image) -> BTreeMap<String, String> {
    let dotted = image.topics().filter(|topic| topic.name.contains(['.', '_']));
    dotted.map(|topic| (names::collision_key(&topic.name), topic.name.to_string())).collect()
}

fn placement_of(
    image: &Image,
    topic: &NewTopic,
    id: TopicId,
    partitions_left: usize,
) -> Result<Vec<Vec<NodeId>>, CreateTopicError> {
    if !topic.assignments.is_empty() {
        return assigned(image, topic, partitions_left);
    }
    let defaults = image.defaults();
    let partitions = if topic.partitions == -1 { defaults.partitions } else { topic.partitions };
    let partitions =
        usize::try_from(partitions).ok().filter(|&count| count > 0).ok_or(CreateTopicError::BadPartitions)?;
    if partitions > partitions_left {
        return Err(CreateTopicError::TooManyPartitions(no_room(image)));
    }
    let factor = topic.replication_factor;
    let factor = if factor == -1 { defaults.replication_factor } else { factor };
    Ok(placement::place(image, id, 0, partitions, factor)?)
}

fn assigned(image: &Image, topic: &NewTopic, partitions_left: usize) -> Result<Vec<Vec<NodeId>>, CreateTopicError> {
    if topic.partitions != -1 {
        return Err(CreateTopicError::AssignmentAndNumber("numPartitions"));
    }
    if topic.replication_factor != -1 {
        return Err(CreateTopicError::AssignmentAndNumber("replicationFactor"));
    }
    if topic.assignments.len() > partitions_left {
        return Err(CreateTopicError::TooManyPartitions(no_room(image)));
    }
    let mut by_partition = BTreeMap::new();
    for (partition, replicas) in &topic.assignments {
        let had = topic.assignments.first().map(|(_, replicas)| replicas.len());
        placement::check_replicas(image, replicas, had)?;
        if by_partition.insert(*partition, replicas.clone()).is_some() {
            return Err(BadAssignment::RepeatedPartition(*partition).into());
        }
    }
    if !(0..).zip(by_partition.keys()).all(|(number, &partition)| number == partition) {
        return Err(BadAssignment::NotConsecutive.into());
    }
    Ok(by_partition.into_values().collect())
}

/// A configuration given twice counts as it was given last, as Kafka's map of them does.
///
/// The engine is written down wherever it is another than the built-in one, since another default may hold later.
fn check_configs(image: &Image, topic: &NewTopic) -> Result<BTreeMap<String, String>, InvalidConfig> {
    let mut configs = BTreeMap::new();
    for (name, value) in &topic.configs {
        let value = value.as_ref().ok_or_else(|| InvalidConfig::NullValue(name.clone()))?;
        configs.insert(name.clone(), value.clone());
    }
    let text_of = |configs: &BTreeMap<String, String>, def: &TopicConfigDef| {
        configs.get(def.name).cloned().unwrap_or_else(|| image.topic_default(def))
    };
    let engines = &image.defaults().storage;
    if !configs.contains_key(STORAGE) {
        let compacts = topic_config::definition("cleanup.policy")
            .is_some_and(|def| topic_config::split_list(&text_of(&configs, def)).iter().any(|item| item == "compact"));
        let engine = engines.for_new_topic(names::is_internal(&topic.name) && compacts);
        if engine != BUILT_IN {
            configs.insert(STORAGE.to_owned(), engine.to_owned());
        }
    }
    topic_config::check(&configs, |def| image.topic_default(def))?;
    engines.check_is_there(configs.get(STORAGE).map_or(BUILT_IN, |name| name.trim()))?;
    engines.check_promises(|def| text_of(&configs, def))?;
    Ok(configs)
}
