//! All that can be asked of a store at one moment, and what it should be after each step of a history.

use crate::Subject;
use crate::subject::whole;
use crate::writer::Step;
use chronik_conformance::wal::{Log, Model, run_of};
use chronik_core::wal::WalEngine;
use futures::executor::block_on;
use std::collections::BTreeSet;
use std::path::Path;

/// What is there.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub start: i64,
    pub end: i64,
    pub last_epoch: i32,
    pub bytes: Vec<u8>,
    pub values: (Option<String>, Option<String>),
    pub logs: BTreeSet<u8>,
}

impl Snapshot {
    /// In a line, for people.
    pub fn told(&self) -> String {
        let Self { start, end, last_epoch, bytes, values, logs } = self;
        let bytes = bytes.len();
        format!("from {start} to {end} in {bytes} bytes, last epoch {last_epoch}, values {values:?}, logs {logs:?}")
    }

    /// Of a store that nobody uses; an engine is started over it and closed.
    ///
    /// # Errors
    /// In words, what the engine said.
    pub fn of(subject: &Subject, directory: &Path) -> Result<Self, String> {
        let engine = subject.start(directory).map_err(|error| whole(&error))?;
        let snapshot = block_on(Self::taken(&engine));
        let closed = block_on(engine.close()).map_err(|error| whole(&error));
        let snapshot = snapshot?;
        closed.map(|()| snapshot)
    }

    async fn taken(engine: &dyn WalEngine) -> Result<Self, String> {
        let listed = engine.list().await.map_err(|error| whole(&error))?;
        let logs: BTreeSet<u8> =
            listed.iter().filter_map(|log| u8::try_from(log.partition).ok()).filter(|&log| log != 1).collect();
        for other in &logs {
            // One that is there can be used.
            Log::open(engine, *other).await;
        }
        let log = Log::open(engine, 1).await;
        let state = log.state();
        Ok(Self {
            start: state.start.0,
            end: state.end.0,
            last_epoch: state.last_epoch.0,
            bytes: log.read_all(state.start).await.to_bytes().to_vec(),
            values: (log.get("one").await, log.get("other").await),
            logs,
        })
    }
}

/// What should be there, step by step.
#[derive(Clone, Default)]
pub(crate) struct Expected {
    pub model: Model,
    values: (Option<String>, Option<String>),
    pub logs: BTreeSet<u8>,
}

impl Expected {
    pub fn step(&mut self, step: &Step) {
        match step {
            &Step::Order(base, records, epoch, time, bytes) => {
                self.model.append(run_of(base, records, epoch, time, bytes));
            }
            Step::Wait | Step::Sync => {}
            &Step::Suffix(at) => self.model.truncate_suffix(at),
            &Step::Prefix(at) => self.model.truncate_prefix(at),
            &Step::Reset(at) => self.model.reset(at),
            Step::Put(one, other) => self.values = (Some(one.clone()), Some(other.clone())),
            &Step::Create(number) => {
                self.logs.insert(number);
            }
            Step::Delete(number) | Step::Aside(number) => {
                self.logs.remove(number);
            }
        }
    }

    pub fn snapshot(&self) -> Snapshot {
        let mut bytes = Vec::new();
        for run in self.model.live() {
            bytes.extend_from_slice(&run.bytes.to_bytes());
        }
        Snapshot {
            start: self.model.start,
            end: self.model.end,
            last_epoch: self.model.last_epoch(),
            bytes,
            values: self.values.clone(),
            logs: self.logs.clone(),
        }
    }
}
