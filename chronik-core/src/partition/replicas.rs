//! What a leader knows of its followers: where each stands, whom the watermark counts, and who belongs in the in-sync set.
//!
//! **The maximal set.** The in-sync set changes by a request to the controller, and until an applied record decides it, both
//! the old and the asked-for set may be the one that the next leader is elected from. So the watermark counts the union of
//! the two ([`Replicas::committed`]), and a request that was not answered stays open: no time-out takes it back (KIP-497
//! calls this the maximal ISR).
//!
//! **What is known of a follower outlives its session**, since what is durable on its disk stays there; but it is credited
//! with nothing more until it attaches again, and then with what it says it has.
//!
//! **Throttled** is only who does not count: [`Replicas::hold`] delays records for those who are not in the maximal set, and
//! is over for whoever comes into it. What is sent to whom and when is the matter of a [`Stream`] each.
//!
//! **Watermark and size.** It does not advance while fewer replicas are in the applied set than `min.insync.replicas`.

use super::checkpoint::Checkpoint;
use super::epochs::Epochs;
use super::leader::Durability;
use super::producers::Producers;
use super::stream::{Due, Source, Stream};
use crate::ids::{LeaderEpoch, NodeId, Offset};
use crate::replication::{Attach, Attached, Progress};
use crate::time::Monotonic;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The leader's own log, as of now.
#[derive(Clone, Copy, Debug)]
pub struct LeaderLog<'a> {
    pub epochs: &'a Epochs,
    pub producers: &'a Producers,
    pub start: Offset,
    pub end: Offset,
    pub high_watermark: Offset,
}

impl LeaderLog<'_> {
    /// For a follower that cannot go on where it stands.
    fn reset(&self, epoch: LeaderEpoch) -> Attached {
        let producers = self.producers.before(self.start);
        let known = Checkpoint { upto: self.start, producers, ..Checkpoint::default() };
        Attached::Reset { epoch, start: self.start, known: known.encode().into() }
    }
}

#[derive(Clone, Copy, Debug)]
struct Replica {
    stream: Option<Stream>,
    log_start: Offset,
    written_end: Offset,
    durable_end: Offset,
    /// When it last had everything that the leader had.
    caught_up_at: Monotonic,
    /// When it last reported, and where the leader's log ended then: having reached that means to have been caught up then.
    reported: Option<(Monotonic, Offset)>,
}

impl Replica {
    /// How far it has come in the sense of the topic's promise.
    fn end(&self, durability: Durability) -> Offset {
        match durability {
            Durability::Fsync => self.durable_end,
            Durability::Replicated => self.written_end,
        }
    }
}

/// See the module's head.
#[derive(Debug)]
pub struct Replicas {
    me: NodeId,
    epoch: LeaderEpoch,
    /// Where this leader's epoch begins: who has less cannot be in sync with it.
    epoch_start: Offset,
    lag_max: Duration,
    in_sync_min: usize,
    in_sync: BTreeSet<NodeId>,
    partition_epoch: i32,
    /// Asked for, and not decided yet.
    asked: Option<BTreeSet<NodeId>>,
    followers: BTreeMap<NodeId, Replica>,
}

/// What the metadata says of a partition's replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    pub replicas: BTreeSet<NodeId>,
    pub in_sync: BTreeSet<NodeId>,
    /// `min.insync.replicas`
    pub in_sync_min: usize,
    /// Counts every change of the partition.
    pub partition_epoch: i32,
}

/// A question to the controller: may these be the in-sync set?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InSyncQuestion {
    pub leader_epoch: LeaderEpoch,
    /// Of the state that the question is about: with another it is void.
    pub partition_epoch: i32,
    pub in_sync: BTreeSet<NodeId>,
}

impl Replicas {
    /// Takes up the lead in `epoch`. `epoch_start` is where the log ended then; `lag_max` for how long a replica in sync may
    /// lack records (`replica.lag.time.max.ms`).
    pub fn new(
        me: NodeId,
        epoch: LeaderEpoch,
        epoch_start: Offset,
        lag_max: Duration,
        membership: Membership,
        now: Monotonic,
    ) -> Self {
        let mut replicas = Self {
            me,
            epoch,
            epoch_start,
            lag_max,
            in_sync_min: 0,
            in_sync: BTreeSet::new(),
            partition_epoch: 0,
            asked: None,
            followers: BTreeMap::new(),
        };
        replicas.applied(membership, now);
        replicas
    }

    /// A record of this partition was applied: it decides what was asked for before.
    pub fn applied(&mut self, membership: Membership, now: Monotonic) {
        let Membership { replicas, in_sync, in_sync_min, partition_epoch } = membership;
        if partition_epoch != self.partition_epoch {
            // Another state, so that what was asked of the one before is void.
            self.asked = None;
        }
        self.partition_epoch = partition_epoch;
        self.followers.retain(|node, _| replicas.contains(node));
        for node in replicas.into_iter().filter(|node| *node != self.me) {
            self.followers.entry(node).or_insert(Replica {
                stream: None,
                log_start: Offset::ZERO,
                written_end: Offset::ZERO,
                durable_end: Offset::ZERO,
                // A new leader gives everybody the full time.
                caught_up_at: now,
                reported: None,
            });
        }
        self.in_sync = in_sync;
        self.in_sync_min = in_sync_min;
    }

    pub fn in_sync(&self) -> &BTreeSet<NodeId> {
        &self.in_sync
    }

    /// Otherwise, how many are in sync and how many the topic wants: acks=all is refused, and the watermark stays.
    pub fn are_enough(&self) -> Result<(), (usize, usize)> {
        // A topic may want more than it has replicas, and all of them are enough then, as in Kafka.
        let wanted = self.in_sync_min.min(self.followers.len() + 1);
        if self.in_sync.len() < wanted { Err((self.in_sync.len(), self.in_sync_min)) } else { Ok(()) }
    }

    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// Where the log ended when this leader took it up.
    pub fn epoch_start(&self) -> Offset {
        self.epoch_start
    }

    /// How far each follower is known to have come, for people: written and durable end, and whether it streams.
    pub fn followers(&self) -> impl Iterator<Item = (NodeId, Offset, Offset, bool)> {
        let one = |(node, replica): (&NodeId, &Replica)| {
            (*node, replica.written_end, replica.durable_end, replica.stream.is_some())
        };
        self.followers.iter().map(one)
    }

    /// Asked for, and not decided yet.
    pub fn asked(&self) -> Option<&BTreeSet<NodeId>> {
        self.asked.as_ref()
    }

    /// Nothing more can be read for this follower from where its stream stands: it must attach again.
    pub fn end_stream(&mut self, node: NodeId) {
        self.session_down(node);
    }

    /// A follower wants to attach. Its answer, after which records follow if it is [`Attached::Stream`].
    pub fn attach(&mut self, now: Monotonic, from: NodeId, attach: Attach, log: LeaderLog<'_>) -> Attached {
        let Some(replica) = self.followers.get_mut(&from) else {
            // The metadata here does not know it as a replica, perhaps not yet.
            return Attached::NotYet { epoch: self.epoch };
        };
        replica.stream = None;
        if attach.epoch != self.epoch {
            return if attach.epoch < self.epoch {
                Attached::Fenced { current: self.epoch }
            } else {
                Attached::NotYet { epoch: self.epoch }
            };
        }
        let epoch = self.epoch;
        if attach.log_end < log.start {
            return log.reset(epoch);
        }
        match attach.last_epoch {
            // It has no records: whatever offset it begins at, the leader's are the first.
            None if attach.log_end <= log.end => {}
            None => return log.reset(epoch),
            Some(last) => match log.epochs.end_of(last, log.end) {
                Some((ours, end)) if ours == last && attach.log_end <= end => {}
                Some((last_epoch, end)) => return Attached::Diverged { epoch, last_epoch, end },
                // Older than everything that the leader still knows of.
                None => return log.reset(epoch),
            },
        }
        replica.stream = Some(Stream::new(now, &attach, log.end, log.high_watermark));
        replica.log_start = attach.log_start;
        // It may have lost what it had not synced, or its disk: only its own words count now.
        replica.written_end = replica.written_end.min(attach.log_end);
        replica.durable_end = replica.durable_end.min(attach.log_end);
        replica.reported = Some((now, log.end));
        Attached::Stream { epoch, high_watermark: log.high_watermark }
    }

    /// A follower has come further.
    pub fn progress(&mut self, now: Monotonic, from: NodeId, progress: Progress, leader_end: Offset) {
        let Some(replica) = self.followers.get_mut(&from) else { return };
        let Some(stream) = &mut replica.stream else { return };
        if progress.epoch != self.epoch || !stream.answered(&progress) {
            return;
        }
        replica.log_start = progress.log_start;
        replica.written_end = replica.written_end.max(progress.written_end);
        replica.durable_end = replica.durable_end.max(progress.durable_end.min(progress.written_end));
        if replica.written_end >= leader_end {
            replica.caught_up_at = now;
        } else if let Some((then, end_then)) = replica.reported
            && replica.written_end >= end_then
        {
            replica.caught_up_at = replica.caught_up_at.max(then);
        }
        replica.reported = Some((now, leader_end));
    }

    /// The session with a follower ended.
    pub fn session_down(&mut self, node: NodeId) {
        if let Some(replica) = self.followers.get_mut(&node) {
            replica.stream = None;
        }
    }

    /// The leader's log has got so many bytes more.
    pub fn ordered(&mut self, bytes: u64) {
        for stream in self.followers.values_mut().filter_map(|replica| replica.stream.as_mut()) {
            stream.ordered(bytes);
        }
    }

    /// What is to be sent to a follower now: records, or what is new about them. `None` without a stream, if it has been
    /// sent and told everything, or if it is to come a little later ([`Replicas::due_at`]).
    pub fn due(&self, now: Monotonic, node: NodeId, source: Source) -> Option<Due> {
        let stream = self.followers.get(&node)?.stream?;
        stream.due(now, source, self.held_until(node, &stream))
    }

    /// When [`Replicas::due`] has something for somebody at the latest, if no records come before; but not for those whose
    /// next message is being made already: that tells the news too, and is looked at when it is sent.
    pub fn due_at(&self, source: Source, is_being_made: impl Fn(NodeId) -> bool) -> Option<Monotonic> {
        let streams = self.followers.iter().filter(|(node, _)| !is_being_made(**node));
        let due_at = |(node, replica): (&NodeId, &Replica)| {
            let stream = replica.stream?;
            stream.due_at(source, self.held_until(*node, &stream))
        };
        streams.filter_map(due_at).min()
    }

    /// Neither in the in-sync set nor asked for: nobody waits for what it lacks.
    pub fn is_catching_up(&self, node: NodeId) -> bool {
        !self.in_sync.contains(&node) && !self.asked.as_ref().is_some_and(|asked| asked.contains(&node))
    }

    /// No records for this follower before then, unless somebody comes to wait for what it lacks.
    pub fn hold(&mut self, node: NodeId, until: Monotonic) {
        if let Some(stream) = self.followers.get_mut(&node).and_then(|replica| replica.stream.as_mut()) {
            stream.hold(until);
        }
    }

    /// Nobody is held any longer.
    pub fn release(&mut self) {
        for stream in self.followers.values_mut().filter_map(|replica| replica.stream.as_mut()) {
            stream.release();
        }
    }

    fn held_until(&self, node: NodeId, stream: &Stream) -> Option<Monotonic> {
        stream.held_until().filter(|_| self.is_catching_up(node))
    }

    /// Records up to `next`, and the news, were sent.
    pub fn sent(&mut self, now: Monotonic, node: NodeId, next: Offset, bytes: u64, source: Source) {
        if let Some(stream) = self.followers.get_mut(&node).and_then(|replica| replica.stream.as_mut()) {
            stream.sent(now, next, bytes, source);
        }
    }

    /// Followers that records can be streamed to.
    pub fn streams(&self) -> impl Iterator<Item = NodeId> {
        self.followers.iter().filter(|(_, replica)| replica.stream.is_some()).map(|(node, _)| *node)
    }

    /// How far all who count have come, given how far the leader itself has; `None` while too few are in sync.
    pub fn committed(&self, durability: Durability, own_end: Offset) -> Option<Offset> {
        if self.are_enough().is_err() {
            return None;
        }
        let counted = self.in_sync.iter().chain(self.asked.iter().flatten()).filter(|node| **node != self.me);
        let end_of = |node: &NodeId| Some(self.followers.get(node)?.end(durability));
        // One that counts and is not known has nothing, as far as is known.
        Some(counted.map(|node| end_of(node).unwrap_or(Offset::ZERO)).min().map_or(own_end, |least| least.min(own_end)))
    }

    /// The in-sync set that the controller should be asked for, if it is another than the present one and nothing is being
    /// asked: without those who lack records for longer than the bound, with those who have all that is committed and a
    /// part in this epoch.
    pub fn wanted_in_sync(
        &self,
        now: Monotonic,
        log: LeaderLog<'_>,
        durability: Durability,
    ) -> Option<BTreeSet<NodeId>> {
        if self.asked.is_some() {
            return None;
        }
        let belongs = |node: &NodeId, replica: &Replica| {
            if self.in_sync.contains(node) {
                // Who has everything has nothing to report, however long ago it got it.
                let has_everything = replica.stream.is_some() && replica.written_end >= log.end;
                has_everything || now.0.saturating_sub(replica.caught_up_at.0) <= self.lag_max
            } else {
                replica.stream.is_some() && replica.end(durability) >= log.high_watermark.max(self.epoch_start)
            }
        };
        let mut wanted: BTreeSet<NodeId> =
            self.followers.iter().filter(|(node, replica)| belongs(node, replica)).map(|(node, _)| *node).collect();
        wanted.insert(self.me);
        (wanted != self.in_sync).then_some(wanted)
    }

    /// The controller is being asked for this set: from now on it counts too.
    pub fn ask(&mut self, wanted: BTreeSet<NodeId>) -> InSyncQuestion {
        self.asked = Some(wanted.clone());
        InSyncQuestion { leader_epoch: self.epoch, partition_epoch: self.partition_epoch, in_sync: wanted }
    }

    /// The controller has said no to a question, for good: it will never say yes to it.
    pub fn refused(&mut self, question: &InSyncQuestion) {
        if question.partition_epoch == self.partition_epoch && self.asked.as_ref() == Some(&question.in_sync) {
            self.asked = None;
        }
    }
}

#[cfg(test)]
mod tests;
