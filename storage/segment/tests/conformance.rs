//! The segment engine keeps the contract, on a real directory.

use chronik_conformance::wal::Directory;
use chronik_core::wal::WalEngine;
use chronik_storage_segment::{SegmentEngine, SegmentOptions};
use std::path::Path;
use std::sync::Arc;

fn start(directory: &Path) -> Arc<dyn WalEngine> {
    let options = SegmentOptions { tail_cache_bytes: 2048, open_files_max: 8, ..SegmentOptions::default() };
    Arc::new(SegmentEngine::start(directory.to_owned(), options).expect("the directory is free"))
}

chronik_conformance::wal_suite!(Directory::new(start));
