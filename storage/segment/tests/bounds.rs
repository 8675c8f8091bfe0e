//! What the engine takes of memory, files and time has bounds.

mod sim;

use chronik_conformance::wal::{Log, run_of};
use chronik_core::ids::Offset;
use chronik_core::pending::Pending;
use chronik_core::wal::{OpenMode, OpenOptions, Refused, WalEngine};
use chronik_storage_segment::{SegmentEngine, SegmentOptions, StartError};
use futures::executor::block_on;
use sim::bench::{Bench, LOG, options};
use sim::{Kind, SimDisk};

#[test]
fn one_process_at_a_time_uses_a_data_directory() {
    let dir = tempfile::tempdir().expect("a directory for temporary files is there");
    let start = || SegmentEngine::start(dir.path().join("a").join("b"), SegmentOptions::default());
    let first = start().expect("nobody uses it");
    assert!(matches!(start().err(), Some(StartError::InUse { .. })));
    block_on(first.close()).expect("there is nothing to close");
    assert!(start().is_ok(), "a closed engine lets go of it");
}

#[test]
fn impossible_options_are_refused() {
    let dir = tempfile::tempdir().expect("a directory for temporary files is there");
    let options = SegmentOptions { open_files_max: 0, ..SegmentOptions::default() };
    let error = SegmentEngine::start(dir.path().to_owned(), options).err().expect("no file could be open");
    assert_eq!(error.to_string(), "open_files_max must be at least 8");
}

#[test]
fn open_files_and_cached_bytes_stay_bounded_however_many_logs_there_are() {
    let dir = tempfile::tempdir().expect("a directory for temporary files is there");
    let bounded = SegmentOptions { open_files_max: 10, tail_cache_bytes: 100_000, ..SegmentOptions::default() };
    let engine = SegmentEngine::start(dir.path().to_owned(), bounded).expect("the directory is free");
    block_on(async {
        for _ in 0..3 {
            for number in 0..60 {
                let log = Log::open(&engine, number).await;
                log.fill(30).await;
                log.sync().await;
                assert!(engine.open_files() <= 10);
                assert!(engine.usage().memory_bytes <= 100_000 + 10_000);
            }
        }
    });
}

#[test]
fn what_waits_to_be_written_is_bounded_and_an_append_beyond_it_is_refused_as_busy() {
    let disk = SimDisk::new();
    let small = SegmentOptions { unwritten_bytes_max: 1 << 20, ..options() };
    let bench = Bench::open_with(&disk, 1, small).expect("an empty disk can be used");
    let mut ordered = Vec::new();
    let why = loop {
        match bench.log.order(run_of(ordered.len() as i64, 1, 0, 0, 1000)) {
            Ok(append) => ordered.push(append),
            Err(why) => break why,
        }
    };
    assert_eq!(why, Refused::Busy);
    assert!(ordered.len() > 900 && ordered.len() <= 1 << 10, "{}", ordered.len());
    let next = ordered.len() as i64;
    bench.log.wal.write_queued();
    for append in ordered {
        bench.threads.drive(append).expect("the disk is sound");
    }
    bench.append(run_of(next, 1, 0, 0, 1000)).expect("there is room again");
}

/// Reads of the disk that opening the log takes.
fn reads_to_open(disk: &SimDisk) -> usize {
    let before = disk.count(Kind::Read);
    let bench = Bench::open(disk, 1).expect("the disk is sound");
    assert!(bench.log.state().end > Offset(0));
    disk.count(Kind::Read) - before
}

#[test]
fn opening_a_closed_log_reads_none_of_its_data() {
    let disk = SimDisk::new();
    let bench = Bench::open(&disk, 1).expect("an empty disk can be used");
    bench.fill(200);
    let segments = bench.log.segmented().map_or(0, |segmented| segmented.segments().len());
    assert!(segments > 10);
    bench.close().expect("the disk is sound");
    // Its summary and its last frame's header; a read ends where it got nothing more.
    assert!(reads_to_open(&disk.after_kill()) <= 3 * segments);
}

#[test]
fn opening_after_a_crash_reads_only_what_came_after_the_last_checkpoint() {
    let disk = SimDisk::new();
    let often = SegmentOptions { checkpoint_bytes: 1 << 20, ..options() };
    let bench = Bench::open_with(&disk, 1, often).expect("an empty disk can be used");
    let how = OpenOptions { mode: OpenMode::Existing, segment_bytes: 1 << 30 };
    let log = Log { wal: bench.threads.drive(bench.engine.open(LOG, how)).expect("it is open") };
    if let Some(segmented) = log.segmented() {
        segmented.set_segment_bytes(1 << 30);
    }
    for base in 0..100 {
        bench.append(run_of(base, 1, 0, base, 100_000)).expect("the disk is sound");
        bench.threads.settle();
    }
    let killed = disk.after_power_cut(None);
    let bytes: usize = killed.files().iter().filter_map(|name| killed.file(name)).map(|bytes| bytes.len()).sum();
    assert!(bytes > 8_000_000, "a log that nobody syncs is synced now and then: {bytes}");
    // In pieces of a mebibyte.
    let reads = reads_to_open(&disk.after_kill());
    assert!(reads < 10, "{reads} reads for 10 MB of which all but the last one or two were covered");
    let again = Bench::open(&disk.after_kill(), 1).expect("the disk is sound");
    let found = again
        .threads
        .drive(Pending::start(|done| again.log.wal.offset_for_timestamp(chronik_core::time::Timestamp(55), done)));
    assert!(found.is_ok_and(|offset| offset == Some(Offset(55))));
}

#[test]
fn an_index_file_that_is_lost_is_made_up_for() {
    let disk = SimDisk::new();
    let bench = Bench::open(&disk, 1).expect("an empty disk can be used");
    let runs = bench.fill(100);
    bench.sync().expect("the disk is sound");
    bench.threads.settle();
    use chronik_storage_segment::disk::Disk;
    for name in disk.files().into_iter().filter(|name| name.extension().is_some_and(|kind| kind == "index")) {
        disk.remove_file(&name).expect("it was listed");
    }
    let (bytes, _, error) = bench.read_from(Offset(0));
    assert!(error.is_none() && bytes == sim::bench::bytes_of(&runs), "while the log is open");
    let again = Bench::open(&disk.after_kill(), 1).expect("the disk is sound");
    let (bytes, _, error) = again.read_from(Offset(0));
    assert!(error.is_none() && bytes == sim::bench::bytes_of(&runs), "and when it is opened");
}
