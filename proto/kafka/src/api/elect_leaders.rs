//! ElectLeaders (key 43). Elects leaders by hand (KIP-460).

use crate::wire::Str;

message! {
    pub struct ElectLeadersRequest flexible 2;
    election_type: i8 [since(1)];
    topic_partitions: Option<Vec<TopicPartitions>> [since(0).null(0)];
    timeout_ms: i32 [since(0)] = 60000;
}

message! {
    pub struct TopicPartitions flexible 2;
    topic: Str [since(0)];
    partitions: Vec<i32> [since(0)];
}

message! {
    pub struct ElectLeadersResponse flexible 2;
    throttle_time_ms: i32 [since(0)];
    error_code: i16 [since(1)];
    replica_election_results: Vec<ReplicaElectionResult> [since(0)];
}

message! {
    pub struct ReplicaElectionResult flexible 2;
    topic: Str [since(0)];
    partition_result: Vec<PartitionResult> [since(0)];
}

message! {
    pub struct PartitionResult flexible 2;
    partition_id: i32 [since(0)];
    error_code: i16 [since(0)];
    error_message: Option<Str> [since(0).null(0)];
}

api!(ElectLeadersRequest => ElectLeadersResponse, key 43, versions 0..=2);
