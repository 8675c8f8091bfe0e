//! What people may look at: nodes, Raft, partitions that are not fully in sync, and how nodes reach each other.

use crate::broker::Broker;
use chronik_core::ids::NodeId;
use chronik_core::metadata::raft::Member;
use chronik_core::partition::follower::Phase;
use chronik_link::session::PeerStatus;
use serde_json::{Value, json};

/// The cluster as this node sees it, as JSON.
pub fn status(broker: &Broker) -> Value {
    let image = broker.metadata.image();
    let Some(cluster) = &broker.cluster else {
        return json!({ "cluster_id": image.cluster_id(), "node": broker.node.0, "alone": true });
    };
    let quorum = cluster.status.borrow().clone();
    let nodes = image.brokers().values().map(|known| {
        json!({
            "node": known.id.0,
            "epoch": known.epoch.0,
            "fenced": known.fenced,
            "stopping": known.in_controlled_shutdown,
            "rack": known.rack,
            "failed_logs": known.offline.len(),
        })
    });
    let members = quorum.members.iter().map(|(member, is_voter)| {
        let progress = quorum.progress.iter().find(|progress| progress.id == member.id());
        let role = match (quorum.role.leader == Some(member.node()), is_voter) {
            (true, _) => "leader",
            (false, true) => "follower",
            (false, false) => "learner",
        };
        let registered = image.broker(member.node()).map(|known| known.directory_id);
        json!({
            "node": member.node().0,
            "address": member.address(),
            "role": role,
            "former_disk": is_former(&quorum.members, member, *is_voter, registered),
            "lag": progress.map(|progress| quorum.last_index.saturating_sub(progress.matched)),
            "active": progress.map(|progress| progress.is_active),
        })
    });
    let mut behind = Vec::new();
    for topic in image.topics() {
        for (number, partition) in (0..).zip(&topic.partitions) {
            let numbers = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
            if partition.isr.len() < partition.replicas.len() || partition.leader.is_none() {
                behind.push(json!({
                    "topic": &*topic.name,
                    "partition": number,
                    "leader": partition.leader.map(|leader| leader.0),
                    "replicas": numbers(&partition.replicas),
                    "in_sync": numbers(&partition.isr),
                    "eligible": numbers(&partition.elr),
                }));
            }
        }
    }
    let waiting = broker.partitions.all().into_iter().filter_map(|partition| {
        partition.with_leader(|leader| {
            let streams_to_all = leader.replicas().followers().all(|(.., streams)| streams);
            (leader.log_end() > leader.high_watermark() || !streams_to_all).then(|| {
                let (written, durable) = leader.own_ends();
                let followers = leader.replicas().followers().map(|(node, written, durable, streams)| {
                    json!({ "node": node.0, "written": written.0, "durable": durable.0, "streams": streams })
                });
                let numbers =
                    |nodes: &std::collections::BTreeSet<NodeId>| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
                json!({
                    "topic": partition.topic(),
                    "partition": partition.index(),
                    "log_end": leader.log_end().0,
                    "high_watermark": leader.high_watermark().0,
                    "written": written.0,
                    "durable": durable.0,
                    "in_sync": numbers(leader.replicas().in_sync()),
                    "asked": leader.replicas().asked().map(numbers),
                    "followers": followers.collect::<Vec<_>>(),
                })
            })
        })?
    });
    let held_up = broker.partitions.all().into_iter().filter_map(|partition| {
        let (epoch, phase) = partition.phase()?;
        let why = match phase {
            Phase::Streaming => return None,
            Phase::Detached => "there is no session with its leader".to_owned(),
            Phase::Attaching => "the leader was asked, and has not answered yet".to_owned(),
            Phase::Waiting { .. } => "the leader was not ready, and is asked again".to_owned(),
            Phase::Cutting => "its log is being cut to what the leader has".to_owned(),
            Phase::Offline(why) => why.to_string(),
        };
        Some(json!({ "topic": partition.topic(), "partition": partition.index(), "epoch": epoch.0, "why": why }))
    });
    json!({
        "waiting_to_be_committed": waiting.collect::<Vec<_>>(),
        "not_following": held_up.collect::<Vec<_>>(),
        "cluster_id": image.cluster_id(),
        "node": broker.node.0,
        "alone": false,
        "controller": quorum.role.leader.map(|leader| leader.0),
        "term": quorum.role.term,
        "committed": quorum.committed,
        "nodes": nodes.collect::<Vec<_>>(),
        "raft": members.collect::<Vec<_>>(),
        "raft_peers": peers(&cluster.raft.status()),
        "replication_peers": peers(&cluster.replication.status()),
        "partitions": image.partitions_count(),
        "not_in_sync": behind,
    })
}

/// Whether its node has another disk by now. That one learns until it has everything, and then takes the vote over.
fn is_former(members: &[(Member, bool)], member: &Member, is_voter: bool, registered: Option<[u8; 16]>) -> bool {
    let is_same_node = |other: &Member| other.node() == member.node() && other.id() != member.id();
    members.iter().filter(|(other, _)| is_same_node(other)).any(|(_, votes)| match (is_voter, votes) {
        (true, false) => true,
        (false, true) => false,
        _ => registered.is_some_and(|registered| registered != *member.directory_id()),
    })
}

fn peers(all: &[PeerStatus]) -> Vec<Value> {
    let one = |peer: &PeerStatus| {
        json!({
            "node": peer.node.0,
            "address": peer.address,
            "transport": peer.transport,
            "up": peer.is_up,
            "round_trip_us": peer.round_trip.map(|round_trip| round_trip.as_micros() as u64),
            "trouble": peer.trouble,
        })
    };
    all.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_a_blank_disk_learns_the_one_that_votes_is_the_former() {
        let member = |node: i32, disk: u8| Member::new(NodeId(node), [disk; 16], "host:1").expect("well formed");
        let former = |members: [(Member, bool); 3], registered: u8| {
            members.each_ref().map(|(member, votes)| is_former(&members, member, *votes, Some([registered; 16])))
        };
        let members = |votes: [bool; 2]| [(member(1, 1), true), (member(2, 2), votes[0]), (member(2, 3), votes[1])];
        // Whether it has registered with the new one or not.
        assert_eq!(former(members([true, false]), 2), [false, true, false]);
        assert_eq!(former(members([true, false]), 3), [false, true, false]);
        // Neither votes: only its registration tells.
        assert_eq!(
            former([(member(2, 2), false), (member(2, 3), false), (member(2, 4), false)], 3),
            [true, false, true]
        );
        let alone = [(member(1, 1), true), (member(2, 2), true), (member(3, 3), true)];
        assert_eq!(former(alone, 9), [false; 3], "where a node has one there is no former");
    }
}
