//! What single keys cannot tell: values that are fine alone and cannot work together.

use super::address;
use super::problem::Problem;
use super::{Config, ConfiguredPlugin, Durability, Engine, Listener, Transport};
use chronik_core::metadata::topic_config::is_engine_name;
use std::collections::{BTreeMap, BTreeSet};

/// Keys that contradict each other, or the one machine there is.
pub(super) struct Conflict {
    /// All that are concerned; the first is the one to change.
    pub keys: Vec<String>,
    what: String,
    suggestion: String,
}

impl Conflict {
    fn new(keys: &[&str], what: impl Into<String>, suggestion: impl Into<String>) -> Self {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        Self { keys, what: what.into(), suggestion: suggestion.into() }
    }

    pub fn into_problem(self, origins: &BTreeMap<String, String>) -> Problem {
        let origin = self.keys.iter().find_map(|key| origins.get(key)).cloned().unwrap_or_default();
        let key = self.keys.into_iter().next().unwrap_or_default();
        Problem { key, origin, what: self.what, suggestion: Some(self.suggestion) }
    }
}

impl Config {
    /// `is_set` tells keys that somebody wrote from defaults.
    pub(super) fn conflicts(&self, is_set: &dyn Fn(&str) -> bool) -> Vec<Conflict> {
        let mut found = Vec::new();
        self.listener_conflicts(is_set, &mut found);
        self.cluster_conflicts(is_set, &mut found);
        self.topic_conflicts(&mut found);
        self.limit_conflicts(&mut found);
        if let Some(why) = level_mistake(&self.log.level) {
            found.push(Conflict::new(
                &["log.level"],
                why,
                "Write \"info\", or for more of one part \"info,chronik_api::groups=debug\".",
            ));
        }
        found
    }

    fn listener_conflicts(&self, is_set: &dyn Fn(&str) -> bool, found: &mut Vec<Conflict>) {
        let listed = !self.kafka.listeners.is_empty();
        let short_is_default = self.kafka.listen == super::Kafka::default().listen && self.kafka.advertise.is_none();
        for key in ["kafka.listen", "kafka.advertise"] {
            if listed && is_set(key) && !short_is_default {
                found.push(Conflict::new(
                    &[key, "kafka.listeners"],
                    "cannot be used together with [[kafka.listeners]]",
                    "Move it into a listener of the list.",
                ));
            }
        }
        let mut names = BTreeSet::new();
        let mut ports = BTreeMap::new();
        if self.admin.enabled {
            ports.insert(self.admin.listen.to_string(), "admin.listen".to_owned());
        }
        for (index, listener) in self.listeners().iter().enumerate() {
            let at = if listed { format!("kafka.listeners[{index}]") } else { "kafka".to_owned() };
            self.check_listener(&at, listener, found);
            if listed && listener.name.is_empty() {
                let what = "is missing";
                found.push(Conflict::new(
                    &[&format!("{at}.name")],
                    what,
                    "Give the listener a name, like \"internal\".",
                ));
            } else if !names.insert(listener.name.clone()) {
                let what = format!("names a second listener {:?}", listener.name);
                found.push(Conflict::new(&[&format!("{at}.name")], what, "Give each listener a name of its own."));
            }
            let key = format!("{at}.listen");
            if listener.listen.port != 0
                && let Some(other) = ports.insert(listener.listen.to_string(), key.clone())
            {
                let what = format!("is the same address as {other}");
                found.push(Conflict::new(&[&key, &other], what, "Give each its own port."));
            }
        }
    }

    fn check_listener(&self, at: &str, listener: &Listener, found: &mut Vec<Conflict>) {
        if listener.listen.host.is_empty() {
            let key = format!("{at}.listen");
            found.push(Conflict::new(&[&key], "is missing", "Say where to listen, like \"127.0.0.1:9092\"."));
        }
        if let Some(advertised) = &listener.advertise
            && address::is_wildcard(&advertised.host)
        {
            found.push(Conflict::new(
                &[&format!("{at}.advertise")],
                format!("is {advertised}, which means \"every address\" and which no client can connect to"),
                "Advertise a name or an address of this machine that clients can reach.",
            ));
        }
    }

    fn topic_conflicts(&self, found: &mut Vec<Conflict>) {
        let topics = &self.topics;
        if topics.default_replication_factor > 1 && !self.is_cluster() {
            found.push(Conflict::new(
                &["topics.default_replication_factor"],
                format!("is {}, but there is one node to hold replicas", topics.default_replication_factor),
                "Write 1, or name the cluster's nodes in cluster.voters.",
            ));
        }
        if topics.min_insync_replicas > topics.default_replication_factor {
            found.push(Conflict::new(
                &["topics.min_insync_replicas", "topics.default_replication_factor"],
                format!(
                    "is {}, but topics.default_replication_factor is {}: every acks=all would be refused",
                    topics.min_insync_replicas, topics.default_replication_factor
                ),
                "Write 1.",
            ));
        }
        if self.storage.engine == Engine::Memory && topics.durability == Durability::Fsync {
            found.push(Conflict::new(
                &["topics.durability", "storage.engine"],
                "is \"fsync\", but what storage.engine = \"memory\" keeps does not survive the process",
                "Write durability = \"replicated\", or engine = \"segment\".",
            ));
        }
        self.engine_conflicts(found);
        if topics.max_message_bytes > topics.segment_bytes {
            found.push(Conflict::new(
                &["topics.max_message_bytes", "topics.segment_bytes"],
                format!("is {}, more than a segment holds ({})", topics.max_message_bytes, topics.segment_bytes),
                "Raise topics.segment_bytes or lower this.",
            ));
        }
    }

    fn engine_conflicts(&self, found: &mut Vec<Conflict>) {
        let plugins = self.storage.configured_plugins();
        let mut names = BTreeSet::new();
        for ConfiguredPlugin { at, engine, options } in &plugins {
            let name_key = format!("{at}.name");
            if *engine != Engine::Plugin {
                if !is_engine_name(engine.word()) {
                    let what = if engine.word().is_empty() { "is missing" } else { "is no name for an engine" };
                    let suggestion = "Write small letters, digits and hyphens, a letter first, like \"cold-store\".";
                    found.push(Conflict::new(&[&name_key], what, suggestion));
                } else if ["segment", "memory", "plugin"].contains(&engine.word()) {
                    let what = format!("is {:?}, which names another engine already", engine.word());
                    found.push(Conflict::new(&[&name_key], what, "Give the plug-in a name of its own."));
                } else if !names.insert(engine.word().to_owned()) {
                    let what = format!("names a second plug-in {:?}", engine.word());
                    found.push(Conflict::new(&[&name_key], what, "Give each plug-in a name of its own."));
                }
            }
            let path_key = format!("{at}.path");
            match &options.path {
                None if *engine == Engine::Plugin => {
                    let what = "is missing, and storage.engine is \"plugin\"";
                    let keys = [&*path_key, "storage.engine"];
                    found.push(Conflict::new(&keys, what, "Name the shared library, from the root on."));
                }
                None => {
                    found.push(Conflict::new(&[&path_key], "is missing", "Name the shared library, from the root on."))
                }
                Some(path) if !path.is_absolute() => {
                    let what = "is not absolute: what is loaded must not depend on where the broker starts";
                    found.push(Conflict::new(&[&path_key], what, "Say where the shared library is, from the root on."));
                }
                Some(_) => {}
            }
            if let Err(what) = options.pin() {
                found.push(Conflict::new(&[&format!("{at}.sha256")], what, "`sha256sum FILE` tells it."));
            }
            let is_object =
                |text: &String| serde_json::from_str::<serde_json::Value>(text).is_ok_and(|json| json.is_object());
            if !options.options.as_ref().is_none_or(is_object) {
                let what = "is not a JSON object";
                found.push(Conflict::new(&[&format!("{at}.options")], what, "Write it as text, like '{\"key\": 1}'."));
            }
        }
        // Whose metadata is in memory forgets its topics, and could never say again whose records a plug-in keeps.
        if let Some(first) = plugins.first().filter(|_| self.storage.engine == Engine::Memory && !self.is_cluster()) {
            let what = "names a plug-in, but storage.engine is \"memory\": this node alone would forget which topics there are";
            let keys = [&*format!("{}.path", first.at), "storage.engine"];
            found.push(Conflict::new(&keys, what, "Write another storage.engine, or take the plug-in away."));
        }
        if let Engine::Named(name) = &self.storage.engine
            && !names.contains(name)
        {
            let known = ["segment", "memory", "plugin"].into_iter().chain(names.iter().map(String::as_str));
            let known = known.map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
            found.push(Conflict::new(
                &["storage.engine", "storage.plugins"],
                format!("is {name:?}, which none of [[storage.plugins]] is called"),
                format!("Write one of {known}, or add the plug-in to [[storage.plugins]]."),
            ));
        }
    }

    fn cluster_conflicts(&self, is_set: &dyn Fn(&str) -> bool, found: &mut Vec<Conflict>) {
        let tls = &self.cluster.tls;
        let given = [("cert", &tls.cert), ("key", &tls.key), ("ca", &tls.ca)];
        if let Some((missing, _)) = given.iter().find(|(_, file)| file.is_none())
            && given.iter().any(|(_, file)| file.is_some())
        {
            let key = format!("cluster.tls.{missing}");
            found.push(Conflict::new(&[&key], "is missing", "TLS between nodes takes cert, key and ca together."));
        }
        if !self.is_cluster() {
            let (raft, replication) = (super::Raft::default(), super::Replication::default());
            let alone = [
                ("raft.listen", self.raft.listen == raft.listen),
                ("raft.transport", self.raft.transport == raft.transport),
                ("replication.listen", self.replication.listen == replication.listen),
                ("replication.transport", self.replication.transport == replication.transport),
            ];
            if let Some((key, _)) = alone.into_iter().find(|(key, is_default)| !is_default && is_set(key)) {
                let what = "belongs to clusters, and cluster.voters names no node";
                found.push(Conflict::new(&[key, "cluster.voters"], what, "Name the nodes in cluster.voters."));
            }
            return;
        }
        let mut nodes = BTreeSet::new();
        for voter in &self.cluster.voters.0 {
            if !nodes.insert(voter.node) {
                let what = format!("names node {} more than once", voter.node);
                found.push(Conflict::new(&["cluster.voters"], what, "Give each node an id of its own."));
            }
        }
        let planes = [
            ("raft", &self.raft.listen, self.raft.transport),
            ("replication", &self.replication.listen, self.replication.transport),
        ];
        for (plane, listen, transport) in planes {
            if transport == Transport::Quic && tls.files().is_none() {
                found.push(Conflict::new(
                    &[&format!("{plane}.transport"), "cluster.tls"],
                    "is \"quic\", which is always encrypted, and there are no certificates",
                    "Set cluster.tls.cert, key and ca; `chronik cluster certs DIRECTORY` makes them for a try.",
                ));
            }
            if !listen.is_loopback() && tls.files().is_none() && !self.cluster.unsafe_plaintext_beyond_loopback {
                found.push(Conflict::new(
                    &[&format!("{plane}.listen"), "cluster.tls"],
                    format!("is {listen}, where anyone could pose as a node: there are no certificates"),
                    "Set cluster.tls.cert, key and ca (`chronik cluster certs DIRECTORY` makes them for a try), or listen on loopback.",
                ));
            }
        }
        if self.cluster.heartbeat_ms.0 * 3 > self.cluster.session_timeout_ms.0 {
            found.push(Conflict::new(
                &["cluster.heartbeat_ms", "cluster.session_timeout_ms"],
                "is more than a third of cluster.session_timeout_ms: a lost one or two would fence a healthy broker",
                "Lower it, or raise the time-out.",
            ));
        }
        if self.raft.heartbeat_ms.0 * 5 > self.raft.election_timeout_ms.0 {
            found.push(Conflict::new(
                &["raft.heartbeat_ms", "raft.election_timeout_ms"],
                "is more than a fifth of raft.election_timeout_ms: a short delay would elect another leader",
                "Lower it, or raise the time-out.",
            ));
        }
    }

    fn limit_conflicts(&self, found: &mut Vec<Conflict>) {
        let (limits, groups) = (&self.limits, &self.groups);
        let mut at_most = |key: &str, value: i64, bound_key: &str, bound: i64, why: &str| {
            if value > bound {
                let what = format!("is more than {bound_key}: {why}");
                let suggestion = format!("Lower it to that, or raise {bound_key}.");
                found.push(Conflict::new(&[key, bound_key], what, suggestion));
            }
        };
        at_most(
            "limits.request_bytes",
            limits.request_bytes.0,
            "limits.memory_bytes",
            limits.memory_bytes.0,
            "the largest request could never be read",
        );
        at_most(
            "topics.max_message_bytes",
            self.topics.max_message_bytes.0,
            "limits.request_bytes",
            limits.request_bytes.0,
            "the largest batch could never be sent",
        );
        at_most(
            "limits.fetch_bytes",
            limits.fetch_bytes.0,
            "limits.memory_bytes",
            limits.memory_bytes.0,
            "the largest answer could never be sent",
        );
        at_most(
            "groups.min_session_timeout_ms",
            groups.min_session_timeout_ms.0,
            "groups.max_session_timeout_ms",
            groups.max_session_timeout_ms.0,
            "no session time-out would be right",
        );
    }
}

/// What is wrong with the directives of `log.level`. A lone word must be a level: to the parser it would be the name of a
/// module, and a misspelt level would silence everything.
fn level_mistake(directives: &str) -> Option<String> {
    let lone = |directive: &&str| !directive.contains(['=', '[']);
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let mut words = directives.split(',').map(str::trim).filter(lone);
    if let Some(word) = words.find(|word| !levels.iter().any(|level| level.eq_ignore_ascii_case(word))) {
        return Some(format!("names {word:?}, which is none of {}", levels.join(", ")));
    }
    let parsed = tracing_subscriber::EnvFilter::builder().parse(directives);
    parsed.err().map(|why| format!("is no list of directives: {why}"))
}
