//! Ports of loopback for processes that are told where to listen before they do.
//!
//! **Invariant:** none is one that the kernel takes for a connection, and none is given out twice by one process. A port of
//! that range is lost easily: while its node is being started or is down, connections that this machine makes take ports of
//! the same range, and a node that dials another which does not listen yet may even be connected with itself, over the very
//! port that it dialled.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range from which systems take ports for connections: Linux's begins at 32768, others' at 49152.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;
/// How far apart processes of neighbouring ids begin, so that those which run at once rarely try the same.
const APART: u32 = 37;

/// A port on which nobody listens at 127.0.0.1, by TCP or by UDP; `None` where all are taken. Another process may still
/// be quicker than whom it is for, which then says so.
pub fn free_port() -> Option<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = std::process::id() % u32::from(COUNT) * APART;
    let mut tried = (0..COUNT).map(|_| {
        let next = u32::from(NEXT.fetch_add(1, Ordering::Relaxed) % COUNT);
        FIRST + ((first + next) % u32::from(COUNT)) as u16
    });
    tried.find(|&port| is_free(port))
}

fn is_free(port: u16) -> bool {
    let at = (Ipv4Addr::LOCALHOST, port);
    TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_port_is_given_out_twice_nor_one_that_somebody_has() {
        let given: BTreeSet<u16> = (0..100).map(|_| free_port().expect("some are free")).collect();
        assert_eq!(given.len(), 100);
        assert!(given.iter().all(|port| (FIRST..FIRST + COUNT).contains(port)));
        let one = free_port().expect("some are free");
        let by_tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, one)).expect("it is free");
        assert!(!is_free(one));
        drop(by_tcp);
        let _by_udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, one)).expect("it is free again");
        assert!(!is_free(one));
    }
}
