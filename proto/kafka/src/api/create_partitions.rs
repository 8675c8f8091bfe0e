//! CreatePartitions (key 37). Adds partitions to topics.

use crate::wire::Str;

message! {
    pub struct CreatePartitionsRequest flexible 2;
    topics: Vec<CreatePartitionsTopic> [since(0)];
    timeout_ms: i32 [since(0)];
    validate_only: bool [since(0)];
}

message! {
    pub struct CreatePartitionsTopic flexible 2;
    name: Str [since(0)];
    count: i32 [since(0)];
    assignments: Option<Vec<CreatePartitionsAssignment>> [since(0).null(0)];
}

message! {
    pub struct CreatePartitionsAssignment flexible 2;
    broker_ids: Vec<i32> [since(0)];
}

message! {
    pub struct CreatePartitionsResponse flexible 2;
    throttle_time_ms: i32 [since(0)];
    results: Vec<CreatePartitionsTopicResult> [since(0)];
}

message! {
    pub struct CreatePartitionsTopicResult flexible 2;
    name: Str [since(0)];
    error_code: i16 [since(0)];
    error_message: Option<Str> [since(0).null(0)];
}

api!(CreatePartitionsRequest => CreatePartitionsResponse, key 37, versions 0..=3);
