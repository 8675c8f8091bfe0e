//! DescribeAcls (key 29). Lists access control entries.

use crate::wire::Str;

message! {
    pub struct DescribeAclsRequest flexible 2;
    resource_type_filter: i8 [since(0)];
    resource_name_filter: Option<Str> [since(0).null(0)];
    pattern_type_filter: i8 [since(1)] = 3;
    principal_filter: Option<Str> [since(0).null(0)];
    host_filter: Option<Str> [since(0).null(0)];
    operation: i8 [since(0)];
    permission_type: i8 [since(0)];
}

message! {
    pub struct DescribeAclsResponse flexible 2;
    throttle_time_ms: i32 [since(0)];
    error_code: i16 [since(0)];
    error_message: Option<Str> [since(0).null(0)];
    resources: Vec<DescribeAclsResource> [since(0)];
}

message! {
    pub struct DescribeAclsResource flexible 2;
    resource_type: i8 [since(0)];
    resource_name: Str [since(0)];
    pattern_type: i8 [since(1)] = 3;
    acls: Vec<AclDescription> [since(0)];
}

message! {
    pub struct AclDescription flexible 2;
    principal: Str [since(0)];
    host: Str [since(0)];
    operation: i8 [since(0)];
    permission_type: i8 [since(0)];
}

api!(DescribeAclsRequest => DescribeAclsResponse, key 29, versions 1..=3);
