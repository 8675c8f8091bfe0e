//! What nobody imagines: random commands, a log that is slow, refuses and is cut, time, and crashes.
//!
//! Whatever happens, a coordinator holds what its log says, its log says the same after a cut as before, and in the end
//! everybody has been answered once. A failure prints its seed; `run(seed)` is the whole story again.

use super::*;
use crate::dice::{Dice, Seed};

const STEPS: usize = 400;
const SEEDS: u64 = 150;

/// What a client believes about a group.
#[derive(Clone, Default)]
struct Belief {
    member_id: String,
    generation: i32,
}

struct Chaos {
    dice: Dice,
    coordinator: Coordinator<u64>,
    log: Log,
    now_ms: u64,
    /// Whoever waits: which group, which client.
    waiting: BTreeMap<u64, (usize, usize)>,
    next_key: u64,
    beliefs: BTreeMap<(usize, usize), Belief>,
    trims: VecDeque<Offset>,
    /// A log that is full refuses now and then.
    refuses: bool,
    may_refuse: bool,
    ever_refused: bool,
}

const GROUPS: [&str; 3] = ["g0", "g1", "g2"];
const CLIENTS: usize = 5;
const TOPICS: [&str; 3] = ["t", "u", "v"];

fn chaos_settings() -> Settings {
    Settings {
        group_members_max: 4,
        snapshot: snapshot::Settings { log_bytes_min: 3_000, part_bytes: 250 },
        ..settings()
    }
}

impl Chaos {
    fn new(seed: u64) -> Self {
        Self {
            dice: Dice(seed),
            coordinator: Coordinator::new(chaos_settings()),
            log: Log::default(),
            now_ms: 1_000,
            waiting: BTreeMap::new(),
            next_key: 0,
            beliefs: BTreeMap::new(),
            trims: VecDeque::new(),
            refuses: false,
            // Every other story has a log that takes everything.
            may_refuse: seed % 2 == 1,
            ever_refused: false,
        }
    }

    fn now(&self) -> Now {
        Now { monotonic: Monotonic(Duration::from_millis(self.now_ms)), wall: Timestamp(self.now_ms as i64) }
    }

    fn key(&mut self, group: usize, client: usize) -> u64 {
        self.next_key += 1;
        self.waiting.insert(self.next_key, (group, client));
        self.next_key
    }

    fn collect(&mut self) {
        let mut refused = false;
        while let Some(effect) = self.coordinator.poll_effect() {
            match effect {
                Effect::Reply { key, reply } => {
                    let (group, client) = self.waiting.remove(&key).expect("everybody is answered once");
                    if let Reply::Joined(joined) = reply
                        && !joined.member_id.is_empty()
                    {
                        let belief = Belief { member_id: joined.member_id, generation: joined.generation };
                        self.beliefs.insert((group, client), belief);
                    }
                }
                Effect::Write { ticket, records } => {
                    refused |= self.refuses && self.dice.once_in(4);
                    self.ever_refused |= refused;
                    if refused {
                        self.coordinator.failed(ticket, self.now());
                    } else {
                        self.log.append(ticket, records);
                    }
                }
                Effect::Trim { upto } => self.trims.push_back(upto),
            }
        }
    }

    fn step(&mut self) {
        let (group, client) = (self.dice.roll(3) as usize, self.dice.roll(CLIENTS as u64) as usize);
        let id = GROUPS[group];
        let belief = self.beliefs.get(&(group, client)).cloned().unwrap_or_default();
        let instance = (client < 2).then(|| format!("i{}", client % 2));
        match self.dice.roll(24) {
            0..=5 => {
                let names: &[&str] = if self.dice.once_in(3) { &["sticky", "range"] } else { &["range"] };
                let topic = TOPICS[self.dice.roll(3) as usize];
                let join = Join {
                    group: id.into(),
                    member_id: if self.dice.once_in(4) { String::new() } else { belief.member_id },
                    fresh: u128::from(self.dice.roll(u64::MAX)),
                    instance_id: instance,
                    client_id: format!("c{client}"),
                    protocols: names.iter().map(|name| protocol(name, topic)).collect(),
                    rebalance_timeout_ms: 5_000 + self.dice.roll(60_000) as i32,
                    requires_known_member_id: self.dice.once_in(2),
                    knows_skip_assignment: self.dice.once_in(2),
                    ..joining("", "")
                };
                let key = self.key(group, client);
                self.coordinator.join(self.now(), join, key);
            }
            6..=9 => {
                let members = self.coordinator.group(id).into_iter().flat_map(|group| group.members.iter());
                let assignments = members.map(|(member, _)| (member.to_owned(), Bytes::from_static(b"x"))).collect();
                let sync = Sync {
                    group: id.into(),
                    member_id: belief.member_id,
                    instance_id: instance,
                    generation: belief.generation,
                    assignments,
                    ..Sync::default()
                };
                let key = self.key(group, client);
                self.coordinator.sync(self.now(), sync, key);
            }
            10..=11 => {
                let generation = belief.generation;
                let instance = instance.as_deref();
                let _ = self.coordinator.heartbeat(self.now(), id, &belief.member_id, instance, generation);
            }
            12 => {
                let leavers = [Leaver { member_id: belief.member_id, instance_id: instance }];
                let _ = self.coordinator.leave(self.now(), id, &leavers);
            }
            13..=16 => {
                let simple = self.dice.once_in(3);
                let offset = |dice: &mut Dice| OffsetToCommit {
                    topic: TOPICS[dice.roll(3) as usize].into(),
                    topic_id: TopicId([dice.roll(2) as u8; 16]),
                    partition: dice.roll(2) as i32,
                    offset: dice.roll(1_000) as i64,
                    ..OffsetToCommit::default()
                };
                let commit = Commit {
                    group: id.into(),
                    member_id: if simple { String::new() } else { belief.member_id },
                    instance_id: instance.filter(|_| !simple),
                    generation: if simple { -1 } else { belief.generation },
                    retention_ms: self.dice.once_in(10).then_some(50_000),
                    offsets: (0..=self.dice.roll(3)).map(|_| offset(&mut self.dice)).collect(),
                };
                let key = self.key(group, client);
                if let Err((_, key)) = self.coordinator.commit(self.now(), commit, key) {
                    self.waiting.remove(&key);
                }
            }
            17 => {
                let partition = (TOPICS[self.dice.roll(3) as usize].to_owned(), self.dice.roll(2) as i32);
                let key = self.key(group, client);
                if let Err((_, key)) = self.coordinator.delete_offsets(id, &[partition], key) {
                    self.waiting.remove(&key);
                }
            }
            18 => {
                let key = self.key(group, client);
                if self.dice.once_in(2) {
                    self.coordinator.delete_group(id, key);
                } else if let Some(key) = self.coordinator.when_settled(id, key) {
                    self.waiting.remove(&key);
                }
            }
            19 => match self.dice.roll(3) {
                0 => drop(self.coordinator.expire_offsets(Timestamp(self.now_ms as i64 + 990_000))),
                1 => self.coordinator.topic_deleted(TOPICS[self.dice.roll(3) as usize], TopicId([1; 16])),
                _ => self.refuses = self.may_refuse && self.dice.once_in(3),
            },
            20..=22 => {
                self.now_ms += self.dice.roll(8_000);
                self.coordinator.tick(self.now());
            }
            _ if self.dice.once_in(6) => return self.crash(),
            _ => {}
        }
        self.collect();
        for _ in 0..self.dice.roll(3) {
            self.commit_one();
        }
        if !self.trims.is_empty() && self.dice.once_in(3) {
            self.finish_trim();
        }
    }

    fn commit_one(&mut self) -> bool {
        let Some((ticket, at, end)) = self.log.appended.pop_front() else { return false };
        self.log.committed = end;
        self.coordinator.committed(ticket, Offset(at as i64), self.now());
        self.collect();
        true
    }

    fn finish_trim(&mut self) {
        let Some(upto) = self.trims.pop_front() else { return };
        let dropped = !self.dice.once_in(5);
        if dropped {
            self.log.start = upto.0 as usize;
        }
        self.coordinator.trimmed(dropped);
        self.collect();
    }

    /// What was appended and not committed may be there afterwards, or some of it.
    fn crash(&mut self) {
        let uncommitted = self.log.records.len() - self.log.committed;
        let end = self.log.committed + self.dice.roll(uncommitted as u64 + 1) as usize;
        self.log.records.truncate(end);
        self.log.committed = end;
        self.log.appended.clear();
        self.waiting.clear();
        // The cut itself may have been made, or not.
        if let Some(upto) = self.trims.pop_front()
            && self.dice.once_in(2)
        {
            self.log.start = upto.0 as usize;
        }
        self.trims.clear();
        self.coordinator = rebuild(chaos_settings(), &self.log.records[self.log.start..], self.now());
        self.collect();
    }

    fn check(&mut self) {
        for (id, group) in self.coordinator.groups() {
            let joining = group.members.iter().filter(|(_, member)| member.is_joining()).count();
            assert_eq!(group.members.joining(), joining, "{id}");
            assert_eq!(group.state == State::Empty, group.members.is_empty() && group.phase_ends.is_none(), "{id}");
            // Between generations, what a group goes on from is what it would go on from after a restart; unless that it
            // lost its last member could not be stored.
            if !self.ever_refused
                && matches!(group.state, State::Empty | State::Stable)
                && !self.coordinator.journal.is_busy(id)
            {
                let stored = group.stored.clone().unwrap_or_default();
                let goes_on_from = (group.generation, group.protocol_type.clone().unwrap_or_default());
                assert_eq!(goes_on_from, (stored.generation, stored.protocol_type), "{id}");
            }
        }
        // Reading the log is slow, and what a cut has lost stays lost until somebody looks.
        if !self.dice.once_in(8) {
            return;
        }
        let committed = fold(&self.log.records[..self.log.committed]);
        assert_eq!(durable(&self.coordinator), committed);
        assert_eq!(self.coordinator.live_records(), committed.0.len() + committed.1.len());
        let later = self.log.records.len() - self.log.committed;
        let end = self.log.committed + self.dice.roll(later as u64 + 1) as usize;
        assert_eq!(fold(&self.log.records[self.log.start..end]), fold(&self.log.records[..end]));
        if let Some(upto) = self.trims.front() {
            assert_eq!(fold(&self.log.records[upto.0 as usize..end]), fold(&self.log.records[..end]));
        }
    }

    /// Everybody goes home: nobody may be left waiting, and nothing may be left behind.
    fn wind_down(&mut self) {
        self.refuses = false;
        for _ in 0..200 {
            while self.commit_one() {}
            self.finish_trim();
            self.now_ms += 10_000;
            self.coordinator.tick(self.now());
            self.collect();
            self.check();
        }
        assert_eq!(self.waiting, BTreeMap::new(), "somebody still waits");
        assert!(self.coordinator.groups().all(|(_, group)| group.state == State::Empty));
        self.coordinator.expire_offsets(Timestamp(self.now_ms as i64 + 2_000_000));
        self.collect();
        while self.commit_one() {}
        assert_eq!(self.coordinator.groups().count(), 0);
        assert_eq!((self.coordinator.live_records(), self.coordinator.log_bytes().1), (0, 0));
        assert_eq!(self.coordinator.deadline(), None);
    }
}

/// One story; how many cuts it had.
fn run(seed: u64) -> usize {
    let _seed = Seed(seed);
    let mut chaos = Chaos::new(seed);
    let mut cuts = 0;
    for _ in 0..STEPS {
        let before = chaos.log.start;
        chaos.step();
        chaos.check();
        cuts += usize::from(chaos.log.start > before);
    }
    chaos.wind_down();
    cuts
}

#[test]
fn whatever_happens_memory_is_what_the_log_says_and_everybody_is_answered() {
    let cuts: usize = (0..SEEDS).map(run).sum();
    assert!(cuts > 20, "the stories are too tame to say anything about cuts: {cuts}");
}
