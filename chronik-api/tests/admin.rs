//! Admin work over the wire, against a broker of our own: what tools and consoles do, read as stories.
//!
//! A request goes out and its answer comes back through the codec, so every field that is asserted here has been on a
//! socket.

mod broker;

use broker::{Client, start};
use chronik_proto_kafka::api::*;
use chronik_proto_kafka::{ErrorCode, Request, Str, Uuid};

fn topic(name: &str) -> create_topics::CreatableTopic {
    create_topics::CreatableTopic {
        name: name.into(),
        num_partitions: -1,
        replication_factor: -1,
        ..Default::default()
    }
}

async fn create(client: &mut Client, topic: create_topics::CreatableTopic) -> create_topics::CreatableTopicResult {
    let request = create_topics::CreateTopicsRequest { topics: vec![topic], ..Default::default() };
    client.ask(request).await.topics.remove(0)
}

async fn metadata_of(client: &mut Client, name: &str) -> metadata::MetadataResponseTopic {
    let wanted = metadata::MetadataRequestTopic { name: Some(name.into()), ..Default::default() };
    let request = metadata::MetadataRequest {
        topics: Some(vec![wanted]),
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    client.ask(request).await.topics.remove(0)
}

#[tokio::test]
async fn a_topics_life() {
    let broker = start(|config| config.topics.default_partitions = 3).await;
    let mut client = Client::to(&broker).await;

    let created = create(&mut client, topic("orders")).await;
    assert_eq!(created.error_code, 0, "{:?}", created.error_message);
    assert_eq!((created.num_partitions, created.replication_factor), (3, 1));
    assert_ne!(created.topic_id, Uuid::ZERO);
    let echoed = created.configs.expect("from version 5 on");
    let retention = echoed.iter().find(|config| config.name == "retention.ms").expect("echoed");
    assert_eq!((retention.value.as_deref(), retention.config_source), (Some("604800000"), 5));

    let again = create(&mut client, topic("orders")).await;
    assert_eq!(again.error_code, ErrorCode::TOPIC_ALREADY_EXISTS.0);
    assert_eq!(again.error_message.as_deref(), Some("Topic 'orders' already exists."));

    let seen = metadata_of(&mut client, "orders").await;
    assert_eq!((seen.topic_id, seen.partitions.len()), (created.topic_id, 3));
    assert!(seen.partitions.iter().all(|partition| partition.leader_id == 1 && partition.isr_nodes == [1]));

    let more = create_partitions::CreatePartitionsTopic { name: "orders".into(), count: 5, assignments: None };
    let request = create_partitions::CreatePartitionsRequest { topics: vec![more], ..Default::default() };
    assert_eq!(client.ask(request.clone()).await.results[0].error_code, 0);
    assert_eq!(client.ask(request).await.results[0].error_code, ErrorCode::INVALID_PARTITIONS.0);
    assert_eq!(metadata_of(&mut client, "orders").await.partitions.len(), 5);

    let by_id = delete_topics::DeleteTopicState { name: None, topic_id: created.topic_id };
    let request = delete_topics::DeleteTopicsRequest { topics: vec![by_id], ..Default::default() };
    let deleted = client.ask(request.clone()).await.responses.remove(0);
    assert_eq!((deleted.error_code, deleted.name.as_deref()), (0, Some("orders")));
    assert_eq!(client.ask(request).await.responses[0].error_code, ErrorCode::UNKNOWN_TOPIC_ID.0);
    assert_eq!(metadata_of(&mut client, "orders").await.error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0);
    let by_name = delete_topics::DeleteTopicsRequest { topic_names: vec!["orders".into()], ..Default::default() };
    let gone = client.ask_in(5, by_name).await.responses.remove(0);
    assert_eq!(gone.error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0);
    broker.stop().await;
}

#[tokio::test]
async fn what_cannot_be_created_is_refused_with_kafkas_code_and_a_reason() {
    let broker = start(|config| config.limits.partitions = 50).await;
    let mut client = Client::to(&broker).await;
    let config = |name: &str, value: Option<&str>| {
        vec![create_topics::CreatableTopicConfig { name: name.into(), value: value.map(Str::from) }]
    };
    let by_hand =
        |brokers: Vec<i32>| vec![create_topics::CreatableReplicaAssignment { partition_index: 0, broker_ids: brokers }];
    let cases = [
        (topic("../x"), ErrorCode::INVALID_TOPIC_EXCEPTION, "only letters"),
        (topic(""), ErrorCode::INVALID_TOPIC_EXCEPTION, "empty"),
        (topic(&"x".repeat(250)), ErrorCode::INVALID_TOPIC_EXCEPTION, "250"),
        (topic("__cluster_metadata"), ErrorCode::INVALID_REQUEST, "prohibited"),
        (
            create_topics::CreatableTopic { replication_factor: 3, ..topic("wide") },
            ErrorCode::INVALID_REPLICATION_FACTOR,
            "replication factor of 3 cannot be reached because only 1 broker(s)",
        ),
        (
            create_topics::CreatableTopic { num_partitions: 0, ..topic("none") },
            ErrorCode::INVALID_PARTITIONS,
            "non-positive",
        ),
        (
            create_topics::CreatableTopic { num_partitions: 51, ..topic("many") },
            ErrorCode::POLICY_VIOLATION,
            "at most 50",
        ),
        (
            create_topics::CreatableTopic { assignments: by_hand(vec![9]), ..topic("hand") },
            ErrorCode::INVALID_REPLICA_ASSIGNMENT,
            "no such broker",
        ),
        (
            create_topics::CreatableTopic { configs: config("retention.msec", Some("1")), ..topic("typo") },
            ErrorCode::INVALID_CONFIG,
            "Unknown topic config name: retention.msec",
        ),
        (
            create_topics::CreatableTopic { configs: config("retention.ms", None), ..topic("null") },
            ErrorCode::INVALID_CONFIG,
            "Null value",
        ),
    ];
    for (topic, code, words) in cases {
        let name = topic.name.clone();
        let refused = create(&mut client, topic).await;
        assert_eq!(ErrorCode(refused.error_code), code, "{name}");
        let message = refused.error_message.expect("a reason");
        assert!(message.contains(words), "{name}: {message}");
    }
    let all = client.ask(metadata::MetadataRequest { topics: None, ..Default::default() }).await;
    assert!(all.topics.is_empty(), "and nothing was made");
    broker.stop().await;
}

#[tokio::test]
async fn validating_only_answers_and_changes_nothing() {
    let broker = start(|_| {}).await;
    let mut client = Client::to(&broker).await;
    let request =
        create_topics::CreateTopicsRequest { topics: vec![topic("dry")], validate_only: true, ..Default::default() };
    let answer = client.ask(request).await.topics.remove(0);
    assert_eq!((answer.error_code, answer.num_partitions, answer.topic_id), (0, 1, Uuid::ZERO));
    assert_ne!(metadata_of(&mut client, "dry").await.error_code, 0);

    create(&mut client, topic("wet")).await;
    let more = create_partitions::CreatePartitionsTopic { name: "wet".into(), count: 4, assignments: None };
    let request =
        create_partitions::CreatePartitionsRequest { topics: vec![more], validate_only: true, ..Default::default() };
    assert_eq!(client.ask(request).await.results[0].error_code, 0);
    assert_eq!(metadata_of(&mut client, "wet").await.partitions.len(), 1);
    broker.stop().await;
}

/// DescribeConfigs of one resource.
async fn describe(
    client: &mut Client,
    kind: i8,
    name: &str,
) -> Result<Vec<describe_configs::DescribeConfigsResourceResult>, (ErrorCode, String)> {
    let resource = describe_configs::DescribeConfigsResource {
        resource_type: kind,
        resource_name: name.into(),
        configuration_keys: None,
    };
    let request = describe_configs::DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        include_documentation: true,
    };
    let result = client.ask(request).await.results.remove(0);
    match ErrorCode(result.error_code) {
        ErrorCode::NONE => Ok(result.configs),
        code => Err((code, result.error_message.unwrap_or_default().to_string())),
    }
}

/// IncrementalAlterConfigs of one configuration.
async fn alter(client: &mut Client, kind: i8, name: &str, config: (&str, i8, Option<&str>)) -> (ErrorCode, String) {
    use incremental_alter_configs::*;
    let (config, config_operation, value) = config;
    let config = AlterableConfig { name: config.into(), config_operation, value: value.map(Str::from) };
    let resource = AlterConfigsResource { resource_type: kind, resource_name: name.into(), configs: vec![config] };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    let response = client.ask(request).await.responses.remove(0);
    (ErrorCode(response.error_code), response.error_message.unwrap_or_default().to_string())
}

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

#[tokio::test]
async fn configurations_are_described_with_where_they_come_from_and_altered() {
    let broker = start(|config| config.topics.max_message_bytes.0 = 2_000_000).await;
    let mut client = Client::to(&broker).await;
    create(&mut client, topic("t")).await;
    let ok = (ErrorCode::NONE, String::new());
    assert_eq!(alter(&mut client, TOPIC, "t", ("cleanup.policy", 2, Some("compact"))).await, ok);
    assert_eq!(alter(&mut client, BROKER, "", ("log.retention.ms", 0, Some("1234567"))).await, ok);

    let configs = describe(&mut client, TOPIC, "t").await.expect("described");
    assert!(configs.len() >= 34, "all of them: {}", configs.len());
    let of = |name: &str| configs.iter().find(|config| config.name == name).expect("described");
    let sources = |name: &str| of(name).synonyms.iter().map(|synonym| synonym.source).collect::<Vec<_>>();
    assert_eq!(
        (of("cleanup.policy").value.as_deref(), of("cleanup.policy").config_source),
        (Some("delete,compact"), 1)
    );
    assert_eq!(sources("cleanup.policy"), [1, 5]);
    assert_eq!((of("retention.ms").value.as_deref(), of("retention.ms").config_source), (Some("1234567"), 3));
    assert_eq!(sources("retention.ms"), [3, 5]);
    assert_eq!((of("max.message.bytes").value.as_deref(), of("max.message.bytes").config_source), (Some("2000000"), 4));
    assert_eq!(sources("max.message.bytes"), [4, 5]);
    assert!(configs.iter().all(|config| config.documentation.as_ref().is_some_and(|words| !words.is_empty())));
    assert!(configs.iter().all(|config| config.config_type > 0 && !config.is_sensitive));
    let fixed = configs.iter().filter(|config| config.read_only);
    let fixed: Vec<_> = fixed.map(|config| (config.name.to_string(), config.config_source)).collect();
    // Where the records are was written down when the topic was created, since the default here is not the built-in engine.
    assert_eq!(fixed, [("chronik.storage".to_owned(), 1), ("chronik.storage.survives".to_owned(), 5)]);
    assert_eq!(of("chronik.storage").value.as_deref(), Some("memory"));

    let refusals = [
        ((TOPIC, "t"), ("retention.ms", 0, Some("soon")), ErrorCode::INVALID_CONFIG, "LONG"),
        ((TOPIC, "t"), ("retention.ms", 2, Some("1")), ErrorCode::INVALID_CONFIG, "LIST"),
        ((TOPIC, "t"), ("no.such.thing", 0, Some("1")), ErrorCode::INVALID_CONFIG, "Unknown topic config"),
        ((TOPIC, "t"), ("retention.ms", 9, Some("1")), ErrorCode::INVALID_REQUEST, "9"),
        ((TOPIC, "missing"), ("retention.ms", 0, Some("1")), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "missing"),
        ((BROKER, "1"), ("num.partitions", 0, Some("9")), ErrorCode::INVALID_REQUEST, "read-only"),
        ((BROKER, "1"), ("log.retention.ms", 0, Some("9")), ErrorCode::INVALID_REQUEST, "for all brokers"),
    ];
    for ((kind, name), config, code, words) in refusals {
        let (refused, why) = alter(&mut client, kind, name, config).await;
        assert_eq!(refused, code, "{config:?}");
        assert!(why.contains(words), "{config:?}: {why}");
    }

    // The older way replaces everything but where the records are.
    let resource = alter_configs::AlterConfigsResource {
        resource_type: TOPIC,
        resource_name: "t".into(),
        configs: vec![alter_configs::AlterableConfig { name: "segment.ms".into(), value: Some("60000".into()) }],
    };
    let request = alter_configs::AlterConfigsRequest { resources: vec![resource], validate_only: false };
    assert_eq!(client.ask(request).await.responses[0].error_code, 0);
    let configs = describe(&mut client, TOPIC, "t").await.expect("described");
    let set: Vec<_> = configs.iter().filter(|config| config.config_source == 1).map(|config| &*config.name).collect();
    assert_eq!(set, ["chronik.storage", "segment.ms"]);
    broker.stop().await;
}

#[tokio::test]
async fn a_brokers_own_configurations_are_altered_in_both_ways_and_unknown_ones_refused() {
    const RATE: &str = "leader.replication.throttled.rate";
    let broker = start(|_| ()).await;
    let mut client = Client::to(&broker).await;
    let ok = (ErrorCode::NONE, String::new());
    assert_eq!(alter(&mut client, BROKER, "", (RATE, 0, Some("500"))).await, ok);
    assert_eq!(alter(&mut client, BROKER, "1", (RATE, 0, Some("70"))).await, ok);
    let configs = describe(&mut client, BROKER, "1").await.expect("described");
    let rate = configs.iter().find(|config| config.name == RATE).expect("described");
    let sources: Vec<_> = rate.synonyms.iter().map(|synonym| (synonym.value.as_deref(), synonym.source)).collect();
    assert_eq!((rate.value.as_deref(), rate.config_source, rate.config_type), (Some("70"), 2, 5));
    assert_eq!(sources, [(Some("70"), 2), (Some("500"), 3), (Some("9223372036854775807"), 5)]);
    let of_all = describe(&mut client, BROKER, "").await.expect("described");
    assert_eq!(of_all.iter().map(|config| &*config.name).collect::<Vec<_>>(), [RATE]);
    for (config, words) in [
        ((RATE, 0, Some("-1")), "at least 0"),
        ((RATE, 0, Some("fast")), "LONG"),
        (("replica.alter.log.dirs.io.max.bytes.per.second", 0, Some("1")), "Unknown broker config"),
    ] {
        let (refused, why) = alter(&mut client, BROKER, "1", config).await;
        assert_eq!(refused, ErrorCode::INVALID_CONFIG, "{config:?}");
        assert!(why.contains(words), "{config:?}: {why}");
    }
    // The older way replaces everything, here with something else.
    let other = "follower.replication.throttled.rate";
    let resource = alter_configs::AlterConfigsResource {
        resource_type: BROKER,
        resource_name: "1".into(),
        configs: vec![alter_configs::AlterableConfig { name: other.into(), value: Some("9".into()) }],
    };
    let request = alter_configs::AlterConfigsRequest { resources: vec![resource], validate_only: false };
    assert_eq!(client.ask(request).await.responses[0].error_code, 0);
    let configs = describe(&mut client, BROKER, "1").await.expect("described");
    let own: Vec<_> = configs.iter().filter(|config| config.config_source == 2).map(|config| &*config.name).collect();
    assert_eq!(own, [other]);
    broker.stop().await;
}

#[tokio::test]
async fn a_broker_tells_how_it_is_set_up_and_nothing_of_others() {
    let broker = start(|config| config.groups.max_size = 77).await;
    let mut client = Client::to(&broker).await;
    let configs = describe(&mut client, BROKER, "1").await.expect("described");
    let value = |name: &str| {
        let config = configs.iter().find(|config| config.name == name).unwrap_or_else(|| panic!("{name} is told"));
        config.value.as_deref().unwrap_or_default().to_owned()
    };
    assert_eq!(value("delete.topic.enable"), "true");
    assert_eq!(value("group.max.size"), "77");
    assert_eq!(value("log.retention.ms"), "604800000");
    assert!(value("advertised.listeners").ends_with(&broker.address.port().to_string()));
    let alterable: Vec<_> = configs.iter().filter(|config| !config.read_only).map(|config| &*config.name).collect();
    assert_eq!(alterable, ["follower.replication.throttled.rate", "leader.replication.throttled.rate"]);
    assert_eq!(describe(&mut client, BROKER, "").await, Ok(Vec::new()), "nothing was set for all brokers");
    let refused = describe(&mut client, BROKER, "2").await.expect_err("refused");
    assert_eq!(refused.0, ErrorCode::INVALID_REQUEST);
    let refused = describe(&mut client, TOPIC, "missing").await.expect_err("refused");
    assert_eq!(refused.0, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    broker.stop().await;
}

#[tokio::test]
async fn one_node_answers_truthfully_what_needs_several() {
    let broker = start(|_| {}).await;
    let mut client = Client::to(&broker).await;
    create(&mut client, topic("t")).await;

    let cluster = client.ask(describe_cluster::DescribeClusterRequest::default()).await;
    assert_eq!((cluster.error_code, cluster.controller_id, cluster.brokers.len()), (0, 1, 1));
    assert_eq!(cluster.cluster_id.len(), 22);
    assert_eq!(cluster.brokers[0].port, i32::from(broker.address.port()));
    assert_eq!(cluster.cluster_authorized_operations, i32::MIN, "nobody asked");
    let controllers = describe_cluster::DescribeClusterRequest { endpoint_type: 2, ..Default::default() };
    assert_eq!(client.ask(controllers).await.error_code, ErrorCode::MISMATCHED_ENDPOINT_TYPE.0);

    let quorum = client
        .ask(describe_quorum::DescribeQuorumRequest {
            topics: vec![describe_quorum::TopicData {
                topic_name: "__cluster_metadata".into(),
                partitions: vec![describe_quorum::PartitionData { partition_index: 0 }],
            }],
        })
        .await;
    let state = &quorum.topics[0].partitions[0];
    assert_eq!((state.error_code, state.leader_id, state.current_voters.len()), (0, 1, 1));
    assert!(state.high_watermark > 0 && state.observers.is_empty());

    let named = elect_leaders::TopicPartitions { topic: "t".into(), partitions: vec![0, 9] };
    let request = elect_leaders::ElectLeadersRequest { topic_partitions: Some(vec![named]), ..Default::default() };
    let elected = client.ask(request).await.replica_election_results.remove(0);
    let codes: Vec<_> = elected.partition_result.iter().map(|result| ErrorCode(result.error_code)).collect();
    assert_eq!(codes, [ErrorCode::ELECTION_NOT_NEEDED, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION]);
    let all = elect_leaders::ElectLeadersRequest { topic_partitions: None, ..Default::default() };
    assert!(client.ask(all).await.replica_election_results.is_empty());

    let to = |replicas| alter_partition_reassignments::ReassignablePartition { partition_index: 0, replicas };
    let named = |partitions| alter_partition_reassignments::AlterPartitionReassignmentsRequest {
        topics: vec![alter_partition_reassignments::ReassignableTopic { name: "t".into(), partitions }],
        ..Default::default()
    };
    let answer = client.ask(named(vec![to(Some(vec![1])), to(Some(vec![1, 2])), to(None)])).await;
    let codes: Vec<_> = answer.responses[0].partitions.iter().map(|answer| ErrorCode(answer.error_code)).collect();
    let refused = [ErrorCode::INVALID_REPLICA_ASSIGNMENT, ErrorCode::NO_REASSIGNMENT_IN_PROGRESS];
    assert_eq!(codes, [&[ErrorCode::NONE], &refused[..]].concat(), "it has no other node to move to");

    let own = client.ask(unregister_broker::UnregisterBrokerRequest { broker_id: 1 }).await;
    assert_eq!(ErrorCode(own.error_code), ErrorCode::INVALID_REQUEST, "it is at work");
    let other = client.ask(unregister_broker::UnregisterBrokerRequest { broker_id: 2 }).await;
    assert_eq!(ErrorCode(other.error_code), ErrorCode::BROKER_ID_NOT_REGISTERED);

    let voter = add_raft_voter::AddRaftVoterRequest { voter_id: 2, ..Default::default() };
    let refused = client.ask(voter).await;
    assert_eq!(ErrorCode(refused.error_code), ErrorCode::UNSUPPORTED_VERSION, "{:?}", refused.error_message);
    let leaves =
        |cluster_id| remove_raft_voter::RemoveRaftVoterRequest { cluster_id, voter_id: 1, ..Default::default() };
    let refused = client.ask(leaves(Some("another".into()))).await;
    assert_eq!(ErrorCode(refused.error_code), ErrorCode::INCONSISTENT_CLUSTER_ID);
    let refused = client.ask(leaves(Some(cluster.cluster_id.clone()))).await;
    assert_eq!(ErrorCode(refused.error_code), ErrorCode::UNSUPPORTED_VERSION, "nobody else could decide");

    let level = |level| update_features::UpdateFeaturesRequest {
        feature_updates: vec![update_features::FeatureUpdateKey {
            feature: "metadata.version".into(),
            max_version_level: level,
            upgrade_type: 1,
            ..Default::default()
        }],
        ..Default::default()
    };
    let too_high = client.ask(level(i16::MAX)).await;
    assert_eq!(ErrorCode(too_high.error_code), ErrorCode::INVALID_UPDATE_VERSION, "{:?}", too_high.error_message);
    assert_eq!(client.ask(update_features::UpdateFeaturesRequest::default()).await.error_code, 0);

    let moving = client.ask(list_partition_reassignments::ListPartitionReassignmentsRequest::default()).await;
    assert_eq!((moving.error_code, moving.topics.len()), (0, 0));
    let quotas = client.ask(describe_client_quotas::DescribeClientQuotasRequest::default()).await;
    assert_eq!(quotas.entries, Some(Vec::new()));

    let resources = client.ask(list_config_resources::ListConfigResourcesRequest::default()).await.config_resources;
    let named: Vec<_> = resources.iter().map(|resource| (resource.resource_type, &*resource.resource_name)).collect();
    assert_eq!(named, [(2, "t"), (4, "1"), (8, "1")]);
    let metrics = client.ask_in(0, list_config_resources::ListConfigResourcesRequest::default()).await;
    assert!(metrics.config_resources.is_empty());
    broker.stop().await;
}

#[tokio::test]
async fn without_an_authorizer_access_rules_are_disabled_and_not_merely_absent() {
    let broker = start(|_| {}).await;
    let mut client = Client::to(&broker).await;
    let disabled = ErrorCode::SECURITY_DISABLED.0;
    let any = describe_acls::DescribeAclsRequest { resource_type_filter: 1, ..Default::default() };
    assert_eq!(client.ask(any).await.error_code, disabled);
    let one = create_acls::CreateAclsRequest { creations: vec![Default::default()] };
    assert_eq!(client.ask(one).await.results[0].error_code, disabled);
    let one = delete_acls::DeleteAclsRequest { filters: vec![Default::default()] };
    assert_eq!(client.ask(one).await.filter_results[0].error_code, disabled);
    broker.stop().await;
}

#[tokio::test]
async fn directories_are_described_and_not_moved() {
    let broker = start(|_| {}).await;
    let mut client = Client::to(&broker).await;
    create(&mut client, create_topics::CreatableTopic { num_partitions: 2, ..topic("t") }).await;
    let all = client.ask(describe_log_dirs::DescribeLogDirsRequest { topics: None }).await;
    let dir = &all.results[0];
    assert_eq!((all.results.len(), dir.topics.len(), dir.topics[0].partitions.len()), (1, 1, 2));
    assert!(dir.total_bytes > 0 && dir.usable_bytes > 0 && std::path::Path::new(&*dir.log_dir).is_absolute());
    let one = describe_log_dirs::DescribableLogDirTopic { topic: "t".into(), partitions: vec![1] };
    let some = client.ask(describe_log_dirs::DescribeLogDirsRequest { topics: Some(vec![one]) }).await;
    assert_eq!(some.results[0].topics[0].partitions[0].partition_index, 1);

    let to = |path: Str, partition| alter_replica_log_dirs::AlterReplicaLogDir {
        path,
        topics: vec![alter_replica_log_dirs::AlterReplicaLogDirTopic { name: "t".into(), partitions: vec![partition] }],
    };
    let dirs = vec![to(dir.log_dir.clone(), 0), to("/elsewhere".into(), 1), to(dir.log_dir.clone(), 7)];
    let moved = client.ask(alter_replica_log_dirs::AlterReplicaLogDirsRequest { dirs }).await.results.remove(0);
    let codes: Vec<_> = moved.partitions.iter().map(|result| ErrorCode(result.error_code)).collect();
    assert_eq!(codes, [ErrorCode::NONE, ErrorCode::LOG_DIR_NOT_FOUND, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION]);
    broker.stop().await;
}

#[tokio::test]
async fn topics_are_described_page_by_page() {
    use describe_topic_partitions::*;
    let broker = start(|_| {}).await;
    let mut client = Client::to(&broker).await;
    for name in ["a", "b", "c"] {
        create(&mut client, create_topics::CreatableTopic { num_partitions: 5, ..topic(name) }).await;
    }
    let mut cursor = None;
    let mut seen = Vec::new();
    for page in 0.. {
        assert!(page < 10, "the pages come to an end");
        let request =
            DescribeTopicPartitionsRequest { response_partition_limit: 4, cursor: cursor.take(), topics: vec![] };
        let answer = client.ask(request).await;
        let partitions: usize = answer.topics.iter().map(|topic| topic.partitions.len()).sum();
        assert!((1..=4).contains(&partitions));
        for topic in answer.topics {
            let name = topic.name.expect("its name").to_string();
            seen.extend(topic.partitions.iter().map(|partition| (name.clone(), partition.partition_index)));
        }
        match answer.next_cursor {
            None => break,
            Some(next) => {
                cursor = Some(Cursor { topic_name: next.topic_name, partition_index: next.partition_index });
            }
        }
    }
    let all = ["a", "b", "c"].into_iter().flat_map(|name| (0..5).map(move |partition| (name.to_owned(), partition)));
    assert_eq!(seen, all.collect::<Vec<_>>(), "each once, in order");

    let named = |name: &str| TopicRequest { name: name.into() };
    let request = DescribeTopicPartitionsRequest {
        topics: vec![named("missing"), named("b"), named("b"), named("x/y")],
        ..Default::default()
    };
    let answer = client.ask(request).await;
    let codes: Vec<_> = answer.topics.iter().map(|topic| ErrorCode(topic.error_code)).collect();
    use ErrorCode as Code;
    assert_eq!(codes, [Code::NONE, Code::UNKNOWN_TOPIC_OR_PARTITION, Code::INVALID_TOPIC_EXCEPTION]);
    broker.stop().await;
}

/// Asks in every version there is; whatever comes back must be an answer to that version.
async fn in_every_version<R: Request + Clone>(client: &mut Client, request: R) {
    for version in R::VERSIONS {
        // What a version cannot say is left out on the way, so the request as it arrives is what counts.
        let arrives = R::decode(&mut chronik_proto_kafka::Decoder::new(request.to_bytes(version)), version);
        client.ask_in(version, arrives.unwrap_or_else(|why| panic!("{} {version}: {why:?}", R::NAME))).await;
    }
}

#[tokio::test]
async fn every_version_is_answered() {
    let broker = start(|_| {}).await;
    let client = &mut Client::to(&broker).await;
    let create = create_topics::CreateTopicsRequest { topics: vec![topic("t")], ..Default::default() };
    in_every_version(client, create).await;
    in_every_version(client, metadata::MetadataRequest { topics: Some(Vec::new()), ..Default::default() }).await;
    let more = create_partitions::CreatePartitionsTopic { name: "t".into(), count: 2, assignments: None };
    let more = create_partitions::CreatePartitionsRequest { topics: vec![more], ..Default::default() };
    in_every_version(client, more).await;
    for kind in [TOPIC, BROKER, 8, 16, 32, 99] {
        let resource = describe_configs::DescribeConfigsResource {
            resource_type: kind,
            resource_name: if kind == TOPIC { "t".into() } else { "1".into() },
            configuration_keys: None,
        };
        let request = describe_configs::DescribeConfigsRequest {
            resources: vec![resource],
            include_synonyms: true,
            include_documentation: true,
        };
        in_every_version(client, request).await;
    }
    in_every_version(client, alter_configs::AlterConfigsRequest::default()).await;
    in_every_version(client, incremental_alter_configs::IncrementalAlterConfigsRequest::default()).await;
    in_every_version(client, list_config_resources::ListConfigResourcesRequest::default()).await;
    in_every_version(client, elect_leaders::ElectLeadersRequest::default()).await;
    in_every_version(client, alter_partition_reassignments::AlterPartitionReassignmentsRequest::default()).await;
    in_every_version(client, update_features::UpdateFeaturesRequest::default()).await;
    in_every_version(client, add_raft_voter::AddRaftVoterRequest::default()).await;
    in_every_version(client, remove_raft_voter::RemoveRaftVoterRequest::default()).await;
    in_every_version(client, unregister_broker::UnregisterBrokerRequest::default()).await;
    in_every_version(client, list_partition_reassignments::ListPartitionReassignmentsRequest::default()).await;
    in_every_version(client, describe_client_quotas::DescribeClientQuotasRequest::default()).await;
    let part = describe_quorum::PartitionData { partition_index: 0 };
    let log = describe_quorum::TopicData { topic_name: "__cluster_metadata".into(), partitions: vec![part] };
    in_every_version(client, describe_quorum::DescribeQuorumRequest { topics: vec![log] }).await;
    in_every_version(client, describe_cluster::DescribeClusterRequest::default()).await;
    in_every_version(client, describe_topic_partitions::DescribeTopicPartitionsRequest::default()).await;
    in_every_version(client, describe_log_dirs::DescribeLogDirsRequest::default()).await;
    in_every_version(client, alter_replica_log_dirs::AlterReplicaLogDirsRequest::default()).await;
    in_every_version(client, describe_acls::DescribeAclsRequest::default()).await;
    in_every_version(client, create_acls::CreateAclsRequest::default()).await;
    in_every_version(client, delete_acls::DeleteAclsRequest::default()).await;
    let delete = delete_topics::DeleteTopicsRequest { topic_names: vec!["t".into()], ..Default::default() };
    in_every_version(client, delete).await;
    broker.stop().await;
}

/// The calls of three web consoles at their start and on their pages about clusters and topics, in the order of their
/// sources: kafka-ui (`ReactiveAdminClient`), AKHQ (`AbstractKafkaWrapper`), Redpanda Console (`pkg/console`). Java's
/// admin client and franz-go speak the newest version on both sides, so these do.
#[tokio::test]
async fn what_consoles_ask_at_start_and_on_their_pages_is_answered() {
    let broker = start(|_| {}).await;
    let client = &mut Client::to(&broker).await;
    for name in ["orders", "audit.log"] {
        create(client, topic(name)).await;
    }
    let names: Vec<Str> = vec!["audit.log".into(), "orders".into()];

    // kafka-ui starts: the cluster, the controller's configuration, and whether access rules are on.
    let with_operations =
        describe_cluster::DescribeClusterRequest { include_cluster_authorized_operations: true, ..Default::default() };
    let cluster = client.ask(with_operations).await;
    assert!(cluster.cluster_authorized_operations > 0, "all that a cluster's operations are");
    let id = cluster.controller_id.to_string();
    let configs = describe(client, BROKER, &id).await.expect("described");
    let deletes = configs.iter().find(|config| config.name == "delete.topic.enable").expect("it looks for it");
    assert_eq!(deletes.value.as_deref(), Some("true"), "or its delete button is greyed out");
    let any = describe_acls::DescribeAclsRequest {
        resource_type_filter: 1,
        pattern_type_filter: 1,
        operation: 1,
        permission_type: 1,
        ..Default::default()
    };
    let rules = client.ask(any.clone()).await;
    assert_eq!(rules.error_code, ErrorCode::SECURITY_DISABLED.0, "or it would offer to edit them");

    // Its pages: topics with their configurations, described with documentation, sizes, ends, producers.
    let all = client.ask(metadata::MetadataRequest { topics: None, ..Default::default() }).await;
    assert_eq!(all.topics.iter().filter_map(|topic| topic.name.clone()).collect::<Vec<_>>(), names);
    let resource = |name: &Str| describe_configs::DescribeConfigsResource {
        resource_type: TOPIC,
        resource_name: name.clone(),
        configuration_keys: None,
    };
    let request = describe_configs::DescribeConfigsRequest {
        resources: names.iter().map(resource).collect(),
        include_synonyms: true,
        include_documentation: true,
    };
    assert!(client.ask(request).await.results.iter().all(|result| result.error_code == 0));
    let named = |name: &Str| describe_topic_partitions::TopicRequest { name: name.clone() };
    let request = describe_topic_partitions::DescribeTopicPartitionsRequest {
        topics: names.iter().map(named).collect(),
        ..Default::default()
    };
    let described = client.ask(request).await;
    assert!(described.topics.iter().all(|topic| topic.error_code == 0 && topic.partitions[0].leader_id == 1));
    let dirs = client.ask(describe_log_dirs::DescribeLogDirsRequest { topics: None }).await;
    assert_eq!(dirs.results[0].topics.len(), 2);
    let ends = |timestamp| list_offsets::ListOffsetsRequest {
        replica_id: -1,
        topics: vec![list_offsets::ListOffsetsTopic {
            name: "orders".into(),
            partitions: vec![list_offsets::ListOffsetsPartition { timestamp, ..Default::default() }],
        }],
        ..Default::default()
    };
    for timestamp in [-1, -2] {
        assert_eq!(client.ask(ends(timestamp)).await.topics[0].partitions[0].error_code, 0);
    }
    let of = describe_producers::TopicRequest { name: "orders".into(), partition_indexes: vec![0] };
    let producers = client.ask(describe_producers::DescribeProducersRequest { topics: vec![of] }).await;
    assert_eq!(producers.topics[0].partitions[0].error_code, 0);

    // AKHQ: nodes' and topics' configurations without the extras, and sizes for the nodes it was told of.
    let node = describe_configs::DescribeConfigsResource {
        resource_type: BROKER,
        resource_name: id.as_str().into(),
        configuration_keys: None,
    };
    let request = describe_configs::DescribeConfigsRequest { resources: vec![node], ..Default::default() };
    let plain = client.ask(request).await.results.remove(0);
    assert!(plain.configs.iter().all(|config| config.synonyms.is_empty() && config.documentation.is_none()));

    // Redpanda Console: its overview counts brokers, partitions and rules; its topic list reads one configuration.
    assert_eq!(all.brokers.len(), 1);
    assert!(
        all.topics.iter().all(|topic| !topic.partitions.is_empty() && !topic.partitions[0].replica_nodes.is_empty())
    );
    let one_key = |name: &Str| describe_configs::DescribeConfigsResource {
        configuration_keys: Some(vec!["cleanup.policy".into()]),
        ..resource(name)
    };
    let request = describe_configs::DescribeConfigsRequest {
        resources: names.iter().map(one_key).collect(),
        include_synonyms: true,
        include_documentation: true,
    };
    for result in client.ask(request).await.results {
        assert_eq!(result.configs.len(), 1);
        assert_eq!(result.configs[0].value.as_deref(), Some("delete"));
    }
    let quotas = client.ask(describe_client_quotas::DescribeClientQuotasRequest::default()).await;
    assert_eq!(quotas.error_code, 0);
    let moves = client.ask(list_partition_reassignments::ListPartitionReassignmentsRequest::default()).await;
    assert_eq!(moves.error_code, 0);
    // What it reads from ApiVersions decides which pages it shows; what is not there is greyed out, not broken.
    let request =
        api_versions::ApiVersionsRequest { client_software_name: "kgo".into(), client_software_version: "1.0".into() };
    let served: Vec<i16> = client.ask(request).await.api_keys.iter().map(|api| api.api_key).collect();
    assert!([3, 21, 32, 44, 46, 48].iter().all(|key| served.contains(key)));
    assert!([49, 50, 51].iter().all(|key| !served.contains(key)), "nothing is offered that is not there");
    broker.stop().await;
}
