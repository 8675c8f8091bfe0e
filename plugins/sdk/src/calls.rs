//! The functions of the table: each turns its arguments into those of the Rust traits, and catches panics.

use crate::busy::Appends;
use crate::closing::Calls;
use crate::fill::{self, Fill};
use crate::signals::blocked;
use crate::table::host;
use crate::{Author, abi};
use abi::{
    EMPTY_RESULT, ck_append_args, ck_engine_info, ck_log_args, ck_log_id, ck_log_info, ck_meta, ck_read_args,
    ck_result, ck_segment, ck_slice, ck_start_args, ck_state, ck_usage,
};
use bytes::Bytes;
use chronik_core::ids::{LeaderEpoch, LogId, Offset, TopicId};
use chronik_core::payload::Payload;
use chronik_core::pending::{Done, Inbox, Started};
use chronik_core::time::Timestamp;
use chronik_core::wal::{
    Appended, Capabilities, OpenMode, OpenOptions, ReadRange, Refused, Run, Survives, Wal, WalEngine, WalError,
};
use std::any::Any;
use std::ffi::c_void;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::pin::pin;
use std::slice;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};

/// What the host knows as an engine.
struct Engine {
    engine: Box<dyn WalEngine>,
    appends: Arc<Appends>,
}

/// What the host knows as a log.
struct Log {
    wal: Arc<dyn Wal>,
    inbox: Arc<Answers>,
    appended: Arc<AppendAnswers>,
    /// For `ready`.
    context: u64,
}

/// Completions go to the host by their number.
fn complete(context: u64, outcome: impl Fill) {
    let mut result = EMPTY_RESULT;
    result.status = outcome.fill(&mut result);
    if let Some(host) = host() {
        // SAFETY: the host's function, for a context that it gave and that is completed here only.
        unsafe { (host.complete)(context, &raw const result) };
    }
}

/// Those of a log's calls, but for appends and the close.
#[derive(Default)]
struct Answers(Calls);

impl<T: Send> Inbox<Result<T, WalError>> for Answers
where
    Result<T, WalError>: Fill,
{
    fn deliver(&self, context: u64, outcome: Result<T, WalError>) {
        complete(context, outcome);
        self.0.end(closed);
    }
}

/// As [`Answers`]; and whoever was refused for what is in flight may try again.
struct AppendAnswers(Arc<Appends>);

impl Inbox<Result<Appended, WalError>> for AppendAnswers {
    fn deliver(&self, context: u64, outcome: Result<Appended, WalError>) {
        complete(context, outcome);
        self.0.end();
    }
}

/// The close's, which comes last.
struct CloseAnswer(Arc<Answers>);

impl Inbox<Result<(), WalError>> for CloseAnswer {
    fn deliver(&self, context: u64, outcome: Result<(), WalError>) {
        let CloseAnswer(answers) = self;
        answers.0.close(context, outcome);
        answers.0.end(closed);
    }
}

/// Every call of a log has ended, the close among them.
fn closed((context, outcome): (u64, Result<(), WalError>)) {
    complete(context, outcome);
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("")
}

/// Does a call's work; a panic becomes its status.
fn guard(result: *mut ck_result, work: impl FnOnce(&mut ck_result) -> i32) -> i32 {
    let mut nobodys;
    let result = if result.is_null() {
        nobodys = EMPTY_RESULT;
        &mut nobodys
    } else {
        // SAFETY: the host's result, of at least this size in this major version, filled in and alive until the call
        // returns; nobody else has it until then.
        unsafe { &mut *result }
    };
    catch_unwind(AssertUnwindSafe(|| work(result))).unwrap_or_else(|panic| {
        // What was half done when the panic came must not be seen.
        *result = EMPTY_RESULT;
        fill::text(result, panic_text(&*panic));
        abi::PANIC
    })
}

/// Awaits in place: the host gives lifecycle calls a thread of their own.
fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(outcome) => return outcome,
            Poll::Pending => thread::park(),
        }
    }
}

/// # Safety
/// The slice's bytes are there for `'a`.
unsafe fn bytes<'a>(of: &ck_slice) -> &'a [u8] {
    if of.len == 0 || of.at.is_null() {
        return &[];
    }
    // SAFETY: not null; the caller vouches for the rest.
    unsafe { slice::from_raw_parts(of.at, of.len as usize) }
}

/// # Safety
/// `engine` is one that [`engine_start`] gave, and is not closed.
unsafe fn engine<'a>(engine: *mut c_void) -> &'a dyn WalEngine {
    // SAFETY: by the caller.
    unsafe { &*(*engine.cast::<Engine>()).engine }
}

/// # Safety
/// `log` is one that [`log_open`] gave, and is not released.
unsafe fn log<'a>(log: *mut c_void) -> &'a Log {
    // SAFETY: by the caller.
    unsafe { &*log.cast::<Log>() }
}

fn log_id(of: &ck_log_id) -> LogId {
    LogId { topic: TopicId(of.topic), partition: of.partition }
}

pub(crate) unsafe extern "C" fn engine_start<A: Author>(
    args: *const ck_start_args,
    info: *mut ck_engine_info,
    result: *mut ck_result,
) -> i32 {
    guard(result, |result| {
        // SAFETY: the host's arguments, with their texts, are there during the call.
        let (directory, options) = unsafe { (bytes(&(*args).directory), bytes(&(*args).options)) };
        let (Ok(directory), Ok(options)) = (std::str::from_utf8(directory), std::str::from_utf8(options)) else {
            fill::text(result, "the directory or the options are not in UTF-8");
            return abi::INVALID;
        };
        let engine = match blocked(|| A::start(Path::new(directory), options)) {
            Ok(engine) => engine,
            Err(why) => {
                fill::text(result, &why);
                return abi::INVALID;
            }
        };
        let Capabilities { survives, segments, run_bytes_max } = engine.capabilities();
        if segments != A::SEGMENTS {
            fill::text(result, "the engine's capabilities and its author's SEGMENTS contradict each other");
            return abi::INVALID;
        }
        let survives = match survives {
            Survives::Nothing => abi::SURVIVES_NOTHING,
            Survives::Process => abi::SURVIVES_PROCESS,
            Survives::PowerLoss => abi::SURVIVES_POWER_LOSS,
        };
        let engine = Engine { engine: Box::new(engine), appends: Arc::default() };
        let engine = Box::into_raw(Box::new(engine)).cast();
        let started = ck_engine_info {
            struct_size: size_of::<ck_engine_info>() as u32,
            survives,
            engine,
            run_bytes_max: run_bytes_max as u64,
        };
        // SAFETY: the host's, of at least this size.
        unsafe { info.write(started) };
        abi::OK
    })
}

pub(crate) unsafe extern "C" fn engine_close(handle: *mut c_void, result: *mut ck_result) -> i32 {
    guard(result, |result| {
        // SAFETY: made by `engine_start`; the host names it here for the last time.
        let engine = unsafe { Box::from_raw(handle.cast::<Engine>()) };
        match blocked(|| wait(engine.engine.close())) {
            Ok(()) => abi::OK,
            Err(error) => error.fill(result),
        }
    })
}

pub(crate) unsafe extern "C" fn engine_list(handle: *mut c_void, result: *mut ck_result) -> i32 {
    guard(result, |result| {
        // SAFETY: the host's engine, not closed.
        match blocked(|| wait(unsafe { engine(handle) }.list())) {
            Ok(mut logs) => {
                logs.sort_unstable();
                logs.fill(result)
            }
            Err(error) => error.fill(result),
        }
    })
}

pub(crate) unsafe extern "C" fn engine_usage(handle: *mut c_void, into: *mut ck_usage) {
    let _panicked = catch_unwind(|| {
        // SAFETY: the host's engine, not closed.
        let usage = unsafe { engine(handle) }.usage();
        let device = usage.device_total_bytes.zip(usage.device_free_bytes);
        let filled = ck_usage {
            struct_size: size_of::<ck_usage>() as u32,
            has_device: u32::from(device.is_some()),
            logs: usage.logs,
            bytes: usage.bytes,
            memory_bytes: usage.memory_bytes,
            device_total_bytes: device.map_or(0, |(total, _)| total),
            device_free_bytes: device.map_or(0, |(_, free)| free),
        };
        // SAFETY: the host's, of at least this size.
        unsafe { into.write(filled) };
    });
}

pub(crate) unsafe extern "C" fn log_open(
    handle: *mut c_void,
    args: *const ck_log_args,
    info: *mut ck_log_info,
    result: *mut ck_result,
) -> i32 {
    guard(result, |result| {
        // SAFETY: the host's engine, not closed, and its arguments.
        let (Engine { engine, appends }, args) = unsafe { (&*handle.cast::<Engine>(), &*args) };
        let mode = match args.mode {
            abi::OPEN_EXISTING => OpenMode::Existing,
            abi::OPEN_CREATE_NEW => OpenMode::CreateNew,
            abi::OPEN_CREATE_IF_MISSING => OpenMode::CreateIfMissing,
            _ => return abi::INVALID,
        };
        let options = OpenOptions { mode, segment_bytes: args.segment_bytes };
        let wal = match blocked(|| wait(engine.open(log_id(&args.id), options))) {
            Ok(wal) => wal,
            Err(error) => return error.fill(result),
        };
        let appended = Arc::new(AppendAnswers(appends.clone()));
        let log = Log { wal, inbox: Arc::default(), appended, context: args.log_context };
        let log = Box::into_raw(Box::new(log)).cast();
        let opened = ck_log_info {
            struct_size: size_of::<ck_log_info>() as u32,
            appends_in_flight_max: 0,
            append_bytes_in_flight_max: 0,
            log,
        };
        // SAFETY: the host's, of at least this size.
        unsafe { info.write(opened) };
        abi::OK
    })
}

pub(crate) unsafe extern "C" fn log_delete(handle: *mut c_void, id: *const ck_log_id, result: *mut ck_result) -> i32 {
    guard(result, |result| {
        // SAFETY: the host's engine, not closed, and its argument.
        let (engine, id) = unsafe { (engine(handle), log_id(&*id)) };
        match blocked(|| wait(engine.delete(id))) {
            Ok(()) => abi::OK,
            Err(error) => error.fill(result),
        }
    })
}

pub(crate) unsafe extern "C" fn log_set_aside(
    handle: *mut c_void,
    id: *const ck_log_id,
    result: *mut ck_result,
) -> i32 {
    guard(result, |result| {
        // SAFETY: the host's engine, not closed, and its argument.
        let (engine, id) = unsafe { (engine(handle), log_id(&*id)) };
        match blocked(|| wait(engine.set_aside(id))) {
            Ok(()) => abi::OK,
            Err(error) => error.fill(result),
        }
    })
}

pub(crate) unsafe extern "C" fn log_state(handle: *mut c_void, into: *mut ck_state) {
    // SAFETY: the host's log, not released.
    let state = catch_unwind(|| fill::state(unsafe { log(handle) }.wal.state()));
    // What no log says makes the host take it out of service.
    let nonsense = || ck_state { start: -1, end: -1, ..fill::state(chronik_core::wal::LogState::default()) };
    // SAFETY: the host's, of at least this size.
    unsafe { into.write(state.unwrap_or_else(|_| nonsense())) };
}

/// Bytes of an append, kept by the host for as long as the engine has any of them. Each slice keeps for itself: that costs the
/// host a count, and here no allocation that all of them share.
struct KeptSlice {
    at: *const u8,
    len: usize,
    number: u64,
}

impl Drop for KeptSlice {
    fn drop(&mut self) {
        if let Some(host) = host() {
            // SAFETY: the host's function, once for each time that it has kept.
            unsafe { (host.release)(self.number) };
        }
    }
}

// SAFETY: the bytes are read only, and the host keeps them until the number is released.
unsafe impl Send for KeptSlice {}

impl AsRef<[u8]> for KeptSlice {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: not empty; the host keeps the bytes until this is dropped.
        unsafe { slice::from_raw_parts(self.at, self.len) }
    }
}

/// The run's bytes without a copy.
///
/// # Safety
/// The arguments are those of the pending append `context`.
unsafe fn run_bytes(args: &ck_append_args, context: u64) -> Payload {
    if args.slices_len == 0 || args.bytes == 0 {
        return Payload::new();
    }
    // SAFETY: the host's array, there until the append completes.
    let slices = unsafe { slice::from_raw_parts(args.slices, args.slices_len as usize) };
    let kept = |part: &ck_slice| {
        // SAFETY: the host's function, for the append that has just been made.
        let number = host().map_or(0, |host| unsafe { (host.keep)(context) });
        if number == 0 {
            // SAFETY: the host's slices, there until the append completes.
            return Bytes::copy_from_slice(unsafe { bytes(part) });
        }
        Bytes::from_owner(KeptSlice { at: part.at, len: part.len as usize, number })
    };
    slices.iter().filter(|slice| slice.len > 0).map(kept).collect()
}

pub(crate) unsafe extern "C" fn append(
    handle: *mut c_void,
    args: *const ck_append_args,
    context: u64,
    result: *mut ck_result,
) -> i32 {
    guard(result, |result| {
        // SAFETY: the host's log, not released, and its arguments.
        let (log, args) = unsafe { (log(handle), &*args) };
        let run = Run {
            base: Offset(args.base),
            next_offset: Offset(args.next_offset),
            epoch: LeaderEpoch(args.epoch),
            max_timestamp: Timestamp(args.max_timestamp),
            // SAFETY: as above.
            bytes: unsafe { run_bytes(args, context) },
        };
        let done: Done<Result<Appended, WalError>> = Done::new(log.appended.clone(), context);
        let appends = &log.appended.0;
        appends.begin();
        // A panic takes the log out of service; it must not hold up the others.
        let started = catch_unwind(AssertUnwindSafe(|| log.wal.append(run, done))).unwrap_or_else(|panic| {
            appends.end();
            resume_unwind(panic)
        });
        match started {
            Ok(Started::Now(outcome)) => {
                appends.end();
                outcome.fill(result)
            }
            Ok(Started::Later) => abi::PENDING,
            Err(rejected) => {
                match rejected.why {
                    Refused::Busy => appends.refuse(log.context),
                    _ => appends.end(),
                }
                rejected.why.fill(result)
            }
        }
    })
}

pub(crate) unsafe extern "C" fn write_queued(handle: *mut c_void) {
    // What was to be written then never completes, and the host takes the log out of service for that.
    // SAFETY: the host's log, not released.
    let _panicked = catch_unwind(|| unsafe { log(handle) }.wal.write_queued());
}

/// A call that starts and completes later.
fn started<T>(
    handle: *mut c_void,
    context: u64,
    result: *mut ck_result,
    start: impl FnOnce(&dyn Wal, Done<Result<T, WalError>>) -> Started<Result<T, WalError>>,
) -> i32
where
    T: Send,
    Result<T, WalError>: Fill,
{
    guard(result, |result| {
        // SAFETY: every caller passes the host's log, not released.
        let log = unsafe { log(handle) };
        let begun = log.inbox.0.begin(closed);
        match start(&*log.wal, Done::new(log.inbox.clone(), context)) {
            Started::Now(outcome) => outcome.fill(result),
            Started::Later => {
                begun.ends_later();
                abi::PENDING
            }
        }
    })
}

pub(crate) unsafe extern "C" fn sync(log: *mut c_void, upto: i64, context: u64, result: *mut ck_result) -> i32 {
    started(log, context, result, |wal, done| wal.sync(Offset(upto), done))
}

pub(crate) unsafe extern "C" fn read(
    log: *mut c_void,
    args: *const ck_read_args,
    context: u64,
    result: *mut ck_result,
) -> i32 {
    // SAFETY: the host's arguments.
    let args = unsafe { &*args };
    let range = ReadRange {
        from: Offset(args.from),
        upto: Offset(args.upto),
        max_bytes: usize::try_from(args.max_bytes).unwrap_or(usize::MAX),
        min_one: args.min_one != 0,
    };
    started(log, context, result, |wal, done| wal.read(range, done))
}

pub(crate) unsafe extern "C" fn truncate_suffix(
    log: *mut c_void,
    from: i64,
    context: u64,
    result: *mut ck_result,
) -> i32 {
    started(log, context, result, |wal, done| wal.truncate_suffix(Offset(from), done))
}

pub(crate) unsafe extern "C" fn truncate_prefix(
    log: *mut c_void,
    upto: i64,
    context: u64,
    result: *mut ck_result,
) -> i32 {
    started(log, context, result, |wal, done| wal.truncate_prefix(Offset(upto), done))
}

pub(crate) unsafe extern "C" fn reset(log: *mut c_void, start: i64, context: u64, result: *mut ck_result) -> i32 {
    started(log, context, result, |wal, done| wal.reset(Offset(start), done))
}

pub(crate) unsafe extern "C" fn offset_for_timestamp(
    log: *mut c_void,
    time: i64,
    context: u64,
    result: *mut ck_result,
) -> i32 {
    started(log, context, result, |wal, done| wal.offset_for_timestamp(Timestamp(time), done))
}

pub(crate) unsafe extern "C" fn meta_put(
    log: *mut c_void,
    entries: *const ck_meta,
    entries_len: u64,
    context: u64,
    result: *mut ck_result,
) -> i32 {
    // SAFETY: the host's array; a slice of none may have any address.
    let entries = if entries_len == 0 { &[] } else { unsafe { slice::from_raw_parts(entries, entries_len as usize) } };
    let entries = entries.iter().map(|entry| {
        // SAFETY: the host's keys and values, there during the call.
        let key = String::from_utf8_lossy(unsafe { bytes(&entry.key) }).into_owned();
        // SAFETY: as above.
        let value = (entry.value.len != abi::NO_VALUE).then(|| Bytes::copy_from_slice(unsafe { bytes(&entry.value) }));
        (key, value)
    });
    let entries = entries.collect();
    started(log, context, result, |wal, done| wal.meta_put(entries, done))
}

pub(crate) unsafe extern "C" fn meta_get(
    log: *mut c_void,
    key: *const ck_slice,
    context: u64,
    result: *mut ck_result,
) -> i32 {
    // SAFETY: the host's key, there until the call completes.
    let key = String::from_utf8_lossy(unsafe { bytes(&*key) });
    started(log, context, result, |wal, done| wal.meta_get(&key, done))
}

pub(crate) unsafe extern "C" fn segments(handle: *mut c_void, into: *mut ck_segment, room: u64) -> u64 {
    let filled = catch_unwind(|| {
        // SAFETY: the host's log, not released.
        let segments = unsafe { log(handle) }.wal.segmented().map(|log| log.segments()).unwrap_or_default();
        for (at, segment) in segments.iter().enumerate().take(room as usize) {
            // SAFETY: the host says that there is room for so many.
            unsafe { into.add(at).write(fill::segment(segment)) };
        }
        segments.len() as u64
    });
    filled.unwrap_or(0)
}

pub(crate) unsafe extern "C" fn roll(handle: *mut c_void) {
    // SAFETY: the host's log, not released.
    let _panicked = catch_unwind(|| unsafe { log(handle) }.wal.segmented().map(|log| log.roll()));
}

pub(crate) unsafe extern "C" fn set_segment_bytes(handle: *mut c_void, segment_bytes: u64) {
    // SAFETY: the host's log, not released.
    let _panicked =
        catch_unwind(|| unsafe { log(handle) }.wal.segmented().map(|log| log.set_segment_bytes(segment_bytes)));
}

pub(crate) unsafe extern "C" fn log_close(handle: *mut c_void, context: u64, result: *mut ck_result) -> i32 {
    guard(result, |_| {
        // SAFETY: the host's log, not released.
        let log = unsafe { log(handle) };
        let answer = Arc::new(CloseAnswer(log.inbox.clone()));
        let begun = log.inbox.0.begin(closed);
        let started = log.wal.close(Done::new(answer.clone(), context));
        begun.ends_later();
        if let Started::Now(outcome) = started {
            answer.deliver(context, outcome);
        }
        abi::PENDING
    })
}

pub(crate) unsafe extern "C" fn log_release(handle: *mut c_void) {
    let _panicked = catch_unwind(|| {
        // SAFETY: made by `log_open`; the host names it here for the last time.
        drop(unsafe { Box::from_raw(handle.cast::<Log>()) });
    });
}
