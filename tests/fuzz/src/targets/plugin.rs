//! The host's side of the boundary to storage plug-ins: a table with anything in it, answers and callbacks with any values,
//! and files that pretend to be libraries.
//!
//! The plug-in is part of this program, and keeps the contract in one respect only: what its pointers point at is there.
//! Whatever else it does comes from the input. The host refuses it, or takes the log out of service, with a reason; every
//! call is answered once; and what a read gives lies within what was asked for and was ever appended.

use crate::target::{Seen, Target, about};
use bytes::Bytes;
use chronik_core::ids::{LeaderEpoch, LogId, Offset, TopicId};
use chronik_core::payload::Payload;
use chronik_core::pending::{Done, Inbox, Started};
use chronik_core::time::Timestamp;
use chronik_core::wal::{Chunk, OpenMode, OpenOptions, ReadRange, Run, Wal, WalEngine, WalError};
use chronik_plugin_abi as abi;
use chronik_plugin_abi::{
    ck_append_args, ck_buf, ck_engine_info, ck_host, ck_log_args, ck_log_id, ck_log_info, ck_meta, ck_plugin,
    ck_read_args, ck_result, ck_segment, ck_slice, ck_start_args, ck_state, ck_usage,
};
use chronik_plugin_host::{HostMinor, PluginEngine, PluginOptions, is_library};
use futures::executor::block_on;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::mem::size_of;
use std::path::Path;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// See the module's head.
pub struct Plugins;

/// Steps of one story: each may leave a call that waits.
const STEPS_MAX: usize = 64;
/// What buffers point at, so that they are there for ever.
static SHOWN: [u8; 512] = [7; 512];

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a log's plug-in says, and what it has in hand.
#[derive(Default)]
struct Script {
    bytes: Vec<u8>,
    at: usize,
    pending: Vec<u64>,
    kept: Vec<u64>,
    log_context: u64,
    /// Contexts of calls that have been completed: for stray completions.
    past: Vec<u64>,
}

/// By the number that stands for the log's and the engine's handle: nobody follows it as a pointer.
static SCRIPTS: Mutex<BTreeMap<usize, Script>> = Mutex::new(BTreeMap::new());
static HOST: AtomicPtr<ck_host> = AtomicPtr::new(std::ptr::null_mut());

impl Script {
    fn byte(&mut self) -> u8 {
        self.at += 1;
        self.bytes.get(self.at - 1).copied().unwrap_or(0)
    }

    /// Numbers at which a host may go wrong, and others.
    fn number(&mut self) -> i64 {
        match self.byte() {
            small @ 0..=63 => i64::from(small),
            64 => -1,
            65 => i64::MAX,
            66 => i64::MIN,
            67 => i64::MAX - 1,
            68 => i64::from(u32::MAX),
            69 => 1 << 40,
            other => {
                let low = u16::from_be_bytes([self.byte(), self.byte()]);
                i64::from(low) << (other % 32)
            }
        }
    }

    fn status(&mut self) -> i32 {
        match self.byte() {
            0..=99 => abi::OK,
            100..=149 => abi::PENDING,
            150..=219 => -1 - i32::from(self.byte() % 16),
            _ => self.number() as i32,
        }
    }

    /// A result, for a call that asked for this.
    fn result(&mut self, status: i32) -> ck_result {
        let mut result = abi::EMPTY_RESULT;
        result.status = status;
        result.offset = self.number();
        result.next_offset = self.number();
        result.value = self.number() as u64;
        result.text_len = self.number() as u32;
        result.text = [b'x'; abi::TEXT_BYTES];
        if self.byte().is_multiple_of(8) {
            result.text = [0xff; abi::TEXT_BYTES];
        }
        result.buf = self.buffer();
        result
    }

    fn buffer(&mut self) -> ck_buf {
        let mut buf = abi::EMPTY_RESULT.buf;
        buf.owner = std::ptr::without_provenance_mut(1);
        buf.release = Some(release_owner);
        buf.retained_bytes = self.number() as u64;
        match self.byte() % 8 {
            0 => (buf.slices_len, buf.slices) = (self.number() as u64, std::ptr::null()),
            // More than anyone gives: must be refused unread.
            1 => (buf.slices_len, buf.slices) = (u64::MAX - u64::from(self.byte()), slices().as_ptr()),
            2 => (buf.slices_len, buf.release) = (0, None),
            _ => {
                let slices = slices();
                let from = usize::from(self.byte()) % slices.len();
                let count = usize::from(self.byte()) % (slices.len() - from + 1);
                (buf.slices_len, buf.slices) = (count as u64, slices[from..].as_ptr());
            }
        }
        buf
    }
}

struct Slices(Vec<ck_slice>);
// SAFETY: the slices point at a static, and at nothing.
unsafe impl Send for Slices {}
// SAFETY: as above; they never change.
unsafe impl Sync for Slices {}

/// Slices that buffers are made of; those at the end must be refused unread.
fn slices() -> &'static [ck_slice] {
    static SLICES: OnceLock<Slices> = OnceLock::new();
    let all = SLICES.get_or_init(|| {
        let mut all: Vec<_> =
            [1, 30, 0, 61, 512, 100, 7].into_iter().map(|len| ck_slice { at: SHOWN.as_ptr(), len }).collect();
        all.push(ck_slice { at: std::ptr::null(), len: 0 });
        all.push(ck_slice { at: std::ptr::null(), len: 9 });
        all.push(ck_slice { at: SHOWN.as_ptr(), len: u64::MAX });
        Slices(all)
    });
    &all.0
}

/// What is handed out lives for ever.
unsafe extern "C" fn release_owner(_: *mut c_void) {}

fn host() -> &'static ck_host {
    let host = HOST.load(Ordering::Acquire);
    assert!(!host.is_null(), "the host has not entered");
    // SAFETY: the host's table is static, as the contract says.
    unsafe { &*host }
}

/// With the script of a handle. Calls back into the host must be made outside of it.
fn with<T>(handle: *mut c_void, work: impl FnOnce(&mut Script) -> T) -> T {
    work(lock(&SCRIPTS).entry(handle.addr()).or_default())
}

/// Answers a call at once, later, or both.
fn answer(handle: *mut c_void, context: u64, result: *mut ck_result) -> i32 {
    let (status, given, early) = with(handle, |script| {
        let status = script.status();
        let given = script.result(status);
        let early = if status == abi::PENDING { script.byte() % 4 } else { script.byte() % 64 };
        if status == abi::PENDING {
            script.pending.push(context);
        }
        (status, given, early)
    });
    if early == 1 {
        complete(handle, usize::MAX);
        // Of a call that is not pending, or that is answered as well.
        if status != abi::PENDING {
            call_complete(context, &given);
        }
    }
    if status != abi::PENDING {
        with(handle, |script| script.past.push(context));
    }
    // SAFETY: the host gives a result that is there during the call.
    unsafe { result.write(given) };
    status
}

fn call_complete(context: u64, result: &ck_result) {
    // SAFETY: the result begins with its size, of which so many bytes are there.
    unsafe { (host().complete)(context, result) };
}

/// Completes a call that waits, by its place; the last one for a place beyond.
fn complete(handle: *mut c_void, place: usize) {
    let drawn = with(handle, |script| {
        let place = place.min(script.pending.len().checked_sub(1)?);
        let context = script.pending.remove(place);
        script.past.push(context);
        let status = if script.byte() % 2 == 0 { abi::OK } else { script.status() };
        let mut result = script.result(status);
        // Results that are too small are none; what is larger than ours is of a later version.
        result.struct_size = match script.byte() % 16 {
            0 => 0,
            1 => 79,
            2 => 80,
            3 => 1 << 20,
            _ => result.struct_size,
        };
        Some((context, result, script.byte() % 32 == 1))
    });
    if let Some((context, result, is_nothing)) = drawn {
        if is_nothing {
            // SAFETY: no result at all.
            unsafe { (host().complete)(context, std::ptr::null()) };
        } else {
            call_complete(context, &result);
        }
    }
}

unsafe extern "C" fn engine_start(_: *const ck_start_args, info: *mut ck_engine_info, result: *mut ck_result) -> i32 {
    let (status, given, started) = lock(&STARTS).take().unwrap_or_default().drawn();
    // SAFETY: the host gives both, and they are there during the call.
    unsafe {
        (*info).survives = started.0;
        (*info).engine = std::ptr::without_provenance_mut(started.1);
        (*info).run_bytes_max = started.2;
        result.write(given);
    }
    status
}

unsafe extern "C" fn engine_close(_: *mut c_void, _: *mut ck_result) -> i32 {
    abi::OK
}

unsafe extern "C" fn engine_list(engine: *mut c_void, result: *mut ck_result) -> i32 {
    answer_now(engine, result)
}

fn answer_now(handle: *mut c_void, result: *mut ck_result) -> i32 {
    let (status, given) = with(handle, |script| {
        let status = script.status();
        (status, script.result(status))
    });
    // SAFETY: the host gives a result that is there during the call.
    unsafe { result.write(given) };
    status
}

unsafe extern "C" fn engine_usage(engine: *mut c_void, usage: *mut ck_usage) {
    let number = with(engine, |script| script.number() as u64);
    // SAFETY: the host gives it, and it is there during the call.
    unsafe { ((*usage).memory_bytes, (*usage).has_device, (*usage).device_free_bytes) = (number, 1, number) };
}

unsafe extern "C" fn log_open(
    _: *mut c_void,
    args: *const ck_log_args,
    info: *mut ck_log_info,
    result: *mut ck_result,
) -> i32 {
    // SAFETY: the host gives all three, and they are there during the call.
    let args = unsafe { args.read() };
    let handle = std::ptr::without_provenance_mut::<c_void>(args.id.partition.unsigned_abs() as usize);
    let (status, given, most) = with(handle, |script| {
        script.log_context = args.log_context;
        // Most logs open, or there would be nothing to tell.
        let status = if script.byte() < 240 { abi::OK } else { script.status() };
        (status, script.result(status), (script.byte(), script.number()))
    });
    // SAFETY: as above.
    unsafe {
        (*info).log = if most.0 == 255 { std::ptr::null_mut() } else { handle };
        (*info).appends_in_flight_max = u32::from(most.0);
        (*info).append_bytes_in_flight_max = most.1 as u64;
        result.write(given);
    }
    status
}

unsafe extern "C" fn log_delete(engine: *mut c_void, _: *const ck_log_id, result: *mut ck_result) -> i32 {
    answer_now(engine, result)
}

unsafe extern "C" fn log_set_aside(engine: *mut c_void, _: *const ck_log_id, result: *mut ck_result) -> i32 {
    answer_now(engine, result)
}

unsafe extern "C" fn log_state(log: *mut c_void, state: *mut ck_state) {
    let numbers = with(log, |script| {
        // In order more often than not.
        let mut numbers = [script.number(), script.number(), script.number(), script.number()];
        if script.byte() % 4 != 0 {
            numbers.sort_unstable();
        }
        (numbers, script.number())
    });
    let ([start, durable_end, written_end, end], other) = numbers;
    // SAFETY: the host gives it, and it is there during the call.
    unsafe {
        let given = &mut *state;
        (given.start, given.durable_end, given.written_end, given.end) = (start, durable_end, written_end, end);
        (given.bytes, given.max_timestamp, given.last_epoch) = (other as u64, other, other as i32);
    }
}

unsafe extern "C" fn append(log: *mut c_void, _: *const ck_append_args, context: u64, result: *mut ck_result) -> i32 {
    answer(log, context, result)
}

unsafe extern "C" fn write_queued(log: *mut c_void) {
    if with(log, |script| script.byte()) % 2 == 0 {
        complete(log, 0);
    }
}

unsafe extern "C" fn offset_call(log: *mut c_void, _: i64, context: u64, result: *mut ck_result) -> i32 {
    answer(log, context, result)
}

unsafe extern "C" fn read(log: *mut c_void, _: *const ck_read_args, context: u64, result: *mut ck_result) -> i32 {
    answer(log, context, result)
}

unsafe extern "C" fn meta_put(
    log: *mut c_void,
    _: *const ck_meta,
    _: u64,
    context: u64,
    result: *mut ck_result,
) -> i32 {
    answer(log, context, result)
}

unsafe extern "C" fn meta_get(log: *mut c_void, _: *const ck_slice, context: u64, result: *mut ck_result) -> i32 {
    answer(log, context, result)
}

unsafe extern "C" fn segments(log: *mut c_void, into: *mut ck_segment, room: u64) -> u64 {
    // A few, more than there is room for, and more than any log has.
    let (count, number) = with(log, |script| (script.number() as u64, script.number()));
    let count = if count > 5_000 { u64::MAX } else { count };
    for at in 0..count.min(room).min(16) {
        // SAFETY: the host gives room for so many.
        unsafe {
            let segment = into.add(at as usize);
            ((*segment).base, (*segment).end, (*segment).bytes) = (number, number, number as u64);
        }
    }
    count
}

unsafe extern "C" fn nothing(_: *mut c_void) {}

unsafe extern "C" fn no_segment_bytes(_: *mut c_void, _: u64) {}

unsafe extern "C" fn log_close(log: *mut c_void, context: u64, result: *mut ck_result) -> i32 {
    answer(log, context, result)
}

unsafe extern "C" fn log_release(log: *mut c_void) {
    // The last that is heard of it.
    lock(&SCRIPTS).remove(&log.addr());
}

struct Table(ck_plugin);
// SAFETY: its slices point at statics.
unsafe impl Send for Table {}
// SAFETY: as above; it does not change while somebody else reads it.
unsafe impl Sync for Table {}

/// A table that works.
fn table() -> ck_plugin {
    let text = |text: &'static str| ck_slice { at: text.as_ptr(), len: text.len() as u64 };
    ck_plugin {
        magic: abi::MAGIC,
        struct_size: size_of::<ck_plugin>() as u32,
        abi_major: abi::ABI_MAJOR,
        abi_minor: abi::ABI_MINOR,
        capabilities: abi::CAPS_KNOWN,
        required: 0,
        name: text("fuzzed"),
        version: text("1"),
        engine_start: Some(engine_start),
        engine_close: Some(engine_close),
        engine_list: Some(engine_list),
        engine_usage: Some(engine_usage),
        log_open: Some(log_open),
        log_delete: Some(log_delete),
        log_state: Some(log_state),
        append: Some(append),
        write_queued: Some(write_queued),
        sync: Some(offset_call),
        read: Some(read),
        truncate_suffix: Some(offset_call),
        truncate_prefix: Some(offset_call),
        reset: Some(offset_call),
        offset_for_timestamp: Some(offset_call),
        meta_put: Some(meta_put),
        meta_get: Some(meta_get),
        segments: Some(segments),
        roll: Some(nothing),
        set_segment_bytes: Some(no_segment_bytes),
        log_close: Some(log_close),
        log_release: Some(log_release),
        log_set_aside: Some(log_set_aside),
    }
}

/// How an engine starts, for the one that is being started: starts take turns.
#[derive(Default)]
struct Start {
    script: Option<Script>,
}

/// What survives, the engine's handle, and its largest run.
type Begun = (u32, usize, u64);

impl Start {
    /// Without a script a start that works.
    fn drawn(self) -> (i32, ck_result, Begun) {
        match self.script {
            None => (abi::OK, abi::EMPTY_RESULT, (abi::SURVIVES_PROCESS, 1, 1 << 30)),
            Some(mut script) => {
                let status = script.status();
                let result = script.result(status);
                let survives = script.byte() % 5;
                (status, result, (survives.into(), usize::from(script.byte()), script.number() as u64))
            }
        }
    }
}

static STARTS: Mutex<Option<Start>> = Mutex::new(None);
static ENTERED: AtomicPtr<ck_plugin> = AtomicPtr::new(std::ptr::null_mut());
/// Held while an engine is started with the two above.
static STARTING: Mutex<()> = Mutex::new(());

unsafe extern "C" fn entry(host: *const ck_host) -> *const ck_plugin {
    HOST.store(host.cast_mut(), Ordering::Release);
    ENTERED.load(Ordering::Acquire)
}

fn start(table: Option<&Table>, start: Start, as_newer: bool) -> Result<PluginEngine, String> {
    let _turn = lock(&STARTING);
    *lock(&STARTS) = Some(start);
    let table = table.map_or(std::ptr::null(), |table| &raw const table.0);
    ENTERED.store(table.cast_mut(), Ordering::Release);
    let mut options = PluginOptions::new("/linked".into(), std::env::temp_dir());
    options.minor = if as_newer { HostMinor::Later } else { HostMinor::Own };
    options.verify =
        Some(Arc::new(
            |chunk: &Chunk| {
                if chunk.bytes.len() == 61 { Err("of a length that is none".into()) } else { Ok(()) }
            },
        ));
    // SAFETY: the table is there during the call and copied by it; its functions keep what they point at.
    unsafe { PluginEngine::start_linked(entry, options) }.map_err(|why| {
        let cause = std::error::Error::source(&why).map(ToString::to_string).unwrap_or_default();
        format!("{why}: {cause}")
    })
}

/// An engine that works, for all stories.
fn engine() -> &'static PluginEngine {
    static ENGINE: OnceLock<PluginEngine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let table = Table(table());
        start(Some(&table), Start::default(), false).unwrap_or_else(|why| panic!("a sound plug-in: {why}"))
    })
}

/// Tables: the fields' bytes come from the input, but for pointers, of which it chooses whether they are there.
fn tables(input: &[u8]) -> Seen {
    let mut script = Script { bytes: input.to_vec(), ..Script::default() };
    let mut made = table();
    for _ in 0..script.byte() % 8 {
        match script.byte() % 11 {
            0 => made.magic = script.number() as u64,
            // Smaller than it is, or as large as one of a later version says.
            1 => made.struct_size = script.number() as u32,
            2 => made.abi_major = script.number() as u16,
            3 => made.abi_minor = script.number() as u16,
            4 => made.capabilities = script.number() as u64,
            5 => made.required = script.number() as u64,
            6 => made.name = ck_slice { at: std::ptr::null(), len: script.number() as u64 },
            7 => made.version = ck_slice { at: SHOWN.as_ptr(), len: script.number() as u64 },
            8 => {
                const NO_TEXT: &[u8] = &[0xff; 128];
                made.name = ck_slice { at: NO_TEXT.as_ptr(), len: script.number() as u64 };
            }
            9 => made.segments = None,
            _ => match script.byte() % 12 {
                0 => made.engine_start = None,
                1 => made.engine_close = None,
                2 => made.engine_list = None,
                3 => made.log_open = None,
                4 => made.append = None,
                5 => made.sync = None,
                6 => made.read = None,
                7 => made.meta_get = None,
                8 => made.roll = None,
                9 => made.write_queued = None,
                10 => made.log_close = None,
                _ => made.log_release = None,
            },
        }
    }
    let (as_newer, is_none) = (script.byte() % 2 == 1, script.byte() == 255);
    let rest = script.bytes.split_off(script.at.min(script.bytes.len()));
    let told = Start { script: (!rest.is_empty()).then(|| Script { bytes: rest, ..Script::default() }) };
    let table = Table(made);
    match start((!is_none).then_some(&table), told, as_newer) {
        Ok(engine) => {
            let _outcome = block_on(engine.close());
            Seen::taken(("table", engine.info().name.len(), engine.info().capabilities))
        }
        Err(why) => {
            assert!(!why.is_empty());
            let words: String = why.chars().filter(|c| c.is_ascii_alphabetic()).take(120).collect();
            Seen::refused(("table", words), None)
        }
    }
}

/// Where answers arrive; each of them once.
#[derive(Default)]
struct Answers(Mutex<Vec<u32>>);

impl Answers {
    fn tell(&self, token: u64) {
        let mut told = lock(&self.0);
        if let Some(count) = told.get_mut(token as usize) {
            *count += 1;
        }
    }

    fn ask<T>(self: &Arc<Self>) -> (Done<T>, usize)
    where
        Self: Inbox<T>,
    {
        let mut told = lock(&self.0);
        told.push(0);
        let token = told.len() - 1;
        (Done::new(self.clone(), token as u64), token)
    }
}

macro_rules! takes {
    ($($what:ty),*) => {
        $(impl Inbox<Result<$what, WalError>> for Answers {
            fn deliver(&self, token: u64, _: Result<$what, WalError>) {
                self.tell(token);
            }
        })*
    };
}
takes!(chronik_core::wal::Appended, Offset, (), Option<Offset>, Option<Bytes>);

/// What was asked for, by token: a chunk that comes is held against it.
struct Reads {
    answers: Arc<Answers>,
    range: ReadRange,
}

impl Inbox<Result<Chunk, WalError>> for Reads {
    fn deliver(&self, token: u64, outcome: Result<Chunk, WalError>) {
        if let Ok(chunk) = outcome {
            look_at(&chunk, &self.range);
        }
        self.answers.tell(token);
    }
}

fn look_at(chunk: &Chunk, range: &ReadRange) {
    let is_none = chunk.bytes.is_empty() && chunk.base == range.from && chunk.next_offset == range.from;
    let is_within = chunk.base < chunk.next_offset
        && range.from < chunk.next_offset
        && chunk.next_offset <= range.upto
        && (range.min_one || chunk.bytes.len() <= range.max_bytes);
    assert!(is_none || is_within, "a read of {range:?} gave {chunk:?}");
    for part in chunk.bytes.parts() {
        assert!(part.iter().all(|byte| *byte == 7), "it gave bytes that are not the plug-in's");
    }
}

/// A log's life: the broker's calls by the first half of the input, what the plug-in says to them by the rest.
fn story(input: &[u8]) -> Seen {
    static NEXT: AtomicUsize = AtomicUsize::new(2);
    let steps = input.len().div_ceil(3).min(STEPS_MAX);
    let (steps, script) = input.split_at(steps.min(input.len()));
    let number = NEXT.fetch_add(1, Ordering::Relaxed) & 0x7fff_ffff;
    let handle = std::ptr::without_provenance_mut::<c_void>(number);
    lock(&SCRIPTS).insert(number, Script { bytes: script.to_vec(), ..Script::default() });
    let id = LogId { topic: TopicId([7; 16]), partition: number as i32 };
    let options = OpenOptions { mode: OpenMode::CreateIfMissing, segment_bytes: 1 << 20 };
    let engine = engine();
    let log = match block_on(engine.open(id, options)) {
        Ok(log) => log,
        Err(why) => {
            lock(&SCRIPTS).remove(&number);
            let words: String = format!("{why:?}").chars().filter(|c| c.is_ascii_alphabetic()).take(60).collect();
            return Seen::refused(("open", words), None);
        }
    };
    let answers = Arc::<Answers>::default();
    let mut end = log.state().end.0;
    let mut said = 0u32;
    for step in steps {
        said |= 1 << (step % 20).min(19);
        take_step(*step, &*log, handle, &answers, &mut end);
    }
    let state = log.state();
    // However it was, it can be closed, and then everything has been answered.
    let (done, token) = answers.ask::<Result<(), WalError>>();
    if let Started::Now(_) = log.close(done) {
        answers.tell(token as u64);
    }
    for _ in 0..2 * STEPS_MAX {
        if with(handle, |script| script.pending.is_empty()) {
            break;
        }
        // What a plug-in completes at last, after whatever it has done before, is a result.
        let context = with(handle, |script| script.pending.pop());
        if let Some(context) = context {
            call_complete(context, &abi::EMPTY_RESULT);
        }
    }
    for kept in with(handle, |script| std::mem::take(&mut script.kept)) {
        // SAFETY: takes any number.
        unsafe { (host().release)(kept) };
    }
    let told = lock(&answers.0).clone();
    assert!(told.iter().all(|count| *count == 1), "calls were answered {told:?} times");
    let has_failed = log.append(one_run(end), Done::new(Arc::new(Ignored), 0)).is_err();
    drop(log);
    Seen::taken(("story", said.count_ones(), has_failed, about(state.end.0 as usize), told.len().min(8)))
}

struct Ignored;

impl Inbox<Result<chronik_core::wal::Appended, WalError>> for Ignored {
    fn deliver(&self, _: u64, _: Result<chronik_core::wal::Appended, WalError>) {}
}

fn one_run(base: i64) -> Run {
    Run {
        base: Offset(base),
        next_offset: Offset(base) + 1,
        epoch: LeaderEpoch(1),
        max_timestamp: Timestamp(1),
        bytes: Payload::from(Bytes::from_static(&[9; 70])),
    }
}

fn take_step(step: u8, log: &dyn Wal, handle: *mut c_void, answers: &Arc<Answers>, end: &mut i64) {
    /// One that was answered in the call.
    fn now<T>(started: Started<T>, answers: &Answers, token: usize) {
        if let Started::Now(_) = started {
            answers.tell(token as u64);
        }
    }
    match step % 20 {
        0..=3 => {
            let (done, token) = answers.ask();
            match log.append(one_run(*end), done) {
                Ok(started) => {
                    *end = end.saturating_add(1);
                    now(started, answers, token);
                }
                Err(_) => answers.tell(token as u64),
            }
        }
        4 | 5 => {
            let (done, token) = answers.ask();
            now(log.sync(Offset(*end), done), answers, token);
        }
        6..=8 => {
            let upto = Offset(if step >= 128 { i64::MAX } else { *end });
            let from = Offset(i64::from(step / 20));
            let range = ReadRange { from, upto, max_bytes: 100, min_one: step & 64 == 0 };
            let (_, token) = answers.ask::<Result<(), WalError>>();
            let reads = Reads { answers: answers.clone(), range };
            match log.read(range, Done::new(Arc::new(reads), token as u64)) {
                Started::Now(outcome) => {
                    if let Ok(chunk) = outcome {
                        look_at(&chunk, &range);
                    }
                    answers.tell(token as u64);
                }
                Started::Later => {}
            }
        }
        9 => {
            let (done, token) = answers.ask();
            now(log.truncate_suffix(Offset(i64::from(step)), done), answers, token);
            *end = log.state().end.0;
        }
        10 => {
            let (done, token) = answers.ask();
            now(log.truncate_prefix(Offset(i64::from(step)), done), answers, token);
        }
        11 => {
            let (done, token) = answers.ask();
            now(log.reset(Offset(i64::from(step)), done), answers, token);
            *end = log.state().end.0;
        }
        12 => {
            let (done, token) = answers.ask();
            now(log.offset_for_timestamp(Timestamp(i64::from(step)), done), answers, token);
        }
        13 => {
            let (done, token) = answers.ask();
            let values = vec![("key".to_owned(), Some(Bytes::from_static(b"value"))), ("none".to_owned(), None)];
            now(log.meta_put(values, done), answers, token);
        }
        14 => {
            let (done, token) = answers.ask();
            now(log.meta_get("key", done), answers, token);
        }
        15 => {
            log.write_queued();
            if let Some(segmented) = log.segmented() {
                segmented.segments();
                segmented.roll();
                segmented.set_segment_bytes(1 << 20);
            }
        }
        16 => complete(handle, usize::from(step / 20)),
        17 => {
            let (past, result) = with(handle, |script| {
                let context = script.past.last().copied().unwrap_or(0);
                (context, script.result(abi::OK))
            });
            // Of a call that is over, of a later generation of its slot, of none.
            let context = [past, 0, u64::MAX, past ^ 1 << 63][usize::from(step / 20) % 4];
            call_complete(context, &result);
        }
        18 => {
            let (context, pending) = with(handle, |script| (script.log_context, script.pending.last().copied()));
            let wrong = context ^ 1 << 62;
            // SAFETY: takes any number.
            unsafe { (host().ready)(if step >= 128 { wrong } else { context }) };
            // SAFETY: as above.
            let kept = unsafe { (host().keep)(pending.unwrap_or(wrong)) };
            if kept != 0 {
                with(handle, |script| script.kept.push(kept));
            }
        }
        _ => {
            let kept = with(handle, |script| script.kept.pop()).unwrap_or(u64::from(step) << 40);
            // SAFETY: takes any number; the text is there.
            unsafe {
                (host().release)(kept);
                (host().release)(kept);
                (host().log)(u32::from(step), SHOWN.as_ptr(), SHOWN.len() as u64);
                (host().log)(4, std::ptr::null(), u64::MAX);
            }
            log.state();
        }
    }
}

/// The least that an object file of this machine needs to be taken for a library.
fn library() -> Vec<u8> {
    let mut file = vec![0; 64 + 2 * 56];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    file[16] = 3;
    file[18] = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    file[32] = 64;
    (file[54], file[56]) = (56, 2);
    (file[64 + 8], file[64 + 32]) = (10, 100);
    file
}

impl Target for Plugins {
    fn name(&self) -> &'static str {
        "plugin"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let mut seeds = vec![[vec![0], library()].concat(), vec![1, 0], vec![1, 0, 1, 0]];
        for step in 0..20 {
            seeds.push([vec![2], vec![step; 4], vec![0; 60]].concat());
            // Everything waits, and is completed.
            let script = [vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], vec![100; 60]].concat();
            seeds.push([vec![2], vec![0, step, 16, step, 16, 16], script].concat());
        }
        seeds.push([vec![2], (0..20).collect(), (0..40).collect()].concat());
        seeds
    }

    fn feed(&self, input: &[u8]) -> Seen {
        let Some((kind, rest)) = input.split_first() else { return Seen::refused("short", None) };
        match kind % 8 {
            0 => match is_library(Path::new("/library"), rest) {
                Ok(()) => Seen::taken(("library", about(rest.len()))),
                Err(why) => {
                    let words: String = why.to_string().chars().filter(|c| c.is_ascii_alphabetic()).collect();
                    Seen::refused(words, None)
                }
            },
            1 => tables(rest),
            _ => story(rest),
        }
    }

    fn input_bytes_max(&self) -> usize {
        512
    }

    /// A plug-in that claims thousands of segments is given room for them.
    fn more_memory_bytes(&self) -> usize {
        1 << 20
    }
}
