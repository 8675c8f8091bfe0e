//! Producer ids for this broker's clients, from blocks that are reserved durably before the first of them is given out.
//!
//! What is left of a block when the process ends is lost, never given out again.

use super::{MetadataLog, ProposeError};
use chronik_core::ids::ProducerId;
use chronik_core::metadata::controller::{self, ProducerIdsExhausted};
use std::ops::Range;
use tokio::sync::Mutex;

/// Why there is no id.
pub type NoProducerId = ProposeError<ProducerIdsExhausted>;

/// See the module's head.
pub struct ProducerIds {
    log: MetadataLog,
    /// Asynchronous, since whoever finds it empty holds it while the next block is written, so that all who wait share it.
    block: Mutex<Range<i64>>,
}

impl ProducerIds {
    pub fn new(log: MetadataLog) -> Self {
        Self { log, block: Mutex::new(0..0) }
    }

    /// One that nobody has had.
    pub async fn next(&self) -> Result<ProducerId, NoProducerId> {
        let mut block = self.block.lock().await;
        if block.is_empty() {
            let reserved = self.log.propose(controller::reserve_producer_ids).await?;
            *block = reserved.first.0..reserved.first.0 + reserved.count;
        }
        let id = block.start;
        block.start += 1;
        Ok(ProducerId(id))
    }
}
