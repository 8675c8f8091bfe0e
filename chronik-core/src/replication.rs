//! What a partition's leader and its followers say to each other, and the channel that carries it.
//!
//! Replication is a stream that the follower opens: it attaches with where its log stands, and the leader answers with
//! where to go on, or what to cut first. From then on the leader sends records as far as the follower has given credit,
//! and the follower reports how far they are written and durable.
//!
//! **Nothing survives a session.** After [`Event::Down`] both machines forget what was on its way and attach anew from
//! their logs, so a message that was lost, or came twice over two sessions, can do no harm. Within a session messages are
//! delivered in order and once, or the session ends.
//!
//! **Epochs guard everything.** Each message carries the leader epoch it belongs to; one of another epoch is dropped. A
//! session is bound to both nodes' broker epochs, so that a node which restarted is never taken for its former self.

use crate::batch::Batch;
use crate::ids::{LeaderEpoch, LogId, NodeId, Offset};
use bytes::Bytes;

/// From a follower to its leader: the beginning of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attach {
    /// The leader epoch in which the follower takes the other for the leader.
    pub epoch: LeaderEpoch,
    pub log_start: Offset,
    pub log_end: Offset,
    /// The epoch of its last record; `None` if it has none.
    pub last_epoch: Option<LeaderEpoch>,
    /// Bytes of records that the leader may send before the next [`Progress`].
    pub credit_bytes: u64,
}

/// From a follower: how far it has come. Cumulative: only the last one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub epoch: LeaderEpoch,
    pub log_start: Offset,
    pub written_end: Offset,
    pub durable_end: Offset,
    /// Bytes of records that the leader may have sent since the attachment, all in all. Never falls.
    pub credit_bytes: u64,
}

/// From a leader: records, or nothing but the news that comes with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    pub epoch: LeaderEpoch,
    pub high_watermark: Offset,
    pub log_start: Offset,
    /// Whole batches, in order; the first begins where the follower's log ends.
    pub batches: Vec<Batch>,
}

/// A leader's answer to [`Attach`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attached {
    /// The logs agree as far as the follower's goes: records follow.
    Stream { epoch: LeaderEpoch, high_watermark: Offset },
    /// The leader's log has no such epoch, or it ended earlier: in `last_epoch`, the latest that the leader has and the
    /// follower may share, records end at `end`. Cut, and attach again (KIP-101, KIP-279).
    Diverged { epoch: LeaderEpoch, last_epoch: LeaderEpoch, end: Offset },
    /// What follows on the follower's log is no longer there: begin anew at `start`. Which producers have appended what comes
    /// before, no log says any more; `known` does: a checkpoint as of `start`
    /// ([`crate::partition::checkpoint::Checkpoint::encode`]).
    Reset { epoch: LeaderEpoch, start: Offset, known: Bytes },
    /// The follower lags: this is the epoch now. It learns of it from the metadata.
    Fenced { current: LeaderEpoch },
    /// The leader lags, or does not lead yet: ask again later.
    NotYet { epoch: LeaderEpoch },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    Attach(Attach),
    Attached(Attached),
    Records(Records),
    Progress(Progress),
}

/// What a channel reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session with the peer began; its broker epoch (the offset of its registration in the metadata log).
    Up {
        peer: NodeId,
        broker_epoch: Offset,
    },
    Message {
        from: NodeId,
        log: LogId,
        message: Message,
    },
    /// The session has ended, and whatever was on its way with it.
    Down {
        peer: NodeId,
    },
}

/// An ordered, reliable session per pair of nodes. Events come in a bounded inbox given at construction.
pub trait ReplicationChannel: Send + Sync {
    /// Sends within the present session with the peer; without one the message is dropped, and `Down` says so or has.
    /// Progress and watermarks take the place of earlier ones that are not sent yet; records are bounded by credit.
    fn send(&self, to: NodeId, log: LogId, message: Message);
}
