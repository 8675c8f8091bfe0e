//! A connection as a lane.

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use chronik_core::ids::NodeId;
use chronik_link::link::{GREETING_BYTES_MAX, HEAD_BYTES};
use chronik_link::pieces::slices_of;
use chronik_link::{Frame, Head, Lane, LaneReceiver, LaneSender, LinkError};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// The buffer that is read into: many small frames, or a good part of a large one.
const READ_BYTES: usize = 256 << 10;
/// With less room than this the next buffer is begun. Not with every read: a frame keeps the whole buffer of which it is a
/// slice, so a few hundred bytes that someone keeps must share theirs with their neighbours.
const READ_BYTES_MIN: usize = 16 << 10;
/// First step of a large body's buffer; later ones are four times what has come.
const BODY_STEP_BYTES: usize = 1 << 20;
/// Slices handed to one gather-write; the kernel takes at most 1024.
const GATHER_SLICES_MAX: usize = 256;

pub fn plain(stream: TcpStream, remote: SocketAddr) -> Lane {
    let (read, write) = stream.into_split();
    lane(read, write, remote, None)
}

pub fn secure<S>(stream: S, remote: SocketAddr, certified: NodeId) -> Lane
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (read, write) = tokio::io::split(stream);
    lane(read, write, remote, Some(certified))
}

fn lane<R, W>(read: R, write: W, remote: SocketAddr, certified: Option<NodeId>) -> Lane
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let receiver = Receiver { read, buffer: BytesMut::new(), frame_bytes_max: GREETING_BYTES_MAX };
    Lane { remote, certified, sender: Box::new(Sender { write }), receiver: Box::new(receiver) }
}

struct Sender<W> {
    write: W,
}

#[async_trait]
impl<W: AsyncWrite + Unpin + Send> LaneSender for Sender<W> {
    async fn send(&mut self, frames: &mut VecDeque<Frame>) -> Result<(), LinkError> {
        let mut slices = VecDeque::from(slices_of(frames));
        while !slices.is_empty() {
            let gathered: Vec<IoSlice<'_>> =
                slices.iter().take(GATHER_SLICES_MAX).map(|slice| IoSlice::new(slice)).collect();
            let mut written = self.write.write_vectored(&gathered).await.map_err(LinkError::Broken)?;
            if written == 0 {
                return Err(LinkError::Ended);
            }
            while let Some(first) = slices.front_mut()
                && written > 0
            {
                let of_first = written.min(first.len());
                first.advance(of_first);
                written -= of_first;
                if first.is_empty() {
                    slices.pop_front();
                }
            }
            // Slices that were empty from the start.
            while slices.front().is_some_and(Bytes::is_empty) {
                slices.pop_front();
            }
        }
        // TLS may have kept some of it.
        self.write.flush().await.map_err(LinkError::Broken)
    }

    async fn finish(&mut self) {
        // Whoever does not hear it notices that nothing comes.
        let _ = self.write.shutdown().await;
    }
}

struct Receiver<R> {
    read: R,
    buffer: BytesMut,
    frame_bytes_max: usize,
}

#[async_trait]
impl<R: AsyncRead + Unpin + Send> LaneReceiver for Receiver<R> {
    async fn receive(&mut self) -> Result<Option<Frame>, LinkError> {
        while self.buffer.len() < HEAD_BYTES {
            if self.buffer.capacity() - self.buffer.len() < READ_BYTES_MIN {
                self.buffer.reserve(READ_BYTES);
            }
            if self.read.read_buf(&mut self.buffer).await.map_err(LinkError::Broken)? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(LinkError::Ended) };
            }
        }
        let mut head = [0; HEAD_BYTES];
        self.buffer.copy_to_slice(&mut head);
        let head = Head::from_bytes(&head);
        let wanted = head.body_bytes as usize;
        if wanted > self.frame_bytes_max {
            return Err(LinkError::TooLarge { bytes: wanted as u64, max: self.frame_bytes_max });
        }
        let body = if wanted <= self.buffer.len() {
            self.buffer.split_to(wanted).freeze()
        } else {
            self.large(wanted).await?
        };
        let mut frame = Frame::new(head.kind, head.number).with(body);
        frame.flags = head.flags;
        Ok(Some(frame))
    }

    fn set_frame_bytes_max(&mut self, bytes: usize) {
        self.frame_bytes_max = bytes;
    }
}

impl<R: AsyncRead + Unpin + Send> Receiver<R> {
    /// A body of which some is in the buffer, and the rest is to come.
    async fn large(&mut self, wanted: usize) -> Result<Bytes, LinkError> {
        let mut body = BytesMut::with_capacity(wanted.min(self.buffer.len() + BODY_STEP_BYTES));
        body.extend_from_slice(&self.buffer);
        self.buffer.clear();
        while body.len() < wanted {
            if body.len() == body.capacity() {
                body.reserve((body.len() * 3).min(wanted - body.len()));
            }
            let room = (body.capacity() - body.len()).min(wanted - body.len());
            let mut limited = (&mut self.read).take(room as u64);
            if limited.read_buf(&mut body).await.map_err(LinkError::Broken)? == 0 {
                return Err(LinkError::Ended);
            }
        }
        Ok(body.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{DuplexStream, duplex};

    /// What is written by hand comes to a lane.
    fn by_hand() -> (DuplexStream, Box<dyn LaneReceiver>) {
        let (hand, end) = duplex(64 << 10);
        let lane = secure(end, ([127, 0, 0, 1], 1).into(), NodeId(1));
        (hand, lane.receiver)
    }

    fn head(body_bytes: u32) -> [u8; HEAD_BYTES] {
        Head { kind: 1, flags: 0, body_bytes, number: 7 }.to_bytes()
    }

    #[tokio::test]
    async fn what_breaks_off_within_a_frame_is_no_end_in_order() {
        for whole in [head(0).to_vec(), [&head(3)[..], b"abc"].concat()] {
            for length in 0..=whole.len() {
                let (mut hand, mut receiver) = by_hand();
                hand.write_all(&whole[..length]).await.expect("there is room");
                drop(hand);
                let first = receiver.receive().await;
                match length {
                    0 => assert!(matches!(first, Ok(None)), "{first:?}"),
                    _ if length < whole.len() => assert!(matches!(first, Err(LinkError::Ended)), "{length}: {first:?}"),
                    _ => {
                        assert_eq!(first.expect("a frame").expect("not the end").number, 7);
                        assert!(matches!(receiver.receive().await, Ok(None)));
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn small_frames_that_are_kept_share_what_they_were_read_into() {
        let (mut hand, mut receiver) = by_hand();
        let mut kept = Vec::new();
        for _ in 0..100 {
            hand.write_all(&[&head(3)[..], b"abc"].concat()).await.expect("there is room");
            kept.push(receiver.receive().await.expect("a frame").expect("not the end").into_body());
        }
        let places = kept.iter().map(|body| body.as_ptr() as usize);
        let (first, last) = (places.clone().min(), places.max());
        assert!(first.zip(last).is_some_and(|(first, last)| last - first < READ_BYTES), "one buffer for all");
    }
}
