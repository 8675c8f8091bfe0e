//! Metadata (key 3). Which brokers and topics there are, and who leads which partition.
//!
//! | version | what changed |
//! |--:|---|
//! | 0 | no topics means all topics |
//! | 1 | null means all topics, and none means none; rack, controller, internal topics |
//! | 2 | cluster id |
//! | 4 | whether topics may be created by asking |
//! | 5 | offline replicas |
//! | 7 | leader epochs (KIP-320) |
//! | 8 | authorized operations, if asked for (KIP-430) |
//! | 9 | flexible |
//! | 10 | topic ids in the answer (KIP-516) |
//! | 11 | the cluster's authorized operations moved to DescribeCluster (KIP-700) |
//! | 12 | topics by id |
//! | 13 | an error for the whole, which asks to bootstrap again (KIP-1102) |

use crate::wire::{Str, Uuid};

message! {
    pub struct MetadataRequest flexible 9;
    topics: Option<Vec<MetadataRequestTopic>> [since(0).null(1)];
    allow_auto_topic_creation: bool [since(4)] = true;
    include_cluster_authorized_operations: bool [since(8).until(10)];
    include_topic_authorized_operations: bool [since(8)];
}

message! {
    pub struct MetadataRequestTopic flexible 9;
    topic_id: Uuid [since(10)];
    name: Option<Str> [since(0).null(10)];
}

message! {
    pub struct MetadataResponse flexible 9;
    throttle_time_ms: i32 [since(3)];
    brokers: Vec<MetadataResponseBroker> [since(0)];
    cluster_id: Option<Str> [since(2).null(2)];
    controller_id: i32 [since(1)] = -1;
    topics: Vec<MetadataResponseTopic> [since(0)];
    cluster_authorized_operations: i32 [since(8).until(10)] = i32::MIN;
    error_code: i16 [since(13)];
}

message! {
    pub struct MetadataResponseBroker flexible 9;
    node_id: i32 [since(0)];
    host: Str [since(0)];
    port: i32 [since(0)];
    rack: Option<Str> [since(1).null(1)];
}

message! {
    pub struct MetadataResponseTopic flexible 9;
    error_code: i16 [since(0)];
    name: Option<Str> [since(0).null(12)];
    topic_id: Uuid [since(10)];
    is_internal: bool [since(1)];
    partitions: Vec<MetadataResponsePartition> [since(0)];
    topic_authorized_operations: i32 [since(8)] = i32::MIN;
}

message! {
    pub struct MetadataResponsePartition flexible 9;
    error_code: i16 [since(0)];
    partition_index: i32 [since(0)];
    leader_id: i32 [since(0)];
    leader_epoch: i32 [since(7)] = -1;
    replica_nodes: Vec<i32> [since(0)];
    isr_nodes: Vec<i32> [since(0)];
    offline_replicas: Vec<i32> [since(5)];
}

api!(MetadataRequest => MetadataResponse, key 3, versions 0..=13);
