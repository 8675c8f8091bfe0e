//! The interface between the broker and a storage plug-in, as `include/chronik_plugin.h` says it, seen from Rust.
//!
//! The header is the contract: it explains every call. This crate says the same in `#[repr(C)]`, and a test compiles the
//! header and compares. No dependency, no code: plug-ins built with any compiler must mean the same bytes.
//!
//! What must stay true: structs only grow at their end, never change; all fields have a fixed width, padding is a field;
//! no allocation, Rust type, panic or runtime crosses.

#![allow(non_camel_case_types)]

use std::ffi::c_void;
use std::mem::{align_of, offset_of, size_of};

/// The only symbol that a plug-in must export: a [`ck_entry`].
pub const ENTRY_SYMBOL: &str = "chronik_plugin_v1";
/// The first eight bytes of a [`ck_plugin`].
pub const MAGIC: u64 = 0x4b49_4e4f_5248_4321;
/// Another major version is another contract: such a plug-in is refused.
pub const ABI_MAJOR: u16 = 1;
/// A minor version adds fields at the end of structs, and capability bits.
pub const ABI_MINOR: u16 = 1;

/// [`ck_plugin::capabilities`]: `segments`, `roll` and `set_segment_bytes` are there.
pub const CAP_SEGMENTS: u64 = 1 << 0;
/// [`ck_plugin::capabilities`]: `write_queued` is there and must be called after appends.
pub const CAP_WRITE_QUEUED: u64 = 1 << 1;
/// [`ck_plugin::capabilities`], since 1.1: `log_set_aside` is there.
pub const CAP_SET_ASIDE: u64 = 1 << 2;
/// All that version 1.0 knows.
pub const CAPS_OF_1_0: u64 = CAP_SEGMENTS | CAP_WRITE_QUEUED;
/// All that this version knows.
pub const CAPS_KNOWN: u64 = CAPS_OF_1_0 | CAP_SET_ASIDE;

/// How large a plug-in's table was in version 1.0: none is smaller, and what a smaller one than ours lacks is as if zero.
pub const PLUGIN_BYTES_OF_1_0: usize = offset_of!(ck_plugin, log_set_aside);

/// [`ck_engine_info::survives`].
pub const SURVIVES_NOTHING: u32 = 0;
pub const SURVIVES_PROCESS: u32 = 1;
pub const SURVIVES_POWER_LOSS: u32 = 2;

/// [`ck_log_args::mode`].
pub const OPEN_EXISTING: u32 = 0;
pub const OPEN_CREATE_NEW: u32 = 1;
pub const OPEN_CREATE_IF_MISSING: u32 = 2;

/// [`ck_host::log`]'s level.
pub const LOG_ERROR: u32 = 1;
pub const LOG_WARN: u32 = 2;
pub const LOG_INFO: u32 = 3;
pub const LOG_DEBUG: u32 = 4;

/// Done: the result is filled in, and no callback comes.
pub const OK: i32 = 0;
/// Accepted: exactly one callback comes, or has come already.
pub const PENDING: i32 = 1;
/// Everything below zero is an error.
pub const FULL: i32 = -1;
pub const BUSY: i32 = -2;
pub const OUT_OF_ORDER: i32 = -3;
pub const FENCED: i32 = -4;
pub const FAILED: i32 = -5;
pub const CLOSED: i32 = -6;
pub const TOO_LARGE: i32 = -7;
pub const OUT_OF_RANGE: i32 = -8;
pub const CORRUPT: i32 = -9;
pub const IO: i32 = -10;
pub const NOT_FOUND: i32 = -11;
pub const ALREADY_EXISTS: i32 = -12;
pub const PANIC: i32 = -13;
pub const INVALID: i32 = -14;

/// "No timestamp", and in [`ck_result::offset`] "no such offset".
pub const NONE: i64 = -1;
/// In a length: "no value", as opposed to an empty one.
pub const NO_VALUE: u64 = u64::MAX;
/// Room for an error's text.
pub const TEXT_BYTES: usize = 208;

/// Bytes that somebody else owns; of any alignment.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ck_slice {
    pub at: *const u8,
    pub len: u64,
}

/// Bytes that the plug-in owns until the host calls `release`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ck_buf {
    pub slices: *const ck_slice,
    pub slices_len: u64,
    pub retained_bytes: u64,
    pub owner: *mut c_void,
    pub release: Option<unsafe extern "C" fn(owner: *mut c_void)>,
}

/// What a call gave.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ck_result {
    pub struct_size: u32,
    pub status: i32,
    pub offset: i64,
    pub next_offset: i64,
    pub value: u64,
    pub buf: ck_buf,
    pub text_len: u32,
    pub reserved: u32,
    pub text: [u8; TEXT_BYTES],
}

/// A log's name.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ck_log_id {
    pub topic: [u8; 16],
    pub partition: i32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ck_state {
    pub struct_size: u32,
    pub last_epoch: i32,
    pub start: i64,
    pub end: i64,
    pub written_end: i64,
    pub durable_end: i64,
    pub bytes: u64,
    pub max_timestamp: i64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ck_segment {
    pub base: i64,
    pub end: i64,
    pub bytes: u64,
    pub max_timestamp: i64,
    pub sealed: u32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ck_usage {
    pub struct_size: u32,
    pub has_device: u32,
    pub logs: u64,
    pub bytes: u64,
    pub memory_bytes: u64,
    pub device_total_bytes: u64,
    pub device_free_bytes: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ck_start_args {
    pub struct_size: u32,
    pub reserved: u32,
    pub directory: ck_slice,
    pub options: ck_slice,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ck_engine_info {
    pub struct_size: u32,
    pub survives: u32,
    pub engine: *mut c_void,
    pub run_bytes_max: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ck_log_args {
    pub struct_size: u32,
    pub mode: u32,
    pub id: ck_log_id,
    pub segment_bytes: u64,
    pub log_context: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ck_log_info {
    pub struct_size: u32,
    pub appends_in_flight_max: u32,
    pub append_bytes_in_flight_max: u64,
    pub log: *mut c_void,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ck_append_args {
    pub struct_size: u32,
    pub epoch: i32,
    pub base: i64,
    pub next_offset: i64,
    pub max_timestamp: i64,
    pub slices: *const ck_slice,
    pub slices_len: u64,
    pub bytes: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ck_read_args {
    pub struct_size: u32,
    pub min_one: u32,
    pub from: i64,
    pub upto: i64,
    pub max_bytes: u64,
}

/// One change of [`ck_plugin::meta_put`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ck_meta {
    pub key: ck_slice,
    pub value: ck_slice,
}

/// What the host offers. Lives as long as the process.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ck_host {
    pub magic: u64,
    pub struct_size: u32,
    pub abi_major: u16,
    pub abi_minor: u16,
    pub capabilities: u64,
    pub complete: unsafe extern "C" fn(context: u64, result: *const ck_result),
    pub ready: unsafe extern "C" fn(log_context: u64),
    pub log: unsafe extern "C" fn(level: u32, text: *const u8, len: u64),
    pub keep: unsafe extern "C" fn(context: u64) -> u64,
    pub release: unsafe extern "C" fn(kept: u64),
}

pub type ck_entry = unsafe extern "C" fn(host: *const ck_host) -> *const ck_plugin;

pub type ck_lifecycle<A, I> =
    unsafe extern "C" fn(engine: *mut c_void, args: A, info: I, result: *mut ck_result) -> i32;
/// A call that only has an offset (or a time).
pub type ck_offset_call =
    unsafe extern "C" fn(log: *mut c_void, offset: i64, context: u64, result: *mut ck_result) -> i32;

/// What the plug-in offers. Lives as long as the process. A function is `None` where C has NULL.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ck_plugin {
    pub magic: u64,
    pub struct_size: u32,
    pub abi_major: u16,
    pub abi_minor: u16,
    pub capabilities: u64,
    pub required: u64,
    pub name: ck_slice,
    pub version: ck_slice,

    pub engine_start: Option<
        unsafe extern "C" fn(args: *const ck_start_args, info: *mut ck_engine_info, result: *mut ck_result) -> i32,
    >,
    pub engine_close: Option<unsafe extern "C" fn(engine: *mut c_void, result: *mut ck_result) -> i32>,
    pub engine_list: Option<unsafe extern "C" fn(engine: *mut c_void, result: *mut ck_result) -> i32>,
    pub engine_usage: Option<unsafe extern "C" fn(engine: *mut c_void, usage: *mut ck_usage)>,
    pub log_open: Option<ck_lifecycle<*const ck_log_args, *mut ck_log_info>>,
    pub log_delete:
        Option<unsafe extern "C" fn(engine: *mut c_void, id: *const ck_log_id, result: *mut ck_result) -> i32>,

    pub log_state: Option<unsafe extern "C" fn(log: *mut c_void, state: *mut ck_state)>,
    pub append: Option<
        unsafe extern "C" fn(
            log: *mut c_void,
            args: *const ck_append_args,
            context: u64,
            result: *mut ck_result,
        ) -> i32,
    >,
    pub write_queued: Option<unsafe extern "C" fn(log: *mut c_void)>,
    pub sync: Option<ck_offset_call>,
    pub read: Option<
        unsafe extern "C" fn(log: *mut c_void, args: *const ck_read_args, context: u64, result: *mut ck_result) -> i32,
    >,
    pub truncate_suffix: Option<ck_offset_call>,
    pub truncate_prefix: Option<ck_offset_call>,
    pub reset: Option<ck_offset_call>,
    pub offset_for_timestamp: Option<ck_offset_call>,
    pub meta_put: Option<
        unsafe extern "C" fn(
            log: *mut c_void,
            entries: *const ck_meta,
            entries_len: u64,
            context: u64,
            result: *mut ck_result,
        ) -> i32,
    >,
    pub meta_get: Option<
        unsafe extern "C" fn(log: *mut c_void, key: *const ck_slice, context: u64, result: *mut ck_result) -> i32,
    >,
    pub segments: Option<unsafe extern "C" fn(log: *mut c_void, into: *mut ck_segment, room: u64) -> u64>,
    pub roll: Option<unsafe extern "C" fn(log: *mut c_void)>,
    pub set_segment_bytes: Option<unsafe extern "C" fn(log: *mut c_void, segment_bytes: u64)>,
    pub log_close: Option<unsafe extern "C" fn(log: *mut c_void, context: u64, result: *mut ck_result) -> i32>,
    pub log_release: Option<unsafe extern "C" fn(log: *mut c_void)>,

    pub log_set_aside:
        Option<unsafe extern "C" fn(engine: *mut c_void, id: *const ck_log_id, result: *mut ck_result) -> i32>,
}

/// A result that nobody has filled in.
pub const EMPTY_RESULT: ck_result = ck_result {
    struct_size: size_of::<ck_result>() as u32,
    status: OK,
    offset: 0,
    next_offset: 0,
    value: 0,
    buf: ck_buf {
        slices: std::ptr::null(),
        slices_len: 0,
        retained_bytes: 0,
        owner: std::ptr::null_mut(),
        release: None,
    },
    text_len: 0,
    reserved: 0,
    text: [0; TEXT_BYTES],
};

// On x86-64 and aarch64 alike; the test against the header checks what a C compiler makes of it.
const _: () = {
    assert!(size_of::<*const u8>() == 8 && align_of::<u64>() == 8);
    assert!(size_of::<ck_slice>() == 16);
    assert!(size_of::<ck_buf>() == 40);
    assert!(size_of::<ck_result>() == 288 && offset_of!(ck_result, text) == 80);
    assert!(size_of::<ck_log_id>() == 24);
    assert!(size_of::<ck_state>() == 56);
    assert!(size_of::<ck_segment>() == 40);
    assert!(size_of::<ck_usage>() == 48);
    assert!(size_of::<ck_start_args>() == 40);
    assert!(size_of::<ck_engine_info>() == 24);
    assert!(size_of::<ck_log_args>() == 48);
    assert!(size_of::<ck_log_info>() == 24);
    assert!(size_of::<ck_append_args>() == 56);
    assert!(size_of::<ck_read_args>() == 32);
    assert!(size_of::<ck_meta>() == 32);
    assert!(size_of::<ck_host>() == 64);
    assert!(size_of::<ck_plugin>() == 248 && offset_of!(ck_plugin, engine_start) == 64);
    assert!(PLUGIN_BYTES_OF_1_0 == 240);
};
