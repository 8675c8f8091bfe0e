//! A call as a lane.
//!
//! **Who has finished says so, with an empty message.** A call may end in ways that are no end in order and still look like one:
//! to tonic a request that was reset has just ended, and so has one that breaks off behind a message's length.

use crate::codec::{MESSAGE_BYTES_MAX, Piece};
use crate::connection::InUse;
use async_trait::async_trait;
use bytes::Bytes;
use chronik_core::ids::NodeId;
use chronik_link::pieces::{Pieces, Source, slices_of};
use chronik_link::{Frame, Lane, LaneReceiver, LaneSender, LinkError};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::{Status, Streaming};

/// Messages between the lane and its connection: one that is being sent, and the next. HTTP/2 takes no more than its windows
/// let it, so who does not read holds up the sender.
const WAITING_MAX: usize = 2;

/// Both ends of what goes out.
pub fn outgoing() -> (Sending, Outgoing) {
    let (pieces, receiver) = mpsc::channel(WAITING_MAX);
    let finished = Arc::new(AtomicBool::new(false));
    (Sending { pieces, finished: finished.clone() }, Outgoing { pieces: receiver, finished })
}

/// The lane's end of it.
pub struct Sending {
    pieces: mpsc::Sender<Piece>,
    finished: Arc<AtomicBool>,
}

/// The connection's end.
pub struct Outgoing {
    pieces: mpsc::Receiver<Piece>,
    /// The last word is still to be said. Set before the lane's end is dropped, so that nobody waits for room to finish.
    finished: Arc<AtomicBool>,
}

impl Stream for Outgoing {
    type Item = Piece;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        let piece = ready!(self.pieces.poll_recv(cx));
        Poll::Ready(piece.or_else(|| self.finished.swap(false, Ordering::AcqRel).then(Piece::new)))
    }
}

/// `in_use`: what the lane holds of an accepted connection.
pub fn lane(
    remote: SocketAddr,
    certified: Option<NodeId>,
    sending: Sending,
    incoming: Streaming<Bytes>,
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
    pieces: Pieces<Messages>,
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

/// What comes of a call.
pub struct Messages {
    call: Streaming<Bytes>,
    /// The last word has come.
    finished: bool,
}

impl Messages {
    pub fn new(call: Streaming<Bytes>) -> Self {
        Self { call, finished: false }
    }
}

#[async_trait]
impl Source for Messages {
    async fn next(&mut self) -> Result<Option<Bytes>, LinkError> {
        if self.finished {
            return Ok(None);
        }
        let message = self.call.message().await.map_err(broken)?.ok_or(LinkError::Ended)?;
        self.finished = message.is_empty();
        Ok(Some(message).filter(|message| !message.is_empty()))
    }
}

/// Why a call has ended, or was none.
pub fn broken(why: Status) -> LinkError {
    LinkError::Broken(std::io::Error::other(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt;

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
            let (sending, mut outgoing) = outgoing();
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
                assert!(outgoing.next().await.is_some_and(|piece| !piece.is_empty()));
            }
            if finishes {
                assert_eq!(outgoing.next().await, Some(Piece::new()));
            }
            assert_eq!(outgoing.next().await, None);
        }
    }
}
