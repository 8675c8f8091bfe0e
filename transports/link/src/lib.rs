//! What nodes' connections have in common, whatever network layer they run over.
//!
//! - [`link`]: the network layer's trait: lanes that carry frames. `tcp`, `grpc` and `quic` are crates of their own.
//! - [`pieces`]: frames in layers that carry bytes in pieces of their own.
//! - [`tls`]: certificates, and the node that one belongs to.
//! - [`handshake`]: who is there, and whether the two belong together.
//! - [`session`]: all lanes of a pair of nodes as one thing that comes up and goes down; dialling, silence, round trips.
//! - [`raft`], [`replication`]: the one Raft transport and the one replication channel, over sessions.
//!
//! So only the network differs from transport to transport, and a comparison of them compares nothing else.

#![forbid(unsafe_code)]

pub mod handshake;
pub mod lane;
pub mod link;
pub mod pieces;
pub mod raft;
pub mod replication;
pub mod session;
pub mod tls;

pub use link::{Endpoint, Frame, Head, Incoming, Lane, LaneClass, LaneReceiver, LaneSender, Link, LinkError};
