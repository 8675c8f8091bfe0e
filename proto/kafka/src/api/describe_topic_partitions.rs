//! DescribeTopicPartitions (key 75). Describes topics' partitions page by page (KIP-966).

use crate::wire::{Str, Uuid};

message! {
    pub struct DescribeTopicPartitionsRequest flexible 0;
    topics: Vec<TopicRequest> [since(0)];
    response_partition_limit: i32 [since(0)] = 2000;
    cursor: Option<Cursor> [since(0).null(0)];
}

message! {
    pub struct TopicRequest flexible 0;
    name: Str [since(0)];
}

message! {
    pub struct Cursor flexible 0;
    topic_name: Str [since(0)];
    partition_index: i32 [since(0)];
}

message! {
    pub struct DescribeTopicPartitionsResponse flexible 0;
    throttle_time_ms: i32 [since(0)];
    topics: Vec<DescribeTopicPartitionsResponseTopic> [since(0)];
    next_cursor: Option<ResponseCursor> [since(0).null(0)];
}

message! {
    pub struct DescribeTopicPartitionsResponseTopic flexible 0;
    error_code: i16 [since(0)];
    name: Option<Str> [since(0).null(0)];
    topic_id: Uuid [since(0)];
    is_internal: bool [since(0)];
    partitions: Vec<DescribeTopicPartitionsResponsePartition> [since(0)];
    topic_authorized_operations: i32 [since(0)] = i32::MIN;
}

message! {
    pub struct DescribeTopicPartitionsResponsePartition flexible 0;
    error_code: i16 [since(0)];
    partition_index: i32 [since(0)];
    leader_id: i32 [since(0)];
    leader_epoch: i32 [since(0)] = -1;
    replica_nodes: Vec<i32> [since(0)];
    isr_nodes: Vec<i32> [since(0)];
    eligible_leader_replicas: Option<Vec<i32>> [since(0).null(0)];
    last_known_elr: Option<Vec<i32>> [since(0).null(0)];
    offline_replicas: Vec<i32> [since(0)];
}

message! {
    pub struct ResponseCursor flexible 0;
    topic_name: Str [since(0)];
    partition_index: i32 [since(0)];
}

api!(DescribeTopicPartitionsRequest => DescribeTopicPartitionsResponse, key 75, versions 0..=0);
