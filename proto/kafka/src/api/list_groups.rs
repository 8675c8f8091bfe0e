//! ListGroups (key 16). Lists groups.

use crate::wire::Str;

message! {
    pub struct ListGroupsRequest flexible 3;
    states_filter: Vec<Str> [since(4)];
    types_filter: Vec<Str> [since(5)];
}

message! {
    pub struct ListGroupsResponse flexible 3;
    throttle_time_ms: i32 [since(1)];
    error_code: i16 [since(0)];
    groups: Vec<ListedGroup> [since(0)];
}

message! {
    pub struct ListedGroup flexible 3;
    group_id: Str [since(0)];
    protocol_type: Str [since(0)];
    group_state: Str [since(4)];
    group_type: Str [since(5)];
}

api!(ListGroupsRequest => ListGroupsResponse, key 16, versions 0..=5);
