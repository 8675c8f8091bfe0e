//! Small rounds of several logs are made durable together. What that promised holds, wherever the power goes, whatever is
//! cut, reset or deleted in between, and whichever operation fails.

mod sim;

use chronik_conformance::wal::run_of;
use chronik_core::ids::{LogId, Offset, TopicId};
use chronik_core::pending::Pending;
use chronik_core::wal::{OpenMode, OpenOptions, ReadRange, Run, Wal, WalEngine, WalError};
use chronik_storage_segment::{SegmentEngine, SegmentOptions};
use sim::bench::{bytes_of, options};
use sim::{Dice, Kind, SimDisk, SimThreads};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

const JOURNAL: [&str; 2] = ["journal-0", "journal-1"];

/// Room for a few batches, so that both files are used in turn.
const JOURNAL_BYTES: u64 = 16 << 10;

const LOGS: i32 = 4;

fn id(partition: i32) -> LogId {
    LogId { topic: TopicId([9; 16]), partition }
}

/// A disk with a journal that was made, and never used.
fn disk_with_journal() -> SimDisk {
    let disk = SimDisk::new();
    for name in JOURNAL {
        disk.put_file(Path::new(name), vec![0; JOURNAL_BYTES as usize]);
    }
    disk
}

/// A log as the test knows it.
struct Known {
    wal: Arc<dyn Wal>,
    runs: Vec<Run>,
    /// Ends of what was reported durable.
    durable_end: Offset,
    /// What it was before a change that was not seen to end: either may be found.
    before: Option<Vec<Run>>,
}

struct World {
    threads: SimThreads,
    engine: SegmentEngine,
    logs: Vec<Known>,
    dice: Dice,
}

fn start(disk: &SimDisk, threads: &SimThreads) -> SegmentEngine {
    let mut options = SegmentOptions { free_bytes_min: 1000, ..options() };
    options.sync.journal_bytes = JOURNAL_BYTES;
    SegmentEngine::over(Arc::new(disk.clone()), Arc::new(threads.clone()), options).expect("the disk is sound")
}

fn open(engine: &SegmentEngine, threads: &SimThreads, partition: i32, mode: OpenMode) -> Arc<dyn Wal> {
    let how = OpenOptions { mode, segment_bytes: 4000 };
    threads.drive(engine.open(id(partition), how)).expect("the log is sound")
}

impl World {
    fn new(disk: &SimDisk, seed: u64) -> Self {
        let threads = SimThreads::new(seed);
        let engine = start(disk, &threads);
        let log = |partition| Known {
            wal: open(&engine, &threads, partition, OpenMode::CreateNew),
            runs: Vec::new(),
            durable_end: Offset::ZERO,
            before: None,
        };
        let logs = (0..LOGS).map(log).collect();
        Self { threads, engine, logs, dice: Dice(seed) }
    }

    fn pick(&mut self) -> usize {
        self.dice.below(self.logs.len() as u64) as usize
    }

    fn append(&mut self, log: usize) -> Result<(), WalError> {
        let known = &mut self.logs[log];
        let base = known.wal.state().end.0;
        let run = run_of(base, 1 + self.dice.below(3) as i64, 0, base, self.dice.below(700) as usize);
        let wal = known.wal.clone();
        let mut refused = None;
        let (run_, refused_) = (run.clone(), &mut refused);
        let ordered = Pending::start(move |done| {
            wal.append(run_, done).unwrap_or_else(|rejected| {
                *refused_ = Some(rejected.why);
                chronik_core::pending::Started::Now(Err(WalError::Closed))
            })
        });
        known.wal.write_queued();
        let outcome = self.threads.drive(ordered);
        if refused.is_none() {
            // Ordered, whatever became of it.
            self.logs[log].runs.push(run);
        }
        outcome.map(|_| ())
    }

    /// Syncs several logs at once, so that their rounds wait together.
    fn sync(&mut self, logs: &[usize]) -> Result<(), WalError> {
        let syncs: Vec<_> = logs
            .iter()
            .map(|&log| {
                let wal = self.logs[log].wal.clone();
                Pending::start(move |done| wal.sync(wal.state().end, done))
            })
            .collect();
        let mut outcome = Ok(());
        for sync in syncs {
            outcome = outcome.and(self.threads.drive(sync).map(|_| ()));
        }
        for known in &mut self.logs {
            known.durable_end = known.durable_end.max(known.wal.state().durable_end);
        }
        outcome
    }

    fn cut(&mut self, log: usize) -> Result<(), WalError> {
        let keep = self.dice.below(self.logs[log].runs.len() as u64 + 1) as usize;
        let known = &mut self.logs[log];
        let from = known.runs.get(keep).map_or(known.wal.state().end, |run| run.base);
        known.before = Some(known.runs.clone());
        known.runs.truncate(keep);
        known.durable_end = known.durable_end.min(from);
        let wal = known.wal.clone();
        let outcome = self.threads.drive(Pending::start(move |done| wal.truncate_suffix(from, done)));
        self.settle_change(log, outcome)
    }

    fn reset(&mut self, log: usize) -> Result<(), WalError> {
        let known = &mut self.logs[log];
        let start = known.wal.state().end + self.dice.below(2) as i64;
        known.before = Some(std::mem::take(&mut known.runs));
        known.durable_end = Offset::ZERO;
        let wal = known.wal.clone();
        let outcome = self.threads.drive(Pending::start(move |done| wal.reset(start, done)));
        self.settle_change(log, outcome)
    }

    fn settle_change(&mut self, log: usize, outcome: Result<(), WalError>) -> Result<(), WalError> {
        if outcome.is_ok() {
            self.logs[log].before = None;
        }
        outcome
    }

    /// Deletes the log, and makes another under its name.
    fn delete(&mut self, log: usize) -> Result<(), WalError> {
        let known = &mut self.logs[log];
        known.before = Some(std::mem::take(&mut known.runs));
        known.durable_end = Offset::ZERO;
        let gone = |_| WalError::Closed;
        self.threads.drive(self.engine.delete(id(log as i32))).map_err(gone)?;
        let how = OpenOptions { mode: OpenMode::CreateNew, segment_bytes: 4000 };
        self.logs[log].wal = self.threads.drive(self.engine.open(id(log as i32), how)).map_err(gone)?;
        self.settle_change(log, Ok(()))
    }

    fn step(&mut self) -> Result<(), WalError> {
        let log = self.pick();
        match self.dice.below(20) {
            0 => self.cut(log),
            1 => self.reset(log),
            2 => self.delete(log),
            3..=8 => {
                let first = self.pick();
                let logs: Vec<_> = (0..self.logs.len()).filter(|&log| log == first || self.dice.below(4) > 0).collect();
                self.sync(&logs)
            }
            _ => self.append(log),
        }
    }

    /// Starts anew on `disk`, and finds of each log what was promised, and nothing that it never held.
    fn check(&self, disk: &SimDisk, what: &str) {
        let threads = SimThreads::new(1);
        let engine = start(disk, &threads);
        for (partition, known) in self.logs.iter().enumerate() {
            let what = format!("{what}, log {partition}");
            let wal = open(&engine, &threads, partition as i32, OpenMode::CreateIfMissing);
            known.check(&wal, &threads, &what);
        }
    }
}

impl Known {
    fn check(&self, wal: &Arc<dyn Wal>, threads: &SimThreads, what: &str) {
        let state = wal.state();
        let (mut bytes, mut at) = (chronik_core::payload::Payload::new(), state.start);
        while at < state.end {
            let range = ReadRange { from: at, upto: state.end, max_bytes: 4000, min_one: true };
            let chunk = threads.drive(Pending::start(|done| wal.read(range, done))).expect("what is there is readable");
            at = chunk.next_offset;
            bytes.append(chunk.bytes);
        }
        // What it held now, or before the change that was under way.
        let fits = |runs: &[Run]| {
            let from = runs.iter().position(|run| run.base >= state.start).unwrap_or(runs.len());
            (from..=runs.len()).any(|upto| bytes_of(&runs[from..upto]) == bytes)
        };
        assert!(
            fits(&self.runs) || self.before.as_ref().is_some_and(|before| fits(before)),
            "{what}: {} bytes from {} to {} are not what was written",
            bytes.len(),
            state.start,
            state.end,
        );
        assert!(state.end >= self.durable_end, "{what}: {} was durable, found {state:?}", self.durable_end);
    }
}

#[test]
fn what_was_promised_is_found_wherever_the_power_goes() {
    let mut through_the_journal = 0;
    for seed in 0..400 {
        let disk = disk_with_journal();
        let mut world = World::new(&disk, seed);
        let began = disk.operations();
        let cut_at = began + 1 + world.dice.below(900);
        disk.stop_at(Some(cut_at));
        for _ in 0..200 {
            if world.step().is_err() {
                break;
            }
        }
        let used = |name: &str| disk.file(Path::new(name)).is_some_and(|bytes| bytes[0] != 0);
        through_the_journal += JOURNAL.iter().filter(|name| used(name)).count();
        for pieces in [None, Some(Dice(seed))] {
            let what = format!("seed {seed}, power cut at operation {}", cut_at - began);
            let left = disk.after_power_cut(pieces);
            // The power may go again while the journal is read.
            for again in [5, 20, 60] {
                let trying = left.after_kill();
                trying.stop_at(Some(again));
                let threads = SimThreads::new(seed);
                let mut options = options();
                options.sync.journal_bytes = JOURNAL_BYTES;
                drop(SegmentEngine::over(Arc::new(trying.clone()), Arc::new(threads), options));
                world.check(&trying.after_power_cut(Some(Dice(again))), &format!("{what}, and again at {again}"));
            }
            world.check(&left, &what);
        }
    }
    assert!(through_the_journal > 300, "the journal was hardly used: {through_the_journal}");
}

#[test]
fn a_failing_operation_costs_no_log_what_it_had_promised() {
    for seed in 0..300 {
        let disk = disk_with_journal();
        let mut world = World::new(&disk, seed);
        let kind = [Kind::SyncData, Kind::Write, Kind::SyncDir][world.dice.below(3) as usize];
        for _ in 0..3 {
            for _ in 0..world.dice.below(60) {
                world.step().expect("the disk is sound");
            }
            disk.fail(kind, Some(ErrorKind::Other));
            for _ in 0..world.dice.below(4) {
                let log = world.pick();
                let _may_fail = if world.dice.below(2) == 0 { world.append(log) } else { world.sync(&[0, 1, 2, 3]) };
            }
            while world.threads.step() {}
            disk.fail(kind, None);
            let what = format!("seed {seed}, after {kind:?} failed");
            world.check(&disk.after_power_cut(None), &what);
            // Whatever failed is opened again in the same process, and goes on from what it finds.
            for log in 0..world.logs.len() {
                let again = open(&world.engine, &world.threads, log as i32, OpenMode::Existing);
                world.logs[log].check(&again, &world.threads, &what);
                let end = again.state().end;
                let known = &mut world.logs[log];
                known.runs.retain(|run| run.next_offset <= end);
                known.wal = again;
            }
        }
    }
}

#[test]
fn one_sync_serves_many_logs_and_an_orderly_end_leaves_nothing_to_read() {
    let disk = disk_with_journal();
    let mut world = World::new(&disk, 1);
    for log in 0..4 {
        world.append(log).expect("the disk is sound");
    }
    world.sync(&[0, 1, 2, 3]).expect("the disk is sound");
    let syncs = disk.count(Kind::SyncData);
    for log in 0..4 {
        world.append(log).expect("the disk is sound");
    }
    world.sync(&[0, 1, 2, 3]).expect("the disk is sound");
    assert_eq!(disk.count(Kind::SyncData) - syncs, 1, "the files are known by now, and what they got is small");
    world.check(&disk.after_power_cut(None), "nothing is at home yet");

    world.threads.drive(world.engine.close()).expect("the disk is sound");
    let (cut, threads) = (disk.after_power_cut(None), SimThreads::new(2));
    world.check(&cut.after_kill(), "all is at home");
    let writes = cut.count(Kind::Write);
    drop(start(&cut, &threads));
    assert_eq!(cut.count(Kind::Write), writes, "there was nothing to write again");
}

#[test]
fn after_a_sync_that_many_logs_shared_the_next_one_is_waited_for_and_who_writes_alone_waits_for_nobody() {
    for (logs, waits) in [(1, false), (2, false), (3, true), (4, true)] {
        let mut world = World::new(&disk_with_journal(), 1);
        let all: Vec<usize> = (0..logs).collect();
        // The first sync makes the files' names durable, which is not the journal's.
        for _ in 0..2 {
            all.iter().for_each(|log| world.append(*log).expect("the disk is sound"));
            world.sync(&all).expect("the disk is sound");
        }
        all.iter().for_each(|log| world.append(*log).expect("the disk is sound"));
        let wals: Vec<_> = all.iter().map(|log| world.logs[*log].wal.clone()).collect();
        let ends: Vec<_> = wals.iter().map(|wal| wal.state().end).collect();
        let syncs: Vec<_> =
            wals.iter().zip(&ends).map(|(wal, end)| Pending::start(|done| wal.sync(*end, done))).collect();
        let durable = || wals.iter().zip(&ends).filter(|(wal, end)| wal.state().durable_end >= **end).count();
        world.threads.settle();
        assert_eq!(durable(), if waits { 0 } else { logs }, "{logs} logs, before any time has passed");
        for sync in syncs {
            world.threads.drive(sync).expect("the disk is sound");
        }
        assert_eq!(durable(), logs);
    }
}

#[test]
fn a_journal_is_made_when_small_syncs_often_wait_together_and_only_where_there_is_room() {
    for (capacity, made) in [(None, true), (Some(20 * JOURNAL_BYTES), false)] {
        let disk = SimDisk::new();
        disk.set_capacity(capacity);
        let mut world = World::new(&disk, 1);
        for _ in 0..100 {
            for log in 0..4 {
                world.append(log).expect("there is room");
            }
            world.sync(&[0, 1, 2, 3]).expect("the disk is sound");
            world.threads.settle();
            (0..4).for_each(|log| world.reset(log).expect("the disk is sound"));
        }
        assert_eq!(disk.file(Path::new(JOURNAL[0])).is_some(), made, "capacity {capacity:?}");
    }
}

#[test]
fn what_is_about_to_be_cut_off_does_not_slip_in_behind_the_line_that_voids_it() {
    let disk = disk_with_journal();
    let mut world = World::new(&disk, 1);
    for _ in 0..2 {
        (0..2).for_each(|log| world.append(log).expect("the disk is sound"));
        world.sync(&[0, 1]).expect("the disk is sound");
    }
    (0..4).for_each(|_| (0..2).for_each(|log| world.append(log).expect("the disk is sound")));
    // The line is written, the file not cut yet; and just then both logs are synced.
    let (threads, wals) = (world.threads.clone(), [world.logs[0].wal.clone(), world.logs[1].wal.clone()]);
    disk.meanwhile(Kind::SetLen, move || {
        for wal in wals {
            drop(Pending::start(|done| wal.sync(wal.state().end, done)));
        }
        threads.settle();
    });
    let keep = world.logs[0].runs[3].next_offset;
    let wal = world.logs[0].wal.clone();
    world.threads.drive(Pending::start(move |done| wal.truncate_suffix(keep, done))).expect("the disk is sound");
    let (cut, threads) = (disk.after_power_cut(None), SimThreads::new(2));
    let again = open(&start(&cut, &threads), &threads, 0, OpenMode::Existing);
    assert_eq!(again.state().end, keep, "what was cut off has come back");
}

#[test]
fn what_was_cut_off_before_it_was_synced_does_not_come_back_over_what_took_its_place() {
    for seed in 0..16 {
        cut_off_before_it_was_synced(seed, true);
        cut_off_before_it_was_synced(seed, false);
    }
}

/// A log's last segment, with a run that waits to be synced, is cut off when that round has begun, and another log's is about
/// to; or before any has begun.
fn cut_off_before_it_was_synced(seed: u64, has_begun: bool) {
    let disk = disk_with_journal();
    let world = World::new(&disk, seed);
    let threads = world.threads.clone();
    let [cut, other] = [0, 1].map(|log| world.logs[log].wal.clone());
    let order = |wal: &Arc<dyn Wal>, base: i64, epoch: i32| {
        let (wal, run) = (wal.clone(), run_of(base, 1, epoch, 0, 1500));
        Pending::start(move |done| wal.append(run, done).expect("it takes it"))
    };
    let append = |wal: &Arc<dyn Wal>, base: i64, epoch: i32| {
        let ordered = order(wal, base, epoch);
        wal.write_queued();
        threads.drive(ordered).expect("the disk is sound");
    };
    let begin_sync = |wal: &Arc<dyn Wal>| Pending::start(|done| wal.sync(wal.state().end, done));
    let sync = |wal: &Arc<dyn Wal>| _ = threads.drive(begin_sync(wal)).expect("the disk is sound");
    // Two runs fill a segment: the third begins another, and the fourth is all there is to be synced.
    (0..3).for_each(|base| append(&cut, base, 0));
    append(&other, 0, 0);
    sync(&cut);
    sync(&other);
    append(&cut, 3, 0);
    let written = order(&other, 1, 0);
    let syncs = [begin_sync(&cut), begin_sync(&other)];
    let (meanwhile, gone) = (threads.clone(), cut.clone());
    let truncate = move || {
        let truncated = Pending::start(|done| gone.truncate_suffix(Offset(2), done));
        meanwhile.drive(truncated).expect("the disk is sound");
    };
    match has_begun {
        true => disk.meanwhile(Kind::Write, truncate),
        false => truncate(),
    }
    for pending in syncs {
        threads.drive(pending).expect("the disk is sound");
    }
    threads.drive(written).expect("the disk is sound");
    assert_eq!(cut.state().end, Offset(2));
    (2..4).for_each(|base| append(&cut, base, 1));
    sync(&cut);
    assert_eq!(cut.state().durable_end, Offset(4));
    let (after, threads) = (disk.after_power_cut(None), SimThreads::new(2));
    let again = open(&start(&after, &threads), &threads, 0, OpenMode::Existing);
    assert_eq!(again.state().end, Offset(4));
    let last = ReadRange { from: Offset(3), upto: Offset(4), max_bytes: 1 << 20, min_one: true };
    let found = threads.drive(Pending::start(|done| again.read(last, done))).expect("it is sound");
    assert!(found.bytes == run_of(3, 1, 1, 0, 1500).bytes, "seed {seed}, {has_begun}: it was durable");
}

#[test]
fn a_batch_that_the_device_would_not_sync_is_not_written_again_over_what_came_after_a_cut() {
    let disk = disk_with_journal();
    let mut world = World::new(&disk, 1);
    // The files' names, which are not the journal's.
    (0..2).for_each(|log| world.append(log).expect("the disk is sound"));
    world.sync(&[0, 1]).expect("the disk is sound");
    (0..2).for_each(|log| world.append(log).expect("the disk is sound"));
    // The batch is in the file, though nobody may know; both logs are synced by themselves then.
    let (full, mended) = (disk.clone(), disk.clone());
    disk.meanwhile(Kind::SyncData, move || {
        full.fail(Kind::SyncData, Some(ErrorKind::StorageFull));
        full.clone().meanwhile(Kind::SyncData, move || mended.fail(Kind::SyncData, None));
    });
    world.sync(&[0, 1]).expect("their own files can be synced");
    let (wal, last) = (world.logs[0].wal.clone(), world.logs[0].runs.pop().expect("it has some"));
    let from = last.base;
    world.threads.drive(Pending::start(move |done| wal.truncate_suffix(from, done))).expect("the disk is sound");
    let bytes = last.bytes.len();
    let run = run_of(from.0, last.next_offset.0 - from.0, 1, from.0, bytes);
    let (wal, run_) = (world.logs[0].wal.clone(), run.clone());
    let ordered = Pending::start(move |done| wal.append(run_, done).expect("it takes it"));
    world.logs[0].wal.write_queued();
    world.threads.drive(ordered).expect("the disk is sound");
    world.logs[0].runs.push(run);
    world.sync(&[0]).expect("the disk is sound");
    world.check(&disk.after_kill(), "the journal was not believed");
}
