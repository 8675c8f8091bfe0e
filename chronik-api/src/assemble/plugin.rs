//! The engine that a plug-in brings, and beside it the built-in one for the metadata log: a broker whose plug-in fails must
//! still know what its topics are.
//!
//! What must stay true: what a plug-in returns is checked against the batches' own checksums before anybody sees it; and
//! nothing is promised that the plug-in does not.

use super::stored::told;
use crate::config::{Config, Durability};
use async_trait::async_trait;
use chronik_core::batch::batches;
use chronik_core::ids::{LogId, TopicId};
use chronik_core::wal::{Capabilities, Chunk, EngineError, OpenOptions, Survives, Usage, Wal, WalEngine};
use chronik_plugin_host::{PluginEngine, PluginOptions, StartError};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where plug-ins keep their logs, inside the data directory.
const PLUGIN_DIRECTORY: &str = "plugin";

/// Why there is no engine of a plug-in.
#[derive(Debug, thiserror::Error)]
pub enum PluginStartError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the configuration of the storage plug-in is wrong: {0}")]
    Configuration(String),
    #[error(
        "topics.durability is \"fsync\", but what the storage plug-in {name} keeps {survives}: write durability = \"replicated\""
    )]
    Durability { name: String, survives: &'static str },
    #[error(
        "topics.retention_bytes is set, but the storage plug-in {name} keeps no segments, so that only age can be a reason to \
         delete: write retention_bytes = -1"
    )]
    Retention { name: String },
    #[error("{0} holds records of the built-in engine, which a plug-in cannot read: choose another node.data_dir")]
    BuiltInLogs(PathBuf),
    #[error("the logs that are there cannot be listed")]
    List(#[from] EngineError),
}

/// Starts the plug-in's engine; `built_in` gets the metadata log. Also gives the plug-in's name and version.
pub async fn start(
    config: &Config,
    built_in: Arc<dyn WalEngine>,
) -> Result<(Arc<dyn WalEngine>, String), PluginStartError> {
    let given = &config.storage.plugin;
    let directory = std::path::absolute(config.node.data_dir.join(PLUGIN_DIRECTORY))
        .map_err(|error| PluginStartError::Configuration(error.to_string()))?;
    let Some(path) = given.path.clone() else {
        return Err(PluginStartError::Configuration("storage.plugin.path is missing".into()));
    };
    if built_in.list().await?.iter().any(|log| log.topic != TopicId::METADATA) {
        return Err(PluginStartError::BuiltInLogs(config.node.data_dir.clone()));
    }
    let wait = |wait: crate::config::Millis| Duration::from_millis(u64::try_from(wait.0).unwrap_or(0));
    let options = PluginOptions {
        options: given.options.clone().unwrap_or_else(|| "{}".to_owned()),
        sha256: given.pin().map_err(PluginStartError::Configuration)?,
        lifecycle_timeout: wait(given.lifecycle_timeout_ms),
        call_timeout: wait(given.call_timeout_ms),
        verify: Some(Arc::new(intact)),
        ..PluginOptions::new(path, directory)
    };
    // It waits for the plug-in, which may take its time.
    let plugin = tokio::task::spawn_blocking(move || PluginEngine::start(options))
        .await
        .map_err(|error| PluginStartError::Configuration(error.to_string()))??;

    let capabilities = plugin.capabilities();
    let survives = told(capabilities.survives);
    let name = format!("{} {}", plugin.info().name, plugin.info().version);
    tracing::info!(plugin = %name, "records are kept by a storage plug-in; what it keeps {survives}");
    let refused = if config.topics.durability == Durability::Fsync && capabilities.survives < Survives::PowerLoss {
        PluginStartError::Durability { name, survives }
    } else if config.topics.retention_bytes.0 >= 0 && !capabilities.segments {
        PluginStartError::Retention { name }
    } else {
        return Ok((Arc::new(MetadataApart { plugin, built_in }), name));
    };
    // Whoever mends the configuration and starts again at once must find the directory free.
    if let Err(error) = plugin.close().await {
        tracing::error!(%error, "the storage plug-in that is not used did not close");
    }
    Err(refused)
}

/// Whether all that was read are whole batches with the right checksums.
fn intact(chunk: &Chunk) -> Result<(), String> {
    for batch in batches(&chunk.bytes) {
        let batch = batch.map_err(|why| why.to_string())?;
        if !batch.is_intact() {
            return Err(format!("the checksum of the batch at offset {} is wrong", batch.header.base_offset));
        }
    }
    Ok(())
}

/// The plug-in for all logs but the metadata's.
struct MetadataApart {
    plugin: PluginEngine,
    built_in: Arc<dyn WalEngine>,
}

impl MetadataApart {
    fn of(&self, id: LogId) -> &dyn WalEngine {
        if id.topic == TopicId::METADATA { &*self.built_in } else { &self.plugin }
    }
}

#[async_trait]
impl WalEngine for MetadataApart {
    fn capabilities(&self) -> Capabilities {
        self.plugin.capabilities()
    }

    async fn open(&self, id: LogId, options: OpenOptions) -> Result<Arc<dyn Wal>, EngineError> {
        self.of(id).open(id, options).await
    }

    async fn list(&self) -> Result<Vec<LogId>, EngineError> {
        let mut logs = self.built_in.list().await?;
        logs.extend(self.plugin.list().await?);
        logs.sort_unstable();
        Ok(logs)
    }

    async fn delete(&self, id: LogId) -> Result<(), EngineError> {
        self.of(id).delete(id).await
    }

    async fn set_aside(&self, id: LogId) -> Result<(), EngineError> {
        self.of(id).set_aside(id).await
    }

    /// The device is the plug-in's: records are what fills it.
    fn usage(&self) -> Usage {
        let (plugin, built_in) = (self.plugin.usage(), self.built_in.usage());
        Usage {
            logs: plugin.logs + built_in.logs,
            bytes: plugin.bytes + built_in.bytes,
            memory_bytes: plugin.memory_bytes + built_in.memory_bytes,
            ..plugin
        }
    }

    async fn close(&self) -> Result<(), EngineError> {
        let plugin = self.plugin.close().await;
        self.built_in.close().await?;
        plugin
    }
}
