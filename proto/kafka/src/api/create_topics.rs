//! CreateTopics (key 19). Creates topics.
//!
//! | version | what changed |
//! |--:|---|
//! | 4 | −1 asks for the broker's default number of partitions or replicas (KIP-464) |
//! | 5 | flexible; the new topic's configuration in the answer (KIP-525) |
//! | 6 | `THROTTLING_QUOTA_EXCEEDED` (KIP-599) |
//! | 7 | the new topic's id in the answer (KIP-516) |

use crate::wire::{Str, Uuid};

message! {
    pub struct CreateTopicsRequest flexible 5;
    topics: Vec<CreatableTopic> [since(0)];
    timeout_ms: i32 [since(0)] = 60000;
    validate_only: bool [since(1)];
}

message! {
    pub struct CreatableTopic flexible 5;
    name: Str [since(0)];
    num_partitions: i32 [since(0)];
    replication_factor: i16 [since(0)];
    assignments: Vec<CreatableReplicaAssignment> [since(0)];
    configs: Vec<CreatableTopicConfig> [since(0)];
}

message! {
    pub struct CreatableReplicaAssignment flexible 5;
    partition_index: i32 [since(0)];
    broker_ids: Vec<i32> [since(0)];
}

message! {
    pub struct CreatableTopicConfig flexible 5;
    name: Str [since(0)];
    value: Option<Str> [since(0).null(0)];
}

message! {
    pub struct CreateTopicsResponse flexible 5;
    throttle_time_ms: i32 [since(2)];
    topics: Vec<CreatableTopicResult> [since(0)];
}

message! {
    pub struct CreatableTopicResult flexible 5;
    name: Str [since(0)];
    topic_id: Uuid [since(7)];
    error_code: i16 [since(0)];
    error_message: Option<Str> [since(1).null(0)];
    num_partitions: i32 [since(5)] = -1;
    replication_factor: i16 [since(5)] = -1;
    configs: Option<Vec<CreatableTopicConfigs>> [since(5).null(5)];
    topic_config_error_code: i16 [since(5).tag(0)];
}

message! {
    pub struct CreatableTopicConfigs flexible 5;
    name: Str [since(5)];
    value: Option<Str> [since(5).null(5)];
    read_only: bool [since(5)];
    config_source: i8 [since(5)] = -1;
    is_sensitive: bool [since(5)];
}

api!(CreateTopicsRequest => CreateTopicsResponse, key 19, versions 2..=7);
