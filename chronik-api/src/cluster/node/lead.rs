//! The controller, where this node leads the metadata's group.
//!
//! **A controller decides against what will be.** Each decision sees those before it, committed or not ([`Lead`]); they are
//! committed in that order or not at all, since they are entries of one term. Answers wait until their entry is applied. A
//! node that ceases to lead forgets what was not, and tells who waits that it cannot say what became of it.

use super::ASK_CONTROLLER;
use super::{Node, NodeError, place};
use crate::cluster::turn::Turn;
use crate::metadata::ProposeError;
use crate::metadata::random;
use crate::metadata::writer::{Ask, Command, Outcome, Proposal};
use chronik_core::ids::NodeId;
use chronik_core::metadata::Image;
use chronik_core::metadata::controller::{self, Decision, FirstStart, Liveness};
use chronik_core::metadata::raft::{Input, Mark, Refusal as RaftRefusal, Role};
use chronik_core::metadata::records::Facts;
use chronik_core::metadata::requests::{Answer, Refusal, Request};
use chronik_core::raft_transport::{Message, RaftTransport};
use chronik_core::time::Monotonic;
use chronik_link::raft::RaftLanes;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::oneshot;

/// How often leadership of partitions is given back to those who should have it.
const BALANCE_EVERY: Duration = Duration::from_secs(10);
/// Proposals that are decided in one entry.
const PROPOSALS_PER_ENTRY: usize = 256;

/// Proposals that were decided in one entry, each with its own outcome so far.
pub(super) type Decided = Vec<(Box<dyn Proposal>, Outcome)>;

/// What a controller has in hand, in one term.
pub(super) struct Lead {
    pub(super) term: u64,
    /// With everything that was decided.
    pub(super) image: Image,
    /// Decided, and not applied: in the order of their entries.
    waiting: VecDeque<(Mark, Decided)>,
    liveness: Liveness,
    balance_at: Monotonic,
}

impl Lead {
    /// A node's process has ended.
    pub(super) fn is_gone(&mut self, now: Monotonic, node: NodeId) {
        self.liveness.gone(now, node);
    }
}

impl Node {
    /// Whoever waits for this entry, or for one that can never come any more.
    pub(super) fn settle_waiting(&mut self, at: Mark, outcome: &chronik_core::metadata::Entry, answers: &mut Decided) {
        let Some(lead) = &mut self.lead else { return };
        while let Some((_, decided)) = lead.waiting.pop_front_if(|(waits, _)| waits.index <= at.index) {
            answers.extend(decided.into_iter().map(|(proposal, own)| match outcome {
                chronik_core::metadata::Entry::Applied => (proposal, own),
                chronik_core::metadata::Entry::Discarded(_) => (proposal, Err(ProposeError::Unknown)),
            }));
        }
    }

    pub(super) fn role(&mut self, role: Role) {
        let now = self.now();
        if let Some(lead) = self.lead.take_if(|lead| !role.is_leader || role.term != lead.term) {
            tracing::info!(term = lead.term, "this node does not control the cluster any more");
            for (_, decided) in lead.waiting {
                decided.into_iter().for_each(|(proposal, _)| proposal.answer(Err(ProposeError::Unknown)));
            }
        }
        if role.is_leader && role.applied_own_term && self.lead.is_none() {
            tracing::info!(term = role.term, "this node controls the cluster");
            // A leader that was heard of to the end has handed over, or only lost a vote.
            let silent = self.last_leader.filter(|former| {
                let heard = self.heard.get(former).copied().unwrap_or_default();
                *former != self.raft.own().node() && now.0.saturating_sub(heard.0) > self.session / 2
            });
            self.lead = Some(Lead {
                term: role.term,
                image: Image::clone(&self.image),
                waiting: VecDeque::new(),
                liveness: Liveness::new(now, self.session, &self.image, silent),
                balance_at: now + BALANCE_EVERY,
            });
        }
        if let Some(leader) = role.leader {
            self.last_leader = Some(leader);
        }
        // Whoever acts on the role, and is then seen to have acted, must not be shown beside an older one.
        self.publish();
        self.roles.send_replace(role);
    }

    /// Something that the controller decides by itself.
    pub(super) fn decide_own(
        &mut self,
        what: &'static str,
        decide: impl FnOnce(&Image) -> Decision<()> + Send + 'static,
    ) {
        let (reply, answer) = oneshot::channel();
        let ask = Ask::new(move |image: &Image| Ok::<_, Infallible>(decide(image)), reply);
        self.propose(Box::new(ask));
        tokio::spawn(async move {
            if let Ok(Err(why)) = answer.await {
                tracing::warn!(%why, "{what} could not be written; it is tried again");
            }
        });
    }

    /// What a controller does without being asked.
    pub(super) fn act_as_controller(&mut self) -> Result<(), NodeError> {
        let now = self.now();
        let Some(lead) = &mut self.lead else { return Ok(()) };
        if lead.image.cluster_id().is_empty() || lead.image.metadata_version() == 0 {
            let first = FirstStart { cluster_id: random::identity() };
            self.decide_own("the first facts of the cluster", move |image| controller::bootstrap(image, first));
            return self.carry_out();
        }
        let verdict = lead.liveness.verdict(now, &lead.image);
        let balance = lead.balance_at <= now;
        if balance {
            lead.balance_at = now + BALANCE_EVERY;
        }
        let balances =
            balance && !controller::balance_leaders(&lead.image, controller::LEADER_MOVES_PER_ROUND).records.is_empty();
        if !verdict.is_empty() {
            // Decided already, where it changes nothing.
            let acts = !controller::act_on_heartbeats(&lead.image, &verdict).records.is_empty();
            if acts {
                for (node, _) in &verdict.fence {
                    tracing::warn!(
                        node = node.0,
                        "node {node} is gone, or was not heard of for too long: it is fenced"
                    );
                }
                self.decide_own("what follows from heartbeats", move |image| {
                    controller::act_on_heartbeats(image, &verdict)
                });
            }
        }
        if balances {
            self.decide_own("giving leadership back", |image| {
                let Decision { records, .. } = controller::balance_leaders(image, controller::LEADER_MOVES_PER_ROUND);
                Decision::new(records, ())
            });
        }
        self.carry_out()
    }

    /// Decides this and what waits behind it, as one entry.
    pub(super) fn propose(&mut self, first: Box<dyn Proposal>) {
        let (index, term) = (self.raft.last_index() + 1, self.raft.role().term);
        let leader = self.raft.role().leader;
        let Some(lead) = &mut self.lead else {
            return first.answer(Err(ProposeError::NotController { leader }));
        };
        let mut turn = Turn::new(&lead.image, place(Mark { index, term }));
        turn.take(first);
        let mut behind = None;
        while behind.is_none() && !turn.is_full() && turn.len() < PROPOSALS_PER_ENTRY {
            match self.commands.try_recv() {
                Ok(Command::Propose(next)) => turn.take(next),
                Ok(other) => behind = Some(other),
                Err(_) => break,
            }
        }
        let Turn { image, records, decided, .. } = turn;
        if records.is_empty() {
            // True only with what was decided before.
            match lead.waiting.back_mut() {
                Some((_, waiting)) => waiting.extend(decided),
                None => decided.into_iter().for_each(|(proposal, outcome)| proposal.answer(outcome)),
            }
        } else {
            let number = self.next_number;
            self.next_number += 1;
            let data = Facts { term, records }.to_bytes().into();
            self.raft.handle(self.clock.now().monotonic, Input::Propose { number, data });
            let outcome = self.outcome(number);
            match (outcome, &mut self.lead) {
                (Ok(at), Some(lead)) if at == (Mark { index, term }) => {
                    lead.image = image;
                    lead.waiting.push_back((at, decided));
                }
                (Ok(at), _) => {
                    // Nobody else appends here, so this is a bug; what was decided may hold, or not.
                    tracing::error!(index = at.index, expected = index, "an entry is not where it was decided for");
                    decided.into_iter().for_each(|(proposal, _)| proposal.answer(Err(ProposeError::Unknown)));
                }
                (Err(why), _) => {
                    let refused = || Err(ProposeError::NotNow(why.to_string()));
                    decided.into_iter().for_each(|(proposal, _)| proposal.answer(refused()));
                }
            }
        }
        match behind {
            Some(Command::Listen(listener, reply)) => self.steps.listen(listener, reply),
            // Seen again by the loop, as the end of the channel.
            Some(Command::Close(reply)) => {
                let _ = reply.send(());
                self.commands.close();
            }
            Some(Command::Propose(_)) | None => {}
        }
    }

    /// Raft's answer to a proposal, which it gave at once; other effects stay in their order.
    pub(super) fn outcome(&mut self, number: u64) -> Result<Mark, RaftRefusal> {
        // An error here ends the process at the next look: nothing more is promised to anyone until then.
        if let Err(why) = self.carry_out() {
            tracing::error!(error = &why as &dyn std::error::Error, "the metadata cannot go on");
            std::process::exit(1);
        }
        match self.proposed.take() {
            Some((of, outcome)) if of == number => outcome,
            _ => Err(RaftRefusal::NotReady),
        }
    }

    pub(super) fn request(&mut self, from: NodeId, request: Request, reply: Reply) {
        if self.lead.is_none() {
            let leader = self.raft.role().leader.filter(|leader| *leader != self.raft.own().node());
            return self.reply(reply, &Answer::Refused(Refusal::NotController { leader }));
        }
        let now = self.now();
        match request {
            Request::Heartbeat(heartbeat) => {
                let Some(lead) = &mut self.lead else { return };
                let answer = match lead.liveness.heartbeat(now, from, heartbeat, &lead.image) {
                    Ok(answer) => Answer::Heartbeat(answer),
                    Err(why) => Answer::Refused(why.into()),
                };
                self.reply(reply, &answer);
            }
            Request::Register(registration) => {
                if registration.node != from {
                    return self.reply(reply, &Answer::Refused(Refusal::Invalid("it registers another".into())));
                }
                let incarnation = registration.incarnation;
                let image = self.steps.images();
                self.decide(
                    reply,
                    move |image| controller::admit_broker(image, &registration),
                    move |()| match controller::registered_epoch(&image.borrow(), from, incarnation) {
                        Some(broker_epoch) => Answer::Registered { broker_epoch },
                        None => Answer::Refused(Refusal::Unknown),
                    },
                    Refusal::from,
                );
            }
            Request::AlterPartitions(asked) => {
                self.decide(
                    reply,
                    move |image| controller::alter_partitions(image, from, &asked),
                    Answer::AlterPartitions,
                    Refusal::from,
                );
            }
            Request::AllocateProducerIds { .. } => {
                self.decide(reply, controller::reserve_producer_ids, Answer::ProducerIds, |_| {
                    Refusal::ProducerIdsExhausted
                });
            }
            Request::Voter(wish) => {
                let step = self.wished(&wish);
                self.reply(reply, &Answer::Voter(step));
            }
            Request::Forward { listener, frame } => {
                let Some(forwarded) = self.forwarded.borrow().clone() else {
                    // It has just begun to control the cluster, and its broker is not up yet: nothing was decided.
                    return self.reply(reply, &Answer::Refused(Refusal::NotController { leader: None }));
                };
                let transport = self.transport.clone();
                self.runtime.spawn(async move {
                    let answer = match forwarded.serve(listener, frame).await {
                        Some(frame) => Answer::Forwarded { frame },
                        None => Answer::Refused(Refusal::Invalid("it cannot be served".into())),
                    };
                    reply.send(&transport, &answer);
                });
            }
        }
    }

    /// Decides a request; answers when it is applied and acted on here.
    pub(super) fn decide<R: Send + 'static, E: Send + std::fmt::Display + 'static>(
        &mut self,
        reply: Reply,
        decide: impl FnOnce(&Image) -> Result<Decision<R>, E> + Send + 'static,
        done: impl FnOnce(R) -> Answer + Send + 'static,
        refused: impl FnOnce(E) -> Refusal + Send + 'static,
    ) {
        let (sender, outcome) = oneshot::channel();
        self.propose(Box::new(Ask::new(decide, sender)));
        let (transport, leader) = (self.transport.clone(), self.raft.role().leader);
        tokio::spawn(async move {
            let answer = match outcome.await {
                Ok(Ok(decided)) => done(decided),
                Ok(Err(ProposeError::Refused(why))) => Answer::Refused(refused(why)),
                Ok(Err(ProposeError::NotController { .. })) => Answer::Refused(Refusal::NotController { leader }),
                Ok(Err(why)) => {
                    tracing::debug!(%why, "a broker's request was not carried out");
                    Answer::Refused(Refusal::Unknown)
                }
                Err(_) => Answer::Refused(Refusal::Unknown),
            };
            reply.send(&transport, &answer);
        });
    }

    pub(super) fn reply(&self, reply: Reply, answer: &Answer) {
        reply.send(&self.transport, answer);
    }
}

/// Where an answer goes.
pub(super) enum Reply {
    Local(oneshot::Sender<Answer>),
    Remote { to: NodeId, number: u64 },
}

impl Reply {
    pub(super) fn send(self, transport: &RaftLanes, answer: &Answer) {
        match self {
            // Who asked may have given up.
            Reply::Local(reply) => drop(reply.send(answer.clone())),
            Reply::Remote { to, number } => {
                let body = [&[ASK_CONTROLLER], &answer.to_bytes()[..]].concat().into();
                transport.send(to, Message::Answer { number, body });
            }
        }
    }
}
