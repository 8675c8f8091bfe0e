//! What a coordinator of classic groups decides: membership, rebalances, committed offsets.
//!
//! - [`coordinator`]: the machine of one `__consumer_offsets` partition: commands in, effects out, time.
//! - [`joining`], [`membership`], [`offsets`]: its commands.
//! - [`journal`]: from a decision to the log, and what is committed back into the state; also when a log is read back.
//! - [`snapshot`]: when and how a log is cut down to what is live.
//! - [`state`], [`members`], [`committed`]: one group.
//! - [`records`]: Kafka's own formats in `__consumer_offsets`, byte for byte.
//! - [`subscription`]: the little that a coordinator must know of what consumers tell each other.
//!
//! **What is kept, and what is not.** Offsets and finished generations are records: they count once they are committed,
//! and a reply that depends on them is held back until then. Who is joining right now is not: it lives in memory, as in
//! Kafka, and a coordinator that is rebuilt starts from the last finished generation.

pub mod committed;
pub mod coordinator;
pub mod joining;
pub mod journal;
pub mod members;
pub mod membership;
pub mod offsets;
pub mod records;
pub mod snapshot;
pub mod state;
pub mod subscription;

#[cfg(test)]
mod tests;

pub use coordinator::{Coordinator, Effect, GroupError, Reply, Settings};

/// Which partition of `__consumer_offsets` coordinates a group: by the hash of Java's strings, which is over UTF-16.
pub fn coordinator_partition(group: &str, partitions: i32) -> i32 {
    let hash = group.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    (hash & i32::MAX) % partitions.max(1)
}
