//! What Kafka's group coordinator writes into `__consumer_offsets`: keys and values of its records, for tools that read the
//! topic and tests of what writes it. On the wire two bytes of version stand before each; a null value is a tombstone.
//!
//! | version before the key | key | value |
//! |---|---|---|
//! | 0, 1 | [`OffsetCommitKey`] | [`OffsetCommitValue`], versions 0 to 4 |
//! | 2 | [`GroupMetadataKey`] | [`GroupMetadataValue`], versions 0 to 4 |

use crate::wire::{Str, Uuid};
use bytes::Bytes;

message! {
    pub struct OffsetCommitKey flexible never;
    group: Str [since(0)];
    topic: Str [since(0)];
    partition: i32 [since(0)];
}

message! {
    /// Brokers write version 3; 4 is there so that later versions can be read after a downgrade (KIP-915).
    pub struct OffsetCommitValue flexible 4;
    offset: i64 [since(0)];
    leader_epoch: i32 [since(3)] = -1;
    metadata: Str [since(0)];
    commit_timestamp: i64 [since(0)];
    expire_timestamp: i64 [since(1).until(1)] = -1;
    topic_id: Uuid [since(4).tag(0)];
}

message! {
    pub struct GroupMetadataKey flexible never;
    group: Str [since(0)];
}

message! {
    /// Brokers write version 3.
    pub struct GroupMetadataValue flexible 4;
    protocol_type: Str [since(0)];
    generation: i32 [since(0)];
    protocol: Option<Str> [since(0).null(0)];
    leader: Option<Str> [since(0).null(0)];
    current_state_timestamp: i64 [since(2)] = -1;
    members: Vec<MemberMetadata> [since(0)];
}

message! {
    pub struct MemberMetadata flexible 4;
    member_id: Str [since(0)];
    group_instance_id: Option<Str> [since(3).null(3)];
    client_id: Str [since(0)];
    client_host: Str [since(0)];
    rebalance_timeout: i32 [since(1)];
    session_timeout: i32 [since(0)];
    subscription: Bytes [since(0)];
    assignment: Bytes [since(0)];
}

#[cfg(test)]
mod tests {
    //! The bytes are what the classes of Kafka 4.3's own group coordinator write.
    use super::*;
    use crate::{Decoder, Message};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// In all versions: what Kafka writes is what we write, and reads as what that version can say.
    fn check<M: Message + Clone + PartialEq + std::fmt::Debug>(
        written_by_kafka: &[&str],
        message: &M,
        readable: impl Fn(M, i16) -> M,
    ) {
        for (version, expected) in (0..).zip(written_by_kafka) {
            let bytes = message.to_bytes(version);
            assert_eq!(hex(&bytes), *expected, "version {version}");
            let back = M::decode(&mut Decoder::new(bytes), version);
            assert_eq!(back, Ok(readable(message.clone(), version)), "version {version}");
        }
    }

    #[test]
    fn keys_are_as_kafka_writes_them() {
        let key = OffsetCommitKey { group: "g".into(), topic: "t".into(), partition: 7 };
        check(&["00016700017400000007"], &key, |key, _| key);
        check(&["0003677270"], &GroupMetadataKey { group: "grp".into() }, |key, _| key);
    }

    #[test]
    fn offsets_are_as_kafka_writes_them() {
        let written = [
            "000000000000002a00016d00000000000003e8",
            "000000000000002a00016d00000000000003e800000000000007d0",
            "000000000000002a00016d00000000000003e8",
            "000000000000002a0000000500016d00000000000003e8",
            "000000000000002a00000005026d00000000000003e801001000000000000000010000000000000002",
        ];
        let mut topic_id = [0; 16];
        (topic_id[7], topic_id[15]) = (1, 2);
        let value = OffsetCommitValue {
            offset: 42,
            leader_epoch: 5,
            metadata: "m".into(),
            commit_timestamp: 1000,
            expire_timestamp: 2000,
            topic_id: Uuid(topic_id),
        };
        check(&written, &value, |value, version| OffsetCommitValue {
            leader_epoch: if version >= 3 { 5 } else { -1 },
            expire_timestamp: if version == 1 { 2000 } else { -1 },
            topic_id: if version >= 4 { value.topic_id } else { Uuid::ZERO },
            ..value
        });
    }

    #[test]
    fn groups_are_as_kafka_writes_them() {
        let written = [
            "0008636f6e73756d657200000003000572616e6765ffff0000000100026d3100016300022f68000000640000000201020000000103",
            "0008636f6e73756d657200000003000572616e6765ffff0000000100026d3100016300022f680000012c000000640000000201020000000103",
            "0008636f6e73756d657200000003000572616e6765ffff00000000000000090000000100026d3100016300022f680000012c000000640000000201020000000103",
            "0008636f6e73756d657200000003000572616e6765ffff00000000000000090000000100026d3100016900016300022f680000012c000000640000000201020000000103",
            "09636f6e73756d6572000000030672616e676500000000000000000902036d3102690263032f680000012c0000006403010202030000",
        ];
        let member = MemberMetadata {
            member_id: "m1".into(),
            group_instance_id: Some("i".into()),
            client_id: "c".into(),
            client_host: "/h".into(),
            rebalance_timeout: 300,
            session_timeout: 100,
            subscription: Bytes::from_static(&[1, 2]),
            assignment: Bytes::from_static(&[3]),
        };
        let value = GroupMetadataValue {
            protocol_type: "consumer".into(),
            generation: 3,
            protocol: Some("range".into()),
            leader: None,
            current_state_timestamp: 9,
            members: vec![member],
        };
        check(&written, &value, |value, version| GroupMetadataValue {
            current_state_timestamp: if version >= 2 { 9 } else { -1 },
            members: value
                .members
                .into_iter()
                .map(|member| MemberMetadata {
                    group_instance_id: member.group_instance_id.filter(|_| version >= 3),
                    rebalance_timeout: if version >= 1 { 300 } else { 0 },
                    ..member
                })
                .collect(),
            ..value
        });
    }
}
