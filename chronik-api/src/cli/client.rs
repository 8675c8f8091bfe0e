//! A small Kafka client for the tools: blocking, one request at a time, and correct rather than fast.
//!
//! It asks each broker what it speaks before anything else (KIP-35), learns from metadata which broker leads what, sends
//! each request to the broker that must answer it, and tries again where Kafka says that trying again helps, until its
//! time is up. Every wait is bounded.

use super::output::Failure;
use bytes::Bytes;
use chronik_proto_kafka::api::api_versions::ApiVersionsRequest;
use chronik_proto_kafka::api::find_coordinator::FindCoordinatorRequest;
use chronik_proto_kafka::api::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use chronik_proto_kafka::api::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseTopic,
};
use chronik_proto_kafka::api::produce::ProduceRequest;
use chronik_proto_kafka::{ErrorCode, Request, Str, decode_response, encode_request};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// How the tools call themselves in the broker's logs and metrics.
const CLIENT_ID: &str = "chronik-cli";

/// The largest answer that is read: more than any fetch asks for.
const RESPONSE_BYTES_MAX: usize = 256 << 20;

/// Pause before trying again what a broker said would help.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Timestamps of ListOffsets that stand for an end of the log.
pub(super) const LATEST: i64 = -1;
pub(super) const EARLIEST: i64 = -2;

/// Why a request got no answer, or one that says no.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("cannot connect to {address}: {why}")]
    Unreachable { address: String, why: io::Error },
    /// Metadata names an address that does not answer.
    #[error(
        "cannot connect to {address}, where the broker at {bootstrap} says that node {node} is: {why}\n  \
         Check what that broker advertises (kafka.advertise)."
    )]
    Misled { bootstrap: String, node: i32, address: String, why: io::Error },
    #[error("{address} closed the connection during {api}")]
    Closed { address: String, api: &'static str },
    #[error("{address} did not answer {api} in time")]
    TimedOut { address: String, api: &'static str },
    #[error("reading {api} from {address} failed: {why}")]
    Broken { address: String, api: &'static str, why: io::Error },
    #[error("{address} answered {api} with what is none: {why}\n  Is a Kafka broker listening there, without TLS?")]
    Nonsense { address: String, api: &'static str, why: String },
    #[error("the broker at {address} does not serve {api}")]
    NotServed { address: String, api: &'static str },
    #[error("{address} speaks versions {theirs} of {api}, and this tool {ours}")]
    NoCommonVersion { address: String, api: &'static str, theirs: String, ours: String },
    /// The broker's own error code.
    #[error("{doing}: {code}{}", explain(*code, message.as_deref()))]
    Refused { doing: String, code: ErrorCode, message: Option<String> },
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let hint = match &error {
            ClientError::Unreachable { why, .. } if why.kind() == io::ErrorKind::ConnectionRefused => {
                "\n  Start a broker with `chronik`, or say where one is with --bootstrap HOST:PORT."
            }
            _ => "",
        };
        Failure::failed(format!("{error}{hint}"))
    }
}

/// The broker's words, and what to do about it where we know.
fn explain(code: ErrorCode, message: Option<&str>) -> String {
    let hint = match code {
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => {
            "`chronik topic list` shows what there is, `chronik topic create` adds."
        }
        ErrorCode::TOPIC_ALREADY_EXISTS => "`chronik topic describe` shows it; --if-not-exists takes it as it is.",
        ErrorCode::MESSAGE_TOO_LARGE => "The topic's max.message.bytes bounds a batch.",
        ErrorCode::INVALID_TOPIC_EXCEPTION => "A name has 1 to 249 of the characters a-z A-Z 0-9 . _ -",
        ErrorCode::INVALID_REPLICATION_FACTOR => "There is one node: ask for one replica, or leave it to the broker.",
        ErrorCode::GROUP_ID_NOT_FOUND => "`chronik group list` shows what there is.",
        ErrorCode::REBALANCE_IN_PROGRESS => "The group is rearranging itself; try again in a moment.",
        ErrorCode::NOT_ENOUGH_REPLICAS => "Fewer replicas are in sync than the topic's min.insync.replicas.",
        ErrorCode::KAFKA_STORAGE_ERROR => "The broker's log says why its disk failed.",
        _ => "",
    };
    let message = message.filter(|message| !message.is_empty()).map(|message| format!(": {message}"));
    let hint = if hint.is_empty() { String::new() } else { format!("\n  {hint}") };
    super::output::printable(&message.unwrap_or_default()) + &hint
}

/// An error code as a result.
pub(super) fn check(code: i16, message: Option<&Str>, doing: impl FnOnce() -> String) -> Result<(), ClientError> {
    match ErrorCode(code) {
        ErrorCode::NONE => Ok(()),
        code => Err(ClientError::Refused { doing: doing(), code, message: message.map(|text| text.to_string()) }),
    }
}

impl ClientError {
    /// What is waited for is not there yet.
    pub fn not_yet(doing: &str) -> Self {
        Self::Refused { doing: doing.into(), code: ErrorCode::LEADER_NOT_AVAILABLE, message: None }
    }

    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// One connection, and what its broker speaks.
struct Connection {
    address: String,
    stream: TcpStream,
    versions: BTreeMap<i16, (i16, i16)>,
    correlation_id: i32,
}

impl Connection {
    fn open(address: &str, timeout: Duration) -> Result<Self, ClientError> {
        let unreachable = |why| ClientError::Unreachable { address: address.to_owned(), why };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for candidate in address.to_socket_addrs().map_err(unreachable)? {
            match TcpStream::connect_timeout(&candidate, timeout) {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(unreachable)?;
                    stream.set_write_timeout(Some(timeout)).map_err(unreachable)?;
                    let versions = BTreeMap::from([(ApiVersionsRequest::KEY, (0, 3))]);
                    let mut connection = Self { address: address.to_owned(), stream, versions, correlation_id: 0 };
                    connection.learn_versions(timeout)?;
                    return Ok(connection);
                }
                Err(why) => last = why,
            }
        }
        Err(unreachable(last))
    }

    fn learn_versions(&mut self, timeout: Duration) -> Result<(), ClientError> {
        let request = ApiVersionsRequest {
            client_software_name: CLIENT_ID.into(),
            client_software_version: env!("CARGO_PKG_VERSION").into(),
        };
        let mut answer = self.ask_in(&request, 3, timeout);
        // A broker that does not know version 3 answers in version 0, with or without its own range (KIP-511).
        if matches!(&answer, Ok(known) if ErrorCode(known.error_code) == ErrorCode::UNSUPPORTED_VERSION)
            || matches!(answer, Err(ClientError::Nonsense { .. }))
        {
            answer = self.ask_in(&request, 0, timeout);
        }
        let answer = answer?;
        check(answer.error_code, None, || format!("asking {} what it speaks", self.address))?;
        let ranges = answer.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version)));
        self.versions = ranges.collect();
        Ok(())
    }

    /// The newest version that both sides speak, at most `newest`.
    fn version<R: Request>(&self, newest: i16) -> Result<i16, ClientError> {
        let (address, api) = (self.address.clone(), R::NAME);
        let Some((min, max)) = self.versions.get(&R::KEY).copied() else {
            return Err(ClientError::NotServed { address, api });
        };
        let ours = *R::VERSIONS.start()..=newest.min(*R::VERSIONS.end());
        let version = max.min(*ours.end());
        if version >= min.max(*ours.start()) {
            return Ok(version);
        }
        let (theirs, ours) = (format!("{min}–{max}"), format!("{}–{}", ours.start(), ours.end()));
        Err(ClientError::NoCommonVersion { address, api, theirs, ours })
    }

    fn send<R: Request>(&mut self, request: &R, version: i16) -> Result<i32, ClientError> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let frame = encode_request(request, version, self.correlation_id, Some(CLIENT_ID));
        for part in frame {
            self.stream.write_all(&part).map_err(|why| self.broken::<R>(why))?;
        }
        Ok(self.correlation_id)
    }

    fn ask_in<R: Request>(&mut self, request: &R, version: i16, timeout: Duration) -> Result<R::Response, ClientError> {
        let correlation_id = self.send(request, version)?;
        self.stream.set_read_timeout(Some(timeout)).map_err(|why| self.broken::<R>(why))?;
        let frame = self.receive().map_err(|why| self.broken::<R>(why))?;
        let nonsense = |why| ClientError::Nonsense { address: self.address.clone(), api: R::NAME, why };
        let (echoed, answer) = decode_response::<R>(frame, version).map_err(|why| nonsense(why.to_string()))?;
        if echoed != correlation_id {
            return Err(nonsense(format!("it answers request {echoed}, not {correlation_id}")));
        }
        Ok(answer)
    }

    fn receive(&mut self) -> io::Result<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > RESPONSE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it claims {length} bytes")));
        }
        // Grows as bytes arrive: the length is only a claim.
        let mut frame = Vec::new();
        if Read::by_ref(&mut self.stream).take(length as u64).read_to_end(&mut frame)? < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(frame.into())
    }

    fn broken<R: Request>(&self, why: io::Error) -> ClientError {
        let (address, api) = (self.address.clone(), R::NAME);
        match why.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::TimedOut { address, api },
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                ClientError::Closed { address, api }
            }
            io::ErrorKind::InvalidData => ClientError::Nonsense { address, api, why: why.to_string() },
            _ => ClientError::Broken { address, api, why },
        }
    }
}

/// Whom a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    /// Whichever broker answers.
    Any,
    /// The node that leads the partition, coordinates the group, or is the controller.
    Node(i32),
}

/// A cluster, as seen from a bootstrap address.
pub(super) struct Client {
    bootstrap: Vec<String>,
    timeout: Duration,
    /// Where metadata says the nodes are.
    nodes: BTreeMap<i32, String>,
    connections: BTreeMap<String, Connection>,
    /// The bootstrap address that answered.
    entrance: String,
}

impl Client {
    /// Connects to the first of the addresses, parted by commas, that answers.
    pub fn connect(bootstrap: &str, timeout: Duration) -> Result<Self, ClientError> {
        let addresses = bootstrap.split(',').map(str::trim).filter(|address| !address.is_empty());
        let mut client = Self {
            bootstrap: addresses.map(str::to_owned).collect(),
            timeout,
            nodes: BTreeMap::new(),
            connections: BTreeMap::new(),
            entrance: String::new(),
        };
        client.enter()?;
        Ok(client)
    }

    fn enter(&mut self) -> Result<(), ClientError> {
        let mut failed = None;
        for address in &self.bootstrap {
            match Connection::open(address, self.timeout) {
                Ok(connection) => {
                    self.entrance.clone_from(address);
                    self.connections.insert(address.clone(), connection);
                    return Ok(());
                }
                Err(why) => failed = Some(why),
            }
        }
        Err(failed.unwrap_or_else(|| ClientError::Unreachable {
            address: self.bootstrap.join(","),
            why: io::Error::new(io::ErrorKind::InvalidInput, "no address is given"),
        }))
    }

    fn connection(&mut self, to: To) -> Result<&mut Connection, ClientError> {
        let address = match to {
            To::Any => self.entrance.clone(),
            To::Node(node) => self.nodes.get(&node).cloned().unwrap_or_else(|| self.entrance.clone()),
        };
        if !self.connections.contains_key(&address) {
            let opened = if to == To::Any {
                self.enter().map(|()| None)
            } else {
                Connection::open(&address, self.timeout).map(Some)
            };
            match (opened, to) {
                (Ok(Some(connection)), _) => drop(self.connections.insert(address.clone(), connection)),
                (Ok(None), _) => return self.connection_at(&self.entrance.clone()),
                (Err(ClientError::Unreachable { address, why }), To::Node(node)) => {
                    return Err(ClientError::Misled { bootstrap: self.entrance.clone(), node, address, why });
                }
                (Err(why), _) => return Err(why),
            }
        }
        self.connection_at(&address)
    }

    fn connection_at(&mut self, address: &str) -> Result<&mut Connection, ClientError> {
        self.connections.get_mut(address).ok_or_else(|| ClientError::Unreachable {
            address: address.to_owned(),
            why: io::ErrorKind::NotConnected.into(),
        })
    }

    /// Asks in the newest version both sides speak.
    pub fn ask<R: Request>(&mut self, to: To, request: &R) -> Result<R::Response, ClientError> {
        self.ask_waiting(to, request, i16::MAX, Duration::ZERO)
    }

    /// Asks in a version up to `newest`, granting the broker `wait` before its time counts.
    pub fn ask_waiting<R: Request>(
        &mut self,
        to: To,
        request: &R,
        newest: i16,
        wait: Duration,
    ) -> Result<R::Response, ClientError> {
        let timeout = self.timeout + wait;
        let mut had = self.connections.len();
        loop {
            let connection = self.connection(to)?;
            let version = connection.version::<R>(newest)?;
            let address = connection.address.clone();
            let answer = connection.ask_in(request, version, timeout);
            let opened_now = self.connections.len() > had;
            if answer.as_ref().is_err_and(|why| why.code().is_none()) {
                // The answer may still come, for another request to mistake for its own.
                self.connections.remove(&address);
            }
            match answer {
                // A connection that lay idle may have been closed meanwhile. Nothing but a produce matters twice.
                Err(ClientError::Closed { .. }) if !opened_now && R::KEY != ProduceRequest::KEY => {
                    had = self.connections.len();
                }
                answer => return answer,
            }
        }
    }

    /// Sends what is not answered: produce with acks=0.
    pub fn tell<R: Request>(&mut self, to: To, request: &R) -> Result<(), ClientError> {
        let connection = self.connection(to)?;
        let version = connection.version::<R>(i16::MAX)?;
        connection.send(request, version).map(drop)
    }

    /// Does `attempt` until it is done, its error is one that trying again cannot help, or the time is up.
    pub fn retry<T>(&mut self, mut attempt: impl FnMut(&mut Self) -> Result<T, ClientError>) -> Result<T, ClientError> {
        let until = Instant::now() + self.timeout;
        loop {
            match attempt(self) {
                Err(ClientError::Refused { code, .. }) if code.is_retriable() && Instant::now() < until => {
                    std::thread::sleep(RETRY_PAUSE);
                }
                done => return done,
            }
        }
    }

    /// Metadata of some topics, or of all; notes where the nodes are.
    pub fn metadata(&mut self, topics: Option<&[&str]>, create: bool) -> Result<MetadataResponse, ClientError> {
        let named = |name: &&str| MetadataRequestTopic { name: Some((*name).into()), ..Default::default() };
        let request = MetadataRequest {
            topics: topics.map(|topics| topics.iter().map(named).collect()),
            allow_auto_topic_creation: create,
            ..Default::default()
        };
        let answer = self.ask(To::Any, &request)?;
        check(answer.error_code, None, || "asking for metadata".into())?;
        let address =
            |host: &str, port| if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        self.nodes = answer.brokers.iter().map(|node| (node.node_id, address(&node.host, node.port))).collect();
        Ok(answer)
    }

    /// One topic with a leader for each partition; waits for leaders, and for the topic if it is being created.
    pub fn topic(&mut self, name: &str, create: bool) -> Result<Topic, ClientError> {
        let described = self.describe_topic(name, create)?;
        Ok(Topic::new(name, &described))
    }

    /// One topic's metadata, each partition of which has a leader.
    pub fn describe_topic(&mut self, name: &str, create: bool) -> Result<MetadataResponseTopic, ClientError> {
        let doing = || format!("topic {name}");
        let looked_up = self.retry(|client| {
            let answer = client.metadata(Some(&[name]), create)?;
            let topic = answer.topics.into_iter().next();
            let code = topic.as_ref().map_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0, |topic| topic.error_code);
            // Kafka calls it retriable since the topic may be on its way. Unless we had it created, it is not.
            if ErrorCode(code) == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION && !create {
                return Ok(Err(code));
            }
            check(code, None, doing)?;
            let topic = topic.unwrap_or_default();
            for partition in &topic.partitions {
                check(partition.error_code, None, || format!("topic {name}, partition {}", partition.partition_index))?;
            }
            Ok(Ok(topic))
        })?;
        looked_up.map_err(|code| ClientError::Refused { doing: doing(), code: ErrorCode(code), message: None })
    }

    /// The controller, or whoever answers if there is none to be seen: brokers pass such requests on.
    pub fn controller(&mut self) -> Result<To, ClientError> {
        let answer = self.metadata(Some(&[]), false)?;
        let known = self.nodes.contains_key(&answer.controller_id);
        Ok(if known { To::Node(answer.controller_id) } else { To::Any })
    }

    /// The node that coordinates a group.
    pub fn coordinator(&mut self, group: &str) -> Result<To, ClientError> {
        const GROUP: i8 = 0;
        let request =
            FindCoordinatorRequest { key: group.into(), key_type: GROUP, coordinator_keys: vec![group.into()] };
        self.retry(|client| {
            client.metadata(Some(&[]), false)?;
            let answer = client.ask(To::Any, &request)?;
            let doing = || format!("finding the coordinator of group {group}");
            match answer.coordinators.first() {
                Some(found) => {
                    check(found.error_code, found.error_message.as_ref(), doing)?;
                    Ok(To::Node(found.node_id))
                }
                None => {
                    check(answer.error_code, answer.error_message.as_ref(), doing)?;
                    Ok(To::Node(answer.node_id))
                }
            }
        })
    }

    /// Every node that metadata named last.
    pub fn all_nodes(&self) -> Vec<To> {
        self.nodes.keys().map(|node| To::Node(*node)).collect()
    }

    /// An offset of each partition of a topic: [`EARLIEST`], [`LATEST`], or the first one at or after a time; −1 if there
    /// is none.
    pub fn offsets(&mut self, topic: &Topic, timestamp: i64) -> Result<BTreeMap<i32, i64>, ClientError> {
        let mut by_leader: BTreeMap<i32, Vec<ListOffsetsPartition>> = BTreeMap::new();
        for (partition, leader) in &topic.leaders {
            let wanted = ListOffsetsPartition { partition_index: *partition, timestamp, ..Default::default() };
            by_leader.entry(*leader).or_default().push(wanted);
        }
        let mut offsets = BTreeMap::new();
        for (leader, partitions) in by_leader {
            let topics = vec![ListOffsetsTopic { name: topic.name.as_str().into(), partitions }];
            let request = ListOffsetsRequest { replica_id: -1, topics, timeout_ms: 30_000, ..Default::default() };
            let answer = self.retry(|client| {
                let answer = client.ask(To::Node(leader), &request)?;
                for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
                    check(partition.error_code, None, || {
                        format!("asking for offsets of {} partition {}", topic.name, partition.partition_index)
                    })?;
                }
                Ok(answer)
            })?;
            let answered = answer.topics.into_iter().flat_map(|topic| topic.partitions);
            offsets.extend(answered.map(|partition| (partition.partition_index, partition.offset)));
        }
        Ok(offsets)
    }
}

/// What a client needs to know of a topic.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub name: String,
    pub id: chronik_proto_kafka::Uuid,
    /// Partition → node that leads it.
    pub leaders: BTreeMap<i32, i32>,
}

impl Topic {
    pub fn new(name: &str, metadata: &MetadataResponseTopic) -> Self {
        let leader = |partition: &chronik_proto_kafka::api::metadata::MetadataResponsePartition| {
            (partition.partition_index, partition.leader_id)
        };
        Self { name: name.to_owned(), id: metadata.topic_id, leaders: metadata.partitions.iter().map(leader).collect() }
    }
}

#[cfg(test)]
mod tests;
