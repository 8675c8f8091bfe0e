//! How groups come together and fall apart.

use super::*;
use crate::group::joining::FIRST_JOIN_MAX;

#[test]
fn two_members_meet_and_the_leader_assigns() {
    let mut world = World::new();
    world.join("a", "");
    world.pass(2_000);
    world.join("b", "");
    world.pass(1_000);
    assert!(world.replies.is_empty(), "somebody came: the first rebalance waits on");
    world.pass(3_000);
    let (a, b) = (world.joined("a"), world.joined("b"));
    assert_eq!((a.error, &a.leader, a.members.len()), (None, &id("a"), 2));
    assert_eq!((&b.leader, b.members.len(), b.protocol.as_deref()), (&id("a"), 0, Some("range")));
    world.sync("sb", &id("b"), b.generation, &[]);
    assert!(world.replies.is_empty(), "a follower waits for the leader");
    world.sync("sa", &id("a"), a.generation, &[("b", "all")]);
    assert!(world.replies.is_empty(), "an assignment counts when it is stored");
    world.commit_writes();
    assert_eq!(world.synced("sb"), Ok(Bytes::from_static(b"all")));
    assert_eq!(world.synced("sa"), Ok(Bytes::new()));
    assert_eq!(world.heartbeat(&id("a"), a.generation), Ok(()));
    assert_eq!(world.heartbeat(&id("a"), a.generation + 1), Err(GroupError::IllegalGeneration));
    assert_eq!(world.heartbeat("nobody", a.generation), Err(GroupError::UnknownMember));
}

#[test]
fn a_newcomer_makes_the_others_join_again() {
    let (mut world, generation) = World::stable_pair();
    world.join("c", "");
    assert_eq!(world.heartbeat(&id("a"), generation), Err(GroupError::RebalanceInProgress));
    assert_eq!(world.commit(&id("a"), generation, 7), Ok(()), "what was done may still be committed");
    world.join("a", &id("a"));
    world.join("b", &id("b"));
    let c = world.joined("c");
    assert_eq!((c.generation, world.joined("a").members.len()), (generation + 1, 3));
    assert_eq!(world.commit(&id("a"), generation + 1, 8), Err(GroupError::RebalanceInProgress));
    assert_eq!(world.heartbeat(&id("a"), generation + 1), Ok(()), "the join's answer may cross a heartbeat");
    world.commit_writes();
    assert_eq!(world.committed(), Some(7));
}

#[test]
fn a_cooperative_group_hands_partitions_over_in_two_phases() {
    // KIP-429 is the members' affair: what the coordinator must do is to let them keep working in between.
    let (mut world, first) = World::stable_pair();
    world.join("c", "");
    assert_eq!(world.commit(&id("b"), first, 1), Ok(()), "b works on while the others join");
    world.join("a", &id("a"));
    world.join("b", &id("b"));
    let second = world.joined("a").generation;
    // Phase one: the leader takes a partition away from b, and gives it to nobody yet.
    world.sync("sc", &id("c"), second, &[]);
    world.sync("sb", &id("b"), second, &[]);
    world.sync("sa", &id("a"), second, &[("a", "0"), ("b", "1"), ("c", "")]);
    world.commit_writes();
    assert_eq!(world.synced("sb"), Ok(Bytes::from_static(b"1")));
    assert_eq!(world.synced("sc"), Ok(Bytes::new()));
    // Phase two: b has given it up, and joins again with other metadata; the rest follows.
    let revoked = Join { protocols: vec![protocol("range", "tt")], ..joining("b", &id("b")) };
    world.join_as("b2", revoked);
    assert_eq!(world.heartbeat(&id("c"), second), Err(GroupError::RebalanceInProgress));
    assert_eq!(world.commit(&id("c"), second, 2), Ok(()));
    world.join("c2", &id("c"));
    world.join("a2", &id("a"));
    let third = world.joined("a2").generation;
    assert_eq!((world.joined("b2").generation, world.joined("c2").generation), (third, third));
    assert_eq!(third, second + 1);
}

#[test]
fn who_does_not_join_again_in_time_is_out() {
    let (mut world, generation) = World::stable_pair();
    world.join("c", "");
    world.join("a", &id("a"));
    world.pass(60_000);
    assert_eq!(world.joined("a").members.len(), 2, "b is out");
    assert_eq!(world.heartbeat(&id("b"), generation), Err(GroupError::UnknownMember));
}

#[test]
fn who_falls_silent_is_out_and_who_leaves_goes_at_once() {
    let (mut world, generation) = World::stable_pair();
    world.pass(6_000);
    assert_eq!(world.heartbeat(&id("a"), generation), Ok(()));
    world.pass(4_000);
    assert_eq!(world.state(), State::PreparingRebalance, "b was silent for its session");
    world.join("a", &id("a"));
    assert_eq!(world.joined("a").members.len(), 1);
    assert_eq!(world.leave(&[(&id("a"), None), ("nobody", None)]), [Ok(()), Err(GroupError::UnknownMember)]);
    world.commit_writes();
    assert_eq!(world.state(), State::Empty);
    assert_eq!(world.coordinator.stored(GROUP).map(|stored| stored.members.len()), Some(0));
}

#[test]
fn a_leader_that_never_syncs_holds_nobody_up_for_ever() {
    let mut world = World::new();
    world.join("a", "");
    world.join("b", "");
    world.pass(3_000);
    world.pass(3_000);
    let generation = world.joined("a").generation;
    world.joined("b");
    world.sync("sb", &id("b"), generation, &[]);
    for _ in 0..12 {
        world.pass(5_000);
        let _ = world.heartbeat(&id("a"), generation);
    }
    assert_eq!(world.synced("sb"), Err(GroupError::RebalanceInProgress));
    world.join("b", &id("b"));
    assert_eq!(world.joined("b").leader, id("b"));
}

#[test]
fn a_leader_that_dies_between_its_join_and_its_sync_is_replaced() {
    let mut world = World::new();
    world.join("a", "");
    world.join("b", "");
    world.pass(3_000);
    world.pass(3_000);
    let generation = world.joined("a").generation;
    world.joined("b");
    world.sync("sb", &id("b"), generation, &[]);
    world.pass(10_000);
    assert_eq!(world.synced("sb"), Err(GroupError::RebalanceInProgress), "a was silent for its session");
    world.join("b", &id("b"));
    let b = world.joined("b");
    assert_eq!((b.leader, b.members.len()), (id("b"), 1));
    world.sync("sb", &id("b"), b.generation, &[("b", "everything")]);
    world.commit_writes();
    assert_eq!(world.synced("sb"), Ok(Bytes::from_static(b"everything")));
}

#[test]
fn a_slow_syncer_is_out_although_the_group_is_stable() {
    let mut world = World::new();
    world.join("a", "");
    world.join("b", "");
    world.pass(3_000);
    world.pass(3_000);
    let generation = world.joined("a").generation;
    world.joined("b");
    world.sync("sa", &id("a"), generation, &[("a", "x"), ("b", "y")]);
    world.commit_writes();
    assert_eq!(world.state(), State::Stable);
    for _ in 0..12 {
        assert_eq!(world.state(), State::Stable);
        assert_eq!(world.heartbeat(&id("a"), generation), Ok(()));
        assert_eq!(world.heartbeat(&id("b"), generation), Ok(()), "it lives, but never asks for its assignment");
        world.pass(5_000);
    }
    assert_eq!(world.state(), State::PreparingRebalance);
    assert_eq!(world.heartbeat(&id("b"), generation), Err(GroupError::UnknownMember));
}

#[test]
fn a_rebalance_that_overtakes_a_slow_log_is_not_held_up_by_it() {
    let mut world = World::new();
    world.join("a", "");
    world.join("b", "");
    world.pass(3_000);
    world.pass(3_000);
    let first = world.joined("a").generation;
    world.joined("b");
    world.sync("sb", &id("b"), first, &[]);
    world.sync("sa", &id("a"), first, &[("b", "old")]);
    // The assignment is on its way to the log when somebody leaves, and the next one is decided before it arrives.
    world.leave(&[(&id("b"), None)]);
    assert_eq!(world.synced("sa"), Err(GroupError::RebalanceInProgress));
    world.join("a", &id("a"));
    let second = world.joined("a").generation;
    world.sync("sa", &id("a"), second, &[("a", "new")]);
    world.commit_one();
    assert_eq!(world.state(), State::CompletingRebalance, "that was the assignment of the generation before");
    world.commit_one();
    assert_eq!(world.synced("sa"), Ok(Bytes::from_static(b"new")));
    assert_eq!(world.coordinator.stored(GROUP).map(|stored| stored.generation), Some(second));
}

#[test]
fn a_member_without_an_id_is_given_one_and_may_forget_it() {
    let mut world = World::new();
    let asks_first = || Join { requires_known_member_id: true, ..joining("a", "") };
    world.join_as("a", asks_first());
    let given = world.joined("a");
    assert_eq!((given.error, given.member_id), (Some(GroupError::MemberIdRequired), id("a")));
    world.pass(10_000);
    assert!(world.coordinator.group(GROUP).is_none(), "it never came back");
    world.join_as("a", asks_first());
    world.replies.clear();
    world.join("a", &id("a"));
    world.pass(3_000);
    assert_eq!(world.joined("a").error, None);
    world.join_as("b", Join { requires_known_member_id: true, ..joining("b", "") });
    assert_eq!(world.leave(&[(&id("b"), None)]), [Ok(())], "an id may also be given back");
}

#[test]
fn a_member_that_was_given_an_id_is_waited_for_but_not_longer_than_for_the_others() {
    let (mut world, generation) = World::stable_pair();
    world.join_as("c", Join { requires_known_member_id: true, session_timeout_ms: 600_000, ..joining("c", "") });
    assert_eq!(world.heartbeat(&id("a"), generation), Ok(()), "nothing has begun yet");
    world.leave(&[(&id("b"), None)]);
    world.join("a", &id("a"));
    assert!(!world.replies.contains_key("a"), "c has its id and is expected");
    world.pass(60_000);
    assert_eq!(world.joined("a").members.len(), 1);
    world.replies.clear();
    world.join("c", &id("c"));
    world.join("a", &id("a"));
    assert_eq!(world.joined("a").members.len(), 2, "its id is good for as long as it was told");
}

#[test]
fn a_first_join_whose_rebalance_takes_too_long_is_forgotten() {
    let mut world = World::new();
    world.join_as("a", Join { rebalance_timeout_ms: 3_600_000, ..joining("a", "") });
    world.pass(3_000);
    let generation = world.joined("a").generation;
    world.sync("sa", &id("a"), generation, &[]);
    world.commit_writes();
    world.join("b", "");
    for _ in 0..60 {
        world.pass(5_000);
        assert_eq!(world.heartbeat(&id("a"), generation), Err(GroupError::RebalanceInProgress));
    }
    assert_eq!(world.joined("b").error, Some(GroupError::UnknownMember), "its client may long be gone");
    world.join("a", &id("a"));
    assert_eq!(world.joined("a").members.len(), 1);
}

#[test]
fn a_first_join_is_forgotten_also_if_nothing_else_is_due() {
    let hour = Duration::from_secs(60 * 60);
    let mut world = World::with(Settings { initial_rebalance_delay: hour, ..settings() });
    world.join_as("a", Join { rebalance_timeout_ms: 3_600_000, session_timeout_ms: 1_800_000, ..joining("a", "") });
    world.pass(FIRST_JOIN_MAX.as_millis() as u64 - 1);
    assert!(world.replies.is_empty());
    world.pass(1);
    assert_eq!(world.joined("a").error, Some(GroupError::UnknownMember));
}

#[test]
fn a_rebalance_may_end_long_before_anyones_session() {
    let mut world = World::new();
    let quick = |name, id: &str| Join { rebalance_timeout_ms: 5_000, session_timeout_ms: 600_000, ..joining(name, id) };
    world.join_as("a", quick("a", ""));
    world.pass(5_000);
    let generation = world.joined("a").generation;
    world.sync("sa", &id("a"), generation, &[("a", "all")]);
    world.commit_writes();
    world.pass(60_000);
    world.join_as("b", quick("b", ""));
    world.pass(4_999);
    assert!(world.replies.keys().all(|key| *key != "b"), "a may still join");
    world.pass(1);
    assert_eq!(world.joined("b").members.len(), 1, "a is out");
}

#[test]
fn an_answer_that_was_missed_is_given_again() {
    let mut world = World::new();
    world.join("a", "");
    world.join("b", "");
    world.pass(3_000);
    world.pass(3_000);
    let first = (world.joined("a"), world.joined("b"));
    world.join("a", &id("a"));
    world.join("b", &id("b"));
    assert_eq!((world.joined("a"), world.joined("b")), first);
    world.sync("sa", &id("a"), first.0.generation, &[("b", "all")]);
    world.commit_writes();
    world.sync("sb", &id("b"), first.0.generation, &[]);
    assert_eq!(world.synced("sb"), Ok(Bytes::from_static(b"all")));
    world.join("b", &id("b"));
    assert_eq!(world.joined("b"), first.1, "a follower with nothing new to say");
    world.join("a", &id("a"));
    assert_eq!(world.state(), State::PreparingRebalance, "a leader that joins again wants a rebalance");
}

#[test]
fn members_of_one_group_agree_on_type_and_protocol() {
    let mut world = World::new();
    let connector = Join {
        protocol_type: "connect".into(),
        protocols: vec![Protocol { name: "sessioned".into(), metadata: Bytes::from_static(b"\xff\x00opaque") }],
        ..joining("a", "")
    };
    world.join_as("a", connector.clone());
    world.join("f", "");
    assert_eq!(world.joined("f").error, Some(GroupError::InconsistentProtocol));
    world.join_as("n", Join { protocols: Vec::new(), ..connector });
    assert_eq!(world.joined("n").error, Some(GroupError::InconsistentProtocol));
    world.pass(3_000);
    let a = world.joined("a");
    assert_eq!(a.members[0].metadata, Bytes::from_static(b"\xff\x00opaque"), "nobody reads it");
    let believing = |protocol_type: &str, protocol: &str| Sync {
        member_id: id("a"),
        generation: a.generation,
        protocol_type: Some(protocol_type.into()),
        protocol: Some(protocol.into()),
        ..syncing(&[])
    };
    for (key, sync) in [("s1", believing("consumer", "sessioned")), ("s2", believing("connect", "range"))] {
        world.coordinator.sync(world.now(), sync, key);
        world.collect();
        assert_eq!(world.synced(key), Err(GroupError::InconsistentProtocol));
    }
    world.coordinator.sync(world.now(), believing("connect", "sessioned"), "s3");
    world.commit_writes();
    assert_eq!(world.synced("s3"), Ok(Bytes::new()));
}

#[test]
fn bounds_are_kept() {
    let mut world = World::new();
    for key in ["a", "b", "c", "d"] {
        world.join(key, "");
    }
    assert_eq!(world.joined("d").error, Some(GroupError::GroupFull));
    world.join_as("e", Join { session_timeout_ms: 10, ..joining("e", "") });
    assert_eq!(world.joined("e").error, Some(GroupError::InvalidSessionTimeout));
    world.join_as("h", Join { group: String::new(), ..joining("h", "") });
    assert_eq!(world.joined("h").error, Some(GroupError::InvalidGroupId));
    let (mut pair, _) = World::stable_pair();
    pair.join("k", "made-up");
    assert_eq!(pair.joined("k").error, Some(GroupError::UnknownMember));
    let ids = ["w", "x", "y", "z"].map(|key| {
        let other = Join { group: "other".into(), requires_known_member_id: true, ..joining(key, "") };
        world.join_as(key, other);
        world.joined(key).error
    });
    let given = Some(GroupError::MemberIdRequired);
    assert_eq!(ids, [given, given, given, Some(GroupError::GroupFull)], "ids are given out within the same bound");
}

#[test]
fn ids_that_were_given_out_and_not_used_take_nobodys_place() {
    let (mut world, generation) = World::stable_pair();
    for key in ["c", "d"] {
        world.join_as(key, Join { requires_known_member_id: true, ..joining(key, "") });
        assert_eq!(world.joined(key).error, Some(GroupError::MemberIdRequired));
    }
    world.join("d", &id("d"));
    assert_eq!(world.heartbeat(&id("a"), generation), Err(GroupError::RebalanceInProgress), "d is in");
}

#[test]
fn what_members_say_of_themselves_must_fit_a_record() {
    let mut world = World::new();
    let large = Bytes::from(vec![0; super::super::journal::COMMAND_BYTES_MAX as usize]);
    let protocols = vec![Protocol { name: "range".into(), metadata: large }];
    world.join_as("a", Join { protocols, ..joining("a", "") });
    world.pass(3_000);
    let generation = world.joined("a").generation;
    world.sync("sa", &id("a"), generation, &[]);
    assert_eq!(world.synced("sa"), Err(GroupError::GroupTooLarge));
    assert!(world.log.records.is_empty());
}
