//! Datagrams: each address that they come from has a socket of its own towards the node, as behind a router.

use super::{Shared, Stop, Way, corrupt, takes, whose};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Larger than any.
const DATAGRAM_BYTES_MAX: usize = 64 * 1024;
/// Datagrams on their way; what comes on top of them is lost, as anywhere.
const ON_THE_WAY_MAX: usize = 4_096;
/// What the operating system holds for each socket: the nodes' own have as much.
const SOCKET_BYTES: usize = 8 << 20;
/// An address from which nothing comes for so long is forgotten.
const IDLE_MAX: Duration = Duration::from_secs(30);

type Line = mpsc::Sender<(Instant, Vec<u8>)>;

pub async fn relay(shared: Arc<Shared>, stop: Stop) {
    let near = Arc::new(socket(stop.relay).await.expect("the relay's port is free"));
    let mut lines: BTreeMap<SocketAddr, Line> = BTreeMap::new();
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((count, from)) = near.recv_from(&mut datagram).await else { continue };
        if lines.get(&from).is_none_or(Line::is_closed) {
            lines.retain(|_, line| !line.is_closed());
            let Some(node) = whose::node_of(from, None, &shared.processes()) else { continue };
            let Ok(far) = socket((Ipv4Addr::LOCALHOST, 0).into()).await else { continue };
            if far.connect(stop.target).await.is_err() {
                continue;
            }
            let (line, received) = mpsc::channel(ON_THE_WAY_MAX);
            lines.insert(from, line);
            let way = Way { plane: stop.plane, from: node, to: stop.node };
            tokio::spawn(carry(shared.clone(), way, received, near.clone(), from, Arc::new(far)));
        }
        if let Some(line) = lines.get(&from) {
            let _ = line.try_send((Instant::now(), datagram[..count].to_vec()));
        }
    }
}

async fn socket(at: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind(at).await?;
    // As much as the system gives.
    let _ = set_socket_recv_buffer_size(&socket, SOCKET_BYTES);
    let _ = set_socket_send_buffer_size(&socket, SOCKET_BYTES);
    Ok(socket)
}

async fn carry(
    shared: Arc<Shared>,
    way: Way,
    there: mpsc::Receiver<(Instant, Vec<u8>)>,
    near: Arc<UdpSocket>,
    from: SocketAddr,
    far: Arc<UdpSocket>,
) {
    let (line, back) = mpsc::channel(ON_THE_WAY_MAX);
    let answers = far.clone();
    let receive = async move {
        let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            // A node that is down refuses datagrams, which is an error here, and goes on.
            if let Ok(count) = answers.recv(&mut datagram).await {
                let _ = line.try_send((Instant::now(), datagram[..count].to_vec()));
            }
        }
    };
    tokio::select! {
        () = one_way(&shared, way, there, |datagram| { let _ = far.try_send(datagram); }) => {}
        () = one_way(&shared, way.back(), back, |datagram| { let _ = near.try_send_to(datagram, from); }) => {}
        () = receive => {}
    }
}

/// Until nothing has come for a while.
async fn one_way(shared: &Shared, way: Way, mut line: mpsc::Receiver<(Instant, Vec<u8>)>, send: impl Fn(&[u8])) {
    let (mut passed, mut seen) = (0u64, 0u64);
    let mut late: Option<Vec<u8>> = None;
    while let Ok(Some((came, mut datagram))) = tokio::time::timeout(IDLE_MAX, line.recv()).await {
        let rule = shared.rule(way);
        if rule.cut || rule.close {
            continue;
        }
        if rule.delay_ms > 0 || rule.bytes_per_s > 0 {
            tokio::time::sleep_until(came + Duration::from_millis(rule.delay_ms)).await;
            tokio::time::sleep(takes(rule, datagram.len())).await;
        }
        // Spread evenly over a thousand, and differently for the two: 7 and 13 share no factor with it.
        seen += 1;
        if seen * 7 % 1_000 < rule.drop_per_mille {
            continue;
        }
        corrupt(rule, &mut passed, &mut datagram);
        if late.is_none() && seen * 13 % 1_000 < rule.reorder_per_mille {
            late = Some(datagram);
            continue;
        }
        send(&datagram);
        if let Some(late) = late.take() {
            send(&late);
        }
    }
}
