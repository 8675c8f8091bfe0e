//! Keys that are not ours: those that belong to features this version does not have, and Kafka's own names.
//!
//! Someone who writes `[cluster]` or `log.dirs` has made no typing mistake, and is told what is so instead.

/// Why a key that a later version will know is refused.
pub(super) fn sentence(key: &str) -> Option<&'static str> {
    let last = key.rsplit_once('.').map_or(key, |(_, last)| last);
    Some(match (key.split(['.', '[']).next()?, last) {
        ("kafka" | "admin", "tls") => "asks for TLS, which this version does not have; use a private network meanwhile",
        ("kafka" | "admin", "sasl") => {
            "asks for SASL, which this version does not have; use a private network meanwhile"
        }
        ("tls", _) => "asks for TLS, which this version does not have; use a private network meanwhile",
        ("sasl", _) => "asks for SASL, which this version does not have; use a private network meanwhile",
        ("acl" | "authorizer", _) => "asks for access control, which this version does not have",
        ("tiering" | "tiered" | "remote", _) => "asks for tiered storage, which this version does not have",
        _ => return None,
    })
}

/// Our key for the name that Kafka's `server.properties` uses, dots or underscores alike.
pub(super) fn kafka_name(key: &str) -> Option<&'static str> {
    Some(match key.replace('_', ".").as_str() {
        "broker.id" | "node.id" if key != "node.id" => "node.id",
        "broker.rack" => "node.rack",
        "log.dir" | "log.dirs" => "node.data_dir",
        "listeners" => "kafka.listen",
        "advertised.listeners" => "kafka.advertise",
        "auto.create.topics.enable" => "topics.auto_create",
        "num.partitions" => "topics.default_partitions",
        "default.replication.factor" => "topics.default_replication_factor",
        "min.insync.replicas" => "topics.min_insync_replicas",
        "log.retention.ms" | "log.retention.minutes" | "log.retention.hours" => "topics.retention_ms",
        "log.retention.bytes" => "topics.retention_bytes",
        "log.segment.bytes" => "topics.segment_bytes",
        "log.roll.ms" | "log.roll.hours" => "topics.segment_ms",
        "log.cleanup.policy" => "topics.cleanup_policy",
        "log.message.timestamp.type" => "topics.message_timestamp_type",
        "message.max.bytes" => "topics.max_message_bytes",
        "compression.type" => "topics.compression_type",
        "group.initial.rebalance.delay.ms" => "groups.initial_rebalance_delay_ms",
        "group.min.session.timeout.ms" => "groups.min_session_timeout_ms",
        "group.max.session.timeout.ms" => "groups.max_session_timeout_ms",
        "group.max.size" => "groups.max_size",
        "offsets.retention.minutes" => "groups.offsets_retention_minutes",
        "offsets.topic.num.partitions" => "groups.offsets_partitions",
        "offsets.topic.replication.factor" => "groups.offsets_replication_factor",
        "offset.metadata.max.bytes" => "groups.offset_metadata_bytes",
        "socket.request.max.bytes" => "limits.request_bytes",
        "max.connections" => "limits.connections",
        "max.connections.per.ip" => "limits.connections_per_ip",
        "connections.max.idle.ms" => "limits.connection_idle_ms",
        "queued.max.requests" => "limits.pending_requests_per_connection",
        "queued.max.request.bytes" => "limits.memory_bytes",
        "max.incremental.fetch.session.cache.slots" => "limits.fetch_sessions",
        "fetch.max.bytes" => "limits.fetch_bytes",
        "max.request.partition.size.limit" => "limits.request_partitions",
        "producer.id.expiration.ms" => "limits.producer_id_expiration_ms",
        _ => return None,
    })
}
