//! From names in the configuration to parts: the only place that matches on the names of storage engines.

use crate::config::{Config, Engine};
use chronik_core::wal::WalEngine;
use chronik_storage_memory::MemoryEngine;
use std::path::PathBuf;
use std::sync::Arc;

/// Why the configured engine does not start.
#[derive(Debug, thiserror::Error)]
#[error("the storage engine does not start in {directory}")]
pub struct EngineStartError {
    directory: PathBuf,
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// Starts the storage engine that the configuration names.
pub fn storage(config: &Config) -> Result<Arc<dyn WalEngine>, EngineStartError> {
    match config.storage.engine {
        Engine::Memory => Ok(Arc::new(MemoryEngine::new(config.storage.memory.bytes.as_u64()))),
        Engine::Segment => {
            Err(EngineStartError { directory: config.node.data_dir.clone(), source: "not built".into() })
        }
    }
}
