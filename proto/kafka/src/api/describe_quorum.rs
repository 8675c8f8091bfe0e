//! DescribeQuorum (key 55). The state of the metadata quorum (KIP-595, KIP-836).

use crate::wire::{Str, Uuid};

message! {
    pub struct DescribeQuorumRequest flexible 0;
    topics: Vec<TopicData> [since(0)];
}

message! {
    pub struct TopicData flexible 0;
    topic_name: Str [since(0)];
    partitions: Vec<PartitionData> [since(0)];
}

message! {
    pub struct PartitionData flexible 0;
    partition_index: i32 [since(0)];
}

message! {
    pub struct DescribeQuorumResponse flexible 0;
    error_code: i16 [since(0)];
    error_message: Option<Str> [since(2).null(2)];
    topics: Vec<ResponseTopicData> [since(0)];
    nodes: Vec<Node> [since(2)];
}

message! {
    pub struct ResponseTopicData flexible 0;
    topic_name: Str [since(0)];
    partitions: Vec<ResponsePartitionData> [since(0)];
}

message! {
    pub struct ResponsePartitionData flexible 0;
    partition_index: i32 [since(0)];
    error_code: i16 [since(0)];
    error_message: Option<Str> [since(2).null(2)];
    leader_id: i32 [since(0)];
    leader_epoch: i32 [since(0)];
    high_watermark: i64 [since(0)];
    current_voters: Vec<ReplicaState> [since(0)];
    observers: Vec<ReplicaState> [since(0)];
}

message! {
    pub struct Node flexible 0;
    node_id: i32 [since(2)];
    listeners: Vec<Listener> [since(2)];
}

message! {
    pub struct Listener flexible 0;
    name: Str [since(2)];
    host: Str [since(2)];
    port: u16 [since(2)];
}

message! {
    pub struct ReplicaState flexible 0;
    replica_id: i32 [since(0)];
    replica_directory_id: Uuid [since(2)];
    log_end_offset: i64 [since(0)];
    last_fetch_timestamp: i64 [since(1)] = -1;
    last_caught_up_timestamp: i64 [since(1)] = -1;
}

api!(DescribeQuorumRequest => DescribeQuorumResponse, key 55, versions 0..=2);
