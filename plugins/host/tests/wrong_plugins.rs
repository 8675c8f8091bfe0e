//! Plug-ins that are wrong in one way each: every one ends in a sentence, and none takes the process with it.

use bytes::Bytes;
use chronik_core::ids::{LeaderEpoch, LogId, Offset, TopicId};
use chronik_core::payload::Payload;
use chronik_core::pending::Pending;
use chronik_core::time::Timestamp;
use chronik_core::wal::{Appended, OpenMode, OpenOptions, ReadRange, Refused, Run, Wal, WalEngine, WalError};
use chronik_plugin_host::{PluginEngine, PluginOptions, StartError};
use futures::executor::block_on;
use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tempfile::TempDir;

fn place() -> TempDir {
    tempfile::tempdir().expect("a directory for temporary files is there")
}

fn compile(source: &str, define: &[&str], into: &Path) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let compiled = Command::new("cc")
        .args(["-std=c11", "-O1", "-Wall", "-fPIC", "-shared", "-pthread", "-I"])
        .arg(here.join("../abi/include"))
        .arg("-I")
        .arg(here.join("../examples/plain-c"))
        .args(define)
        .arg(here.join("tests/wrong").join(source))
        .arg("-o")
        .arg(into)
        .status();
    assert!(compiled.is_ok_and(|status| status.success()), "a C compiler named cc builds {source}");
}

/// An error with its causes, as a person gets to read it.
fn whole(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

fn patient(path: PathBuf, data: &Path) -> PluginOptions {
    PluginOptions {
        lifecycle_timeout: Duration::from_secs(60),
        call_timeout: Duration::from_secs(60),
        ..PluginOptions::new(path, data.join("data"))
    }
}

fn refused(options: PluginOptions) -> String {
    match PluginEngine::start(options) {
        Ok(_) => panic!("it starts"),
        Err(error) => whole(&error),
    }
}

#[test]
fn a_file_that_is_no_plugin_is_refused_before_it_is_loaded() {
    let place = place();
    let at = |name: &str, content: &[u8]| {
        let path = place.path().join(name);
        fs::write(&path, content).expect("written");
        path
    };
    let refused = |path: PathBuf| refused(patient(path, place.path()));
    assert!(refused("relative.so".into()).contains("not absolute"));
    assert!(refused(place.path().join("missing.so")).contains("cannot be read"));
    assert!(refused(place.path().to_owned()).contains("not a regular file"));
    assert!(refused(at("text.so", b"#!/bin/sh\n")).contains("not a shared library"));
    assert!(refused(at("empty.so", b"")).contains("not a shared library"));

    let good = place.path().join("good.so");
    compile("calls.c", &[], &good);
    let content = fs::read(&good).expect("read");
    let mut other = content.clone();
    other[18] = 243;
    assert!(refused(at("riscv.so", &other)).contains("another machine (ELF machine 243"));
    let mut narrow = content.clone();
    narrow[4] = 1;
    assert!(refused(at("narrow.so", &narrow)).contains("another machine"));
    assert!(refused(at("cut.so", &content[..content.len() / 3])).contains("is cut off"));

    fs::set_permissions(&good, fs::Permissions::from_mode(0o666)).expect("changed");
    assert!(refused(good.clone()).contains("may be written by others (mode 666)"));
    fs::set_permissions(&good, fs::Permissions::from_mode(0o600)).expect("changed");
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).expect("changed");
    assert!(refused(good.clone()).contains("may be written by others (mode 777)"));
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o700)).expect("changed");

    let pinned = PluginOptions { sha256: Some([7; 32]), ..patient(good.clone(), place.path()) };
    let text = match PluginEngine::start(pinned) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("another file than the one that was pinned is loaded"),
    };
    assert!(text.contains(&"07".repeat(32)), "{text}");
    let engine = PluginEngine::start(patient(good, place.path())).expect("and as it is, it starts");
    assert_eq!(engine.info().name, "plain-c");
}

#[test]
fn a_table_that_cannot_work_is_refused_before_its_first_function_is_called() {
    let place = place();
    for (wrong, sentence) in [
        ("return NULL", "refused to work with this broker"),
        ("table.magic = 5", "magic number: 0x0000000000000005"),
        ("table.abi_major = 0", "version 0 of the interface, this broker 1: build it again"),
        ("table.abi_major = 2", "it needs a newer broker"),
        ("table.struct_size = 200", "200 bytes, but that of version 1.0 has 240"),
        ("table.capabilities = CK_CAP_SEGMENTS", "no function `segments`"),
        ("table.capabilities = CK_CAP_SET_ASIDE", "no function `log_set_aside`"),
        ("table.capabilities = table.required = UINT64_C(1)<<40", "does not have (bits 0x10000000000)"),
        ("table.required = CK_CAP_SEGMENTS", "does not have itself"),
        ("table.name.at = NULL", "name is not short text"),
    ] {
        let library = place.path().join(format!("{}.so", sentence.len()));
        compile("table.c", &[&format!("-DWRONG={wrong}")], &library);
        let text = refused(patient(library.clone(), place.path()));
        assert!(text.contains(sentence), "{wrong}: {text}");
        fs::remove_file(library).expect("removed");
    }
    // Of what lies beyond the size that it says nothing is looked at.
    let library = place.path().join("beyond.so");
    let beyond =
        "table.struct_size = 240, table.capabilities = CK_CAP_SET_ASIDE, table.log_set_aside = (void *)never_start";
    compile("table.c", &[&format!("-DWRONG={beyond}")], &library);
    assert!(refused(patient(library, place.path())).contains("no function `log_set_aside`"));
    for function in [
        "engine_start",
        "engine_close",
        "engine_list",
        "engine_usage",
        "log_open",
        "log_delete",
        "log_state",
        "append",
        "sync",
        "read",
        "truncate_suffix",
        "truncate_prefix",
        "reset",
        "offset_for_timestamp",
        "meta_put",
        "meta_get",
        "log_close",
        "log_release",
    ] {
        let library = place.path().join(format!("{function}.so"));
        compile("table.c", &[&format!("-DWRONG=table.{function} = NULL")], &library);
        let text = refused(patient(library, place.path()));
        assert!(text.contains(&format!("no function `{function}`")), "{function}: {text}");
    }
    let library = place.path().join("symbol.so");
    compile("table.c", &["-DNO_SYMBOL", "-w"], &library);
    assert!(refused(patient(library, place.path())).contains("no symbol chronik_plugin_v1"));
}

static CALLS: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
    let place = place();
    let library = place.path().join("calls.so");
    compile("calls.c", &[], &library);
    (place, library)
});

/// The fault is a global of the plug-in: tests of faults take turns.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

struct Wrong {
    _turn: std::sync::MutexGuard<'static, ()>,
    _place: TempDir,
    engine: PluginEngine,
}

fn options(fault: &str, place: &Path) -> PluginOptions {
    PluginOptions {
        options: fault.into(),
        call_timeout: Duration::from_millis(300),
        lifecycle_timeout: Duration::from_millis(1500),
        ..patient(CALLS.1.clone(), place)
    }
}

fn start(fault: &str) -> Result<Wrong, StartError> {
    start_with(fault, |options| options)
}

/// For calls that nobody is to give up, however busy the machine is.
fn start_patiently(fault: &str) -> Result<Wrong, StartError> {
    let long = Duration::from_secs(60);
    start_with(fault, |options| PluginOptions { call_timeout: long, lifecycle_timeout: long, ..options })
}

fn start_with(fault: &str, with: impl FnOnce(PluginOptions) -> PluginOptions) -> Result<Wrong, StartError> {
    let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let place = place();
    let engine = PluginEngine::start(with(options(fault, place.path())))?;
    Ok(Wrong { _turn: turn, _place: place, engine })
}

fn run(base: i64) -> Run {
    Run {
        base: Offset(base),
        next_offset: Offset(base + 1),
        epoch: LeaderEpoch(0),
        max_timestamp: Timestamp(base),
        bytes: Payload::from(Bytes::from_static(b"sixteen letters.")),
    }
}

impl Wrong {
    fn open(&self) -> Arc<dyn Wal> {
        let options = OpenOptions { mode: OpenMode::CreateIfMissing, segment_bytes: 1 << 20 };
        let id = LogId { topic: TopicId([1; 16]), partition: 0 };
        block_on(self.engine.open(id, options)).expect("it opens")
    }
}

impl Drop for Wrong {
    /// Still in its turn: an engine that is only dropped closes at some later time, and whatever is wrong then is what is wrong
    /// in the next turn.
    fn drop(&mut self) {
        let _as_it_pleases = block_on(self.engine.close());
    }
}

fn append(wal: &dyn Wal, base: i64) -> Result<Pending<Result<Appended, WalError>>, Refused> {
    let mut why = None;
    let pending = Pending::start(|done| match wal.append(run(base), done) {
        Ok(started) => started,
        Err(rejected) => {
            assert_eq!(rejected.run, run(base), "a refused run comes back as it was");
            why = Some(rejected.why);
            chronik_core::pending::Started::Later
        }
    });
    why.map_or(Ok(pending), Err)
}

fn sync(wal: &dyn Wal) -> Result<Offset, WalError> {
    block_on(Pending::start(|done| wal.sync(Offset(1), done)))
}

fn read(wal: &dyn Wal) -> Result<chronik_core::wal::Chunk, WalError> {
    let range = ReadRange { from: Offset(0), upto: Offset(i64::MAX), max_bytes: 1 << 20, min_one: true };
    block_on(Pending::start(|done| wal.read(range, done)))
}

/// The log is out of service, and says why.
fn is_out(wal: &dyn Wal, sentence: &str) {
    assert!(matches!(append(wal, 100), Err(Refused::Failed)), "{sentence}: it takes appends");
    match sync(wal) {
        Err(error @ WalError::Failed(_)) => {
            let text = whole(&error);
            assert!(text.contains(sentence) && text.contains("plain-c 1.0.0"), "{text} instead of {sentence}");
        }
        other => panic!("{sentence}: {other:?}"),
    }
}

#[test]
fn a_log_whose_plugin_appends_wrongly_is_out_of_service() {
    for (fault, sentence, acknowledged) in [
        ("appends twice", "completed a call twice", Some(true)),
        ("keeps and appends twice", "completed a call twice", Some(true)),
        ("appends never", "has not completed `append` within 300ms", Some(false)),
        ("answers both ways", "completed a call that it also answered at once", Some(true)),
        ("writes less", "completed an append up to 1 with the written end 0", Some(false)),
        ("writes more", "with the written end 101", Some(false)),
        ("completes with nothing", "something that is not a result", Some(false)),
        ("refuses for nothing", "refused an append for no reason it may have (status -11)", None),
        ("is ready unasked", "said `ready` without having said BUSY", Some(false)),
    ] {
        let wrong = start(fault).expect("it starts");
        let wal = wrong.open();
        match append(&*wal, 0) {
            Ok(pending) => assert_eq!(Some(block_on(pending).is_ok()), acknowledged, "{fault}"),
            Err(why) => assert_eq!((why, acknowledged), (Refused::Failed, None), "{fault}"),
        }
        is_out(&*wal, sentence);
        assert!(block_on(wrong.engine.close()).is_ok(), "{fault}: the engine still closes");
    }
}

#[test]
fn a_log_whose_plugin_syncs_reads_or_tells_wrongly_is_out_of_service() {
    for (fault, sentence) in [
        ("syncs nothing", "was asked to sync up to 1 and says that 0 is durable"),
        ("fails to sync", "failed in `sync`: the disk says no"),
        ("panics", "panicked in `sync`: index out of bounds"),
        ("answers oddly", "answered `sync` with status -99"),
        ("syncs never", "has not completed `sync` within 300ms"),
        ("syncs late", "has not completed `sync` within 300ms"),
    ] {
        let wrong = start(fault).expect("it starts");
        let wal = wrong.open();
        assert!(append(&*wal, 0).is_ok_and(|pending| block_on(pending).is_ok()));
        assert!(matches!(sync(&*wal), Err(WalError::Failed(_))), "{fault}");
        is_out(&*wal, sentence);
        assert!(block_on(wrong.engine.close()).is_ok(), "{fault}: the engine still closes");
    }
    for (fault, sentence) in [
        ("reads beyond", "with 64 bytes from 0 up to 1000000"),
        ("reads backwards", "with 64 bytes from 0 up to -5"),
        ("reads nowhere", "gives a slice of 64 bytes at 0x0"),
        ("says durable too much", "is durable up to 6"),
        ("says too short an end", "ends at 0"),
    ] {
        let wrong = start(fault).expect("it starts");
        let wal = wrong.open();
        assert!(append(&*wal, 0).is_ok_and(|pending| block_on(pending).is_ok()));
        wal.state();
        assert!(matches!(read(&*wal), Err(WalError::Failed(_))), "{fault}");
        is_out(&*wal, sentence);
    }
}

#[test]
fn bytes_that_are_not_what_the_broker_stored_are_not_served() {
    let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let place = place();
    let verify = |chunk: &chronik_core::wal::Chunk| {
        if chunk.bytes.to_bytes().starts_with(b"sixteen") { Ok(()) } else { Err("no batch".to_owned()) }
    };
    let options = PluginOptions { verify: Some(Arc::new(verify)), ..options("reads junk", place.path()) };
    let wrong = Wrong { _turn: turn, engine: PluginEngine::start(options).expect("it starts"), _place: place };
    let wal = wrong.open();
    assert!(append(&*wal, 0).is_ok_and(|pending| block_on(pending).is_ok()));
    assert!(matches!(read(&*wal), Err(WalError::Corrupt { offset: Offset(0) })));
    is_out(&*wal, "returned damaged records at offset 0: no batch");
}

#[test]
fn a_made_up_context_touches_nothing() {
    let wrong = start("makes contexts up").expect("it starts");
    let wal = wrong.open();
    assert!(append(&*wal, 0).is_ok_and(|pending| block_on(pending).is_ok()));
    assert!(sync(&*wal).is_ok());
}

#[test]
fn busy_keeps_nothing_and_ready_ends_it() {
    let wrong = start("is busy").expect("it starts");
    let wal = wrong.open();
    let first = append(&*wal, 0).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(append(&*wal, 1).err(), Some(Refused::Busy));
    assert_eq!(append(&*wal, 1).err(), Some(Refused::Busy), "until it is ready, it is not asked");
    assert!(sync(&*wal).is_ok(), "this completes the first, and says ready");
    assert!(block_on(first).is_ok());
    assert!(append(&*wal, 1).is_ok_and(|pending| block_on(pending).is_ok()));
}

#[test]
fn a_ready_may_come_before_its_busy_has_returned_but_not_twice() {
    let wrong = start("is ready early").expect("it starts");
    let wal = wrong.open();
    let first = append(&*wal, 0).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(append(&*wal, 1).err(), Some(Refused::Busy));
    assert!(sync(&*wal).is_ok(), "this completes the first");
    assert!(block_on(first).is_ok());
    assert!(append(&*wal, 1).is_ok_and(|pending| block_on(pending).is_ok()));
    drop((wal, wrong));

    let wrong = start("is ready twice").expect("it starts");
    let wal = wrong.open();
    let first = append(&*wal, 0).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(append(&*wal, 1).err(), Some(Refused::Busy));
    assert!(sync(&*wal).is_err(), "it is out of service while this is answered");
    assert!(block_on(first).is_ok(), "it was completed before");
    is_out(&*wal, "said `ready` without having said BUSY");
}

/// Its caller tries again and again, and is told in the end.
#[test]
fn a_busy_whose_ready_never_comes_takes_the_log_out_of_service() {
    for fault in ["is busy for ever", "is busy alone for ever"] {
        let wrong = start(fault).expect("it starts");
        let wal = wrong.open();
        let first = append(&*wal, 0);
        let waits = first.is_ok();
        assert_eq!(
            waits,
            fault == "is busy for ever",
            "the other one says so to the first append, with none on its way"
        );
        let began = std::time::Instant::now();
        loop {
            match append(&*wal, 1).err() {
                Some(Refused::Busy) => {}
                Some(Refused::Failed) => break,
                other => panic!("{fault}: {other:?}"),
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{fault}: it stays busy for ever");
            std::thread::sleep(Duration::from_millis(20));
        }
        if let Ok(first) = first {
            assert!(block_on(first).is_err(), "it was never completed either");
        }
        // Whichever time was over first: those of the append and of the ready began together.
        let sync = sync(&*wal).err().map(|error| whole(&error)).unwrap_or_default();
        let is_told = |sentence: &str| sync.contains(sentence);
        let of_ready = is_told("said BUSY, and has not said `ready` within 300ms");
        assert!(of_ready || waits && is_told("has not completed `append` within 300ms"), "{fault}: {sync}");
        assert!(block_on(wrong.engine.close()).is_ok(), "{fault}: the engine still closes");
    }
}

#[test]
fn no_more_is_in_flight_than_the_plugin_has_said_on_opening() {
    for (fault, fit) in [("appends never", 8), ("takes few bytes", 2)] {
        let wrong = start_patiently(fault).expect("it starts");
        let wal = wrong.open();
        let begun: Vec<_> = (0..fit).map(|base| append(&*wal, base)).collect();
        assert!(begun.iter().all(Result::is_ok), "{fault}: {fit} of them are taken");
        assert_eq!(append(&*wal, fit).err(), Some(Refused::Busy), "{fault}: the plug-in is not even asked");
        drop(begun);
        assert!(block_on(wrong.engine.close()).is_ok(), "{fault}: the engine still closes");
    }
}

/// What was logged by this process so far.
static LOGGED: LazyLock<Arc<std::sync::Mutex<Vec<u8>>>> = LazyLock::new(|| {
    let lines = Arc::new(std::sync::Mutex::new(Vec::new()));
    let into = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || Lines(into.clone()));
    assert!(subscriber.try_init().is_ok(), "nobody else listens");
    lines
});

struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn logged() -> String {
    let lines = std::mem::take(&mut *LOGGED.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    String::from_utf8_lossy(&lines).into_owned()
}

#[test]
fn completions_after_a_log_is_closed_touch_nothing_and_are_told() {
    LazyLock::force(&LOGGED);
    for (fault, completes, sentences) in [
        ("syncs late", false, &["completes a call after its time"][..]),
        // Whether the log is known by then depends on who has taken the call's place.
        ("completes again when closed", true, &["completed a call twice", "completes a call that is not pending"]),
    ] {
        let wrong = start(fault).expect("it starts");
        logged();
        let wal = wrong.open();
        assert!(append(&*wal, 0).is_ok_and(|pending| block_on(pending).is_ok()));
        assert_eq!(sync(&*wal).is_ok(), completes, "{fault}");
        assert!(block_on(Pending::start(|done| wal.close(done))).is_ok(), "{fault}: the log closes");
        assert!(block_on(wrong.engine.close()).is_ok(), "{fault}: this is when the callback comes");
        let said = logged();
        assert!(sentences.iter().any(|sentence| said.contains(sentence)), "{fault}: nobody hears of it: {said}");
    }
}

#[test]
fn a_call_that_closing_has_left_behind_ends_for_whoever_waits() {
    let wrong = start("closes over a call").expect("it starts");
    let wal = wrong.open();
    assert!(append(&*wal, 0).is_ok_and(|pending| block_on(pending).is_ok()));
    let sync = Pending::start(|done| wal.sync(Offset(1), done));
    assert!(block_on(Pending::start(|done| wal.close(done))).is_ok(), "it says that it is closed");
    assert!(matches!(block_on(sync), Err(WalError::Failed(_))), "by its deadline");
    assert!(block_on(wrong.engine.close()).is_ok());
}

#[test]
fn the_host_never_comes_back_in_from_a_callback() {
    let wrong = start_patiently("reads later").expect("it starts");
    let wal = wrong.open();
    assert!(append(&*wal, 0).is_ok_and(|pending| block_on(pending).is_ok()));
    let range = ReadRange { from: Offset(0), upto: Offset(i64::MAX), max_bytes: 1 << 20, min_one: true };
    // Nobody waits for it: the callback is where its buffer is let go, and must not be where it is released.
    drop(Pending::start(|done| wal.read(range, done)));
    drop(Pending::start(|done| wal.sync(Offset(1), done)));
    assert!(block_on(Pending::start(|done| wal.close(done))).is_ok());
    drop(wal);
    let closed = block_on(wrong.engine.close());
    assert!(closed.is_ok(), "{}", closed.err().map(|error| whole(&error)).unwrap_or_default());
    for _ in 0..1_000 {
        if wrong.engine.retained_bytes() == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(wrong.engine.retained_bytes(), 0, "it is released all the same");
}

#[test]
fn runs_of_any_alignment_and_in_any_number_of_pieces_come_back_as_they_were() {
    let wrong = start("none").expect("it starts");
    let wal = wrong.open();
    let bytes = Bytes::from((0..=255u8).cycle().take(4096).collect::<Vec<_>>());
    let pieces = [(1, 8), (8, 8), (8, 31), (31, 4096)];
    let run = Run { bytes: pieces.iter().map(|(from, to)| bytes.slice(from..to)).collect(), ..run(0) };
    let appended = block_on(Pending::start(|done| match wal.append(run.clone(), done) {
        Ok(started) => started,
        Err(rejected) => panic!("{}", rejected.why),
    }));
    assert!(appended.is_ok());
    assert_eq!(read(&*wal).map(|chunk| chunk.bytes.to_bytes()).unwrap_or_default(), bytes.slice(1..));
}

#[test]
fn a_plugin_that_hangs_or_declines_costs_an_error() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let place = place();
    let text = refused(options("declines", place.path()));
    assert!(text.contains("did not start (status -14): the moon is in the wrong phase"), "{text}");
    let text = refused(options("promises the moon", place.path()));
    assert!(text.contains("does not say what its logs survive"), "{text}");
    let text = refused(options("hangs on start", place.path()));
    assert!(text.contains("has not started within"), "{text}");

    let other = tempfile::tempdir().expect("a directory for temporary files is there");
    let engine = PluginEngine::start(options("hangs on open", other.path())).expect("it starts");
    let open = OpenOptions { mode: OpenMode::CreateNew, segment_bytes: 1 << 20 };
    match block_on(engine.open(LogId::default(), open)) {
        Err(error) => assert!(whole(&error).contains("has not answered `log_open`"), "{}", whole(&error)),
        Ok(_) => panic!("it opens"),
    }
}

#[test]
fn a_log_that_is_set_aside_is_let_go_of_before_and_what_cannot_be_is_told() {
    let id = LogId { topic: TopicId([1; 16]), partition: 0 };
    let set_aside = |wrong: &Wrong| block_on(wrong.engine.set_aside(id)).err().map(|error| whole(&error));
    LazyLock::force(&LOGGED);
    let wrong = start_patiently("none").expect("it starts");
    let wal = wrong.open();
    assert!(append(&*wal, 0).is_ok_and(|pending| block_on(pending).is_ok()));
    logged();
    assert_eq!(set_aside(&wrong), None);
    assert!(matches!(append(&*wal, 1), Err(Refused::Closed)), "it was open");
    let said = logged();
    assert!(said.contains("has set a log aside") && said.contains("-0.damaged.*"), "where it is now: {said}");
    assert_eq!(wrong.open().state().end, Offset(0), "another begins in its place");
    drop((wal, wrong));

    // Also one that is out of service: that is what it is for.
    let wrong = start_patiently("fails to sync").expect("it starts");
    let wal = wrong.open();
    assert!(append(&*wal, 0).is_ok_and(|pending| block_on(pending).is_ok()));
    assert!(sync(&*wal).is_err());
    assert_eq!(set_aside(&wrong), None);
    drop((wal, wrong));

    let wrong = start_patiently("cannot set aside").expect("it starts");
    drop(wrong.open());
    let said = set_aside(&wrong).unwrap_or_default();
    assert!(said.contains("setting a log aside") && said.contains("the moon is full (status -10)"), "{said}");
    drop(wrong);

    let wrong = start("closes never").expect("it starts");
    let wal = wrong.open();
    assert!(set_aside(&wrong).is_some(), "it cannot be let go of");
    let said = set_aside(&wrong).unwrap_or_default();
    assert!(said.contains("never closed the log"), "what the plug-in may still use stays where it is: {said}");
    drop(wal);
}

#[test]
fn a_plugin_of_an_earlier_minor_version_does_what_that_version_could() {
    let place = place();
    let library = place.path().join("earlier.so");
    compile("calls.c", &["-DOF_1_0"], &library);
    let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let options = PluginOptions { options: "none".into(), ..patient(library, place.path()) };
    let wrong = Wrong { _turn: turn, engine: PluginEngine::start(options).expect("it starts"), _place: place };
    let info = wrong.engine.info();
    assert_eq!((info.abi_major, info.abi_minor, info.capabilities), (1, 0, 0));
    let wal = wrong.open();
    assert!(append(&*wal, 0).is_ok_and(|pending| block_on(pending).is_ok()));
    assert!(sync(&*wal).is_ok());
    let id = LogId { topic: TopicId([1; 16]), partition: 0 };
    let said = block_on(wrong.engine.set_aside(id)).err().map(|error| whole(&error)).unwrap_or_default();
    assert!(said.contains("cannot set a log aside"), "{said}");
    assert_eq!(wal.state().end, Offset(1), "it is as it was");
    assert!(append(&*wal, 1).is_ok_and(|pending| block_on(pending).is_ok()), "and at work");
}

#[test]
fn a_log_that_never_closes_is_given_up_and_not_opened_again() {
    let wrong = start("closes never").expect("it starts");
    let wal = wrong.open();
    let close = block_on(Pending::start(|done| wal.close(done)));
    match close {
        Err(error) => assert!(whole(&error).contains("has not completed `log_close`"), "{}", whole(&error)),
        Ok(()) => panic!("it closes"),
    }
    let open = OpenOptions { mode: OpenMode::Existing, segment_bytes: 1 << 20 };
    let id = LogId { topic: TopicId([1; 16]), partition: 0 };
    let again = block_on(wrong.engine.open(id, open)).err().map(|error| whole(&error)).unwrap_or_default();
    assert!(again.contains("never closed the log"), "{again}");
}

#[test]
fn a_buffer_outlives_its_log_and_engine_and_is_counted_while_it_does() {
    let wrong = start("none").expect("it starts");
    let wal = wrong.open();
    assert!(append(&*wal, 0).is_ok_and(|pending| block_on(pending).is_ok()));
    let chunk = read(&*wal).unwrap_or_else(|error| panic!("{error}"));
    assert!(wrong.engine.retained_bytes() >= 16);
    assert!(wrong.engine.usage().memory_bytes >= wrong.engine.retained_bytes(), "the broker counts it");
    assert!(block_on(wrong.engine.close()).is_ok());
    drop(wal);
    assert_eq!(chunk.bytes.to_bytes(), &b"sixteen letters."[..]);
    drop(chunk);
    assert_eq!(wrong.engine.retained_bytes(), 0);
}
