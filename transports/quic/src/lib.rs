//! The network layer of QUIC (RFC 9000): a stream per lane, always encrypted.
//!
//! - [`socket`]: the connection's options as quinn wants them, and the socket below.
//! - [`incoming`]: where peers come in.
//! - [`lane`]: a stream as a lane.
//!
//! **Lanes to one endpoint share a connection for as long as one of them lives.** The next lane after that begins another
//! connection, so that a peer which was killed and is back is never looked for on the connection to its former process, which
//! would only be given up after a silence.
//!
//! What a lane holds up it holds up alone: streams have windows of their own, and a connection's is as large as several of
//! them. Streams have priorities by their class: what is small and must not be late goes first.

#![forbid(unsafe_code)]

mod incoming;
mod lane;
mod socket;

use async_trait::async_trait;
use chronik_core::ids::NodeId;
use chronik_link::tls::{Tls, node_of_peer};
use chronik_link::{Endpoint, Incoming, Lane, LaneClass, Link, LinkError};
use incoming::QuicIncoming;
use quinn::Connection;
use rustls::pki_types::CertificateDer;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// How a connection's sending rate is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    #[default]
    Cubic,
    NewReno,
    Bbr,
}

/// What can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of a datagram at first; each costs a system call or a part of one, and encryption once. Where the network takes
    /// less, that is noticed, and 1200 bytes are used from then on.
    pub mtu_bytes: u16,
    /// Whether the kernel is handed several datagrams at once.
    pub segmentation_offload: bool,
    pub congestion: Congestion,
    /// What a peer may send on a lane ahead of its reader.
    pub stream_window_bytes: u32,
    /// What it may send on all lanes together.
    pub connection_window_bytes: u32,
    /// What round trips are taken for before one was measured: too much makes the first losses slow to mend.
    pub initial_rtt_ms: u32,
    /// What the operating system holds for the socket, each way; it may give less.
    pub socket_buffer_bytes: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mtu_bytes: 6_000,
            segmentation_offload: true,
            congestion: Congestion::Cubic,
            stream_window_bytes: 16 << 20,
            connection_window_bytes: 64 << 20,
            initial_rtt_ms: 2,
            socket_buffer_bytes: 8 << 20,
        }
    }
}

/// The fewest bytes of a datagram that every network carries (RFC 9000, 14).
pub const MTU_BYTES_MIN: u16 = 1_200;

/// Why there can be no such link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    #[error("QUIC is never without TLS: it needs cluster.tls.cert, .key and .ca (`chronik cluster certs` makes them)")]
    NoTls,
    #[error("the TLS configuration cannot be used with QUIC: {0}")]
    Tls(String),
}

/// A connection, open for as long as someone holds it.
#[derive(Debug)]
struct Held(Connection);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.close(0u32.into(), b"");
    }
}

/// Where the connection to one endpoint is kept. Locked while it is made, which a node that does not answer draws out: each has
/// its own, so that such a node holds up the dialling of no other.
type Place = tokio::sync::Mutex<Weak<Held>>;

/// See the module's head.
pub struct QuicLink {
    client: quinn::ClientConfig,
    server: quinn::ServerConfig,
    options: Options,
    /// The socket that is dialled from, for each family; made when it is first needed, inside the runtime.
    diallers: Mutex<BTreeMap<bool, quinn::Endpoint>>,
    connections: Mutex<BTreeMap<(String, u16), Arc<Place>>>,
}

impl QuicLink {
    pub fn new(tls: Option<Tls>, options: Options) -> Result<Self, SetupError> {
        let tls = tls.ok_or(SetupError::NoTls)?;
        let (client, server) = socket::configs(&tls, &options)?;
        Ok(Self { client, server, options, diallers: Mutex::default(), connections: Default::default() })
    }

    fn dialler(&self, is_ipv6: bool) -> std::io::Result<quinn::Endpoint> {
        let mut diallers = self.diallers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = diallers.get(&is_ipv6) {
            return Ok(made.clone());
        }
        let any: SocketAddr =
            if is_ipv6 { (Ipv6Addr::UNSPECIFIED, 0).into() } else { (Ipv4Addr::UNSPECIFIED, 0).into() };
        let made = socket::endpoint(any, None, &self.options)?;
        diallers.insert(is_ipv6, made.clone());
        Ok(made)
    }

    async fn connect(&self, to: &Endpoint) -> Result<Connection, LinkError> {
        let mut failed = None;
        let found = tokio::net::lookup_host((to.host.as_str(), to.port)).await.map_err(LinkError::Unreachable)?;
        for address in found {
            let dialler = self.dialler(address.is_ipv6()).map_err(LinkError::Unreachable)?;
            // Any host is right whose certificate names the right node.
            let name = if to.host.contains(':') { "chronik" } else { to.host.as_str() };
            let connecting = dialler
                .connect_with(self.client.clone(), address, name)
                .map_err(|why| LinkError::Unreachable(std::io::Error::other(why)))?;
            match connecting.await {
                Ok(connection) => return Ok(connection),
                Err(why) => failed = Some(refused(why)),
            }
        }
        Err(failed.unwrap_or_else(|| LinkError::Unreachable(std::io::ErrorKind::NotFound.into())))
    }

    /// The connection that the other lanes to this endpoint have, or a new one.
    async fn connection(&self, to: &Endpoint) -> Result<Arc<Held>, LinkError> {
        let place = {
            let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
            // Someone holds those that are dialled now; of the others only the open ones matter.
            connections.retain(|_, place| {
                Arc::strong_count(place) > 1 || place.try_lock().is_ok_and(|held| held.strong_count() > 0)
            });
            connections.entry((to.host.clone(), to.port)).or_default().clone()
        };
        // One after the other: lanes of a session are dialled together, and are to have one connection.
        let mut place = place.lock().await;
        let open = place.upgrade();
        if let Some(open) = open.filter(|open| open.0.close_reason().is_none()) {
            return Ok(open);
        }
        let held = Arc::new(Held(self.connect(to).await?));
        *place = Arc::downgrade(&held);
        Ok(held)
    }
}

#[async_trait]
impl Link for QuicLink {
    fn name(&self) -> &'static str {
        "quic"
    }

    async fn listen(&self, at: SocketAddr) -> Result<Box<dyn Incoming>, LinkError> {
        let endpoint = socket::endpoint(at, Some(self.server.clone()), &self.options);
        Ok(Box::new(QuicIncoming::new(endpoint.map_err(LinkError::Unreachable)?)))
    }

    async fn dial(&self, to: &Endpoint, class: LaneClass) -> Result<Lane, LinkError> {
        let held = self.connection(to).await?;
        let (send, receive) = held.0.open_bi().await.map_err(refused)?;
        let priority = match class {
            LaneClass::Control => 3,
            LaneClass::Append => 2,
            LaneClass::Replication(_) => 1,
            LaneClass::Bulk => 0,
        };
        // It was opened just now.
        let _ = send.set_priority(priority);
        lane::lane(held, send, receive)
    }
}

/// The node that a peer's certificate, which has been checked, names.
fn certified(connection: &Connection) -> Result<NodeId, LinkError> {
    let identity =
        connection.peer_identity().and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    node_of_peer(identity.as_deref().map(Vec::as_slice))
}

/// Why there is no connection any more, or was none.
fn refused(why: quinn::ConnectionError) -> LinkError {
    use quinn::ConnectionError::{ApplicationClosed, ConnectionClosed, LocallyClosed, Reset, TimedOut, TransportError};
    /// TLS alerts are transport errors of this kind (RFC 9001, 4.8).
    const CRYPTO: std::ops::RangeInclusive<u64> = 0x100..=0x1ff;
    let of_tls = match &why {
        TransportError(error) => CRYPTO.contains(&u64::from(error.code)),
        ConnectionClosed(close) => CRYPTO.contains(&u64::from(close.error_code)),
        _ => false,
    };
    match why {
        _ if of_tls => LinkError::Untrusted(std::io::Error::other(why)),
        TimedOut => LinkError::Unreachable(std::io::ErrorKind::TimedOut.into()),
        ApplicationClosed(_) | LocallyClosed | Reset => LinkError::Broken(std::io::Error::other(why)),
        _ => LinkError::Broken(std::io::Error::other(why)),
    }
}
