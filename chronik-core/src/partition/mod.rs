//! What a partition's leader and its followers decide.
//!
//! - [`producers`]: who may append which sequence (idempotence).
//! - [`epochs`]: which leader wrote which offsets.
//! - [`leader`]: ends, watermark and acknowledgements.
//! - [`follower`]: attaching to a leader, cutting what it does not have, and taking in its records.
//! - [`replicas`]: what a leader knows of its followers, and whom the watermark counts.
//! - [`stream`]: what one follower is sent next, and when.
//! - [`recovery`]: rebuilding the above from a log after a restart.
//! - [`retention`]: what a log may forget.
//! - [`checkpoint`]: the bytes that the above are saved as.
//!
//! [`crate::driver`] turns the leader's decisions into calls on a log.

pub mod checkpoint;
pub mod epochs;
pub mod follower;
pub mod leader;
pub mod producers;
pub mod recovery;
pub mod replicas;
#[cfg(test)]
mod replicated;
pub mod retention;
pub mod stream;
