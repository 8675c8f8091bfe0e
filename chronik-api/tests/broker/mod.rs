//! What the stories of this folder share: a broker in this process, and a client that speaks the protocol plainly.
//!
//! A request goes out and its answer comes back through the codec, so every field that is asserted has been on a socket.

#![allow(dead_code, reason = "each story uses its own part")]

use bytes::Bytes;
use chronik_api::config::{Config, Durability, Engine};
use chronik_api::server;
use chronik_core::batch::{Batch, Builder, RecordOut};
use chronik_core::ids::ProducerId;
use chronik_core::time::Timestamp;
use chronik_proto_kafka::api::*;
use chronik_proto_kafka::{Request, Uuid, decode_response, encode_request};
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A broker in this process, its logs in memory, on a free port.
pub struct Running {
    pub address: SocketAddr,
    /// `None` unless it was switched on.
    pub admin: Option<SocketAddr>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), server::ServeError>>,
}

pub async fn start(adjust: impl FnOnce(&mut Config)) -> Running {
    let mut config = Config::default();
    config.storage.engine = Engine::Memory;
    config.kafka.listen.port = 0;
    config.admin.enabled = false;
    adjust(&mut config);
    // As for a configuration that is read: nobody promises what memory cannot keep.
    if config.storage.engine == Engine::Memory {
        config.topics.durability = Durability::Replicated;
    }
    let (stop, stopped) = oneshot::channel();
    let (up, address) = oneshot::channel();
    let task = tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        server::run(config, false, stopped, |_, now| {
            let _ = up.send((now.listeners[0].1, now.admin));
        })
        .await
    });
    match address.await {
        Ok((address, admin)) => Running { address, admin, stop, task },
        Err(_) => panic!("the broker does not start: {:?}", task.await),
    }
}

impl Running {
    /// All metrics, as they are exposed.
    pub async fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.admin.expect("it has one")).await.expect("it listens");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    pub async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.expect("it does not panic").expect("it stops in order");
    }
}

/// One connection.
pub struct Client(pub TcpStream);

impl Client {
    pub async fn to(broker: &Running) -> Client {
        Client(TcpStream::connect(broker.address).await.expect("it listens"))
    }

    pub async fn ask_in<R: Request>(&mut self, version: i16, request: R) -> R::Response {
        let frame = encode_request(&request, version, 7, Some("admin-story")).concat();
        self.0.write_all(&frame).await.expect("sent");
        let length = self.0.read_i32().await.expect("an answer comes");
        let mut body = vec![0; usize::try_from(length).expect("a length")];
        self.0.read_exact(&mut body).await.expect("all of it");
        let (correlation_id, response) = decode_response::<R>(body.into(), version).expect("it can be read");
        assert_eq!(correlation_id, 7);
        response
    }

    /// In the newest version.
    pub async fn ask<R: Request>(&mut self, request: R) -> R::Response {
        self.ask_in(*R::VERSIONS.end(), request).await
    }
}

impl Client {
    /// Sends a request without waiting for its answer.
    pub async fn send<R: Request>(&mut self, version: i16, correlation_id: i32, request: &R) {
        let frame = encode_request(request, version, correlation_id, Some("story")).concat();
        self.0.write_all(&frame).await.expect("sent");
    }

    /// The next answer's bytes; `None` when the broker has closed the connection.
    pub async fn frame(&mut self) -> Option<Bytes> {
        let length = self.0.read_i32().await.ok()?;
        let mut body = vec![0; usize::try_from(length).expect("a length")];
        self.0.read_exact(&mut body).await.ok()?;
        Some(body.into())
    }

    pub async fn receive<R: Request>(&mut self, version: i16) -> (i32, R::Response) {
        let frame = self.frame().await.expect("an answer comes");
        decode_response::<R>(frame, version).expect("it can be read")
    }

    /// Whether the broker closes the connection without another byte.
    pub async fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        !matches!(self.0.read(&mut byte).await, Ok(1..))
    }

    pub async fn create_topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Uuid {
        let config = |(name, value): &(&str, &str)| create_topics::CreatableTopicConfig {
            name: (*name).into(),
            value: Some((*value).into()),
        };
        let topic = create_topics::CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: 1,
            configs: configs.iter().map(config).collect(),
            ..Default::default()
        };
        let request = create_topics::CreateTopicsRequest { topics: vec![topic], ..Default::default() };
        let created = self.ask(request).await.topics.remove(0);
        assert_eq!(created.error_code, 0, "{:?}", created.error_message);
        created.topic_id
    }

    /// Produces to partition 0 of a topic, by name.
    pub async fn produce(&mut self, topic: &str, acks: i16, records: Bytes) -> produce::PartitionProduceResponse {
        let mut answer = self.ask_in(NAMED_PRODUCE, produce_to(topic, acks, records)).await;
        answer.responses.remove(0).partition_responses.remove(0)
    }

    /// Fetches from partition 0 of a topic, by name, without a session.
    pub async fn fetch(&mut self, topic: &str, offset: i64, max_wait_ms: i32) -> fetch::PartitionData {
        let mut answer = self.ask_in(NAMED_FETCH, fetch_from(topic, offset, max_wait_ms)).await;
        assert_eq!(answer.error_code, 0);
        answer.responses.remove(0).partitions.remove(0)
    }

    pub async fn offset_at(
        &mut self,
        version: i16,
        topic: &str,
        timestamp: i64,
    ) -> list_offsets::ListOffsetsPartitionResponse {
        let partition = list_offsets::ListOffsetsPartition { timestamp, ..Default::default() };
        let topic = list_offsets::ListOffsetsTopic { name: topic.into(), partitions: vec![partition] };
        let request = list_offsets::ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
        self.ask_in(version, request).await.topics.remove(0).partitions.remove(0)
    }
}

/// The last versions that name topics.
pub const NAMED_PRODUCE: i16 = 12;
pub const NAMED_FETCH: i16 = 12;

pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

pub fn produce_to(topic: &str, acks: i16, records: Bytes) -> produce::ProduceRequest {
    let partition = produce::PartitionProduceData { index: 0, records: Some(records.into()) };
    produce::ProduceRequest {
        acks,
        timeout_ms: 10_000,
        topic_data: vec![produce::TopicProduceData {
            name: topic.into(),
            partition_data: vec![partition],
            ..Default::default()
        }],
        ..Default::default()
    }
}

pub fn fetch_from(topic: &str, fetch_offset: i64, max_wait_ms: i32) -> fetch::FetchRequest {
    let partition = fetch::FetchPartition { fetch_offset, partition_max_bytes: 1 << 20, ..Default::default() };
    fetch::FetchRequest {
        max_wait_ms,
        min_bytes: 1,
        max_bytes: 1 << 20,
        topics: vec![fetch::FetchTopic { topic: topic.into(), partitions: vec![partition], ..Default::default() }],
        ..Default::default()
    }
}

/// A batch with these values, stamped now.
pub fn batch(values: &[&str]) -> Batch {
    batch_at(now_ms(), values)
}

pub fn batch_at(timestamp: i64, values: &[&str]) -> Batch {
    let mut builder = Builder::new(Timestamp(timestamp));
    for value in values {
        builder.push(&RecordOut { value: Some(value.as_bytes()), ..RecordOut::default() });
    }
    builder.build()
}

/// A batch of an idempotent producer.
pub fn idempotent(producer: i64, epoch: i16, sequence: i32, values: &[&str]) -> Batch {
    let mut builder = Builder::new(Timestamp(now_ms())).idempotent(ProducerId(producer), epoch, sequence);
    for value in values {
        builder.push(&RecordOut { value: Some(value.as_bytes()), ..RecordOut::default() });
    }
    builder.build()
}

/// A batch's bytes with its checksum made right, whatever was changed in it.
pub fn sealed(mut batch: Batch) -> Bytes {
    batch.header.crc = batch.header.checksum(&batch.records);
    batch.to_payload().to_bytes()
}
