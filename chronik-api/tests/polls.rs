//! Long polls and what they hold: memory, a place in a queue, and nobody else's time.

mod broker;

use broker::*;
use chronik_api::config::Config;
use chronik_api::config::units::ByteSize;
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::*;
use std::time::Duration;

const MIB: usize = 1 << 20;
/// None of these stories waits for a time-out; one that does has failed.
const LONG_MS: i32 = 300_000;

/// Half of it is for answers: four of them, as they are asked for here.
fn little_memory(config: &mut Config) {
    config.limits.memory_bytes = ByteSize::mib(8);
}

/// A topic whose partitions hold a batch of a megabyte each.
async fn full_topic(client: &mut Client, name: &str, partitions: i32) {
    client.create_topic(name, partitions, &[("max.message.bytes", "2000000")]).await;
    let records = sealed(batch(&[&"x".repeat(MIB - 1000)]));
    for index in 0..partitions {
        let mut request = produce_to(name, 1, records.clone());
        request.topic_data[0].partition_data[0].index = index;
        let answer = client.ask_in(NAMED_PRODUCE, request).await;
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    }
}

/// Asks for a megabyte of each of these partitions.
fn fetch_of(topic: &str, partitions: i32, min_bytes: i32) -> fetch::FetchRequest {
    let mut request = fetch_from(topic, 0, LONG_MS);
    request.min_bytes = min_bytes;
    request.max_bytes = i32::MAX;
    let one = request.topics[0].partitions[0].clone();
    request.topics[0].partitions =
        (0..partitions).map(|partition| fetch::FetchPartition { partition, ..one.clone() }).collect();
    request
}

fn bytes_of(answer: &fetch::FetchResponse) -> usize {
    let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|partition| partition.records.as_ref().map_or(0, |records| records.to_bytes().len())).sum()
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(60), future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} waits for what will not come"),
    }
}

#[tokio::test]
async fn who_asks_for_more_than_there_is_memory_for_gets_what_there_is() {
    let broker = start(little_memory).await;
    let mut client = Client::to(&broker).await;
    full_topic(&mut client, "t", 8).await;
    // Alone, and with others that ask for the same at the same time: each gets something, and nobody waits for what
    // the others hold while they wait for what it holds.
    let answer = soon("one fetch", client.ask_in(NAMED_FETCH, fetch_of("t", 8, 1))).await;
    assert!((MIB - 1000..=4 * MIB).contains(&bytes_of(&answer)), "{} bytes", bytes_of(&answer));
    assert_eq!(answer.responses[0].partitions.len(), 8, "the others are answered too, without records");
    let mut others = Vec::new();
    for _ in 0..8 {
        let mut other = Client::to(&broker).await;
        other.send(NAMED_FETCH, 1, &fetch_of("t", 8, 1)).await;
        others.push(other);
    }
    for mut other in others {
        let (_, answer) = soon("one fetch of several", other.receive::<fetch::FetchRequest>(NAMED_FETCH)).await;
        assert!(bytes_of(&answer) >= MIB - 1000);
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_poll_that_waits_for_more_holds_nothing_of_what_is_there() {
    let broker = start(little_memory).await;
    let mut client = Client::to(&broker).await;
    full_topic(&mut client, "t", 4).await;
    let mut patient = Client::to(&broker).await;
    patient.send(NAMED_FETCH, 1, &fetch_of("t", 4, i32::MAX)).await;
    let answer = soon("a fetch beside a patient one", client.ask_in(NAMED_FETCH, fetch_of("t", 1, 1))).await;
    assert!(bytes_of(&answer) >= MIB - 1000);
    drop(patient);
    broker.stop().await;
}

#[tokio::test]
async fn answers_that_wait_for_an_earlier_one_are_not_made_before_their_turn() {
    let broker = start(little_memory).await;
    let mut client = Client::to(&broker).await;
    full_topic(&mut client, "t", 1).await;
    client.create_topic("empty", 1, &[]).await;
    let mut greedy = Client::to(&broker).await;
    greedy.send(NAMED_FETCH, 0, &fetch_of("empty", 1, 1)).await;
    for correlation_id in 1..=8 {
        greedy.send(NAMED_FETCH, correlation_id, &fetch_of("t", 1, 1)).await;
    }
    let answer = soon("a fetch beside a greedy one", client.ask_in(NAMED_FETCH, fetch_of("t", 1, 1))).await;
    assert!(bytes_of(&answer) >= MIB - 1000);
    // They do come in the end, in order.
    client.produce("empty", 1, sealed(batch(&["at last"]))).await;
    for expected in 0..=8 {
        let (correlation_id, answer) = soon("its turn", greedy.receive::<fetch::FetchRequest>(NAMED_FETCH)).await;
        assert_eq!(correlation_id, expected);
        assert!(bytes_of(&answer) > 0);
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_deleted_topic_is_told_to_sessions_and_to_those_who_name_it_by_its_id() {
    let broker = start(|_| {}).await;
    let mut client = Client::to(&broker).await;
    let topic_id = client.create_topic("t", 1, &[]).await;
    let newest = *<fetch::FetchRequest as chronik_proto_kafka::Request>::VERSIONS.end();
    let mut request = fetch_from("", 0, 0);
    request.topics[0].topic_id = topic_id;
    request.session_epoch = 0;
    let mut waiting = Client::to(&broker).await;
    let session = waiting.ask_in(newest, request).await.session_id;
    assert_ne!(session, 0);
    let waits = fetch::FetchRequest {
        session_id: session,
        session_epoch: 1,
        max_wait_ms: LONG_MS,
        min_bytes: 1,
        max_bytes: 1 << 20,
        ..Default::default()
    };
    waiting.send(newest, 1, &waits).await;
    let topics = vec![delete_topics::DeleteTopicState { name: Some("t".into()), ..Default::default() }];
    let request = delete_topics::DeleteTopicsRequest { topics, timeout_ms: 1_000, ..Default::default() };
    assert_eq!(client.ask(request).await.responses[0].error_code, 0);
    let (_, woken) = soon("a poll of a deleted topic", waiting.receive::<fetch::FetchRequest>(newest)).await;
    assert_eq!(woken.error_code, 0);
    assert_eq!(woken.responses[0].topic_id, topic_id);
    assert_eq!(woken.responses[0].partitions[0].error_code, ErrorCode::UNKNOWN_TOPIC_ID.0);
    broker.stop().await;
}
