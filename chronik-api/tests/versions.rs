//! What clients make of the ApiVersions answer, which decides how they speak ever after.

mod broker;

use broker::{Client, Running, start};
use chronik_api::config::Engine;
use chronik_core::batch::Compression;
use chronik_proto_kafka::api::api_versions::*;
use chronik_proto_kafka::api::*;
use chronik_proto_kafka::{ErrorCode, Request, encode_request};
use std::path::Path;
use tokio::io::AsyncWriteExt;

async fn told(client: &mut Client, version: i16) -> ApiVersionsResponse {
    let request = ApiVersionsRequest { client_software_name: "story".into(), client_software_version: "1".into() };
    client.ask_in(version, request).await
}

/// A feature of librdkafka, and the API keys it needs, each with the lowest and highest version that would do.
type Feature = (&'static str, &'static [(i16, i16, i16)]);

/// librdkafka 2.0.2's table.
const LIBRDKAFKA_FEATURES: &[Feature] = &[
    ("MsgVer2", &[(0, 3, 3), (1, 4, 4)]),
    ("ApiVersion", &[(18, 0, 0)]),
    ("BrokerGroupCoordinator", &[(10, 0, 0)]),
    ("BrokerBalancedConsumer", &[(10, 0, 0), (8, 1, 2), (9, 1, 1), (11, 0, 0), (14, 0, 0), (12, 0, 0), (13, 0, 0)]),
    ("Sasl", &[(11, 0, 0)]),
    ("LZ4", &[(10, 0, 0)]),
    ("OffsetTime", &[(2, 1, 1)]),
    ("IdempotentProducer", &[(22, 0, 0)]),
    ("ZSTD", &[(0, 7, 7), (1, 10, 10)]),
];

/// Features of it that a broker which reads only today's record format does not have, and must not seem to have: with
/// the first of them alone it would send messages of the old format.
const LIBRDKAFKA_FEATURES_OF_OLD: &[Feature] =
    &[("MsgVer1", &[(0, 2, 2), (1, 2, 2)]), ("ThrottleTime", &[(0, 1, 2), (1, 1, 2)])];

/// Before it compresses it asks whether the broker knows Produce in some version from 0 up to this one.
const LIBRDKAFKA_COMPRESSES_UP_TO: &[(Compression, i16)] =
    &[(Compression::Gzip, 0), (Compression::Snappy, 0), (Compression::Lz4, 0), (Compression::Zstd, 7)];

/// What it sends of each API, as far as its ordinary work goes: the highest version it has a writer for.
const LIBRDKAFKA_SENDS: &[(i16, i16)] =
    &[(0, 7), (1, 11), (2, 2), (3, 4), (8, 7), (9, 7), (10, 2), (11, 5), (12, 3), (13, 1), (14, 3), (22, 4)];

#[tokio::test]
async fn an_old_librdkafka_finds_every_feature_that_it_needs() {
    let broker = start(|_| {}).await;
    // It asks in version 3 and, were that refused, in version 0; both must tell the same.
    let mut client = Client::to(&broker).await;
    for version in [3, 0] {
        let answer = told(&mut client, version).await;
        assert_eq!(answer.error_code, 0);
        let overlaps = |key: i16, lowest: i16, highest: i16| {
            let api = answer.api_keys.iter().find(|api| api.api_key == key);
            api.is_some_and(|api| lowest <= api.max_version && api.min_version <= highest)
        };
        let has = |needs: &[(i16, i16, i16)]| needs.iter().all(|(key, from, to)| overlaps(*key, *from, *to));
        for (feature, needs) in LIBRDKAFKA_FEATURES {
            assert!(has(needs), "{feature} would be off");
        }
        for (feature, needs) in LIBRDKAFKA_FEATURES_OF_OLD {
            assert!(!has(needs), "{feature} would be on");
        }
        for (codec, upto) in LIBRDKAFKA_COMPRESSES_UP_TO {
            assert!(overlaps(0, 0, *upto), "it would send {codec:?} uncompressed");
        }
        for (key, upto) in LIBRDKAFKA_SENDS {
            assert!(overlaps(*key, 0, *upto), "it could not speak API {key} at all");
        }
    }
    broker.stop().await;
}

#[tokio::test]
async fn every_version_of_the_answer_has_the_same_header_and_tells_the_same() {
    let broker = start(|_| {}).await;
    let mut client = Client::to(&broker).await;
    let mut ranges = Vec::new();
    for version in 0..=4 {
        let request = ApiVersionsRequest { client_software_name: "s".into(), client_software_version: "1".into() };
        client.send(version, 1_000_000, &request).await;
        let frame = client.frame().await.expect("an answer");
        // Directly behind the correlation id comes the error code: there are no tagged fields in this header, whatever
        // the version, since a client reads it before it knows what the broker speaks.
        assert_eq!(frame[..4], 1_000_000i32.to_be_bytes());
        assert_eq!(frame[4..6], [0, 0], "version {version}");
        let answer = told(&mut client, version).await;
        ranges.push(
            answer.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect::<Vec<_>>(),
        );
    }
    assert!(ranges.windows(2).all(|pair| pair[0] == pair[1]));
    broker.stop().await;
}

/// Asks in every version that is told of, on a connection of its own each, with a request that asks for nothing; gives
/// the key.
async fn answers<R: Request>(broker: &Running, told: &ApiVersionsResponse, nothing: R) -> i16 {
    let api = told.api_keys.iter().find(|api| api.api_key == R::KEY).expect("it is told of");
    for version in api.min_version..=api.max_version {
        let mut own = Client::to(broker).await;
        // From the header on by hand, since versions that are not served cannot be encoded.
        let request = encode_request(&nothing, version.max(*R::VERSIONS.start()), 7, Some("story")).concat();
        own.0.write_all(&request[..6]).await.expect("sent");
        own.0.write_all(&version.to_be_bytes()).await.expect("sent");
        own.0.write_all(&request[8..]).await.expect("sent");
        let answered = own.frame().await.is_some();
        // What librdkafka must see to compress, and nobody sends.
        let only_for_show = R::KEY == 0 && version < 3;
        assert_eq!(answered, !only_for_show, "{} version {version}", R::NAME);
    }
    R::KEY
}

#[tokio::test]
async fn what_is_advertised_is_answered_except_what_is_only_for_show() {
    let broker = start(|_| {}).await;
    let told = told(&mut Client::to(&broker).await, 4).await;
    // With acks=0 there would be no answer to wait for.
    let quiet = produce::ProduceRequest { acks: 1, ..Default::default() };
    let mut answered = vec![answers(&broker, &told, quiet).await];
    macro_rules! ask {
        ($($api:ident :: $request:ident),* $(,)?) => {
            $(answered.push(answers(&broker, &told, $api::$request::default()).await);)*
        };
    }
    ask![
        fetch::FetchRequest,
        list_offsets::ListOffsetsRequest,
        metadata::MetadataRequest,
        offset_commit::OffsetCommitRequest,
        offset_fetch::OffsetFetchRequest,
        find_coordinator::FindCoordinatorRequest,
        join_group::JoinGroupRequest,
        heartbeat::HeartbeatRequest,
        leave_group::LeaveGroupRequest,
        sync_group::SyncGroupRequest,
        describe_groups::DescribeGroupsRequest,
        list_groups::ListGroupsRequest,
        api_versions::ApiVersionsRequest,
        create_topics::CreateTopicsRequest,
        delete_topics::DeleteTopicsRequest,
        delete_records::DeleteRecordsRequest,
        init_producer_id::InitProducerIdRequest,
        offset_for_leader_epoch::OffsetForLeaderEpochRequest,
        describe_acls::DescribeAclsRequest,
        create_acls::CreateAclsRequest,
        delete_acls::DeleteAclsRequest,
        describe_configs::DescribeConfigsRequest,
        alter_configs::AlterConfigsRequest,
        alter_replica_log_dirs::AlterReplicaLogDirsRequest,
        describe_log_dirs::DescribeLogDirsRequest,
        create_partitions::CreatePartitionsRequest,
        delete_groups::DeleteGroupsRequest,
        elect_leaders::ElectLeadersRequest,
        incremental_alter_configs::IncrementalAlterConfigsRequest,
        alter_partition_reassignments::AlterPartitionReassignmentsRequest,
        list_partition_reassignments::ListPartitionReassignmentsRequest,
        offset_delete::OffsetDeleteRequest,
        describe_client_quotas::DescribeClientQuotasRequest,
        describe_quorum::DescribeQuorumRequest,
        update_features::UpdateFeaturesRequest,
        describe_cluster::DescribeClusterRequest,
        describe_producers::DescribeProducersRequest,
        unregister_broker::UnregisterBrokerRequest,
        list_config_resources::ListConfigResourcesRequest,
        describe_topic_partitions::DescribeTopicPartitionsRequest,
        add_raft_voter::AddRaftVoterRequest,
        remove_raft_voter::RemoveRaftVoterRequest,
    ];
    assert_eq!(answered, told.api_keys.iter().map(|api| api.api_key).collect::<Vec<_>>(), "each is asked here");
    broker.stop().await;
}

#[tokio::test]
async fn a_name_that_is_none_is_refused_as_kip_511_says() {
    let broker = start(|_| {}).await;
    let mut client = Client::to(&broker).await;
    let request = ApiVersionsRequest { client_software_name: "-\n".into(), client_software_version: "1".into() };
    assert_eq!(client.ask_in(3, request).await.error_code, ErrorCode::INVALID_REQUEST.0);
    // It may ask again.
    assert_eq!(told(&mut client, 3).await.error_code, 0);
    broker.stop().await;
}

async fn on_disk(dir: &Path) -> Running {
    let dir = dir.to_owned();
    start(move |config| {
        config.storage.engine = Engine::Segment;
        config.node.data_dir = dir;
    })
    .await
}

#[tokio::test]
async fn the_epoch_of_finalized_features_never_falls_also_across_restarts() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut before = (-1, Vec::new());
    for round in 0..4 {
        let broker = on_disk(dir.path()).await;
        let mut client = Client::to(&broker).await;
        let answer = told(&mut client, 4).await;
        let epoch = answer.finalized_features_epoch;
        let levels: Vec<_> =
            answer.finalized_features.iter().map(|it| (it.name.clone(), it.max_version_level)).collect();
        assert!(epoch >= 0, "a client takes a negative epoch for none at all");
        assert!(epoch >= before.0, "round {round}: {epoch} after {}", before.0);
        assert!(round == 0 || levels == before.1, "levels do not change by themselves");
        // Real levels of what is served, and nothing else.
        for finalized in &answer.finalized_features {
            let supported = answer.supported_features.iter().find(|it| it.name == finalized.name);
            let supported = supported.expect("nothing is finalized that is not supported");
            assert!((supported.min_version..=supported.max_version).contains(&finalized.max_version_level));
        }
        let metadata = answer.finalized_features.iter().find(|it| it.name == "metadata.version").expect("finalized");
        assert!(metadata.max_version_level >= 7, "7 is 3.3, the first that Kafka without ZooKeeper could run at");
        // What changes the image must not change what is finalized.
        client.create_topic(&format!("t{round}"), 1, &[]).await;
        let later = told(&mut client, 4).await;
        assert!(later.finalized_features_epoch >= epoch);
        before = (later.finalized_features_epoch, levels);
        broker.stop().await;
    }
}
