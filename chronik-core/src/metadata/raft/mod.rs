//! How all brokers come to hold the same metadata: one Raft group, as a machine without a socket, a disk or a clock.
//!
//! [`MetadataRaft`] wraps the `raft` crate. A driver at the edge owns it and does three things: calls
//! [`MetadataRaft::handle`] with whatever happened, then carries out every effect that [`MetadataRaft::poll_effect`] gives,
//! **in order**, and calls again with [`Input::Tick`] at [`MetadataRaft::deadline`]. Nothing in here waits.
//!
//! **The driver's part.**
//! - [`Effect::Persist`]: do what [`store::plan`] makes of it, step by step, and report [`Input::Persisted`] when all of it
//!   is durable. One at a time, in order; further effects need not wait for it, and should not. A step that fails ends the
//!   process: what is on disk is not known then.
//! - [`Effect::Apply`] and [`Effect::Install`]: in order, then [`Input::Applied`]. An entry that a proposer waits for is
//!   its own only if the term is the one that [`Effect::Proposed`] gave; at the same index with another term, it is lost.
//! - [`Effect::Send`]: best effort, and [`Input::Unreachable`] when the transport says so.
//! - [`Effect::TakeSnapshot`]: [`Input::SnapshotTaken`] with the image as of what has been applied, or
//!   [`Input::SnapshotFailed`].
//! - [`Effect::Stranger`]: ask that node who it is, and report [`Input::Introduced`]. Needed where this log has not come to
//!   the change by which the other joined.
//!
//! **Invariants.**
//! - *The disk is a peer.* A message that promises something (a vote, an acknowledgement, a candidacy) is not created until
//!   [`Input::Persisted`] has come for what it promises, nor is anything that a follower says, but that it hears its leader:
//!   for that the term is enough. Only a leader's own entries travel while its disk still writes them, and it counts itself
//!   among those who have them when its disk says so.
//! - *A configuration is not acted on before the disk knows it is committed.* Otherwise a node that restarts could take the
//!   configuration before for the last, and decide with a majority that is none.
//! - *Nobody campaigns on what is not durable or not applied*, and a node with another disk is another participant.
//! - *The same inputs and seed give the same effects*: election time-outs are drawn from the seed, by term and occasion.
//! - *Nothing that a peer can send ends the process* (see [`check`] for what that covers).

mod bootstrap;
mod check;
mod configuration;
mod entries;
mod members;
mod node;
mod outgoing;
mod requests;
mod snapshot;
pub mod store;
mod timeouts;
mod voters;

#[cfg(test)]
mod story;
#[cfg(test)]
mod world;

pub use bootstrap::{BadBootstrap, Bootstrap, FirstEffect, FirstInput, Found, PREPARED, Plan, Report, directory_id};
pub use check::{Dropped, INDEX_MAX, TERM_MAX};
pub use configuration::{BadChange, CHANGES_MAX, Change, Configuration};
pub use entries::{Content, Entry, Mark};
pub use members::{ADDRESS_BYTES_MAX, MEMBERS_MAX, Member, Members, RaftId};
pub use node::{MetadataRaft, OpenError, Progress};
pub use snapshot::Snapshot;
pub use store::Recovered;
pub use voters::{CAUGHT_UP_ENTRIES, VoterNext, VoterRefusal, VoterStep, VoterWaits, VoterWish};

use crate::ids::NodeId;
use bytes::Bytes;
use raft::eraftpb;
use std::time::Duration;

/// How a node is run. All nodes of a cluster should have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What the other times are counted in: a finer one means that fewer nodes stand for election together.
    pub tick: Duration,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// Ticks without a leader before an election, at least; twice as many at most. With the defaults a new leader is there
    /// in one to two seconds, which leaves three for a broker's session.
    pub election_ticks: usize,
    /// Ticks until a snapshot that was sent, and not answered, counts as lost.
    pub snapshot_ticks: u32,
    /// The largest proposal.
    pub entry_bytes_max: usize,
    /// The largest image. A snapshot travels in one message, and everyone keeps one in memory.
    pub snapshot_bytes_max: usize,
    /// A snapshot is asked for when entries since the last one come to this …
    pub snapshot_after_bytes: usize,
    /// … or to as many as this.
    pub snapshot_after_entries: usize,
    /// Entries kept behind a snapshot, so that a follower that is a little slow need not be sent all of it.
    pub keep_entries: usize,
    /// Bytes that may wait for a follower's disk; above it a leader's entries are dropped, and it sends them again.
    pub unpersisted_bytes_max: usize,
    /// Reads that may wait for a majority.
    pub reads_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            tick: Duration::from_millis(50),
            heartbeat_ticks: 2,
            election_ticks: 20,
            // 8 MiB over a slow link.
            snapshot_ticks: 200,
            // A change may bring 8 MiB of records, and frames around them.
            entry_bytes_max: (8 << 20) + (64 << 10),
            // Some hundred thousand partitions.
            snapshot_bytes_max: 8 << 20,
            snapshot_after_bytes: 16 << 20,
            snapshot_after_entries: 10_000,
            keep_entries: 1_000,
            unpersisted_bytes_max: 64 << 20,
            reads_max: 1_024,
        }
    }
}

/// What has happened. Numbers are the caller's own, and come back in answers.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has come to [`MetadataRaft::deadline`].
    Tick,
    /// From a node whose identity the transport has checked.
    Message {
        from: NodeId,
        message: Box<eraftpb::Message>,
    },
    /// That node has said, under its checked identity, which disk it has.
    Introduced(Member),
    Unreachable {
        node: NodeId,
    },
    /// Most likely that node's process has ended. Only what is waited for goes by it: where it led, everyone who is told waits
    /// no longer than if it had been silent for an election's time already, and may vote. A mistake costs an election.
    Gone {
        node: NodeId,
    },
    /// Only a leader takes it. Answered by `Proposed` or `Refused`.
    Propose {
        number: u64,
        data: Bytes,
    },
    /// As above, for the configuration. One at a time.
    Change {
        number: u64,
        change: Change,
    },
    /// Up to which entry must have been applied, for an answer to be no older than this moment? Only a leader knows.
    /// Answered by `ReadReady` or `Refused`.
    Read {
        number: u64,
    },
    /// That persist effect, and all before it, is durable.
    Persisted {
        number: u64,
    },
    /// All entries up to this index have taken effect.
    Applied {
        index: u64,
    },
    /// The image after that entry, which has been applied.
    SnapshotTaken {
        index: u64,
        image: Bytes,
    },
    /// None can be taken now. It is asked for again when there is more to be cut.
    SnapshotFailed,
    /// To hand over leadership; given up after one election time. Proposals are refused meanwhile.
    TransferLeader {
        to: NodeId,
    },
    /// To stand for election without waiting: for a cluster's first moment.
    Campaign,
}

/// What is to be done, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Send {
        to: NodeId,
        message: Box<eraftpb::Message>,
    },
    Persist(Box<Persist>),
    /// In place of everything applied so far.
    Install(Box<Snapshot>),
    Apply(Vec<Committed>),
    /// The entry has that place, and is not committed yet.
    Proposed {
        number: u64,
        at: Mark,
    },
    Refused {
        number: u64,
        why: Refusal,
    },
    ReadReady {
        number: u64,
        index: u64,
    },
    Role(Role),
    TakeSnapshot,
    /// The image was larger than a snapshot may be; the log stays long.
    SnapshotTooLarge {
        bytes: usize,
        max: usize,
    },
    /// A message came from a node that is not known to have the Raft id it used.
    Stranger {
        node: NodeId,
    },
}

/// What must be durable; a member that is `None` or empty stays as it is. [`store::plan`] has the order: hard state →
/// snapshot → truncate → append → sync.
#[derive(Clone, Debug, PartialEq)]
pub struct Persist {
    pub number: u64,
    pub hard_state: Option<HardState>,
    pub snapshot: Option<SnapshotChange>,
    /// Entries from this index on are another leader's, and go.
    pub truncate_from: Option<u64>,
    pub entries: Vec<Entry>,
}

/// What is promised to be remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    pub term: u64,
    /// Whom this node voted for in that term.
    pub vote: Option<RaftId>,
    /// At least so much is committed. Written with the other two, and before a change of the configuration is applied; not
    /// otherwise, so the truth may be later.
    pub commit: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum SnapshotChange {
    /// A leader's, in place of the whole log.
    Received(Snapshot),
    /// Our own: entries up to `cut` go.
    Taken { snapshot: Snapshot, cut: Mark },
}

/// An entry that will never be taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub at: Mark,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Empty,
    Data(Bytes),
    /// In effect from here on; `None` where the entry was not understood or contradicts the configuration before, which
    /// then stays, on every node.
    Membership(Option<Box<Membership>>),
}

/// The configuration, and who its members are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    pub configuration: Configuration,
    pub members: Members,
}

/// Why a request was not taken. Nothing has happened, unless it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("another node leads")]
    NotLeader { leader: Option<NodeId> },
    /// Too much is not committed yet, or leadership is being handed over. Try again.
    #[error("too much waits to be committed")]
    Busy,
    #[error("a proposal has {bytes} bytes, and may have {max}")]
    TooLarge { bytes: usize, max: usize },
    #[error("a proposal without content")]
    Empty,
    #[error("another change of the configuration is not finished")]
    ChangePending,
    #[error("{0}")]
    BadChange(BadChange),
    /// The leader is new and has committed nothing yet. Try again.
    #[error("the leader is not ready yet")]
    NotReady,
    /// No majority has answered in time.
    #[error("no majority has answered")]
    TimedOut,
}

/// Where this node stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Role {
    pub term: u64,
    pub leader: Option<NodeId>,
    pub is_leader: bool,
    /// A leader may act as controller from here on: all that leaders before it committed has been applied.
    pub applied_own_term: bool,
}
