//! The segment engine through the plug-in interface: nothing differs from the built-in one but the boundary, so that what
//! the boundary costs can be measured, and what it breaks be seen.

use chronik_plugin_sdk::{Author, export_engine};
use chronik_storage_segment::{SegmentEngine, SegmentOptions};
use std::path::Path;

struct Segment;

impl Author for Segment {
    const NAME: &'static str = "segment";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SEGMENTS: bool = true;
    const SETS_ASIDE: bool = true;
    type Engine = SegmentEngine;

    fn start(directory: &Path, _options: &str) -> Result<SegmentEngine, String> {
        SegmentEngine::start(directory.to_owned(), SegmentOptions::default()).map_err(|error| error.to_string())
    }
}

export_engine!(Segment);
