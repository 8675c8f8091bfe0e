//! What the two ends of a link are told to do, and what they tell of it.

use super::layer::Layer;
use crate::stats::latencies::Counts;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// To an end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    pub layer: Layer,
    pub certs: PathBuf,
    /// None for the end that listens and answers.
    pub near: Option<Near>,
}

/// What the end that dials does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Near {
    pub port: u16,
    pub work: Work,
    pub warm_up_seconds: f64,
    pub seconds: f64,
}

/// What goes over the link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Work {
    pub bulk: Option<Bulk>,
    pub probes: Option<Probes>,
}

/// As many frames on their way on each lane as the window says, each acknowledged; acknowledgements are cumulative, as those
/// of the replication are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bulk {
    pub frame_bytes: usize,
    pub window: usize,
    pub lanes: u8,
}

/// Frames at their times, whatever became of earlier ones, each sent back.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probes {
    pub frame_bytes: usize,
    pub per_second: f64,
    /// On the first lane of the bulk instead of one of their own.
    pub on_bulk_lane: bool,
}

/// What the near end saw while it counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    pub seconds: f64,
    /// Of the bulk, acknowledged.
    pub frames: u64,
    pub bytes: u64,
    pub probes: u64,
    pub unanswered: u64,
    /// Bytes and packets on the link's device meanwhile.
    pub carried: Option<(u64, u64)>,
    pub round_trips: Counts,
    /// How late probes were sent.
    pub lag: Counts,
}

/// A frame of the bulk; the number is how many went before it.
pub const BULK: u8 = 1;
/// Says how many of the bulk have come.
pub const ACKNOWLEDGED: u8 = 2;
/// To be sent back.
pub const PROBE: u8 = 3;
pub const ANSWER: u8 = 4;

/// The longest frame that is sent.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
