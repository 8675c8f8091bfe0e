//! A topic's configuration as its partitions read it: typed, resolved, and made anew only when a fact changes it.

use super::super::engines::STORAGE;
use super::table::{TopicConfigDef, definition};
use super::value::Value;
use crate::batch::{Compression, TimestampType, Validation};
use crate::ids::NodeId;
pub use crate::partition::leader::Durability;
use std::collections::BTreeSet;

/// What becomes of old records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    pub delete: bool,
    pub compact: bool,
}

/// How batches are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionPolicy {
    /// As they were sent.
    Producer,
    /// Always with this codec; the level is the codec's own default where it is `None`.
    Codec { codec: Compression, level: Option<i32> },
}

/// Which of a topic's replicas are throttled while they catch up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ThrottledReplicas {
    #[default]
    None,
    All,
    /// Partitions, each with the broker that its replica is on.
    These(BTreeSet<(i32, NodeId)>),
}

impl ThrottledReplicas {
    pub fn contains(&self, partition: i32, broker: NodeId) -> bool {
        match self {
            ThrottledReplicas::None => false,
            ThrottledReplicas::All => true,
            ThrottledReplicas::These(these) => these.contains(&(partition, broker)),
        }
    }

    fn read(value: &Value) -> Self {
        let one = |item: &String| {
            let (partition, broker) = item.split_once(':')?;
            Some((partition.parse().ok()?, NodeId(broker.parse().ok()?)))
        };
        match value.as_list() {
            [] => ThrottledReplicas::None,
            [all] if all == "*" => ThrottledReplicas::All,
            items => ThrottledReplicas::These(items.iter().filter_map(one).collect()),
        }
    }
}

/// A topic's configurations with their values in effect; names, units and meaning are those of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    pub cleanup_policy: CleanupPolicy,
    pub compression_type: CompressionPolicy,
    pub delete_retention_ms: i64,
    pub durability: Durability,
    pub file_delete_delay_ms: i64,
    pub flush_messages: i64,
    pub flush_ms: i64,
    pub follower_throttled_replicas: ThrottledReplicas,
    pub index_interval_bytes: u32,
    pub leader_throttled_replicas: ThrottledReplicas,
    pub max_compaction_lag_ms: i64,
    pub max_message_bytes: usize,
    pub message_timestamp_after_max_ms: i64,
    pub message_timestamp_before_max_ms: i64,
    pub message_timestamp_type: TimestampType,
    pub min_cleanable_dirty_ratio: f64,
    pub min_compaction_lag_ms: i64,
    pub min_insync_replicas: usize,
    /// `None`: no limit.
    pub retention_bytes: Option<u64>,
    /// `None`: forever.
    pub retention_ms: Option<i64>,
    pub segment_bytes: u64,
    pub segment_jitter_ms: i64,
    pub segment_ms: i64,
    /// The engine that keeps the records, by name.
    pub storage: String,
    pub unclean_leader_election_enable: bool,
    pub validation: Validation,
}

impl TopicConfig {
    /// Reads every value from the text that is in effect. A text that cannot be read — one that a later release accepted
    /// — counts as the default: nothing that is stored can fail to load.
    pub fn resolve(text_of: impl Fn(&TopicConfigDef) -> String) -> Self {
        let read = |name: &str| -> Value {
            let def = definition(name).expect("the names below are in the table, which a test proves");
            let default = || def.parse(def.default).expect("defaults keep their own bounds, which a test proves");
            def.parse(&text_of(def)).unwrap_or_else(|_| default())
        };
        let number = |name: &str| read(name).as_i64();
        let unsigned = |name: &str| u64::try_from(number(name)).unwrap_or(0);
        let policy = read("cleanup.policy");
        let has = |policy: &Value, word: &str| policy.as_list().iter().any(|item| item == word);
        let set_segment_bytes = Some(text_of(definition("internal.segment.bytes").expect("in the table")))
            .filter(|text| !text.is_empty())
            .and_then(|text| text.trim().parse::<u64>().ok());
        TopicConfig {
            cleanup_policy: CleanupPolicy { delete: has(&policy, "delete"), compact: has(&policy, "compact") },
            compression_type: compression(read("compression.type").as_text(), |name| number(name) as i32),
            delete_retention_ms: number("delete.retention.ms"),
            durability: match read("chronik.durability").as_text() {
                "replicated" => Durability::Replicated,
                _ => Durability::Fsync,
            },
            file_delete_delay_ms: number("file.delete.delay.ms"),
            flush_messages: number("flush.messages"),
            flush_ms: number("flush.ms"),
            follower_throttled_replicas: ThrottledReplicas::read(&read("follower.replication.throttled.replicas")),
            index_interval_bytes: unsigned("index.interval.bytes") as u32,
            leader_throttled_replicas: ThrottledReplicas::read(&read("leader.replication.throttled.replicas")),
            max_compaction_lag_ms: number("max.compaction.lag.ms"),
            max_message_bytes: unsigned("max.message.bytes") as usize,
            message_timestamp_after_max_ms: number("message.timestamp.after.max.ms"),
            message_timestamp_before_max_ms: number("message.timestamp.before.max.ms"),
            message_timestamp_type: match read("message.timestamp.type").as_text() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            min_cleanable_dirty_ratio: read("min.cleanable.dirty.ratio").as_f64(),
            min_compaction_lag_ms: number("min.compaction.lag.ms"),
            min_insync_replicas: unsigned("min.insync.replicas").max(1) as usize,
            retention_bytes: u64::try_from(number("retention.bytes")).ok(),
            retention_ms: Some(number("retention.ms")).filter(|&ms| ms >= 0),
            segment_bytes: set_segment_bytes.unwrap_or_else(|| unsigned("segment.bytes")),
            segment_jitter_ms: number("segment.jitter.ms"),
            segment_ms: number("segment.ms"),
            storage: read(STORAGE).as_text().to_owned(),
            unclean_leader_election_enable: read("unclean.leader.election.enable").as_bool(),
            validation: match read("chronik.validation").as_text() {
                "full" => Validation::Full,
                _ => Validation::Header,
            },
        }
    }
}

impl Default for TopicConfig {
    /// What a topic has where nobody has set anything.
    fn default() -> Self {
        TopicConfig::resolve(super::table_default)
    }
}

fn compression(name: &str, level: impl Fn(&str) -> i32) -> CompressionPolicy {
    let codec = |codec, level| CompressionPolicy::Codec { codec, level };
    match name {
        "uncompressed" => codec(Compression::None, None),
        "gzip" => codec(Compression::Gzip, Some(level("compression.gzip.level")).filter(|&level| level != -1)),
        "snappy" => codec(Compression::Snappy, None),
        "lz4" => codec(Compression::Lz4, Some(level("compression.lz4.level"))),
        "zstd" => codec(Compression::Zstd, Some(level("compression.zstd.level"))),
        _ => CompressionPolicy::Producer,
    }
}

#[cfg(test)]
mod tests {
    use super::super::table_default;
    use super::*;

    #[test]
    fn the_defaults_are_kafkas() {
        let config = TopicConfig::default();
        assert_eq!(config.cleanup_policy, CleanupPolicy { delete: true, compact: false });
        assert_eq!(config.compression_type, CompressionPolicy::Producer);
        assert_eq!(config.retention_ms, Some(7 * 24 * 3_600_000));
        assert_eq!(config.retention_bytes, None);
        assert_eq!(config.segment_bytes, 1 << 30);
        assert_eq!(config.max_message_bytes, 1_048_588);
        assert_eq!(config.durability, Durability::Fsync);
    }

    #[test]
    fn values_in_effect_are_typed() {
        let texts = [
            ("cleanup.policy", "compact"),
            ("compression.type", "zstd"),
            ("compression.zstd.level", "7"),
            ("retention.ms", "-1"),
            ("internal.segment.bytes", "4096"),
            ("chronik.durability", "replicated"),
            ("leader.replication.throttled.replicas", "0:1, 2:1"),
            ("follower.replication.throttled.replicas", "*"),
            ("min.insync.replicas", "what a later release may mean"),
        ];
        let config = TopicConfig::resolve(|def| {
            let set = texts.iter().find(|(name, _)| *name == def.name);
            set.map_or_else(|| table_default(def), |(_, text)| (*text).to_owned())
        });
        assert_eq!(config.cleanup_policy, CleanupPolicy { delete: false, compact: true });
        assert_eq!(config.compression_type, CompressionPolicy::Codec { codec: Compression::Zstd, level: Some(7) });
        assert_eq!(config.retention_ms, None);
        assert_eq!(config.segment_bytes, 4096);
        assert_eq!(config.durability, Durability::Replicated);
        assert_eq!(config.min_insync_replicas, 1);
        let leaders = &config.leader_throttled_replicas;
        assert!(leaders.contains(2, NodeId(1)) && !leaders.contains(2, NodeId(2)) && !leaders.contains(1, NodeId(1)));
        assert!(config.follower_throttled_replicas.contains(7, NodeId(9)));
        assert_eq!(TopicConfig::default().leader_throttled_replicas, ThrottledReplicas::None);
    }
}
