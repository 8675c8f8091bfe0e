//! The little that a coordinator reads of what consumers tell each other: the topics that a member subscribes to.
//!
//! Everything else, and every other protocol type's metadata, is opaque and passed on as it came.

use bytes::{Buf, Bytes};

/// The protocol type of consumers; others (`connect`, `sr` …) put something else into their metadata.
pub const CONSUMER: &str = "consumer";

/// Topics of a `ConsumerProtocolSubscription`: version, then an array of names, whatever the version. `None` if the bytes
/// are none.
pub fn topics(metadata: &Bytes) -> Option<Vec<String>> {
    let mut input = metadata.clone();
    let _version = input.try_get_i16().ok()?;
    let count = usize::try_from(input.try_get_i32().ok()?).ok()?;
    // Every name takes at least the two bytes of its length.
    if count > input.remaining() / 2 {
        return None;
    }
    let mut topics = Vec::with_capacity(count);
    for _ in 0..count {
        let len = usize::try_from(input.try_get_i16().ok()?).ok()?;
        if len > input.remaining() {
            return None;
        }
        topics.push(String::from_utf8(input.split_to(len).to_vec()).ok()?);
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_and_nonsense_is_none() {
        let bytes = Bytes::from_static(b"\x00\x03\x00\x00\x00\x02\x00\x01a\x00\x02bc\xff\xff\xff\xff");
        assert_eq!(topics(&bytes), Some(vec!["a".to_owned(), "bc".to_owned()]));
        assert_eq!(topics(&Bytes::from_static(b"\x00\x00\x7f\xff\xff\xff")), None);
        assert_eq!(topics(&Bytes::from_static(b"opaque")), None);
    }
}
