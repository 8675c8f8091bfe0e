//! A partition's follower: it attaches to the leader, cuts off what the leader does not have, and takes in what it sends.
//!
//! ```text
//! Detached ── session ──▶ Attaching ── Stream ──▶ Streaming
//!    ▲                      ▲ │ │                    │
//!    │ session ends         │ │ └ NotYet ▶ Waiting ──┤ what does not follow
//!    └── from everywhere    │ └── Diverged, Reset ──▶ Cutting
//!                           └──────── cut and read back ─┘
//! ```
//!
//! What must stay true:
//!
//! - **Records are appended only where the log ends**, in the epoch of this leader, after it has said that the logs agree.
//! - **Nothing below the local watermark is cut** unless the metadata says that the election was unclean: what was committed
//!   here was promised. Where that would be asked for, the replica goes [`Phase::Offline`] and says why.
//! - **Progress is reported of what the log has reported**, never of what was merely handed to it. The log reports in the
//!   order of the calls: what was appended before a cut is not heard of after it.
//! - **Throttled, it gives credit only as it is granted** ([`Follower::credit_wanted`]), and only as long as it lacks records
//!   that are committed. The watermark waits for those who are in sync, so whoever is lacks none of those and is never held
//!   back, however late its metadata tells it.
//! - The machine serves one leader epoch. The next one makes another of what [`Follower::into_recovered`] gives.

use super::checkpoint::Checkpoint;
use super::epochs::Epochs;
use super::leader::Durability;
use super::producers::Producers;
use super::recovery::Recovered;
use crate::batch::Batch;
use crate::ids::{LeaderEpoch, Offset};
use crate::replication::{Attach, Attached, Message, Progress, Records};
use crate::time::{Monotonic, Now, Timestamp};
use crate::wal::LogState;
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::Duration;

/// Records of one partition that may be on their way to a follower: enough to keep a stream busy over a round trip of some
/// milliseconds, little enough that hundreds of partitions catch up at once within ordinary memory.
pub const CREDIT_BYTES: u64 = 4 << 20;
/// The leader is told of credit, where there is nothing else to tell, when so much of it has come back: long before it
/// has none left.
const CREDIT_NEWS_BYTES: u64 = CREDIT_BYTES / 4;
/// A leader that is not ready is asked again after so long; its metadata is seldom further behind.
pub const ASK_AGAIN: Duration = Duration::from_millis(50);
/// A log that took no more is tried again after so long: most often its disk is full, and somebody must make room.
pub const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Where a follower stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// There is no session with the leader.
    Detached,
    /// The leader was asked, and has not answered.
    Attaching,
    /// The leader was not ready, or sent what does not follow; it is asked again then.
    Waiting { until: Monotonic },
    /// Records come.
    Streaming,
    /// The log is being cut and read back.
    Cutting,
    /// It cannot follow, and nothing but an operator or another election changes that.
    Offline(Offline),
}

/// Why a replica cannot follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Offline {
    #[error("the leader does not have records from {from} on, which were committed below {high_watermark}")]
    CommittedRecordsMissing { from: Offset, high_watermark: Offset },
    #[error("the log failed and must be opened again")]
    LogFailed,
}

/// What the follower wants done, in order.
#[derive(Debug)]
pub enum Effect {
    Send(Message),
    /// Append it at the log's end, which is `at`, and report with [`Follower::written`], or [`Follower::refused`]. The
    /// first batch of all may begin before: the leader's log then starts inside it.
    Append {
        at: Offset,
        batch: Batch,
    },
    /// Ask the log to make everything below `upto` durable, and report with [`Follower::durable`].
    Sync {
        upto: Offset,
    },
    /// Remove what lies at and behind `from`, read the log back, and report with [`Follower::cut`].
    Truncate {
        from: Offset,
    },
    /// Remove everything, so that the log begins at `start`, and report with [`Follower::cut`]. What the leader knows of what
    /// came before is `known`; `None`: nothing but what is known here.
    Reset {
        start: Offset,
        known: Option<Bytes>,
    },
    /// The leader's log begins at `upto`: what lies before may be dropped; report with [`Follower::trimmed`].
    Trim {
        upto: Offset,
    },
    /// Consumers of this rack can read more.
    WatermarkAdvanced {
        to: Offset,
    },
    /// Said once.
    Offline(Offline),
}

/// See the module's head.
#[derive(Debug)]
pub struct Follower {
    epoch: LeaderEpoch,
    durability: Durability,
    /// The last leader epoch that began with an unclean election: with a leader that may lack committed records, because the
    /// topic allows that.
    unclean_epoch: Option<LeaderEpoch>,
    /// As [`Recovered::agreed_epoch`].
    agreed_epoch: Option<LeaderEpoch>,
    /// There is a session with the leader.
    session: bool,
    phase: Phase,
    log_start: Offset,
    log_end: Offset,
    written_end: Offset,
    durable_end: Offset,
    high_watermark: Offset,
    /// The last one heard of this leader, whose log this one is a part of since then.
    leaders_watermark: Offset,
    sync_under_way: bool,
    trim_asked: Offset,
    /// Cutting, the log may have lost what lies from there on, and does not say so if it fails at that.
    cut_at: Option<Offset>,
    /// The log took no more: after reading it back there is a pause until then.
    pause_until: Option<Monotonic>,
    producers: Producers,
    epochs: Epochs,
    /// Bytes that the leader may have sent since the attachment.
    credit_bytes: u64,
    received_bytes: u64,
    /// What the leader was told last of the credit.
    told_credit_bytes: u64,
    /// Ends and bytes of appends that are not written yet: each gives its credit back when it is.
    unwritten: VecDeque<(Offset, u64)>,
    unwritten_bytes: u64,
    /// The topic names this replica as one to be throttled, and it is not in the in-sync set as far as is known here.
    throttled: bool,
    /// No credit was granted; it is asked for again then.
    held_until: Option<Monotonic>,
    effects: VecDeque<Effect>,
}

impl Follower {
    /// Takes up following in `epoch` over what was recovered. `unclean_epoch`: the last one that began with a leader that may
    /// lack committed records, because the topic allows that.
    pub fn new(
        recovered: Recovered,
        epoch: LeaderEpoch,
        durability: Durability,
        unclean_epoch: Option<LeaderEpoch>,
    ) -> Self {
        let Recovered { checkpoint, log, agreed_epoch } = recovered;
        let high_watermark = checkpoint.high_watermark;
        let mut follower = Self {
            epoch,
            durability,
            unclean_epoch,
            agreed_epoch,
            session: false,
            phase: Phase::Detached,
            log_start: Offset::ZERO,
            log_end: Offset::ZERO,
            written_end: Offset::ZERO,
            durable_end: Offset::ZERO,
            high_watermark,
            leaders_watermark: Offset::ZERO,
            sync_under_way: false,
            trim_asked: Offset::ZERO,
            cut_at: None,
            pause_until: None,
            producers: Producers::default(),
            epochs: Epochs::default(),
            credit_bytes: 0,
            received_bytes: 0,
            told_credit_bytes: 0,
            unwritten: VecDeque::new(),
            unwritten_bytes: 0,
            throttled: false,
            held_until: None,
            effects: VecDeque::new(),
        };
        follower.take_over(checkpoint, log);
        follower
    }

    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    pub fn log_end(&self) -> Offset {
        self.log_end
    }

    /// Consumers may read below this; never beyond what this log has.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    pub fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// What an acknowledgement promises has changed.
    pub fn set_durability(&mut self, durability: Durability) {
        self.durability = durability;
        self.sync_if_due();
        self.report();
    }

    /// When [`Follower::tick`] is due.
    pub fn deadline(&self) -> Option<Monotonic> {
        match self.phase {
            Phase::Waiting { until } => Some(until),
            Phase::Streaming if self.is_held_back() => self.held_until,
            _ => None,
        }
    }

    /// Whether it is throttled as long as it is not in sync.
    pub fn set_throttled(&mut self, throttled: bool) {
        self.throttled = throttled;
        self.restore_credit();
        if self.credit_bytes > self.told_credit_bytes {
            self.report();
        }
    }

    /// It is throttled, and lacks records that are committed.
    fn is_held_back(&self) -> bool {
        self.throttled && self.log_end < self.leaders_watermark
    }

    /// Bytes of credit that are to be granted ([`Follower::grant`]) or not ([`Follower::hold`]) before the leader gets them.
    pub fn credit_wanted(&mut self, now: Monotonic) -> Option<u64> {
        if self.phase != Phase::Streaming || !self.is_held_back() || self.held_until.is_some_and(|until| until > now) {
            return None;
        }
        self.held_until = None;
        let wanted = self.full_credit().saturating_sub(self.credit_bytes);
        (wanted >= CREDIT_NEWS_BYTES).then_some(wanted)
    }

    /// So much more may be sent.
    pub fn grant(&mut self, bytes: u64) {
        self.credit_bytes += bytes;
        self.report();
    }

    /// No credit now: it is asked for again then.
    pub fn hold(&mut self, until: Monotonic) {
        self.held_until = Some(until);
    }

    /// What the leader may have sent since the attachment when nothing holds it back: a window beyond what is written.
    fn full_credit(&self) -> u64 {
        (self.received_bytes + CREDIT_BYTES).saturating_sub(self.unwritten_bytes)
    }

    fn restore_credit(&mut self) {
        if !self.is_held_back() {
            self.held_until = None;
            self.credit_bytes = self.credit_bytes.max(self.full_credit());
        }
    }

    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// What the next leader epoch starts from, in whichever role.
    pub fn into_recovered(self) -> Recovered {
        let high_watermark = self.high_watermark;
        let checkpoint =
            Checkpoint { upto: self.log_end, high_watermark, producers: self.producers, epochs: self.epochs };
        let stays_end = self.cut_at.unwrap_or(self.log_end);
        let log = LogState {
            start: self.log_start,
            end: self.log_end,
            written_end: self.written_end.min(stays_end),
            durable_end: self.durable_end.min(stays_end),
            last_epoch: checkpoint.epochs.latest().unwrap_or_default(),
            ..LogState::default()
        };
        Recovered { checkpoint, log, agreed_epoch: self.agreed_epoch }
    }

    /// As a leader's: a follower remembers producers for the day when it leads.
    pub fn expire_producers(&mut self, horizon: Timestamp, count_max: usize) {
        self.producers.settle(self.high_watermark);
        self.producers.expire(horizon, count_max);
    }

    /// Whether a cut has been asked for, and not been heard of.
    pub fn is_cutting(&self) -> bool {
        self.phase == Phase::Cutting
    }

    /// As a leader's; none while the log is being cut.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        (!self.is_cutting()).then(|| Checkpoint {
            upto: self.log_end,
            high_watermark: self.high_watermark,
            producers: self.producers.clone(),
            epochs: self.epochs.clone(),
        })
    }

    /// A session with the leader began.
    pub fn session_up(&mut self) {
        self.session = true;
        if self.phase == Phase::Detached {
            self.attach();
        }
    }

    /// The session with the leader ended. A cut goes on: it is right whoever is asked next.
    pub fn session_down(&mut self) {
        self.session = false;
        if matches!(self.phase, Phase::Attaching | Phase::Waiting { .. } | Phase::Streaming) {
            self.phase = Phase::Detached;
        }
    }

    pub fn tick(&mut self, now: Now) {
        if let Phase::Waiting { until } = self.phase
            && until <= now.monotonic
        {
            self.attach();
        }
    }

    /// The leader's answer to an attachment.
    pub fn attached(&mut self, now: Now, answer: Attached) {
        if self.phase != Phase::Attaching {
            return;
        }
        match answer {
            Attached::Stream { epoch, high_watermark } if epoch == self.epoch => {
                self.phase = Phase::Streaming;
                if self.may_lose() {
                    // What was committed here may have been given up meanwhile, by a leader that this log never followed, also
                    // where the present one has it again: it is committed when this leader says so.
                    self.high_watermark = self.high_watermark.min(high_watermark).max(self.log_start);
                }
                self.agreed_epoch = Some(self.epoch);
                self.learn_watermark(high_watermark);
                self.restore_credit();
                self.report();
            }
            Attached::Diverged { epoch, last_epoch, end } if epoch == self.epoch => {
                // Of the epoch that the leader names, this log may have less, and before it, all.
                let from = match self.epochs.end_of(last_epoch, self.log_end) {
                    Some((ours, our_end)) if ours == last_epoch => end.min(our_end),
                    Some((_, our_end)) => our_end,
                    // All that was ever here is of later epochs than anything that the leader has.
                    None => self.log_start.min(end),
                };
                // Where no records are left, the epoch that is known of them may be what the leader does not have.
                let is_empty = self.log_start == self.log_end;
                if (from >= self.log_end && !is_empty) || from < Offset::ZERO {
                    // It asks for nothing to be cut: the two would ask each other for ever without a pause.
                    return self.wait(now);
                }
                // A log cannot be cut to before its start; there it begins anew.
                let nothing_stays = from < self.log_start || is_empty;
                let cut =
                    if nothing_stays { Effect::Reset { start: from, known: None } } else { Effect::Truncate { from } };
                self.cut_from(from, cut);
            }
            Attached::Reset { epoch, start, known } if epoch == self.epoch && start >= Offset::ZERO => {
                self.cut_from(start.min(self.log_end), Effect::Reset { start, known: Some(known) });
            }
            // Of another epoch: the metadata will tell, and make another machine of this one.
            Attached::Stream { .. }
            | Attached::Diverged { .. }
            | Attached::Reset { .. }
            | Attached::Fenced { .. }
            | Attached::NotYet { .. } => self.wait(now),
        }
    }

    /// Records have come, or news of the leader's watermark and start.
    pub fn records(&mut self, now: Now, records: Records) {
        if self.phase != Phase::Streaming || records.epoch != self.epoch {
            return;
        }
        for batch in records.batches {
            let header = &batch.header;
            let is_first = self.log_start == self.log_end;
            let begins = header.base_offset == self.log_end
                || (is_first && header.base_offset < self.log_end && self.log_end < header.next_offset());
            // One that holds no offset, or is of no epoch, is of no leader: the log would refuse it, again and again.
            let is_one = header.base_offset < header.next_offset() && header.leader_epoch.0 >= 0;
            let follows = begins
                && is_one
                && header.leader_epoch <= self.epoch
                && self.epochs.latest().is_none_or(|last| last <= header.leader_epoch);
            if !follows || !batch.is_intact() {
                // Never append what does not follow, nor what was damaged on its way: begin again from the log.
                return self.wait(now);
            }
            let bytes = header.size_bytes() as u64;
            self.received_bytes += bytes;
            let at = self.log_end;
            self.log_end = header.next_offset();
            self.producers.note(header, now.wall, self.high_watermark);
            self.epochs.note(header.leader_epoch, at);
            self.unwritten.push_back((self.log_end, bytes));
            self.unwritten_bytes += bytes;
            self.effects.push_back(Effect::Append { at, batch });
        }
        if records.log_start > self.log_end {
            // The leader has dropped what comes next here.
            return self.wait(now);
        }
        self.learn_watermark(records.high_watermark);
        let start = records.log_start.min(self.log_end);
        if start > self.log_start.max(self.trim_asked) {
            self.trim_asked = start;
            self.effects.push_back(Effect::Trim { upto: start });
        }
    }

    /// The log has handed everything below `end` to the operating system.
    pub fn written(&mut self, end: Offset) {
        self.written_end = self.written_end.max(end).min(self.log_end);
        while let Some((_, bytes)) = self.unwritten.pop_front_if(|(end, _)| *end <= self.written_end) {
            self.unwritten_bytes -= bytes;
        }
        self.restore_credit();
        self.show_watermark();
        self.sync_if_due();
        // Where only what is durable counts, that it is written is told along with it, unless the leader needs the credit.
        let told_later = self.durability == Durability::Fsync && self.sync_under_way;
        if !told_later || self.credit_bytes - self.told_credit_bytes >= CREDIT_NEWS_BYTES {
            self.report();
        }
    }

    /// A sync that an [`Effect::Sync`] asked for has ended.
    pub fn durable(&mut self, end: Offset) {
        self.sync_under_way = false;
        self.durable_end = self.durable_end.max(end).min(self.log_end);
        self.sync_if_due();
        self.report();
    }

    /// The log, which ends at `end`, took no more: what this machine believes of it is read back, and the leader asked
    /// again after a pause.
    pub fn refused(&mut self, now: Now, end: Offset) {
        if !self.is_cutting() {
            self.phase = Phase::Cutting;
            self.pause_until = Some(now.monotonic + TRY_AGAIN);
            self.cut_at = Some(end);
            self.effects.retain(|effect| !matches!(effect, Effect::Append { .. }));
            self.effects.push_back(Effect::Truncate { from: end });
        }
    }

    /// The log has been cut, and read back.
    pub fn cut(&mut self, recovered: Recovered) {
        // What has been agreed on stays so: what is cut off is what was not committed then.
        let Recovered { checkpoint, log, agreed_epoch: _ } = recovered;
        self.take_over(checkpoint, log);
        if self.is_cutting() {
            self.phase = Phase::Detached;
            match self.pause_until.take() {
                Some(until) if self.session => self.phase = Phase::Waiting { until },
                _ if self.session => self.attach(),
                _ => {}
            }
        }
        // Of what was written meanwhile nothing was synced, and there may never be more.
        self.sync_if_due();
    }

    /// The log now starts at `start`.
    pub fn trimmed(&mut self, start: Offset) {
        self.log_start = self.log_start.max(start);
        self.high_watermark = self.high_watermark.max(self.log_start);
        self.epochs.truncate_prefix(self.log_start);
        self.report();
    }

    /// The log failed.
    pub fn fail(&mut self) {
        self.go_offline(Offline::LogFailed);
    }

    fn take_over(&mut self, checkpoint: Checkpoint, log: LogState) {
        self.log_start = log.start;
        self.log_end = log.end;
        self.written_end = log.written_end;
        self.durable_end = log.durable_end;
        // Falls only with a cut that an unclean election allows, or where the log was reset behind it.
        self.high_watermark = self.high_watermark.min(log.end).max(log.start);
        self.producers = checkpoint.producers;
        self.epochs = checkpoint.epochs;
        self.sync_under_way = false;
        self.cut_at = None;
        self.trim_asked = log.start;
        self.unwritten.clear();
        self.unwritten_bytes = 0;
    }

    fn attach(&mut self) {
        self.phase = Phase::Attaching;
        self.received_bytes = 0;
        self.held_until = None;
        // What is still being written counts against the new session too. Whether one that is throttled lacks anything it
        // knows when the leader has answered.
        self.credit_bytes = if self.throttled { 0 } else { self.full_credit() };
        self.told_credit_bytes = self.credit_bytes;
        let attach = Attach {
            epoch: self.epoch,
            log_start: self.log_start,
            log_end: self.log_end,
            last_epoch: self.epochs.latest(),
            credit_bytes: self.credit_bytes,
        };
        self.effects.push_back(Effect::Send(Message::Attach(attach)));
    }

    fn wait(&mut self, now: Now) {
        self.phase = Phase::Waiting { until: now.monotonic + ASK_AGAIN };
    }

    /// Whether the leader may lack what is committed here. Whoever has records of the unclean epoch has been cut for it
    /// already, and so has whoever agreed with its leader and was cut again since.
    fn may_lose(&self) -> bool {
        let settled = self.epochs.latest().max(self.agreed_epoch);
        self.unclean_epoch.is_some_and(|unclean| settled.is_none_or(|settled| settled < unclean))
    }

    fn cut_from(&mut self, from: Offset, effect: Effect) {
        if from < self.high_watermark && !self.may_lose() {
            let high_watermark = self.high_watermark;
            return self.go_offline(Offline::CommittedRecordsMissing { from, high_watermark });
        }
        self.phase = Phase::Cutting;
        self.cut_at = Some(if matches!(effect, Effect::Reset { .. }) { self.log_start } else { from });
        self.effects.push_back(effect);
    }

    fn go_offline(&mut self, why: Offline) {
        if !matches!(self.phase, Phase::Offline(_)) {
            self.phase = Phase::Offline(why);
            self.effects.push_back(Effect::Offline(why));
        }
    }

    fn learn_watermark(&mut self, leaders: Offset) {
        self.leaders_watermark = self.leaders_watermark.max(leaders);
        self.show_watermark();
    }

    /// As far as the log has reported: what was merely handed to it may be refused, and a watermark never falls.
    fn show_watermark(&mut self) {
        let reached = self.leaders_watermark.min(self.written_end);
        if reached > self.high_watermark {
            self.high_watermark = reached;
            self.effects.push_back(Effect::WatermarkAdvanced { to: reached });
        }
    }

    fn sync_if_due(&mut self) {
        let goes_on = !matches!(self.phase, Phase::Offline(_) | Phase::Cutting);
        let wanted = self.durability == Durability::Fsync && self.written_end > self.durable_end;
        if goes_on && wanted && !self.sync_under_way {
            self.sync_under_way = true;
            self.effects.push_back(Effect::Sync { upto: self.written_end });
        }
    }

    /// Tells the leader how far this log has come.
    fn report(&mut self) {
        if self.phase == Phase::Streaming {
            let progress = Progress {
                epoch: self.epoch,
                log_start: self.log_start,
                written_end: self.written_end,
                durable_end: self.durable_end,
                credit_bytes: self.credit_bytes,
            };
            self.told_credit_bytes = self.credit_bytes;
            self.effects.push_back(Effect::Send(Message::Progress(progress)));
        }
    }
}

#[cfg(test)]
mod tests;
