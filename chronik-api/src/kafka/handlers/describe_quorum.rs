//! DescribeQuorum (55, KIP-595, KIP-836): the metadata log's leader, voters and observers, as the leader knows them. A
//! broker alone is all of them.

pub use chronik_proto_kafka::api::describe_quorum::DescribeQuorumRequest;

use crate::cluster::node::QuorumStatus;
use crate::kafka::context::{Operation, Resource};
use crate::kafka::handler::{Call, Handler, Reply};
use crate::kafka::handlers::raft_voters::RAFT;
use crate::kafka::resolve;
use chronik_core::metadata::names;
use chronik_core::metadata::raft::Member;
use chronik_link::Endpoint;
use chronik_proto_kafka::api::describe_quorum::*;
use chronik_proto_kafka::{ErrorCode, Uuid};

impl Handler for DescribeQuorumRequest {
    const BY_CONTROLLER: bool = true;

    fn handle(self, call: Call) -> Reply<DescribeQuorumResponse> {
        if !call.broker.authorizer.allows(&call.context, Operation::Describe, Resource::Cluster) {
            let error_code = ErrorCode::CLUSTER_AUTHORIZATION_FAILED.0;
            return Reply::Now(DescribeQuorumResponse { error_code, ..Default::default() });
        }
        let topics = resolve::once(self.topics, |topic| topic.topic_name.clone()).into_iter().map(|topic| {
            let partition = |asked: &PartitionData| match (&*topic.topic_name, asked.partition_index) {
                (names::CLUSTER_METADATA, 0) => quorum(&call),
                (_, partition_index) => ResponsePartitionData {
                    partition_index,
                    error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0,
                    leader_id: -1,
                    leader_epoch: -1,
                    high_watermark: -1,
                    ..Default::default()
                },
            };
            let named = resolve::once(topic.partitions, |asked| asked.partition_index);
            let partitions = named.iter().map(partition).collect();
            ResponseTopicData { topic_name: topic.topic_name, partitions }
        });
        let topics = topics.collect();
        Reply::Now(DescribeQuorumResponse { topics, nodes: nodes(&call), ..Default::default() })
    }
}

/// Where the participants reach each other.
fn nodes(call: &Call) -> Vec<Node> {
    let Some(cluster) = &call.broker.cluster else {
        let listener = &call.context.connection.listener;
        let own = Listener {
            // Java's client refuses a listener's name that is not in capitals.
            name: listener.config.name.to_uppercase().as_str().into(),
            host: listener.advertised_host.as_str().into(),
            port: listener.advertised_port,
        };
        return vec![Node { node_id: call.broker.node.0, listeners: vec![own] }];
    };
    let node = |member: &Member| {
        let at = Endpoint::parse(member.node(), member.address())?;
        let listener = Listener { name: RAFT.into(), host: at.host.into(), port: at.port };
        Some(Node { node_id: member.node().0, listeners: vec![listener] })
    };
    cluster.status.borrow().members.iter().filter_map(|(member, _)| node(member)).collect()
}

/// As the leader sees the group. Offsets are places of the metadata's log: the first entry of Raft is at 1.
fn group(call: &Call, quorum: &QuorumStatus) -> ResponsePartitionData {
    let now = call.broker.clock.wall().0;
    let end = |index: u64| i64::try_from(index).unwrap_or(i64::MAX).saturating_add(1);
    let state = |member: &Member| {
        let is_leader = quorum.role.leader == Some(member.node());
        let progress = quorum.progress.iter().find(|progress| progress.id == member.id());
        let matched = if is_leader { quorum.last_index } else { progress.map_or(0, |progress| progress.matched) };
        // Raft tells who was heard of within an election's time, and no more exactly than that.
        let heard = |is_so: bool| if is_leader || is_so { now } else { -1 };
        let is_active = progress.is_some_and(|progress| progress.is_active);
        ReplicaState {
            replica_id: member.node().0,
            replica_directory_id: Uuid(*member.directory_id()),
            log_end_offset: end(matched),
            last_fetch_timestamp: heard(is_active),
            last_caught_up_timestamp: heard(is_active && matched >= quorum.committed),
        }
    };
    let those = |voters: bool| {
        let of_kind = quorum.members.iter().filter(|(_, is_voter)| *is_voter == voters);
        of_kind.map(|(member, _)| state(member)).collect()
    };
    ResponsePartitionData {
        partition_index: 0,
        leader_id: quorum.role.leader.map_or(-1, |leader| leader.0),
        leader_epoch: i32::try_from(quorum.role.term).unwrap_or(i32::MAX),
        high_watermark: end(quorum.committed),
        current_voters: those(true),
        observers: those(false),
        ..Default::default()
    }
}

fn quorum(call: &Call) -> ResponsePartitionData {
    if let Some(cluster) = &call.broker.cluster {
        return group(call, &cluster.status.borrow());
    }
    let position = call.broker.metadata.image().position();
    let now = call.broker.clock.wall().0;
    let own = ReplicaState {
        replica_id: call.broker.node.0,
        replica_directory_id: Uuid(call.broker.metadata.directory_id()),
        log_end_offset: position.next.0,
        // A leader is never behind itself.
        last_fetch_timestamp: now,
        last_caught_up_timestamp: now,
    };
    ResponsePartitionData {
        partition_index: 0,
        leader_id: call.broker.node.0,
        leader_epoch: position.epoch.0,
        high_watermark: position.next.0,
        current_voters: vec![own],
        ..Default::default()
    }
}
