//! Kafka's own record formats in `__consumer_offsets`, so that Kafka's tools can read ours.
//!
//! Two bytes of version stand before each key and value. A null value is a tombstone. What is written, and what can be
//! read:
//!
//! | key | value | written | read |
//! |---|---|---|---|
//! | 1: group, topic, partition | offset, leader epoch, metadata, commit timestamp, topic id (tag 0) | 4; 1 with an expiry | 0 to 4 |
//! | 2: group | protocol type, generation, protocol, leader, state timestamp, members | 3 | 0 to 4 |
//!
//! Versions 4 are flexible: lengths are varints one too large, and tagged fields follow (KIP-915).
//!
//! **Invariant: what is encoded can be decoded.** A record that cannot be read back would cost a whole partition of
//! groups, so text that does not fit its length is cut between characters, never inside one.

use crate::ids::TopicId;
use crate::time::Timestamp;
use bytes::{Buf, BufMut, Bytes};

const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;
/// The only version of an offset with an expiry of its own; it has no leader epoch and no topic id.
const OFFSET_VALUE_WITH_EXPIRY: i16 = 1;
const OFFSET_VALUE: i16 = 4;
const GROUP_VALUE: i16 = 3;
/// The first flexible version of both values, and the last that is known.
const FLEXIBLE: i16 = 4;
/// The tagged field of an offset that holds its topic's id.
const TOPIC_ID_TAG: u32 = 0;
/// The longest text that a length of two bytes can tell.
const TEXT_BYTES_MAX: usize = i16::MAX as usize;

/// A record as it goes to the log.
pub type RawRecord = (Bytes, Option<Bytes>);

/// What one record changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// `None`: the offset is forgotten.
    Offset { group: String, topic: String, partition: i32, committed: Option<CommittedOffset> },
    /// `None`: the group is forgotten.
    Generation { group: String, stored: Option<Box<StoredGroup>> },
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    pub offset: i64,
    /// −1: the committer did not say.
    pub leader_epoch: i32,
    pub metadata: String,
    pub committed: Timestamp,
    /// When it expires, where its committer said so itself (OffsetCommit 2 to 4).
    pub expires: Option<Timestamp>,
    /// [`TopicId::NONE`] where the record does not say.
    pub topic: TopicId,
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

/// Why a record cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotARecord {
    #[error("the record ends too early")]
    Truncated,
    #[error("the record's text is not UTF-8")]
    NotUtf8,
    #[error("the record has a null where there can be none")]
    Null,
    #[error("the record has a length that cannot be")]
    Length,
    #[error("version {0} of the record is not known")]
    Version(i16),
}

/// What of a text goes into a record.
fn fitting(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let text = fitting(text);
    out.put_i16(text.len() as i16);
    out.put_slice(text.as_bytes());
}

fn put_nullable(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => put_text(out, text),
        None => out.put_i16(-1),
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // They came in a frame, whose own length is a positive i32.
    out.put_i32(bytes.len() as i32);
    out.put_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Reads fields in the old encoding or the flexible one.
struct Reader {
    rest: Bytes,
    flexible: bool,
}

impl Reader {
    /// Of a value: its version, then its fields.
    fn of_value(bytes: Bytes) -> Result<(i16, Self), NotARecord> {
        let mut reader = Self { rest: bytes, flexible: false };
        let version = reader.i16()?;
        if !(0..=FLEXIBLE).contains(&version) {
            return Err(NotARecord::Version(version));
        }
        reader.flexible = version >= FLEXIBLE;
        Ok((version, reader))
    }

    fn need(&self, bytes: usize) -> Result<(), NotARecord> {
        if self.rest.remaining() < bytes { Err(NotARecord::Truncated) } else { Ok(()) }
    }

    fn i16(&mut self) -> Result<i16, NotARecord> {
        self.need(2).map(|()| self.rest.get_i16())
    }

    fn i32(&mut self) -> Result<i32, NotARecord> {
        self.need(4).map(|()| self.rest.get_i32())
    }

    fn i64(&mut self) -> Result<i64, NotARecord> {
        self.need(8).map(|()| self.rest.get_i64())
    }

    fn take(&mut self, len: usize) -> Result<Bytes, NotARecord> {
        self.need(len).map(|()| self.rest.split_to(len))
    }

    fn varint(&mut self) -> Result<u32, NotARecord> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            self.need(1)?;
            let byte = u32::from(self.rest.get_u8());
            value |= (byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(NotARecord::Length)
    }

    /// A length; `None` for null. `wide`: four bytes in the old encoding instead of two.
    fn length(&mut self, wide: bool) -> Result<Option<usize>, NotARecord> {
        if self.flexible {
            return Ok((self.varint()? as usize).checked_sub(1));
        }
        let length = if wide { self.i32()? } else { i32::from(self.i16()?) };
        Ok(usize::try_from(length).ok())
    }

    fn nullable(&mut self) -> Result<Option<String>, NotARecord> {
        match self.length(false)? {
            Some(len) => String::from_utf8(self.take(len)?.to_vec()).map(Some).map_err(|_| NotARecord::NotUtf8),
            None => Ok(None),
        }
    }

    fn text(&mut self) -> Result<String, NotARecord> {
        self.nullable()?.ok_or(NotARecord::Null)
    }

    fn bytes(&mut self) -> Result<Bytes, NotARecord> {
        let len = self.length(true)?.ok_or(NotARecord::Null)?;
        self.take(len)
    }

    /// The tagged fields that end a structure; hands each to `field`.
    fn tagged(&mut self, mut field: impl FnMut(u32, &Bytes)) -> Result<(), NotARecord> {
        if self.flexible {
            for _ in 0..self.varint()? {
                let tag = self.varint()?;
                let len = self.varint()? as usize;
                field(tag, &self.take(len)?);
            }
        }
        Ok(())
    }
}

impl Change {
    pub fn group(&self) -> &str {
        match self {
            Change::Offset { group, .. } | Change::Generation { group, .. } => group,
        }
    }

    pub fn encode(&self) -> RawRecord {
        let mut key = Vec::new();
        match self {
            Change::Offset { group, topic, partition, committed } => {
                key.put_i16(OFFSET_KEY);
                put_text(&mut key, group);
                put_text(&mut key, topic);
                key.put_i32(*partition);
                (key.into(), committed.as_ref().map(CommittedOffset::encode))
            }
            Change::Generation { group, stored } => {
                key.put_i16(GROUP_KEY);
                put_text(&mut key, group);
                (key.into(), stored.as_ref().map(|stored| stored.encode()))
            }
        }
    }

    pub fn decode(key: Bytes, value: Option<Bytes>) -> Result<Change, NotARecord> {
        let mut key = Reader { rest: key, flexible: false };
        match key.i16()? {
            0..=OFFSET_KEY => Ok(Change::Offset {
                group: key.text()?,
                topic: key.text()?,
                partition: key.i32()?,
                committed: value.map(CommittedOffset::decode).transpose()?,
            }),
            GROUP_KEY => Ok(Change::Generation {
                group: key.text()?,
                stored: value.map(StoredGroup::decode).transpose()?.map(Box::new),
            }),
            other => Err(NotARecord::Version(other)),
        }
    }

    /// About the bytes that the record takes in a log, without encoding it.
    pub fn weight_bytes(&self) -> u64 {
        /// A record's own framing, its key's and value's versions and lengths, and an offset's numbers.
        const FIXED_BYTES: usize = 64;
        let variable = match self {
            Change::Offset { group, topic, committed, .. } => {
                group.len() + topic.len() + committed.as_ref().map_or(0, |committed| committed.metadata.len())
            }
            Change::Generation { group, stored } => {
                group.len() + stored.as_ref().map_or(0, |stored| stored.members.iter().map(StoredMember::weight).sum())
            }
        };
        (FIXED_BYTES + variable) as u64
    }
}

impl CommittedOffset {
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        match self.expires {
            Some(expires) => {
                out.put_i16(OFFSET_VALUE_WITH_EXPIRY);
                out.put_i64(self.offset);
                put_text(&mut out, &self.metadata);
                out.put_i64(self.committed.0);
                out.put_i64(expires.0);
            }
            None => {
                out.put_i16(OFFSET_VALUE);
                out.put_i64(self.offset);
                out.put_i32(self.leader_epoch);
                let metadata = fitting(&self.metadata);
                put_varint(&mut out, metadata.len() as u32 + 1);
                out.put_slice(metadata.as_bytes());
                out.put_i64(self.committed.0);
                if self.topic == TopicId::NONE {
                    put_varint(&mut out, 0);
                } else {
                    put_varint(&mut out, 1);
                    put_varint(&mut out, TOPIC_ID_TAG);
                    put_varint(&mut out, self.topic.0.len() as u32);
                    out.put_slice(&self.topic.0);
                }
            }
        }
        out.into()
    }

    pub fn decode(bytes: Bytes) -> Result<Self, NotARecord> {
        let (version, mut input) = Reader::of_value(bytes)?;
        let mut committed = Self {
            offset: input.i64()?,
            leader_epoch: if version >= 3 { input.i32()? } else { -1 },
            metadata: input.text()?,
            committed: Timestamp(input.i64()?),
            expires: None,
            topic: TopicId::NONE,
        };
        if version == OFFSET_VALUE_WITH_EXPIRY {
            // −1 where the committer did not say.
            committed.expires = Some(Timestamp(input.i64()?)).filter(|expires| *expires != Timestamp::NONE);
        }
        input.tagged(|tag, bytes| {
            if let (TOPIC_ID_TAG, Ok(id)) = (tag, <[u8; 16]>::try_from(&bytes[..])) {
                committed.topic = TopicId(id);
            }
        })?;
        Ok(committed)
    }
}

impl StoredMember {
    fn weight(&self) -> usize {
        let instance = self.instance_id.as_ref().map_or(0, String::len);
        let text = self.member_id.len() + instance + self.client_id.len() + self.client_host.len();
        text + self.subscription.len() + self.assignment.len() + 24
    }
}

impl StoredGroup {
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        out.put_i16(GROUP_VALUE);
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

    pub fn decode(bytes: Bytes) -> Result<Self, NotARecord> {
        let (version, mut input) = Reader::of_value(bytes)?;
        let mut stored = StoredGroup {
            protocol_type: input.text()?,
            generation: input.i32()?,
            protocol: input.nullable()?,
            leader: input.nullable()?,
            state_since: Timestamp(if version >= 2 { input.i64()? } else { -1 }),
            members: Vec::new(),
        };
        for _ in 0..input.length(true)?.unwrap_or(0) {
            let member_id = input.text()?;
            let instance_id = if version >= 3 { input.nullable()? } else { None };
            let (client_id, client_host) = (input.text()?, input.text()?);
            let rebalance_timeout_ms = if version >= 1 { Some(input.i32()?) } else { None };
            let session_timeout_ms = input.i32()?;
            let (subscription, assignment) = (input.bytes()?, input.bytes()?);
            input.tagged(|_, _| {})?;
            stored.members.push(StoredMember {
                member_id,
                instance_id,
                client_id,
                client_host,
                rebalance_timeout_ms: rebalance_timeout_ms.unwrap_or(session_timeout_ms),
                session_timeout_ms,
                subscription,
                assignment,
            });
        }
        input.tagged(|_, _| {})?;
        Ok(stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset() -> CommittedOffset {
        CommittedOffset {
            offset: 42,
            leader_epoch: 5,
            metadata: "m".into(),
            committed: Timestamp(1000),
            expires: None,
            topic: TopicId([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]),
        }
    }

    fn group() -> StoredGroup {
        StoredGroup {
            protocol_type: "consumer".into(),
            generation: 3,
            protocol: Some("range".into()),
            leader: None,
            state_since: Timestamp(9),
            members: vec![StoredMember {
                member_id: "m1".into(),
                instance_id: Some("i".into()),
                client_id: "c".into(),
                client_host: "/h".into(),
                rebalance_timeout_ms: 300,
                session_timeout_ms: 100,
                subscription: Bytes::from_static(&[1, 2]),
                assignment: Bytes::from_static(&[3]),
            }],
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn unhex(digits: &str) -> Bytes {
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("two digits");
        (0..digits.len()).step_by(2).map(byte).collect::<Vec<_>>().into()
    }

    // The expected bytes below are what the classes of Kafka 4.3's own group coordinator write.

    #[test]
    fn the_bytes_are_those_that_kafka_writes() {
        let committed = Some(offset());
        let (key, value) = Change::Offset { group: "g".into(), topic: "t".into(), partition: 7, committed }.encode();
        assert_eq!(hex(&key), "000100016700017400000007");
        let flexible = "0004000000000000002a00000005026d00000000000003e801001000000000000000010000000000000002";
        assert_eq!(value.map(|value| hex(&value)).as_deref(), Some(flexible));
        let unnamed = CommittedOffset { topic: TopicId::NONE, ..offset() }.encode();
        assert_eq!(hex(&unnamed), "0004000000000000002a00000005026d00000000000003e800");
        let expiring = CommittedOffset { expires: Some(Timestamp(2000)), ..offset() }.encode();
        assert_eq!(hex(&expiring), "0001000000000000002a00016d00000000000003e800000000000007d0");

        let (key, value) = Change::Generation { group: "grp".into(), stored: Some(Box::new(group())) }.encode();
        assert_eq!(hex(&key), "00020003677270");
        let stored = "00030008636f6e73756d657200000003000572616e6765ffff00000000000000090000000100026d31000169000163\
                      00022f680000012c000000640000000201020000000103";
        assert_eq!(value.map(|value| hex(&value)), Some(stored.replace(' ', "")));
        let (_, tombstone) = Change::Generation { group: "grp".into(), stored: None }.encode();
        assert_eq!(tombstone, None);
    }

    #[test]
    fn every_version_that_kafka_ever_wrote_can_be_read() {
        let plain = CommittedOffset { leader_epoch: -1, topic: TopicId::NONE, ..offset() };
        let offsets = [
            ("0000000000000000002a00016d00000000000003e8", plain.clone()),
            (
                "0001000000000000002a00016d00000000000003e800000000000007d0",
                CommittedOffset { expires: Some(Timestamp(2000)), ..plain.clone() },
            ),
            ("0001000000000000002a00016d00000000000003e8ffffffffffffffff", plain.clone()),
            ("0002000000000000002a00016d00000000000003e8", plain.clone()),
            ("0003000000000000002a0000000500016d00000000000003e8", CommittedOffset { leader_epoch: 5, ..plain }),
            ("0004000000000000002a00000005026d00000000000003e801001000000000000000010000000000000002", offset()),
        ];
        for (written, expected) in offsets {
            assert_eq!(CommittedOffset::decode(unhex(written)), Ok(expected), "{written}");
        }
        let old = |mut group: StoredGroup, version: i16| {
            group.state_since = if version >= 2 { group.state_since } else { Timestamp(-1) };
            group.members[0].rebalance_timeout_ms = if version >= 1 { 300 } else { 100 };
            group.members[0].instance_id.take_if(|_| version < 3);
            group
        };
        let groups = [
            "0008636f6e73756d657200000003000572616e6765ffff0000000100026d3100016300022f68000000640000000201020000000103",
            "0008636f6e73756d657200000003000572616e6765ffff0000000100026d3100016300022f680000012c000000640000000201020000\
             000103",
            "0008636f6e73756d657200000003000572616e6765ffff00000000000000090000000100026d3100016300022f680000012c00000064\
             0000000201020000000103",
            "0008636f6e73756d657200000003000572616e6765ffff00000000000000090000000100026d3100016900016300022f680000012c00\
             0000640000000201020000000103",
            "09636f6e73756d6572000000030672616e676500000000000000000902036d3102690263032f680000012c0000006403010202030000",
        ];
        for (version, fields) in (0..).zip(groups) {
            let written = format!("{version:04x}{fields}").replace(' ', "");
            assert_eq!(StoredGroup::decode(unhex(&written)), Ok(old(group(), version)), "version {version}");
        }
    }

    #[test]
    fn what_is_cut_or_unknown_is_refused() {
        let (key, _) = Change::Generation { group: "group".into(), stored: None }.encode();
        for at in 0..key.len() {
            assert!(Change::decode(key.slice(..at), None).is_err());
        }
        assert_eq!(Change::decode(Bytes::from_static(b"\x00\x09"), None), Err(NotARecord::Version(9)));
        for whole in [offset().encode(), CommittedOffset { expires: Some(Timestamp(1)), ..offset() }.encode()] {
            for at in 0..whole.len() {
                assert!(CommittedOffset::decode(whole.slice(..at)).is_err());
            }
        }
        let whole = group().encode();
        for at in 0..whole.len() {
            assert!(StoredGroup::decode(whole.slice(..at)).is_err());
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_between_characters_so_that_the_record_can_be_read() {
        let member_id = "é".repeat(TEXT_BYTES_MAX);
        let stored = StoredGroup { members: vec![StoredMember { member_id, ..Default::default() }], ..group() };
        let read = StoredGroup::decode(stored.encode()).expect("it can be read");
        assert_eq!(read.members[0].member_id.len(), TEXT_BYTES_MAX - 1);
    }
}
