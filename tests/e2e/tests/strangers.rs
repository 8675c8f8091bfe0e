//! Who does not belong to the cluster, at the ports of a running one, on both planes: over the transport in
//! `CHRONIK_CLUSTER_TRANSPORT`, with TLS. Each is closed out, and nothing is other than before: neither the term, nor who
//! leads, nor what is committed, nor anybody's log; and the nodes' own sessions stay.

use chronik_core::ids::{NodeId, Offset};
use chronik_e2e::cluster::{Cluster, make_certs, transport};
use chronik_e2e::relay::Plane as Which;
use chronik_e2e::workload::replicas::replicas_are_the_same;
use chronik_e2e::workload::writer::Writer;
use chronik_e2e::workload::{check, create_topic};
use chronik_link::handshake::{HELLO, HandshakeError, Identity, Place, Plane, greet};
use chronik_link::raft::RAFT;
use chronik_link::tls::Tls;
use chronik_link::{Endpoint, Frame, Lane, LaneClass, Link, LinkError};
use chronik_proto_cluster::raft as wire;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// Within it whoever does not greet is closed out; only a hang takes as long.
const SOON: Duration = Duration::from_secs(30);

/// The network layers of a node, with these certificates; none: without TLS.
fn link(tls: Option<Tls>) -> Arc<dyn Link> {
    match transport().as_str() {
        "tcp" => Arc::new(chronik_link_tcp::TcpLink::new(tls, Default::default())),
        "grpc" => Arc::new(chronik_link_grpc::GrpcLink::new(tls, Default::default())),
        _ => Arc::new(chronik_link_quic::QuicLink::new(tls, Default::default()).expect("it has certificates")),
    }
}

fn tls(directory: &Path, node: i32) -> Tls {
    let file = |name: String| directory.join(name);
    let (cert, key) = (file(format!("node-{node}.pem")), file(format!("node-{node}.key")));
    Tls::load(NodeId(node), &cert, &key, &directory.join("ca.pem")).expect("certificates")
}

fn identity(plane: Plane, node: i32, cluster_id: &str) -> Identity {
    let transport = match transport().as_str() {
        "tcp" => "tcp",
        "grpc" => "grpc",
        _ => "quic",
    };
    // No registration is newer, so that none is refused for being old.
    Identity::new(NodeId(node), [9; 16], plane, transport, cluster_id.to_owned(), Some(Offset(i64::MAX)))
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.unwrap_or_else(|_| panic!("{what}: it does not end"))
}

/// Bytes from someone who speaks nothing that is spoken here: the connection is closed. Nobody answers a datagram.
async fn says(at: &Endpoint, bytes: &[u8]) {
    let to = ("127.0.0.1", at.port);
    if transport() == "quic" {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).await.expect("a socket");
        for datagram in bytes.chunks(1_200) {
            socket.send_to(datagram, to).await.expect("it is sent");
        }
        return;
    }
    let mut stream = TcpStream::connect(to).await.expect("it listens");
    let _ = stream.write_all(bytes).await;
    let mut heard = Vec::new();
    // An alert may come, or a reset; it is the end that counts.
    let _ = soon("bytes that mean nothing", stream.read_to_end(&mut heard)).await;
    assert!(heard.len() < 100, "{} bytes were answered to a stranger", heard.len());
}

/// Gets no frame, and is closed out.
async fn is_closed_out(what: &str, lane: Result<Lane, LinkError>, frame: Frame) {
    let Ok(mut lane) = lane else { return };
    if lane.sender.send(&mut VecDeque::from([frame])).await.is_err() {
        return;
    }
    let heard = soon(what, lane.receiver.receive()).await;
    assert!(!matches!(heard, Ok(Some(_))), "{what}: it was answered: {heard:?}");
}

/// The words with which a greeting is refused.
async fn refusal(link: &dyn Link, at: &Endpoint, own: &Identity, class: LaneClass) -> String {
    let mut lane = soon("dialling", link.dial(at, class)).await.expect("its certificate is good");
    let place = Place { session: 1, lane: 0, lanes: 1 };
    match soon("greeting", greet(&mut lane, own, at, place)).await {
        Err(HandshakeError::RefusedBy { words, .. }) => words,
        other => panic!("it was not refused: {other:?}"),
    }
}

/// A vote's request, and entries, of a term that no node knows: believed, either would end the leader's.
fn raft_frames() -> Vec<Frame> {
    use raft::eraftpb::{Entry, Message, MessageType};
    let mut vote =
        Message { from: 2, to: 1, term: 1_000_000, index: 1_000_000, log_term: 1_000_000, ..Default::default() };
    vote.set_msg_type(MessageType::MsgRequestVote);
    let mut append = Message { commit: 1_000_000, ..vote.clone() };
    append.set_msg_type(MessageType::MsgAppend);
    append.entries.push(Entry { term: 1_000_000, index: 1, data: vec![1; 20].into(), ..Default::default() });
    [vote, append].iter().map(|message| Frame::new(RAFT, 0).with(wire::encode(message))).collect()
}

/// What no stranger changes, as each node sees it.
fn state(cluster: &Cluster) -> Vec<Value> {
    let of = |id| {
        let status = cluster.status(id).expect("a status");
        let keys =
            ["cluster_id", "controller", "term", "committed", "nodes", "partitions", "not_in_sync", "not_following"];
        let members: Vec<_> = status["raft"].as_array().into_iter().flatten().map(|one| one["role"].clone()).collect();
        json!([keys.map(|key| status[key].clone()), members])
    };
    cluster.ids().map(of).collect()
}

/// The state that the cluster comes to rest in: a node hears what is committed only with its leader's next message, and
/// the last of what led to a whole cluster may still be on its way when it is whole.
fn at_rest(cluster: &Cluster) -> Vec<Value> {
    let seen = RefCell::new(Vec::new());
    cluster.wait("the metadata's log is at rest", |cluster| {
        let now = state(cluster);
        let same = *seen.borrow() == now;
        seen.replace(now);
        if !same {
            std::thread::sleep(Duration::from_millis(500));
        }
        same
    });
    seen.into_inner()
}

/// All of them, at one plane of one node.
async fn strangers_at(cluster_id: &str, certs: &Path, others: &Path, plane: Plane, at: &Endpoint) {
    let garbage: Vec<u8> = (0..5_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut plain = Frame::new(HELLO, 0).head().to_bytes().to_vec();
    plain.extend([0xff; 64]);
    for frame in raft_frames() {
        plain.extend(frame.head().to_bytes());
        plain.extend(frame.into_body());
    }
    let texts = [
        &garbage[..],
        b"GET /cluster HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &plain,
    ];
    for text in texts {
        says(at, text).await;
    }
    let class = plane.class(0);
    let of_others = link(Some(tls(others, 2)));
    is_closed_out("of another authority", soon("dialling", of_others.dial(at, class)).await, Frame::new(HELLO, 1))
        .await;
    if transport() != "quic" {
        let open = link(None);
        let dialled = tokio::time::timeout(SOON, open.dial(at, class)).await.expect("it ends");
        is_closed_out("without TLS", dialled, Frame::new(HELLO, 1)).await;
    }
    // A node's own certificate, in the wrong hands; from here on the certificate is good.
    let stolen = link(Some(tls(certs, 2)));
    for frame in raft_frames() {
        is_closed_out("Raft before a greeting", soon("dialling", stolen.dial(at, class)).await, frame).await;
    }
    let words = refusal(&*stolen, at, &identity(plane, 2, "another"), class).await;
    assert!(words.contains("of cluster \"another\""), "{words}");
    let words = refusal(&*stolen, at, &identity(plane, 3, cluster_id), class).await;
    assert!(words.contains("its certificate is node 2's"), "{words}");
    let words = refusal(&*stolen, at, &identity(plane.other(), 2, cluster_id), class).await;
    assert!(words.contains("addresses are mixed up"), "{words}");
}

#[test]
#[ignore = "run by tests/run"]
fn strangers_at_a_running_cluster_change_nothing() {
    let mut cluster = Cluster::start(3, &[]);
    create_topic(&cluster);
    cluster.wait("all are in sync", Cluster::is_whole);
    let others = cluster.home().join("others");
    make_certs(&others, "1,2,3");
    let before = at_rest(&cluster);
    let logged = cluster.log(1).len();
    let cluster_id = cluster.status(1).expect("a status")["cluster_id"].as_str().expect("an id").to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let certs = cluster.certs();
    runtime.block_on(async {
        let mut all = tokio::task::JoinSet::new();
        for which in [Which::Raft, Which::Replication] {
            let ports = cluster.planes(1);
            let (plane, port) = match which {
                Which::Raft => (Plane::Raft, ports.raft),
                Which::Replication => (Plane::Replication, ports.replication),
            };
            let at = Endpoint { node: NodeId(1), host: "127.0.0.1".into(), port };
            let (cluster_id, certs, others) = (cluster_id.clone(), certs.clone(), others.clone());
            all.spawn(async move { strangers_at(&cluster_id, &certs, &others, plane, &at).await });
        }
        while let Some(ended) = all.join_next().await {
            ended.expect("a plane holds");
        }
    });
    assert_eq!(state(&cluster), before);
    let log = cluster.log(1).split_off(logged);
    assert!(!log.contains("the session with"), "a session ended, though none was a stranger's:\n{log}");
    let writer = Writer::start(&cluster);
    writer.goes_on("after the strangers");
    check(&cluster, &[writer.finish()]);
    replicas_are_the_same(&mut cluster);
}
