//! DescribeLogDirs (35): what the data directory holds, and how much room its device has (KIP-827).

pub use chronik_proto_kafka::api::describe_log_dirs::DescribeLogDirsRequest;

use crate::kafka::context::{Operation, Resource};
use crate::kafka::handler::{Call, Handler, Reply};
use crate::metadata::settings;
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::describe_log_dirs::*;
use std::collections::{BTreeMap, BTreeSet};

impl Handler for DescribeLogDirsRequest {
    fn handle(self, call: Call) -> Reply<DescribeLogDirsResponse> {
        if !call.broker.authorizer.allows(&call.context, Operation::Describe, Resource::Cluster) {
            let error_code = ErrorCode::CLUSTER_AUTHORIZATION_FAILED.0;
            return Reply::Now(DescribeLogDirsResponse { error_code, ..Default::default() });
        }
        let wanted: Option<BTreeMap<&str, BTreeSet<i32>>> = self.topics.as_ref().map(|topics| {
            let mut wanted: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
            for topic in topics {
                wanted.entry(&topic.topic).or_default().extend(&topic.partitions);
            }
            wanted
        });
        let is_wanted = |topic: &str, partition: i32| {
            wanted.as_ref().is_none_or(|wanted| wanted.get(topic).is_some_and(|which| which.contains(&partition)))
        };
        let mut topics: BTreeMap<String, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
        for partition in call.broker.partitions.all() {
            if is_wanted(partition.topic(), partition.index()) {
                topics.entry(partition.topic().to_owned()).or_default().push(DescribeLogDirsPartition {
                    partition_index: partition.index(),
                    partition_size: i64::try_from(partition.log_state().bytes).unwrap_or(i64::MAX),
                    offset_lag: 0,
                    is_future_key: false,
                });
            }
        }
        let usage = call.broker.partitions.engines().usage();
        let bytes = |bytes: Option<u64>| bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        let topic = |(name, partitions): (String, _)| DescribeLogDirsTopic { name: name.into(), partitions };
        let result = DescribeLogDirsResult {
            error_code: ErrorCode::NONE.0,
            log_dir: data_dir(&call).into(),
            topics: topics.into_iter().map(topic).collect(),
            total_bytes: bytes(usage.device_total_bytes),
            usable_bytes: bytes(usage.device_free_bytes),
            is_cordoned: false,
        };
        Reply::Now(DescribeLogDirsResponse { results: vec![result], ..Default::default() })
    }
}

/// The data directory, as admin tools compare it.
pub fn data_dir(call: &Call) -> String {
    settings::absolute(&call.broker.config.node.data_dir)
}
