//! A log as tests like to talk to it: futures, and panics for what must not go wrong.

use super::Store;
use bytes::Bytes;
use chronik_core::ids::{LeaderEpoch, LogId, Offset, TopicId};
use chronik_core::payload::Payload;
use chronik_core::pending::Pending;
use chronik_core::time::Timestamp;
use chronik_core::wal::{
    Appended, Chunk, LogState, OpenMode, OpenOptions, ReadRange, Refused, Run, Segmented, Wal, WalEngine, WalError,
};
use std::sync::Arc;

/// Segments of the logs that rules use unless they say otherwise: small, so that a few dozen runs fill several.
pub const SEGMENT_BYTES: u64 = 4096;

pub fn id(number: u8) -> LogId {
    LogId { topic: TopicId([number; 16]), partition: i32::from(number) }
}

pub fn options(mode: OpenMode) -> OpenOptions {
    OpenOptions { mode, segment_bytes: SEGMENT_BYTES }
}

/// A run of `records` offsets whose bytes tell where it belongs.
pub fn run_of(base: i64, records: i64, epoch: i32, timestamp: i64, bytes: usize) -> Run {
    let text = format!("<{base}+{records}@{epoch}>");
    let content: Vec<u8> = text.bytes().cycle().take(bytes).collect();
    // In two pieces, as batches come.
    let content = Bytes::from(content);
    let cut = bytes / 3;
    Run {
        base: Offset(base),
        next_offset: Offset(base + records),
        epoch: LeaderEpoch(epoch),
        max_timestamp: Timestamp(timestamp),
        bytes: [content.slice(..cut), content.slice(cut..)].into_iter().collect::<Payload>(),
    }
}

/// A log under test.
#[derive(Clone)]
pub struct Log {
    pub wal: Arc<dyn Wal>,
}

impl Log {
    pub async fn open(engine: &dyn WalEngine, number: u8) -> Self {
        Self::open_with(engine, number, SEGMENT_BYTES).await
    }

    pub async fn open_with(engine: &dyn WalEngine, number: u8, segment_bytes: u64) -> Self {
        let options = OpenOptions { mode: OpenMode::CreateIfMissing, segment_bytes };
        match engine.open(id(number), options).await {
            Ok(wal) => Self { wal },
            Err(error) => panic!("opening log {number}: {error}"),
        }
    }

    /// A fresh engine with one log.
    pub async fn fresh(store: &dyn Store) -> (Arc<dyn WalEngine>, Self) {
        let engine = store.start();
        let log = Self::open(&*engine, 1).await;
        (engine, log)
    }

    pub fn state(&self) -> LogState {
        let state = self.wal.state();
        assert!(
            state.start <= state.durable_end
                && state.durable_end <= state.written_end
                && state.written_end <= state.end,
            "the ends are out of order: {state:?}"
        );
        state
    }

    /// Orders without writing.
    pub fn order(&self, run: Run) -> Result<Pending<Result<Appended, WalError>>, Refused> {
        let mut refused = None;
        let pending = Pending::start(|done| match self.wal.append(run.clone(), done) {
            Ok(started) => started,
            Err(rejected) => {
                assert_eq!(rejected.run, run, "a refused run comes back as it was");
                refused = Some(rejected.why);
                chronik_core::pending::Started::Later
            }
        });
        refused.map_or(Ok(pending), Err)
    }

    /// Why the run is refused; it must be.
    pub fn refused(&self, run: Run) -> Refused {
        match self.order(run) {
            Ok(_) => panic!("the run was ordered"),
            Err(why) => why,
        }
    }

    pub async fn append(&self, run: Run) {
        let next_offset = run.next_offset;
        let ordered = match self.order(run) {
            Ok(ordered) => ordered,
            Err(why) => panic!("refused: {why}"),
        };
        self.wal.write_queued();
        match ordered.await {
            Ok(appended) => assert!(appended.written_end >= next_offset, "completed before it was written"),
            Err(error) => panic!("appending: {error}"),
        }
    }

    /// `count` contiguous runs from the end on, of growing sizes, timestamps and records.
    pub async fn fill(&self, count: usize) {
        for number in 0..count as i64 {
            let base = self.state().end.0;
            let epoch = self.state().last_epoch.0;
            self.append(run_of(base, 1 + number % 3, epoch, 1000 + base, 20 + (number as usize * 37) % 400)).await;
        }
    }

    pub async fn try_sync(&self, upto: Offset) -> Result<Offset, WalError> {
        Pending::start(|done| self.wal.sync(upto, done)).await
    }

    /// Makes everything durable.
    pub async fn sync(&self) -> Offset {
        let end = self.state().end;
        match self.try_sync(end).await {
            Ok(durable_end) => {
                assert!(durable_end >= end && self.state().durable_end >= end, "synced less than asked for");
                durable_end
            }
            Err(error) => panic!("syncing: {error}"),
        }
    }

    pub async fn try_read(&self, range: ReadRange) -> Result<Chunk, WalError> {
        Pending::start(|done| self.wal.read(range, done)).await
    }

    /// All that the range allows: an engine may give less at a time, but never nothing where one more run fits.
    pub async fn read(&self, range: ReadRange) -> Chunk {
        let mut all = Chunk { base: range.from, next_offset: range.from, ..Chunk::default() };
        loop {
            let first = all.base == all.next_offset;
            let max_bytes = range.max_bytes.saturating_sub(all.bytes.len());
            let rest = ReadRange { from: all.next_offset, max_bytes, min_one: range.min_one && first, ..range };
            let chunk = match self.try_read(rest).await {
                Ok(chunk) => chunk,
                Err(error) => panic!("reading {rest:?}: {error}"),
            };
            if chunk.next_offset == rest.from {
                return all;
            }
            assert!(chunk.base < chunk.next_offset && chunk.next_offset > rest.from, "{rest:?} goes back");
            all.base = if first { chunk.base } else { all.base };
            all.next_offset = chunk.next_offset;
            all.bytes.append(chunk.bytes);
        }
    }

    /// Everything from `from` on, in as many reads as it takes.
    pub async fn read_all(&self, from: Offset) -> Payload {
        let mut all = Payload::new();
        let (mut from, end) = (from, self.state().end);
        while from < end {
            let chunk = self.read(ReadRange { from, upto: end, max_bytes: 1000, min_one: true }).await;
            assert!(chunk.next_offset > from, "a read below the end gives something");
            from = chunk.next_offset;
            all.append(chunk.bytes);
        }
        all
    }

    pub async fn truncate_suffix(&self, from: i64) -> Result<(), WalError> {
        Pending::start(|done| self.wal.truncate_suffix(Offset(from), done)).await
    }

    pub async fn truncate_prefix(&self, upto: i64) -> Result<(), WalError> {
        Pending::start(|done| self.wal.truncate_prefix(Offset(upto), done)).await
    }

    pub async fn reset(&self, start: i64) -> Result<(), WalError> {
        Pending::start(|done| self.wal.reset(Offset(start), done)).await
    }

    pub async fn offset_for_timestamp(&self, time: i64) -> Option<Offset> {
        match Pending::start(|done| self.wal.offset_for_timestamp(Timestamp(time), done)).await {
            Ok(offset) => offset,
            Err(error) => panic!("looking up time {time}: {error}"),
        }
    }

    pub async fn put(&self, entries: &[(&str, Option<&str>)]) -> Result<(), WalError> {
        let value = |value: &str| Bytes::copy_from_slice(value.as_bytes());
        let entries = entries.iter().map(|(key, to)| ((*key).to_owned(), to.map(value))).collect();
        Pending::start(|done| self.wal.meta_put(entries, done)).await
    }

    pub async fn get(&self, key: &str) -> Option<String> {
        match Pending::start(|done| self.wal.meta_get(key, done)).await {
            Ok(value) => value.map(|value| String::from_utf8_lossy(&value).into_owned()),
            Err(error) => panic!("getting {key}: {error}"),
        }
    }

    pub async fn close(&self) -> Result<(), WalError> {
        Pending::start(|done| self.wal.close(done)).await
    }

    /// The same log, closed and opened again.
    pub async fn reopen(&self, engine: &dyn WalEngine, number: u8) -> Self {
        if let Err(error) = self.close().await {
            panic!("closing: {error}");
        }
        Self::open(engine, number).await
    }

    pub fn segmented(&self) -> Option<&dyn Segmented> {
        self.wal.segmented()
    }
}

/// All runs from `from`, whatever their size.
pub fn everything(from: Offset) -> ReadRange {
    ReadRange { from, upto: Offset(i64::MAX), max_bytes: usize::MAX >> 1, min_one: true }
}
