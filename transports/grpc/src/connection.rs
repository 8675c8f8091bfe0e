//! What HTTP/2 runs on: TCP, or TLS over it, and what is known of the other end.
//!
//! An accepted connection ends when it has carried no lane for a while: HTTP/2 itself keeps one for ever on which nobody calls,
//! so strangers who say nothing, and peers who were refused and stay, would pile up.

use chronik_core::ids::NodeId;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, interval_at};
use tonic::transport::server::Connected;

/// An accepted connection without a lane is looked after this often, and closed when nothing has changed since. Several times
/// what a handshake may take, and long enough for a refusal's words to be read.
const UNUSED_WITHIN: Duration = Duration::from_secs(10);

/// Any stream of bytes.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Who is at the other end, and which lanes its connection carries.
#[derive(Clone, Debug)]
pub struct Other {
    pub remote: SocketAddr,
    pub certified: Option<NodeId>,
    pub lanes: Lanes,
}

/// How many lanes a connection has had, and how many of them are gone.
#[derive(Clone, Debug, Default)]
pub struct Lanes(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    opened: AtomicU64,
    gone: AtomicU64,
}

impl Lanes {
    pub fn open(&self) -> InUse {
        self.0.opened.fetch_add(1, Ordering::Relaxed);
        InUse(self.clone())
    }

    /// Nothing else hangs on the order in which these change.
    fn counts(&self) -> (u64, u64) {
        (self.0.opened.load(Ordering::Relaxed), self.0.gone.load(Ordering::Relaxed))
    }
}

/// Held by a lane for as long as it is there.
#[derive(Debug)]
pub struct InUse(Lanes);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.0.gone.fetch_add(1, Ordering::Relaxed);
    }
}

/// Looks after a connection that was accepted.
struct Watch {
    lanes: Lanes,
    looks: Interval,
    seen: (u64, u64),
}

impl Watch {
    /// Must be called inside a runtime, whose clock it keeps.
    fn new() -> Self {
        let looks = interval_at(Instant::now() + UNUSED_WITHIN, UNUSED_WITHIN);
        Self { lanes: Lanes::default(), looks, seen: (0, 0) }
    }

    /// Whether there was no lane since the last look. Wakes for the next one.
    fn is_unused(&mut self, cx: &mut Context<'_>) -> bool {
        while self.looks.poll_tick(cx).is_ready() {
            let before = std::mem::replace(&mut self.seen, self.lanes.counts());
            let (opened, gone) = self.seen;
            if before == self.seen && opened == gone {
                return true;
            }
        }
        false
    }
}

/// See the module's head.
pub struct Connection {
    io: Box<dyn Io>,
    pub remote: SocketAddr,
    pub certified: Option<NodeId>,
    /// `None` on the side that dials, which closes what it does not use any more.
    watch: Option<Watch>,
}

impl Connection {
    pub fn plain(stream: TcpStream, remote: SocketAddr) -> Self {
        Self { io: Box::new(stream), remote, certified: None, watch: None }
    }

    pub fn secure(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        remote: SocketAddr,
        certified: NodeId,
    ) -> Self {
        Self { io: Box::new(stream), remote, certified: Some(certified), watch: None }
    }

    /// Closes it when nobody uses it. Must be called inside a runtime.
    pub fn watched(self) -> Self {
        Self { watch: Some(Watch::new()), ..self }
    }
}

impl Connected for Connection {
    type ConnectInfo = Other;

    fn connect_info(&self) -> Other {
        let lanes = self.watch.as_ref().map(|watch| watch.lanes.clone()).unwrap_or_default();
        Other { remote: self.remote, certified: self.certified, lanes }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Asked before reading: who sends pings all the time is no user either.
        if self.watch.as_mut().is_some_and(|watch| watch.is_unused(cx)) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{sleep, timeout};

    /// An accepted connection, and the stranger at its other end.
    fn accepted() -> (Connection, DuplexStream) {
        let (end, stranger) = duplex(64);
        (Connection::secure(end, ([127, 0, 0, 1], 1).into(), NodeId(1)).watched(), stranger)
    }

    /// The clock stands still in these, and goes on when nobody has anything else to do.
    const LONG: Duration = Duration::from_secs(100 * UNUSED_WITHIN.as_secs());

    async fn is_closed(connection: &mut Connection) -> bool {
        match timeout(LONG, connection.read_u8()).await {
            Ok(read) => read.is_err_and(|why| why.kind() == io::ErrorKind::TimedOut),
            Err(_) => false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_nobody_calls_is_closed_and_one_that_carries_a_lane_is_not() {
        let (mut connection, _stranger) = accepted();
        assert!(is_closed(&mut connection).await, "silence");
        let (mut connection, _stranger) = accepted();
        let (first, second) = (connection.connect_info().lanes.open(), connection.connect_info().lanes.open());
        assert!(!is_closed(&mut connection).await, "two lanes");
        drop(first);
        assert!(!is_closed(&mut connection).await, "a lane");
        drop(second);
        assert!(is_closed(&mut connection).await, "its lanes are gone");
    }

    #[tokio::test(start_paused = true)]
    async fn who_only_keeps_it_busy_is_closed_too() {
        let (mut connection, mut stranger) = accepted();
        let busy = tokio::spawn(async move {
            while stranger.write_u8(7).await.is_ok() {
                sleep(UNUSED_WITHIN / 100).await;
            }
        });
        let mut read = 0;
        let why = loop {
            match connection.read_u8().await {
                Ok(_) => read += 1,
                Err(why) => break why,
            }
            assert!(read < 1_000, "it is kept for nothing");
        };
        assert_eq!(why.kind(), io::ErrorKind::TimedOut);
        drop(connection);
        busy.await.expect("it only writes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_has_just_gone_leaves_time_to_read_its_last_words() {
        let (mut connection, _stranger) = accepted();
        let lanes = connection.connect_info().lanes;
        assert!(timeout(UNUSED_WITHIN - Duration::from_millis(1), connection.read_u8()).await.is_err());
        drop(lanes.open());
        let soon = timeout(UNUSED_WITHIN, connection.read_u8()).await;
        assert!(soon.is_err(), "a lane came and went between two looks: {soon:?}");
        assert!(is_closed(&mut connection).await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_dialling_side_closes_for_itself() {
        let (end, _other) = duplex(64);
        let mut connection = Connection::secure(end, ([127, 0, 0, 1], 1).into(), NodeId(1));
        assert!(!is_closed(&mut connection).await);
    }
}
