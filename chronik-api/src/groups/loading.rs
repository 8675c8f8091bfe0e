//! Reading a coordinator's log back, and keeping it short.

use crate::partitions::Partition;
use bytes::Bytes;
use chronik_core::batch::{NotABatch, Records, batches};
use chronik_core::group::records::{NotARecord, RawRecord};
use chronik_core::wal::{ReadRange, WalError};
use std::sync::Arc;
use tokio::sync::Notify;

/// Bytes read at a time.
const READ_BYTES: usize = 1 << 20;
/// Below so many records in the log a snapshot is never worth its writes: they are read back in some ten milliseconds.
const RECORDS_MIN: usize = 50_000;
/// A snapshot is taken when the log has so many times the live records.
const RECORDS_PER_LIVE: usize = 4;

/// Why groups could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the log cannot be read")]
    Log(#[from] WalError),
    #[error("the log does not hold record batches: {0}")]
    Batch(#[from] NotABatch),
    #[error("a batch does not hold records: {0}")]
    Record(String),
    #[error("the partition has failed")]
    Failed,
}

/// Hands every record of the partition to `replay`, in order. Nothing else appends to it meanwhile.
pub async fn load(
    partition: &Arc<Partition>,
    mut replay: impl FnMut(Bytes, Option<Bytes>) -> Result<(), NotARecord>,
) -> Result<(), LoadError> {
    // After a crash the end of the log is synced before it can be read.
    let wake = Arc::new(Notify::new());
    let position = loop {
        partition.watch(&wake);
        let position = partition.position();
        if position.high_watermark == position.log_end {
            break position;
        }
        if partition.has_failed() {
            return Err(LoadError::Failed);
        }
        wake.notified().await;
    };
    let mut from = position.log_start;
    while from < position.log_end {
        let range = ReadRange { from, upto: position.log_end, max_bytes: READ_BYTES, min_one: true };
        let chunk = partition.read(range).await?;
        if chunk.bytes.is_empty() {
            break;
        }
        for batch in batches(&chunk.bytes) {
            let batch = batch?;
            for record in Records::new(&batch.records) {
                let record = record.map_err(|why| LoadError::Record(why.to_string()))?;
                let Some(key) = record.key else { continue };
                let value = record.value.map(|value| batch.records.slice_ref(value));
                match replay(batch.records.slice_ref(key), value) {
                    Ok(()) => {}
                    // A later release may store more than we know; what we know is still right.
                    Err(why @ NotARecord::Version(_)) => tracing::warn!(%why, "skipped a record of the groups"),
                    Err(why) => return Err(LoadError::Record(why.to_string())),
                }
            }
        }
        from = chunk.next_offset;
        // Millions of records must not keep the thread from everything else.
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Whether so many records in the log are too many for so few live ones.
pub fn snapshot_is_worthwhile(records_in_log: usize, live: usize) -> bool {
    records_in_log > RECORDS_MIN.max(live.saturating_mul(RECORDS_PER_LIVE))
}

/// Cuts records into batches of about `bytes_max`.
pub fn batches_of(records: &[RawRecord], bytes_max: usize) -> Vec<&[RawRecord]> {
    let mut batches = Vec::new();
    let mut from = 0;
    let mut bytes = 0;
    for (at, (key, value)) in records.iter().enumerate() {
        let size = key.len() + value.as_ref().map_or(0, Bytes::len);
        if at > from && bytes + size > bytes_max {
            batches.push(&records[from..at]);
            from = at;
            bytes = 0;
        }
        bytes += size;
    }
    if from < records.len() {
        batches.push(&records[from..]);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_all_records_in_order_and_none_is_much_too_large() {
        let records: Vec<RawRecord> = (0..100u8).map(|n| (Bytes::from(vec![n; 10]), None)).collect();
        let cut = batches_of(&records, 35);
        assert!(cut.iter().all(|batch| batch.len() <= 3 && !batch.is_empty()));
        assert_eq!(cut.concat(), records);
        assert!(batches_of(&[], 35).is_empty());
    }

    #[test]
    fn a_short_log_is_left_alone_however_little_of_it_is_live() {
        assert!(!snapshot_is_worthwhile(50_000, 0));
        assert!(snapshot_is_worthwhile(50_001, 10));
        assert!(!snapshot_is_worthwhile(3_000_000, 1_000_000));
    }
}
