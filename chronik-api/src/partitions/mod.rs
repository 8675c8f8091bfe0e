//! The partitions that this broker leads: the host around [`chronik_core::driver`].
//!
//! - [`partition`]: one partition: its lock, its inbox, its waiters.
//! - [`table`]: all of them, by topic id; opened and deleted as the metadata says.
//! - [`stall`]: what keeps a slow write from holding up everyone.
//! - [`upkeep`]: retention, rolling, checkpoints and the forgetting of producers, on a timer.

pub mod partition;
pub mod stall;
pub mod table;
pub mod upkeep;

pub use partition::Partition;
pub use table::PartitionTable;
