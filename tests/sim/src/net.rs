//! The network between nodes: one that loses, repeats and reorders what Raft says, and sessions for replication.
//!
//! **Two contracts, two worlds.** Raft's messages are best effort, so each is thrown for itself. Replication sessions are
//! ordered and reliable or over: what a cut link holds up is delivered later, in order, until one side has heard nothing for
//! too long and gives the session up. Both ends learn of its beginning and its end at times of their own, and nothing of a
//! session is delivered at an end that has heard of its end.

use crate::rt::{Process, Sim, WORLD};
use chronik_core::ids::{LogId, NodeId, Offset};
use chronik_core::raft_transport as raft;
use chronik_core::replication::{self, Message};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// As the production sessions have it: an end that hears nothing for so long gives up.
const SILENCE_MAX: Duration = Duration::from_millis(1_500);
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A cut link is tried again after so long at most.
const RESEND: Duration = Duration::from_millis(200);
/// Lanes of a session: partitions on different lanes overtake each other.
const LANES: u64 = 3;

/// How links are in this story.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub delay_least: Duration,
    pub delay_most: Duration,
    /// Of Raft's messages, in a thousand.
    pub lost: u64,
    pub doubled: u64,
    /// A message that takes very long, in a thousand.
    pub straggles: u64,
    /// Whether a machine says that a process is gone.
    pub tells_gone: bool,
}

impl Weather {
    pub fn fair() -> Self {
        let (delay_least, delay_most) = (Duration::from_micros(100), Duration::from_millis(2));
        Self { delay_least, delay_most, lost: 0, doubled: 0, straggles: 0, tells_gone: true }
    }
}

type Take<E> = Rc<dyn Fn(E)>;

/// A process that can be reached.
#[derive(Clone)]
struct Host {
    process: Process,
    raft: Take<raft::Event>,
    replicates: Option<Replicates>,
}

#[derive(Clone)]
struct Replicates {
    broker_epoch: Offset,
    admits: Rc<dyn Fn(NodeId, Offset) -> bool>,
    take: Take<replication::Event>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It will hear that the session has begun.
    Coming,
    Up,
    Over,
}

struct End {
    node: NodeId,
    process: Process,
    stands: Standing,
    heard: Duration,
    /// What it has sent, by lane, and has not arrived.
    lanes: [VecDeque<(LogId, Message)>; LANES as usize],
}

struct Session {
    ends: [End; 2],
    epochs: [Offset; 2],
}

impl Session {
    fn of(&mut self, node: NodeId) -> &mut End {
        let at = usize::from(self.ends[0].node != node);
        &mut self.ends[at]
    }

    fn is_over(&self) -> bool {
        self.ends.iter().all(|end| end.stands == Standing::Over)
    }
}

#[derive(Default)]
struct State {
    hosts: BTreeMap<NodeId, Host>,
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Links on which everything takes longer.
    clogged: BTreeMap<(NodeId, NodeId), Duration>,
    sessions: BTreeMap<u64, Session>,
    next: u64,
}

/// See the module's head.
pub struct Net {
    sim: Sim,
    weather: RefCell<Weather>,
    state: RefCell<State>,
}

fn lane_of(log: &LogId) -> usize {
    let spread = log.topic.0.iter().fold(log.partition as u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
    (spread % LANES) as usize
}

impl Net {
    pub fn new(sim: Sim, weather: Weather) -> Rc<Self> {
        let net = Rc::new(Self { sim, weather: RefCell::new(weather), state: RefCell::default() });
        net.clone().look_later();
        net
    }

    pub fn set_weather(&self, weather: Weather) {
        *self.weather.borrow_mut() = weather;
    }

    pub fn join(&self, node: NodeId, process: Process, raft: Take<raft::Event>) {
        self.state.borrow_mut().hosts.insert(node, Host { process, raft, replicates: None });
    }

    /// From now on sessions with it are made.
    pub fn replicate(
        &self,
        node: NodeId,
        broker_epoch: Offset,
        admits: Rc<dyn Fn(NodeId, Offset) -> bool>,
        take: Take<replication::Event>,
    ) {
        if let Some(host) = self.state.borrow_mut().hosts.get_mut(&node) {
            host.replicates = Some(Replicates { broker_epoch, admits, take });
        }
    }

    /// The process is gone. `is_told`: its machine lives, and ends its connections.
    pub fn leave(self: &Rc<Self>, node: NodeId, is_told: bool) {
        let gone = self.state.borrow_mut().hosts.remove(&node);
        if gone.is_none() {
            return;
        }
        let mut others = Vec::new();
        for (number, session) in &mut self.state.borrow_mut().sessions {
            if session.ends.iter().any(|end| end.node == node && end.stands != Standing::Over) {
                session.of(node).stands = Standing::Over;
                others.extend(session.ends.iter().filter(|end| end.node != node).map(|end| (*number, end.node)));
            }
        }
        if !is_told {
            return;
        }
        for (number, other) in others {
            self.end_soon(number, other);
        }
        if self.weather.borrow().tells_gone {
            let hosts: Vec<_> = self.state.borrow().hosts.iter().map(|(id, host)| (*id, host.clone())).collect();
            for (other, host) in hosts {
                if self.is_open(node, other) && self.is_open(other, node) {
                    let span = self.delay(node, other);
                    let net = self.clone();
                    self.sim.after(host.process, span, move || {
                        if !net.state.borrow().hosts.contains_key(&node) {
                            (host.raft)(raft::Event::Gone { peer: node });
                        }
                    });
                }
            }
        }
    }

    pub fn is_open(&self, from: NodeId, to: NodeId) -> bool {
        !self.state.borrow().cut.contains(&(from, to))
    }

    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.state.borrow_mut().cut.insert((from, to));
    }

    pub fn clog(&self, from: NodeId, to: NodeId, by: Duration) {
        self.state.borrow_mut().clogged.insert((from, to), by);
    }

    pub fn mend(&self, from: NodeId, to: NodeId) {
        let mut state = self.state.borrow_mut();
        state.cut.remove(&(from, to));
        state.clogged.remove(&(from, to));
    }

    pub fn mend_all(&self) {
        let mut state = self.state.borrow_mut();
        state.cut.clear();
        state.clogged.clear();
    }

    fn delay(&self, from: NodeId, to: NodeId) -> Duration {
        let weather = *self.weather.borrow();
        let clogged = self.state.borrow().clogged.get(&(from, to)).copied().unwrap_or_default();
        let span = self.sim.roll(|dice| {
            let most = if dice.per_mille(weather.straggles) { weather.delay_most * 40 } else { weather.delay_most };
            dice.span(weather.delay_least, most)
        });
        span + clogged
    }

    /// Raft's, and questions to the controller: best effort.
    pub fn send(self: &Rc<Self>, from: NodeId, to: NodeId, message: raft::Message) {
        let weather = *self.weather.borrow();
        let (lost, copies) =
            self.sim.roll(|dice| (dice.per_mille(weather.lost), 1 + u64::from(dice.per_mille(weather.doubled))));
        let (sender, receiver) = {
            let state = self.state.borrow();
            (state.hosts.get(&from).cloned(), state.hosts.get(&to).cloned())
        };
        let Some(sender) = sender else { return };
        let receiver = match receiver {
            Some(receiver) if self.is_open(from, to) => receiver,
            _ => {
                // Most often the transport notices.
                if self.sim.roll(|dice| dice.once_in(4)) {
                    let span = self.delay(from, to) * 4;
                    self.sim.after(sender.process, span, move || (sender.raft)(raft::Event::Unreachable { peer: to }));
                }
                return;
            }
        };
        if lost {
            return;
        }
        for _ in 0..copies {
            let (net, message, take) = (self.clone(), message.clone(), receiver.raft.clone());
            self.sim.after(receiver.process, self.delay(from, to), move || {
                if net.is_open(from, to) {
                    take(raft::Event::Message { from, message });
                }
            });
        }
    }

    /// Within the present session, if there is one.
    pub fn replicate_to(self: &Rc<Self>, from: NodeId, to: NodeId, log: LogId, message: Message) {
        let lane = lane_of(&log);
        let number = {
            let mut state = self.state.borrow_mut();
            let live = state.sessions.iter_mut().rev().find(|(_, session)| {
                let has = |node| session.ends.iter().any(|end| end.node == node);
                has(from) && has(to) && session.ends.iter().any(|end| end.node == from && end.stands == Standing::Up)
            });
            let Some((number, session)) = live else { return };
            let queue = &mut session.of(from).lanes[lane];
            // Progress, and news without records, take the place of earlier ones that still wait.
            let last = queue.iter_mut().rev().find(|(of, _)| *of == log).map(|(_, earlier)| earlier);
            match (last, &message) {
                (Some(earlier @ Message::Progress(_)), Message::Progress(_)) => *earlier = message,
                (Some(Message::Records(earlier)), Message::Records(news))
                    if earlier.batches.is_empty() && news.batches.is_empty() =>
                {
                    *earlier = news.clone();
                }
                _ => queue.push_back((log, message)),
            }
            if queue.len() > 1 {
                return;
            }
            *number
        };
        self.carry_later(number, from, to, lane, self.delay(from, to));
    }

    fn carry_later(self: &Rc<Self>, number: u64, from: NodeId, to: NodeId, lane: usize, after: Duration) {
        let net = self.clone();
        self.sim.after(WORLD, after, move || net.carry(number, from, to, lane));
    }

    /// The first message of a lane arrives, if the link lets it.
    fn carry(self: &Rc<Self>, number: u64, from: NodeId, to: NodeId, lane: usize) {
        let resend = self.sim.roll(|dice| dice.span(RESEND / 8, RESEND));
        if !self.is_open(from, to) {
            if self.state.borrow().sessions.contains_key(&number) {
                self.carry_later(number, from, to, lane, resend);
            }
            return;
        }
        let (message, process, more) = {
            let mut state = self.state.borrow_mut();
            let Some(session) = state.sessions.get_mut(&number) else { return };
            match session.of(to).stands {
                Standing::Coming => {
                    drop(state);
                    return self.carry_later(number, from, to, lane, resend / 16);
                }
                Standing::Over => {
                    session.of(from).lanes.iter_mut().for_each(VecDeque::clear);
                    return;
                }
                Standing::Up => {}
            }
            let process = session.of(to).process;
            let queue = &mut session.of(from).lanes[lane];
            let Some(message) = queue.pop_front() else { return };
            (message, process, !queue.is_empty())
        };
        if more {
            let after = self.delay(from, to) / 4;
            self.carry_later(number, from, to, lane, after);
        }
        let (log, message) = message;
        let net = self.clone();
        // A paused process finds it in its sockets when it goes on.
        self.sim.after(process, Duration::ZERO, move || {
            if net.is_up_in(number, to)
                && let Some(take) = net.taker(to)
            {
                take(replication::Event::Message { from, log, message });
            }
        });
    }

    fn is_up_in(&self, number: u64, node: NodeId) -> bool {
        let mut state = self.state.borrow_mut();
        state.sessions.get_mut(&number).is_some_and(|session| session.of(node).stands == Standing::Up)
    }

    fn taker(&self, node: NodeId) -> Option<Take<replication::Event>> {
        self.state.borrow().hosts.get(&node)?.replicates.as_ref().map(|replicates| replicates.take.clone())
    }

    /// An end hears that the session is over.
    fn end_soon(self: &Rc<Self>, number: u64, node: NodeId) {
        let Some(process) = self.state.borrow_mut().sessions.get_mut(&number).map(|session| session.of(node).process)
        else {
            return;
        };
        let net = self.clone();
        let span = self.sim.roll(|dice| dice.span(Duration::ZERO, Duration::from_millis(20)));
        self.sim.after(process, span, move || net.end_at(number, node));
    }

    fn end_at(self: &Rc<Self>, number: u64, node: NodeId) {
        let other = {
            let mut state = self.state.borrow_mut();
            let Some(session) = state.sessions.get_mut(&number) else { return };
            let was = std::mem::replace(&mut session.of(node).stands, Standing::Over);
            if was == Standing::Over {
                return;
            }
            let other = session.ends.iter().find(|end| end.node != node).map(|end| end.node);
            if was == Standing::Coming { other.map(|other| (other, false)) } else { other.map(|other| (other, true)) }
        };
        let Some((other, tells)) = other else { return };
        if tells && let Some(take) = self.taker(node) {
            take(replication::Event::Down { peer: other });
        }
        // It closes its side, which the other hears of if the link lets it.
        if self.is_open(node, other) {
            self.end_soon(number, other);
        }
    }

    fn look_later(self: Rc<Self>) {
        let sim = self.sim.clone();
        let span = sim.roll(|dice| dice.span(LOOK_EVERY / 2, LOOK_EVERY));
        sim.after(WORLD, span, move || {
            self.look();
            self.look_later();
        });
    }

    /// Ends hear pings or do not; pairs without a session get one.
    fn look(self: &Rc<Self>) {
        let now = self.sim.elapsed();
        let mut silent = Vec::new();
        {
            let mut state = self.state.borrow_mut();
            let State { sessions, cut, .. } = &mut *state;
            sessions.retain(|_, session| !session.is_over());
            for (number, session) in sessions {
                for at in 0..2 {
                    let (other, process) = (session.ends[1 - at].node, session.ends[1 - at].process);
                    // An end that has given up says nothing any more.
                    let speaks = self.sim.is_running(process) && session.ends[1 - at].stands != Standing::Over;
                    let end = &mut session.ends[at];
                    if speaks && !cut.contains(&(other, end.node)) {
                        end.heard = now;
                    } else if end.stands != Standing::Over && now.saturating_sub(end.heard) > SILENCE_MAX {
                        silent.push((*number, end.node));
                    }
                    if !self.sim.is_alive(end.process) {
                        end.stands = Standing::Over;
                    }
                }
            }
        }
        for (number, node) in silent {
            self.end_soon(number, node);
        }
        let hosts: Vec<_> = self.state.borrow().hosts.iter().map(|(id, host)| (*id, host.clone())).collect();
        for (place, (a, host_a)) in hosts.iter().enumerate() {
            for (b, host_b) in &hosts[place + 1..] {
                let (Some(repl_a), Some(repl_b)) = (&host_a.replicates, &host_b.replicates) else { continue };
                let reaches = self.is_open(*a, *b) && self.is_open(*b, *a);
                let runs = self.sim.is_running(host_a.process) && self.sim.is_running(host_b.process);
                let stands = self.state.borrow().sessions.values().any(|session| {
                    session.ends[0].node == *a
                        && session.ends[1].node == *b
                        && session.ends.iter().all(|end| end.stands != Standing::Over)
                });
                let admitted = || (repl_a.admits)(*b, repl_b.broker_epoch) && (repl_b.admits)(*a, repl_a.broker_epoch);
                if reaches && runs && !stands && admitted() && !self.sim.roll(|dice| dice.once_in(3)) {
                    let epochs = [repl_a.broker_epoch, repl_b.broker_epoch];
                    self.establish([(*a, host_a.process), (*b, host_b.process)], epochs);
                }
            }
        }
    }

    fn establish(self: &Rc<Self>, pair: [(NodeId, Process); 2], epochs: [Offset; 2]) {
        let heard = self.sim.elapsed();
        let number = {
            let mut state = self.state.borrow_mut();
            state.next += 1;
            let end = |(node, process)| End {
                node,
                process,
                stands: Standing::Coming,
                heard,
                lanes: std::array::from_fn(|_| VecDeque::new()),
            };
            let number = state.next;
            state.sessions.insert(number, Session { ends: pair.map(end), epochs });
            number
        };
        for (node, process) in pair {
            let (net, span) = (self.clone(), self.delay(pair[0].0, pair[1].0) * 2);
            self.sim.after(process, span, move || net.begin_at(number, node));
        }
    }

    fn begin_at(self: &Rc<Self>, number: u64, node: NodeId) {
        let (peer, broker_epoch, earlier) = {
            let mut state = self.state.borrow_mut();
            let Some(session) = state.sessions.get_mut(&number) else { return };
            if session.of(node).stands != Standing::Coming {
                return;
            }
            let at = usize::from(session.ends[0].node == node);
            let (peer, broker_epoch) = (session.ends[at].node, session.epochs[at]);
            let earlier: Vec<u64> = state
                .sessions
                .iter()
                .filter(|(other, session)| {
                    **other != number
                        && session.ends.iter().any(|end| end.node == node && end.stands != Standing::Over)
                        && session.ends.iter().any(|end| end.node == peer)
                })
                .map(|(other, _)| *other)
                .collect();
            (peer, broker_epoch, earlier)
        };
        // Of two sessions between the same nodes the later one stays, once the end of the other has been told.
        for other in earlier {
            self.end_at(other, node);
        }
        if let Some(session) = self.state.borrow_mut().sessions.get_mut(&number) {
            session.of(node).stands = Standing::Up;
        }
        if let Some(take) = self.taker(node) {
            take(replication::Event::Up { peer, broker_epoch });
        }
    }

    /// Sessions that are up at both ends.
    pub fn sessions(&self) -> usize {
        let state = self.state.borrow();
        state.sessions.values().filter(|session| session.ends.iter().all(|end| end.stands == Standing::Up)).count()
    }

    /// Lets go of everybody.
    pub fn close(&self) {
        *self.state.borrow_mut() = State::default();
    }
}
