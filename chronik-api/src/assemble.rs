//! From names in the configuration to parts: the only place that matches on the names of storage engines.

use crate::config::{Config, Engine, SyncFilesystem as Wanted};
use chronik_core::wal::WalEngine;
use chronik_storage_memory::MemoryEngine;
use chronik_storage_segment::{SegmentEngine, SegmentOptions, StartError, SyncFilesystem, SyncPolicy};
use std::sync::Arc;

/// Where the segment engine keeps its logs, inside the data directory.
const LOGS_DIRECTORY: &str = "logs";

/// Starts the storage engine that the configuration names.
pub fn storage(config: &Config) -> Result<Arc<dyn WalEngine>, StartError> {
    match config.storage.engine {
        Engine::Memory => Ok(Arc::new(MemoryEngine::new(config.storage.memory.bytes.as_u64()))),
        Engine::Segment => {
            let engine = SegmentEngine::start(config.node.data_dir.join(LOGS_DIRECTORY), segment_options(config))?;
            Ok(Arc::new(engine))
        }
    }
}

fn segment_options(config: &Config) -> SegmentOptions {
    let given = &config.storage.segment;
    SegmentOptions {
        tail_cache_bytes: given.tail_cache_bytes.as_u64(),
        unwritten_bytes_max: given.unwritten_bytes.as_u64(),
        open_files_max: given.open_files as usize,
        free_bytes_min: given.free_bytes_min.as_u64(),
        checkpoint_bytes: given.checkpoint_bytes.as_u64(),
        read_threads: given.read_threads as usize,
        sync: SyncPolicy {
            threads: given.sync_threads as usize,
            filesystem_from_logs: given.sync_filesystem_from_logs as usize,
            filesystem: match given.sync_filesystem {
                Wanted::Never => SyncFilesystem::Never,
                Wanted::IfOwn => SyncFilesystem::IfOwn,
                Wanted::Always => SyncFilesystem::Always,
            },
        },
        ..SegmentOptions::default()
    }
}
