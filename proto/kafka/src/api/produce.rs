//! Produce (key 0). Appends record batches. The records of a partition are one slice of the frame.
//!
//! | version | what changed |
//! |--:|---|
//! | 3 | record batch v2 is the only format; transactional id |
//! | 4 | `KAFKA_STORAGE_ERROR` may be answered |
//! | 5 | log start offset in the answer |
//! | 7 | zstd (KIP-110) |
//! | 8 | errors of single records (KIP-467) |
//! | 9 | flexible |
//! | 10 | the leader and its address when the client asked the wrong broker (KIP-951) |
//! | 11, 12 | `TRANSACTION_ABORTABLE` (KIP-890); partitions join a transaction by being produced to |
//! | 13 | topics by id (KIP-516) |
//!
//! Versions 0 to 2 carry formats that no broker takes any more. Brokers advertise them all the same, since old librdkafka
//! concludes from their absence that compression is not supported (KAFKA-18659).

use crate::wire::{Records, Str, Uuid};

message! {
    pub struct ProduceRequest flexible 9;
    transactional_id: Option<Str> [since(3).null(3)];
    acks: i16 [since(0)];
    timeout_ms: i32 [since(0)];
    topic_data: Vec<TopicProduceData> [since(0)];
}

message! {
    pub struct TopicProduceData flexible 9;
    name: Str [since(0).until(12)];
    topic_id: Uuid [since(13)];
    partition_data: Vec<PartitionProduceData> [since(0)];
}

message! {
    pub struct PartitionProduceData flexible 9;
    index: i32 [since(0)];
    records: Option<Records> [since(0).null(0)];
}

message! {
    pub struct ProduceResponse flexible 9;
    responses: Vec<TopicProduceResponse> [since(0)];
    throttle_time_ms: i32 [since(1)];
    node_endpoints: Vec<NodeEndpoint> [since(10).tag(0)];
}

message! {
    pub struct TopicProduceResponse flexible 9;
    name: Str [since(0).until(12)];
    topic_id: Uuid [since(13)];
    partition_responses: Vec<PartitionProduceResponse> [since(0)];
}

message! {
    pub struct PartitionProduceResponse flexible 9;
    index: i32 [since(0)];
    error_code: i16 [since(0)];
    base_offset: i64 [since(0)];
    log_append_time_ms: i64 [since(2)] = -1;
    log_start_offset: i64 [since(5)] = -1;
    record_errors: Vec<BatchIndexAndErrorMessage> [since(8)];
    error_message: Option<Str> [since(8).null(8)];
    current_leader: LeaderIdAndEpoch [since(10).tag(0)];
}

message! {
    pub struct BatchIndexAndErrorMessage flexible 9;
    batch_index: i32 [since(8)];
    batch_index_error_message: Option<Str> [since(8).null(8)];
}

message! {
    pub struct LeaderIdAndEpoch flexible 9;
    leader_id: i32 [since(10)] = -1;
    leader_epoch: i32 [since(10)] = -1;
}

message! {
    pub struct NodeEndpoint flexible 9;
    node_id: i32 [since(10)];
    host: Str [since(10)];
    port: i32 [since(10)];
    rack: Option<Str> [since(10).null(10)];
}

api!(ProduceRequest => ProduceResponse, key 0, versions 3..=13);
