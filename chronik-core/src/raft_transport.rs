//! How nodes talk about the metadata: Raft's own messages, and what brokers ask of the controller.
//!
//! **Best effort.** A message may be lost, come twice, or overtake another; nobody is told. Raft is made for that, and
//! whoever asks the controller asks again with the same number. So an implementation never waits for a peer: where one is
//! slow or gone, messages for it are dropped.
//!
//! **Peers are who they say.** An implementation delivers only what came from a peer of this cluster whose identity it has
//! checked, and [`Event::Message::from`] is that identity, never what a message claims.

use crate::ids::NodeId;
use bytes::Bytes;
use raft::eraftpb;

/// Where a node's Raft plane is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    pub node: NodeId,
    /// `host:port`.
    pub address: String,
}

/// What travels on the Raft plane.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Between members of the Raft group.
    Raft(Box<eraftpb::Message>),
    /// A request, answered under the same number. What is asked and answered is encoded by those who talk.
    Ask {
        number: u64,
        body: Bytes,
    },
    Answer {
        number: u64,
        body: Bytes,
    },
}

/// What a transport reports, into a bounded inbox given at construction.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Message {
        from: NodeId,
        message: Message,
    },
    /// What was sent of late has not arrived, most likely.
    Unreachable {
        peer: NodeId,
    },
    /// Where it should listen nobody does: its machine says so, so that most likely its process has ended. Not every network
    /// layer can tell.
    Gone {
        peer: NodeId,
    },
}

/// See the module's head.
pub trait RaftTransport: Send + Sync {
    fn send(&self, to: NodeId, message: Message);
    /// All other nodes that there are, voters or not; sessions with any others end.
    fn set_peers(&self, peers: Vec<Peer>);
}
