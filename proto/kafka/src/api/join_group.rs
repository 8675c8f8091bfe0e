//! JoinGroup (key 11). Joins a classic group, or joins it again in a rebalance.
//!
//! | version | what changed |
//! |--:|---|
//! | 1 | a time limit for rebalances of its own |
//! | 4 | a member without id is first told its id, and asked to come again (KIP-394) |
//! | 5 | static members (KIP-345) |
//! | 6 | flexible |
//! | 7 | the protocol's type in the answer (KIP-559) |
//! | 8 | the reason for joining (KIP-800) |
//! | 9 | the leader may be told not to assign (KIP-814) |

use crate::wire::Str;
use bytes::Bytes;

message! {
    pub struct JoinGroupRequest flexible 6;
    group_id: Str [since(0)];
    session_timeout_ms: i32 [since(0)];
    rebalance_timeout_ms: i32 [since(1)] = -1;
    member_id: Str [since(0)];
    group_instance_id: Option<Str> [since(5).null(5)];
    protocol_type: Str [since(0)];
    protocols: Vec<JoinGroupRequestProtocol> [since(0)];
    reason: Option<Str> [since(8).null(8)];
}

message! {
    pub struct JoinGroupRequestProtocol flexible 6;
    name: Str [since(0)];
    metadata: Bytes [since(0)];
}

message! {
    pub struct JoinGroupResponse flexible 6;
    throttle_time_ms: i32 [since(2)];
    error_code: i16 [since(0)];
    generation_id: i32 [since(0)] = -1;
    protocol_type: Option<Str> [since(7).null(7)];
    protocol_name: Option<Str> [since(0).null(7)];
    leader: Str [since(0)];
    skip_assignment: bool [since(9)];
    member_id: Str [since(0)];
    members: Vec<JoinGroupResponseMember> [since(0)];
}

message! {
    pub struct JoinGroupResponseMember flexible 6;
    member_id: Str [since(0)];
    group_instance_id: Option<Str> [since(5).null(5)];
    metadata: Bytes [since(0)];
}

api!(JoinGroupRequest => JoinGroupResponse, key 11, versions 0..=9);
