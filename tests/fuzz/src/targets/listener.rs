//! A broker's listener, as clients that know no manners see it: a whole broker in this process, its logs in memory, on a free
//! port of the loopback.
//!
//! An input is a story of up to four connections in pieces: requests of every API, whole, changed, cut, several in one piece or
//! one in several, in any order. Meanwhile a client that behaves must go on being served, and find its record as it wrote it;
//! nothing panics; and the process does not grow without bound. A broker serves some thousands of stories and is then stopped
//! in order, so that what they leave behind (topics, groups, sessions) has an end, and so that stopping is looked at as well.
//!
//! Unlike for other targets, an execution does not depend on its input alone: a finding that cannot be told again by itself
//! came of what was said before it, and the same seed with one job tells all of it.

use crate::target::{Seen, Target, about};
use chronik_api::config::{ByteSize, Config, Engine};
use chronik_api::server;
use chronik_core::batch::{Builder, RecordOut};
use chronik_core::time::Timestamp;
use chronik_proto_kafka::api::*;
use chronik_proto_kafka::{Request, decode_response, encode_request};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// See the module's head.
pub struct Listeners;

const CONNECTIONS: usize = 4;
/// Bytes before a piece's: its connection, and its length in two.
const HEAD_BYTES: usize = 3;
/// Stories that one broker is told. What they may leave behind in it is bounded by its own limits as well.
const STORIES_MAX: u32 = 3_000;
/// After so many stories the client that behaves writes as well, somebody new is let in, and the process's memory is looked at:
/// that costs as much as a short story does.
const LONG_LOOK_STORIES: u32 = 16;
/// What the process may grow by while one broker is told its stories: its limits below come to less than half.
const GROWTH_BYTES_MAX: u64 = 512 << 20;
/// How long somebody waits for what may never come; a poll that was asked to be long does not answer sooner.
const LISTEN_FOR: Duration = Duration::from_millis(20);
/// The client that behaves waits so long. Far above what an answer takes, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(20);
/// Of answers to one connection, so many are looked at.
const ANSWERS_MAX: usize = 64;
const RUNTIME_THREADS: usize = 2;
const THREAD_NAME: &str = "fuzzed-broker";

/// The topic of the client that behaves, and what its stories' clients name.
const KEPT_TOPIC: &str = "kept";
const OTHER_TOPIC: &str = "other";
/// The last versions that name topics.
const NAMED_PRODUCE: i16 = 12;
const NAMED_FETCH: i16 = 12;

static PANICS: AtomicUsize = AtomicUsize::new(0);
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());
/// One per worker would be as many brokers; they take turns.
static BROKER: Mutex<Option<Running>> = Mutex::new(None);

/// Panics of the broker's threads, which it survives, are a finding all the same.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name().is_some_and(|name| name.starts_with(THREAD_NAME)) {
                *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = info.to_string();
                PANICS.fetch_add(1, Ordering::SeqCst);
            }
            before(info);
        }));
    });
}

/// Bytes of memory that the process has; zero where the system does not say.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// A broker, and the client that behaves.
struct Running {
    runtime: tokio::runtime::Runtime,
    task: tokio::task::JoinHandle<Result<(), server::ServeError>>,
    stop: oneshot::Sender<()>,
    address: SocketAddr,
    client: Client,
    kept: Vec<u8>,
    written: i64,
    stories: u32,
    resident_before: u64,
}

impl Running {
    fn start() -> io::Result<Self> {
        count_panics();
        let resident_before = resident_bytes();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(RUNTIME_THREADS)
            .thread_name(THREAD_NAME)
            .enable_all()
            .build()?;
        let mut config = Config::default();
        config.storage.engine = Engine::Memory;
        config.topics.durability = chronik_api::config::Durability::Replicated;
        config.storage.memory.bytes = ByteSize::mib(64);
        config.kafka.listen.port = 0;
        config.admin.enabled = false;
        config.limits.memory_bytes = ByteSize::mib(32);
        config.limits.inflated_batch_bytes = ByteSize::mib(1);
        config.limits.request_bytes = ByteSize::mib(1);
        config.limits.partitions = 500;
        config.limits.shutdown_ms = chronik_api::config::Millis::seconds(1);
        let (stop, stopped) = oneshot::channel();
        let (up, address) = oneshot::channel();
        let task = runtime.spawn(async move {
            let stopped = async {
                let _dropped_is_as_good = stopped.await;
            };
            server::run(config, false, stopped, |_, now| {
                let _nobody_waits_any_more = up.send(now.listeners[0].1);
            })
            .await
        });
        let Ok(address) = runtime.block_on(address) else {
            return Err(io::Error::other(format!("the broker does not start: {:?}", runtime.block_on(task))));
        };
        let mut client = Client::to(address)?;
        client.create_topic(KEPT_TOPIC)?;
        client.create_topic(OTHER_TOPIC)?;
        client.produce(0)?;
        let kept = client.fetch(0)?;
        Ok(Self { runtime, task, stop, address, client, kept, written: 1, stories: 0, resident_before })
    }

    /// The client that behaves is served, and what it wrote is there.
    fn look(&mut self) -> io::Result<()> {
        let kept = self.client.fetch(0)?;
        assert_eq!(kept, self.kept, "what was written is not what is read");
        if self.stories.is_multiple_of(LONG_LOOK_STORIES) {
            let grown = resident_bytes().saturating_sub(self.resident_before);
            assert!(grown < GROWTH_BYTES_MAX, "the process has grown by {grown} bytes in {} stories", self.stories);
            self.client.produce(self.written)?;
            self.written += 1;
            // Somebody new is let in, too.
            Client::to(self.address)?.fetch(0)?;
        }
        Ok(())
    }

    fn stop(self) {
        let _gone_already = self.stop.send(());
        let outcome = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, self.task).await });
        self.runtime.shutdown_timeout(Duration::from_secs(1));
        match outcome {
            Ok(Ok(Ok(()))) => {}
            other => panic!("the broker does not stop in order: {other:?}"),
        }
    }
}

/// One that behaves.
struct Client(TcpStream);

impl Client {
    fn to(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    fn ask<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        self.0.write_all(&encode_request(request, version, 7, Some("behaves")).concat())?;
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let mut answer = vec![0; usize::try_from(i32::from_be_bytes(length)).map_err(io::Error::other)?];
        self.0.read_exact(&mut answer)?;
        let (correlation, response) = decode_response::<R>(answer.into(), version).map_err(io::Error::other)?;
        assert_eq!(correlation, 7, "an answer to somebody else");
        Ok(response)
    }

    /// A topic that no default of the cluster changes anything for.
    fn create_topic(&mut self, name: &str) -> io::Result<()> {
        let config = |(name, value): (&str, &str)| create_topics::CreatableTopicConfig {
            name: name.into(),
            value: Some(value.into()),
        };
        let configs = [
            ("retention.ms", "-1"),
            ("retention.bytes", "-1"),
            ("cleanup.policy", "delete"),
            ("compression.type", "producer"),
            ("max.message.bytes", "1048576"),
            ("message.timestamp.type", "CreateTime"),
            ("message.timestamp.before.max.ms", "9223372036854775807"),
            ("message.timestamp.after.max.ms", "9223372036854775807"),
            ("min.insync.replicas", "1"),
        ];
        let topic = create_topics::CreatableTopic {
            name: name.into(),
            num_partitions: 1,
            replication_factor: 1,
            configs: configs.into_iter().map(config).collect(),
            ..Default::default()
        };
        let request =
            create_topics::CreateTopicsRequest { topics: vec![topic], timeout_ms: 10_000, ..Default::default() };
        let created = self.ask(*create_topics::CreateTopicsRequest::VERSIONS.end(), &request)?;
        match created.topics.first() {
            Some(topic) if topic.error_code == 0 => Ok(()),
            other => Err(io::Error::other(format!("no topic: {other:?}"))),
        }
    }

    /// Writes one record, which must get this offset.
    fn produce(&mut self, offset: i64) -> io::Result<()> {
        let answer = self.ask(NAMED_PRODUCE, &produce_to(KEPT_TOPIC))?;
        let partition = answer.responses.first().and_then(|topic| topic.partition_responses.first());
        let Some(partition) = partition else { return Err(io::Error::other("no answer for the partition")) };
        assert_eq!((partition.error_code, partition.base_offset), (0, offset), "{partition:?}");
        Ok(())
    }

    fn fetch(&mut self, offset: i64) -> io::Result<Vec<u8>> {
        let answer = self.ask(NAMED_FETCH, &fetch_from(KEPT_TOPIC, offset))?;
        assert_eq!(answer.error_code, 0, "{answer:?}");
        let partition = answer.responses.first().and_then(|topic| topic.partitions.first());
        let Some(partition) = partition else { return Err(io::Error::other("no answer for the partition")) };
        assert_eq!(partition.error_code, 0, "{partition:?}");
        let records = partition.records.as_ref().map(|records| records.to_bytes()).unwrap_or_default();
        // The first batch: more may have come since.
        let mut rest = records;
        let batch = chronik_core::batch::Batch::split_from(&mut rest).map_err(io::Error::other)?;
        Ok(batch.to_payload().to_bytes().to_vec())
    }
}

fn produce_to(topic: &str) -> produce::ProduceRequest {
    let mut builder = Builder::new(Timestamp(1_700_000_000_000));
    builder.push(&RecordOut { key: Some(b"key"), value: Some(b"value"), ..RecordOut::default() });
    let records = builder.build().to_payload().to_bytes();
    produce::ProduceRequest {
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![produce::TopicProduceData {
            name: topic.into(),
            partition_data: vec![produce::PartitionProduceData { index: 0, records: Some(records.into()) }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn fetch_from(topic: &str, fetch_offset: i64) -> fetch::FetchRequest {
    let partition = fetch::FetchPartition { fetch_offset, partition_max_bytes: 1, ..Default::default() };
    fetch::FetchRequest {
        min_bytes: 1,
        max_bytes: 1,
        topics: vec![fetch::FetchTopic { topic: topic.into(), partitions: vec![partition], ..Default::default() }],
        ..Default::default()
    }
}

fn piece(connection: u8, bytes: &[u8]) -> Vec<u8> {
    let mut piece = vec![connection];
    piece.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    piece.extend_from_slice(bytes);
    piece
}

fn frame<R: Request>(request: &R, version: i16) -> Vec<u8> {
    encode_request(request, version, 1, Some("rude")).concat()
}

/// What a connection of a story has come to.
struct Rude {
    stream: TcpStream,
    asked: Vec<(i16, i16)>,
}

/// The API and the version that a piece seems to ask for.
fn asked(bytes: &[u8]) -> Option<(i16, i16)> {
    let fields = bytes.get(4..8)?;
    Some((i16::from_be_bytes([fields[0], fields[1]]), i16::from_be_bytes([fields[2], fields[3]])))
}

/// What a connection is told until it is closed, or nothing comes for a while: lengths of answers. Is it closed?
fn listen(stream: &mut TcpStream) -> (Vec<u32>, bool) {
    let mut answers = Vec::new();
    let mut waste = [0; 16 * 1024];
    while answers.len() < ANSWERS_MAX {
        let mut length = [0; 4];
        match stream.read_exact(&mut length) {
            Ok(()) => {}
            Err(why) => return (answers, !matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)),
        }
        let length = i32::from_be_bytes(length);
        assert!(length >= 4, "an answer of {length} bytes, without the number of what it answers");
        let mut left = length as usize;
        answers.push(about(left));
        while left > 0 {
            let room = left.min(waste.len());
            match stream.read(&mut waste[..room]) {
                Ok(0) | Err(_) => return (answers, true),
                Ok(read) => left -= read,
            }
        }
    }
    (answers, false)
}

/// What came of a story.
#[derive(Default)]
struct Told {
    /// How much was answered, by API and version.
    by_api: BTreeMap<(i16, i16), u32>,
    /// Of each connection: how often it was answered, and whether the broker closed it.
    ends: Vec<(usize, bool)>,
    /// Somebody has asked something, answered in time or not.
    has_asked: bool,
}

/// Tells a story.
fn tell(address: SocketAddr, mut input: &[u8]) -> io::Result<Told> {
    let mut told = Told::default();
    let mut connections: [Option<Rude>; CONNECTIONS] = [const { None }; CONNECTIONS];
    while let Some((head, rest)) = input.split_first_chunk::<HEAD_BYTES>() {
        let length = usize::from(u16::from_be_bytes([head[1], head[2]])).min(rest.len());
        let (bytes, rest) = rest.split_at(length);
        input = rest;
        let place = &mut connections[usize::from(head[0]) % CONNECTIONS];
        if place.is_none() {
            let stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(LISTEN_FOR))?;
            stream.set_write_timeout(Some(LISTEN_FOR))?;
            stream.set_nodelay(true)?;
            *place = Some(Rude { stream, asked: Vec::new() });
        }
        let Some(rude) = place else { continue };
        let asked = asked(bytes);
        told.has_asked |= asked.is_some();
        rude.asked.extend(asked);
        // The broker may have closed it, which it may; the next piece for it then goes nowhere, too.
        let _closed = rude.stream.write_all(bytes);
        match head[0] >> 6 {
            // In the midst of it all.
            1 => drop(place.take()),
            2 => drop(listen(&mut rude.stream)),
            _ => {}
        }
    }
    for mut rude in connections.into_iter().flatten() {
        let _closed = rude.stream.shutdown(Shutdown::Write);
        let (answers, is_closed) = listen(&mut rude.stream);
        told.ends.push((answers.len().min(4), is_closed));
        told.by_api.extend(rude.asked.into_iter().zip(answers));
    }
    Ok(told)
}

impl Target for Listeners {
    fn name(&self) -> &'static str {
        "listener"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let mut seeds = Vec::new();
        let versions = frame(&api_versions::ApiVersionsRequest::default(), 3);
        seeds.push(piece(0, &versions));
        for request in super::kafka::request_frames() {
            seeds.push([piece(1, &versions), piece(0, &request), piece(1, &versions)].concat());
        }
        let (produce, fetch) =
            (frame(&produce_to(OTHER_TOPIC), NAMED_PRODUCE), frame(&fetch_from(OTHER_TOPIC, 0), NAMED_FETCH));
        seeds.push([piece(0, &produce), piece(1, &fetch), piece(0, &fetch)].concat());
        seeds.push([piece(0, &produce[..30]), piece(1, &fetch), piece(0, &produce[30..])].concat());
        seeds.push(
            [piece(0, &[produce.clone(), fetch.clone(), versions.clone()].concat()), piece(0x40, &fetch)].concat(),
        );
        let waits = fetch::FetchRequest { max_wait_ms: 300_000, ..fetch_from(OTHER_TOPIC, 1) };
        seeds.push([piece(0, &frame(&waits, NAMED_FETCH)), piece(1, &produce), piece(0, &versions)].concat());
        let joins = join_group::JoinGroupRequest {
            group_id: "group".into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 10_000,
            protocol_type: "consumer".into(),
            protocols: vec![join_group::JoinGroupRequestProtocol {
                name: "range".into(),
                metadata: Default::default(),
            }],
            ..Default::default()
        };
        seeds.push([piece(0, &frame(&joins, 3)), piece(1, &frame(&joins, 3)), piece(0x80, &versions)].concat());
        let topic = create_topics::CreatableTopic {
            name: "another".into(),
            num_partitions: 2,
            replication_factor: 1,
            ..Default::default()
        };
        let creates = create_topics::CreateTopicsRequest { topics: vec![topic], ..Default::default() };
        let metadata = metadata::MetadataRequest { topics: None, ..Default::default() };
        seeds.push([piece(0, &frame(&creates, 5)), piece(1, &frame(&metadata, 9))].concat());
        seeds
    }

    fn feed(&self, input: &[u8]) -> Seen {
        let mut place = BROKER.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out while it is told something: after a finding the next story is told to another.
        let mut broker = match place.take() {
            Some(broker) => broker,
            None => Running::start().unwrap_or_else(|why| panic!("no broker: {why}")),
        };
        let panics = PANICS.load(Ordering::SeqCst);
        let told = tell(broker.address, input);
        broker.stories += 1;
        if let Err(why) = broker.look() {
            panic!("the client that behaves is not served: {why}");
        }
        assert_eq!(
            PANICS.load(Ordering::SeqCst),
            panics,
            "the broker has panicked: {}",
            LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner)
        );
        if broker.stories >= STORIES_MAX {
            broker.stop();
        } else {
            *place = Some(broker);
        }
        match told {
            Ok(Told { by_api, ends, has_asked: true }) => Seen::taken((by_api, ends)),
            Ok(Told { ends, .. }) => Seen::refused(ends, None),
            Err(why) => panic!("the broker lets nobody in: {why}"),
        }
    }

    /// The last piece ends where the input does, and a piece that is no longer than the frame in it says so.
    fn mend(&self, input: &mut Vec<u8>) {
        let mut at = 0;
        while let Some(head) = input.get(at..).and_then(|rest| rest.first_chunk::<HEAD_BYTES>()) {
            let left = input.len() - at - HEAD_BYTES;
            let length = usize::from(u16::from_be_bytes([head[1], head[2]])).min(left);
            input[at + 1..at + HEAD_BYTES].copy_from_slice(&(length as u16).to_be_bytes());
            let frame = &mut input[at + HEAD_BYTES..at + HEAD_BYTES + length];
            if let Some((claimed, body)) = frame.split_first_chunk_mut::<4>() {
                let is_alone = usize::try_from(i32::from_be_bytes(*claimed)).is_ok_and(|claimed| claimed < body.len());
                if !is_alone || claimed[3] % 4 == 0 {
                    *claimed = (body.len() as i32).to_be_bytes();
                }
            }
            at += HEAD_BYTES + length;
        }
    }

    fn words(&self) -> &[&'static [u8]] {
        &[b"other", b"another", b"group", b"consumer", b"range", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"]
    }

    fn input_bytes_max(&self) -> usize {
        2 * 1024
    }

    /// A broker and its runtime are started on the thread that feeds.
    fn more_memory_bytes(&self) -> usize {
        64 << 20
    }
}
