//! A plug-in that does what an input tells it: how it starts, its table, what its functions answer, and when.
//!
//! It is part of this program, and keeps the contract in one respect only: what its pointers point at is there. Calls back
//! into the host are made outside of the lock over the scripts, since the host may answer with another call.

use chronik_core::wal::Chunk;
use chronik_plugin_abi as abi;
use chronik_plugin_abi::{
    ck_append_args, ck_buf, ck_engine_info, ck_host, ck_log_args, ck_log_id, ck_log_info, ck_meta, ck_plugin,
    ck_read_args, ck_result, ck_segment, ck_slice, ck_start_args, ck_state, ck_usage,
};
use chronik_plugin_host::{HostMinor, PluginEngine, PluginOptions};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::mem::size_of;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// What buffers point at, so that they are there for ever.
pub(super) static SHOWN: [u8; 512] = [7; 512];

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a log's plug-in says, and what it has in hand.
#[derive(Default)]
pub(super) struct Script {
    pub(super) bytes: Vec<u8>,
    pub(super) at: usize,
    pub(super) pending: Vec<u64>,
    pub(super) kept: Vec<u64>,
    pub(super) log_context: u64,
    /// Contexts of calls that have been completed: for stray completions.
    pub(super) past: Vec<u64>,
}

/// By the number that stands for the log's and the engine's handle: nobody follows it as a pointer.
pub(super) static SCRIPTS: Mutex<BTreeMap<usize, Script>> = Mutex::new(BTreeMap::new());
static HOST: AtomicPtr<ck_host> = AtomicPtr::new(std::ptr::null_mut());

impl Script {
    pub(super) fn byte(&mut self) -> u8 {
        self.at += 1;
        self.bytes.get(self.at - 1).copied().unwrap_or(0)
    }

    /// Numbers at which a host may go wrong, and others.
    pub(super) fn number(&mut self) -> i64 {
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

    pub(super) fn status(&mut self) -> i32 {
        match self.byte() {
            0..=99 => abi::OK,
            100..=149 => abi::PENDING,
            150..=219 => -1 - i32::from(self.byte() % 16),
            _ => self.number() as i32,
        }
    }

    /// A result, for a call that asked for this.
    pub(super) fn result(&mut self, status: i32) -> ck_result {
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

pub(super) fn host() -> &'static ck_host {
    let host = HOST.load(Ordering::Acquire);
    assert!(!host.is_null(), "the host has not entered");
    // SAFETY: the host's table is static, as the contract says.
    unsafe { &*host }
}

/// With the script of a handle. Calls back into the host must be made outside of it.
pub(super) fn with<T>(handle: *mut c_void, work: impl FnOnce(&mut Script) -> T) -> T {
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

pub(super) fn call_complete(context: u64, result: &ck_result) {
    // SAFETY: the result begins with its size, of which so many bytes are there.
    unsafe { (host().complete)(context, result) };
}

/// Completes a call that waits, by its place; the last one for a place beyond.
pub(super) fn complete(handle: *mut c_void, place: usize) {
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

pub(super) struct Table(pub(super) ck_plugin);
// SAFETY: its slices point at statics.
unsafe impl Send for Table {}
// SAFETY: as above; it does not change while somebody else reads it.
unsafe impl Sync for Table {}

/// A table that works.
pub(super) fn table() -> ck_plugin {
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
pub(super) struct Start {
    pub(super) script: Option<Script>,
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

pub(super) fn start(table: Option<&Table>, start: Start, as_newer: bool) -> Result<PluginEngine, String> {
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
pub(super) fn engine() -> &'static PluginEngine {
    static ENGINE: OnceLock<PluginEngine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let table = Table(table());
        start(Some(&table), Start::default(), false).unwrap_or_else(|why| panic!("a sound plug-in: {why}"))
    })
}
