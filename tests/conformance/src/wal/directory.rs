//! A store that is a directory, for engines that keep files: what a killed process leaves is what its files hold.

use super::Store;
use chronik_core::wal::WalEngine;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// Starts an engine over a directory, which need not be there yet.
pub type StartIn = Arc<dyn Fn(&Path) -> Arc<dyn WalEngine> + Send + Sync>;

/// A temporary directory, gone with its store, and how an engine starts over it.
pub struct Directory {
    place: TempDir,
    start: StartIn,
}

impl Directory {
    /// An empty one. Panics where the system has no room for temporary files: there is nothing to test on then.
    pub fn new(start: impl Fn(&Path) -> Arc<dyn WalEngine> + Send + Sync + 'static) -> Self {
        Self::with(Arc::new(start))
    }

    fn with(start: StartIn) -> Self {
        let place = tempfile::tempdir().unwrap_or_else(|error| panic!("no directory for temporary files: {error}"));
        Self { place, start }
    }
}

impl Store for Directory {
    fn start(&self) -> Arc<dyn WalEngine> {
        (self.start)(&self.place.path().join("data"))
    }

    fn after_kill(&self) -> Option<Box<dyn Store>> {
        loop {
            let left = Self::with(self.start.clone());
            match copy_tree(&self.place.path().join("data"), &left.place.path().join("data")) {
                Ok(()) => return Some(Box::new(left)),
                // The engine may be replacing a file in the background: a copy in which one vanished is no moment's.
                Err(vanished) if vanished.kind() == io::ErrorKind::NotFound => {}
                Err(failure) => panic!("the store cannot be copied: {failure}"),
            }
        }
    }
}

/// Copies a directory with everything below it.
///
/// # Errors
/// `NotFound` where something vanished meanwhile; whatever else the system says.
pub fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
