//! AlterPartitionReassignments (key 45). Moves partitions to other replicas (KIP-455).

use crate::wire::Str;

message! {
    pub struct AlterPartitionReassignmentsRequest flexible 0;
    timeout_ms: i32 [since(0)] = 60000;
    allow_replication_factor_change: bool [since(1)] = true;
    topics: Vec<ReassignableTopic> [since(0)];
}

message! {
    pub struct ReassignableTopic flexible 0;
    name: Str [since(0)];
    partitions: Vec<ReassignablePartition> [since(0)];
}

message! {
    pub struct ReassignablePartition flexible 0;
    partition_index: i32 [since(0)];
    replicas: Option<Vec<i32>> [since(0).null(0)];
}

message! {
    pub struct AlterPartitionReassignmentsResponse flexible 0;
    throttle_time_ms: i32 [since(0)];
    allow_replication_factor_change: bool [since(1)] = true;
    error_code: i16 [since(0)];
    error_message: Option<Str> [since(0).null(0)];
    responses: Vec<ReassignableTopicResponse> [since(0)];
}

message! {
    pub struct ReassignableTopicResponse flexible 0;
    name: Str [since(0)];
    partitions: Vec<ReassignablePartitionResponse> [since(0)];
}

message! {
    pub struct ReassignablePartitionResponse flexible 0;
    partition_index: i32 [since(0)];
    error_code: i16 [since(0)];
    error_message: Option<Str> [since(0).null(0)];
}

api!(AlterPartitionReassignmentsRequest => AlterPartitionReassignmentsResponse, key 45, versions 0..=1);
