//! The handshake of a lane: who is there, and whether the two belong together.

use prost::Message;

/// Nodes that speak another version are refused.
pub const PROTOCOL_VERSION: u32 = 1;

/// The first frame of a lane, from the node that dialled.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Hello {
    #[prost(uint32, tag = "1")]
    pub protocol_version: u32,
    /// Empty: it does not belong to a cluster yet.
    #[prost(string, tag = "2")]
    pub cluster_id: String,
    #[prost(int32, tag = "3")]
    pub node_id: i32,
    /// Drawn once for each data directory.
    #[prost(bytes = "vec", tag = "4")]
    pub directory_id: Vec<u8>,
    /// The offset of its registration; −1 before it has one.
    #[prost(sint64, tag = "5")]
    pub broker_epoch: i64,
    /// `raft` or `replication`.
    #[prost(string, tag = "6")]
    pub plane: String,
    /// The network layer that the plane runs over, as it is configured.
    #[prost(string, tag = "7")]
    pub transport: String,
    /// The lanes of one session have this number in common.
    #[prost(fixed64, tag = "8")]
    pub session: u64,
    /// Which of the session's lanes this is …
    #[prost(uint32, tag = "9")]
    pub lane: u32,
    /// … of how many.
    #[prost(uint32, tag = "10")]
    pub lanes: u32,
    /// Whom it means to reach.
    #[prost(int32, tag = "11")]
    pub to: i32,
    /// The network layer of its other plane; empty where that is not said.
    #[prost(string, tag = "12")]
    pub other_transport: String,
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Welcome {
    /// Why not, in words; empty if the lane stands.
    #[prost(string, tag = "1")]
    pub refusal: String,
    #[prost(uint32, tag = "2")]
    pub protocol_version: u32,
    #[prost(string, tag = "3")]
    pub cluster_id: String,
    #[prost(int32, tag = "4")]
    pub node_id: i32,
    #[prost(bytes = "vec", tag = "5")]
    pub directory_id: Vec<u8>,
    #[prost(sint64, tag = "6")]
    pub broker_epoch: i64,
    #[prost(string, tag = "7")]
    pub transport: String,
    /// As in [`Hello`].
    #[prost(string, tag = "8")]
    pub other_transport: String,
}
