//! What is committed, and for how long.

use super::*;

fn at(world: &World, ms: i64) -> Timestamp {
    Timestamp(world.now_ms as i64 + ms)
}

fn delete(world: &mut World, partitions: &[(&str, i32)]) -> Result<Vec<Option<GroupError>>, GroupError> {
    let partitions: Vec<(String, i32)> = partitions.iter().map(|(topic, at)| ((*topic).into(), *at)).collect();
    let answer = world.coordinator.delete_offsets(GROUP, &partitions, "delete").map_err(|(error, _)| error);
    world.collect();
    answer
}

fn delete_group(world: &mut World) -> Option<Reply> {
    world.coordinator.delete_group(GROUP, "group");
    world.commit_writes();
    world.replies.remove("group")
}

#[test]
fn offsets_without_a_group_belong_to_whoever_commits_them() {
    let mut world = World::new();
    assert_eq!(world.commit("", 3, 1), Err(GroupError::NotFound));
    assert_eq!(world.commit("", -1, 5), Ok(()));
    assert_eq!(world.committed(), None, "not before it is stored");
    world.commit_writes();
    assert_eq!((world.committed(), world.replies.remove("commit")), (Some(5), Some(Reply::Stored(Ok(())))));
    world.join("a", "");
    world.pass(3_000);
    assert_eq!(world.commit("", -1, 6), Err(GroupError::UnknownMember), "now it is somebody's");
    assert_eq!(world.commit(&id("a"), -1, 6), Err(GroupError::IllegalGeneration));
}

#[test]
fn too_much_metadata_refuses_its_own_offset_only() {
    let mut world = World::new();
    let offset = |topic: &str, metadata: &str| OffsetToCommit {
        topic: topic.into(),
        metadata: metadata.into(),
        ..OffsetToCommit::default()
    };
    let offsets = vec![offset("large", "123456789"), offset("t", "12345678")];
    let commit = Commit { group: GROUP.into(), generation: -1, offsets, ..Commit::default() };
    let answer = world.coordinator.commit(world.now(), commit, "commit").map_err(|(error, _)| error);
    assert_eq!(answer, Ok(vec![Some(GroupError::MetadataTooLarge), None]));
    world.commit_writes();
    assert_eq!(world.coordinator.group(GROUP).map(|group| group.offsets.len()), Some(1));
}

#[test]
fn a_failed_store_is_told_and_changes_nothing() {
    let (mut world, generation) = World::stable_pair();
    assert_eq!(world.commit(&id("a"), generation, 9), Ok(()));
    world.fail_writes();
    assert_eq!(world.replies.remove("commit"), Some(Reply::Stored(Err(GroupError::NotAvailable))));
    assert_eq!(world.committed(), None);
    assert_eq!(world.commit_to("new", "", -1, "t", 1), Ok(()));
    world.fail_writes();
    assert!(world.coordinator.group("new").is_none(), "nothing of it is left behind");
}

#[test]
fn who_reads_after_a_commit_was_sent_reads_it() {
    let mut world = World::new();
    assert_eq!(world.coordinator.when_settled(GROUP, "at once"), Some("at once"));
    assert_eq!(world.commit("", -1, 1), Ok(()));
    assert_eq!(world.commit("", -1, 2), Ok(()));
    assert_eq!(world.coordinator.when_settled(GROUP, "reader"), None);
    assert_eq!(world.commit("", -1, 3), Ok(()));
    world.commit_one();
    assert!(!world.replies.contains_key("reader"));
    world.commit_one();
    assert_eq!((world.replies.remove("reader"), world.committed()), (Some(Reply::Stored(Ok(()))), Some(2)));
    assert_eq!(world.coordinator.when_settled(GROUP, "another"), None);
    world.fail_writes();
    assert!(world.replies.contains_key("another"), "also if it came to nothing");
}

#[test]
fn an_assignment_that_cannot_be_stored_is_nobodys() {
    let mut world = World::new();
    world.join("a", "");
    world.pass(3_000);
    let generation = world.joined("a").generation;
    world.sync("sa", &id("a"), generation, &[("a", "x")]);
    world.fail_writes();
    assert_eq!(world.synced("sa"), Err(GroupError::NotAvailable));
    assert_eq!(world.state(), State::PreparingRebalance);
}

#[test]
fn offsets_expire_from_when_the_group_lost_its_last_member() {
    let (mut world, generation) = World::stable_pair();
    assert_eq!(world.commit(&id("a"), generation, 9), Ok(()));
    world.commit_writes();
    assert_eq!(world.coordinator.expire_offsets(at(&world, 5_000_000)), 0, "its topic is consumed");
    world.leave(&[(&id("a"), None), (&id("b"), None)]);
    world.commit_writes();
    assert_eq!(world.coordinator.expire_offsets(at(&world, 999_999)), 0);
    assert_eq!(world.coordinator.expire_offsets(at(&world, 1_000_000)), 1);
    world.commit_writes();
    assert!(world.coordinator.group(GROUP).is_none(), "nothing is left of the group");
    assert!(world.rebuilt().coordinator.group(GROUP).is_none());
}

#[test]
fn offsets_of_topics_that_a_stable_group_no_longer_consumes_expire_from_their_commit() {
    let (mut world, generation) = World::stable_pair();
    assert_eq!(world.commit_to(GROUP, &id("a"), generation, "former", 1), Ok(()));
    assert_eq!(world.commit(&id("a"), generation, 2), Ok(()));
    world.commit_writes();
    let later = at(&world, 1_000_000);
    world.join("c", "");
    assert_eq!(world.coordinator.expire_offsets(later), 0, "what is consumed is about to be told");
    world.join("a", &id("a"));
    world.join("b", &id("b"));
    let generation = world.joined("a").generation;
    world.sync("sa", &id("a"), generation, &[]);
    world.commit_writes();
    assert_eq!(world.coordinator.expire_offsets(later), 1);
    world.commit_writes();
    assert_eq!(world.coordinator.group(GROUP).map(|group| group.offsets.get("former", 0).is_some()), Some(false));
    assert_eq!(world.committed(), Some(2));
}

#[test]
fn an_offset_that_is_reset_in_a_long_empty_group_is_kept_from_then_on() {
    let (mut world, _) = World::stable_pair();
    world.leave(&[(&id("a"), None), (&id("b"), None)]);
    world.pass(2_000_000);
    assert_eq!(world.commit("", -1, 1), Ok(()));
    world.commit_writes();
    assert_eq!(world.coordinator.expire_offsets(at(&world, 999_999)), 0);
    assert_eq!(world.coordinator.expire_offsets(at(&world, 1_000_000)), 1);
}

#[test]
fn a_committer_may_say_how_long_its_offset_is_to_be_kept() {
    let mut world = World::new();
    let offsets = vec![OffsetToCommit { topic: "t".into(), ..OffsetToCommit::default() }];
    let commit = Commit { group: GROUP.into(), generation: -1, retention_ms: Some(500), offsets, ..Commit::default() };
    assert!(world.coordinator.commit(world.now(), commit, "commit").is_ok());
    world.commit_writes();
    let mut world = world.rebuilt();
    assert_eq!(world.coordinator.expire_offsets(at(&world, 499)), 0);
    assert_eq!(world.coordinator.expire_offsets(at(&world, 500)), 1);
}

#[test]
fn an_offset_on_its_way_is_never_expired_for_the_age_of_the_one_before() {
    let mut world = World::new();
    assert_eq!(world.commit("", -1, 1), Ok(()));
    world.commit_writes();
    world.pass(2_000_000);
    assert_eq!(world.commit("", -1, 2), Ok(()));
    assert_eq!(world.coordinator.expire_offsets(at(&world, 0)), 0);
    world.commit_writes();
    assert_eq!((world.committed(), world.rebuilt().committed()), (Some(2), Some(2)));
}

#[test]
fn a_group_that_never_committed_is_forgotten_when_it_is_empty() {
    let (mut world, _) = World::stable_pair();
    world.coordinator.expire_offsets(at(&world, 0));
    world.commit_writes();
    assert!(world.coordinator.group(GROUP).is_some());
    world.leave(&[(&id("a"), None), (&id("b"), None)]);
    world.commit_writes();
    world.coordinator.expire_offsets(at(&world, 0));
    world.commit_writes();
    assert!(world.coordinator.group(GROUP).is_none() && world.rebuilt().coordinator.group(GROUP).is_none());
}

#[test]
fn offsets_of_consumed_topics_are_not_deleted_nor_groups_with_members() {
    let (mut world, generation) = World::stable_pair();
    assert_eq!(world.commit(&id("a"), generation, 9), Ok(()));
    world.commit_writes();
    assert_eq!(delete(&mut world, &[("t", 0), ("other", 0)]), Ok(vec![Some(GroupError::SubscribedToTopic), None]));
    assert_eq!(delete_group(&mut world), Some(Reply::Stored(Err(GroupError::NotEmpty))));
    world.leave(&[(&id("a"), None), (&id("b"), None)]);
    assert_eq!(delete(&mut world, &[("t", 0)]), Ok(vec![None]));
    world.commit_writes();
    assert_eq!((world.committed(), world.replies.remove("delete")), (None, Some(Reply::Stored(Ok(())))));
    assert_eq!(delete_group(&mut world), Some(Reply::Stored(Ok(()))));
    assert_eq!(delete_group(&mut world), Some(Reply::Stored(Err(GroupError::NotFound))));
    assert_eq!(delete(&mut world, &[("t", 0)]), Err(GroupError::NotFound));
}

#[test]
fn a_group_whose_offsets_were_deleted_is_there_to_be_deleted_too_but_not_for_ever() {
    let mut world = World::new();
    for _ in 0..2 {
        assert_eq!(world.commit("", -1, 5), Ok(()));
        world.commit_writes();
        assert_eq!(delete(&mut world, &[("t", 0)]), Ok(vec![None]));
        world.commit_writes();
    }
    assert_eq!(delete_group(&mut world), Some(Reply::Stored(Ok(()))));
    assert_eq!(delete_group(&mut world), Some(Reply::Stored(Err(GroupError::NotFound))));
    assert_eq!(world.commit("", -1, 5), Ok(()));
    world.commit_writes();
    assert_eq!(delete(&mut world, &[("t", 0)]), Ok(vec![None]));
    assert_eq!(world.coordinator.expire_offsets(at(&world, 0)), 0);
    assert!(world.coordinator.group(GROUP).is_some(), "the deletion is still on its way");
    world.commit_writes();
    assert_eq!(world.coordinator.expire_offsets(at(&world, 0)), 0);
    assert!(world.coordinator.group(GROUP).is_none());
}

#[test]
fn what_consumes_unreadably_may_consume_anything_and_what_is_no_consumer_is_left_alone() {
    for (protocol_type, expected) in
        [("consumer", Ok(vec![Some(GroupError::SubscribedToTopic)])), ("connect", Err(GroupError::NotEmpty))]
    {
        let mut world = World::new();
        let protocols = vec![Protocol { name: "p".into(), metadata: Bytes::from_static(b"?") }];
        world.join_as("a", Join { protocol_type: protocol_type.into(), protocols, ..joining("a", "") });
        world.pass(3_000);
        assert_eq!(delete(&mut world, &[("t", 0)]), expected);
    }
}

/// Each way of forgetting, decided while a commit is on its way: a rebuilt coordinator must know no more than the one that
/// decided.
#[test]
fn what_is_forgotten_behind_a_commit_on_its_way_stays_forgotten() {
    type Forget = fn(&mut World);
    let ways: [(&str, Forget); 3] = [
        ("group", |world| world.coordinator.delete_group(GROUP, "forget")),
        ("offsets", |world| assert_eq!(delete(world, &[("t", 0)]), Ok(vec![None]))),
        ("topic", |world| world.coordinator.topic_deleted("t", TOPIC_ID)),
    ];
    for (way, forget) in ways {
        let mut world = World::new();
        assert_eq!(world.commit("", -1, 5), Ok(()));
        forget(&mut world);
        world.commit_writes();
        assert!(world.coordinator.group(GROUP).is_none(), "{way}");
        assert_eq!(fold(&world.log.records), Durable::default(), "{way}");
    }
}

#[test]
fn a_commit_after_a_deletion_outlives_it() {
    let mut world = World::new();
    assert_eq!(world.commit("", -1, 1), Ok(()));
    world.commit_writes();
    world.coordinator.delete_group(GROUP, "group");
    assert_eq!(world.commit("", -1, 2), Ok(()));
    world.commit_writes();
    assert_eq!((world.committed(), world.rebuilt().committed()), (Some(2), Some(2)));
}

#[test]
fn a_deleted_topics_offsets_go_with_it_and_its_successors_stay() {
    let mut world = World::new();
    assert_eq!(world.commit_to("one", "", -1, "t", 1), Ok(()));
    assert_eq!(world.commit_to("two", "", -1, "other", 1), Ok(()));
    world.commit_writes();
    assert_eq!(world.commit_to("two", "", -1, "t", 2), Ok(()));
    let successor = OffsetToCommit { topic: "t".into(), topic_id: TopicId([8; 16]), ..OffsetToCommit::default() };
    let commit = Commit { group: "three".into(), generation: -1, offsets: vec![successor], ..Commit::default() };
    assert!(world.coordinator.commit(world.now(), commit, "successor").is_ok());
    world.coordinator.topic_deleted("t", TOPIC_ID);
    world.commit_writes();
    let (offsets, _) = fold(&world.log.records);
    let left: Vec<_> = offsets.keys().map(|(group, topic, _)| (group.as_str(), topic.as_str())).collect();
    assert_eq!(left, [("three", "t"), ("two", "other")]);
    assert_eq!(durable(&world.coordinator), fold(&world.log.records));
}

#[test]
fn a_large_deletion_is_answered_when_its_last_part_is_stored() {
    let mut world = World::new();
    for part in 0..3 {
        let offset = |partition| OffsetToCommit { topic: "t".into(), partition, ..OffsetToCommit::default() };
        let offsets = (part * 10_000..(part + 1) * 10_000).map(offset).collect();
        let commit = Commit { group: GROUP.into(), generation: -1, offsets, ..Commit::default() };
        assert!(world.coordinator.commit(world.now(), commit, "commit").is_ok());
    }
    world.commit_writes();
    world.coordinator.delete_group(GROUP, "group");
    world.collect();
    assert!(world.log.appended.len() > 1);
    while world.log.appended.len() > 1 {
        world.commit_one();
        assert!(!world.replies.contains_key("group"));
    }
    world.commit_one();
    assert_eq!(world.replies.remove("group"), Some(Reply::Stored(Ok(()))));
    assert_eq!(fold(&world.log.records), Durable::default());
    assert_eq!(world.coordinator.log_bytes().1, 0, "and nothing is counted as live any more");
}

#[test]
fn a_commit_that_fits_no_batch_is_refused_whole() {
    let mut world = World::with(Settings { offset_metadata_bytes_max: 32_767, ..settings() });
    let offset = |partition| OffsetToCommit {
        topic: "t".into(),
        partition,
        metadata: "x".repeat(32_000),
        ..OffsetToCommit::default()
    };
    let offsets = (0..600).map(offset).collect();
    let commit = Commit { group: GROUP.into(), generation: -1, offsets, ..Commit::default() };
    let answer = world.coordinator.commit(world.now(), commit, "commit").map_err(|(error, _)| error);
    assert_eq!(answer, Err(GroupError::CommitTooLarge));
}
