//! A storage engine in Rust as a plug-in.
//!
//! Implement the traits that built-in engines implement, [`wal::WalEngine`] and [`wal::Wal`], say how an engine starts
//! ([`Author`]), and export it from a crate of type `cdylib`:
//!
//! ```ignore
//! struct Mine;
//! impl chronik_plugin_sdk::Author for Mine { … }
//! chronik_plugin_sdk::export_engine!(Mine);
//! ```
//!
//! What must stay true: nothing but the C interface crosses, since the broker may be built by another compiler. Every entry
//! catches panics here, inside the plug-in (the crate must not be built with `panic = "abort"`). Threads that an engine
//! starts while it starts or opens a log inherit a mask that blocks all signals; others it starts with [`spawn`].

mod busy;
mod calls;
mod closing;
mod fill;
mod signals;
mod table;
#[cfg(test)]
mod tests;

pub use bytes;
pub use chronik_core::{crc32c, ids, payload, pending, time, wal};
pub use signals::spawn;
pub use table::{Table, enter};

pub use chronik_plugin_abi as abi;

use chronik_core::wal::WalEngine;
use std::path::Path;

/// Who brings an engine.
pub trait Author: 'static {
    /// Short; for people.
    const NAME: &'static str;
    const VERSION: &'static str;
    /// Whether the engine's logs answer [`wal::Wal::segmented`].
    const SEGMENTS: bool;
    /// Whether [`wal::WalEngine::set_aside`] is implemented. Without it a log that is damaged stays offline: no other broker
    /// can fill it anew.
    const SETS_ASIDE: bool = false;
    type Engine: WalEngine + 'static;

    /// Starts an engine over a directory, which is there. `options` is the JSON object from the broker's configuration. The
    /// error is one sentence.
    fn start(directory: &Path, options: &str) -> Result<Self::Engine, String>;
}

/// Exports the plug-in's one symbol.
#[macro_export]
macro_rules! export_engine {
    ($author:ty) => {
        /// The plug-in's entry; see `chronik_plugin.h`.
        #[unsafe(no_mangle)]
        pub extern "C" fn chronik_plugin_v1(host: *const $crate::abi::ck_host) -> *const $crate::abi::ck_plugin {
            static TABLE: $crate::Table = $crate::Table::of::<$author>();
            // The host's table is what the broker passes, and lives as long as the process.
            $crate::enter(host, &TABLE)
        }
    };
}
