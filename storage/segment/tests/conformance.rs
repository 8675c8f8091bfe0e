//! The segment engine keeps the contract, on a real directory.

use chronik_conformance::wal::Store;
use chronik_core::wal::WalEngine;
use chronik_storage_segment::{SegmentEngine, SegmentOptions};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

struct Segments(TempDir);

impl Segments {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory for temporary files is there"))
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a temporary directory can be written to");
    for entry in fs::read_dir(from).expect("the directory is there") {
        let entry = entry.expect("its entries can be read");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("files can be copied");
        }
    }
}

impl Store for Segments {
    fn start(&self) -> Arc<dyn WalEngine> {
        let options = SegmentOptions { tail_cache_bytes: 2048, open_files_max: 8, ..SegmentOptions::default() };
        Arc::new(SegmentEngine::start(self.0.path().join("data"), options).expect("the directory is free"))
    }

    /// What a killed process leaves is what its files hold.
    fn after_kill(&self) -> Option<Box<dyn Store>> {
        let left = Self::new();
        copy(&self.0.path().join("data"), &left.0.path().join("data"));
        Some(Box::new(left))
    }
}

chronik_conformance::wal_suite!(Segments::new());
