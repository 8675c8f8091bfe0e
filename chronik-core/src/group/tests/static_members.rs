//! Members with an instance id, which may come back without a rebalance (KIP-345).

use super::*;

fn fixed(client: &str, instance: &str) -> Join {
    Join { instance_id: Some(instance.into()), ..joining(client, "") }
}

/// The id that a static member is given in a join of this client.
fn fixed_id(client: &str, instance: &str) -> String {
    format!("{instance}-{}", uuid(client))
}

fn alone() -> (World, i32) {
    let mut world = World::new();
    world.join_as("a", fixed("a", "i"));
    world.pass(3_000);
    let generation = world.joined("a").generation;
    let sync = Sync {
        member_id: fixed_id("a", "i"),
        instance_id: Some("i".into()),
        generation,
        assignments: BTreeMap::from([(fixed_id("a", "i"), Bytes::from_static(b"mine"))]),
        ..syncing(&[])
    };
    world.coordinator.sync(world.now(), sync, "sa");
    world.commit_writes();
    assert_eq!(world.synced("sa"), Ok(Bytes::from_static(b"mine")));
    (world, generation)
}

#[test]
fn one_comes_back_without_a_rebalance_and_its_double_is_fenced() {
    let (mut world, generation) = alone();
    world.join_as("again", Join { knows_skip_assignment: true, ..fixed("again", "i") });
    assert!(!world.replies.contains_key("again"), "its new id counts when it is stored");
    world.commit_writes();
    let again = world.joined("again");
    assert_eq!((again.error, again.generation, again.skip_assignment), (None, generation, true));
    assert_eq!((again.members.len(), &again.leader), (1, &fixed_id("again", "i")));
    world.sync("s2", &fixed_id("again", "i"), generation, &[]);
    assert_eq!(world.synced("s2"), Ok(Bytes::from_static(b"mine")));
    let old = fixed_id("a", "i");
    let heartbeat = world.coordinator.heartbeat(world.now(), GROUP, &old, Some("i"), generation);
    assert_eq!(heartbeat, Err(GroupError::FencedInstance));
    world.join_as("old", Join { member_id: old, ..fixed("a", "i") });
    assert_eq!(world.joined("old").error, Some(GroupError::FencedInstance));
    let rebuilt = world.rebuilt();
    assert!(rebuilt.coordinator.group(GROUP).is_some_and(|group| group.members.contains(&fixed_id("again", "i"))));
}

#[test]
fn a_leader_that_knows_nothing_of_skipping_is_told_of_its_former_self() {
    let (mut world, _) = alone();
    world.join_as("again", fixed("again", "i"));
    world.commit_writes();
    let again = world.joined("again");
    assert_eq!((again.skip_assignment, again.members.len(), again.leader), (false, 0, fixed_id("a", "i")));
}

#[test]
fn one_that_restarts_within_its_session_is_not_missed_and_later_it_is_out() {
    let (mut world, generation) = alone();
    world.pass(9_999);
    assert_eq!(world.state(), State::Stable);
    world.join_as("again", fixed("again", "i"));
    world.commit_writes();
    assert_eq!(world.joined("again").generation, generation);
    world.pass(10_000);
    world.commit_writes();
    assert_eq!(world.state(), State::Empty);
}

#[test]
fn a_double_that_waits_is_told_that_it_is_fenced() {
    let mut world = World::new();
    world.join_as("a", fixed("a", "i"));
    world.join_as("b", fixed("b", "i"));
    assert_eq!(world.joined("a").error, Some(GroupError::FencedInstance));
    world.pass(3_000);
    let b = world.joined("b");
    assert_eq!((b.error, b.members.len()), (None, 1));
    world.join_as("other", fixed("other", "j"));
    assert_eq!(world.heartbeat(&fixed_id("b", "i"), b.generation), Err(GroupError::RebalanceInProgress));
}

#[test]
fn one_that_restarts_while_the_others_join_stays_a_member() {
    let (mut world, generation) = alone();
    world.join("b", "");
    world.pass(9_999);
    assert!(!world.replies.contains_key("b"), "b waits for it");
    world.join_as("again", fixed("again", "i"));
    let (b, again) = (world.joined("b"), world.joined("again"));
    assert_eq!((b.generation, again.generation), (generation + 1, generation + 1));
    assert_eq!((again.leader, again.members.len()), (fixed_id("again", "i"), 2));
}

#[test]
fn with_other_protocols_it_causes_a_rebalance() {
    let (mut world, generation) = alone();
    world.join_as("b", Join { protocols: vec![protocol("range", "t"), protocol("sticky", "t")], ..fixed("b", "j") });
    world.join_as("a2", Join { member_id: fixed_id("a", "i"), ..fixed("a", "i") });
    assert_eq!(world.joined("b").generation, generation + 1);
}

#[test]
fn an_administrator_removes_one_by_its_instance_alone() {
    let (mut world, _) = alone();
    assert_eq!(
        world.leave(&[("", Some("nobody")), ("", None), ("x", Some("i")), ("", Some("i"))]),
        [Err(GroupError::UnknownMember), Err(GroupError::UnknownMember), Err(GroupError::FencedInstance), Ok(())]
    );
    assert_eq!(world.state(), State::Empty);
}

#[test]
fn an_id_that_was_given_to_a_dynamic_member_does_not_make_a_static_one() {
    let (mut world, generation) = alone();
    world.join_as("c", Join { requires_known_member_id: true, ..joining("c", "") });
    world.join_as("c2", Join { member_id: id("c"), ..fixed("c", "i") });
    assert_eq!(world.joined("c2").error, Some(GroupError::FencedInstance));
    let member = fixed_id("a", "i");
    assert_eq!(world.coordinator.heartbeat(world.now(), GROUP, &member, Some("i"), generation), Ok(()));
}
