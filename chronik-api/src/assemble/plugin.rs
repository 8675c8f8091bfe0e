//! An engine that a plug-in brings.
//!
//! What must stay true: what a plug-in returns is checked against the batches' own checksums before anybody sees it.

use crate::config::{Config, Engine, Millis, PluginOptions as Given};
use chronik_core::batch::batches;
use chronik_core::wal::{Chunk, EngineError, WalEngine};
use chronik_plugin_host::{PluginEngine, PluginOptions, StartError};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where the plug-in of `storage.plugin` keeps its logs, inside the data directory.
const PLUGIN_DIRECTORY: &str = "plugin";
/// Where those of `storage.plugins` do, each in a directory of its name.
const PLUGINS_DIRECTORY: &str = "plugins";

/// Why there is no engine of a plug-in.
#[derive(Debug, thiserror::Error)]
pub enum PluginStartError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("its configuration is wrong: {0}")]
    Configuration(String),
    #[error("the logs that are there cannot be listed")]
    List(#[from] EngineError),
}

/// A plug-in at work.
pub struct Started {
    pub engine: Arc<dyn WalEngine>,
    /// What it calls itself: name and version.
    pub label: String,
}

/// Starts the engine that topics call `name`.
pub async fn start(config: &Config, name: &Engine, given: &Given) -> Result<Started, PluginStartError> {
    let below = match name {
        Engine::Named(name) => PathBuf::from(PLUGINS_DIRECTORY).join(name),
        _ => PathBuf::from(PLUGIN_DIRECTORY),
    };
    let directory = std::path::absolute(config.node.data_dir.join(below))
        .map_err(|error| PluginStartError::Configuration(error.to_string()))?;
    let Some(path) = given.path.clone() else {
        return Err(PluginStartError::Configuration("its path is missing".into()));
    };
    let wait = |wait: Millis| Duration::from_millis(u64::try_from(wait.0).unwrap_or(0));
    let options = PluginOptions {
        options: given.options.clone().unwrap_or_else(|| "{}".to_owned()),
        sha256: given.pin().map_err(PluginStartError::Configuration)?,
        lifecycle_timeout: wait(given.lifecycle_timeout_ms),
        call_timeout: wait(given.call_timeout_ms),
        verify: Some(Arc::new(intact)),
        ..PluginOptions::new(path, directory)
    };
    // It waits for the plug-in, which may take its time.
    let engine = tokio::task::spawn_blocking(move || PluginEngine::start(options))
        .await
        .map_err(|error| PluginStartError::Configuration(error.to_string()))??;
    let label = format!("{} {}", engine.info().name, engine.info().version);
    Ok(Started { engine: Arc::new(engine), label })
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
