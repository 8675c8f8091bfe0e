//! What partitions need from time to time: retention, rolling, checkpoints, forgetting producers.
//!
//! Decided by [`chronik_core::partition::retention`]; here is the timer, and the calls.

use super::{Partition, PartitionTable};
use crate::clock::Clock;
use chronik_core::ids::TopicId;
use chronik_core::partition::retention::{Retention, must_roll, start_after_retention};
use chronik_core::pending::Pending;
use chronik_core::time::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// Bytes appended to a partition after which its state is saved, so that a crash costs reading back no more than this.
pub const CHECKPOINT_EVERY_BYTES: u64 = 32 << 20;

/// What a topic's configuration asks of upkeep.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub retention: Retention,
    pub segment_ms: i64,
    /// `cleanup.policy` names deletion; without it nothing goes by age or size.
    pub deletes: bool,
}

/// How often, and how long producers are remembered.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub every: Duration,
    pub producer_expiration_ms: i64,
    pub producers_per_partition_max: usize,
}

/// Looks after all partitions, for ever. `rules` gives a topic's, or `None` if the topic is gone.
pub async fn run(
    table: Arc<PartitionTable>,
    clock: Clock,
    settings: Settings,
    rules: impl Fn(TopicId) -> Option<Rules>,
) {
    let mut timer = tokio::time::interval(settings.every);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        for partition in table.all() {
            let Some(rules) = rules(partition.id().topic) else { continue };
            if partition.is_closed() || partition.has_failed() {
                continue;
            }
            let now = clock.wall();
            let looked_after = look_after(&partition, &rules, &settings, now).await;
            // One that was closed meanwhile is not to be kept up: its topic is being deleted, or the broker stops.
            if let Err(failure) = looked_after
                && !partition.is_closed()
            {
                tracing::warn!(
                    topic = partition.topic(),
                    partition = partition.index(),
                    error = &failure as &dyn std::error::Error,
                    "upkeep of a partition failed; it is tried again"
                );
            }
        }
    }
}

/// Retention in a log without segments: by age, run by run. By size it cannot be, since nobody knows what a run occupies;
/// a broker with such an engine does not start with a bound in bytes.
async fn trim_by_age(
    partition: &Arc<Partition>,
    retention: &Retention,
    now: Timestamp,
) -> Result<(), chronik_core::wal::WalError> {
    let state = partition.log().state();
    let Some(age_ms_max) = retention.age_ms_max else { return Ok(()) };
    // Records without a time have no age.
    if state.max_timestamp == Timestamp::NONE {
        return Ok(());
    }
    let horizon = Timestamp(now.0.saturating_sub(age_ms_max));
    let young = Pending::start(|done| partition.log().offset_for_timestamp(horizon, done)).await?;
    let high_watermark = partition.standing().high_watermark;
    let start = young.map_or(high_watermark, |young| young.min(high_watermark));
    if start > state.start {
        partition.trim(start).await?;
    }
    Ok(())
}

async fn look_after(
    partition: &Arc<Partition>,
    rules: &Rules,
    settings: &Settings,
    now: Timestamp,
) -> Result<(), chronik_core::wal::WalError> {
    let horizon = Timestamp(now.0.saturating_sub(settings.producer_expiration_ms));
    partition.expire_producers(horizon, settings.producers_per_partition_max);
    // A follower drops what its leader has dropped.
    let leads = partition.standing().leads;
    if let (true, Some(segmented)) = (rules.deletes && leads, partition.log().segmented()) {
        let segments = segmented.segments();
        if let (Some(last), Some(began)) = (segments.last(), partition.segment_began())
            && must_roll(last, &rules.retention, rules.segment_ms, began, now)
        {
            // Serialised with appends, as the log asks: the leader's lock is what appends hold.
            partition.with_leader(|_| segmented.roll());
            partition.segment_rolled();
        }
        let high_watermark = partition.standing().high_watermark;
        let start = start_after_retention(&segmented.segments(), high_watermark, &rules.retention, now);
        if let Some(start) = start {
            partition.trim(start).await?;
            tracing::info!(
                topic = partition.topic(),
                partition = partition.index(),
                log_start = start.0,
                "retention removed old records"
            );
        }
    }
    if rules.deletes && leads && partition.log().segmented().is_none() {
        trim_by_age(partition, &rules.retention, now).await?;
    }
    // The watermark is saved also where little is written: it tells a log that has lost committed records.
    if partition.uncheckpointed_bytes() >= CHECKPOINT_EVERY_BYTES {
        partition.save_checkpoint().await?;
    }
    Ok(())
}
