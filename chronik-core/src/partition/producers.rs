//! Idempotent producers (KIP-98): which sequences have been appended, so that a retry is stored once.
//!
//! Per producer id the epoch and the last five batches are kept: five is what Kafka's clients may have in flight. A retry
//! of one of those is a duplicate and is answered with its original offset.
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

/// One appended batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendedBatch {
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
    /// The last batches of this epoch, oldest first; at most [`BATCHES_KEPT`].
    pub batches: VecDeque<AppendedBatch>,
    /// How many sequences, up to the last, were appended one after the other as far as is known here.
    pub unbroken: u64,
    /// The broker's clock at its last append, in milliseconds; what it expires by.
    pub last_seen: Timestamp,
}

impl Producer {
    /// Sequence of its last record; −1 if there is none in this epoch.
    pub fn last_sequence(&self) -> i32 {
        self.batches.back().map_or(-1, |batch| batch.last_sequence)
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
        if let Some(earlier) = known.batches.iter().find(same) {
            return Ok(Verdict::Duplicate(*earlier));
        }
        if let (Some(oldest), Some(latest)) = (known.batches.front(), known.batches.back()) {
            let back = |sequence| steps(sequence, latest.last_sequence);
            let was_appended = back(sent) < known.unbroken.min(SEQUENCES_APART_MAX) && back(last) <= back(sent);
            if was_appended && back(last) > back(oldest.first_sequence) {
                return Ok(Verdict::Forgotten { before: oldest.base_offset });
            }
        }
        match known.batches.back() {
            Some(latest) if sequence_after(latest.last_sequence, 1) != sent => {
                Err(Refused::OutOfOrder { sent, last: latest.last_sequence })
            }
            _ => Ok(Verdict::New),
        }
    }

    /// Takes a batch into its producer's history: it was ordered, or is read back from the log.
    pub fn note(&mut self, header: &Header, seen: Timestamp) {
        if !header.is_idempotent() || header.attributes.is_control() {
            return;
        }
        let producer = self.by_id.entry(header.producer_id).or_insert_with(|| Producer {
            epoch: header.producer_epoch,
            batches: VecDeque::with_capacity(BATCHES_KEPT),
            unbroken: 0,
            last_seen: seen,
        });
        if producer.epoch != header.producer_epoch {
            producer.epoch = header.producer_epoch;
            producer.batches.clear();
        }
        let follows = |latest: &AppendedBatch| sequence_after(latest.last_sequence, 1) == header.base_sequence;
        if !producer.batches.back().is_some_and(follows) {
            producer.unbroken = 0;
        }
        producer.unbroken = producer.unbroken.saturating_add(steps(header.base_sequence, header.last_sequence()) + 1);
        if producer.batches.len() == BATCHES_KEPT {
            producer.batches.pop_front();
        }
        producer.last_seen = producer.last_seen.max(seen);
        producer.batches.push_back(AppendedBatch {
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            max_timestamp: header.max_timestamp,
        });
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
            producers.note(&header(*epoch, *sequence, *count, *base), Timestamp(1));
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
        (0..6).for_each(|at| wrapped.note(&header(0, at, 1, 2 + i64::from(at)), Timestamp(1)));
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
            producers.note(&batch, Timestamp(id));
        }
        producers.expire(Timestamp(4), 3);
        assert_eq!(producers.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [7, 8, 9]);
    }
}
