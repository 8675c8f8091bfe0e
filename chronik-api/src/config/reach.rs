//! Which address clients are told, and whether they can get there from here.
//!
//! The most common reason why a Kafka client "connects and then hangs" is an advertised address that means something
//! else where the client is. What can be noticed from this machine is noticed at start, and said in plain words; nothing
//! of it stops the broker, since a name may resolve only where the clients are.

use super::{Listener, address};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// How long resolving, and then connecting, may take before it counts as failed: start-up does not wait for it.
const TRY_FOR: Duration = Duration::from_secs(3);

/// What a listener tells its clients to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    pub host: String,
    pub port: u16,
    /// Nobody configured it, and the address listened on is a wildcard: it is the best guess.
    pub guessed: bool,
}

impl fmt::Display for Advertised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The address to advertise for a listener that got `bound`. Asks the operating system only for its own addresses.
pub fn advertised(listener: &Listener, bound: SocketAddr) -> Advertised {
    match &listener.advertise {
        Some(chosen) => {
            Advertised { host: chosen.host.clone(), port: chosen.port.unwrap_or(bound.port()), guessed: false }
        }
        None if listener.listen.is_wildcard() => {
            Advertised { host: own_address(bound.is_ipv6()).to_string(), port: bound.port(), guessed: true }
        }
        None => Advertised { host: listener.listen.host.clone(), port: bound.port(), guessed: false },
    }
}

/// The address this machine would use to talk to others; loopback if it has none.
fn own_address(prefer_ipv6: bool) -> IpAddr {
    // Connecting a datagram socket sends nothing: it makes the system choose a route, and so a source address. The
    // targets are reserved for documentation (RFC 5737, RFC 3849): they belong to nobody.
    let towards = |own: SocketAddr, other: SocketAddr| -> Option<IpAddr> {
        let socket = UdpSocket::bind(own).ok()?;
        socket.connect(other).ok()?;
        socket.local_addr().ok().map(|chosen| chosen.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
    };
    let v4 = || towards((Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::new(192, 0, 2, 1), 9).into());
    let v6 = || {
        let documentation = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        towards((Ipv6Addr::UNSPECIFIED, 0).into(), (documentation, 9).into())
    };
    // An IPv6 wildcard socket serves IPv4 too, and clients of both kinds can use an IPv4 address.
    v4().or_else(|| if prefer_ipv6 { v6() } else { None }).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// What is doubtful about an advertised address, in sentences for people. Call it once the listener accepts.
pub async fn doubts(listener: &Listener, advertised: &Advertised) -> Vec<String> {
    let mut doubts = Vec::new();
    let set = "Set kafka.advertise to the name or address that clients use.";
    if address::is_loopback(&advertised.host) && !listener.listen.is_loopback() {
        doubts.push(format!(
            "Listening on {} but advertising {advertised}: clients on other machines will be told to connect to \
             themselves. {set}",
            listener.listen
        ));
    } else if advertised.guessed {
        doubts.push(format!("Listening on every address and advertising {advertised}, which is a guess. {set}"));
    }
    let resolved = tokio::time::timeout(TRY_FOR, tokio::net::lookup_host((advertised.host.as_str(), advertised.port)));
    let addresses: Vec<SocketAddr> = match resolved.await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    };
    if addresses.is_empty() {
        doubts.push(format!(
            "The advertised name {} does not resolve on this machine; clients that cannot resolve it either will \
             connect once and then fail. {set}",
            advertised.host
        ));
        return doubts;
    }
    let connected = tokio::time::timeout(TRY_FOR, tokio::net::TcpStream::connect(addresses.as_slice())).await;
    let why = match connected {
        Ok(Ok(_)) => return doubts,
        Ok(Err(why)) => why.to_string(),
        Err(_) => format!("no answer within {} s", TRY_FOR.as_secs()),
    };
    doubts.push(format!(
        "This machine cannot connect to the advertised address {advertised} ({why}). If clients cannot either, they \
         will connect once and then fail. {set}"
    ));
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(listen: &str, advertise: Option<&str>) -> Listener {
        Listener {
            name: "kafka".into(),
            listen: listen.parse().expect("an address"),
            advertise: advertise.map(|text| text.parse().expect("an address")),
        }
    }

    #[test]
    fn what_is_advertised_is_what_was_configured_else_what_is_listened_on_and_never_a_wildcard() {
        let bound: SocketAddr = ([127, 0, 0, 1], 4711).into();
        let shown = |listen, advertise| advertised(&listener(listen, advertise), bound).to_string();
        assert_eq!(shown("127.0.0.1:0", None), "127.0.0.1:4711");
        assert_eq!(shown("localhost:0", None), "localhost:4711");
        assert_eq!(shown("0.0.0.0:0", Some("broker.example.org")), "broker.example.org:4711");
        assert_eq!(shown("0.0.0.0:0", Some("[2001:db8::1]:9")), "[2001:db8::1]:9");
        let guess = advertised(&listener("0.0.0.0:0", None), bound);
        assert!(guess.guessed && !address::is_wildcard(&guess.host), "{guess}");
    }

    #[tokio::test]
    async fn a_reachable_address_raises_no_doubt() {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let listener = listener("127.0.0.1:0", None);
        let advertised = advertised(&listener, socket.local_addr().expect("bound"));
        assert_eq!(doubts(&listener, &advertised).await, Vec::<String>::new());
    }

    #[tokio::test]
    async fn doubtful_addresses_are_named_in_plain_words() {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let bound = socket.local_addr().expect("bound");
        let wildcard = listener("0.0.0.0:0", Some("localhost"));
        let said = doubts(&wildcard, &advertised(&wildcard, bound)).await.join("\n");
        assert!(said.contains("told to connect to themselves"), "{said}");

        let nowhere = listener("127.0.0.1:0", Some("no-such-host.invalid"));
        let said = doubts(&nowhere, &advertised(&nowhere, bound)).await.join("\n");
        assert!(said.contains("no-such-host.invalid does not resolve"), "{said}");

        drop(socket);
        let closed = listener("127.0.0.1:0", None);
        let said = doubts(&closed, &advertised(&closed, bound)).await.join("\n");
        assert!(said.contains("cannot connect to the advertised address"), "{said}");
    }
}
