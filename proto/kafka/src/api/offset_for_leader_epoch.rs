//! OffsetForLeaderEpoch (key 23). Where a leader epoch ended (KIP-101, KIP-320).

use crate::wire::Str;

message! {
    pub struct OffsetForLeaderEpochRequest flexible 4;
    replica_id: i32 [since(3)] = -2;
    topics: Vec<OffsetForLeaderTopic> [since(0)];
}

message! {
    pub struct OffsetForLeaderTopic flexible 4;
    topic: Str [since(0)];
    partitions: Vec<OffsetForLeaderPartition> [since(0)];
}

message! {
    pub struct OffsetForLeaderPartition flexible 4;
    partition: i32 [since(0)];
    current_leader_epoch: i32 [since(2)] = -1;
    leader_epoch: i32 [since(0)];
}

message! {
    pub struct OffsetForLeaderEpochResponse flexible 4;
    throttle_time_ms: i32 [since(2)];
    topics: Vec<OffsetForLeaderTopicResult> [since(0)];
}

message! {
    pub struct OffsetForLeaderTopicResult flexible 4;
    topic: Str [since(0)];
    partitions: Vec<EpochEndOffset> [since(0)];
}

message! {
    pub struct EpochEndOffset flexible 4;
    error_code: i16 [since(0)];
    partition: i32 [since(0)];
    leader_epoch: i32 [since(1)] = -1;
    end_offset: i64 [since(0)] = -1;
}

api!(OffsetForLeaderEpochRequest => OffsetForLeaderEpochResponse, key 23, versions 2..=4);
