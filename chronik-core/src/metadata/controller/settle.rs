//! What follows for one partition from what is known of its brokers: who is in sync, who leads, who may lead later.
//!
//! One function for every occasion — a broker is fenced, comes back, stops, or loses a log; a leader asks for another
//! in-sync set; replicas are exchanged. The occasion changes brokers or the partition's sets first, and everything else is
//! found here, so that the rules stand in one place:
//!
//! - **In sync** is nobody who cannot serve. Who is about to stop leaves the set, unless the set were without an active
//!   member then.
//! - **Eligible** (KIP-966): while fewer are in sync than `min.insync.replicas` nothing is committed, so whoever was in
//!   sync when that began still holds everything committed, and may lead. As soon as enough are in sync again nobody is
//!   eligible apart from them. Who has lost records is out of both sets.
//! - **The leader** stays if it can. Else one in sync, else one eligible, who then is alone in sync: neither loses
//!   anything. Else, where records may be lost rather than the partition be offline, whoever lives, the last leader before
//!   all others; this is marked ([`Partition::unclean_epoch`]). Under `chronik.durability=replicated` the last leader alone
//!   may come back like this unasked, once both sets are empty.
//! - **Epochs** grow: the partition epoch with each change; the leader epoch with each other leader, or none, and when a
//!   replica goes. It deletes its log then, and were it to come back within the same epoch, a leader that did not see it go
//!   would take it for having all that it had.

use crate::ids::{LeaderEpoch, LogId, NodeId};
use crate::metadata::image::{Image, Partition};
use std::collections::BTreeSet;

/// What the occasion says of the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lead {
    /// No change without need.
    Keep,
    /// The preferred replica, if it is in sync and active.
    Prefer,
    /// Anybody rather than nobody.
    Anybody,
}

/// The partition as it is to be, starting from `target`, in which the occasion has changed replicas and sets; `None` if
/// that is what it is already. `lost` are those who hold less than they did.
pub(super) fn settle(
    image: &Image,
    log: LogId,
    target: Partition,
    lost: &BTreeSet<NodeId>,
    lead: Lead,
) -> Option<Partition> {
    let topic = image.topic_by_id(log.topic)?;
    let was = topic.partition(log.partition)?;
    let config = &topic.config;
    let serves = |node: &NodeId| image.broker(*node).is_some_and(|broker| broker.serves(log));
    let active = |node: &NodeId| serves(node) && image.is_active(*node);

    let mut is = target;
    is.isr.retain(|node| is.replicas.contains(node) && serves(node) && !lost.contains(node));
    if is.isr.iter().any(active) {
        is.isr.retain(active);
    }
    complete_reassignment(&mut is, config.min_insync_replicas);

    // Whoever held everything committed, and does still.
    let mut eligible: Vec<NodeId> = [&was.isr[..], &was.elr].concat();
    eligible.retain(|node| is.replicas.contains(node) && !lost.contains(node));
    let first = |from: &[NodeId]| {
        let among = |fit: &dyn Fn(&NodeId) -> bool| is.replicas.iter().copied().find(|n| from.contains(n) && fit(n));
        among(&active).or_else(|| among(&serves))
    };
    let preferred = is.staying().next().filter(|node| lead == Lead::Prefer && is.isr.contains(node) && active(node));
    let stays = was.leader.filter(|leader| is.isr.contains(leader));
    let mut leader = preferred
        .or_else(|| stays.filter(active))
        .or_else(|| first(&is.isr).filter(active))
        .or(stays)
        .or_else(|| first(&is.isr));
    let mut unclean = false;
    if leader.is_none() {
        leader = first(&eligible);
        if leader.is_none() {
            let last = was.leader.or(was.last_known_leader).filter(|last| is.replicas.contains(last) && serves(last));
            leader = if lead == Lead::Anybody || config.unclean_leader_election_enable {
                last.or_else(|| first(&was.last_known_elr)).or_else(|| first(&is.replicas))
            } else {
                last.filter(|_| was.is_unsynced(config) && eligible.is_empty())
            };
            unclean = leader.is_some();
        }
        is.isr.extend(leader);
    }

    let enough = is.isr.len() >= is.in_sync_min(config);
    let in_sync = |node: &NodeId| is.isr.contains(node);
    if unclean || enough {
        // What they hold is not all there is any more.
        is.elr.clear();
        is.last_known_elr.clear();
    } else {
        eligible.retain(|node| !in_sync(node));
        eligible.sort_unstable();
        let mut known = [&was.isr[..], &was.elr, &was.last_known_elr].concat();
        known.retain(|node| is.replicas.contains(node) && !in_sync(node) && !eligible.contains(node));
        known.sort_unstable();
        known.dedup();
        is.elr = eligible;
        is.last_known_elr = known;
    }
    is.last_known_leader = if leader.is_none() { was.leader.or(was.last_known_leader) } else { None };
    is.leader = leader;
    is.leader_epoch = was.leader_epoch;
    is.partition_epoch = was.partition_epoch;
    let removed = was.replicas.iter().any(|node| !is.replicas.contains(node));
    if is.leader != was.leader || removed {
        is.leader_epoch = LeaderEpoch(was.leader_epoch.0.saturating_add(1));
    }
    if unclean {
        is.unclean_epoch = Some(is.leader_epoch);
    }
    if is == *was {
        return None;
    }
    is.partition_epoch = was.partition_epoch.saturating_add(1);
    Some(is)
}

/// The old replicas go as soon as all new ones are in sync, and enough of those who stay: a reassignment must not leave a
/// partition with fewer in sync than it needs (KIP-455).
fn complete_reassignment(partition: &mut Partition, in_sync_min: usize) {
    if !partition.is_reassigning() {
        return;
    }
    let staying: Vec<NodeId> = partition.staying().collect();
    let in_sync: Vec<NodeId> = partition.isr.iter().copied().filter(|node| staying.contains(node)).collect();
    let enough = in_sync.len() >= in_sync_min.min(staying.len()).max(1);
    if enough && partition.adding.iter().all(|node| in_sync.contains(node)) {
        partition.replicas = staying;
        partition.isr = in_sync;
        partition.adding.clear();
        partition.removing.clear();
    }
}
