//! The host of the cluster's metadata: a log, the image it makes, and the one task that changes either.
//!
//! - [`log`]: the handle that everyone else holds: look at the image, propose a change, hear of changes.
//! - [`writer`]: the task: decide, write, sync, apply, tell; and the snapshots that bound the log.
//! - [`runs`]: how records lie in the log, and how they are read back.
//! - [`creation`]: topics that the broker itself creates.
//! - [`producer_ids`]: numbers for idempotent producers, from durably reserved blocks.
//! - [`settings`]: the configuration file in Kafka's names.

pub mod creation;
pub mod log;
pub mod producer_ids;
pub mod random;
mod runs;
pub mod settings;
pub(crate) mod writer;

#[cfg(test)]
mod tests;

pub use creation::Creation;
pub use log::{Applied, MetadataLog, OpenError, Options, ProposeError};
pub use producer_ids::{NoProducerId, ProducerIds};
