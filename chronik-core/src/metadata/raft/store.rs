//! How Raft's state lies on disk, and what order of writing makes any crash a state that Raft allows.
//!
//! Two logs. [`Log::Entries`] has one Kafka record batch per entry: its base offset is the entry's index and its epoch the
//! term, so that whatever reads logs reads this one, and the log truncates at any entry. [`Log::Snapshots`] has the image
//! of the newest snapshot, in pieces. Beside the entries two small values are kept: [`HARD_STATE`], and [`SNAPSHOT`], which
//! says where the image lies and from where on entries count.
//!
//! **Order** ([`plan`]): hard state → image, synced → the value that names it → entries it stands for go → truncate →
//! append → sync. A term or vote is on disk before any entry of that term; a snapshot takes effect with one small atomic
//! write, and what it makes superfluous goes after that ([`survey`] finishes it if that was cut short); what waits for
//! these steps is told only when all are done, so a crash in between takes nothing back that anyone was told.
//!
//! Nothing here reads or writes: these are functions from effects to [`Step`]s and from what was read to a
//! [`Recovered`], and the driver does the steps.

use super::configuration::Configuration;
use super::entries::{Content, Entry, Mark};
use super::members::{Members, RaftId};
use super::snapshot::Snapshot;
use super::{HardState, Persist, SnapshotChange};
use crate::batch::{self, Batch, Builder, RecordOut, Records};
use crate::crc32c;
use crate::ids::{LeaderEpoch, LogId, Offset, TopicId};
use crate::payload::Payload;
use crate::time::Timestamp;
use crate::wal::{LogState, Run};
use bytes::Bytes;
use prost::Message;
use std::ops::Range;

/// Where the two logs are kept. Partition 0 of the topic is that of a broker without a cluster, which is laid out
/// otherwise.
pub const ENTRIES_LOG: LogId = LogId { topic: TopicId::METADATA, partition: 1 };
pub const SNAPSHOTS_LOG: LogId = LogId { topic: TopicId::METADATA, partition: 2 };
/// Keys of the values beside the entries.
pub const HARD_STATE: &str = "raft.hard-state";
pub const SNAPSHOT: &str = "raft.snapshot";

/// Pieces of an image, in bytes: well below what any engine takes in one run.
const PIECE_BYTES: usize = 1 << 20;
/// The same for all: one that was cut short by a crash may be of a later term than the next one, and a log's epochs never
/// fall.
const PIECE_EPOCH: LeaderEpoch = LeaderEpoch(0);
const MEMBERSHIP_KEY: &[u8] = b"raft.membership";
const PIECE_KEY: &[u8] = b"raft.snapshot";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Log {
    Entries,
    Snapshots,
}

/// One thing to do on disk. Each is complete, and except for `Append` durable, before the next begins.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Beside [`Log::Entries`].
    Put { key: &'static str, value: Bytes },
    /// Ordered; durable with the next `Sync` of that log.
    Append(Log, Run),
    /// Everything below is durable.
    Sync(Log, Offset),
    /// What lies at or after goes.
    CutSuffix(Log, Offset),
    /// What lies before goes.
    CutPrefix(Log, Offset),
    /// All goes; the log begins anew there.
    Reset(Log, Offset),
}

/// Why what was read cannot be believed: it is not what a crash leaves. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the Raft log is damaged at offset {at}: {what}")]
pub struct Damage {
    pub at: Offset,
    pub what: String,
}

fn damage<T>(at: Offset, what: impl Into<String>) -> Result<T, Damage> {
    Err(Damage { at, what: what.into() })
}

#[derive(Clone, PartialEq, Eq, Message)]
struct HardStateRecord {
    #[prost(uint64, tag = "1")]
    term: u64,
    /// Zero: nobody.
    #[prost(uint64, tag = "2")]
    vote: u64,
    #[prost(uint64, tag = "3")]
    commit: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct SnapshotRecord {
    #[prost(uint64, tag = "1")]
    index: u64,
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(bytes = "vec", tag = "3")]
    configuration: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    members: Vec<u8>,
    /// The last entry that is gone.
    #[prost(uint64, tag = "5")]
    cut_index: u64,
    #[prost(uint64, tag = "6")]
    cut_term: u64,
    /// A leader's: entries from before it are of another story, and all go.
    #[prost(bool, tag = "7")]
    received: bool,
    /// Where the image's pieces lie.
    #[prost(int64, tag = "8")]
    from: i64,
    #[prost(int64, tag = "9")]
    to: i64,
    #[prost(uint64, tag = "10")]
    image_bytes: u64,
    #[prost(uint32, tag = "11")]
    image_crc32c: u32,
}

/// Everything that a node starts from; the default is a blank disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovered {
    pub hard_state: HardState,
    pub snapshot: Option<Snapshot>,
    /// What precedes the first entry.
    pub cut: Mark,
    pub entries: Vec<Entry>,
}

impl Recovered {
    /// A cluster's first state, the same on every voter.
    pub fn genesis(voters: &Members) -> Recovered {
        let snapshot = Snapshot::genesis(voters);
        Recovered {
            hard_state: HardState { term: snapshot.at.term, vote: None, commit: 0 },
            cut: snapshot.at,
            snapshot: Some(snapshot),
            entries: Vec::new(),
        }
    }

    /// What makes a blank disk hold [`Recovered::genesis`]; done before anything else there, and done again if it was cut
    /// short.
    pub fn genesis_persist(voters: &Members) -> Persist {
        let genesis = Recovered::genesis(voters);
        Persist {
            number: 0,
            hard_state: Some(genesis.hard_state),
            snapshot: genesis.snapshot.map(SnapshotChange::Received),
            truncate_from: None,
            entries: Vec::new(),
        }
    }
}

/// What a persist effect means on disk, in order. `snapshots_end` is where the log of snapshots ends, `now` what the
/// entries' timestamps say.
pub fn plan(persist: &Persist, snapshots_end: Offset, now: Timestamp) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(state) = persist.hard_state {
        let vote = state.vote.map_or(0, RaftId::get);
        let record = HardStateRecord { term: state.term, vote, commit: state.commit };
        steps.push(Step::Put { key: HARD_STATE, value: record.encode_to_vec().into() });
    }
    match &persist.snapshot {
        None => {}
        Some(SnapshotChange::Received(snapshot)) => {
            let begins = place(snapshot.at.index + 1);
            let from = put_snapshot(&mut steps, snapshot, snapshot.at, true, snapshots_end, now);
            steps.extend([Step::Reset(Log::Entries, begins), Step::CutPrefix(Log::Snapshots, from)]);
        }
        Some(SnapshotChange::Taken { snapshot, cut }) => {
            let from = put_snapshot(&mut steps, snapshot, *cut, false, snapshots_end, now);
            let begins = place(cut.index + 1);
            steps.extend([Step::CutPrefix(Log::Entries, begins), Step::CutPrefix(Log::Snapshots, from)]);
        }
    }
    if let Some(from) = persist.truncate_from {
        steps.push(Step::CutSuffix(Log::Entries, place(from)));
    }
    steps.extend(persist.entries.iter().map(|entry| Step::Append(Log::Entries, entry_run(entry, now))));
    if let Some(last) = persist.entries.last() {
        steps.push(Step::Sync(Log::Entries, place(last.at.index + 1)));
    }
    steps
}

/// Indexes are bounded far below what an offset can be (`INDEX_MAX`).
fn place(index: u64) -> Offset {
    Offset(i64::try_from(index).unwrap_or(i64::MAX))
}

/// Terms are bounded by what an epoch can be (`TERM_MAX`).
fn epoch(term: u64) -> LeaderEpoch {
    LeaderEpoch(i32::try_from(term).unwrap_or(i32::MAX))
}

/// Gives where the image begins.
fn put_snapshot(
    steps: &mut Vec<Step>,
    snapshot: &Snapshot,
    cut: Mark,
    received: bool,
    from: Offset,
    now: Timestamp,
) -> Offset {
    let mut to = from;
    for piece in snapshot.image.chunks(PIECE_BYTES) {
        let record = RecordOut { key: Some(PIECE_KEY), value: Some(piece), ..RecordOut::default() };
        steps.push(Step::Append(Log::Snapshots, run(record, to, PIECE_EPOCH, now)));
        to = to + 1;
    }
    if to > from {
        steps.push(Step::Sync(Log::Snapshots, to));
    }
    let record = SnapshotRecord {
        index: snapshot.at.index,
        term: snapshot.at.term,
        configuration: snapshot.configuration.to_bytes(),
        members: snapshot.members.to_bytes(),
        cut_index: cut.index,
        cut_term: cut.term,
        received,
        from: from.0,
        to: to.0,
        image_bytes: snapshot.image.len() as u64,
        image_crc32c: crc32c::crc32c(&snapshot.image),
    };
    steps.push(Step::Put { key: SNAPSHOT, value: record.encode_to_vec().into() });
    from
}

fn entry_run(entry: &Entry, now: Timestamp) -> Run {
    let (key, value) = match &entry.content {
        Content::Empty => (None, None),
        Content::Data(bytes) => (None, Some(&bytes[..])),
        Content::Membership(bytes) => (Some(MEMBERSHIP_KEY), Some(&bytes[..])),
    };
    run(RecordOut { key, value, ..RecordOut::default() }, place(entry.at.index), epoch(entry.at.term), now)
}

fn run(record: RecordOut<'_>, base: Offset, epoch: LeaderEpoch, now: Timestamp) -> Run {
    let mut builder = Builder::new(now);
    builder.push(&record);
    let mut batch = builder.build();
    batch.header.base_offset = base;
    batch.header.leader_epoch = epoch;
    Run { base, next_offset: base + 1, epoch, max_timestamp: now, bytes: batch.to_payload() }
}

/// What the values and the logs' bounds say, before anything is read.
#[derive(Debug)]
pub struct Survey {
    hard_state: HardState,
    snapshot: Option<(SnapshotRecord, Configuration, Members)>,
    /// To be done before anything is read: what a crash has left half done.
    pub finish: Vec<Step>,
    /// Of [`Log::Snapshots`]: to be read whole.
    pub image: Range<Offset>,
    /// Of [`Log::Entries`]: to be read whole.
    pub entries: Range<Offset>,
}

/// The first part of recovery, from the values of [`HARD_STATE`] and [`SNAPSHOT`] and where the logs stand.
pub fn survey(
    hard_state: Option<&[u8]>,
    snapshot: Option<&[u8]>,
    entries: &LogState,
    snapshots: &LogState,
) -> Result<Survey, Damage> {
    let hard_state = match hard_state.map(HardStateRecord::decode) {
        None => HardState::default(),
        Some(Ok(record)) => HardState { term: record.term, vote: RaftId::new(record.vote), commit: record.commit },
        Some(Err(why)) => return damage(Offset::ZERO, format!("its hard state cannot be read: {why}")),
    };
    let record = match snapshot.map(SnapshotRecord::decode) {
        None if entries.start < entries.end => return damage(entries.start, "it has entries and no snapshot before"),
        None => {
            let nothing = Offset::ZERO..Offset::ZERO;
            let (image, entries) = (nothing.clone(), nothing);
            return Ok(Survey { hard_state, snapshot: None, finish: Vec::new(), image, entries });
        }
        Some(Ok(record)) => record,
        Some(Err(why)) => return damage(entries.start, format!("its snapshot's place cannot be read: {why}")),
    };
    let known = (Configuration::from_bytes(&record.configuration), Members::from_bytes(&record.members));
    let (Some(configuration), Some(members)) = known else {
        return damage(entries.start, "its snapshot's configuration cannot be read");
    };
    let mut finish = Vec::new();
    let first = place(record.cut_index.saturating_add(1));
    let mut held = first..entries.end;
    if record.received && entries.start != first {
        finish.push(Step::Reset(Log::Entries, first));
        held = first..first;
    } else if entries.start > first || entries.end < first {
        return damage(entries.start, format!("it should begin at {first}"));
    } else if entries.start < first {
        finish.push(Step::CutPrefix(Log::Entries, first));
    }
    let image = Offset(record.from)..Offset(record.to);
    if image.start > image.end || image.start < snapshots.start || image.end > snapshots.end {
        return damage(image.start, "its snapshot's image is missing");
    }
    if snapshots.start < image.start {
        finish.push(Step::CutPrefix(Log::Snapshots, image.start));
    }
    Ok(Survey { hard_state, snapshot: Some((record, configuration, members)), finish, image, entries: held })
}

impl Survey {
    /// The second part of recovery, from the bytes of the two ranges.
    pub fn recover(self, image: &Payload, entries: &Payload) -> Result<Recovered, Damage> {
        let Some((record, configuration, members)) = self.snapshot else {
            return Ok(Recovered { hard_state: self.hard_state, ..Recovered::default() });
        };
        let mut pieces = Vec::with_capacity(image.len());
        read(image, self.image.clone(), |_, record| {
            pieces.extend_from_slice(record.value.unwrap_or_default());
            record.key == Some(PIECE_KEY)
        })?;
        if pieces.len() as u64 != record.image_bytes || crc32c::crc32c(&pieces) != record.image_crc32c {
            return damage(self.image.start, "the snapshot's image is not what was written");
        }
        let mut held = Vec::new();
        read(entries, self.entries, |batch, record| {
            let at = Mark {
                index: batch.header.base_offset.0.unsigned_abs(),
                term: u64::try_from(batch.header.leader_epoch.0).unwrap_or(0),
            };
            let content = match (record.key, record.value) {
                (None, None) => Content::Empty,
                (None, Some(value)) => Content::Data(Bytes::copy_from_slice(value)),
                (Some(MEMBERSHIP_KEY), value) => Content::Membership(Bytes::copy_from_slice(value.unwrap_or_default())),
                (Some(_), _) => return false,
            };
            held.push(Entry { at, content });
            true
        })?;
        let at = Mark { index: record.index, term: record.term };
        Ok(Recovered {
            hard_state: self.hard_state,
            snapshot: Some(Snapshot { at, configuration, members, image: pieces.into() }),
            cut: Mark { index: record.cut_index, term: record.cut_term },
            entries: held,
        })
    }
}

/// Gives every record of a range; `take` says whether it belongs there.
fn read(
    bytes: &Payload,
    range: Range<Offset>,
    mut take: impl FnMut(&Batch, &batch::Record<'_>) -> bool,
) -> Result<(), Damage> {
    let mut next = range.start;
    for batch in batch::batches(bytes) {
        let batch = match batch {
            Ok(batch) => batch,
            Err(why) => return damage(next, why.to_string()),
        };
        if batch.header.base_offset != next || !batch.is_intact() {
            return damage(next, "what is stored here is not what was written");
        }
        let mut records = Records::new(&batch.records);
        let taken = match (records.next(), records.next()) {
            (Some(Ok(record)), None) => take(&batch, &record),
            _ => false,
        };
        if !taken {
            return damage(next, "what is stored here is not known to this release");
        }
        next = next + 1;
    }
    if next != range.end {
        return damage(next, format!("it should reach to {}", range.end));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
