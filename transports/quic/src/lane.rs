//! A stream as a lane. What is sent is shared with quinn, which copies it once, into the datagrams that it encrypts; what
//! comes is handed over in slices of datagrams, of which a body that lies in one of them is one.

use crate::{Held, certified};
use async_trait::async_trait;
use bytes::Bytes;
use chronik_link::pieces::{Pieces, Source, slices_of};
use chronik_link::{Frame, Lane, LaneReceiver, LaneSender, LinkError};
use quinn::{ReadError, RecvStream, SendStream, WriteError};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Bytes taken from a stream at once.
const CHUNK_BYTES: usize = 256 << 10;
/// How long a lane that is finished may take to bring over the last of it.
const FINISH_WITHIN: Duration = Duration::from_secs(1);

/// A lane of a connection.
pub fn lane(held: Arc<Held>, send: SendStream, receive: RecvStream) -> Result<Lane, LinkError> {
    let certified = certified(&held.0)?;
    let remote = held.0.remote_address();
    let receiver = Receiver(Pieces::new(Datagrams { stream: receive, _held: held.clone() }));
    let sender = Sender { stream: send, _held: held };
    Ok(Lane { remote, certified: Some(certified), sender: Box::new(sender), receiver: Box::new(receiver) })
}

struct Sender {
    stream: SendStream,
    _held: Arc<Held>,
}

#[async_trait]
impl LaneSender for Sender {
    async fn send(&mut self, frames: &mut VecDeque<Frame>) -> Result<(), LinkError> {
        let mut slices = slices_of(frames);
        self.stream.write_all_chunks(&mut slices).await.map_err(|why| match why {
            WriteError::ConnectionLost(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => broken(why),
            // The other end has given up the lane.
            WriteError::Stopped(_) => LinkError::Ended,
        })
    }

    async fn finish(&mut self) {
        // Whoever does not hear it notices that nothing comes. The connection may end with this lane, and must not before
        // the other end has everything.
        if self.stream.finish().is_ok() {
            let _ = tokio::time::timeout(FINISH_WITHIN, self.stream.stopped()).await;
        }
    }
}

struct Receiver(Pieces<Datagrams>);

#[async_trait]
impl LaneReceiver for Receiver {
    async fn receive(&mut self) -> Result<Option<Frame>, LinkError> {
        self.0.frame().await
    }

    fn set_frame_bytes_max(&mut self, bytes: usize) {
        self.0.set_frame_bytes_max(bytes);
    }
}

struct Datagrams {
    stream: RecvStream,
    _held: Arc<Held>,
}

#[async_trait]
impl Source for Datagrams {
    async fn next(&mut self) -> Result<Option<Bytes>, LinkError> {
        let chunk = self.stream.read_chunk(CHUNK_BYTES, true).await.map_err(|why| match why {
            // The other end has given up the lane.
            ReadError::Reset(_) => LinkError::Ended,
            _ => broken(why),
        })?;
        Ok(chunk.map(|chunk| chunk.bytes))
    }
}

fn broken(why: impl std::error::Error + Send + Sync + 'static) -> LinkError {
    LinkError::Broken(std::io::Error::other(why))
}
