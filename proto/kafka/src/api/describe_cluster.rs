//! DescribeCluster (key 60). The brokers and their controller (KIP-700).

use crate::wire::Str;

message! {
    pub struct DescribeClusterRequest flexible 0;
    include_cluster_authorized_operations: bool [since(0)];
    endpoint_type: i8 [since(1)] = 1;
    include_fenced_brokers: bool [since(2)];
}

message! {
    pub struct DescribeClusterResponse flexible 0;
    throttle_time_ms: i32 [since(0)];
    error_code: i16 [since(0)];
    error_message: Option<Str> [since(0).null(0)];
    endpoint_type: i8 [since(1)] = 1;
    cluster_id: Str [since(0)];
    controller_id: i32 [since(0)] = -1;
    brokers: Vec<DescribeClusterBroker> [since(0)];
    cluster_authorized_operations: i32 [since(0)] = i32::MIN;
}

message! {
    pub struct DescribeClusterBroker flexible 0;
    broker_id: i32 [since(0)];
    host: Str [since(0)];
    port: i32 [since(0)];
    rack: Option<Str> [since(0).null(0)];
    is_fenced: bool [since(2)];
}

api!(DescribeClusterRequest => DescribeClusterResponse, key 60, versions 0..=2);
