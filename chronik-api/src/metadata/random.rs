//! Identities, drawn from the operating system: the only ambient randomness that reaches the metadata.

use chronik_core::ids::TopicId;

/// 16 random bytes.
pub fn identity() -> [u8; 16] {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system gives randomness once it has booted");
    bytes
}

/// A candidate for a topic's id; the controller draws again where it cannot be used.
pub fn topic_id() -> TopicId {
    TopicId(identity())
}

/// A random UUID (version 4, RFC 9562) in its usual text, as member ids end in.
pub fn uuid_text() -> String {
    let mut bytes = identity();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = u128::from_be_bytes(bytes);
    let digits = format!("{hex:032x}");
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}
