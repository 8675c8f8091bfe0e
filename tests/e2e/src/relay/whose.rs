//! Whose socket it is that a connection or a datagram comes from: the kernel's tables say which socket has the port, and which
//! process holds the socket (proc_pid_fd(5), proc_net_tcp in proc(5)).

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

/// The node among `processes` that holds the local socket with the address `from`; `to` is its other end, for TCP.
pub fn node_of(from: SocketAddr, to: Option<SocketAddr>, processes: &BTreeMap<usize, u32>) -> Option<usize> {
    let table = fs::read_to_string(if to.is_some() { "/proc/net/tcp" } else { "/proc/net/udp" }).ok()?;
    let socket = table.lines().skip(1).find_map(|line| inode(line, from, to))?;
    let name = format!("socket:[{socket}]");
    processes.iter().find(|(_, process)| holds(**process, &name)).map(|(node, _)| *node)
}

/// The socket of a line of the table, if it has these addresses: `n: address:port address:port … inode` in hexadecimals.
fn inode(line: &str, from: SocketAddr, to: Option<SocketAddr>) -> Option<&str> {
    const INODE: usize = 9;
    let words: Vec<&str> = line.split_whitespace().collect();
    let port = |word: &str| u16::from_str_radix(word.rsplit_once(':')?.1, 16).ok();
    let is_it = port(words.get(1)?)? == from.port() && to.is_none_or(|to| port(words[2]) == Some(to.port()));
    is_it.then(|| words.get(INODE).copied()).flatten()
}

fn holds(process: u32, name: &str) -> bool {
    let files = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    files.filter_map(|file| fs::read_link(file.path()).ok()).any(|held| held == Path::new(name))
}
