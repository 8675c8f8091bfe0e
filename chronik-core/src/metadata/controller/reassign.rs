//! AlterPartitionReassignments and ListPartitionReassignments (45 and 46, KIP-455): other replicas for a partition, while
//! it is being used.
//!
//! New replicas are added to the old ones, and the old ones go in the same record that finds all new ones in sync
//! ([`super::settle`]). What is under way can be given another goal, or be cancelled; either way replicas that were only on
//! their way go at once, and one that the partition cannot be without keeps that from happening.

use super::Decision;
use super::draft::Draft;
use super::placement::{self, BadAssignment};
use super::settle::Lead;
use crate::ids::{LogId, NodeId};
use crate::metadata::image::{Image, Partition};
use std::collections::BTreeSet;

/// One partition's goal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassignment {
    pub topic: String,
    pub partition: i32,
    /// In order of preference; `None` cancels what is under way.
    pub replicas: Option<Vec<NodeId>>,
}

/// Why a partition keeps its replicas.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReassignError {
    #[error("This server does not host this topic-partition.")]
    UnknownTopicOrPartition,
    #[error("No partition reassignment is in progress.")]
    NoneInProgress,
    #[error("{0}")]
    BadAssignment(#[from] BadAssignment),
    /// KIP-860.
    #[error("The replication factor is changed from {has} to {wanted}")]
    ReplicationFactorChanged { has: usize, wanted: usize },
    #[error("None of the replicas that would stay is in sync: wait, or reassign to replicas that include one that is.")]
    NobodyInSync,
}

/// Each partition's outcome, in the order asked. `allow_factor_change`: whether a partition may end with another number of
/// replicas than it has (KIP-860).
pub type ReassignReply = Vec<(String, i32, Result<(), ReassignError>)>;

pub fn reassign_partitions(
    image: &Image,
    asked: &[Reassignment],
    allow_factor_change: bool,
) -> Decision<ReassignReply> {
    let mut draft = Draft::new(image);
    let mut outcome = |wanted: &Reassignment| {
        let known =
            draft.image().topic(&wanted.topic).map(|topic| LogId { topic: topic.id, partition: wanted.partition });
        let log = known.ok_or(ReassignError::UnknownTopicOrPartition)?;
        let was = draft.image().partition(log.topic, log.partition).ok_or(ReassignError::UnknownTopicOrPartition)?;
        let target = match &wanted.replicas {
            None if !was.is_reassigning() => return Err(ReassignError::NoneInProgress),
            None => moving(was, original(was))?,
            Some(replicas) => {
                placement::check_replicas(draft.image(), replicas, None)?;
                let (has, wanted) = (original(was).len(), replicas.len());
                if has != wanted && !allow_factor_change {
                    return Err(ReassignError::ReplicationFactorChanged { has, wanted });
                }
                moving(was, replicas.clone())?
            }
        };
        draft.settle_as(log, target, &BTreeSet::new(), Lead::Keep);
        Ok(())
    };
    let reply = asked.iter().map(|wanted| (wanted.topic.clone(), wanted.partition, outcome(wanted))).collect();
    draft.decide(reply)
}

/// The replicas before anything was under way, as far as their order is still known.
fn original(was: &Partition) -> Vec<NodeId> {
    was.replicas.iter().copied().filter(|node| !was.adding.contains(node)).collect()
}

/// The partition on its way to `goal`: with the replicas that it had, the new ones, and none that were only on their way to
/// somewhere else.
fn moving(was: &Partition, goal: Vec<NodeId>) -> Result<Partition, ReassignError> {
    let had = original(was);
    let adding: Vec<NodeId> = goal.iter().copied().filter(|node| !had.contains(node)).collect();
    let removing: Vec<NodeId> = had.into_iter().filter(|node| !goal.contains(node)).collect();
    let replicas: Vec<NodeId> = goal.into_iter().chain(removing.iter().copied()).collect();
    let isr: Vec<NodeId> = was.isr.iter().copied().filter(|node| replicas.contains(node)).collect();
    // Of a partition without a leader those who may still become it must not all go.
    let needed = if was.isr.is_empty() { &was.elr } else { &was.isr };
    if !needed.is_empty() && !needed.iter().any(|node| replicas.contains(node)) {
        return Err(ReassignError::NobodyInSync);
    }
    Ok(Partition { replicas, isr, adding, removing, ..was.clone() })
}

/// A reassignment under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassigning {
    pub topic: String,
    pub partition: i32,
    pub replicas: Vec<NodeId>,
    pub adding: Vec<NodeId>,
    pub removing: Vec<NodeId>,
}

/// Those of these partitions that are being reassigned, or of all; what is not there is left out.
pub fn reassignments(image: &Image, of: Option<&[(String, i32)]>) -> Vec<Reassigning> {
    let under_way = |topic: &str, partition: i32, state: &Partition| {
        state.is_reassigning().then(|| Reassigning {
            topic: topic.to_owned(),
            partition,
            replicas: state.replicas.clone(),
            adding: state.adding.clone(),
            removing: state.removing.clone(),
        })
    };
    match of {
        Some(named) => {
            let named: BTreeSet<&(String, i32)> = named.iter().collect();
            let one =
                |(topic, number): &(String, i32)| under_way(topic, *number, image.topic(topic)?.partition(*number)?);
            named.into_iter().filter_map(one).collect()
        }
        None => image
            .topics()
            .flat_map(|topic| {
                (0..).zip(&topic.partitions).filter_map(|(number, state)| under_way(&topic.name, number, state))
            })
            .collect(),
    }
}
