//! SyncGroup (key 14). Hands out a generation's assignments in a classic group.

use crate::wire::Str;
use bytes::Bytes;

message! {
    pub struct SyncGroupRequest flexible 4;
    group_id: Str [since(0)];
    generation_id: i32 [since(0)];
    member_id: Str [since(0)];
    group_instance_id: Option<Str> [since(3).null(3)];
    protocol_type: Option<Str> [since(5).null(5)];
    protocol_name: Option<Str> [since(5).null(5)];
    assignments: Vec<SyncGroupRequestAssignment> [since(0)];
}

message! {
    pub struct SyncGroupRequestAssignment flexible 4;
    member_id: Str [since(0)];
    assignment: Bytes [since(0)];
}

message! {
    pub struct SyncGroupResponse flexible 4;
    throttle_time_ms: i32 [since(1)];
    error_code: i16 [since(0)];
    protocol_type: Option<Str> [since(5).null(5)];
    protocol_name: Option<Str> [since(5).null(5)];
    assignment: Bytes [since(0)];
}

api!(SyncGroupRequest => SyncGroupResponse, key 14, versions 0..=5);
