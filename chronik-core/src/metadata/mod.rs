//! What the cluster knows of itself: brokers, topics, partitions, configurations, features.
//!
//! A change is *decided* against an immutable [`image::Image`] ([`controller`]), written as [`records`], and takes effect
//! only by [`apply`]: running and recovering share that one path. Whoever carries the records — one node's log, or Raft
//! ([`raft`]) — is not known to those.
//!
//! **Invariants.** The same records in the same order give the same image on every node. A leader epoch never falls for a
//! topic id. A record that is not understood is refused, never skipped: a broker that skipped a fact would lie about it
//! from then on.

pub mod apply;
pub mod broker_config;
pub mod controller;
pub mod describe_config;
pub mod dynamic_broker_config;
pub mod engines;
pub mod image;
pub mod names;
pub mod raft;
pub mod records;
pub mod requests;
pub mod snapshot;
pub mod topic_config;

#[cfg(test)]
mod entries_story;
#[cfg(test)]
mod nodes_story;
#[cfg(test)]
mod story;

pub use apply::{ApplyError, Change, Delta, Entry, Stale};
pub use engines::{EngineTraits, StorageEngines};
pub use image::{Broker, ClusterDefaults, ConfigResource, Image, Listener, Partition, Position, Topic};
pub use records::{Facts, Record};
pub use topic_config::TopicConfig;
