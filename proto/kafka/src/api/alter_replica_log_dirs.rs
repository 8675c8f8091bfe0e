//! AlterReplicaLogDirs (key 34). Moves replicas between a broker's directories.

use crate::wire::Str;

message! {
    pub struct AlterReplicaLogDirsRequest flexible 2;
    dirs: Vec<AlterReplicaLogDir> [since(0)];
}

message! {
    pub struct AlterReplicaLogDir flexible 2;
    path: Str [since(0)];
    topics: Vec<AlterReplicaLogDirTopic> [since(0)];
}

message! {
    pub struct AlterReplicaLogDirTopic flexible 2;
    name: Str [since(0)];
    partitions: Vec<i32> [since(0)];
}

message! {
    pub struct AlterReplicaLogDirsResponse flexible 2;
    throttle_time_ms: i32 [since(0)];
    results: Vec<AlterReplicaLogDirTopicResult> [since(0)];
}

message! {
    pub struct AlterReplicaLogDirTopicResult flexible 2;
    topic_name: Str [since(0)];
    partitions: Vec<AlterReplicaLogDirPartitionResult> [since(0)];
}

message! {
    pub struct AlterReplicaLogDirPartitionResult flexible 2;
    partition_index: i32 [since(0)];
    error_code: i16 [since(0)];
}

api!(AlterReplicaLogDirsRequest => AlterReplicaLogDirsResponse, key 34, versions 1..=2);
