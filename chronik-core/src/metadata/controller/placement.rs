//! Which brokers hold a new partition's replicas.

use crate::ids::{NodeId, TopicId};
use crate::metadata::image::{Image, Partition};

/// Why a partition cannot be replicated as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReplication {
    #[error("Replication factor must be larger than 0, or -1 to use the default value.")]
    NotPositive,
    #[error(
        "Unable to replicate the partition {wanted} time(s): The target replication factor of {wanted} cannot be reached \
         because only {brokers} broker(s) are registered."
    )]
    TooFewBrokers { wanted: i16, brokers: usize },
}

/// Why a list of replicas given by hand cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAssignment {
    #[error("The manual partition assignment includes an empty replica list.")]
    Empty,
    #[error("The manual partition assignment includes the broker {0} more than once.")]
    Repeated(NodeId),
    #[error("The manual partition assignment includes broker {0}, but no such broker is registered.")]
    NoSuchBroker(NodeId),
    #[error(
        "The manual partition assignment includes a partition with {has} replica(s), but this is not consistent with \
         previous partitions, which have {had} replica(s)."
    )]
    Uneven { has: usize, had: usize },
    #[error("Found multiple manual partition assignments for partition {0}")]
    RepeatedPartition(i32),
    #[error("partitions should be a consecutive 0-based integer sequence")]
    NotConsecutive,
    #[error("Attempted to add {added} additional partition(s), but only {given} assignment(s) were specified.")]
    WrongCount { added: usize, given: usize },
}

/// Replicas for the partitions `from..from + count` of a topic: leaders in turn over all brokers, followers next to them.
///
/// Where the turn begins follows from the topic's id, which is random: so leaders spread over brokers although nothing here
/// draws lots.
pub(super) fn place(
    image: &Image,
    topic: TopicId,
    from: usize,
    count: usize,
    replication_factor: i16,
) -> Result<Vec<Vec<NodeId>>, BadReplication> {
    let brokers: Vec<NodeId> = image.brokers().keys().copied().collect();
    let replicas = usize::try_from(replication_factor).ok().filter(|&count| count > 0);
    let replicas = replicas.ok_or(BadReplication::NotPositive)?;
    if replicas > brokers.len() {
        return Err(BadReplication::TooFewBrokers { wanted: replication_factor, brokers: brokers.len() });
    }
    let first = usize::from(topic.0[14]) * 256 + usize::from(topic.0[15]);
    let on = |partition: usize| {
        (0..replicas).map(|replica| brokers[(first + partition + replica) % brokers.len()]).collect()
    };
    Ok((from..from + count).map(on).collect())
}

/// Checks one partition's replicas given by hand.
pub(super) fn check_replicas(image: &Image, replicas: &[NodeId], had: Option<usize>) -> Result<(), BadAssignment> {
    if replicas.is_empty() {
        return Err(BadAssignment::Empty);
    }
    for (place, replica) in replicas.iter().enumerate() {
        if replicas[..place].contains(replica) {
            return Err(BadAssignment::Repeated(*replica));
        }
        if image.broker(*replica).is_none() {
            return Err(BadAssignment::NoSuchBroker(*replica));
        }
    }
    match had {
        Some(had) if had != replicas.len() => Err(BadAssignment::Uneven { has: replicas.len(), had }),
        _ => Ok(()),
    }
}

/// A new partition on these replicas: the first leads, and all are in sync, since there is nothing to be behind of.
pub(super) fn fresh(replicas: Vec<NodeId>) -> Partition {
    Partition { leader: replicas.first().copied(), isr: replicas.clone(), replicas, ..Partition::default() }
}
