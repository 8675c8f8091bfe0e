//! Consumer groups over the wire: what clients depend on, one story each.

mod broker;

use broker::*;
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::*;
use std::time::Duration;

async fn group_broker() -> Running {
    start(|config| config.groups.initial_rebalance_delay_ms = chronik_api::config::units::Millis(0)).await
}

/// Looks for the coordinator, as every client does first.
async fn find(client: &mut Client, group: &str) {
    let request =
        find_coordinator::FindCoordinatorRequest { coordinator_keys: vec![group.into()], ..Default::default() };
    let found = client.ask(request).await.coordinators.remove(0);
    assert_eq!((found.error_code, found.node_id), (0, 1), "{:?}", found.error_message);
}

fn join(group: &str, member: &str) -> join_group::JoinGroupRequest {
    join_group::JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 60_000,
        member_id: member.into(),
        protocol_type: "consumer".into(),
        protocols: vec![join_group::JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: bytes::Bytes::from_static(b"\x00\x01\x00\x00\x00\x01\x00\x01t\xff\xff\xff\xff"),
        }],
        ..Default::default()
    }
}

/// Joins as a member that knows to join twice, and gives the answer and the member's id.
async fn join_twice(client: &mut Client, group: &str) -> join_group::JoinGroupResponse {
    // A coordinator that has just been made is loading for a moment.
    let given = loop {
        let given = client.ask(join(group, "")).await;
        if given.error_code != ErrorCode::COORDINATOR_LOAD_IN_PROGRESS.0 {
            break given;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(ErrorCode(given.error_code), ErrorCode::MEMBER_ID_REQUIRED);
    assert!(given.member_id.starts_with("admin-story-"), "{}", given.member_id);
    client.ask(join(group, &given.member_id)).await
}

async fn sync(
    client: &mut Client,
    group: &str,
    joined: &join_group::JoinGroupResponse,
) -> sync_group::SyncGroupResponse {
    let assignment = |member: &join_group::JoinGroupResponseMember| sync_group::SyncGroupRequestAssignment {
        member_id: member.member_id.clone(),
        assignment: bytes::Bytes::from_static(b"yours"),
    };
    let request = sync_group::SyncGroupRequest {
        group_id: group.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: joined.members.iter().map(assignment).collect(),
        ..Default::default()
    };
    client.ask(request).await
}

fn commit(
    group: &str,
    member: &str,
    generation: i32,
    topic_id: chronik_proto_kafka::Uuid,
    offset: i64,
) -> offset_commit::OffsetCommitRequest {
    let partition = offset_commit::OffsetCommitRequestPartition {
        committed_offset: offset,
        committed_metadata: Some("note".into()),
        ..Default::default()
    };
    offset_commit::OffsetCommitRequest {
        group_id: group.into(),
        member_id: member.into(),
        generation_id_or_member_epoch: generation,
        topics: vec![offset_commit::OffsetCommitRequestTopic {
            topic_id,
            partitions: vec![partition],
            ..Default::default()
        }],
        ..Default::default()
    }
}

async fn committed(client: &mut Client, group: &str, topic_id: chronik_proto_kafka::Uuid) -> (i64, String) {
    let topics =
        vec![offset_fetch::OffsetFetchRequestTopics { topic_id, partition_indexes: vec![0], ..Default::default() }];
    let group =
        offset_fetch::OffsetFetchRequestGroup { group_id: group.into(), topics: Some(topics), ..Default::default() };
    let answer = client
        .ask(offset_fetch::OffsetFetchRequest { groups: vec![group], ..Default::default() })
        .await
        .groups
        .remove(0);
    assert_eq!(answer.error_code, 0);
    let partition = &answer.topics[0].partitions[0];
    assert_eq!(partition.error_code, 0);
    (partition.committed_offset, partition.metadata.as_deref().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_members_life() {
    let broker = group_broker().await;
    let mut client = Client::to(&broker).await;
    let topic_id = client.create_topic("t", 1, &[]).await;
    find(&mut client, "g").await;
    let joined = join_twice(&mut client, "g").await;
    assert_eq!((joined.error_code, joined.leader.clone(), joined.members.len()), (0, joined.member_id.clone(), 1));
    let synced = sync(&mut client, "g", &joined).await;
    assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"yours"[..]));
    assert_eq!(
        committed(&mut client, "g", topic_id).await,
        (-1, String::new()),
        "nothing is committed, and that is no error"
    );
    let answer = client.ask(commit("g", &joined.member_id, joined.generation_id, topic_id, 42)).await;
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
    assert_eq!(committed(&mut client, "g", topic_id).await, (42, "note".to_owned()));
    let stranger = client.ask(commit("g", "stranger", joined.generation_id, topic_id, 1)).await;
    assert_eq!(stranger.topics[0].partitions[0].error_code, ErrorCode::UNKNOWN_MEMBER_ID.0);
    let heartbeat = |generation| heartbeat::HeartbeatRequest {
        group_id: "g".into(),
        generation_id: generation,
        member_id: joined.member_id.clone(),
        ..Default::default()
    };
    assert_eq!(client.ask(heartbeat(joined.generation_id)).await.error_code, 0);
    assert_eq!(client.ask(heartbeat(joined.generation_id + 1)).await.error_code, ErrorCode::ILLEGAL_GENERATION.0);
    let describe = describe_groups::DescribeGroupsRequest { groups: vec!["g".into()], ..Default::default() };
    let described = client.ask(describe).await.groups.remove(0);
    assert_eq!((&*described.group_state, described.members.len()), ("Stable", 1));
    assert_eq!(described.members[0].client_host.as_ref() as &str, "/127.0.0.1");
    let leave = leave_group::LeaveGroupRequest {
        group_id: "g".into(),
        members: vec![leave_group::MemberIdentity { member_id: joined.member_id.clone(), ..Default::default() }],
        ..Default::default()
    };
    assert_eq!(client.ask(leave).await.members[0].error_code, 0);
    let listed = client.ask(list_groups::ListGroupsRequest::default()).await.groups;
    assert_eq!(
        listed.iter().map(|group| (&*group.group_id, &*group.group_state)).collect::<Vec<_>>(),
        [("g", "Empty")]
    );
    let delete = delete_groups::DeleteGroupsRequest { groups_names: vec!["g".into(), "nobody".into()] };
    let deleted = client.ask(delete).await.results;
    assert_eq!(deleted.iter().map(|one| one.error_code).collect::<Vec<_>>(), [0, ErrorCode::GROUP_ID_NOT_FOUND.0]);
    assert_eq!(committed(&mut client, "g", topic_id).await.0, -1);
    broker.stop().await;
}

#[tokio::test]
async fn a_second_member_waits_for_the_first_to_join_again() {
    let broker = group_broker().await;
    let mut first = Client::to(&broker).await;
    find(&mut first, "g").await;
    let a = join_twice(&mut first, "g").await;
    sync(&mut first, "g", &a).await;
    let mut second = Client::to(&broker).await;
    let given = second.ask(join("g", "")).await;
    second.send(9, 1, &join("g", &given.member_id)).await;
    // The first hears of it by its heartbeat, and joins again.
    loop {
        let heartbeat = heartbeat::HeartbeatRequest {
            group_id: "g".into(),
            generation_id: a.generation_id,
            member_id: a.member_id.clone(),
            ..Default::default()
        };
        match ErrorCode(first.ask(heartbeat).await.error_code) {
            ErrorCode::REBALANCE_IN_PROGRESS => break,
            ErrorCode::NONE => tokio::time::sleep(Duration::from_millis(5)).await,
            other => panic!("{other}"),
        }
    }
    let again = first.ask(join("g", &a.member_id)).await;
    let (_, b) = second.receive::<join_group::JoinGroupRequest>(9).await;
    assert_eq!((again.generation_id, b.generation_id), (a.generation_id + 1, a.generation_id + 1));
    assert_eq!((again.members.len(), b.members.len()), (2, 0), "only the leader is told of all");
    broker.stop().await;
}

#[tokio::test]
async fn groups_that_nobody_knows_are_dead_or_an_error_by_version() {
    let broker = group_broker().await;
    let mut client = Client::to(&broker).await;
    let topic_id = client.create_topic("t", 1, &[]).await;
    assert_eq!(committed(&mut client, "nobody", topic_id).await.0, -1);
    let describe = || describe_groups::DescribeGroupsRequest { groups: vec!["nobody".into()], ..Default::default() };
    let old = client.ask_in(5, describe()).await.groups.remove(0);
    assert_eq!((old.error_code, &*old.group_state), (0, "Dead"));
    let new = client.ask_in(6, describe()).await.groups.remove(0);
    assert_eq!(ErrorCode(new.error_code), ErrorCode::GROUP_ID_NOT_FOUND);
    broker.stop().await;
}

#[tokio::test]
async fn every_version_of_the_group_apis_is_answered() {
    let broker = group_broker().await;
    let mut client = Client::to(&broker).await;
    client.create_topic("t", 1, &[]).await;
    find(&mut client, "g").await;
    for version in 2..=10 {
        client.ask_in(version, offset_commit::OffsetCommitRequest { group_id: "g".into(), ..Default::default() }).await;
    }
    for version in 1..=10 {
        let request = offset_fetch::OffsetFetchRequest {
            group_id: "g".into(),
            topics: Some(Vec::new()),
            groups: vec![offset_fetch::OffsetFetchRequestGroup { group_id: "g".into(), ..Default::default() }],
            ..Default::default()
        };
        client.ask_in(version, request).await;
    }
    for version in 0..=6 {
        let request = find_coordinator::FindCoordinatorRequest { key: "g".into(), ..Default::default() };
        client.ask_in(version, request).await;
    }
    for version in 0..=9 {
        assert_ne!(client.ask_in(version, join("g", "made-up")).await.error_code, 0);
    }
    for version in 0..=4 {
        client.ask_in(version, heartbeat::HeartbeatRequest { group_id: "g".into(), ..Default::default() }).await;
    }
    for version in 0..=5 {
        client.ask_in(version, leave_group::LeaveGroupRequest { group_id: "g".into(), ..Default::default() }).await;
        client.ask_in(version, sync_group::SyncGroupRequest { group_id: "g".into(), ..Default::default() }).await;
        client.ask_in(version, list_groups::ListGroupsRequest::default()).await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn many_commits_are_read_back_from_little() {
    // Beyond the number of records below which no snapshot is worth its writes.
    commit_and_read_back(60_000).await;
}

/// Takes some minutes: `cargo test --release -p chronik --test groups -- --ignored`
#[tokio::test]
#[ignore = "some minutes; the same story with fewer commits runs always"]
async fn five_million_commits_are_read_back_from_little() {
    commit_and_read_back(5_000_000).await;
}

/// Keeps offsets in files, stops the broker, and reads them back: many more commits than are live, so that the log is cut
/// down to snapshots on the way.
async fn commit_and_read_back(commits: i32) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().to_owned();
    let on_disk = move |config: &mut chronik_api::config::Config| {
        config.storage.engine = chronik_api::config::Engine::Segment;
        config.node.data_dir = path.clone();
        config.topics.durability = chronik_api::config::Durability::Replicated;
        config.groups.offsets_partitions = 1;
        config.groups.initial_rebalance_delay_ms = chronik_api::config::units::Millis(0);
    };
    let broker = start(on_disk.clone()).await;
    let mut client = Client::to(&broker).await;
    let topic_id = client.create_topic("t", 1, &[]).await;
    find(&mut client, "g").await;
    const PIPELINED: i32 = 500;
    for from in (0..commits).step_by(PIPELINED as usize) {
        for number in from..from + PIPELINED {
            client.send(10, number, &commit("g", "", -1, topic_id, i64::from(number))).await;
        }
        for number in from..from + PIPELINED {
            let (correlation_id, answer) = client.receive::<offset_commit::OffsetCommitRequest>(10).await;
            assert_eq!((correlation_id, answer.topics[0].partitions[0].error_code), (number, 0));
        }
    }
    let last = i64::from(commits) - 1;
    assert_eq!(committed(&mut client, "g", topic_id).await.0, last);
    let mut start_offset = 0;
    for _ in 0..600 {
        start_offset = client.offset_at(1, "__consumer_offsets", -2).await.offset;
        if start_offset > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(start_offset > 0, "the log is cut down");
    broker.stop().await;
    let broker = start(on_disk).await;
    let mut client = Client::to(&broker).await;
    for _ in 0..600 {
        let topics =
            vec![offset_fetch::OffsetFetchRequestTopics { topic_id, partition_indexes: vec![0], ..Default::default() }];
        let group =
            offset_fetch::OffsetFetchRequestGroup { group_id: "g".into(), topics: Some(topics), ..Default::default() };
        let answer = client
            .ask(offset_fetch::OffsetFetchRequest { groups: vec![group], ..Default::default() })
            .await
            .groups
            .remove(0);
        match ErrorCode(answer.error_code) {
            // Never a wrong offset while they are read back.
            ErrorCode::COORDINATOR_LOAD_IN_PROGRESS => tokio::time::sleep(Duration::from_millis(20)).await,
            ErrorCode::NONE => {
                assert_eq!(answer.topics[0].partitions[0].committed_offset, last);
                broker.stop().await;
                return;
            }
            other => panic!("{other}"),
        }
    }
    panic!("the groups are never read back");
}
