//! Which brokers hold a new partition's replicas (KIP-36).
//!
//! Leaders go round all active brokers, so that each leads as many partitions as any other, give or take one. A partition's
//! other replicas go to the racks that have the fewest of it, so that a rack may fail. Brokers that are fenced or about to
//! stop take replicas only where the active ones are too few, and never lead at first.

use crate::ids::{NodeId, TopicId};
use crate::metadata::image::{Broker, Image, Partition};
use std::collections::BTreeMap;

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
    #[error("Unable to replicate the partition {wanted} time(s): All brokers are currently fenced.")]
    NoneActive { wanted: i16 },
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
    #[error(
        "All brokers specified in the manual partition assignment for partition {0} are fenced or in controlled shutdown."
    )]
    NoneActive(i32),
    #[error("Found multiple manual partition assignments for partition {0}")]
    RepeatedPartition(i32),
    #[error("partitions should be a consecutive 0-based integer sequence")]
    NotConsecutive,
    #[error("Attempted to add {added} additional partition(s), but only {given} assignment(s) were specified.")]
    WrongCount { added: usize, given: usize },
}

/// Replicas for the partitions `from..from + count` of a topic.
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
    let (active, others): (Vec<&Broker>, Vec<&Broker>) =
        image.brokers().values().map(|broker| &**broker).partition(|broker| broker.is_active());
    let replicas = usize::try_from(replication_factor).ok().filter(|&count| count > 0);
    let replicas = replicas.ok_or(BadReplication::NotPositive)?;
    if replicas > image.brokers().len() {
        return Err(BadReplication::TooFewBrokers { wanted: replication_factor, brokers: image.brokers().len() });
    }
    if active.is_empty() {
        return Err(BadReplication::NoneActive { wanted: replication_factor });
    }
    let active = racks_in_turn(active);
    let first = usize::from(topic.0[14]) * 256 + usize::from(topic.0[15]);
    let on = |partition: usize| {
        // After each round of leaders their followers shift by one, so that all do not follow the same neighbour.
        let (turn, round) = (first + partition, partition / active.len());
        let leader = active[turn % active.len()];
        let mut chosen = vec![leader];
        // The rest in turn, beginning elsewhere in each round; those that are not active last.
        let rest = active.len() - 1;
        let mut candidates: Vec<&Broker> =
            (0..rest).map(|step| active[(turn + 1 + (round + step) % rest) % active.len()]).collect();
        candidates.extend((0..others.len()).map(|step| others[(turn + step) % others.len()]));
        while chosen.len() < replicas {
            let of_rack = |broker: &Broker| chosen.iter().filter(|has| has.rack == broker.rack).count();
            // The first of the least: `min_by_key` gives the first among equals.
            let next = (0..candidates.len())
                .min_by_key(|&at| (!candidates[at].is_active(), of_rack(candidates[at])))
                .expect("there are as many brokers as replicas, as checked above");
            chosen.push(candidates.remove(next));
        }
        chosen.into_iter().map(|broker| broker.id).collect()
    };
    Ok((from..from + count).map(on).collect())
}

/// One broker of each rack, then the next of each, so that neighbours are in different racks as long as there are any.
fn racks_in_turn(brokers: Vec<&Broker>) -> Vec<&Broker> {
    let mut taken: BTreeMap<Option<&str>, usize> = BTreeMap::new();
    let mut in_turn: Vec<(usize, &Broker)> = Vec::new();
    for broker in brokers {
        let place = taken.entry(broker.rack.as_deref()).or_default();
        in_turn.push((*place, broker));
        *place += 1;
    }
    in_turn.sort_by_key(|(place, broker)| (*place, broker.rack.clone(), broker.id));
    in_turn.into_iter().map(|(_, broker)| broker).collect()
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

/// New partitions on these replicas, numbered from `first`. The first active replica leads, and all active ones are in
/// sync, since there is nothing to be behind of.
pub(super) fn all_fresh(
    image: &Image,
    first: i32,
    placed: Vec<Vec<NodeId>>,
) -> Result<Vec<(i32, Partition)>, BadAssignment> {
    let fresh = |(number, replicas): (i32, Vec<NodeId>)| {
        let isr: Vec<NodeId> = replicas.iter().copied().filter(|node| image.is_active(*node)).collect();
        let leader = Some(*isr.first().ok_or(BadAssignment::NoneActive(number))?);
        Ok((number, Partition { leader, isr, replicas, ..Partition::default() }))
    };
    (first..).zip(placed).map(fresh).collect()
}
