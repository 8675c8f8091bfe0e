//! AlterReplicaLogDirs (34). A broker has one directory: what is in it may "move" there, and nowhere else.

pub use chronik_proto_kafka::api::alter_replica_log_dirs::AlterReplicaLogDirsRequest;

use super::describe_log_dirs::data_dir;
use crate::kafka::context::{Operation, Resource};
use crate::kafka::handler::{Call, Handler, Reply};
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::alter_replica_log_dirs::*;
use std::collections::BTreeMap;

impl Handler for AlterReplicaLogDirsRequest {
    fn handle(self, call: Call) -> Reply<AlterReplicaLogDirsResponse> {
        let image = call.broker.metadata.image();
        let allowed = call.broker.authorizer.allows(&call.context, Operation::Alter, Resource::Cluster);
        let own = data_dir(&call);
        let mut by_topic: BTreeMap<_, Vec<AlterReplicaLogDirPartitionResult>> = BTreeMap::new();
        for dir in self.dirs {
            for topic in dir.topics {
                let known = image.topic(&topic.name);
                let results = by_topic.entry(topic.name).or_default();
                results.extend(topic.partitions.into_iter().map(|partition_index| {
                    let exists = known.is_some_and(|topic| topic.partition(partition_index).is_some());
                    let code = match (allowed, dir.path == own.as_str(), exists) {
                        (false, _, _) => ErrorCode::CLUSTER_AUTHORIZATION_FAILED,
                        (_, false, _) => ErrorCode::LOG_DIR_NOT_FOUND,
                        (_, _, false) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                        _ => ErrorCode::NONE,
                    };
                    AlterReplicaLogDirPartitionResult { partition_index, error_code: code.0 }
                }));
            }
        }
        let result = |(topic_name, partitions)| AlterReplicaLogDirTopicResult { topic_name, partitions };
        Reply::Now(AlterReplicaLogDirsResponse {
            throttle_time_ms: 0,
            results: by_topic.into_iter().map(result).collect(),
        })
    }
}
