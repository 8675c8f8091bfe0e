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

/// A number that differs from start to start.
pub fn seed() -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = identity();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}
