//! Names for the things a broker counts, as types, so that an offset is never handed over as an epoch.

use std::fmt;

/// A record's place in its partition's log; also "the next offset to be written" where a name ends in `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

impl Offset {
    /// The first offset of every log.
    pub const ZERO: Offset = Offset(0);

    /// How many offsets lie from `earlier` up to this one; zero if `earlier` is not earlier.
    pub fn since(self, earlier: Offset) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }
}

impl std::ops::Add<i64> for Offset {
    type Output = Offset;
    /// Saturates: offsets come off the wire, and the sum of two valid ones may not be one.
    fn add(self, records: i64) -> Offset {
        Offset(self.0.saturating_add(records))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts the leaders a partition has had (KIP-101). Zero is the first leader's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaderEpoch(pub i32);

impl fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A broker's number, unique in its cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub i32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A topic's identity over its whole life; a topic deleted and created again under its old name has another (KIP-516).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// "No topic": never given to one.
    pub const NONE: TopicId = TopicId([0; 16]);
    /// The metadata log's, the same that Kafka reserves for it.
    pub const METADATA: TopicId = TopicId([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
}

impl fmt::Display for TopicId {
    /// Lower-case hexadecimal, 32 digits: safe in file names on every file system, unlike base64.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({self})")
    }
}

/// What text is no topic id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a topic id is 32 hexadecimal digits")]
pub struct NotATopicId;

impl std::str::FromStr for TopicId {
    type Err = NotATopicId;
    fn from_str(text: &str) -> Result<Self, NotATopicId> {
        let mut id = [0u8; 16];
        if text.len() != 32 || !text.is_ascii() {
            return Err(NotATopicId);
        }
        for (byte, digits) in id.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| NotATopicId)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| NotATopicId)?;
        }
        Ok(TopicId(id))
    }
}

/// Names one log on a node: a partition of a topic, by the topic's identity and never by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    pub topic: TopicId,
    pub partition: i32,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// An idempotent or transactional producer's number (KIP-98); the cluster never gives one out twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub i64);

impl ProducerId {
    /// In a batch: "this producer is not idempotent".
    pub const NONE: ProducerId = ProducerId(-1);
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_id_survives_its_text_and_other_text_is_refused() {
        let id = TopicId(*b"0123456789abcdef");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("xyz".parse::<TopicId>(), Err(NotATopicId));
        assert_eq!("é".repeat(16).parse::<TopicId>(), Err(NotATopicId));
    }
}
