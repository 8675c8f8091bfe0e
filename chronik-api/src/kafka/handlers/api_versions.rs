//! ApiVersions (18): what this broker serves (KIP-35, KIP-511, KIP-584).
//!
//! Built from the table of handlers. Finalized features are those of the metadata image; nothing is named supported
//! that is not served.

use super::APIS;
use crate::kafka::handler::{Call, Handler, Reply};
use chronik_core::metadata::records::{METADATA_VERSION, METADATA_VERSION_LATEST, METADATA_VERSION_MIN};
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::api_versions::*;

/// What a client may call itself (KIP-511).
fn is_software_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    edge(text.chars().next()) && edge(text.chars().last()) && text.chars().all(inner)
}

fn api_keys() -> Vec<ApiVersion> {
    APIS.iter()
        .map(|api| ApiVersion { api_key: api.key, min_version: api.advertised_from, max_version: api.upto })
        .collect()
}

/// The answer to a version that is not served: only the range of this API, in version 0.
pub fn unsupported() -> ApiVersionsResponse {
    let own = api_keys().into_iter().filter(|api| api.api_key == 18).collect();
    ApiVersionsResponse { error_code: ErrorCode::UNSUPPORTED_VERSION.0, api_keys: own, ..Default::default() }
}

impl Handler for ApiVersionsRequest {
    fn handle(self, call: Call) -> Reply<ApiVersionsResponse> {
        if call.version() >= 3 {
            if !is_software_name(&self.client_software_name) || !is_software_name(&self.client_software_version) {
                return Reply::Now(ApiVersionsResponse {
                    error_code: ErrorCode::INVALID_REQUEST.0,
                    ..Default::default()
                });
            }
            call.context.connection.set_software(&self.client_software_name, &self.client_software_version);
        }
        let image = call.broker.metadata.image();
        let finalized = image.features().iter().map(|(name, level)| FinalizedFeatureKey {
            name: name.as_str().into(),
            max_version_level: *level,
            min_version_level: *level,
        });
        Reply::Now(ApiVersionsResponse {
            error_code: ErrorCode::NONE.0,
            api_keys: api_keys(),
            throttle_time_ms: 0,
            supported_features: vec![SupportedFeatureKey {
                name: METADATA_VERSION.into(),
                min_version: METADATA_VERSION_MIN,
                max_version: METADATA_VERSION_LATEST,
            }],
            finalized_features_epoch: image.features_epoch(),
            finalized_features: finalized.collect(),
            zk_migration_ready: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_are_what_kip_511_allows() {
        assert!(is_software_name("apache-kafka-java") && is_software_name("4.1.0-rc.1"));
        assert!(!is_software_name("") && !is_software_name("-x") && !is_software_name("a b"));
    }
}
