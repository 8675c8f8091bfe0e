//! DescribeProducers (key 61). The producers active in partitions (KIP-664).

use crate::wire::Str;

message! {
    pub struct DescribeProducersRequest flexible 0;
    topics: Vec<TopicRequest> [since(0)];
}

message! {
    pub struct TopicRequest flexible 0;
    name: Str [since(0)];
    partition_indexes: Vec<i32> [since(0)];
}

message! {
    pub struct DescribeProducersResponse flexible 0;
    throttle_time_ms: i32 [since(0)];
    topics: Vec<TopicResponse> [since(0)];
}

message! {
    pub struct TopicResponse flexible 0;
    name: Str [since(0)];
    partitions: Vec<PartitionResponse> [since(0)];
}

message! {
    pub struct PartitionResponse flexible 0;
    partition_index: i32 [since(0)];
    error_code: i16 [since(0)];
    error_message: Option<Str> [since(0).null(0)];
    active_producers: Vec<ProducerState> [since(0)];
}

message! {
    pub struct ProducerState flexible 0;
    producer_id: i64 [since(0)];
    producer_epoch: i32 [since(0)];
    last_sequence: i32 [since(0)] = -1;
    last_timestamp: i64 [since(0)] = -1;
    coordinator_epoch: i32 [since(0)];
    current_txn_start_offset: i64 [since(0)] = -1;
}

api!(DescribeProducersRequest => DescribeProducersResponse, key 61, versions 0..=0);
