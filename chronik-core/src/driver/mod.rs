//! Turns what a partition's role decides into calls on its log, and the log's completions into what the role learns.
//!
//! The host holds one driver per partition behind one short lock, in which nothing blocks: [`PartitionDriver::append`]
//! only orders. After unlocking, the host lets the log write ([`Wal::write_queued`]). Completions arrive in the host's
//! inbox, from any thread, and come back in through [`PartitionDriver::complete`]; the outward effects are drained by
//! whoever holds the lock, in the order they were emitted.
//!
//! **One role at a time.** A partition leads or follows, in one leader epoch; the next role is made of what the last one
//! leaves ([`PartitionDriver::assume`]). While a follower's log is being cut, the next role waits for the end of that.

#[cfg(test)]
mod failing_story;
mod following;
mod leading;

use crate::ids::{LeaderEpoch, NodeId, Offset};
use crate::partition::checkpoint::Checkpoint;
use crate::partition::epochs::Epochs;
use crate::partition::follower::{self, Follower};
use crate::partition::leader::{self, Abandoned, Durability, Leader};
use crate::partition::recovery::Recovered;
use crate::partition::replicas::{InSyncQuestion, Membership, Replicas};
use crate::pending::Inbox;
use crate::replication::{Attached, Message};
use crate::throttle::Throttles;
use crate::time::{Monotonic, Now, Timestamp};
use crate::wal::{Appended, Chunk, Refused, Wal, WalError};
use bytes::Bytes;
use leading::Reading;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What a log reports back about calls that the driver made, by the token that it gave with the call.
#[derive(Debug)]
pub enum Completion {
    Written(u64, Result<Appended, WalError>),
    Durable(u64, Result<Offset, WalError>),
    /// A read for a follower.
    Read(u64, Result<Chunk, WalError>),
}

/// What is for the host to do.
#[derive(Debug)]
pub enum Outward<K> {
    Acknowledge {
        key: K,
    },
    Abandon {
        key: K,
        why: Abandoned,
    },
    WatermarkAdvanced {
        to: Offset,
    },
    /// To another replica's node, if there is a session with it.
    Send {
        to: NodeId,
        message: Message,
    },
    /// Cut the follower's log, read it back, and report with [`PartitionDriver::cut`].
    Cut(Cut),
    /// Drop what lies below `upto`, and report with [`PartitionDriver::trimmed`].
    Trim {
        upto: Offset,
    },
    /// Said once, when the log has failed.
    Failed {
        cause: WalError,
    },
    /// Said once: this replica cannot follow.
    Offline(follower::Offline),
}

/// How a follower's log is to be cut. What was saved beside the log and speaks of more must go before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// What lies at and behind this offset.
    From(Offset),
    /// Everything; it begins again at `start`. What the leader knows of what came before is `known`, a checkpoint as of there.
    All { start: Offset, known: Option<Bytes> },
}

impl Cut {
    /// What must take the place of the saved checkpoint, durably, before the log is cut, if that one speaks of what goes:
    /// other records will take those offsets, and a checkpoint that was believed then would not know them.
    pub fn checkpoint(&self, saved: Option<&[u8]>) -> Option<Checkpoint> {
        let saved = saved.map(|bytes| Checkpoint::decode(bytes).unwrap_or_default());
        match self {
            Cut::From(end) => saved.and_then(|saved| {
                let stays = saved.clone().cut(*end);
                let high_watermark = saved.high_watermark.min(*end);
                (stays != saved).then_some(Checkpoint { high_watermark, ..stays })
            }),
            // As of there it is true whether or not the log has been cut yet: what it holds behind is replayed on top.
            Cut::All { start, known } => {
                let known = known.as_deref().map(|bytes| Checkpoint::decode(bytes).unwrap_or_default());
                // What is known here tells of nothing that stays, and the leader says that its last epoch is none of its own.
                let own = |saved: Checkpoint| Checkpoint { epochs: Epochs::default(), ..saved.cut(*start) };
                let known = known.or_else(|| saved.map(own)).unwrap_or_default();
                let (upto, high_watermark) = (*start, known.high_watermark.min(*start));
                Some(Checkpoint { upto, high_watermark, ..known })
            }
        }
    }
}

/// Whether an append was one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    New,
    /// It was there already; nothing was ordered.
    Duplicate,
    /// As [`Found::Duplicate`], and so long ago that its place is not known any more.
    Forgotten,
}

/// Where an append found its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// −1 if that is forgotten.
    pub base_offset: Offset,
    /// What is acknowledged with this is; of one whose place is forgotten, all below this.
    pub next_offset: Offset,
    pub found: Found,
}

/// Why a batch was not appended. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error("this node does not lead the partition")]
    NotLeader,
    #[error(transparent)]
    Leader(#[from] leader::Refused),
    #[error(transparent)]
    Log(#[from] Refused),
}

/// What a driver acts through.
pub struct Environment {
    pub node: NodeId,
    pub log: Arc<dyn Wal>,
    pub inboxes: Inboxes,
    pub throttles: Throttles,
}

/// The inboxes through which a log's completions reach the host.
pub struct Inboxes {
    pub written: Arc<dyn Inbox<Result<Appended, WalError>>>,
    pub durable: Arc<dyn Inbox<Result<Offset, WalError>>>,
    pub read: Arc<dyn Inbox<Result<Chunk, WalError>>>,
}

/// A role that the metadata gives to a replica.
#[derive(Clone, Debug)]
pub struct Assumption {
    pub epoch: LeaderEpoch,
    pub durability: Durability,
    /// Replicas that are not in sync are throttled: of a leader, those that it sends to; of a follower, itself.
    pub throttled: bool,
    pub part: Part,
}

/// See [`Assumption`].
#[derive(Clone, Debug)]
pub enum Part {
    Lead {
        membership: Membership,
        /// `replica.lag.time.max.ms`
        lag_max: Duration,
    },
    Follow {
        /// Nobody leads, as long as there is none.
        leader: Option<NodeId>,
        /// The last epoch whose leader may have lacked committed records.
        unclean_epoch: Option<LeaderEpoch>,
    },
}

enum Role<K> {
    Leader(Box<Leader<K>>),
    Follower(Box<Follower>, Option<NodeId>),
}

/// A view of where a partition stands, in either role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub epoch: LeaderEpoch,
    pub leads: bool,
    pub log_start: Offset,
    pub log_end: Offset,
    pub high_watermark: Offset,
}

/// A partition's role and its log.
pub struct PartitionDriver<K> {
    me: NodeId,
    role: Role<K>,
    /// See [`Assumption::throttled`].
    throttled: bool,
    throttles: Throttles,
    log: Arc<dyn Wal>,
    failed: bool,
    inboxes: Inboxes,
    outward: Vec<Outward<K>>,
    /// Nodes there is a session with.
    sessions: BTreeSet<NodeId>,
    /// What is being read for followers, one read each.
    reads: BTreeMap<NodeId, Reading>,
    next_token: u64,
    /// How often the log was cut: the token of appends and syncs. What is reported of those before the last cut may speak of
    /// offsets that have gone since, or that others have taken.
    cuts: u64,
    /// The role to come once the log is cut.
    next: Option<Assumption>,
}

impl<K> PartitionDriver<K> {
    /// Takes up a role over what was recovered. `sessions`: the nodes that there is a session with now.
    pub fn new(
        environment: Environment,
        recovered: Recovered,
        first: Assumption,
        sessions: BTreeSet<NodeId>,
        now: Now,
    ) -> Self {
        let Environment { node: me, log, inboxes, throttles } = environment;
        let throttled = first.throttled;
        let role = role(me, recovered, first, &sessions, now.monotonic);
        let mut driver = Self {
            me,
            role,
            throttled,
            throttles,
            log,
            failed: false,
            inboxes,
            outward: Vec::new(),
            sessions,
            reads: BTreeMap::new(),
            next_token: 0,
            cuts: 0,
            next: None,
        };
        driver.run(now);
        driver
    }

    /// The leader's part; `None` if this node does not lead.
    pub fn leader(&self) -> Option<&Leader<K>> {
        match &self.role {
            Role::Leader(leader) => Some(leader),
            Role::Follower(..) => None,
        }
    }

    pub fn follower(&self) -> Option<&Follower> {
        match &self.role {
            Role::Follower(follower, _) => Some(follower),
            Role::Leader(_) => None,
        }
    }

    pub fn standing(&self) -> Standing {
        match &self.role {
            Role::Leader(leader) => Standing {
                epoch: leader.epoch(),
                leads: true,
                log_start: leader.log_start(),
                log_end: leader.log_end(),
                high_watermark: leader.high_watermark(),
            },
            Role::Follower(follower, _) => Standing {
                epoch: follower.epoch(),
                leads: false,
                log_start: follower.log_start(),
                log_end: follower.log_end(),
                high_watermark: follower.high_watermark(),
            },
        }
    }

    pub fn log(&self) -> &Arc<dyn Wal> {
        &self.log
    }

    /// The log failed: nothing can be done until it is opened again.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// The metadata gives this replica a role in a new epoch. One of an earlier epoch is not taken up.
    pub fn assume(&mut self, next: Assumption, now: Now) {
        if next.epoch <= self.standing().epoch {
            return;
        }
        if let Role::Follower(follower, _) = &self.role
            && follower.phase() == follower::Phase::Cutting
        {
            self.next = Some(next);
            return;
        }
        self.take_up(next, now);
        self.run(now);
    }

    fn take_up(&mut self, next: Assumption, now: Now) {
        if let Role::Leader(leader) = &mut self.role {
            leader.resign();
        }
        self.run(now);
        self.forget_reads();
        self.throttled = next.throttled;
        // What stands here meanwhile is seen by nobody.
        let vacant = Follower::new(Recovered::empty(self.log.state()), next.epoch, next.durability, None);
        let before = std::mem::replace(&mut self.role, Role::Follower(Box::new(vacant), None));
        let recovered = match before {
            Role::Leader(leader) => leader.into_recovered(),
            Role::Follower(follower, _) => follower.into_recovered(),
        };
        self.role = role(self.me, recovered, next, &self.sessions, now.monotonic);
        if self.failed {
            self.fail_role();
        }
    }

    /// What the metadata says of the replicas in this epoch has changed.
    pub fn applied(&mut self, epoch: LeaderEpoch, membership: Membership, now: Now) {
        if let Role::Leader(leader) = &mut self.role
            && leader.epoch() == epoch
        {
            leader.applied(membership, now.monotonic);
            self.run(now);
        }
    }

    /// Whether replicas that are not in sync are throttled in this epoch: see [`Assumption::throttled`].
    pub fn set_throttled(&mut self, epoch: LeaderEpoch, throttled: bool, now: Now) {
        if let Some(next) = &mut self.next
            && next.epoch == epoch
        {
            next.throttled = throttled;
        }
        if self.standing().epoch != epoch || self.throttled == throttled {
            return;
        }
        self.throttled = throttled;
        match &mut self.role {
            Role::Leader(leader) => leader.release(),
            Role::Follower(follower, _) => follower.set_throttled(throttled),
        }
        self.run(now);
    }

    pub fn set_durability(&mut self, durability: Durability, now: Now) {
        match &mut self.role {
            Role::Leader(leader) => leader.set_durability(durability),
            Role::Follower(follower, _) => follower.set_durability(durability),
        }
        self.run(now);
    }

    /// A session with a node began.
    pub fn session_up(&mut self, peer: NodeId, now: Now) {
        self.sessions.insert(peer);
        if let Role::Follower(follower, Some(leader)) = &mut self.role
            && *leader == peer
        {
            follower.session_up();
        }
        self.run(now);
    }

    /// The session with a node ended.
    pub fn session_down(&mut self, peer: NodeId, now: Now) {
        self.sessions.remove(&peer);
        match &mut self.role {
            Role::Leader(leader) => {
                leader.session_down(peer);
                self.forget_read(peer);
            }
            Role::Follower(follower, Some(leader)) if *leader == peer => follower.session_down(),
            Role::Follower(..) => {}
        }
        self.run(now);
    }

    /// Another replica's node has sent something.
    pub fn received(&mut self, from: NodeId, message: Message, now: Now) {
        match (&mut self.role, message) {
            (Role::Leader(leader), Message::Attach(attach)) => {
                let answer = leader.attach(now.monotonic, from, attach);
                self.forget_read(from);
                self.outward.push(Outward::Send { to: from, message: Message::Attached(answer) });
            }
            (Role::Leader(leader), Message::Progress(progress)) => leader.progress(now.monotonic, from, progress),
            (Role::Follower(follower, Some(leader)), Message::Attached(answer)) if *leader == from => {
                follower.attached(now, answer);
            }
            (Role::Follower(follower, Some(leader)), Message::Records(records)) if *leader == from => {
                follower.records(now, records);
            }
            (Role::Follower(follower, _), Message::Attach(_)) => {
                // It has heard of an election before this node has, or later than it.
                let answer = Attached::NotYet { epoch: follower.epoch() };
                self.outward.push(Outward::Send { to: from, message: Message::Attached(answer) });
            }
            // Meant for what this replica was, or will be: the sender finds out.
            _ => {}
        }
        self.run(now);
    }

    pub fn deadline(&self) -> Option<Monotonic> {
        match &self.role {
            Role::Follower(follower, _) => follower.deadline(),
            Role::Leader(leader) => leader.deadline(|to| self.reads.contains_key(&to)),
        }
    }

    pub fn tick(&mut self, now: Now) {
        if let Role::Follower(follower, _) = &mut self.role {
            follower.tick(now);
        }
        self.run(now);
    }

    /// The log is cut, as an [`Outward::Cut`] asked, and read back.
    pub fn cut(&mut self, recovered: Recovered, now: Now) {
        self.cuts += 1;
        if let Role::Follower(follower, _) = &mut self.role {
            if self.next.is_some() {
                // The next role begins without a word to the old leader.
                follower.session_down();
            }
            follower.cut(recovered);
        }
        if let Some(next) = self.next.take() {
            self.take_up(next, now);
        }
        self.run(now);
    }

    /// The log could not be cut, or not be read back.
    pub fn cut_failed(&mut self, cause: WalError, now: Now) {
        self.fail(cause);
        self.run(now);
    }

    /// The log now starts at `start`.
    pub fn trimmed(&mut self, start: Offset, now: Now) {
        match &mut self.role {
            Role::Leader(leader) => leader.trimmed(start),
            Role::Follower(follower, _) => follower.trimmed(start),
        }
        self.run(now);
    }

    /// Takes in what the log reported.
    pub fn complete(&mut self, completion: Completion, now: Now) {
        self.learn(completion, now);
        self.run(now);
    }

    /// The in-sync set that the controller is to be asked for, if it is another than the present one: from now on both
    /// count.
    pub fn ask_in_sync(&mut self, now: Now) -> Option<InSyncQuestion> {
        let Role::Leader(leader) = &mut self.role else { return None };
        let wanted = leader.wanted_in_sync(now.monotonic)?;
        let question = leader.ask(wanted);
        // Whoever counts from now on is throttled no longer.
        self.run(now);
        Some(question)
    }

    /// The controller has said no, for good.
    pub fn question_refused(&mut self, question: &InSyncQuestion, now: Now) {
        if let Role::Leader(leader) = &mut self.role
            && leader.epoch() == question.leader_epoch
        {
            leader.question_refused(question);
        }
        self.run(now);
    }

    /// What to save so that a restart need not read what lies below the log's present end; `None` while the log is being
    /// cut, or has failed, since what this machine believes of it may not be so then. The log must have made it durable before the checkpoint
    /// is of use.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        match &self.role {
            _ if self.failed => None,
            Role::Leader(leader) => Some(leader.checkpoint()),
            Role::Follower(follower, _) => follower.checkpoint(),
        }
    }

    /// Forgets producers silent since `horizon`, and the longest silent ones beyond `count_max`.
    pub fn expire_producers(&mut self, horizon: Timestamp, count_max: usize) {
        match &mut self.role {
            Role::Leader(leader) => leader.expire_producers(horizon, count_max),
            Role::Follower(follower, _) => follower.expire_producers(horizon, count_max),
        }
    }

    /// Whoever waits is told that nothing more will come of it: the partition is being closed.
    pub fn close(&mut self, now: Now) {
        self.failed = true;
        self.fail_role();
        self.run(now);
    }

    /// What has become due since the last call, in order.
    pub fn take_outward(&mut self) -> Vec<Outward<K>> {
        std::mem::take(&mut self.outward)
    }

    fn learn(&mut self, completion: Completion, now: Now) {
        match completion {
            Completion::Written(_, Err(cause)) | Completion::Durable(_, Err(cause)) => self.fail(cause),
            Completion::Written(cuts, _) | Completion::Durable(cuts, _) if cuts != self.cuts => self.look_at_the_log(),
            Completion::Written(_, Ok(appended)) => match &mut self.role {
                Role::Leader(leader) => leader.written(appended.written_end),
                Role::Follower(follower, _) => follower.written(appended.written_end),
            },
            Completion::Durable(_, Ok(end)) => match &mut self.role {
                Role::Leader(leader) => leader.durable(end),
                Role::Follower(follower, _) => follower.durable(end),
            },
            Completion::Read(token, outcome) => self.has_read(token, outcome, now),
        }
    }

    /// What was asked of the log before a cut is reported after it: that may speak of offsets that have gone since, or that
    /// others have taken. Of those that were not cut off it is heard for the last time, though, and so the log is asked how
    /// far it has written. While it is being cut once more there is nothing to learn: it is read back then.
    fn look_at_the_log(&mut self) {
        let written_end = self.log.state().written_end;
        match &mut self.role {
            Role::Leader(leader) => leader.written(written_end),
            Role::Follower(follower, _) if !follower.is_cutting() => follower.written(written_end),
            Role::Follower(..) => {}
        }
    }

    /// A client's read met damage. Where another replica is in sync this one fails, so that another leads and this one can be
    /// filled again; where there is none it goes on, and what is sound is served.
    pub fn found_damaged(&mut self, offset: Offset, now: Now) {
        let others_have_it = match &self.role {
            Role::Leader(leader) => leader.replicas().in_sync().len() > 1,
            Role::Follower(..) => true,
        };
        if others_have_it {
            self.fail(WalError::Corrupt { offset });
            self.run(now);
        }
    }

    fn fail(&mut self, cause: WalError) {
        if !self.failed {
            self.failed = true;
            self.fail_role();
            self.outward.push(Outward::Failed { cause });
        }
    }

    fn fail_role(&mut self) {
        match &mut self.role {
            Role::Leader(leader) => leader.fail(),
            Role::Follower(follower, _) => follower.fail(),
        }
    }

    /// Carries out what the role wants, until it wants nothing more.
    fn run(&mut self, now: Now) {
        loop {
            let busy = match &self.role {
                Role::Leader(_) => self.run_leader(now),
                Role::Follower(..) => self.run_follower(now),
            };
            if !busy {
                return;
            }
        }
    }
}

fn role<K>(
    me: NodeId,
    recovered: Recovered,
    assumption: Assumption,
    sessions: &BTreeSet<NodeId>,
    now: Monotonic,
) -> Role<K> {
    let Assumption { epoch, durability, throttled, part } = assumption;
    match part {
        Part::Lead { membership, lag_max } => {
            let replicas = Replicas::new(me, epoch, recovered.log.end, lag_max, membership, now);
            Role::Leader(Box::new(Leader::new(recovered, replicas, durability)))
        }
        Part::Follow { leader, unclean_epoch } => {
            let mut follower = Follower::new(recovered, epoch, durability, unclean_epoch);
            follower.set_throttled(throttled);
            if leader.is_some_and(|leader| sessions.contains(&leader)) {
                follower.session_up();
            }
            Role::Follower(Box::new(follower), leader)
        }
    }
}
