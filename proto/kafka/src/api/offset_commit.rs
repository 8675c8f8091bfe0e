//! OffsetCommit (key 8). Stores a group's offsets.
//!
//! | version | what changed |
//! |--:|---|
//! | 2 | how long to keep the offsets |
//! | 5 | … which is the broker's business from here on (KIP-211) |
//! | 6 | leader epochs (KIP-320) |
//! | 7 | static members (KIP-345) |
//! | 8 | flexible |
//! | 9 | for members of the new protocol too (KIP-848) |
//! | 10 | topics by id (KIP-516) |

use crate::wire::{Str, Uuid};

message! {
    pub struct OffsetCommitRequest flexible 8;
    group_id: Str [since(0)];
    generation_id_or_member_epoch: i32 [since(1)] = -1;
    member_id: Str [since(1)];
    group_instance_id: Option<Str> [since(7).null(7)];
    retention_time_ms: i64 [since(2).until(4)] = -1;
    topics: Vec<OffsetCommitRequestTopic> [since(0)];
}

message! {
    pub struct OffsetCommitRequestTopic flexible 8;
    name: Str [since(0).until(9)];
    topic_id: Uuid [since(10)];
    partitions: Vec<OffsetCommitRequestPartition> [since(0)];
}

message! {
    pub struct OffsetCommitRequestPartition flexible 8;
    partition_index: i32 [since(0)];
    committed_offset: i64 [since(0)];
    committed_leader_epoch: i32 [since(6)] = -1;
    committed_metadata: Option<Str> [since(0).null(0)];
}

message! {
    pub struct OffsetCommitResponse flexible 8;
    throttle_time_ms: i32 [since(3)];
    topics: Vec<OffsetCommitResponseTopic> [since(0)];
}

message! {
    pub struct OffsetCommitResponseTopic flexible 8;
    name: Str [since(0).until(9)];
    topic_id: Uuid [since(10)];
    partitions: Vec<OffsetCommitResponsePartition> [since(0)];
}

message! {
    pub struct OffsetCommitResponsePartition flexible 8;
    partition_index: i32 [since(0)];
    error_code: i16 [since(0)];
}

api!(OffsetCommitRequest => OffsetCommitResponse, key 8, versions 2..=10);
