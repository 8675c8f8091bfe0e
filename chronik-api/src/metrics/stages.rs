//! How long the stages of an acknowledgement took: histograms by stage, storage engine, and what the producer waited for.
//!
//! **Within a path, stages follow each other and never overlap**, so their times may be added; those of different paths go on
//! beside each other and may not. What is timed, and which of it, is [`crate::partitions::anatomy`]'s.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

/// Buckets with an upper bound: 1 µs, and each twice the one before it, to 16.8 s. An append into memory takes less than a
/// microsecond's few, and nobody waits for longer than the last.
const BOUNDS: usize = 25;

/// The transport of a broker that sends records to nobody.
const NO_TRANSPORT: &str = "none";

/// How long one stage took.
#[derive(Debug, Default)]
pub struct StageTimes {
    /// One per bound, and one for what is beyond them; each counts its own bucket only.
    buckets: [AtomicU64; BOUNDS + 1],
    sum_ns: AtomicU64,
}

impl StageTimes {
    pub fn observe(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let us = ns.div_ceil(1_000).max(1);
        let bucket = (u64::BITS - (us - 1).leading_zeros()) as usize;
        self.buckets[bucket.min(BOUNDS)].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    pub fn sum_seconds(&self) -> f64 {
        self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9
    }

    /// Count of each bucket with its upper bound in seconds; the last one's is beyond every number.
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = (0..BOUNDS).map(|power| (1u64 << power) as f64 / 1e6).chain([f64::MAX]);
        bounds.zip(self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed))).collect()
    }
}

/// A part of the time from a producer's first byte to its answer's last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From the request's first byte to its last.
    Read,
    /// Until its batch is read and checked, requests before it on its connection included.
    Decode,
    /// Until its log is asked to write it: the partition's lock, its place in the log, the request's other batches.
    Queue,
    /// Until it is with the operating system, a write that is under way before it included.
    Append,
    /// Until it is synced here.
    LocalSync,
    /// What the last follower in sync took longer than that.
    Followers,
    /// Until the watermark has passed it, and the answer may be made.
    Watermark,
    /// Until the answer is with the operating system; answers before it, and the request's other partitions, included.
    Reply,
    /// From its place in the log until it is handed to the lane to the last follower in sync, with others that go with it.
    Send,
    /// From then until all followers in sync are known to have it: lanes and network both ways, and what they do.
    RoundTrip,
    /// On a follower: from the arrival of its frame until it is with the operating system.
    FollowerAppend,
    /// On a follower: until it is synced.
    FollowerSync,
}

impl Stage {
    pub const ALL: [Stage; 12] = [
        Stage::Read,
        Stage::Decode,
        Stage::Queue,
        Stage::Append,
        Stage::LocalSync,
        Stage::Followers,
        Stage::Watermark,
        Stage::Reply,
        Stage::Send,
        Stage::RoundTrip,
        Stage::FollowerAppend,
        Stage::FollowerSync,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Stage::Read => "read",
            Stage::Decode => "decode",
            Stage::Queue => "queue",
            Stage::Append => "append",
            Stage::LocalSync => "local_sync",
            Stage::Followers => "followers",
            Stage::Watermark => "watermark",
            Stage::Reply => "reply",
            Stage::Send => "send",
            Stage::RoundTrip => "round_trip",
            Stage::FollowerAppend => "follower_append",
            Stage::FollowerSync => "follower_sync",
        }
    }

    /// What goes on one after the other: the request's stages, the leader's sending, and, within its round trip, what
    /// followers do.
    pub fn path(self) -> &'static str {
        match self {
            Stage::Send | Stage::RoundTrip => "replication",
            Stage::FollowerAppend | Stage::FollowerSync => "follower",
            _ => "request",
        }
    }
}

/// What the producer waits for, where it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    Leader,
    All,
    /// A follower is not told.
    Unknown,
}

impl Awaited {
    const ALL: [Awaited; 3] = [Awaited::Leader, Awaited::All, Awaited::Unknown];

    /// As Kafka's clients are told it.
    fn acks(self) -> Option<&'static str> {
        match self {
            Awaited::Leader => Some("1"),
            Awaited::All => Some("all"),
            Awaited::Unknown => None,
        }
    }
}

/// All stages of the logs in one engine.
#[derive(Debug, Default)]
pub struct EngineStages([[StageTimes; Stage::ALL.len()]; Awaited::ALL.len()]);

impl EngineStages {
    pub fn of(&self, awaited: Awaited, stage: Stage) -> &StageTimes {
        &self.0[awaited as usize][stage as usize]
    }
}

/// One series: its labels and its times.
pub type Series<'a> = (Vec<(&'static str, &'a str)>, &'a StageTimes);

/// All of a broker. **Bounded**: engines are those that are configured, and nothing is kept by topic.
#[derive(Debug, Default)]
pub struct AckStages {
    /// Set once, where there are other brokers.
    transport: OnceLock<&'static str>,
    engines: RwLock<BTreeMap<String, Arc<EngineStages>>>,
}

impl AckStages {
    /// What carries records to other brokers.
    pub fn set_transport(&self, name: &'static str) {
        // Set by the start alone, and once.
        let _ = self.transport.set(name);
    }

    /// The handle of an engine, to be kept by its logs' partitions.
    pub fn engine(&self, name: &str) -> Arc<EngineStages> {
        let mut engines = self.engines.write().unwrap_or_else(PoisonError::into_inner);
        engines.entry(name.to_owned()).or_default().clone()
    }

    /// Shows each stage that has counted something.
    pub fn each<E>(&self, mut show: impl FnMut(Series<'_>) -> Result<(), E>) -> Result<(), E> {
        let transport = self.transport.get().copied().unwrap_or(NO_TRANSPORT);
        let engines = self.engines.read().unwrap_or_else(PoisonError::into_inner);
        for (engine, stages) in engines.iter() {
            for awaited in Awaited::ALL {
                for stage in Stage::ALL {
                    let times = stages.of(awaited, stage);
                    if times.count() == 0 {
                        continue;
                    }
                    let mut labels = vec![
                        ("path", stage.path()),
                        ("stage", stage.name()),
                        ("engine", engine.as_str()),
                        ("transport", transport),
                    ];
                    labels.extend(awaited.acks().map(|acks| ("acks", acks)));
                    show((labels, times))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_bucket_whose_bound_it_does_not_exceed() {
        let times = StageTimes::default();
        for ns in [0, 1_000, 1_001, 2_000, 3_000, 4_000, 16_777_216_000, 16_777_216_001, u64::MAX] {
            times.observe(Duration::from_nanos(ns));
        }
        let counts: Vec<u64> = times.buckets().into_iter().map(|(_, count)| count).collect();
        assert_eq!((counts[0], counts[1], counts[2], counts[24], counts[25]), (2, 2, 2, 1, 2));
        assert_eq!(times.count(), 9);
        assert_eq!(times.buckets()[24].0, 16.777216);
    }

    #[test]
    fn stages_are_where_their_names_say() {
        for (place, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, place, "{}", stage.name());
        }
        for (place, awaited) in Awaited::ALL.into_iter().enumerate() {
            assert_eq!(awaited as usize, place);
        }
    }

    #[test]
    fn only_what_has_counted_is_shown_with_what_it_belongs_to() {
        let all = AckStages::default();
        all.set_transport("quic");
        let engine = all.engine("segment");
        engine.of(Awaited::All, Stage::LocalSync).observe(Duration::from_millis(2));
        engine.of(Awaited::Unknown, Stage::FollowerSync).observe(Duration::from_millis(2));
        let mut shown = Vec::new();
        let Ok(()) = all.each(|(labels, times)| {
            let words: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            shown.push(format!("{} {}", words.join(","), times.count()));
            Ok::<_, std::convert::Infallible>(())
        });
        assert_eq!(
            shown,
            [
                "path=request,stage=local_sync,engine=segment,transport=quic,acks=all 1",
                "path=follower,stage=follower_sync,engine=segment,transport=quic 1",
            ]
        );
    }
}
