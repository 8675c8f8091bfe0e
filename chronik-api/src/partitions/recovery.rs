//! Reads a log back: what [`chronik_core::partition::recovery`] asks for.

use bytes::Bytes;
use chronik_core::batch;
use chronik_core::partition::checkpoint::META_KEY;
use chronik_core::partition::recovery::Recovering;
use chronik_core::pending::Pending;
use chronik_core::wal::{ReadRange, Wal, WalError};
use std::sync::Arc;

/// Bytes read at a time.
const READ_BYTES: usize = 1 << 20;

/// Why a log cannot be read back.
pub enum RecoverError {
    Log(WalError),
    NotBatches(batch::NotABatch),
}

/// From its checkpoint, or from its start.
pub async fn recover(log: &Arc<dyn Wal>) -> Result<Recovering, RecoverError> {
    let saved = Pending::start(|done| log.meta_get(META_KEY, done)).await.map_err(RecoverError::Log)?;
    let state = log.state();
    let mut recovering = Recovering::new(state, saved.as_deref());
    if let Some(replacement) = recovering.replacement() {
        let entries = vec![(META_KEY.to_owned(), Some(Bytes::from(replacement.encode())))];
        Pending::start(|done| log.meta_put(entries, done)).await.map_err(RecoverError::Log)?;
    }
    while let Some(from) = recovering.next_read() {
        let range = ReadRange { from, upto: state.end, max_bytes: READ_BYTES, min_one: true };
        let chunk = Pending::start(|done| log.read(range, done)).await.map_err(RecoverError::Log)?;
        for batch in batch::batches(&chunk.bytes) {
            recovering.replay(&batch.map_err(RecoverError::NotBatches)?.header);
        }
        recovering.skip_to(if chunk.bytes.is_empty() { state.end } else { chunk.next_offset });
    }
    Ok(recovering)
}
