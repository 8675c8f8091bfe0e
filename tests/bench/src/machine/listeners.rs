//! Whose process listens at an address of this machine, so that a broker which somebody else has started can be watched too.

use super::read;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

/// A socket that listens, in /proc/net/tcp.
const LISTENING: &str = "0A";

/// The processes that listen at these addresses, `host:port` each. None if one of them is not on this machine, is not heard of,
/// or may not be looked at.
pub fn processes(bootstrap: &str) -> Option<Vec<u32>> {
    let mut pids = BTreeSet::new();
    for address in bootstrap.split(',') {
        let port =
            address.trim().to_socket_addrs().ok()?.find(|address| is_here(address.ip())).map(|here| here.port())?;
        let inodes = listening_at(port);
        let pid = process_with(&inodes)?;
        pids.insert(pid);
    }
    (!pids.is_empty()).then(|| pids.into_iter().collect())
}

/// Whether an address is this machine's: one can be bound there and nowhere else.
fn is_here(address: IpAddr) -> bool {
    address.is_loopback() || std::net::UdpSocket::bind(SocketAddr::new(address, 0)).is_ok()
}

fn listening_at(port: u16) -> BTreeSet<String> {
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().flat_map(|path| listening_in(&read(path), port)).collect()
}

fn listening_in(table: &str, port: u16) -> Vec<String> {
    let wanted = format!(":{port:04X}");
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields.get(1)?.ends_with(&wanted) && *fields.get(3)? == LISTENING;
        is_it.then(|| fields.get(9).map(ToString::to_string))?
    };
    table.lines().skip(1).filter_map(inode).collect()
}

fn process_with(inodes: &BTreeSet<String>) -> Option<u32> {
    let wanted: BTreeSet<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let links = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        links.into_iter().any(|link| link.to_str().is_some_and(|link| wanted.contains(link)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn this_process_is_found_by_where_it_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it has one").to_string();
        assert_eq!(processes(&address), Some(vec![std::process::id()]));
        drop(listener);
        assert_eq!(processes("203.0.113.1:9092"), None, "another machine");
    }

    #[test]
    fn only_sockets_that_listen_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:2384 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n\
            1: 0100007F:2384 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1\n";
        assert_eq!(listening_in(table, 9092), ["4711"]);
        assert!(listening_in(table, 9093).is_empty());
    }
}
