//! Coming back from the log, and keeping it short.

use super::*;

fn small_snapshots() -> Settings {
    Settings { snapshot: snapshot::Settings { log_bytes_min: 4_000, part_bytes: 150 }, ..settings() }
}

/// A world whose log is just about to be cut: several groups, most of what was written dead.
fn worn() -> World {
    let mut world = World::with(small_snapshots());
    for offset in 0..6 {
        for group in ["g0", "g1", "g2", "g3", "g4"] {
            for topic in ["t", "u"] {
                assert_eq!(world.commit_to(group, "", -1, topic, offset), Ok(()));
            }
        }
        if offset < 3 {
            world.commit_writes();
            assert!(world.trims.is_empty());
        }
    }
    world
}

/// What was dropped is missed by nobody: from its start the log says what the whole of it says, wherever it is cut off.
fn check_every_crash_point(log: &Log) {
    for end in log.committed.max(log.start)..=log.records.len() {
        assert_eq!(fold(&log.records[log.start..end]), fold(&log.records[..end]), "cut off at {end}");
        let rebuilt: Coordinator<()> = rebuild(settings(), &log.records[log.start..end], Now::default());
        assert_eq!(durable(&rebuilt), fold(&log.records[..end]), "cut off at {end}");
    }
}

#[test]
fn a_rebuilt_coordinator_goes_on_from_the_last_finished_generation() {
    let (mut world, generation) = World::stable_pair();
    assert_eq!(world.commit(&id("a"), generation, 9), Ok(()));
    world.commit_writes();
    world.join("c", "");
    let mut rebuilt = world.rebuilt();
    assert_eq!((rebuilt.state(), rebuilt.committed()), (State::Stable, Some(9)));
    assert_eq!(durable(&rebuilt.coordinator), durable(&world.coordinator));
    assert_eq!(rebuilt.heartbeat(&id("b"), generation), Ok(()));
    rebuilt.sync("sb", &id("b"), generation, &[]);
    assert_eq!(rebuilt.synced("sb"), Ok(Bytes::from_static(b"for b")));
    rebuilt.pass(9_999);
    assert_eq!(rebuilt.state(), State::Stable, "sessions begin anew");
    rebuilt.pass(1);
    assert_eq!(rebuilt.state(), State::Empty, "nobody was heard of");
}

#[test]
fn a_log_is_cut_down_in_parts_and_every_crash_on_the_way_is_survived() {
    let mut world = worn();
    let mut parts = 0;
    let mut commits = 0;
    while world.trims.is_empty() {
        check_every_crash_point(&world.log);
        let before = world.log.records.len();
        assert!(world.commit_one(), "the snapshot goes on by itself");
        parts += usize::from(world.log.records.len() > before);
        // The groups go on meanwhile, and what they do falls between the parts.
        if commits < 8 {
            commits += 1;
            assert_eq!(world.commit_to("g3", "", -1, "t", 100 + commits), Ok(()));
            assert_eq!(world.commit_to("late", "", -1, "t", 200 + commits), Ok(()));
            world.coordinator.delete_group("g1", "delete");
            world.collect();
        }
    }
    assert!(parts > 3, "{parts} parts");
    check_every_crash_point(&world.log);
    world.log.start = world.trims[0].0 as usize;
    check_every_crash_point(&world.log);
    world.coordinator.trimmed(true);
    world.commit_writes();
    check_every_crash_point(&world.log);
    assert_eq!(durable(&world.coordinator), fold(&world.log.records));
    let (log_bytes, live_bytes) = world.coordinator.log_bytes();
    assert!(log_bytes < 8_000 && live_bytes < log_bytes, "{log_bytes} {live_bytes}");
}

#[test]
fn what_is_on_its_way_when_a_snapshot_begins_is_in_it() {
    let mut world = worn();
    // The log has grown while nothing was committed, so the first commit begins the snapshot with most in flight.
    assert!(world.commit_one());
    let rest = world.log.records.split_off(world.log.appended.back().expect("a part is on its way").1);
    let (offsets, _) = fold(&rest);
    assert!(offsets.values().all(|committed| committed.offset == 5) && !offsets.is_empty());
}

#[test]
fn a_snapshot_that_fails_cuts_nothing_and_is_tried_again_later() {
    let mut world = worn();
    world.commit_one();
    world.fail_writes();
    assert!(world.trims.is_empty());
    for offset in 0..200 {
        assert_eq!(world.commit("", -1, offset), Ok(()));
        world.commit_writes();
        if !world.trims.is_empty() {
            break;
        }
    }
    assert_eq!(world.trims.len(), 1);
    world.coordinator.trimmed(false);
    world.commit_writes();
    assert_eq!(world.trims.len(), 1, "not at once");
    for offset in 0..200 {
        assert_eq!(world.commit("", -1, offset), Ok(()));
        world.commit_writes();
    }
    assert!(world.trims.len() > 1);
    assert_eq!(durable(&world.coordinator), fold(&world.log.records));
}

#[test]
fn a_log_of_nothing_live_is_cut_down_too() {
    let mut world = World::with(small_snapshots());
    while world.trims.is_empty() {
        assert_eq!(world.commit("", -1, 1), Ok(()));
        world.coordinator.delete_group(GROUP, "delete");
        world.commit_writes();
        assert!(world.log.records.len() < 1_000, "never cut");
    }
    world.log.start = world.trims[0].0 as usize;
    check_every_crash_point(&world.log);
    assert!(world.log.records.len() - world.log.start < 4);
}

#[test]
fn a_log_that_was_worn_when_it_was_read_back_is_cut_down() {
    let mut world = World::with(Settings { snapshot: snapshot::Settings::default(), ..small_snapshots() });
    for offset in 0..100 {
        assert_eq!(world.commit("", -1, offset), Ok(()));
    }
    world.commit_writes();
    world.coordinator.settings = small_snapshots();
    let mut rebuilt = world.rebuilt();
    rebuilt.commit_writes();
    assert_eq!(rebuilt.trims, [Offset(100)]);
    assert_eq!(fold(&rebuilt.log.records[100..]), fold(&world.log.records));
}

#[test]
fn offsets_of_a_topic_that_went_while_the_broker_was_down_are_forgotten() {
    let mut world = World::new();
    assert_eq!(world.commit_to("one", "", -1, "gone", 1), Ok(()));
    assert_eq!(world.commit_to("one", "", -1, "t", 2), Ok(()));
    world.commit_writes();
    let mut coordinator: Coordinator<&'static str> = Coordinator::new(settings());
    for (key, value) in &world.log.records {
        coordinator.replay(key.clone(), value.clone()).expect("our own records can be read");
    }
    coordinator.loaded(world.now(), |topic, committed| topic == "gone" && committed.topic == TOPIC_ID);
    world.coordinator = coordinator;
    world.commit_writes();
    let (offsets, _) = fold(&world.log.records);
    assert_eq!(offsets.into_keys().collect::<Vec<_>>(), [("one".to_owned(), "t".to_owned(), 0)]);
    assert_eq!(durable(&world.coordinator), fold(&world.log.records));
}

#[test]
fn a_group_that_forms_again_while_its_deletion_is_on_its_way_is_not_lost() {
    let mut world = World::new();
    assert_eq!(world.commit("", -1, 1), Ok(()));
    world.commit_writes();
    world.coordinator.delete_group(GROUP, "delete");
    world.join("a", "");
    world.pass(3_000);
    let generation = world.joined("a").generation;
    world.sync("sa", &id("a"), generation, &[("a", "x")]);
    world.leave(&[(&id("a"), None)]);
    world.commit_writes();
    assert_eq!(durable(&world.coordinator), fold(&world.log.records));
    assert_eq!(world.coordinator.stored(GROUP).map(|stored| stored.members.len()), Some(0));
}
