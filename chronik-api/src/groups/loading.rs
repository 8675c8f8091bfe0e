//! Reading a coordinator's log back.

use crate::partitions::Partition;
use bytes::Bytes;
use chronik_core::batch::{NotABatch, Records, batches};
use chronik_core::group::records::NotARecord;
use chronik_core::wal::{ReadRange, WalError};
use std::sync::Arc;
use tokio::sync::Notify;

/// Bytes read at a time.
const READ_BYTES: usize = 1 << 20;
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
    let standing = loop {
        partition.watch(&wake);
        let standing = partition.standing();
        if standing.high_watermark == standing.log_end {
            break standing;
        }
        if partition.has_failed() {
            return Err(LoadError::Failed);
        }
        wake.notified().await;
    };
    let mut from = standing.log_start;
    while from < standing.log_end {
        let range = ReadRange { from, upto: standing.log_end, max_bytes: READ_BYTES, min_one: true };
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
