//! What a process finds of its logs on disk, with whatever bytes in it: segments, their indexes, control files, the journal.
//!
//! An input is a list of files: which, and its bytes. The engine starts over them and opens the logs. It may say that one is
//! damaged. What it serves must be what some sound frame in those files holds; a second process must find what the first
//! one found; and a log that was opened takes records again, which the third process finds behind the others.

use crate::disk::{MemoryDisk, Turns};
use crate::target::{Seen, Target, about};
use bytes::Bytes;
use chronik_core::crc32c;
use chronik_core::ids::{LeaderEpoch, LogId, Offset, TopicId};
use chronik_core::payload::Payload;
use chronik_core::pending::Pending;
use chronik_core::time::Timestamp;
use chronik_core::wal::{LogState, OpenMode, OpenOptions, ReadRange, Run, Wal, WalEngine, WalError};
use chronik_storage_segment::frame::{FrameHeader, HEADER_BYTES, payload_crc, salt};
use chronik_storage_segment::{SegmentEngine, SegmentOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// See the module's head.
pub struct LogFiles;

const TOPIC: TopicId = TopicId([9; 16]);
/// Small, so that a log of a few hundred bytes has several segments.
const SEGMENT_BYTES: u64 = 400;
const JOURNAL_BYTES: u64 = 16 << 10;
/// Where a segment may begin.
const BASES: [i64; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1_000];
/// The number of the first log's first file: those before it are the journal's.
const FIRST_LOG: usize = 2;
/// Bytes before a file's: its number, and its length in two.
const HEAD_BYTES: usize = 3;
/// A read through a damaged log goes on behind the damage so many times at most.
const READS_MAX: usize = 1_000;

fn id(partition: i32) -> LogId {
    LogId { topic: TOPIC, partition }
}

/// The files that an input may bring, by their numbers.
fn names() -> &'static [PathBuf] {
    static NAMES: OnceLock<Vec<PathBuf>> = OnceLock::new();
    NAMES.get_or_init(all_names)
}

fn all_names() -> Vec<PathBuf> {
    let mut names = vec![PathBuf::from("journal-0"), PathBuf::from("journal-1")];
    for partition in 0..2 {
        let dir = PathBuf::from(id(partition).to_string());
        names.push(dir.join("control"));
        for base in BASES {
            names.push(dir.join(format!("{base:020}.log")));
            names.push(dir.join(format!("{base:020}.index")));
        }
        names.extend(["control.draft", "00000000000000000003.log.draft", "strange"].map(|name| dir.join(name)));
    }
    names
}

/// The files of an input.
fn files(mut input: &[u8]) -> Vec<(usize, &[u8])> {
    let count = names().len();
    let mut files = Vec::new();
    while let Some((head, rest)) = input.split_first_chunk::<HEAD_BYTES>() {
        let length = usize::from(u16::from_be_bytes([head[1], head[2]])).min(rest.len());
        let (bytes, rest) = rest.split_at(length);
        files.push((usize::from(head[0]) % count, bytes));
        input = rest;
    }
    files
}

fn options() -> SegmentOptions {
    let mut options = SegmentOptions { free_bytes_min: 1000, write_ahead_bytes: 4096, ..SegmentOptions::default() };
    options.tail_cache_bytes = 1 << 16;
    options.sync.journal_bytes = JOURNAL_BYTES;
    options
}

fn run(base: i64, records: i64, epoch: i32, bytes: usize) -> Run {
    Run {
        base: Offset(base),
        next_offset: Offset(base.saturating_add(records)),
        epoch: LeaderEpoch(epoch),
        max_timestamp: Timestamp(base.saturating_add(1_000)),
        bytes: Payload::from(Bytes::from(vec![base as u8 | 1; bytes])),
    }
}

/// A process that has started over a disk.
struct Process {
    threads: Turns,
    engine: SegmentEngine,
}

impl Process {
    fn start(disk: &MemoryDisk) -> std::io::Result<Self> {
        let threads = Turns::default();
        let engine = SegmentEngine::over(Arc::new(disk.clone()), Arc::new(threads.clone()), options())?;
        Ok(Self { threads, engine })
    }

    fn open(&self, log: LogId, mode: OpenMode) -> Result<Arc<dyn Wal>, String> {
        let options = OpenOptions { mode, segment_bytes: SEGMENT_BYTES };
        self.threads.drive(self.engine.open(log, options)).map_err(|why| format!("{why:?}"))
    }

    fn append(&self, log: &dyn Wal, run: Run) -> Result<(), String> {
        let mut refused = None;
        let written = Pending::start(|done| match log.append(run, done) {
            Ok(started) => started,
            Err(why) => {
                refused = Some(why.why);
                chronik_core::pending::Started::Now(Err(WalError::Closed))
            }
        });
        if let Some(why) = refused {
            return Err(why.to_string());
        }
        log.write_queued();
        self.threads.drive(written).map(drop).map_err(|why| why.to_string())
    }

    fn sync(&self, log: &dyn Wal) -> Result<(), String> {
        let synced = Pending::start(|done| log.sync(log.state().end, done));
        self.threads.drive(synced).map(drop).map_err(|why| why.to_string())
    }

    /// Everything that a log serves, run by run; where it says that there is damage, that.
    fn read(&self, log: &dyn Wal) -> Vec<Served> {
        let state = log.state();
        let mut served = Vec::new();
        let mut from = state.start;
        while from < state.end && served.len() < READS_MAX {
            let range = ReadRange { from, upto: state.end, max_bytes: 1, min_one: true };
            match self.threads.drive(Pending::start(|done| log.read(range, done))) {
                Ok(chunk) => {
                    assert!(chunk.next_offset > from, "a read from {from} of {state:?} gives {chunk:?}");
                    from = chunk.next_offset;
                    served.push(Served::Run(chunk.base, chunk.next_offset, chunk.bytes.to_bytes()));
                }
                Err(why) => {
                    served.push(Served::Error(format!("{why:?}")));
                    break;
                }
            }
        }
        served
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Served {
    Run(Offset, Offset, Bytes),
    Error(String),
}

/// What a process finds of one log.
#[derive(Clone, Debug, PartialEq)]
enum Found {
    Refused(String),
    Log(LogState, Vec<Served>),
}

fn find(process: &Process, log: LogId) -> (Found, Option<Arc<dyn Wal>>) {
    match process.open(log, OpenMode::Existing) {
        Err(why) => (Found::Refused(why), None),
        Ok(wal) => {
            let state = wal.state();
            let is_sound = Offset::ZERO <= state.start
                && state.start <= state.durable_end
                && state.durable_end <= state.written_end
                && state.written_end <= state.end;
            assert!(is_sound, "{log} is found in an impossible state: {state:?}");
            (Found::Log(state, process.read(&*wal)), Some(wal))
        }
    }
}

/// Every sound frame in any of the files: where it belongs, and what it holds.
fn sound_frames(disk: &MemoryDisk) -> Frames {
    let salts: Vec<u32> = (0..2).flat_map(|partition| BASES.map(|base| salt(id(partition), Offset(base)))).collect();
    let mut sound = BTreeSet::new();
    for (_, bytes) in disk.files() {
        let mut next = 0;
        // Most bytes of a journal are zeros: passed over as fast as can be.
        while let Some(at) = bytes[next..].iter().position(|byte| *byte == b'c').map(|found| next + found) {
            next = at + 1;
            if !bytes[at..].starts_with(b"cRn1") {
                continue;
            }
            let headers = salts.iter().filter_map(|salt| FrameHeader::decode(&bytes[at..], *salt));
            for header in headers {
                let from = at + HEADER_BYTES;
                let payload = bytes.get(from..from + header.payload_bytes as usize);
                if let Some(payload) = payload
                    && crc32c::crc32c(payload) == header.payload_crc
                {
                    sound.insert((header.base.0, header.next_offset.0, payload.to_vec()));
                }
            }
        }
    }
    sound
}

type Frames = BTreeSet<(i64, i64, Vec<u8>)>;

/// Whether sound frames hold just this: the first begins at `base.start`, or at the latest at its end. Runs without bytes
/// come along with the one before them, and there may be gaps between.
fn is_held(sound: &Frames, base: RangeInclusive<i64>, next: i64, bytes: &[u8]) -> bool {
    let (first, last) = base.into_inner();
    let from = sound.range((first, i64::MIN, Vec::new())..).take_while(|frame| frame.0 <= last);
    from.filter(|(_, end, payload)| *end <= next && bytes.starts_with(payload)).any(|(_, end, payload)| {
        let rest = &bytes[payload.len()..];
        *end == next && rest.is_empty() || *end < next && is_held(sound, *end..=next, next, rest)
    })
}

/// `durable_end` aside, which the first process may have moved by syncing.
fn same(first: &Found, second: &Found) -> bool {
    match (first, second) {
        (Found::Refused(_), Found::Refused(_)) => true,
        (Found::Log(a, served_a), Found::Log(b, served_b)) => {
            let known = |state: &LogState| (state.start, state.end, state.last_epoch, state.max_timestamp);
            known(a) == known(b) && served_a == served_b
        }
        _ => false,
    }
}

fn examine(disk: &MemoryDisk) -> Result<Vec<(i32, Found)>, String> {
    let sound = sound_frames(disk);
    let mut all = Vec::new();
    let first = Process::start(disk).map_err(|why| why.to_string())?;
    let listed = first.threads.drive(first.engine.list()).map_err(|why| why.to_string())?;
    for log in &listed {
        let (found, wal) = find(&first, *log);
        if let Found::Log(state, served) = &found {
            for one in served {
                if let Served::Run(base, next, bytes) = one {
                    let is_sound = is_held(&sound, base.0..=base.0, next.0, bytes);
                    assert!(is_sound, "{log} serves {base} to {next} of {state:?}, which no sound frame holds");
                }
            }
        }
        // Looked at, and let go as a killed process lets go.
        drop(wal);
        all.push((log.partition, found));
    }
    drop(first);

    let second =
        Process::start(disk).map_err(|why| format!("a second time: {why}")).unwrap_or_else(|why| panic!("{why}"));
    let mut expected = BTreeMap::new();
    for ((_, before), log) in all.iter().zip(&listed) {
        let (found, wal) = find(&second, *log);
        assert!(same(before, &found), "{log} is found otherwise a second time: {found:?} after {before:?}");
        let (Found::Log(state, mut served), Some(wal)) = (found, wal) else { continue };
        // An end that has no room behind it takes nothing.
        let is_whole = !served.iter().any(|one| matches!(one, Served::Error(_)));
        if state.end.0 < i64::MAX - 10 && is_whole {
            let more = run(state.end.0, 2, state.last_epoch.0, 30);
            let bytes = more.bytes.to_bytes();
            let appended = second.append(&*wal, more).and_then(|()| second.sync(&*wal));
            assert_eq!(appended, Ok(()), "{log} was opened as {state:?} and takes nothing");
            served.push(Served::Run(state.end, state.end + 2, bytes));
            assert_eq!(second.read(&*wal), served, "{log} serves something else after an append");
            expected.insert(*log, served);
        }
    }
    drop(second);

    if !expected.is_empty() {
        let third = Process::start(disk).unwrap_or_else(|why| panic!("a third time: {why}"));
        for (log, served) in expected {
            match find(&third, log).0 {
                Found::Log(_, found) => assert_eq!(found, served, "{log} has lost what was synced"),
                Found::Refused(why) => panic!("{log} took records, and then cannot be opened: {why}"),
            }
        }
    }
    Ok(all)
}

impl Target for LogFiles {
    fn name(&self) -> &'static str {
        "log-files"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let mut seeds = vec![Vec::new()];
        for story in 0..8 {
            seeds.push(written(story));
        }
        seeds.retain(|seed| !seed.is_empty());
        seeds
    }

    fn feed(&self, input: &[u8]) -> Seen {
        let disk = MemoryDisk::new();
        let names = names();
        let files = files(input);
        for (at, (number, bytes)) in files.iter().enumerate() {
            // One that comes twice has the later contents.
            if files[at + 1..].iter().any(|(later, _)| later == number) {
                continue;
            }
            let mut bytes = bytes.to_vec();
            if *number < FIRST_LOG {
                // The journal's files have their size from the beginning.
                bytes.resize(JOURNAL_BYTES as usize, 0);
            }
            disk.put(&names[*number], bytes);
        }
        match examine(&disk) {
            Err(why) => Seen::refused(why, None),
            Ok(all) => {
                let mut is_taken = false;
                let marks: Vec<_> = all
                    .iter()
                    .map(|(partition, found)| match found {
                        Found::Refused(why) => {
                            let words: String = why.chars().filter(|c| c.is_ascii_alphabetic()).take(160).collect();
                            (*partition, 0, 0, words)
                        }
                        Found::Log(state, served) => {
                            is_taken |= !served.is_empty() || state.end > Offset::ZERO;
                            let error = served.iter().any(|one| matches!(one, Served::Error(_)));
                            let place = (about(state.start.0 as usize), about(state.end.0 as usize));
                            (*partition, served.len(), place.0 * 64 + place.1, format!("{error}"))
                        }
                    })
                    .collect();
                if is_taken { Seen::taken((files.len(), marks)) } else { Seen::refused((files.len(), marks), None) }
            }
        }
    }

    /// The last file ends where the input does; then checksums are made right, of most that have one.
    fn mend(&self, input: &mut Vec<u8>) {
        let names = names();
        let mut at = 0;
        while let Some(head) = input.get(at..).and_then(|rest| rest.first_chunk::<HEAD_BYTES>()) {
            let left = input.len() - at - HEAD_BYTES;
            let length = usize::from(u16::from_be_bytes([head[1], head[2]])).min(left);
            let name = &names[usize::from(head[0]) % names.len()];
            input[at + 1..at + HEAD_BYTES].copy_from_slice(&(length as u16).to_be_bytes());
            let from = at + HEAD_BYTES;
            let partition = if name.parent() == names[FIRST_LOG].parent() { 0 } else { 1 };
            mend_file(name, partition, &mut input[from..from + length]);
            at = from + length;
        }
    }

    fn words(&self) -> &[&'static [u8]] {
        &[b"cRn1", b"cRi1", b"cRc1", b"cRj1"]
    }

    fn input_bytes_max(&self) -> usize {
        4 * 1024
    }

    /// The windows in which a start reads files, three processes with their caches, and both files of the journal.
    fn more_memory_bytes(&self) -> usize {
        8 << 20
    }
}

fn put(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

fn mend_file(name: &Path, partition: i32, bytes: &mut [u8]) {
    let file = name.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if file.starts_with("journal") && bytes.starts_with(b"cRj1") && bytes.len() > 32 {
        let body = u32::from_le_bytes([bytes[24], bytes[25], bytes[26], bytes[27]]) as usize;
        let end = (32 + body).min(bytes.len());
        put(bytes, 24, (end - 32) as u32);
        let crc = crc32c::crc32c(&bytes[8..end]);
        put(bytes, 4, crc);
    } else if file == "control" && bytes.len() >= 8 {
        let crc = crc32c::crc32c(&bytes[8..]);
        put(bytes, 4, crc);
    } else if file.ends_with(".index") && bytes.len() >= 56 {
        let entries = bytes[56..].len() / 32;
        bytes[48..56].copy_from_slice(&(entries as u64).to_le_bytes());
        let crc = crc32c::crc32c(&bytes[56..]);
        put(bytes, 8, crc);
        let crc = crc32c::crc32c(&bytes[8..56]);
        put(bytes, 4, crc);
    } else if let Some(base) = file.strip_suffix(".log").and_then(|base| base.parse().ok()) {
        let salt = salt(id(partition), Offset(base));
        let mut at = 0;
        while bytes[at..].starts_with(b"cRn1") && bytes.len() - at >= HEADER_BYTES {
            let frame = &mut bytes[at..];
            let room = frame.len() - HEADER_BYTES;
            let claimed = u32::from_le_bytes([frame[8], frame[9], frame[10], frame[11]]) as usize;
            // One in four keeps a payload, or a length, that is wrong: what comes behind it must be found all the same.
            if !frame[4].is_multiple_of(4) && claimed <= room {
                let crc =
                    payload_crc(&Payload::from(Bytes::copy_from_slice(&frame[HEADER_BYTES..HEADER_BYTES + claimed])));
                put(frame, 12, crc);
            }
            let crc = crc32c::crc32c_append(salt, &frame[8..HEADER_BYTES]);
            put(frame, 4, crc);
            at += HEADER_BYTES + claimed.min(room);
        }
    }
}

/// What a process leaves behind, as an input: some of its files, as they are after a kill.
fn written(story: u8) -> Vec<u8> {
    let disk = MemoryDisk::new();
    if story & 4 != 0 {
        for name in &names()[..FIRST_LOG] {
            disk.put(name, vec![0; JOURNAL_BYTES as usize]);
        }
    }
    let told = || -> Result<(), String> {
        let process = Process::start(&disk).map_err(|why| why.to_string())?;
        let mut logs = Vec::new();
        for partition in 0..2 {
            let log = process.open(id(partition), OpenMode::CreateNew)?;
            let mut base = 0;
            for number in 0..5 {
                let (records, bytes) = (1 + number % 2, 40 + 60 * usize::from(story & 1));
                process.append(&*log, run(base, records, number as i32 / 2, bytes))?;
                base += records;
            }
            logs.push(log);
        }
        // Both at once, so that they go to the journal where there is one.
        let syncs: Vec<_> = logs.iter().map(|log| Pending::start(|done| log.sync(log.state().end, done))).collect();
        for sync in syncs {
            process.threads.drive(sync).map_err(|why| why.to_string())?;
        }
        for log in &logs {
            let values = vec![("value".to_owned(), Some(Bytes::from_static(b"kept")))];
            process.threads.drive(Pending::start(|done| log.meta_put(values, done))).map_err(|why| why.to_string())?;
            let end = log.state().end;
            process.append(&**log, run(end.0, 1, 3, 20))?;
        }
        if story & 2 != 0 {
            let cut = Pending::start(|done| logs[0].truncate_prefix(Offset(2), done));
            process.threads.drive(cut).map_err(|why| why.to_string())?;
            process.threads.drive(process.engine.close()).map_err(|why| why.to_string())?;
        }
        Ok(())
    };
    if let Err(why) = told() {
        panic!("a sound story {story} fails: {why}");
    }
    let mut input = Vec::new();
    for (path, mut bytes) in disk.files() {
        let Some(number) = names().iter().position(|name| *name == path) else { continue };
        if number < FIRST_LOG {
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            bytes.truncate(used);
        }
        // Zeros that were written ahead say nothing that some of them do not.
        if path.extension().is_some_and(|of| of == "log") {
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 9);
            bytes.truncate(used);
        }
        input.push(number as u8);
        input.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
        input.extend_from_slice(&bytes);
    }
    input
}
