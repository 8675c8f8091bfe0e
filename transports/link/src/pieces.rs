//! Frames in layers that carry bytes in pieces of their own: how frames become slices, and slices frames again.
//!
//! Nothing is copied on the way out: the heads of one round share an allocation, and bodies go as they are. On the way in a
//! body that lies in one piece is a slice of it; one that lies in several is put together, which **copies** it once, into a
//! buffer that grows as its bytes come: a length alone makes nobody allocate.

use crate::link::{Frame, GREETING_BYTES_MAX, HEAD_BYTES, Head, LinkError};
use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;

/// First step of a large body's buffer.
const BODY_STEP_BYTES: usize = 1 << 20;

/// What goes on the wire for these frames, which are taken.
pub fn slices_of(frames: &mut VecDeque<Frame>) -> Vec<Bytes> {
    let mut slices = Vec::with_capacity(frames.len() * 3);
    let mut heads = BytesMut::with_capacity(frames.len() * HEAD_BYTES);
    for frame in frames.drain(..) {
        heads.extend_from_slice(&frame.head().to_bytes());
        slices.push(heads.split().freeze());
        slices.extend(frame.body);
    }
    slices
}

/// Where pieces come from.
#[async_trait]
pub trait Source: Send {
    /// The next one, which is not empty; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, LinkError>;
}

/// Makes frames of pieces.
pub struct Pieces<S> {
    source: S,
    /// Come, and not looked at yet.
    came: Bytes,
    frame_bytes_max: usize,
}

impl<S: Source> Pieces<S> {
    pub fn new(source: S) -> Self {
        Self { source, came: Bytes::new(), frame_bytes_max: GREETING_BYTES_MAX }
    }

    pub fn set_frame_bytes_max(&mut self, bytes: usize) {
        self.frame_bytes_max = bytes;
    }

    /// As [`crate::LaneReceiver::receive`].
    pub async fn frame(&mut self) -> Result<Option<Frame>, LinkError> {
        let mut head = [0; HEAD_BYTES];
        let mut filled = 0;
        while filled < HEAD_BYTES {
            if !self.has_some().await? {
                return if filled == 0 { Ok(None) } else { Err(LinkError::Ended) };
            }
            let taken = self.came.len().min(HEAD_BYTES - filled);
            self.came.copy_to_slice(&mut head[filled..filled + taken]);
            filled += taken;
        }
        let head = Head::from_bytes(&head);
        let wanted = head.body_bytes as usize;
        if wanted > self.frame_bytes_max {
            return Err(LinkError::TooLarge { bytes: wanted as u64, max: self.frame_bytes_max });
        }
        let mut frame = Frame::new(head.kind, head.number).with(self.body(wanted).await?);
        frame.flags = head.flags;
        Ok(Some(frame))
    }

    async fn body(&mut self, wanted: usize) -> Result<Bytes, LinkError> {
        if wanted == 0 {
            return Ok(Bytes::new());
        }
        if !self.has_some().await? {
            return Err(LinkError::Ended);
        }
        if wanted <= self.came.len() {
            return Ok(self.came.split_to(wanted));
        }
        let mut body = BytesMut::with_capacity(wanted.min(self.came.len() + BODY_STEP_BYTES));
        while body.len() < wanted {
            if !self.has_some().await? {
                return Err(LinkError::Ended);
            }
            let taken = self.came.len().min(wanted - body.len());
            body.extend_from_slice(&self.came.split_to(taken));
        }
        Ok(body.freeze())
    }

    /// Whether there is something to look at; false at the end.
    async fn has_some(&mut self) -> Result<bool, LinkError> {
        while self.came.is_empty() {
            match self.source.next().await? {
                Some(piece) => self.came = piece,
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written, cut into pieces of one length.
    struct Cut(VecDeque<Bytes>);

    #[async_trait]
    impl Source for Cut {
        async fn next(&mut self) -> Result<Option<Bytes>, LinkError> {
            Ok(self.0.pop_front())
        }
    }

    fn frames() -> VecDeque<Frame> {
        let body = |bytes: &'static [u8]| Bytes::from_static(bytes);
        let mut flagged = Frame::new(3, 9).with(body(b"of two")).with(body(b" slices"));
        flagged.flags = 5;
        VecDeque::from([Frame::new(1, 7), Frame::new(2, 8).with(body(b"abc")), flagged])
    }

    fn cut(bytes: &[u8], length: usize) -> Pieces<Cut> {
        Pieces::new(Cut(bytes.chunks(length).map(Bytes::copy_from_slice).collect()))
    }

    fn written() -> Vec<u8> {
        slices_of(&mut frames()).concat()
    }

    #[tokio::test]
    async fn frames_come_out_as_they_went_in_however_they_were_cut() {
        let bytes = written();
        for length in 1..=bytes.len() {
            let mut pieces = cut(&bytes, length);
            for sent in frames() {
                let came = pieces.frame().await.expect("it can be read").expect("not the end");
                assert_eq!((came.kind, came.flags, came.number), (sent.kind, sent.flags, sent.number));
                assert_eq!(came.into_body(), sent.into_body());
            }
            assert!(matches!(pieces.frame().await, Ok(None)));
        }
    }

    #[tokio::test]
    async fn what_breaks_off_within_a_frame_is_no_end_in_order() {
        let bytes = written();
        let whole = [HEAD_BYTES, 2 * HEAD_BYTES + 3, bytes.len()];
        for length in 0..=bytes.len() {
            let mut pieces = cut(&bytes[..length], 7);
            let end = loop {
                match pieces.frame().await {
                    Ok(Some(_)) => {}
                    end => break end,
                }
            };
            if length == 0 || whole.contains(&length) {
                assert!(matches!(end, Ok(None)), "{length}: {end:?}");
            } else {
                assert!(matches!(end, Err(LinkError::Ended)), "{length}: {end:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_long_body_is_refused_by_its_length_and_one_that_lies_in_one_piece_is_a_slice_of_it() {
        let head = Head { kind: 1, flags: 0, body_bytes: GREETING_BYTES_MAX as u32 + 1, number: 1 }.to_bytes();
        assert!(matches!(cut(&head, 4).frame().await, Err(LinkError::TooLarge { .. })));
        let piece = Bytes::from(written());
        let mut pieces = Pieces::new(Cut(VecDeque::from([piece.clone()])));
        while let Some(frame) = pieces.frame().await.expect("it can be read") {
            let body = frame.into_body();
            assert!(body.is_empty() || piece.as_ptr_range().contains(&body.as_ptr()));
        }
    }
}
