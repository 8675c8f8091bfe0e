//! The sockets of a process, and what has gone over the loopback of its network: as the kernel tells, from outside.

use super::read;
use std::collections::BTreeSet;

/// A connection that stands, in /proc/net/tcp.
const ESTABLISHED: &str = "01";

/// How many sockets a process has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    pub tcp_connections: usize,
    pub udp: usize,
}

impl Sockets {
    pub fn of(pid: u32) -> Self {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let links = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        let own = links.filter_map(|link| {
            let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        });
        let own: BTreeSet<String> = own.collect();
        let table = |name: &str| read(format!("/proc/{pid}/net/{name}"));
        let tcp = |name: &str| count(&table(name), &own, Some(ESTABLISHED));
        let udp = |name: &str| count(&table(name), &own, None);
        Self { tcp_connections: tcp("tcp") + tcp("tcp6"), udp: udp("udp") + udp("udp6") }
    }
}

impl std::fmt::Display for Sockets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.tcp_connections, self.udp) {
            (0, 0) => f.write_str("none"),
            (tcp, 0) => write!(f, "{tcp} TCP"),
            (0, udp) => write!(f, "{udp} UDP"),
            (tcp, udp) => write!(f, "{tcp} TCP, {udp} UDP"),
        }
    }
}

fn count(table: &str, own: &BTreeSet<String>, state: Option<&str>) -> usize {
    let is_own = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let of_state = state.is_none_or(|state| fields.get(3) == Some(&state));
        of_state && fields.get(9).is_some_and(|inode| own.contains(*inode))
    };
    table.lines().skip(1).filter(is_own).count()
}

/// Bytes and packets that a device of a process's network has carried; all of them, whoever sent them.
pub fn carried(pid: u32, device: &str) -> Option<(u64, u64)> {
    carried_in(&read(format!("/proc/{pid}/net/dev")), device)
}

fn carried_in(table: &str, device: &str) -> Option<(u64, u64)> {
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix(device)?.strip_prefix(':'))?;
    let mut numbers = line.split_whitespace();
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[test]
    fn connections_count_and_listeners_do_not() {
        let before = Sockets::of(std::process::id());
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let _near = TcpStream::connect(listener.local_addr().expect("it has one")).expect("it accepts");
        let _far = listener.accept().expect("it came");
        let _udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let after = Sockets::of(std::process::id());
        // Other tests of this process have sockets too, which come and go.
        assert!(after.tcp_connections >= 2 && after.udp >= 1, "{before} and {after}");
    }

    #[test]
    fn the_loopbacks_line_is_read() {
        let table =
            "Inter-|   Receive\n face |bytes    packets errs\n    lo: 1234 56 0 0 0 0 0 0 1234 56\n  eth0: 9 9 9\n";
        assert_eq!(carried_in(table, "lo"), Some((1234, 56)));
        assert_eq!(carried_in("", "lo"), None);
        assert!(carried(std::process::id(), "lo").is_some());
    }
}
