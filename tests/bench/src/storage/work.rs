//! What an engine is told to do, and what is told of it.

use crate::stats::latencies::Counts;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Engine {
    Segment,
    Memory,
    Plugin { library: PathBuf, options: String },
}

/// One after the other, each waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Until written.
    Append {
        bytes: usize,
    },
    AppendAndSync {
        bytes: usize,
    },
    /// Of a log that is not empty, so many bytes at most at a time.
    Read {
        bytes: usize,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    pub engine: Engine,
    /// Of the engine's own, empty.
    pub directory: PathBuf,
    pub work: Work,
    pub warm_up_seconds: f64,
    pub seconds: f64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    pub seconds: f64,
    pub count: u64,
    pub bytes: u64,
    pub latencies: Counts,
    /// What the engine says that records survive.
    pub survives: String,
}
