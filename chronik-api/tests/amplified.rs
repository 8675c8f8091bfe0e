//! Requests that are small on the wire and would be large in memory, against the executable itself: each names one thing
//! very often, or something with a long name, or something that has much to be told.

mod executable;

use bytes::Bytes;
use chronik_core::batch::{Builder, RecordOut};
use chronik_core::ids::ProducerId;
use chronik_core::time::Timestamp;
use chronik_proto_kafka::api::*;
use chronik_proto_kafka::{Request, Str, decode_response, encode_request};
use executable::*;
use std::time::SystemTime;

/// What a request may cost besides a small multiple of its bytes: a kilobyte or so for each of the parts that the largest
/// broker's requests may have, while they are worked on.
const BESIDES_BYTES: u64 = 64 << 20;
const MULTIPLE: u64 = 8;
/// How often each attack names what it names.
const OFTEN: usize = 50_000;
/// Long enough that its repetition is no mere emptiness, which the codec refuses already.
const TOPIC: &str = "a-topic-with-a-name-that-is-as-long-as-names-of-topics-often-are";
const GROUP: &str = "a-group-with-a-name-that-is-as-long-as-names-of-groups-often-are";

/// A request's bytes without their length.
fn frame<R: Request>(version: i16, request: &R) -> Vec<u8> {
    encode_request(request, version, 7, Some("x")).concat()[4..].to_vec()
}

fn ask<R: Request>(connection: &mut Connection, version: i16, request: R) -> R::Response {
    connection.send(&frame(version, &request));
    let answer = connection.answer().expect("an answer");
    decode_response::<R>(answer.into(), version).expect("it can be read").1
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

/// A broker that has much to tell: a wide topic, a topic written by many, and a group that keeps long words.
fn broker_with_much_to_tell(dir: &std::path::Path) -> Broker {
    let broker = Broker::start(dir, &["groups.initial_rebalance_delay_ms=0", "groups.offsets_partitions=1"]);
    let client = &mut broker.connect();
    let topic = |name: &str, num_partitions| create_topics::CreatableTopic {
        name: name.into(),
        num_partitions,
        replication_factor: 1,
        ..Default::default()
    };
    let topics = vec![topic("wide", 500), topic(TOPIC, 1)];
    let request = create_topics::CreateTopicsRequest { topics, timeout_ms: 60_000, ..Default::default() };
    assert!(ask(client, 7, request).topics.iter().all(|topic| topic.error_code == 0));
    for producer in 0..500 {
        let mut builder = Builder::new(Timestamp(now_ms())).idempotent(ProducerId(producer), 0, 0);
        builder.push(&RecordOut { value: Some(b"v"), ..RecordOut::default() });
        let records = Some(builder.build().to_payload().to_bytes().into());
        let partition = produce::PartitionProduceData { index: 0, records };
        let data =
            produce::TopicProduceData { name: TOPIC.into(), partition_data: vec![partition], ..Default::default() };
        let request =
            produce::ProduceRequest { acks: 1, timeout_ms: 60_000, topic_data: vec![data], ..Default::default() };
        assert_eq!(ask(client, 9, request).responses[0].partition_responses[0].error_code, 0);
    }
    let find = find_coordinator::FindCoordinatorRequest { coordinator_keys: vec![GROUP.into()], ..Default::default() };
    assert_eq!(ask(client, 4, find).coordinators[0].error_code, 0);
    // A commit is refused while the group's partition is being read, which takes a moment also if it is empty.
    loop {
        let code = ask(client, 8, commit(1, &"m".repeat(4096))).topics[0].partitions[0].error_code;
        if code == 0 {
            break;
        }
        assert!([14, 15].contains(&code), "{code}");
    }
    broker
}

fn commit(times: usize, metadata: &str) -> offset_commit::OffsetCommitRequest {
    let partition = offset_commit::OffsetCommitRequestPartition {
        committed_offset: 1,
        committed_metadata: Some(metadata.into()),
        ..Default::default()
    };
    offset_commit::OffsetCommitRequest {
        group_id: GROUP.into(),
        generation_id_or_member_epoch: -1,
        retention_time_ms: -1,
        topics: vec![offset_commit::OffsetCommitRequestTopic {
            name: TOPIC.into(),
            partitions: vec![partition; times],
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn fetch(topic: &str, times: usize, different: bool) -> fetch::FetchRequest {
    let partition = |index: usize| fetch::FetchPartition {
        partition: if different { index as i32 } else { 0 },
        partition_max_bytes: 1,
        ..Default::default()
    };
    fetch::FetchRequest {
        max_bytes: 1,
        session_epoch: 0,
        topics: vec![fetch::FetchTopic {
            topic: topic.into(),
            partitions: (0..times).map(partition).collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn attacks() -> Vec<(&'static str, Vec<u8>)> {
    let long = "n".repeat(32_000);
    let long: &str = &long;
    let forgotten = fetch::FetchRequest {
        forgotten_topics_data: vec![fetch::ForgottenTopic {
            topic: long.into(),
            partitions: (0..OFTEN as i32).collect(),
            ..Default::default()
        }],
        ..fetch(TOPIC, 1, false)
    };
    let wide = metadata::MetadataRequestTopic { name: Some("wide".into()), ..Default::default() };
    let configs = describe_configs::DescribeConfigsRequest {
        resources: vec![
            describe_configs::DescribeConfigsResource {
                resource_type: 2,
                resource_name: TOPIC.into(),
                configuration_keys: None,
            };
            OFTEN
        ],
        include_synonyms: true,
        include_documentation: true,
    };
    let producers = describe_producers::DescribeProducersRequest {
        topics: vec![describe_producers::TopicRequest { name: TOPIC.into(), partition_indexes: vec![0; OFTEN] }],
    };
    let quorum = describe_quorum::DescribeQuorumRequest {
        topics: vec![describe_quorum::TopicData {
            topic_name: "__cluster_metadata".into(),
            partitions: vec![describe_quorum::PartitionData { partition_index: 0 }; OFTEN],
        }],
    };
    let of_group =
        |topics| offset_fetch::OffsetFetchRequestGroup { group_id: GROUP.into(), topics, ..Default::default() };
    let of_topic = |partition_indexes| offset_fetch::OffsetFetchRequestTopics {
        name: TOPIC.into(),
        partition_indexes,
        ..Default::default()
    };
    let offsets = |groups| offset_fetch::OffsetFetchRequest { groups, ..Default::default() };
    let deletion = offset_delete::OffsetDeleteRequest {
        group_id: GROUP.into(),
        topics: vec![offset_delete::OffsetDeleteRequestTopic {
            name: TOPIC.into(),
            partitions: vec![offset_delete::OffsetDeleteRequestPartition { partition_index: 0 }; OFTEN],
        }],
    };
    let listed = list_offsets::ListOffsetsRequest {
        replica_id: -1,
        topics: vec![list_offsets::ListOffsetsTopic {
            name: TOPIC.into(),
            partitions: vec![list_offsets::ListOffsetsPartition { timestamp: -1, ..Default::default() }; OFTEN],
        }],
        ..Default::default()
    };
    let groups = vec![Str::from(GROUP); OFTEN];
    let produced = produce::ProduceRequest {
        acks: 1,
        topic_data: vec![produce::TopicProduceData {
            name: TOPIC.into(),
            partition_data: vec![produce::PartitionProduceData { index: 0, records: None }; OFTEN],
            ..Default::default()
        }],
        ..Default::default()
    };
    let members = leave_group::LeaveGroupRequest {
        group_id: GROUP.into(),
        members: vec![leave_group::MemberIdentity { member_id: "m".into(), ..Default::default() }; OFTEN],
        ..Default::default()
    };
    let protocol = join_group::JoinGroupRequestProtocol { name: "p".into(), metadata: Bytes::new() };
    let joined = join_group::JoinGroupRequest {
        group_id: GROUP.into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![protocol; OFTEN],
        ..Default::default()
    };
    let elected = elect_leaders::ElectLeadersRequest {
        topic_partitions: Some(vec![elect_leaders::TopicPartitions {
            topic: TOPIC.into(),
            partitions: vec![0; OFTEN],
        }]),
        ..Default::default()
    };
    let replicas = create_topics::CreatableReplicaAssignment { partition_index: 0, broker_ids: vec![1] };
    let assigned = create_topics::CreatableTopic {
        name: "new".into(),
        num_partitions: -1,
        replication_factor: -1,
        assignments: vec![replicas; OFTEN / 2],
        ..Default::default()
    };
    vec![
        ("fetch: a long name with many partitions", frame(12, &fetch(long, OFTEN, true))),
        ("fetch: a long name with many partitions to forget", frame(12, &forgotten)),
        ("fetch: one partition many times", frame(12, &fetch(TOPIC, OFTEN, false))),
        ("fetch: many partitions", frame(12, &fetch(TOPIC, OFTEN, true))),
        ("metadata", frame(12, &metadata::MetadataRequest { topics: Some(vec![wide; OFTEN]), ..Default::default() })),
        ("configs", frame(4, &configs)),
        ("groups", frame(5, &describe_groups::DescribeGroupsRequest { groups: groups.clone(), ..Default::default() })),
        ("producers", frame(0, &producers)),
        ("quorum", frame(2, &quorum)),
        ("offsets of one partition", frame(8, &offsets(vec![of_group(Some(vec![of_topic(vec![0; OFTEN])]))]))),
        ("offsets of one topic", frame(8, &offsets(vec![of_group(Some(vec![of_topic(vec![0]); OFTEN / 2]))]))),
        ("offsets of one group", frame(8, &offsets(vec![of_group(None); OFTEN]))),
        ("a commit of one partition", frame(8, &commit(OFTEN, ""))),
        ("a deletion of one offset", frame(0, &deletion)),
        ("the end of one partition", frame(7, &listed)),
        (
            "coordinators",
            frame(
                4,
                &find_coordinator::FindCoordinatorRequest { coordinator_keys: groups.clone(), ..Default::default() },
            ),
        ),
        ("groups to delete", frame(2, &delete_groups::DeleteGroupsRequest { groups_names: groups })),
        ("a produce of nothing", frame(9, &produced)),
        ("members to remove", frame(5, &members)),
        ("protocols", frame(7, &joined)),
        ("elections", frame(2, &elected)),
        ("assignments", frame(7, &create_topics::CreateTopicsRequest { topics: vec![assigned], ..Default::default() })),
    ]
}

#[test]
fn a_request_of_more_parts_than_any_broker_has_use_for_is_not_worked_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = Broker::start(dir.path(), &["limits.partitions=10"]);
    for (times, is_answered) in [(59_000, true), (60_000, false)] {
        let mut connection = broker.connect();
        connection.send(&frame(12, &fetch("nowhere", times, true)));
        assert_eq!(connection.answer().is_some(), is_answered, "{times} partitions");
        broker.serves();
    }
}

#[test]
fn what_is_named_often_is_told_once_and_what_has_a_long_name_costs_it_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut too_much = Vec::new();
    for (what, attack) in attacks() {
        // Each to a broker of its own, whose allocator keeps nothing of an earlier one's.
        let broker = broker_with_much_to_tell(dir.path());
        broker.serves();
        let before = broker.resident_bytes();
        let sent = attack.len() as u64;
        let mut connection = broker.connect();
        connection.send(&attack);
        let answer = connection.answer().map(|answer| answer.len());
        let grown = broker.peak_bytes().saturating_sub(before);
        if grown > MULTIPLE * sent + BESIDES_BYTES {
            too_much.push(format!("{what}: {sent} bytes sent, {answer:?} answered, {grown} bytes grown"));
        }
        broker.serves();
    }
    assert!(too_much.is_empty(), "{too_much:#?}");
}
