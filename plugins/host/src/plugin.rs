//! A plug-in's table, checked: after this, every function that the host may call is there.

use crate::minor::HostMinor;
use chronik_plugin_abi as abi;
use chronik_plugin_abi::{ck_entry, ck_plugin, ck_slice};
use std::mem::{MaybeUninit, offset_of};
use std::slice;

/// A plug-in's name and version are for people.
const NAME_BYTES_MAX: u64 = 128;

/// Why a plug-in's table cannot be used. None of its functions has been called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotUsable {
    #[error("the plug-in refused to work with this broker (its entry returned NULL); its own message is in the log")]
    Declined,
    #[error("the plug-in's table does not begin with the magic number: {found:#018x} instead of {:#018x}", abi::MAGIC)]
    Magic { found: u64 },
    #[error(
        "the plug-in speaks version {found} of the interface, this broker {}: {}",
        abi::ABI_MAJOR,
        if *found < abi::ABI_MAJOR { "build it again with this broker's header" } else { "it needs a newer broker" }
    )]
    Major { found: u16 },
    #[error(
        "the plug-in's table has {found} bytes, but that of version {}.0 has {needed}, and later ones only grow",
        abi::ABI_MAJOR
    )]
    Short { found: u32, needed: usize },
    #[error("the plug-in requires capabilities that this broker does not have (bits {unknown:#x})")]
    Requires { unknown: u64 },
    #[error("the plug-in requires capabilities that it does not have itself (bits {missing:#x})")]
    Contradicts { missing: u64 },
    #[error("the plug-in has no function `{function}`")]
    Missing { function: &'static str },
    #[error("the plug-in's {what} is not short text in UTF-8")]
    Text { what: &'static str },
}

/// What a plug-in says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginInfo {
    pub name: String,
    pub version: String,
    pub abi_major: u16,
    pub abi_minor: u16,
    /// `CAP_…` bits, those that this host knows.
    pub capabilities: u64,
}

macro_rules! functions {
    ($($name:ident: $signature:ty,)*; $($optional:ident: $bit:ident: $optional_signature:ty,)*) => {
        /// The functions of a checked table. Optional ones are there if the capability is.
        #[derive(Clone, Copy)]
        pub(crate) struct Functions {
            $(pub $name: $signature,)*
            $(pub $optional: Option<$optional_signature>,)*
        }

        impl Functions {
            fn of(table: &ck_plugin) -> Result<Self, NotUsable> {
                Ok(Self {
                    $($name: table.$name.ok_or(NotUsable::Missing { function: stringify!($name) })?,)*
                    $($optional: match table.$optional {
                        _ if table.capabilities & abi::$bit == 0 => None,
                        None => return Err(NotUsable::Missing { function: stringify!($optional) }),
                        given => given,
                    },)*
                })
            }
        }
    };
}

use abi::{
    ck_append_args, ck_engine_info, ck_log_args, ck_log_id, ck_log_info, ck_meta, ck_read_args, ck_result, ck_segment,
    ck_start_args, ck_state, ck_usage,
};
use std::ffi::c_void;

functions! {
    engine_start: unsafe extern "C" fn(*const ck_start_args, *mut ck_engine_info, *mut ck_result) -> i32,
    engine_close: unsafe extern "C" fn(*mut c_void, *mut ck_result) -> i32,
    engine_list: unsafe extern "C" fn(*mut c_void, *mut ck_result) -> i32,
    engine_usage: unsafe extern "C" fn(*mut c_void, *mut ck_usage),
    log_open: unsafe extern "C" fn(*mut c_void, *const ck_log_args, *mut ck_log_info, *mut ck_result) -> i32,
    log_delete: unsafe extern "C" fn(*mut c_void, *const ck_log_id, *mut ck_result) -> i32,
    log_state: unsafe extern "C" fn(*mut c_void, *mut ck_state),
    append: unsafe extern "C" fn(*mut c_void, *const ck_append_args, u64, *mut ck_result) -> i32,
    sync: abi::ck_offset_call,
    read: unsafe extern "C" fn(*mut c_void, *const ck_read_args, u64, *mut ck_result) -> i32,
    truncate_suffix: abi::ck_offset_call,
    truncate_prefix: abi::ck_offset_call,
    reset: abi::ck_offset_call,
    offset_for_timestamp: abi::ck_offset_call,
    meta_put: unsafe extern "C" fn(*mut c_void, *const ck_meta, u64, u64, *mut ck_result) -> i32,
    meta_get: unsafe extern "C" fn(*mut c_void, *const ck_slice, u64, *mut ck_result) -> i32,
    log_close: unsafe extern "C" fn(*mut c_void, u64, *mut ck_result) -> i32,
    log_release: unsafe extern "C" fn(*mut c_void),
    ;
    write_queued: CAP_WRITE_QUEUED: unsafe extern "C" fn(*mut c_void),
    segments: CAP_SEGMENTS: unsafe extern "C" fn(*mut c_void, *mut ck_segment, u64) -> u64,
    roll: CAP_SEGMENTS: unsafe extern "C" fn(*mut c_void),
    set_segment_bytes: CAP_SEGMENTS: unsafe extern "C" fn(*mut c_void, u64),
    log_set_aside: CAP_SET_ASIDE: unsafe extern "C" fn(*mut c_void, *const ck_log_id, *mut ck_result) -> i32,
}

/// A plug-in whose functions may be called.
#[derive(Clone)]
pub(crate) struct Plugin {
    pub info: PluginInfo,
    pub functions: Functions,
}

impl Plugin {
    /// Calls the entry and checks what it returns.
    ///
    /// # Safety
    /// `entry` is what [`abi::ENTRY_SYMBOL`] names in a library that stays loaded, and keeps the contract as far as memory goes.
    pub unsafe fn enter(entry: ck_entry, host: HostMinor) -> Result<Self, NotUsable> {
        // SAFETY: by the caller; the host's table is static.
        let table = unsafe { entry(host.host()) };
        if table.is_null() {
            return Err(NotUsable::Declined);
        }
        // SAFETY: whatever else it is, a table begins with a magic number of eight bytes; unaligned since it may be none.
        let magic = unsafe { table.cast::<u64>().read_unaligned() };
        if magic != abi::MAGIC {
            return Err(NotUsable::Magic { found: magic });
        }
        // SAFETY: with the right magic the head of the table is there, which is the same in every version.
        let (found, major) = unsafe {
            let at = table.cast::<u8>();
            (
                at.add(offset_of!(ck_plugin, struct_size)).cast::<u32>().read_unaligned(),
                at.add(offset_of!(ck_plugin, abi_major)).cast::<u16>().read_unaligned(),
            )
        };
        if major != abi::ABI_MAJOR {
            return Err(NotUsable::Major { found: major });
        }
        let needed = abi::PLUGIN_BYTES_OF_1_0;
        if (found as usize) < needed {
            return Err(NotUsable::Short { found, needed });
        }
        let bytes = (found as usize).min(host.table_bytes());
        // What an earlier version does not have is as if zero.
        let mut known = MaybeUninit::<ck_plugin>::zeroed();
        // SAFETY: it says that it is at least so large, and ours is. Functions are nullable in the struct, so any bits are
        // valid, zero among them.
        let known = unsafe {
            std::ptr::copy_nonoverlapping(table.cast::<u8>(), known.as_mut_ptr().cast::<u8>(), bytes);
            known.assume_init()
        };
        Self::of(&known, host.capabilities())
    }

    fn of(table: &ck_plugin, known: u64) -> Result<Self, NotUsable> {
        let unknown = table.required & !known;
        if unknown != 0 {
            return Err(NotUsable::Requires { unknown });
        }
        let missing = table.required & !table.capabilities;
        if missing != 0 {
            return Err(NotUsable::Contradicts { missing });
        }
        // Of the others nobody knows what they would ask for.
        let capabilities = table.capabilities & known;
        let functions = Functions::of(&ck_plugin { capabilities, ..*table })?;
        let info = PluginInfo {
            name: text(&table.name).ok_or(NotUsable::Text { what: "name" })?,
            version: text(&table.version).ok_or(NotUsable::Text { what: "version" })?,
            abi_major: table.abi_major,
            abi_minor: table.abi_minor,
            capabilities,
        };
        Ok(Self { info, functions })
    }
}

fn text(given: &ck_slice) -> Option<String> {
    if given.at.is_null() || given.len == 0 || given.len > NAME_BYTES_MAX {
        return None;
    }
    // SAFETY: not null and short; the table's author vouches that the bytes are there, as for the table itself.
    let bytes = unsafe { slice::from_raw_parts(given.at, given.len as usize) };
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}
