//! The table, called as a host calls it, over an engine that does what it is told.

use crate::table::{Table, enter};
use crate::{Author, abi};
use abi::{EMPTY_RESULT, ck_append_args, ck_engine_info, ck_host, ck_log_args, ck_log_info, ck_result, ck_slice};
use async_trait::async_trait;
use bytes::Bytes;
use chronik_core::ids::{LogId, Offset};
use chronik_core::pending::{Done, Started};
use chronik_core::time::Timestamp;
use chronik_core::wal::*;
use std::collections::VecDeque;
use std::ffi::c_void;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the host has heard, in order.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Completed(u64, i32),
    Ready(u64),
}

static HEARD: Mutex<Vec<Heard>> = Mutex::new(Vec::new());
/// One engine's appends that wait: all logs share the bound of one.
static WAITING: Mutex<VecDeque<Done<Result<Appended, WalError>>>> = Mutex::new(VecDeque::new());
static READING: Mutex<VecDeque<Done<Result<Chunk, WalError>>>> = Mutex::new(VecDeque::new());
/// What is heard and what waits are the process's: stories take turns.
static TURN: Mutex<()> = Mutex::new(());

fn heard() -> Vec<Heard> {
    std::mem::take(&mut HEARD.lock().expect("nobody panics with it"))
}

unsafe extern "C" fn complete(context: u64, result: *const ck_result) {
    // SAFETY: the plug-in's result, there during the call.
    let status = unsafe { (*result).status };
    HEARD.lock().expect("nobody panics with it").push(Heard::Completed(context, status));
}

unsafe extern "C" fn ready(log: u64) {
    HEARD.lock().expect("nobody panics with it").push(Heard::Ready(log));
}

unsafe extern "C" fn log(_: u32, _: *const u8, _: u64) {}

unsafe extern "C" fn keep(_: u64) -> u64 {
    0
}

unsafe extern "C" fn release(_: u64) {}

static HOST: ck_host = ck_host {
    magic: abi::MAGIC,
    struct_size: size_of::<ck_host>() as u32,
    abi_major: abi::ABI_MAJOR,
    abi_minor: abi::ABI_MINOR,
    capabilities: abi::CAPS_KNOWN,
    complete,
    ready,
    log,
    keep,
    release,
};

/// An engine with room for one append in all its logs together.
struct Narrow;
struct NarrowLog;

impl Author for Narrow {
    const NAME: &'static str = "narrow";
    const VERSION: &'static str = "1";
    const SEGMENTS: bool = false;
    type Engine = Narrow;

    fn start(_: &Path, _: &str) -> Result<Narrow, String> {
        Ok(Narrow)
    }
}

#[async_trait]
impl WalEngine for Narrow {
    fn capabilities(&self) -> Capabilities {
        Capabilities { survives: Survives::Nothing, segments: false, run_bytes_max: 1 << 20 }
    }
    async fn open(&self, _: LogId, _: OpenOptions) -> Result<Arc<dyn Wal>, EngineError> {
        Ok(Arc::new(NarrowLog))
    }
    async fn list(&self) -> Result<Vec<LogId>, EngineError> {
        Ok(Vec::new())
    }
    async fn delete(&self, _: LogId) -> Result<(), EngineError> {
        Ok(())
    }
    fn usage(&self) -> Usage {
        Usage::default()
    }
    async fn close(&self) -> Result<(), EngineError> {
        Ok(())
    }
}

impl Wal for NarrowLog {
    fn state(&self) -> LogState {
        LogState::default()
    }
    fn append(
        &self,
        run: Run,
        done: Done<Result<Appended, WalError>>,
    ) -> Result<Started<Result<Appended, WalError>>, Box<Rejected>> {
        let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
        if run.base == Offset(666) {
            drop(waiting);
            panic!("no run begins at {}", run.base);
        }
        if !waiting.is_empty() {
            return Err(Box::new(Rejected { why: Refused::Busy, run }));
        }
        waiting.push_back(done);
        Ok(Started::Later)
    }
    fn sync(&self, _: Offset, _: Done<Result<Offset, WalError>>) -> Started<Result<Offset, WalError>> {
        panic!("index out of bounds")
    }
    fn read(&self, _: ReadRange, done: Done<Result<Chunk, WalError>>) -> Started<Result<Chunk, WalError>> {
        READING.lock().expect("nobody panics with it").push_back(done);
        Started::Later
    }
    fn truncate_suffix(&self, _: Offset, _: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        Started::Now(Ok(()))
    }
    fn truncate_prefix(&self, _: Offset, _: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        Started::Now(Ok(()))
    }
    fn reset(&self, _: Offset, _: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        Started::Now(Ok(()))
    }
    fn offset_for_timestamp(
        &self,
        _: Timestamp,
        _: Done<Result<Option<Offset>, WalError>>,
    ) -> Started<Result<Option<Offset>, WalError>> {
        Started::Now(Ok(None))
    }
    fn meta_put(
        &self,
        _: Vec<(String, Option<Bytes>)>,
        _: Done<Result<(), WalError>>,
    ) -> Started<Result<(), WalError>> {
        Started::Now(Ok(()))
    }
    fn meta_get(&self, _: &str, _: Done<Result<Option<Bytes>, WalError>>) -> Started<Result<Option<Bytes>, WalError>> {
        Started::Now(Ok(None))
    }
    fn close(&self, _: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        Started::Now(Ok(()))
    }
}

/// A host with an engine of this plug-in.
struct Played {
    table: &'static abi::ck_plugin,
    engine: *mut c_void,
    _turn: MutexGuard<'static, ()>,
}

impl Played {
    fn start() -> Self {
        static TABLE: Table = Table::of::<Narrow>();
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        heard();
        // SAFETY: what the entry returns is a static of this module.
        let table = unsafe { &*enter(&raw const HOST, &TABLE) };
        let directory = "/";
        let args = abi::ck_start_args {
            struct_size: size_of::<abi::ck_start_args>() as u32,
            reserved: 0,
            directory: ck_slice { at: directory.as_ptr(), len: 1 },
            options: ck_slice { at: "{}".as_ptr(), len: 2 },
        };
        let mut info = ck_engine_info {
            struct_size: size_of::<ck_engine_info>() as u32,
            survives: 0,
            engine: std::ptr::null_mut(),
            run_bytes_max: 0,
        };
        let start = table.engine_start.expect("there");
        // SAFETY: as the host calls it.
        let status = unsafe { start(&raw const args, &raw mut info, &mut EMPTY_RESULT.clone()) };
        assert_eq!(status, abi::OK);
        Self { table, engine: info.engine, _turn: turn }
    }

    fn open(&self, log_context: u64) -> *mut c_void {
        let args = ck_log_args {
            struct_size: size_of::<ck_log_args>() as u32,
            mode: abi::OPEN_CREATE_IF_MISSING,
            id: abi::ck_log_id { topic: [1; 16], partition: 0, reserved: 0 },
            segment_bytes: 1 << 20,
            log_context,
        };
        let mut info = ck_log_info {
            struct_size: size_of::<ck_log_info>() as u32,
            appends_in_flight_max: 0,
            append_bytes_in_flight_max: 0,
            log: std::ptr::null_mut(),
        };
        let open = self.table.log_open.expect("there");
        // SAFETY: as the host calls it.
        let status = unsafe { open(self.engine, &raw const args, &raw mut info, &mut EMPTY_RESULT.clone()) };
        assert_eq!(status, abi::OK);
        info.log
    }

    fn append(&self, log: *mut c_void, base: i64, context: u64) -> (i32, ck_result) {
        let args = ck_append_args {
            struct_size: size_of::<ck_append_args>() as u32,
            epoch: 0,
            base,
            next_offset: base + 1,
            max_timestamp: 0,
            slices: std::ptr::null(),
            slices_len: 0,
            bytes: 0,
        };
        let mut result = EMPTY_RESULT;
        let append = self.table.append.expect("there");
        // SAFETY: as the host calls it.
        (unsafe { append(log, &raw const args, context, &raw mut result) }, result)
    }
}

impl Played {
    fn read(&self, log: *mut c_void, context: u64) -> i32 {
        let args = abi::ck_read_args {
            struct_size: size_of::<abi::ck_read_args>() as u32,
            min_one: 1,
            from: 0,
            upto: 1,
            max_bytes: 1,
        };
        let read = self.table.read.expect("there");
        // SAFETY: as the host calls it.
        unsafe { read(log, &raw const args, context, &mut EMPTY_RESULT.clone()) }
    }

    fn close(&self, log: *mut c_void, context: u64) -> i32 {
        let close = self.table.log_close.expect("there");
        // SAFETY: as the host calls it.
        unsafe { close(log, context, &mut EMPTY_RESULT.clone()) }
    }
}

fn complete_one() {
    let done = WAITING.lock().unwrap_or_else(PoisonError::into_inner).pop_front().expect("one waits");
    done.complete(Ok(Appended { written_end: Offset(1) }));
}

fn said(result: &ck_result) -> &str {
    std::str::from_utf8(&result.text[..result.text_len as usize]).expect("text")
}

#[test]
fn each_busy_is_followed_by_one_ready_when_any_log_of_the_engine_has_completed_an_append() {
    let played = Played::start();
    let (one, other) = (played.open(71), played.open(72));
    assert_eq!(played.append(one, 0, 1).0, abi::PENDING);
    assert_eq!(played.append(one, 1, 2).0, abi::BUSY);
    assert_eq!(played.append(other, 0, 3).0, abi::BUSY);
    assert_eq!(played.append(other, 0, 4).0, abi::BUSY);
    assert_eq!(heard(), [], "while it is busy");
    complete_one();
    assert_eq!(heard(), [Heard::Completed(1, abi::OK), Heard::Ready(71), Heard::Ready(72), Heard::Ready(72)]);
    assert_eq!(played.append(other, 0, 5).0, abi::PENDING);
    complete_one();
    assert_eq!(heard(), [Heard::Completed(5, abi::OK)], "nobody was refused since");
}

#[test]
fn a_panic_is_told_as_one_and_holds_nobody_up() {
    let played = Played::start();
    let log = played.open(73);
    assert_eq!(played.append(log, 0, 1).0, abi::PENDING);
    let (status, result) = played.append(log, 666, 2);
    assert_eq!((status, said(&result)), (abi::PANIC, "no run begins at 666"));
    let mut result = EMPTY_RESULT;
    let sync = played.table.sync.expect("there");
    // SAFETY: as the host calls it.
    let status = unsafe { sync(log, 1, 3, &raw mut result) };
    assert_eq!((status, said(&result)), (abi::PANIC, "index out of bounds"));
    assert_eq!(played.append(log, 1, 4).0, abi::BUSY);
    complete_one();
    assert_eq!(heard(), [Heard::Completed(1, abi::OK), Heard::Ready(73)]);
}

#[test]
fn a_log_is_closed_when_every_call_before_has_ended() {
    let played = Played::start();
    let log = played.open(74);
    assert_eq!((played.read(log, 1), played.read(log, 2)), (abi::PENDING, abi::PENDING));
    assert_eq!(played.close(log, 3), abi::PENDING);
    let answer_one = || {
        let done = READING.lock().expect("nobody panics with it").pop_front().expect("one waits");
        done.complete(Err(WalError::Closed));
    };
    answer_one();
    assert_eq!(heard(), [Heard::Completed(1, abi::CLOSED)], "the engine has closed it, but a read is on its way");
    answer_one();
    assert_eq!(heard(), [Heard::Completed(2, abi::CLOSED), Heard::Completed(3, abi::OK)]);
    let log = played.open(75);
    assert_eq!(played.close(log, 4), abi::PENDING);
    assert_eq!(heard(), [Heard::Completed(4, abi::OK)], "nothing is on its way");
}
