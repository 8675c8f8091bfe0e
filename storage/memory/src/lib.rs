//! Logs kept in memory: the reference model of [`chronik_core::wal`].
//!
//! **Why it exists.** To say what the contract means in code short enough to be read and believed; to be compared against
//! by engines that are neither; and to run a broker that keeps nothing.
//!
//! **What must stay true.** Every call completes at once ([`chronik_core::pending::Started::Now`]) and happens whole under
//! its log's lock. What an engine counts never exceeds its `bytes_max`: an append that would is refused as
//! [`chronik_core::wal::Refused::Full`]. Runs share the caller's bytes: whoever appends a small slice of a large buffer
//! keeps the large buffer alive.

#![forbid(unsafe_code)]

mod engine;
mod log;
mod runs;

pub use engine::MemoryEngine;
