//! Record batches, as a produce request brings them: checked, and looked into or compressed otherwise where the topic asks.
//!
//! The first byte chooses what the topic asks for. Length and checksum are made right again after most mutations, and the
//! count of records after some: what nobody would send is a sound batch of unsound records. What is accepted must read
//! back as the same batch, with the records that its header counts, in their order; and nothing may inflate beyond the cap.

use crate::target::{Seen, Target, about};
use bytes::Bytes;
use chronik_api::compression::{InflateError, deflate, inflate};
use chronik_api::kafka::recode::{Recode, is_as_wanted};
use chronik_core::batch::{
    Batch, Builder, Checked, CheckedBatch, Compression, HEADER_BYTES, Header, LENGTH_PREFIX_BYTES, RecordOut, Records,
    Rejection, Rules, TimestampType, Validation, check,
};
use chronik_core::ids::{Offset, ProducerId};
use chronik_core::metadata::topic_config::CompressionPolicy;
use chronik_core::time::Timestamp;

/// See the module's head.
pub struct Batches;

const NOW: Timestamp = Timestamp(1_700_000_000_000);
/// What records may inflate to here: little, so that inputs of a few hundred bytes reach it.
const INFLATED_BYTES_MAX: usize = 64 * 1024;

/// What a topic asks for, by the bits of one byte.
struct Topic {
    rules: Rules,
    policy: CompressionPolicy,
}

impl Topic {
    fn of(choice: u8) -> Self {
        let is = |bit: u8| choice & 1 << bit != 0;
        let rules = Rules {
            max_message_bytes: 1 << 20,
            timestamp_type: if is(0) { TimestampType::LogAppendTime } else { TimestampType::CreateTime },
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            keys_required: is(1),
            validation: if is(2) { Validation::Full } else { Validation::Header },
            zstd_allowed: !is(3),
        };
        let codec = Compression::ALL.get(usize::from(choice >> 4)).copied();
        let policy = codec.map_or(CompressionPolicy::Producer, |codec| CompressionPolicy::Codec { codec, level: None });
        Self { rules, policy }
    }

    /// What produce does with a partition's records.
    fn judge(&self, sent: &Bytes) -> Result<CheckedBatch, Rejection> {
        let batch = match check(sent, &self.rules, NOW)? {
            Checked::Inflate(batch) => batch,
            Checked::Good(good) if is_as_wanted(good.header().attributes.compression(), self.policy) => {
                return Ok(good);
            }
            Checked::Good(good) => good.into_batch(),
        };
        let recode = Recode { batch, rules: self.rules, policy: self.policy, inflated_bytes_max: INFLATED_BYTES_MAX };
        recode.run(NOW)
    }
}

/// How many records there are, in order from zero; `None` if they are no records.
fn count(body: &[u8]) -> Option<usize> {
    let mut count = 0;
    for record in Records::new(body) {
        let record = record.ok()?;
        assert!(record.headers().count() <= body.len(), "a header has a length at least");
        if usize::try_from(record.offset_delta) != Ok(count) {
            return None;
        }
        count += 1;
    }
    Some(count)
}

/// Inflates, and looks whether the cap was kept.
fn inflated(batch: &Batch) -> Result<Bytes, InflateError> {
    let codec = batch.header.attributes.compression().unwrap_or_default();
    if codec == Compression::None {
        return Ok(batch.records.clone());
    }
    let inflated = inflate(codec, &batch.records, INFLATED_BYTES_MAX)?;
    assert!(inflated.len() <= INFLATED_BYTES_MAX, "{} bytes came out of {}", inflated.len(), batch.records.len());
    Ok(inflated)
}

/// What must hold of a batch that was taken.
fn look_at(taken: &Batch, sent: &Batch, topic: &Topic) {
    let bytes = taken.to_payload().to_bytes();
    let mut rest = bytes.clone();
    assert_eq!(Batch::split_from(&mut rest).as_ref(), Ok(taken), "it is read again as another");
    assert!(rest.is_empty() && taken.is_intact(), "its length or its checksum is wrong");
    let header = &taken.header;
    assert_eq!(i64::from(header.records_count), i64::from(header.last_offset_delta) + 1);
    assert_eq!(header.records_count, sent.header.records_count);
    // A leader gives it its place, wherever its producer says it is.
    let placed = Header { base_offset: Offset::ZERO, ..*header };
    assert_eq!(placed.next_offset().0, i64::from(header.records_count));
    let is_compressed = sent.header.attributes.compression() != Some(Compression::None);
    let was_looked_into = !is_compressed
        || topic.rules.validation == Validation::Full
        || topic.rules.keys_required
        || !is_as_wanted(sent.header.attributes.compression(), topic.policy);
    if was_looked_into {
        let records = inflated(taken).unwrap_or_else(|error| panic!("what was looked into does not inflate: {error}"));
        assert_eq!(count(&records), usize::try_from(header.records_count).ok(), "it does not hold what it counts");
    }
}

fn batch(records: usize, value: &[u8]) -> Batch {
    let mut builder = Builder::new(NOW).idempotent(ProducerId(7), 0, 3);
    for _ in 0..records {
        let headers: [(&[u8], Option<&[u8]>); 2] = [(b"one", Some(b"1")), (b"two", None)];
        builder.push(&RecordOut { key: Some(b"key"), value: Some(value), headers: &headers, ..RecordOut::default() });
    }
    builder.build()
}

impl Target for Batches {
    fn name(&self) -> &'static str {
        "batches"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let mut seeds = Vec::new();
        for (records, value) in [(1, &b""[..]), (3, b"value"), (40, b"again and again and again")] {
            let plain = batch(records, value);
            for codec in Compression::ALL {
                let Ok(deflated) = deflate(codec, &plain.records, None) else { continue };
                let batch = plain.clone().with_records(codec, deflated);
                for choice in [0xf0, 0xf4, 0x02, 0x41] {
                    let mut seed = vec![choice];
                    seed.extend_from_slice(&batch.to_payload().to_bytes());
                    seeds.push(seed);
                }
            }
        }
        seeds
    }

    fn feed(&self, input: &[u8]) -> Seen {
        let Some((choice, sent)) = input.split_first() else { return Seen::refused("short", None) };
        let topic = Topic::of(*choice);
        let sent = Bytes::copy_from_slice(sent);
        // Whatever the topic asks for: consumers and tools inflate, too.
        let opened = Batch::split_from(&mut sent.clone()).ok().map(|batch| {
            let outcome = inflated(&batch).map(|records| {
                let walked = Records::new(&records).take_while(Result::is_ok).count();
                (about(walked), about(records.len()))
            });
            (batch, outcome.map_err(|error| std::mem::discriminant(&error)))
        });
        match topic.judge(&sent) {
            Ok(taken) => {
                let Some((batch, outcome)) = opened else { panic!("what is no batch was taken") };
                look_at(&taken.into_batch(), &batch, &topic);
                Seen::taken((choice, batch.header.attributes.0, outcome))
            }
            Err(rejection) => {
                let records = match &rejection {
                    Rejection::Invalid { records, .. } | Rejection::InvalidTimestamp { records, .. } => records.len(),
                    _ => 0,
                };
                let words: String = rejection.to_string().chars().filter(|letter| !letter.is_ascii_digit()).collect();
                let codec = opened
                    .as_ref()
                    .map(|(batch, outcome)| (batch.header.attributes.compression().map(Compression::name), *outcome));
                Seen::refused((codec, words, about(records)), None)
            }
        }
    }

    fn mend(&self, input: &mut Vec<u8>) {
        let Some(bytes) = input.get_mut(1..).filter(|bytes| bytes.len() >= HEADER_BYTES) else { return };
        let length = (bytes.len() - LENGTH_PREFIX_BYTES) as i32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let mut copy = Bytes::copy_from_slice(bytes);
        let Ok(mut batch) = Batch::split_from(&mut copy) else { return };
        // The checksum says by chance which of them get the right count as well.
        if batch.header.crc % 2 == 0
            && let Ok(records) = inflated(&batch)
            && let Some(count) = count(&records)
        {
            (batch.header.records_count, batch.header.last_offset_delta) = (count as i32, count as i32 - 1);
        }
        batch.header.crc = batch.header.checksum(&batch.records);
        bytes[..HEADER_BYTES].copy_from_slice(&batch.header.to_bytes());
    }

    fn words(&self) -> &[&'static [u8]] {
        &[
            b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01",
            b"\x04\x22\x4d\x18",
            b"\x28\xb5\x2f\xfd",
            b"\x1f\x8b\x08\0",
            b"\xff\xff\xff\xff\x0f",
        ]
    }

    /// A frame of lz4 says how large its blocks are, up to 4 MiB, and the codec makes room for one of them in each of its
    /// two buffers and for the window before them; whatever else is inflated is bounded by the cap, and copied once.
    fn more_memory_bytes(&self) -> usize {
        (16 << 20) + 4 * INFLATED_BYTES_MAX
    }
}
