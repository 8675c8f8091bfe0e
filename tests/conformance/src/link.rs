//! What every network layer between nodes must do, and what the one Raft transport and the one replication channel make of
//! it. A layer's own tests say how its links are made, and call [`plain`] and [`encrypted`].
//!
//! - `frames`: what a lane does with frames.
//! - `strangers`: who does not get a lane.
//! - `sessions`: what sessions over lanes come up and go down by, with a peer that keeps no rule but the handshake's.
//! - `raft`, `replication`: what the two planes make of sessions.

mod authority;
mod frames;
mod raft;
mod replication;
mod sessions;
mod strangers;

use authority::Authority;
use bytes::Bytes;
use chronik_core::ids::{NodeId, Offset};
use chronik_link::handshake::{Identity, Plane};
use chronik_link::tls::Tls;
use chronik_link::{Endpoint, Frame, Incoming, Lane, LaneClass, Link};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// No step takes this long; a rule that waits so long is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a layer's links are made, with TLS or without.
pub type Make = fn(Option<Tls>) -> Arc<dyn Link>;

/// What a layer listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    Tcp,
    Udp,
}

/// The layer keeps all rules without TLS.
pub async fn plain(make: Make, port: Port) {
    all(&Layer { node: Box::new(move |_| make(None)), strangers: Vec::new(), port, certified: false }).await;
}

/// The layer keeps all rules with TLS, those about certificates included. `or_plain`: it also knows to do without.
pub async fn encrypted(make: Make, port: Port, or_plain: bool) {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let mut strangers = vec![
        ("one of another authority", make(Some(theirs.node(1)))),
        ("one whose certificate has expired", make(Some(ours.expired(1)))),
        ("one whose certificate names no node", make(Some(ours.nameless()))),
        ("one whose certificate names two nodes", make(Some(ours.named(&[1, 3])))),
        ("one without a certificate", make(Some(ours.without_certificate()))),
    ];
    if or_plain {
        strangers.push(("one without TLS", make(None)));
    }
    let node = Box::new(move |node| make(Some(ours.node(node))));
    all(&Layer { node, strangers, port, certified: true }).await;
}

struct Layer {
    /// The link of a node of the cluster.
    node: Box<dyn Fn(i32) -> Arc<dyn Link> + Send + Sync>,
    /// Links that must not get in, each with who that is.
    strangers: Vec<(&'static str, Arc<dyn Link>)>,
    port: Port,
    certified: bool,
}

/// All rules, one after the other.
async fn all(layer: &Layer) {
    frames::arrive_whole_and_in_order_both_ways(layer).await;
    frames::of_a_stranger_are_small(layer).await;
    frames::beyond_the_bound_are_refused(layer).await;
    frames::end_in_order(layer).await;
    frames::hold_up_the_sender_where_nobody_reads(layer).await;
    frames::of_one_lane_do_not_wait_for_another(layer).await;
    strangers::a_lane_names_both_nodes(layer).await;
    strangers::garbage_harms_nobody(layer).await;
    strangers::silence_holds_up_nobody(layer).await;
    strangers::a_node_that_does_not_answer_holds_up_no_other(layer).await;
    strangers::do_not_get_in(layer).await;
    sessions::begin_with_a_greeting_or_not_at_all(layer).await;
    sessions::are_all_of_their_lanes(layer).await;
    sessions::give_way_to_later_ones(layer).await;
    sessions::come_up_after_the_former_ones_end_was_told(layer).await;
    sessions::end_with_silence(layer).await;
    sessions::refuse_in_words(layer).await;
    sessions::name_what_differs_on_the_other_plane(layer).await;
    raft::messages_travel_and_peers_come_back(layer).await;
    raft::what_is_no_message_ends_the_session(layer).await;
    raft::drops_what_is_too_much_and_waits_for_nobody(layer).await;
    raft::a_snapshot_holds_up_no_heartbeat(layer).await;
    replication::is_ordered_and_begins_anew_with_each_session(layer).await;
    replication::reads_on_while_its_own_sends_are_blocked(layer).await;
    replication::ends_the_session_when_too_much_waits(layer).await;
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: it takes too long"),
    }
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// A node's listener, and how it is dialled.
async fn listener(layer: &Layer, node: i32) -> (Box<dyn Incoming>, Endpoint) {
    let incoming = (layer.node)(node).listen(loopback()).await.expect("it listens");
    let port = incoming.local_address().expect("it has an address").port();
    (incoming, Endpoint { node: NodeId(node), host: "127.0.0.1".into(), port })
}

/// A lane from node 1 to node 2, and where it came from.
struct Pair {
    dialler: Lane,
    listener: Lane,
    incoming: Box<dyn Incoming>,
    at: Endpoint,
}

async fn pair(layer: &Layer) -> Pair {
    let (mut incoming, at) = listener(layer, 2).await;
    let link = (layer.node)(1);
    let (dialler, listener) = soon("a lane", lane(&*link, &at, &mut *incoming)).await;
    Pair { dialler, listener, incoming, at }
}

/// A lane is there for the listener once something has come on it.
async fn lane(link: &dyn Link, at: &Endpoint, incoming: &mut dyn Incoming) -> (Lane, Lane) {
    let dialled = async {
        let mut lane = link.dial(at, LaneClass::Replication(0)).await.expect("it is reached");
        lane.sender.send(&mut VecDeque::from([Frame::new(9, 9)])).await.expect("it is sent");
        lane
    };
    let accepted = async {
        let mut lane = incoming.accept().await.expect("it is accepted");
        assert_eq!(lane.receiver.receive().await.expect("a frame"), Some(Frame::new(9, 9)));
        lane
    };
    let (mut dialler, mut listener) = tokio::join!(dialled, accepted);
    dialler.receiver.set_frame_bytes_max(64 << 20);
    listener.receiver.set_frame_bytes_max(64 << 20);
    (dialler, listener)
}

/// A frame that no other resembles, its body in parts of these lengths.
fn frame(number: u64, parts: &[usize]) -> Frame {
    let part = |bytes: &usize| {
        let pattern: Vec<u8> = (0..251u64).map(|at| (at * 31 + number) as u8).collect();
        let mut whole = pattern.repeat(bytes / pattern.len() + 1);
        whole.truncate(*bytes);
        Bytes::from(whole)
    };
    let mut frame = Frame::new((number % 200) as u8, number);
    frame.flags = (number % 3) as u8;
    frame.body = parts.iter().map(part).collect();
    frame
}

fn identity(node: i32, plane: Plane, transport: &'static str, cluster: &str) -> Identity {
    Identity::new(NodeId(node), [node as u8; 16], plane, transport, cluster.into(), Some(Offset(100 + i64::from(node))))
}
