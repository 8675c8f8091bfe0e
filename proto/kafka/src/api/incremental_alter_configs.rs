//! IncrementalAlterConfigs (key 44). Changes single configuration values (KIP-339).

use crate::wire::Str;

message! {
    pub struct IncrementalAlterConfigsRequest flexible 1;
    resources: Vec<AlterConfigsResource> [since(0)];
    validate_only: bool [since(0)];
}

message! {
    pub struct AlterConfigsResource flexible 1;
    resource_type: i8 [since(0)];
    resource_name: Str [since(0)];
    configs: Vec<AlterableConfig> [since(0)];
}

message! {
    pub struct AlterableConfig flexible 1;
    name: Str [since(0)];
    config_operation: i8 [since(0)];
    value: Option<Str> [since(0).null(0)];
}

message! {
    pub struct IncrementalAlterConfigsResponse flexible 1;
    throttle_time_ms: i32 [since(0)];
    responses: Vec<AlterConfigsResourceResponse> [since(0)];
}

message! {
    pub struct AlterConfigsResourceResponse flexible 1;
    error_code: i16 [since(0)];
    error_message: Option<Str> [since(0).null(0)];
    resource_type: i8 [since(0)];
    resource_name: Str [since(0)];
}

api!(IncrementalAlterConfigsRequest => IncrementalAlterConfigsResponse, key 44, versions 0..=1);
