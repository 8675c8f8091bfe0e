//! The driver of the metadata's Raft group, and the controller where this node leads it, as the broker has them.
//!
//! One decision is one entry here; that several are put together into one is the broker's own.

use super::Around;
use super::asks::{ASK_CONTROLLER, ASK_TO_JOIN, ASK_WHO, Asks};
use super::raft_disk::RaftDisk;
use super::table::Table;
use crate::facts::Fact;
use crate::rt::Changes;
use bytes::Bytes;
use chronik_core::ids::{LeaderEpoch, NodeId, Offset};
use chronik_core::metadata::controller::{self, Decision, FirstStart, Liveness};
use chronik_core::metadata::raft::{
    CAUGHT_UP_ENTRIES, Committed, Effect, Input, Kind, Mark, Member, MetadataRaft, Persist, RaftId, Recovered,
    Refusal as RaftRefusal, Report, Role, Settings, Snapshot,
};
use chronik_core::metadata::records::Facts;
use chronik_core::metadata::requests::{Answer, Refusal, Request};
use chronik_core::metadata::{Change, ClusterDefaults, Delta, Entry, Image, Position, Record};
use chronik_core::raft_transport::{Event, Message};
use chronik_core::time::Monotonic;
use std::cell::{Cell, Ref, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

const BALANCE_EVERY: Duration = Duration::from_secs(10);
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// What became of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the metadata, and acted on here.
    Applied,
    /// Nobody can say.
    Unknown,
}

type Settle = Box<dyn FnOnce(Outcome)>;
pub type Reply = Box<dyn FnOnce(Answer)>;

struct Lead {
    term: u64,
    /// With everything that was decided.
    image: Image,
    waiting: VecDeque<(Mark, Settle)>,
    liveness: Liveness,
    balance_at: Monotonic,
}

struct Step {
    image: Arc<Image>,
    delta: Delta,
    settled: Vec<(Settle, Outcome)>,
}

struct State {
    raft: MetadataRaft,
    image: Arc<Image>,
    lead: Option<Lead>,
    persists: VecDeque<Persist>,
    is_persisting: bool,
    proposed: Option<(u64, Result<Mark, RaftRefusal>)>,
    next_number: u64,
    heard: BTreeMap<NodeId, Monotonic>,
    last_leader: Option<NodeId>,
    joining: bool,
    join_at: Monotonic,
    report_at: Monotonic,
}

/// What the group is made with.
pub struct Parts {
    pub around: Around,
    pub own: Member,
    pub settings: Settings,
    pub session: Duration,
    pub disk: RaftDisk,
    pub recovered: Recovered,
    pub defaults: ClusterDefaults,
    pub peers: Vec<NodeId>,
    pub joining: bool,
    pub seed: u64,
}

/// See the module's head.
pub struct Group {
    around: Around,
    session: Duration,
    disk: Rc<RaftDisk>,
    defaults: ClusterDefaults,
    peers: Vec<NodeId>,
    state: RefCell<State>,
    role: Cell<Role>,
    /// As acted on.
    acted: RefCell<Arc<Image>>,
    changes: Changes,
    steps: RefCell<VecDeque<Step>>,
    stepped: Changes,
    /// The node has it; it knows of this group itself.
    listener: RefCell<Weak<Table>>,
    asks: RefCell<Weak<Asks>>,
    timer_at: Cell<Option<Monotonic>>,
    me: RefCell<Weak<Group>>,
}

fn place(at: Mark) -> (Offset, LeaderEpoch) {
    let index = i64::try_from(at.index).unwrap_or(i64::MAX);
    (Offset(index), LeaderEpoch(i32::try_from(at.term).unwrap_or(i32::MAX)))
}

fn restore(defaults: &ClusterDefaults, snapshot: &Snapshot) -> Option<Image> {
    let records = match snapshot.image.is_empty() {
        true => Vec::new(),
        false => Facts::from_bytes(&snapshot.image).ok()?.records,
    };
    let mut image = Image::empty(defaults.clone());
    let mut next = Offset::ZERO;
    for record in &records {
        image.apply(next, LeaderEpoch(0), record, &mut Delta::default()).ok()?;
        next = next + 1;
    }
    let (at, epoch) = place(snapshot.at);
    Some(image.at(Position { next: at + 1, epoch }))
}

/// What turns one image into another that did not come from it step by step.
fn difference(before: &Image, after: &Image) -> Delta {
    let mut changes = Vec::new();
    let topics = |image: &Image| image.topics().map(|topic| (topic.id, topic.clone())).collect::<BTreeMap<_, _>>();
    let (old, new) = (topics(before), topics(after));
    changes.extend(
        old.iter().filter(|(id, _)| !new.contains_key(*id)).map(|(_, topic)| Change::TopicDeleted(topic.clone())),
    );
    for (id, topic) in &new {
        for partition in 0..i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX) {
            changes.push(Change::PartitionChanged { topic: *id, partition });
        }
        changes.push(Change::TopicConfig(*id));
    }
    Delta { changes }
}

fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Group {
    pub fn open(parts: Parts) -> Result<Rc<Self>, String> {
        let around = parts.around;
        let now = around.now().monotonic;
        let image = match &parts.recovered.snapshot {
            Some(snapshot) => restore(&parts.defaults, snapshot).ok_or("the snapshot cannot be read")?,
            None => Image::empty(parts.defaults.clone()),
        };
        let raft = MetadataRaft::open(now, parts.own, parts.settings, parts.seed, parts.recovered, Default::default())
            .map_err(|why| why.to_string())?;
        let image = Arc::new(image);
        let group = Rc::new(Self {
            session: parts.session,
            disk: Rc::new(parts.disk),
            defaults: parts.defaults,
            peers: parts.peers.into_iter().filter(|peer| *peer != around.node).collect(),
            around,
            state: RefCell::new(State {
                raft,
                image: image.clone(),
                lead: None,
                persists: VecDeque::new(),
                is_persisting: false,
                proposed: None,
                next_number: 1,
                heard: BTreeMap::new(),
                last_leader: None,
                joining: parts.joining,
                join_at: now,
                report_at: now,
            }),
            role: Cell::default(),
            acted: RefCell::new(image),
            changes: Changes::default(),
            steps: RefCell::default(),
            stepped: Changes::default(),
            listener: RefCell::default(),
            asks: RefCell::default(),
            timer_at: Cell::new(None),
            me: RefCell::default(),
        });
        *group.me.borrow_mut() = Rc::downgrade(&group);
        let follower = group.clone();
        group.around.sim.spawn(group.around.process, async move { follower.follow().await });
        group.go_on();
        Ok(group)
    }

    pub fn node(&self) -> NodeId {
        self.around.node
    }

    pub fn role(&self) -> Role {
        self.role.get()
    }

    /// As acted on here.
    pub fn image(&self) -> Arc<Image> {
        self.acted.borrow().clone()
    }

    /// Of the image as acted on, and of the role.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    pub fn controls(&self) -> bool {
        self.state.borrow().lead.is_some()
    }

    /// Whether something of it is on its way to the disk.
    pub fn is_persisting(&self) -> bool {
        self.state.borrow().is_persisting
    }

    pub fn raft(&self) -> Ref<'_, MetadataRaft> {
        Ref::map(self.state.borrow(), |state| &state.raft)
    }

    /// From now on the table hears of every change; gives the image before those.
    pub fn listen(&self, table: &Rc<Table>) -> Arc<Image> {
        *self.listener.borrow_mut() = Rc::downgrade(table);
        self.image()
    }

    pub fn set_asks(&self, asks: &Rc<Asks>) {
        *self.asks.borrow_mut() = Rc::downgrade(asks);
    }

    fn now(&self) -> Monotonic {
        self.around.now().monotonic
    }

    fn handle(&self, input: Input) {
        let now = self.now();
        self.state.borrow_mut().raft.handle(now, input);
        self.go_on();
    }

    /// Everything that follows from what came in.
    fn go_on(&self) {
        self.carry_out();
        self.act_as_controller();
        self.report();
        self.persist_next();
        self.set_timer();
    }

    fn set_timer(&self) {
        let at = self.state.borrow().raft.deadline();
        if self.timer_at.get() == Some(at) {
            return;
        }
        self.timer_at.set(Some(at));
        let Some(group) = self.me.borrow().upgrade() else { return };
        let sleep = self.around.sim.sleep_until(self.around.process, at);
        self.around.sim.spawn(self.around.process, async move {
            sleep.await;
            if group.timer_at.get() == Some(at) {
                group.timer_at.set(None);
                group.handle(Input::Tick);
            }
        });
    }

    fn persist_next(&self) {
        let next = {
            let mut state = self.state.borrow_mut();
            if state.is_persisting {
                return;
            }
            let Some(next) = state.persists.pop_front() else { return };
            state.is_persisting = true;
            next
        };
        let Some(group) = self.me.borrow().upgrade() else { return };
        self.around.sim.spawn(self.around.process, async move {
            let outcome = group.disk.persist(&next, group.around.now().wall).await;
            match outcome {
                Ok(()) => {
                    group.state.borrow_mut().is_persisting = false;
                    group.handle(Input::Persisted { number: next.number });
                }
                Err(why) => group.around.give_up(&format!("the metadata's log failed: {}", why.0)),
            }
        });
    }

    fn carry_out(&self) {
        loop {
            let effect = self.state.borrow_mut().raft.poll_effect();
            let Some(effect) = effect else { return };
            match effect {
                Effect::Send { to, message } => self.around.net.send(self.node(), to, Message::Raft(message)),
                Effect::Persist(persist) => self.state.borrow_mut().persists.push_back(*persist),
                Effect::Apply(entries) => self.apply(entries),
                Effect::Install(snapshot) => self.install(&snapshot),
                Effect::Proposed { number, at } => self.state.borrow_mut().proposed = Some((number, Ok(at))),
                Effect::Refused { number, why } => self.state.borrow_mut().proposed = Some((number, Err(why))),
                Effect::ReadReady { .. } | Effect::SnapshotTooLarge { .. } => {}
                Effect::Role(role) => self.change_role(role),
                Effect::TakeSnapshot => {
                    let image = self.state.borrow().image.clone();
                    let index = image.position().next.0 - 1;
                    let term = u64::try_from(image.position().epoch.0).unwrap_or(0);
                    let bytes = Facts { term, records: image.to_records() }.to_bytes().into();
                    let input = match u64::try_from(index) {
                        Ok(index) => Input::SnapshotTaken { index, image: bytes },
                        Err(_) => Input::SnapshotFailed,
                    };
                    let now = self.now();
                    self.state.borrow_mut().raft.handle(now, input);
                }
                Effect::Stranger { node } => {
                    let body = Bytes::from_static(&[ASK_WHO]);
                    self.around.net.send(self.node(), node, Message::Ask { number: 0, body });
                }
            }
        }
    }

    fn apply(&self, entries: Vec<Committed>) {
        let mut image = Image::clone(&self.state.borrow().image);
        let mut delta = Delta::default();
        let mut settled = Vec::new();
        let Some(last) = entries.last().map(|entry| entry.at.index) else { return };
        for Committed { at, kind } in entries {
            let (index, epoch) = place(at);
            let mut content = 0;
            let applied = match &kind {
                Kind::Data(data) => match Facts::from_bytes(data) {
                    Ok(facts) => {
                        content = hash(data);
                        image.apply_facts(index, at.term, &facts, &mut delta)
                    }
                    Err(why) => return self.around.give_up(&format!("entry {index} is not understood: {why}")),
                },
                Kind::Empty | Kind::Membership(_) => image.apply_entry(index, epoch, &[], &mut delta),
            };
            let entry = match applied {
                Ok(entry) => entry,
                Err(why) => return self.around.give_up(&format!("entry {index} contradicts: {why}")),
            };
            let mut state = self.state.borrow_mut();
            if let Some(lead) = &mut state.lead {
                while let Some((_, settle)) = lead.waiting.pop_front_if(|(waits, _)| waits.index <= at.index) {
                    let outcome = if entry == Entry::Applied { Outcome::Applied } else { Outcome::Unknown };
                    settled.push((settle, outcome));
                }
            }
            drop(state);
            self.around.tell(Fact::Applied {
                node: self.node(),
                index: at.index,
                term: at.term,
                content,
                image: Arc::new(image.clone()),
            });
        }
        let image = Arc::new(image);
        let now = self.now();
        {
            let mut state = self.state.borrow_mut();
            state.image = image.clone();
            let own = state.raft.own().id();
            let takes_part = state.raft.membership().configuration.contains(own);
            state.joining &= !takes_part;
        }
        self.push(Step { image, delta, settled });
        self.state.borrow_mut().raft.handle(now, Input::Applied { index: last });
    }

    fn install(&self, snapshot: &Snapshot) {
        let Some(image) = restore(&self.defaults, snapshot) else {
            return self.around.give_up("a snapshot cannot be read");
        };
        let image = Arc::new(image);
        let delta = difference(&self.state.borrow().image, &image);
        self.around.tell(Fact::Installed { node: self.node(), index: snapshot.at.index, image: image.clone() });
        {
            let mut state = self.state.borrow_mut();
            state.image = image.clone();
            let own = state.raft.own().id();
            let takes_part = state.raft.membership().configuration.contains(own);
            state.joining &= !takes_part;
        }
        self.push(Step { image, delta, settled: Vec::new() });
        let now = self.now();
        self.state.borrow_mut().raft.handle(now, Input::Applied { index: snapshot.at.index });
    }

    fn push(&self, step: Step) {
        self.steps.borrow_mut().push_back(step);
        self.stepped.tell();
    }

    /// Acts on one step after the other; acting takes as long as it takes.
    async fn follow(self: Rc<Self>) {
        loop {
            let step = self.stepped.wait_for(|| self.steps.borrow_mut().pop_front()).await;
            let Step { image, delta, settled } = step;
            if !delta.changes.is_empty() {
                let listener = self.listener.borrow().upgrade();
                if let Some(table) = listener {
                    table.applied(&image, &delta).await;
                }
            }
            *self.acted.borrow_mut() = image;
            self.changes.tell();
            settled.into_iter().for_each(|(settle, outcome)| settle(outcome));
        }
    }

    fn change_role(&self, role: Role) {
        let now = self.now();
        let lost = self.state.borrow_mut().lead.take_if(|lead| !role.is_leader || role.term != lead.term);
        if let Some(lead) = lost {
            self.around.sim.tell(|| format!("n{} controls no more (term {})", self.node(), lead.term));
            lead.waiting.into_iter().for_each(|(_, settle)| settle(Outcome::Unknown));
        }
        let mut state = self.state.borrow_mut();
        if role.is_leader && role.applied_own_term && state.lead.is_none() {
            let own = self.node();
            let silent = state.last_leader.filter(|former| {
                let heard = state.heard.get(former).copied().unwrap_or_default();
                *former != own && now.0.saturating_sub(heard.0) > self.session / 2
            });
            state.lead = Some(Lead {
                term: role.term,
                image: Image::clone(&state.image),
                waiting: VecDeque::new(),
                liveness: Liveness::new(now, self.session, &state.image, silent),
                balance_at: now + BALANCE_EVERY,
            });
            self.around.sim.tell(|| format!("n{own} controls (term {})", role.term));
            self.around.tell(Fact::Controls { node: own, life: self.around.process.0, term: role.term });
        }
        if let Some(leader) = role.leader {
            state.last_leader = Some(leader);
        }
        drop(state);
        self.role.set(role);
        self.changes.tell();
    }

    fn act_as_controller(&self) {
        let now = self.now();
        let (is_new, verdict, balances) = {
            let mut state = self.state.borrow_mut();
            let Some(lead) = &mut state.lead else { return };
            let is_new = lead.image.cluster_id().is_empty() || lead.image.metadata_version() == 0;
            let verdict = lead.liveness.verdict(now, &lead.image);
            let balances = lead.balance_at <= now;
            if balances {
                lead.balance_at = now + BALANCE_EVERY;
            }
            (is_new, verdict, balances)
        };
        let nothing: fn(Outcome) = |_| {};
        if is_new {
            let first = FirstStart { cluster_id: self.around.sim.roll(|dice| dice.identity()) };
            self.decide_own(|image| controller::bootstrap(image, first).records, Box::new(nothing));
            return;
        }
        if !verdict.is_empty() {
            self.decide_own(|image| controller::act_on_heartbeats(image, &verdict).records, Box::new(nothing));
        }
        if balances {
            self.decide_own(|image| controller::balance_leaders(image, 1_000).records, Box::new(nothing));
        }
    }

    fn decide_own(&self, decide: impl FnOnce(&Image) -> Vec<Record>, settle: Settle) {
        let records = match &self.state.borrow().lead {
            Some(lead) => decide(&lead.image),
            None => return,
        };
        if !records.is_empty() {
            self.propose(records, settle);
        }
    }

    /// Writes what was decided against the newest image. This node controls.
    fn propose(&self, records: Vec<Record>, settle: Settle) {
        let (number, expected) = {
            let mut state = self.state.borrow_mut();
            let number = state.next_number;
            state.next_number += 1;
            (number, Mark { index: state.raft.last_index() + 1, term: state.raft.role().term })
        };
        let speculated = {
            let mut state = self.state.borrow_mut();
            let Some(lead) = &mut state.lead else { return settle(Outcome::Unknown) };
            if records.is_empty() {
                match lead.waiting.back_mut() {
                    Some((_, waiting)) => {
                        let before = std::mem::replace(waiting, Box::new(|_| {}));
                        *waiting = Box::new(move |outcome| {
                            before(outcome);
                            settle(outcome);
                        });
                    }
                    None => {
                        drop(state);
                        settle(Outcome::Applied);
                    }
                }
                return;
            }
            let (next, epoch) = place(expected);
            let mut image = lead.image.clone().at(Position { next, epoch });
            match image.apply_entry(next, epoch, &records, &mut Delta::default()) {
                Ok(Entry::Applied) => Some(image),
                _ => None,
            }
        };
        let Some(image) = speculated else { return settle(Outcome::Unknown) };
        let data = Facts { term: expected.term, records }.to_bytes().into();
        let now = self.now();
        self.state.borrow_mut().raft.handle(now, Input::Propose { number, data });
        match self.outcome(number) {
            Some(at) if at == expected => {
                let mut state = self.state.borrow_mut();
                match &mut state.lead {
                    Some(lead) => {
                        lead.image = image;
                        lead.waiting.push_back((at, settle));
                    }
                    None => {
                        drop(state);
                        settle(Outcome::Unknown);
                    }
                }
            }
            _ => settle(Outcome::Unknown),
        }
    }

    fn outcome(&self, number: u64) -> Option<Mark> {
        self.carry_out();
        match self.state.borrow_mut().proposed.take() {
            Some((of, Ok(at))) if of == number => Some(at),
            _ => None,
        }
    }

    /// Decides; answers when it is applied and acted on here. `done` is given the decision's own reply.
    pub fn decide<R: 'static, E: 'static>(
        &self,
        decide: impl FnOnce(&Image) -> Result<Decision<R>, E>,
        reply: impl FnOnce(Result<Result<R, E>, Outcome>) + 'static,
    ) {
        let decided = self.state.borrow().lead.as_ref().map(|lead| decide(&lead.image));
        match decided {
            None => reply(Err(Outcome::Unknown)),
            Some(Err(why)) => self.propose(
                Vec::new(),
                Box::new(move |outcome| match outcome {
                    Outcome::Applied => reply(Ok(Err(why))),
                    Outcome::Unknown => reply(Err(outcome)),
                }),
            ),
            Some(Ok(Decision { records, reply: decided })) => {
                self.propose(
                    records,
                    Box::new(move |outcome| match outcome {
                        Outcome::Applied => reply(Ok(Ok(decided))),
                        Outcome::Unknown => reply(Err(outcome)),
                    }),
                );
            }
        }
        self.go_on();
    }

    /// A broker asks.
    pub fn request(self: &Rc<Self>, from: NodeId, request: Request, reply: Reply) {
        if !self.controls() {
            let leader = self.state.borrow().raft.role().leader.filter(|leader| *leader != self.node());
            return reply(Answer::Refused(Refusal::NotController { leader }));
        }
        let now = self.now();
        match request {
            Request::Heartbeat(heartbeat) => {
                let answer = {
                    let mut state = self.state.borrow_mut();
                    let Some(lead) = &mut state.lead else { return };
                    match lead.liveness.heartbeat(now, from, heartbeat, &lead.image) {
                        Ok(answer) => Answer::Heartbeat(answer),
                        Err(why) => Answer::Refused(why.into()),
                    }
                };
                reply(answer);
                self.go_on();
            }
            Request::Register(registration) => {
                let incarnation = registration.incarnation;
                // What waits within the group must not hold it.
                let group = Rc::downgrade(self);
                let registered = move || controller::registered_epoch(&group.upgrade()?.image(), from, incarnation);
                self.decide(
                    move |image| controller::admit_broker(image, &registration),
                    move |outcome| {
                        reply(match outcome {
                            Ok(Ok(())) => match registered() {
                                Some(broker_epoch) => Answer::Registered { broker_epoch },
                                None => Answer::Refused(Refusal::Unknown),
                            },
                            Ok(Err(why)) => Answer::Refused(why.into()),
                            Err(_) => Answer::Refused(Refusal::Unknown),
                        });
                    },
                );
            }
            Request::AlterPartitions(asked) => {
                self.decide(
                    move |image| controller::alter_partitions(image, from, &asked),
                    move |outcome| {
                        reply(match outcome {
                            Ok(Ok(altered)) => Answer::AlterPartitions(altered),
                            Ok(Err(why)) => Answer::Refused(why.into()),
                            Err(_) => Answer::Refused(Refusal::Unknown),
                        });
                    },
                );
            }
            _ => reply(Answer::Refused(Refusal::Invalid("not asked in these stories".into()))),
        }
    }

    /// What the transport reports.
    pub fn take(self: &Rc<Self>, event: Event) {
        let now = self.now();
        match event {
            Event::Unreachable { peer } => {
                if let Some(asks) = self.asks.borrow().upgrade() {
                    asks.unreachable(peer);
                }
                self.handle(Input::Unreachable { node: peer });
            }
            Event::Gone { peer } => {
                if let Some(lead) = &mut self.state.borrow_mut().lead {
                    lead.liveness.gone(now, peer);
                }
                self.handle(Input::Gone { node: peer });
            }
            Event::Message { from, message } => {
                self.state.borrow_mut().heard.insert(from, now);
                match message {
                    Message::Raft(message) => self.handle(Input::Message { from, message }),
                    Message::Ask { number, body } => self.asked(from, number, body),
                    Message::Answer { number, body } => self.answered(from, number, body),
                }
            }
        }
    }

    fn asked(self: &Rc<Self>, from: NodeId, number: u64, mut body: Bytes) {
        if body.is_empty() {
            return;
        }
        match body.split_to(1)[0] {
            ASK_WHO => {
                let report = {
                    let state = self.state.borrow();
                    let (member, members) = (state.raft.own().clone(), state.raft.membership().members.clone());
                    if members.is_empty() {
                        Report::Blank { member, token: None }
                    } else {
                        Report::Started { member, members }
                    }
                };
                self.answer(from, number, ASK_WHO, &report.to_bytes());
            }
            ASK_CONTROLLER => {
                if let Ok(request) = Request::from_bytes(body) {
                    let group = Rc::downgrade(self);
                    let reply = move |answer: Answer| {
                        if let Some(group) = group.upgrade() {
                            group.answer(from, number, ASK_CONTROLLER, &answer.to_bytes());
                        }
                    };
                    self.request(from, request, Box::new(reply));
                }
            }
            ASK_TO_JOIN => {
                let welcome = self.join(from, &body);
                self.answer(from, number, ASK_TO_JOIN, &[u8::from(welcome)]);
            }
            _ => {}
        }
    }

    fn answer(&self, to: NodeId, number: u64, kind: u8, body: &[u8]) {
        let body = [&[kind], body].concat().into();
        self.around.net.send(self.node(), to, Message::Answer { number, body });
    }

    fn answered(&self, from: NodeId, number: u64, mut body: Bytes) {
        if body.is_empty() {
            return;
        }
        match body.split_to(1)[0] {
            ASK_WHO => {
                if let Some(report) = Report::from_bytes(&body)
                    && report.member().node() == from
                {
                    let member = report.member().clone();
                    self.handle(Input::Introduced(member));
                }
            }
            ASK_CONTROLLER => {
                if let Some(asks) = self.asks.borrow().upgrade() {
                    asks.answered(number, body);
                }
            }
            _ => {}
        }
    }

    /// A node with a blank disk wants to take part: without a vote at first.
    fn join(&self, from: NodeId, body: &[u8]) -> bool {
        let Some(member) = Member::from_bytes(body).filter(|member| member.node() == from) else { return false };
        if !self.controls() {
            return false;
        }
        if self.state.borrow().raft.membership().configuration.contains(member.id()) {
            return true;
        }
        self.around.sim.tell(|| format!("n{from} joins with another disk"));
        let change = chronik_core::metadata::raft::Change { learners: vec![member], ..Default::default() };
        self.change(change)
    }

    fn change(&self, change: chronik_core::metadata::raft::Change) -> bool {
        let number = {
            let mut state = self.state.borrow_mut();
            state.next_number += 1;
            state.next_number - 1
        };
        let now = self.now();
        self.state.borrow_mut().raft.handle(now, Input::Change { number, change });
        let Some(at) = self.outcome(number) else { return false };
        let mut state = self.state.borrow_mut();
        if let Some(lead) = &mut state.lead {
            let (next, epoch) = place(at);
            let image = std::mem::replace(&mut lead.image, Image::empty(self.defaults.clone()));
            lead.image = image.at(Position { next: next + 1, epoch });
        }
        true
    }

    fn report(&self) {
        let now = self.now();
        let asks_to_join = {
            let mut state = self.state.borrow_mut();
            if now < state.report_at {
                return;
            }
            state.report_at = now + REPORT_EVERY;
            let asks = state.joining && state.join_at <= now;
            if asks {
                state.join_at = now + Duration::from_secs(1);
            }
            asks.then(|| state.raft.own().to_bytes())
        };
        self.promote();
        if let Some(own) = asks_to_join {
            let body: Bytes = [&[ASK_TO_JOIN], &own[..]].concat().into();
            for peer in &self.peers {
                self.around.net.send(self.node(), *peer, Message::Ask { number: 0, body: body.clone() });
            }
        }
    }

    /// A learner that has another node's number, and everything, takes over the vote of that node's former disk.
    fn promote(&self) {
        let change = {
            let state = self.state.borrow();
            if state.lead.is_none() || state.raft.membership().configuration.is_joint() {
                return;
            }
            let (configuration, members) = (&state.raft.membership().configuration, &state.raft.membership().members);
            let committed = state.raft.committed();
            state.raft.progress().into_iter().find_map(|progress| {
                let learner = members.get(progress.id).filter(|_| configuration.learners.contains(&progress.id))?;
                let caught_up = progress.is_active && progress.matched.saturating_add(CAUGHT_UP_ENTRIES) >= committed;
                let former: Vec<RaftId> =
                    members.ids_of(learner.node()).filter(|id| configuration.is_voter(*id)).collect();
                (caught_up && !former.is_empty()).then_some((progress.id, former))
            })
        };
        if let Some((learner, former)) = change {
            self.change(chronik_core::metadata::raft::Change {
                promote: vec![learner],
                remove: former,
                ..Default::default()
            });
        }
    }
}
