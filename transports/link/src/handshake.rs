//! Who is there, and whether the two belong together.
//!
//! The node that dialled says who it is and whom it means ([`Hello`]); the other answers in kind, or says in words why not.
//! **Until then nothing of a peer is believed**, nor remembered; afterwards its node id is the one that its certificate
//! names, where there is TLS, and it is of this cluster, or of none yet. Bounded in size and, by the caller, in time.

use crate::link::{Endpoint, Frame, Lane, LaneClass, LinkError};
use chronik_core::ids::{NodeId, Offset};
use chronik_proto_cluster::greeting::{Hello, PROTOCOL_VERSION, Welcome};
use prost::Message;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Kinds of frames that belong to no plane in particular. Planes use those from 16 on.
pub const HELLO: u8 = 1;
pub const WELCOME: u8 = 2;
pub const PING: u8 = 3;
pub const PONG: u8 = 4;

/// In the number of the first frame, so that what is no node is told apart at once.
const MAGIC: u64 = u64::from_be_bytes(*b"CHRONIK\x01");
/// No plane has more.
const LANES_MAX: u32 = 64;

/// Which of the two planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plane {
    Raft,
    Replication,
}

impl Plane {
    pub fn name(self) -> &'static str {
        match self {
            Plane::Raft => "raft",
            Plane::Replication => "replication",
        }
    }

    pub fn other(self) -> Self {
        match self {
            Plane::Raft => Plane::Replication,
            Plane::Replication => Plane::Raft,
        }
    }

    /// What a lane of the plane is for, by its number.
    pub fn class(self, lane: u32) -> LaneClass {
        match (self, lane) {
            (Plane::Raft, 0) => LaneClass::Control,
            (Plane::Raft, 1) => LaneClass::Append,
            (Plane::Raft, _) => LaneClass::Bulk,
            (Plane::Replication, lane) => LaneClass::Replication(lane as u8),
        }
    }
}

/// Who this node is, as far as that is known by now.
#[derive(Clone, Debug)]
pub struct Identity {
    pub node: NodeId,
    pub directory_id: [u8; 16],
    pub plane: Plane,
    pub transport: &'static str,
    /// The network layer of the node's other plane; empty where that is not said.
    pub other_transport: &'static str,
    known: Arc<Mutex<Known>>,
}

#[derive(Clone, Debug)]
struct Known {
    cluster_id: String,
    broker_epoch: Offset,
}

impl Identity {
    /// `cluster_id` is empty as long as the node belongs to no cluster.
    pub fn new(
        node: NodeId,
        directory_id: [u8; 16],
        plane: Plane,
        transport: &'static str,
        cluster_id: String,
        broker_epoch: Option<Offset>,
    ) -> Self {
        let known = Known { cluster_id, broker_epoch: broker_epoch.unwrap_or(Offset(-1)) };
        Self { node, directory_id, plane, transport, other_transport: "", known: Arc::new(Mutex::new(known)) }
    }

    /// Also says which network layer the node's other plane runs over, so that nodes which could not reach each other there
    /// are told why here.
    pub fn beside(mut self, other_transport: &'static str) -> Self {
        self.other_transport = other_transport;
        self
    }

    fn known(&self) -> Known {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn cluster_id(&self) -> String {
        self.known().cluster_id
    }

    /// From now on the node belongs to this cluster. Sessions that were made before stay.
    pub fn set_cluster_id(&self, cluster_id: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).cluster_id = cluster_id.to_owned();
    }
}

/// Who the other is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub node: NodeId,
    pub directory_id: [u8; 16],
    /// The offset of its registration; −1 before it has one.
    pub broker_epoch: Offset,
    /// Empty if it belongs to none yet.
    pub cluster_id: String,
    /// The network layer of its other plane; empty where that is not said.
    pub other_transport: String,
}

/// Which lane of which session is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub session: u64,
    pub lane: u32,
    pub lanes: u32,
}

/// Why there is no lane.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Somebody, or something, that is no node of ours.
    #[error("what came is no greeting: {0}")]
    NoGreeting(String),
    /// We say no.
    #[error("{0}")]
    Refused(String),
    /// The other says no.
    #[error("node {by} refuses: {words}")]
    RefusedBy { by: NodeId, words: String },
    #[error("it did not answer in time")]
    TimedOut,
}

/// Greets the node that was dialled.
pub async fn greet(lane: &mut Lane, own: &Identity, to: &Endpoint, place: Place) -> Result<Peer, HandshakeError> {
    let Known { cluster_id, broker_epoch } = own.known();
    let hello = Hello {
        protocol_version: PROTOCOL_VERSION,
        cluster_id: cluster_id.clone(),
        node_id: own.node.0,
        directory_id: own.directory_id.to_vec(),
        broker_epoch: broker_epoch.0,
        plane: own.plane.name().into(),
        transport: own.transport.into(),
        session: place.session,
        lane: place.lane,
        lanes: place.lanes,
        to: to.node.0,
        other_transport: own.other_transport.into(),
    };
    send(lane, HELLO, hello.encode_to_vec()).await?;
    let welcome: Welcome = receive(lane, WELCOME).await?;
    if !welcome.refusal.is_empty() {
        let words = welcome.refusal.chars().filter(|c| !c.is_control()).collect();
        return Err(HandshakeError::RefusedBy { by: to.node, words });
    }
    let Welcome {
        protocol_version,
        cluster_id: theirs,
        node_id,
        directory_id,
        broker_epoch,
        transport,
        other_transport,
        ..
    } = welcome;
    same_version(protocol_version, NodeId(node_id), own).map_err(HandshakeError::Refused)?;
    let peer = peer(node_id, directory_id, broker_epoch, theirs, other_transport)?;
    let check = Check { transport: &transport, certified: lane.certified };
    check.of(own, &cluster_id, &peer).map_err(HandshakeError::Refused)?;
    if peer.node != to.node {
        return Err(HandshakeError::Refused(format!("node {} answers where node {} should", peer.node, to.node)));
    }
    Ok(peer)
}

/// Answers a node that has dialled. `admits` may say no for reasons of its own: only here can the other still be told.
pub async fn answer(
    lane: &mut Lane,
    own: &Identity,
    admits: impl FnOnce(&Peer, Place) -> Result<(), String>,
) -> Result<(Peer, Place), HandshakeError> {
    let hello: Hello = receive(lane, HELLO).await?;
    let Known { cluster_id, broker_epoch } = own.known();
    let judged = judge(&hello, lane.certified, own, &cluster_id, admits);
    let welcome = Welcome {
        refusal: judged.as_ref().err().cloned().unwrap_or_default(),
        protocol_version: PROTOCOL_VERSION,
        cluster_id,
        node_id: own.node.0,
        directory_id: own.directory_id.to_vec(),
        broker_epoch: broker_epoch.0,
        transport: own.transport.into(),
        other_transport: own.other_transport.into(),
    };
    send(lane, WELCOME, welcome.encode_to_vec()).await?;
    match judged {
        Ok(accepted) => Ok(accepted),
        Err(words) => {
            lane.sender.finish().await;
            Err(HandshakeError::Refused(format!("node {}: {words}", hello.node_id)))
        }
    }
}

fn judge(
    hello: &Hello,
    certified: Option<NodeId>,
    own: &Identity,
    cluster_id: &str,
    admits: impl FnOnce(&Peer, Place) -> Result<(), String>,
) -> Result<(Peer, Place), String> {
    // First: of another version nothing else can be taken for what it seems.
    same_version(hello.protocol_version, NodeId(hello.node_id), own)?;
    let directory_id = hello.directory_id.clone();
    let (theirs, other) = (hello.cluster_id.clone(), hello.other_transport.clone());
    let peer = peer(hello.node_id, directory_id, hello.broker_epoch, theirs, other).map_err(|why| why.to_string())?;
    if hello.plane != own.plane.name() {
        let (theirs, ours) = (&hello.plane, own.plane.name());
        return Err(format!(
            "this is the address of {ours}, and not of {theirs:?}: the configured addresses are mixed up"
        ));
    }
    Check { transport: &hello.transport, certified }.of(own, cluster_id, &peer)?;
    if NodeId(hello.to) != own.node {
        return Err(format!(
            "this is node {}, and not node {}: the configured addresses are mixed up",
            own.node, hello.to
        ));
    }
    if hello.lanes == 0 || hello.lanes > LANES_MAX || hello.lane >= hello.lanes {
        return Err(format!("there is no lane {} of {}", hello.lane, hello.lanes));
    }
    let place = Place { session: hello.session, lane: hello.lane, lanes: hello.lanes };
    admits(&peer, place)?;
    Ok((peer, place))
}

fn same_version(theirs: u32, node: NodeId, own: &Identity) -> Result<(), String> {
    let ours = PROTOCOL_VERSION;
    if theirs == ours {
        return Ok(());
    }
    Err(format!("node {node} speaks version {theirs} between nodes, and node {} version {ours}", own.node))
}

/// What both sides look at.
struct Check<'a> {
    transport: &'a str,
    certified: Option<NodeId>,
}

impl Check<'_> {
    fn of(&self, own: &Identity, cluster_id: &str, peer: &Peer) -> Result<(), String> {
        if self.transport != own.transport {
            let plane = own.plane.name();
            let (theirs, ours) = (self.transport, own.transport);
            return Err(format!(
                "{plane}.transport is {theirs:?} on node {}, and {ours:?} on node {}",
                peer.node, own.node
            ));
        }
        if let Some(certified) = self.certified
            && certified != peer.node
        {
            return Err(format!("it says it is node {}, and its certificate is node {certified}'s", peer.node));
        }
        if peer.node == own.node {
            return Err(format!(
                "it says it is node {}, which is this one: two nodes have the same node.id",
                peer.node
            ));
        }
        if !cluster_id.is_empty() && !peer.cluster_id.is_empty() && cluster_id != peer.cluster_id {
            let (theirs, ours) = (&peer.cluster_id, cluster_id);
            return Err(format!(
                "node {} is of cluster {theirs:?}, and node {} of cluster {ours:?}",
                peer.node, own.node
            ));
        }
        Ok(())
    }
}

fn peer(
    node: i32,
    directory_id: Vec<u8>,
    broker_epoch: i64,
    cluster_id: String,
    other_transport: String,
) -> Result<Peer, HandshakeError> {
    let directory_id =
        directory_id.try_into().map_err(|_| HandshakeError::NoGreeting("a directory's id has 16 bytes".into()))?;
    Ok(Peer { node: NodeId(node), directory_id, broker_epoch: Offset(broker_epoch), cluster_id, other_transport })
}

async fn send(lane: &mut Lane, kind: u8, bytes: Vec<u8>) -> Result<(), LinkError> {
    let mut frames = VecDeque::from([Frame::new(kind, MAGIC).with(bytes.into())]);
    lane.sender.send(&mut frames).await
}

async fn receive<M: Message + Default>(lane: &mut Lane, kind: u8) -> Result<M, HandshakeError> {
    let frame = lane.receiver.receive().await?.ok_or(LinkError::Ended)?;
    let none = |why: String| HandshakeError::NoGreeting(why);
    if (frame.kind, frame.number) != (kind, MAGIC) {
        return Err(none(format!("a frame of kind {}", frame.kind)));
    }
    M::decode(frame.into_body()).map_err(|why| none(why.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Identity {
        Identity::new(NodeId(1), [1; 16], Plane::Raft, "tcp", "mine".into(), Some(Offset(5)))
    }

    fn hello() -> Hello {
        Hello {
            protocol_version: PROTOCOL_VERSION,
            cluster_id: "mine".into(),
            node_id: 2,
            directory_id: vec![2; 16],
            broker_epoch: 7,
            plane: "raft".into(),
            transport: "tcp".into(),
            session: 3,
            lane: 1,
            lanes: 3,
            to: 1,
            other_transport: "quic".into(),
        }
    }

    fn judged(hello: &Hello, certified: Option<NodeId>) -> Result<(Peer, Place), String> {
        judge(hello, certified, &own(), &own().cluster_id(), |_, _| Ok(()))
    }

    #[test]
    fn who_belongs_is_known_by_what_it_says() {
        let peer = Peer {
            node: NodeId(2),
            directory_id: [2; 16],
            broker_epoch: Offset(7),
            cluster_id: "mine".into(),
            other_transport: "quic".into(),
        };
        let place = Place { session: 3, lane: 1, lanes: 3 };
        assert_eq!(judged(&hello(), Some(NodeId(2))), Ok((peer.clone(), place)));
        let joining = Hello { cluster_id: String::new(), ..hello() };
        let peer = Peer { cluster_id: String::new(), ..peer };
        assert_eq!(judged(&joining, None), Ok((peer, place)), "of no cluster yet");
    }

    #[test]
    fn who_does_not_belong_is_told_why() {
        let refused = |hello: Hello, certified, why: &str| match judged(&hello, certified) {
            Ok(_) => panic!("it got in, though: {why}"),
            Err(words) => assert_eq!(words, why),
        };
        let version = PROTOCOL_VERSION + 1;
        // Whatever else of it may be odd to us.
        let newer = Hello { protocol_version: version, directory_id: vec![1; 20], plane: "metadata".into(), ..hello() };
        refused(newer, None, "node 2 speaks version 2 between nodes, and node 1 version 1");
        let plane = Hello { plane: "re\nplication".into(), ..hello() };
        let why = "this is the address of raft, and not of \"re\\nplication\": the configured addresses are mixed up";
        refused(plane, None, why);
        let transport = Hello { transport: "quic".into(), ..hello() };
        refused(transport, None, "raft.transport is \"quic\" on node 2, and \"tcp\" on node 1");
        let cluster = Hello { cluster_id: "its".into(), ..hello() };
        refused(cluster, None, "node 2 is of cluster \"its\", and node 1 of cluster \"mine\"");
        refused(hello(), Some(NodeId(3)), "it says it is node 2, and its certificate is node 3's");
        let same = Hello { node_id: 1, ..hello() };
        refused(same, None, "it says it is node 1, which is this one: two nodes have the same node.id");
        let other = Hello { to: 4, ..hello() };
        refused(other, None, "this is node 1, and not node 4: the configured addresses are mixed up");
        refused(Hello { lane: 3, ..hello() }, None, "there is no lane 3 of 3");
        refused(Hello { lanes: 0, lane: 0, ..hello() }, None, "there is no lane 0 of 0");
        let directory = Hello { directory_id: vec![1; 15], ..hello() };
        refused(directory, None, "what came is no greeting: a directory's id has 16 bytes");
    }

    #[test]
    fn a_greeting_is_short_whatever_it_says() {
        let long = Hello { cluster_id: "c".repeat(200), other_transport: "t".repeat(200), ..hello() };
        assert!(long.encoded_len() < crate::link::GREETING_BYTES_MAX / 4);
    }
}
