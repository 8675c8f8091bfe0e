//! The replicas on this broker: the host around [`chronik_core::driver`].
//!
//! - [`anatomy`]: where the time of acknowledged records goes.
//! - [`partition`]: one partition: its lock, its inbox, its waiters.
//! - [`table`]: all of them, by topic id; opened, made leaders or followers, and deleted as the metadata says.
//! - [`recovery`]: reading a log back.
//! - [`stall`]: what keeps a slow write from holding up everyone.
//! - [`throttle`]: how fast replicas catch up, where that is limited.
//! - [`timer`]: for the deadlines of a partition.
//! - [`upkeep`]: retention, rolling, checkpoints and the forgetting of producers, on a timer.

pub mod anatomy;
#[cfg(test)]
pub(crate) mod failing;
pub mod partition;
pub mod recovery;
pub mod stall;
pub mod table;
pub mod throttle;
pub mod timer;
pub mod upkeep;

pub use partition::Partition;
pub use table::PartitionTable;

/// The replication channel of a node that is alone.
pub struct NoPeers;

impl chronik_core::replication::ReplicationChannel for NoPeers {
    fn send(&self, _: chronik_core::ids::NodeId, _: chronik_core::ids::LogId, _: chronik_core::replication::Message) {}
}

#[cfg(test)]
mod tests;
