//! ElectLeaders (KIP-183, KIP-460): back to the preferred replica, or, at the price of records, to any that lives.

use super::Decision;
use crate::ids::LeaderEpoch;
use crate::metadata::image::{Image, Partition, Topic};
use crate::metadata::snapshot::partition_record;
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
    let mut records = Vec::new();
    let mut elected_already = BTreeSet::new();
    let mut elect_one = |name: &String, number: i32| {
        let topic = image.topic(name).ok_or_else(|| ElectLeaderError::UnknownTopic(name.clone()))?;
        let unknown = || ElectLeaderError::UnknownPartition { topic: name.clone(), partition: number };
        let elected = elect(image, kind, topic.partition(number).ok_or_else(unknown)?)?;
        // A partition that is named twice is answered twice and elected once.
        if elected_already.insert((topic.id, number)) {
            records.push(partition_record(topic.id, number, &elected));
        }
        Ok(())
    };
    let reply = partitions.iter().map(|(name, number)| (name.clone(), *number, elect_one(name, *number))).collect();
    Decision::new(records, reply)
}

/// For every partition; those that need no election are left out of the answer, as in Kafka.
pub fn elect_all_leaders(image: &Image, kind: ElectionKind) -> Decision<Vec<Election>> {
    let mut records = Vec::new();
    let mut reply = Vec::new();
    let numbered = |topic: &'_ Topic| (0..).zip(topic.partitions.clone()).collect::<Vec<(i32, Partition)>>();
    for topic in image.topics() {
        for (number, partition) in numbered(topic) {
            let outcome = match elect(image, kind, &partition) {
                Err(ElectLeaderError::NotNeeded) => continue,
                Err(why) => Err(why),
                Ok(elected) => {
                    records.push(partition_record(topic.id, number, &elected));
                    Ok(())
                }
            };
            reply.push((topic.name.to_string(), number, outcome));
        }
    }
    Decision::new(records, reply)
}

fn elect(image: &Image, kind: ElectionKind, partition: &Partition) -> Result<Partition, ElectLeaderError> {
    let preferred = partition.replicas.first().copied();
    let lives = |node| image.broker(node).is_some();
    match kind {
        ElectionKind::Preferred if partition.leader == preferred => return Err(ElectLeaderError::NotNeeded),
        ElectionKind::Unclean if partition.leader.is_some() => return Err(ElectLeaderError::NotNeeded),
        _ => {}
    }
    let leader = match kind {
        ElectionKind::Preferred => preferred
            .filter(|node| partition.isr.contains(node) && lives(*node))
            .ok_or(ElectLeaderError::PreferredNotAvailable)?,
        ElectionKind::Unclean => {
            partition.replicas.iter().copied().find(|node| lives(*node)).ok_or(ElectLeaderError::NoneEligible)?
        }
    };
    let in_sync = partition.isr.contains(&leader);
    Ok(Partition {
        leader: Some(leader),
        leader_epoch: LeaderEpoch(partition.leader_epoch.0.saturating_add(1)),
        partition_epoch: partition.partition_epoch.saturating_add(1),
        // What an unclean leader lacks is lost, so nobody else can be in sync with it.
        isr: if in_sync { partition.isr.clone() } else { vec![leader] },
        elr: if in_sync { partition.elr.clone() } else { Vec::new() },
        replicas: partition.replicas.clone(),
    })
}
