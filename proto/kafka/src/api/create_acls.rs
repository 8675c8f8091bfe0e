//! CreateAcls (key 30). Adds access control entries.

use crate::wire::Str;

message! {
    pub struct CreateAclsRequest flexible 2;
    creations: Vec<AclCreation> [since(0)];
}

message! {
    pub struct AclCreation flexible 2;
    resource_type: i8 [since(0)];
    resource_name: Str [since(0)];
    resource_pattern_type: i8 [since(1)] = 3;
    principal: Str [since(0)];
    host: Str [since(0)];
    operation: i8 [since(0)];
    permission_type: i8 [since(0)];
}

message! {
    pub struct CreateAclsResponse flexible 2;
    throttle_time_ms: i32 [since(0)];
    results: Vec<AclCreationResult> [since(0)];
}

message! {
    pub struct AclCreationResult flexible 2;
    error_code: i16 [since(0)];
    error_message: Option<Str> [since(0).null(0)];
}

api!(CreateAclsRequest => CreateAclsResponse, key 30, versions 1..=3);
