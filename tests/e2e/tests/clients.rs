//! Each client writes with every codec it has; each client reads what all of them wrote.

use chronik_e2e::broker::Broker;
use chronik_e2e::client::{self, Client, is_missing};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
/// Enough that every kind of record is in it (without a key, without a value), and more than one batch.
const RECORDS: usize = 150;

/// What names a record: topic, key and value. Partition and offset are the broker's.
type Told = (String, Option<String>, Option<String>, Vec<(String, String)>, i64);

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis() as i64
}

fn told(event: &Value) -> Told {
    let text = |value: &Value| value.as_str().map(String::from);
    let mut headers: Vec<_> = event["headers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|header| (text(&header[0]).unwrap_or_default(), text(&header[1]).unwrap_or_default()))
        .collect();
    headers.sort();
    (
        text(&event["topic"]).unwrap_or_default(),
        text(&event["key"]),
        text(&event["value"]),
        headers,
        event["timestamp"].as_i64().unwrap_or(-1),
    )
}

fn expected(topic: &str, prefix: &str, first_timestamp: i64) -> impl Iterator<Item = Told> {
    (0..RECORDS as i64).map(move |i| {
        let key = (i % 50 != 48).then(|| format!("{prefix}-key-{i}"));
        let value = (i % 50 != 49).then(|| format!("{prefix}-value-{i}-{}", "chronik ".repeat(16)));
        let headers = vec![("number".to_string(), i.to_string()), ("origin".to_string(), prefix.to_string())];
        (topic.to_string(), key, value, headers, first_timestamp + i)
    })
}

fn produce(client: &Client, broker: &Broker, topic: &str, first_timestamp: i64) -> Vec<Told> {
    let mut all = Vec::new();
    for (n, codec) in CODECS.into_iter().enumerate() {
        let prefix = format!("{}-{codec}", client.name);
        // Every other one idempotent: both ways of writing with every client.
        let idempotent = if n % 2 == 0 { "true" } else { "false" };
        let (timestamp, count) = (first_timestamp.to_string(), RECORDS.to_string());
        let options = [
            ("topic", topic),
            ("codec", codec),
            ("prefix", &prefix),
            ("count", &count),
            ("first-timestamp", &timestamp),
            ("idempotent", idempotent),
        ];
        let events = client.run("produce", &broker.bootstrap(), &options);
        assert_eq!(events.last().map(|e| &e["count"]), Some(&json!(RECORDS)), "{} {codec}: {events:?}", client.name);
        all.extend(expected(topic, &prefix, first_timestamp));
    }
    all
}

/// kcat writes lines: a key, a value and the same headers for all; its timestamps are its own.
fn produce_with_kcat(broker: &Broker, topic: &str) -> Vec<Told> {
    let mut all = Vec::new();
    for codec in CODECS {
        let lines: String = (0..RECORDS).map(|i| format!("kcat-{codec}-{i}:value {i}\n")).collect();
        let bootstrap = broker.bootstrap();
        let words =
            ["kcat", "-P", "-b", &bootstrap, "-t", topic, "-z", codec, "-K:", "-H", "origin=kcat", "-X", "acks=all"];
        let output = client::run(&words.map(String::from), lines.as_bytes());
        assert!(output.ok, "{}", output.stderr);
        all.extend((0..RECORDS).map(|i| {
            let headers = vec![("origin".to_string(), "kcat".to_string())];
            (topic.to_string(), Some(format!("kcat-{codec}-{i}")), Some(format!("value {i}")), headers, 0)
        }));
    }
    all
}

fn consume_with_kcat(broker: &Broker, topic: &str) -> Vec<Told> {
    let bootstrap = broker.bootstrap();
    let words = ["kcat", "-C", "-b", &bootstrap, "-t", topic, "-o", "beginning", "-e", "-J", "-u"];
    let output = client::run(&words.map(String::from), b"");
    assert!(output.ok, "{}", output.stderr);
    let records = output.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("kcat prints JSON"));
    records
        .map(|record| {
            let flat = record["headers"].as_array().cloned().unwrap_or_default();
            let headers: Vec<_> = flat.chunks(2).map(|pair| json!([pair[0], pair[1]])).collect();
            told(&json!({
                "topic": record["topic"],
                "key": record["key"],
                "value": record["payload"],
                "headers": headers,
                "timestamp": record["ts"],
            }))
        })
        .collect()
}

fn counted(records: impl IntoIterator<Item = Told>) -> BTreeMap<Told, usize> {
    let mut counts = BTreeMap::new();
    for mut record in records {
        if record.0 == "from-kcat" {
            record.4 = 0;
        }
        *counts.entry(record).or_default() += 1;
    }
    counts
}

/// Says what differs, not all that is there.
fn compare(reader: &str, read: &BTreeMap<Told, usize>, written: &BTreeMap<Told, usize>) {
    let missing: Vec<_> = written.iter().filter(|(r, n)| read.get(r) != Some(n)).take(5).collect();
    let foreign: Vec<_> = read.iter().filter(|(r, n)| written.get(r) != Some(n)).take(5).collect();
    assert!(
        missing.is_empty() && foreign.is_empty(),
        "{reader}: not read as written: {missing:#?}\nread: {foreign:#?}"
    );
}

#[test]
#[ignore = "run by tests/run"]
fn every_client_reads_what_every_client_wrote_with_every_codec() {
    let broker = Broker::with(&["topics.default_partitions=3"]);
    let first_timestamp = now_ms();
    let clients = client::all();
    let mut written = Vec::new();
    let mut topics = Vec::new();
    for client in &clients {
        let topic = format!("from-{}", client.name);
        written.extend(produce(client, &broker, &topic, first_timestamp));
        topics.push(topic);
    }
    let has_kcat = !is_missing("kcat");
    if has_kcat {
        written.extend(produce_with_kcat(&broker, "from-kcat"));
        topics.push("from-kcat".into());
    }
    let count = written.len().to_string();
    let written = counted(written);
    for client in &clients {
        let events = client.run("consume", &broker.bootstrap(), &[("topics", &topics.join(",")), ("count", &count)]);
        let records = events.iter().filter(|event| event["event"] == "record");
        compare(client.name, &counted(records.map(told)), &written);
    }
    if has_kcat {
        let read = topics.iter().flat_map(|topic| consume_with_kcat(&broker, topic));
        compare("kcat", &counted(read), &written);
    }
}

#[test]
#[ignore = "run by tests/run"]
fn what_was_written_is_read_after_a_stop_and_after_a_kill() {
    let mut broker = Broker::start();
    let Some(client) = client::client("librdkafka") else { return };
    let first_timestamp = now_ms();
    let mut written = produce(&client, &broker, "kept", first_timestamp);
    assert!(broker.terminate().success(), "a broker that is told to stop ends well");
    broker.restart();
    written.extend(produce(&client, &broker, "kept", first_timestamp));
    broker.kill();
    broker.restart();
    let count = written.len().to_string();
    let events = client.run("consume", &broker.bootstrap(), &[("topics", "kept"), ("count", &count)]);
    let read = counted(events.iter().filter(|event| event["event"] == "record").map(told));
    compare("librdkafka", &read, &counted(written));
}
