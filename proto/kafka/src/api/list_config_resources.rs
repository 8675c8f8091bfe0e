//! ListConfigResources (key 74). Which resources have a configuration (KIP-1142).

use crate::wire::Str;

message! {
    pub struct ListConfigResourcesRequest flexible 0;
    resource_types: Vec<i8> [since(1)];
}

message! {
    pub struct ListConfigResourcesResponse flexible 0;
    throttle_time_ms: i32 [since(0)];
    error_code: i16 [since(0)];
    config_resources: Vec<ConfigResource> [since(0)];
}

message! {
    pub struct ConfigResource flexible 0;
    resource_name: Str [since(0)];
    resource_type: i8 [since(1)] = 16;
}

api!(ListConfigResourcesRequest => ListConfigResourcesResponse, key 74, versions 0..=1);
