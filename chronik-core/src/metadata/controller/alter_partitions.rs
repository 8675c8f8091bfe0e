//! A leader asks for another in-sync set (AlterPartition, KIP-497).
//!
//! **The set that counts is the one that was decided against.** The asker names the leader epoch and the partition epoch that
//! it knows, and the broker epoch of each member it wants (KIP-903): if one of them is another by now, its reasons are
//! over. Nobody joins who is fenced or about to stop (KIP-841), since its next election would be the set's.
//!
//! **A request is over once its number is written**, refused or not: the asker goes on counting the set it asked for until
//! then, and a copy of the request that arrives later must find nothing to do.

use super::Decision;
use super::draft::Draft;
use super::settle::Lead;
use crate::ids::{LeaderEpoch, LogId, NodeId, Offset};
use crate::metadata::image::{Image, Partition};
use crate::metadata::records::{Record, RequestRecord};
use std::collections::BTreeSet;

/// One partition's wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedInSync {
    pub log: LogId,
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: i32,
    /// With the broker epoch in which the leader has seen each catch up.
    pub isr: Vec<(NodeId, Offset)>,
    /// All of them have synced everything up to the watermark and to the start of the leader's epoch, before which others
    /// may have committed more than it knows of; and from when it asks the leader counts only what is synced. So what was
    /// acknowledged is durable, and [`Partition::unsynced`] ends.
    pub synced: bool,
}

/// All wishes of a broker at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterPartitions {
    pub broker_epoch: Offset,
    /// Grows with each request of the process, from 1; kept when the same request is sent again. A broker asks one at a time.
    pub seq: i64,
    pub partitions: Vec<WantedInSync>,
}

/// A partition as it is after a request. The applied image says the same, and it alone counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlteredPartition {
    pub leader: Option<NodeId>,
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: i32,
    pub isr: Vec<NodeId>,
}

/// Why a set stays what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlterPartitionError {
    /// Of the whole request.
    #[error("the broker is not registered in that epoch")]
    StaleBrokerEpoch,
    /// Of the whole request: whoever is asked does not know of that registration yet, and so is the controller no more.
    #[error("the broker's registration in that epoch is not known here")]
    UnknownBrokerEpoch,
    /// Of the whole request: this one or a later one was decided before. The image shows how.
    #[error("the request was decided before")]
    Decided,
    #[error("there is no such partition")]
    UnknownTopicOrPartition,
    #[error("the partition has another leader by now")]
    FencedLeaderEpoch,
    #[error("the asker does not lead the partition, or the set is none that it could have")]
    InvalidRequest,
    #[error("the partition has changed since")]
    InvalidUpdateVersion,
    #[error("replica {0} is fenced, about to stop, or has started anew since")]
    IneligibleReplica(NodeId),
}

/// A decision on each partition, in the order asked.
pub type AlterPartitionsReply = Vec<(LogId, Result<AlteredPartition, AlterPartitionError>)>;

pub fn alter_partitions(
    image: &Image,
    node: NodeId,
    asked: &AlterPartitions,
) -> Result<Decision<AlterPartitionsReply>, AlterPartitionError> {
    let broker = match image.broker(node) {
        Some(broker) if broker.epoch == asked.broker_epoch => broker,
        Some(broker) if broker.epoch > asked.broker_epoch => return Err(AlterPartitionError::StaleBrokerEpoch),
        _ => return Err(AlterPartitionError::UnknownBrokerEpoch),
    };
    if asked.seq <= broker.last_seq {
        return Err(AlterPartitionError::Decided);
    }
    let mut draft = Draft::new(image);
    let request = RequestRecord { node_id: node.0, broker_epoch: asked.broker_epoch.0, seq: asked.seq };
    draft.push(Record::Request(request));
    let reply = asked.partitions.iter().map(|wanted| (wanted.log, alter_one(&mut draft, node, wanted))).collect();
    Ok(draft.decide(reply))
}

fn alter_one(draft: &mut Draft, node: NodeId, wanted: &WantedInSync) -> Result<AlteredPartition, AlterPartitionError> {
    let LogId { topic, partition } = wanted.log;
    let image = draft.image();
    let was = image.partition(topic, partition).ok_or(AlterPartitionError::UnknownTopicOrPartition)?;
    if wanted.leader_epoch != was.leader_epoch {
        return Err(AlterPartitionError::FencedLeaderEpoch);
    }
    if was.leader != Some(node) {
        return Err(AlterPartitionError::InvalidRequest);
    }
    if wanted.partition_epoch != was.partition_epoch {
        return Err(AlterPartitionError::InvalidUpdateVersion);
    }
    let members: BTreeSet<NodeId> = wanted.isr.iter().map(|(member, _)| *member).collect();
    let known = members.iter().all(|member| was.replicas.contains(member));
    if !known || members.len() != wanted.isr.len() || !members.contains(&node) {
        return Err(AlterPartitionError::InvalidRequest);
    }
    for (member, epoch) in &wanted.isr {
        let broker = image.broker(*member).filter(|broker| broker.epoch == *epoch && broker.serves(wanted.log));
        // The leader itself may be about to stop: it leads until somebody else can.
        if !broker.is_some_and(|broker| broker.is_active() || *member == node) {
            return Err(AlterPartitionError::IneligibleReplica(*member));
        }
    }
    let isr: Vec<NodeId> = wanted.isr.iter().map(|(member, _)| *member).collect();
    // While too few are in sync others are eligible, of whom the leader knows nothing.
    let enough = image.topic_by_id(topic).is_some_and(|topic| isr.len() >= was.in_sync_min(&topic.config));
    let target = Partition { isr, unsynced: was.unsynced && !(wanted.synced && enough), ..was.clone() };
    draft.settle_as(wanted.log, target, &BTreeSet::new(), Lead::Keep);
    let is = draft.image().partition(topic, partition).ok_or(AlterPartitionError::UnknownTopicOrPartition)?;
    Ok(AlteredPartition {
        leader: is.leader,
        leader_epoch: is.leader_epoch,
        partition_epoch: is.partition_epoch,
        isr: is.isr.clone(),
    })
}
