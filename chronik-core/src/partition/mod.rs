//! What a partition's leader decides.
//!
//! - [`producers`]: who may append which sequence (idempotence).
//! - [`epochs`]: which leader wrote which offsets.
//! - [`leader`]: ends, watermark and acknowledgements.
//! - [`recovery`]: rebuilding the above from a log after a restart.
//! - [`retention`]: what a log may forget.
//! - [`checkpoint`]: the bytes that the above are saved as.
//!
//! [`crate::driver`] turns the leader's decisions into calls on a log.

pub mod checkpoint;
pub mod epochs;
pub mod leader;
pub mod producers;
pub mod recovery;
pub mod retention;
