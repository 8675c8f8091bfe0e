//! Where peers come in. TLS handshakes go on side by side: who takes long, or is no peer at all, holds up nobody.

use crate::lane;
use async_trait::async_trait;
use chronik_link::tls::node_of_peer;
use chronik_link::{Incoming, Lane, LinkError};
use rustls::ServerConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Handshakes at the same time; beyond it connections wait to be accepted.
const HANDSHAKES_MAX: usize = 64;
/// How long one may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(3);

pub struct TcpIncoming {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    handshakes: JoinSet<Result<Lane, LinkError>>,
}

impl TcpIncoming {
    pub fn new(listener: TcpListener, tls: Option<Arc<ServerConfig>>) -> Self {
        Self { listener, tls: tls.map(TlsAcceptor::from), handshakes: JoinSet::new() }
    }
}

#[async_trait]
impl Incoming for TcpIncoming {
    fn local_address(&self) -> Result<SocketAddr, LinkError> {
        self.listener.local_addr().map_err(LinkError::Broken)
    }

    async fn accept(&mut self) -> Result<Lane, LinkError> {
        loop {
            let accepted = tokio::select! {
                Some(shaken) = self.handshakes.join_next() => match shaken {
                    Ok(Ok(lane)) => return Ok(lane),
                    // Why is for the one who came to say; here nobody waits for it.
                    Ok(Err(_)) | Err(_) => continue,
                },
                accepted = self.listener.accept(), if self.handshakes.len() < HANDSHAKES_MAX => accepted,
            };
            let (stream, remote) = accepted.map_err(LinkError::Broken)?;
            stream.set_nodelay(true).map_err(LinkError::Broken)?;
            match &self.tls {
                None => return Ok(lane::plain(stream, remote)),
                Some(tls) => drop(self.handshakes.spawn(shake(tls.clone(), stream, remote))),
            }
        }
    }
}

async fn shake(tls: TlsAcceptor, stream: TcpStream, remote: SocketAddr) -> Result<Lane, LinkError> {
    let shaken = tokio::time::timeout(HANDSHAKE_WITHIN, tls.accept(stream)).await;
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(why)) => {
            tracing::warn!(%remote, %why, "a peer's TLS is refused");
            return Err(LinkError::Untrusted(why));
        }
        Err(_) => return Err(LinkError::Untrusted(std::io::ErrorKind::TimedOut.into())),
    };
    let node = node_of_peer(stream.get_ref().1.peer_certificates())?;
    Ok(lane::secure(stream, remote, node))
}
