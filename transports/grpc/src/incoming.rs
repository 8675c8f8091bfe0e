//! Where peers come in. TLS handshakes go on side by side, and each connection is served by a task of its own: who takes
//! long, or is no peer at all, holds up nobody.

use crate::connection::{Connection, Other};
use crate::lane;
use crate::{CONTENT_TYPE, Options, PATH};
use async_trait::async_trait;
use chronik_link::tls::node_of_peer;
use chronik_link::{Incoming, Lane, LinkError};
use http::{HeaderMap, HeaderValue, header};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::body::Body;

/// TLS handshakes at the same time; beyond it connections wait to be accepted.
const HANDSHAKES_MAX: usize = 64;
/// How long one may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(3);
/// Calls on one connection: a lane has its own.
const CALLS_MAX: u32 = 4;
/// Lanes that wait to be accepted.
const LANES_WAITING: usize = 64;

pub struct GrpcIncoming {
    address: SocketAddr,
    lanes: mpsc::Receiver<Lane>,
    accepting: JoinHandle<()>,
}

impl GrpcIncoming {
    /// Serves from now on. Must be called inside the runtime that is to do it.
    pub fn start(listener: TcpListener, tls: Option<TlsAcceptor>, options: Options) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let (connect, connections) = mpsc::channel(HANDSHAKES_MAX);
        let (sender, lanes) = mpsc::channel(LANES_WAITING);
        let server = tonic::transport::Server::builder()
            .initial_stream_window_size(options.stream_window_bytes)
            .initial_connection_window_size(options.connection_window_bytes)
            .max_frame_size(options.frame_bytes)
            .max_concurrent_streams(CALLS_MAX);
        let accepting = tokio::spawn(async move {
            let connections = ReceiverStream::new(connections).map(Ok::<_, Infallible>);
            // Connections that were made are served by tasks of their own, which end with them.
            let served = server.serve_with_incoming(Service { lanes: sender }, connections);
            tokio::select! {
                served = served => if let Err(why) = served {
                    tracing::error!(%why, "gRPC is not served any more");
                },
                () = accept(listener, tls, connect) => {}
            }
        });
        Ok(Self { address, lanes, accepting })
    }
}

impl Drop for GrpcIncoming {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[async_trait]
impl Incoming for GrpcIncoming {
    fn local_address(&self) -> Result<SocketAddr, LinkError> {
        Ok(self.address)
    }

    async fn accept(&mut self) -> Result<Lane, LinkError> {
        self.lanes.recv().await.ok_or(LinkError::Ended)
    }
}

/// Takes connections for as long as somebody serves them.
async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, connections: mpsc::Sender<Connection>) {
    let mut handshakes: JoinSet<Option<Connection>> = JoinSet::new();
    loop {
        let made = tokio::select! {
            Some(shaken) = handshakes.join_next() => shaken.ok().flatten(),
            accepted = listener.accept(), if handshakes.len() < HANDSHAKES_MAX => match (accepted, &tls) {
                (Ok((stream, remote)), None) => plain(stream, remote),
                (Ok((stream, remote)), Some(tls)) => {
                    handshakes.spawn(shake(tls.clone(), stream, remote));
                    None
                }
                (Err(why), _) => {
                    // Most often there are no descriptors left for a moment.
                    tracing::warn!(%why, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    None
                }
            },
        };
        if let Some(connection) = made
            && connections.send(connection.watched()).await.is_err()
        {
            return;
        }
    }
}

/// How long to wait after one could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

fn plain(stream: TcpStream, remote: SocketAddr) -> Option<Connection> {
    stream.set_nodelay(true).ok()?;
    Some(Connection::plain(stream, remote))
}

async fn shake(tls: TlsAcceptor, stream: TcpStream, remote: SocketAddr) -> Option<Connection> {
    stream.set_nodelay(true).ok()?;
    let stream = match tokio::time::timeout(HANDSHAKE_WITHIN, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(why)) => {
            tracing::warn!(%remote, %why, "a peer's TLS is refused");
            return None;
        }
        Err(_) => return None,
    };
    match node_of_peer(stream.get_ref().1.peer_certificates()) {
        Ok(node) => Some(Connection::secure(stream, remote, node)),
        Err(why) => {
            tracing::warn!(%remote, %why, "a peer's certificate is refused");
            None
        }
    }
}

/// The one service.
#[derive(Clone)]
struct Service {
    lanes: mpsc::Sender<Lane>,
}

impl tower::Service<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        ready(Ok(self.open(request).unwrap_or_else(Status::into_http)))
    }
}

impl Service {
    /// One call: a lane, and what goes back on it.
    fn open(&self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        if request.uri().path() != PATH {
            return Err(Status::unimplemented("there is no such method"));
        }
        let other = request.extensions().get::<Other>().cloned();
        let Some(Other { remote, certified, lanes: carried }) = other else {
            return Err(Status::internal("it is not known who calls"));
        };
        let ended = HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static("0"))]);
        let (sender, answers) = lane::outgoing(Some(ended));
        let lane = lane::lane(remote, certified, sender, request.into_body(), Some(carried.open()));
        // Nobody accepts any more, or too many wait: who is dialled so often is no peer.
        self.lanes.try_send(lane).map_err(|_| Status::unavailable("it is not accepted"))?;
        let mut response = http::Response::new(Body::new(answers));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use chronik_link::Frame;
    use chronik_link::pieces::slices_of;
    use h2::client::SendRequest;
    use std::collections::VecDeque;
    use tokio::io::AsyncReadExt;

    /// A listener, and a connection to it that speaks HTTP/2 by hand.
    async fn by_hand() -> (GrpcIncoming, SendRequest<Bytes>, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("it listens");
        let incoming = GrpcIncoming::start(listener, None, Options::default()).expect("it is served");
        let stream = TcpStream::connect(incoming.address).await.expect("it is reached");
        let (hand, connection) = h2::client::handshake(stream).await.expect("it speaks HTTP/2");
        let connection = tokio::spawn(async move { drop(connection.await) });
        (incoming, hand, connection)
    }

    fn request(path: &str) -> http::Request<()> {
        let request = http::Request::post(format!("http://chronik{path}")).header("content-type", "application/grpc");
        request.body(()).expect("a request")
    }

    /// One frame in one message.
    fn message() -> Bytes {
        let frame = slices_of(&mut VecDeque::from([Frame::new(1, 7)])).concat();
        let length = u32::try_from(frame.len()).expect("a short one");
        [&[0], &length.to_be_bytes()[..], &frame].concat().into()
    }

    #[tokio::test]
    async fn only_who_says_that_no_more_comes_has_ended_in_order() {
        type End = fn(&mut h2::SendStream<Bytes>, &JoinHandle<()>);
        let said: End = |body, _| body.send_data(Bytes::from_static(&[0; 5]), true).expect("it is sent");
        let otherwise: [(&str, End); 3] = [
            ("ended without a word", |body, _| body.send_data(Bytes::new(), true).expect("it is sent")),
            ("reset", |body, _| body.send_reset(h2::Reason::CANCEL)),
            ("cut", |_, connection| connection.abort()),
        ];
        for (how, end) in [("said", said)].into_iter().chain(otherwise) {
            let (mut incoming, hand, connection) = by_hand().await;
            let mut hand = hand.ready().await.expect("it is there");
            let (_answer, mut body) = hand.send_request(request(PATH), false).expect("a call");
            body.send_data(message(), false).expect("it is sent");
            let mut lane = incoming.accept().await.expect("a lane");
            assert_eq!(lane.receiver.receive().await.expect("a frame").expect("not the end").number, 7);
            end(&mut body, &connection);
            let ended = lane.receiver.receive().await;
            match how {
                "said" => assert!(matches!(ended, Ok(None)), "{ended:?}"),
                _ => assert!(matches!(ended, Err(LinkError::Ended | LinkError::Broken(_))), "{how}: {ended:?}"),
            }
        }
    }

    /// The clock goes on by itself when there is nothing else to do.
    #[tokio::test(start_paused = true)]
    async fn who_comes_and_says_nothing_does_not_stay() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("it listens");
        let incoming = GrpcIncoming::start(listener, None, Options::default()).expect("it is served");
        let mut stranger = TcpStream::connect(incoming.address).await.expect("it is reached");
        let mut read = Vec::new();
        for _ in 0..100 {
            let closed = tokio::time::timeout(Duration::from_secs(10), stranger.read_to_end(&mut read)).await;
            if closed.is_ok() {
                return;
            }
        }
        panic!("it is still there");
    }

    #[tokio::test]
    async fn another_method_is_refused_and_makes_no_lane() {
        let (mut incoming, hand, _connection) = by_hand().await;
        let hand = hand.ready().await.expect("it is there");
        let (answer, _body) = hand.clone().send_request(request("/chronik.link.Link/Other"), true).expect("a call");
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.headers().get("grpc-status").map(|code| code.as_bytes()), Some(&b"12"[..]));
        // The next lane is the one that is asked for now.
        let mut hand = hand.ready().await.expect("it is there");
        let (_answer, mut body) = hand.send_request(request(PATH), false).expect("a call");
        body.send_data(message(), true).expect("it is sent");
        let mut lane = incoming.accept().await.expect("a lane");
        assert_eq!(lane.receiver.receive().await.expect("a frame").expect("not the end").number, 7);
    }
}
