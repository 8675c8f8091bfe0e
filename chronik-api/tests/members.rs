//! Members of groups over the wire: joining, rebalancing, coming back, being told no.

mod broker;
mod group_world;

use broker::Client;
use bytes::Bytes;
use chronik_api::config::Millis;
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::*;
use group_world::*;

#[tokio::test]
async fn two_members_share_and_an_eager_third_makes_them_share_again() {
    let mut world = World::new(at_once).await;
    let (mut a, a_id, first) = world.alone().await;
    assert!(a_id.starts_with("admin-story-"), "{a_id}");

    let (mut b, b_id) = world.newcomer().await;
    world.until("PreparingRebalance").await;
    assert_eq!(world.heartbeat(&a_id, first, None).await, ErrorCode::REBALANCE_IN_PROGRESS);
    assert_eq!(world.commit(&a_id, first, 5).await, ErrorCode::NONE, "what was done up to now");
    a.send(9, 2, &join(&a_id)).await;
    let (of_a, of_b) = (joined(&mut a).await, joined(&mut b).await);
    assert_eq!((of_a.generation_id, of_b.generation_id), (first + 1, first + 1));
    let mut told: Vec<&str> = of_a.members.iter().map(|member| &*member.member_id).collect();
    let mut both = vec![a_id.as_str(), b_id.as_str()];
    told.sort_unstable();
    both.sort_unstable();
    assert_eq!((told, &*of_a.leader, of_b.members.len()), (both, a_id.as_str(), 0));
    assert!(of_a.members.iter().all(|member| member.metadata == wants(TOPIC)), "what each said, as it said it");
    assert_eq!((of_b.protocol_type.as_deref(), of_b.protocol_name.as_deref()), (Some("consumer"), Some("range")));

    let next = first + 1;
    assert_eq!(world.commit(&a_id, next, 6).await, ErrorCode::REBALANCE_IN_PROGRESS, "not before all know their share");
    assert_eq!(world.commit(&a_id, first, 6).await, ErrorCode::ILLEGAL_GENERATION);
    assert_eq!(world.heartbeat(&b_id, next, None).await, ErrorCode::NONE, "it is getting ready");
    b.send(5, 3, &sync(&b_id, next, &[])).await;
    a.send(5, 3, &sync(&a_id, next, &[(&a_id, "0"), (&b_id, "1")])).await;
    let of_b = b.receive::<sync_group::SyncGroupRequest>(5).await.1;
    let of_a = a.receive::<sync_group::SyncGroupRequest>(5).await.1;
    assert_eq!((&of_a.assignment[..], &of_b.assignment[..]), (&b"0"[..], &b"1"[..]));
    assert_eq!(world.commit(&b_id, next, 7).await, ErrorCode::NONE);
    assert_eq!(world.committed().await, 7);

    let described = world.describe().await;
    assert_eq!((&*described.group_state, &*described.protocol_data, described.members.len()), ("Stable", "range", 2));
    let seen = described.members.iter().find(|member| *member.member_id == *a_id).expect("a is in it");
    assert_eq!((&*seen.client_id, &seen.member_assignment[..]), ("story", &b"0"[..]));
    assert!(seen.client_host.starts_with("/127.0.0.1"), "{}", seen.client_host);

    assert_eq!(world.leave(&[(&b_id, None), ("nobody", None)]).await, [ErrorCode::NONE, ErrorCode::UNKNOWN_MEMBER_ID]);
    assert_eq!(world.heartbeat(&b_id, next, None).await, ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(world.heartbeat(&a_id, next, None).await, ErrorCode::REBALANCE_IN_PROGRESS);
    a.send(9, 4, &join(&a_id)).await;
    assert_eq!(joined(&mut a).await.members.len(), 1);
    world.broker.stop().await;
}

#[tokio::test]
async fn cooperative_members_give_up_in_one_rebalance_what_others_get_in_the_next() {
    let mut world = World::new(at_once).await;
    let (mut a, a_id, first) = world.alone().await;
    let (mut b, b_id) = world.newcomer().await;
    world.until("PreparingRebalance").await;
    a.send(9, 1, &join(&a_id)).await;
    joined(&mut a).await;
    joined(&mut b).await;
    // The first phase: a keeps one half, nobody has the other.
    b.send(5, 1, &sync(&b_id, first + 1, &[])).await;
    a.send(5, 1, &sync(&a_id, first + 1, &[(&a_id, "0")])).await;
    assert_eq!(&a.receive::<sync_group::SyncGroupRequest>(5).await.1.assignment[..], b"0");
    assert_eq!(b.receive::<sync_group::SyncGroupRequest>(5).await.1.assignment, Bytes::new());
    // It has given up the other half, and says so by joining again, with other metadata.
    let mut again = join(&a_id);
    again.protocols[0].metadata = wants("orders-owned-0");
    a.send(9, 1, &again).await;
    world.until("PreparingRebalance").await;
    b.send(9, 1, &join(&b_id)).await;
    assert_eq!(joined(&mut b).await.generation_id, first + 2);
    let leads = joined(&mut a).await;
    let own = leads.members.iter().find(|member| *member.member_id == *a_id).expect("a is in it");
    assert_eq!(own.metadata, wants("orders-owned-0"));
    b.send(5, 1, &sync(&b_id, first + 2, &[])).await;
    a.send(5, 1, &sync(&a_id, first + 2, &[(&a_id, "0"), (&b_id, "1")])).await;
    assert_eq!(&b.receive::<sync_group::SyncGroupRequest>(5).await.1.assignment[..], b"1");
    world.broker.stop().await;
}

#[tokio::test]
async fn who_comes_to_a_full_group_is_told_so_before_anything_else() {
    let mut world = World::new(|config| {
        at_once(config);
        config.groups.max_size = 1;
    })
    .await;
    let (_a, a_id, generation) = world.alone().await;
    let mut code = async |request: join_group::JoinGroupRequest| ErrorCode(world.client.ask(request).await.error_code);
    for newcomer in [join(""), join("made-up"), join_as("i")] {
        assert_eq!(code(newcomer).await, ErrorCode::GROUP_MAX_SIZE_REACHED);
    }
    assert_eq!(world.heartbeat(&a_id, generation, None).await, ErrorCode::NONE, "it never noticed");
    world.broker.stop().await;
}

#[tokio::test]
async fn who_cannot_be_a_member_is_told_why() {
    let mut world = World::new(at_once).await;
    let (_a, a_id, generation) = world.alone().await;
    let mut code = async |request: join_group::JoinGroupRequest| ErrorCode(world.client.ask(request).await.error_code);
    assert_eq!(code(join("made-up")).await, ErrorCode::UNKNOWN_MEMBER_ID);
    let short = join_group::JoinGroupRequest { session_timeout_ms: 5, ..join("") };
    assert_eq!(code(short).await, ErrorCode::INVALID_SESSION_TIMEOUT);
    let other = join_group::JoinGroupRequest { protocol_type: "connect".into(), ..join("") };
    assert_eq!(code(other).await, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    let mut foreign = join("");
    foreign.protocols[0].name = "sticky".into();
    assert_eq!(code(foreign).await, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    let nameless = join_group::JoinGroupRequest { group_id: "".into(), ..join("") };
    assert_eq!(code(nameless).await, ErrorCode::INVALID_GROUP_ID);

    let wrong = sync_group::SyncGroupRequest { protocol_name: Some("sticky".into()), ..sync(&a_id, generation, &[]) };
    assert_eq!(world.client.ask(wrong).await.error_code, ErrorCode::INCONSISTENT_GROUP_PROTOCOL.0);
    let wrong = sync_group::SyncGroupRequest { protocol_type: Some("x".into()), ..sync(&a_id, generation, &[]) };
    assert_eq!(world.client.ask(wrong).await.error_code, ErrorCode::INCONSISTENT_GROUP_PROTOCOL.0);
    let late = world.client.ask(sync(&a_id, generation - 1, &[])).await;
    assert_eq!(late.error_code, ErrorCode::ILLEGAL_GENERATION.0);
    let nobody = world.client.ask(sync("nobody", generation, &[])).await;
    assert_eq!(nobody.error_code, ErrorCode::UNKNOWN_MEMBER_ID.0);
    world.broker.stop().await;
}

#[tokio::test]
async fn members_that_are_no_consumers_are_members_all_the_same() {
    let mut world = World::new(at_once).await;
    let opaque = Bytes::from_static(b"\xff\x00 anything");
    let protocols = vec![join_group::JoinGroupRequestProtocol { name: "sessioned".into(), metadata: opaque.clone() }];
    let mut request = join_group::JoinGroupRequest { protocol_type: "connect".into(), protocols, ..join("") };
    request.member_id = world.client.ask(request.clone()).await.member_id;
    let joined = world.client.ask(request.clone()).await;
    assert_eq!((joined.error_code, &joined.members[0].metadata), (0, &opaque));
    let sync = sync_group::SyncGroupRequest {
        protocol_type: Some("connect".into()),
        protocol_name: Some("sessioned".into()),
        ..sync(&joined.member_id, joined.generation_id, &[(&joined.member_id, "work")])
    };
    assert_eq!(&world.client.ask(sync).await.assignment[..], b"work");
    let described = world.describe().await;
    assert_eq!((&*described.protocol_type, &described.members[0].member_metadata), ("connect", &opaque));
    world.broker.stop().await;
}

#[tokio::test]
async fn a_member_before_version_four_joins_without_being_asked_twice() {
    let mut world = World::new(at_once).await;
    for version in 0..=3 {
        let joined = world.client.ask_in(version, join("")).await;
        assert_eq!((joined.error_code, joined.members.len()), (0, 1), "version {version}");
        let generation = joined.generation_id;
        let synced = world.client.ask_in(version.min(2), sync(&joined.member_id, generation, &[])).await;
        assert_eq!(synced.error_code, 0);
        let request = leave_group::LeaveGroupRequest {
            group_id: GROUP.into(),
            member_id: joined.member_id,
            ..Default::default()
        };
        assert_eq!(world.client.ask_in(version.min(2), request).await.error_code, 0);
    }
    world.broker.stop().await;
}

#[tokio::test]
async fn a_member_that_falls_silent_is_out_when_its_session_ends() {
    let mut world = World::new(|config| {
        at_once(config);
        config.groups.min_session_timeout_ms = Millis::seconds(0);
    })
    .await;
    let mut own = Client::to(&world.broker).await;
    let short = |member: &str| join_group::JoinGroupRequest { session_timeout_ms: 50, ..join(member) };
    let given = own.ask(short("")).await.member_id;
    let joined = own.ask(short(&given)).await;
    own.ask(sync(&given, joined.generation_id, &[])).await;
    world.until("Empty").await;
    assert_eq!(world.heartbeat(&given, joined.generation_id, None).await, ErrorCode::UNKNOWN_MEMBER_ID);
    world.broker.stop().await;
}

#[tokio::test]
async fn a_static_member_takes_up_its_work_again_and_its_double_is_fenced() {
    let mut world = World::new(at_once).await;
    let joined = world.client.ask(join_as("i")).await;
    assert_eq!(joined.error_code, 0, "whoever has a name of its own is not asked twice");
    let (old, generation) = (joined.member_id.to_string(), joined.generation_id);
    let assigned = sync_group::SyncGroupRequest {
        group_instance_id: Some("i".into()),
        ..sync(&old, generation, &[(&old, "mine")])
    };
    assert_eq!(world.client.ask(assigned).await.error_code, 0);

    let again = world.client.ask(join_as("i")).await;
    assert_eq!((again.error_code, again.generation_id, again.skip_assignment), (0, generation, true));
    assert_ne!(*again.member_id, *old);
    let kept = world.client.ask(sync(&again.member_id, generation, &[])).await;
    assert_eq!(&kept.assignment[..], b"mine");
    assert_eq!(world.heartbeat(&old, generation, Some("i")).await, ErrorCode::FENCED_INSTANCE_ID);
    assert_eq!(world.heartbeat(&old, generation, Some("other")).await, ErrorCode::UNKNOWN_MEMBER_ID);
    let double = join_group::JoinGroupRequest { group_instance_id: Some("i".into()), ..join(&old) };
    assert_eq!(world.client.ask(double).await.error_code, ErrorCode::FENCED_INSTANCE_ID.0);
    let stale = offset_commit::OffsetCommitRequest {
        group_instance_id: Some("i".into()),
        ..commit_of(GROUP, &old, generation, 1)
    };
    let refused = world.client.ask_in(NAMED_COMMIT, stale).await;
    assert_eq!(refused.topics[0].partitions[0].error_code, ErrorCode::FENCED_INSTANCE_ID.0);

    let gone = world.leave(&[(&old, Some("i")), ("", Some("i")), ("", Some("i"))]).await;
    assert_eq!(gone, [ErrorCode::FENCED_INSTANCE_ID, ErrorCode::NONE, ErrorCode::UNKNOWN_MEMBER_ID]);
    assert_eq!(&*world.describe().await.group_state, "Empty");
    world.broker.stop().await;
}

#[tokio::test]
async fn before_a_generation_is_agreed_on_there_is_nothing_to_describe_of_its_members() {
    let mut world = World::new(at_once).await;
    let (_own, id) = world.newcomer().await;
    world.until("CompletingRebalance").await;
    let described = world.describe().await;
    assert_eq!((&*described.protocol_data, described.members.len()), ("", 1));
    let member = &described.members[0];
    assert_eq!(*member.member_id, *id);
    assert!(member.member_metadata.is_empty() && member.member_assignment.is_empty());
    world.broker.stop().await;
}

#[tokio::test]
async fn a_client_with_the_longest_name_is_still_known_after_a_restart() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut world = World::new(on_disk(dir.path())).await;
    // The longest that its field can hold; the member's id, which begins with it, has no more room.
    let name = "é".repeat(i16::MAX as usize / 2);
    let frame = chronik_proto_kafka::encode_request(&join(""), 3, 1, Some(&name)).concat();
    let mut own = Client::to(&world.broker).await;
    tokio::io::AsyncWriteExt::write_all(&mut own.0, &frame).await.expect("sent");
    let (_, joined) = own.receive::<join_group::JoinGroupRequest>(3).await;
    assert_eq!(joined.error_code, 0);
    let id = joined.member_id.to_string();
    assert_eq!(own.ask_in(4, sync(&id, joined.generation_id, &[(&id, "all")])).await.error_code, 0);
    world.broker.stop().await;
    world = World::again(on_disk(dir.path())).await;
    assert_eq!(world.heartbeat(&id, joined.generation_id, None).await, ErrorCode::NONE);
    world.broker.stop().await;
}

#[tokio::test]
async fn a_member_of_a_group_without_a_name_is_told_that_there_is_no_such_name() {
    let mut world = World::new(at_once).await;
    let heartbeat = heartbeat::HeartbeatRequest::default();
    assert_eq!(world.client.ask(heartbeat).await.error_code, ErrorCode::INVALID_GROUP_ID.0);
    let leave = leave_group::LeaveGroupRequest::default();
    assert_eq!(world.client.ask(leave).await.error_code, ErrorCode::INVALID_GROUP_ID.0);
    let sync = sync_group::SyncGroupRequest { group_id: "".into(), ..sync("x", 1, &[]) };
    assert_eq!(world.client.ask(sync).await.error_code, ErrorCode::INVALID_GROUP_ID.0);
    world.broker.stop().await;
}
