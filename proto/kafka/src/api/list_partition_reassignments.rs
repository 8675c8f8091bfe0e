//! ListPartitionReassignments (key 46). Which moves are under way (KIP-455).

use crate::wire::Str;

message! {
    pub struct ListPartitionReassignmentsRequest flexible 0;
    timeout_ms: i32 [since(0)] = 60000;
    topics: Option<Vec<ListPartitionReassignmentsTopics>> [since(0).null(0)];
}

message! {
    pub struct ListPartitionReassignmentsTopics flexible 0;
    name: Str [since(0)];
    partition_indexes: Vec<i32> [since(0)];
}

message! {
    pub struct ListPartitionReassignmentsResponse flexible 0;
    throttle_time_ms: i32 [since(0)];
    error_code: i16 [since(0)];
    error_message: Option<Str> [since(0).null(0)];
    topics: Vec<OngoingTopicReassignment> [since(0)];
}

message! {
    pub struct OngoingTopicReassignment flexible 0;
    name: Str [since(0)];
    partitions: Vec<OngoingPartitionReassignment> [since(0)];
}

message! {
    pub struct OngoingPartitionReassignment flexible 0;
    partition_index: i32 [since(0)];
    replicas: Vec<i32> [since(0)];
    adding_replicas: Vec<i32> [since(0)];
    removing_replicas: Vec<i32> [since(0)];
}

api!(ListPartitionReassignmentsRequest => ListPartitionReassignmentsResponse, key 46, versions 0..=0);
