//! The configuration file, in Kafka's names: the topic defaults that decisions use, and the settings that DescribeConfigs
//! reports for this broker.

use crate::assemble::engines::Engines;
use crate::config::Config;
use chronik_core::metadata::ClusterDefaults;
use chronik_core::metadata::broker_config::BrokerSettings;
use std::fmt::Display;
use std::path::Path;

/// Kafka's lower bound of `segment.bytes`; a file may ask for less, as its tests do with `internal.segment.bytes`.
const SEGMENT_BYTES_MIN: i64 = 1 << 20;

/// What `[topics]` says, where it differs from Kafka's defaults or was set; and where records may be kept.
pub fn cluster_defaults(config: &Config, engines: &Engines) -> ClusterDefaults {
    let topics = &config.topics;
    let factor = i16::try_from(topics.default_replication_factor).unwrap_or(i16::MAX);
    let mut defaults = ClusterDefaults::default();
    defaults.partitions = topics.default_partitions;
    defaults.replication_factor = factor;
    defaults.partitions_max = config.limits.partitions as usize;
    defaults.storage = engines.traits();
    let standard = Config::default().topics;
    let mut set = |name: &str, value: &dyn Display, usual: &dyn Display| {
        let (value, usual) = (value.to_string(), usual.to_string());
        if value != usual
            && let Err(why) = defaults.set(name, &value)
        {
            // The file's own bounds are checked when it is read; where Kafka's are narrower, its default stays.
            tracing::warn!("a topic default of the configuration is not used: {why}");
        }
    };
    set("min.insync.replicas", &topics.min_insync_replicas, &standard.min_insync_replicas);
    set("chronik.durability", &topics.durability, &standard.durability);
    set("cleanup.policy", &topics.cleanup_policy, &standard.cleanup_policy);
    set("compression.type", &topics.compression_type, &standard.compression_type);
    set("max.message.bytes", &topics.max_message_bytes.0, &standard.max_message_bytes.0);
    set("message.timestamp.type", &topics.message_timestamp_type, &standard.message_timestamp_type);
    set(
        "message.timestamp.before.max.ms",
        &topics.message_timestamp_before_max_ms.0,
        &standard.message_timestamp_before_max_ms.0,
    );
    set(
        "message.timestamp.after.max.ms",
        &topics.message_timestamp_after_max_ms.0,
        &standard.message_timestamp_after_max_ms.0,
    );
    set("retention.ms", &topics.retention_ms.0, &standard.retention_ms.0);
    set("retention.bytes", &topics.retention_bytes.0, &standard.retention_bytes.0);
    let segment = if topics.segment_bytes.0 < SEGMENT_BYTES_MIN { "internal.segment.bytes" } else { "segment.bytes" };
    set(segment, &topics.segment_bytes.0, &standard.segment_bytes.0);
    set("segment.ms", &topics.segment_ms.0, &standard.segment_ms.0);
    defaults
}

/// What this broker was started with. `listeners` and `advertised` are `name://host:port`, as they came to be.
pub fn broker_settings(
    config: &Config,
    engines: &Engines,
    listeners: &[String],
    advertised: &[String],
) -> BrokerSettings {
    let usual = Config::default();
    let mut settings = BrokerSettings::default();
    let mut set = |name: &str, value: &dyn Display, usual: &dyn Display| {
        let (value, usual) = (value.to_string(), usual.to_string());
        let from_file = value != usual;
        let outcome = settings.set(name, value, from_file);
        debug_assert!(outcome.is_ok(), "{name} is declared");
    };
    // As DescribeLogDirs names them, since tools compare the two.
    let data_dir = absolute(&config.node.data_dir);
    let usual_dir = absolute(&usual.node.data_dir);
    set("advertised.listeners", &advertised.join(","), &"");
    set("authorizer.class.name", &"", &"");
    set("auto.create.topics.enable", &config.topics.auto_create, &usual.topics.auto_create);
    set("broker.id", &config.node.id, &usual.node.id);
    if let Some(rack) = &config.node.rack {
        set("broker.rack", rack, &"");
    }
    // The default engine outlives power cuts.
    let stored = engines.default_stored();
    set("chronik.storage.engine", &stored.engine, &usual.storage.engine);
    set("chronik.storage.engines", &engines.names().join(","), &"segment,memory");
    set("chronik.storage.survives", &stored.survives(), &"power-loss");
    set("connections.max.idle.ms", &config.limits.connection_idle_ms.0, &usual.limits.connection_idle_ms.0);
    set(
        "default.replication.factor",
        &config.topics.default_replication_factor,
        &usual.topics.default_replication_factor,
    );
    set("delete.topic.enable", &true, &true);
    set("fetch.max.bytes", &config.limits.fetch_bytes.0, &usual.limits.fetch_bytes.0);
    let (groups, usual_groups) = (&config.groups, &usual.groups);
    set(
        "group.initial.rebalance.delay.ms",
        &groups.initial_rebalance_delay_ms.0,
        &usual_groups.initial_rebalance_delay_ms.0,
    );
    set("group.max.session.timeout.ms", &groups.max_session_timeout_ms.0, &usual_groups.max_session_timeout_ms.0);
    set("group.max.size", &groups.max_size, &usual_groups.max_size);
    set("group.min.session.timeout.ms", &groups.min_session_timeout_ms.0, &usual_groups.min_session_timeout_ms.0);
    set("listeners", &listeners.join(","), &"");
    set("log.dir", &data_dir, &usual_dir);
    set("log.dirs", &data_dir, &usual_dir);
    set(
        "log.retention.check.interval.ms",
        &config.topics.retention_check_interval_ms.0,
        &usual.topics.retention_check_interval_ms.0,
    );
    set("max.connections", &config.limits.connections, &usual.limits.connections);
    set("max.connections.per.ip", &config.limits.connections_per_ip, &usual.limits.connections_per_ip);
    set("max.incremental.fetch.session.cache.slots", &config.limits.fetch_sessions, &usual.limits.fetch_sessions);
    set("max.request.partition.size.limit", &config.limits.request_partitions, &usual.limits.request_partitions);
    set("node.id", &config.node.id, &usual.node.id);
    set("num.partitions", &config.topics.default_partitions, &usual.topics.default_partitions);
    set("offset.metadata.max.bytes", &groups.offset_metadata_bytes.0, &usual_groups.offset_metadata_bytes.0);
    set(
        "offsets.retention.check.interval.ms",
        &groups.offsets_retention_check_interval_ms.0,
        &usual_groups.offsets_retention_check_interval_ms.0,
    );
    set("offsets.retention.minutes", &groups.offsets_retention_minutes.0, &usual_groups.offsets_retention_minutes.0);
    set("offsets.topic.num.partitions", &groups.offsets_partitions, &usual_groups.offsets_partitions);
    set("offsets.topic.replication.factor", &1, &1);
    set("offsets.topic.segment.bytes", &groups.offsets_segment_bytes.0, &usual_groups.offsets_segment_bytes.0);
    set("process.roles", &"broker,controller", &"broker,controller");
    set(
        "producer.id.expiration.ms",
        &config.limits.producer_id_expiration_ms.0,
        &usual.limits.producer_id_expiration_ms.0,
    );
    set("socket.request.max.bytes", &config.limits.request_bytes.0, &usual.limits.request_bytes.0);
    settings
}

/// A directory as an absolute path, where the working directory can be told.
pub fn absolute(directory: &Path) -> String {
    std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned()).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronik_core::ids::NodeId;
    use chronik_core::metadata::Image;
    use chronik_core::metadata::describe_config::{self, ConfigSource};
    use chronik_storage_memory::MemoryEngine;
    use std::sync::Arc;

    fn memory(name: &str) -> Engines {
        Engines::only(name, Arc::new(MemoryEngine::new(1 << 20)))
    }

    #[test]
    fn what_the_file_sets_is_in_effect_and_reported_as_its_own() {
        let mut config = Config::default();
        config.topics.default_partitions = 7;
        config.topics.retention_ms.0 = 5000;
        config.topics.segment_bytes.0 = 2048;
        config.groups.max_size = 9;
        let engines = memory("mine");
        let image = Image::empty(cluster_defaults(&config, &engines));
        assert_eq!(image.defaults().partitions, 7);
        let effective = image.effective_config(&Default::default());
        assert_eq!((effective.retention_ms, effective.segment_bytes), (Some(5000), 2048));

        let settings =
            broker_settings(&config, &engines, &["main://127.0.0.1:9092".into()], &["main://localhost:9092".into()]);
        let entries = describe_config::broker_entries(&image, NodeId(config.node.id), &settings);
        let entry = |name: &str| entries.iter().find(|entry| entry.name == name).expect("reported");
        assert_eq!(
            (entry("num.partitions").value.as_str(), entry("num.partitions").source),
            ("7", ConfigSource::StaticBroker)
        );
        assert_eq!(
            (entry("group.max.size").value.as_str(), entry("group.max.size").source),
            ("9", ConfigSource::StaticBroker)
        );
        assert_eq!(entry("delete.topic.enable").source, ConfigSource::Default);
        let survives = entry("chronik.storage.survives");
        assert_eq!((survives.value.as_str(), survives.read_only), ("nothing", true));
        assert_eq!(entry("chronik.storage.engine").value, "mine");
        assert_eq!(entry("chronik.storage.engines").value, "mine");
        assert_eq!(entry("log.retention.ms").value, "5000");
        assert_eq!(entry("log.retention.ms").source, ConfigSource::StaticBroker);
        assert_eq!(entry("message.max.bytes").source, ConfigSource::Default);
    }

    #[test]
    fn our_own_defaults_of_topics_are_kafkas() {
        let plain = Image::empty(ClusterDefaults::default()).effective_config(&Default::default());
        let ours = Image::empty(cluster_defaults(&Config::default(), &memory("segment")))
            .effective_config(&Default::default());
        assert_eq!(plain, ours);
        // Nothing is suppressed as "the usual" that the table would set differently.
        let topics = Config::default().topics;
        assert_eq!(plain.retention_ms, Some(topics.retention_ms.0));
        assert_eq!(plain.segment_ms, topics.segment_ms.0);
        assert_eq!(plain.segment_bytes as i64, topics.segment_bytes.0);
        assert_eq!(plain.max_message_bytes as i64, topics.max_message_bytes.0);
        assert_eq!(plain.message_timestamp_after_max_ms, topics.message_timestamp_after_max_ms.0);
    }
}
