//! All partitions that this broker leads, by log id.
//!
//! The metadata says which there are; [`PartitionTable::open`] and [`PartitionTable::delete`] make it so. A log that the
//! metadata does not know is left alone: deleting needs a committed deletion, never a mere absence.

use super::Partition;
use super::stall::StallWatch;
use crate::metrics::TopicMetrics;
use chronik_core::batch;
use chronik_core::ids::{LeaderEpoch, LogId, TopicId};
use chronik_core::partition::checkpoint::META_KEY;
use chronik_core::partition::leader::{Durability, Leader};
use chronik_core::partition::recovery::Recovering;
use chronik_core::pending::Pending;
use chronik_core::time::Timestamp;
use chronik_core::wal::{EngineError, OpenMode, OpenOptions, ReadRange, Wal, WalEngine, WalError};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::task::JoinSet;

/// Logs opened at the same time: enough to keep a disk busy, few enough to bound memory during recovery.
const OPENING_MAX: usize = 32;
/// Bytes read at a time when a log is read back.
const RECOVERY_READ_BYTES: usize = 1 << 20;

/// A partition as the metadata wants it led here.
#[derive(Clone, Debug)]
pub struct Assignment {
    pub id: LogId,
    pub topic: String,
    pub metrics: Arc<TopicMetrics>,
    pub leader_epoch: LeaderEpoch,
    pub durability: Durability,
    pub segment_bytes: u64,
}

/// Why a partition could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("partition {index} of topic {topic} cannot be opened")]
    Engine { topic: String, index: i32, source: EngineError },
    #[error("the log of partition {index} of topic {topic} cannot be read back")]
    Log { topic: String, index: i32, source: WalError },
    #[error("partition {index} of topic {topic}: {what}")]
    NotBatches { topic: String, index: i32, what: batch::NotABatch },
}

/// See the module's head.
pub struct PartitionTable {
    engine: Arc<dyn WalEngine>,
    stalls: Arc<StallWatch>,
    led: RwLock<HashMap<LogId, Arc<Partition>>>,
}

impl PartitionTable {
    pub fn new(engine: Arc<dyn WalEngine>, stalls: Arc<StallWatch>) -> Self {
        Self { engine, stalls, led: RwLock::new(HashMap::new()) }
    }

    pub fn engine(&self) -> &Arc<dyn WalEngine> {
        &self.engine
    }

    pub fn get(&self, topic: TopicId, partition: i32) -> Option<Arc<Partition>> {
        self.led.read().unwrap_or_else(PoisonError::into_inner).get(&LogId { topic, partition }).cloned()
    }

    /// All of them, in the order of their ids.
    pub fn all(&self) -> Vec<Arc<Partition>> {
        let mut all: Vec<_> = self.led.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        all.sort_unstable_by_key(|partition| partition.id());
        all
    }

    pub fn len(&self) -> usize {
        self.led.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Opens those that are not open yet. What opened stays open also if others fail; the failures come back.
    pub async fn open(&self, assignments: Vec<Assignment>, now: Timestamp) -> Vec<OpenError> {
        let mut waiting = assignments;
        waiting.retain(|wanted| self.get(wanted.id.topic, wanted.id.partition).is_none());
        let mut opening = JoinSet::new();
        let mut failures = Vec::new();
        loop {
            while opening.len() < OPENING_MAX
                && let Some(wanted) = waiting.pop()
            {
                opening.spawn(open_partition(self.engine.clone(), self.stalls.clone(), wanted, now));
            }
            match opening.join_next().await {
                None => return failures,
                Some(Ok(Ok(partition))) => {
                    let mut led = self.led.write().unwrap_or_else(PoisonError::into_inner);
                    led.insert(partition.id(), partition);
                }
                Some(Ok(Err(failure))) => failures.push(failure),
                Some(Err(panicked)) => std::panic::resume_unwind(panicked.into_panic()),
            }
        }
    }

    /// Deletes partitions whose topic the metadata has deleted.
    pub async fn delete(&self, ids: impl IntoIterator<Item = LogId>) -> Result<(), EngineError> {
        for id in ids {
            let gone = self.led.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
            if let Some(partition) = gone {
                partition.close();
            }
            match self.engine.delete(id).await {
                Ok(()) | Err(EngineError::NotFound(_)) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Saves what a restart would have to read back, and closes the engine.
    pub async fn shut_down(&self) -> Result<(), EngineError> {
        for partition in self.all() {
            if partition.uncheckpointed_bytes() > 0
                && let Err(failure) = partition.save_checkpoint().await
            {
                // The log itself is closed, and synced, below; without a checkpoint a restart only takes longer.
                tracing::warn!(
                    topic = partition.topic(),
                    partition = partition.index(),
                    error = &failure as &dyn std::error::Error,
                    "no checkpoint was saved"
                );
            }
        }
        self.engine.close().await
    }
}

async fn open_partition(
    engine: Arc<dyn WalEngine>,
    stalls: Arc<StallWatch>,
    wanted: Assignment,
    now: Timestamp,
) -> Result<Arc<Partition>, OpenError> {
    let Assignment { id, topic, metrics, leader_epoch, durability, segment_bytes } = wanted;
    let index = id.partition;
    let options = OpenOptions { mode: OpenMode::CreateIfMissing, segment_bytes };
    let log = match engine.open(id, options).await {
        Ok(log) => log,
        Err(source) => return Err(OpenError::Engine { topic, index, source }),
    };
    let recovered = match recover(&log).await {
        Ok(recovering) => recovering.finish(now),
        Err(RecoverError::Log(source)) => return Err(OpenError::Log { topic, index, source }),
        Err(RecoverError::NotBatches(what)) => return Err(OpenError::NotBatches { topic, index, what }),
    };
    let leader = Leader::new(recovered, leader_epoch, durability);
    Ok(Partition::lead(id, (topic, metrics), log, leader, now, stalls, tokio::runtime::Handle::current()))
}

enum RecoverError {
    Log(WalError),
    NotBatches(batch::NotABatch),
}

async fn recover(log: &Arc<dyn Wal>) -> Result<Recovering, RecoverError> {
    let saved = Pending::start(|done| log.meta_get(META_KEY, done)).await.map_err(RecoverError::Log)?;
    let state = log.state();
    let mut recovering = Recovering::new(state, saved.as_deref());
    while let Some(from) = recovering.next_read() {
        let range = ReadRange { from, upto: state.end, max_bytes: RECOVERY_READ_BYTES, min_one: true };
        let chunk = Pending::start(|done| log.read(range, done)).await.map_err(RecoverError::Log)?;
        for batch in batch::batches(&chunk.bytes) {
            recovering.replay(&batch.map_err(RecoverError::NotBatches)?.header);
        }
        recovering.skip_to(if chunk.bytes.is_empty() { state.end } else { chunk.next_offset });
    }
    Ok(recovering)
}
