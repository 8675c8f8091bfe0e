//! D: files that are not what the engine left, and files and devices that take no more.

use crate::judge::Judge;
use crate::killed::{run_to_its_end, settle};
use crate::snapshot::{Expected, Snapshot};
use crate::subject::whole;
use crate::writer::Step;
use chronik_conformance::wal::{Dice, Log, copy_tree, id, run_of};
use chronik_core::ids::Offset;
use chronik_core::wal::{EngineError, OpenMode, OpenOptions, ReadRange, WalEngine, WalError};
use futures::executor::block_on;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

/// How many damages of a kind are tried, over all files.
const DAMAGES: u64 = 60;
/// And how many where what is left is set aside, which takes longer.
const DAMAGES_SET_ASIDE: u64 = 24;
/// Runs in the log that is damaged.
const RUNS: i64 = 60;
/// How large files may become, in blocks of 512 or 1024 bytes (shells differ): room for the first dozens of runs.
const FILE_BLOCKS: u32 = 128;
/// What is written to files that take no more than that, in runs of [`LARGE_BYTES`].
const LARGE_RUNS: i64 = 120;
const LARGE_BYTES: usize = 4000;

/// A device of its own that becomes full: room for an engine's preparations, and how much is offered to it then.
const DEVICE_BYTES: u64 = 256 << 20;
const DEVICE_RUN_BYTES: usize = 64 << 10;
const DEVICE_RUNS: usize = 8192;
/// So long something stands still before a device has room again: what is written later is tried meanwhile.
const FULL_FOR: Duration = Duration::from_millis(500);

pub(crate) fn cut(judge: &Judge) {
    damaged(judge, "cut off", cut_off);
}

pub(crate) fn flipped(judge: &Judge) {
    damaged(judge, "changed in one bit", flip);
}

fn cut_off(file: &Path, dice: &mut Dice) -> io::Result<()> {
    let len = fs::metadata(file)?.len();
    fs::OpenOptions::new().write(true).open(file)?.set_len(len - 1 - dice.below(len))
}

fn flip(file: &Path, dice: &mut Dice) -> io::Result<()> {
    let mut content = fs::read(file)?;
    let at = dice.below(content.len() as u64) as usize;
    content[at] ^= 1 << dice.below(8);
    fs::write(file, content)
}

fn writer_of(directory: &Path) -> String {
    format!("writer {}", directory.display())
}

fn broken(error: io::Error) -> ! {
    panic!("the files cannot be worked on: {error}")
}

/// Writes a log, closes it, and damages one file of it after the other, each in a copy.
fn damaged(judge: &Judge, how: &str, damage: impl Fn(&Path, &mut Dice) -> io::Result<()>) {
    let place = tempfile::tempdir().unwrap_or_else(|error| broken(error));
    let directory = place.path().join("data");
    let mut expected = Expected::default();
    let mut steps = Vec::new();
    for number in 0..RUNS {
        steps.push(Step::Order(number * 2, 2, 0, number, 100 + number as usize % 7 * 40));
    }
    steps.extend([Step::Wait, Step::Put("value".into(), "another".into()), Step::Prefix(21), Step::Sync]);
    let mut moments = Vec::new();
    for step in &steps {
        expected.step(step);
        moments.push(expected.snapshot());
    }
    let (done, why) = run_to_its_end(&mut judge.again.command(&writer_of(&directory)), &steps);
    assert!(done == steps.len(), "{:?} is not done: {why}", steps[done].to_string());
    let whole = expected.snapshot();

    let files = files_of(&directory).unwrap_or_else(|error| broken(error));
    assert!(!files.is_empty(), "the engine says that what is written outlives the process, and has written no file");
    for number in 0..DAMAGES {
        let mut dice = Dice(number);
        let file = &files[number as usize % files.len()];
        let copy = tempfile::tempdir().unwrap_or_else(|error| broken(error));
        copy_tree(&directory, &copy.path().join("data")).unwrap_or_else(|error| broken(error));
        damage(&copy.path().join("data").join(file), &mut dice).unwrap_or_else(|error| broken(error));
        let file = file.display();
        // An engine may say that something is wrong in any call.
        let quiet = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let found = catch_unwind(AssertUnwindSafe(|| Snapshot::of(&judge.subject, &copy.path().join("data"))));
        std::panic::set_hook(quiet);
        let Ok(Ok(found)) = found else { continue };
        // What is there must be some beginning of the log, whether or not it has its new start and values.
        let given = |value: &Option<String>, right: &Option<String>| value.is_none() || value == right;
        let values = given(&found.values.0, &whole.values.0) && given(&found.values.1, &whole.values.1);
        assert!(values, "{file}, {how} ({number}): the small values are now {:?}", found.values);
        let known = moments
            .iter()
            .any(|moment| found.end == moment.end && (found.bytes.is_empty() || moment.bytes.ends_with(&found.bytes)));
        let prefix = whole.bytes.starts_with(&found.bytes) || known;
        assert!(
            prefix && found.end <= whole.end && found.start <= found.end,
            "{file}, {how} ({number}): instead of {} there is {}; of the bytes that are given, the first that was never \
             stored there is number {}",
            whole.told(),
            found.told(),
            found.bytes.iter().zip(&whole.bytes).take_while(|(found, right)| found == right).count()
        );
    }
}

/// Damages a log until it is noticed, in many ways, and has what is left set aside.
pub(crate) fn set_aside(judge: &Judge) {
    let place = tempfile::tempdir().unwrap_or_else(|error| broken(error));
    let directory = place.path().join("data");
    let mut steps: Vec<_> =
        (0..RUNS).map(|number| Step::Order(number * 2, 2, 0, number, 100 + number as usize % 7 * 40)).collect();
    steps.extend([Step::Wait, Step::Put("value".into(), "another".into()), Step::Sync]);
    let (done, why) = run_to_its_end(&mut judge.again.command(&writer_of(&directory)), &steps);
    assert!(done == steps.len(), "{:?} is not done: {why}", steps[done].to_string());
    let files = files_of(&directory).unwrap_or_else(|error| broken(error));
    for number in 0..DAMAGES_SET_ASIDE {
        let mut dice = Dice(number);
        let file = &files[number as usize % files.len()];
        let damage = if dice.below(2) == 0 { cut_off } else { flip };
        let copy = tempfile::tempdir().unwrap_or_else(|error| broken(error));
        let copy = copy.path().join("data");
        copy_tree(&directory, &copy).unwrap_or_else(|error| broken(error));
        damage(&copy.join(file), &mut dice).unwrap_or_else(|error| broken(error));
        // The engine may be damaged as a whole: then there is no log that could be set aside.
        let Ok(engine) = judge.subject.start(&copy) else { continue };
        if !block_on(says_damaged(&engine)) {
            continue;
        }
        let left = runs_in(&copy).unwrap_or_else(|error| broken(error));
        let what = || format!("{} damaged ({number})", file.display());
        if let Err(why) = block_on(engine.set_aside(id(1))) {
            panic!("{}: what is left is not set aside: {}", what(), whole(&why));
        }
        let listed = block_on(engine.list()).map_err(|error| whole(&error));
        assert!(listed == Ok(Vec::new()), "{}: set aside, and still a log: {listed:?}", what());
        block_on(async {
            let log = Log::open(&engine, 1).await;
            let (state, value) = (log.state(), log.get("one").await);
            assert!(
                state.end == Offset(0) && value.is_none(),
                "{}: set aside, but what begins anew holds something: {state:?}",
                what()
            );
            log.fill(5).await;
            log.sync().await;
        });
        if let Err(why) = block_on(engine.close()) {
            panic!("{}: the engine does not close: {}", what(), whole(&why));
        }
        let again = Snapshot::of(&judge.subject, &copy).unwrap_or_else(|why| panic!("{}: begun anew: {why}", what()));
        assert!(again.end > 0 && again.start == 0, "{}: what began anew is not there: {}", what(), again.told());
        let kept = runs_in(&copy).unwrap_or_else(|error| broken(error));
        let gone: Vec<_> = left.difference(&kept).collect();
        assert!(gone.is_empty(), "{}: set aside, but runs are gone that its files had still held: {gone:?}", what());
    }
}

/// Whether the engine notices, on opening the log or in reading all of it.
async fn says_damaged(engine: &dyn WalEngine) -> bool {
    let open = OpenOptions { mode: OpenMode::Existing, segment_bytes: 1 << 20 };
    let wal = match engine.open(id(1), open).await {
        Ok(wal) => wal,
        Err(why) => return matches!(why, EngineError::Corrupt { .. }),
    };
    let log = Log { wal };
    let (mut from, end) = (log.state().start, log.state().end);
    while from < end {
        match log.try_read(ReadRange { from, upto: end, max_bytes: 1000, min_one: true }).await {
            Ok(chunk) if chunk.next_offset > from => from = chunk.next_offset,
            Ok(_) => return false,
            Err(why) => return matches!(why, WalError::Corrupt { .. }),
        }
    }
    false
}

/// Which of the damaged log's runs lie in the files as they were given, by their bases: an engine may store them in another
/// way, and then none does.
fn runs_in(directory: &Path) -> io::Result<BTreeSet<i64>> {
    let mut bases = BTreeSet::new();
    for file in files_of(directory)? {
        let content = fs::read(directory.join(file))?;
        // Their bytes repeat where they belong.
        for rest in content.split(|byte| *byte == b'<').skip(1) {
            let text = rest.split(|byte| *byte == b'>').next().and_then(|text| std::str::from_utf8(text).ok());
            if let Some(base) = text.and_then(|text| text.strip_suffix("+2@0")?.parse().ok())
                && base % 2 == 0
            {
                bases.insert(base);
            }
        }
    }
    Ok(bases)
}

/// Files that hold something, from the directory on.
fn files_of(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut below = vec![PathBuf::new()];
    while let Some(next) = below.pop() {
        for entry in fs::read_dir(directory.join(&next))? {
            let entry = entry?;
            let name = next.join(entry.file_name());
            let is = entry.metadata()?;
            if is.is_dir() {
                below.push(name);
            } else if is.len() > 0 {
                files.push(name);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Appends to files that take no more after a while.
pub(crate) fn failed_writes(judge: &Judge) {
    let place = tempfile::tempdir().unwrap_or_else(|error| panic!("no directory for temporary files: {error}"));
    let directory = place.path().join("data");
    let mut expected = Expected::default();
    let (mut steps, mut moments) = (Vec::new(), vec![expected.clone()]);
    for number in 0..LARGE_RUNS {
        for step in [Step::Order(number, 1, 0, number, LARGE_BYTES), Step::Wait] {
            expected.step(&step);
            moments.push(expected.clone());
            steps.push(step);
        }
    }
    let (done, _why) = run_to_its_end(&mut judge.again.limited(&writer_of(&directory), FILE_BLOCKS), &steps);
    let found = match Snapshot::of(&judge.subject, &directory) {
        Ok(found) => found,
        Err(why) => panic!("after {done} steps, what is left cannot be opened: {why}"),
    };
    if let Err(why) = settle(&moments, done / 2 * 2, &found) {
        panic!("files could not grow any more after {done} steps: {why}");
    }
}

/// Writes until nothing more fits.
fn fill_up(ballast: &Path) -> io::Result<()> {
    let mut file = fs::File::create(ballast)?;
    for bytes in [1 << 20, 4096, 1] {
        let some = vec![1; bytes];
        while file.write(&some).is_ok_and(|written| written > 0) {}
    }
    Ok(())
}

/// Appends to a device that becomes full, and has room again. In a process that may mount one.
pub(crate) fn full_device(judge: &Judge) {
    let place = tempfile::tempdir().unwrap_or_else(|error| broken(error));
    let device = place.path().join("device");
    fs::create_dir(&device).unwrap_or_else(|error| broken(error));
    let size = format!("size={DEVICE_BYTES}");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "chronik-full-device"]).arg(&device).status();
    assert!(mounted.is_ok_and(|status| status.success()), "a device could be mounted before, and now it cannot");
    let (directory, ballast) = (device.join("data"), device.join("ballast"));
    let started = || judge.subject.start(&directory).unwrap_or_else(|error| panic!("{}", whole(&error)));
    let engine = started();
    let run = |base: Offset| run_of(base.0, 1, 0, 0, DEVICE_RUN_BYTES);
    let acknowledged = block_on(async {
        let log = Log::open_with(&engine, 1, 16 << 20).await;
        log.append(run(Offset(0))).await;
        log.sync().await;
        fill_up(&ballast).unwrap_or_else(|error| broken(error));
        let mut pending = Vec::new();
        for _ in 0..DEVICE_RUNS {
            let base = log.state().end;
            let Ok(append) = log.order(run(base)) else { break };
            log.wal.write_queued();
            pending.push((base, append));
        }
        assert!(pending.len() < DEVICE_RUNS, "a device that is full takes {DEVICE_RUNS} appends: nobody is told");
        thread::sleep(FULL_FOR);
        fs::remove_file(&ballast).unwrap_or_else(|error| broken(error));
        let mut acknowledged = Offset(1);
        for (base, append) in pending {
            if append.await.is_ok() {
                acknowledged = base + 1;
            }
        }
        let _may_have_failed = log.close().await;
        acknowledged
    });
    let _may_have_failed = block_on(engine.close());
    let engine = started();
    block_on(async {
        let log = Log::open_with(&engine, 1, 16 << 20).await;
        let state = log.state();
        assert!(
            state.start == Offset(0) && state.end >= acknowledged,
            "the device was full: what was acknowledged up to {acknowledged} is there from {} to {}",
            state.start,
            state.end
        );
        let mut from = state.start;
        while from < state.end {
            let range = ReadRange { from, upto: from + 1, max_bytes: 1, min_one: true };
            let read = log.read(range).await;
            assert!(read.bytes == run(from).bytes, "the device was full: at {from} is not what was stored");
            from = read.next_offset;
        }
        log.append(run(state.end)).await;
        log.sync().await;
    });
    if let Err(why) = block_on(engine.close()) {
        panic!("there is room again, and the engine does not close: {}", whole(&why));
    }
}
