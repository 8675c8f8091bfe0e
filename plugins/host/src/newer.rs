//! Arguments as a later host would pass them: larger, with fields at the end that nobody knows yet.
//!
//! Structs only grow at their end, so a plug-in must take larger ones and ignore the rest. Since there is no later host yet,
//! this one can pose as it, for the kit that judges plug-ins: its table names a higher minor version and capabilities that
//! nobody knows, and sizes are larger by what really follows, so that even copying a whole struct reads nothing foreign.

use crate::callbacks::{HOST, HOST_TABLE};
use chronik_plugin_abi as abi;
use chronik_plugin_abi::ck_host;
use std::mem::size_of;

/// Room for eight more fields, in every struct.
const BEYOND: usize = 8;
/// What a plug-in finds in fields that it does not know: anything.
const FILLED: u64 = u64::MAX;

/// A struct, and what a later version might have after it.
#[repr(C)]
pub(crate) struct Grown<T> {
    pub known: T,
    beyond: [u64; BEYOND],
}

impl<T> Grown<T> {
    pub fn new(known: T) -> Self {
        Self { known, beyond: [FILLED; BEYOND] }
    }
}

/// What a struct's size is said to be.
pub(crate) fn size<T>(newer: bool) -> u32 {
    (if newer { size_of::<Grown<T>>() } else { size_of::<T>() }) as u32
}

static NEWER: Grown<ck_host> = Grown {
    known: ck_host {
        struct_size: size_of::<Grown<ck_host>>() as u32,
        abi_minor: abi::ABI_MINOR + 1,
        capabilities: u64::MAX,
        ..HOST_TABLE
    },
    beyond: [FILLED; BEYOND],
};

/// The table that a plug-in's entry gets.
pub(crate) fn host(newer: bool) -> &'static ck_host {
    if newer { &NEWER.known } else { &HOST }
}
