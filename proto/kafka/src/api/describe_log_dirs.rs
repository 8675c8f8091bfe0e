//! DescribeLogDirs (key 35). What lies in a broker's directories.

use crate::wire::Str;

message! {
    pub struct DescribeLogDirsRequest flexible 2;
    topics: Option<Vec<DescribableLogDirTopic>> [since(0).null(0)];
}

message! {
    pub struct DescribableLogDirTopic flexible 2;
    topic: Str [since(0)];
    partitions: Vec<i32> [since(0)];
}

message! {
    pub struct DescribeLogDirsResponse flexible 2;
    throttle_time_ms: i32 [since(0)];
    error_code: i16 [since(3)];
    results: Vec<DescribeLogDirsResult> [since(0)];
}

message! {
    pub struct DescribeLogDirsResult flexible 2;
    error_code: i16 [since(0)];
    log_dir: Str [since(0)];
    topics: Vec<DescribeLogDirsTopic> [since(0)];
    total_bytes: i64 [since(4)] = -1;
    usable_bytes: i64 [since(4)] = -1;
    is_cordoned: bool [since(5)] = false;
}

message! {
    pub struct DescribeLogDirsTopic flexible 2;
    name: Str [since(0)];
    partitions: Vec<DescribeLogDirsPartition> [since(0)];
}

message! {
    pub struct DescribeLogDirsPartition flexible 2;
    partition_index: i32 [since(0)];
    partition_size: i64 [since(0)];
    offset_lag: i64 [since(0)];
    is_future_key: bool [since(0)];
}

api!(DescribeLogDirsRequest => DescribeLogDirsResponse, key 35, versions 1..=5);
