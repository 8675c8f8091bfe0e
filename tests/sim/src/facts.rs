//! What happens in the world, as those see it who judge it: plain facts, told by hosts, clients and the driver.

use chronik_core::driver::Standing;
use chronik_core::ids::{LeaderEpoch, LogId, NodeId, Offset};
use chronik_core::metadata::Image;
use std::sync::Arc;

/// A batch as it lies in a log, told apart by its checksum: every batch of a story is unlike any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    pub base: Offset,
    pub next: Offset,
    pub epoch: LeaderEpoch,
    /// Of the batch, header included.
    pub crc: u32,
    pub producer: i64,
    pub sequence: i32,
    pub last_sequence: i32,
}

/// One replica in one life of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Replica {
    pub node: NodeId,
    /// Which life of the node's process.
    pub life: u64,
    pub log: LogId,
}

#[derive(Clone, Debug)]
pub enum Fact {
    /// A log was opened with this in it; from some offset on it cannot be read, or all of it can.
    Opened { replica: Replica, start: Offset, end: Offset, runs: Vec<Placed>, unreadable_from: Option<Offset> },
    /// Ordered at the log's end.
    Appended { replica: Replica, run: Placed },
    /// What reaches past `from` is gone.
    Cut { replica: Replica, from: Offset },
    /// Everything is gone, and the log begins there.
    Reset { replica: Replica, start: Offset },
    /// What lies before `start` may be gone.
    Trimmed { replica: Replica, start: Offset },
    /// The log's durable end.
    Durable { replica: Replica, end: Offset },
    /// Where a replica stands, after any change.
    Stands { replica: Replica, standing: Standing },
    /// The replica's log is deleted, because the metadata says so.
    Deleted { replica: Replica },
    /// Somebody, or the disk by itself, has taken away something of that log, or written into it.
    Spoiled { node: NodeId, log: String },
    /// A node's process has ended. With `power`, what was not synced may be gone; with `disk`, all is.
    Ended { node: NodeId, power: bool, disk: bool },
    /// A producer was told that its batch is stored on all that are in sync, there.
    /// `epoch`: in which the leader was when it took the batch.
    Acknowledged { log: LogId, epoch: LeaderEpoch, producer: i64, sequence: i32, base: Offset, crc: u32 },
    /// A producer has sent again what it had on its way, and was told that it is stored, but not where.
    ToldNoPlace { log: LogId, producer: i64, sequence: i32 },
    /// A consumer was given these, as committed. `from`: where it had asked.
    Read { consumer: u64, node: NodeId, epoch: LeaderEpoch, log: LogId, from: Offset, batches: Vec<Placed> },
    /// A leader that knows all that was shown before says where the log ends for consumers.
    Latest { node: NodeId, log: LogId, epoch: LeaderEpoch, high_watermark: Offset },
    /// A node's image after an entry of the metadata, and what tells that entry from others.
    Applied { node: NodeId, index: u64, term: u64, content: u64, image: Arc<Image> },
    /// A snapshot was installed instead.
    Installed { node: NodeId, index: u64, image: Arc<Image> },
    /// A node leads the metadata's group, and may act.
    Controls { node: NodeId, life: u64, term: u64 },
    /// A member of the group was given its share.
    Assigned { generation: i32, member: String, logs: Vec<LogId> },
    /// A member, or with a negative generation nobody, was told that the group's offset is stored. `of` and `epoch`: which
    /// log the coordinator wrote to, and in which epoch it led that.
    OffsetCommitted { of: LogId, epoch: LeaderEpoch, generation: i32, log: LogId, offset: Offset },
    /// Somebody was told of the group's offset.
    OffsetFetched { of: LogId, epoch: LeaderEpoch, log: LogId, offset: Option<i64> },
    /// From here on everything is well.
    Healed,
}
