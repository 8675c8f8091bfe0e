//! Where peers come in. Handshakes go on side by side, and each connection brings its lanes by a task of its own: who takes
//! long, or is no peer at all, holds up nobody.

use crate::{Held, lane};
use async_trait::async_trait;
use chronik_link::{Incoming, Lane, LinkError};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Connections at the same time, those that are still being made among them: one from each of a few hundred nodes, and some
/// that have just ended. Beyond it they are turned away.
const CONNECTIONS_MAX: usize = 1_024;
/// How long a handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(3);
/// Lanes that wait to be accepted.
const LANES_WAITING: usize = 64;

pub struct QuicIncoming {
    endpoint: quinn::Endpoint,
    connections: JoinSet<()>,
    lanes: mpsc::Receiver<Lane>,
    sender: mpsc::Sender<Lane>,
}

impl QuicIncoming {
    pub fn new(endpoint: quinn::Endpoint) -> Self {
        let (sender, lanes) = mpsc::channel(LANES_WAITING);
        Self { endpoint, connections: JoinSet::new(), lanes, sender }
    }
}

impl Drop for QuicIncoming {
    fn drop(&mut self) {
        // Lanes that were accepted live on; nobody else gets in.
        self.endpoint.set_server_config(None);
        self.connections.detach_all();
    }
}

#[async_trait]
impl Incoming for QuicIncoming {
    fn local_address(&self) -> Result<SocketAddr, LinkError> {
        self.endpoint.local_addr().map_err(LinkError::Broken)
    }

    async fn accept(&mut self) -> Result<Lane, LinkError> {
        loop {
            tokio::select! {
                // It holds a sender itself, so that this does not end.
                Some(lane) = self.lanes.recv() => return Ok(lane),
                Some(_) = self.connections.join_next() => {}
                incoming = self.endpoint.accept() => {
                    let incoming = incoming.ok_or(LinkError::Ended)?;
                    if self.connections.len() >= CONNECTIONS_MAX {
                        incoming.refuse();
                    } else {
                        self.connections.spawn(serve(incoming, self.sender.clone()));
                    }
                }
            }
        }
    }
}

/// A connection's life: it is made, and brings lanes until it ends.
async fn serve(incoming: quinn::Incoming, lanes: mpsc::Sender<Lane>) {
    let remote = incoming.remote_address();
    let shaken = async { incoming.accept()?.await };
    let connection = match tokio::time::timeout(HANDSHAKE_WITHIN, shaken).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(why)) => return tracing::warn!(%remote, %why, "a peer's TLS is refused"),
        Err(_) => return,
    };
    // The lanes hold it, and its maker; here it is only listened to.
    let held = Arc::new(Held(connection.clone()));
    let weak = Arc::downgrade(&held);
    let mut first = Some(held);
    loop {
        let Ok((send, receive)) = connection.accept_bi().await else { return };
        let Some(held) = first.take().or_else(|| weak.upgrade()) else { return };
        match lane::lane(held, send, receive) {
            Ok(lane) => {
                if lanes.send(lane).await.is_err() {
                    return;
                }
            }
            Err(why) => return tracing::warn!(%remote, %why, "a peer's certificate is refused"),
        }
    }
}
