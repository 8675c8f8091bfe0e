//! Leaders and followers of one partition together, in a world that loses sessions, forgets what was not synced, kills nodes
//! and changes leaders: whatever was committed stays, at its offset, in every later leader.
//!
//! A failure prints its seed; `run(seed)` is the whole story again.

use super::checkpoint::Checkpoint;
use super::epochs::Epochs;
use super::follower::{Effect, Follower, Phase};
use super::leader::Durability;
use super::producers::Producers;
use super::recovery::Recovered;
use super::replicas::{LeaderLog, Membership, Replicas};
use super::stream::{Due, News, Source};
use crate::batch::{Batch, Builder, RecordOut, Records};
use crate::dice::{Dice, Seed};
use crate::ids::{LeaderEpoch, NodeId, Offset};
use crate::replication::{Attached, Message, Records as Sent};
use crate::throttle::Bucket;
use crate::time::{Monotonic, Now, Timestamp};
use crate::wal::LogState;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::LazyLock;
use std::time::Duration;

const NODES: i32 = 3;
const STEPS: usize = 2_500;
const SEEDS: u64 = 60;
/// Where replicas are throttled: so much that they have to wait, and that what is mended is whole again in time.
const RATE: u64 = 1_000;
const LAG_MAX: Duration = Duration::from_millis(300);

/// What the metadata says of the partition, as the controller has it and as nodes come to know it.
#[derive(Clone, Debug)]
struct Facts {
    epoch: LeaderEpoch,
    /// Counts every change of the partition.
    version: u64,
    leader: Option<NodeId>,
    in_sync: BTreeSet<NodeId>,
}

/// The lead, as far as these stories need it.
struct Lead {
    replicas: Replicas,
    high_watermark: Offset,
    version: u64,
}

enum Role {
    Down,
    Idle,
    Leader(Box<Lead>),
    Follower(Box<Follower>),
}

/// A node: its log, of one record a batch, and what it is to the partition.
struct Node {
    log: Vec<Batch>,
    durable: usize,
    role: Role,
    known: Option<Facts>,
    /// What was saved of the watermark with the last sync.
    saved_watermark: Offset,
    /// Work of the log's that is under way, in the order it was asked for.
    under_way: VecDeque<Work>,
}

enum Work {
    Written(Offset),
    Synced(Offset),
    Cut,
}

impl Node {
    fn epochs(&self) -> Epochs {
        Epochs::from_starts(self.log.iter().map(|batch| (batch.header.leader_epoch, batch.header.base_offset)))
    }

    fn end(&self) -> Offset {
        Offset(self.log.len() as i64)
    }

    fn recovered(&self) -> Recovered {
        let end = self.end();
        let durable_end = Offset(self.durable as i64);
        Recovered {
            checkpoint: Checkpoint {
                upto: end,
                high_watermark: self.saved_watermark,
                epochs: self.epochs(),
                ..Checkpoint::default()
            },
            log: LogState { end, written_end: end, durable_end, ..LogState::default() },
            agreed_epoch: None,
        }
    }
}

struct World {
    dice: Dice,
    now_ms: u64,
    facts: Facts,
    nodes: BTreeMap<NodeId, Node>,
    /// News of the metadata on its way to each node.
    news: BTreeMap<NodeId, VecDeque<Facts>>,
    /// Requests for another in-sync set, on their way to the controller.
    asked: VecDeque<(NodeId, u64, BTreeSet<NodeId>)>,
    /// In half of all worlds replicas are throttled at both ends, and none is ever told that it is in sync: that alone must
    /// not hold up anybody.
    throttled: bool,
    /// What each node may send, and take.
    buckets: BTreeMap<NodeId, [Bucket; 2]>,
    waits: usize,
    sessions: BTreeSet<(NodeId, NodeId)>,
    wires: BTreeMap<(NodeId, NodeId), VecDeque<Message>>,
    /// What any leader has shown to be committed.
    committed: Vec<u64>,
    next_value: u64,
    leaders: usize,
    cuts: usize,
}

/// A leader's log, as of now: no log here begins later, and no batch has a producer.
fn leader_log(epochs: &Epochs, end: Offset, high_watermark: Offset) -> LeaderLog<'_> {
    static NOBODY: LazyLock<Producers> = LazyLock::new(Producers::default);
    LeaderLog { epochs, producers: &NOBODY, start: Offset::ZERO, end, high_watermark }
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    if a < b { (a, b) } else { (b, a) }
}

fn value(batch: &Batch) -> u64 {
    let record = Records::new(&batch.records).next().and_then(Result::ok).expect("one record a batch");
    u64::from_be_bytes(*record.value.and_then(|value| value.first_chunk()).expect("eight bytes"))
}

impl World {
    fn new(seed: u64) -> Self {
        let all: BTreeSet<NodeId> = (1..=NODES).map(NodeId).collect();
        let facts = Facts { epoch: LeaderEpoch(0), version: 0, leader: Some(NodeId(1)), in_sync: all.clone() };
        let node = |_: &NodeId| Node {
            log: Vec::new(),
            durable: 0,
            role: Role::Idle,
            known: None,
            saved_watermark: Offset::ZERO,
            under_way: VecDeque::new(),
        };
        let mut bucket = Bucket::default();
        bucket.set_rate(Monotonic::default(), Some(RATE));
        Self {
            dice: Dice(seed),
            now_ms: 1,
            throttled: seed % 2 == 1,
            buckets: all.iter().map(|id| (*id, [bucket.clone(), bucket.clone()])).collect(),
            waits: 0,
            nodes: all.iter().map(|id| (*id, node(id))).collect(),
            news: all.iter().map(|id| (*id, VecDeque::from([facts.clone()]))).collect(),
            facts,
            asked: VecDeque::new(),
            sessions: BTreeSet::new(),
            wires: BTreeMap::new(),
            committed: Vec::new(),
            next_value: 0,
            leaders: 0,
            cuts: 0,
        }
    }

    fn now(&self) -> Now {
        Now { monotonic: Monotonic(Duration::from_millis(self.now_ms)), wall: Timestamp(self.now_ms as i64) }
    }

    fn any_node(&mut self) -> NodeId {
        NodeId(1 + self.dice.roll(NODES as u64) as i32)
    }

    fn is_up(&self, id: NodeId) -> bool {
        !matches!(self.nodes[&id].role, Role::Down)
    }

    /// Something happens.
    fn step(&mut self) {
        let id = self.any_node();
        match self.dice.roll(1_000) {
            0..=179 => self.append(id),
            180..=339 => self.log_works(id),
            340..=689 => self.deliver(),
            690..=759 => self.learn(id),
            760..=819 => self.ask(id),
            820..=859 => self.controller_decides(),
            860..=889 => self.toggle_session(),
            890..=899 => self.crash(id),
            // The lights go out.
            900..=902 => (1..=NODES).for_each(|id| self.crash(NodeId(id))),
            903..=932 => self.start(id),
            933..=944 => self.elect(),
            _ => self.pass(30),
        }
        self.pump();
        self.check();
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        let now = self.now();
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            if let Role::Follower(follower) = &mut self.node(id).role {
                follower.tick(now);
            }
            self.carry_out(id);
        }
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("nodes are never removed")
    }

    fn append(&mut self, id: NodeId) {
        let (next, now) = (self.next_value, self.now_ms);
        let node = self.node(id);
        let Role::Leader(_) = &node.role else { return };
        let Some(epoch) = node.known.as_ref().map(|known| known.epoch) else { return };
        let mut builder = Builder::new(Timestamp(now as i64));
        builder.push(&RecordOut { value: Some(&next.to_be_bytes()), ..RecordOut::default() });
        let mut batch = builder.build();
        batch.header.base_offset = node.end();
        batch.header.leader_epoch = epoch;
        batch.header.crc = batch.header.checksum(&batch.records);
        let bytes = batch.header.size_bytes() as u64;
        node.log.push(batch);
        let end = node.end();
        node.under_way.push_back(Work::Synced(end));
        if let Role::Leader(lead) = &mut node.role {
            lead.replicas.ordered(bytes);
        }
        self.next_value += 1;
    }

    /// The oldest thing that a node's log was asked for is done.
    fn log_works(&mut self, id: NodeId) {
        let node = self.node(id);
        let Some(work) = node.under_way.pop_front() else { return };
        match work {
            Work::Written(end) => {
                if let Role::Follower(follower) = &mut node.role {
                    follower.written(end);
                }
            }
            Work::Synced(end) => {
                node.durable = node.durable.max((end.0 as usize).min(node.log.len()));
                let durable = Offset(node.durable as i64);
                match &mut node.role {
                    Role::Follower(follower) => {
                        follower.durable(durable);
                        node.saved_watermark = follower.high_watermark();
                    }
                    Role::Leader(lead) => node.saved_watermark = lead.high_watermark,
                    Role::Down | Role::Idle => {}
                }
            }
            Work::Cut => {
                let recovered = node.recovered();
                if let Role::Follower(follower) = &mut node.role {
                    follower.cut(recovered);
                }
            }
        }
        self.carry_out(id);
        self.advance(id);
    }

    /// Does what a follower wants done.
    fn carry_out(&mut self, id: NodeId) {
        let now = self.now().monotonic;
        loop {
            let node = self.nodes.get_mut(&id).expect("nodes are never removed");
            let leader = node.known.as_ref().and_then(|known| known.leader);
            let Role::Follower(follower) = &mut node.role else { return };
            let Some(effect) = follower.poll_effect() else {
                let Some(wanted) = follower.credit_wanted(now) else { return };
                let [_, bucket] = self.buckets.get_mut(&id).expect("every node has two");
                match bucket.ask(now, wanted) {
                    Ok(bytes) => follower.grant(bytes),
                    Err(until) => {
                        follower.hold(until);
                        self.waits += 1;
                    }
                }
                continue;
            };
            match effect {
                Effect::Send(message) => {
                    if let Some(leader) = leader {
                        self.send(id, leader, message);
                    }
                }
                Effect::Append { batch, .. } => {
                    assert_eq!(batch.header.base_offset, node.end(), "appended where the log ends");
                    node.log.push(batch);
                    let end = node.end();
                    node.under_way.push_back(Work::Written(end));
                }
                Effect::Sync { upto } => node.under_way.push_back(Work::Synced(upto)),
                Effect::Truncate { from } => {
                    node.log.truncate(from.0 as usize);
                    node.durable = node.durable.min(node.log.len());
                    node.under_way.push_back(Work::Cut);
                    self.cuts += 1;
                }
                Effect::Reset { start, .. } => {
                    assert_eq!(start, Offset::ZERO, "no log here begins later");
                    node.log.clear();
                    node.durable = 0;
                    node.under_way.push_back(Work::Cut);
                    self.cuts += 1;
                }
                Effect::Trim { upto } => panic!("nothing is deleted here, not up to {upto}"),
                Effect::WatermarkAdvanced { .. } => {}
                Effect::Offline(why) => panic!("node {id}: {why}"),
            }
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        if self.sessions.contains(&pair(from, to)) {
            self.wires.entry((from, to)).or_default().push_back(message);
        }
    }

    /// Leaders stream what their followers may have.
    fn pump(&mut self) {
        let now = self.now().monotonic;
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let mut out = Vec::new();
            let node = self.nodes.get_mut(&id).expect("nodes are never removed");
            let [bucket, _] = self.buckets.get_mut(&id).expect("every node has two");
            let end = node.end();
            let Role::Leader(lead) = &mut node.role else { continue };
            let epoch = node.known.as_ref().expect("a leader knows that it leads").epoch;
            for follower in lead.replicas.streams().collect::<Vec<_>>() {
                let news = News { high_watermark: lead.high_watermark, log_start: Offset::ZERO };
                let source = Source { log_end: end, news, is_awaited: false };
                let due = |replicas: &Replicas| replicas.due(now, follower, source);
                let Some(Due { from, mut bytes_max }) = due(&lead.replicas) else { continue };
                let mut given = None;
                if self.throttled && bytes_max > 0 && lead.replicas.is_catching_up(follower) {
                    match bucket.ask(now, bytes_max) {
                        Ok(bytes) => (bytes_max, given) = (bytes, Some(bytes)),
                        Err(until) => {
                            lead.replicas.hold(follower, until);
                            self.waits += 1;
                            if due(&lead.replicas).is_none() {
                                continue;
                            }
                            bytes_max = 0;
                        }
                    }
                }
                let mut batches = Vec::new();
                let mut bytes = 0;
                for batch in node.log.iter().skip(from.0 as usize).take(if bytes_max > 0 { 3 } else { 0 }) {
                    if bytes + batch.header.size_bytes() as u64 > bytes_max && !batches.is_empty() {
                        break;
                    }
                    bytes += batch.header.size_bytes() as u64;
                    batches.push(batch.clone());
                }
                if let Some(given) = given {
                    bucket.settle(given, bytes);
                }
                lead.replicas.sent(now, follower, from + batches.len() as i64, bytes, source);
                let high_watermark = lead.high_watermark;
                out.push((follower, Sent { epoch, high_watermark, log_start: Offset::ZERO, batches }));
            }
            for (to, records) in out {
                self.send(id, to, Message::Records(records));
            }
        }
    }

    /// One message arrives.
    fn deliver(&mut self) {
        let busy: Vec<_> = self.wires.iter().filter(|(_, wire)| !wire.is_empty()).map(|(ends, _)| *ends).collect();
        if busy.is_empty() {
            return;
        }
        let (from, to) = busy[self.dice.roll(busy.len() as u64) as usize];
        let message = self.wires.get_mut(&(from, to)).and_then(VecDeque::pop_front).expect("it is busy");
        let now = self.now();
        let node = self.node(to);
        let (end, epochs) = (node.end(), node.epochs());
        let leads = node.known.as_ref().and_then(|known| known.leader) == Some(from);
        let mut answer = None;
        match (&mut node.role, message) {
            (Role::Leader(lead), Message::Attach(attach)) => {
                let log = leader_log(&epochs, end, lead.high_watermark);
                answer = Some(Message::Attached(lead.replicas.attach(now.monotonic, from, attach, log)));
            }
            (Role::Leader(lead), Message::Progress(progress)) => {
                lead.replicas.progress(now.monotonic, from, progress, end);
            }
            (Role::Follower(follower), Message::Attached(attached)) if leads => follower.attached(now, attached),
            (Role::Follower(follower), Message::Records(records)) if leads => follower.records(now, records),
            // Whoever is asked and does not lead says so.
            (Role::Follower(_) | Role::Idle, Message::Attach(_)) => {
                let epoch = node.known.as_ref().map_or(LeaderEpoch(0), |known| known.epoch);
                answer = Some(Message::Attached(Attached::NotYet { epoch }));
            }
            _ => {}
        }
        if let Some(answer) = answer {
            self.send(to, from, answer);
        }
        self.carry_out(to);
        self.advance(to);
    }

    /// A leader's watermark follows what its replicas have.
    fn advance(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("nodes are never removed");
        let Role::Leader(lead) = &mut node.role else { return };
        let own = Offset(node.durable as i64);
        let Some(reached) = lead.replicas.committed(Durability::Fsync, own) else { return };
        if reached <= lead.high_watermark {
            return;
        }
        lead.high_watermark = reached;
        for (offset, batch) in node.log.iter().enumerate().take(reached.0 as usize) {
            match self.committed.get(offset) {
                Some(known) => assert_eq!(*known, value(batch), "offset {offset} has two values"),
                None => self.committed.push(value(batch)),
            }
        }
    }

    /// A node hears of a change.
    fn learn(&mut self, id: NodeId) {
        if !self.is_up(id) {
            return;
        }
        let Some(facts) = self.news.get_mut(&id).and_then(VecDeque::pop_front) else { return };
        let now = self.now();
        let all: BTreeSet<NodeId> = self.nodes.keys().copied().collect();
        let connected = facts.leader.is_some_and(|leader| self.sessions.contains(&pair(id, leader)));
        let throttled = self.throttled;
        let node = self.node(id);
        let before = node.known.replace(facts.clone());
        let membership = Membership {
            replicas: all,
            in_sync: facts.in_sync.clone(),
            in_sync_min: 1,
            partition_epoch: facts.version as i32,
        };
        if before.is_some_and(|before| before.epoch == facts.epoch) {
            if let Role::Leader(lead) = &mut node.role {
                lead.replicas.applied(membership, now.monotonic);
                lead.version = facts.version;
            }
        } else if facts.leader == Some(id) {
            let end = node.end();
            let replicas = Replicas::new(id, facts.epoch, end, LAG_MAX, membership, now.monotonic);
            let known = match &node.role {
                Role::Follower(follower) => follower.high_watermark(),
                Role::Leader(lead) => lead.high_watermark,
                Role::Idle | Role::Down => node.saved_watermark,
            };
            node.under_way.retain(|work| !matches!(work, Work::Cut));
            node.under_way.push_back(Work::Synced(end));
            node.role = Role::Leader(Box::new(Lead { replicas, high_watermark: known, version: facts.version }));
            self.leaders += 1;
            let log: Vec<u64> = self.nodes[&id].log.iter().map(value).collect();
            assert!(log.starts_with(&self.committed), "the new leader lacks what was committed");
        } else {
            let watermark = match &node.role {
                Role::Follower(follower) => follower.high_watermark(),
                Role::Leader(lead) => lead.high_watermark,
                Role::Idle | Role::Down => node.saved_watermark,
            };
            node.under_way.retain(|work| !matches!(work, Work::Cut));
            let mut recovered = node.recovered();
            recovered.checkpoint.high_watermark = watermark;
            let mut follower = Follower::new(recovered, facts.epoch, Durability::Fsync, None);
            follower.set_throttled(throttled);
            if connected {
                follower.session_up();
            }
            node.role = Role::Follower(Box::new(follower));
        }
        self.carry_out(id);
        self.advance(id);
    }

    /// A leader asks for the in-sync set that it sees.
    fn ask(&mut self, id: NodeId) {
        let now = self.now();
        let node = self.node(id);
        let (end, epochs) = (node.end(), node.epochs());
        let Role::Leader(lead) = &mut node.role else { return };
        let log = leader_log(&epochs, end, lead.high_watermark);
        let Some(wanted) = lead.replicas.wanted_in_sync(now.monotonic, log, Durability::Fsync) else { return };
        lead.replicas.ask(wanted.clone());
        let version = lead.version;
        self.asked.push_back((id, version, wanted));
    }

    fn publish(&mut self) {
        self.facts.version += 1;
        for news in self.news.values_mut() {
            news.push_back(self.facts.clone());
        }
    }

    /// The controller decides about the oldest request: only the leader's, and only if nothing has changed since.
    fn controller_decides(&mut self) {
        let Some((from, version, wanted)) = self.asked.pop_front() else { return };
        if self.facts.leader == Some(from)
            && self.facts.version == version
            && wanted.iter().all(|node| self.is_up(*node))
        {
            self.facts.in_sync = wanted;
            self.publish();
        } else if self.facts.leader == Some(from) {
            // Refused: applied as a change of nothing, so that the leader may ask again.
            self.publish();
        }
    }

    /// Another leader is elected from the in-sync set, whether or not the old one is gone.
    fn elect(&mut self) {
        let fit: Vec<NodeId> = self.facts.in_sync.iter().copied().filter(|node| self.is_up(*node)).collect();
        if fit.is_empty() {
            return;
        }
        let leader = fit[self.dice.roll(fit.len() as u64) as usize];
        self.facts.leader = Some(leader);
        self.facts.epoch = LeaderEpoch(self.facts.epoch.0 + 1);
        self.publish();
    }

    fn toggle_session(&mut self) {
        let (a, b) = (self.any_node(), self.any_node());
        if a == b || !self.is_up(a) || !self.is_up(b) {
            return;
        }
        if !self.sessions.contains(&pair(a, b)) {
            self.connect(a, b);
        } else if self.dice.once_in(5) {
            self.cut_session(a, b);
        }
    }

    fn connect(&mut self, a: NodeId, b: NodeId) {
        if !self.sessions.insert(pair(a, b)) {
            return;
        }
        for (one, other) in [(a, b), (b, a)] {
            let node = self.node(one);
            let leader = node.known.as_ref().and_then(|known| known.leader);
            if let Role::Follower(follower) = &mut node.role
                && leader == Some(other)
            {
                follower.session_up();
            }
            self.carry_out(one);
        }
    }

    fn cut_session(&mut self, a: NodeId, b: NodeId) {
        if !self.sessions.remove(&pair(a, b)) {
            return;
        }
        for (one, other) in [(a, b), (b, a)] {
            self.wires.remove(&(one, other));
            let node = self.node(one);
            let leader = node.known.as_ref().and_then(|known| known.leader);
            match &mut node.role {
                Role::Follower(follower) if leader == Some(other) => follower.session_down(),
                Role::Leader(lead) => lead.replicas.session_down(other),
                _ => {}
            }
        }
    }

    /// Power fails: what was not synced is gone, or half of it.
    fn crash(&mut self, id: NodeId) {
        if !self.is_up(id) {
            return;
        }
        for other in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.cut_session(id, other);
        }
        let unsynced = self.nodes[&id].log.len() - self.nodes[&id].durable;
        let kept = self.dice.roll(unsynced as u64 + 1) as usize;
        let node = self.node(id);
        node.log.truncate(node.durable + kept);
        node.under_way.clear();
        node.role = Role::Down;
        node.known = None;
    }

    /// A node that was down is registered again: if it led, the epoch rises, and it hears of everything as it is now.
    fn start(&mut self, id: NodeId) {
        if self.is_up(id) {
            return;
        }
        let node = self.node(id);
        node.durable = node.log.len();
        node.role = Role::Idle;
        self.facts.epoch = LeaderEpoch(self.facts.epoch.0 + 1);
        if self.facts.leader == Some(id) && !self.facts.in_sync.contains(&id) {
            self.facts.leader = None;
        }
        self.news.insert(id, VecDeque::new());
        self.publish();
    }

    fn check(&self) {
        for (id, node) in &self.nodes {
            let watermark = match &node.role {
                Role::Leader(lead) => lead.high_watermark,
                Role::Follower(follower) => follower.high_watermark(),
                Role::Down | Role::Idle => continue,
            };
            assert!(watermark <= node.end(), "node {id} shows more than it has");
            for (offset, batch) in node.log.iter().enumerate().take(watermark.0 as usize) {
                assert_eq!(Some(&value(batch)), self.committed.get(offset), "node {id} shows what is not committed");
            }
        }
    }

    /// Everything is mended, and then everybody must come to have the same, all of it committed.
    fn heal(&mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.start(id);
        }
        if self.facts.leader.is_none() {
            self.elect();
        }
        let all: Vec<NodeId> = self.nodes.keys().copied().collect();
        for _ in 0..2_000 {
            for a in &all {
                for b in all.iter().filter(|b| *b > a) {
                    self.connect(*a, *b);
                }
                self.learn(*a);
                self.log_works(*a);
                self.ask(*a);
            }
            self.controller_decides();
            self.deliver();
            // What is throttled takes its time.
            self.pass(if self.throttled { 4 } else { 1 });
            self.pump();
            self.check();
        }
        let logs: BTreeSet<Vec<u64>> = self.nodes.values().map(|node| node.log.iter().map(value).collect()).collect();
        assert_eq!(logs.len(), 1, "logs differ after everything was mended: {logs:?}");
        assert_eq!(logs.first().map(Vec::len), Some(self.committed.len()), "something is never committed");
        assert_eq!(self.facts.in_sync.len(), self.nodes.len(), "somebody never comes back into the set");
        let offline = |node: &Node| matches!(&node.role, Role::Follower(follower) if matches!(follower.phase(), Phase::Offline(_)));
        assert!(!self.nodes.values().any(offline));
    }
}

/// How much was committed, and how often a leader began, a log was cut, and a replica waited for its throttle.
fn run(seed: u64) -> [usize; 4] {
    let _seed = Seed(seed);
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.heal();
    [world.committed.len(), world.leaders, world.cuts, world.waits]
}

#[test]
fn what_was_committed_stays_whatever_happens_to_sessions_nodes_and_leaders() {
    let mut sums = [0; 4];
    for seed in 0..SEEDS {
        sums.iter_mut().zip(run(seed)).for_each(|(sum, one)| *sum += one);
    }
    let [committed, leaders, cuts, waits] = sums;
    let seeds = SEEDS as usize;
    assert!(
        committed > 15 * seeds && leaders > 5 * seeds && cuts > seeds / 4 && waits > seeds,
        "too tame: {committed} {leaders} {cuts} {waits}"
    );
}
