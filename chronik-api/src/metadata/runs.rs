//! How metadata lies in its log: one Kafka record batch per run, one fact per record, so that a fact has an offset.
//!
//! A fact is a record without a key. A snapshot is a stretch of records with keys: `begin`, the image's records, `end`; it
//! may take several runs, and no fact comes between. A log begins either with the first fact of all or with a snapshot,
//! since what precedes a snapshot is cut off only when all of it is durable. A snapshot that is anywhere else repeats what
//! is known already and is skipped, whole or not.

use bytes::Bytes;
use chronik_core::batch::{self, Builder, RecordOut, Records};
use chronik_core::ids::{LeaderEpoch, Offset};
use chronik_core::metadata::records::NotARecord;
use chronik_core::metadata::{ApplyError, ClusterDefaults, Delta, Image, Position, Record};
use chronik_core::payload::Payload;
use chronik_core::pending::Pending;
use chronik_core::time::Timestamp;
use chronik_core::wal::{ReadRange, Run, Wal, WalError};

/// Bytes read at a time.
const READ_BYTES: usize = 1 << 20;
/// A snapshot's runs are cut at about this size, so that no engine is asked for a huge one.
const SNAPSHOT_RUN_BYTES: usize = 1 << 20;

const BEGIN: &[u8] = b"snapshot-begin";
const PART: &[u8] = b"snapshot";
const END: &[u8] = b"snapshot-end";

/// Why a log cannot be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("it cannot be read")]
    Log(#[from] WalError),
    #[error("what lies at offset {offset} is no batch of records: {why}")]
    NotABatch { offset: Offset, why: String },
    #[error("the record at offset {offset} is not understood")]
    NotARecord { offset: Offset, source: NotARecord },
    #[error("the record at offset {offset} contradicts those before it")]
    Apply { offset: Offset, source: ApplyError },
    #[error("it begins at offset {0}, and what came before is not there")]
    NoBeginning(Offset),
}

/// Facts as one run.
pub fn facts(base: Offset, epoch: LeaderEpoch, now: Timestamp, records: &[Record]) -> Run {
    let mut builder = Builder::new(now);
    for record in records {
        builder.push(&RecordOut { value: Some(&record.to_bytes()), ..RecordOut::default() });
    }
    run(base, epoch, now, builder)
}

/// An image as the runs of a snapshot.
pub fn snapshot(image: &Image, now: Timestamp) -> Vec<Run> {
    let Position { next, epoch } = image.position();
    let mut base = next;
    let mut runs = Vec::new();
    let mut builder = Builder::new(now);
    let begin = [(BEGIN, Vec::new())];
    let parts = image.to_records().into_iter().map(|record| (PART, record.to_bytes()));
    for (key, value) in begin.into_iter().chain(parts).chain([(END, Vec::new())]) {
        if builder.size_bytes() > SNAPSHOT_RUN_BYTES {
            let full = run(base, epoch, now, std::mem::replace(&mut builder, Builder::new(now)));
            base = full.next_offset;
            runs.push(full);
        }
        builder.push(&RecordOut { key: Some(key), value: Some(&value), ..RecordOut::default() });
    }
    runs.push(run(base, epoch, now, builder));
    runs
}

/// `builder` must hold at least one record.
fn run(base: Offset, epoch: LeaderEpoch, now: Timestamp, builder: Builder) -> Run {
    let mut batch = builder.build();
    // Both lie outside the checksum.
    batch.header.base_offset = base;
    batch.header.leader_epoch = epoch;
    Run { base, next_offset: batch.header.next_offset(), epoch, max_timestamp: now, bytes: batch.to_payload() }
}

/// Reads a log from its start to its end.
pub async fn replay(log: &dyn Wal, defaults: ClusterDefaults) -> Result<Replayed, ReplayError> {
    let state = log.state();
    let mut replay = Replay {
        blank: Image::empty(defaults.clone()),
        image: (state.start == Offset::ZERO).then(|| Image::empty(defaults)),
        building: None,
        facts: 0,
    };
    let mut from = state.start;
    while from < state.end {
        let range = ReadRange { from, upto: state.end, max_bytes: READ_BYTES, min_one: true };
        let chunk = Pending::start(|done| log.read(range, done)).await?;
        replay.chunk(&chunk.bytes)?;
        if chunk.next_offset <= from {
            return Err(ReplayError::NoBeginning(from));
        }
        from = chunk.next_offset;
    }
    let image = replay.image.ok_or(ReplayError::NoBeginning(state.start))?;
    // An incomplete snapshot at the end takes up offsets too.
    let epoch = image.position().epoch.max(state.last_epoch);
    Ok(Replayed { image: image.at(Position { next: state.end, epoch }), facts: replay.facts })
}

/// What a log says.
#[derive(Debug)]
pub struct Replayed {
    pub image: Image,
    /// Facts since the log's beginning or last whole snapshot: what another restart would replay.
    pub facts: u64,
}

struct Replay {
    blank: Image,
    /// Unknown in a log that begins with a snapshot, until that is read.
    image: Option<Image>,
    building: Option<Image>,
    facts: u64,
}

impl Replay {
    fn chunk(&mut self, bytes: &Payload) -> Result<(), ReplayError> {
        for batch in batch::batches(bytes) {
            let next = self.image.as_ref().map_or(Offset::ZERO, |image| image.position().next);
            let batch = batch.map_err(|why| ReplayError::NotABatch { offset: next, why: why.to_string() })?;
            let base = batch.header.base_offset;
            for record in Records::new(&batch.records) {
                let record = record.map_err(|why| ReplayError::NotABatch { offset: base, why: why.to_string() })?;
                let offset = base + i64::from(record.offset_delta);
                let value = Bytes::copy_from_slice(record.value.unwrap_or_default());
                self.record(offset, batch.header.leader_epoch, record.key, &value)?;
            }
        }
        Ok(())
    }

    fn record(
        &mut self,
        offset: Offset,
        epoch: LeaderEpoch,
        key: Option<&[u8]>,
        value: &[u8],
    ) -> Result<(), ReplayError> {
        let read = || Record::from_bytes(value).map_err(|source| ReplayError::NotARecord { offset, source });
        let applied = |outcome: Result<(), ApplyError>| outcome.map_err(|source| ReplayError::Apply { offset, source });
        match key {
            None => {
                // A snapshot that was cut short by a crash ends where facts go on.
                self.building = None;
                let image = self.image.as_mut().ok_or(ReplayError::NoBeginning(offset))?;
                self.facts += 1;
                applied(image.apply(offset, epoch, &read()?, &mut Delta::default()))
            }
            Some(BEGIN) => {
                self.building = Some(self.blank.clone().at(Position { next: offset, epoch }));
                Ok(())
            }
            Some(PART) => match self.building.as_mut() {
                Some(image) => applied(image.apply(offset, epoch, &read()?, &mut Delta::default())),
                None => Err(ReplayError::NoBeginning(offset)),
            },
            Some(END) => {
                let built = self.building.take().ok_or(ReplayError::NoBeginning(offset))?;
                let at = Position { next: offset + 1, epoch };
                self.facts = 0;
                self.image = Some(self.image.take().unwrap_or(built).at(at));
                Ok(())
            }
            Some(other) => Err(ReplayError::NotABatch {
                offset,
                why: format!("its key {:?} is not known to this release", String::from_utf8_lossy(other)),
            }),
        }
    }
}

/// Whether a snapshot says what the image says: asked before anything is cut off for it.
pub fn restores(image: &Image, runs: &[Run]) -> bool {
    let blank = Image::empty(image.defaults().clone());
    let mut replay = Replay { blank, image: None, building: None, facts: 0 };
    let read = runs.iter().try_for_each(|run| replay.chunk(&run.bytes));
    read.is_ok() && replay.image.is_some_and(|restored| restored.says_the_same_as(image))
}
