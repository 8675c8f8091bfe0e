//! The segment engine keeps the contract, on a real directory.

use chronik_conformance::wal::Store;
use chronik_core::wal::WalEngine;
use chronik_storage_segment::{SegmentEngine, SegmentOptions};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

struct Segments(TempDir);

impl Segments {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory for temporary files is there"))
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

impl Store for Segments {
    fn start(&self) -> Arc<dyn WalEngine> {
        let options = SegmentOptions { tail_cache_bytes: 2048, open_files_max: 8, ..SegmentOptions::default() };
        Arc::new(SegmentEngine::start(self.0.path().join("data"), options).expect("the directory is free"))
    }

    /// What a killed process leaves is what its files hold.
    fn after_kill(&self) -> Option<Box<dyn Store>> {
        // The engine may be replacing a file in the background: a copy in which one vanished is no moment's.
        loop {
            let left = Self::new();
            match copy(&self.0.path().join("data"), &left.0.path().join("data")) {
                Ok(()) => return Some(Box::new(left)),
                Err(vanished) if vanished.kind() == io::ErrorKind::NotFound => {}
                Err(failure) => panic!("the store cannot be copied: {failure}"),
            }
        }
    }
}

chronik_conformance::wal_suite!(Segments::new());
