//! Minor versions of the interface: what a host of another one would pass, and know of a plug-in's table.
//!
//! Structs only grow at their end, so a plug-in must take larger ones and ignore the rest, and must do without what a host
//! does not know yet. This host can pose as others, for the kit that judges plug-ins. There is no later one yet: as that, its
//! table names a higher minor version and capabilities that nobody knows, and sizes are larger by what really follows, so
//! that even copying a whole struct reads nothing foreign. As the earliest it knows, and looks at, what 1.0 had.

use crate::callbacks::{HOST, HOST_TABLE};
use chronik_plugin_abi as abi;
use chronik_plugin_abi::{ck_host, ck_plugin};
use std::mem::size_of;

/// Which minor version of the interface a host speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostMinor {
    /// This one's.
    #[default]
    Own,
    /// The first of this major version.
    Earliest,
    /// One that there is not yet.
    Later,
}

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

static EARLIEST: ck_host = ck_host { abi_minor: 0, capabilities: abi::CAPS_OF_1_0, ..HOST_TABLE };

static LATER: Grown<ck_host> = Grown {
    known: ck_host {
        struct_size: size_of::<Grown<ck_host>>() as u32,
        abi_minor: abi::ABI_MINOR + 1,
        capabilities: u64::MAX,
        ..HOST_TABLE
    },
    beyond: [FILLED; BEYOND],
};

impl HostMinor {
    /// What the size of an argument struct is said to be. No struct but the plug-in's table has grown since 1.0.
    pub(crate) fn size<T>(self) -> u32 {
        (if self == Self::Later { size_of::<Grown<T>>() } else { size_of::<T>() }) as u32
    }

    /// The table that a plug-in's entry gets.
    pub(crate) fn host(self) -> &'static ck_host {
        match self {
            Self::Own => &HOST,
            Self::Earliest => &EARLIEST,
            Self::Later => &LATER.known,
        }
    }

    /// The capabilities that mean something to it.
    pub(crate) fn capabilities(self) -> u64 {
        if self == Self::Earliest { abi::CAPS_OF_1_0 } else { abi::CAPS_KNOWN }
    }

    /// How much of a plug-in's table it looks at.
    pub(crate) fn table_bytes(self) -> usize {
        if self == Self::Earliest { abi::PLUGIN_BYTES_OF_1_0 } else { size_of::<ck_plugin>() }
    }
}
