//! ApiVersions (key 18). What the broker serves. Its response header is always version 0 (KIP-511).
//!
//! | version | what changed |
//! |--:|---|
//! | 3 | flexible; the client's name and version (KIP-511); features (KIP-584) |
//! | 4 | a feature's lowest version may be 0 |

use crate::wire::Str;

message! {
    pub struct ApiVersionsRequest flexible 3;
    client_software_name: Str [since(3)];
    client_software_version: Str [since(3)];
}

message! {
    pub struct ApiVersionsResponse flexible 3;
    error_code: i16 [since(0)];
    api_keys: Vec<ApiVersion> [since(0)];
    throttle_time_ms: i32 [since(1)];
    supported_features: Vec<SupportedFeatureKey> [since(3).tag(0)];
    finalized_features_epoch: i64 [since(3).tag(1)] = -1;
    finalized_features: Vec<FinalizedFeatureKey> [since(3).tag(2)];
    zk_migration_ready: bool [since(3).tag(3)];
}

message! {
    pub struct ApiVersion flexible 3;
    api_key: i16 [since(0)];
    min_version: i16 [since(0)];
    max_version: i16 [since(0)];
}

message! {
    pub struct SupportedFeatureKey flexible 3;
    name: Str [since(3)];
    min_version: i16 [since(3)];
    max_version: i16 [since(3)];
}

message! {
    pub struct FinalizedFeatureKey flexible 3;
    name: Str [since(3)];
    max_version_level: i16 [since(3)];
    min_version_level: i16 [since(3)];
}

api!(ApiVersionsRequest => ApiVersionsResponse, key 18, versions 0..=4);
