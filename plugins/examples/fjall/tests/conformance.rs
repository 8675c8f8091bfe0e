//! The whole contract, through the boundary.

use chronik_conformance::wal::Directory;
use chronik_core::wal::WalEngine;
use chronik_plugin_host::{PluginEngine, PluginOptions};
use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Cargo builds the library beside its tests.
fn library() -> PathBuf {
    let test = env::current_exe().expect("a test has a file");
    let file = format!("libchronik_plugin_fjall{}", env::consts::DLL_SUFFIX);
    let beside = test.parent().expect("in a directory").join(file);
    assert!(beside.exists(), "{} is built", beside.display());
    beside
}

fn start(directory: &Path) -> Arc<dyn WalEngine> {
    let options = PluginOptions::new(library(), directory.to_owned());
    Arc::new(PluginEngine::start(options).expect("the plug-in starts"))
}

chronik_conformance::wal_suite!(Directory::new(start));
