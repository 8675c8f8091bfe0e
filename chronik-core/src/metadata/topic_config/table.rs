//! Every topic configuration, declared: Kafka 4.3's, and our own under `chronik.`.
//!
//! Names, types, defaults, bounds and synonyms are those of Kafka's `TopicConfig`, `LogConfig` and
//! `ServerTopicConfigSynonyms`; the sentences say what the setting does *here*.

use super::InvalidConfig;
use super::value::{Kind, Valid, Value};

/// A broker configuration that sets a topic configuration's default, and its unit against the topic's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synonym {
    pub name: &'static str,
    pub unit: Unit,
}

/// What a synonym counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Same,
    Minutes,
    Hours,
}

/// One configuration.
#[derive(Clone, Copy, Debug)]
pub struct TopicConfigDef {
    pub name: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    pub valid: Valid,
    /// The first is the one that may be altered at run time.
    pub synonyms: &'static [Synonym],
    pub documentation: &'static str,
    /// Accepted, but not listed unless it is set: for tests, as in Kafka.
    pub internal: bool,
    /// Said when the topic is created, and never altered.
    pub fixed: bool,
}

impl TopicConfigDef {
    pub fn parse(&self, text: &str) -> Result<Value, InvalidConfig> {
        super::parse(self.name, self.kind, self.valid, text)
    }

    /// The broker configuration under which the cluster-wide default is altered and reported.
    pub fn synonym(&self) -> Option<&'static str> {
        self.synonyms.first().map(|synonym| synonym.name)
    }
}

/// By a topic configuration's name.
pub fn definition(name: &str) -> Option<&'static TopicConfigDef> {
    TOPIC_CONFIGS.binary_search_by(|def| def.name.cmp(name)).ok().map(|at| &TOPIC_CONFIGS[at])
}

/// By the broker configuration that sets its default at run time.
pub fn definition_by_synonym(broker_name: &str) -> Option<&'static TopicConfigDef> {
    TOPIC_CONFIGS.iter().find(|def| def.synonym() == Some(broker_name))
}

const fn same(name: &'static str) -> Synonym {
    Synonym { name, unit: Unit::Same }
}

const fn hours(name: &'static str) -> Synonym {
    Synonym { name, unit: Unit::Hours }
}

const fn minutes(name: &'static str) -> Synonym {
    Synonym { name, unit: Unit::Minutes }
}

const fn def(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    valid: Valid,
    synonyms: &'static [Synonym],
    documentation: &'static str,
) -> TopicConfigDef {
    TopicConfigDef { name, kind, default, valid, synonyms, documentation, internal: false, fixed: false }
}

const LONG_MAX: &str = "9223372036854775807";

/// In the order of their names.
pub static TOPIC_CONFIGS: &[TopicConfigDef] = &[
    def(
        "chronik.durability",
        Kind::String,
        "fsync",
        Valid::OneOf(&["fsync", "replicated"]),
        &[same("chronik.durability")],
        "What a record must have reached before it counts as committed: 'fsync' the disks of all in-sync replicas, \
         'replicated' their operating systems, as in Kafka.",
    ),
    TopicConfigDef {
        fixed: true,
        ..def(
            "chronik.storage",
            Kind::String,
            "segment",
            Valid::EngineName,
            // What the configuration file says holds for new topics only: it is written down with each.
            &[],
            "Which storage engine keeps the topic's records: 'segment', 'memory', or a plug-in by the name it is configured \
             under. Chosen when the topic is created, and never altered.",
        )
    },
    def(
        "chronik.validation",
        Kind::String,
        "header",
        Valid::OneOf(&["header", "full"]),
        &[same("chronik.validation")],
        "How far compressed batches are looked into when they are produced: 'header' checks their checksum and header, \
         'full' also inflates them and checks each record.",
    ),
    def(
        "cleanup.policy",
        Kind::List,
        "delete",
        Valid::Subset(&["compact", "delete"]),
        &[same("log.cleanup.policy")],
        "What becomes of old records: 'delete' drops segments past the retention time or size, 'compact' keeps the last \
         record of each key; both may be given, and none keeps everything.",
    ),
    def(
        "compression.gzip.level",
        Kind::Int,
        "-1",
        Valid::Level(1, 9),
        &[same("compression.gzip.level")],
        "The level at which the broker compresses where compression.type is gzip; -1 leaves it to the codec.",
    ),
    def(
        "compression.lz4.level",
        Kind::Int,
        "9",
        Valid::Between(1, 17),
        &[same("compression.lz4.level")],
        "The level at which the broker compresses where compression.type is lz4.",
    ),
    def(
        "compression.type",
        Kind::String,
        "producer",
        Valid::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        &[same("compression.type")],
        "How batches are stored: 'producer' keeps them as they were sent, 'uncompressed' or a codec's name rewrites those \
         that differ.",
    ),
    def(
        "compression.zstd.level",
        Kind::Int,
        "3",
        Valid::Between(-131_072, 22),
        &[same("compression.zstd.level")],
        "The level at which the broker compresses where compression.type is zstd.",
    ),
    def(
        "delete.retention.ms",
        Kind::Long,
        "86400000",
        Valid::AtLeast(0),
        &[same("log.cleaner.delete.retention.ms")],
        "How long a compacted topic keeps the mark of a deleted key, in milliseconds: the time a reader has from offset 0 \
         to a complete picture.",
    ),
    def(
        "file.delete.delay.ms",
        Kind::Long,
        "60000",
        Valid::AtLeast(0),
        &[same("log.segment.delete.delay.ms")],
        "How long the file of a dropped segment may stay on disk, in milliseconds.",
    ),
    def(
        "flush.messages",
        Kind::Long,
        LONG_MAX,
        Valid::AtLeast(1),
        &[same("log.flush.interval.messages")],
        "After how many records a log is synced. chronik.durability=fsync syncs every acknowledged record, whatever is set \
         here.",
    ),
    def(
        "flush.ms",
        Kind::Long,
        LONG_MAX,
        Valid::AtLeast(0),
        &[same("log.flush.interval.ms"), same("log.flush.scheduler.interval.ms")],
        "After how many milliseconds a log is synced. chronik.durability=fsync syncs every acknowledged record, whatever is \
         set here.",
    ),
    def(
        "follower.replication.throttled.replicas",
        Kind::List,
        "",
        Valid::ThrottledReplicas,
        &[],
        "Replicas whose replication is throttled at the follower: a list of [partition]:[broker], or '*' for all.",
    ),
    def(
        "index.interval.bytes",
        Kind::Int,
        "4096",
        Valid::AtLeast(0),
        &[same("log.index.interval.bytes")],
        "About how many bytes of records lie between two entries of a segment's offset index.",
    ),
    TopicConfigDef {
        internal: true,
        ..def(
            "internal.segment.bytes",
            Kind::Int,
            "1073741824",
            Valid::AtLeast(1),
            &[],
            "Overrides segment.bytes without its lower bound. For tests.",
        )
    },
    def(
        "leader.replication.throttled.replicas",
        Kind::List,
        "",
        Valid::ThrottledReplicas,
        &[],
        "Replicas whose replication is throttled at the leader: a list of [partition]:[broker], or '*' for all.",
    ),
    def(
        "local.retention.bytes",
        Kind::Long,
        "-2",
        Valid::AtLeast(-2),
        &[same("log.local.retention.bytes")],
        "How many bytes a partition keeps on local disks before older segments live in remote storage only; -2 means \
         retention.bytes.",
    ),
    def(
        "local.retention.ms",
        Kind::Long,
        "-2",
        Valid::AtLeast(-2),
        &[same("log.local.retention.ms")],
        "How many milliseconds a partition keeps segments on local disks before they live in remote storage only; -2 means \
         retention.ms.",
    ),
    def(
        "max.compaction.lag.ms",
        Kind::Long,
        LONG_MAX,
        Valid::AtLeast(1),
        &[same("log.cleaner.max.compaction.lag.ms")],
        "The longest time a record of a compacted topic may stay uncompacted, in milliseconds.",
    ),
    def(
        "max.message.bytes",
        Kind::Int,
        "1048588",
        Valid::AtLeast(0),
        &[same("message.max.bytes")],
        "The largest record batch that is accepted, in bytes as sent, compressed or not.",
    ),
    def(
        "message.timestamp.after.max.ms",
        Kind::Long,
        "3600000",
        Valid::AtLeast(0),
        &[same("log.message.timestamp.after.max.ms")],
        "How far, in milliseconds, a record's timestamp may lie after the broker's clock. Not applied to LogAppendTime.",
    ),
    def(
        "message.timestamp.before.max.ms",
        Kind::Long,
        LONG_MAX,
        Valid::AtLeast(0),
        &[same("log.message.timestamp.before.max.ms")],
        "How far, in milliseconds, a record's timestamp may lie before the broker's clock. Not applied to LogAppendTime.",
    ),
    def(
        "message.timestamp.type",
        Kind::String,
        "CreateTime",
        Valid::OneOf(&["CreateTime", "LogAppendTime"]),
        &[same("log.message.timestamp.type")],
        "Whose clock a record's timestamp comes from: the producer's (CreateTime) or the broker's (LogAppendTime).",
    ),
    def(
        "min.cleanable.dirty.ratio",
        Kind::Double,
        "0.5",
        Valid::Fraction,
        &[same("log.cleaner.min.cleanable.ratio")],
        "Which part of a log must be uncompacted before compaction looks at it again.",
    ),
    def(
        "min.compaction.lag.ms",
        Kind::Long,
        "0",
        Valid::AtLeast(0),
        &[same("log.cleaner.min.compaction.lag.ms")],
        "The shortest time a record of a compacted topic stays uncompacted, in milliseconds.",
    ),
    def(
        "min.insync.replicas",
        Kind::Int,
        "1",
        Valid::AtLeast(1),
        &[same("min.insync.replicas")],
        "How many in-sync replicas a partition must have for acks=all to be accepted and for records to become committed.",
    ),
    def(
        "preallocate",
        Kind::Boolean,
        "false",
        Valid::Any,
        &[same("log.preallocate")],
        "Whether a new segment's file is given its full size at once. Room is reserved as it is needed here, so both values \
         behave alike.",
    ),
    def(
        "remote.log.copy.disable",
        Kind::Boolean,
        "false",
        Valid::Any,
        &[],
        "Whether segments are no longer copied to remote storage.",
    ),
    def(
        "remote.log.delete.on.disable",
        Kind::Boolean,
        "false",
        Valid::Any,
        &[],
        "Whether what lies in remote storage is deleted when remote storage is disabled for the topic.",
    ),
    def(
        "remote.storage.enable",
        Kind::Boolean,
        "false",
        Valid::Any,
        &[],
        "Whether older segments move to remote storage.",
    ),
    def(
        "retention.bytes",
        Kind::Long,
        "-1",
        Valid::Any,
        &[same("log.retention.bytes")],
        "How large a partition may grow before its oldest segments are dropped, in bytes; -1 means no limit. Applies where \
         cleanup.policy contains 'delete'.",
    ),
    def(
        "retention.ms",
        Kind::Long,
        "604800000",
        Valid::AtLeast(-1),
        &[same("log.retention.ms"), minutes("log.retention.minutes"), hours("log.retention.hours")],
        "How long records are kept, in milliseconds; -1 means forever. Applies where cleanup.policy contains 'delete'.",
    ),
    def(
        "segment.bytes",
        Kind::Int,
        "1073741824",
        Valid::AtLeast(1_048_576),
        &[same("log.segment.bytes")],
        "The size at which a partition's log begins another segment, in bytes; whole segments are what retention drops.",
    ),
    def(
        "segment.index.bytes",
        Kind::Int,
        "10485760",
        Valid::AtLeast(4),
        &[same("log.index.size.max.bytes")],
        "The size an index may grow to, in bytes. Indexes grow as needed here.",
    ),
    def(
        "segment.jitter.ms",
        Kind::Long,
        "0",
        Valid::AtLeast(0),
        &[same("log.roll.jitter.ms"), hours("log.roll.jitter.hours")],
        "At most how many milliseconds earlier than segment.ms a segment is rolled, so that not all roll at once.",
    ),
    def(
        "segment.ms",
        Kind::Long,
        "604800000",
        Valid::AtLeast(1),
        &[same("log.roll.ms"), hours("log.roll.hours")],
        "After how many milliseconds a segment is rolled even if it is not full, so that retention can drop it.",
    ),
    def(
        "unclean.leader.election.enable",
        Kind::Boolean,
        "false",
        Valid::Any,
        &[same("unclean.leader.election.enable")],
        "Whether a replica that is not in sync may become leader when no other is left, at the price of lost records.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_every_default_keeps_its_own_bounds() {
        assert!(TOPIC_CONFIGS.is_sorted_by_key(|def| def.name), "look-ups are binary searches");
        for def in TOPIC_CONFIGS {
            def.parse(def.default).unwrap_or_else(|why| panic!("{}: {why}", def.name));
            assert!(def.documentation.ends_with('.'), "{}", def.name);
        }
    }

    #[test]
    fn every_topic_config_of_kafka_4_3_is_there() {
        let kafka = "cleanup.policy compression.gzip.level compression.lz4.level compression.type compression.zstd.level \
             delete.retention.ms file.delete.delay.ms flush.messages flush.ms follower.replication.throttled.replicas \
             index.interval.bytes leader.replication.throttled.replicas local.retention.bytes local.retention.ms \
             max.compaction.lag.ms max.message.bytes message.timestamp.after.max.ms message.timestamp.before.max.ms \
             message.timestamp.type min.cleanable.dirty.ratio min.compaction.lag.ms min.insync.replicas preallocate \
             remote.log.copy.disable remote.log.delete.on.disable remote.storage.enable retention.bytes retention.ms \
             segment.bytes segment.index.bytes segment.jitter.ms segment.ms unclean.leader.election.enable";
        let ours: Vec<_> = TOPIC_CONFIGS
            .iter()
            .filter(|def| !def.internal && !def.name.starts_with("chronik."))
            .map(|def| def.name)
            .collect();
        assert_eq!(ours, kafka.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn values_are_read_by_their_types_and_bounds() {
        let refused =
            |name: &str, text: &str| definition(name).expect("in the table").parse(text).expect_err(text).to_string();
        assert_eq!(
            refused("retention.ms", "soon"),
            "Invalid value soon for configuration retention.ms: Not a number of type LONG"
        );
        assert_eq!(
            refused("retention.ms", "-2"),
            "Invalid value -2 for configuration retention.ms: Value must be at least -1"
        );
        assert!(refused("max.message.bytes", "2147483648").contains("INT"));
        assert!(refused("compression.type", "brotli").contains("zstd, lz4"));
        assert!(refused("cleanup.policy", "delete,archive").contains("'archive'"));
        assert!(refused("preallocate", "yes").contains("true or false"));
        assert!(refused("min.cleanable.dirty.ratio", "1.5").contains("between 0 and 1"));
        assert!(refused("compression.gzip.level", "0").contains("between 1 and 9"));
        assert!(refused("leader.replication.throttled.replicas", "0-1").contains("[partition]:[broker]"));
        for (name, text) in [
            ("cleanup.policy", "compact, delete"),
            ("cleanup.policy", ""),
            ("compression.gzip.level", "-1"),
            ("preallocate", "TRUE"),
            ("leader.replication.throttled.replicas", "*"),
            ("follower.replication.throttled.replicas", "0:1,1:2"),
            ("retention.ms", " 1000 "),
        ] {
            assert!(definition(name).expect("in the table").parse(text).is_ok(), "{name}={text}");
        }
    }
}
