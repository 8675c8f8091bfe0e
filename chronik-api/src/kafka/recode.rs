//! The slow path of produce: batches that the topic wants looked into (`chronik.validation=full`, compaction), or stored
//! under another codec than the producer's (`compression.type`).

use crate::compression::{InflateError, deflate, inflate};
use chronik_core::batch::{Batch, CheckedBatch, Compression, Rejection, Rules, check_decompressed};
use chronik_core::metadata::topic_config::CompressionPolicy;
use chronik_core::time::Timestamp;

/// A batch and what is to become of it.
pub struct Recode {
    pub batch: Batch,
    pub rules: Rules,
    pub policy: CompressionPolicy,
    /// A cap on what the records may inflate to.
    pub inflated_bytes_max: usize,
}

/// Whether a batch that came under this codec may stay so.
pub fn is_as_wanted(sent: Option<Compression>, policy: CompressionPolicy) -> bool {
    match policy {
        CompressionPolicy::Producer => true,
        CompressionPolicy::Codec { codec, .. } => sent == Some(codec),
    }
}

/// Inflates, checks and compresses again, in the blocking pool.
pub async fn run(recode: Recode, now: Timestamp) -> Result<CheckedBatch, Rejection> {
    match tokio::task::spawn_blocking(move || recode.run(now)).await {
        Ok(result) => result,
        Err(failure) => std::panic::resume_unwind(failure.into_panic()),
    }
}

impl Recode {
    /// As [`run`], in the caller's thread.
    pub fn run(self, now: Timestamp) -> Result<CheckedBatch, Rejection> {
        let Recode { batch, rules, policy, inflated_bytes_max } = self;
        let sent = batch.header.attributes.compression().unwrap_or_default();
        let inflated = inflate(sent, &batch.records, inflated_bytes_max).map_err(|error| match error {
            InflateError::Malformed { .. } => Rejection::Corrupt(error.to_string()),
            InflateError::TooLarge { max_bytes } => Rejection::TooLarge { size_bytes: max_bytes + 1, max_bytes },
        })?;
        let checked = check_decompressed(batch, &inflated, &rules, now)?;
        let CompressionPolicy::Codec { codec, level } = policy else { return Ok(checked) };
        if codec == sent {
            return Ok(checked);
        }
        let records = deflate(codec, &inflated, level).map_err(|cause| Rejection::Corrupt(cause.to_string()))?;
        let recoded = checked.into_batch().with_records(codec, records);
        let size_bytes = recoded.header.size_bytes();
        if size_bytes > rules.max_message_bytes {
            return Err(Rejection::TooLarge { size_bytes, max_bytes: rules.max_message_bytes });
        }
        Ok(CheckedBatch::trusted(recoded))
    }
}
