//! DeleteTopics: by name, or by id (KIP-516).

use super::Decision;
use crate::ids::TopicId;
use crate::metadata::image::Image;
use crate::metadata::records::{Record, TopicDeletedRecord};
use std::collections::BTreeMap;

/// A topic as a request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRef {
    pub name: Option<String>,
    /// [`TopicId::NONE`] where it is named by name.
    pub id: TopicId,
}

/// What was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedTopic {
    pub name: String,
    pub id: TopicId,
}

/// Why a topic was not deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeleteTopicError {
    #[error("This server does not host this topic.")]
    UnknownName,
    #[error("This server does not host this topic ID.")]
    UnknownId,
    #[error("You may not specify both topic name and topic id.")]
    NameAndId,
    #[error("Neither topic name nor id were specified.")]
    NeitherNameNorId,
    #[error("Duplicate topic name or id.")]
    Duplicate,
}

/// Each topic's outcome, in the order asked for.
pub fn delete_topics(image: &Image, named: &[TopicRef]) -> Decision<Vec<Result<DeletedTopic, DeleteTopicError>>> {
    let found: Vec<_> = named.iter().map(|topic| find(image, topic)).collect();
    let mut times: BTreeMap<TopicId, usize> = BTreeMap::new();
    for topic in found.iter().flatten() {
        *times.entry(topic.id).or_default() += 1;
    }
    let once = |outcome: Result<DeletedTopic, DeleteTopicError>| match outcome {
        Ok(topic) if times[&topic.id] > 1 => Err(DeleteTopicError::Duplicate),
        outcome => outcome,
    };
    let reply: Vec<_> = found.into_iter().map(once).collect();
    let records = reply
        .iter()
        .flatten()
        .map(|topic: &DeletedTopic| Record::TopicDeleted(TopicDeletedRecord { topic_id: topic.id.0.to_vec() }));
    Decision::new(records.collect(), reply)
}

fn find(image: &Image, named: &TopicRef) -> Result<DeletedTopic, DeleteTopicError> {
    let topic = match (&named.name, named.id) {
        (None, TopicId::NONE) => return Err(DeleteTopicError::NeitherNameNorId),
        (Some(name), TopicId::NONE) => image.topic(name).ok_or(DeleteTopicError::UnknownName)?,
        (None, id) => image.topic_by_id(id).ok_or(DeleteTopicError::UnknownId)?,
        (Some(_), _) => return Err(DeleteTopicError::NameAndId),
    };
    Ok(DeletedTopic { name: topic.name.to_string(), id: topic.id })
}
