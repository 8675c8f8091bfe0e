//! ElectLeaders (KIP-183, KIP-460): back to the preferred replica, or, at the price of records, to any that lives.

use super::Decision;
use super::draft::Draft;
use super::settle::Lead;
use crate::ids::LogId;
use crate::metadata::image::{Image, Partition};
use std::collections::BTreeSet;

/// Whom to elect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElectionKind {
    /// The first replica of the list.
    Preferred,
    /// One out of sync, if no other is left.
    Unclean,
}

/// Why there was no election.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElectLeaderError {
    #[error("No such topic as {0}")]
    UnknownTopic(String),
    #[error("No such partition as {topic}-{partition}")]
    UnknownPartition { topic: String, partition: i32 },
    #[error("Leader election not needed for topic partition.")]
    NotNeeded,
    #[error("The preferred leader was not available.")]
    PreferredNotAvailable,
    #[error("Eligible topic partition leaders are not available.")]
    NoneEligible,
}

/// A partition by its topic's name, and what became of it.
pub type Election = (String, i32, Result<(), ElectLeaderError>);

/// For these partitions; each is answered.
pub fn elect_leaders(image: &Image, kind: ElectionKind, partitions: &[(String, i32)]) -> Decision<Vec<Election>> {
    let mut draft = Draft::new(image);
    let mut elect_one = |name: &String, number: i32| {
        let topic = image.topic(name).ok_or_else(|| ElectLeaderError::UnknownTopic(name.clone()))?;
        let unknown = || ElectLeaderError::UnknownPartition { topic: name.clone(), partition: number };
        let partition = topic.partition(number).ok_or_else(unknown)?;
        // A partition that is named twice is answered twice and elected once.
        elect(&mut draft, kind, LogId { topic: topic.id, partition: number }, partition)
    };
    let reply = partitions.iter().map(|(name, number)| (name.clone(), *number, elect_one(name, *number))).collect();
    draft.decide(reply)
}

/// For every partition; those that need no election are left out of the answer, as in Kafka.
pub fn elect_all_leaders(image: &Image, kind: ElectionKind) -> Decision<Vec<Election>> {
    let mut draft = Draft::new(image);
    let mut reply = Vec::new();
    for topic in image.topics() {
        for (number, partition) in (0..).zip(&topic.partitions) {
            match elect(&mut draft, kind, LogId { topic: topic.id, partition: number }, partition) {
                Err(ElectLeaderError::NotNeeded) => {}
                outcome => reply.push((topic.name.to_string(), number, outcome)),
            }
        }
    }
    draft.decide(reply)
}

fn elect(draft: &mut Draft, kind: ElectionKind, log: LogId, was: &Partition) -> Result<(), ElectLeaderError> {
    let preferred = was.staying().next();
    let (lead, needed, refusal) = match kind {
        ElectionKind::Preferred => (Lead::Prefer, was.leader != preferred, ElectLeaderError::PreferredNotAvailable),
        ElectionKind::Unclean => (Lead::Anybody, was.leader.is_none(), ElectLeaderError::NoneEligible),
    };
    if !needed {
        return Err(ElectLeaderError::NotNeeded);
    }
    let elected = |draft: &Draft| {
        let leader = draft.image().partition(log.topic, log.partition).and_then(|partition| partition.leader);
        match kind {
            ElectionKind::Preferred => leader == preferred,
            ElectionKind::Unclean => leader.is_some(),
        }
    };
    if !elected(draft) {
        draft.settle(log, &BTreeSet::new(), lead);
    }
    if elected(draft) { Ok(()) } else { Err(refusal) }
}
