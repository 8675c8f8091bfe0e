//! librdkafka through the `rdkafka` crate. Commands: see `clients/python/story.py`, which all client programs follow.

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigResourceResult, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::util::Timeout;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::future::Future;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);
const BRIEF: Duration = Duration::from_secs(30);

struct Options(HashMap<String, String>);

impl Options {
    fn get(&self, name: &str) -> &str {
        self.find(name).unwrap_or_else(|| panic!("--{name} is missing"))
    }

    fn find(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> i64 {
        self.get(name).parse().unwrap_or_else(|_| panic!("--{name} is no number"))
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.get("bootstrap"));
        config
    }
}

fn main() {
    let mut words = std::env::args().skip(1);
    let command = words.next().expect("a command");
    let mut options = HashMap::new();
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        options.insert(name.trim_start_matches("--").to_string(), value);
    }
    let o = Options(options);
    match command.as_str() {
        "produce" => produce(&o),
        "consume" => consume(&o),
        "group" => group(&o),
        "lines" => lines(&o),
        "commit" => commit(&o),
        "committed" => committed(&o),
        "admin" => admin(&o),
        _ => panic!("no such command: {command}"),
    }
}

fn emit(event: Value) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{event}").and_then(|()| out.flush()).expect("standard output is open");
}

/// Counts what was delivered, and what was not.
#[derive(Default)]
struct Deliveries {
    acked: AtomicU64,
    refused: AtomicU64,
    tells: bool,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let acked = self.acked.fetch_add(1, Ordering::Relaxed) + 1;
        if self.tells && acked.is_multiple_of(50_000) {
            emit(json!({"event": "progress", "acked": acked}));
        }
    }
}

fn producer(o: &Options, idempotent: bool, tells: bool) -> BaseProducer<Deliveries> {
    o.config()
        .set("compression.type", o.get("codec"))
        .set("enable.idempotence", if idempotent { "true" } else { "false" })
        .set("linger.ms", "20")
        .set("queue.buffering.max.messages", "200000")
        // A broker that is killed and restarted is waited for.
        .set("message.timeout.ms", "600000")
        .create_with_context(Deliveries { tells, ..Deliveries::default() })
        .expect("a producer")
}

fn send(producer: &BaseProducer<Deliveries>, mut record: BaseRecord<'_, [u8], [u8]>) {
    while let Err((error, back)) = producer.send(record) {
        assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
        record = back;
        producer.poll(Duration::from_millis(100));
    }
}

fn finish(producer: &BaseProducer<Deliveries>) {
    producer.flush(Duration::from_secs(600)).expect("everything is delivered");
    let counts = producer.context();
    emit(json!({
        "event": "produced",
        "count": counts.acked.load(Ordering::Relaxed),
        "refused": counts.refused.load(Ordering::Relaxed),
    }));
}

fn produce(o: &Options) {
    let producer = producer(o, o.find("idempotent") == Some("true"), false);
    let prefix = o.get("prefix");
    for i in 0..o.number("count") {
        let key = format!("{prefix}-key-{i}");
        let value = format!("{prefix}-value-{i}-{}", "chronik ".repeat(16));
        let number = i.to_string();
        let headers = OwnedHeaders::new()
            .insert(Header { key: "origin", value: Some(prefix) })
            .insert(Header { key: "number", value: Some(&number) });
        let mut record =
            BaseRecord::<[u8], [u8]>::to(o.get("topic")).timestamp(o.number("first-timestamp") + i).headers(headers);
        if i % 50 != 48 {
            record = record.key(key.as_bytes());
        }
        if i % 50 != 49 {
            record = record.payload(value.as_bytes());
        }
        send(&producer, record);
    }
    finish(&producer);
}

fn lines(o: &Options) {
    let producer = producer(o, true, true);
    for line in BufReader::new(File::open(o.get("file")).expect("the file of lines")).split(b'\n') {
        send(&producer, BaseRecord::to(o.get("topic")).payload(&line.expect("a readable file")));
        producer.poll(Duration::ZERO);
    }
    finish(&producer);
}

fn show(message: &BorrowedMessage<'_>) -> Value {
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let headers: Vec<_> = message
        .headers()
        .map(|headers| headers.iter().map(|h| json!([h.key, text(h.value)])).collect())
        .unwrap_or_default();
    json!({
        "event": "record",
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": message.timestamp().to_millis(),
        "key": text(message.key()),
        "value": text(message.payload()),
        "headers": headers,
    })
}

fn consume(o: &Options) {
    let consumer: BaseConsumer = o.config().set("group.id", "unused").create().expect("a consumer");
    let mut all = TopicPartitionList::new();
    for topic in o.get("topics").split(',') {
        let metadata = consumer.fetch_metadata(Some(topic), BRIEF).expect("metadata");
        for partition in metadata.topics()[0].partitions() {
            all.add_partition_offset(topic, partition.id(), Offset::Beginning).expect("a valid offset");
        }
    }
    consumer.assign(&all).expect("an assignment");
    let (mut count, end) = (0, Instant::now() + PATIENCE);
    while count < o.number("count") && Instant::now() < end {
        if let Some(message) = consumer.poll(Duration::from_millis(500)) {
            emit(show(&message.expect("a readable record")));
            count += 1;
        }
    }
    emit(json!({"event": "end", "count": count}));
}

/// Tells of assignments, eager and cooperative alike.
#[derive(Default)]
struct Member {
    held: Mutex<BTreeSet<(String, i32)>>,
}

impl ClientContext for Member {}

impl Member {
    fn names(partitions: &TopicPartitionList) -> BTreeSet<(String, i32)> {
        partitions.elements().iter().map(|e| (e.topic().to_string(), e.partition())).collect()
    }
}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            let revoked = Self::names(partitions);
            self.held.lock().expect("no holder of it panics").retain(|one| !revoked.contains(one));
            emit(json!({"event": "revoked", "partitions": revoked}));
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(partitions) = rebalance {
            let mut held = self.held.lock().expect("no holder of it panics");
            held.extend(Self::names(partitions));
            emit(json!({"event": "assigned", "partitions": *held}));
        }
    }
}

fn group(o: &Options) {
    let mut config = o.config();
    config
        .set("group.id", o.get("group"))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "300")
        .set("partition.assignment.strategy", o.find("strategy").unwrap_or("range"));
    if let Some(instance) = o.find("instance") {
        config.set("group.instance.id", instance);
    }
    let consumer: BaseConsumer<Member> = config.create_with_context(Member::default()).expect("a consumer");
    consumer.subscribe(&o.get("topics").split(',').collect::<Vec<_>>()).expect("a subscription");
    let leave = Arc::new(AtomicBool::new(false));
    let told = leave.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().lines().map_while(Result::ok).find(|line| line.trim() == "leave");
        told.store(true, Ordering::Relaxed);
    });
    let mut out = o.find("out").map(|path| {
        BufWriter::new(File::options().create(true).append(true).open(path).expect("the file for records"))
    });
    while !leave.load(Ordering::Relaxed) {
        let until = Instant::now() + Duration::from_millis(200);
        let mut read = 0;
        while read < 5000 && Instant::now() < until {
            match consumer.poll(Duration::from_millis(50)) {
                None => {}
                Some(Err(error)) => emit(json!({"event": "warning", "text": error.to_string()})),
                Some(Ok(message)) => {
                    read += 1;
                    match &mut out {
                        None => emit(show(&message)),
                        Some(out) => {
                            write!(out, "{}\t{}\t", message.partition(), message.offset())
                                .and_then(|()| out.write_all(message.payload().unwrap_or_default()))
                                .and_then(|()| out.write_all(b"\n"))
                                .expect("room for records");
                        }
                    }
                }
            }
        }
        if let Some(out) = &mut out {
            out.flush().expect("room for records");
        }
        if read > 0
            && let Err(error) = consumer.commit_consumer_state(CommitMode::Sync)
        {
            emit(json!({"event": "warning", "text": error.to_string()}));
        }
    }
    drop(consumer);
    emit(json!({"event": "left"}));
}

fn commit(o: &Options) {
    let consumer: BaseConsumer = o.config().set("group.id", o.get("group")).create().expect("a consumer");
    let mut at = TopicPartitionList::new();
    let mut one = at.add_partition(o.get("topic"), o.number("partition") as i32);
    one.set_offset(Offset::Offset(o.number("offset"))).expect("a valid offset");
    one.set_metadata(o.find("metadata").unwrap_or_default());
    consumer.commit(&at, CommitMode::Sync).expect("a commit");
    emit(json!({"event": "committed", "offset": o.number("offset"), "metadata": o.find("metadata")}));
}

fn committed(o: &Options) {
    let consumer: BaseConsumer = o.config().set("group.id", o.get("group")).create().expect("a consumer");
    let mut at = TopicPartitionList::new();
    at.add_partition(o.get("topic"), o.number("partition") as i32);
    let found = consumer.committed_offsets(at, BRIEF).expect("an answer");
    let one = &found.elements()[0];
    emit(json!({"event": "committed", "offset": one.offset().to_raw(), "metadata": one.metadata()}));
}

/// Runs a future of the admin client, which are woken by a thread of its own, to its end.
fn block<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// One result of an admin call: the names of those that fail come with the code.
type One<T> = Result<T, (String, RDKafkaErrorCode)>;

/// The code of a call's error, or else of its only result's.
fn code<T>(results: Result<Vec<One<T>>, KafkaError>) -> i64 {
    match results {
        Err(error) => error.rdkafka_error_code().map_or(-1, number),
        Ok(results) => results.into_iter().find_map(Result::err).map_or(0, |(_, code)| number(code)),
    }
}

fn number(code: RDKafkaErrorCode) -> i64 {
    i64::from(code as i32)
}

fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

fn admin(o: &Options) {
    let client: AdminClient<DefaultClientContext> = o.config().create().expect("an admin client");
    let options = AdminOptions::new().request_timeout(Some(BRIEF)).operation_timeout(Some(BRIEF));
    let (topic, group) = (format!("{}-topic", o.get("prefix")), format!("{}-group", o.get("prefix")));
    let create = |name: &str, retention: &str| {
        let topic = NewTopic::new(name, 3, TopicReplication::Fixed(1)).set("retention.ms", retention);
        code(block(client.create_topics([&topic], &options)))
    };
    let inner = client.inner();
    let partitions =
        || inner.fetch_metadata(Some(&topic), BRIEF).map(|m| m.topics()[0].partitions().len()).unwrap_or(0);
    let is_listed =
        || inner.fetch_metadata(None, BRIEF).is_ok_and(|metadata| metadata.topics().iter().any(|t| t.name() == topic));
    let configs = |resource: ResourceSpecifier<'_>| -> ConfigResourceResult {
        block(client.describe_configs([&resource], &options)).expect("an answer").remove(0)
    };
    let retention = || {
        let config = configs(ResourceSpecifier::Topic(&topic)).expect("the topic's configuration");
        let entry = config.get("retention.ms").expect("every topic has it");
        (entry.value.clone(), entry.is_default)
    };

    let metadata = inner.fetch_metadata(None, BRIEF).expect("metadata");
    emit(
        json!({"step": "cluster", "brokers": metadata.brokers().len(), "id": inner.fetch_cluster_id(BRIEF).is_some()}),
    );
    emit(json!({"step": "create_topic", "error": create(&topic, "3600000")}));
    emit(json!({"step": "create_topic_again", "error": create(&topic, "3600000")}));
    emit(json!({"step": "create_bad_config", "error": create(&format!("{topic}-bad"), "soon")}));
    emit(json!({"step": "create_bad_name", "error": create("not/a/topic", "1")}));
    emit(json!({"step": "list_topics", "has": eventually(is_listed)}));
    let described = inner.fetch_metadata(Some(&topic), BRIEF).expect("metadata");
    let led = described.topics()[0].partitions().iter().all(|p| p.leader() >= 0);
    emit(json!({"step": "describe_topic", "partitions": described.topics()[0].partitions().len(), "led": led}));
    let five = NewPartitions::new(&topic, 5);
    emit(json!({"step": "create_partitions", "error": code(block(client.create_partitions([&five], &options)))}));
    emit(json!({"step": "partitions_created", "has": eventually(|| partitions() == 5)}));
    let (value, default) = retention();
    emit(json!({"step": "describe_configs", "value": value, "default": default}));
    let change = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("retention.ms", "7200000");
    let altered = block(client.alter_configs([&change], &options));
    let altered =
        altered.map(|all| all.into_iter().map(|one| one.map_err(|(_, code)| (String::new(), code))).collect());
    emit(json!({"step": "alter_configs", "error": code(altered)}));
    emit(json!({"step": "configs_altered", "has": eventually(|| retention().0.as_deref() == Some("7200000"))}));
    let node = metadata.brokers()[0].id();
    let broker = configs(ResourceSpecifier::Broker(node)).expect("the broker's configuration");
    emit(json!({"step": "describe_broker_configs", "has": broker.get("log.retention.ms").is_some()}));

    let producer: BaseProducer = o.config().create().expect("a producer");
    for i in 0..10 {
        producer
            .send(BaseRecord::<str, str>::to(&topic).partition(0).payload(&i.to_string()))
            .expect("room in the queue");
    }
    producer.flush(BRIEF).expect("ten records are delivered");
    let offsets = |step: &str| {
        let (earliest, latest) = inner.fetch_watermarks(&topic, 0, BRIEF).expect("watermarks");
        emit(json!({"step": step, "earliest": earliest, "latest": latest}));
    };
    offsets("list_offsets");
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&topic, 0, Offset::Offset(4)).expect("a valid offset");
    let deleted = block(client.delete_records(&before, &options)).expect("an answer");
    emit(json!({"step": "delete_records", "low": deleted.elements()[0].offset().to_raw()}));
    offsets("records_deleted");

    let consumer: BaseConsumer = o.config().set("group.id", &group).create().expect("a consumer");
    let mut at = TopicPartitionList::new();
    at.add_partition_offset(&topic, 0, Offset::Offset(7)).expect("a valid offset");
    consumer.commit(&at, CommitMode::Sync).expect("a commit");
    drop(consumer);
    let listed = |name: Option<&str>| inner.fetch_group_list(name, Timeout::After(BRIEF)).expect("an answer");
    emit(json!({"step": "list_groups", "has": listed(None).groups().iter().any(|g| g.name() == group)}));
    let described = listed(Some(&group));
    let one = &described.groups()[0];
    emit(json!({"step": "describe_group", "state": one.state(), "members": one.members().len()}));
    emit(json!({"step": "delete_group", "error": code(block(client.delete_groups(&[&group], &options)))}));
    emit(json!({"step": "group_deleted", "has": listed(None).groups().iter().any(|g| g.name() == group)}));
    emit(json!({"step": "delete_topic", "error": code(block(client.delete_topics(&[&topic], &options)))}));
    emit(json!({"step": "topic_deleted", "has": eventually(|| !is_listed())}));
}
