//! LeaveGroup (key 13). Leaves a classic group; from version 3 several members at once (KIP-345).

use crate::wire::Str;

message! {
    pub struct LeaveGroupRequest flexible 4;
    group_id: Str [since(0)];
    member_id: Str [since(0).until(2)];
    members: Vec<MemberIdentity> [since(3)];
}

message! {
    pub struct MemberIdentity flexible 4;
    member_id: Str [since(3)];
    group_instance_id: Option<Str> [since(3).null(3)];
    reason: Option<Str> [since(5).null(5)];
}

message! {
    pub struct LeaveGroupResponse flexible 4;
    throttle_time_ms: i32 [since(1)];
    error_code: i16 [since(0)];
    members: Vec<MemberResponse> [since(3)];
}

message! {
    pub struct MemberResponse flexible 4;
    member_id: Str [since(3)];
    group_instance_id: Option<Str> [since(3).null(3)];
    error_code: i16 [since(3)];
}

api!(LeaveGroupRequest => LeaveGroupResponse, key 13, versions 0..=5);
