//! Pieces of the stream of frames as messages of gRPC, without a schema.

use bytes::{Buf, BufMut, Bytes};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// The longest message, so the most that a stranger's length makes anybody set aside. Long enough that what each costs does
/// not count.
pub const MESSAGE_BYTES_MAX: usize = 256 << 10;

/// A message: slices, at most [`MESSAGE_BYTES_MAX`] bytes together.
pub type Piece = Vec<Bytes>;

#[derive(Clone, Copy, Debug, Default)]
pub struct PieceCodec;

impl Codec for PieceCodec {
    type Encode = Piece;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for PieceCodec {
    type Item = Piece;
    type Error = Status;

    /// **Copies** all of it, once, into the one buffer that tonic sends.
    fn encode(&mut self, piece: Piece, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.reserve(piece.iter().map(Bytes::len).sum());
        piece.iter().for_each(|slice| into.put_slice(slice));
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(32 << 10, MESSAGE_BYTES_MAX)
    }
}

impl Decoder for PieceCodec {
    type Item = Bytes;
    type Error = Status;

    /// A slice of the buffer into which tonic has gathered HTTP/2's frames, which **copied** all of it once.
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(32 << 10, MESSAGE_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::Messages;
    use chronik_link::link::HEAD_BYTES;
    use chronik_link::pieces::{Pieces, slices_of};
    use chronik_link::{Frame, LinkError};
    use http_body_util::{BodyExt, StreamBody};
    use std::collections::VecDeque;
    use tonic::Streaming;
    use tonic::body::Body;

    /// Whether it is compressed and its length, before the message.
    fn message(bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).expect("a short one");
        [&[0], &length.to_be_bytes()[..], bytes].concat()
    }

    /// A call whose bytes come in pieces of this length.
    fn call(bytes: &[u8], length: usize) -> Streaming<Bytes> {
        let parts: Vec<_> = bytes.chunks(length).map(Bytes::copy_from_slice).collect();
        let parts = parts.into_iter().map(|part| Ok::<_, Status>(hyper::body::Frame::data(part)));
        let body = Body::new(StreamBody::new(tokio_stream::iter(parts)));
        Streaming::new_request(PieceCodec, body, None, Some(MESSAGE_BYTES_MAX))
    }

    async fn written(pieces: Vec<Piece>) -> Vec<u8> {
        let pieces = tokio_stream::iter(pieces.into_iter().map(Ok));
        let body = tonic::codec::EncodeBody::new_client(PieceCodec, pieces, None, None);
        body.collect().await.expect("it can be written").to_bytes().to_vec()
    }

    fn frames() -> VecDeque<Frame> {
        let (abc, long) = (Bytes::from_static(b"abc"), Bytes::from_static(&[7; 300]));
        VecDeque::from([Frame::new(1, 7), Frame::new(2, 8).with(abc), Frame::new(3, 9).with(long.clone()).with(long)])
    }

    #[tokio::test]
    async fn a_message_is_its_slices_behind_their_length_and_comes_back_however_it_was_cut() {
        let piece = vec![Bytes::from_static(b"of"), Bytes::new(), Bytes::from_static(b" three")];
        let bytes = written(vec![piece, vec![Bytes::from_static(b"next")]]).await;
        assert_eq!(bytes, [message(b"of three"), message(b"next")].concat());
        for length in 1..=bytes.len() {
            let mut call = call(&bytes, length);
            for said in ["of three", "next"] {
                let came = call.message().await.expect("a message").expect("not the end");
                assert_eq!(came, said, "in pieces of {length}");
            }
            assert!(matches!(call.message().await, Ok(None)));
        }
    }

    #[tokio::test]
    async fn frames_need_not_keep_to_messages() {
        let bytes = slices_of(&mut frames()).concat();
        for length in [1, 2, HEAD_BYTES, 100, bytes.len()] {
            let messages: Vec<u8> = bytes.chunks(length).chain([&[][..]]).flat_map(message).collect();
            let mut pieces = Pieces::new(Messages::new(call(&messages, 64)));
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
        let longest = vec![7; MESSAGE_BYTES_MAX];
        let came = call(&message(&longest), 16 << 10).message().await;
        assert_eq!(came.expect("a message").expect("not the end").len(), MESSAGE_BYTES_MAX);
        for length in [MESSAGE_BYTES_MAX as u32 + 1, u32::MAX] {
            let prefix = [&[0][..], &length.to_be_bytes()].concat();
            let refused = call(&prefix, 1).message().await;
            assert!(refused.is_err_and(|why| why.message().contains("too large")), "{length} bytes");
        }
    }

    #[tokio::test]
    async fn what_is_compressed_or_of_no_known_kind_is_refused() {
        for flag in [1, 2, 255] {
            let mut bytes = message(b"abc");
            bytes[0] = flag;
            assert!(call(&bytes, 64).message().await.is_err(), "{flag}");
        }
    }

    #[tokio::test]
    async fn what_breaks_off_is_no_end_in_order() {
        // A frame in two messages, then the last word.
        let bytes = slices_of(&mut VecDeque::from([Frame::new(1, 7).with(Bytes::from_static(b"abc"))])).concat();
        let (first, second) = bytes.split_at(HEAD_BYTES + 1);
        let frame = [message(first), message(second)].concat();
        let messages = [&frame[..], &message(b"")].concat();
        for length in 0..=messages.len() {
            let mut pieces = Pieces::new(Messages::new(call(&messages[..length], 8)));
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
