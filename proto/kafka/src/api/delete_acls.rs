//! DeleteAcls (key 31). Removes access control entries.

use crate::wire::Str;

message! {
    pub struct DeleteAclsRequest flexible 2;
    filters: Vec<DeleteAclsFilter> [since(0)];
}

message! {
    pub struct DeleteAclsFilter flexible 2;
    resource_type_filter: i8 [since(0)];
    resource_name_filter: Option<Str> [since(0).null(0)];
    pattern_type_filter: i8 [since(1)] = 3;
    principal_filter: Option<Str> [since(0).null(0)];
    host_filter: Option<Str> [since(0).null(0)];
    operation: i8 [since(0)];
    permission_type: i8 [since(0)];
}

message! {
    pub struct DeleteAclsResponse flexible 2;
    throttle_time_ms: i32 [since(0)];
    filter_results: Vec<DeleteAclsFilterResult> [since(0)];
}

message! {
    pub struct DeleteAclsFilterResult flexible 2;
    error_code: i16 [since(0)];
    error_message: Option<Str> [since(0).null(0)];
    matching_acls: Vec<DeleteAclsMatchingAcl> [since(0)];
}

message! {
    pub struct DeleteAclsMatchingAcl flexible 2;
    error_code: i16 [since(0)];
    error_message: Option<Str> [since(0).null(0)];
    resource_type: i8 [since(0)];
    resource_name: Str [since(0)];
    pattern_type: i8 [since(1)] = 3;
    principal: Str [since(0)];
    host: Str [since(0)];
    operation: i8 [since(0)];
    permission_type: i8 [since(0)];
}

api!(DeleteAclsRequest => DeleteAclsResponse, key 31, versions 1..=3);
