//! ListConfigResources (74, KIP-1142): what may be asked for its configuration. Version 0 knows client metrics only, of
//! which there are none here.

pub use chronik_proto_kafka::api::list_config_resources::ListConfigResourcesRequest;

use crate::kafka::context::{Operation, Resource};
use crate::kafka::handler::{Call, Handler, Reply};
use chronik_proto_kafka::api::list_config_resources::*;
use chronik_proto_kafka::{ErrorCode, Str};

/// Kafka's numbers for kinds of resources.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;
const KINDS: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];

impl Handler for ListConfigResourcesRequest {
    fn handle(self, call: Call) -> Reply<ListConfigResourcesResponse> {
        let failed = |code: ErrorCode| {
            Reply::Now(ListConfigResourcesResponse { error_code: code.0, ..ListConfigResourcesResponse::default() })
        };
        if !call.broker.authorizer.allows(&call.context, Operation::DescribeConfigs, Resource::Cluster) {
            return failed(ErrorCode::CLUSTER_AUTHORIZATION_FAILED);
        }
        if self.resource_types.iter().any(|kind| !KINDS.contains(kind)) {
            return failed(ErrorCode::UNSUPPORTED_VERSION);
        }
        let kinds = match call.version() {
            0 => &[CLIENT_METRICS][..],
            _ if self.resource_types.is_empty() => &KINDS[..],
            _ => &self.resource_types[..],
        };
        let image = call.broker.metadata.image();
        let mut config_resources = Vec::new();
        for kind in KINDS.into_iter().filter(|kind| kinds.contains(kind)) {
            let named = |name: Str| ConfigResource { resource_name: name, resource_type: kind };
            match kind {
                TOPIC => config_resources.extend(image.topics().map(|topic| named((&*topic.name).into()))),
                BROKER | BROKER_LOGGER => {
                    config_resources.extend(image.brokers().keys().map(|id| named(id.to_string().into())));
                }
                // Neither can be configured here.
                _ => {}
            }
        }
        Reply::Now(ListConfigResourcesResponse { config_resources, ..ListConfigResourcesResponse::default() })
    }
}
