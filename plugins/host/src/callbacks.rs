//! The host's table: what a plug-in may call. Each function only checks and enqueues.

use crate::log::Op;
use crate::reaper;
use crate::slots::{self, Named};
use chronik_plugin_abi as abi;
use chronik_plugin_abi::{EMPTY_RESULT, ck_host, ck_result};
use std::mem::{MaybeUninit, offset_of, size_of};
use std::panic::catch_unwind;
use std::slice;

pub(crate) const HOST_TABLE: ck_host = ck_host {
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

pub(crate) static HOST: ck_host = HOST_TABLE;

/// A plug-in's lines are cut to what a line may reasonably have.
const LINE_BYTES_MAX: u64 = 4096;

/// The result in place, or where it is one of another version, what it has of this one's, in `known`.
///
/// # Safety
/// `result` is null or points at a result that begins with its size, and stays as it is for as long as
/// the answer is used.
pub(crate) unsafe fn result_of(result: *const ck_result, known: &mut MaybeUninit<ck_result>) -> Option<&ck_result> {
    if result.is_null() {
        return None;
    }
    // SAFETY: not null; the contract puts the size first.
    let given = unsafe { result.cast::<u32>().read_unaligned() } as usize;
    // Without room for a text it is no result of any version.
    if given < offset_of!(ck_result, text) {
        return None;
    }
    if given >= size_of::<ck_result>() && result.is_aligned() {
        // SAFETY: it says that it has so many bytes; any bits are a valid result, functions being nullable.
        return Some(unsafe { &*result });
    }
    let known = known.write(EMPTY_RESULT);
    // SAFETY: so many bytes are in both; any bits are a valid result, as above.
    unsafe {
        let bytes = given.min(size_of::<ck_result>());
        std::ptr::copy_nonoverlapping(result.cast::<u8>(), std::ptr::from_mut(known).cast::<u8>(), bytes);
    }
    Some(known)
}

unsafe extern "C" fn complete(context: u64, result: *const ck_result) {
    // A panic of ours must not cross into the plug-in; the call then stays unanswered, and its deadline ends it.
    let _panicked = catch_unwind(|| {
        reaper::in_callback(|| {
            let mut known = MaybeUninit::uninit();
            // SAFETY: the plug-in calls this with a result that lasts until it returns, as the contract says.
            let result = unsafe { result_of(result, &mut known) };
            match slots::take_completed(context) {
                Named::Call(op) => Op::completed(op, result),
                Named::GivenUp(op) => op.log.complain("completes a call after its time"),
                Named::Stray(stray) => match stray.log() {
                    Some(log) => drop(log.fail_for("completed a call twice")),
                    None => tracing::error!(context, "a plug-in completes a call that is not pending"),
                },
            }
        });
    });
}

unsafe extern "C" fn ready(log_context: u64) {
    let _panicked = catch_unwind(|| {
        reaper::in_callback(|| match slots::find_log(log_context) {
            Some(log) => log.ready(),
            None => tracing::warn!(log_context, "a plug-in says that a log is ready which is not open"),
        });
    });
}

unsafe extern "C" fn keep(context: u64) -> u64 {
    catch_unwind(|| slots::keep(context)).unwrap_or(0)
}

unsafe extern "C" fn release(kept: u64) {
    let _panicked = catch_unwind(|| {
        reaper::in_callback(|| {
            if !slots::release(kept) {
                tracing::error!(kept, "a plug-in releases what it does not keep");
            }
        });
    });
}

unsafe extern "C" fn log(level: u32, text: *const u8, len: u64) {
    let _panicked = catch_unwind(|| {
        if text.is_null() {
            return;
        }
        // SAFETY: not null; the plug-in vouches for `len` bytes, of which no more than a line's are looked at.
        let bytes = unsafe { slice::from_raw_parts(text, len.min(LINE_BYTES_MAX) as usize) };
        let text = String::from_utf8_lossy(bytes);
        match level {
            abi::LOG_ERROR => tracing::error!(target: "chronik::plugin", "{text}"),
            abi::LOG_WARN => tracing::warn!(target: "chronik::plugin", "{text}"),
            abi::LOG_INFO => tracing::info!(target: "chronik::plugin", "{text}"),
            _ => tracing::debug!(target: "chronik::plugin", "{text}"),
        }
    });
}
