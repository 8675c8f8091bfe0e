//! UpdateFeatures (key 57). Changes finalized feature levels (KIP-584).

use crate::wire::Str;

message! {
    pub struct UpdateFeaturesRequest flexible 0;
    timeout_ms: i32 [since(0)] = 60000;
    feature_updates: Vec<FeatureUpdateKey> [since(0)];
    validate_only: bool [since(1)] = false;
}

message! {
    pub struct FeatureUpdateKey flexible 0;
    feature: Str [since(0)];
    max_version_level: i16 [since(0)];
    allow_downgrade: bool [since(0).until(0)];
    upgrade_type: i8 [since(1)] = 1;
}

message! {
    pub struct UpdateFeaturesResponse flexible 0;
    throttle_time_ms: i32 [since(0)];
    error_code: i16 [since(0)];
    error_message: Option<Str> [since(0).null(0)];
    results: Vec<UpdatableFeatureResult> [since(0).until(1)];
}

message! {
    pub struct UpdatableFeatureResult flexible 0;
    feature: Str [since(0)];
    error_code: i16 [since(0)];
    error_message: Option<Str> [since(0).null(0)];
}

api!(UpdateFeaturesRequest => UpdateFeaturesResponse, key 57, versions 0..=2);
