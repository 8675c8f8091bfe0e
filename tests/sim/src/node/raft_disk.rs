//! The metadata's disk: the steps that `chronik_core::metadata::raft::store` plans, on a segment engine of its own.

use super::Around;
use bytes::Bytes;
use chronik_core::ids::Offset;
use chronik_core::metadata::raft::store::{self, ENTRIES_LOG, HARD_STATE, Log, SNAPSHOT, SNAPSHOTS_LOG, Step};
use chronik_core::metadata::raft::{Persist, Recovered};
use chronik_core::payload::Payload;
use chronik_core::pending::{Pending, Started};
use chronik_core::time::Timestamp;
use chronik_core::wal::{OpenMode, OpenOptions, ReadRange, Run, Wal, WalEngine};
use chronik_storage_segment::{SegmentEngine, SegmentOptions};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

const SEGMENT_BYTES: u64 = 64 << 10;
const DIRECTORY_ID: &str = "directory.id";

/// What ends a process: its disk does not do as it is told.
#[derive(Debug)]
pub struct DiskError(pub String);

fn failed(why: impl std::fmt::Debug) -> DiskError {
    DiskError(format!("{why:?}"))
}

/// See the module's head.
pub struct RaftDisk {
    around: Around,
    _engine: SegmentEngine,
    entries: Arc<dyn Wal>,
    snapshots: Arc<dyn Wal>,
}

impl RaftDisk {
    pub async fn open(
        around: Around,
        disk: crate::disk::SimDisk,
        options: SegmentOptions,
        given_id: Option<[u8; 16]>,
    ) -> Result<(Self, [u8; 16], Recovered), DiskError> {
        let lanes = around.sim.lanes(around.process);
        let engine = SegmentEngine::over(Arc::new(disk), lanes, options).map_err(failed)?;
        let how = OpenOptions { mode: OpenMode::CreateIfMissing, segment_bytes: SEGMENT_BYTES };
        let entries = engine.open(ENTRIES_LOG, how).await.map_err(failed)?;
        let snapshots = engine.open(SNAPSHOTS_LOG, how).await.map_err(failed)?;
        let disk = Self { around, _engine: engine, entries, snapshots };
        let directory_id = match disk.get(DIRECTORY_ID).await?.and_then(|id| id.as_ref().try_into().ok()) {
            Some(known) => known,
            None => {
                let sim = &disk.around.sim;
                let draw = || chronik_core::metadata::raft::directory_id(|| sim.roll(|dice| dice.identity()));
                let drawn = given_id.unwrap_or_else(draw);
                disk.put(DIRECTORY_ID, Bytes::copy_from_slice(&drawn)).await?;
                drawn
            }
        };
        let recovered = disk.recover().await?;
        Ok((disk, directory_id, recovered))
    }

    async fn recover(&self) -> Result<Recovered, DiskError> {
        let (hard_state, snapshot) = (self.get(HARD_STATE).await?, self.get(SNAPSHOT).await?);
        let (entries, snapshots) = (self.entries.state(), self.snapshots.state());
        let mut survey =
            store::survey(hard_state.as_deref(), snapshot.as_deref(), &entries, &snapshots).map_err(failed)?;
        for step in std::mem::take(&mut survey.finish) {
            self.step(step).await?;
        }
        let image = read(&*self.snapshots, survey.image.clone()).await?;
        let held = read(&*self.entries, survey.entries.clone()).await?;
        survey.recover(&image, &held).map_err(failed)
    }

    /// Makes all of it durable.
    pub async fn persist(&self, persist: &Persist, now: Timestamp) -> Result<(), DiskError> {
        let steps = store::plan(persist, self.snapshots.state().end, now);
        let mut appended = Vec::new();
        for step in steps {
            match step {
                Step::Append(log, run) => appended.push(self.append(log, run)?),
                step => {
                    self.written(&mut appended).await?;
                    self.step(step).await?;
                }
            }
        }
        self.written(&mut appended).await
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
            Some(why) => Err(failed(why)),
        }
    }

    async fn written(&self, appended: &mut Vec<(Log, Appending)>) -> Result<(), DiskError> {
        for log in [Log::Entries, Log::Snapshots] {
            if appended.iter().any(|(of, _)| *of == log) {
                let span = self.around.sim.roll(|dice| dice.span(Duration::ZERO, Duration::from_micros(300)));
                self.around.sim.sleep(self.around.process, span).await;
                self.log(log).write_queued();
            }
        }
        for (_, appending) in appended.drain(..) {
            appending.await.map_err(failed)?;
        }
        Ok(())
    }

    async fn step(&self, step: Step) -> Result<(), DiskError> {
        match step {
            Step::Put { key, value } => self.put(key, value).await?,
            Step::Append(log, run) => self.written(&mut vec![self.append(log, run)?]).await?,
            Step::Sync(log, upto) => {
                Pending::start(|done| self.log(log).sync(upto, done)).await.map_err(failed)?;
            }
            Step::CutSuffix(log, from) => {
                Pending::start(|done| self.log(log).truncate_suffix(from, done)).await.map_err(failed)?;
            }
            Step::CutPrefix(log, upto) => {
                Pending::start(|done| self.log(log).truncate_prefix(upto, done)).await.map_err(failed)?;
            }
            Step::Reset(log, start) => {
                Pending::start(|done| self.log(log).reset(start, done)).await.map_err(failed)?;
            }
        }
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, DiskError> {
        Pending::start(|done| self.entries.meta_get(key, done)).await.map_err(failed)
    }

    async fn put(&self, key: &str, value: Bytes) -> Result<(), DiskError> {
        let entry = vec![(key.to_owned(), Some(value))];
        Pending::start(|done| self.entries.meta_put(entry, done)).await.map_err(failed)
    }
}

type Appending = Pending<Result<chronik_core::wal::Appended, chronik_core::wal::WalError>>;

async fn read(log: &dyn Wal, range: Range<Offset>) -> Result<Payload, DiskError> {
    let mut all = Payload::new();
    let mut from = range.start;
    while from < range.end {
        let wanted = ReadRange { from, upto: range.end, max_bytes: 1 << 20, min_one: true };
        let chunk = Pending::start(|done| log.read(wanted, done)).await.map_err(failed)?;
        if chunk.bytes.is_empty() {
            break;
        }
        from = chunk.next_offset;
        all.append(chunk.bytes);
    }
    Ok(all)
}
