//! Stories of groups: a tiny world of members, a log that commits when told, and a clock that is set by hand.

mod offsets;
mod random;
mod rebalances;
mod recovery;
mod static_members;

use super::coordinator::{Coordinator, Effect, GroupError, Joined, Reply, Settings, Synced};
use super::joining::Join;
use super::members::Protocol;
use super::membership::{Leaver, Sync};
use super::offsets::{Commit, OffsetToCommit};
use super::records::{Change, CommittedOffset, RawRecord, StoredGroup};
use super::snapshot;
use super::state::State;
use crate::ids::{Offset, TopicId};
use crate::time::{Monotonic, Now, Timestamp};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

const GROUP: &str = "g";
const TOPIC_ID: TopicId = TopicId([7; 16]);

fn settings() -> Settings {
    Settings {
        session_timeout_ms_min: 6_000,
        session_timeout_ms_max: 1_800_000,
        initial_rebalance_delay: Duration::from_secs(3),
        group_members_max: 3,
        groups_max: 10,
        offset_metadata_bytes_max: 8,
        offsets_retention_ms: 1_000_000,
        snapshot: snapshot::Settings::default(),
    }
}

/// What is durable of all groups.
type Durable = (BTreeMap<(String, String, i32), CommittedOffset>, BTreeMap<String, StoredGroup>);

/// What these records leave behind, by the plainest reading of them.
fn fold(records: &[RawRecord]) -> Durable {
    let (mut offsets, mut groups) = (BTreeMap::new(), BTreeMap::new());
    for (key, value) in records {
        match Change::decode(key.clone(), value.clone()).expect("our own records can be read") {
            Change::Offset { group, topic, partition, committed: Some(committed) } => {
                drop(offsets.insert((group, topic, partition), committed));
            }
            Change::Offset { group, topic, partition, committed: None } => {
                drop(offsets.remove(&(group, topic, partition)));
            }
            Change::Generation { group, stored: Some(stored) } => drop(groups.insert(group, *stored)),
            Change::Generation { group, stored: None } => drop(groups.remove(&group)),
        }
    }
    (offsets, groups)
}

fn durable<K>(coordinator: &Coordinator<K>) -> Durable {
    let (mut offsets, mut groups) = (BTreeMap::new(), BTreeMap::new());
    for (id, group) in coordinator.groups() {
        for (topic, partition, committed) in group.offsets.iter() {
            offsets.insert((id.to_owned(), topic.to_owned(), partition), committed.clone());
        }
        groups.extend(group.stored.clone().map(|stored| (id.to_owned(), stored)));
    }
    (offsets, groups)
}

/// A coordinator that is rebuilt from these records.
fn rebuild<K>(settings: Settings, records: &[RawRecord], now: Now) -> Coordinator<K> {
    let mut coordinator = Coordinator::new(settings);
    for (key, value) in records {
        coordinator.replay(key.clone(), value.clone()).expect("our own records can be read");
    }
    coordinator.loaded(now, |_, _| false);
    coordinator
}

/// A log: all records that were ever appended, of which some are committed, and some dropped.
#[derive(Clone, Default)]
struct Log {
    records: Vec<RawRecord>,
    start: usize,
    committed: usize,
    /// Appends on their way: ticket and where they lie.
    appended: VecDeque<(u64, usize, usize)>,
}

impl Log {
    fn append(&mut self, ticket: u64, records: Vec<RawRecord>) {
        let at = self.records.len();
        self.records.extend(records);
        self.appended.push_back((ticket, at, self.records.len()));
    }
}

struct World {
    coordinator: Coordinator<&'static str>,
    now_ms: u64,
    replies: BTreeMap<&'static str, Reply>,
    log: Log,
    trims: Vec<Offset>,
}

impl World {
    fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: Settings) -> Self {
        Self {
            coordinator: Coordinator::new(settings),
            now_ms: 1_000,
            replies: BTreeMap::new(),
            log: Log::default(),
            trims: Vec::new(),
        }
    }

    fn now(&self) -> Now {
        Now { monotonic: Monotonic(Duration::from_millis(self.now_ms)), wall: Timestamp(self.now_ms as i64) }
    }

    fn collect(&mut self) {
        while let Some(effect) = self.coordinator.poll_effect() {
            match effect {
                Effect::Reply { key, reply } => drop(self.replies.insert(key, reply)),
                Effect::Write { ticket, records } => self.log.append(ticket, records),
                Effect::Trim { upto } => self.trims.push(upto),
            }
        }
    }

    /// The oldest write on its way is committed; whether there was one.
    fn commit_one(&mut self) -> bool {
        self.collect();
        let Some((ticket, at, end)) = self.log.appended.pop_front() else { return false };
        self.log.committed = end;
        self.coordinator.committed(ticket, Offset(at as i64), self.now());
        self.collect();
        true
    }

    /// Everything on its way to the log is committed.
    fn commit_writes(&mut self) {
        while self.commit_one() {}
    }

    fn fail_writes(&mut self) {
        self.collect();
        while let Some((ticket, at, _)) = self.log.appended.pop_front() {
            self.log.records.truncate(at);
            self.coordinator.failed(ticket, self.now());
            self.collect();
        }
    }

    /// Time passes, and the machine is looked at when it asks for it, never otherwise.
    fn pass(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while let Some(due) = self.coordinator.deadline().map(|at| at.0.as_millis() as u64).filter(|at| *at <= until) {
            self.now_ms = due.max(self.now_ms);
            self.coordinator.tick(self.now());
            self.collect();
        }
        self.now_ms = until;
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
        let sync = Sync { member_id: member.into(), generation, ..syncing(assignments) };
        self.coordinator.sync(self.now(), sync, key);
        self.collect();
    }

    fn synced(&mut self, key: &'static str) -> Result<Bytes, GroupError> {
        match self.replies.remove(key) {
            Some(Reply::Synced(synced)) => synced.map(|Synced { assignment, .. }| assignment),
            other => panic!("{key}: {other:?}"),
        }
    }

    fn heartbeat(&mut self, member: &str, generation: i32) -> Result<(), GroupError> {
        let answer = self.coordinator.heartbeat(self.now(), GROUP, member, None, generation);
        self.collect();
        answer
    }

    fn leave(&mut self, leavers: &[(&str, Option<&str>)]) -> Vec<Result<(), GroupError>> {
        let leaver = |(member, instance): &(&str, Option<&str>)| Leaver {
            member_id: (*member).into(),
            instance_id: instance.map(Into::into),
        };
        let leavers: Vec<Leaver> = leavers.iter().map(leaver).collect();
        let answers = self.coordinator.leave(self.now(), GROUP, &leavers);
        self.collect();
        answers
    }

    fn commit(&mut self, member: &str, generation: i32, offset: i64) -> Result<(), GroupError> {
        self.commit_to(GROUP, member, generation, "t", offset)
    }

    fn commit_to(
        &mut self,
        group: &str,
        member: &str,
        generation: i32,
        topic: &str,
        offset: i64,
    ) -> Result<(), GroupError> {
        let offset = OffsetToCommit { topic: topic.into(), topic_id: TOPIC_ID, offset, ..OffsetToCommit::default() };
        let commit = Commit {
            group: group.into(),
            member_id: member.into(),
            generation,
            offsets: vec![offset],
            ..Commit::default()
        };
        let answer = self.coordinator.commit(self.now(), commit, "commit").map(drop).map_err(|(error, _)| error);
        self.collect();
        answer
    }

    fn committed(&self) -> Option<i64> {
        self.coordinator.group(GROUP)?.offsets.get("t", 0).map(|committed| committed.offset)
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
        world.sync("sb", &id("b"), generation, &[]);
        world.sync("sa", &id("a"), generation, &[("a", "for a"), ("b", "for b")]);
        world.commit_writes();
        assert_eq!(world.synced("sa"), Ok(Bytes::from_static(b"for a")));
        assert_eq!(world.synced("sb"), Ok(Bytes::from_static(b"for b")));
        assert_eq!(world.state(), State::Stable);
        (world, generation)
    }

    /// A coordinator that is rebuilt from what was committed.
    fn rebuilt(&self) -> Self {
        let records = self.log.records[self.log.start..self.log.committed].to_vec();
        let coordinator = rebuild(self.coordinator.settings.clone(), &records, self.now());
        let committed = records.len();
        let log = Log { records, committed, ..Log::default() };
        let mut world = Self { coordinator, now_ms: self.now_ms, replies: BTreeMap::new(), log, trims: Vec::new() };
        world.collect();
        world
    }
}

/// The id that a client of this name is given: its name is the random part too.
fn id(client: &str) -> String {
    format!("{client}-{}", uuid(client))
}

fn fresh(client: &str) -> u128 {
    client.bytes().fold(0, |sum, byte| sum << 8 | u128::from(byte))
}

fn uuid(client: &str) -> String {
    let digits = format!("{:032x}", fresh(client));
    format!("{}-{}-4{}-8{}-{}", &digits[..8], &digits[8..12], &digits[13..16], &digits[17..20], &digits[20..])
}

fn joining(client: &str, member_id: &str) -> Join {
    Join {
        group: GROUP.into(),
        member_id: member_id.into(),
        fresh: fresh(client),
        client_id: client.into(),
        protocol_type: "consumer".into(),
        protocols: vec![protocol("range", "t")],
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        ..Join::default()
    }
}

/// A protocol of a consumer of one topic.
fn protocol(name: &str, topic: &str) -> Protocol {
    let mut metadata = vec![0, 1, 0, 0, 0, 1, 0, topic.len() as u8];
    metadata.extend_from_slice(topic.as_bytes());
    Protocol { name: name.into(), metadata: metadata.into() }
}

/// A sync with these clients' assignments.
fn syncing(assignments: &[(&str, &'static str)]) -> Sync {
    let assignments = assignments.iter().map(|(client, what)| (id(client), Bytes::from_static(what.as_bytes())));
    Sync { group: GROUP.into(), assignments: assignments.collect(), ..Sync::default() }
}

#[test]
fn groups_are_spread_by_javas_string_hash() {
    use super::coordinator_partition;
    // `"hello".hashCode()` is 99162322 in Java, and that of "polygenelubricants" is the least i32.
    assert_eq!(coordinator_partition("hello", 50), 99_162_322 % 50);
    assert_eq!(coordinator_partition("polygenelubricants", 50), 0);
    assert_eq!(coordinator_partition("", 50), 0);
    // Over UTF-16 code units: "é" is one (233), and "🦀" the two halves of a surrogate pair (0xd83e, 0xdd80).
    assert_eq!(coordinator_partition("é", 50), 233 % 50);
    assert_eq!(coordinator_partition("🦀", 1_000_000_007), 0xd83e * 31 + 0xdd80);
}
