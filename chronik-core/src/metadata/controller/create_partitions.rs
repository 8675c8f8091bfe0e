//! CreatePartitions: a topic may grow, never shrink.

use super::placement::{self, BadAssignment, BadReplication};
use super::{Decision, no_room};
use crate::ids::NodeId;
use crate::metadata::image::Image;
use crate::metadata::names;
use crate::metadata::snapshot::partition_record;
use std::collections::BTreeMap;

/// A topic that is to have more partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MorePartitions {
    pub topic: String,
    /// How many it shall have altogether.
    pub count: i32,
    /// Replicas of the new ones, where they are chosen by hand.
    pub assignments: Option<Vec<Vec<NodeId>>>,
}

/// Why no partitions were added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreatePartitionsError {
    #[error("This server does not host this topic.")]
    UnknownTopic,
    #[error("Duplicate topic name.")]
    Duplicate,
    #[error("The topic {topic} currently has {has} partition(s); {asked} would not be an increase.")]
    NoIncrease { topic: String, has: usize, asked: i32 },
    #[error("Topic already has {0} partition(s).")]
    HasThem(usize),
    /// The partition of a group or a transaction follows from the count.
    #[error(
        "The number of partitions of {0} cannot be changed: it decides which of them holds which group or transaction."
    )]
    Fixed(String),
    /// One request, or the cluster, may not have that many.
    #[error("{0}")]
    TooMany(String),
    #[error("{0}")]
    BadReplication(#[from] BadReplication),
    #[error("{0}")]
    BadAssignment(#[from] BadAssignment),
}

/// Each topic's outcome, in the order asked for.
pub type CreatePartitionsReply = Vec<(String, Result<(), CreatePartitionsError>)>;

pub fn create_partitions(image: &Image, wanted: &[MorePartitions]) -> Decision<CreatePartitionsReply> {
    let mut repeated = BTreeMap::new();
    for topic in wanted {
        *repeated.entry(topic.topic.as_str()).or_insert(0usize) += 1;
    }
    let mut records = Vec::new();
    let mut partitions_left = image.partitions_left();
    let mut grow = |more: &MorePartitions| -> Result<(), CreatePartitionsError> {
        if repeated[more.topic.as_str()] > 1 {
            return Err(CreatePartitionsError::Duplicate);
        }
        let topic = image.topic(&more.topic).ok_or(CreatePartitionsError::UnknownTopic)?;
        let has = topic.partitions.len();
        let count = usize::try_from(more.count).unwrap_or(0);
        if count == has {
            return Err(CreatePartitionsError::HasThem(has));
        }
        if count < has {
            let topic = more.topic.clone();
            return Err(CreatePartitionsError::NoIncrease { topic, has, asked: more.count });
        }
        if matches!(&*topic.name, names::CONSUMER_OFFSETS | names::TRANSACTION_STATE) {
            return Err(CreatePartitionsError::Fixed(more.topic.clone()));
        }
        let added = count - has;
        if added > partitions_left {
            return Err(CreatePartitionsError::TooMany(no_room(image)));
        }
        let factor = topic.replication_factor();
        let placed = match &more.assignments {
            None => placement::place(image, topic.id, has, added, i16::try_from(factor).unwrap_or(i16::MAX))?,
            Some(given) if given.len() != added => {
                return Err(BadAssignment::WrongCount { added, given: given.len() }.into());
            }
            Some(given) => {
                for replicas in given {
                    placement::check_replicas(image, replicas, Some(factor))?;
                }
                given.clone()
            }
        };
        let first = i32::try_from(has).unwrap_or(i32::MAX);
        let states = placement::all_fresh(image, first, placed)?;
        partitions_left -= added;
        records.extend(states.iter().map(|(number, state)| partition_record(topic.id, *number, state)));
        Ok(())
    };
    let reply = wanted.iter().map(|more| (more.topic.clone(), grow(more))).collect();
    Decision::new(records, reply)
}
