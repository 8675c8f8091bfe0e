//! The heart of chronik: the traits a broker acts through and the machines that decide.
//!
//! **Invariant: this crate knows nothing of the outside.** It names no runtime, socket, file, clock or ambient randomness;
//! its `Cargo.toml` is the fence. Machines are closed functions of `(now, input)`: they return or queue effects as data,
//! and a driver at the edge (the broker, or a simulator) turns those effects into calls on the traits and reports what
//! became of them as further inputs. Nothing here waits, locks or spawns, and every map is ordered, so that the same
//! inputs give the same effects on every machine, every time.
//!
//! **Invariant: the disk is a peer.** What depends on durability — an acknowledgement, a watermark — is not created
//! until durability is reported, so no driver can send it early.
//!
//! The map:
//!
//! - [`ids`], [`time`], [`payload`]: the vocabulary: newtypes, and the rope that record bytes travel in.
//! - [`wal`], [`pending`]: the storage contract and how its calls complete.
//! - [`batch`]: Kafka's record batch v2: a small owned header before shared bytes.
//! - [`mod@crc32c`]: the checksum of batches and of all that is kept.
//! - [`metadata`]: what the cluster knows of itself: records, the image they make, and what a controller decides.
//! - [`partition`], [`driver`]: what a partition leader decides, and how that becomes calls on a log.
//! - [`raft_transport`]: what nodes say to each other about the metadata.
//! - [`replication`]: what leaders and followers say to each other.
//! - [`throttle`]: how fast replicas may catch up, where that is limited.
//! - [`group`]: what a group coordinator decides.

#![forbid(unsafe_code)]

pub mod batch;
pub mod crc32c;
#[cfg(test)]
mod dice;
pub mod driver;
pub mod group;
pub mod ids;
pub mod metadata;
pub mod partition;
pub mod payload;
pub mod pending;
pub mod raft_transport;
pub mod replication;
pub mod throttle;
pub mod time;
pub mod wal;
