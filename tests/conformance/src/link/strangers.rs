//! Who does not get a lane, and that this harms nobody else.

use super::{Layer, Pair, Port, frame, listener, pair, soon};
use chronik_core::ids::NodeId;
use chronik_link::{Endpoint, Frame, Incoming, Lane, LaneClass, Link};
use std::collections::VecDeque;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;

pub async fn a_lane_names_both_nodes(layer: &Layer) {
    let Pair { dialler, listener, at, .. } = pair(layer).await;
    let named = |node| layer.certified.then_some(NodeId(node));
    assert_eq!((dialler.certified, listener.certified), (named(2), named(1)));
    assert_eq!(dialler.remote.port(), at.port);
}

/// What a stranger without a link of ours can do.
enum Line {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Line {
    async fn to(layer: &Layer, at: &Endpoint) -> Self {
        let to = ("127.0.0.1", at.port);
        match layer.port {
            Port::Tcp => Self::Tcp(TcpStream::connect(to).await.expect("it listens")),
            Port::Udp => {
                let socket = UdpSocket::bind(("127.0.0.1", 0)).await.expect("a socket");
                socket.connect(to).await.expect("it listens");
                Self::Udp(socket)
            }
        }
    }

    async fn say(&mut self, bytes: &[u8]) {
        // It may be closed already; that is the point.
        match self {
            Self::Tcp(stream) => drop(stream.write_all(bytes).await),
            Self::Udp(socket) => {
                for datagram in bytes.chunks(1_200) {
                    let _ = socket.send(datagram).await;
                }
            }
        }
    }
}

/// Accepts, and gives the lanes on which [`known`] comes first. A stranger's may come too where there is no encryption to
/// tell it by; it gives no frame that means anything.
fn accepting(mut incoming: Box<dyn Incoming>) -> mpsc::Receiver<Lane> {
    let (sender, lanes) = mpsc::channel(100);
    tokio::spawn(async move {
        while !sender.is_closed() {
            let Ok(mut lane) = incoming.accept().await else { continue };
            let sender = sender.clone();
            tokio::spawn(async move {
                if lane.receiver.receive().await.is_ok_and(|first| first == Some(known())) {
                    let _ = sender.send(lane).await;
                }
            });
        }
    });
    lanes
}

fn known() -> Frame {
    Frame::new(9, 9)
}

async fn good_lane(link: &dyn Link, at: &Endpoint, accepted: &mut mpsc::Receiver<Lane>) -> (Lane, Lane) {
    let mut dialled = link.dial(at, LaneClass::Control).await.expect("it is reached");
    dialled.sender.send(&mut VecDeque::from([known()])).await.expect("it is sent");
    let accepted = accepted.recv().await.expect("it goes on accepting");
    (dialled, accepted)
}

pub async fn garbage_harms_nobody(layer: &Layer) {
    let (incoming, at) = listener(layer, 2).await;
    let mut accepted = accepting(incoming);
    let link = (layer.node)(1);
    let (mut first, mut its) = soon("a lane", good_lane(&*link, &at, &mut accepted)).await;
    // Of the last two, a head that asks for 4 GiB, and one of a long QUIC packet.
    let endless = [7, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 1];
    let long = [0xc0, 0, 0, 0, 1, 20, 1, 2, 3];
    let garbage =
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n????", &[0xff; 5_000], &endless, &long];
    let hello = [0x16, 3, 1, 255, 255];
    let mut lines = Vec::new();
    for garbage in garbage.into_iter().chain([&hello[..], b""]) {
        let mut line = Line::to(layer, &at).await;
        line.say(garbage).await;
        soon("a lane after garbage", good_lane(&*link, &at, &mut accepted)).await;
        lines.push(line);
    }
    drop(lines);
    first.sender.send(&mut VecDeque::from([frame(3, &[30])])).await.expect("the first lane is as it was");
    let got = soon("a frame after garbage", its.receiver.receive()).await.expect("a frame");
    assert_eq!(got.expect("not the end").number, 3);
}

pub async fn silence_holds_up_nobody(layer: &Layer) {
    let (incoming, at) = listener(layer, 2).await;
    let mut accepted = accepting(incoming);
    // One after the other they would take longer than anyone waits.
    let mut lines = Vec::new();
    for _ in 0..40 {
        lines.push(Line::to(layer, &at).await);
    }
    let link = (layer.node)(1);
    soon("a lane beside silent strangers", good_lane(&*link, &at, &mut accepted)).await;
}

/// As one that is cut off, or stopped, does not.
pub async fn a_node_that_does_not_answer_holds_up_no_other(layer: &Layer) {
    let tcp = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let udp = std::net::UdpSocket::bind(("127.0.0.1", 0)).expect("a port");
    let port = match layer.port {
        Port::Tcp => tcp.local_addr(),
        Port::Udp => udp.local_addr(),
    };
    let silent = Endpoint { node: NodeId(3), host: "127.0.0.1".into(), port: port.expect("its address").port() };
    let (incoming, at) = listener(layer, 2).await;
    let mut accepted = accepting(incoming);
    let link = (layer.node)(1);
    let dialling = link.dial(&silent, LaneClass::Control);
    tokio::pin!(dialling);
    // It is under way, unless there is nothing to wait for: without TLS the operating system answers.
    let began = tokio::time::timeout(std::time::Duration::from_millis(100), &mut dialling).await;
    if began.is_ok() {
        return;
    }
    tokio::select! {
        biased;
        _ = &mut dialling => panic!("the node that answers waited for the one that does not"),
        _ = soon("a lane beside it", good_lane(&*link, &at, &mut accepted)) => {}
    }
}

pub async fn do_not_get_in(layer: &Layer) {
    for (who, link) in &layer.strangers {
        let (incoming, at) = listener(layer, 2).await;
        let mut accepted = accepting(incoming);
        let came = async {
            let mut lane = link.dial(&at, LaneClass::Control).await?;
            // With TLS 1.3 a client learns only afterwards that it was refused.
            lane.sender.send(&mut VecDeque::from([known()])).await?;
            lane.receiver.receive().await
        };
        tokio::select! {
            _ = accepted.recv() => panic!("{who} got in"),
            answer = soon(who, came) => assert!(!matches!(answer, Ok(Some(_))), "{who} was answered"),
        }
        // The same listener takes who belongs.
        soon("a node of ours", good_lane(&*(layer.node)(1), &at, &mut accepted)).await;
    }
}
