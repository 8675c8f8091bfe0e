//! The relay between sockets of this very process, which is every node at once unless it says that it is another.

use super::*;
use crate::broker::free_port;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};

/// Long enough for what comes, and waited out in vain for what must not.
const SOON: Duration = Duration::from_millis(300);

fn ports() -> Ports {
    Ports { raft: free_port(), replication: free_port(), raft_relay: free_port(), replication_relay: free_port() }
}

/// This process is node 1, and dials node 2, which "runs" elsewhere.
fn network(datagrams: bool) -> (Network, Ports) {
    let nodes = [ports(), ports()];
    let network = Network::start(&nodes, datagrams);
    network.runs(1, Some(std::process::id()));
    // No process has this id.
    network.runs(2, Some(u32::MAX));
    (network, nodes[1])
}

fn dial(port: u16) -> TcpStream {
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => {
                stream.set_read_timeout(Some(SOON)).expect("a time-out");
                return stream;
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn came(stream: &mut TcpStream) -> Option<u8> {
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(1) => Some(byte[0]),
        Ok(_) => panic!("it has ended"),
        Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        Err(why) => panic!("{why}"),
    }
}

#[test]
fn a_cut_line_is_silent_one_way_and_what_it_held_comes_when_it_heals() {
    let (network, ports) = network(false);
    let listener = TcpListener::bind(("127.0.0.1", ports.raft)).expect("a port");
    let mut near = dial(ports.raft_relay);
    let (mut far, _) = listener.accept().expect("the relay's connection");
    far.set_read_timeout(Some(SOON)).expect("a time-out");
    near.write_all(b"a").expect("sent");
    assert_eq!(came(&mut far), Some(b'a'));
    let cut = Rule { cut: true, ..Rule::default() };
    network.set(Plane::Raft, 1, 2, cut);
    near.write_all(b"b").expect("sent");
    far.write_all(b"c").expect("sent");
    assert_eq!((came(&mut near), came(&mut far)), (Some(b'c'), None));
    // The other end dies, and across a cut the other way nobody hears of it.
    network.set(Plane::Raft, 2, 1, cut);
    drop(far);
    assert_eq!(came(&mut near), None);
    network.heal();
    assert!(matches!(near.read(&mut [0]), Ok(0) | Err(_)), "now it does");
    let mut near = dial(ports.raft_relay);
    let (mut far, _) = listener.accept().expect("the relay's connection");
    far.set_read_timeout(Some(SOON)).expect("a time-out");
    network.set(Plane::Replication, 1, 2, cut);
    near.write_all(b"d").expect("sent");
    assert_eq!(came(&mut far), Some(b'd'), "the other plane's cuts are no matter here");
    network.set(Plane::Raft, 1, 2, Rule { corrupt_every_bytes: 2, ..Rule::default() });
    near.write_all(b"e").expect("sent");
    assert_ne!(came(&mut far), Some(b'e'), "the second byte");
    network.set(Plane::Raft, 1, 2, Rule { close: true, ..Rule::default() });
    assert!(matches!(near.read(&mut [0]), Ok(0) | Err(_)), "it is closed");
}

#[test]
fn the_port_of_a_node_that_is_down_refuses_unless_it_is_cut_off() {
    let (network, ports) = network(false);
    drop(dial(ports.raft_relay));
    network.runs(2, None);
    let refused = || TcpStream::connect(("127.0.0.1", ports.raft_relay)).is_err();
    let end = std::time::Instant::now() + SOON * 20;
    while !refused() {
        assert!(std::time::Instant::now() < end, "it does not refuse");
    }
    network.set_inbound(&[Plane::Raft], 2, Rule { cut: true, ..Rule::default() });
    drop(dial(ports.raft_relay));
}

#[test]
fn datagrams_are_lost_in_a_cut_and_may_come_in_another_order() {
    let (network, ports) = network(true);
    let far = UdpSocket::bind(("127.0.0.1", ports.replication)).expect("a port");
    far.set_read_timeout(Some(SOON)).expect("a time-out");
    let near = UdpSocket::bind("127.0.0.1:0").expect("a port");
    near.set_read_timeout(Some(SOON)).expect("a time-out");
    near.connect(("127.0.0.1", ports.replication_relay)).expect("an address");
    let come = || {
        let mut byte = [0];
        far.recv_from(&mut byte).ok().map(|(_, from)| (byte[0], from))
    };
    // Until the relay listens, which nothing says, they are lost too.
    let from = loop {
        let _ = near.send(b"a");
        if let Some((_, from)) = come() {
            break from;
        }
    };
    while come().is_some() {}
    far.send_to(b"b", from).expect("sent");
    assert_eq!(near.recv(&mut [0]).ok(), Some(1), "the way back");
    network.set(Plane::Replication, 1, 2, Rule { cut: true, ..Rule::default() });
    near.send(b"c").expect("sent");
    assert_eq!(come(), None);
    network.set(Plane::Replication, 1, 2, Rule { reorder_per_mille: 1_000, ..Rule::default() });
    near.send(b"d").expect("sent");
    near.send(b"e").expect("sent");
    assert_eq!((come().map(|got| got.0), come().map(|got| got.0)), (Some(b'e'), Some(b'd')));
    network.set(Plane::Replication, 1, 2, Rule { drop_per_mille: 1_000, ..Rule::default() });
    near.send(b"f").expect("sent");
    assert_eq!(come(), None);
}
