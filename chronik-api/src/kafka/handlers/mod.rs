//! One file per API. The table below is what the broker serves, and what ApiVersions tells: nothing can be advertised
//! that has no handler.

pub mod api_versions;
pub mod delete_records;
pub mod describe_producers;
pub mod fetch;
pub mod init_producer_id;
pub mod list_offsets;
pub mod metadata;
pub mod offset_for_leader_epoch;
pub mod produce;

use super::handler::{Api, api};

/// Every API that is served, in the order of the keys.
pub static APIS: &[Api] = &[
    api::<produce::ProduceRequest>(),
    api::<fetch::FetchRequest>(),
    api::<list_offsets::ListOffsetsRequest>(),
    api::<chronik_proto_kafka::api::metadata::MetadataRequest>(),
    api::<chronik_proto_kafka::api::api_versions::ApiVersionsRequest>(),
    api::<delete_records::DeleteRecordsRequest>(),
    api::<init_producer_id::InitProducerIdRequest>(),
    api::<offset_for_leader_epoch::OffsetForLeaderEpochRequest>(),
    api::<describe_producers::DescribeProducersRequest>(),
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
