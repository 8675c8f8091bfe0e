//! Heartbeat (key 12). Keeps a member of a classic group alive.

use crate::wire::Str;

message! {
    pub struct HeartbeatRequest flexible 4;
    group_id: Str [since(0)];
    generation_id: i32 [since(0)];
    member_id: Str [since(0)];
    group_instance_id: Option<Str> [since(3).null(3)];
}

message! {
    pub struct HeartbeatResponse flexible 4;
    throttle_time_ms: i32 [since(1)];
    error_code: i16 [since(0)];
}

api!(HeartbeatRequest => HeartbeatResponse, key 12, versions 0..=4);
