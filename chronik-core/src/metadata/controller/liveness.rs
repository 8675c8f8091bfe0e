//! Who is alive: the controller hears heartbeats and says what is to be decided because of them.
//!
//! Heartbeats are no records: they live in the controller's memory, and a new controller knows nothing of them. So it grants
//! every broker a whole session from when it took over — except the controller before it if that one's silence is why it
//! took over: waiting for it once more would only make its partitions wait.
//!
//! The machine changes nothing by itself. [`Liveness::verdict`] says what the heartbeats call for and the image does not
//! show yet; [`super::act_on_heartbeats`] makes records of it; once they are applied the verdict is empty again. So a
//! verdict that was lost on its way is simply given again.

use crate::ids::{LogId, NodeId, Offset};
use crate::metadata::image::{Broker, Image};
use crate::time::Monotonic;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

/// For how long a broker may be silent before its partitions move. Together with an election of the controller, which
/// takes about as long at worst, partitions are led again within five seconds.
pub const SESSION_DEFAULT: Duration = Duration::from_secs(2);
/// Heartbeats per session: some may be lost, and a single one must not cost anybody its partitions.
pub const HEARTBEATS_PER_SESSION: u32 = 4;
/// Failed logs that one heartbeat may name; more than that many are as good as a failed broker.
pub const OFFLINE_LOGS_MAX: usize = 10_000;

/// What a broker says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// Of the registration of the process that says so.
    pub broker_epoch: Offset,
    /// Where its image stands: the next entry to apply.
    pub applied: Offset,
    /// All logs that have failed there and are not open again.
    pub offline: Vec<LogId>,
    pub wants_shutdown: bool,
}

/// What a broker is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeartbeatAnswer {
    pub fenced: bool,
    /// It leads nothing any more that anybody else could, and nobody counts on it.
    pub may_stop: bool,
}

/// Why a heartbeat counts for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeartbeatError {
    #[error("the broker is not registered")]
    NotRegistered,
    #[error("the broker has registered anew since, in epoch {current}")]
    StaleBrokerEpoch { current: Offset },
    /// Whoever hears it has fallen behind, and is the controller no more: to take its word for it that another process has
    /// the broker's place would be the end of one that is well.
    #[error("the broker's registration is not known here: the last one is in epoch {current}")]
    UnknownBrokerEpoch { current: Offset },
    #[error("{0} failed logs are named, more than {OFFLINE_LOGS_MAX}")]
    TooManyOffline(usize),
}

/// What the heartbeats call for. Brokers are named with the epoch that it is meant for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub fence: Vec<(NodeId, Offset)>,
    pub unfence: Vec<(NodeId, Offset)>,
    /// Their failed logs are others than is known.
    pub offline: Vec<((NodeId, Offset), Vec<LogId>)>,
    /// They want to stop: others are to lead what they lead.
    pub stopping: Vec<(NodeId, Offset)>,
    /// And those who took over know of it, so that these may be let go.
    pub may_stop: Vec<(NodeId, Offset)>,
}

impl Verdict {
    pub fn is_empty(&self) -> bool {
        *self == Verdict::default()
    }
}

/// One broker's session.
#[derive(Clone, Debug)]
struct Session {
    broker_epoch: Offset,
    until: Monotonic,
    /// The last heartbeat; `None` if there has been none to this controller.
    last: Option<Heartbeat>,
    /// Where the image stood when its leads had been moved away.
    moved_at: Option<Offset>,
}

/// See the module's head. Belongs to one controller in one term.
#[derive(Clone, Debug)]
pub struct Liveness {
    session: Duration,
    /// Of the registrations in the image, and no others.
    sessions: BTreeMap<NodeId, Session>,
}

impl Liveness {
    /// Takes over now. `silent` is the controller before this one, if it was not heard of when it should have been.
    pub fn new(now: Monotonic, session: Duration, image: &Image, silent: Option<NodeId>) -> Self {
        let mut liveness = Liveness { session, sessions: BTreeMap::new() };
        liveness.follow(now, image);
        if let Some(former) = silent.and_then(|node| liveness.sessions.get_mut(&node)) {
            former.until = now;
        }
        liveness
    }

    /// Learns of a new image: new registrations begin a session.
    pub fn follow(&mut self, now: Monotonic, image: &Image) {
        self.sessions
            .retain(|node, session| image.broker(*node).is_some_and(|broker| broker.epoch == session.broker_epoch));
        for broker in image.brokers().values() {
            let until = now + self.session;
            let fresh = || Session { broker_epoch: broker.epoch, until, last: None, moved_at: None };
            let session = self.sessions.entry(broker.id).or_insert_with(fresh);
            if broker.in_controlled_shutdown {
                session.moved_at.get_or_insert(image.position().next);
            }
        }
    }

    /// A broker is heard.
    pub fn heartbeat(
        &mut self,
        now: Monotonic,
        node: NodeId,
        heartbeat: Heartbeat,
        image: &Image,
    ) -> Result<HeartbeatAnswer, HeartbeatError> {
        self.follow(now, image);
        let broker = image.broker(node).ok_or(HeartbeatError::NotRegistered)?;
        let session = self.sessions.get_mut(&node).ok_or(HeartbeatError::NotRegistered)?;
        let current = broker.epoch;
        match heartbeat.broker_epoch.cmp(&current) {
            Ordering::Less => return Err(HeartbeatError::StaleBrokerEpoch { current }),
            Ordering::Greater => return Err(HeartbeatError::UnknownBrokerEpoch { current }),
            Ordering::Equal => {}
        }
        if heartbeat.offline.len() > OFFLINE_LOGS_MAX {
            return Err(HeartbeatError::TooManyOffline(heartbeat.offline.len()));
        }
        let answer = HeartbeatAnswer { fenced: broker.fenced, may_stop: heartbeat.wants_shutdown && broker.fenced };
        session.until = now + self.session;
        let mut heartbeat = heartbeat;
        heartbeat.offline.sort_unstable();
        heartbeat.offline.dedup();
        session.last = Some(heartbeat);
        Ok(answer)
    }

    /// A broker's process has ended, as its machine says: its session is over now, and not only when it has been silent for
    /// long enough. Should it be heard all the same, that counts.
    pub fn gone(&mut self, now: Monotonic, node: NodeId) {
        if let Some(session) = self.sessions.get_mut(&node) {
            session.until = session.until.min(now);
        }
    }

    /// When somebody's session ends, if nothing is heard before.
    pub fn deadline(&self, image: &Image) -> Option<Monotonic> {
        let counted = self.sessions.iter().filter(|(node, _)| image.broker(**node).is_some_and(|b| !b.fenced));
        counted.map(|(_, session)| session.until).min()
    }

    /// What is to be decided now, and is not yet.
    pub fn verdict(&mut self, now: Monotonic, image: &Image) -> Verdict {
        self.follow(now, image);
        let mut verdict = Verdict::default();
        for broker in image.brokers().values() {
            let Some(session) = self.sessions.get(&broker.id) else { continue };
            let at = (broker.id, broker.epoch);
            if session.until <= now {
                if !broker.fenced {
                    verdict.fence.push(at);
                }
                continue;
            }
            let Some(last) = &session.last else { continue };
            if last.offline != broker.offline {
                verdict.offline.push((at, last.offline.clone()));
            }
            // Its registration is the entry at its epoch: it knows itself once it has applied that.
            if broker.fenced && !last.wants_shutdown && last.applied > broker.epoch {
                verdict.unfence.push(at);
            }
            if !broker.fenced && last.wants_shutdown {
                match session.moved_at {
                    None => verdict.stopping.push(at),
                    Some(moved_at) if self.know(moved_at, broker, image) => verdict.may_stop.push(at),
                    // What could not move then may be able to now.
                    Some(_) => {}
                }
            }
        }
        verdict
    }

    /// Whether all others who take part have applied everything before this.
    fn know(&self, upto: Offset, but: &Broker, image: &Image) -> bool {
        let applied = |node| self.sessions.get(node)?.last.as_ref().map(|last| last.applied);
        let others = image.brokers().values().filter(|other| other.id != but.id && other.is_active());
        others.map(|other| applied(&other.id)).all(|applied| applied.is_some_and(|applied| applied >= upto))
    }
}
