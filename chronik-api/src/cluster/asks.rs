//! Asking whoever controls the cluster.
//!
//! A question that was not answered is asked again, of whoever leads then: every request of a broker may be decided twice
//! without harm. What a client asked for is handed on once more only where the connection to the controller broke, as Kafka's
//! brokers do: a client may hear that what it asks for is done already.

use super::node::{ASK_CONTROLLER, Local};
use bytes::Bytes;
use chronik_core::ids::NodeId;
use chronik_core::metadata::raft::Role;
use chronik_core::metadata::requests::{Answer, Refusal, Request};
use chronik_core::raft_transport::{Message, RaftTransport};
use chronik_link::raft::RaftLanes;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// How long one attempt may take where the same is asked again: a disk's sync on a majority, and some more.
const ATTEMPT: Duration = Duration::from_millis(700);
/// How long to wait for a controller to show, between attempts.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    #[error("there is no controller now")]
    NoController,
    #[error("the controller has not answered; whether it has decided is not known")]
    TimedOut,
}

/// A question on its way: it ends without an answer where the one who was asked goes away.
struct Waiting {
    asked: NodeId,
    reply: oneshot::Sender<Bytes>,
}

/// What became of one attempt.
enum Attempt {
    Answered(Answer),
    /// Nothing was sent.
    NotSent,
    /// The connection broke; whether it was decided is not known.
    Broken,
    TimedOut,
}

/// See the module's head.
pub struct Asks {
    own: NodeId,
    transport: Arc<RaftLanes>,
    roles: watch::Receiver<Role>,
    locals: mpsc::Sender<Local>,
    waiting: Mutex<HashMap<u64, Waiting>>,
    next: AtomicU64,
}

impl Asks {
    pub fn new(
        own: NodeId,
        transport: Arc<RaftLanes>,
        roles: watch::Receiver<Role>,
        locals: mpsc::Sender<Local>,
    ) -> Arc<Self> {
        // Numbers of a process before this one must not come again while answers to it may be on their way.
        let first = u64::from(crate::metadata::random::seed() as u32) << 32;
        Arc::new(Self { own, transport, roles, locals, waiting: Mutex::default(), next: AtomicU64::new(first + 1) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who controls the cluster now, as far as is known here.
    pub fn controller(&self) -> Option<NodeId> {
        self.roles.borrow().leader
    }

    pub fn is_controller(&self) -> bool {
        let role = *self.roles.borrow();
        role.is_leader && role.applied_own_term
    }

    /// An answer has come.
    pub fn answered(&self, number: u64, body: Bytes) {
        if let Some(waiting) = self.lock().remove(&number) {
            let _ = waiting.reply.send(body);
        }
    }

    /// There is no session with this node any more, and with it go the answers that it owed.
    pub fn unreachable(&self, node: NodeId) {
        self.lock().retain(|_, waiting| waiting.asked != node);
    }

    /// Asks until there is an answer that decides something, or the time is over.
    pub async fn ask(&self, request: &Request, within: Duration) -> Result<Answer, NoAnswer> {
        let deadline = Instant::now() + within;
        let mut hint = None;
        let mut asked = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(if asked { NoAnswer::TimedOut } else { NoAnswer::NoController });
            }
            let Some(to) = hint.take().or_else(|| self.controller()) else {
                tokio::time::sleep(LOOK_AGAIN.min(left)).await;
                continue;
            };
            match self.ask_once(to, request, ATTEMPT.min(left)).await {
                Attempt::Answered(Answer::Refused(Refusal::NotController { leader })) => {
                    hint = leader.filter(|leader| *leader != to);
                    if hint.is_some() {
                        continue;
                    }
                }
                Attempt::Answered(Answer::Refused(Refusal::Unknown)) | Attempt::Broken => asked = true,
                Attempt::Answered(answer) => return Ok(answer),
                Attempt::NotSent => {}
                Attempt::TimedOut => {
                    asked = true;
                    continue;
                }
            }
            tokio::time::sleep(LOOK_AGAIN.min(left)).await;
        }
    }

    /// Hands on what a client asked for.
    pub async fn hand_on(&self, request: &Request, within: Duration) -> Result<Answer, NoAnswer> {
        let deadline = Instant::now() + within;
        let mut hint = None;
        let mut asked = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(if asked { NoAnswer::TimedOut } else { NoAnswer::NoController });
            }
            let Some(to) = hint.take().or_else(|| self.controller()) else {
                tokio::time::sleep(LOOK_AGAIN.min(left)).await;
                continue;
            };
            match self.ask_once(to, request, left).await {
                Attempt::Answered(Answer::Refused(Refusal::NotController { leader })) => {
                    hint = leader.filter(|leader| *leader != to);
                    if hint.is_some() {
                        continue;
                    }
                }
                Attempt::Answered(answer) => return Ok(answer),
                Attempt::NotSent => {}
                Attempt::Broken => asked = true,
                Attempt::TimedOut => return Err(NoAnswer::TimedOut),
            }
            tokio::time::sleep(LOOK_AGAIN.min(left)).await;
        }
    }

    async fn ask_once(&self, to: NodeId, request: &Request, within: Duration) -> Attempt {
        if to == self.own {
            let (reply, answer) = oneshot::channel();
            if self.locals.send(Local { request: request.clone(), reply }).await.is_err() {
                return Attempt::NotSent;
            }
            return match tokio::time::timeout(within, answer).await {
                Ok(Ok(answer)) => Attempt::Answered(answer),
                Ok(Err(_)) => Attempt::Broken,
                Err(_) => Attempt::TimedOut,
            };
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        self.lock().insert(number, Waiting { asked: to, reply });
        // Looked at once the question is in the list: if the session ends after this, the question ends with it.
        if !self.transport.is_up(to) {
            self.lock().remove(&number);
            return Attempt::NotSent;
        }
        let body = [&[ASK_CONTROLLER], &request.to_bytes()[..]].concat().into();
        self.transport.send(to, Message::Ask { number, body });
        let answered = tokio::time::timeout(within, answer).await;
        self.lock().remove(&number);
        match answered {
            Ok(Ok(body)) => match Answer::from_bytes(body) {
                Ok(answer) => Attempt::Answered(answer),
                Err(why) => {
                    tracing::warn!(node = to.0, %why, "the controller's answer is not understood");
                    Attempt::Broken
                }
            },
            Ok(Err(_)) => Attempt::Broken,
            Err(_) => Attempt::TimedOut,
        }
    }
}
