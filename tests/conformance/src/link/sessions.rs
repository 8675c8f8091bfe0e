//! What sessions come up and go down by. The other side is a bare peer: it greets as it should, and beyond that does what it
//! likes.

use super::raft::{RaftNode, peer, raft_node};
use super::replication::{LOG, Replica, Seen, progress, replica};
use super::{Layer, PATIENCE, identity, listener, soon};
use chronik_core::ids::{NodeId, Offset};
use chronik_core::raft_transport::RaftTransport;
use chronik_core::replication::Event;
use chronik_link::handshake::{HELLO, PING, PONG, Place, Plane, greet};
use chronik_link::raft::RaftLanes;
use chronik_link::replication::{Events, ReplicationLanes, encode, settings};
use chronik_link::session::Settings;
use chronik_link::{Endpoint, Frame, Lane, LaneClass, LinkError};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// A bare peer answers no ping, and is not to be taken for dead because the machine is slow.
pub fn patient(settings: Settings) -> Settings {
    Settings { silence_max: PATIENCE * 2, ..settings }
}

/// One lane of a session that a bare peer makes.
pub async fn bare_lane(layer: &Layer, node: i32, plane: Plane, at: &Endpoint, place: Place) -> Lane {
    let link = (layer.node)(node);
    let mut lane = link.dial(at, plane.class(place.lane)).await.expect("it is reached");
    let own = identity(node, plane, link.name(), "c");
    soon("a greeting", greet(&mut lane, &own, at, place)).await.expect("it is welcome");
    lane.receiver.set_frame_bytes_max(64 << 20);
    lane
}

/// All of them.
pub async fn bare(layer: &Layer, node: i32, plane: Plane, at: &Endpoint, session: u64, lanes: u32) -> Vec<Lane> {
    let mut made = Vec::new();
    for lane in 0..lanes {
        made.push(bare_lane(layer, node, plane, at, Place { session, lane, lanes }).await);
    }
    made
}

pub async fn say(lane: &mut Lane, frame: Frame) -> Result<(), LinkError> {
    lane.sender.send(&mut VecDeque::from([frame])).await
}

/// Until the other end is done with it.
async fn its_end(lane: &mut Lane) {
    while let Ok(Some(_)) = lane.receiver.receive().await {}
}

fn up(node: i32) -> Event {
    Event::Up { peer: NodeId(node), broker_epoch: Offset(100 + i64::from(node)) }
}

fn down(node: i32) -> Event {
    Event::Down { peer: NodeId(node) }
}

fn heard(node: i32, end: i64) -> Event {
    Event::Message { from: NodeId(node), log: LOG, message: progress(end) }
}

fn said(end: i64) -> Frame {
    encode(&LOG, progress(end))
}

pub async fn begin_with_a_greeting_or_not_at_all(layer: &Layer) {
    let Replica { lanes, seen, at } = replica(layer, 2, patient(settings(1))).await;
    for first in
        [said(1), Frame::new(HELLO, 1), Frame::new(HELLO, u64::from_be_bytes(*b"CHRONIK\x01")), Frame::new(0, 0)]
    {
        let link = (layer.node)(1);
        let mut lane = link.dial(&at, LaneClass::Replication(0)).await.expect("it is reached");
        let _ = say(&mut lane, first).await;
        let _ = say(&mut lane, said(2)).await;
        soon("the end of a lane without a greeting", its_end(&mut lane)).await;
    }
    assert_eq!(seen.all(), [], "nothing of a stranger is heard");
    let mut good = bare(layer, 1, Plane::Replication, &at, 1, 1).await;
    say(&mut good[0], said(3)).await.expect("it is sent");
    let all = seen.until("a session", |all| all.len() > 1).await;
    assert_eq!(all, [up(1), heard(1, 3)]);
    lanes.stop();
}

pub async fn are_all_of_their_lanes(layer: &Layer) {
    let Replica { lanes, seen, at } = replica(layer, 2, patient(settings(2))).await;
    let place = |lane| Place { session: 7, lane, lanes: 2 };
    let mut first = bare_lane(layer, 1, Plane::Replication, &at, place(0)).await;
    say(&mut first, said(1)).await.expect("it is sent");
    assert_eq!(seen.all(), [], "one lane of two is no session");
    let second = bare_lane(layer, 1, Plane::Replication, &at, place(1)).await;
    let all = seen.until("the session", |all| all.len() > 1).await;
    assert_eq!(all, [up(1), heard(1, 1)], "what was said early is heard when it stands");
    // One lane breaks, and with it all.
    drop(second);
    seen.until("its end", |all| all.last() == Some(&down(1))).await;
    let _ = say(&mut first, said(2)).await;
    soon("the end of the other lane", its_end(&mut first)).await;
    let mut again = bare(layer, 1, Plane::Replication, &at, 8, 2).await;
    say(&mut again[1], said(3)).await.expect("it is sent");
    let all = seen.until("the next session", |all| all.last() == Some(&heard(1, 3))).await;
    assert_eq!(all[2..], [down(1), up(1), heard(1, 3)], "nothing of the old session");
    lanes.stop();
}

pub async fn give_way_to_later_ones(layer: &Layer) {
    let Replica { lanes, seen, at } = replica(layer, 2, patient(settings(1))).await;
    let mut former = bare(layer, 1, Plane::Replication, &at, 1, 1).await;
    seen.until("a session", |all| *all == [up(1)]).await;
    let mut other = bare(layer, 3, Plane::Replication, &at, 1, 1).await;
    seen.until("another node's session", |all| *all == [up(1), up(3)]).await;
    let mut latter = bare(layer, 1, Plane::Replication, &at, 2, 1).await;
    seen.until("the later session", |all| *all == [up(1), up(3), down(1), up(1)]).await;
    let _ = say(&mut former[0], said(1)).await;
    soon("the end of the former's lane", its_end(&mut former[0])).await;
    say(&mut latter[0], said(2)).await.expect("it is sent");
    seen.until("the later one's words", |all| all[4..] == [heard(1, 2)]).await;
    say(&mut other[0], said(4)).await.expect("it is sent");
    seen.until("the other node's words", |all| all[5..] == [heard(3, 4)]).await;
    lanes.stop();
}

/// Takes its time over the end of a session, and as long as nothing comes up meanwhile.
#[derive(Default)]
struct SlowToEnd {
    seen: Seen,
    ending: AtomicBool,
}

impl Events for SlowToEnd {
    fn take(&self, event: Event) {
        if matches!(event, Event::Down { .. }) {
            let before = self.seen.all().len();
            self.ending.store(true, Ordering::Release);
            // The thread's other tasks go on elsewhere.
            tokio::task::block_in_place(|| {
                for _ in 0..50 {
                    if self.seen.all().len() > before {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
        }
        self.seen.take(event);
    }

    fn admits(&self, _: NodeId, _: Offset) -> Result<(), String> {
        Ok(())
    }
}

/// A session that comes while the end of the one before is being told is not taken for what has ended.
pub async fn come_up_after_the_former_ones_end_was_told(layer: &Layer) {
    let (incoming, at) = listener(layer, 2).await;
    let slow = Arc::new(SlowToEnd::default());
    let link = (layer.node)(2);
    let own = identity(2, Plane::Replication, link.name(), "c");
    let lanes = ReplicationLanes::start(link, incoming, own, patient(settings(1)), slow.clone());
    let former = bare(layer, 1, Plane::Replication, &at, 1, 1).await;
    slow.seen.until("a session", |all| *all == [up(1)]).await;
    drop(former);
    soon("its end", async {
        while !slow.ending.load(Ordering::Acquire) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let mut latter = bare(layer, 1, Plane::Replication, &at, 2, 1).await;
    say(&mut latter[0], said(1)).await.expect("it is sent");
    let all = slow.seen.until("the later session", |all| all.len() > 3).await;
    assert_eq!(all, [up(1), down(1), up(1), heard(1, 1)]);
    lanes.stop();
}

pub async fn end_with_silence(layer: &Layer) {
    let settings =
        Settings { ping_every: Duration::from_millis(50), silence_max: Duration::from_secs(2), ..settings(1) };
    let Replica { lanes, seen, at } = replica(layer, 2, settings).await;
    let mut peer = bare(layer, 1, Plane::Replication, &at, 1, 1).await.remove(0);
    let answering = async {
        loop {
            let frame = peer.receiver.receive().await.expect("a frame").expect("not the end");
            if frame.kind == PING {
                say(&mut peer, Frame::new(PONG, frame.number)).await.expect("it is sent");
            }
            if let Some(round_trip) = lanes.status().first().and_then(|status| status.round_trip) {
                return round_trip;
            }
        }
    };
    soon("a round trip", answering).await;
    assert_eq!(seen.all(), [up(1)]);
    // From now on it reads, and says nothing; nor does it close anything.
    let noticed = async { tokio::join!(its_end(&mut peer), seen.until("its end", |all| *all == [up(1), down(1)])) };
    soon("that it is silent", noticed).await;
    lanes.stop();
}

/// Why there is no session, as it is shown.
async fn trouble(node: &RaftNode, what: &str) {
    let look = async {
        let says = |node: &RaftNode| {
            node.lanes.status().into_iter().filter_map(|peer| peer.trouble).any(|words| words.contains(what))
        };
        while !says(node) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, look).await.is_err() {
        panic!("{what:?} is not in {:?}", node.lanes.status());
    }
}

pub async fn refuse_in_words(layer: &Layer) {
    let one = raft_node(layer, 1, "mine").await;
    let two = raft_node(layer, 2, "theirs").await;
    one.lanes.set_peers(vec![peer(2, &two.address)]);
    trouble(&one, "of cluster \"theirs\"").await;
    let three = raft_node(layer, 3, "mine").await;
    one.lanes.set_peers(vec![peer(4, &three.address)]);
    trouble(&one, "this is node 3, and not node 4").await;
    let same = raft_node(layer, 1, "mine").await;
    one.lanes.set_peers(vec![peer(2, &same.address)]);
    trouble(&one, "two nodes have the same node.id").await;
    let records = replica(layer, 2, settings(2)).await;
    one.lanes.set_peers(vec![peer(2, &format!("127.0.0.1:{}", records.at.port))]);
    trouble(&one, "this is the address of replication").await;
    records.lanes.stop();
    // One that says it is configured otherwise.
    let odd = odd_node(layer, 2, "pigeon", chronik_link::raft::settings()).await;
    one.lanes.set_peers(vec![peer(2, &odd.address)]);
    trouble(&one, "\"pigeon\" on node 2").await;
    let fewer = Settings { lanes: 2, ..chronik_link::raft::settings() };
    let less = odd_node(layer, 2, (layer.node)(2).name(), fewer).await;
    one.lanes.set_peers(vec![peer(2, &less.address)]);
    trouble(&one, "raft.lanes gives 3 on node 1, and 2 on node 2").await;
    if layer.certified {
        // Node 3's certificate, and it says it is node 2: whichever end it is at.
        let (incoming, at) = listener(layer, 3).await;
        let (sender, _events) = mpsc::channel(10);
        let link = (layer.node)(3);
        let own = identity(2, Plane::Raft, link.name(), "mine");
        let liar = RaftLanes::start(link, incoming, own, chronik_link::raft::settings(), sender);
        one.lanes.set_peers(vec![peer(2, &format!("127.0.0.1:{}", at.port))]);
        trouble(&one, "its certificate is node 3's").await;
        one.lanes.set_peers(Vec::new());
        liar.set_peers(vec![peer(1, &one.address)]);
        let liar = RaftNode { lanes: liar, address: String::new(), events: mpsc::channel(1).1 };
        trouble(&liar, "its certificate is node 3's").await;
    }
    for node in [&one, &two, &three, &same, &odd, &less] {
        assert!(node.lanes.status().iter().all(|peer| !peer.is_up), "nobody got in");
    }
}

async fn odd_node(layer: &Layer, node: i32, transport: &'static str, settings: Settings) -> RaftNode {
    let (incoming, at) = listener(layer, node).await;
    let (sender, events) = mpsc::channel(10);
    let own = identity(node, Plane::Raft, transport, "mine");
    let lanes = RaftLanes::start((layer.node)(node), incoming, own, settings, sender);
    RaftNode { lanes, events, address: format!("127.0.0.1:{}", at.port) }
}

pub async fn name_what_differs_on_the_other_plane(layer: &Layer) {
    let node = async |node, other| {
        let (incoming, at) = listener(layer, node).await;
        let (sender, events) = mpsc::channel(10);
        let link = (layer.node)(node);
        let own = identity(node, Plane::Raft, link.name(), "c").beside(other);
        let lanes = RaftLanes::start(link, incoming, own, chronik_link::raft::settings(), sender);
        RaftNode { lanes, events, address: format!("127.0.0.1:{}", at.port) }
    };
    let (one, two) = (node(1, "tcp").await, node(2, "quic").await);
    one.lanes.set_peers(vec![peer(2, &two.address)]);
    trouble(&one, "replication.transport is \"quic\" on node 2, and \"tcp\" on node 1").await;
    trouble(&two, "replication.transport is \"tcp\" on node 1, and \"quic\" on node 2").await;
    assert!(one.lanes.status()[0].is_up, "the Raft plane is as it should be");
}
