//! OffsetFetch (key 9). Reads a group's offsets.
//!
//! | version | what changed |
//! |--:|---|
//! | 1 | offsets are those in `__consumer_offsets` |
//! | 2 | null means all topics; an error for the group |
//! | 5 | leader epochs (KIP-320) |
//! | 6 | flexible |
//! | 7 | stable offsets alone, if asked for (KIP-447) |
//! | 8 | several groups at once (KIP-709) |
//! | 9 | for members of the new protocol too (KIP-848) |
//! | 10 | topics by id (KIP-516) |

use crate::wire::{Str, Uuid};

message! {
    pub struct OffsetFetchRequest flexible 6;
    group_id: Str [since(0).until(7)];
    topics: Option<Vec<OffsetFetchRequestTopic>> [since(0).until(7).null(2)];
    groups: Vec<OffsetFetchRequestGroup> [since(8)];
    require_stable: bool [since(7)];
}

message! {
    pub struct OffsetFetchRequestTopic flexible 6;
    name: Str [since(0).until(7)];
    partition_indexes: Vec<i32> [since(0).until(7)];
}

message! {
    pub struct OffsetFetchRequestGroup flexible 6;
    group_id: Str [since(8)];
    member_id: Option<Str> [since(9).null(9)];
    member_epoch: i32 [since(9)] = -1;
    topics: Option<Vec<OffsetFetchRequestTopics>> [since(8).null(8)];
}

message! {
    pub struct OffsetFetchRequestTopics flexible 6;
    name: Str [since(8).until(9)];
    topic_id: Uuid [since(10)];
    partition_indexes: Vec<i32> [since(8)];
}

message! {
    pub struct OffsetFetchResponse flexible 6;
    throttle_time_ms: i32 [since(3)];
    topics: Vec<OffsetFetchResponseTopic> [since(0).until(7)];
    error_code: i16 [since(2).until(7)];
    groups: Vec<OffsetFetchResponseGroup> [since(8)];
}

message! {
    pub struct OffsetFetchResponseTopic flexible 6;
    name: Str [since(0).until(7)];
    partitions: Vec<OffsetFetchResponsePartition> [since(0).until(7)];
}

message! {
    pub struct OffsetFetchResponsePartition flexible 6;
    partition_index: i32 [since(0).until(7)];
    committed_offset: i64 [since(0).until(7)];
    committed_leader_epoch: i32 [since(5).until(7)] = -1;
    metadata: Option<Str> [since(0).until(7).null(0)];
    error_code: i16 [since(0).until(7)];
}

message! {
    pub struct OffsetFetchResponseGroup flexible 6;
    group_id: Str [since(8)];
    topics: Vec<OffsetFetchResponseTopics> [since(8)];
    error_code: i16 [since(8)];
}

message! {
    pub struct OffsetFetchResponseTopics flexible 6;
    name: Str [since(8).until(9)];
    topic_id: Uuid [since(10)];
    partitions: Vec<OffsetFetchResponsePartitions> [since(8)];
}

message! {
    pub struct OffsetFetchResponsePartitions flexible 6;
    partition_index: i32 [since(8)];
    committed_offset: i64 [since(8)];
    committed_leader_epoch: i32 [since(8)] = -1;
    metadata: Option<Str> [since(8).null(8)];
    error_code: i16 [since(8)];
}

api!(OffsetFetchRequest => OffsetFetchResponse, key 9, versions 1..=10);
