//! Nodes together in a world that loses, repeats, delays and reorders messages, cuts links, crashes nodes with whatever
//! was not synced, replaces disks and changes who votes: no term has two leaders, no vote is taken back, and what was
//! committed stays.
//!
//! What nodes promise is checked where they say it: at every message that is sent, against what is on the sender's disk.
//! A failure prints its seed; `run(seed, …)` is the whole story again.

mod chance;
mod disk;

pub use disk::Disk;

use super::*;
use crate::dice::Dice;
use crate::ids::NodeId;
use crate::time::{Monotonic, Timestamp};
use ::raft::eraftpb::{Message, MessageType};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use store::Step;

/// How a driver may fail its part, to see that it is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// Says that it is durable before it is.
    ReportsEarly,
    /// Does not write terms and votes.
    ForgetsVotes,
    /// A node whose disk was replaced goes on under its old name.
    KeepsName,
}

/// What a node's application has made of the log: enough to tell two stories apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Image {
    index: u64,
    hash: u64,
}

impl Image {
    fn to_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&[self.index.to_be_bytes(), self.hash.to_be_bytes()].concat())
    }

    fn from_bytes(bytes: &[u8]) -> Image {
        let number = |from: usize| bytes[from..from + 8].try_into().map(u64::from_be_bytes).expect("eight bytes");
        if bytes.is_empty() { Image { index: 1, hash: 0 } } else { Image { index: number(0), hash: number(8) } }
    }
}

fn mix(hash: u64, text: &str) -> u64 {
    text.bytes()
        .fold(hash ^ 0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

struct Node {
    own: Member,
    disk: Disk,
    machine: Option<MetadataRaft>,
    /// Counts starts.
    life: u64,
    /// Persist effects under way, and what is left to do for each.
    writing: VecDeque<(u64, VecDeque<Step>)>,
    planned_snapshots_end: crate::ids::Offset,
    image: Image,
    reported: u64,
    wants_snapshot: bool,
    /// Reads that wait: what was committed anywhere when they were asked.
    reads: BTreeMap<u64, u64>,
}

pub struct World {
    dice: Dice,
    now_ms: u64,
    nodes: BTreeMap<NodeId, Node>,
    wire: Vec<(NodeId, NodeId, Box<Message>)>,
    cut: BTreeSet<(NodeId, NodeId)>,
    flaw: Flaw,
    next_number: u64,
    next_disk: u8,
    /// What has been applied anywhere, and the image after it.
    committed: BTreeMap<u64, (Committed, u64)>,
    /// Who has led a term, and in which life.
    leaders: BTreeMap<u64, (RaftId, u64)>,
    votes: BTreeMap<(RaftId, u64), RaftId>,
    /// What any leader has sent as the entry of this index and term.
    sent: BTreeMap<(u64, u64), u64>,
    pub trace: u64,
    pub seen: Seen,
}

/// That the stories were worth telling.
#[derive(Debug, Default)]
pub struct Seen {
    pub commits: u64,
    pub installs: u64,
    pub changes: u64,
    pub joint: u64,
    pub crashes: u64,
    pub reads: u64,
    pub replaced: u64,
    pub snapshots: u64,
}

impl Seen {
    fn add(&mut self, other: &Seen) {
        let Seen { commits, installs, changes, joint, crashes, reads, replaced, snapshots } = other;
        let ours = [
            (&mut self.commits, commits),
            (&mut self.installs, installs),
            (&mut self.changes, changes),
            (&mut self.joint, joint),
            (&mut self.crashes, crashes),
            (&mut self.reads, reads),
            (&mut self.replaced, replaced),
            (&mut self.snapshots, snapshots),
        ];
        ours.into_iter().for_each(|(ours, theirs)| *ours += theirs);
    }
}

pub fn settings() -> Settings {
    Settings {
        election_ticks: 10,
        snapshot_ticks: 40,
        snapshot_after_entries: 25,
        keep_entries: 6,
        ..Settings::default()
    }
}

fn member(node: NodeId, disk: u8) -> Member {
    Member::new(node, [disk; 16], format!("node-{node}:9093")).expect("well formed")
}

fn is_same(kind: &Kind, other: &Kind) -> bool {
    match (kind, other) {
        // Addresses may have been learnt meanwhile; who decides may not differ.
        (Kind::Membership(Some(one)), Kind::Membership(Some(two))) => one.configuration == two.configuration,
        _ => kind == other,
    }
}

impl World {
    /// `voters` that begin together, and `blank` nodes besides.
    pub fn new(seed: u64, voters: i32, blank: i32, flaw: Flaw) -> World {
        let begin: Members = (1..=voters).map(|node| member(NodeId(node), node as u8)).collect();
        let nodes = (1..=voters + blank).map(|id| {
            let mut disk = Disk::default();
            if id <= voters {
                let persist = Recovered::genesis_persist(&begin);
                for step in store::plan(&persist, disk.snapshots_end(), Timestamp(0)) {
                    disk.carry_out(&step);
                }
            }
            let node = Node {
                own: member(NodeId(id), id as u8),
                disk,
                machine: None,
                life: 0,
                writing: VecDeque::new(),
                planned_snapshots_end: crate::ids::Offset::ZERO,
                image: Image::default(),
                reported: 0,
                wants_snapshot: false,
                reads: BTreeMap::new(),
            };
            (NodeId(id), node)
        });
        let mut world = World {
            dice: Dice(seed),
            now_ms: 0,
            nodes: nodes.collect(),
            wire: Vec::new(),
            cut: BTreeSet::new(),
            flaw,
            next_number: 0,
            next_disk: 100,
            committed: BTreeMap::new(),
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            sent: BTreeMap::new(),
            trace: 0,
            seen: Seen::default(),
        };
        (1..=voters + blank).for_each(|id| world.start(NodeId(id)));
        world
    }

    fn now(&self) -> Monotonic {
        Monotonic(Duration::from_millis(self.now_ms))
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("nodes are never removed")
    }

    fn any_node(&mut self) -> NodeId {
        NodeId(1 + self.dice.roll(self.nodes.len() as u64) as i32)
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub fn start(&mut self, id: NodeId) {
        let (now, node) = (self.now(), self.node(id));
        if node.machine.is_some() {
            return;
        }
        let recovered = node.disk.recover();
        node.life += 1;
        node.image =
            recovered.snapshot.as_ref().map_or(Image::default(), |snapshot| Image::from_bytes(&snapshot.image));
        node.reported = node.image.index;
        node.planned_snapshots_end = node.disk.snapshots_end();
        // The same seed on all: what tells them apart is who they are.
        let machine = MetadataRaft::open(now, node.own.clone(), settings(), 7, recovered, Members::default());
        node.machine = Some(machine.expect("what a crash leaves can be opened"));
        self.drain(id);
    }

    pub fn crash(&mut self, id: NodeId) {
        let mut dice = Dice(self.dice.roll(u64::MAX));
        let node = self.node(id);
        if node.machine.take().is_none() {
            return;
        }
        node.disk.crash(&mut dice);
        node.writing.clear();
        node.wants_snapshot = false;
        node.reads.clear();
        self.seen.crashes += 1;
    }

    /// The disk is gone, and the node comes back with a blank one.
    fn replace_disk(&mut self, id: NodeId) {
        self.crash(id);
        let (flaw, disk) = (self.flaw, self.next_disk);
        self.next_disk += 1;
        let node = self.node(id);
        node.disk = Disk::default();
        if flaw != Flaw::KeepsName {
            node.own = member(id, disk);
        }
        self.seen.replaced += 1;
        self.start(id);
    }

    pub fn input(&mut self, id: NodeId, input: Input) {
        let now = self.now();
        if let Some(machine) = self.node(id).machine.as_mut() {
            machine.handle(now, input);
        }
        self.drain(id);
    }

    fn drain(&mut self, id: NodeId) {
        while let Some(effect) = self.node(id).machine.as_mut().and_then(MetadataRaft::poll_effect) {
            let mut text = String::new();
            let _ = write!(text, "{id} {effect:?}");
            self.trace = mix(self.trace, &text);
            self.carry_out(id, effect);
        }
    }

    fn carry_out(&mut self, id: NodeId, effect: Effect) {
        match effect {
            Effect::Send { to, message } => {
                self.check_promise(id, &message);
                self.wire.push((id, to, message));
            }
            Effect::Persist(mut persist) => {
                let flaw = self.flaw;
                let node = self.node(id);
                if flaw == Flaw::ForgetsVotes {
                    persist.hard_state = None;
                }
                let steps: VecDeque<Step> = store::plan(&persist, node.planned_snapshots_end, Timestamp(0)).into();
                for step in &steps {
                    if let Step::Append(store::Log::Snapshots, run) = step {
                        node.planned_snapshots_end = run.next_offset;
                    }
                }
                node.writing.push_back((persist.number, steps));
                if flaw == Flaw::ReportsEarly {
                    self.input(id, Input::Persisted { number: persist.number });
                }
            }
            Effect::Install(snapshot) => {
                self.seen.installs += 1;
                let image = Image::from_bytes(&snapshot.image);
                assert_eq!(image.index, snapshot.at.index, "a snapshot of something else");
                if let Some((_, hash)) = self.committed.get(&image.index) {
                    assert_eq!(*hash, image.hash, "a snapshot of another story at {}", image.index);
                }
                self.node(id).image = image;
            }
            Effect::Apply(entries) => entries.into_iter().for_each(|entry| self.apply(id, entry)),
            Effect::Proposed { .. } | Effect::Role(_) | Effect::SnapshotTooLarge { .. } => {}
            Effect::Refused { number, .. } => drop(self.node(id).reads.remove(&number)),
            Effect::ReadReady { number, index } => {
                let at_least = self.node(id).reads.remove(&number).expect("answered once");
                assert!(index >= at_least, "a read at {index} when {at_least} was committed");
                self.seen.reads += 1;
            }
            Effect::TakeSnapshot => self.node(id).wants_snapshot = true,
            Effect::Stranger { node } => {
                let member = self.nodes[&node].own.clone();
                if self.is_linked(id, node) && self.nodes[&node].machine.is_some() {
                    self.input(id, Input::Introduced(member));
                }
            }
        }
    }

    fn apply(&mut self, id: NodeId, entry: Committed) {
        let node = self.node(id);
        assert_eq!(entry.at.index, node.image.index + 1, "node {id} applies out of order");
        node.image.index = entry.at.index;
        if let Kind::Data(data) = &entry.kind {
            node.image.hash = mix(node.image.hash, &format!("{data:?}"));
        }
        let hash = node.image.hash;
        if let Kind::Membership(Some(membership)) = &entry.kind {
            self.seen.joint += u64::from(membership.configuration.is_joint());
            self.seen.changes += 1;
        }
        match self.committed.get(&entry.at.index) {
            None => {
                self.seen.commits += 1;
                self.committed.insert(entry.at.index, (entry, hash));
            }
            Some((known, known_hash)) => {
                let same = known.at == entry.at && is_same(&known.kind, &entry.kind) && *known_hash == hash;
                assert!(same, "node {id} applies {entry:?} where {known:?} was committed");
            }
        }
    }

    /// What a message says must be on its sender's disk, as it would be after a crash now.
    fn check_promise(&mut self, id: NodeId, message: &Message) {
        let node = &self.nodes[&id];
        let (own, life) = (node.own.id(), node.life);
        let disk = node.disk.durably();
        let kind = message.get_msg_type();
        let is_pre_vote = matches!(kind, MessageType::MsgRequestPreVote | MessageType::MsgRequestPreVoteResponse);
        assert!(
            is_pre_vote || disk.hard_state.term >= message.term,
            "{id} speaks of term {}: {message:?}",
            message.term
        );
        match kind {
            MessageType::MsgRequestVote => self.vote(own, message.term, own, &disk),
            MessageType::MsgRequestVoteResponse if !message.reject => {
                let whom = RaftId::new(message.to).expect("somebody");
                self.vote(own, message.term, whom, &disk);
            }
            MessageType::MsgAppendResponse if !message.reject => {
                let end = disk.cut.index + disk.entries.len() as u64;
                assert!(end >= message.index, "{id} acknowledges {} and has {end}", message.index);
            }
            MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot => {
                let leader = *self.leaders.entry(message.term).or_insert((own, life));
                assert_eq!(leader, (own, life), "term {} has two leaders", message.term);
                for entry in message.entries.iter() {
                    let hash = mix(0, &format!("{:?} {:?}", entry.entry_type, entry.data));
                    let known = *self.sent.entry((entry.index, entry.term)).or_insert(hash);
                    assert_eq!(known, hash, "two entries at {} of term {}", entry.index, entry.term);
                }
            }
            _ => {}
        }
    }

    fn vote(&mut self, voter: RaftId, term: u64, whom: RaftId, disk: &Recovered) {
        let state = disk.hard_state;
        assert!(state.term > term || state.vote == Some(whom), "{voter} votes for {whom} in {term} and has {state:?}");
        let known = *self.votes.entry((voter, term)).or_insert(whom);
        assert_eq!(known, whom, "{voter} votes twice in term {term}");
    }

    fn is_linked(&self, a: NodeId, b: NodeId) -> bool {
        !self.cut.contains(&(a, b)) && !self.cut.contains(&(b, a))
    }

    /// Any message arrives, or does not, or comes again.
    fn deliver(&mut self) {
        if self.wire.is_empty() {
            return;
        }
        let place = self.dice.roll(self.wire.len().min(12) as u64) as usize;
        let (from, to, message) = match self.dice.roll(20) {
            0 => self.wire[place].clone(),
            _ => self.wire.remove(place),
        };
        let lost = self.dice.once_in(25) || !self.is_linked(from, to);
        if !lost {
            self.input(to, Input::Message { from, message });
        } else if self.dice.once_in(4) {
            self.input(from, Input::Unreachable { node: to });
            // Right or not: a process that is gone is heard of in the same way.
            if self.dice.once_in(4) {
                self.input(from, Input::Gone { node: to });
            }
        }
    }

    fn disk_works(&mut self, id: NodeId) {
        let steps = 1 + self.dice.roll(3);
        for _ in 0..steps {
            let node = self.node(id);
            let Some((number, steps)) = node.writing.front_mut() else { return };
            match steps.pop_front() {
                Some(step) => node.disk.carry_out(&step),
                None => {
                    let number = *number;
                    node.writing.pop_front();
                    self.input(id, Input::Persisted { number });
                }
            }
        }
    }

    fn application_works(&mut self, id: NodeId) {
        let node = self.node(id);
        if node.machine.is_none() {
            return;
        }
        let image = node.image;
        if image.index > node.reported {
            node.reported = image.index;
            self.input(id, Input::Applied { index: image.index });
        }
        if std::mem::take(&mut self.node(id).wants_snapshot) {
            if self.dice.once_in(8) {
                return self.input(id, Input::SnapshotFailed);
            }
            self.seen.snapshots += 1;
            self.input(id, Input::SnapshotTaken { index: image.index, image: image.to_bytes() });
        }
    }

    pub fn leader(&self) -> Option<NodeId> {
        let leads = |node: &Node| node.machine.as_ref().map(MetadataRaft::role).filter(|role| role.applied_own_term);
        let leaders = self.nodes.iter().filter_map(|(id, node)| Some((leads(node)?.term, *id)));
        leaders.max().map(|(_, id)| id)
    }

    pub fn machine(&self, id: NodeId) -> Option<&MetadataRaft> {
        self.nodes[&id].machine.as_ref()
    }

    pub fn propose(&mut self, id: NodeId) {
        let number = self.number();
        let data = Bytes::copy_from_slice(&number.to_be_bytes());
        self.input(id, Input::Propose { number, data });
    }

    fn read(&mut self, id: NodeId) {
        let number = self.number();
        let at_least = self.committed.keys().next_back().copied().unwrap_or(0);
        if self.nodes[&id].machine.is_some() {
            self.node(id).reads.insert(number, at_least);
            self.input(id, Input::Read { number });
        }
    }

    /// Anything that one might ask of the leader.
    fn change(&mut self) {
        let Some(leader) = self.leader() else { return };
        let Some(now) = self.machine(leader).map(|machine| machine.membership().configuration.clone()) else { return };
        let leads = self.nodes[&leader].own.id();
        let mut change = Change::default();
        let living: Vec<Member> = self.nodes.values().map(|node| node.own.clone()).collect();
        let ids: BTreeSet<RaftId> = living.iter().map(Member::id).collect();
        change.learners = living.into_iter().filter(|one| !now.contains(one.id())).collect();
        change.learners.truncate(1);
        // Those whose disks are gone first; then whoever chance picks, as long as three voters are left.
        let gone = now.all().into_iter().find(|id| !ids.contains(id));
        let spare = now.voters.len() > 3 && self.dice.once_in(2);
        let picked = now.voters.iter().nth(self.dice.roll(now.voters.len() as u64) as usize).copied();
        match (gone, picked.filter(|id| spare && *id != leads)) {
            (Some(gone), _) => change.remove.push(gone),
            (None, Some(picked)) if self.dice.once_in(2) => change.demote.push(picked),
            (None, Some(picked)) => change.remove.push(picked),
            (None, None) => {}
        }
        if self.dice.once_in(2) {
            change.promote.extend(now.learners.iter().find(|id| ids.contains(id)));
        }
        let number = self.number();
        self.input(leader, Input::Change { number, change });
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        let due: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in due {
            // Some are late.
            let is_due = self.machine(id).is_some_and(|machine| machine.deadline() <= self.now());
            if is_due && !self.dice.once_in(6) {
                self.input(id, Input::Tick);
            }
        }
    }

    /// Something happens.
    pub fn step(&mut self, changes: bool) {
        let id = self.any_node();
        match self.dice.roll(1_000) {
            0..=399 => (0..=self.dice.roll(4)).for_each(|_| self.deliver()),
            400..=599 => self.disk_works(id),
            600..=699 => self.application_works(id),
            700..=719 => self.propose(id),
            720..=759 => {
                let leader = self.leader().unwrap_or(id);
                self.propose(leader);
            }
            760..=779 => {
                let leader = self.leader().unwrap_or(id);
                self.read(leader);
            }
            780..=781 => self.crash(id),
            782..=799 => self.start(id),
            800..=801 => {
                let other = self.any_node();
                if !self.cut.remove(&(id, other)) {
                    self.cut.insert((id, other));
                }
            }
            802..=803 => self.cut.clear(),
            // The lights go out, and the room is cut in two.
            805 if self.dice.once_in(2) => self.split(),
            805 if self.dice.once_in(2) => (1..=self.nodes.len() as i32).for_each(|id| self.crash(NodeId(id))),
            806..=811 if changes => self.change(),
            812 if changes && self.dice.once_in(2) && self.may_lose_a_disk(id) => self.replace_disk(id),
            813 => {
                let to = self.any_node();
                self.input(id, Input::TransferLeader { to });
            }
            // Time stands still while much happens, and passes while little does.
            814..=899 => self.deliver(),
            _ => self.pass(10),
        }
    }

    fn split(&mut self) {
        let side: Vec<bool> = self.nodes.keys().map(|_| self.dice.once_in(2)).collect();
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for (a, one) in ids.iter().zip(&side) {
            for (b, other) in ids.iter().zip(&side) {
                if one != other {
                    self.cut.insert((*a, *b));
                }
            }
        }
        if self.dice.once_in(2) {
            ids.iter().for_each(|id| self.crash(*id));
            ids.iter().for_each(|id| self.start(*id));
        }
    }

    /// Raft survives the loss of a minority: here, of one voter's disk at a time, or of any learner's.
    fn may_lose_a_disk(&self, id: NodeId) -> bool {
        let Some(leader) = self.leader() else { return false };
        let Some(configuration) = self.machine(leader).map(|machine| &machine.membership().configuration) else {
            return false;
        };
        let living: BTreeSet<RaftId> = self.nodes.values().map(|node| node.own.id()).collect();
        let whole = configuration.all().iter().all(|id| living.contains(id));
        id != leader && whole && configuration.voters.len() > 2 && !configuration.is_joint()
    }

    /// All is well from here on: everyone comes to the same end.
    pub fn heal(&mut self) {
        self.cut.clear();
        (1..=self.nodes.len() as i32).for_each(|id| self.start(NodeId(id)));
        for round in 0..3_000 {
            self.now_ms += 10;
            for id in self.nodes.keys().copied().collect::<Vec<_>>() {
                if self.machine(id).is_some_and(|machine| machine.deadline() <= self.now()) {
                    self.input(id, Input::Tick);
                }
                while !self.nodes[&id].writing.is_empty() {
                    self.disk_works(id);
                }
                self.application_works(id);
            }
            for (from, to, message) in std::mem::take(&mut self.wire) {
                self.input(to, Input::Message { from, message });
            }
            if round > 1_000 && self.is_at_rest() {
                return;
            }
            if round % 100 == 0
                && let Some(leader) = self.leader()
            {
                self.propose(leader);
            }
        }
        let stand: Vec<_> = (self.nodes.values())
            .map(|node| {
                (&node.own, node.image, node.machine.as_ref().map(|m| (m.role(), m.committed(), m.last_index())))
            })
            .collect();
        panic!("they do not come to rest: {stand:#?}");
    }

    fn is_at_rest(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let Some(membership) = self.machine(leader).map(MetadataRaft::membership) else { return false };
        let end = self.nodes[&leader].image;
        let follows = |node: &Node| !membership.configuration.contains(node.own.id()) || node.image == end;
        end.index == self.committed.keys().next_back().copied().unwrap_or(0)
            && !membership.configuration.is_joint()
            && self.nodes.values().all(follows)
    }
}
