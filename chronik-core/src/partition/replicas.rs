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
//! is over for whoever comes into it.
//!
//! **What nobody waits for gathers.** A message to a follower costs it a write, a sync and an answer, whatever it carries. So as
//! long as no producer waits for replicas, a stream has one message of few bytes on its way at a time; what is appended
//! meanwhile goes when the follower has answered, when it has become much, or after [`GATHER_MAX`].
//!
//! **Watermark and size.** It does not advance while fewer replicas are in the applied set than `min.insync.replicas`.

use super::epochs::Epochs;
use super::leader::Durability;
use crate::ids::{LeaderEpoch, NodeId, Offset};
use crate::replication::{Attach, Attached, Progress};
use crate::time::Monotonic;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Between two messages to a follower that carry no records there is at least so much: what its consumers see later by that
/// is next to nothing, and a busy partition would tell of its watermark as often as it sends records.
const NEWS_ALONE_EVERY: Duration = Duration::from_millis(5);

/// From so many bytes on records do not wait for others: a message's cost is small beside theirs.
const GATHER_BYTES: u64 = 16 << 10;

/// Nor any longer than this for a follower's answer: where that takes its time, because it is far away, more messages on
/// their way are better than records that wait.
const GATHER_MAX: Duration = Duration::from_millis(2);

/// The leader's own log, as of now.
#[derive(Clone, Copy, Debug)]
pub struct LeaderLog<'a> {
    pub epochs: &'a Epochs,
    pub start: Offset,
    pub end: Offset,
    pub high_watermark: Offset,
}

/// The stream to a follower, while there is a session.
#[derive(Clone, Copy, Debug)]
struct Stream {
    /// Where the next records begin.
    next: Offset,
    /// Since the attachment: what may have been sent, and what has been.
    credit_bytes: u64,
    sent_bytes: u64,
    /// Where what the follower has answered ends.
    answered: Offset,
    /// What there is to be sent; so much that it cannot matter, where that is not known.
    unsent_bytes: u64,
    /// When records were last sent.
    records_sent_at: Monotonic,
    /// What it was last told of the watermark and of where the log starts.
    told: News,
    /// When that was last told without records.
    told_alone_at: Option<Monotonic>,
    /// The follower is throttled: no records before then, as long as it is not in sync.
    held_until: Option<Monotonic>,
}

impl Stream {
    /// Bytes of records that may be sent, if there are any to send.
    fn credit_for(&self, leader_end: Offset) -> u64 {
        if self.next < leader_end { self.credit_bytes.saturating_sub(self.sent_bytes) } else { 0 }
    }

    /// Until when what is there waits for more; see the module's head.
    fn gathers_until(&self, source: Source) -> Option<Monotonic> {
        let little = self.unsent_bytes < GATHER_BYTES && !source.is_awaited;
        let gathers = little && self.answered < self.next && self.credit_for(source.log_end) > 0;
        gathers.then(|| self.records_sent_at + GATHER_MAX)
    }

    /// News go with records where there are any. Alone they go at once where that is rare.
    fn may_tell_alone_at(&self) -> Monotonic {
        self.told_alone_at.map_or(Monotonic(Duration::ZERO), |at| at + NEWS_ALONE_EVERY)
    }
}

/// What followers are told beside records, also when there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    pub high_watermark: Offset,
    pub log_start: Offset,
}

/// The leader, as far as its streams depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    pub log_end: Offset,
    pub news: News,
    /// Producers wait for what followers have.
    pub is_awaited: bool,
}

/// What is to be sent to a follower next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Where the records begin.
    pub from: Offset,
    /// How many bytes of them may be sent; zero if there are none, or no credit. The first batch may exceed it unless it is
    /// zero, or a large one could never be sent.
    pub bytes_max: u64,
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
            return Attached::Reset { epoch, start: log.start };
        }
        match attach.last_epoch {
            // It has no records: whatever offset it begins at, the leader's are the first.
            None if attach.log_end <= log.end => {}
            None => return Attached::Reset { epoch, start: log.start },
            Some(last) => match log.epochs.end_of(last, log.end) {
                Some((ours, end)) if ours == last && attach.log_end <= end => {}
                Some((last_epoch, end)) => return Attached::Diverged { epoch, last_epoch, end },
                // Older than everything that the leader still knows of.
                None => return Attached::Reset { epoch, start: log.start },
            },
        }
        replica.stream = Some(Stream {
            next: attach.log_end,
            credit_bytes: attach.credit_bytes,
            sent_bytes: 0,
            answered: attach.log_end,
            unsent_bytes: if attach.log_end < log.end { u64::MAX / 2 } else { 0 },
            records_sent_at: now,
            told: News { high_watermark: log.high_watermark, log_start: Offset::ZERO },
            told_alone_at: None,
            held_until: None,
        });
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
        if progress.epoch != self.epoch || progress.written_end > stream.next {
            return;
        }
        stream.credit_bytes = stream.credit_bytes.max(progress.credit_bytes);
        stream.answered = stream.answered.max(progress.written_end);
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
            stream.unsent_bytes = stream.unsent_bytes.saturating_add(bytes);
        }
    }

    /// What is to be sent to a follower now: records, or what is new about them. `None` without a stream, if it has been
    /// sent and told everything, or if it is to come a little later ([`Replicas::due_at`]).
    pub fn due(&self, now: Monotonic, node: NodeId, source: Source) -> Option<Due> {
        let stream = self.followers.get(&node)?.stream?;
        if stream.gathers_until(source).is_some_and(|until| until > now) {
            // The records tell the news.
            return None;
        }
        let is_held = self.held_until(node, &stream).is_some_and(|until| until > now);
        let credit = if is_held { 0 } else { stream.credit_for(source.log_end) };
        let tell = stream.told != source.news && stream.may_tell_alone_at() <= now;
        (credit > 0 || tell).then_some(Due { from: stream.next, bytes_max: credit })
    }

    /// When [`Replicas::due`] has something for somebody at the latest, if no records come before; but not for those whose
    /// next message is being made already: that tells the news too, and is looked at when it is sent.
    pub fn due_at(&self, source: Source, is_being_made: impl Fn(NodeId) -> bool) -> Option<Monotonic> {
        let streams = self.followers.iter().filter(|(node, _)| !is_being_made(**node));
        let due_at = |(node, replica): (&NodeId, &Replica)| {
            let stream = replica.stream?;
            let untold = (stream.told != source.news).then(|| stream.may_tell_alone_at());
            let held = self.held_until(*node, &stream).filter(|_| stream.credit_for(source.log_end) > 0);
            match stream.gathers_until(source) {
                // Then records go, unless the throttle holds them.
                Some(until) if held.is_none() => Some(until),
                gathers => untold.into_iter().chain(held).min().map(|at| gathers.map_or(at, |until| at.max(until))),
            }
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
            stream.held_until = Some(until);
        }
    }

    /// Nobody is held any longer.
    pub fn release(&mut self) {
        for stream in self.followers.values_mut().filter_map(|replica| replica.stream.as_mut()) {
            stream.held_until = None;
        }
    }

    fn held_until(&self, node: NodeId, stream: &Stream) -> Option<Monotonic> {
        stream.held_until.filter(|_| self.is_catching_up(node))
    }

    /// Records up to `next`, and the news, were sent.
    pub fn sent(&mut self, now: Monotonic, node: NodeId, next: Offset, bytes: u64, source: Source) {
        if let Some(stream) = self.followers.get_mut(&node).and_then(|replica| replica.stream.as_mut()) {
            stream.next = stream.next.max(next);
            stream.sent_bytes += bytes;
            stream.unsent_bytes =
                if stream.next < source.log_end { stream.unsent_bytes.saturating_sub(bytes) } else { 0 };
            stream.told = source.news;
            if bytes == 0 {
                stream.told_alone_at = Some(now);
            } else {
                stream.held_until = None;
                stream.records_sent_at = now;
            }
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
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);
    const EPOCH: LeaderEpoch = LeaderEpoch(4);

    fn set(nodes: &[NodeId]) -> BTreeSet<NodeId> {
        nodes.iter().copied().collect()
    }

    fn at(ms: u64) -> Monotonic {
        Monotonic(Duration::from_millis(ms))
    }

    fn membership(in_sync: &[NodeId], in_sync_min: usize) -> Membership {
        versioned(in_sync, in_sync_min, 1)
    }

    fn versioned(in_sync: &[NodeId], in_sync_min: usize, partition_epoch: i32) -> Membership {
        Membership { replicas: set(&[ME, B, C]), in_sync: set(in_sync), in_sync_min, partition_epoch }
    }

    /// The leader's log: epochs 1 from 0 and 4 from 10, ending at 20.
    fn epochs() -> Epochs {
        Epochs::from_starts([(LeaderEpoch(1), Offset(0)), (EPOCH, Offset(10))])
    }

    fn log(epochs: &Epochs) -> LeaderLog<'_> {
        LeaderLog { epochs, start: Offset(5), end: Offset(20), high_watermark: Offset(12) }
    }

    fn attach(log_end: i64, last_epoch: Option<i32>) -> Attach {
        let last_epoch = last_epoch.map(LeaderEpoch);
        Attach { epoch: EPOCH, log_start: Offset(0), log_end: Offset(log_end), last_epoch, credit_bytes: 100 }
    }

    fn progress(written: i64, durable: i64) -> Progress {
        let (written_end, durable_end) = (Offset(written), Offset(durable));
        Progress { epoch: EPOCH, log_start: Offset(0), written_end, durable_end, credit_bytes: 100 }
    }

    fn source(log_end: i64, news: News) -> Source {
        Source { log_end: Offset(log_end), news, is_awaited: false }
    }

    fn replicas(in_sync: &[NodeId], in_sync_min: usize) -> Replicas {
        Replicas::new(ME, EPOCH, Offset(10), Duration::from_secs(1), membership(in_sync, in_sync_min), at(0))
    }

    #[test]
    fn a_follower_is_told_where_the_logs_part() {
        let epochs = epochs();
        let mut replicas = replicas(&[ME, B], 1);
        let mut told = |attach| replicas.attach(at(0), B, attach, log(&epochs));
        let stream = Attached::Stream { epoch: EPOCH, high_watermark: Offset(12) };
        assert_eq!(told(attach(20, Some(4))), stream);
        assert_eq!(told(attach(10, Some(1))), stream, "all of an earlier epoch, and no more");
        assert_eq!(told(attach(7, None)), stream, "a log that was reset and has no records yet");
        let diverged = |last, end| Attached::Diverged { epoch: EPOCH, last_epoch: LeaderEpoch(last), end: Offset(end) };
        assert_eq!(told(attach(11, Some(1))), diverged(1, 10), "more of an earlier epoch than there was");
        assert_eq!(told(attach(21, Some(4))), diverged(4, 20));
        assert_eq!(told(attach(15, Some(3))), diverged(1, 10), "an epoch that the leader never saw");
        let reset = Attached::Reset { epoch: EPOCH, start: Offset(5) };
        assert_eq!(told(attach(4, Some(1))), reset, "what follows is deleted");
        assert_eq!(told(attach(15, Some(0))), reset, "older than everything that is known");
        assert_eq!(told(Attach { epoch: LeaderEpoch(3), ..attach(20, Some(4)) }), Attached::Fenced { current: EPOCH });
        assert_eq!(told(Attach { epoch: LeaderEpoch(5), ..attach(20, Some(4)) }), Attached::NotYet { epoch: EPOCH });
        let stranger = replicas.attach(at(0), NodeId(9), attach(20, Some(4)), log(&epochs));
        assert_eq!(stranger, Attached::NotYet { epoch: EPOCH });
    }

    #[test]
    fn whoever_may_be_in_the_set_counts_until_a_record_decides() {
        let epochs = epochs();
        let mut replicas = replicas(&[ME, B], 1);
        for (node, end) in [(B, 20), (C, 14)] {
            replicas.attach(at(0), node, attach(end, Some(4)), log(&epochs));
            replicas.progress(at(0), node, progress(end, end - 1), Offset(20));
        }
        let committed = |replicas: &Replicas, durability| replicas.committed(durability, Offset(20)).map(|end| end.0);
        assert_eq!(committed(&replicas, Durability::Fsync), Some(19));
        assert_eq!(committed(&replicas, Durability::Replicated), Some(20));
        let wanted = replicas.wanted_in_sync(at(0), log(&epochs), Durability::Fsync);
        assert_eq!(wanted, Some(set(&[ME, B, C])), "C has all that is committed, and a part in this epoch");
        replicas.ask(set(&[ME, B, C]));
        assert_eq!(
            committed(&replicas, Durability::Fsync),
            Some(13),
            "C may be elected as soon as the record is there"
        );
        assert_eq!(replicas.wanted_in_sync(at(0), log(&epochs), Durability::Fsync), None, "one question at a time");
        replicas.applied(membership(&[ME, B], 1), at(0));
        assert_eq!(committed(&replicas, Durability::Fsync), Some(13), "something else has changed; that is no answer");
        replicas.applied(versioned(&[ME, B], 1, 2), at(0));
        assert_eq!(committed(&replicas, Durability::Fsync), Some(19), "it is about a state that is no more");
        let question = replicas.ask(set(&[ME, B, C]));
        replicas.refused(&InSyncQuestion { partition_epoch: 1, ..question.clone() });
        assert_eq!(committed(&replicas, Durability::Fsync), Some(13), "an answer to an earlier question");
        replicas.refused(&question);
        assert_eq!(committed(&replicas, Durability::Fsync), Some(19), "refused");
        replicas.ask(set(&[ME]));
        assert_eq!(committed(&replicas, Durability::Fsync), Some(19), "and who is to go counts until it is out");
        replicas.applied(versioned(&[ME], 1, 3), at(0));
        assert_eq!(committed(&replicas, Durability::Fsync), Some(20));
        replicas.applied(versioned(&[ME], 2, 4), at(0));
        assert_eq!(committed(&replicas, Durability::Fsync), None, "too few");
    }

    #[test]
    fn who_lags_too_long_goes_and_who_is_quiet_with_everything_stays() {
        let epochs = epochs();
        let mut replicas = replicas(&[ME, B, C], 1);
        for (node, end) in [(B, 20), (C, 14)] {
            replicas.attach(at(0), node, attach(end, Some(4)), log(&epochs));
            replicas.progress(at(0), node, progress(end, end), Offset(20));
        }
        let wanted = |replicas: &Replicas, ms| replicas.wanted_in_sync(at(ms), log(&epochs), Durability::Fsync);
        assert_eq!(wanted(&replicas, 1_000), None);
        assert_eq!(wanted(&replicas, 1_001), Some(set(&[ME, B])));
        replicas.session_down(B);
        assert_eq!(wanted(&replicas, 1_001), Some(set(&[ME])), "without a session nobody knows what it has");
    }

    #[test]
    fn a_follower_joins_only_with_a_part_in_this_epoch() {
        let epochs = epochs();
        let mut replicas = replicas(&[ME], 1);
        let log = LeaderLog { high_watermark: Offset(8), ..log(&epochs) };
        replicas.attach(at(0), B, attach(9, Some(1)), log);
        replicas.progress(at(0), B, progress(9, 9), Offset(20));
        assert_eq!(
            replicas.wanted_in_sync(at(0), log, Durability::Fsync),
            None,
            "past the watermark, not yet in the epoch"
        );
        replicas.sent(at(0), B, Offset(10), 50, source(20, News::default()));
        replicas.progress(at(0), B, progress(10, 10), Offset(20));
        assert_eq!(replicas.wanted_in_sync(at(0), log, Durability::Fsync), Some(set(&[ME, B])));
    }

    #[test]
    fn no_more_is_sent_than_there_is_credit_for_but_news_always_are() {
        let epochs = epochs();
        let mut replicas = replicas(&[ME, B], 1);
        let news = News { high_watermark: Offset(12), log_start: Offset(0) };
        replicas.attach(at(0), B, attach(15, Some(4)), log(&epochs));
        let due = |replicas: &Replicas, news| replicas.due(at(1), B, source(20, news));
        assert_eq!(due(&replicas, news), Some(Due { from: Offset(15), bytes_max: 100 }));
        replicas.sent(at(1), B, Offset(17), 130, source(20, news));
        assert_eq!(due(&replicas, news), None, "no credit");
        let later = News { high_watermark: Offset(15), ..news };
        assert_eq!(due(&replicas, later), Some(Due { from: Offset(17), bytes_max: 0 }));
        replicas.sent(at(1), B, Offset(17), 0, source(20, later));
        replicas.progress(at(0), B, Progress { credit_bytes: 150, ..progress(17, 17) }, Offset(20));
        assert_eq!(due(&replicas, later), Some(Due { from: Offset(17), bytes_max: 20 }));
        replicas.session_down(B);
        assert_eq!(due(&replicas, news), None);
    }

    #[test]
    fn who_is_held_gets_news_and_no_records_until_its_time_or_until_it_counts() {
        let epochs = epochs();
        let mut replicas = replicas(&[ME, C], 1);
        for node in [B, C] {
            replicas.attach(at(0), node, attach(15, Some(4)), log(&epochs));
        }
        let news = |to| News { high_watermark: Offset(to), log_start: Offset(0) };
        let due = |replicas: &Replicas, ms, node| replicas.due(at(ms), node, source(20, news(12)));
        let records = Some(Due { from: Offset(15), bytes_max: 100 });
        replicas.sent(at(0), B, Offset(15), 0, source(20, news(12)));
        replicas.sent(at(0), C, Offset(15), 0, source(20, news(12)));
        replicas.hold(B, at(500));
        replicas.hold(C, at(500));
        assert!(replicas.is_catching_up(B) && !replicas.is_catching_up(C));
        assert_eq!(due(&replicas, 499, C), records, "others wait for what it lacks");
        assert_eq!(due(&replicas, 499, B), None);
        assert_eq!(replicas.due_at(source(20, news(12)), |node| node == C), Some(at(500)));
        assert_eq!(replicas.due_at(source(15, news(12)), |_| false), None, "there is nothing to be sent then");
        let told = replicas.due(at(499), B, source(20, news(13)));
        assert_eq!(told, Some(Due { from: Offset(15), bytes_max: 0 }), "it hears of the watermark");
        assert_eq!(due(&replicas, 500, B), records);
        replicas.hold(B, at(1_000));
        replicas.ask(set(&[ME, B, C]));
        assert_eq!(due(&replicas, 501, B), records, "it may be elected: the watermark waits for it");
        replicas.applied(versioned(&[ME, C], 1, 2), at(501));
        assert_eq!(due(&replicas, 501, B), None);
        replicas.release();
        assert_eq!(due(&replicas, 501, B), records);
    }

    #[test]
    fn news_that_follow_each_other_closely_are_told_once_or_with_the_next_records() {
        let epochs = epochs();
        let mut replicas = replicas(&[ME, B], 1);
        replicas.attach(at(0), B, attach(20, Some(4)), log(&epochs));
        let news = |to| News { high_watermark: Offset(to), log_start: Offset(0) };
        let alone = Some(Due { from: Offset(20), bytes_max: 0 });
        assert_eq!(replicas.due(at(7), B, source(20, news(13))), alone, "the first at once");
        replicas.sent(at(7), B, Offset(20), 0, source(20, news(13)));
        assert_eq!(replicas.due_at(source(20, news(13)), |_| false), None, "nothing is new");
        assert_eq!(replicas.due(at(8), B, source(20, news(14))), None);
        assert_eq!(replicas.due_at(source(20, news(14)), |_| false), Some(at(7) + NEWS_ALONE_EVERY));
        assert_eq!(replicas.due_at(source(20, news(14)), |to| to == B), None, "its next message tells it");
        let with_records = Some(Due { from: Offset(20), bytes_max: 100 });
        assert_eq!(replicas.due(at(9), B, source(21, news(14))), with_records, "records do not wait for them");
        replicas.sent(at(9), B, Offset(21), 50, source(21, news(14)));
        let last = Some(Due { from: Offset(21), bytes_max: 0 });
        assert_eq!(replicas.due(at(7) + NEWS_ALONE_EVERY, B, source(21, news(15))), last, "and nothing is left untold");
    }

    #[test]
    fn what_comes_while_little_is_on_its_way_goes_together_when_that_is_answered_or_after_a_while_or_when_it_is_much() {
        let epochs = epochs();
        let mut replicas = replicas(&[ME, B], 1);
        let attached = Attach { credit_bytes: 1 << 20, ..attach(20, Some(4)) };
        replicas.attach(at(0), B, attached, log(&epochs));
        let news = News { high_watermark: Offset(12), log_start: Offset(0) };
        replicas.sent(at(0), B, Offset(20), 0, source(20, news));
        let answer = |to| Progress { credit_bytes: 1 << 20, ..progress(to, to) };
        let from = |due: Option<Due>| due.filter(|due| due.bytes_max > 0).map(|due| due.from.0);
        replicas.ordered(100);
        assert_eq!(from(replicas.due(at(1), B, source(21, news))), Some(20), "nothing is on its way");
        replicas.sent(at(1), B, Offset(21), 100, source(21, news));
        assert_eq!(replicas.due_at(source(21, news), |_| false), None, "there is nothing to be sent");
        replicas.ordered(100);
        let later = News { high_watermark: Offset(20), ..news };
        assert_eq!(replicas.due(at(1), B, source(22, later)), None, "the records will tell the news, too");
        assert_eq!(replicas.due_at(source(22, later), |_| false), Some(at(1) + GATHER_MAX));
        let awaited = Source { is_awaited: true, ..source(22, later) };
        assert_eq!(from(replicas.due(at(1), B, awaited)), Some(21), "a producer waits for it");
        assert_eq!(from(replicas.due(at(1) + GATHER_MAX, B, source(22, news))), Some(21), "it takes its time");
        replicas.ordered(100);
        replicas.progress(at(2), B, answer(21), Offset(23));
        assert_eq!(from(replicas.due(at(2), B, source(23, news))), Some(21), "it has answered");
        replicas.sent(at(2), B, Offset(23), 200, source(23, news));
        replicas.ordered(GATHER_BYTES - 1);
        assert_eq!(replicas.due(at(2), B, source(24, news)), None);
        replicas.ordered(1);
        assert_eq!(from(replicas.due(at(2), B, source(25, news))), Some(23), "that is much");
        replicas.sent(at(2), B, Offset(24), GATHER_BYTES - 1, source(25, news));
        assert_eq!(replicas.due(at(2), B, source(25, news)), None, "what is left is little");
    }

    #[test]
    fn who_lacks_much_is_sent_it_without_waiting_for_answers_and_who_may_be_sent_nothing_is_not_looked_at() {
        let epochs = epochs();
        let mut replicas = replicas(&[ME, B], 1);
        replicas.attach(at(0), B, attach(15, Some(4)), log(&epochs));
        let news = News { high_watermark: Offset(12), log_start: Offset(0) };
        replicas.sent(at(0), B, Offset(17), 60, source(20, news));
        assert_eq!(replicas.due(at(0), B, source(20, news)), Some(Due { from: Offset(17), bytes_max: 40 }));
        replicas.sent(at(0), B, Offset(20), 60, source(20, news));
        replicas.ordered(100);
        assert_eq!(replicas.due(at(9), B, source(21, news)), None, "no credit");
        assert_eq!(replicas.due_at(source(21, news), |_| false), None, "and time does not give any");
    }
}
