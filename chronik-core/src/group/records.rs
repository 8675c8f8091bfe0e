//! Kafka's own record formats in `__consumer_offsets`, so that Kafka's tools can read ours.
//!
//! Two bytes of version stand before each key and value; none of these versions has tagged fields. A null value is a
//! tombstone.
//!
//! | key | value |
//! |---|---|
//! | version 1: group, topic, partition | version 3: offset, leader epoch, metadata, commit timestamp |
//! | version 2: group | version 3: protocol type, generation, protocol, leader, state timestamp, members |

use crate::time::Timestamp;
use bytes::{Buf, BufMut, Bytes};

const OFFSET_KEY_VERSION: i16 = 1;
const GROUP_KEY_VERSION: i16 = 2;
const OFFSET_VALUE_VERSION: i16 = 3;
const GROUP_VALUE_VERSION: i16 = 3;

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Offset { group: String, topic: String, partition: i32 },
    Group { group: String },
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    pub offset: i64,
    /// −1: the committer did not say.
    pub leader_epoch: i32,
    pub metadata: String,
    pub committed: Timestamp,
}

/// A finished generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredGroup {
    pub protocol_type: String,
    pub generation: i32,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// When the group came into its state; −1 where an older version did not say.
    pub state_since: Timestamp,
    pub members: Vec<StoredMember>,
}

/// A member as its generation was finished.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub subscription: Bytes,
    pub assignment: Bytes,
}

/// A record as it goes to the log.
pub type RawRecord = (Bytes, Option<Bytes>);

/// Why a record cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotARecord {
    #[error("the record ends too early")]
    Truncated,
    #[error("the record's text is not UTF-8")]
    NotUtf8,
    #[error("the record has a null where there can be none")]
    Null,
    #[error("version {0} of the record is not known")]
    Version(i16),
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    // A group or topic name came in a field whose length has two bytes, so it fits one.
    out.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
    out.put_slice(&text.as_bytes()[..text.len().min(i16::MAX as usize)]);
}

fn put_nullable(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => put_text(out, text),
        None => out.put_i16(-1),
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_i32(bytes.len() as i32);
    out.put_slice(bytes);
}

struct Reader(Bytes);

impl Reader {
    fn need(&self, bytes: usize) -> Result<(), NotARecord> {
        if self.0.remaining() < bytes { Err(NotARecord::Truncated) } else { Ok(()) }
    }

    fn i16(&mut self) -> Result<i16, NotARecord> {
        self.need(2).map(|()| self.0.get_i16())
    }

    fn i32(&mut self) -> Result<i32, NotARecord> {
        self.need(4).map(|()| self.0.get_i32())
    }

    fn i64(&mut self) -> Result<i64, NotARecord> {
        self.need(8).map(|()| self.0.get_i64())
    }

    fn take(&mut self, len: usize) -> Result<Bytes, NotARecord> {
        self.need(len).map(|()| self.0.split_to(len))
    }

    fn nullable(&mut self) -> Result<Option<String>, NotARecord> {
        match usize::try_from(self.i16()?) {
            Ok(len) => String::from_utf8(self.take(len)?.to_vec()).map(Some).map_err(|_| NotARecord::NotUtf8),
            Err(_) => Ok(None),
        }
    }

    fn text(&mut self) -> Result<String, NotARecord> {
        self.nullable()?.ok_or(NotARecord::Null)
    }

    fn bytes(&mut self) -> Result<Bytes, NotARecord> {
        let len = usize::try_from(self.i32()?).map_err(|_| NotARecord::Null)?;
        self.take(len)
    }
}

impl Key {
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        match self {
            Key::Offset { group, topic, partition } => {
                out.put_i16(OFFSET_KEY_VERSION);
                put_text(&mut out, group);
                put_text(&mut out, topic);
                out.put_i32(*partition);
            }
            Key::Group { group } => {
                out.put_i16(GROUP_KEY_VERSION);
                put_text(&mut out, group);
            }
        }
        out.into()
    }

    pub fn decode(bytes: Bytes) -> Result<Key, NotARecord> {
        let mut input = Reader(bytes);
        match input.i16()? {
            0..=OFFSET_KEY_VERSION => {
                Ok(Key::Offset { group: input.text()?, topic: input.text()?, partition: input.i32()? })
            }
            GROUP_KEY_VERSION => Ok(Key::Group { group: input.text()? }),
            other => Err(NotARecord::Version(other)),
        }
    }
}

impl CommittedOffset {
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        out.put_i16(OFFSET_VALUE_VERSION);
        out.put_i64(self.offset);
        out.put_i32(self.leader_epoch);
        put_text(&mut out, &self.metadata);
        out.put_i64(self.committed.0);
        out.into()
    }

    /// Reads versions 0 to 3.
    pub fn decode(bytes: Bytes) -> Result<Self, NotARecord> {
        let mut input = Reader(bytes);
        let version = input.i16()?;
        if !(0..=OFFSET_VALUE_VERSION).contains(&version) {
            return Err(NotARecord::Version(version));
        }
        Ok(Self {
            offset: input.i64()?,
            leader_epoch: if version >= 3 { input.i32()? } else { -1 },
            metadata: input.text()?,
            committed: Timestamp(input.i64()?),
        })
    }
}

impl StoredGroup {
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        out.put_i16(GROUP_VALUE_VERSION);
        put_text(&mut out, &self.protocol_type);
        out.put_i32(self.generation);
        put_nullable(&mut out, self.protocol.as_deref());
        put_nullable(&mut out, self.leader.as_deref());
        out.put_i64(self.state_since.0);
        out.put_i32(self.members.len() as i32);
        for member in &self.members {
            put_text(&mut out, &member.member_id);
            put_nullable(&mut out, member.instance_id.as_deref());
            put_text(&mut out, &member.client_id);
            put_text(&mut out, &member.client_host);
            out.put_i32(member.rebalance_timeout_ms);
            out.put_i32(member.session_timeout_ms);
            put_bytes(&mut out, &member.subscription);
            put_bytes(&mut out, &member.assignment);
        }
        out.into()
    }

    /// Reads versions 0 to 3.
    pub fn decode(bytes: Bytes) -> Result<Self, NotARecord> {
        let mut input = Reader(bytes);
        let version = input.i16()?;
        if !(0..=GROUP_VALUE_VERSION).contains(&version) {
            return Err(NotARecord::Version(version));
        }
        let mut stored = StoredGroup {
            protocol_type: input.text()?,
            generation: input.i32()?,
            protocol: input.nullable()?,
            leader: input.nullable()?,
            state_since: Timestamp(if version >= 2 { input.i64()? } else { -1 }),
            members: Vec::new(),
        };
        for _ in 0..input.i32()?.max(0) {
            let member_id = input.text()?;
            let instance_id = if version >= 3 { input.nullable()? } else { None };
            let (client_id, client_host) = (input.text()?, input.text()?);
            let rebalance_timeout_ms = if version >= 1 { Some(input.i32()?) } else { None };
            let session_timeout_ms = input.i32()?;
            stored.members.push(StoredMember {
                member_id,
                instance_id,
                client_id,
                client_host,
                rebalance_timeout_ms: rebalance_timeout_ms.unwrap_or(session_timeout_ms),
                session_timeout_ms,
                subscription: input.bytes()?,
                assignment: input.bytes()?,
            });
        }
        Ok(stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_their_bytes() {
        let keys =
            [Key::Offset { group: "g".into(), topic: "t".into(), partition: 3 }, Key::Group { group: "größe".into() }];
        for key in keys {
            assert_eq!(Key::decode(key.encode()), Ok(key));
        }
        let offset = CommittedOffset { offset: 42, leader_epoch: 7, metadata: "m".into(), committed: Timestamp(1_000) };
        assert_eq!(CommittedOffset::decode(offset.encode()), Ok(offset));
        let group = StoredGroup {
            protocol_type: "consumer".into(),
            generation: 5,
            protocol: Some("range".into()),
            leader: Some("a-1".into()),
            state_since: Timestamp(9),
            members: vec![StoredMember {
                member_id: "a-1".into(),
                instance_id: Some("i".into()),
                subscription: Bytes::from_static(b"s"),
                assignment: Bytes::from_static(b"a"),
                ..StoredMember::default()
            }],
        };
        assert_eq!(StoredGroup::decode(group.encode()), Ok(group));
    }

    #[test]
    fn the_bytes_are_those_that_kafka_writes() {
        let key = Key::Offset { group: "g".into(), topic: "t".into(), partition: 1 }.encode();
        assert_eq!(&key[..], b"\x00\x01\x00\x01g\x00\x01t\x00\x00\x00\x01");
        let value =
            CommittedOffset { offset: 2, leader_epoch: -1, metadata: String::new(), committed: Timestamp(3) }.encode();
        assert_eq!(&value[..], b"\x00\x03\0\0\0\0\0\0\0\x02\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\x03");
    }

    #[test]
    fn what_is_cut_or_unknown_is_refused() {
        let whole = Key::Group { group: "group".into() }.encode();
        for at in 0..whole.len() {
            assert!(Key::decode(whole.slice(..at)).is_err());
        }
        assert_eq!(Key::decode(Bytes::from_static(b"\x00\x09")), Err(NotARecord::Version(9)));
    }
}
