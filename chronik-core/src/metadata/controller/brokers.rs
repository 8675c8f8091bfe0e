//! Brokers come, fall silent, stop, and go for good; and what that means for the partitions they have.
//!
//! Unlike [`super::register_broker`], which is for a node that is alone, a broker of a cluster is fenced by its own
//! registration: it leads nothing until the controller has heard that it knows of it.

use super::bootstrap::{Registration, registration_record};
use super::draft::Draft;
use super::settle::Lead;
use super::{Decision, liveness::Verdict};
use crate::ids::{LogId, NodeId, Offset};
use crate::metadata::image::{Image, Partition};
use crate::metadata::records::{
    BrokerUnregisteredRecord, METADATA_VERSION, METADATA_VERSION_MIN, Record, RegisterBrokerRecord,
};
use std::collections::BTreeSet;

/// Leaders that go back to their preferred replica in one round (Kafka's number), so that a broker that is back is not
/// given all its work at one moment, and no entry becomes too large.
pub const LEADER_MOVES_PER_ROUND: usize = 1_000;

/// Why a broker is not taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// Two machines are configured to be one broker.
    #[error(
        "broker {0} is alive and has another data directory: stop it first, or give this one another node id if they are two"
    )]
    Duplicate(NodeId),
    #[error("the cluster is at metadata.version {level}, and the broker's release works with {min} to {max}")]
    UnsupportedVersion { level: i16, min: i16, max: i16 },
    /// The asker may be a process that has ended, and its request late: whoever lives asks again, after that one.
    #[error("the broker's present registration is not the one that this comes after")]
    RegisteredSince { present: Option<Offset> },
}

/// A process of a broker has started; it is fenced. What its logs have lost is taken out of the sets that promise it.
///
/// Asked again by the same process it decides nothing: [`registered_epoch`] answers both times. A request comes after the
/// registration that it names and after no other: one of a process that has ended, late on its way, would otherwise take the
/// place of the process that runs now, which nobody could tell from a later start.
pub fn admit_broker(image: &Image, registration: &Registration) -> Result<Decision<()>, AdmitError> {
    let node = registration.node;
    let was = image.broker(node);
    if was.is_some_and(|was| was.incarnation == registration.incarnation) {
        return Ok(Decision::new(Vec::new(), ()));
    }
    // The directory is locked by the process that uses it, so the same directory means that the process before has ended.
    let same_directory = was.is_some_and(|was| was.directory_id == registration.directory_id);
    if !same_directory && was.is_some_and(|was| !was.fenced) {
        return Err(AdmitError::Duplicate(node));
    }
    let present = was.map(|was| was.epoch);
    if registration.after != present {
        return Err(AdmitError::RegisteredSince { present });
    }
    let (level, alone) = (image.metadata_version(), METADATA_VERSION_MIN..=METADATA_VERSION_MIN);
    let supported = registration.features.get(METADATA_VERSION).unwrap_or(&alone);
    if !supported.contains(&level) {
        return Err(AdmitError::UnsupportedVersion { level, min: *supported.start(), max: *supported.end() });
    }
    let mut draft = Draft::new(image);
    draft.push(Record::RegisterBroker(RegisterBrokerRecord { fenced: true, ..registration_record(registration) }));
    for log in draft.partitions_on(&BTreeSet::from([node])) {
        // Without a sync on each replica, a process that did not stop in order may have lost what it acknowledged.
        let unsynced = !registration.clean && is_unsynced(draft.image(), log);
        // A log that is missing was not made before the process ended, or was taken away: that cannot be told from here. It
        // counts as lost as long as somebody else may have what was committed; where nobody may, nothing else would come back.
        let missing = registration.lost.missing.contains(&log) && is_held_by_others(draft.image(), log, node);
        let lost = !same_directory || unsynced || missing || registration.lost.damaged.contains(&log);
        draft.settle(log, &if lost { BTreeSet::from([node]) } else { BTreeSet::new() }, Lead::Keep);
    }
    Ok(draft.decide(()))
}

/// Whether somebody else than this one has all that was committed, as far as is known.
fn is_held_by_others(image: &Image, log: LogId, node: NodeId) -> bool {
    let holders = image.partition(log.topic, log.partition).map(|state| state.isr.iter().chain(&state.elr));
    holders.is_some_and(|mut holders| holders.any(|holder| *holder != node))
}

fn is_unsynced(image: &Image, log: LogId) -> bool {
    let known = image.topic_by_id(log.topic).and_then(|topic| Some((topic.partition(log.partition)?, &topic.config)));
    known.is_some_and(|(partition, config)| partition.is_unsynced(config))
}

/// The broker epoch of this very process, once its registration is applied.
pub fn registered_epoch(image: &Image, node: NodeId, incarnation: [u8; 16]) -> Option<Offset> {
    image.broker(node).filter(|broker| broker.incarnation == incarnation).map(|broker| broker.epoch)
}

/// No broker of that number is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Broker ID {0} is not currently registered")]
pub struct NotRegistered(pub NodeId);

/// Takes a broker out for good (UnregisterBroker, 64). Its replicas stay assigned until somebody reassigns them; should it
/// register again, all that it had counts as lost.
pub fn unregister_broker(image: &Image, node: NodeId) -> Result<Decision<()>, NotRegistered> {
    let epoch = image.broker(node).ok_or(NotRegistered(node))?.epoch;
    let mut draft = Draft::new(image);
    draft.push(Record::BrokerUnregistered(BrokerUnregisteredRecord { node_id: node.0, broker_epoch: epoch.0 }));
    draft.settle_all(&BTreeSet::from([node]));
    Ok(draft.decide(()))
}

/// Carries out what the heartbeats say. What is meant for another epoch of a broker is left out.
///
/// Who may stop is fenced if it leads nothing that another one in sync could: then the eligible take over what remains
/// without waiting for the session to end.
pub fn act_on_heartbeats(image: &Image, verdict: &Verdict) -> Decision<()> {
    let mut draft = Draft::new(image);
    let mut touched = BTreeSet::new();
    let current = |(node, epoch): &(NodeId, Offset)| image.broker(*node).is_some_and(|broker| broker.epoch == *epoch);
    for at in verdict.fence.iter().filter(|at| current(at)) {
        draft.set_state(at.0, |broker| broker.fenced = true);
        touched.insert(at.0);
    }
    for at in verdict.unfence.iter().filter(|at| current(at)) {
        draft.set_state(at.0, |broker| broker.fenced = false);
        touched.insert(at.0);
    }
    for (at, offline) in verdict.offline.iter().filter(|(at, _)| current(at)) {
        draft.set_state(at.0, |broker| broker.offline.clone_from(offline));
        touched.insert(at.0);
    }
    for at in verdict.stopping.iter().filter(|at| current(at)) {
        draft.set_state(at.0, |broker| broker.in_controlled_shutdown = true);
        touched.insert(at.0);
    }
    // What could not be moved before is tried again; only who had nothing left is let go.
    let (busy, ready): (BTreeSet<NodeId>, BTreeSet<NodeId>) =
        verdict.may_stop.iter().filter(|at| current(at)).map(|at| at.0).partition(|node| has_work(image, *node));
    touched.extend(busy);
    for node in &ready {
        draft.set_state(*node, |broker| broker.fenced = true);
        touched.insert(*node);
    }
    draft.settle_all(&touched);
    draft.decide(())
}

/// Whether it leads a partition that another active replica in sync could lead.
fn has_work(image: &Image, node: NodeId) -> bool {
    let could = |partition: &Partition| {
        let other = |member: &NodeId| *member != node && image.is_active(*member);
        partition.leader == Some(node) && partition.isr.iter().any(other)
    };
    image.topics().any(|topic| topic.partitions.iter().any(could))
}

/// Gives leads back to preferred replicas that are in sync and active, at most so many. Replies with how many.
pub fn balance_leaders(image: &Image, moves_max: usize) -> Decision<usize> {
    let mut draft = Draft::new(image);
    let astray = draft.partitions(|partition| {
        let preferred = partition.staying().next();
        let can = |node: NodeId| partition.isr.contains(&node) && image.is_active(node);
        partition.leader.is_some() && partition.leader != preferred && preferred.is_some_and(can)
    });
    let mut moved = 0;
    for log in astray {
        if moved == moves_max {
            break;
        }
        moved += usize::from(draft.settle(log, &BTreeSet::new(), Lead::Prefer));
    }
    draft.decide(moved)
}
