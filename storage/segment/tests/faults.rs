//! Disks that fail, fill up, or lose their power in the middle of something.

mod sim;

use chronik_conformance::wal::{Model, run_of};
use chronik_core::ids::Offset;
use chronik_core::pending::{Pending, Started};
use chronik_core::wal::{EngineError, ReadRange, Refused, WalError};
use chronik_storage_segment::SegmentOptions;
use sim::bench::{Bench, Failure, bytes_of, options};
use sim::{Dice, Kind, SimDisk};
use std::io::ErrorKind;

#[test]
fn a_failed_sync_is_sticky_and_acknowledges_nothing_until_the_log_is_opened_again() {
    for kind in [Kind::SyncData, Kind::SyncDir] {
        let disk = SimDisk::new();
        let bench = Bench::open(&disk, 1).expect("an empty disk can be used");
        let runs = if kind == Kind::SyncData { bench.fill(3) } else { Vec::new() };
        bench.sync().expect("the disk is sound");
        let end = bench.log.state().end.0;
        bench.append(run_of(end, 1, 0, 0, 100)).expect("written");
        disk.fail(kind, Some(ErrorKind::Other));
        assert!(matches!(bench.sync(), Err(WalError::Failed(_))));
        let syncs = disk.count(kind);
        disk.fail(kind, None);

        // The disk would say "fine" now. Nobody may ask it.
        assert!(matches!(bench.sync(), Err(WalError::Failed(_))));
        assert!(matches!(bench.append(run_of(end + 1, 1, 0, 0, 100)), Err(Failure::Refused(Refused::Failed))));
        assert!(matches!(bench.truncate_suffix(0), Err(WalError::Failed(_))));
        assert_eq!(disk.count(kind), syncs, "a failed sync is not tried again");
        assert_eq!(bench.log.state().durable_end, runs.last().map_or(Offset(0), |run| run.next_offset));

        // Opened again, the log believes what the device holds, not what memory does.
        let how = chronik_core::wal::OpenOptions { mode: chronik_core::wal::OpenMode::Existing, segment_bytes: 2000 };
        use chronik_core::wal::WalEngine;
        let again = bench.threads.drive(bench.engine.open(sim::bench::LOG, how)).expect("the disk is sound again");
        let state = again.state();
        assert!(state.end >= bench.log.state().durable_end && state.durable_end == state.end);
    }
}

#[test]
fn a_log_that_could_not_be_made_is_made_when_the_disk_is_sound_again() {
    use chronik_core::ids::LogId;
    use chronik_core::wal::{OpenMode, OpenOptions, WalEngine};
    let disk = SimDisk::new();
    let bench = Bench::open(&disk, 1).expect("an empty disk can be used");
    let id = LogId { partition: 77, ..sim::bench::LOG };
    let how = OpenOptions { mode: OpenMode::CreateIfMissing, segment_bytes: 2000 };
    disk.fail(Kind::SyncDir, Some(ErrorKind::Other));
    assert!(matches!(bench.threads.drive(bench.engine.open(id, how)), Err(EngineError::Io { .. })));
    disk.fail(Kind::SyncDir, None);
    assert!(bench.threads.drive(bench.engine.open(id, how)).is_ok(), "what the first attempt left is no log");
}

#[test]
fn a_log_whose_name_could_not_be_synced_has_a_durable_one_before_another_process_fills_it() {
    let disk = SimDisk::new();
    disk.fail(Kind::SyncDir, Some(ErrorKind::Other));
    assert!(
        Bench::open(&disk, 1).is_err(),
        "its creation fails, and leaves a directory that a power cut may take away"
    );
    disk.fail(Kind::SyncDir, None);
    let restarted = disk.after_kill();
    let bench = Bench::open(&restarted, 2).expect("the disk is sound again");
    let runs = bench.fill(3);
    bench.sync().expect("durable");
    let recovered = Bench::open(&restarted.after_power_cut(None), 3).expect("it can be opened");
    assert_eq!(recovered.log.state().end, runs[2].next_offset);
}

#[test]
fn a_failed_write_fails_the_log_and_everything_that_was_ordered() {
    let disk = SimDisk::new();
    let bench = Bench::open(&disk, 1).expect("an empty disk can be used");
    let runs = bench.fill(3);
    disk.fail(Kind::Write, Some(ErrorKind::Other));
    let end = bench.log.state().end.0;
    let first = bench.log.order(run_of(end, 1, 0, 0, 100)).expect("there is room");
    let second = bench.log.order(run_of(end + 1, 1, 0, 0, 100)).expect("there is room");
    bench.log.wal.write_queued();
    assert!(matches!(bench.threads.drive(first), Err(WalError::Failed(_))));
    assert!(matches!(bench.threads.drive(second), Err(WalError::Failed(_))));
    disk.fail(Kind::Write, None);
    assert!(matches!(bench.append(run_of(end + 2, 1, 0, 0, 100)), Err(Failure::Refused(Refused::Failed))));
    let (bytes, at, error) = bench.read_from(Offset(0));
    assert!(bytes == bytes_of(&runs), "what was written is still read, {} bytes of it: {at}, {error:?}", bytes.len());
    assert!(at == Offset(end) && matches!(error, Some(WalError::Failed(_))), "what was not is not");
}

#[test]
fn a_disk_that_is_full_refuses_before_ordering_and_takes_appends_again_when_there_is_room() {
    let disk = SimDisk::new();
    let roomy = SegmentOptions { free_bytes_min: 1000, ..options() };
    disk.set_capacity(Some(5000));
    let bench = Bench::open_with(&disk, 1, roomy).expect("an empty disk can be used");
    let mut runs = Vec::new();
    let why = loop {
        let run = run_of(bench.log.state().end.0, 1, 0, 0, 100);
        match bench.append(run.clone()) {
            Ok(()) => runs.push(run),
            Err(why) => break why,
        }
    };
    assert!(matches!(why, Failure::Refused(Refused::Full)));
    assert!(runs.len() > 20, "most of the disk was used: {}", runs.len());
    bench.sync().expect("what was ordered can be made durable");
    assert!(bench.read_from(Offset(0)).0 == bytes_of(&runs), "reads go on");

    disk.set_capacity(None);
    while bench.threads.step() {}
    let run = run_of(bench.log.state().end.0, 1, 0, 0, 100);
    bench.append(run.clone()).expect("there is room again");
    runs.push(run);
    assert!(bench.read_from(Offset(0)).0 == bytes_of(&runs));
}

#[test]
fn a_write_that_finds_the_disk_full_waits_for_room_and_is_not_lost() {
    for room in 0..400 {
        let disk = SimDisk::new();
        let bench = Bench::open(&disk, room).expect("an empty disk can be used");
        let mut runs = bench.fill(8);
        // Others took the space; the engine has not looked since.
        let used: usize = disk.files().iter().filter_map(|name| disk.file(name)).map(|bytes| bytes.len()).sum();
        disk.set_capacity(Some(used as u64 + room));
        let end = bench.log.state().end.0;
        let late: Vec<_> = (0..3).map(|more| run_of(end + more, 1, 0, 0, 500)).collect();
        let ordered: Vec<_> = late.iter().map(|run| bench.log.order(run.clone()).expect("not known yet")).collect();
        runs.extend(late);
        bench.log.wal.write_queued();
        bench.threads.settle();
        assert_eq!(bench.log.refused(run_of(end + 3, 1, 0, 0, 10)), Refused::Full);
        let (bytes, _, error) = bench.read_from(Offset(0));
        assert!(error.is_none() && bytes == bytes_of(&runs), "reads go on, also of what waits");

        disk.set_capacity(None);
        for append in ordered {
            bench.threads.drive(append).expect("written once there was room");
        }
        let run = run_of(end + 3, 1, 0, 0, 10);
        bench.append(run.clone()).expect("there is room again");
        runs.push(run);
        bench.sync().expect("the disk is sound");
        let again = Bench::open(&disk.after_power_cut(None), 1).expect("all is whole");
        assert!(again.read_from(Offset(0)).0 == bytes_of(&runs), "room {room}");
    }
}

#[test]
fn a_log_that_is_deleted_while_it_waits_for_room_leaves_none_of_the_others_waiting() {
    use chronik_core::ids::LogId;
    use chronik_core::wal::{OpenMode, OpenOptions, WalEngine};
    let disk = SimDisk::new();
    let bench = Bench::open(&disk, 1).expect("an empty disk can be used");
    let id = LogId { partition: 77, ..sim::bench::LOG };
    let how = OpenOptions { mode: OpenMode::CreateIfMissing, segment_bytes: 2000 };
    let other = bench.threads.drive(bench.engine.open(id, how)).expect("there is room");
    let other = chronik_conformance::wal::Log { wal: other };
    disk.fail(Kind::Write, Some(ErrorKind::StorageFull));
    let waits = other.order(run_of(0, 1, 0, 0, 100)).expect("there seems to be room");
    other.wal.write_queued();
    assert!(matches!(bench.append(run_of(0, 1, 0, 0, 100)), Err(Failure::Refused(Refused::Full))));
    bench.threads.drive(bench.engine.delete(id)).expect("deleting needs no room");
    assert!(bench.threads.drive(waits).is_err());
    disk.fail(Kind::Write, None);
    while bench.threads.step() {}
    bench.append(run_of(0, 1, 0, 0, 100)).expect("nothing is full any more");
}

#[test]
fn one_sync_of_the_file_system_serves_many_logs_and_fails_all_of_them() {
    use chronik_core::ids::LogId;
    use chronik_core::wal::{OpenMode, OpenOptions, WalEngine};
    let disk = SimDisk::new();
    disk.set_owns_filesystem(true);
    let bench = Bench::open(&disk, 1).expect("an empty disk can be used");
    let logs: Vec<_> = (1..=40)
        .map(|partition| {
            let how = OpenOptions { mode: OpenMode::CreateNew, segment_bytes: 2000 };
            let id = LogId { partition, ..sim::bench::LOG };
            let wal = bench.threads.drive(bench.engine.open(id, how)).expect("the disk is sound");
            chronik_conformance::wal::Log { wal }
        })
        .collect();
    for fail in [false, true] {
        for log in &logs {
            bench.threads.drive(log.append(run_of(log.state().end.0, 1, 0, 0, 100)));
        }
        disk.fail(Kind::SyncFilesystem, fail.then_some(ErrorKind::Other));
        let before = disk.count(Kind::SyncData);
        let syncs: Vec<_> = logs.iter().map(|log| Pending::start(|done| log.wal.sync(log.state().end, done))).collect();
        for sync in syncs {
            let outcome = bench.threads.drive(sync);
            assert_eq!(matches!(outcome, Err(WalError::Failed(_))), fail, "{outcome:?}");
        }
        assert!(disk.count(Kind::SyncData) - before < 16, "most were served together");
    }
}

/// What the log may be after a crash in the middle of a step: as before the step, or as after it.
struct Promise {
    before: Model,
    after: Model,
    durable_end: Offset,
}

impl Promise {
    /// Whether `bench` is `model`, but for runs that were not durable.
    fn holds(&self, bench: &Bench, model: &Model) -> bool {
        let state = bench.log.state();
        let live: Vec<_> = model.runs.iter().filter(|run| run.next_offset.0 > model.start).cloned().collect();
        let there: Vec<_> = live.into_iter().take_while(|run| run.next_offset <= state.end).collect();
        let end = there.last().map_or(Offset(model.start), |run| run.next_offset);
        let (bytes, _, error) = bench.read_from(state.start);
        state.start.0 == model.start
            && state.end == end
            && end >= self.durable_end.min(Offset(model.end))
            && error.is_none()
            && bytes == bytes_of(&there)
    }
}

/// A step of a history on both; `None` once the power is out.
fn step(bench: &Bench, model: &mut Model, dice: &mut Dice) -> Option<()> {
    let within = |dice: &mut Dice, model: &Model| model.start + dice.below((model.end - model.start + 1) as u64) as i64;
    match dice.below(12) {
        0 => {
            let from = within(dice, model);
            if model.is_boundary(from) {
                model.truncate_suffix(from);
                bench.truncate_suffix(from).ok()?;
            }
        }
        1 => {
            let upto = within(dice, model);
            model.truncate_prefix(upto);
            bench.truncate_prefix(upto).ok()?;
        }
        2 if dice.below(4) == 0 => {
            let start = dice.below(500) as i64;
            model.reset(start);
            bench.threads.drive(bench.log.reset(start)).ok()?;
        }
        3 | 4 => {
            bench.sync().ok()?;
        }
        5 => {
            if let Some(segmented) = bench.log.segmented() {
                segmented.roll();
            }
        }
        _ => {
            let base = model.end + if dice.below(6) == 0 { 3 } else { 0 };
            let run = run_of(base, 1 + dice.below(3) as i64, model.last_epoch(), base, dice.below(900) as usize);
            model.append(run.clone());
            bench.append(run).ok()?;
            // Often and little: then zeros are written ahead, too.
            if dice.below(2) == 0 {
                bench.sync().ok()?;
            }
        }
    }
    Some(())
}

/// Plays a history until the power goes out at the operation; what was promised by then.
fn play(disk: &SimDisk, seed: u64, steps: usize) -> Promise {
    let mut promise = Promise { before: Model::default(), after: Model::default(), durable_end: Offset(0) };
    let mut dice = Dice(seed);
    let small = SegmentOptions { tail_cache_bytes: 1500, ..options() };
    let Ok(bench) = Bench::open_with(disk, seed, small) else { return promise };
    for _ in 0..steps {
        let mut after = promise.before.clone();
        let outcome = step(&bench, &mut after, &mut dice);
        promise.after = after;
        if outcome.is_none() {
            return promise;
        }
        promise.before = promise.after.clone();
        promise.durable_end = bench.log.state().durable_end;
    }
    promise
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_durable_and_tears_no_change() {
    for seed in 0..12 {
        let steps = 40;
        let undisturbed = SimDisk::new();
        play(&undisturbed, seed, steps);
        let operations = undisturbed.operations();
        for stop in 1..=operations {
            let disk = SimDisk::new();
            disk.stop_at(Some(stop));
            let promise = play(&disk, seed, steps);
            for left in [None, Some(Dice(stop)), Some(Dice(stop + 1000))] {
                let what = format!("seed {seed}, power out at operation {stop} of {operations}, left {left:?}");
                let disk = disk.after_power_cut(left);
                let bench = match Bench::open(&disk, 1) {
                    Ok(bench) => bench,
                    Err(error) => panic!("{what}: {error:?}"),
                };
                let fine = promise.holds(&bench, &promise.before) || promise.holds(&bench, &promise.after);
                let state = bench.log.state();
                assert!(fine, "{what}: {state:?}, promised up to {}", promise.durable_end);

                // Whatever opening did is durable itself, and doing it again changes nothing.
                let again = Bench::open(&disk.after_power_cut(None), 1);
                match again {
                    Ok(again) => assert_eq!(again.log.state(), state, "{what}"),
                    Err(error) => panic!("{what}, a second time: {error:?}"),
                }
                let run = run_of(state.end.0, 1, state.last_epoch.0, 0, 50);
                assert!(bench.append(run).is_ok() && bench.sync().is_ok(), "{what}: it goes on");
            }
        }
    }
}

#[test]
fn a_power_cut_while_opening_can_be_recovered_from() {
    for seed in 0..6 {
        let disk = SimDisk::new();
        let promise = {
            disk.stop_at(Some(90 + seed * 13));
            play(&disk, seed, 60)
        };
        let left = disk.after_power_cut(Some(Dice(seed)));
        for stop in 1.. {
            let interrupted = left.after_kill();
            interrupted.stop_at(Some(stop));
            let opened = Bench::open(&interrupted, 1).is_ok();
            let bench = match Bench::open(&interrupted.after_power_cut(Some(Dice(stop))), 1) {
                Ok(bench) => bench,
                Err(error) => panic!("seed {seed}, interrupted at {stop}: {error:?}"),
            };
            let fine = promise.holds(&bench, &promise.before) || promise.holds(&bench, &promise.after);
            assert!(fine, "seed {seed}, interrupted at {stop}: {:?}", bench.log.state());
            if opened {
                break;
            }
        }
    }
}

#[test]
fn deleting_and_creating_are_whole_or_not_at_all() {
    use chronik_core::wal::{OpenMode, OpenOptions, WalEngine};
    for stop in 1..60 {
        let disk = SimDisk::new();
        let bench = Bench::open(&disk, stop).expect("an empty disk can be used");
        let runs = bench.fill(12);
        bench.sync().expect("the disk is sound");
        disk.stop_at(Some(disk.operations() + stop));
        let deleted = bench.threads.drive(bench.engine.delete(sim::bench::LOG)).is_ok();
        bench.threads.settle();
        for left in [None, Some(Dice(stop))] {
            let disk = disk.after_power_cut(left);
            let how = OpenOptions { mode: OpenMode::Existing, segment_bytes: 2000 };
            let threads = sim::SimThreads::new(stop);
            let engine = chronik_storage_segment::SegmentEngine::over(
                std::sync::Arc::new(disk.clone()),
                std::sync::Arc::new(threads.clone()),
                options(),
            )
            .expect("the disk is sound");
            match threads.drive(engine.open(sim::bench::LOG, how)) {
                Ok(wal) => {
                    assert!(!deleted, "a log that was deleted is gone");
                    assert_eq!(Some(wal.state().end), runs.last().map(|run| run.next_offset), "and never half gone");
                }
                Err(EngineError::NotFound(_)) => {}
                Err(error) => panic!("power out at {stop}: {error:?}"),
            }
            threads.settle();
            assert!(disk.files().len() <= 12, "what was deleted is removed");
        }
    }
}

#[test]
fn a_sync_says_nothing_of_what_took_the_place_of_what_it_synced() {
    let disk = SimDisk::new();
    let bench = Bench::open(&disk, 1).expect("an empty disk can be used");
    for base in 0..10 {
        bench.append(run_of(base, 1, 0, 0, 50)).expect("the disk is sound");
    }
    let log = bench.log.clone();
    // While the disk is at the sync, the log is cut and grows again, on the caller's thread and a worker.
    disk.meanwhile(Kind::SyncData, move || {
        let _cut = Pending::start(|done| log.wal.truncate_suffix(Offset(4), done));
        for base in 4..10 {
            assert!(log.order(run_of(base, 1, 0, 7, 60)).is_ok());
        }
    });
    let first = Pending::start(|done| bench.log.wal.sync(Offset(10), done));
    bench.threads.drive(first).expect("the disk is sound");
    let durable_end = bench.log.state().durable_end;
    let found = Bench::open(&disk.after_power_cut(None), 1).expect("all is whole");
    assert!(found.log.state().end >= durable_end, "{:?} after {durable_end}", found.log.state());
    bench.sync().expect("the disk is sound");
    let found = Bench::open(&disk.after_power_cut(None), 1).expect("all is whole");
    assert_eq!(found.log.state().end, Offset(10));
    assert_eq!(found.read_from(Offset(4)).0.len(), 6 * 60);
}

#[test]
fn a_write_says_nothing_of_what_took_the_place_of_what_it_wrote() {
    let disk = SimDisk::new();
    let bench = Bench::open(&disk, 1).expect("an empty disk can be used");
    bench.append(run_of(0, 4, 0, 0, 50)).expect("the disk is sound");
    let ordered = bench.log.order(run_of(4, 10, 0, 0, 50)).expect("there is room");
    let log = bench.log.clone();
    disk.meanwhile(Kind::Write, move || {
        let _cut = Pending::start(|done| log.wal.truncate_suffix(Offset(4), done));
        for base in 4..9 {
            assert!(log.order(run_of(base, 1, 0, 7, 60)).is_ok());
        }
    });
    bench.log.wal.write_queued();
    bench.threads.drive(ordered).expect("the disk is sound");
    assert_eq!(bench.log.state().written_end, Offset(4), "what came after is not written yet");
    // Nothing but what is unwritten is kept in memory here, and what is in memory needs no thread.
    let range = ReadRange { from: Offset(4), upto: Offset(9), max_bytes: 1000, min_one: true };
    let mut at_once = None;
    let _pending = Pending::start(|done| match bench.log.wal.read(range, done) {
        Started::Now(outcome) => {
            at_once = outcome.ok().map(|chunk| chunk.bytes.len());
            Started::Later
        }
        Started::Later => Started::Later,
    });
    assert_eq!(at_once, Some(5 * 60));
    bench.sync().expect("the disk is sound");
    let (bytes, _, error) = bench.read_from(Offset(4));
    assert!(error.is_none() && bytes.len() == 5 * 60, "{error:?}, {} bytes", bytes.len());
}

#[test]
fn reads_that_would_wait_go_to_a_thread_and_come_back_right() {
    let disk = SimDisk::new();
    let bench = Bench::open(&disk, 1).expect("an empty disk can be used");
    let runs = bench.fill(40);
    disk.set_nothing_cached(true);
    let (bytes, _, error) = bench.read_from(Offset(0));
    assert!(error.is_none() && bytes == bytes_of(&runs));
    let times = bench.threads.drive(bench.log.offset_for_timestamp(runs[30].max_timestamp.0));
    assert_eq!(times, Some(runs[30].base));
}

#[test]
fn a_read_that_a_truncation_overtakes_gives_what_was_or_what_is() {
    for at in 0..6 {
        let disk = SimDisk::new();
        let bench = Bench::open(&disk, at).expect("an empty disk can be used");
        for base in 0..30 {
            bench.append(run_of(base, 1, 0, 0, 100)).expect("the disk is sound");
        }
        bench.threads.settle();
        disk.set_nothing_cached(true);
        let reader = bench.log.clone();
        let range = ReadRange { from: Offset(10), upto: Offset(30), max_bytes: 1000, min_one: true };
        let read = Pending::start(|done| reader.wal.read(range, done));
        let log = bench.log.clone();
        let threads = bench.threads.clone();
        disk.meanwhile(Kind::Read, move || {
            let cut = Pending::start(|done| log.wal.truncate_suffix(Offset(at as i64 * 3), done));
            threads.drive(cut).expect("the disk is sound");
            let end = log.state().end.0;
            for base in end..25 {
                assert!(log.order(run_of(base, 1, 1, 7, 100)).is_ok());
            }
            log.wal.write_queued();
        });
        let chunk = bench.threads.drive(read).expect("neither damaged nor gone");
        let bytes = chunk.bytes.to_bytes();
        let (old, new) = (run_of(10, 1, 0, 0, 100), run_of(10, 1, 1, 7, 100));
        let first = &bytes[..100];
        assert!(first == old.bytes.to_bytes() || first == new.bytes.to_bytes(), "cut at {}", at * 3);
    }
}
