//! UpdateFeatures (57, KIP-584): all updates of a request take effect, or none.

pub use chronik_proto_kafka::api::update_features::UpdateFeaturesRequest;

use crate::kafka::context::{Operation, Resource};
use crate::kafka::handler::{Call, Handler, Reply};
use crate::kafka::refusal::pair;
use chronik_core::metadata::controller::{self, FeatureUpdate, UpdateKind};
use chronik_proto_kafka::api::update_features::*;
use chronik_proto_kafka::{ErrorCode, Str};

/// Until here every feature has a result of its own.
const RESULTS_UNTIL: i16 = 1;

impl Handler for UpdateFeaturesRequest {
    const BY_CONTROLLER: bool = true;

    fn handle(self, call: Call) -> Reply<UpdateFeaturesResponse> {
        let version = call.version();
        let failed = |code: ErrorCode, why: &str| UpdateFeaturesResponse {
            error_code: code.0,
            error_message: Some(why.into()),
            ..Default::default()
        };
        if !call.broker.authorizer.allows(&call.context, Operation::Alter, Resource::Cluster) {
            return Reply::Now(failed(ErrorCode::CLUSTER_AUTHORIZATION_FAILED, "Cluster authorization failed."));
        }
        let mut updates = Vec::with_capacity(self.feature_updates.len());
        for asked in &self.feature_updates {
            let kind = match (version, asked.upgrade_type) {
                (0, _) if asked.allow_downgrade => UpdateKind::SafeDowngrade,
                (0, _) | (_, 1) => UpdateKind::Upgrade,
                (_, 2) => UpdateKind::SafeDowngrade,
                (_, 3) => UpdateKind::UnsafeDowngrade,
                _ => return Reply::Now(failed(ErrorCode::INVALID_REQUEST, "There is no such type of an upgrade.")),
            };
            updates.push(FeatureUpdate { name: asked.feature.to_string(), level: asked.max_version_level, kind });
        }
        let names: Vec<Str> = self.feature_updates.into_iter().map(|asked| asked.feature).collect();
        let validate_only = self.validate_only;
        Reply::exclusive(async move {
            let decide = move |image: &chronik_core::metadata::Image| {
                let decision = controller::update_features(image, &updates)?;
                Ok(if validate_only { decision.without_records() } else { decision })
            };
            let decided = call.broker.metadata.propose::<_, controller::UpdateFeaturesError>(decide).await;
            let (error_code, error_message) = pair(&decided);
            let result = |feature| UpdatableFeatureResult { feature, error_code, error_message: error_message.clone() };
            let results = if version <= RESULTS_UNTIL { names.into_iter().map(result).collect() } else { Vec::new() };
            UpdateFeaturesResponse { error_code, error_message, results, ..Default::default() }
        })
    }
}
