//! Telling where runs lie, so that the kernel sends them from there: only what is whole, and exactly what a read would give.

use chronik_conformance::wal::{Log, run_of};
use chronik_core::ids::Offset;
use chronik_core::pending::Pending;
use chronik_core::wal::{ChunkInFiles, ReadRange, WalEngine, WalError};
use chronik_storage_segment::{SegmentEngine, SegmentOptions};
use futures::executor::block_on;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const LARGE: usize = 50_000;

/// Not where temporary files go, which may be a file system that cannot say what of a file is in memory.
fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory can be made")
}

/// An engine that keeps next to nothing in memory of its own.
fn start(directory: &Path) -> SegmentEngine {
    let options = SegmentOptions { tail_cache_bytes: 1, ..SegmentOptions::default() };
    SegmentEngine::start(directory.to_owned(), options).expect("the directory is free")
}

fn range(from: i64, upto: i64, max_bytes: usize) -> ReadRange {
    ReadRange { from: Offset(from), upto: Offset(upto), max_bytes, min_one: true }
}

/// Runs of ten records, so many bytes each.
async fn append(log: &Log, runs: &[usize]) {
    for bytes in runs {
        let base = log.state().end.0;
        log.append(run_of(base, 10, 0, base, *bytes)).await;
    }
    log.sync().await;
}

async fn read(log: &Log, range: ReadRange) -> Result<(Offset, Offset, Vec<u8>), WalError> {
    let chunk = Pending::start(|done| log.wal.read(range, done)).await?;
    Ok((chunk.base, chunk.next_offset, chunk.bytes.to_bytes().to_vec()))
}

/// What lies where the log says.
fn contents(chunk: &ChunkInFiles) -> (Offset, Offset, Vec<u8>) {
    let mut all = Vec::new();
    for part in &chunk.parts {
        let file = File::from(part.file.as_fd().try_clone_to_owned().expect("a file"));
        let mut bytes = vec![0; part.bytes];
        file.read_exact_at(&mut bytes, part.position).expect("as much as was said");
        all.extend(bytes);
    }
    (chunk.base, chunk.next_offset, all)
}

fn only_segment(directory: &Path) -> PathBuf {
    let logs = std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let log = logs.into_iter().find(|path| path.is_dir()).expect("a log");
    log.join(format!("{:020}.log", 0))
}

#[test]
fn what_was_written_and_left_memory_lies_where_it_is_said_to() {
    let dir = directory();
    let engine = start(dir.path());
    block_on(async {
        let log = Log::open_with(&engine, 1, 1 << 30).await;
        append(&log, &[LARGE; 6]).await;
        // The last run, or none, may still be in memory, which is served from there.
        let asked = range(0, 50, 1 << 20);
        let told = log.wal.in_files(asked).expect("they were written by this process");
        assert_eq!(contents(&told), read(&log, asked).await.expect("they are whole"));
        assert_eq!((told.parts.len(), told.next_offset), (5, Offset(50)));
        // From within a run, up to a watermark within another, with room for two.
        let asked = range(14, 47, 2 * LARGE + 10);
        let told = log.wal.in_files(asked).expect("likewise");
        assert_eq!(contents(&told), read(&log, asked).await.expect("they are whole"));
        assert_eq!((told.base, told.next_offset), (Offset(10), Offset(30)));
        // The first run is given though it alone is too large, but only where that is asked for.
        assert_eq!(log.wal.in_files(range(0, 50, 10)).expect("one").next_offset, Offset(10));
        assert!(log.wal.in_files(ReadRange { min_one: false, ..range(0, 50, 10) }).is_none());
        // Nothing past the end, and nothing of a log that is closed.
        assert!(log.wal.in_files(range(60, 60, 1 << 20)).is_none());
        Pending::start(|done| log.wal.close(done)).await.expect("it closes");
        assert!(log.wal.in_files(range(0, 50, 1 << 20)).is_none());
    });
}

#[test]
fn small_runs_are_left_to_be_read() {
    let dir = directory();
    let engine = start(dir.path());
    block_on(async {
        let log = Log::open_with(&engine, 1, 1 << 30).await;
        append(&log, &[LARGE, LARGE, 200, LARGE, LARGE, LARGE]).await;
        assert_eq!(log.wal.in_files(range(0, 50, 1 << 20)).expect("two").next_offset, Offset(20));
        assert!(log.wal.in_files(range(20, 50, 1 << 20)).is_none());
        assert_eq!(log.wal.in_files(range(30, 50, 1 << 20)).expect("two").next_offset, Offset(50));
    });
}

#[test]
fn what_an_earlier_process_wrote_is_read_and_checked_before_it_is_told() {
    let dir = directory();
    block_on(async {
        let engine = start(dir.path());
        append(&Log::open_with(&engine, 1, 1 << 30).await, &[LARGE; 6]).await;
        engine.close().await.expect("it closes");
    });
    let engine = start(dir.path());
    block_on(async {
        let log = Log::open_with(&engine, 1, 1 << 30).await;
        let asked = range(20, 40, 1 << 20);
        assert!(log.wal.in_files(asked).is_none(), "nobody has looked at it in this life");
        let found = read(&log, asked).await.expect("it is whole");
        assert_eq!(contents(&log.wal.in_files(asked).expect("it was read")), found);
        assert!(log.wal.in_files(range(0, 60, 1 << 20)).is_none(), "what lies before was not read");
        // Of what comes after, only as much as the read has seen.
        let told = log.wal.in_files(range(30, 60, 1 << 20)).expect("one run of it was read");
        assert_eq!(told.next_offset, Offset(40));
    });
}

#[test]
fn damage_is_not_told_and_a_read_says_so() {
    let dir = directory();
    block_on(async {
        let engine = start(dir.path());
        append(&Log::open_with(&engine, 1, 1 << 30).await, &[LARGE; 3]).await;
        engine.close().await.expect("it closes");
    });
    let file = File::options().read(true).write(true).open(only_segment(dir.path())).expect("the segment");
    let place = LARGE as u64 + 1000;
    let mut byte = [0];
    file.read_exact_at(&mut byte, place).expect("it is there");
    file.write_all_at(&[byte[0] ^ 1], place).expect("written");
    let engine = start(dir.path());
    block_on(async {
        let log = Log::open_with(&engine, 1, 1 << 30).await;
        for _ in 0..2 {
            assert!(log.wal.in_files(range(10, 30, 1 << 20)).is_none());
            let failed = read(&log, range(10, 30, 1 << 20)).await;
            assert!(matches!(failed, Err(WalError::Corrupt { offset: Offset(10) })), "{failed:?}");
        }
        // What lies before it is whole, and the answer ends there.
        assert_eq!(read(&log, range(0, 30, 1 << 20)).await.expect("the first").1, Offset(10));
        assert_eq!(read(&log, range(0, 10, 1 << 20)).await.expect("the first").1, Offset(10));
        assert_eq!(log.wal.in_files(range(0, 30, 1 << 20)).expect("the first").next_offset, Offset(10));
    });
}

#[test]
fn what_was_cut_is_told_no_more_and_what_replaced_it_lies_where_it_is_said_to() {
    let dir = directory();
    let engine = start(dir.path());
    block_on(async {
        let log = Log::open_with(&engine, 1, 1 << 30).await;
        append(&log, &[LARGE; 6]).await;
        assert!(log.wal.in_files(range(20, 50, 1 << 20)).is_some());
        Pending::start(|done| log.wal.truncate_suffix(Offset(20), done)).await.expect("it is cut");
        assert!(log.wal.in_files(range(10, 50, 1 << 20)).is_none(), "it was not looked at since the cut");
        append(&log, &[LARGE + 7; 4]).await;
        let asked = range(20, 50, 1 << 20);
        let found = read(&log, asked).await.expect("it is whole");
        assert_eq!(found.2.len(), 3 * (LARGE + 7));
        assert_eq!(contents(&log.wal.in_files(asked).expect("written, and read")), found);
        Pending::start(|done| log.wal.reset(Offset(1000), done)).await.expect("it is emptied");
        assert!(log.wal.in_files(range(20, 1000, 1 << 20)).is_none());
    });
}
