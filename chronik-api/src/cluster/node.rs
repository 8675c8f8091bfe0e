//! The driver of the metadata's Raft group.
//!
//! - [`lead`]: the controller, where this node leads the group.
//! - [`members`]: who takes part, and where they are.
//!
//! It lives on a thread of its own, so that nothing that serves clients delays a heartbeat, and never waits: the disk is
//! written by a task that reports back, and those who act on changes are told by another one ([`super::follow`]).

mod lead;
mod members;

use self::lead::{Lead, Reply};
use super::asks::Asks;
use super::disk::{Disk, DiskError};
use super::follow::{Step, Steps};
use crate::clock::Clock;
use crate::metadata::random;
use crate::metadata::writer::Command;
use bytes::Bytes;
use chronik_core::ids::{LeaderEpoch, NodeId, Offset};
use chronik_core::metadata::raft::{
    Committed, Effect, Input, Kind, Mark, Member, MetadataRaft, OpenError, Persist, Progress, Recovered,
    Refusal as RaftRefusal, Report, Role, Settings, Snapshot,
};
use chronik_core::metadata::records::{Facts, NotARecord};
use chronik_core::metadata::requests::{Answer, Refusal, Request};
use chronik_core::metadata::{ApplyError, ClusterDefaults, Delta, Image, Position};
use chronik_core::raft_transport::{Event, Message, Peer, RaftTransport};
use chronik_core::time::Monotonic;
use chronik_link::raft::RaftLanes;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// First byte of what is asked and answered between nodes, before there is anything else in common.
pub const ASK_WHO: u8 = 0;
pub const ASK_CONTROLLER: u8 = 1;
pub const ASK_TO_JOIN: u8 = 2;

/// How often what people may look at is brought up to date.
const STATUS_EVERY: Duration = Duration::from_millis(100);

/// Why the node cannot go on. The process must end: what it knows is not to be trusted.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("the metadata's log failed; restart the broker once its disk is in order")]
    Disk(#[from] DiskError),
    #[error("the metadata cannot be taken up")]
    Open(#[from] OpenError),
    #[error("entry {index} of the metadata is not understood, most likely because a later release wrote it: {why}")]
    NotUnderstood { index: u64, why: String },
    #[error("entry {index} of the metadata contradicts those before it")]
    Contradiction { index: u64, source: ApplyError },
}

/// What people may look at.
#[derive(Clone, Debug, Default)]
pub struct QuorumStatus {
    pub role: Role,
    pub members: Vec<(Member, bool)>,
    pub progress: Vec<Progress>,
    pub last_index: u64,
    pub committed: u64,
}

/// A request of this node's own broker, answered through the channel.
pub struct Local {
    pub request: Request,
    pub reply: oneshot::Sender<Answer>,
}

/// Carries out clients' requests that other nodes hand on.
pub trait Forwarded: Send + Sync {
    /// The response to a request that came in on a listener of that name, both without the length before them.
    fn serve(&self, listener: String, frame: Bytes) -> Pin<Box<dyn Future<Output = Option<Bytes>> + Send>>;
}

/// What the node is made of.
pub struct Parts {
    pub clock: Clock,
    pub own: Member,
    pub settings: Settings,
    pub session: Duration,
    pub disk: Arc<Disk>,
    pub recovered: Recovered,
    pub defaults: ClusterDefaults,
    pub transport: Arc<RaftLanes>,
    pub events: mpsc::Receiver<Event>,
    pub commands: mpsc::Receiver<Command>,
    pub locals: mpsc::Receiver<Local>,
    pub asks: Arc<Asks>,
    pub steps: Steps,
    pub roles: watch::Sender<Role>,
    pub status: watch::Sender<QuorumStatus>,
    /// Where nodes of the configuration are, before the group tells of them itself.
    pub configured: Vec<Peer>,
    pub forwarded: watch::Receiver<Option<Arc<dyn Forwarded>>>,
    /// The runtime that serves clients.
    pub runtime: tokio::runtime::Handle,
    /// Asks this node to join the cluster of these.
    pub joining: bool,
}

type Persisting = Pin<Box<dyn Future<Output = Result<u64, DiskError>> + Send>>;

/// See the module's head.
pub struct Node {
    clock: Clock,
    session: Duration,
    disk: Arc<Disk>,
    raft: MetadataRaft,
    /// As applied.
    image: Arc<Image>,
    defaults: ClusterDefaults,
    lead: Option<Lead>,
    transport: Arc<RaftLanes>,
    events: mpsc::Receiver<Event>,
    commands: mpsc::Receiver<Command>,
    locals: mpsc::Receiver<Local>,
    asks: Arc<Asks>,
    steps: Steps,
    roles: watch::Sender<Role>,
    status: watch::Sender<QuorumStatus>,
    status_at: Monotonic,
    configured: Vec<Peer>,
    forwarded: watch::Receiver<Option<Arc<dyn Forwarded>>>,
    runtime: tokio::runtime::Handle,
    persists: VecDeque<Persist>,
    persisting: Option<Persisting>,
    /// What became of the last proposal; Raft answers at once.
    proposed: Option<(u64, Result<Mark, RaftRefusal>)>,
    next_number: u64,
    /// When other nodes were last heard of.
    heard: BTreeMap<NodeId, Monotonic>,
    last_leader: Option<NodeId>,
    joining: bool,
    join_at: Monotonic,
}

impl Node {
    pub fn open(parts: Parts) -> Result<Self, NodeError> {
        let now = parts.clock.now().monotonic;
        let image = match &parts.recovered.snapshot {
            Some(snapshot) => restore(&parts.defaults, snapshot)?,
            None => Image::empty(parts.defaults.clone()),
        };
        let seed = random::seed();
        let raft = MetadataRaft::open(now, parts.own, parts.settings, seed, parts.recovered, Default::default())?;
        let mut node = Self {
            clock: parts.clock,
            session: parts.session,
            disk: parts.disk,
            raft,
            image: Arc::new(image),
            defaults: parts.defaults,
            lead: None,
            transport: parts.transport,
            events: parts.events,
            commands: parts.commands,
            locals: parts.locals,
            asks: parts.asks,
            steps: parts.steps,
            roles: parts.roles,
            status: parts.status,
            status_at: now,
            configured: parts.configured,
            forwarded: parts.forwarded,
            runtime: parts.runtime,
            persists: VecDeque::new(),
            persisting: None,
            proposed: None,
            next_number: 1,
            heard: BTreeMap::new(),
            last_leader: None,
            joining: parts.joining,
            join_at: now,
        };
        node.steps.push(Step { image: node.image.clone(), delta: Delta::default(), answers: Vec::new() });
        node.set_peers();
        Ok(node)
    }

    fn now(&self) -> Monotonic {
        self.clock.now().monotonic
    }

    /// Until it is closed; an error ends the process.
    pub async fn run(mut self) -> Result<(), NodeError> {
        self.carry_out()?;
        loop {
            self.act_as_controller()?;
            self.steps.flush();
            self.report();
            self.persist_next();
            let deadline = self.clock.instant(self.raft.deadline());
            let persisted = async {
                match &mut self.persisting {
                    Some(persisting) => persisting.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                persisted = persisted => {
                    self.persisting = None;
                    let number = persisted?;
                    self.raft.handle(self.clock.now().monotonic, Input::Persisted { number });
                }
                event = self.events.recv() => match event {
                    Some(event) => self.event(event),
                    None => return Ok(()),
                },
                command = self.commands.recv() => match command {
                    Some(Command::Propose(proposal)) => self.propose(proposal),
                    Some(Command::Listen(listener, reply)) => self.steps.listen(listener, reply),
                    Some(Command::Close(reply)) => {
                        let _ = reply.send(());
                        return Ok(());
                    }
                    None => return Ok(()),
                },
                local = self.locals.recv() => match local {
                    Some(Local { request, reply }) => {
                        let own = self.raft.own().node();
                        self.request(own, request, Reply::Local(reply));
                    }
                    None => return Ok(()),
                },
                () = tokio::time::sleep_until(deadline) => self.raft.handle(self.clock.now().monotonic, Input::Tick),
            }
            self.carry_out()?;
        }
    }

    fn persist_next(&mut self) {
        if self.persisting.is_some() {
            return;
        }
        if let Some(persist) = self.persists.pop_front() {
            let (disk, now) = (self.disk.clone(), self.clock.wall());
            self.persisting = Some(Box::pin(async move { disk.persist(&persist, now).await.map(|()| persist.number) }));
        }
    }

    /// Does what Raft wants done, until it wants nothing more.
    fn carry_out(&mut self) -> Result<(), NodeError> {
        while let Some(effect) = self.raft.poll_effect() {
            match effect {
                Effect::Send { to, message } => self.transport.send(to, Message::Raft(message)),
                Effect::Persist(persist) => self.persists.push_back(*persist),
                Effect::Apply(entries) => self.apply(entries)?,
                Effect::Install(snapshot) => self.install(&snapshot)?,
                Effect::Proposed { number, at } => self.proposed = Some((number, Ok(at))),
                Effect::Refused { number, why } => self.proposed = Some((number, Err(why))),
                // Nobody asks: what clients read is as new as this node's image.
                Effect::ReadReady { .. } => {}
                Effect::Role(role) => self.role(role),
                Effect::TakeSnapshot => {
                    let index = self.image.position().next.0 - 1;
                    let input = match u64::try_from(index) {
                        Ok(index) => Input::SnapshotTaken { index, image: self.snapshot() },
                        Err(_) => Input::SnapshotFailed,
                    };
                    self.raft.handle(self.now(), input);
                }
                Effect::SnapshotTooLarge { bytes, max } => {
                    tracing::error!(
                        "a snapshot of the metadata has {bytes} bytes, and may have {max}: its log stays long"
                    );
                }
                Effect::Stranger { node } => self.ask_who(node),
            }
        }
        Ok(())
    }

    fn apply(&mut self, entries: Vec<Committed>) -> Result<(), NodeError> {
        let mut image = Image::clone(&self.image);
        let mut delta = Delta::default();
        let mut answers = Vec::new();
        let Some(last) = entries.last().map(|entry| entry.at.index) else { return Ok(()) };
        for Committed { at, kind } in entries {
            let (index, epoch) = place(at);
            let applied = match kind {
                Kind::Data(data) => {
                    let facts = Facts::from_bytes(&data).map_err(|why| not_understood(at.index, &why))?;
                    image.apply_facts(index, at.term, &facts, &mut delta)
                }
                Kind::Empty => image.apply_entry(index, epoch, &[], &mut delta),
                Kind::Membership(membership) => {
                    if membership.is_some() {
                        self.set_peers();
                    }
                    image.apply_entry(index, epoch, &[], &mut delta)
                }
            };
            let outcome = applied.map_err(|source| NodeError::Contradiction { index: at.index, source })?;
            self.settle_waiting(at, &outcome, &mut answers);
        }
        self.image = Arc::new(image);
        self.joining &= !self.raft.membership().configuration.contains(self.raft.own().id());
        if !self.image.cluster_id().is_empty() {
            self.transport.identity().set_cluster_id(self.image.cluster_id());
        }
        self.steps.push(Step { image: self.image.clone(), delta, answers });
        self.raft.handle(self.now(), Input::Applied { index: last });
        Ok(())
    }

    fn install(&mut self, snapshot: &Snapshot) -> Result<(), NodeError> {
        let image = restore(&self.defaults, snapshot)?;
        let delta = super::follow::difference(&self.image, &image);
        self.image = Arc::new(image);
        if !self.image.cluster_id().is_empty() {
            self.transport.identity().set_cluster_id(self.image.cluster_id());
        }
        self.set_peers();
        self.joining &= !self.raft.membership().configuration.contains(self.raft.own().id());
        self.steps.push(Step { image: self.image.clone(), delta, answers: Vec::new() });
        self.raft.handle(self.now(), Input::Applied { index: snapshot.at.index });
        Ok(())
    }

    /// The image as records, for those who have to begin with it.
    fn snapshot(&self) -> Bytes {
        let term = u64::try_from(self.image.position().epoch.0).unwrap_or(0);
        Facts { term, records: self.image.to_records() }.to_bytes().into()
    }

    fn event(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Unreachable { peer } => {
                self.asks.unreachable(peer);
                self.raft.handle(now, Input::Unreachable { node: peer });
            }
            // A session that came in meanwhile says otherwise.
            Event::Gone { peer } if !self.transport.is_up(peer) => {
                if let Some(lead) = &mut self.lead {
                    lead.is_gone(now, peer);
                }
                self.raft.handle(now, Input::Gone { node: peer });
            }
            Event::Gone { .. } => {}
            Event::Message { from, message } => {
                self.heard.insert(from, now);
                match message {
                    Message::Raft(message) => self.raft.handle(now, Input::Message { from, message }),
                    Message::Ask { number, body } => self.asked(from, number, body),
                    Message::Answer { number, body } => self.answered(from, number, body),
                }
            }
        }
    }

    fn asked(&mut self, from: NodeId, number: u64, mut body: Bytes) {
        if body.is_empty() {
            return;
        }
        let kind = body.split_to(1)[0];
        match kind {
            ASK_WHO => {
                let (member, members) = (self.raft.own().clone(), self.raft.membership().members.clone());
                let report = if members.is_empty() {
                    Report::Blank { member, token: None }
                } else {
                    Report::Started { member, members }
                };
                self.answer(from, number, ASK_WHO, &report.to_bytes());
            }
            ASK_CONTROLLER => match Request::from_bytes(body) {
                Ok(request) => self.request(from, request, Reply::Remote { to: from, number }),
                Err(why) => {
                    let refused = Answer::Refused(Refusal::Invalid(why.to_string()));
                    self.answer(from, number, ASK_CONTROLLER, &refused.to_bytes());
                }
            },
            ASK_TO_JOIN => {
                let welcome = self.join(from, &body);
                self.answer(from, number, ASK_TO_JOIN, &[u8::from(welcome)]);
            }
            // A later release's: it is not answered, and asked otherwise.
            _ => {}
        }
    }

    fn answer(&self, to: NodeId, number: u64, kind: u8, body: &[u8]) {
        let body = [&[kind], body].concat().into();
        self.transport.send(to, Message::Answer { number, body });
    }

    fn answered(&mut self, from: NodeId, number: u64, mut body: Bytes) {
        if body.is_empty() {
            return;
        }
        match body.split_to(1)[0] {
            ASK_WHO => {
                if let Some(report) = Report::from_bytes(&body)
                    && report.member().node() == from
                {
                    let member = report.member().clone();
                    self.raft.handle(self.now(), Input::Introduced(member));
                }
            }
            ASK_CONTROLLER => self.asks.answered(number, body),
            _ => {}
        }
    }

    fn report(&mut self) {
        let now = self.now();
        if now < self.status_at {
            return;
        }
        self.status_at = now + STATUS_EVERY;
        self.promote();
        if self.joining && self.join_at <= now {
            self.join_at = now + Duration::from_secs(1);
            // Whoever leads takes it; the others say no.
            let body: Bytes = [&[ASK_TO_JOIN], &self.raft.own().to_bytes()[..]].concat().into();
            for peer in &self.configured {
                self.transport.send(peer.node, Message::Ask { number: 0, body: body.clone() });
            }
        }
        self.publish();
    }

    /// Tells those who look at this node how it stands with its group.
    fn publish(&self) {
        let membership = self.raft.membership();
        let members = membership.members.iter().filter(|member| membership.configuration.contains(member.id()));
        let members = members.map(|member| (member.clone(), membership.configuration.is_voter(member.id())));
        self.status.send_replace(QuorumStatus {
            role: self.raft.role(),
            members: members.collect(),
            progress: self.raft.progress(),
            last_index: self.raft.last_index(),
            committed: self.raft.committed(),
        });
    }
}

/// An entry's place, in the image's terms. Both are bounded far below by Raft.
pub(super) fn place(at: Mark) -> (Offset, LeaderEpoch) {
    let index = i64::try_from(at.index).unwrap_or(i64::MAX);
    (Offset(index), LeaderEpoch(i32::try_from(at.term).unwrap_or(i32::MAX)))
}

fn not_understood(index: u64, why: &NotARecord) -> NodeError {
    NodeError::NotUnderstood { index, why: why.to_string() }
}

fn restore(defaults: &ClusterDefaults, snapshot: &Snapshot) -> Result<Image, NodeError> {
    let index = snapshot.at.index;
    // Nothing was applied before the first snapshot of all.
    let records = match snapshot.image.is_empty() {
        true => Vec::new(),
        false => Facts::from_bytes(&snapshot.image).map_err(|why| not_understood(index, &why))?.records,
    };
    let mut image = Image::empty(defaults.clone());
    let mut next = Offset::ZERO;
    for record in &records {
        image
            .apply(next, LeaderEpoch(0), record, &mut Delta::default())
            .map_err(|source| NodeError::Contradiction { index, source })?;
        next = next + 1;
    }
    let (at, epoch) = place(snapshot.at);
    Ok(image.at(Position { next: at + 1, epoch }))
}
