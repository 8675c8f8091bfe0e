//! What is looked up when a scrape asks, rather than counted all the time.

use crate::partitions::throttle::ThrottleSample;
use async_trait::async_trait;
use chronik_core::wal::Usage;

/// The broker, as a scrape sees it.
#[async_trait]
pub trait MetricsSource: Send + Sync + 'static {
    /// Gathers everything now. A scrape waits for it, so it must not wait for clients.
    async fn snapshot(&self) -> Snapshot;
}

/// One look at the broker.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub partitions: Vec<PartitionSample>,
    pub groups: Vec<GroupSample>,
    pub storage: Option<Usage>,
    pub throttles: Vec<ThrottleSample>,
}

/// One partition that this broker leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionSample {
    pub topic: String,
    pub partition: i32,
    pub log_start: i64,
    pub high_watermark: i64,
    pub log_end: i64,
    /// Everything below it survives a power cut.
    pub durable_end: i64,
    pub log_bytes: u64,
    /// Fewer replicas are in sync than `min.insync.replicas` asks for, so `acks=all` is refused.
    pub under_min_isr: bool,
    /// This broker leads it.
    pub leads: bool,
    /// It leads it, and not all replicas are in sync.
    pub under_replicated: bool,
    /// Grows with each leader: what has grown elsewhere is a failover.
    pub leader_epoch: i32,
    /// Records that the slowest follower lacks, as far as its leader knows.
    pub follower_lag: u64,
    /// The log failed and takes no more records.
    pub offline: bool,
}

/// One consumer group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSample {
    pub group: String,
    /// Kafka's word for it: `Stable`, `Empty` …
    pub state: String,
    pub members: usize,
    pub partitions: Vec<PartitionLag>,
}

/// How far a group has come in one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionLag {
    pub topic: String,
    pub partition: i32,
    pub committed: i64,
    /// High watermark less `committed`; a commit beyond the end (after records were lost) is no negative lag.
    pub lag: i64,
}
