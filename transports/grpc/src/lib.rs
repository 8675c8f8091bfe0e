//! The network layer of gRPC: a lane is one call of `chronik.link.Link/Open`, a bidirectional stream of `bytes`, of which the last is empty.
//!
//! - [`message`]: frames' bytes as messages of gRPC, without a schema: a message is a piece of the stream of frames.
//! - [`incoming`]: where peers come in.
//! - [`lane`]: a call as a lane.
//! - [`connection`]: what is below, TCP or TLS over it.
//!
//! **A lane has an HTTP/2 connection of its own.** Calls on one connection share its window and TCP's order of bytes, so a
//! lane that nobody reads, or one that carries a snapshot, would hold up heartbeats.

#![forbid(unsafe_code)]

mod connection;
mod incoming;
mod lane;
mod message;

use async_trait::async_trait;
use chronik_link::tls::{Tls, node_of_peer};
use chronik_link::{Endpoint, Incoming, Lane, LaneClass, Link, LinkError};
use connection::Connection;
use http::{Uri, header};
use hyper_util::rt::TokioIo;
use incoming::GrpcIncoming;
use message::broken;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::body::Body;
use tower::Service;

/// The one method.
pub(crate) const PATH: &str = "/chronik.link.Link/Open";
pub(crate) const CONTENT_TYPE: &str = "application/grpc";
/// What TLS's ends agree on (RFC 7301).
const ALPN: &[u8] = b"h2";

/// HTTP/2's bounds (RFC 9113, sections 6.5.2 and 6.9.1): a window's and a frame's.
const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;
const FRAME_BYTES: RangeInclusive<u32> = 1 << 14..=(1 << 24) - 1;

/// What can be set, as HTTP/2 knows it (RFC 9113). Each end sets what comes to it; what HTTP/2 does not allow is taken as the
/// nearest that it does.
///
/// A window is also what is **held in memory** for a peer that sends and is not read, strangers on plain connections included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What a peer may send on a call ahead of its reader, at most 2 GiB - 1. The default, 16 MiB, is what 10 Gbit/s carry in
    /// 13 ms: HTTP/2's own 64 KiB would stop a lane once for each piece of an append.
    pub stream_window_bytes: u32,
    /// What it may send on a connection, at most 2 GiB - 1. One lane is all that a connection carries; twice its window, the
    /// default, keeps the connection's own from ever being the one that stops it.
    pub connection_window_bytes: u32,
    /// The longest frame of HTTP/2 that is taken, 16 KiB to 16 MiB - 1. Long ones cost less for each byte; there is no other
    /// lane that they could hold up, and a body that comes in one is not copied. The default, 1 MiB, is what
    /// appends that wait for the lane are joined up to; HTTP/2 sets aside so much for a frame that a peer announces.
    pub frame_bytes: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { stream_window_bytes: 16 << 20, connection_window_bytes: 32 << 20, frame_bytes: 1 << 20 }
    }
}

/// See the module's head.
pub struct GrpcLink {
    client: Option<Arc<ClientConfig>>,
    acceptor: Option<TlsAcceptor>,
    options: Options,
}

impl GrpcLink {
    pub fn new(tls: Option<Tls>, options: Options) -> Self {
        let client = tls.as_ref().map(|tls| {
            let mut config = (*tls.client).clone();
            config.alpn_protocols = vec![ALPN.to_vec()];
            Arc::new(config)
        });
        let acceptor = tls.map(|tls| {
            let mut config = (*tls.server).clone();
            config.alpn_protocols = vec![ALPN.to_vec()];
            TlsAcceptor::from(Arc::new(config))
        });
        let options = Options {
            stream_window_bytes: options.stream_window_bytes.min(WINDOW_BYTES_MAX),
            connection_window_bytes: options.connection_window_bytes.min(WINDOW_BYTES_MAX),
            // Beyond it HTTP/2 panics.
            frame_bytes: options.frame_bytes.clamp(*FRAME_BYTES.start(), *FRAME_BYTES.end()),
        };
        Self { client, acceptor, options }
    }

    async fn connect(&self, to: &Endpoint) -> Result<Connection, LinkError> {
        let stream = TcpStream::connect((to.host.as_str(), to.port)).await.map_err(LinkError::Unreachable)?;
        stream.set_nodelay(true).map_err(LinkError::Broken)?;
        let remote = stream.peer_addr().map_err(LinkError::Broken)?;
        let Some(tls) = &self.client else { return Ok(Connection::plain(stream, remote)) };
        // Any host is right whose certificate names the right node.
        let host = ServerName::try_from(to.host.clone()).unwrap_or(ServerName::IpAddress(remote.ip().into()));
        let stream = TlsConnector::from(tls.clone()).connect(host, stream).await.map_err(LinkError::Untrusted)?;
        let certified = node_of_peer(stream.get_ref().1.peer_certificates())?;
        Ok(Connection::secure(stream, remote, certified))
    }
}

#[async_trait]
impl Link for GrpcLink {
    fn name(&self) -> &'static str {
        "grpc"
    }

    async fn listen(&self, at: SocketAddr) -> Result<Box<dyn Incoming>, LinkError> {
        /// Connections that wait to be accepted: a few lanes from each of a few hundred nodes.
        const BACKLOG: u32 = 1_024;
        let bind = || -> std::io::Result<TcpListener> {
            let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            // A port whose last owner was killed may be taken at once.
            socket.set_reuseaddr(true)?;
            socket.bind(at)?;
            socket.listen(BACKLOG)
        };
        let listener = bind().map_err(LinkError::Unreachable)?;
        Ok(Box::new(GrpcIncoming::start(listener, self.acceptor.clone(), self.options).map_err(LinkError::Broken)?))
    }

    async fn dial(&self, to: &Endpoint, _: LaneClass) -> Result<Lane, LinkError> {
        let connection = self.connect(to).await?;
        let (remote, certified) = (connection.remote, connection.certified);
        // Asked for once: this channel never connects by itself.
        let once = Mutex::new(Some(connection));
        let connector = tower::service_fn(move |_: Uri| {
            let connection = once.lock().unwrap_or_else(PoisonError::into_inner).take();
            let gone = || std::io::Error::from(std::io::ErrorKind::NotConnected);
            std::future::ready(connection.map(TokioIo::new).ok_or_else(gone))
        });
        // The name is said to nobody: the connection is there already.
        let mut channel = tonic::transport::Endpoint::from_static("http://chronik")
            .initial_stream_window_size(self.options.stream_window_bytes)
            .initial_connection_window_size(self.options.connection_window_bytes)
            .max_frame_size(self.options.frame_bytes)
            .connect_with_connector(connector)
            .await
            .map_err(broken)?;
        let (sender, pieces) = lane::outgoing(None);
        let request = http::Request::post(PATH)
            .version(http::Version::HTTP_2)
            .header(header::TE, "trailers")
            .header(header::CONTENT_TYPE, CONTENT_TYPE)
            .body(Body::new(pieces))
            .map_err(broken)?;
        std::future::poll_fn(|cx| channel.poll_ready(cx)).await.map_err(broken)?;
        let answer = channel.call(request).await.map_err(broken)?;
        if let Some(why) = message::refusal(answer.headers()) {
            return Err(broken(why));
        }
        if answer.status() != http::StatusCode::OK {
            return Err(broken(format!("a call is answered with {}", answer.status())));
        }
        Ok(lane::lane(remote, certified, sender, answer.into_body(), None))
    }
}
