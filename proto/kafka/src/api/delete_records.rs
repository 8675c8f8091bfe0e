//! DeleteRecords (key 21). Moves partitions' log start forward.

use crate::wire::Str;

message! {
    pub struct DeleteRecordsRequest flexible 2;
    topics: Vec<DeleteRecordsTopic> [since(0)];
    timeout_ms: i32 [since(0)];
}

message! {
    pub struct DeleteRecordsTopic flexible 2;
    name: Str [since(0)];
    partitions: Vec<DeleteRecordsPartition> [since(0)];
}

message! {
    pub struct DeleteRecordsPartition flexible 2;
    partition_index: i32 [since(0)];
    offset: i64 [since(0)];
}

message! {
    pub struct DeleteRecordsResponse flexible 2;
    throttle_time_ms: i32 [since(0)];
    topics: Vec<DeleteRecordsTopicResult> [since(0)];
}

message! {
    pub struct DeleteRecordsTopicResult flexible 2;
    name: Str [since(0)];
    partitions: Vec<DeleteRecordsPartitionResult> [since(0)];
}

message! {
    pub struct DeleteRecordsPartitionResult flexible 2;
    partition_index: i32 [since(0)];
    low_watermark: i64 [since(0)];
    error_code: i16 [since(0)];
}

api!(DeleteRecordsRequest => DeleteRecordsResponse, key 21, versions 0..=2);
