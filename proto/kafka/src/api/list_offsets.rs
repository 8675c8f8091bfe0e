//! ListOffsets (key 2). Finds offsets by time, or the ends of a log by the negative pseudo-times.
//!
//! | version | what changed |
//! |--:|---|
//! | 1 | one offset instead of a list |
//! | 2 | isolation level (KIP-98) |
//! | 4 | leader epochs (KIP-320) |
//! | 5 | `OFFSET_NOT_AVAILABLE` |
//! | 6 | flexible |
//! | 7 | −3: the record of the highest timestamp (KIP-734) |
//! | 8 | −4: the earliest offset kept locally (KIP-405) |
//! | 9 | −5: the latest offset kept remotely (KIP-1005) |
//! | 10 | a time limit, for offsets kept remotely (KIP-1075) |
//! | 11 | −6: the earliest offset not yet kept remotely (KIP-1023) |

use crate::wire::Str;

message! {
    pub struct ListOffsetsRequest flexible 6;
    replica_id: i32 [since(0)];
    isolation_level: i8 [since(2)];
    topics: Vec<ListOffsetsTopic> [since(0)];
    timeout_ms: i32 [since(10)];
}

message! {
    pub struct ListOffsetsTopic flexible 6;
    name: Str [since(0)];
    partitions: Vec<ListOffsetsPartition> [since(0)];
}

message! {
    pub struct ListOffsetsPartition flexible 6;
    partition_index: i32 [since(0)];
    current_leader_epoch: i32 [since(4)] = -1;
    timestamp: i64 [since(0)];
}

message! {
    pub struct ListOffsetsResponse flexible 6;
    throttle_time_ms: i32 [since(2)];
    topics: Vec<ListOffsetsTopicResponse> [since(0)];
}

message! {
    pub struct ListOffsetsTopicResponse flexible 6;
    name: Str [since(0)];
    partitions: Vec<ListOffsetsPartitionResponse> [since(0)];
}

message! {
    pub struct ListOffsetsPartitionResponse flexible 6;
    partition_index: i32 [since(0)];
    error_code: i16 [since(0)];
    timestamp: i64 [since(1)] = -1;
    offset: i64 [since(1)] = -1;
    leader_epoch: i32 [since(4)] = -1;
}

api!(ListOffsetsRequest => ListOffsetsResponse, key 2, versions 1..=11);
