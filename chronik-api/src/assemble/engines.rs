//! All storage engines of this broker, by the names that topics choose them by.
//!
//! `segment` and `memory` are always there, and every plug-in that is configured; but a node alone whose `storage.engine` is
//! `memory` has nothing that outlives it, so that its metadata, and what it says of other engines' logs, could not be found
//! again: it has `memory` alone.
//!
//! What must stay true: a log is opened and deleted in the engine that its topic names, and in no other. Where that engine is
//! not there the partition is offline: an empty log elsewhere would look like all records lost. The metadata of a broker on
//! its own is in a built-in engine: whose plug-in fails must still know what its topics are.

use super::plugin;
use super::stored::Stored;
use super::{LOGS_DIRECTORY, StorageError, segment_options};
use crate::config::{Config, ConfiguredPlugin, Durability, Engine};
use chronik_core::ids::{LogId, TopicId};
use chronik_core::metadata::engines::{EngineTraits, StorageEngines};
use chronik_core::wal::{EngineError, OpenOptions, Survives, Usage, Wal, WalEngine};
use chronik_storage_memory::MemoryEngine;
use chronik_storage_segment::SegmentEngine;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why a log is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(
        "its topic has chronik.storage={name}, and no storage engine of that name is configured on this broker, which has {has}: add \
         it to [[storage.plugins]], as on the other brokers"
    )]
    NotConfigured { name: String, has: String },
    #[error("the storage engine {name} of its topic cannot be used: {why}")]
    Unusable { name: String, why: String },
    #[error(
        "its topic has chronik.storage={name}, but its records are kept by the storage engine {by}, from a release in which topics \
         did not choose"
    )]
    Elsewhere { name: String, by: String },
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// One that is configured.
struct Configured {
    /// Or why it cannot be used.
    engine: Result<Arc<dyn WalEngine>, String>,
    stored: Stored,
    segments: bool,
}

/// See the module's head.
pub struct Engines {
    default: String,
    configured: BTreeMap<String, Configured>,
    metadata: Arc<dyn WalEngine>,
    /// Records that were there when the broker started, by the engine that has them. Empty where only the built-in engine
    /// could have any.
    found: BTreeMap<LogId, String>,
}

impl Configured {
    fn new(name: &str, engine: Arc<dyn WalEngine>) -> Self {
        let capabilities = engine.capabilities();
        let stored = Stored { engine: name.to_owned(), survives: capabilities.survives };
        Self { engine: Ok(engine), stored, segments: capabilities.segments }
    }
}

impl Engines {
    /// One engine alone, for all topics that choose `name`, and for the metadata.
    pub fn only(name: &str, engine: Arc<dyn WalEngine>) -> Self {
        let configured = BTreeMap::from([(name.to_owned(), Configured::new(name, engine.clone()))]);
        Self { default: name.to_owned(), configured, metadata: engine, found: BTreeMap::new() }
    }

    /// Starts everything that is configured, and judges whether the default engine can keep what `[topics]` promises.
    pub async fn start(config: &Config) -> Result<Self, StorageError> {
        let storage = &config.storage;
        let memory: Arc<dyn WalEngine> = Arc::new(MemoryEngine::new(storage.memory.bytes.as_u64()));
        if storage.engine == Engine::Memory && !config.is_cluster() {
            let engines = Self::only(Engine::Memory.word(), memory);
            return engines.judge(config).map(|()| engines);
        }
        let built_in: Arc<dyn WalEngine> =
            Arc::new(SegmentEngine::start(config.node.data_dir.join(LOGS_DIRECTORY), segment_options(config))?);
        let mut engines = Self::only(Engine::Segment.word(), built_in);
        engines.default = storage.engine.word().to_owned();
        engines.configured.insert(Engine::Memory.word().to_owned(), Configured::new(Engine::Memory.word(), memory));
        let started = match engines.start_plugins(config).await {
            Ok(()) => engines.judge(config),
            failed => failed,
        };
        if let Err(why) = started {
            // Whoever mends the configuration and starts again at once must find the directories free.
            if let Err(error) = engines.close().await {
                tracing::error!(%error, "the storage engines that are not used did not close");
            }
            return Err(why);
        }
        Ok(engines)
    }

    async fn start_plugins(&mut self, config: &Config) -> Result<(), StorageError> {
        for ConfiguredPlugin { engine: name, options, .. } in config.storage.configured_plugins() {
            let word = name.word().to_owned();
            let started = match plugin::start(config, &name, &options).await {
                // What it has is asked once, so that no log of it is taken for another engine's new one.
                Ok(started) => match started.engine.list().await {
                    Ok(logs) => Ok((started, logs)),
                    Err(error) => {
                        if let Err(error) = started.engine.close().await {
                            tracing::error!(%error, "the storage plug-in that is not used did not close");
                        }
                        Err(error.into())
                    }
                },
                Err(why) => Err(why),
            };
            let configured = match started {
                Ok((started, logs)) => {
                    let mut configured = Configured::new(&word, started.engine);
                    configured.stored.engine = format!("{word} {}", started.label);
                    let kept = configured.stored.survives.in_words();
                    tracing::info!(
                        engine = word,
                        plugin = started.label,
                        "a storage plug-in is ready; what it keeps {kept}"
                    );
                    self.found.extend(logs.into_iter().map(|log| (log, word.clone())));
                    configured
                }
                Err(why) if options.required => return Err(plugin_failed(&name, why)),
                Err(why) => {
                    let why = whole(&why);
                    tracing::error!(
                        engine = word,
                        "a storage plug-in cannot be used, and what it keeps is offline: {why}"
                    );
                    let stored = Stored { engine: word.clone(), survives: Survives::Nothing };
                    Configured { engine: Err(why), stored, segments: false }
                }
            };
            self.configured.insert(word, configured);
        }
        if !self.found.is_empty() {
            let built_in = self.metadata.list().await.map_err(StorageError::List)?;
            let records = built_in.into_iter().filter(|log| log.topic != TopicId::METADATA);
            self.found.extend(records.map(|log| (log, Engine::Segment.word().to_owned())));
        }
        Ok(())
    }

    /// Whether the default engine can keep what the configuration promises for all topics.
    fn judge(&self, config: &Config) -> Result<(), StorageError> {
        let Some(Configured { stored, segments, engine: Ok(_) }) = self.configured.get(&self.default) else {
            return Ok(());
        };
        let (topics, name) = (&config.topics, || stored.engine.clone());
        if topics.durability == Durability::Fsync && stored.survives < Survives::PowerLoss {
            return Err(StorageError::Durability { name: name(), survives: stored.survives.in_words() });
        }
        let deletes = topics.cleanup_policy != crate::config::CleanupPolicy::Compact;
        if topics.retention_bytes.0 >= 0 && deletes && !segments {
            return Err(StorageError::Retention { name: name() });
        }
        if topics.cleanup_policy != crate::config::CleanupPolicy::Delete && !segments {
            return Err(StorageError::Compaction { name: name() });
        }
        Ok(())
    }

    /// What keeps the records of topics that do not choose.
    pub fn default_stored(&self) -> Stored {
        let unknown = || Stored { engine: self.default.clone(), survives: Survives::Nothing };
        self.configured.get(&self.default).map_or_else(unknown, |configured| configured.stored.clone())
    }

    /// What an engine is and keeps; `None` where it is not there, or cannot be used.
    pub fn stored(&self, name: &str) -> Option<&Stored> {
        self.configured.get(name).filter(|configured| configured.engine.is_ok()).map(|configured| &configured.stored)
    }

    /// All that are configured, the default one first.
    pub fn names(&self) -> Vec<&str> {
        let others = self.configured.keys().map(String::as_str).filter(|name| *name != self.default);
        std::iter::once(self.default.as_str()).chain(others).collect()
    }

    /// What decisions must know of them.
    pub fn traits(&self) -> StorageEngines {
        let of = |configured: &Configured| match &configured.engine {
            Ok(_) => Ok(EngineTraits {
                label: configured.stored.engine.clone(),
                survives: configured.stored.survives,
                segments: configured.segments,
            }),
            Err(why) => Err(why.clone()),
        };
        let configured = self.configured.iter().map(|(name, configured)| (name.clone(), of(configured))).collect();
        StorageEngines::new(self.default.clone(), configured)
    }

    /// Keeps the metadata of a broker on its own.
    pub fn for_metadata(&self) -> &Arc<dyn WalEngine> {
        &self.metadata
    }

    fn engine(&self, name: &str) -> Result<&Arc<dyn WalEngine>, LogError> {
        match self.configured.get(name).map(|configured| &configured.engine) {
            Some(Ok(engine)) => Ok(engine),
            Some(Err(why)) => Err(LogError::Unusable { name: name.to_owned(), why: why.clone() }),
            None => Err(LogError::NotConfigured { name: name.to_owned(), has: self.names().join(", ") }),
        }
    }

    /// Opens a log in its topic's engine.
    pub async fn open(&self, name: &str, id: LogId, options: OpenOptions) -> Result<Arc<dyn Wal>, LogError> {
        let engine = self.engine(name)?;
        match self.found.get(&id) {
            Some(by) if by != name => Err(LogError::Elsewhere { name: name.to_owned(), by: by.clone() }),
            _ => Ok(engine.open(id, options).await?),
        }
    }

    /// Removes a log from its topic's engine.
    pub async fn delete(&self, name: &str, id: LogId) -> Result<(), LogError> {
        match self.engine(name)?.delete(id).await {
            Ok(()) | Err(EngineError::NotFound(_)) => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Puts a damaged log of its topic's engine where only people find it.
    pub async fn set_aside(&self, name: &str, id: LogId) -> Result<(), LogError> {
        match self.engine(name)?.set_aside(id).await {
            Ok(()) | Err(EngineError::NotFound(_)) => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }

    fn usable(&self) -> impl Iterator<Item = &Arc<dyn WalEngine>> {
        self.configured.values().filter_map(|configured| configured.engine.as_ref().ok())
    }

    /// What all of them occupy. The device is the default engine's, or the built-in one's.
    pub fn usage(&self) -> Usage {
        let device = self.engine(&self.default).unwrap_or(&self.metadata).usage();
        self.usable().map(|engine| engine.usage()).fold(
            Usage { logs: 0, bytes: 0, memory_bytes: 0, ..device },
            |all, one| Usage {
                logs: all.logs + one.logs,
                bytes: all.bytes + one.bytes,
                memory_bytes: all.memory_bytes + one.memory_bytes,
                ..all
            },
        )
    }

    /// Closes all of them, also where one fails; the built-in engine last, since it has the metadata.
    pub async fn close(&self) -> Result<(), EngineError> {
        let mut closed = Ok(());
        for engine in self.usable().filter(|engine| !Arc::ptr_eq(engine, &self.metadata)).chain([&self.metadata]) {
            let outcome = engine.close().await;
            if closed.is_ok() {
                closed = outcome;
            }
        }
        closed
    }
}

fn plugin_failed(name: &Engine, source: plugin::PluginStartError) -> StorageError {
    StorageError::Plugin { name: name.word().to_owned(), source }
}

/// An error with its causes, in one line.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronik_core::wal::OpenMode;

    #[tokio::test]
    async fn records_that_another_engine_has_are_not_taken_for_none() {
        let mut engines = Engines::only("segment", Arc::new(MemoryEngine::new(1 << 20)));
        let id = LogId { topic: TopicId([7; 16]), partition: 0 };
        engines.found.insert(id, "plugin".to_owned());
        let options = OpenOptions { mode: OpenMode::CreateIfMissing, segment_bytes: 1 << 20 };
        let why = engines.open("segment", id, options).await.err().map(|why| why.to_string()).unwrap_or_default();
        assert!(
            why.contains("chronik.storage=segment, but its records are kept by the storage engine plugin"),
            "{why}"
        );
        assert_eq!(engines.for_metadata().list().await.expect("listed"), [], "nothing was begun");
        assert!(engines.open("segment", LogId { partition: 1, ..id }, options).await.is_ok());
    }

    #[tokio::test]
    async fn an_engine_that_cannot_be_used_is_known_by_its_reason() {
        let mut engines = Engines::only("segment", Arc::new(MemoryEngine::new(1 << 20)));
        let stored = Stored { engine: "cold".to_owned(), survives: Survives::Nothing };
        let cold = Configured { engine: Err("its file is not there".to_owned()), stored, segments: false };
        engines.configured.insert("cold".to_owned(), cold);
        assert_eq!(engines.names(), ["segment", "cold"]);
        assert!(engines.stored("cold").is_none() && engines.traits().traits("cold").is_none());
        let gone = engines.delete("cold", LogId::default()).await;
        assert!(gone.is_err_and(|why| why.to_string().contains("its file is not there")));
        assert_eq!(engines.usage().logs, 0);
        assert!(engines.close().await.is_ok());
    }
}
