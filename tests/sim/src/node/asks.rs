//! Asking whoever controls the cluster, again and again until there is an answer, as the broker does.

use super::Around;
use super::group::Group;
use bytes::Bytes;
use chronik_core::ids::NodeId;
use chronik_core::metadata::requests::{Answer, Refusal, Request};
use chronik_core::raft_transport::Message;
use futures::channel::oneshot;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// First byte of what is asked and answered between nodes.
pub const ASK_WHO: u8 = 0;
pub const ASK_CONTROLLER: u8 = 1;
pub const ASK_TO_JOIN: u8 = 2;

const ATTEMPT: Duration = Duration::from_millis(700);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// There is no answer, or none that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAnswer;

enum Attempt {
    Answered(Answer),
    Broken,
    TimedOut,
}

struct Waiting {
    asked: NodeId,
    reply: oneshot::Sender<Bytes>,
}

/// See the module's head.
pub struct Asks {
    around: Around,
    group: Rc<Group>,
    waiting: RefCell<BTreeMap<u64, Waiting>>,
    next: Cell<u64>,
}

impl Asks {
    pub fn new(around: Around, group: Rc<Group>) -> Rc<Self> {
        // Numbers of a process before this one must not come again while answers to it may be on their way.
        let first = around.process.0 << 32;
        Rc::new(Self { around, group, waiting: RefCell::default(), next: Cell::new(first + 1) })
    }

    pub fn answered(&self, number: u64, body: Bytes) {
        let waiting = self.waiting.borrow_mut().remove(&number);
        if let Some(waiting) = waiting {
            let _ = waiting.reply.send(body);
        }
    }

    pub fn unreachable(&self, node: NodeId) {
        self.waiting.borrow_mut().retain(|_, waiting| waiting.asked != node);
    }

    /// Asks until there is an answer that decides something, or the time is over.
    pub async fn ask(&self, request: &Request, within: Duration) -> Result<Answer, NoAnswer> {
        let (sim, process) = (&self.around.sim, self.around.process);
        let deadline = sim.now(process).monotonic + within;
        let mut hint = None;
        loop {
            let left = deadline.0.saturating_sub(sim.now(process).monotonic.0);
            if left.is_zero() {
                return Err(NoAnswer);
            }
            let Some(to) = hint.take().or_else(|| self.group.role().leader) else {
                sim.sleep(process, LOOK_AGAIN.min(left)).await;
                continue;
            };
            match self.ask_once(to, request, ATTEMPT.min(left)).await {
                Attempt::Answered(Answer::Refused(Refusal::NotController { leader })) => {
                    hint = leader.filter(|leader| *leader != to);
                    if hint.is_some() {
                        continue;
                    }
                }
                Attempt::Answered(Answer::Refused(Refusal::Unknown)) | Attempt::Broken => {}
                Attempt::Answered(answer) => return Ok(answer),
                Attempt::TimedOut => continue,
            }
            sim.sleep(process, LOOK_AGAIN.min(left)).await;
        }
    }

    async fn ask_once(&self, to: NodeId, request: &Request, within: Duration) -> Attempt {
        let (sim, process) = (&self.around.sim, self.around.process);
        if to == self.around.node {
            let (reply, answer) = oneshot::channel();
            let (group, request) = (self.group.clone(), request.clone());
            sim.after(process, Duration::from_micros(20), move || {
                group.request(group.node(), request, Box::new(move |answer| drop(reply.send(answer))));
            });
            return match sim.within(process, within, answer).await {
                Some(Ok(answer)) => Attempt::Answered(answer),
                Some(Err(_)) => Attempt::Broken,
                None => Attempt::TimedOut,
            };
        }
        let number = self.next.get();
        self.next.set(number + 1);
        let (reply, answer) = oneshot::channel();
        self.waiting.borrow_mut().insert(number, Waiting { asked: to, reply });
        let body = [&[ASK_CONTROLLER], &request.to_bytes()[..]].concat().into();
        self.around.net.send(self.around.node, to, Message::Ask { number, body });
        let answered = sim.within(process, within, answer).await;
        self.waiting.borrow_mut().remove(&number);
        match answered {
            Some(Ok(body)) => match Answer::from_bytes(body) {
                Ok(answer) => Attempt::Answered(answer),
                Err(_) => Attempt::Broken,
            },
            Some(Err(_)) => Attempt::Broken,
            None => Attempt::TimedOut,
        }
    }
}
