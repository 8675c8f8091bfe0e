//! AlterConfigs (key 33). Replaces a resource's configuration as a whole.

use crate::wire::Str;

message! {
    pub struct AlterConfigsRequest flexible 2;
    resources: Vec<AlterConfigsResource> [since(0)];
    validate_only: bool [since(0)];
}

message! {
    pub struct AlterConfigsResource flexible 2;
    resource_type: i8 [since(0)];
    resource_name: Str [since(0)];
    configs: Vec<AlterableConfig> [since(0)];
}

message! {
    pub struct AlterableConfig flexible 2;
    name: Str [since(0)];
    value: Option<Str> [since(0).null(0)];
}

message! {
    pub struct AlterConfigsResponse flexible 2;
    throttle_time_ms: i32 [since(0)];
    responses: Vec<AlterConfigsResourceResponse> [since(0)];
}

message! {
    pub struct AlterConfigsResourceResponse flexible 2;
    error_code: i16 [since(0)];
    error_message: Option<Str> [since(0).null(0)];
    resource_type: i8 [since(0)];
    resource_name: Str [since(0)];
}

api!(AlterConfigsRequest => AlterConfigsResponse, key 33, versions 0..=2);
