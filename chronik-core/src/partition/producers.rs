//! Idempotent producers (KIP-98): which sequences have been appended, so that a retry is stored once.
//!
//! Per producer id the epoch and the last five batches are kept: five is what Kafka's clients may have in flight. A retry
//! of one of those is a duplicate and is answered with its original offset.
//!
//! **What is not committed may be cut off again**, and then a producer stands where it stood before. So of the batches that
//! are not committed more than five are kept, and the last one that is: what remains of them says what its next sequence is,
//! also where the log itself cannot say it any more, because its records have been dropped.
//!
//! **A retry of what came before those** is known for one, too, where every sequence from it on was appended here: it is
//! answered with DUPLICATE_SEQUENCE_NUMBER, which all clients take for success. They do send such: five batches are on
//! their way to a leader that is cut off, another one takes over with these in its log and is sent the next, and then the
//! first do not answer in time. Were they told that their sequence does not follow, Java's client would ask again for ever,
//! and librdkafka number its records anew and store them twice.
//!
//! A producer without state here, because it is
//! new or was forgotten, may start at any sequence. State leaves only with time ([`Producers::expire`]) or when the
//! bound on their number pushes the longest silent ones out, never because a segment was deleted.

use crate::batch::{Header, sequence_after};
use crate::ids::{Offset, ProducerId};
use crate::time::Timestamp;
use std::collections::{BTreeMap, VecDeque};

/// Batches of a producer that a retry is recognised by.
pub const BATCHES_KEPT: usize = 5;
/// Batches of a producer that are kept because they may be cut off: many more than the five of a client that waits for
/// what is committed. Of one that does not wait more may be cut; then the log is read back from its start.
pub const BATCHES_KEPT_MAX: usize = 64;

/// One appended batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendedBatch {
    /// The producer's.
    pub epoch: i16,
    pub first_sequence: i32,
    pub last_sequence: i32,
    pub base_offset: Offset,
    pub last_offset: Offset,
    pub max_timestamp: Timestamp,
}

/// What is known of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    pub epoch: i16,
    /// The last batches, oldest first: [`BATCHES_KEPT`], or all from the last committed one on where those are more, up to
    /// [`BATCHES_KEPT_MAX`]. The oldest may be of earlier epochs.
    pub batches: VecDeque<AppendedBatch>,
    /// How many sequences of this epoch, up to the last, were appended one after the other as far as is known here.
    pub unbroken: u64,
    /// The broker's clock at its last append, in milliseconds; what it expires by.
    pub last_seen: Timestamp,
}

impl Producer {
    /// Sequence of its last record; −1 if there is none in this epoch.
    pub fn last_sequence(&self) -> i32 {
        self.of_this_epoch().next_back().map_or(-1, |batch| batch.last_sequence)
    }

    /// Those of its batches that are kept and are of its present epoch.
    fn of_this_epoch(&self) -> impl DoubleEndedIterator<Item = &AppendedBatch> {
        self.batches.iter().filter(|batch| batch.epoch == self.epoch)
    }

    /// Forgets the oldest batches, as far as neither a retry nor a cut asks for them.
    fn settle(&mut self, high_watermark: Offset) {
        while self.batches.len() > BATCHES_KEPT {
            let is_next_committed = self.batches.get(1).is_some_and(|next| next.last_offset < high_watermark);
            if !is_next_committed && self.batches.len() <= BATCHES_KEPT_MAX {
                break;
            }
            self.batches.pop_front();
        }
    }

    /// Forgets what lies at and behind `end`; false if nothing is left.
    fn cut(&mut self, end: Offset) -> bool {
        while let Some(batch) = self.batches.pop_back_if(|batch| batch.last_offset >= end) {
            if batch.epoch == self.epoch {
                self.unbroken = self.unbroken.saturating_sub(batch.sequences());
            }
        }
        let Some(latest) = self.batches.back() else { return false };
        if latest.epoch != self.epoch || self.unbroken == 0 {
            // Where the count went over a gap or an epoch's beginning, it is what is kept that tells.
            self.epoch = latest.epoch;
            let mut unbroken = latest.sequences();
            for (earlier, later) in self.batches.iter().zip(self.batches.iter().skip(1)).rev() {
                if earlier.epoch != later.epoch || !earlier.is_followed_by(later.first_sequence) {
                    break;
                }
                unbroken += earlier.sequences();
            }
            self.unbroken = unbroken;
        }
        true
    }
}

impl AppendedBatch {
    fn sequences(&self) -> u64 {
        steps(self.first_sequence, self.last_sequence) + 1
    }

    fn is_followed_by(&self, sequence: i32) -> bool {
        sequence_after(self.last_sequence, 1) == sequence
    }
}

/// What a batch is to its producer's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Append it.
    New,
    /// It was appended before, as this.
    Duplicate(AppendedBatch),
    /// It was appended before, somewhere below `before`.
    Forgotten { before: Offset },
}

/// Why a producer's batch is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the producer's epoch {sent} is older than {current}")]
    StaleEpoch { sent: i16, current: i16 },
    #[error("sequence {sent} does not follow {last}")]
    OutOfOrder { sent: i32, last: i32 },
}

/// Sequences wrap around, so of two that are further apart than this nobody can say which was first.
const SEQUENCES_APART_MAX: u64 = 1 << 30;

/// How many steps it is from one sequence to another that was reached after it.
fn steps(from: i32, to: i32) -> u64 {
    u64::from(to.wrapping_sub(from).cast_unsigned() & i32::MAX.cast_unsigned())
}

/// All producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    by_id: BTreeMap<ProducerId, Producer>,
}

impl Producers {
    /// Whether the batch may be appended. Changes nothing: what was ordered is told by [`Producers::note`].
    pub fn judge(&self, header: &Header) -> Result<Verdict, Refused> {
        if !header.is_idempotent() {
            return Ok(Verdict::New);
        }
        let Some(known) = self.by_id.get(&header.producer_id) else {
            return Ok(Verdict::New);
        };
        let (sent, last) = (header.base_sequence, header.last_sequence());
        if header.producer_epoch < known.epoch {
            return Err(Refused::StaleEpoch { sent: header.producer_epoch, current: known.epoch });
        }
        if header.producer_epoch > known.epoch {
            return if sent == 0 { Ok(Verdict::New) } else { Err(Refused::OutOfOrder { sent, last: -1 }) };
        }
        let same = |batch: &&AppendedBatch| (batch.first_sequence, batch.last_sequence) == (sent, last);
        if let Some(earlier) = known.of_this_epoch().find(same) {
            return Ok(Verdict::Duplicate(*earlier));
        }
        let latest = known.of_this_epoch().next_back();
        if let (Some(oldest), Some(latest)) = (known.of_this_epoch().next(), latest) {
            let back = |sequence| steps(sequence, latest.last_sequence);
            let was_appended = back(sent) < known.unbroken.min(SEQUENCES_APART_MAX) && back(last) <= back(sent);
            if was_appended && back(last) > back(oldest.first_sequence) {
                return Ok(Verdict::Forgotten { before: oldest.base_offset });
            }
        }
        match latest {
            Some(latest) if !latest.is_followed_by(sent) => {
                Err(Refused::OutOfOrder { sent, last: latest.last_sequence })
            }
            _ => Ok(Verdict::New),
        }
    }

    /// Takes a batch into its producer's history: it was ordered, or is read back from the log. What lies below the high
    /// watermark will never be cut off.
    pub fn note(&mut self, header: &Header, seen: Timestamp, high_watermark: Offset) {
        if !header.is_idempotent() || header.attributes.is_control() {
            return;
        }
        let producer = self.by_id.entry(header.producer_id).or_insert_with(|| Producer {
            epoch: header.producer_epoch,
            batches: VecDeque::with_capacity(BATCHES_KEPT + 1),
            unbroken: 0,
            last_seen: seen,
        });
        let latest = producer.batches.back();
        let follows = |latest: &AppendedBatch| {
            latest.epoch == header.producer_epoch && latest.is_followed_by(header.base_sequence)
        };
        if !latest.is_some_and(follows) {
            producer.unbroken = 0;
        }
        let batch = AppendedBatch {
            epoch: header.producer_epoch,
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            max_timestamp: header.max_timestamp,
        };
        producer.epoch = header.producer_epoch;
        producer.unbroken = producer.unbroken.saturating_add(batch.sequences());
        producer.last_seen = producer.last_seen.max(seen);
        producer.batches.push_back(batch);
        producer.settle(high_watermark);
    }

    /// As [`Producers::note`], where the history may hold this batch already.
    pub fn note_again(&mut self, header: &Header, seen: Timestamp, high_watermark: Offset) {
        let latest = self.by_id.get(&header.producer_id).and_then(|known| known.batches.back());
        if latest.is_none_or(|latest| latest.last_offset < header.base_offset) {
            self.note(header, seen, high_watermark);
        }
    }

    /// Forgets the batches that were kept because they were not committed.
    pub fn settle(&mut self, high_watermark: Offset) {
        self.by_id.values_mut().for_each(|producer| producer.settle(high_watermark));
    }

    /// What is known of those who have appended something below `start`; nothing of that is cut off any more.
    #[must_use]
    pub fn before(&self, start: Offset) -> Self {
        let mut before = self.clone();
        before.by_id.retain(|_, producer| producer.cut(start));
        before
    }

    /// Forgets what lies at and behind `end`, of a log that was committed up to `high_watermark`. False if there may be
    /// producers now of which the log knows more than is known here.
    pub fn cut(&mut self, end: Offset, high_watermark: Offset) -> bool {
        let mut all_known = true;
        self.by_id.retain(|_, producer| {
            let kept = producer.batches.len();
            let some_are_left = producer.cut(end);
            // If none is left, it had none before, unless more were forgotten.
            all_known &= some_are_left || kept < BATCHES_KEPT || (kept < BATCHES_KEPT_MAX && end >= high_watermark);
            some_are_left
        });
        all_known
    }

    /// Restores one producer from a checkpoint.
    pub fn restore(&mut self, id: ProducerId, producer: Producer) {
        self.by_id.insert(id, producer);
    }

    /// Forgets those that were last seen before `horizon`, and beyond `count_max` those that are silent longest.
    pub fn expire(&mut self, horizon: Timestamp, count_max: usize) {
        self.by_id.retain(|_, producer| producer.last_seen >= horizon);
        if let Some(surplus) = self.by_id.len().checked_sub(count_max).filter(|surplus| *surplus > 0) {
            let mut by_age: Vec<_> = self.by_id.iter().map(|(id, producer)| (producer.last_seen, *id)).collect();
            by_age.sort_unstable();
            by_age.iter().take(surplus).for_each(|(_, id)| drop(self.by_id.remove(id)));
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (ProducerId, &Producer)> {
        self.by_id.iter().map(|(id, producer)| (*id, producer))
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Builder, RecordOut};

    /// A batch of `count` records by producer 7, as if appended at `base`.
    fn header(epoch: i16, sequence: i32, count: usize, base: i64) -> Header {
        let mut builder = Builder::new(Timestamp(1)).idempotent(ProducerId(7), epoch, sequence);
        (0..count).for_each(|_| builder.push(&RecordOut::default()));
        Header { base_offset: Offset(base), ..builder.build().header }
    }

    fn after(batches: &[(i16, i32, usize, i64)]) -> Producers {
        let mut producers = Producers::default();
        for (epoch, sequence, count, base) in batches {
            let header = header(*epoch, *sequence, *count, *base);
            producers.note(&header, Timestamp(1), header.next_offset());
        }
        producers
    }

    #[test]
    fn a_retry_of_any_of_the_last_five_is_answered_with_its_first_offset() {
        let producers =
            after(&[(0, 0, 2, 10), (0, 2, 1, 12), (0, 3, 1, 13), (0, 4, 1, 14), (0, 5, 1, 15), (0, 6, 1, 16)]);
        match producers.judge(&header(0, 2, 1, 0)) {
            Ok(Verdict::Duplicate(earlier)) => assert_eq!(earlier.base_offset, Offset(12)),
            other => panic!("{other:?}"),
        }
        // The sixth last is beyond the window: where it lies is forgotten, and that it was appended is not.
        assert_eq!(producers.judge(&header(0, 0, 2, 0)), Ok(Verdict::Forgotten { before: Offset(12) }));
        assert_eq!(
            producers.judge(&header(0, 1, 1, 0)),
            Ok(Verdict::Forgotten { before: Offset(12) }),
            "or a part of it"
        );
        assert_eq!(producers.judge(&header(0, 1, 2, 0)), Err(Refused::OutOfOrder { sent: 1, last: 6 }), "neither nor");
        assert_eq!(producers.judge(&header(0, 7, 1, 0)), Ok(Verdict::New));
        assert_eq!(producers.judge(&header(0, 8, 1, 0)), Err(Refused::OutOfOrder { sent: 8, last: 6 }));
    }

    #[test]
    fn only_what_is_known_to_have_been_appended_is_a_retry_of_it() {
        // It began here with 10, and nobody can say what became of those before.
        let late = after(&[(0, 10, 1, 1), (0, 11, 1, 2), (0, 12, 1, 3), (0, 13, 1, 4), (0, 14, 1, 5), (0, 15, 1, 6)]);
        assert_eq!(late.judge(&header(0, 10, 1, 0)), Ok(Verdict::Forgotten { before: Offset(2) }));
        assert_eq!(late.judge(&header(0, 9, 1, 0)), Err(Refused::OutOfOrder { sent: 9, last: 15 }));
        assert_eq!(late.judge(&header(0, 9, 2, 0)), Err(Refused::OutOfOrder { sent: 9, last: 15 }));
        // In an earlier epoch of the producer's the same numbers were others.
        let renewed = after(&[(0, 0, 30, 0), (1, 0, 1, 30), (1, 1, 1, 31)]);
        assert_eq!(renewed.judge(&header(1, 2, 1, 0)), Ok(Verdict::New));
        assert_eq!(renewed.judge(&header(1, 5, 1, 0)), Err(Refused::OutOfOrder { sent: 5, last: 1 }));
        // Across the end of the numbers.
        let mut wrapped = after(&[(0, i32::MAX - 1, 1, 0), (0, i32::MAX, 1, 1)]);
        (0..6).for_each(|at| wrapped.note(&header(0, at, 1, 2 + i64::from(at)), Timestamp(1), Offset(9)));
        let before = Offset(3);
        assert_eq!(wrapped.judge(&header(0, i32::MAX - 1, 1, 0)), Ok(Verdict::Forgotten { before }));
        assert_eq!(wrapped.judge(&header(0, i32::MAX, 2, 0)), Ok(Verdict::Forgotten { before }));
        let too_far = Err(Refused::OutOfOrder { sent: i32::MAX - 2, last: 5 });
        assert_eq!(wrapped.judge(&header(0, i32::MAX - 2, 1, 0)), too_far);
    }

    #[test]
    fn epochs_only_rise_and_a_new_one_starts_at_zero() {
        let producers = after(&[(3, 0, 2, 10)]);
        assert_eq!(producers.judge(&header(2, 0, 1, 0)), Err(Refused::StaleEpoch { sent: 2, current: 3 }));
        assert_eq!(producers.judge(&header(4, 5, 1, 0)), Err(Refused::OutOfOrder { sent: 5, last: -1 }));
        assert_eq!(producers.judge(&header(4, 0, 1, 0)), Ok(Verdict::New));
    }

    #[test]
    fn an_unknown_producer_may_start_anywhere_and_sequences_wrap() {
        assert_eq!(Producers::default().judge(&header(0, 99, 1, 0)), Ok(Verdict::New));
        let at_the_edge = after(&[(0, i32::MAX - 1, 2, 0)]);
        assert_eq!(at_the_edge.judge(&header(0, 0, 1, 0)), Ok(Verdict::New));
        let across = after(&[(0, i32::MAX, 2, 0)]);
        assert_eq!(across.judge(&header(0, 1, 1, 0)), Ok(Verdict::New));
    }

    #[test]
    fn silence_and_numbers_bound_what_is_kept() {
        let mut producers = Producers::default();
        for id in 0..10 {
            let mut batch = header(0, 0, 1, 0);
            batch.producer_id = ProducerId(id);
            producers.note(&batch, Timestamp(id), Offset(1));
        }
        producers.expire(Timestamp(4), 3);
        assert_eq!(producers.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [7, 8, 9]);
    }

    /// Producer 7 after batches of one record each, `(epoch, sequence)`, at offsets from 0 on, of which those below
    /// `high_watermark` are committed.
    fn uncommitted(batches: &[(i16, i32)], high_watermark: i64) -> Producers {
        let mut producers = Producers::default();
        for (at, (epoch, sequence)) in (0..).zip(batches) {
            producers.note(&header(*epoch, *sequence, 1, at), Timestamp(1), Offset(high_watermark));
        }
        producers
    }

    #[test]
    fn after_a_cut_a_producer_stands_where_it_stood_before() {
        let all: Vec<_> = (0..30).map(|sequence| (0, sequence)).collect();
        for committed in 0..=20 {
            for end in committed.max(1)..=30 {
                let mut producers = uncommitted(&all, committed);
                assert!(producers.cut(Offset(end), Offset(committed)), "cut from 30 to {end}, committed {committed}");
                let next = i32::try_from(end).expect("it is small");
                assert_eq!(producers.judge(&header(0, next, 1, 0)), Ok(Verdict::New));
                assert_eq!(
                    producers.judge(&header(0, next + 1, 1, 0)),
                    Err(Refused::OutOfOrder { sent: next + 1, last: next - 1 })
                );
                let again = producers.judge(&header(0, next - 1, 1, 0));
                assert!(
                    matches!(again, Ok(Verdict::Duplicate(batch)) if batch.base_offset == Offset(end - 1)),
                    "{again:?}"
                );
                let known = producers.iter().next().map(|(_, producer)| producer.unbroken);
                assert_eq!(known, Some(end.unsigned_abs()), "all before it are retries");
            }
        }
    }

    #[test]
    fn a_cut_gives_back_the_epoch_that_was_in_force_and_does_not_count_over_gaps() {
        let renewed = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)];
        let mut producers = uncommitted(&renewed, 2);
        assert!(producers.cut(Offset(3), Offset(2)));
        assert_eq!(producers.judge(&header(0, 3, 1, 0)), Ok(Verdict::New));
        assert_eq!(producers.judge(&header(1, 0, 1, 0)), Ok(Verdict::New));
        assert_eq!(producers.judge(&header(1, 1, 1, 0)), Err(Refused::OutOfOrder { sent: 1, last: -1 }));
        assert_eq!(producers.iter().next().map(|(_, producer)| producer.unbroken), Some(3));

        let mut with_a_gap = uncommitted(&[(0, 0), (0, 1), (0, 8), (0, 9)], 0);
        assert!(with_a_gap.cut(Offset(3), Offset(0)));
        assert_eq!(with_a_gap.judge(&header(0, 9, 1, 0)), Ok(Verdict::New));
        assert!(with_a_gap.cut(Offset(2), Offset(0)));
        assert_eq!(with_a_gap.judge(&header(0, 2, 1, 0)), Ok(Verdict::New));
        assert_eq!(with_a_gap.iter().next().map(|(_, producer)| producer.unbroken), Some(2));
    }

    #[test]
    fn a_producer_that_is_cut_off_altogether_is_unknown_and_it_is_said_if_the_log_may_know_more() {
        let mut new = uncommitted(&[(0, 0), (0, 1)], 0);
        assert!(new.cut(Offset(0), Offset(0)), "it had nothing before");
        assert_eq!(new.len(), 0);
        let all: Vec<_> = (0..200).map(|sequence| (0, sequence)).collect();
        let mut more_than_is_kept = uncommitted(&all, 0);
        let kept = more_than_is_kept.iter().next().map(|(_, producer)| producer.batches.len());
        assert_eq!(kept, Some(BATCHES_KEPT_MAX));
        assert!(!more_than_is_kept.cut(Offset(50), Offset(0)));
        let mut committed = uncommitted(&all, 200);
        assert_eq!(committed.iter().next().map(|(_, producer)| producer.batches.len()), Some(BATCHES_KEPT));
        assert!(!committed.cut(Offset(50), Offset(200)), "an unclean election goes back further than what is kept");
        let mut settled = uncommitted(&all[..40], 0);
        settled.settle(Offset(38));
        assert_eq!(settled.iter().next().map(|(_, producer)| producer.batches.len()), Some(BATCHES_KEPT));
    }
}
