//! Messages of gRPC as they lie in HTTP/2's bodies: a flag, a length, and that many bytes of the stream of frames.
//!
//! tonic's codecs would gather each message in a buffer of its own on either side, which is two copies of all that replicas are
//! sent. Here what is long goes from the log's buffers to the socket, and comes as slices of what HTTP/2 has read; tonic serves
//! and keeps the connections. A length makes nobody allocate: what is held for a peer is bounded by its windows.

use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use chronik_link::LinkError;
use chronik_link::pieces::Source;
use http_body::Body;
use http_body_util::BodyExt;
use std::collections::VecDeque;
use std::error::Error;
use std::io;
use tonic::{Code, Status};

/// The longest message: gRPC's own default.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Whether it is compressed, which none is, and its length.
const PREFIX_BYTES: usize = 5;

/// Shorter slices are copied together: each part of a message costs HTTP/2 a frame, which is dearer than that copy.
const COPIED_BELOW_BYTES: usize = 4 << 10;

/// A message: slices, at most [`MESSAGE_BYTES_MAX`] bytes together.
pub type Piece = Vec<Bytes>;

/// What goes on the wire for a message, in parts that become HTTP/2's frames. Slices below [`COPIED_BELOW_BYTES`] are
/// **copied**, once.
pub fn parts_of(piece: Piece) -> VecDeque<Bytes> {
    let is_short = |slice: &&Bytes| slice.len() < COPIED_BELOW_BYTES;
    let bytes: usize = piece.iter().map(Bytes::len).sum();
    let short_bytes: usize = piece.iter().filter(is_short).map(Bytes::len).sum();
    let mut short = BytesMut::with_capacity(PREFIX_BYTES + short_bytes);
    short.put_u8(0);
    short.put_u32(u32::try_from(bytes).expect("whoever cuts pieces makes none longer than MESSAGE_BYTES_MAX"));
    let mut parts = VecDeque::new();
    for slice in piece {
        if is_short(&&slice) {
            short.put_slice(&slice);
            continue;
        }
        if !short.is_empty() {
            parts.push_back(short.split().freeze());
        }
        parts.push_back(slice);
    }
    if !short.is_empty() {
        parts.push_back(short.freeze());
    }
    parts
}

/// What comes of a call, until its last word: an empty message.
pub struct Messages<B> {
    body: B,
    /// Come, and not looked at yet.
    came: Bytes,
    /// As much as has come of the next message's.
    prefix: [u8; PREFIX_BYTES],
    prefix_filled: usize,
    /// What is still to come of this message.
    left: usize,
    is_finished: bool,
}

impl<B> Messages<B>
where
    B: Body<Data = Bytes> + Send + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    pub fn new(body: B) -> Self {
        Self { body, came: Bytes::new(), prefix: [0; PREFIX_BYTES], prefix_filled: 0, left: 0, is_finished: false }
    }

    /// More bytes. There must be some: who has finished has said so.
    async fn more(&mut self) -> Result<Bytes, LinkError> {
        loop {
            let frame = match self.body.frame().await {
                None => return Err(LinkError::Ended),
                Some(Err(why)) => return Err(broken(why)),
                Some(Ok(frame)) => frame,
            };
            match frame.into_data() {
                Ok(bytes) => return Ok(bytes),
                Err(other) => {
                    if let Some(why) = other.trailers_ref().and_then(refusal) {
                        return Err(broken(why));
                    }
                }
            }
        }
    }

    /// How long the message is whose prefix has come.
    fn length(&self) -> Result<usize, LinkError> {
        let mut prefix = &self.prefix[..];
        let (flag, bytes) = (prefix.get_u8(), prefix.get_u32() as usize);
        let unsound = |what: String| Err(LinkError::Broken(io::Error::new(io::ErrorKind::InvalidData, what)));
        match flag {
            0 if bytes > MESSAGE_BYTES_MAX => {
                unsound(format!("a message of {bytes} bytes is longer than {MESSAGE_BYTES_MAX}"))
            }
            0 => Ok(bytes),
            flag => unsound(format!("a message is compressed, or of no known kind ({flag})")),
        }
    }
}

#[async_trait]
impl<B> Source for Messages<B>
where
    B: Body<Data = Bytes> + Send + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// As much of a message as lies in one piece. May be called again after it was cancelled.
    async fn next(&mut self) -> Result<Option<Bytes>, LinkError> {
        while !self.is_finished {
            if self.came.is_empty() {
                self.came = self.more().await?;
            } else if self.left > 0 {
                let part = self.came.split_to(self.came.len().min(self.left));
                self.left -= part.len();
                return Ok(Some(part));
            } else {
                let taken = self.came.len().min(PREFIX_BYTES - self.prefix_filled);
                self.came.copy_to_slice(&mut self.prefix[self.prefix_filled..][..taken]);
                self.prefix_filled += taken;
                if self.prefix_filled == PREFIX_BYTES {
                    self.prefix_filled = 0;
                    self.left = self.length()?;
                    self.is_finished = self.left == 0;
                }
            }
        }
        Ok(None)
    }
}

/// Why a call was refused, if its headers or trailers say so.
pub fn refusal(said: &http::HeaderMap) -> Option<Status> {
    Status::from_header_map(said).filter(|status| status.code() != Code::Ok)
}

/// Why a call has ended, or was none.
pub fn broken(why: impl Into<Box<dyn Error + Send + Sync>>) -> LinkError {
    LinkError::Broken(io::Error::other(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronik_link::Frame;
    use chronik_link::link::HEAD_BYTES;
    use chronik_link::pieces::{Pieces, slices_of};
    use http_body_util::StreamBody;
    use std::convert::Infallible;

    /// Whether it is compressed and its length, before the message.
    fn message(bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).expect("a short one");
        [&[0], &length.to_be_bytes()[..], bytes].concat()
    }

    /// A call whose bytes come in pieces of this length.
    fn call(bytes: &[u8], length: usize) -> Messages<impl Body<Data = Bytes, Error = Infallible> + Send + Unpin> {
        let parts: Vec<_> = bytes.chunks(length).map(Bytes::copy_from_slice).collect();
        let parts = parts.into_iter().map(|part| Ok::<_, Infallible>(http_body::Frame::data(part)));
        Messages::new(StreamBody::new(tokio_stream::iter(parts)))
    }

    fn frames() -> VecDeque<Frame> {
        let (abc, long) = (Bytes::from_static(b"abc"), Bytes::from_static(&[7; 300]));
        VecDeque::from([Frame::new(1, 7), Frame::new(2, 8).with(abc), Frame::new(3, 9).with(long.clone()).with(long)])
    }

    #[test]
    fn a_message_is_its_slices_behind_their_length_and_only_what_is_short_is_copied() {
        let long = Bytes::from(vec![7; COPIED_BELOW_BYTES]);
        let short = Bytes::from_static(b"short");
        let parts = parts_of(vec![short.clone(), short.clone(), long.clone(), long.clone(), short.clone()]);
        let lengths: Vec<_> = parts.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [PREFIX_BYTES + 10, COPIED_BELOW_BYTES, COPIED_BELOW_BYTES, 5]);
        assert_eq!((parts[1].as_ptr(), parts[2].as_ptr()), (long.as_ptr(), long.as_ptr()));
        let whole = [&short[..], &short, &long, &long, &short].concat();
        assert_eq!(Vec::from(parts).concat(), message(&whole));
        assert_eq!(Vec::from(parts_of(Piece::new())).concat(), message(b""), "the last word");
    }

    #[tokio::test]
    async fn a_message_comes_back_however_it_was_cut_and_what_lies_in_one_piece_is_a_slice_of_it() {
        let bytes = [message(b"of three"), message(b"next"), message(b"")].concat();
        for length in 1..=bytes.len() {
            let (mut call, mut came) = (call(&bytes, length), Vec::new());
            while let Some(part) = call.next().await.expect("it can be read") {
                assert!(!part.is_empty());
                came.extend_from_slice(&part);
            }
            assert_eq!(came, b"of threenext", "in pieces of {length}");
            assert!(matches!(call.next().await, Ok(None)), "and stays so");
        }
    }

    #[tokio::test]
    async fn frames_need_not_keep_to_messages() {
        let bytes = slices_of(&mut frames()).concat();
        for length in [1, 2, HEAD_BYTES, 100, bytes.len()] {
            let messages: Vec<u8> = bytes.chunks(length).chain([&[][..]]).flat_map(message).collect();
            let mut pieces = Pieces::new(call(&messages, 64));
            for sent in frames() {
                let came = pieces.frame().await.expect("it can be read").expect("not the end");
                assert_eq!((came.kind, came.number), (sent.kind, sent.number));
                assert_eq!(came.into_body(), sent.into_body());
            }
            assert!(matches!(pieces.frame().await, Ok(None)));
        }
    }

    #[tokio::test]
    async fn a_message_that_is_too_long_is_refused_by_its_length() {
        let first_of = |length: u32| [&[0][..], &length.to_be_bytes(), b"abc"].concat();
        let longest = first_of(MESSAGE_BYTES_MAX as u32);
        assert!(matches!(call(&longest, 1).next().await, Ok(Some(_))));
        for length in [MESSAGE_BYTES_MAX as u32 + 1, u32::MAX] {
            let prefix = first_of(length);
            assert!(matches!(call(&prefix, 1).next().await, Err(LinkError::Broken(_))), "{length} bytes");
        }
    }

    #[tokio::test]
    async fn what_is_compressed_or_of_no_known_kind_is_refused() {
        for flag in [1, 2, 255] {
            let mut bytes = message(b"abc");
            bytes[0] = flag;
            assert!(matches!(call(&bytes, 64).next().await, Err(LinkError::Broken(_))), "{flag}");
        }
    }

    #[tokio::test]
    async fn a_call_that_is_ended_with_a_reason_breaks_with_it() {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("14"));
        trailers.insert("grpc-message", http::HeaderValue::from_static("gone%20home"));
        let frames = [http_body::Frame::data(Bytes::from(message(b"abc"))), http_body::Frame::trailers(trailers)];
        let mut call = Messages::new(StreamBody::new(tokio_stream::iter(frames.map(Ok::<_, Infallible>))));
        assert_eq!(call.next().await.expect("it can be read").expect("not the end"), "abc");
        let Err(LinkError::Broken(why)) = call.next().await else { panic!("it ends with a reason") };
        assert!(why.to_string().contains("gone home"), "{why}");
    }

    #[tokio::test]
    async fn what_breaks_off_is_no_end_in_order() {
        // A frame in two messages, then the last word.
        let bytes = slices_of(&mut VecDeque::from([Frame::new(1, 7).with(Bytes::from_static(b"abc"))])).concat();
        let (first, second) = bytes.split_at(HEAD_BYTES + 1);
        let frame = [message(first), message(second)].concat();
        let messages = [&frame[..], &message(b"")].concat();
        for length in 0..=messages.len() {
            let mut pieces = Pieces::new(call(&messages[..length], 8));
            if length >= frame.len() {
                assert_eq!(pieces.frame().await.expect("a frame").expect("not the end").number, 7);
            }
            let end = pieces.frame().await;
            if length < messages.len() {
                assert!(matches!(end, Err(LinkError::Broken(_) | LinkError::Ended)), "{length}: {end:?}");
            } else {
                assert!(matches!(end, Ok(None)), "{end:?}");
                assert!(matches!(pieces.frame().await, Ok(None)), "and stays so");
            }
        }
    }
}
