//! Producing and fetching over the wire: what clients depend on, one story each.

mod broker;

use broker::*;
use bytes::Bytes;
use chronik_api::config::{ByteSize, Config, Engine};
use chronik_core::batch::{Compression, Records, batches};
use chronik_core::payload::Payload;
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::*;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

fn values(fetched: &fetch::PartitionData) -> Vec<String> {
    let bytes = fetched.records.as_ref().map(|records| records.to_bytes()).unwrap_or_default();
    let mut values = Vec::new();
    for batch in batches(&Payload::from(bytes)) {
        let batch = batch.expect("whole batches");
        for record in Records::new(&batch.records) {
            values.push(String::from_utf8_lossy(record.expect("a record").value.unwrap_or_default()).into_owned());
        }
    }
    values
}

#[tokio::test]
async fn answers_come_in_the_order_of_the_requests_though_some_take_longer() {
    let broker = start(|_| {}).await;
    let mut client = Client::to(&broker).await;
    client.create_topic("t", 1, &[]).await;
    // A fetch that finds nothing waits; the produce behind it takes effect at once, and wakes it.
    client.send(NAMED_FETCH, 1, &fetch_from("t", 0, 60_000)).await;
    client.send(NAMED_PRODUCE, 2, &produce_to("t", -1, sealed(batch(&["a"])))).await;
    client
        .send(
            4,
            3,
            &api_versions::ApiVersionsRequest {
                client_software_name: "story".into(),
                client_software_version: "1".into(),
            },
        )
        .await;
    let (first, fetched) = client.receive::<fetch::FetchRequest>(NAMED_FETCH).await;
    assert_eq!((first, values(&fetched.responses[0].partitions[0])), (1, vec!["a".to_owned()]));
    assert_eq!(client.receive::<produce::ProduceRequest>(NAMED_PRODUCE).await.0, 2);
    assert_eq!(client.receive::<api_versions::ApiVersionsRequest>(4).await.0, 3);
    broker.stop().await;
}

#[tokio::test]
async fn a_parked_fetch_delays_nobody_else_and_ends_with_its_connection() {
    let broker = start(|_| {}).await;
    let mut parked = Client::to(&broker).await;
    parked.create_topic("t", 1, &[]).await;
    parked.send(NAMED_FETCH, 1, &fetch_from("t", 0, 300_000)).await;
    let mut other = Client::to(&broker).await;
    assert_eq!(
        other.produce("other", 1, sealed(batch(&["x"]))).await.error_code,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0
    );
    drop(parked);
    // The broker stops in order only if nothing keeps the dropped connection alive.
    broker.stop().await;
}

#[tokio::test]
async fn acks_0_gets_no_answer_and_an_error_closes_the_connection() {
    let broker = start(|_| {}).await;
    let mut client = Client::to(&broker).await;
    client.create_topic("t", 1, &[]).await;
    client.send(NAMED_PRODUCE, 1, &produce_to("t", 0, sealed(batch(&["quiet"])))).await;
    assert_eq!(values(&client.fetch("t", 0, 10_000).await), ["quiet"]);
    let in_a_transaction =
        produce::ProduceRequest { transactional_id: Some("tx".into()), ..produce_to("t", 0, sealed(batch(&["lost"]))) };
    let recoded = produce_to("packed", 0, sealed(batch(&["lost"])).slice(..70));
    client.create_topic("packed", 1, &[("compression.type", "zstd")]).await;
    for refused in [produce_to("nowhere", 0, sealed(batch(&["lost"]))), in_a_transaction, recoded] {
        let mut own = Client::to(&broker).await;
        own.send(NAMED_PRODUCE, 2, &refused).await;
        assert!(own.is_closed().await, "no answer, but the end");
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_retried_batch_is_stored_once_and_answered_with_its_first_offset() {
    let broker = start(|_| {}).await;
    let mut client = Client::to(&broker).await;
    client.create_topic("t", 1, &[]).await;
    let id = client
        .ask(init_producer_id::InitProducerIdRequest { producer_id: -1, producer_epoch: -1, ..Default::default() })
        .await;
    assert_eq!(id.error_code, 0);
    let send = |sequence, values: &[&str]| sealed(idempotent(id.producer_id, id.producer_epoch, sequence, values));
    for sequence in 0..6 {
        let stored = client.produce("t", -1, send(sequence, &["v"])).await;
        assert_eq!((stored.error_code, stored.base_offset), (0, i64::from(sequence)));
    }
    let again = client.produce("t", -1, send(2, &["v"])).await;
    assert_eq!((again.error_code, again.base_offset), (0, 2));
    let long_ago = client.produce("t", -1, send(0, &["v"])).await;
    let already = ErrorCode::DUPLICATE_SEQUENCE_NUMBER.0;
    assert_eq!((long_ago.error_code, long_ago.base_offset), (already, -1), "stored, where is forgotten");
    let gap = client.produce("t", -1, send(9, &["v"])).await;
    assert_eq!(gap.error_code, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER.0);
    let old = sealed(idempotent(id.producer_id, id.producer_epoch - 1, 6, &["v"]));
    assert_ne!(client.produce("t", -1, old).await.error_code, 0);
    assert_eq!(client.offset_at(1, "t", -1).await.offset, 6);
    let other = client
        .ask(init_producer_id::InitProducerIdRequest { producer_id: -1, producer_epoch: -1, ..Default::default() })
        .await;
    assert_ne!(other.producer_id, id.producer_id, "ids are given out once");
    broker.stop().await;
}

#[tokio::test]
async fn transactions_are_refused_for_good_not_for_now() {
    let broker = start(|_| {}).await;
    let mut client = Client::to(&broker).await;
    let request = init_producer_id::InitProducerIdRequest {
        transactional_id: Some("tx".into()),
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    let refused = ErrorCode(client.ask(request).await.error_code);
    assert!(refused.is_error() && !refused.is_retriable(), "{refused}");
    let find = find_coordinator::FindCoordinatorRequest {
        key_type: 1,
        coordinator_keys: vec!["tx".into()],
        ..Default::default()
    };
    let refused = ErrorCode(client.ask(find).await.coordinators[0].error_code);
    assert!(refused.is_error() && !refused.is_retriable(), "{refused}");
    broker.stop().await;
}

#[tokio::test]
async fn a_fetch_gives_one_batch_whatever_the_limits_and_waits_for_enough() {
    let broker = start(|_| {}).await;
    let mut client = Client::to(&broker).await;
    client.create_topic("t", 1, &[]).await;
    let large = "x".repeat(5_000);
    for _ in 0..3 {
        client.produce("t", 1, sealed(batch(&[&large]))).await;
    }
    let mut tight = fetch_from("t", 0, 0);
    tight.max_bytes = 1;
    tight.topics[0].partitions[0].partition_max_bytes = 1;
    let fetched = client.ask_in(NAMED_FETCH, tight).await;
    assert_eq!(values(&fetched.responses[0].partitions[0]).len(), 1);
    // More than is there: answered when it has come.
    let mut patient = fetch_from("t", 0, 60_000);
    patient.min_bytes = 16_000;
    client.send(NAMED_FETCH, 9, &patient).await;
    let mut other = Client::to(&broker).await;
    other.produce("t", 1, sealed(batch(&[&large]))).await;
    let (_, fetched) = client.receive::<fetch::FetchRequest>(NAMED_FETCH).await;
    assert_eq!(values(&fetched.responses[0].partitions[0]).len(), 4);
    broker.stop().await;
}

#[tokio::test]
async fn offsets_outside_the_log_and_stale_leader_epochs_are_told_at_once() {
    let broker = start(|_| {}).await;
    let mut client = Client::to(&broker).await;
    client.create_topic("t", 1, &[]).await;
    client.produce("t", -1, sealed(batch(&["a", "b", "c"]))).await;
    assert_eq!(client.fetch("t", 99, 60_000).await.error_code, ErrorCode::OFFSET_OUT_OF_RANGE.0);
    let cut = delete_records::DeleteRecordsRequest {
        topics: vec![delete_records::DeleteRecordsTopic {
            name: "t".into(),
            partitions: vec![delete_records::DeleteRecordsPartition { partition_index: 0, offset: 2 }],
        }],
        timeout_ms: 1_000,
    };
    let cut = client.ask(cut).await.topics.remove(0).partitions.remove(0);
    assert_eq!((cut.error_code, cut.low_watermark), (0, 2));
    let gone = client.fetch("t", 0, 60_000).await;
    assert_eq!((gone.error_code, gone.log_start_offset), (ErrorCode::OFFSET_OUT_OF_RANGE.0, 2));
    assert_eq!(client.offset_at(1, "t", -2).await.offset, 2);
    let epoch = client.offset_at(7, "t", -1).await.leader_epoch;
    for (known, expected) in [(epoch - 1, ErrorCode::FENCED_LEADER_EPOCH), (epoch + 1, ErrorCode::UNKNOWN_LEADER_EPOCH)]
    {
        if known < 0 {
            continue;
        }
        let mut request = fetch_from("t", 2, 60_000);
        request.topics[0].partitions[0].current_leader_epoch = known;
        let answer = client.ask_in(NAMED_FETCH, request).await;
        assert_eq!(answer.responses[0].partitions[0].error_code, expected.0);
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_deleted_topic_wakes_its_polls() {
    let broker = start(|_| {}).await;
    let mut waiting = Client::to(&broker).await;
    let mut other = Client::to(&broker).await;
    other.create_topic("t", 1, &[]).await;
    waiting.send(NAMED_FETCH, 1, &fetch_from("t", 0, 300_000)).await;
    let topics = vec![delete_topics::DeleteTopicState { name: Some("t".into()), ..Default::default() }];
    let request = delete_topics::DeleteTopicsRequest { topics, timeout_ms: 1_000, ..Default::default() };
    assert_eq!(other.ask(request).await.responses[0].error_code, 0);
    let (_, woken) = waiting.receive::<fetch::FetchRequest>(NAMED_FETCH).await;
    assert_eq!(woken.responses[0].partitions[0].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0);
    broker.stop().await;
}

#[tokio::test]
async fn incremental_fetch_sessions_tell_only_what_is_new() {
    let broker = start(|_| {}).await;
    let mut client = Client::to(&broker).await;
    let topic_id = client.create_topic("t", 2, &[]).await;
    let newest = 17;
    let request = |session_id, session_epoch, partitions: &[i32]| fetch::FetchRequest {
        max_bytes: 1 << 20,
        session_id,
        session_epoch,
        topics: if partitions.is_empty() {
            Vec::new()
        } else {
            let partition = |index: &i32| fetch::FetchPartition {
                partition: *index,
                partition_max_bytes: 1 << 20,
                ..Default::default()
            };
            vec![fetch::FetchTopic {
                topic_id,
                partitions: partitions.iter().map(partition).collect(),
                ..Default::default()
            }]
        },
        ..Default::default()
    };
    let first = client.ask_in(newest, request(0, 0, &[0, 1])).await;
    assert_ne!(first.session_id, 0);
    assert_eq!(first.responses[0].partitions.len(), 2);
    let quiet = client.ask_in(newest, request(first.session_id, 1, &[])).await;
    assert!(quiet.responses.is_empty());
    client.produce("t", -1, sealed(batch(&["news"]))).await;
    let news = client.ask_in(newest, request(first.session_id, 2, &[])).await;
    assert_eq!(news.responses[0].partitions.iter().map(|p| p.partition_index).collect::<Vec<_>>(), [0]);
    let code = |response: fetch::FetchResponse| ErrorCode(response.error_code);
    assert_eq!(
        code(client.ask_in(newest, request(first.session_id, 7, &[])).await),
        ErrorCode::INVALID_FETCH_SESSION_EPOCH
    );
    assert_eq!(
        code(client.ask_in(newest, request(first.session_id + 1, 1, &[])).await),
        ErrorCode::FETCH_SESSION_ID_NOT_FOUND
    );
    assert_eq!(
        code(client.ask_in(NAMED_FETCH, request(first.session_id, 3, &[])).await),
        ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR
    );
    broker.stop().await;
}

#[tokio::test]
async fn offsets_are_found_by_time_exactly_also_inside_compressed_batches() {
    let broker = start(|_| {}).await;
    let mut client = Client::to(&broker).await;
    client.create_topic("t", 1, &[]).await;
    let began = now_ms() - 10_000;
    let mut builder = chronik_core::batch::Builder::new(chronik_core::time::Timestamp(began));
    for step in 0..10 {
        let timestamp = Some(chronik_core::time::Timestamp(began + step * 100));
        builder.push(&chronik_core::batch::RecordOut { timestamp, value: Some(b"v"), ..Default::default() });
    }
    let plain = builder.build();
    let packed = chronik_api::compression::deflate(Compression::Zstd, &plain.records, None).expect("it compresses");
    let packed = plain.with_records(Compression::Zstd, packed);
    client.produce("t", -1, sealed(packed)).await;
    client.produce("t", -1, sealed(batch_at(began + 5_000, &["last"]))).await;
    let at = |found: list_offsets::ListOffsetsPartitionResponse| (found.offset, found.timestamp - began);
    assert_eq!(at(client.offset_at(1, "t", began + 250).await), (3, 300));
    assert_eq!(at(client.offset_at(1, "t", began + 900).await), (9, 900));
    assert_eq!(at(client.offset_at(1, "t", began + 901).await), (10, 5_000));
    assert_eq!(client.offset_at(1, "t", began + 5_001).await.offset, -1);
    assert_eq!(at(client.offset_at(7, "t", -3).await), (10, 5_000));
    assert_eq!(client.offset_at(1, "t", -3).await.error_code, ErrorCode::UNSUPPORTED_VERSION.0);
    assert_eq!((client.offset_at(1, "t", -1).await.offset, client.offset_at(1, "t", -2).await.offset), (11, 0));
    assert_eq!((client.offset_at(8, "t", -4).await.offset, client.offset_at(9, "t", -5).await.offset), (0, -1));
    assert_eq!(client.offset_at(11, "t", -6).await.offset, -1);
    broker.stop().await;
}

#[tokio::test]
async fn what_lies_in_files_is_answered_from_there_and_reads_the_same() {
    // Not where temporary files go, which may be a file system that cannot say what of a file is in memory.
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let on_disk = |sends_from_files: bool| {
        let data_dir = home.path().join(if sends_from_files { "sent" } else { "read" });
        move |config: &mut Config| {
            config.storage.engine = Engine::Segment;
            config.storage.segment.tail_cache_bytes = ByteSize(1);
            config.storage.segment.send_from_files = sends_from_files;
            config.node.data_dir = data_dir;
            config.admin.enabled = true;
            config.admin.listen.port = 0;
        }
    };
    let large = "x".repeat(50_000);
    let value = |number: usize| if number % 5 == 4 { format!("{number}") } else { format!("{number} {large}") };
    let written: Vec<_> = (0..60).map(value).collect();
    for sends_from_files in [true, false] {
        let broker = start(on_disk(sends_from_files)).await;
        let mut client = Client::to(&broker).await;
        client.create_topic("t", 1, &[]).await;
        for value in &written {
            assert_eq!(client.produce("t", -1, sealed(batch(&[value]))).await.error_code, 0);
        }
        // One run may be told to lie in a file, and a small one follows it: who waits for more is not left waiting.
        let impatient = fetch::FetchRequest { min_bytes: 60_000, ..fetch_from("t", 3, 600_000) };
        let mut answer = client.ask_in(NAMED_FETCH, impatient).await;
        let found = values(&answer.responses.remove(0).partitions.remove(0));
        assert!(found.iter().map(String::len).sum::<usize>() >= 60_000, "{} records", found.len());
        let mut found = Vec::new();
        while found.len() < written.len() {
            let fetched = client.fetch("t", found.len() as i64, 10_000).await;
            assert_eq!((fetched.error_code, fetched.high_watermark), (0, 60));
            found.extend(values(&fetched));
        }
        assert_eq!(found, written, "send_from_files = {sends_from_files}");
        let metrics = broker.metrics().await;
        let sent = metrics.lines().find_map(|line| line.strip_prefix("chronik_sent_from_files_bytes_total "));
        let sent: u64 = sent.and_then(|bytes| bytes.parse().ok()).expect("it is counted");
        assert_eq!(sent > 0, sends_from_files, "{sent} bytes went out from files");
        broker.stop().await;
    }
}

#[tokio::test]
async fn a_topic_may_want_another_codec_or_the_brokers_clock() {
    let broker = start(|_| {}).await;
    let mut client = Client::to(&broker).await;
    for codec in ["gzip", "snappy", "lz4", "zstd", "uncompressed"] {
        let name = format!("as-{codec}");
        client.create_topic(&name, 1, &[("compression.type", codec)]).await;
        let plain = batch(&["one", "two"]);
        let packed = chronik_api::compression::deflate(Compression::Gzip, &plain.records, None).expect("it compresses");
        client.produce(&name, -1, sealed(plain.with_records(Compression::Gzip, packed))).await;
        let fetched = client.fetch(&name, 0, 10_000).await.records.expect("records").to_bytes();
        let stored = batches(&Payload::from(fetched)).next().expect("a batch").expect("whole");
        let expected = Compression::from_name(codec).unwrap_or(Compression::None);
        assert_eq!(stored.header.attributes.compression(), Some(expected));
        assert!(stored.is_intact());
    }
    client.create_topic("ours", 1, &[("message.timestamp.type", "LogAppendTime")]).await;
    let before = now_ms();
    let stored = client.produce("ours", -1, sealed(batch_at(12_345, &["v"]))).await;
    assert!(stored.log_append_time_ms >= before);
    assert_eq!(client.offset_at(1, "ours", before).await.offset, 0);
    broker.stop().await;
}

#[tokio::test]
async fn bad_batches_are_refused_each_with_its_own_code_and_change_nothing() {
    let broker = start(|_| {}).await;
    let mut client = Client::to(&broker).await;
    client.create_topic("t", 1, &[("max.message.bytes", "2000")]).await;
    client.create_topic("keyed", 1, &[("cleanup.policy", "compact")]).await;
    let good = batch(&["a", "b", "c"]);
    let altered = |change: fn(&mut chronik_core::batch::Batch)| {
        let mut batch = good.clone();
        change(&mut batch);
        sealed(batch)
    };
    let mut flipped = sealed(good.clone()).to_vec();
    *flipped.last_mut().expect("bytes") ^= 1;
    let mut short_length = sealed(good.clone()).to_vec();
    short_length[8..12].copy_from_slice(&10i32.to_be_bytes());
    let mut old_magic = sealed(good.clone()).to_vec();
    old_magic[16] = 1;
    let mut unknown_magic = sealed(good.clone()).to_vec();
    unknown_magic[16] = 9;
    let cut = sealed(good.clone());
    let cut = cut.slice(..cut.len() - 3);
    let cases: Vec<(&str, Bytes, ErrorCode)> = vec![
        ("bad checksum", flipped.into(), ErrorCode::CORRUPT_MESSAGE),
        ("length below the header's", short_length.into(), ErrorCode::CORRUPT_MESSAGE),
        ("unknown version", unknown_magic.into(), ErrorCode::CORRUPT_MESSAGE),
        ("old version", old_magic.into(), ErrorCode::INVALID_RECORD),
        ("cut short", cut, ErrorCode::CORRUPT_MESSAGE),
        ("no batch", Bytes::new(), ErrorCode::INVALID_RECORD),
        ("two batches", [sealed(good.clone()), sealed(good.clone())].concat().into(), ErrorCode::INVALID_RECORD),
        ("too large", sealed(batch(&[&"x".repeat(3_000)])), ErrorCode::MESSAGE_TOO_LARGE),
        (
            "count above the records",
            altered(|b| (b.header.records_count, b.header.last_offset_delta) = (4, 3)),
            ErrorCode::INVALID_RECORD,
        ),
        (
            "count below the records",
            altered(|b| (b.header.records_count, b.header.last_offset_delta) = (2, 1)),
            ErrorCode::INVALID_RECORD,
        ),
        ("offset delta", altered(|b| b.header.last_offset_delta = 7), ErrorCode::INVALID_RECORD),
        (
            "no records",
            altered(|b| (b.header.records_count, b.header.last_offset_delta) = (0, -1)),
            ErrorCode::INVALID_RECORD,
        ),
        ("control batch", altered(|b| b.header.attributes.0 |= 0x20), ErrorCode::INVALID_RECORD),
        ("unknown codec", altered(|b| b.header.attributes.0 |= 0x07), ErrorCode::INVALID_RECORD),
        ("far future", sealed(batch_at(now_ms() + 7_200_000, &["v"])), ErrorCode::INVALID_TIMESTAMP),
    ];
    for (what, records, expected) in cases {
        let refused = client.produce("t", -1, records).await;
        assert_eq!(ErrorCode(refused.error_code), expected, "{what}: {:?}", refused.error_message);
        assert!(refused.error_message.is_some(), "{what} is refused without a reason");
    }
    let keyless = client.produce("keyed", -1, sealed(good.clone())).await;
    assert_eq!(ErrorCode(keyless.error_code), ErrorCode::INVALID_RECORD);
    assert_eq!(keyless.record_errors.iter().map(|record| record.batch_index).collect::<Vec<_>>(), [0, 1, 2]);
    let refused = client.ask_in(NAMED_PRODUCE, produce_to("t", 5, sealed(good.clone()))).await;
    assert_eq!(refused.responses[0].partition_responses[0].error_code, ErrorCode::INVALID_REQUIRED_ACKS.0);
    assert_eq!(client.offset_at(1, "t", -1).await.offset, 0, "nothing was stored");
    assert_eq!(client.produce("t", -1, sealed(good)).await.error_code, 0);
    broker.stop().await;
}

#[tokio::test]
async fn zstd_needs_a_client_that_knows_it() {
    let broker = start(|_| {}).await;
    let mut client = Client::to(&broker).await;
    client.create_topic("t", 1, &[]).await;
    let plain = batch(&["v"]);
    let packed = chronik_api::compression::deflate(Compression::Zstd, &plain.records, None).expect("it compresses");
    let packed = sealed(plain.with_records(Compression::Zstd, packed));
    let old = client.ask_in(6, produce_to("t", -1, packed.clone())).await;
    assert_eq!(old.responses[0].partition_responses[0].error_code, ErrorCode::UNSUPPORTED_COMPRESSION_TYPE.0);
    let new = client.ask_in(7, produce_to("t", -1, packed)).await;
    assert_eq!(new.responses[0].partition_responses[0].error_code, 0);
    broker.stop().await;
}

#[tokio::test]
async fn a_batch_that_is_small_enough_only_while_it_is_packed_is_too_large() {
    let broker = start(|_| {}).await;
    let mut client = Client::to(&broker).await;
    client.create_topic("t", 1, &[("compression.type", "uncompressed"), ("max.message.bytes", "2000")]).await;
    client.create_topic("as-it-comes", 1, &[("max.message.bytes", "2000")]).await;
    let plain = batch(&[&"x".repeat(3_000)]);
    let packed = chronik_api::compression::deflate(Compression::Gzip, &plain.records, None).expect("it compresses");
    let packed = sealed(plain.with_records(Compression::Gzip, packed));
    assert!(packed.len() < 2_000);
    let refused = client.produce("t", -1, packed.clone()).await;
    assert_eq!(ErrorCode(refused.error_code), ErrorCode::MESSAGE_TOO_LARGE, "{:?}", refused.error_message);
    assert_eq!(client.offset_at(1, "t", -1).await.offset, 0, "nothing was stored");
    assert_eq!(client.produce("as-it-comes", -1, packed).await.error_code, 0);
    broker.stop().await;
}

#[tokio::test]
async fn a_bomb_is_not_inflated_beyond_the_cap() {
    let broker =
        start(|config| config.limits.inflated_batch_bytes = chronik_api::config::units::ByteSize::mib(1)).await;
    let mut client = Client::to(&broker).await;
    client.create_topic("t", 1, &[("compression.type", "uncompressed"), ("max.message.bytes", "100000000")]).await;
    let zeros = Bytes::from(vec![0u8; 64 << 20]);
    let plain = batch(&["v"]);
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let bomb = chronik_api::compression::deflate(codec, &zeros, None).expect("it compresses");
        let bomb = sealed(plain.clone().with_records(codec, bomb));
        assert_eq!(
            ErrorCode(client.produce("t", -1, bomb).await.error_code),
            ErrorCode::MESSAGE_TOO_LARGE,
            "{codec:?}"
        );
    }
    broker.stop().await;
}

#[tokio::test]
async fn metadata_of_every_version_creates_on_demand_and_tells_none_from_all() {
    let broker = start(|_| {}).await;
    let mut client = Client::to(&broker).await;
    let asked = |name: &str| metadata::MetadataRequest {
        topics: Some(vec![metadata::MetadataRequestTopic { name: Some(name.into()), ..Default::default() }]),
        ..Default::default()
    };
    for version in 0..=13 {
        let name = format!("made-by-{version}");
        let answer = client.ask_in(version, asked(&name)).await;
        assert_eq!((answer.topics[0].error_code, answer.topics[0].partitions.len()), (0, 1), "version {version}");
        // Usable at once.
        assert_eq!(client.produce(&name, -1, sealed(batch(&["v"]))).await.error_code, 0);
    }
    let all = client.ask_in(0, metadata::MetadataRequest { topics: Some(Vec::new()), ..Default::default() }).await;
    assert_eq!(all.topics.len(), 14);
    let none = client.ask_in(1, metadata::MetadataRequest { topics: Some(Vec::new()), ..Default::default() }).await;
    assert!(none.topics.is_empty());
    let all = client.ask_in(13, metadata::MetadataRequest { topics: None, ..Default::default() }).await;
    assert_eq!(all.topics.len(), 14);
    assert!(all.topics.iter().all(|topic| topic.topic_authorized_operations == i32::MIN));
    let forbidden = metadata::MetadataRequest { allow_auto_topic_creation: false, ..asked("not-made") };
    assert_eq!(client.ask_in(9, forbidden).await.topics[0].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0);
    for bad in ["../x", ".", "..", "", "a/b", "nul\0", "ünïcode", &"x".repeat(250)] {
        let answer = client.ask_in(9, asked(bad)).await;
        assert_eq!(ErrorCode(answer.topics[0].error_code), ErrorCode::INVALID_TOPIC_EXCEPTION, "{bad:?}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_client_that_is_too_new_is_told_what_is_spoken() {
    let broker = start(|_| {}).await;
    let mut client = Client::to(&broker).await;
    // ApiVersions in version 99, with a body that nobody knows yet.
    let mut frame = vec![0, 18, 0, 99, 0, 0, 0, 5, 0xff, 0xff];
    frame.extend_from_slice(b"whatever");
    client.0.write_all(&(frame.len() as i32).to_be_bytes()).await.expect("sent");
    client.0.write_all(&frame).await.expect("sent");
    let (correlation_id, answer) = client.receive::<api_versions::ApiVersionsRequest>(0).await;
    assert_eq!((correlation_id, answer.error_code), (5, ErrorCode::UNSUPPORTED_VERSION.0));
    assert_eq!(answer.api_keys.iter().map(|api| (api.api_key, api.max_version)).collect::<Vec<_>>(), [(18, 4)]);
    // And may go on in one that is.
    let request =
        api_versions::ApiVersionsRequest { client_software_name: "s".into(), client_software_version: "1".into() };
    let answer = client.ask_in(3, request).await;
    let produce = answer.api_keys.iter().find(|api| api.api_key == 0).expect("it is served");
    assert_eq!(
        (produce.min_version, produce.max_version),
        (0, 13),
        "old versions are named so that librdkafka compresses"
    );
    assert!(
        answer.finalized_features_epoch >= 0 && answer.finalized_features.iter().any(|f| f.name == "metadata.version")
    );
    broker.stop().await;
}

#[tokio::test]
async fn retention_by_size_drops_old_segments_and_keeps_producers() {
    let small = |config: &mut chronik_api::config::Config| {
        config.topics.retention_check_interval_ms = chronik_api::config::units::Millis(50);
    };
    let broker = start(small).await;
    let mut client = Client::to(&broker).await;
    client.create_topic("t", 1, &[("segment.bytes", "1048576"), ("retention.bytes", "2000000")]).await;
    let large = "x".repeat(100_000);
    for sequence in 0..60 {
        let stored = client.produce("t", -1, sealed(idempotent(77, 0, sequence, &[&large]))).await;
        assert_eq!(stored.error_code, 0);
    }
    let mut start_offset = 0;
    for _ in 0..600 {
        start_offset = client.offset_at(1, "t", -2).await.offset;
        if start_offset > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(start_offset > 0, "old records go in the end");
    let again = client.produce("t", -1, sealed(idempotent(77, 0, 57, &[&large]))).await;
    assert_eq!((again.error_code, again.base_offset), (0, 57), "the producer's window outlives its segments");
    broker.stop().await;
}
