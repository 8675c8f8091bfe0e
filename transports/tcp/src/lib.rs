//! The network layer of a TCP connection per lane, with or without TLS.
//!
//! A frame goes out as it is, gathered from its slices; on a plain connection nothing is copied on the way to the kernel. What
//! comes in is read in large pieces, of which bodies are slices; a body that is larger than what has been read is read into a
//! buffer of its own, which grows as its bytes arrive: a length alone makes nobody allocate.

#![forbid(unsafe_code)]

mod incoming;
mod lane;

use async_trait::async_trait;
use chronik_link::tls::{Tls, node_of_peer};
use chronik_link::{Endpoint, Incoming, Lane, LaneClass, Link, LinkError};
use incoming::TcpIncoming;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

/// What the operating system holds for each connection; 0 leaves it to the system, which adapts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub send_buffer_bytes: u32,
    pub receive_buffer_bytes: u32,
}

/// See the module's head.
pub struct TcpLink {
    tls: Option<Tls>,
    options: Options,
}

impl TcpLink {
    pub fn new(tls: Option<Tls>, options: Options) -> Self {
        Self { tls, options }
    }

    fn prepare(&self, socket: &TcpSocket) -> std::io::Result<()> {
        if self.options.send_buffer_bytes > 0 {
            socket.set_send_buffer_size(self.options.send_buffer_bytes)?;
        }
        if self.options.receive_buffer_bytes > 0 {
            socket.set_recv_buffer_size(self.options.receive_buffer_bytes)?;
        }
        Ok(())
    }
}

#[async_trait]
impl Link for TcpLink {
    fn name(&self) -> &'static str {
        "tcp"
    }

    async fn listen(&self, at: SocketAddr) -> Result<Box<dyn Incoming>, LinkError> {
        /// Connections that wait to be accepted: a few lanes from each of a few hundred nodes.
        const BACKLOG: u32 = 1_024;
        let bind = || -> std::io::Result<TcpListener> {
            let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            // A port whose last owner was killed may be taken at once.
            socket.set_reuseaddr(true)?;
            // Accepted connections have what the listener has.
            self.prepare(&socket)?;
            socket.bind(at)?;
            socket.listen(BACKLOG)
        };
        let listener = bind().map_err(LinkError::Unreachable)?;
        Ok(Box::new(TcpIncoming::new(listener, self.tls.as_ref().map(|tls| tls.server.clone()))))
    }

    async fn dial(&self, to: &Endpoint, _: LaneClass) -> Result<Lane, LinkError> {
        let stream = self.connect(to).await.map_err(LinkError::Unreachable)?;
        stream.set_nodelay(true).map_err(LinkError::Broken)?;
        let remote = stream.peer_addr().map_err(LinkError::Broken)?;
        let Some(tls) = &self.tls else { return Ok(lane::plain(stream, remote)) };
        // Any host is right whose certificate names the right node.
        let host = ServerName::try_from(to.host.clone()).unwrap_or(ServerName::IpAddress(remote.ip().into()));
        let stream = TlsConnector::from(tls.client.clone()).connect(host, stream).await;
        let stream = stream.map_err(LinkError::Untrusted)?;
        let certified = node_of_peer(stream.get_ref().1.peer_certificates())?;
        Ok(lane::secure(stream, remote, certified))
    }
}

impl TcpLink {
    async fn connect(&self, to: &Endpoint) -> std::io::Result<TcpStream> {
        let mut failed = None;
        for address in tokio::net::lookup_host((to.host.as_str(), to.port)).await? {
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            self.prepare(&socket)?;
            match socket.connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(why) => failed = Some(why),
            }
        }
        Err(failed.unwrap_or_else(|| std::io::Error::new(std::io::ErrorKind::NotFound, "its name has no address")))
    }
}
