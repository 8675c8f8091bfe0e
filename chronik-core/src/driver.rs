//! Turns a leader's decisions into calls on its log, and the log's completions into what the leader learns.
//!
//! The host holds one driver per partition behind one short lock, in which nothing blocks: [`PartitionDriver::append`]
//! only orders. After unlocking, the host lets the log write ([`Wal::write_queued`]). Completions arrive in the host's
//! inbox, from any thread, and come back in through [`PartitionDriver::complete`]; the outward effects are drained by
//! whoever holds the lock, in the order they were emitted.

use crate::batch::CheckedBatch;
use crate::ids::Offset;
use crate::partition::leader::{Acks, Admitted, Effect, Leader};
use crate::partition::producers;
use crate::pending::{Done, Inbox, Started};
use crate::time::Timestamp;
use crate::wal::{Appended, Refused, Wal, WalError};
use std::sync::Arc;

/// What a log reports back about calls that the driver made.
#[derive(Debug)]
pub enum Completion {
    Written(Result<Appended, WalError>),
    Durable(Result<Offset, WalError>),
}

/// What is for the host to do.
#[derive(Debug)]
pub enum Outward<K> {
    Acknowledge {
        key: K,
    },
    Abandon {
        key: K,
    },
    WatermarkAdvanced {
        to: Offset,
    },
    /// Said once, when the log has failed.
    Failed {
        cause: WalError,
    },
}

/// Where an append found its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    pub base_offset: Offset,
    pub next_offset: Offset,
    /// It was there already; nothing was ordered.
    pub duplicate: bool,
}

/// Why a batch was not appended. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error(transparent)]
    Producer(#[from] producers::Refused),
    #[error(transparent)]
    Log(#[from] Refused),
}

/// The inboxes through which a log's completions reach the host.
pub struct Inboxes {
    pub written: Arc<dyn Inbox<Result<Appended, WalError>>>,
    pub durable: Arc<dyn Inbox<Result<Offset, WalError>>>,
}

/// A leader and its log.
pub struct PartitionDriver<K> {
    leader: Leader<K>,
    log: Arc<dyn Wal>,
    inboxes: Inboxes,
    outward: Vec<Outward<K>>,
}

impl<K> PartitionDriver<K> {
    pub fn new(leader: Leader<K>, log: Arc<dyn Wal>, inboxes: Inboxes) -> Self {
        let mut driver = Self { leader, log, inboxes, outward: Vec::new() };
        driver.run();
        driver
    }

    pub fn leader(&self) -> &Leader<K> {
        &self.leader
    }

    pub fn log(&self) -> &Arc<dyn Wal> {
        &self.log
    }

    /// Appends a batch at the log's end, unless it is a duplicate; `key`, if given, is answered when `acks` is met.
    pub fn append(
        &mut self,
        batch: CheckedBatch,
        acks: Acks,
        key: Option<K>,
        now: Timestamp,
    ) -> Result<Placed, AppendError> {
        let placed = match self.leader.admit(batch)? {
            Admitted::Duplicate(earlier) => {
                Placed { base_offset: earlier.base_offset, next_offset: earlier.last_offset + 1, duplicate: true }
            }
            Admitted::Append(stamped) => {
                let run = stamped.run();
                let (base_offset, next_offset) = (run.base, run.next_offset);
                let done = Done::new(self.inboxes.written.clone(), 0);
                let started = self.log.append(run, done).map_err(|rejected| rejected.why)?;
                self.leader.ordered(stamped, now);
                if let Started::Now(outcome) = started {
                    self.learn(Completion::Written(outcome));
                }
                Placed { base_offset, next_offset, duplicate: false }
            }
        };
        if let Some(key) = key {
            self.leader.await_acks(acks, placed.next_offset, key);
        }
        self.run();
        Ok(placed)
    }

    /// Takes in what the log reported.
    pub fn complete(&mut self, completion: Completion) {
        self.learn(completion);
        self.run();
    }

    /// Changes the leader directly, then carries out what follows from it.
    pub fn change<R>(&mut self, change: impl FnOnce(&mut Leader<K>) -> R) -> R {
        let result = change(&mut self.leader);
        self.run();
        result
    }

    /// What has become due since the last call, in order.
    pub fn take_outward(&mut self) -> Vec<Outward<K>> {
        std::mem::take(&mut self.outward)
    }

    fn learn(&mut self, completion: Completion) {
        match completion {
            Completion::Written(Ok(appended)) => self.leader.written(appended.written_end),
            Completion::Durable(Ok(end)) => self.leader.durable(end),
            Completion::Written(Err(cause)) | Completion::Durable(Err(cause)) => {
                if !self.leader.has_failed() {
                    self.leader.fail();
                    self.outward.push(Outward::Failed { cause });
                }
            }
        }
    }

    fn run(&mut self) {
        while let Some(effect) = self.leader.poll_effect() {
            match effect {
                Effect::Acknowledge { key } => self.outward.push(Outward::Acknowledge { key }),
                Effect::Abandon { key } => self.outward.push(Outward::Abandon { key }),
                Effect::WatermarkAdvanced { to } => self.outward.push(Outward::WatermarkAdvanced { to }),
                Effect::Sync { upto } => {
                    let done = Done::new(self.inboxes.durable.clone(), 0);
                    if let Started::Now(outcome) = self.log.sync(upto, done) {
                        self.learn(Completion::Durable(outcome));
                    }
                }
            }
        }
    }
}
