//! Raft's disk: does what [`chronik_core::metadata::raft::store`] plans, and reads back what it needs.
//!
//! Always files, whatever engine keeps the records: a vote that did not outlive its process would be no vote. It has an
//! engine of its own, and so a syncer of its own: a burst of records holds up no election.
//!
//! A step that fails ends the process: nobody knows then what the disk holds.

use crate::metadata::random;
use bytes::Bytes;
use chronik_core::ids::Offset;
use chronik_core::metadata::raft::store::{self, Damage, ENTRIES_LOG, HARD_STATE, Log, SNAPSHOT, SNAPSHOTS_LOG, Step};
use chronik_core::metadata::raft::{Found, PREPARED, Persist, Plan, Recovered, directory_id};
use chronik_core::payload::Payload;
use chronik_core::pending::{Pending, Started};
use chronik_core::time::Timestamp;
use chronik_core::wal::{EngineError, OpenMode, OpenOptions, ReadRange, Run, Wal, WalEngine, WalError};
use chronik_storage_segment::{SegmentEngine, SegmentOptions, StartError};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Small, so that what snapshots made superfluous is soon given back.
const SEGMENT_BYTES: u64 = 8 << 20;
/// Bytes read at a time.
const READ_BYTES: usize = 1 << 20;
const DIRECTORY_ID: &str = "directory.id";
/// Set by a process that stops in order, and taken away by the next one: whether the one before did.
const STOPPED_CLEANLY: &str = "broker.stopped-cleanly";

/// Why Raft's disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("the engine of the metadata's log does not start")]
    Engine(#[from] StartError),
    #[error("the metadata's log cannot be opened")]
    Open(#[from] EngineError),
    #[error("the metadata's log cannot be read or written")]
    Log(#[from] WalError),
    #[error("nothing was changed")]
    Damaged(#[from] Damage),
    #[error("the metadata's log took no more: {0}")]
    Refused(chronik_core::wal::Refused),
    #[error("what this node prepared to begin a cluster with cannot be read")]
    Plan,
    #[error("{0}")]
    Task(String),
}

/// See the module's head.
pub struct Disk {
    engine: SegmentEngine,
    entries: Arc<dyn Wal>,
    snapshots: Arc<dyn Wal>,
}

/// What was there.
pub struct Start {
    pub directory_id: [u8; 16],
    pub recovered: Recovered,
    /// What was prepared, where no cluster has begun yet.
    pub found: Found,
    /// The process before stopped in order.
    pub clean: bool,
}

impl Disk {
    pub async fn open(directory: &Path) -> Result<(Self, Start), DiskError> {
        let engine = SegmentEngine::start(directory.to_owned(), SegmentOptions::default())?;
        let how = OpenOptions { mode: OpenMode::CreateIfMissing, segment_bytes: SEGMENT_BYTES };
        let entries = engine.open(ENTRIES_LOG, how).await?;
        let snapshots = engine.open(SNAPSHOTS_LOG, how).await?;
        let disk = Self { engine, entries, snapshots };
        let directory_id = match disk.get(DIRECTORY_ID).await?.and_then(|id| id.as_ref().try_into().ok()) {
            Some(known) => known,
            None => {
                let drawn = directory_id(random::identity);
                disk.put(DIRECTORY_ID, Some(Bytes::copy_from_slice(&drawn))).await?;
                drawn
            }
        };
        let clean = disk.get(STOPPED_CLEANLY).await?.is_some();
        disk.put(STOPPED_CLEANLY, None).await?;
        let found = match disk.get(PREPARED).await? {
            None => Found::Blank,
            Some(bytes) => Found::Prepared(Plan::from_bytes(&bytes).ok_or(DiskError::Plan)?),
        };
        let recovered = disk.recover().await?;
        Ok((disk, Start { directory_id, recovered, found, clean }))
    }

    async fn recover(&self) -> Result<Recovered, DiskError> {
        let (hard_state, snapshot) = (self.get(HARD_STATE).await?, self.get(SNAPSHOT).await?);
        let (entries, snapshots) = (self.entries.state(), self.snapshots.state());
        let mut survey = store::survey(hard_state.as_deref(), snapshot.as_deref(), &entries, &snapshots)?;
        for step in std::mem::take(&mut survey.finish) {
            self.step(step).await?;
        }
        let image = read(&*self.snapshots, survey.image.clone()).await?;
        let held = read(&*self.entries, survey.entries.clone()).await?;
        Ok(survey.recover(&image, &held)?)
    }

    /// Makes all of it durable.
    pub async fn persist(&self, persist: &Persist, now: Timestamp) -> Result<(), DiskError> {
        let steps = store::plan(persist, self.snapshots.state().end, now);
        let mut appended = Vec::new();
        for step in steps {
            match step {
                // Ordered one after the other; the sync behind them waits for all.
                Step::Append(log, run) => appended.push(self.append(log, run)?),
                step => {
                    self.written(&mut appended).await?;
                    self.step(step).await?;
                }
            }
        }
        self.written(&mut appended).await
    }

    /// What this node promises to begin a cluster with.
    pub async fn prepare(&self, value: Bytes) -> Result<(), DiskError> {
        self.put(PREPARED, Some(value)).await
    }

    /// Everything is synced, and this process writes no more.
    pub async fn close(&self, clean: bool) -> Result<(), DiskError> {
        if clean {
            self.put(STOPPED_CLEANLY, Some(Bytes::from_static(b"yes"))).await?;
        }
        Ok(self.engine.close().await?)
    }

    fn log(&self, log: Log) -> &Arc<dyn Wal> {
        match log {
            Log::Entries => &self.entries,
            Log::Snapshots => &self.snapshots,
        }
    }

    fn append(&self, log: Log, run: Run) -> Result<(Log, Appending), DiskError> {
        let mut refused = None;
        let appending = Pending::start(|done| match self.log(log).append(run, done) {
            Ok(started) => started,
            Err(rejected) => {
                refused = Some(rejected.why);
                Started::Later
            }
        });
        match refused {
            None => Ok((log, appending)),
            Some(why) => Err(DiskError::Refused(why)),
        }
    }

    async fn written(&self, appended: &mut Vec<(Log, Appending)>) -> Result<(), DiskError> {
        for log in [Log::Entries, Log::Snapshots] {
            if appended.iter().any(|(of, _)| *of == log) {
                // May wait for the device: not on the thread that counts time.
                let wal = self.log(log).clone();
                let queued = tokio::task::spawn_blocking(move || wal.write_queued()).await;
                queued.map_err(|why| DiskError::Task(why.to_string()))?;
            }
        }
        for (_, appending) in appended.drain(..) {
            appending.await?;
        }
        Ok(())
    }

    async fn step(&self, step: Step) -> Result<(), DiskError> {
        match step {
            Step::Put { key, value } => self.put(key, Some(value)).await?,
            Step::Append(log, run) => self.written(&mut vec![self.append(log, run)?]).await?,
            Step::Sync(log, upto) => drop(Pending::start(|done| self.log(log).sync(upto, done)).await?),
            Step::CutSuffix(log, from) => Pending::start(|done| self.log(log).truncate_suffix(from, done)).await?,
            Step::CutPrefix(log, upto) => Pending::start(|done| self.log(log).truncate_prefix(upto, done)).await?,
            Step::Reset(log, start) => Pending::start(|done| self.log(log).reset(start, done)).await?,
        }
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, WalError> {
        Pending::start(|done| self.entries.meta_get(key, done)).await
    }

    async fn put(&self, key: &str, value: Option<Bytes>) -> Result<(), DiskError> {
        let entry = vec![(key.to_owned(), value)];
        Ok(Pending::start(|done| self.entries.meta_put(entry, done)).await?)
    }
}

type Appending = Pending<Result<chronik_core::wal::Appended, WalError>>;

async fn read(log: &dyn Wal, range: Range<Offset>) -> Result<Payload, WalError> {
    let mut all = Payload::new();
    let mut from = range.start;
    while from < range.end {
        let wanted = ReadRange { from, upto: range.end, max_bytes: READ_BYTES, min_one: true };
        let chunk = Pending::start(|done| log.read(wanted, done)).await?;
        if chunk.bytes.is_empty() {
            break;
        }
        from = chunk.next_offset;
        all.append(chunk.bytes);
    }
    Ok(all)
}
