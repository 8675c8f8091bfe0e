//! A disk that is full: producers are refused and told why, readers read on, and writing goes on when there is room, without
//! a restart and without a loss.

use bytes::Bytes;
use chronik_core::batch::{Builder, RecordOut};
use chronik_core::time::Timestamp;
use chronik_e2e::broker::Broker;
use chronik_proto_kafka::api::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use chronik_proto_kafka::{ErrorCode, decode_response, encode_request};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::future::Future;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Command;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

const DISK_BYTES: u64 = 96 << 20;
const RECORD_BYTES: usize = 64 << 10;
/// Far above what anything here takes, so that only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(120);

/// A small disk of its own, in memory.
struct Disk {
    path: PathBuf,
    _home: tempfile::TempDir,
}

impl Disk {
    /// None where this user may not mount one, which is said.
    fn mounted() -> Option<Self> {
        let home = tempfile::Builder::new().prefix("chronik-disk-").tempdir().expect("a temporary directory");
        let path = home.path().join("disk");
        std::fs::create_dir(&path).expect("a directory");
        let size = format!("size={DISK_BYTES}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "chronik-full-disk"]).arg(&path).output();
        if mount.is_ok_and(|mount| mount.status.success()) {
            return Some(Self { path, _home: home });
        }
        assert!(std::env::var_os("CI").is_none(), "a disk of its own cannot be mounted here");
        eprintln!("NOT RUN: a full disk, which takes the right to mount one");
        None
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}

#[derive(Default)]
struct Acknowledged(Mutex<BTreeSet<usize>>);

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = usize;
    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        if result.is_ok() {
            self.0.lock().expect("no panic above").insert(number);
        }
    }
}

fn config(broker: &Broker) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.bootstrap());
    config
}

/// Sends records `from..to`; those of them that were acknowledged, none of the others being on its way any more.
fn produce(broker: &Broker, topic: &str, from: usize, to: usize) -> BTreeSet<usize> {
    let producer: BaseProducer<Acknowledged> = config(broker)
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", "3000")
        .create_with_context(Acknowledged::default())
        .expect("a producer");
    for number in from..to {
        let mut payload = vec![0; RECORD_BYTES];
        payload[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let record = BaseRecord::<(), [u8], usize>::with_opaque_to(topic, number).payload(&payload).partition(0);
        producer.send(record).expect("the queue has room");
        producer.poll(Duration::ZERO);
    }
    producer.flush(PATIENCE).expect("each is acknowledged or given up");
    std::mem::take(&mut *producer.context().0.lock().expect("no panic above"))
}

/// Every record that can be read.
fn read(broker: &Broker, topic: &str) -> BTreeSet<usize> {
    let consumer: BaseConsumer = config(broker)
        .set("group.id", "none")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, 0, Offset::Beginning).expect("an offset");
    consumer.assign(&from).expect("assigned");
    let mut seen = BTreeSet::new();
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < PATIENCE, "the end is never reached");
        match consumer.poll(Duration::from_secs(1)) {
            None => {}
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => return seen,
            Some(Err(failure)) => panic!("reading: {failure}"),
            Some(Ok(message)) => {
                let number = message.payload().and_then(|payload| payload.first_chunk::<8>()).expect("a number");
                assert!(seen.insert(u64::from_be_bytes(*number) as usize), "a record is there twice");
            }
        }
    }
}

fn wait<T>(future: impl Future<Output = KafkaResult<T>>) -> T {
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => return output.expect("the broker answers"),
            Poll::Pending => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn admin(broker: &Broker) -> (AdminClient<DefaultClientContext>, AdminOptions) {
    (config(broker).create().expect("an admin client"), AdminOptions::new().request_timeout(Some(PATIENCE)))
}

fn create_topics(broker: &Broker, names: &[&str]) {
    let (admin, options) = admin(broker);
    let topics: Vec<_> = names.iter().map(|name| NewTopic::new(name, 1, TopicReplication::Fixed(1))).collect();
    for created in wait(admin.create_topics(&topics, &options)) {
        created.expect("created");
    }
}

/// What the broker tells a producer of one more record, in its own words.
fn told(broker: &Broker, topic: &str) -> (ErrorCode, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", broker.port())).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 1_000,
        topic_data: vec![TopicProduceData {
            name: topic.into(),
            partition_data: vec![PartitionProduceData { index: 0, records: Some(batch().into()) }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let version = 12;
    stream.write_all(&encode_request(&request, version, 1, Some("full")).concat()).expect("sent");
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("an answer");
    let mut body = vec![0; i32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body).expect("all of it");
    let (_, mut answer) = decode_response::<ProduceRequest>(body.into(), version).expect("it can be read");
    let partition = answer.responses.remove(0).partition_responses.remove(0);
    (ErrorCode(partition.error_code), partition.error_message.map(|words| words.to_string()).unwrap_or_default())
}

/// A batch that the little room which is left cannot hold.
fn batch() -> Bytes {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let mut builder = Builder::new(Timestamp(now.as_millis() as i64));
    builder.push(&RecordOut { value: Some(&vec![0; 1_000_000]), ..RecordOut::default() });
    let mut batch = builder.build();
    batch.header.crc = batch.header.checksum(&batch.records);
    batch.to_payload().to_bytes()
}

fn free_bytes(path: &Path) -> u64 {
    let stat = rustix::fs::statvfs(path).expect("a filesystem");
    stat.f_bavail * stat.f_frsize
}

#[test]
#[ignore = "run by tests/run"]
fn a_full_disk_refuses_writes_serves_reads_and_takes_up_again() {
    let Some(disk) = Disk::mounted() else { return };
    let mut broker = Broker::in_directory(&[], Some(&disk.path.join("data")));
    create_topics(&broker, &["ballast", "kept"]);
    let ballast = produce(&broker, "ballast", 0, 400);
    assert_eq!(ballast.len(), 400);
    let first = produce(&broker, "kept", 0, 200);
    assert_eq!(first.len(), 200);

    // Far more than there is room for.
    let mut kept = first.clone();
    let more = produce(&broker, "kept", 200, 2_000);
    assert!(more.len() < 1_800, "the disk has room for everything: nothing is shown");
    kept.extend(more);
    assert!(free_bytes(&disk.path) > 0, "room is left for what must be written to go on");
    let (code, words) = told(&broker, "kept");
    assert_eq!(code, ErrorCode::KAFKA_STORAGE_ERROR, "{words}");
    assert!(!words.is_empty() && broker.log().contains("the disk is full"), "{words}");

    // Everybody else is served, and everything acknowledged is there; what was given up may be, once.
    let there = read(&broker, "kept");
    assert!(kept.is_subset(&there), "acknowledged and not there: {:?}", kept.difference(&there));
    assert_eq!(read(&broker, "ballast"), ballast);

    // Room is made by deleting a topic, without a restart.
    let (admin, options) = admin(&broker);
    for deleted in wait(admin.delete_topics(&["ballast"], &options)) {
        deleted.expect("a topic can be deleted");
    }
    let began = Instant::now();
    let mut next = 2_000;
    loop {
        let stored = produce(&broker, "kept", next, next + 10);
        kept.extend(&stored);
        if stored.len() == 10 {
            break;
        }
        next += 10;
        assert!(began.elapsed() < PATIENCE, "writes do not resume");
    }
    create_topics(&broker, &["new"]);
    broker.kill();
    broker.restart();
    let there = read(&broker, "kept");
    assert!(kept.is_subset(&there), "acknowledged and lost: {:?}", kept.difference(&there));
}
