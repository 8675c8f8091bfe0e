//! The plug-in's table, made from an [`Author`].

use crate::{Author, calls};
use chronik_plugin_abi as abi;
use chronik_plugin_abi::{ck_host, ck_plugin, ck_slice};
use std::sync::OnceLock;

/// What the entry returns. A static of the author's crate.
pub struct Table(ck_plugin);

// SAFETY: it points at static text and functions only, and nobody writes to it.
unsafe impl Sync for Table {}

static HOST: OnceLock<ck_host> = OnceLock::new();

/// The broker, once it has entered.
pub(crate) fn host() -> Option<&'static ck_host> {
    HOST.get()
}

const fn text(of: &'static str) -> ck_slice {
    ck_slice { at: of.as_ptr(), len: of.len() as u64 }
}

impl Table {
    pub const fn of<A: Author>() -> Self {
        let segments = if A::SEGMENTS { abi::CAP_SEGMENTS } else { 0 };
        let set_aside = if A::SETS_ASIDE { abi::CAP_SET_ASIDE } else { 0 };
        Self(ck_plugin {
            magic: abi::MAGIC,
            struct_size: size_of::<ck_plugin>() as u32,
            abi_major: abi::ABI_MAJOR,
            abi_minor: abi::ABI_MINOR,
            capabilities: segments | set_aside | abi::CAP_WRITE_QUEUED,
            // An engine may leave all its writing to this.
            required: abi::CAP_WRITE_QUEUED,
            name: text(A::NAME),
            version: text(A::VERSION),
            engine_start: Some(calls::engine_start::<A>),
            engine_close: Some(calls::engine_close),
            engine_list: Some(calls::engine_list),
            engine_usage: Some(calls::engine_usage),
            log_open: Some(calls::log_open),
            log_delete: Some(calls::log_delete),
            log_state: Some(calls::log_state),
            append: Some(calls::append),
            write_queued: Some(calls::write_queued),
            sync: Some(calls::sync),
            read: Some(calls::read),
            truncate_suffix: Some(calls::truncate_suffix),
            truncate_prefix: Some(calls::truncate_prefix),
            reset: Some(calls::reset),
            offset_for_timestamp: Some(calls::offset_for_timestamp),
            meta_put: Some(calls::meta_put),
            meta_get: Some(calls::meta_get),
            segments: Some(calls::segments),
            roll: Some(calls::roll),
            set_segment_bytes: Some(calls::set_segment_bytes),
            log_close: Some(calls::log_close),
            log_release: Some(calls::log_release),
            log_set_aside: Some(calls::log_set_aside),
        })
    }
}

/// What [`crate::export_engine`]'s entry does: remembers the host, if it is one that this was built for.
///
/// `host` is what the broker passed to the entry: null, or its table, which lives as long as the process.
#[allow(clippy::not_unsafe_ptr_arg_deref, reason = "only the exported entry calls it, with what the broker passed")]
pub fn enter(host: *const ck_host, table: &'static Table) -> *const ck_plugin {
    if host.is_null() {
        return std::ptr::null();
    }
    // SAFETY: not null; every version of the host's table begins with these two, and this many bytes.
    let (magic, size, major) = unsafe {
        let head = host.cast::<u8>();
        (
            head.cast::<u64>().read_unaligned(),
            head.add(8).cast::<u32>().read_unaligned() as usize,
            head.add(12).cast::<u16>().read_unaligned(),
        )
    };
    if magic != abi::MAGIC || major != abi::ABI_MAJOR || size < size_of::<ck_host>() {
        return std::ptr::null();
    }
    // SAFETY: it says that it is at least this large, and it is a host's by its magic number.
    HOST.get_or_init(|| unsafe { host.read_unaligned() });
    &raw const table.0
}
