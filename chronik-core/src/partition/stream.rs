//! The stream of one leader to one follower, while there is a session: what is to be sent next, and when.
//!
//! Records go under credit that the follower gives; the news (watermark, start of the log) go with them, and alone where there
//! are none.
//!
//! **Throttled** is who is held: it gets no records for a while, but news. Whom that may befall [`super::replicas`] knows.
//!
//! **What nobody waits for gathers.** A message to a follower costs it a write, a sync and an answer, whatever it carries. So as
//! long as no producer waits for replicas, a stream has one message of few bytes on its way at a time; what is appended
//! meanwhile goes when the follower has answered, when it has become much, or after [`GATHER_MAX`].

use crate::ids::Offset;
use crate::replication::{Attach, Progress};
use crate::time::Monotonic;
use std::time::Duration;

/// Between two messages to a follower that carry no records there is at least so much: what its consumers see later by that
/// is next to nothing, and a busy partition would tell of its watermark as often as it sends records.
pub(super) const NEWS_ALONE_EVERY: Duration = Duration::from_millis(5);

/// From so many bytes on records do not wait for others: a message's cost is small beside theirs.
pub(super) const GATHER_BYTES: u64 = 16 << 10;

/// Nor any longer than this for a follower's answer: where that takes its time, because it is far away, more messages on
/// their way are better than records that wait.
pub(super) const GATHER_MAX: Duration = Duration::from_millis(2);

/// See the module's head.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
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
    /// A follower that has this attaches to a log that ends at `leader_end`.
    pub fn new(now: Monotonic, attach: &Attach, leader_end: Offset, high_watermark: Offset) -> Self {
        Self {
            next: attach.log_end,
            credit_bytes: attach.credit_bytes,
            sent_bytes: 0,
            answered: attach.log_end,
            unsent_bytes: if attach.log_end < leader_end { u64::MAX / 2 } else { 0 },
            records_sent_at: now,
            told: News { high_watermark, log_start: Offset::ZERO },
            told_alone_at: None,
            held_until: None,
        }
    }

    /// The follower has come further. False if it says to have what it was not sent.
    pub fn answered(&mut self, progress: &Progress) -> bool {
        let is_possible = progress.written_end <= self.next;
        if is_possible {
            self.credit_bytes = self.credit_bytes.max(progress.credit_bytes);
            self.answered = self.answered.max(progress.written_end);
        }
        is_possible
    }

    /// The leader's log has got so many bytes more.
    pub fn ordered(&mut self, bytes: u64) {
        self.unsent_bytes = self.unsent_bytes.saturating_add(bytes);
    }

    /// What is to be sent now: records, or what is new about them. `None` if everything has been sent and told, or if it is
    /// to come a little later ([`Stream::due_at`]). `held_until` where being held counts.
    pub fn due(&self, now: Monotonic, source: Source, held_until: Option<Monotonic>) -> Option<Due> {
        if self.gathers_until(source).is_some_and(|until| until > now) {
            // The records tell the news.
            return None;
        }
        let is_held = held_until.is_some_and(|until| until > now);
        let credit = if is_held { 0 } else { self.credit_for(source.log_end) };
        let tell = self.told != source.news && self.may_tell_alone_at() <= now;
        (credit > 0 || tell).then_some(Due { from: self.next, bytes_max: credit })
    }

    /// When [`Stream::due`] has something at the latest, if no records come before.
    pub fn due_at(&self, source: Source, held_until: Option<Monotonic>) -> Option<Monotonic> {
        let untold = (self.told != source.news).then(|| self.may_tell_alone_at());
        let held = held_until.filter(|_| self.credit_for(source.log_end) > 0);
        match self.gathers_until(source) {
            // Then records go, unless the throttle holds them.
            Some(until) if held.is_none() => Some(until),
            gathers => untold.into_iter().chain(held).min().map(|at| gathers.map_or(at, |until| at.max(until))),
        }
    }

    /// Records up to `next`, and the news, were sent.
    pub fn sent(&mut self, now: Monotonic, next: Offset, bytes: u64, source: Source) {
        self.next = self.next.max(next);
        self.sent_bytes += bytes;
        self.unsent_bytes = if self.next < source.log_end { self.unsent_bytes.saturating_sub(bytes) } else { 0 };
        self.told = source.news;
        if bytes == 0 {
            self.told_alone_at = Some(now);
        } else {
            self.held_until = None;
            self.records_sent_at = now;
        }
    }

    /// No records before then, for whom that counts.
    pub fn hold(&mut self, until: Monotonic) {
        self.held_until = Some(until);
    }

    pub fn release(&mut self) {
        self.held_until = None;
    }

    pub fn held_until(&self) -> Option<Monotonic> {
        self.held_until
    }

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
