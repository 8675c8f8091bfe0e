//! DescribeGroups (key 15). Describes classic groups.

use crate::wire::Str;
use bytes::Bytes;

message! {
    pub struct DescribeGroupsRequest flexible 5;
    groups: Vec<Str> [since(0)];
    include_authorized_operations: bool [since(3)];
}

message! {
    pub struct DescribeGroupsResponse flexible 5;
    throttle_time_ms: i32 [since(1)];
    groups: Vec<DescribedGroup> [since(0)];
}

message! {
    pub struct DescribedGroup flexible 5;
    error_code: i16 [since(0)];
    error_message: Option<Str> [since(6).null(6)];
    group_id: Str [since(0)];
    group_state: Str [since(0)];
    protocol_type: Str [since(0)];
    protocol_data: Str [since(0)];
    members: Vec<DescribedGroupMember> [since(0)];
    authorized_operations: i32 [since(3)] = i32::MIN;
}

message! {
    pub struct DescribedGroupMember flexible 5;
    member_id: Str [since(0)];
    group_instance_id: Option<Str> [since(4).null(4)];
    client_id: Str [since(0)];
    client_host: Str [since(0)];
    member_metadata: Bytes [since(0)];
    member_assignment: Bytes [since(0)];
}

api!(DescribeGroupsRequest => DescribeGroupsResponse, key 15, versions 0..=6);
