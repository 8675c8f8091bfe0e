//! The sections and keys of the configuration. Every limit says why it is there and why it is this high.

use super::address::{AdvertisedAddress, ListenAddress};
use super::cluster::{Cluster, Raft, Replication};
use super::setting::{choice, section};
use super::storage::Storage;
use super::units::{ByteSize, Millis, Minutes};
use std::path::PathBuf;

/// Ports, counts and the like that the wire holds in 32 bits.
const I32_MAX: i64 = i32::MAX as i64;
/// Kafka's own maximum of a 64-bit config.
const I64_MAX: i64 = i64::MAX;

section! {
    /// Everything a broker is told when it starts.
    pub struct Config {
        /// Who this broker is and where it keeps its data.
        node: Node = Node::default();
        /// Where Kafka clients connect.
        kafka: Kafka = Kafka::default();
        /// Health and metrics over HTTP.
        admin: Admin = Admin::default();
        /// A cluster of several nodes.
        cluster: Cluster = Cluster::default();
        /// The metadata's way between nodes.
        raft: Raft = Raft::default();
        /// Records' way between nodes.
        replication: Replication = Replication::default();
        /// How logs are kept.
        storage: Storage = Storage::default();
        /// Topics: what is created on demand, and what holds where a topic's own configs say nothing.
        topics: Topics = Topics::default();
        /// Consumer groups and their offsets.
        groups: Groups = Groups::default();
        /// What clients may use up.
        limits: Limits = Limits::default();
        /// What the broker writes to standard error about itself.
        log: Log = Log::default();
    }
}

section! {
    /// Who this broker is and where it keeps its data.
    pub struct Node {
        /// The broker's number, which clients see.
        id: i32 = 1, 0..=I32_MAX;
        /// Directory that holds everything; made at the first start.
        data_dir: PathBuf = PathBuf::from("./chronik-data");
        /// Where the machine stands, for clients that prefer replicas near them (KIP-392).
        rack: Option<String> = None;
        /// Threads that serve requests; 0 means one per core. Brokers that share a machine do better with less.
        worker_threads: u32 = 0, 0..=1024;
    }
}

section! {
    /// Where Kafka clients connect: `listen` and `advertise`, or a list of `[[kafka.listeners]]`.
    pub struct Kafka {
        /// Address to listen on; port 0 takes a free one.
        listen: ListenAddress = ListenAddress { host: "127.0.0.1".into(), port: 9092 };
        /// Address that clients are told to connect to, if not the one listened on.
        advertise: Option<AdvertisedAddress> = None;
        /// Several listeners, each with its own advertised address, in place of the two keys above.
        listeners: Vec<Listener> = Vec::new();
    }
}

section! {
    /// One of several places where Kafka clients connect. Who comes in here is told this listener's addresses.
    pub struct Listener {
        /// A name for logs and metrics.
        name: String = String::new();
        /// Address to listen on; port 0 takes a free one.
        listen: ListenAddress = ListenAddress { host: String::new(), port: 0 };
        /// Address that clients are told to connect to, if not the one listened on.
        advertise: Option<AdvertisedAddress> = None;
    }
}

section! {
    /// Health and metrics over HTTP: `/healthz`, `/readyz`, `/metrics`. It has no access control, so it is on loopback.
    pub struct Admin {
        /// Whether to serve them.
        enabled: bool = true;
        /// Address to listen on; port 0 takes a free one.
        listen: ListenAddress = ListenAddress { host: "127.0.0.1".into(), port: 9644 };
        /// Connections at a time: a scraper, probes and people, not the public.
        connections: u32 = 64, 1..=I32_MAX;
    }
}

choice! {
    /// When a record counts as committed.
    pub enum Durability {
        /// When it would survive a power cut: every in-sync replica has synced it.
        Fsync = "fsync",
        /// When every in-sync replica has it, as in Kafka. On a single node: when the operating system has it, so that
        /// it survives the process but not a power cut.
        Replicated = "replicated",
    }
}

choice! {
    /// How the broker stores batches, whatever the producer chose.
    pub enum Compression {
        /// As the producer sent them.
        Producer = "producer",
        Uncompressed = "uncompressed",
        Gzip = "gzip",
        Snappy = "snappy",
        Lz4 = "lz4",
        Zstd = "zstd",
    }
}

choice! {
    /// Whose clock stamps records.
    pub enum TimestampType {
        /// The producer's.
        CreateTime = "CreateTime",
        /// The broker's, when it appends.
        LogAppendTime = "LogAppendTime",
    }
}

choice! {
    /// What becomes of old records.
    pub enum CleanupPolicy {
        /// They are deleted by age and size.
        Delete = "delete",
        /// The last one of each key is kept. This version keeps all of them.
        Compact = "compact",
        /// Both.
        CompactDelete = "compact,delete",
    }
}

section! {
    /// Topics: what is created on demand, and what holds where a topic's own configs say nothing.
    pub struct Topics {
        /// Whether a topic that a client asks about is created if it does not exist.
        auto_create: bool = true;
        /// Partitions of a topic whose creator does not say.
        default_partitions: i32 = 1, 1..=100_000;
        /// Replicas of a topic whose creator does not say.
        default_replication_factor: i32 = 1, 1..=I32_MAX;
        /// In-sync replicas without which `acks=all` is refused.
        min_insync_replicas: i32 = 1, 1..=I32_MAX;
        /// When a record counts as committed: "fsync" (survives a power cut) or "replicated" (what Kafka does).
        durability: Durability = Durability::Fsync;
        /// `cleanup.policy`
        cleanup_policy: CleanupPolicy = CleanupPolicy::Delete;
        /// `compression.type`
        compression_type: Compression = Compression::Producer;
        /// `max.message.bytes`: the largest batch. Kafka's default.
        max_message_bytes: ByteSize = ByteSize(1_048_588), 64..=I32_MAX;
        /// `message.timestamp.type`
        message_timestamp_type: TimestampType = TimestampType::CreateTime;
        /// `message.timestamp.before.max.ms`: how far in the past a record's time may lie. Kafka's default: no limit.
        message_timestamp_before_max_ms: Millis = Millis(I64_MAX), 0..=I64_MAX;
        /// `message.timestamp.after.max.ms`: how far in the future. Kafka's default.
        message_timestamp_after_max_ms: Millis = Millis::hours(1), 0..=I64_MAX;
        /// `retention.ms`: age at which records are deleted; −1 keeps them. Kafka's default.
        retention_ms: Millis = Millis::hours(168), -1..=I64_MAX;
        /// `retention.bytes`: size of a partition beyond which its oldest records are deleted; −1 is no limit.
        retention_bytes: ByteSize = ByteSize(-1), -1..=I64_MAX;
        /// `segment.bytes`: size at which a log begins another file. Kafka's default.
        segment_bytes: ByteSize = ByteSize::gib(1), ByteSize::KIB..=I32_MAX;
        /// `segment.ms`: age at which it does. Kafka's default.
        segment_ms: Millis = Millis::hours(168), 1..=I64_MAX;
        /// How often retention looks for what is too old or too much. Kafka's default.
        retention_check_interval_ms: Millis = Millis::minutes(5), 1..=I64_MAX;
    }
}

section! {
    /// Consumer groups and their offsets.
    pub struct Groups {
        /// How long the first rebalance of an empty group waits for more members. Kafka's default.
        initial_rebalance_delay_ms: Millis = Millis::seconds(3), 0..=I32_MAX;
        /// Shortest session time-out a member may ask for: shorter ones rebalance at every pause. Kafka's default.
        min_session_timeout_ms: Millis = Millis::seconds(6), 1..=I32_MAX;
        /// Longest: a dead member holds its partitions for so long. Kafka's default.
        max_session_timeout_ms: Millis = Millis::minutes(30), 1..=I32_MAX;
        /// Members of a group: each join sends all of them to the leader, so the work grows with the square.
        max_size: i32 = 5_000, 1..=I32_MAX;
        /// Groups that have members or offsets; each costs memory for as long as its offsets are kept.
        max_groups: u32 = 100_000, 1..=I32_MAX;
        /// How long the offsets of a group without members are kept. Kafka's default.
        offsets_retention_minutes: Minutes = Minutes(10_080), 1..=I32_MAX;
        /// How often expired offsets are looked for. Kafka's default.
        offsets_retention_check_interval_ms: Millis = Millis::minutes(10), 1..=I64_MAX;
        /// Partitions of `__consumer_offsets`; fixed once the topic exists. Kafka's default.
        offsets_partitions: i32 = 50, 1..=10_000;
        /// Its replicas; as many as there are brokers, where those are fewer when it is made. Kafka's default.
        offsets_replication_factor: i32 = 3, 1..=1_000;
        /// Size of its segments: smaller ones are compacted and recovered sooner. Kafka's default.
        offsets_segment_bytes: ByteSize = ByteSize::mib(100), ByteSize::KIB..=I32_MAX;
        /// Bytes of text that a commit may carry beside an offset. Kafka's default.
        offset_metadata_bytes: ByteSize = ByteSize::kib(4), 0..=I32_MAX;
    }
}

section! {
    /// What clients may use up. At each bound the broker stops reading or answers an error; it never grows beyond them.
    pub struct Limits {
        /// Kafka connections at a time; each takes a file handle and some 10 KiB. Beyond it new ones are closed at once.
        connections: u32 = 10_000, 1..=1_000_000;
        /// Of these from one address: half, so that no single machine shuts the others out.
        connections_per_ip: u32 = 5_000, 1..=1_000_000;
        /// The largest request. Kafka's default.
        request_bytes: ByteSize = ByteSize::mib(100), ByteSize::KIB..=I32_MAX;
        /// Bytes of requests and of answers that all connections together may hold; beyond it sockets are not read.
        memory_bytes: ByteSize = ByteSize::mib(256), ByteSize::MIB..=ByteSize::GIB << 10;
        /// Requests of one connection that may wait for their answers: enough for several pipelined produces to share a
        /// sync, few enough that a client notices that it is held back.
        pending_requests_per_connection: u32 = 64, 1..=10_000;
        /// Bytes of those requests. One that is larger goes alone.
        pending_bytes_per_connection: ByteSize = ByteSize::mib(16), ByteSize::KIB..=I32_MAX;
        /// A connection that has sent nothing for so long is closed. Kafka's default.
        connection_idle_ms: Millis = Millis::minutes(10), 1_000..=I64_MAX;
        /// A request that has begun must have arrived after so long, plus what `receive_bytes_per_second` allows its
        /// size: who sends a byte a minute holds memory for nothing.
        partial_request_ms: Millis = Millis::seconds(10), 100..=I64_MAX;
        /// The slowest rate at which a request may arrive.
        receive_bytes_per_second: ByteSize = ByteSize::kib(16), 1..=ByteSize::GIB;
        /// A client that takes none of its answer's bytes for so long is disconnected.
        stalled_send_ms: Millis = Millis::seconds(60), 100..=I64_MAX;
        /// Partitions that one request may name. Kafka's default.
        request_partitions: u32 = 2_000, 1..=I32_MAX;
        /// Bytes that one fetch may be answered with, whatever it asks for. Kafka's default.
        fetch_bytes: ByteSize = ByteSize::mib(55), ByteSize::KIB..=I32_MAX;
        /// The longest that a fetch may ask to wait for data.
        fetch_wait_ms: Millis = Millis::minutes(5), 0..=I32_MAX;
        /// Fetch sessions (KIP-227) kept at a time; each remembers its partitions. Kafka's default.
        fetch_sessions: u32 = 1_000, 0..=1_000_000;
        /// Partitions of all sessions together: some 100 bytes each.
        fetch_session_partitions: u32 = 500_000, 0..=100_000_000;
        /// Partitions of all topics: each takes some 100 KiB of memory and a few file handles while it is in use.
        partitions: u32 = 20_000, 1..=10_000_000;
        /// An idempotent producer that has written nothing for so long is forgotten. Kafka's default.
        producer_id_expiration_ms: Millis = Millis::hours(24), 1..=I32_MAX;
        /// Idempotent producers remembered by one partition; beyond it the longest silent one is forgotten.
        producers_per_partition: u32 = 10_000, 1..=10_000_000;
        /// Bytes that a compressed batch may inflate to where the broker has to look inside: a cap on bombs.
        inflated_batch_bytes: ByteSize = ByteSize::mib(128), ByteSize::KIB..=I32_MAX;
        /// How long a clean stop waits for requests under way before it closes their connections.
        shutdown_ms: Millis = Millis::seconds(5), 0..=600_000;
    }
}

choice! {
    /// How log lines are written.
    pub enum LogFormat {
        /// For people.
        Human = "human",
        /// One JSON object a line.
        Json = "json",
    }
}

section! {
    /// What the broker writes to standard error about itself.
    pub struct Log {
        /// "human" or "json".
        format: LogFormat = LogFormat::Human;
        /// "error", "warn", "info", "debug", "trace", or directives like "info,chronik_api::groups=debug".
        level: String = "info".into();
    }
}
