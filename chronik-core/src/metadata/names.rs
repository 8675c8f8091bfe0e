//! What may be called what: topic names, topic ids, the cluster's id.

use crate::ids::TopicId;

/// Longest topic name; with a partition's number it must still fit a file name of 255 bytes (Kafka's own limit).
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Where groups keep their offsets.
pub const CONSUMER_OFFSETS: &str = "__consumer_offsets";
/// Where transaction coordinators keep their state.
pub const TRANSACTION_STATE: &str = "__transaction_state";
/// Where share coordinators keep their state.
pub const SHARE_GROUP_STATE: &str = "__share_group_state";
/// The metadata log's name towards tools. No topic may take it.
pub const CLUSTER_METADATA: &str = "__cluster_metadata";

/// Why a name is no topic's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTopicName {
    #[error("a topic name must not be empty")]
    Empty,
    #[error("a topic name must not be \".\" or \"..\"")]
    Dots,
    #[error("a topic name has at most 249 characters, this one has {0}")]
    TooLong(usize),
    #[error("a topic name holds only letters and digits of ASCII, '.', '_' and '-'")]
    BadCharacter,
}

/// Checks a name by Kafka's rules (`[a-zA-Z0-9._-]`, at most 249 of them, not `.` or `..`).
pub fn check_topic_name(name: &str) -> Result<(), BadTopicName> {
    if name.is_empty() {
        return Err(BadTopicName::Empty);
    }
    if name == "." || name == ".." {
        return Err(BadTopicName::Dots);
    }
    if name.len() > TOPIC_NAME_BYTES_MAX {
        return Err(BadTopicName::TooLong(name.chars().count()));
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
        return Err(BadTopicName::BadCharacter);
    }
    Ok(())
}

/// What a name becomes where metrics are named after it: two topics that agree here would share their metrics, so the
/// second is refused.
pub fn collision_key(name: &str) -> String {
    name.replace('.', "_")
}

/// Whether a topic is the broker's own, and hidden from clients that ask for it to be.
pub fn is_internal(name: &str) -> bool {
    matches!(name, CONSUMER_OFFSETS | TRANSACTION_STATE | SHARE_GROUP_STATE)
}

/// Whether random bytes may become a topic's id: not one of the reserved ids, and not one whose text begins with a dash,
/// which command-line tools would take for an option (Kafka draws again for the same reasons).
pub fn is_usable_topic_id(id: TopicId) -> bool {
    let reserved = id.0[..15].iter().all(|&byte| byte == 0) && id.0[15] <= 1;
    !reserved && !base64url(&id.0).starts_with('-')
}

/// A topic's id as Kafka's tools print it.
pub fn topic_id_text(id: TopicId) -> String {
    base64url(&id.0)
}

/// A cluster's id from 16 random bytes: 22 characters that Kafka's tools can read as a UUID.
pub fn cluster_id_text(random: [u8; 16]) -> String {
    base64url(&random)
}

/// RFC 4648 §5, without padding.
fn base64url(bytes: &[u8; 16]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits = u128::from_be_bytes(*bytes);
    // 128 bits are 21 digits of six bits, and a last one of two bits that is filled up with zeros.
    (0..22u32)
        .map(|digit| {
            let six = if digit < 21 { bits >> (122 - 6 * digit) } else { bits << 4 };
            char::from(ALPHABET[(six & 0x3f) as usize])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_follow_kafkas_rules() {
        for good in ["a", "orders", "a.b_c-D9", &"x".repeat(249)] {
            assert_eq!(check_topic_name(good), Ok(()), "{good}");
        }
        assert_eq!(check_topic_name(""), Err(BadTopicName::Empty));
        assert_eq!(check_topic_name(".."), Err(BadTopicName::Dots));
        assert_eq!(check_topic_name(&"x".repeat(250)), Err(BadTopicName::TooLong(250)));
        for bad in ["../x", "a/b", "a\0", "ä", "a b"] {
            assert_eq!(check_topic_name(bad), Err(BadTopicName::BadCharacter), "{bad}");
        }
    }

    #[test]
    fn ids_print_as_kafkas_do() {
        assert_eq!(topic_id_text(TopicId::NONE), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(topic_id_text(TopicId::METADATA), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(topic_id_text(TopicId([0xff; 16])), "_____________________w");
        // What `printf 'chronik is a log' | base64` gives.
        assert_eq!(topic_id_text(TopicId(*b"chronik is a log")), "Y2hyb25payBpcyBhIGxvZw");
    }

    #[test]
    fn reserved_ids_and_ids_that_look_like_options_are_not_used() {
        assert!(!is_usable_topic_id(TopicId::NONE));
        assert!(!is_usable_topic_id(TopicId::METADATA));
        assert!(!is_usable_topic_id(TopicId([0xf8; 16])), "its text begins with a dash");
        assert!(is_usable_topic_id(TopicId(*b"0123456789abcdef")));
    }
}
