//! Broker configurations under Kafka's names: what admin tools read to learn how a broker is set up.
//!
//! Three kinds: the defaults of topic configurations, which [`super::topic_config`] declares and which may be altered for
//! all brokers; those that [`super::dynamic_broker_config`] declares and that may be altered for one broker, too; and the
//! ones below, which report settings of our own where Kafka has an equal, and are read-only. A name that has no equal here
//! is not reported: a made-up value would be believed.

use super::topic_config::Kind;
use std::collections::BTreeMap;

/// A setting that is reported and cannot be altered while the broker runs.
#[derive(Clone, Copy, Debug)]
pub struct BrokerConfigDef {
    pub name: &'static str,
    pub kind: Kind,
    pub documentation: &'static str,
}

const fn def(name: &'static str, kind: Kind, documentation: &'static str) -> BrokerConfigDef {
    BrokerConfigDef { name, kind, documentation }
}

/// In the order of their names.
pub static BROKER_CONFIGS: &[BrokerConfigDef] = &[
    def("advertised.listeners", Kind::List, "The addresses that clients are told to connect to."),
    def(
        "authorizer.class.name",
        Kind::String,
        "What decides who may do what; empty while there is no authorizer and everything is allowed.",
    ),
    def(
        "auto.create.topics.enable",
        Kind::Boolean,
        "Whether a topic that a client asks for is created if it is missing.",
    ),
    def("broker.id", Kind::Int, "This broker's number."),
    def(
        "broker.rack",
        Kind::String,
        "Where this broker stands, for placement and for clients that prefer near replicas.",
    ),
    def(
        "chronik.storage.engine",
        Kind::String,
        "What keeps the records of topics that do not choose: 'segment', 'memory', or a plug-in's name with what it calls \
         itself.",
    ),
    def(
        "chronik.storage.engines",
        Kind::List,
        "The storage engines that topics may choose with 'chronik.storage'; the first is the default.",
    ),
    def(
        "chronik.storage.survives",
        Kind::String,
        "What records outlive where they are kept: 'power-loss' once they are synced, 'process', or 'nothing'.",
    ),
    def("connections.max.idle.ms", Kind::Long, "After how many silent milliseconds a connection is closed."),
    def("controlled.shutdown.enable", Kind::Boolean, "Whether a stopping broker first hands on what it leads."),
    def(
        "default.replication.factor",
        Kind::Int,
        "Replicas of a topic whose creator leaves their number to the broker.",
    ),
    def("delete.topic.enable", Kind::Boolean, "Whether topics can be deleted."),
    def(
        "fetch.max.bytes",
        Kind::Int,
        "How many bytes one fetch is answered with at most, apart from a first batch that is larger.",
    ),
    def(
        "group.initial.rebalance.delay.ms",
        Kind::Int,
        "How long a new group waits for more members before its first rebalance, in milliseconds.",
    ),
    def(
        "group.max.session.timeout.ms",
        Kind::Int,
        "The longest session time-out a group's member may ask for, in milliseconds.",
    ),
    def("group.max.size", Kind::Int, "How many members a group may have."),
    def(
        "group.min.session.timeout.ms",
        Kind::Int,
        "The shortest session time-out a group's member may ask for, in milliseconds.",
    ),
    def("listeners", Kind::List, "The addresses that this broker listens on for clients."),
    def("log.dir", Kind::String, "The directory that holds this broker's data."),
    def("log.dirs", Kind::List, "The directories that hold this broker's data."),
    def(
        "log.retention.check.interval.ms",
        Kind::Long,
        "How often logs are checked for what retention lets go, in milliseconds.",
    ),
    def("max.connections", Kind::Int, "How many connections clients may have open."),
    def("max.connections.per.ip", Kind::Int, "How many connections one address may have open."),
    def(
        "max.incremental.fetch.session.cache.slots",
        Kind::Int,
        "How many incremental fetch sessions are kept (KIP-227).",
    ),
    def("max.request.partition.size.limit", Kind::Int, "How many partitions one request may name."),
    def("node.id", Kind::Int, "This node's number."),
    def("num.partitions", Kind::Int, "Partitions of a topic whose creator leaves their number to the broker."),
    def("offset.metadata.max.bytes", Kind::Int, "The longest note that may be committed with an offset."),
    def(
        "offsets.retention.check.interval.ms",
        Kind::Long,
        "How often expired offsets are looked for, in milliseconds.",
    ),
    def(
        "offsets.retention.minutes",
        Kind::Int,
        "How long the offsets of a group without members are kept, in minutes.",
    ),
    def("offsets.topic.num.partitions", Kind::Int, "Partitions of the topic that holds committed offsets."),
    def("offsets.topic.replication.factor", Kind::Int, "Replicas of the topic that holds committed offsets."),
    def("offsets.topic.segment.bytes", Kind::Int, "Segment size of the topic that holds committed offsets."),
    def("process.roles", Kind::List, "What this process is: a broker, a controller, or both."),
    def(
        "producer.id.expiration.ms",
        Kind::Int,
        "After how many silent milliseconds an idempotent producer is forgotten.",
    ),
    def("socket.request.max.bytes", Kind::Int, "The largest request that is read."),
];

/// By name.
pub fn definition(name: &str) -> Option<&'static BrokerConfigDef> {
    BROKER_CONFIGS.binary_search_by(|def| def.name.cmp(name)).ok().map(|at| &BROKER_CONFIGS[at])
}

/// Whether a name is one that this broker reports, alterable or not.
pub fn is_known(name: &str) -> bool {
    definition(name).is_some() || super::topic_config::definition_by_synonym(name).is_some()
}

/// One setting's value, and whether the configuration file gave it or it is the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub value: String,
    pub from_file: bool,
}

/// What this broker was started with, under Kafka's names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerSettings(BTreeMap<&'static str, Setting>);

/// A name that [`BROKER_CONFIGS`] does not declare.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not declared among the broker configurations")]
pub struct NotDeclared(pub String);

impl BrokerSettings {
    pub fn set(&mut self, name: &str, value: impl ToString, from_file: bool) -> Result<(), NotDeclared> {
        let def = definition(name).ok_or_else(|| NotDeclared(name.to_owned()))?;
        self.0.insert(def.name, Setting { value: value.to_string(), from_file });
        Ok(())
    }

    /// In the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static BrokerConfigDef, &Setting)> {
        self.0.iter().filter_map(|(name, setting)| Some((definition(name)?, setting)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_does_not_declare_a_topic_default_twice() {
        assert!(BROKER_CONFIGS.is_sorted_by_key(|def| def.name), "look-ups are binary searches");
        for def in BROKER_CONFIGS {
            assert!(super::super::topic_config::definition_by_synonym(def.name).is_none(), "{}", def.name);
            assert!(def.documentation.ends_with('.'), "{}", def.name);
        }
    }
}
