//! Storage plug-ins as [`chronik_core::wal::WalEngine`]s.
//!
//! A plug-in is native code in the broker's process: it is trusted as the broker is, and nothing here is a sandbox. What
//! this crate does is to turn the mistakes that plug-ins make into sentences: a file that should not be loaded is refused
//! before any of its code runs ([`load`]), a table that cannot work before its first function is called ([`plugin`]), and a
//! plug-in that breaks the contract loses the log that it broke, with the reason, while the broker goes on ([`log`]).
//!
//! What must stay true:
//! * No pointer of ours goes out as a context, so a completion that comes twice, late or never cannot touch freed memory
//!   ([`slots`]).
//! * What a pending call points at lives until it has completed, even if that is never.
//! * No lock is held while a plug-in runs, except that lifecycle calls of an engine take turns.
//! * Callbacks check and enqueue; they never call into the plug-in, not even to release a buffer ([`reaper`]).
//! * A plug-in is never unloaded: its threads may run for ever.

mod buffer;
mod callbacks;
mod engine;
mod judge;
mod lifecycle;
mod load;
mod locale;
mod log;
mod minor;
mod plugin;
mod reaper;
mod slots;

pub use chronik_plugin_abi::CAP_SET_ASIDE;
pub use engine::{PluginEngine, PluginOptions, StartError, Verify};
pub use load::{NotLoaded, is_library};
pub use locale::locale;
pub use minor::HostMinor;
pub use plugin::{NotUsable, PluginInfo};
