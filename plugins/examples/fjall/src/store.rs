//! What lies in the database, and how: the only file that knows fjall.
//!
//! Five keyspaces over one journal, so that a batch over all of them is atomic:
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | `logs` | log | [`Record`] |
//! | `aside` | log | the [`Record`] of what was set aside of it, last |
//! | `heads` | log, life, base | [`Head`] |
//! | `bodies` | log, life, base | the run's bytes; from 1 KiB on in files of their own, which compaction does not rewrite |
//! | `values` | log, life, name | a small value |
//!
//! Setting a log aside moves its record, and nothing else: what begins anew under its name has another life. Keys sort as logs
//! and offsets do. Every head says where the run before it ended, so that a run that is missing in the
//! middle is noticed, and what its bytes' checksum is.
//!
//! What must stay true: what is removed is marked in the log's record, durably, before the first of its runs goes, unless all
//! go in one batch; so an interrupted removal is finished by whoever opens the log next.

use chronik_plugin_sdk::ids::{LeaderEpoch, LogId, Offset, TopicId};
use chronik_plugin_sdk::time::Timestamp;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode, Slice};
use std::fs::{self, File};
use std::io;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Where the database is, in the engine's directory.
const DATABASE: &str = "database";
/// A file that is there once the database has been made.
const MADE: &str = "made";

/// Runs that are removed in one batch.
pub const REMOVED_PER_BATCH: usize = 4096;

const LOG_BYTES: usize = 20;
const PLACE_BYTES: usize = LOG_BYTES + 4;
const RECORD_BYTES: usize = 25;
const HEAD_BYTES: usize = 36;
/// What a run occupies besides its bytes: two keys and a head.
pub const RUN_OVERHEAD_BYTES: u64 = 2 * (PLACE_BYTES as u64 + 8) + HEAD_BYTES as u64;

/// Where a log's runs and values lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub log: LogId,
    /// Greater than that of what was set aside.
    pub life: u32,
}

/// What went wrong, in words.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

impl From<fjall::Error> for StoreError {
    fn from(error: fjall::Error) -> Self {
        Self(format!("fjall: {error}"))
    }
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        Self(format!("its directory: {error}"))
    }
}

/// What holds for a log as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub start: Offset,
    pub epoch_before_start: LeaderEpoch,
    /// Runs from here on are gone, though some may still be there.
    pub cut: Option<Offset>,
    /// So is the log.
    pub deleted: bool,
    pub life: u32,
}

/// What is known of a run without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub base: Offset,
    pub next: Offset,
    /// Where the run before it ended when it was appended.
    pub after: Offset,
    pub epoch: LeaderEpoch,
    pub max_timestamp: Timestamp,
    pub crc: u32,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn log_key(log: LogId) -> [u8; LOG_BYTES] {
    let mut key = [0; LOG_BYTES];
    key[..16].copy_from_slice(&log.topic.0);
    // The sign bit turned round, so that negative numbers sort first.
    key[16..].copy_from_slice(&(log.partition as u32 ^ 1 << 31).to_be_bytes());
    key
}

fn log_of(key: &[u8]) -> Option<LogId> {
    let partition = u32::from_be_bytes(number(key, 16)?) ^ 1 << 31;
    Some(LogId { topic: TopicId(number(key, 0)?), partition: partition as i32 })
}

fn place_key(place: Place) -> [u8; PLACE_BYTES] {
    let mut key = [0; PLACE_BYTES];
    key[..LOG_BYTES].copy_from_slice(&log_key(place.log));
    key[LOG_BYTES..].copy_from_slice(&place.life.to_be_bytes());
    key
}

fn run_key(place: Place, base: Offset) -> [u8; PLACE_BYTES + 8] {
    let mut key = [0; PLACE_BYTES + 8];
    key[..PLACE_BYTES].copy_from_slice(&place_key(place));
    key[PLACE_BYTES..].copy_from_slice(&(base.0 as u64).to_be_bytes());
    key
}

fn value_key(place: Place, name: &str) -> Vec<u8> {
    [&place_key(place)[..], name.as_bytes()].concat()
}

impl Record {
    fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..8].copy_from_slice(&self.start.0.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.epoch_before_start.0.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.cut.map_or(-1, |cut| cut.0).to_be_bytes());
        bytes[20] = u8::from(self.deleted);
        bytes[21..].copy_from_slice(&self.life.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let cut = i64::from_be_bytes(number(bytes, 12)?);
        Some(Self {
            start: Offset(i64::from_be_bytes(number(bytes, 0)?)),
            epoch_before_start: LeaderEpoch(i32::from_be_bytes(number(bytes, 8)?)),
            cut: (cut >= 0).then_some(Offset(cut)),
            deleted: *bytes.get(20)? != 0,
            life: u32::from_be_bytes(number(bytes, 21)?),
        })
    }

    pub fn place(&self, log: LogId) -> Place {
        Place { log, life: self.life }
    }
}

impl Head {
    fn encode(&self, len: u32) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..8].copy_from_slice(&self.next.0.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.after.0.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.epoch.0.to_be_bytes());
        bytes[20..28].copy_from_slice(&self.max_timestamp.0.to_be_bytes());
        bytes[28..32].copy_from_slice(&len.to_be_bytes());
        bytes[32..].copy_from_slice(&self.crc.to_be_bytes());
        bytes
    }

    fn decode(key: &[u8], bytes: &[u8]) -> Option<(Self, u32)> {
        let head = Self {
            base: Offset(u64::from_be_bytes(number(key, PLACE_BYTES)?) as i64),
            next: Offset(i64::from_be_bytes(number(bytes, 0)?)),
            after: Offset(i64::from_be_bytes(number(bytes, 8)?)),
            epoch: LeaderEpoch(i32::from_be_bytes(number(bytes, 16)?)),
            max_timestamp: Timestamp(i64::from_be_bytes(number(bytes, 20)?)),
            crc: u32::from_be_bytes(number(bytes, 32)?),
        };
        Some((head, u32::from_be_bytes(number(bytes, 28)?)))
    }
}

/// The database.
pub struct Store {
    database: Database,
    logs: Keyspace,
    aside: Keyspace,
    heads: Keyspace,
    bodies: Keyspace,
    values: Keyspace,
}

/// Changes that happen all together.
pub struct Changes<'a> {
    store: &'a Store,
    batch: fjall::OwnedWriteBatch,
}

impl Store {
    /// Opens the database, or makes it. One whose making was interrupted is made again: it holds nothing yet.
    pub fn open(directory: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let (below, made) = (directory.join(DATABASE), directory.join(MADE));
        let is_made = made.try_exists()?;
        if !is_made && below.try_exists()? {
            fs::remove_dir_all(&below)?;
        }
        let database = Database::builder(&below).cache_size(cache_bytes).open()?;
        // Over damaged files the database may panic, and once more when it is then dropped, which would end the process: it is
        // left as it is instead.
        let database = ManuallyDrop::new(database);
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let plain = |name| database.keyspace(name, KeyspaceCreateOptions::default);
            let (logs, aside, heads, values) = (plain("logs")?, plain("aside")?, plain("heads")?, plain("values")?);
            let separated =
                || KeyspaceCreateOptions::default().with_kv_separation(Some(KvSeparationOptions::default()));
            Ok::<_, StoreError>((logs, aside, heads, database.keyspace("bodies", separated)?, values))
        }));
        let opened =
            opened.map_err(|_| StoreError("fjall has panicked over what it found: its files are damaged".into()))?;
        let database = ManuallyDrop::into_inner(database);
        let (logs, aside, heads, bodies, values) = opened?;
        if !is_made {
            database.persist(PersistMode::SyncAll)?;
            File::create(&made)?.sync_all()?;
            File::open(directory)?.sync_all()?;
        }
        Ok(Self { database, logs, aside, heads, bodies, values })
    }

    /// Makes all that is written durable.
    pub fn sync(&self) -> Result<(), StoreError> {
        Ok(self.database.persist(PersistMode::SyncData)?)
    }

    pub fn changes(&self) -> Changes<'_> {
        Changes { store: self, batch: self.database.batch() }
    }

    /// Every log, in order, with those that are being deleted.
    pub fn logs(&self) -> Result<Vec<(LogId, Record)>, StoreError> {
        let mut logs = Vec::new();
        for entry in self.logs.iter() {
            let (key, value) = entry.into_inner()?;
            let read = log_of(&key).zip(Record::decode(&value));
            logs.push(read.ok_or_else(|| StoreError("the record of a log is damaged".into()))?);
        }
        Ok(logs)
    }

    pub fn record(&self, log: LogId) -> Result<Option<Record>, StoreError> {
        Self::record_in(&self.logs, log)
    }

    fn record_in(keyspace: &Keyspace, log: LogId) -> Result<Option<Record>, StoreError> {
        match keyspace.get(log_key(log))? {
            None => Ok(None),
            Some(value) => match Record::decode(&value) {
                Some(record) => Ok(Some(record)),
                None => Err(StoreError(format!("the record of log {log} is damaged"))),
            },
        }
    }

    /// Of a log that begins.
    pub fn first_record(&self, log: LogId) -> Result<Record, StoreError> {
        let aside = Self::record_in(&self.aside, log)?;
        Ok(Record { life: aside.map_or(0, |aside| aside.life.wrapping_add(1)), ..Record::default() })
    }

    /// The runs of a log, in order, with the lengths of their bytes.
    pub fn heads(&self, place: Place) -> impl Iterator<Item = Result<(Head, u32), StoreError>> + use<> {
        let log = place.log;
        self.heads.prefix(place_key(place)).map(move |entry| {
            let (key, value) = entry.into_inner()?;
            Head::decode(&key, &value).ok_or_else(|| StoreError(format!("a head of log {log} is damaged")))
        })
    }

    /// A run's bytes, unless it is gone.
    pub fn body(&self, place: Place, base: Offset) -> Result<Option<Slice>, StoreError> {
        Ok(self.bodies.get(run_key(place, base))?)
    }

    pub fn value(&self, place: Place, name: &str) -> Result<Option<Slice>, StoreError> {
        Ok(self.values.get(value_key(place, name))?)
    }

    /// Puts a log where nobody looks for it, in the place of what was put there before.
    pub fn set_aside(&self, log: LogId, record: Record) -> Result<(), StoreError> {
        self.remove_aside(log)?;
        let mut moved = self.changes();
        moved.batch.insert(&self.aside, log_key(log), record.encode());
        moved.batch.remove(&self.logs, log_key(log));
        moved.commit(true)
    }

    /// Removes what was set aside of a log.
    pub fn remove_aside(&self, log: LogId) -> Result<(), StoreError> {
        let Some(record) = Self::record_in(&self.aside, log)? else { return Ok(()) };
        let mut changes = self.removed(record.place(log))?;
        changes.batch.remove(&self.aside, log_key(log));
        changes.commit(true)
    }

    /// Removes a log for good: durably gone before the first of its parts is.
    pub fn delete(&self, log: LogId, record: Record) -> Result<(), StoreError> {
        let mut gone = self.changes();
        gone.record(log, &Record { deleted: true, ..record });
        gone.commit(true)?;
        self.finish_deleting(log, record)
    }

    /// Removes what is left of a log that is marked as deleted, and what was set aside of it.
    pub fn finish_deleting(&self, log: LogId, record: Record) -> Result<(), StoreError> {
        self.remove_aside(log)?;
        let mut changes = self.removed(record.place(log))?;
        changes.batch.remove(&self.logs, log_key(log));
        changes.commit(true)
    }

    /// Removes all runs of a place; the changes that it gives remove the values, too. By their keys: whether a head can be read
    /// does not matter.
    fn removed(&self, place: Place) -> Result<Changes<'_>, StoreError> {
        let mut bases = Vec::new();
        for entry in self.heads.prefix(place_key(place)) {
            let base = number(&entry.key()?, PLACE_BYTES).map(u64::from_be_bytes);
            bases.extend(base.map(|base| Offset(base as i64)));
        }
        self.remove_runs(place, &bases)?;
        let mut changes = self.changes();
        for entry in self.values.prefix(place_key(place)) {
            changes.batch.remove(&self.values, entry.key()?);
        }
        Ok(changes)
    }

    /// Removes runs, some at a time. Not durable by itself.
    pub fn remove_runs(&self, place: Place, bases: &[Offset]) -> Result<(), StoreError> {
        for some in bases.chunks(REMOVED_PER_BATCH) {
            let mut changes = self.changes();
            some.iter().for_each(|base| changes.remove_run(place, *base));
            changes.commit(false)?;
        }
        Ok(())
    }
}

impl Changes<'_> {
    pub fn record(&mut self, log: LogId, record: &Record) {
        self.batch.insert(&self.store.logs, log_key(log), record.encode());
    }

    pub fn run(&mut self, place: Place, head: &Head, body: Vec<u8>) {
        let key = run_key(place, head.base);
        self.batch.insert(&self.store.heads, key, head.encode(body.len() as u32));
        self.batch.insert(&self.store.bodies, key, body);
    }

    pub fn remove_run(&mut self, place: Place, base: Offset) {
        let key = run_key(place, base);
        self.batch.remove(&self.store.heads, key);
        self.batch.remove(&self.store.bodies, key);
    }

    pub fn value(&mut self, place: Place, name: &str, value: Option<&[u8]>) {
        let key = value_key(place, name);
        match value {
            Some(value) => self.batch.insert(&self.store.values, key, value),
            None => self.batch.remove(&self.store.values, key),
        }
    }

    /// Hands all of it to the operating system, and where `durable` on to the disk, with all that was written before.
    pub fn commit(self, durable: bool) -> Result<(), StoreError> {
        let mode = if durable { PersistMode::SyncData } else { PersistMode::Buffer };
        if self.batch.is_empty() {
            return if durable { self.store.sync() } else { Ok(()) };
        }
        Ok(self.batch.durability(Some(mode)).commit()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_logs_and_offsets_do_and_records_come_back() {
        let log = |topic, partition| LogId { topic: TopicId([topic; 16]), partition };
        let place = |topic, partition, life| Place { log: log(topic, partition), life };
        let order = [
            (place(0, -1, 0), 5),
            (place(0, 0, 0), 0),
            (place(0, 0, 0), 1 << 40),
            (place(0, 0, 1), 0),
            (place(0, 256, 0), 0),
            (place(1, 0, 0), 0),
        ];
        let keys: Vec<_> = order.iter().map(|(place, base)| run_key(*place, Offset(*base))).collect();
        assert!(keys.is_sorted());
        assert_eq!(log_of(&keys[0]), Some(order[0].0.log));
        let record = Record {
            start: Offset(7),
            epoch_before_start: LeaderEpoch(3),
            cut: Some(Offset(9)),
            deleted: true,
            life: 1 << 20,
        };
        assert_eq!(Record::decode(&record.encode()), Some(record));
        assert_eq!(Record::decode(&Record::default().encode()), Some(Record::default()));
        assert_eq!(Record::decode(&[0; RECORD_BYTES - 1]), None);
        let head = Head {
            base: Offset(1 << 40),
            next: Offset(1 << 41),
            after: Offset(3),
            epoch: LeaderEpoch(8),
            max_timestamp: Timestamp::NONE,
            crc: 0xdead_beef,
        };
        assert_eq!(Head::decode(&run_key(place(0, 0, 0), head.base), &head.encode(77)), Some((head, 77)));
        assert_eq!(Head::decode(&run_key(place(0, 0, 0), head.base), &[0; HEAD_BYTES - 1]), None);
    }
}
