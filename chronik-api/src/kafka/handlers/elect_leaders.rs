//! ElectLeaders (43, KIP-460). With one node every partition is led by its preferred replica, and the answer says so.

pub use chronik_proto_kafka::api::elect_leaders::ElectLeadersRequest;

use crate::kafka::context::{Operation, Resource};
use crate::kafka::handler::{Call, Handler, Reply};
use crate::kafka::refusal::{Refusal, pair};
use chronik_core::metadata::controller::{self, ElectionKind};
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::elect_leaders::*;
use std::collections::BTreeMap;
use std::convert::Infallible;

impl Handler for ElectLeadersRequest {
    const BY_CONTROLLER: bool = true;

    fn handle(self, call: Call) -> Reply<ElectLeadersResponse> {
        let failed = |code: ErrorCode| ElectLeadersResponse { error_code: code.0, ..Default::default() };
        if !call.broker.authorizer.allows(&call.context, Operation::Alter, Resource::Cluster) {
            return Reply::Now(failed(ErrorCode::CLUSTER_AUTHORIZATION_FAILED));
        }
        let kind = match self.election_type {
            0 => ElectionKind::Preferred,
            1 => ElectionKind::Unclean,
            _ => return Reply::Now(failed(ErrorCode::INVALID_REQUEST)),
        };
        Reply::exclusive(async move {
            let named = self.topic_partitions.map(|topics| {
                let each = topics.into_iter().flat_map(|topic| {
                    topic.partitions.into_iter().map(move |number| (topic.topic.to_string(), number))
                });
                each.collect::<Vec<_>>()
            });
            let decided = call.broker.metadata.propose_sure::<_, Infallible>(move |image| match named {
                Some(named) => controller::elect_leaders(image, kind, &named),
                None => controller::elect_all_leaders(image, kind),
            });
            match decided.await {
                Ok(elections) => answer(elections),
                Err(why) => failed(why.code()),
            }
        })
    }
}

fn answer(elections: Vec<(String, i32, Result<(), controller::ElectLeaderError>)>) -> ElectLeadersResponse {
    let mut by_topic: BTreeMap<String, Vec<PartitionResult>> = BTreeMap::new();
    for (topic, partition_id, outcome) in elections {
        let (error_code, error_message) = pair(&outcome);
        by_topic.entry(topic).or_default().push(PartitionResult { partition_id, error_code, error_message });
    }
    let result =
        |(topic, partition_result): (String, _)| ReplicaElectionResult { topic: topic.into(), partition_result };
    ElectLeadersResponse {
        replica_election_results: by_topic.into_iter().map(result).collect(),
        ..ElectLeadersResponse::default()
    }
}
