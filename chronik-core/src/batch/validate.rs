//! What a leader checks of a batch before it appends it, and what it may change.
//!
//! An uncompressed batch is walked structurally, varints only. A compressed one gets header checks, and is inflated only
//! where the topic asks for it ([`Validation`]): inflating is the edge's work, which then hands the inflated records to
//! [`check_decompressed`]. The refusals are those of Kafka's `LogValidator`.

use super::records::{NotARecord, walk};
use super::{Batch, Compression, Header, NotABatch};
use crate::time::Timestamp;
use bytes::Bytes;

/// Whose clock a topic's timestamps come from (`message.timestamp.type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampType {
    #[default]
    CreateTime,
    LogAppendTime,
}

/// How far a compressed batch is looked into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Validation {
    /// Checksum and header.
    #[default]
    Header,
    /// Every record.
    Full,
}

/// What a topic demands of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub max_message_bytes: usize,
    pub timestamp_type: TimestampType,
    /// Greatest age, and greatest lead, of a record's timestamp against the broker's clock, in milliseconds.
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
    /// The topic is compacted: every record needs a key.
    pub keys_required: bool,
    pub validation: Validation,
    /// The producer speaks a version of Produce that knows zstd (KIP-110).
    pub zstd_allowed: bool,
}

/// Why a batch is refused. Nothing has been stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The bytes are damaged: sending them again may help.
    #[error("the batch is corrupt: {0}")]
    Corrupt(String),
    #[error("the batch has {size_bytes} bytes, and the topic allows {max_bytes}")]
    TooLarge { size_bytes: usize, max_bytes: usize },
    /// The bytes are as they were sent, and wrong. `records` names the ones at fault, if single ones are.
    #[error("{what}")]
    Invalid { what: String, records: Vec<(i32, String)> },
    #[error("{what}")]
    InvalidTimestamp { what: String, records: Vec<(i32, String)> },
    #[error("{0}")]
    UnsupportedCompression(String),
}

impl Rejection {
    fn invalid(what: impl Into<String>) -> Self {
        Rejection::Invalid { what: what.into(), records: Vec::new() }
    }
}

impl From<NotARecord> for Rejection {
    fn from(cause: NotARecord) -> Self {
        Rejection::invalid(format!("a record cannot be read: {cause}"))
    }
}

/// A batch that passed, ready to be stamped and appended.
#[derive(Clone, Debug)]
pub struct CheckedBatch {
    batch: Batch,
}

impl CheckedBatch {
    pub fn header(&self) -> &Header {
        &self.batch.header
    }

    pub fn into_batch(self) -> Batch {
        self.batch
    }

    /// For what the broker itself has built.
    pub fn trusted(batch: Batch) -> Self {
        Self { batch }
    }
}

/// At most this many of a batch's bad records are named one by one: the list goes back in a response.
const NAMED_RECORDS_MAX: usize = 100;

/// What [`check`] found.
#[derive(Debug)]
pub enum Checked {
    Good(CheckedBatch),
    /// The topic wants every record looked at, and these are compressed: inflate them, then [`check_decompressed`].
    Inflate(Batch),
}

/// Checks the one batch that a produce request may bring for a partition.
///
/// `sent` is the partition's records field, whole. LogAppendTime, and a header whose greatest timestamp is not that of
/// its records, are mended here, which costs a new checksum over the records.
pub fn check(sent: &Bytes, rules: &Rules, now: Timestamp) -> Result<Checked, Rejection> {
    let mut rest = sent.clone();
    let batch = match Batch::split_from(&mut rest) {
        Ok(batch) => batch,
        Err(_) if sent.is_empty() => return Err(Rejection::invalid("a produce request must bring a record batch")),
        Err(NotABatch::Magic(magic @ 0..=1)) => {
            return Err(Rejection::invalid(format!(
                "this version of Produce takes record batches of version 2 only, not {magic}"
            )));
        }
        Err(cause) => return Err(Rejection::Corrupt(cause.to_string())),
    };
    if !rest.is_empty() {
        return Err(Rejection::invalid("a produce request must bring exactly one record batch per partition"));
    }
    if batch.header.size_bytes() > rules.max_message_bytes {
        return Err(Rejection::TooLarge { size_bytes: batch.header.size_bytes(), max_bytes: rules.max_message_bytes });
    }
    if !batch.is_intact() {
        return Err(Rejection::Corrupt("its checksum does not match its bytes".into()));
    }
    check_header(&batch.header)?;
    match batch.header.attributes.compression() {
        None => Err(Rejection::invalid("the compression type is unknown")),
        Some(Compression::Zstd) if !rules.zstd_allowed => {
            Err(Rejection::UnsupportedCompression("zstd needs version 7 of Produce or later".into()))
        }
        Some(Compression::None) => check_records(batch, None, rules, now).map(Checked::Good),
        Some(_) if rules.validation == Validation::Full || rules.keys_required => Ok(Checked::Inflate(batch)),
        Some(_) => {
            // Only the header's word for it: what the records say is not known without inflating them.
            if rules.timestamp_type == TimestampType::CreateTime {
                check_timestamp(batch.header.max_timestamp, rules, now)
                    .map_err(|what| Rejection::InvalidTimestamp { what, records: Vec::new() })?;
            }
            let max_timestamp = batch.header.max_timestamp;
            Ok(Checked::Good(stamp_time(batch, max_timestamp, rules, now)))
        }
    }
}

/// The rest of [`check`] for a compressed batch, given its records inflated.
pub fn check_decompressed(
    batch: Batch,
    inflated: &Bytes,
    rules: &Rules,
    now: Timestamp,
) -> Result<CheckedBatch, Rejection> {
    check_records(batch, Some(inflated), rules, now)
}

fn check_header(header: &Header) -> Result<(), Rejection> {
    let count = i64::from(header.records_count);
    let spanned = i64::from(header.last_offset_delta) + 1;
    if count <= 0 || spanned != count {
        return Err(Rejection::invalid(format!(
            "the batch's offsets span {spanned} records, and its header counts {count}"
        )));
    }
    if header.attributes.is_control() {
        return Err(Rejection::invalid("clients may not write control records"));
    }
    if header.is_idempotent() && (header.base_sequence < 0 || header.producer_epoch < 0) {
        return Err(Rejection::invalid("a batch with a producer id needs a sequence and an epoch"));
    }
    if header.attributes.is_transactional() && !header.is_idempotent() {
        return Err(Rejection::invalid("a transactional batch needs a producer id"));
    }
    Ok(())
}

fn check_timestamp(timestamp: Timestamp, rules: &Rules, now: Timestamp) -> Result<(), String> {
    if timestamp == Timestamp::NONE {
        return Ok(());
    }
    let age = now.0.saturating_sub(timestamp.0);
    if age > rules.timestamp_before_max_ms {
        Err(format!("timestamp {timestamp} is {age} ms before the broker's clock"))
    } else if age.saturating_neg() > rules.timestamp_after_max_ms {
        Err(format!("timestamp {timestamp} is {} ms ahead of the broker's clock", age.saturating_neg()))
    } else {
        Ok(())
    }
}

fn check_records(
    batch: Batch,
    inflated: Option<&Bytes>,
    rules: &Rules,
    now: Timestamp,
) -> Result<CheckedBatch, Rejection> {
    let header = &batch.header;
    let create_time = rules.timestamp_type == TimestampType::CreateTime;
    let mut max_timestamp = Timestamp::NONE;
    let mut keyless = Vec::new();
    let mut untimely = Vec::new();
    let name = |list: &mut Vec<(i32, String)>, at: usize, what: String| {
        if list.len() < NAMED_RECORDS_MAX {
            list.push((at as i32, what));
        }
    };
    // Within these every time is right; the few beyond, among them records without one, are looked at as they come.
    let timely =
        now.0.saturating_sub(rules.timestamp_before_max_ms)..=now.0.saturating_add(rules.timestamp_after_max_ms);
    let count = walk(inflated.unwrap_or(&batch.records), |at, record| {
        if usize::try_from(record.offset_delta) != Ok(at) {
            return Err(Rejection::invalid(format!(
                "record {at} has offset delta {}: deltas must count from zero",
                record.offset_delta
            )));
        }
        if rules.keys_required && record.key.is_none() {
            name(&mut keyless, at, "a compacted topic takes no record without a key".into());
        }
        let timestamp = Timestamp(header.base_timestamp.0.saturating_add(record.timestamp_delta));
        max_timestamp = max_timestamp.max(timestamp);
        if create_time
            && !timely.contains(&timestamp.0)
            && let Err(what) = check_timestamp(timestamp, rules, now)
        {
            name(&mut untimely, at, what);
        }
        Ok(())
    })?;
    if usize::try_from(header.records_count) != Ok(count) {
        return Err(Rejection::invalid(format!(
            "the batch holds {count} records, and its header counts {}",
            header.records_count
        )));
    }
    if !keyless.is_empty() {
        return Err(Rejection::Invalid {
            what: "a compacted topic takes no record without a key".into(),
            records: keyless,
        });
    }
    if !untimely.is_empty() {
        let what = "a record's timestamp is out of the range that the topic allows".into();
        return Err(Rejection::InvalidTimestamp { what, records: untimely });
    }
    Ok(stamp_time(batch, max_timestamp, rules, now))
}

/// Makes the header tell the truth about time: the broker's for LogAppendTime, else the records'.
fn stamp_time(mut batch: Batch, max_timestamp: Timestamp, rules: &Rules, now: Timestamp) -> CheckedBatch {
    let log_append = rules.timestamp_type == TimestampType::LogAppendTime;
    let attributes = batch.header.attributes.with_log_append_time(log_append);
    let max_timestamp = if log_append { now } else { max_timestamp };
    if attributes != batch.header.attributes || max_timestamp != batch.header.max_timestamp {
        batch.header.attributes = attributes;
        batch.header.max_timestamp = max_timestamp;
        batch.header.crc = batch.header.checksum(&batch.records);
    }
    CheckedBatch { batch }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Builder, RecordOut};
    use crate::ids::ProducerId;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn rules() -> Rules {
        Rules {
            max_message_bytes: 1 << 20,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            keys_required: false,
            validation: Validation::Header,
            zstd_allowed: true,
        }
    }

    fn three() -> Batch {
        let mut builder = Builder::new(NOW);
        for value in [&b"a"[..], b"b", b"c"] {
            builder.push(&RecordOut { key: Some(b"k"), value: Some(value), ..RecordOut::default() });
        }
        builder.build()
    }

    fn resum(mut batch: Batch) -> Bytes {
        batch.header.crc = batch.header.checksum(&batch.records);
        batch.to_payload().to_bytes()
    }

    fn refusal(sent: &Bytes, rules: &Rules) -> Rejection {
        match check(sent, rules, NOW) {
            Err(rejection) => rejection,
            Ok(passed) => panic!("should be refused: {passed:?}"),
        }
    }

    #[test]
    fn a_good_batch_passes_unchanged() {
        let batch = three();
        let Ok(Checked::Good(passed)) = check(&batch.to_payload().to_bytes(), &rules(), NOW) else { panic!("refused") };
        assert_eq!(passed.into_batch(), batch);
    }

    #[test]
    fn each_kind_of_bad_batch_has_its_own_refusal() {
        let good = three();
        let invalid = |change: fn(&mut Batch)| {
            let mut batch = good.clone();
            change(&mut batch);
            assert!(matches!(refusal(&resum(batch), &rules()), Rejection::Invalid { .. }));
        };
        invalid(|b| b.header.records_count = 2);
        invalid(|b| (b.header.records_count, b.header.last_offset_delta) = (4, 3));
        invalid(|b| b.header.last_offset_delta = 7);
        invalid(|b| (b.header.records_count, b.header.last_offset_delta) = (0, -1));
        invalid(|b| b.header.attributes.0 |= 0x20);
        invalid(|b| b.header.attributes.0 |= 0x10);
        invalid(|b| b.header.attributes.0 |= 0x07);
        invalid(|b| b.header.producer_id = ProducerId(7));
        let mut flipped = good.to_payload().to_bytes().to_vec();
        *flipped.last_mut().unwrap() ^= 1;
        assert!(matches!(refusal(&flipped.into(), &rules()), Rejection::Corrupt(_)));
        let twice = [good.to_payload().to_bytes(), good.to_payload().to_bytes()].concat();
        assert!(matches!(refusal(&twice.into(), &rules()), Rejection::Invalid { .. }));
        assert!(matches!(refusal(&Bytes::new(), &rules()), Rejection::Invalid { .. }));
        let small = Rules { max_message_bytes: 70, ..rules() };
        assert!(matches!(refusal(&resum(good), &small), Rejection::TooLarge { max_bytes: 70, .. }));
    }

    #[test]
    fn a_compacted_topic_names_the_records_that_lack_a_key() {
        let mut builder = Builder::new(NOW);
        builder.push(&RecordOut { key: Some(b"k"), ..RecordOut::default() });
        builder.push(&RecordOut::default());
        let strict = Rules { keys_required: true, ..rules() };
        match refusal(&builder.build().to_payload().to_bytes(), &strict) {
            Rejection::Invalid { records, .. } => assert_eq!(records.iter().map(|r| r.0).collect::<Vec<_>>(), [1]),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn timestamps_too_far_ahead_are_refused_and_log_append_time_overrides_them() {
        let mut builder = Builder::new(NOW);
        builder.push(&RecordOut { timestamp: Some(Timestamp(NOW.0 + 7_200_000)), ..RecordOut::default() });
        let ahead = builder.build().to_payload().to_bytes();
        assert!(matches!(refusal(&ahead, &rules()), Rejection::InvalidTimestamp { .. }));
        let append_time = Rules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
        let Ok(Checked::Good(passed)) = check(&ahead, &append_time, NOW) else { panic!("refused") };
        assert_eq!(passed.header().max_timestamp, NOW);
        assert!(passed.header().attributes.is_log_append_time() && passed.into_batch().is_intact());
    }

    #[test]
    fn a_compressed_batch_is_looked_into_only_where_the_topic_asks() {
        let mut batch = three();
        batch.header.attributes = batch.header.attributes.with_compression(Compression::Lz4);
        let sent = resum(batch);
        assert!(matches!(check(&sent, &rules(), NOW), Ok(Checked::Good(_))));
        let full = Rules { validation: Validation::Full, ..rules() };
        assert!(matches!(check(&sent, &full, NOW), Ok(Checked::Inflate(_))));
    }
}
