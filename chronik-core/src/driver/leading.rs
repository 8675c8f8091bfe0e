//! A driver that leads: appends, acknowledgements, and the streams to followers.
//!
//! **Streams read ahead of the disk.** Records go to followers from the log's tail as soon as they are ordered, while they
//! are still being written here: what a follower has more than a leader that dies is cut, or becomes the next leader's.
//! One read per follower is under way at a time, so that a slow one, whose records come from the disk, holds up nobody.
//!
//! **Throttled** (KIP-73) are only reads for followers that nobody waits for. What is to be read is asked of the broker's
//! bucket before, and settled when it is known what it came to; a read that is forgotten gives it back.

use super::{AppendError, Completion, Found, Outward, PartitionDriver, Placed, Role};
use crate::batch::{self, Batch, CheckedBatch};
use crate::ids::{NodeId, Offset};
use crate::partition::leader::{Acks, Admitted, Effect};
use crate::partition::stream::News;
use crate::pending::{Done, Started};
use crate::replication::{Message, Records};
use crate::time::Now;
use crate::wal::{Cause, Chunk, ReadRange, Refused, WalError};

/// Records that one message to a follower carries at most, apart from a single batch that is larger: enough to make the cost
/// of a message small, little enough that partitions which share a lane take turns.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;

/// A read for a follower that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    token: u64,
    from: Offset,
    /// Bytes that the throttle gave for it; `None` if it was not asked.
    given: Option<u64>,
}

impl<K> PartitionDriver<K> {
    /// Appends a batch at the log's end, unless it is a duplicate; `key`, if given, is answered when `acks` is met.
    pub fn append(&mut self, batch: CheckedBatch, acks: Acks, key: Option<K>, now: Now) -> Result<Placed, AppendError> {
        let Role::Leader(leader) = &mut self.role else { return Err(AppendError::NotLeader) };
        if self.failed {
            // Also where the log itself takes more, as after a cut that failed: what this role believes of it may not be so.
            return Err(AppendError::Log(Refused::Failed));
        }
        let placed = match leader.admit(batch, acks)? {
            Admitted::Duplicate(earlier) => {
                let (base_offset, next_offset) = (earlier.base_offset, earlier.last_offset + 1);
                Placed { base_offset, next_offset, found: Found::Duplicate }
            }
            Admitted::Forgotten { before } => {
                Placed { base_offset: Offset(-1), next_offset: before, found: Found::Forgotten }
            }
            Admitted::Append(stamped) => {
                let run = stamped.run();
                let (base_offset, next_offset) = (run.base, run.next_offset);
                let done = Done::new(self.inboxes.written.clone(), self.cuts);
                let started = match self.log.append(run, done) {
                    Ok(started) => started,
                    Err(rejected) => {
                        // It has failed at something that nobody reported here, as a trim or a checkpoint: unless the lead is
                        // given up now, the partition takes nothing more until somebody restarts this broker.
                        if rejected.why == Refused::Failed {
                            self.fail(WalError::Failed(Cause::new(rejected.why)));
                            self.run(now);
                        }
                        return Err(rejected.why.into());
                    }
                };
                leader.ordered(stamped, now.wall);
                if let Started::Now(outcome) = started {
                    self.learn(Completion::Written(self.cuts, outcome), now);
                }
                Placed { base_offset, next_offset, found: Found::New }
            }
        };
        if let (Some(key), Role::Leader(leader)) = (key, &mut self.role) {
            leader.await_acks(acks, placed.next_offset, key);
        }
        self.run(now);
        Ok(placed)
    }

    pub(super) fn run_leader(&mut self, now: Now) -> bool {
        let mut busy = false;
        while let Role::Leader(leader) = &mut self.role
            && let Some(effect) = leader.poll_effect()
        {
            match effect {
                Effect::Acknowledge { key } => self.outward.push(Outward::Acknowledge { key }),
                Effect::Abandon { key, why } => self.outward.push(Outward::Abandon { key, why }),
                Effect::WatermarkAdvanced { to } => self.outward.push(Outward::WatermarkAdvanced { to }),
                Effect::Sync { upto } => {
                    let done = Done::new(self.inboxes.durable.clone(), self.cuts);
                    if let Started::Now(outcome) = self.log.sync(upto, done) {
                        self.learn(Completion::Durable(self.cuts, outcome), now);
                    }
                }
            }
            busy = true;
        }
        self.stream(now) || busy
    }

    /// Sends followers what they may have, and begins to read what they may have next.
    fn stream(&mut self, now: Now) -> bool {
        let Role::Leader(leader) = &mut self.role else { return false };
        let mut busy = false;
        let followers: smallvec::SmallVec<[NodeId; 8]> = leader.replicas().streams().collect();
        for to in followers {
            let Role::Leader(leader) = &mut self.role else { return busy };
            if self.reads.contains_key(&to) {
                continue;
            }
            let Some(due) = leader.due(now.monotonic, to) else { continue };
            busy = true;
            if due.bytes_max == 0 {
                let news = leader.news();
                leader.sent(now.monotonic, to, due.from, 0, news);
                self.send_records(to, news, Vec::new());
                continue;
            }
            let mut bytes_max = due.bytes_max.min(MESSAGE_BYTES_MAX);
            let mut given = None;
            if self.throttled && leader.replicas().is_catching_up(to) {
                match self.throttles.leader.ask(now.monotonic, bytes_max) {
                    Ok(bytes) => (bytes_max, given) = (bytes, Some(bytes)),
                    Err(until) => {
                        // There may be news for it all the same: it is looked at once more.
                        leader.hold(to, until);
                        continue;
                    }
                }
            }
            let range =
                ReadRange { from: due.from, upto: leader.log_end(), max_bytes: bytes_max as usize, min_one: true };
            self.next_token += 1;
            let token = self.next_token;
            self.reads.insert(to, Reading { token, from: due.from, given });
            if let Started::Now(outcome) = self.log.read(range, Done::new(self.inboxes.read.clone(), token)) {
                self.has_read(token, outcome, now);
            }
        }
        busy
    }

    /// A read has ended. One that nobody waits for any more is for a stream that has ended.
    pub(super) fn has_read(&mut self, token: u64, outcome: Result<Chunk, WalError>, now: Now) {
        let Some((to, reading)) = self.reads.iter().find(|(_, reading)| reading.token == token) else { return };
        let (to, reading) = (*to, *reading);
        self.reads.remove(&to);
        self.settle(reading, outcome.as_ref().map_or(0, |chunk| chunk.bytes.len() as u64));
        let Role::Leader(leader) = &mut self.role else { return };
        let news = leader.news();
        match outcome {
            Ok(chunk) => {
                let bytes = chunk.bytes.len() as u64;
                match batch::batches(&chunk.bytes).collect::<Result<Vec<_>, _>>() {
                    Ok(found) if !found.is_empty() => {
                        let next = found.last().map_or(reading.from, |batch| batch.header.next_offset());
                        leader.sent(now.monotonic, to, next, bytes, news);
                        self.send_records(to, news, found);
                    }
                    // What was stored has been checked before, and there was something to read: the log is damaged.
                    _ => self.fail(WalError::Corrupt { offset: reading.from }),
                }
            }
            Err(WalError::OutOfRange { start, .. }) => {
                // The log was trimmed past it meanwhile: the news make it attach again. The log says from where, since the
                // trim may not have been reported yet, or never will be: news of an earlier start would leave the follower
                // waiting for ever for a stream that has ended.
                leader.trimmed(start.min(leader.high_watermark()));
                leader.end_stream(to);
                let news = leader.news();
                self.send_records(to, news, Vec::new());
            }
            Err(cause) => self.fail(cause),
        }
    }

    /// What was being read for a follower is not for its stream any more.
    pub(super) fn forget_read(&mut self, to: NodeId) {
        if let Some(reading) = self.reads.remove(&to) {
            self.settle(reading, 0);
        }
    }

    pub(super) fn forget_reads(&mut self) {
        for reading in std::mem::take(&mut self.reads).into_values() {
            self.settle(reading, 0);
        }
    }

    fn settle(&self, reading: Reading, used: u64) {
        if let Some(given) = reading.given {
            self.throttles.leader.settle(given, used);
        }
    }

    fn send_records(&mut self, to: NodeId, news: News, batches: Vec<Batch>) {
        let Role::Leader(leader) = &self.role else { return };
        let News { high_watermark, log_start } = news;
        let records = Records { epoch: leader.epoch(), high_watermark, log_start, batches };
        self.outward.push(Outward::Send { to, message: Message::Records(records) });
    }
}
