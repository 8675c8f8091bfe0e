//! A network layer: it dials and listens, and what it gives are lanes.
//!
//! A *lane* is an ordered, reliable stream of frames in both directions. What lanes share below (a connection per lane with
//! TCP, one connection for all with QUIC and gRPC) is the layer's own affair.
//!
//! What must hold, and the conformance suite looks at: frames arrive whole, byte for byte and in order; a body longer than
//! the bound is refused before anything is allocated for it; who does not read holds up the sender, and no one grows; what
//! a stranger sends to the port ends that stranger's lane, and nothing else.

use async_trait::async_trait;
use bytes::Bytes;
use chronik_core::ids::NodeId;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// The longest body before the two know each other: a few names and numbers.
pub const GREETING_BYTES_MAX: usize = 4 * 1024;
/// Bytes before a frame's body.
pub const HEAD_BYTES: usize = 16;

/// What stands before a frame's body: 16 bytes, numbers big-endian.
///
/// ```text
/// 0 kind   1 flags   2 reserved (zero)   4 body length   8 number
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub kind: u8,
    pub flags: u8,
    pub body_bytes: u32,
    pub number: u64,
}

impl Head {
    pub fn to_bytes(self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[0] = self.kind;
        bytes[1] = self.flags;
        bytes[4..8].copy_from_slice(&self.body_bytes.to_be_bytes());
        bytes[8..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8; HEAD_BYTES]) -> Self {
        let [kind, flags, _, _, a, b, c, d, number @ ..] = *bytes;
        Self { kind, flags, body_bytes: u32::from_be_bytes([a, b, c, d]), number: u64::from_be_bytes(number) }
    }
}

/// One message. The body is a list of shared slices, which a sender never puts together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub number: u64,
    pub body: SmallVec<[Bytes; 4]>,
}

impl Frame {
    pub fn new(kind: u8, number: u64) -> Self {
        Self { kind, flags: 0, number, body: SmallVec::new() }
    }

    pub fn with(mut self, part: Bytes) -> Self {
        if !part.is_empty() {
            self.body.push(part);
        }
        self
    }

    pub fn body_bytes(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }

    /// What goes before the body on the wire.
    pub fn head(&self) -> Head {
        let body_bytes = u32::try_from(self.body_bytes()).unwrap_or(u32::MAX);
        Head { kind: self.kind, flags: self.flags, body_bytes, number: self.number }
    }

    /// The body as one slice. **Copies** one of several slices; what comes from a lane is one.
    pub fn into_body(self) -> Bytes {
        match self.body.as_slice() {
            [] => Bytes::new(),
            [only] => only.clone(),
            parts => parts.concat().into(),
        }
    }
}

/// What a lane is for, so that a layer which shares one connection among lanes can let some go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LaneClass {
    /// Heartbeats, votes, questions and answers: small, and never late.
    Control,
    /// Entries of Raft's log.
    Append,
    /// Snapshots: large, and in no hurry.
    Bulk,
    /// Partitions' records and progress; of several equal lanes this one.
    Replication(u8),
}

/// Whom to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub node: NodeId,
    pub host: String,
    pub port: u16,
}

impl Endpoint {
    /// Of `host:port`, an IPv6 address in brackets.
    pub fn parse(node: NodeId, address: &str) -> Option<Self> {
        let (host, port) = address.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port != 0)?;
        (!host.is_empty()).then(|| Self { node, host: host.to_owned(), port })
    }
}

/// Why a lane could not be made, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("it cannot be reached")]
    Unreachable(#[source] std::io::Error),
    #[error("its certificate is not to be trusted")]
    Untrusted(#[source] std::io::Error),
    #[error("the connection broke")]
    Broken(#[source] std::io::Error),
    #[error("a frame of {bytes} bytes is more than the {max} that are taken")]
    TooLarge { bytes: u64, max: usize },
    #[error("the connection has ended")]
    Ended,
    /// The network layer's own words.
    #[error("{0}")]
    Layer(String),
}

/// A stream of frames to and from one peer.
pub struct Lane {
    pub remote: SocketAddr,
    /// The node that the peer's certificate names; `None` without TLS.
    pub certified: Option<NodeId>,
    pub sender: Box<dyn LaneSender>,
    pub receiver: Box<dyn LaneReceiver>,
}

#[async_trait]
pub trait LaneSender: Send {
    /// Sends all of these, gathered; waits while the peer does not read. What was sent is gone from the queue.
    async fn send(&mut self, frames: &mut VecDeque<Frame>) -> Result<(), LinkError>;

    /// Says that no more comes.
    async fn finish(&mut self);
}

#[async_trait]
pub trait LaneReceiver: Send {
    /// The next frame; `None` when the peer has finished. May be dropped while it waits only if the lane is given up.
    async fn receive(&mut self) -> Result<Option<Frame>, LinkError>;

    /// The longest body that is taken from now on. At first it is [`GREETING_BYTES_MAX`]: a stranger is not trusted with
    /// more.
    fn set_frame_bytes_max(&mut self, bytes: usize);
}

/// See the module's head.
#[async_trait]
pub trait Link: Send + Sync + 'static {
    /// As it is called in the configuration.
    fn name(&self) -> &'static str;

    async fn listen(&self, at: SocketAddr) -> Result<Box<dyn Incoming>, LinkError>;

    /// Makes one lane. Layers that share a connection among lanes keep one for each endpoint and open a stream on it.
    async fn dial(&self, to: &Endpoint, class: LaneClass) -> Result<Lane, LinkError>;
}

/// Where peers come in.
#[async_trait]
pub trait Incoming: Send {
    fn local_address(&self) -> Result<SocketAddr, LinkError>;

    /// The next lane that a peer has opened. A peer that is slow, or no peer at all, holds up no other.
    async fn accept(&mut self) -> Result<Lane, LinkError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_what_it_was_written_as() {
        let head = Head { kind: 7, flags: 1, body_bytes: 0x0102_0304, number: u64::MAX - 5 };
        assert_eq!(Head::from_bytes(&head.to_bytes()), head);
    }

    #[test]
    fn an_endpoint_is_read_from_its_text() {
        let read = |text| Endpoint::parse(NodeId(1), text).map(|endpoint| (endpoint.host, endpoint.port));
        assert_eq!(read("10.0.0.1:9093"), Some(("10.0.0.1".into(), 9093)));
        assert_eq!(read("[::1]:9093"), Some(("::1".into(), 9093)));
        assert_eq!(read("host"), None);
        assert_eq!(read("host:0"), None);
        assert_eq!(read(":9"), None);
    }
}
