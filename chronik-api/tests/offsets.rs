//! Committed offsets over the wire: who may commit and read them, what tools see and delete, and what outlives a restart.

mod broker;
mod group_world;

use broker::{Client, start};
use chronik_proto_kafka::api::*;
use chronik_proto_kafka::{ErrorCode, Str, Uuid};
use group_world::*;

#[tokio::test]
async fn whoever_looks_for_a_coordinator_first_brings_the_topic_of_offsets_into_being() {
    let broker = start(at_once).await;
    let mut client = Client::to(&broker).await;
    let missing = offset_fetch::OffsetFetchRequest {
        group_id: GROUP.into(),
        topics: Some(vec![offset_fetch::OffsetFetchRequestTopic { name: TOPIC.into(), partition_indexes: vec![0] }]),
        ..Default::default()
    };
    let nothing = client.ask_in(7, missing).await;
    assert_eq!((nothing.error_code, nothing.topics[0].partitions[0].committed_offset), (0, -1));

    let found = find(&mut client, 0, &["a", "b"]).await;
    let port = i32::from(broker.address.port());
    assert!(found.iter().all(|one| one.error_code == 0 && one.node_id == 1 && one.port == port), "{found:?}");
    let old = find_coordinator::FindCoordinatorRequest { key: "a".into(), ..Default::default() };
    for version in 0..=3 {
        let answer = client.ask_in(version, old.clone()).await;
        assert_eq!((answer.error_code, answer.node_id, answer.port), (0, 1, port));
    }
    let transactions = find(&mut client, 1, &["t"]).await.remove(0);
    assert!(!ErrorCode(transactions.error_code).is_retriable(), "{transactions:?}");
    assert_eq!(find(&mut client, 2, &["g:t:0"]).await[0].error_code, ErrorCode::INVALID_REQUEST.0);

    let topics = client.ask(metadata::MetadataRequest { topics: None, ..Default::default() }).await.topics;
    let offsets = topics.iter().find(|topic| topic.name.as_deref() == Some("__consumer_offsets")).expect("it is there");
    assert!(offsets.is_internal);
    assert_eq!(offsets.partitions.len(), 50);
    let refused = client.produce("__consumer_offsets", 1, broker::batch(&["x"]).to_payload().to_bytes()).await;
    assert_eq!(refused.error_code, ErrorCode::INVALID_TOPIC_EXCEPTION.0);
    broker.stop().await;
}

#[tokio::test]
async fn offsets_of_those_who_are_in_no_group() {
    let mut world = World::new(at_once).await;
    assert_eq!(world.committed().await, -1);
    assert_eq!(world.commit("", -1, 3).await, ErrorCode::NONE);
    assert_eq!(world.committed().await, 3);
    assert_eq!(world.commit("", 4, 9).await, ErrorCode::UNKNOWN_MEMBER_ID, "nobody is in it");
    let (_own, _, _) = world.alone().await;
    assert_eq!(world.commit("", -1, 9).await, ErrorCode::UNKNOWN_MEMBER_ID, "now it has members");

    let code_of = async |world: &mut World, change: fn(&mut offset_commit::OffsetCommitRequest)| {
        let mut request = commit_of("another", "", -1, 1);
        change(&mut request);
        ErrorCode(world.client.ask_in(NAMED_COMMIT, request).await.topics[0].partitions[0].error_code)
    };
    let long = code_of(&mut world, |commit| {
        commit.topics[0].partitions[0].committed_metadata = Some("x".repeat(4097).into());
    });
    assert_eq!(long.await, ErrorCode::OFFSET_METADATA_TOO_LARGE);
    let unknown = code_of(&mut world, |commit| commit.topics[0].name = "nowhere".into()).await;
    assert_eq!(unknown, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let beyond = code_of(&mut world, |commit| commit.topics[0].partitions[0].partition_index = 7).await;
    assert_eq!(beyond, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    world.broker.stop().await;
}

#[tokio::test]
async fn every_version_reads_the_same_offsets() {
    let mut world = World::new(at_once).await;
    assert_eq!(world.commit("", -1, 3).await, ErrorCode::NONE);
    let by_id = {
        let mut request = commit_of(GROUP, "", -1, 4);
        request.topics[0].topic_id = world.topic;
        request.topics[0].name = Str::default();
        world.client.ask(request).await
    };
    assert_eq!((by_id.topics[0].topic_id, by_id.topics[0].partitions[0].error_code), (world.topic, 0));

    for version in 1..=7 {
        let request = offset_fetch::OffsetFetchRequest {
            group_id: GROUP.into(),
            topics: Some(vec![offset_fetch::OffsetFetchRequestTopic {
                name: TOPIC.into(),
                partition_indexes: vec![0, 1],
            }]),
            ..Default::default()
        };
        let answer = world.client.ask_in(version, request).await;
        let seen = |at: usize| {
            let partition = &answer.topics[0].partitions[at];
            (partition.error_code, partition.committed_offset, partition.metadata.as_deref().map(str::to_owned))
        };
        assert_eq!(seen(0), (0, 4, Some("mark".into())), "version {version}");
        assert_eq!(seen(1), (0, -1, Some(String::new())), "version {version}");
    }
    for version in 2..=7 {
        let all = offset_fetch::OffsetFetchRequest { group_id: GROUP.into(), topics: None, ..Default::default() };
        let answer = world.client.ask_in(version, all).await;
        assert_eq!((answer.topics.len(), answer.topics[0].partitions.len()), (1, 1), "version {version}");
    }
    for version in 8..=10 {
        let groups = [GROUP, "unheard-of"].map(|group| offset_fetch::OffsetFetchRequestGroup {
            group_id: group.into(),
            topics: None,
            ..Default::default()
        });
        let request = offset_fetch::OffsetFetchRequest { groups: groups.to_vec(), ..Default::default() };
        let answer = world.client.ask_in(version, request).await;
        assert_eq!(answer.groups[0].topics[0].partitions[0].committed_offset, 4, "version {version}");
        assert_eq!((answer.groups[1].error_code, answer.groups[1].topics.len()), (0, 0), "version {version}");
        let named = &answer.groups[0].topics[0];
        let by_id = version >= 10;
        assert_eq!((&*named.name, named.topic_id), if by_id { ("", world.topic) } else { (TOPIC, Uuid::ZERO) });
    }
    world.broker.stop().await;
}

#[tokio::test]
async fn what_tools_ask_about_groups_and_what_they_may_delete() {
    let mut world = World::new(at_once).await;
    let (_own, member, generation) = world.alone().await;
    assert_eq!(world.commit(&member, generation, 3).await, ErrorCode::NONE);
    let other = world.client.ask_in(NAMED_COMMIT, commit_of("tool", "", -1, 1)).await;
    assert_eq!(other.topics[0].partitions[0].error_code, 0);

    let list = async |world: &mut World, states: &[&str], types: &[&str]| {
        let filter = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
        let request = list_groups::ListGroupsRequest { states_filter: filter(states), types_filter: filter(types) };
        let mut groups = world.client.ask(request).await.groups;
        groups.sort_by(|a, b| a.group_id.cmp(&b.group_id));
        groups.into_iter().map(|group| group.group_id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(list(&mut world, &[], &[]).await, [GROUP, "tool"]);
    assert_eq!(list(&mut world, &["stable"], &["Classic"]).await, [GROUP]);
    assert_eq!(list(&mut world, &["Empty", "Dead"], &[]).await, ["tool"]);
    assert!(list(&mut world, &[], &["consumer"]).await.is_empty());

    let unknown = |groups: &[&str]| describe_groups::DescribeGroupsRequest {
        groups: groups.iter().map(|group| (*group).into()).collect(),
        ..Default::default()
    };
    let dead = world.client.ask_in(5, unknown(&["unheard-of"])).await.groups.remove(0);
    assert_eq!((dead.error_code, &*dead.group_state), (0, "Dead"));
    let dead = world.client.ask_in(6, unknown(&["unheard-of"])).await.groups.remove(0);
    assert_eq!((dead.error_code, &*dead.group_state), (ErrorCode::GROUP_ID_NOT_FOUND.0, "Dead"));
    assert!(dead.error_message.is_some_and(|words| words.contains("unheard-of")));

    let delete = |group: &str, topic: &str| offset_delete::OffsetDeleteRequest {
        group_id: group.into(),
        topics: vec![offset_delete::OffsetDeleteRequestTopic {
            name: topic.into(),
            partitions: vec![offset_delete::OffsetDeleteRequestPartition { partition_index: 0 }],
        }],
    };
    let in_use = world.client.ask(delete(GROUP, TOPIC)).await;
    assert_eq!(in_use.topics[0].partitions[0].error_code, ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC.0);
    assert_eq!(world.committed().await, 3);
    assert_eq!(world.client.ask(delete("unheard-of", TOPIC)).await.error_code, ErrorCode::GROUP_ID_NOT_FOUND.0);
    let free = world.client.ask(delete("tool", TOPIC)).await;
    assert_eq!((free.error_code, free.topics[0].partitions[0].error_code), (0, 0));
    assert_eq!(world.committed_in("tool", TOPIC).await, -1);

    assert_eq!(world.delete_group(GROUP).await, ErrorCode::NON_EMPTY_GROUP);
    assert_eq!(world.delete_group("unheard-of").await, ErrorCode::GROUP_ID_NOT_FOUND);
    assert_eq!(world.leave(&[(&member, None)]).await, [ErrorCode::NONE]);
    assert_eq!(world.committed().await, 3, "offsets outlive the members");
    assert_eq!(world.delete_group(GROUP).await, ErrorCode::NONE);
    assert_eq!(world.committed().await, -1);
    assert_eq!(world.delete_group(GROUP).await, ErrorCode::GROUP_ID_NOT_FOUND);
    world.broker.stop().await;
}

#[tokio::test]
async fn a_group_without_a_name_has_offsets_and_no_members() {
    let mut world = World::new(at_once).await;
    assert_eq!(find(&mut world.client, 0, &[""]).await[0].error_code, 0);
    let committed = world.client.ask_in(NAMED_COMMIT, commit_of("", "", -1, 3)).await;
    assert_eq!(committed.topics[0].partitions[0].error_code, 0);
    assert_eq!(world.committed_in("", TOPIC).await, 3);

    let nameless = join_group::JoinGroupRequest { group_id: "".into(), ..join("") };
    assert_eq!(world.client.ask(nameless).await.error_code, ErrorCode::INVALID_GROUP_ID.0);
    let nameless = sync_group::SyncGroupRequest { group_id: "".into(), ..sync("m", 1, &[]) };
    assert_eq!(world.client.ask(nameless).await.error_code, ErrorCode::INVALID_GROUP_ID.0);
    let nameless = heartbeat::HeartbeatRequest { member_id: "m".into(), ..Default::default() };
    assert_eq!(world.client.ask(nameless).await.error_code, ErrorCode::INVALID_GROUP_ID.0);
    let nameless = world.client.ask(leave_group::LeaveGroupRequest::default()).await;
    assert_eq!((nameless.error_code, nameless.members.len()), (ErrorCode::INVALID_GROUP_ID.0, 0));
    let nameless = world.client.ask(offset_delete::OffsetDeleteRequest::default()).await;
    assert_eq!(nameless.error_code, ErrorCode::INVALID_GROUP_ID.0);

    let request = delete_groups::DeleteGroupsRequest { groups_names: vec!["".into(), "".into()] };
    let deleted = world.client.ask(request).await.results;
    assert_eq!((deleted.len(), deleted[0].error_code), (1, 0), "named twice, deleted once");
    assert_eq!(world.committed_in("", TOPIC).await, -1);
    world.broker.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_told_apart() {
    let mut world = World::new(at_once).await;
    for (version, code) in [(8, ErrorCode::ILLEGAL_GENERATION), (9, ErrorCode::GROUP_ID_NOT_FOUND)] {
        let refused = world.client.ask_in(version, commit_of("unheard-of", "m", 1, 3)).await;
        assert_eq!(refused.topics[0].partitions[0].error_code, code.0, "version {version}");
    }
    assert_eq!(world.commit("", -1, 3).await, ErrorCode::NONE);
    let partition = |partition_index| offset_delete::OffsetDeleteRequestPartition { partition_index };
    let request = offset_delete::OffsetDeleteRequest {
        group_id: GROUP.into(),
        topics: vec![
            offset_delete::OffsetDeleteRequestTopic { name: "nowhere".into(), partitions: vec![partition(0)] },
            offset_delete::OffsetDeleteRequestTopic {
                name: TOPIC.into(),
                partitions: vec![partition(9), partition(0)],
            },
        ],
    };
    let deleted = world.client.ask(request).await;
    let codes: Vec<Vec<i16>> =
        deleted.topics.iter().map(|topic| topic.partitions.iter().map(|at| at.error_code).collect()).collect();
    let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0;
    assert_eq!((deleted.error_code, codes), (0, vec![vec![unknown], vec![unknown, 0]]));
    assert_eq!(world.committed().await, -1);
    world.broker.stop().await;
}

#[tokio::test]
async fn a_topics_offsets_go_with_it() {
    let mut world = World::new(at_once).await;
    assert_eq!(world.commit("", -1, 3).await, ErrorCode::NONE);
    let request = delete_topics::DeleteTopicsRequest { topic_names: vec![TOPIC.into()], ..Default::default() };
    assert_eq!(world.client.ask_in(5, request).await.responses[0].error_code, 0);
    world.client.create_topic(TOPIC, 1, &[]).await;
    // The deletion of offsets is the broker's own business, which nobody waits for.
    while world.committed().await == 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.committed().await, -1);
    world.broker.stop().await;
}

#[tokio::test]
async fn a_restarted_broker_knows_its_groups() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut world = World::new(on_disk(dir.path())).await;
    let (_own, member, generation) = world.alone().await;
    assert_eq!(world.commit(&member, generation, 41).await, ErrorCode::NONE);
    assert_eq!(world.commit(&member, generation, 42).await, ErrorCode::NONE);
    let other = world.client.ask_in(NAMED_COMMIT, commit_of("tool", "", -1, 1)).await;
    assert_eq!(other.topics[0].partitions[0].error_code, 0);
    assert_eq!(world.delete_group("tool").await, ErrorCode::NONE);
    world.broker.stop().await;

    let mut world = World::again(on_disk(dir.path())).await;
    assert_eq!(world.committed().await, 42);
    assert_eq!(world.committed_in("tool", TOPIC).await, -1);
    let described = world.describe().await;
    assert_eq!((&*described.group_state, &*described.members[0].member_id), ("Stable", member.as_str()));
    assert_eq!(&described.members[0].member_assignment[..], b"all");
    assert_eq!(world.heartbeat(&member, generation, None).await, ErrorCode::NONE, "it never noticed");
    assert_eq!(world.commit(&member, generation, 43).await, ErrorCode::NONE);
    assert_eq!(world.committed().await, 43);
    world.broker.stop().await;
}

#[tokio::test]
async fn a_group_that_is_deleted_behind_a_commit_stays_deleted() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut world = World::new(on_disk(dir.path())).await;
    let mut tool = Client::to(&world.broker).await;
    let all = || offset_fetch::OffsetFetchRequest { group_id: GROUP.into(), topics: None, ..Default::default() };
    let delete = delete_groups::DeleteGroupsRequest { groups_names: vec![GROUP.into()] };
    // Often enough the commits are still on their way to the disk when the deletion is decided.
    for _ in 0..50 {
        assert_eq!(world.commit("", -1, 1).await, ErrorCode::NONE);
        let mut commit = commit_of(GROUP, "", -1, 2);
        commit.topics[0].partitions[0].partition_index = 1;
        world.client.send(NAMED_COMMIT, 1, &commit).await;
        tool.send(2, 2, &delete).await;
        let committed = world.client.receive::<offset_commit::OffsetCommitRequest>(NAMED_COMMIT).await.1;
        assert_eq!(committed.topics[0].partitions[0].error_code, 0);
        assert_eq!(tool.receive::<delete_groups::DeleteGroupsRequest>(2).await.1.results[0].error_code, 0);
    }
    let before = world.client.ask_in(7, all()).await;
    world.broker.stop().await;
    let mut world = World::again(on_disk(dir.path())).await;
    assert_eq!(world.client.ask_in(7, all()).await, before, "what was so before is so after");
    world.broker.stop().await;
}

#[tokio::test]
async fn commits_that_follow_each_other_closely_are_answered_in_order_and_the_last_counts() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut world = World::new(on_disk(dir.path())).await;
    let (_own, member, generation) = world.alone().await;
    for offset in 0..200 {
        world.client.send(NAMED_COMMIT, offset, &commit_of(GROUP, &member, generation, i64::from(offset))).await;
    }
    for offset in 0..200 {
        let (id, answer) = world.client.receive::<offset_commit::OffsetCommitRequest>(NAMED_COMMIT).await;
        assert_eq!((id, answer.topics[0].partitions[0].error_code), (offset, 0));
    }
    assert_eq!(world.committed().await, 199);
    world.broker.stop().await;
}

#[tokio::test]
async fn offsets_asked_for_right_behind_a_commit_are_the_committed_ones() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut world = World::new(on_disk(dir.path())).await;
    let fetch = || offset_fetch::OffsetFetchRequest { group_id: GROUP.into(), topics: None, ..Default::default() };
    for offset in 0..100 {
        // As a consumer does that commits without waiting, and asks for what is committed.
        world.client.send(NAMED_COMMIT, 1, &commit_of(GROUP, "", -1, offset)).await;
        world.client.send(7, 2, &fetch()).await;
        world.client.receive::<offset_commit::OffsetCommitRequest>(NAMED_COMMIT).await;
        let (_, fetched) = world.client.receive::<offset_fetch::OffsetFetchRequest>(7).await;
        assert_eq!(fetched.topics[0].partitions[0].committed_offset, offset);
    }
    world.broker.stop().await;
}

#[tokio::test]
async fn the_topic_of_offsets_may_also_be_made_by_hand_and_made_again() {
    let broker = start(at_once).await;
    let mut client = Client::to(&broker).await;
    client.create_topic("__consumer_offsets", 3, &[("cleanup.policy", "compact")]).await;
    client.create_topic(TOPIC, 1, &[]).await;
    assert_eq!(find(&mut client, 0, &[GROUP]).await[0].error_code, 0);
    let mut world = World { broker, client, topic: Uuid::ZERO };
    world.loaded().await;
    assert_eq!(world.commit("", -1, 3).await, ErrorCode::NONE);
    assert_eq!(world.committed().await, 3);

    let names = vec!["__consumer_offsets".into()];
    let request = delete_topics::DeleteTopicsRequest { topic_names: names, ..Default::default() };
    assert_eq!(world.client.ask_in(5, request).await.responses[0].error_code, 0);
    assert_eq!(find(&mut world.client, 0, &[GROUP]).await[0].error_code, 0);
    world.loaded().await;
    assert_eq!(world.committed().await, -1, "nothing is left of what was deleted");
    assert_eq!(world.commit("", -1, 4).await, ErrorCode::NONE);
    assert_eq!(world.committed().await, 4);
    world.broker.stop().await;
}

#[tokio::test]
async fn what_is_stored_can_be_read_by_any_consumer() {
    let mut world = World::new(at_once).await;
    assert_eq!(world.commit("", -1, 3).await, ErrorCode::NONE);
    let partition = chronik_core::group::coordinator_partition(GROUP, 50);
    let mut request = broker::fetch_from("__consumer_offsets", 0, 0);
    request.topics[0].partitions[0].partition = partition;
    let read = world.client.ask_in(broker::NAMED_FETCH, request).await.responses.remove(0).partitions.remove(0);
    assert_eq!((read.error_code, read.high_watermark), (0, 1));
    let bytes = read.records.map(|records| records.to_bytes()).unwrap_or_default();
    let batch = chronik_core::batch::batches(&bytes.into()).next().expect("one").expect("a batch");
    let record = chronik_core::batch::Records::new(&batch.records).next().expect("one").expect("a record");
    assert_eq!(record.key, Some(&b"\x00\x01\x00\x07readers\x00\x06orders\x00\x00\x00\x00"[..]), "as Kafka writes it");
    let value = record.value.expect("an offset");
    assert_eq!(value[..19], *b"\x00\x04\0\0\0\0\0\0\0\x03\0\0\0\0\x05mark");
    world.broker.stop().await;
}

#[tokio::test]
async fn of_a_partition_that_is_named_twice_the_last_offset_counts_and_it_is_told_once() {
    let mut world = World::new(at_once).await;
    let mut request = commit_of("twice", "", -1, 5);
    let again =
        offset_commit::OffsetCommitRequestPartition { committed_offset: 7, ..request.topics[0].partitions[0].clone() };
    request.topics[0].partitions.push(again);
    let answer = world.client.ask_in(NAMED_COMMIT, request).await;
    assert_eq!(answer.topics[0].partitions.iter().map(|it| it.error_code).collect::<Vec<_>>(), [0, 0]);
    assert_eq!(world.committed_in("twice", TOPIC).await, 7);
    let topic = offset_fetch::OffsetFetchRequestTopics {
        name: TOPIC.into(),
        partition_indexes: vec![0, 1, 0],
        ..Default::default()
    };
    let group = offset_fetch::OffsetFetchRequestGroup {
        group_id: "twice".into(),
        topics: Some(vec![topic]),
        ..Default::default()
    };
    let request = offset_fetch::OffsetFetchRequest { groups: vec![group.clone(), group], ..Default::default() };
    let answer = world.client.ask_in(NAMED_OFFSETS, request).await;
    assert_eq!(answer.groups.len(), 1);
    let told = answer.groups[0].topics[0].partitions.iter().map(|it| (it.partition_index, it.committed_offset));
    assert_eq!(told.collect::<Vec<_>>(), [(0, 7), (1, -1)]);
    let partition = offset_delete::OffsetDeleteRequestPartition { partition_index: 0 };
    let topic = offset_delete::OffsetDeleteRequestTopic { name: TOPIC.into(), partitions: vec![partition; 2] };
    let request = offset_delete::OffsetDeleteRequest { group_id: "twice".into(), topics: vec![topic] };
    let answer = world.client.ask(request).await;
    assert_eq!(answer.topics[0].partitions.iter().map(|it| it.error_code).collect::<Vec<_>>(), [0, 0]);
    assert_eq!(world.committed_in("twice", TOPIC).await, -1);
    world.broker.stop().await;
}
