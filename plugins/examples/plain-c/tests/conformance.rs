//! An engine in plain C keeps the whole contract.

use chronik_conformance::wal::Directory;
use chronik_core::wal::WalEngine;
use chronik_plugin_host::{PluginEngine, PluginOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use tempfile::TempDir;

/// Compiled once; kept, with its directory, as long as the tests run.
static LIBRARY: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
    let place = tempfile::tempdir().expect("a directory for temporary files is there");
    let library = chronik_plugin_plain_c::build(place.path()).expect("a C compiler builds it");
    (place, library)
});

fn start(directory: &Path) -> Arc<dyn WalEngine> {
    let options = PluginOptions::new(LIBRARY.1.clone(), directory.to_owned());
    Arc::new(PluginEngine::start(options).expect("the plug-in starts"))
}

chronik_conformance::wal_suite!(Directory::new(start));
