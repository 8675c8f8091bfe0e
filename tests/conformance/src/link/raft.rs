//! What the one Raft transport makes of sessions.

use super::sessions::{bare, patient, say};
use super::{Layer, Port, identity, listener, soon};
use ::raft::eraftpb::{self, MessageType};
use bytes::Bytes;
use chronik_core::ids::NodeId;
use chronik_core::raft_transport::{Event, Message, Peer, RaftTransport};
use chronik_link::handshake::Plane;
use chronik_link::lane::Bound;
use chronik_link::raft::{ASK, RAFT, RaftLanes, settings};
use chronik_link::session::Settings;
use chronik_link::{Frame, Lane};
use chronik_proto_cluster::raft::encode;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

pub struct RaftNode {
    pub lanes: Arc<RaftLanes>,
    pub events: mpsc::Receiver<Event>,
    pub address: String,
}

pub async fn raft_node(layer: &Layer, node: i32, cluster: &str) -> RaftNode {
    let (incoming, at) = listener(layer, node).await;
    let (sender, events) = mpsc::channel(1_000);
    let link = (layer.node)(node);
    let own = identity(node, Plane::Raft, link.name(), cluster);
    let lanes = RaftLanes::start(link, incoming, own, settings(), sender);
    RaftNode { lanes, events, address: format!("127.0.0.1:{}", at.port) }
}

pub fn peer(node: i32, address: &str) -> Peer {
    Peer { node: NodeId(node), address: address.to_owned() }
}

async fn next_message(node: &mut RaftNode) -> (NodeId, Message) {
    let next = async {
        loop {
            match node.events.recv().await.expect("the transport lives") {
                Event::Message { from, message } => return (from, message),
                Event::Unreachable { .. } | Event::Gone { .. } => {}
            }
        }
    };
    soon("a message", next).await
}

/// Says something until it is heard: the transport promises no more.
async fn tell(from: &RaftNode, to: &mut RaftNode, whom: i32, number: u64) -> (NodeId, Message) {
    let telling = async {
        loop {
            from.lanes.send(NodeId(whom), Message::Ask { number, body: Bytes::from_static(b"what") });
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        heard = next_message(to) => heard,
        () = telling => unreachable!("it never ends"),
    }
}

fn of_kind(kind: MessageType) -> eraftpb::Message {
    let mut message = eraftpb::Message::default();
    message.set_msg_type(kind);
    (message.from, message.to, message.term) = (11, 12, 3);
    message
}

pub async fn messages_travel_and_peers_come_back(layer: &Layer) {
    let mut one = raft_node(layer, 1, "c").await;
    let mut two = raft_node(layer, 2, "c").await;
    one.lanes.set_peers(vec![peer(2, &two.address)]);
    two.lanes.set_peers(vec![peer(1, &one.address)]);
    let (from, message) = tell(&one, &mut two, 2, 7).await;
    assert_eq!((from, message), (NodeId(1), Message::Ask { number: 7, body: Bytes::from_static(b"what") }));
    two.lanes.send(NodeId(1), Message::Answer { number: 7, body: Bytes::from(vec![3; 100_000]) });
    let (from, message) = next_message(&mut one).await;
    assert_eq!((from, message), (NodeId(2), Message::Answer { number: 7, body: Bytes::from(vec![3; 100_000]) }));
    let mut append = of_kind(MessageType::MsgAppend);
    let entry = eraftpb::Entry { index: 5, data: Bytes::from(vec![4; 300_000]), ..eraftpb::Entry::default() };
    append.set_entries(vec![entry; 3].into());
    let append = Message::Raft(Box::new(append));
    two.lanes.send(NodeId(1), append.clone());
    assert_eq!(next_message(&mut one).await, (NodeId(2), append));
    let status = one.lanes.status();
    assert!(status.len() == 1 && status[0].is_up && status[0].transport == (layer.node)(1).name(), "{status:?}");
    // The other goes, which is noticed, and comes back under its address.
    let address: SocketAddr = two.address.parse().expect("an address");
    drop(two);
    let noticed = async { while !matches!(one.events.recv().await, Some(Event::Unreachable { peer: NodeId(2) })) {} };
    soon("a peer that goes is noticed", noticed).await;
    if layer.port == Port::Tcp {
        let gone = async { while !matches!(one.events.recv().await, Some(Event::Gone { peer: NodeId(2) })) {} };
        soon("nobody listens there, and that is told", gone).await;
    }
    let link = (layer.node)(2);
    let again = async {
        loop {
            match link.listen(address).await {
                Ok(incoming) => return incoming,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let incoming = soon("the address is free again", again).await;
    let (sender, events) = mpsc::channel(1_000);
    let own = identity(2, Plane::Raft, link.name(), "c");
    let lanes = RaftLanes::start(link, incoming, own, settings(), sender);
    let mut two = RaftNode { lanes, events, address: address.to_string() };
    let (from, _) = tell(&one, &mut two, 2, 8).await;
    assert_eq!(from, NodeId(1));
}

/// A node, and a peer of it that only greets.
async fn with_bare_peer(layer: &Layer, settings: Settings) -> (RaftNode, Vec<Lane>) {
    let (incoming, at) = listener(layer, 2).await;
    let (sender, events) = mpsc::channel(1_000);
    let link = (layer.node)(2);
    let own = identity(2, Plane::Raft, link.name(), "c");
    let lanes = RaftLanes::start(link, incoming, own, patient(settings), sender);
    let node = RaftNode { lanes, events, address: String::new() };
    let bare = bare(layer, 1, Plane::Raft, &at, 1, settings.lanes).await;
    let is_up = async {
        while !node.lanes.status().iter().any(|peer| peer.is_up) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the session", is_up).await;
    (node, bare)
}

pub async fn what_is_no_message_ends_the_session(layer: &Layer) {
    let entries_of_no_kind = Bytes::from_static(&[0x08, 3, 0x3a, 2, 0x08, 77]);
    let wrong = [
        Frame::new(RAFT, 0).with(Bytes::from(vec![0xff; 100])),
        Frame::new(RAFT, 0).with(encode(&of_kind(MessageType::MsgHup))),
        Frame::new(RAFT, 0).with(entries_of_no_kind),
        Frame::new(200, 0),
    ];
    for wrong in wrong {
        let (mut node, mut bare) = with_bare_peer(layer, settings()).await;
        let right = Frame::new(RAFT, 0).with(encode(&of_kind(MessageType::MsgHeartbeat)));
        say(&mut bare[0], right).await.expect("it is sent");
        let (from, message) = next_message(&mut node).await;
        assert_eq!((from, message), (NodeId(1), Message::Raft(Box::new(of_kind(MessageType::MsgHeartbeat)))));
        say(&mut bare[0], wrong).await.expect("it is sent");
        let _ = say(&mut bare[0], Frame::new(ASK, 1)).await;
        let next = soon("the end of the session", node.events.recv()).await;
        assert_eq!(next, Some(Event::Unreachable { peer: NodeId(1) }), "and nothing after it");
    }
}

pub async fn drops_what_is_too_much_and_waits_for_nobody(layer: &Layer) {
    const MESSAGES: u64 = 3_000;
    let settings = Settings { bound: Bound { frames: 64, bytes: 1 << 20 }, ..settings() };
    let (node, mut lanes) = with_bare_peer(layer, settings).await;
    let body = Bytes::from(vec![1; 64 << 10]);
    for number in 0..MESSAGES {
        node.lanes.send(NodeId(1), Message::Ask { number, body: body.clone() });
    }
    let reading = async {
        let (mut came, mut before) = (0, None);
        loop {
            // Once there is room again, messages arrive again.
            node.lanes.send(NodeId(1), Message::Ask { number: MESSAGES, body: Bytes::new() });
            let frame = lanes[0].receiver.receive().await.expect("a frame").expect("not the end");
            if frame.kind != ASK {
                continue;
            }
            assert!(before.is_none_or(|before| before < frame.number), "one lane keeps the order");
            if frame.number == MESSAGES {
                return came;
            }
            (came, before) = (came + 1, Some(frame.number));
        }
    };
    let came = soon("what comes after", reading).await;
    assert!((1..MESSAGES).contains(&came), "{came} of {MESSAGES} came, though little may wait");
}

pub async fn a_snapshot_holds_up_no_heartbeat(layer: &Layer) {
    let (node, mut lanes) = with_bare_peer(layer, settings()).await;
    let mut snapshot = of_kind(MessageType::MsgSnapshot);
    snapshot.mut_snapshot().data = Bytes::from(vec![1; 24 << 20]);
    for _ in 0..2 {
        node.lanes.send(NodeId(1), Message::Raft(Box::new(snapshot.clone())));
    }
    let mut append = of_kind(MessageType::MsgAppend);
    let entry = eraftpb::Entry { data: Bytes::from(vec![2; 24 << 20]), ..eraftpb::Entry::default() };
    append.set_entries(vec![entry].into());
    node.lanes.send(NodeId(1), Message::Raft(Box::new(append)));
    // Of its other lanes the peer reads nothing.
    let beating = async {
        for beat in 1..=20 {
            let mut heartbeat = of_kind(MessageType::MsgHeartbeat);
            heartbeat.commit = beat;
            node.lanes.send(NodeId(1), Message::Raft(Box::new(heartbeat.clone())));
            loop {
                let frame = lanes[0].receiver.receive().await.expect("a frame").expect("not the end");
                if frame.kind == RAFT {
                    assert_eq!(frame.into_body(), encode(&heartbeat));
                    break;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("heartbeats beside a snapshot that is not read", beating).await;
}
