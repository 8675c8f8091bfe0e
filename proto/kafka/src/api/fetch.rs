//! Fetch (key 1). Reads record batches, within an incremental session if the client has one (KIP-227).
//!
//! | version | what changed |
//! |--:|---|
//! | 4 | isolation level, aborted transactions, last stable offset (KIP-98) |
//! | 5 | log start offset |
//! | 7 | sessions (KIP-227) |
//! | 9 | the leader epoch that the client knows (KIP-320) |
//! | 10 | zstd (KIP-110) |
//! | 11 | the client's rack and a replica to prefer (KIP-392) |
//! | 12 | flexible; epochs that diverge (KIP-595) |
//! | 13 | topics by id (KIP-516) |
//! | 14 | `OFFSET_MOVED_TO_TIERED_STORAGE` (KIP-405) |
//! | 15 | a follower says its epoch (KIP-903) |
//! | 16 | the addresses of leaders (KIP-951) |
//! | 17, 18 | for followers alone: directory id (KIP-853), high watermark (KIP-1166) |

use crate::wire::{Records, Str, Uuid};

message! {
    pub struct FetchRequest flexible 12;
    replica_id: i32 [since(0).until(14)] = -1;
    max_wait_ms: i32 [since(0)];
    min_bytes: i32 [since(0)];
    max_bytes: i32 [since(3)] = i32::MAX;
    isolation_level: i8 [since(4)];
    session_id: i32 [since(7)];
    session_epoch: i32 [since(7)] = -1;
    topics: Vec<FetchTopic> [since(0)];
    forgotten_topics_data: Vec<ForgottenTopic> [since(7)];
    rack_id: Str [since(11)];
    cluster_id: Option<Str> [since(12).null(12).tag(0)];
    replica_state: ReplicaState [since(15).tag(1)];
}

message! {
    pub struct ReplicaState flexible 12;
    replica_id: i32 [since(15)] = -1;
    replica_epoch: i64 [since(15)] = -1;
}

message! {
    pub struct FetchTopic flexible 12;
    topic: Str [since(0).until(12)];
    topic_id: Uuid [since(13)];
    partitions: Vec<FetchPartition> [since(0)];
}

message! {
    pub struct FetchPartition flexible 12;
    partition: i32 [since(0)];
    current_leader_epoch: i32 [since(9)] = -1;
    fetch_offset: i64 [since(0)];
    last_fetched_epoch: i32 [since(12)] = -1;
    log_start_offset: i64 [since(5)] = -1;
    partition_max_bytes: i32 [since(0)];
    replica_directory_id: Uuid [since(17).tag(0)];
    high_watermark: i64 [since(18).tag(1)] = i64::MAX;
}

message! {
    pub struct ForgottenTopic flexible 12;
    topic: Str [since(7).until(12)];
    topic_id: Uuid [since(13)];
    partitions: Vec<i32> [since(7)];
}

message! {
    pub struct FetchResponse flexible 12;
    throttle_time_ms: i32 [since(1)];
    error_code: i16 [since(7)];
    session_id: i32 [since(7)];
    responses: Vec<FetchableTopicResponse> [since(0)];
    node_endpoints: Vec<NodeEndpoint> [since(16).tag(0)];
}

message! {
    pub struct FetchableTopicResponse flexible 12;
    topic: Str [since(0).until(12)];
    topic_id: Uuid [since(13)];
    partitions: Vec<PartitionData> [since(0)];
}

message! {
    pub struct PartitionData flexible 12;
    partition_index: i32 [since(0)];
    error_code: i16 [since(0)];
    high_watermark: i64 [since(0)];
    last_stable_offset: i64 [since(4)] = -1;
    log_start_offset: i64 [since(5)] = -1;
    aborted_transactions: Option<Vec<AbortedTransaction>> [since(4).null(4)];
    preferred_read_replica: i32 [since(11)] = -1;
    records: Option<Records> [since(0).null(0)];
    diverging_epoch: EpochEndOffset [since(12).tag(0)];
    current_leader: LeaderIdAndEpoch [since(12).tag(1)];
    snapshot_id: SnapshotId [since(12).tag(2)];
}

message! {
    pub struct EpochEndOffset flexible 12;
    epoch: i32 [since(12)] = -1;
    end_offset: i64 [since(12)] = -1;
}

message! {
    pub struct LeaderIdAndEpoch flexible 12;
    leader_id: i32 [since(12)] = -1;
    leader_epoch: i32 [since(12)] = -1;
}

message! {
    pub struct SnapshotId flexible 12;
    end_offset: i64 [since(0)] = -1;
    epoch: i32 [since(0)] = -1;
}

message! {
    pub struct AbortedTransaction flexible 12;
    producer_id: i64 [since(4)];
    first_offset: i64 [since(4)];
}

message! {
    pub struct NodeEndpoint flexible 12;
    node_id: i32 [since(16)];
    host: Str [since(16)];
    port: i32 [since(16)];
    rack: Option<Str> [since(16).null(16)];
}

api!(FetchRequest => FetchResponse, key 1, versions 4..=18);
