//! What a partition saves beside its log, so that a restart need not read the whole of it: who produced what, and which
//! epoch wrote where, as of an offset. What the log holds after that offset is replayed on top.
//!
//! Losing a checkpoint is safe: everything in it can be read from the log again, as long as the log still holds it.
//! Therefore one is written before a prefix of the log is dropped, and where a log is cut, it stays as far as it speaks of
//! what stays ([`Checkpoint::cut`]).

use super::epochs::Epochs;
use super::producers::{AppendedBatch, Producer, Producers};
use crate::crc32c;
use crate::ids::{LeaderEpoch, Offset, ProducerId};
use crate::time::Timestamp;
use prost::Message;
use std::collections::VecDeque;

/// Name of the value beside the log.
pub const META_KEY: &str = "partition";

/// State of a partition as of `upto`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Every batch below this offset is accounted for.
    pub upto: Offset,
    /// What was known to be committed. A log that comes back with less has lost what was promised.
    pub high_watermark: Offset,
    pub producers: Producers,
    pub epochs: Epochs,
}

#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(int64, tag = "1")]
    upto: i64,
    #[prost(message, repeated, tag = "2")]
    producers: Vec<StoredProducer>,
    #[prost(message, repeated, tag = "3")]
    epochs: Vec<StoredEpoch>,
    /// CRC-32C of the message with this field zero: a checkpoint that is damaged is as good as none.
    #[prost(fixed32, tag = "4")]
    crc: u32,
    #[prost(int64, tag = "5")]
    high_watermark: i64,
}

#[derive(Clone, PartialEq, Message)]
struct StoredProducer {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int32, tag = "2")]
    epoch: i32,
    #[prost(int64, tag = "3")]
    last_seen_ms: i64,
    #[prost(message, repeated, tag = "4")]
    batches: Vec<StoredBatch>,
    #[prost(uint64, tag = "5")]
    unbroken: u64,
}

#[derive(Clone, PartialEq, Message)]
struct StoredBatch {
    #[prost(int32, tag = "1")]
    first_sequence: i32,
    #[prost(int32, tag = "2")]
    last_sequence: i32,
    #[prost(int64, tag = "3")]
    base_offset: i64,
    #[prost(int64, tag = "4")]
    last_offset: i64,
    #[prost(int64, tag = "5")]
    max_timestamp_ms: i64,
    #[prost(int32, tag = "6")]
    epoch: i32,
}

#[derive(Clone, PartialEq, Message)]
struct StoredEpoch {
    #[prost(int32, tag = "1")]
    epoch: i32,
    #[prost(int64, tag = "2")]
    start: i64,
}

impl Checkpoint {
    /// What is true of it when the log ends at `end`; what was committed is not touched by this. Where it cannot say
    /// everything of what stays, [`Checkpoint::upto`] is 0: the log is to be read back from its start.
    #[must_use]
    pub fn cut(mut self, end: Offset) -> Self {
        // One that is to be read back may speak of more than what was there at the last cut.
        if self.upto > end || self.upto == Offset::ZERO {
            let all_known = self.producers.cut(end, self.high_watermark);
            self.upto = if all_known { self.upto.min(end) } else { Offset::ZERO };
            self.epochs.truncate_suffix(end);
        }
        self
    }

    pub fn encode(&self) -> Vec<u8> {
        let producers = self.producers.iter().map(|(id, producer)| StoredProducer {
            id: id.0,
            epoch: i32::from(producer.epoch),
            last_seen_ms: producer.last_seen.0,
            unbroken: producer.unbroken,
            batches: producer
                .batches
                .iter()
                .map(|batch| StoredBatch {
                    first_sequence: batch.first_sequence,
                    last_sequence: batch.last_sequence,
                    base_offset: batch.base_offset.0,
                    last_offset: batch.last_offset.0,
                    max_timestamp_ms: batch.max_timestamp.0,
                    epoch: i32::from(batch.epoch),
                })
                .collect(),
        });
        let epochs = self.epochs.starts().iter().map(|(epoch, start)| StoredEpoch { epoch: epoch.0, start: start.0 });
        let mut stored = Stored {
            upto: self.upto.0,
            producers: producers.collect(),
            epochs: epochs.collect(),
            crc: 0,
            high_watermark: self.high_watermark.0,
        };
        stored.crc = crc32c::crc32c(&stored.encode_to_vec());
        stored.encode_to_vec()
    }

    /// `None` if the bytes are damaged.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut stored = Stored::decode(bytes).ok()?;
        let crc = std::mem::take(&mut stored.crc);
        if crc != crc32c::crc32c(&stored.encode_to_vec()) {
            return None;
        }
        let high_watermark = Offset(stored.high_watermark);
        let mut checkpoint = Checkpoint { upto: Offset(stored.upto), high_watermark, ..Checkpoint::default() };
        for producer in stored.producers {
            let mut batches = VecDeque::with_capacity(producer.batches.len());
            for batch in &producer.batches {
                batches.push_back(AppendedBatch {
                    epoch: i16::try_from(batch.epoch).ok()?,
                    first_sequence: batch.first_sequence,
                    last_sequence: batch.last_sequence,
                    base_offset: Offset(batch.base_offset),
                    last_offset: Offset(batch.last_offset),
                    max_timestamp: Timestamp(batch.max_timestamp_ms),
                });
            }
            let restored = Producer {
                epoch: i16::try_from(producer.epoch).ok()?,
                batches,
                unbroken: producer.unbroken,
                last_seen: Timestamp(producer.last_seen_ms),
            };
            checkpoint.producers.restore(ProducerId(producer.id), restored);
        }
        checkpoint.epochs =
            Epochs::from_starts(stored.epochs.iter().map(|epoch| (LeaderEpoch(epoch.epoch), Offset(epoch.start))));
        Some(checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Builder, RecordOut};

    #[test]
    fn a_checkpoint_survives_its_bytes_and_damage_is_noticed() {
        let mut checkpoint = Checkpoint { upto: Offset(12), high_watermark: Offset(9), ..Checkpoint::default() };
        let mut builder = Builder::new(Timestamp(5)).idempotent(ProducerId(3), 1, 40);
        builder.push(&RecordOut::default());
        checkpoint.producers.note(&builder.build().header, Timestamp(9), Offset(9));
        checkpoint.epochs.note(LeaderEpoch(2), Offset(0));
        let bytes = checkpoint.encode();
        assert_eq!(Checkpoint::decode(&bytes), Some(checkpoint));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(Checkpoint::decode(&damaged), None, "byte {at} flipped unnoticed");
        }
    }
}
