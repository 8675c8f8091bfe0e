//! A call as a lane.
//!
//! **Who has finished says so, with an empty message.** A call may end in ways that are no end in order and still look like one:
//! a request that its client gives up may have just ended, and so has one that breaks off behind a message's length.

use crate::connection::InUse;
use crate::message::{MESSAGE_BYTES_MAX, Messages, Piece, parts_of};
use async_trait::async_trait;
use bytes::Bytes;
use chronik_core::ids::NodeId;
use chronik_link::pieces::{Pieces, slices_of};
use chronik_link::{Frame, Lane, LaneReceiver, LaneSender, LinkError};
use http::HeaderMap;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;
use tonic::body::Body;

/// Messages between the lane and its connection: one that is being sent, and the next. HTTP/2 takes no more than its windows
/// let it, so who does not read holds up the sender.
const WAITING_MAX: usize = 2;

/// Both ends of what goes out; `trailers` come last.
pub fn outgoing(trailers: Option<HeaderMap>) -> (Sending, Outgoing) {
    let (pieces, receiver) = mpsc::channel(WAITING_MAX);
    let finished = Arc::new(AtomicBool::new(false));
    let outgoing = Outgoing { pieces: receiver, parts: VecDeque::new(), finished: finished.clone(), trailers };
    (Sending { pieces, finished }, outgoing)
}

/// The lane's end of it.
pub struct Sending {
    pieces: mpsc::Sender<Piece>,
    finished: Arc<AtomicBool>,
}

/// The connection's end: the body of a request or of its answer.
pub struct Outgoing {
    pieces: mpsc::Receiver<Piece>,
    /// Of the message that is being sent, what HTTP/2 has not asked for yet.
    parts: VecDeque<Bytes>,
    /// The last word is still to be said. Set before the lane's end is dropped, so that nobody waits for room to finish.
    finished: Arc<AtomicBool>,
    trailers: Option<HeaderMap>,
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        if self.parts.is_empty() {
            let piece = ready!(self.pieces.poll_recv(cx));
            let piece = piece.or_else(|| self.finished.swap(false, Ordering::AcqRel).then(Piece::new));
            self.parts = piece.map(parts_of).unwrap_or_default();
        }
        let frame = match self.parts.pop_front() {
            Some(part) => Some(http_body::Frame::data(part)),
            None => self.trailers.take().map(http_body::Frame::trailers),
        };
        Poll::Ready(frame.map(Ok))
    }
}

/// `in_use`: what the lane holds of an accepted connection.
pub fn lane(
    remote: SocketAddr,
    certified: Option<NodeId>,
    sending: Sending,
    incoming: Body,
    in_use: Option<InUse>,
) -> Lane {
    let in_use = in_use.map(Arc::new);
    let receiver = Receiver { pieces: Pieces::new(Messages::new(incoming)), _in_use: in_use.clone() };
    let sender = Sender { sending: Some(sending), _in_use: in_use };
    Lane { remote, certified, sender: Box::new(sender), receiver: Box::new(receiver) }
}

struct Sender {
    /// `None` once it is finished.
    sending: Option<Sending>,
    _in_use: Option<Arc<InUse>>,
}

#[async_trait]
impl LaneSender for Sender {
    async fn send(&mut self, frames: &mut VecDeque<Frame>) -> Result<(), LinkError> {
        let Some(sending) = &self.sending else { return Err(LinkError::Ended) };
        for piece in pieces(slices_of(frames)) {
            // The call has ended, which the receiver says more of.
            sending.pieces.send(piece).await.map_err(|_| LinkError::Ended)?;
        }
        Ok(())
    }

    async fn finish(&mut self) {
        if let Some(sending) = self.sending.take() {
            sending.finished.store(true, Ordering::Release);
        }
    }
}

/// Slices as messages, none of them longer than may be.
fn pieces(slices: Vec<Bytes>) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut piece, mut room) = (Piece::new(), MESSAGE_BYTES_MAX);
    for mut slice in slices {
        while !slice.is_empty() {
            let part = slice.split_to(slice.len().min(room));
            room -= part.len();
            piece.push(part);
            if room == 0 {
                pieces.push(std::mem::take(&mut piece));
                room = MESSAGE_BYTES_MAX;
            }
        }
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    pieces
}

struct Receiver {
    pieces: Pieces<Messages<Body>>,
    _in_use: Option<Arc<InUse>>,
}

#[async_trait]
impl LaneReceiver for Receiver {
    async fn receive(&mut self) -> Result<Option<Frame>, LinkError> {
        self.pieces.frame().await
    }

    fn set_frame_bytes_max(&mut self, bytes: usize) {
        self.pieces.set_frame_bytes_max(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    /// The next part that goes out; `None` at the end.
    async fn part(outgoing: &mut Outgoing) -> Option<Bytes> {
        let frame = outgoing.frame().await?;
        Some(frame.expect("it cannot fail").into_data().expect("bytes"))
    }

    #[test]
    fn messages_are_full_and_say_the_same() {
        let slices: Vec<Bytes> =
            [0, 1, MESSAGE_BYTES_MAX, 3, 2 * MESSAGE_BYTES_MAX + 5].map(|bytes| Bytes::from(vec![7; bytes])).to_vec();
        let made = pieces(slices.clone());
        let lengths: Vec<usize> = made.iter().map(|piece| piece.iter().map(Bytes::len).sum()).collect();
        assert_eq!(lengths, [MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX, 9]);
        assert_eq!(made.concat().concat(), slices.concat());
        assert!(pieces(vec![Bytes::new()]).is_empty(), "nothing is no message: that would be the last word");
    }

    #[tokio::test]
    async fn the_last_word_comes_after_all_else_and_only_from_who_finishes() {
        for finishes in [true, false] {
            let (sending, mut outgoing) = outgoing(None);
            let mut sender = Sender { sending: Some(sending), _in_use: None };
            // As much as may wait: finishing needs no room.
            for number in 0..WAITING_MAX as u64 {
                sender.send(&mut VecDeque::from([Frame::new(1, number)])).await.expect("there is room");
            }
            if finishes {
                sender.finish().await;
                let late = sender.send(&mut VecDeque::from([Frame::new(1, 9)])).await;
                assert!(matches!(late, Err(LinkError::Ended)), "after the last word: {late:?}");
            }
            drop(sender);
            for _ in 0..WAITING_MAX {
                assert!(part(&mut outgoing).await.is_some_and(|message| message.len() > LAST_WORD.len()));
            }
            if finishes {
                assert_eq!(part(&mut outgoing).await.as_deref(), Some(&LAST_WORD[..]));
            }
            assert_eq!(part(&mut outgoing).await, None);
        }
    }

    /// An empty message.
    const LAST_WORD: [u8; 5] = [0; 5];

    #[tokio::test]
    async fn an_answer_ends_with_its_status() {
        let status = HeaderMap::from_iter([(tonic::Status::GRPC_STATUS, http::HeaderValue::from_static("0"))]);
        let (sending, mut outgoing) = outgoing(Some(status.clone()));
        drop(sending);
        let last = outgoing.frame().await.expect("one frame").expect("it cannot fail");
        assert_eq!(last.into_trailers().ok(), Some(status));
        assert!(outgoing.frame().await.is_none());
    }
}
