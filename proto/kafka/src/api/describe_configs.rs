//! DescribeConfigs (key 32). Reads configurations with their sources.

use crate::wire::Str;

message! {
    pub struct DescribeConfigsRequest flexible 4;
    resources: Vec<DescribeConfigsResource> [since(0)];
    include_synonyms: bool [since(1)];
    include_documentation: bool [since(3)];
}

message! {
    pub struct DescribeConfigsResource flexible 4;
    resource_type: i8 [since(0)];
    resource_name: Str [since(0)];
    configuration_keys: Option<Vec<Str>> [since(0).null(0)];
}

message! {
    pub struct DescribeConfigsResponse flexible 4;
    throttle_time_ms: i32 [since(0)];
    results: Vec<DescribeConfigsResult> [since(0)];
}

message! {
    pub struct DescribeConfigsResult flexible 4;
    error_code: i16 [since(0)];
    error_message: Option<Str> [since(0).null(0)];
    resource_type: i8 [since(0)];
    resource_name: Str [since(0)];
    configs: Vec<DescribeConfigsResourceResult> [since(0)];
}

message! {
    pub struct DescribeConfigsResourceResult flexible 4;
    name: Str [since(0)];
    value: Option<Str> [since(0).null(0)];
    read_only: bool [since(0)];
    config_source: i8 [since(1)] = -1;
    is_sensitive: bool [since(0)];
    synonyms: Vec<DescribeConfigsSynonym> [since(1)];
    config_type: i8 [since(3)];
    documentation: Option<Str> [since(3).null(0)];
}

message! {
    pub struct DescribeConfigsSynonym flexible 4;
    name: Str [since(1)];
    value: Option<Str> [since(1).null(0)];
    source: i8 [since(1)];
}

api!(DescribeConfigsRequest => DescribeConfigsResponse, key 32, versions 1..=4);
