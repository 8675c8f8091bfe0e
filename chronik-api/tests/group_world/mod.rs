//! What the stories of groups share: a broker that has a topic, and a client that plays members, consumers and tools.

#![allow(dead_code, reason = "each story uses its own part")]

use crate::broker::{Client, Running, start};
use bytes::Bytes;
use chronik_api::config::{Config, Engine, Millis};
use chronik_proto_kafka::api::*;
use chronik_proto_kafka::{ErrorCode, Str, Uuid};
use std::path::Path;

pub const GROUP: &str = "readers";
pub const TOPIC: &str = "orders";
/// The last versions that name topics.
pub const NAMED_COMMIT: i16 = 9;
pub const NAMED_OFFSETS: i16 = 9;

pub fn at_once(config: &mut Config) {
    config.groups.initial_rebalance_delay_ms = Millis::seconds(0);
}

pub fn on_disk(dir: &Path) -> impl FnOnce(&mut Config) {
    let dir = dir.to_owned();
    move |config| {
        at_once(config);
        config.storage.engine = Engine::Segment;
        config.node.data_dir = dir;
    }
}

/// A consumer's metadata: it wants this topic.
pub fn wants(topic: &str) -> Bytes {
    let mut bytes = vec![0, 1, 0, 0, 0, 1, 0, topic.len() as u8];
    bytes.extend_from_slice(topic.as_bytes());
    bytes.extend_from_slice(&[0xff, 0xff, 0xff, 0xff]);
    bytes.into()
}

pub fn join(member: &str) -> join_group::JoinGroupRequest {
    join_group::JoinGroupRequest {
        group_id: GROUP.into(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 60_000,
        member_id: member.into(),
        protocol_type: "consumer".into(),
        protocols: vec![join_group::JoinGroupRequestProtocol { name: "range".into(), metadata: wants(TOPIC) }],
        ..Default::default()
    }
}

pub fn join_as(instance: &str) -> join_group::JoinGroupRequest {
    join_group::JoinGroupRequest { group_instance_id: Some(instance.into()), ..join("") }
}

pub fn sync(member: &str, generation: i32, assigned: &[(&str, &'static str)]) -> sync_group::SyncGroupRequest {
    let one = |(member, what): &(&str, &'static str)| sync_group::SyncGroupRequestAssignment {
        member_id: (*member).into(),
        assignment: Bytes::from_static(what.as_bytes()),
    };
    sync_group::SyncGroupRequest {
        group_id: GROUP.into(),
        generation_id: generation,
        member_id: member.into(),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: assigned.iter().map(one).collect(),
        ..Default::default()
    }
}

pub fn commit_of(group: &str, member: &str, generation: i32, offset: i64) -> offset_commit::OffsetCommitRequest {
    let partition = offset_commit::OffsetCommitRequestPartition {
        partition_index: 0,
        committed_offset: offset,
        committed_leader_epoch: 0,
        committed_metadata: Some("mark".into()),
    };
    offset_commit::OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: generation,
        member_id: member.into(),
        topics: vec![offset_commit::OffsetCommitRequestTopic {
            name: TOPIC.into(),
            partitions: vec![partition],
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// A group as a client of several connections sees it.
pub struct World {
    pub broker: Running,
    pub client: Client,
    pub topic: Uuid,
}

impl World {
    pub async fn new(adjust: impl FnOnce(&mut Config)) -> Self {
        let mut world = Self::again(adjust).await;
        world.topic = world.client.create_topic(TOPIC, 2, &[]).await;
        world
    }

    /// A broker that may hold something already.
    pub async fn again(adjust: impl FnOnce(&mut Config)) -> Self {
        let broker = start(adjust).await;
        let mut client = Client::to(&broker).await;
        find(&mut client, 0, &[GROUP]).await;
        let mut world = Self { broker, client, topic: Uuid::ZERO };
        world.loaded().await;
        world
    }

    /// Waits for the groups to be read back, as any client does; also nothing takes a moment to be read.
    pub async fn loaded(&mut self) {
        while self.describe().await.error_code == ErrorCode::COORDINATOR_LOAD_IN_PROGRESS.0 {
            tokio::task::yield_now().await;
        }
    }

    /// Joins as a new member on a connection of its own, whose answer is still to come.
    pub async fn newcomer(&mut self) -> (Client, String) {
        let mut own = Client::to(&self.broker).await;
        let given = own.ask(join("")).await;
        assert_eq!(given.error_code, ErrorCode::MEMBER_ID_REQUIRED.0);
        let id = given.member_id.to_string();
        own.send(9, 1, &join(&id)).await;
        (own, id)
    }

    /// A stable group with one member: its id and generation.
    pub async fn alone(&mut self) -> (Client, String, i32) {
        let (mut own, id) = self.newcomer().await;
        let joined = joined(&mut own).await;
        assert_eq!((joined.error_code, &*joined.leader), (0, id.as_str()));
        let synced = own.ask(sync(&id, joined.generation_id, &[(&id, "all")])).await;
        assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"all"[..]));
        (own, id, joined.generation_id)
    }

    pub async fn heartbeat(&mut self, member: &str, generation: i32, instance: Option<&str>) -> ErrorCode {
        let request = heartbeat::HeartbeatRequest {
            group_id: GROUP.into(),
            generation_id: generation,
            member_id: member.into(),
            group_instance_id: instance.map(Str::from),
        };
        ErrorCode(self.client.ask(request).await.error_code)
    }

    pub async fn commit(&mut self, member: &str, generation: i32, offset: i64) -> ErrorCode {
        let answer = self.client.ask_in(NAMED_COMMIT, commit_of(GROUP, member, generation, offset)).await;
        ErrorCode(answer.topics[0].partitions[0].error_code)
    }

    /// What is committed for the first partition.
    pub async fn committed(&mut self) -> i64 {
        self.committed_in(GROUP, TOPIC).await
    }

    pub async fn committed_in(&mut self, group: &str, topic: &str) -> i64 {
        let topic = offset_fetch::OffsetFetchRequestTopics {
            name: topic.into(),
            partition_indexes: vec![0],
            ..Default::default()
        };
        let group = offset_fetch::OffsetFetchRequestGroup {
            group_id: group.into(),
            topics: Some(vec![topic]),
            ..Default::default()
        };
        let request = offset_fetch::OffsetFetchRequest { groups: vec![group], ..Default::default() };
        let answer = self.client.ask_in(NAMED_OFFSETS, request).await.groups.remove(0);
        assert_eq!(answer.error_code, 0);
        assert_eq!(answer.topics[0].partitions[0].error_code, 0);
        answer.topics[0].partitions[0].committed_offset
    }

    pub async fn describe(&mut self) -> describe_groups::DescribedGroup {
        let request = describe_groups::DescribeGroupsRequest { groups: vec![GROUP.into()], ..Default::default() };
        self.client.ask_in(5, request).await.groups.remove(0)
    }

    /// Lets the coordinator get on until the group is as wanted.
    pub async fn until(&mut self, state: &str) {
        while *self.describe().await.group_state != *state {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    pub async fn leave(&mut self, who: &[(&str, Option<&str>)]) -> Vec<ErrorCode> {
        let one = |(member, instance): &(&str, Option<&str>)| leave_group::MemberIdentity {
            member_id: (*member).into(),
            group_instance_id: instance.map(Str::from),
            ..Default::default()
        };
        let members = who.iter().map(one).collect();
        let request = leave_group::LeaveGroupRequest { group_id: GROUP.into(), members, ..Default::default() };
        let answer = self.client.ask(request).await;
        assert_eq!(answer.error_code, 0);
        answer.members.iter().map(|member| ErrorCode(member.error_code)).collect()
    }

    pub async fn delete_group(&mut self, group: &str) -> ErrorCode {
        let request = delete_groups::DeleteGroupsRequest { groups_names: vec![group.into()] };
        ErrorCode(self.client.ask(request).await.results[0].error_code)
    }
}

pub async fn joined(own: &mut Client) -> join_group::JoinGroupResponse {
    own.receive::<join_group::JoinGroupRequest>(9).await.1
}

pub async fn find(client: &mut Client, key_type: i8, keys: &[&str]) -> Vec<find_coordinator::Coordinator> {
    let coordinator_keys = keys.iter().map(|key| (*key).into()).collect();
    client
        .ask(find_coordinator::FindCoordinatorRequest { key_type, coordinator_keys, ..Default::default() })
        .await
        .coordinators
}
