//! Stories of groups: a tiny world of members, a log that commits when told, and a clock that is set by hand.

use super::coordinator::{Coordinator, Effect, GroupError, Joined, Reply, Settings, Synced};
use super::membership::{Join, Leaver, Sync};
use super::offsets::{Commit, OffsetToCommit};
use super::records::RawRecord;
use super::state::{Protocol, State};
use crate::time::{Monotonic, Now, Timestamp};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

const GROUP: &str = "g";

fn settings() -> Settings {
    Settings {
        session_timeout_ms_min: 6_000,
        session_timeout_ms_max: 1_800_000,
        initial_rebalance_delay: Duration::from_secs(3),
        group_members_max: 3,
        groups_max: 10,
        offset_metadata_bytes_max: 8,
        offsets_retention_ms: 1_000_000,
    }
}

struct World {
    coordinator: Coordinator<&'static str>,
    now_ms: u64,
    replies: BTreeMap<&'static str, Reply>,
    writes: VecDeque<(u64, Vec<RawRecord>)>,
    log: Vec<RawRecord>,
}

impl World {
    fn new() -> Self {
        Self {
            coordinator: Coordinator::new(settings()),
            now_ms: 1_000,
            replies: BTreeMap::new(),
            writes: VecDeque::new(),
            log: Vec::new(),
        }
    }

    fn now(&self) -> Now {
        Now { monotonic: Monotonic(Duration::from_millis(self.now_ms)), wall: Timestamp(self.now_ms as i64) }
    }

    fn collect(&mut self) {
        while let Some(effect) = self.coordinator.poll_effect() {
            match effect {
                Effect::Reply { key, reply } => drop(self.replies.insert(key, reply)),
                Effect::Write { ticket, records } => self.writes.push_back((ticket, records)),
            }
        }
    }

    /// Everything on its way to the log is committed.
    fn commit_writes(&mut self) {
        self.collect();
        while let Some((ticket, records)) = self.writes.pop_front() {
            self.log.extend(records);
            self.coordinator.committed(ticket, self.now());
            self.collect();
        }
    }

    fn fail_writes(&mut self) {
        self.collect();
        while let Some((ticket, _)) = self.writes.pop_front() {
            self.coordinator.failed(ticket, self.now());
            self.collect();
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.coordinator.tick(self.now());
        self.collect();
    }

    fn join_as(&mut self, key: &'static str, join: Join) {
        self.coordinator.join(self.now(), join, key);
        self.collect();
    }

    fn join(&mut self, key: &'static str, member_id: &str) {
        self.join_as(key, joining(key, member_id));
    }

    fn joined(&mut self, key: &'static str) -> Joined {
        match self.replies.remove(key) {
            Some(Reply::Joined(joined)) => joined,
            other => panic!("{key}: {other:?}"),
        }
    }

    fn sync(&mut self, key: &'static str, member: &str, generation: i32, assignments: &[(&str, &'static str)]) {
        let assignments =
            assignments.iter().map(|(member, what)| ((*member).to_owned(), Bytes::from_static(what.as_bytes())));
        let sync = Sync {
            group: GROUP.into(),
            member_id: member.into(),
            generation,
            assignments: assignments.collect(),
            ..Sync::default()
        };
        self.coordinator.sync(self.now(), sync, key);
        self.collect();
    }

    fn synced(&mut self, key: &'static str) -> Result<Synced, GroupError> {
        match self.replies.remove(key) {
            Some(Reply::Synced(synced)) => synced,
            other => panic!("{key}: {other:?}"),
        }
    }

    fn heartbeat(&mut self, member: &str, generation: i32) -> Result<(), GroupError> {
        let answer = self.coordinator.heartbeat(self.now(), GROUP, member, None, generation);
        self.collect();
        answer
    }

    fn commit(&mut self, member: &str, generation: i32, offset: i64) -> Result<(), GroupError> {
        let commit = Commit {
            group: GROUP.into(),
            member_id: member.into(),
            generation,
            offsets: vec![OffsetToCommit { topic: "t".into(), offset, ..OffsetToCommit::default() }],
            ..Commit::default()
        };
        let answer = self.coordinator.commit(self.now(), commit, "commit").map(drop).map_err(|(error, _)| error);
        self.collect();
        answer
    }

    fn committed(&self) -> Option<i64> {
        self.coordinator.group(GROUP)?.offsets.get(&("t".to_owned(), 0)).map(|offset| offset.offset)
    }

    fn state(&self) -> State {
        self.coordinator.group(GROUP).map(|group| group.state).unwrap_or_default()
    }

    /// Two members, `a` leading, in a stable generation.
    fn stable_pair() -> (Self, i32) {
        let mut world = Self::new();
        world.join("a", "");
        world.join("b", "");
        world.pass(3_000);
        world.pass(3_000);
        let generation = world.joined("a").generation;
        assert_eq!(world.joined("b").generation, generation);
        world.sync("sb", "b-id", generation, &[]);
        world.sync("sa", "a-id", generation, &[("a-id", "for a"), ("b-id", "for b")]);
        world.commit_writes();
        assert_eq!(world.synced("sa").map(|synced| synced.assignment), Ok(Bytes::from_static(b"for a")));
        assert_eq!(world.synced("sb").map(|synced| synced.assignment), Ok(Bytes::from_static(b"for b")));
        assert_eq!(world.state(), State::Stable);
        (world, generation)
    }

    /// A coordinator that is rebuilt from what was committed.
    fn rebuilt(&self) -> Self {
        let mut world = Self { now_ms: self.now_ms, log: self.log.clone(), ..Self::new() };
        for (key, value) in &self.log {
            world.coordinator.replay(key.clone(), value.clone()).expect("our own records can be read");
        }
        world.coordinator.loaded(world.now());
        world
    }
}

fn joining(key: &str, member_id: &str) -> Join {
    Join {
        group: GROUP.into(),
        member_id: member_id.into(),
        fresh_member_id: format!("{key}-id"),
        client_id: key.into(),
        protocol_type: "consumer".into(),
        protocols: vec![Protocol { name: "range".into(), metadata: subscribed_to("t") }],
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        ..Join::default()
    }
}

fn subscribed_to(topic: &str) -> Bytes {
    let mut bytes = vec![0, 1, 0, 0, 0, 1, 0, topic.len() as u8];
    bytes.extend_from_slice(topic.as_bytes());
    bytes.into()
}

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
    assert_eq!((a.error, a.leader.as_str(), a.members.len()), (None, "a-id", 2));
    assert_eq!((b.leader.as_str(), b.members.len(), b.protocol.as_deref()), ("a-id", 0, Some("range")));
    world.sync("sb", "b-id", b.generation, &[]);
    assert!(world.replies.is_empty(), "a follower waits for the leader");
    world.sync("sa", "a-id", a.generation, &[("b-id", "all")]);
    assert!(world.replies.is_empty(), "an assignment counts when it is stored");
    world.commit_writes();
    assert_eq!(world.synced("sb").map(|synced| synced.assignment), Ok(Bytes::from_static(b"all")));
    assert_eq!(world.synced("sa").map(|synced| synced.assignment), Ok(Bytes::new()));
    assert_eq!(world.heartbeat("a-id", a.generation), Ok(()));
    assert_eq!(world.heartbeat("a-id", a.generation + 1), Err(GroupError::IllegalGeneration));
    assert_eq!(world.heartbeat("nobody", a.generation), Err(GroupError::UnknownMember));
}

#[test]
fn a_newcomer_makes_the_others_join_again() {
    let (mut world, generation) = World::stable_pair();
    world.join("c", "");
    assert_eq!(world.heartbeat("a-id", generation), Err(GroupError::RebalanceInProgress));
    assert_eq!(world.commit("a-id", generation, 7), Ok(()), "what was done may still be committed");
    world.join("a", "a-id");
    world.join("b", "b-id");
    let c = world.joined("c");
    assert_eq!((c.generation, world.joined("a").members.len()), (generation + 1, 3));
    assert_eq!(world.commit("a-id", generation + 1, 8), Err(GroupError::RebalanceInProgress));
    world.commit_writes();
    assert_eq!(world.committed(), Some(7));
}

#[test]
fn who_does_not_join_again_in_time_is_out() {
    let (mut world, generation) = World::stable_pair();
    world.join("c", "");
    world.join("a", "a-id");
    world.pass(60_000);
    assert_eq!(world.joined("a").members.len(), 2, "b is out");
    assert_eq!(world.heartbeat("b-id", generation), Err(GroupError::UnknownMember));
}

#[test]
fn who_falls_silent_is_out_and_who_leaves_goes_at_once() {
    let (mut world, generation) = World::stable_pair();
    world.pass(6_000);
    assert_eq!(world.heartbeat("a-id", generation), Ok(()));
    world.pass(4_000);
    assert_eq!(world.state(), State::PreparingRebalance, "b was silent for its session");
    world.join("a", "a-id");
    assert_eq!(world.joined("a").members.len(), 1);
    let leaver = Leaver { member_id: "a-id".into(), instance_id: None };
    assert_eq!(world.coordinator.leave(world.now(), GROUP, &[leaver]), [Ok(())]);
    world.commit_writes();
    assert_eq!(world.state(), State::Empty);
    assert_eq!(world.coordinator.group(GROUP).and_then(|group| group.stored.clone()).map(|s| s.members.len()), Some(0));
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
    world.sync("sb", "b-id", generation, &[]);
    for _ in 0..12 {
        world.pass(5_000);
        let _ = world.heartbeat("a-id", generation);
    }
    assert_eq!(world.synced("sb"), Err(GroupError::RebalanceInProgress));
    world.join("b", "b-id");
    assert_eq!(world.joined("b").leader, "b-id");
}

#[test]
fn a_member_without_an_id_is_given_one_and_may_forget_it() {
    let mut world = World::new();
    world.join_as("a", Join { requires_known_member_id: true, ..joining("a", "") });
    let given = world.joined("a");
    assert_eq!((given.error, given.member_id.as_str()), (Some(GroupError::MemberIdRequired), "a-id"));
    world.pass(10_000);
    assert!(world.coordinator.group(GROUP).is_none(), "it never came back");
    world.join_as("a", Join { requires_known_member_id: true, ..joining("a", "") });
    world.replies.clear();
    world.join("a", "a-id");
    world.pass(3_000);
    assert_eq!(world.joined("a").error, None);
}

#[test]
fn a_static_member_comes_back_without_a_rebalance_and_its_double_is_fenced() {
    let mut world = World::new();
    let fixed = |key: &str| Join { instance_id: Some("i".into()), ..joining(key, "") };
    world.join_as("a", fixed("a"));
    world.pass(3_000);
    let generation = world.joined("a").generation;
    world.sync("sa", "a-id", generation, &[("a-id", "mine")]);
    world.commit_writes();
    world.join_as("again", Join { knows_skip_assignment: true, ..fixed("again") });
    assert!(!world.replies.contains_key("again"), "its new id counts when it is stored");
    world.commit_writes();
    let again = world.joined("again");
    assert_eq!((again.error, again.generation, again.skip_assignment), (None, generation, true));
    world.sync("s2", "again-id", generation, &[]);
    assert_eq!(world.synced("s2").map(|synced| synced.assignment), Ok(Bytes::from_static(b"mine")));
    let old = world.coordinator.heartbeat(world.now(), GROUP, "a-id", Some("i"), generation);
    assert_eq!(old, Err(GroupError::FencedInstance));
}

#[test]
fn bounds_and_mismatches_are_refused() {
    let mut world = World::new();
    for key in ["a", "b", "c", "d"] {
        world.join(key, "");
    }
    assert_eq!(world.joined("d").error, Some(GroupError::GroupFull));
    world.join_as("e", Join { session_timeout_ms: 10, ..joining("e", "") });
    assert_eq!(world.joined("e").error, Some(GroupError::InvalidSessionTimeout));
    world.join_as("f", Join { protocol_type: "connect".into(), ..joining("f", "") });
    assert_eq!(world.joined("f").error, Some(GroupError::InconsistentProtocol));
    world.join_as("h", Join { group: String::new(), ..joining("h", "") });
    assert_eq!(world.joined("h").error, Some(GroupError::InvalidGroupId));
    world.join("k", "made-up");
    assert_eq!(world.joined("k").error, Some(GroupError::UnknownMember));
}

#[test]
fn offsets_without_a_group_belong_to_whoever_commits_them() {
    let mut world = World::new();
    assert_eq!(world.commit("", 3, 1), Err(GroupError::IllegalGeneration));
    assert_eq!(world.commit("", -1, 5), Ok(()));
    assert_eq!(world.committed(), None, "not before it is stored");
    world.commit_writes();
    assert_eq!((world.committed(), world.replies.remove("commit")), (Some(5), Some(Reply::Stored(Ok(())))));
    world.join("a", "");
    world.pass(3_000);
    assert_eq!(world.commit("", -1, 6), Err(GroupError::UnknownMember), "now it is somebody's");
}

#[test]
fn a_failed_store_is_told_and_changes_nothing() {
    let (mut world, generation) = World::stable_pair();
    assert_eq!(world.commit("a-id", generation, 9), Ok(()));
    world.fail_writes();
    assert_eq!(world.replies.remove("commit"), Some(Reply::Stored(Err(GroupError::NotAvailable))));
    assert_eq!(world.committed(), None);
}

#[test]
fn offsets_expire_from_when_the_group_lost_its_last_member() {
    let (mut world, generation) = World::stable_pair();
    assert_eq!(world.commit("a-id", generation, 9), Ok(()));
    world.commit_writes();
    world.coordinator.expire_offsets(Timestamp(world.now_ms as i64 + 5_000_000));
    world.commit_writes();
    assert_eq!(world.committed(), Some(9), "its topic is consumed");
    let leavers = ["a-id", "b-id"].map(|id| Leaver { member_id: id.into(), instance_id: None });
    world.coordinator.leave(world.now(), GROUP, &leavers);
    world.commit_writes();
    world.coordinator.expire_offsets(Timestamp(world.now_ms as i64 + 999_999));
    world.commit_writes();
    assert_eq!(world.committed(), Some(9));
    world.coordinator.expire_offsets(Timestamp(world.now_ms as i64 + 1_000_001));
    world.commit_writes();
    assert!(world.coordinator.group(GROUP).is_none(), "nothing is left of the group");
    assert!(world.rebuilt().coordinator.group(GROUP).is_none());
}

#[test]
fn offsets_of_consumed_topics_are_not_deleted_nor_groups_with_members() {
    let (mut world, generation) = World::stable_pair();
    assert_eq!(world.commit("a-id", generation, 9), Ok(()));
    world.commit_writes();
    let partitions = [("t".to_owned(), 0), ("other".to_owned(), 0)];
    let answer = world.coordinator.delete_offsets(GROUP, &partitions, "delete");
    assert_eq!(answer.map_err(|(error, _)| error), Ok(vec![Some(GroupError::SubscribedToTopic), None]));
    world.coordinator.delete_group(GROUP, "group");
    world.commit_writes();
    assert_eq!(world.replies.remove("group"), Some(Reply::Stored(Err(GroupError::NotEmpty))));
    world.coordinator.topic_deleted("t");
    world.commit_writes();
    assert_eq!(world.committed(), None);
}

/// Each way of forgetting, decided while a commit is on its way: a rebuilt coordinator must know no more than the one that
/// decided.
#[test]
fn what_is_forgotten_behind_a_commit_on_its_way_stays_forgotten() {
    type Forget = fn(&mut World);
    let ways: [(&str, Forget); 3] = [
        ("group", |world| world.coordinator.delete_group(GROUP, "forget")),
        ("offsets", |world| {
            let refused = world.coordinator.delete_offsets(GROUP, &[("t".to_owned(), 0)], "forget");
            assert_eq!(refused.map_err(|(error, _)| error), Ok(vec![None]));
        }),
        ("topic", |world| world.coordinator.topic_deleted("t")),
    ];
    for (way, forget) in ways {
        let mut world = World::new();
        assert_eq!(world.commit("", -1, 5), Ok(()));
        forget(&mut world);
        world.commit_writes();
        assert_eq!((world.committed(), world.rebuilt().committed()), (None, None), "{way}");
    }
}

#[test]
fn a_commit_on_its_way_keeps_an_old_offset_from_expiring() {
    let mut world = World::new();
    assert_eq!(world.commit("", -1, 5), Ok(()));
    world.commit_writes();
    world.now_ms += 2_000_000;
    assert_eq!(world.commit("", -1, 6), Ok(()));
    world.coordinator.expire_offsets(Timestamp(world.now_ms as i64));
    world.commit_writes();
    assert_eq!((world.committed(), world.rebuilt().committed()), (Some(6), Some(6)));
}

#[test]
fn a_rebuilt_coordinator_goes_on_from_the_last_finished_generation() {
    let (mut world, generation) = World::stable_pair();
    assert_eq!(world.commit("a-id", generation, 9), Ok(()));
    world.commit_writes();
    world.join("c", "");
    let mut rebuilt = world.rebuilt();
    assert_eq!((rebuilt.state(), rebuilt.committed()), (State::Stable, Some(9)));
    assert_eq!(rebuilt.heartbeat("b-id", generation), Ok(()));
    rebuilt.pass(9_999);
    assert_eq!(rebuilt.state(), State::Stable, "sessions begin anew");
    rebuilt.pass(1);
    assert_eq!(rebuilt.state(), State::Empty, "nobody was heard of");
}

#[test]
fn a_snapshot_stands_for_everything_before_it_and_on_its_way() {
    let (mut world, generation) = World::stable_pair();
    assert_eq!(world.commit("a-id", generation, 9), Ok(()));
    world.commit_writes();
    assert_eq!(world.commit("a-id", generation, 10), Ok(()));
    let snapshot: Vec<RawRecord> =
        world.coordinator.snapshot().into_iter().map(|(key, value)| (key, Some(value))).collect();
    world.commit_writes();
    let full = world.rebuilt();
    world.log = snapshot;
    let short = world.rebuilt();
    assert_eq!((full.committed(), short.committed()), (Some(10), Some(10)));
    let stored = |world: &World| world.coordinator.group(GROUP).and_then(|group| group.stored.clone());
    assert_eq!(stored(&full), stored(&short));
}

#[test]
fn groups_are_spread_by_javas_string_hash() {
    // `"hello".hashCode()` is 99162322 in Java, and that of "polygenelubricants" is the least i32.
    assert_eq!(super::coordinator_partition("hello", 50), 99_162_322 % 50);
    assert_eq!(super::coordinator_partition("polygenelubricants", 50), 0);
    assert_eq!(super::coordinator_partition("", 50), 0);
}
