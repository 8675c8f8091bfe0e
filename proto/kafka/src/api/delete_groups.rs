//! DeleteGroups (key 42). Deletes empty groups.

use crate::wire::Str;

message! {
    pub struct DeleteGroupsRequest flexible 2;
    groups_names: Vec<Str> [since(0)];
}

message! {
    pub struct DeleteGroupsResponse flexible 2;
    throttle_time_ms: i32 [since(0)];
    results: Vec<DeletableGroupResult> [since(0)];
}

message! {
    pub struct DeletableGroupResult flexible 2;
    group_id: Str [since(0)];
    error_code: i16 [since(0)];
}

api!(DeleteGroupsRequest => DeleteGroupsResponse, key 42, versions 0..=2);
