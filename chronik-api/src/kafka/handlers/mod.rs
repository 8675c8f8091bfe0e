//! One file per API. The table below is what the broker serves, and what ApiVersions tells: nothing can be advertised
//! that has no handler.

pub mod acls;
pub mod alter_configs;
pub mod alter_partition_reassignments;
pub mod alter_replica_log_dirs;
pub mod api_versions;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_client_quotas;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_groups;
pub mod describe_log_dirs;
pub mod describe_producers;
pub mod describe_quorum;
pub mod describe_topic_partitions;
pub mod elect_leaders;
pub mod fetch;
pub mod find_coordinator;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_config_resources;
pub mod list_groups;
pub mod list_offsets;
pub mod list_partition_reassignments;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod raft_voters;
pub mod sync_group;
pub mod unregister_broker;
pub mod update_features;

use super::handler::{Api, api};

/// Every API that is served, in the order of the keys.
pub static APIS: &[Api] = &[
    api::<produce::ProduceRequest>(),
    api::<fetch::FetchRequest>(),
    api::<list_offsets::ListOffsetsRequest>(),
    api::<chronik_proto_kafka::api::metadata::MetadataRequest>(),
    api::<offset_commit::OffsetCommitRequest>(),
    api::<offset_fetch::OffsetFetchRequest>(),
    api::<find_coordinator::FindCoordinatorRequest>(),
    api::<join_group::JoinGroupRequest>(),
    api::<heartbeat::HeartbeatRequest>(),
    api::<leave_group::LeaveGroupRequest>(),
    api::<sync_group::SyncGroupRequest>(),
    api::<describe_groups::DescribeGroupsRequest>(),
    api::<list_groups::ListGroupsRequest>(),
    api::<chronik_proto_kafka::api::api_versions::ApiVersionsRequest>(),
    api::<create_topics::CreateTopicsRequest>(),
    api::<delete_topics::DeleteTopicsRequest>(),
    api::<delete_records::DeleteRecordsRequest>(),
    api::<init_producer_id::InitProducerIdRequest>(),
    api::<offset_for_leader_epoch::OffsetForLeaderEpochRequest>(),
    api::<acls::DescribeAclsRequest>(),
    api::<acls::CreateAclsRequest>(),
    api::<acls::DeleteAclsRequest>(),
    api::<describe_configs::DescribeConfigsRequest>(),
    api::<alter_configs::AlterConfigsRequest>(),
    api::<alter_replica_log_dirs::AlterReplicaLogDirsRequest>(),
    api::<describe_log_dirs::DescribeLogDirsRequest>(),
    api::<create_partitions::CreatePartitionsRequest>(),
    api::<delete_groups::DeleteGroupsRequest>(),
    api::<elect_leaders::ElectLeadersRequest>(),
    api::<incremental_alter_configs::IncrementalAlterConfigsRequest>(),
    api::<alter_partition_reassignments::AlterPartitionReassignmentsRequest>(),
    api::<list_partition_reassignments::ListPartitionReassignmentsRequest>(),
    api::<offset_delete::OffsetDeleteRequest>(),
    api::<describe_client_quotas::DescribeClientQuotasRequest>(),
    api::<describe_quorum::DescribeQuorumRequest>(),
    api::<update_features::UpdateFeaturesRequest>(),
    api::<describe_cluster::DescribeClusterRequest>(),
    api::<describe_producers::DescribeProducersRequest>(),
    api::<unregister_broker::UnregisterBrokerRequest>(),
    api::<list_config_resources::ListConfigResourcesRequest>(),
    api::<describe_topic_partitions::DescribeTopicPartitionsRequest>(),
    api::<raft_voters::AddRaftVoterRequest>(),
    api::<raft_voters::RemoveRaftVoterRequest>(),
];

/// The row of a key. The table is small and sorted.
pub fn find(key: i16) -> Option<&'static Api> {
    APIS.binary_search_by_key(&key, |api| api.key).ok().map(|at| &APIS[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_finds_its_rows() {
        assert!(APIS.windows(2).all(|pair| pair[0].key < pair[1].key));
        assert!(APIS.iter().all(|api| find(api.key).is_some_and(|found| found.name == api.name)));
        assert!(find(-1).is_none());
    }
}
