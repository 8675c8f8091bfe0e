//! The storage engines that topics may choose, as far as decisions must know of them: what each of them can keep.
//!
//! They are this node's, from its configuration, like [`super::image::ClusterDefaults`] that holds them: nodes of one
//! cluster must agree on them. A node that lacks a topic's engine keeps nothing of that topic, and says so.
//!
//! **Where a topic's records are is a fact.** What the creator chose, or the default was then, is written down with the
//! topic, unless it is [`BUILT_IN`]; and it is never altered. So no later default moves a topic to where its records are
//! not.

use super::topic_config::{InvalidConfig, TopicConfigDef, definition};
use crate::wal::Survives;
use std::collections::BTreeMap;

/// The topic configuration that names a topic's engine.
pub const STORAGE: &str = "chronik.storage";
/// The engine of topics that say nothing.
pub const BUILT_IN: &str = "segment";

/// What an engine can keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineTraits {
    /// For people: its name, and of a plug-in also what it calls itself.
    pub label: String,
    pub survives: Survives,
    /// Its logs are in segments, which are what is dropped by size and what compaction replaces.
    pub segments: bool,
}

/// All engines that are configured, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageEngines {
    /// Of topics whose creator leaves it to the broker.
    default: String,
    /// Those that cannot be used with the reason.
    configured: BTreeMap<String, Result<EngineTraits, String>>,
}

impl Default for StorageEngines {
    /// The built-in one alone.
    fn default() -> Self {
        let traits = EngineTraits { label: BUILT_IN.to_owned(), survives: Survives::PowerLoss, segments: true };
        Self::new(BUILT_IN, BTreeMap::from([(BUILT_IN.to_owned(), Ok(traits))]))
    }
}

impl StorageEngines {
    pub fn new(default: impl Into<String>, configured: BTreeMap<String, Result<EngineTraits, String>>) -> Self {
        Self { default: default.into(), configured }
    }

    /// The engine of topics whose creator leaves it to the broker.
    pub fn default_name(&self) -> &str {
        &self.default
    }

    /// What an engine can keep, if it is configured and can be used.
    pub fn traits(&self, name: &str) -> Option<&EngineTraits> {
        self.configured.get(name)?.as_ref().ok()
    }

    /// Names of all that are configured, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.configured.keys().map(String::as_str)
    }

    /// The engine of a new topic whose creator does not say. `internal_and_compacted`: it is the broker's own, and lives by
    /// compaction; where the default engine cannot do that the built-in one keeps it.
    pub(super) fn for_new_topic(&self, internal_and_compacted: bool) -> &str {
        let lacks = self.traits(&self.default).is_some_and(|traits| !traits.segments);
        if internal_and_compacted && lacks && self.traits(BUILT_IN).is_some() { BUILT_IN } else { &self.default }
    }

    /// Whether a topic may be created in this engine.
    pub(super) fn check_is_there(&self, name: &str) -> Result<(), InvalidConfig> {
        match self.configured.get(name) {
            Some(Ok(_)) => Ok(()),
            Some(Err(why)) => Err(InvalidConfig::Conflict(format!("{STORAGE}={name} cannot be used now: {why}"))),
            None => {
                let names: Vec<_> = self.names().collect();
                Err(InvalidConfig::Conflict(format!(
                    "{STORAGE}={name}: no storage engine of that name is configured on this broker, which has {}",
                    names.join(", ")
                )))
            }
        }
    }

    /// Whether the engine can keep what the configurations promise. One that is not configured here is not judged: whoever
    /// has it knows.
    pub fn check_promises(&self, text_of: impl Fn(&TopicConfigDef) -> String) -> Result<(), InvalidConfig> {
        let read = |name: &str| {
            let def = definition(name).expect("the names below are in the table, which a test proves");
            def.parse(&text_of(def))
        };
        let name = read(STORAGE)?;
        let Some(EngineTraits { label, survives, segments }) = self.traits(name.as_text()) else { return Ok(()) };
        let beyond = |what: &str, why: &str, instead: &str| {
            Err(InvalidConfig::Conflict(format!("{what} cannot be kept: {why}; {instead} can")))
        };
        if read("chronik.durability")?.as_text() == "fsync" && *survives < Survives::PowerLoss {
            let why = format!("what the storage engine ({label}) keeps {}", survives.in_words());
            return beyond("chronik.durability=fsync", &why, "chronik.durability=replicated");
        }
        if *segments {
            return Ok(());
        }
        let policy = read("cleanup.policy")?;
        let has = |word: &str| policy.as_list().iter().any(|item| item == word);
        if has("compact") {
            let why = format!("the storage engine ({label}) keeps no segments, which is what compaction replaces");
            return beyond("cleanup.policy=compact", &why, "cleanup.policy=delete");
        }
        if has("delete") && read("retention.bytes")?.as_i64() >= 0 {
            let why = format!("the storage engine ({label}) keeps no segments, which is what is dropped by size");
            return beyond("retention.bytes", &why, "retention.ms");
        }
        Ok(())
    }
}

impl Survives {
    /// In words that follow "what it keeps".
    pub fn in_words(self) -> &'static str {
        match self {
            Survives::PowerLoss => "survives a power cut once synced",
            Survives::Process => "survives the process but no power cut",
            Survives::Nothing => "does not survive the process",
        }
    }

    /// As configurations call it.
    pub fn word(self) -> &'static str {
        match self {
            Survives::PowerLoss => "power-loss",
            Survives::Process => "process",
            Survives::Nothing => "nothing",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::topic_config::table_default;
    use super::*;

    fn engines() -> StorageEngines {
        let of = |label: &str, survives, segments| Ok(EngineTraits { label: label.into(), survives, segments });
        let configured = BTreeMap::from([
            ("segment".to_owned(), of("segment", Survives::PowerLoss, true)),
            ("memory".to_owned(), of("memory", Survives::Nothing, true)),
            ("plain".to_owned(), of("plain plain-c 1.0.0", Survives::PowerLoss, false)),
            ("gone".to_owned(), Err("its file is not there".to_owned())),
        ]);
        StorageEngines::new("plain", configured)
    }

    fn promises(set: &[(&str, &str)]) -> Result<(), String> {
        let text_of = |def: &TopicConfigDef| {
            let own = set.iter().find(|(name, _)| *name == def.name);
            own.map_or_else(|| table_default(def), |(_, text)| (*text).to_owned())
        };
        engines().check_promises(text_of).map_err(|why| why.to_string())
    }

    #[test]
    fn only_an_engine_that_is_configured_and_works_may_be_chosen() {
        assert_eq!(engines().check_is_there("memory"), Ok(()));
        let why = engines().check_is_there("gone").expect_err("it cannot").to_string();
        assert!(why.contains("its file is not there"), "{why}");
        let why = engines().check_is_there("plane").expect_err("there is none").to_string();
        assert!(why.contains("which has gone, memory, plain, segment"), "{why}");
    }

    #[test]
    fn no_more_is_promised_than_the_topics_engine_can_keep() {
        assert_eq!(promises(&[]), Ok(()), "segment");
        assert_eq!(promises(&[(STORAGE, "memory"), ("chronik.durability", "replicated")]), Ok(()));
        let why = promises(&[(STORAGE, "memory")]).expect_err("fsync is the default");
        assert!(why.contains("what the storage engine (memory) keeps does not survive the process"), "{why}");
        assert_eq!(promises(&[(STORAGE, "plain")]), Ok(()));
        for (name, value) in
            [("cleanup.policy", "compact"), ("cleanup.policy", "delete,compact"), ("retention.bytes", "1")]
        {
            let why = promises(&[(STORAGE, "plain"), (name, value)]).expect_err("it has no segments");
            assert!(why.contains(name) && why.contains("plain-c 1.0.0"), "{why}");
            assert_eq!(promises(&[(name, value)]), Ok(()), "the built-in one has");
        }
        assert_eq!(promises(&[(STORAGE, "plain"), ("retention.bytes", "1"), ("cleanup.policy", "")]), Ok(()));
        assert_eq!(promises(&[(STORAGE, "on-another-broker")]), Ok(()), "nothing is known of it here");
    }

    #[test]
    fn what_lives_by_compaction_goes_where_it_is_possible() {
        assert_eq!(engines().for_new_topic(false), "plain");
        assert_eq!(engines().for_new_topic(true), "segment");
        assert_eq!(StorageEngines::default().for_new_topic(true), "segment");
    }
}
