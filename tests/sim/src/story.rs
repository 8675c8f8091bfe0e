//! What kind of story a seed tells: how many nodes, how they are run, and what may happen to them.
//!
//! **Swarm.** Each seed has only some kinds of faults, and those more often than a mixture of all would: a world in which
//! everything goes wrong at once rarely comes far enough for the interesting mistakes.

use crate::dice::Dice;
use crate::net::Weather;
use crate::node::NodeSettings;
use chronik_core::metadata::raft::Settings;
use chronik_storage_segment::{SegmentOptions, SyncPolicy};
use std::time::Duration;

/// A kind of fault, with how often it is drawn among those of the story.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Kill,
    PowerCut,
    PowerCutAll,
    Pause,
    CutOneWay,
    CutPair,
    Isolate,
    Split,
    Clog,
    Wipe,
    Shorten,
    JumpClock,
    SlowDisk,
    FailSyncs,
    FillDisk,
    FailCalls,
    LackRoom,
    Rot,
    Misdirect,
}

impl Fault {
    pub const ALL: [Fault; 19] = [
        Fault::Kill,
        Fault::PowerCut,
        Fault::PowerCutAll,
        Fault::Pause,
        Fault::CutOneWay,
        Fault::CutPair,
        Fault::Isolate,
        Fault::Split,
        Fault::Clog,
        Fault::Wipe,
        Fault::Shorten,
        Fault::JumpClock,
        Fault::SlowDisk,
        Fault::FailSyncs,
        Fault::FillDisk,
        Fault::FailCalls,
        Fault::LackRoom,
        Fault::Rot,
        Fault::Misdirect,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Fault::Kill => "process killed",
            Fault::PowerCut => "power cut",
            Fault::PowerCutAll => "power cut everywhere",
            Fault::Pause => "process paused",
            Fault::CutOneWay => "link cut one way",
            Fault::CutPair => "link cut",
            Fault::Isolate => "node isolated",
            Fault::Split => "cluster split",
            Fault::Clog => "link clogged",
            Fault::Wipe => "disk wiped",
            Fault::Shorten => "log cut short",
            Fault::JumpClock => "wall clock jumped",
            Fault::SlowDisk => "disk slow",
            Fault::FailSyncs => "syncs fail",
            Fault::FillDisk => "disk full",
            Fault::FailCalls => "any call to the disk may fail",
            Fault::LackRoom => "any call that takes room may fail",
            Fault::Rot => "bit rotten",
            Fault::Misdirect => "write misdirected",
        }
    }
}

/// See the module's head.
#[derive(Clone, Debug)]
pub struct Story {
    pub nodes: i32,
    pub node: NodeSettings,
    pub weather: Weather,
    pub faults: Vec<Fault>,
    /// Between two faults, on average.
    pub fault_every: Duration,
    /// How long things stay broken.
    pub broken_most: Duration,
    pub drift_ppm: u64,
    /// How long there are faults.
    pub span: Duration,
    pub producers: u64,
    pub consumers: u64,
    /// Between two batches of a producer, at most.
    pub produce_every: Duration,
    pub in_flight: u64,
    /// Topics are created, deleted and configured, and partitions are moved.
    pub administers: bool,
    pub disk_most: Duration,
    /// Likewise, of a producer that is content with the leader's word.
    pub careless_every: Duration,
    /// Between two fetches of a consumer, at most.
    pub consume_every: Duration,
    /// Members of a group, if there is one.
    pub members: u64,
    /// Topics may prefer losing records to being offline.
    pub may_lose: bool,
    /// Topics may be content with written records.
    pub unsynced: bool,
    /// Topics may be on one node only.
    pub singles: bool,
    /// Old records are dropped.
    pub trims: bool,
    /// Nothing goes wrong before.
    pub quiet_until: Duration,
}

impl Story {
    pub fn of(dice: &mut Dice) -> Story {
        let nodes = if dice.once_in(5) { 5 } else { 3 };
        let mut faults: Vec<Fault> = Fault::ALL.into_iter().filter(|_| dice.once_in(4)).collect();
        if faults.is_empty() && !dice.once_in(10) {
            faults = vec![Fault::Kill, Fault::Pause, Fault::CutPair];
        }
        let administers = dice.once_in(2);
        // What is survived is the loss of what one node has; and not where a topic is content with one copy.
        let (may_lose, unsynced) = (dice.once_in(5), dice.once_in(5));
        let of_one = [Fault::Shorten, Fault::Rot, Fault::Misdirect];
        if administers || may_lose || unsynced || faults.contains(&Fault::Wipe) {
            faults.retain(|fault| !of_one.contains(fault));
        }
        let loses_disks = faults.contains(&Fault::Wipe) || faults.iter().any(|fault| of_one.contains(fault));
        let singles = !may_lose && !unsynced && !loses_disks && dice.once_in(3);
        let snapshots_often = dice.once_in(2);
        let raft = Settings {
            snapshot_after_entries: if snapshots_often { 40 } else { 10_000 },
            keep_entries: if snapshots_often { 10 } else { 1_000 },
            ..Settings::default()
        };
        let engine = SegmentOptions {
            // Written ahead or not, small, so that a story's disk is small.
            write_ahead_bytes: if dice.once_in(3) { 8 << 10 } else { 0 },
            // As small as can be, so that it comes round, or none.
            sync: SyncPolicy { journal_bytes: if dice.once_in(3) { 0 } else { 2 << 20 }, ..SyncPolicy::default() },
            ..SegmentOptions::default()
        };
        let node = NodeSettings {
            raft,
            session: Duration::from_secs(2),
            lag_max: Duration::from_millis(dice.between(500, 4_000)),
            heartbeat: Duration::from_millis(500),
            checkpoint_every: Duration::from_millis(dice.between(300, 6_000)),
            segment_bytes: 1 << dice.between(10, 16),
            engine,
        };
        let stormy = dice.once_in(2);
        let weather = Weather {
            delay_least: Duration::from_micros(100),
            delay_most: Duration::from_millis(if stormy { dice.between(2, 30) } else { 2 }),
            lost: if stormy { dice.below(50) } else { 0 },
            doubled: if stormy { dice.below(30) } else { 0 },
            straggles: if stormy { dice.below(30) } else { 0 },
            tells_gone: dice.once_in(2),
        };
        Story {
            nodes,
            node,
            weather,
            faults,
            fault_every: Duration::from_millis(dice.between(400, 4_000)),
            broken_most: Duration::from_millis(dice.between(1_000, 8_000)),
            drift_ppm: if dice.once_in(2) { dice.below(20_000) } else { 0 },
            span: Duration::from_secs(dice.between(15, 45)),
            producers: dice.between(2, 5),
            consumers: dice.between(1, 3),
            produce_every: Duration::from_millis(dice.between(30, 500)),
            in_flight: dice.between(1, 5),
            administers,
            disk_most: Duration::from_micros(dice.between(500, 8_000)),
            // Many records of which only their leader knows make for logs that part.
            careless_every: Duration::from_millis(if dice.once_in(3) { 20 } else { 600 }),
            consume_every: Duration::from_millis(dice.between(100, 800)),
            members: if dice.once_in(3) { dice.between(2, 4) } else { 0 },
            may_lose,
            unsynced,
            singles,
            trims: dice.once_in(3),
            quiet_until: Duration::ZERO,
        }
    }

    pub fn describe(&self) -> String {
        let faults: Vec<_> = self.faults.iter().map(|fault| fault.name()).collect();
        format!(
            "{} nodes, {:?} of: {}; a fault every {:?}; {} producers with {} in flight{}{}{}{}{}{}",
            self.nodes,
            self.span,
            if faults.is_empty() { "no faults".into() } else { faults.join(", ") },
            self.fault_every,
            self.producers,
            self.in_flight,
            if self.administers { "; topics and replicas change" } else { "" },
            if self.members > 0 { "; a group" } else { "" },
            if self.may_lose { "; unclean elections" } else { "" },
            if self.unsynced { "; unsynced topics" } else { "" },
            if self.singles { "; topics on one node" } else { "" },
            if self.trims { "; old records go" } else { "" },
        )
    }
}
