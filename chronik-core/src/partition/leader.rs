//! A partition's leader: it stamps batches with offsets, and says when they are written, committed and readable.
//!
//! The order of an append is fixed by types. [`Leader::admit`] judges a batch and changes nothing; only when the log has
//! ordered the run does [`Leader::ordered`] consume the [`Stamped`] batch; only when the log reports *written*
//! ([`Leader::written`]) or *durable* ([`Leader::durable`]) do the acknowledgements and watermarks exist that depend on it.
//!
//! **Watermark.** With [`Durability::Fsync`] it is the least durable end over the in-sync replicas, and every append
//! starts the group commit; with [`Durability::Replicated`] the least written end. It never regresses. Whom it counts is
//! [`Replicas`]' to know; on one node the leader is the only replica.

use super::checkpoint::Checkpoint;
use super::epochs::Epochs;
use super::producers::{self, AppendedBatch, Producers, Verdict};
use super::recovery::Recovered;
use super::replicas::{InSyncQuestion, LeaderLog, Membership, Replicas};
use super::stream::{Due, News, Source};
use crate::batch::{CheckedBatch, Header};
use crate::ids::{LeaderEpoch, NodeId, Offset};
use crate::payload::Payload;
use crate::replication::{Attach, Attached, Progress};
use crate::time::{Monotonic, Timestamp};
use crate::wal::{LogState, Run};
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};

/// What an acknowledgement by all in-sync replicas promises: a property of the topic, the same on every node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The records outlive a power cut of every node.
    #[default]
    Fsync,
    /// The records outlive the processes, and a power cut of all but one in-sync replica: what Kafka promises.
    Replicated,
}

/// When a producer wants its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// Never.
    None,
    /// When the leader has written.
    Leader,
    /// When the watermark has passed.
    All,
}

/// A judged batch with its place, as it will lie in the log. Made only by [`Leader::admit`], consumed by
/// [`Leader::ordered`].
#[derive(Debug)]
pub struct Stamped {
    header: Header,
    records: Bytes,
}

impl Stamped {
    /// What the log is to append. **Copies** the header (61 bytes); the records are shared.
    pub fn run(&self) -> Run {
        let mut bytes = Payload::from(Bytes::copy_from_slice(&self.header.to_bytes()));
        bytes.push(self.records.clone());
        Run {
            base: self.header.base_offset,
            next_offset: self.header.next_offset(),
            epoch: self.header.leader_epoch,
            max_timestamp: self.header.max_timestamp,
            bytes,
        }
    }
}

/// Why a batch is not admitted. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Producer(#[from] producers::Refused),
    /// All in-sync replicas are to have it, and those are fewer than the topic wants.
    #[error("{in_sync} replicas are in sync, and the topic wants {wanted}")]
    TooFewInSync { in_sync: usize, wanted: usize },
}

/// Why it will never be known whether what a producer waits for was stored as it wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Abandoned {
    #[error("the partition's log failed before the records were stored as asked")]
    LogFailed,
    /// The next leader may have the records or not: the producer asks it again.
    #[error("this node ceased to lead the partition before the records were stored as asked")]
    Resigned,
    /// It is stored here, but too few are in sync for the promise.
    #[error("fewer replicas are in sync than the topic wants; the records are stored on those that are")]
    TooFewInSync,
}

/// What a batch is to the partition.
#[derive(Debug)]
pub enum Admitted {
    Append(Stamped),
    /// It was appended before; nothing is to be written.
    Duplicate(AppendedBatch),
    /// It was appended long before, somewhere below `before`.
    Forgotten {
        before: Offset,
    },
}

/// What the leader wants done, in order.
#[derive(Debug)]
pub enum Effect<K> {
    /// Ask the log to make everything below `upto` durable.
    Sync { upto: Offset },
    /// What `key` stands for is stored as its producer wanted.
    Acknowledge { key: K },
    /// What `key` stands for may or may not be stored.
    Abandon { key: K, why: Abandoned },
    /// More can be read.
    WatermarkAdvanced { to: Offset },
}

/// The state of one led partition. `K` is whatever the driver tells waiting producers apart by.
#[derive(Debug)]
pub struct Leader<K> {
    epoch: LeaderEpoch,
    durability: Durability,
    log_start: Offset,
    log_end: Offset,
    written_end: Offset,
    durable_end: Offset,
    high_watermark: Offset,
    sync_under_way: bool,
    failed: bool,
    replicas: Replicas,
    producers: Producers,
    epochs: Epochs,
    /// Those who wait, by the offset that must be reached; offsets rise, except for duplicates, which wait for less.
    awaiting_written: VecDeque<(Offset, K)>,
    awaiting_committed: VecDeque<(Offset, K)>,
    effects: VecDeque<Effect<K>>,
}

impl<K> Leader<K> {
    /// Takes up the lead over what was recovered, in the epoch of `replicas`. What is written but not durable is synced at
    /// once, and becomes readable when all who count have it.
    pub fn new(recovered: Recovered, replicas: Replicas, durability: Durability) -> Self {
        let Recovered { checkpoint, log, agreed_epoch: _ } = recovered;
        let mut leader = Self {
            epoch: replicas.epoch(),
            durability,
            log_start: log.start,
            log_end: log.end,
            written_end: log.written_end,
            durable_end: log.durable_end,
            high_watermark: checkpoint.high_watermark.clamp(log.start, log.end),
            sync_under_way: false,
            failed: false,
            replicas,
            producers: checkpoint.producers,
            epochs: checkpoint.epochs,
            awaiting_written: VecDeque::new(),
            awaiting_committed: VecDeque::new(),
            effects: VecDeque::new(),
        };
        leader.settle();
        leader
    }

    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    pub fn log_end(&self) -> Offset {
        self.log_end
    }

    /// Consumers may read below this. There are no transactions, so the last stable offset is the same.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    pub fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// Changes what an acknowledgement promises. Towards `Fsync` what is committed already stays so, and the rest waits.
    pub fn set_durability(&mut self, durability: Durability) {
        self.durability = durability;
        self.settle();
    }

    /// The log failed; nothing can be appended until it is opened again.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Judges a batch and gives it its place at the log's end. Changes nothing.
    pub fn admit(&self, batch: CheckedBatch, acks: Acks) -> Result<Admitted, Refused> {
        if acks == Acks::All
            && let Err((in_sync, wanted)) = self.replicas.are_enough()
        {
            return Err(Refused::TooFewInSync { in_sync, wanted });
        }
        match self.producers.judge(batch.header())? {
            Verdict::Duplicate(earlier) => Ok(Admitted::Duplicate(earlier)),
            Verdict::Forgotten { before } => Ok(Admitted::Forgotten { before }),
            Verdict::New => {
                let batch = batch.into_batch();
                let header = Header { base_offset: self.log_end, leader_epoch: self.epoch, ..batch.header };
                Ok(Admitted::Append(Stamped { header, records: batch.records }))
            }
        }
    }

    /// The log has ordered the run of `stamped`.
    pub fn ordered(&mut self, stamped: Stamped, now: Timestamp) {
        let header = stamped.header;
        debug_assert_eq!(header.base_offset, self.log_end, "a batch is ordered where it was admitted");
        self.log_end = header.next_offset();
        self.replicas.ordered(header.size_bytes() as u64);
        self.producers.note(&header, now, self.high_watermark);
        self.epochs.note(header.leader_epoch, header.base_offset);
    }

    /// `key` is to be answered when everything below `next_offset` is as `acks` wants it, which may be at once.
    pub fn await_acks(&mut self, acks: Acks, next_offset: Offset, key: K) {
        let (waiting, reached) = match acks {
            Acks::None => return,
            Acks::Leader => (&mut self.awaiting_written, self.written_end),
            Acks::All => (&mut self.awaiting_committed, self.high_watermark),
        };
        if self.failed {
            self.effects.push_back(Effect::Abandon { key, why: Abandoned::LogFailed });
        } else if next_offset <= reached {
            self.effects.push_back(Effect::Acknowledge { key });
        } else {
            // Duplicates wait for less than those before them; keep the queue sorted, nearly always at its end.
            let at = waiting.partition_point(|(offset, _)| *offset <= next_offset);
            waiting.insert(at, (next_offset, key));
        }
    }

    /// The log has handed everything below `end` to the operating system.
    pub fn written(&mut self, end: Offset) {
        self.written_end = self.written_end.max(end);
        self.settle();
    }

    /// A sync that an [`Effect::Sync`] asked for has ended: everything below `end` is durable.
    pub fn durable(&mut self, end: Offset) {
        self.sync_under_way = false;
        self.durable_end = self.durable_end.max(end);
        self.settle();
    }

    /// The log failed: whoever waits will never know.
    pub fn fail(&mut self) {
        self.failed = true;
        self.abandon_all(Abandoned::LogFailed);
    }

    /// Somebody else leads, or nobody: whoever waits must ask again there.
    pub fn resign(&mut self) {
        self.abandon_all(Abandoned::Resigned);
    }

    fn abandon_all(&mut self, why: Abandoned) {
        let waiting = self.awaiting_written.drain(..).chain(self.awaiting_committed.drain(..));
        self.effects.extend(waiting.map(|(_, key)| Effect::Abandon { key, why }));
    }

    /// What the next epoch starts from, in whichever role. Resign first.
    pub fn into_recovered(self) -> Recovered {
        let log = LogState {
            start: self.log_start,
            end: self.log_end,
            written_end: self.written_end,
            durable_end: self.durable_end,
            last_epoch: self.epochs.latest().unwrap_or_default(),
            ..LogState::default()
        };
        let (epoch, high_watermark) = (self.epoch(), self.high_watermark);
        let checkpoint =
            Checkpoint { upto: self.log_end, high_watermark, producers: self.producers, epochs: self.epochs };
        Recovered { checkpoint, log, agreed_epoch: Some(epoch) }
    }

    /// How far this leader itself is known to have come: written and durable.
    pub fn own_ends(&self) -> (Offset, Offset) {
        (self.written_end, self.durable_end)
    }

    pub fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    /// The end of the log when this epoch began: below it a watermark may still be less than what an earlier leader showed
    /// (KIP-207).
    pub fn shows_all_that_was_shown(&self) -> bool {
        self.high_watermark >= self.replicas.epoch_start()
    }

    /// A record of this partition was applied.
    pub fn applied(&mut self, membership: Membership, now: Monotonic) {
        self.replicas.applied(membership, now);
        if self.replicas.are_enough().is_err() {
            // The watermark stands still until there are more: better told now than by a time-out.
            let waiting = self.awaiting_committed.drain(..);
            self.effects.extend(waiting.map(|(_, key)| Effect::Abandon { key, why: Abandoned::TooFewInSync }));
        }
        self.settle();
    }

    /// A follower wants to attach.
    pub fn attach(&mut self, now: Monotonic, from: NodeId, attach: Attach) -> Attached {
        let log = LeaderLog {
            epochs: &self.epochs,
            producers: &self.producers,
            start: self.log_start,
            end: self.log_end,
            high_watermark: self.high_watermark,
        };
        self.replicas.attach(now, from, attach, log)
    }

    /// A follower has come further.
    pub fn progress(&mut self, now: Monotonic, from: NodeId, progress: Progress) {
        self.replicas.progress(now, from, progress, self.log_end);
        self.settle();
    }

    /// The session with a follower ended.
    pub fn session_down(&mut self, follower: NodeId) {
        self.replicas.session_down(follower);
    }

    /// What a follower should have next is no longer in the log.
    pub fn end_stream(&mut self, follower: NodeId) {
        self.replicas.end_stream(follower);
    }

    /// What followers are told beside records.
    pub fn news(&self) -> News {
        News { high_watermark: self.high_watermark, log_start: self.log_start }
    }

    fn source(&self, news: News) -> Source {
        Source { log_end: self.log_end, news, is_awaited: !self.awaiting_committed.is_empty() }
    }

    /// What is to be sent to a follower now.
    pub fn due(&self, now: Monotonic, follower: NodeId) -> Option<Due> {
        if self.failed {
            return None;
        }
        self.replicas.due(now, follower, self.source(self.news()))
    }

    /// Records up to `next`, and the news, were sent.
    pub fn sent(&mut self, now: Monotonic, follower: NodeId, next: Offset, bytes: u64, news: News) {
        self.replicas.sent(now, follower, next, bytes, self.source(news));
    }

    /// When somebody is to be looked at again with [`Leader::due`], whatever happens until then; those whose next message
    /// is being made are looked at when it is sent.
    pub fn deadline(&self, is_being_made: impl Fn(NodeId) -> bool) -> Option<Monotonic> {
        if self.failed { None } else { self.replicas.due_at(self.source(self.news()), is_being_made) }
    }

    /// A throttled follower gets no records before then, as long as nobody waits for what it lacks.
    pub fn hold(&mut self, follower: NodeId, until: Monotonic) {
        self.replicas.hold(follower, until);
    }

    /// The partition is throttled no longer.
    pub fn release(&mut self) {
        self.replicas.release();
    }

    /// The in-sync set that the controller is to be asked for now, if it is another.
    pub fn wanted_in_sync(&self, now: Monotonic) -> Option<BTreeSet<NodeId>> {
        if self.failed {
            return None;
        }
        let log = LeaderLog {
            epochs: &self.epochs,
            producers: &self.producers,
            start: self.log_start,
            end: self.log_end,
            high_watermark: self.high_watermark,
        };
        self.replicas.wanted_in_sync(now, log, self.durability)
    }

    /// The controller is being asked for this set: from now on it counts too.
    pub fn ask(&mut self, wanted: BTreeSet<NodeId>) -> InSyncQuestion {
        self.replicas.ask(wanted)
    }

    /// The controller has said no, for good.
    pub fn question_refused(&mut self, question: &InSyncQuestion) {
        self.replicas.refused(question);
        self.settle();
    }

    /// The log now starts at `start`.
    pub fn trimmed(&mut self, start: Offset) {
        self.log_start = self.log_start.max(start);
        self.high_watermark = self.high_watermark.max(self.log_start);
        self.epochs.truncate_prefix(self.log_start);
    }

    /// Forgets producers silent since `horizon`, and the longest silent ones beyond `count_max`.
    pub fn expire_producers(&mut self, horizon: Timestamp, count_max: usize) {
        self.producers.settle(self.high_watermark);
        self.producers.expire(horizon, count_max);
    }

    /// What to save so that a restart need not read what lies below the log's present end. The log must have made it
    /// durable before the checkpoint is of use; one that speaks of lost records is ignored on recovery.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            upto: self.log_end,
            high_watermark: self.high_watermark,
            producers: self.producers.clone(),
            epochs: self.epochs.clone(),
        }
    }

    pub fn poll_effect(&mut self) -> Option<Effect<K>> {
        self.effects.pop_front()
    }

    /// Derives from the three ends what follows: acknowledgements, the watermark, the next sync.
    fn settle(&mut self) {
        if self.failed {
            return;
        }
        while let Some((_, key)) = self.awaiting_written.pop_front_if(|(offset, _)| *offset <= self.written_end) {
            self.effects.push_back(Effect::Acknowledge { key });
        }
        let own = match self.durability {
            Durability::Fsync => self.durable_end,
            Durability::Replicated => self.written_end,
        };
        if let Some(committed) = self.replicas.committed(self.durability, own)
            && committed > self.high_watermark
        {
            self.high_watermark = committed;
            self.effects.push_back(Effect::WatermarkAdvanced { to: committed });
        }
        while let Some((_, key)) = self.awaiting_committed.pop_front_if(|(offset, _)| *offset <= self.high_watermark) {
            self.effects.push_back(Effect::Acknowledge { key });
        }
        if self.durability == Durability::Fsync && !self.sync_under_way && self.written_end > self.durable_end {
            self.sync_under_way = true;
            self.effects.push_back(Effect::Sync { upto: self.written_end });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Builder, RecordOut};
    use crate::ids::ProducerId;
    use crate::wal::LogState;

    const ME: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn membership(in_sync: &[NodeId], in_sync_min: usize) -> Membership {
        let in_sync: BTreeSet<NodeId> = in_sync.iter().copied().collect();
        Membership { replicas: BTreeSet::from([ME, B]), in_sync, in_sync_min, partition_epoch: 0 }
    }

    fn replicas(in_sync: &[NodeId], in_sync_min: usize) -> Replicas {
        let lag_max = std::time::Duration::from_secs(1);
        let membership = membership(in_sync, in_sync_min);
        Replicas::new(ME, LeaderEpoch(3), Offset::ZERO, lag_max, membership, Monotonic::default())
    }

    fn leader(durability: Durability) -> Leader<&'static str> {
        Leader::new(Recovered::empty(LogState::default()), replicas(&[ME], 1), durability)
    }

    fn batch(sequence: i32) -> CheckedBatch {
        let mut builder = Builder::new(Timestamp(1)).idempotent(ProducerId(7), 0, sequence);
        builder.push(&RecordOut::default());
        CheckedBatch::trusted(builder.build())
    }

    fn append(leader: &mut Leader<&'static str>, sequence: i32, acks: Acks, key: &'static str) {
        let next_offset = match leader.admit(batch(sequence), acks) {
            Ok(Admitted::Append(stamped)) => {
                let next_offset = stamped.run().next_offset;
                leader.ordered(stamped, Timestamp(1));
                next_offset
            }
            Ok(Admitted::Duplicate(earlier)) => earlier.last_offset + 1,
            Ok(Admitted::Forgotten { before }) => before,
            Err(refused) => panic!("{refused}"),
        };
        leader.await_acks(acks, next_offset, key);
    }

    fn effects(leader: &mut Leader<&'static str>) -> String {
        std::iter::from_fn(|| leader.poll_effect())
            .map(|effect| match effect {
                Effect::Sync { upto } => format!("sync {upto}"),
                Effect::Acknowledge { key } => format!("ack {key}"),
                Effect::Abandon { key, why } => format!("abandon {key}: {why:?}"),
                Effect::WatermarkAdvanced { to } => format!("hw {to}"),
            })
            .collect::<Vec<_>>()
            .join(", ")
    }

    #[test]
    fn nothing_is_acknowledged_before_the_log_says_so() {
        let mut leader = leader(Durability::Fsync);
        append(&mut leader, 0, Acks::Leader, "one");
        append(&mut leader, 1, Acks::All, "all");
        assert_eq!(effects(&mut leader), "");
        leader.written(Offset(2));
        assert_eq!(effects(&mut leader), "ack one, sync 2");
        append(&mut leader, 2, Acks::All, "later");
        leader.written(Offset(3));
        assert_eq!(effects(&mut leader), "", "one sync at a time");
        leader.durable(Offset(2));
        assert_eq!(effects(&mut leader), "hw 2, ack all, sync 3");
        leader.durable(Offset(3));
        assert_eq!(effects(&mut leader), "hw 3, ack later");
    }

    #[test]
    fn a_retry_of_what_came_long_before_waits_until_that_is_committed() {
        let mut leader = leader(Durability::Fsync);
        (0..7).for_each(|sequence| append(&mut leader, sequence, Acks::None, ""));
        append(&mut leader, 1, Acks::All, "again");
        leader.written(Offset(7));
        assert_eq!(effects(&mut leader), "sync 7");
        assert_eq!(leader.log_end(), Offset(7), "nothing is stored twice");
        leader.durable(Offset(2));
        assert_eq!(effects(&mut leader), "hw 2, ack again, sync 7");
    }

    #[test]
    fn replicated_durability_commits_what_is_written() {
        let mut leader = leader(Durability::Replicated);
        append(&mut leader, 0, Acks::All, "all");
        leader.written(Offset(1));
        assert_eq!(effects(&mut leader), "hw 1, ack all");
        append(&mut leader, 1, Acks::All, "stricter");
        leader.set_durability(Durability::Fsync);
        leader.written(Offset(2));
        assert_eq!(effects(&mut leader), "sync 1");
        leader.durable(Offset(1));
        assert_eq!(effects(&mut leader), "sync 2");
        assert_eq!(leader.high_watermark(), Offset(1), "what was committed stays so");
        leader.durable(Offset(2));
        assert_eq!(effects(&mut leader), "hw 2, ack stricter");
    }

    #[test]
    fn a_duplicate_is_acknowledged_only_with_its_original() {
        let mut leader = leader(Durability::Fsync);
        append(&mut leader, 0, Acks::All, "first");
        append(&mut leader, 1, Acks::All, "second");
        append(&mut leader, 0, Acks::All, "retry");
        assert_eq!(leader.log_end(), Offset(2), "a duplicate takes no place");
        leader.written(Offset(2));
        assert_eq!(effects(&mut leader), "sync 2");
        leader.durable(Offset(2));
        assert_eq!(effects(&mut leader), "hw 2, ack first, ack retry, ack second");
    }

    #[test]
    fn a_failed_log_acknowledges_nothing_any_more() {
        let mut leader = leader(Durability::Fsync);
        append(&mut leader, 0, Acks::All, "waiting");
        leader.fail();
        leader.written(Offset(1));
        leader.durable(Offset(1));
        append(&mut leader, 1, Acks::All, "late");
        assert_eq!(effects(&mut leader), "abandon waiting: LogFailed, abandon late: LogFailed");
        assert_eq!(leader.high_watermark(), Offset(0));
    }

    #[test]
    fn what_a_crash_left_unsynced_is_synced_before_it_is_read() {
        let log = LogState { end: Offset(9), written_end: Offset(9), durable_end: Offset(4), ..LogState::default() };
        let mut leader: Leader<&'static str> =
            Leader::new(Recovered::empty(log), replicas(&[ME], 1), Durability::Fsync);
        assert_eq!(effects(&mut leader), "hw 4, sync 9");
        leader.durable(Offset(9));
        assert_eq!(effects(&mut leader), "hw 9");
    }

    #[test]
    fn what_all_in_sync_replicas_have_is_committed_and_no_more() {
        let recovered = Recovered::empty(LogState::default());
        let mut leader: Leader<&'static str> = Leader::new(recovered, replicas(&[ME, B], 2), Durability::Fsync);
        append(&mut leader, 0, Acks::All, "all");
        append(&mut leader, 1, Acks::Leader, "one");
        leader.written(Offset(2));
        leader.durable(Offset(2));
        assert_eq!(effects(&mut leader), "ack one, sync 2", "the other has nothing");
        let attach = Attach {
            epoch: LeaderEpoch(3),
            log_start: Offset(0),
            log_end: Offset(0),
            last_epoch: None,
            credit_bytes: 1_000,
        };
        let answer = leader.attach(Monotonic::default(), B, attach);
        assert_eq!(answer, Attached::Stream { epoch: LeaderEpoch(3), high_watermark: Offset(0) });
        assert_eq!(leader.due(Monotonic::default(), B), Some(Due { from: Offset(0), bytes_max: 1_000 }));
        leader.sent(Monotonic::default(), B, Offset(2), 140, leader.news());
        let progress = |written, durable| Progress {
            epoch: LeaderEpoch(3),
            log_start: Offset(0),
            written_end: Offset(written),
            durable_end: Offset(durable),
            credit_bytes: 1_000,
        };
        leader.progress(Monotonic::default(), B, progress(2, 1));
        assert_eq!(effects(&mut leader), "hw 1, ack all", "of the second it has promised nothing yet");
        leader.progress(Monotonic::default(), B, progress(2, 2));
        assert_eq!(effects(&mut leader), "hw 2");
    }

    #[test]
    fn with_too_few_in_sync_nothing_is_taken_for_all_and_who_waits_is_told() {
        let recovered = Recovered::empty(LogState::default());
        let mut leader: Leader<&'static str> = Leader::new(recovered, replicas(&[ME, B], 2), Durability::Fsync);
        append(&mut leader, 0, Acks::All, "waiting");
        leader.applied(membership(&[ME], 2), Monotonic::default());
        assert_eq!(effects(&mut leader), "abandon waiting: TooFewInSync");
        let refused = leader.admit(batch(1), Acks::All).map(|_| ());
        assert_eq!(refused, Err(Refused::TooFewInSync { in_sync: 1, wanted: 2 }));
        append(&mut leader, 1, Acks::Leader, "one");
        leader.written(Offset(2));
        leader.durable(Offset(2));
        assert_eq!(effects(&mut leader), "ack one, sync 2", "and nothing is committed");
        leader.applied(membership(&[ME], 1), Monotonic::default());
        assert_eq!(effects(&mut leader), "hw 2");
    }

    #[test]
    fn who_resigns_leaves_its_log_as_it_is_and_nobody_waiting() {
        let mut leader = leader(Durability::Fsync);
        append(&mut leader, 0, Acks::All, "waiting");
        leader.written(Offset(1));
        leader.resign();
        assert_eq!(effects(&mut leader), "sync 1, abandon waiting: Resigned");
        let recovered = leader.into_recovered();
        assert_eq!((recovered.log.end, recovered.log.durable_end), (Offset(1), Offset(0)));
        assert_eq!(recovered.latest_epoch(), Some(LeaderEpoch(3)));
        assert_eq!(recovered.agreed_epoch, Some(LeaderEpoch(3)), "nobody knows better what was committed in it");
    }
}
