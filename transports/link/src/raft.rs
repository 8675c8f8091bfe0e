//! The one Raft transport: three lanes to each peer, so that neither a long append nor a snapshot holds up a heartbeat.

use crate::handshake::{Identity, Peer, Plane};
use crate::lane::{Bound, NotTaken, Order};
use crate::link::{Endpoint, Frame, Incoming, Link};
use crate::session::{Hub, Owner, PeerStatus, Session, Settings};
use ::raft::eraftpb::MessageType;
use chronik_core::ids::NodeId;
use chronik_core::raft_transport::{Event, Message, Peer as RaftPeer, RaftTransport};
use chronik_proto_cluster::raft;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Kinds of frames: a message of Raft's; a question and an answer, with their number.
pub const RAFT: u8 = 16;
pub const ASK: u8 = 17;
pub const ANSWER: u8 = 18;

/// Heartbeats, votes, questions and answers.
const CONTROL: usize = 0;
/// Entries.
const APPEND: usize = 1;
/// Snapshots.
const BULK: usize = 2;

/// How sessions of the Raft plane are kept.
pub fn settings() -> Settings {
    Settings {
        lanes: 3,
        // A snapshot travels in one piece.
        frame_bytes_max: 64 << 20,
        bound: Bound { frames: 4_096, bytes: 64 << 20 },
        ..Settings::default()
    }
}

/// See the module's head.
pub struct RaftLanes {
    hub: Arc<Hub>,
}

impl RaftLanes {
    /// What comes is put into `events`; where that is full, it is dropped. Must be called inside the plane's runtime.
    pub fn start(
        link: Arc<dyn Link>,
        incoming: Box<dyn Incoming>,
        own: Identity,
        settings: Settings,
        events: mpsc::Sender<Event>,
    ) -> Arc<Self> {
        debug_assert_eq!(own.plane, Plane::Raft);
        Arc::new(Self { hub: Hub::start(link, incoming, own, settings, Arc::new(Inbox(events))) })
    }

    pub fn identity(&self) -> &Identity {
        self.hub.identity()
    }

    pub fn status(&self) -> Vec<PeerStatus> {
        self.hub.status()
    }

    /// Whether there is a session with this node now.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.hub.session(node).is_some()
    }

    pub fn stop(&self) {
        self.hub.stop();
    }
}

impl Drop for RaftLanes {
    fn drop(&mut self) {
        self.hub.stop();
    }
}

impl RaftTransport for RaftLanes {
    fn send(&self, to: NodeId, message: Message) {
        let Some(session) = self.hub.session(to) else { return };
        let (lane, frame) = match message {
            Message::Raft(message) => {
                let lane = match message.get_msg_type() {
                    MessageType::MsgSnapshot => BULK,
                    MessageType::MsgAppend if !message.entries.is_empty() => APPEND,
                    _ => CONTROL,
                };
                (lane, Frame::new(RAFT, 0).with(raft::encode(&message)))
            }
            Message::Ask { number, body } => (CONTROL, Frame::new(ASK, number).with(body)),
            Message::Answer { number, body } => (CONTROL, Frame::new(ANSWER, number).with(body)),
        };
        match session.send(lane, frame, Order::Alone) {
            // Who is slow loses messages, and nobody waits.
            Ok(()) | Err(NotTaken::Full) => {}
            Err(why) => tracing::error!(node = to.0, "a message for node {to} is dropped: {why}"),
        }
    }

    fn set_peers(&self, peers: Vec<RaftPeer>) {
        let endpoint = |peer: RaftPeer| {
            let endpoint = Endpoint::parse(peer.node, &peer.address);
            if endpoint.is_none() {
                tracing::error!(node = peer.node.0, address = peer.address, "a node's address cannot be dialled");
            }
            endpoint
        };
        self.hub.set_peers(peers.into_iter().filter_map(endpoint).collect());
    }
}

struct Inbox(mpsc::Sender<Event>);

impl Owner for Inbox {
    fn admits(&self, _: &Peer) -> Result<(), String> {
        Ok(())
    }

    fn up(&self, session: &Arc<Session>) {
        tracing::info!(plane = "raft", node = session.peer.node.0, "a session with node {} is up", session.peer.node);
    }

    fn frame(&self, session: &Arc<Session>, _: usize, frame: Frame) {
        let from = session.peer.node;
        let number = frame.number;
        let message = match frame.kind {
            RAFT => match raft::decode(frame.into_body()) {
                Ok(message) => Message::Raft(Box::new(message)),
                Err(why) => {
                    tracing::warn!(node = from.0, %why, "what came from a node is no message of Raft's: its session ends");
                    return session.end();
                }
            },
            ASK => Message::Ask { number, body: frame.into_body() },
            ANSWER => Message::Answer { number, body: frame.into_body() },
            other => {
                tracing::warn!(node = from.0, kind = other, "a frame of no known kind came: the session ends");
                return session.end();
            }
        };
        let _ = self.0.try_send(Event::Message { from, message });
    }

    fn down(&self, session: &Arc<Session>) {
        let _ = self.0.try_send(Event::Unreachable { peer: session.peer.node });
    }

    fn unreachable(&self, peer: NodeId) {
        let _ = self.0.try_send(Event::Unreachable { peer });
    }

    fn gone(&self, peer: NodeId) {
        let _ = self.0.try_send(Event::Gone { peer });
    }
}
