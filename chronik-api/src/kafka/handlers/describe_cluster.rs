//! DescribeCluster (60, KIP-700): the brokers, under the addresses of the caller's listener.

pub use chronik_proto_kafka::api::describe_cluster::DescribeClusterRequest;

use crate::kafka::context::Resource;
use crate::kafka::handler::{Call, Handler, Reply};
use crate::kafka::{authorized, nodes};
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::describe_cluster::*;

/// Kafka's numbers for what a client believes to be talking to.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

impl Handler for DescribeClusterRequest {
    fn handle(self, call: Call) -> Reply<DescribeClusterResponse> {
        let refused = |code: ErrorCode, words: String| {
            Reply::Now(DescribeClusterResponse {
                error_code: code.0,
                error_message: Some(words.into()),
                ..DescribeClusterResponse::default()
            })
        };
        match self.endpoint_type {
            BROKERS => {}
            CONTROLLERS => {
                let words =
                    "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER";
                return refused(ErrorCode::MISMATCHED_ENDPOINT_TYPE, words.into());
            }
            other => {
                return refused(ErrorCode::UNSUPPORTED_ENDPOINT_TYPE, format!("Unsupported endpoint type {other}"));
            }
        }
        let image = call.broker.metadata.image();
        let fenced = |node: &nodes::Address| image.broker(node.id).is_some_and(|broker| broker.fenced);
        let mut all = nodes::addresses(&call, &image);
        all.retain(|node| self.include_fenced_brokers || !fenced(node));
        let brokers = all.into_iter().map(|node| DescribeClusterBroker {
            broker_id: node.id.0,
            host: node.host,
            port: node.port,
            rack: node.rack,
            is_fenced: image.broker(node.id).is_some_and(|broker| broker.fenced),
        });
        let asked = self.include_cluster_authorized_operations;
        Reply::Now(DescribeClusterResponse {
            endpoint_type: BROKERS,
            cluster_id: image.cluster_id().into(),
            controller_id: call.broker.controller(&image).map_or(-1, |node| node.0),
            brokers: brokers.collect(),
            cluster_authorized_operations: authorized::operations(&call, Resource::Cluster, asked),
            ..DescribeClusterResponse::default()
        })
    }
}
