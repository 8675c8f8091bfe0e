//! OffsetDelete (key 47). Deletes a group's offsets (KIP-496).

use crate::wire::Str;

message! {
    pub struct OffsetDeleteRequest flexible never;
    group_id: Str [since(0)];
    topics: Vec<OffsetDeleteRequestTopic> [since(0)];
}

message! {
    pub struct OffsetDeleteRequestTopic flexible never;
    name: Str [since(0)];
    partitions: Vec<OffsetDeleteRequestPartition> [since(0)];
}

message! {
    pub struct OffsetDeleteRequestPartition flexible never;
    partition_index: i32 [since(0)];
}

message! {
    pub struct OffsetDeleteResponse flexible never;
    error_code: i16 [since(0)];
    throttle_time_ms: i32 [since(0)];
    topics: Vec<OffsetDeleteResponseTopic> [since(0)];
}

message! {
    pub struct OffsetDeleteResponseTopic flexible never;
    name: Str [since(0)];
    partitions: Vec<OffsetDeleteResponsePartition> [since(0)];
}

message! {
    pub struct OffsetDeleteResponsePartition flexible never;
    partition_index: i32 [since(0)];
    error_code: i16 [since(0)];
}

api!(OffsetDeleteRequest => OffsetDeleteResponse, key 47, versions 0..=0);
