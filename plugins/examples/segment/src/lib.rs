//! The segment engine through the plug-in interface: nothing differs from the built-in one but the boundary, so that what
//! the boundary costs can be measured, and what it breaks be seen.

use chronik_plugin_sdk::{Author, export_engine, spawn};
use chronik_storage_segment::threads::{Job, ThreadPools};
use chronik_storage_segment::{SegmentEngine, SegmentOptions};
use std::io;
use std::path::Path;

struct Segment;

impl Author for Segment {
    const NAME: &'static str = "segment";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SEGMENTS: bool = true;
    const SETS_ASIDE: bool = true;
    type Engine = SegmentEngine;

    fn start(directory: &Path, _options: &str) -> Result<SegmentEngine, String> {
        let options = SegmentOptions::default();
        let threads = ThreadPools::started_by(start_thread, options.read_threads, options.sync.threads);
        SegmentEngine::start_with(threads, directory.to_owned(), options).map_err(|error| error.to_string())
    }
}

/// The engine starts its threads when there is work, in calls that a broker's threads make: not with their mask.
fn start_thread(name: &'static str, work: Job) -> io::Result<()> {
    spawn(name, work).map(drop)
}

export_engine!(Segment);
