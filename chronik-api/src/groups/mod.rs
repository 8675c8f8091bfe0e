//! The host of the group coordinators: one [`shard::Shard`] per partition of `__consumer_offsets`.
//!
//! - [`shard`]: a coordinator behind its lock: appends what it decides, answers when that is committed, keeps its time.
//! - [`loading`]: reading a shard's log back, and cutting it down to a snapshot when it has grown.
//!
//! `__consumer_offsets` comes into being when the first group looks for its coordinator.

pub mod loading;
pub mod shard;

use crate::clock::Clock;
use crate::config::Config;
use crate::metadata::{MetadataLog, random};
use crate::metrics::{GroupSample, Metrics, PartitionLag};
use crate::partitions::PartitionTable;
use chronik_core::group::{Settings, coordinator_partition};
use chronik_core::ids::TopicId;
use chronik_core::metadata::controller::{self, NewTopic};
use chronik_core::metadata::names::CONSUMER_OFFSETS;
use chronik_core::metadata::{Image, Topic};
use chronik_proto_kafka::ErrorCode;
use shard::Shard;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::task::{AbortHandle, JoinSet};

/// All coordinators of this broker.
pub struct Groups {
    settings: Settings,
    wanted: NewTopic,
    clock: Clock,
    metadata: MetadataLog,
    partitions: Arc<PartitionTable>,
    shards: RwLock<BTreeMap<i32, Served>>,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

/// A coordinator at work.
struct Served {
    /// The `__consumer_offsets` that its partition is one of: the topic may be deleted, and made again under its name.
    topic: TopicId,
    shard: Arc<Shard>,
    task: AbortHandle,
}

impl Groups {
    /// Takes up the coordination of what `__consumer_offsets` holds, if there is one. Groups are read back in the
    /// background; until then they answer that they are loading.
    pub async fn start(
        config: &Config,
        clock: Clock,
        metadata: MetadataLog,
        partitions: Arc<PartitionTable>,
    ) -> Arc<Self> {
        let groups = &config.groups;
        let settings = Settings {
            session_timeout_ms_min: groups.min_session_timeout_ms.as_i32(),
            session_timeout_ms_max: groups.max_session_timeout_ms.as_i32(),
            initial_rebalance_delay: groups.initial_rebalance_delay_ms.duration(),
            group_members_max: usize::try_from(groups.max_size).unwrap_or(usize::MAX),
            // Groups spread over the coordinators by a hash; the bound holds for each, so that none is refused while
            // others have room.
            groups_max: groups.max_groups as usize,
            offset_metadata_bytes_max: groups.offset_metadata_bytes.as_usize(),
            offsets_retention_ms: i64::try_from(groups.offsets_retention_minutes.duration().as_millis())
                .unwrap_or(i64::MAX),
        };
        let configs = vec![
            ("cleanup.policy".to_owned(), Some("compact".to_owned())),
            ("segment.bytes".to_owned(), Some(groups.offsets_segment_bytes.as_u64().to_string())),
        ];
        let wanted =
            NewTopic { partitions: groups.offsets_partitions, configs, ..NewTopic::with_defaults(CONSUMER_OFFSETS) };
        let groups = Arc::new(Self {
            settings,
            wanted,
            clock,
            metadata,
            partitions,
            shards: RwLock::default(),
            tasks: tokio::sync::Mutex::default(),
        });
        groups.adopt().await;
        groups
    }

    /// Makes a coordinator for every partition of `__consumer_offsets` that has none yet.
    async fn adopt(&self) {
        let mut tasks = self.tasks.lock().await;
        while tasks.try_join_next().is_some() {}
        // Looked at under the lock, so that what a later look has found is not undone by an earlier one.
        let image = self.metadata.image();
        let Some(topic) = image.topic(CONSUMER_OFFSETS) else { return };
        let mut shards = self.shards.write().unwrap_or_else(PoisonError::into_inner);
        dismiss(&mut shards, |served| served.topic != topic.id);
        for index in 0..partitions_of(topic) {
            let Some(partition) = self.partitions.get(topic.id, index) else { continue };
            shards.entry(index).or_insert_with(|| {
                let shard = Shard::new(partition, self.settings.clone(), self.clock);
                let task = tasks.spawn(shard.clone().run());
                Served { topic: topic.id, shard, task }
            });
        }
    }

    /// The coordinator of a group, creating `__consumer_offsets` if there is none.
    pub async fn find_or_create(&self, group: &str) -> Result<Arc<Shard>, ErrorCode> {
        match self.find(group) {
            Err(ErrorCode::COORDINATOR_NOT_AVAILABLE) => {
                if !self.exist() {
                    self.create().await?;
                }
                // Somebody may also have made the topic by hand.
                self.adopt().await;
                self.find(group)
            }
            found => found,
        }
    }

    async fn create(&self) -> Result<(), ErrorCode> {
        let wanted = self.wanted.clone();
        let created = self
            .metadata
            .propose_sure::<_, Infallible>(move |image| controller::create_topics(image, &[wanted], random::topic_id))
            .await;
        match created {
            Ok(_) => Ok(()),
            Err(cause) => {
                tracing::warn!(%cause, "the topic of the groups' offsets cannot be created now");
                Err(ErrorCode::COORDINATOR_NOT_AVAILABLE)
            }
        }
    }

    /// Whether there are any coordinators: without `__consumer_offsets` nobody has a group.
    pub fn exist(&self) -> bool {
        self.metadata.image().topic(CONSUMER_OFFSETS).is_some()
    }

    /// The coordinator of a group.
    pub fn find(&self, group: &str) -> Result<Arc<Shard>, ErrorCode> {
        let image = self.metadata.image();
        let topic = image.topic(CONSUMER_OFFSETS).ok_or(ErrorCode::COORDINATOR_NOT_AVAILABLE)?;
        let index = coordinator_partition(group, partitions_of(topic));
        let shards = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        let served = shards.get(&index).filter(|served| served.topic == topic.id);
        served.map(|served| served.shard.clone()).ok_or(ErrorCode::COORDINATOR_NOT_AVAILABLE)
    }

    pub fn shards(&self) -> Vec<Arc<Shard>> {
        let shards = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        shards.values().map(|served| served.shard.clone()).collect()
    }

    /// Forgets what is committed for a topic that is gone; and every group, if it is the topic that they are kept in.
    pub fn topic_deleted(&self, topic: &str) {
        if topic == CONSUMER_OFFSETS {
            let mut shards = self.shards.write().unwrap_or_else(PoisonError::into_inner);
            return dismiss(&mut shards, |_| true);
        }
        for shard in self.shards() {
            shard.with(|coordinator, _| coordinator.topic_deleted(topic));
        }
    }

    /// Forgets what nobody has used for long.
    pub fn expire(&self) {
        for shard in self.shards() {
            if shard.is_loaded() {
                shard.with(|coordinator, now| coordinator.expire_offsets(now.wall));
            }
        }
    }

    /// Ends the coordinators' tasks.
    pub async fn stop(&self) {
        self.tasks.lock().await.shutdown().await;
    }

    /// Every group with its lag, for a scrape.
    pub fn samples(&self, image: &Image) -> Vec<GroupSample> {
        let mut samples = Vec::new();
        for shard in self.shards().iter().filter(|shard| shard.is_loaded()) {
            shard.look(|coordinator| {
                for (id, group) in coordinator.groups() {
                    let lag = |((topic, partition), committed): (
                        &(String, i32),
                        &chronik_core::group::records::CommittedOffset,
                    )| {
                        let led = self.partitions.get(image.topic(topic)?.id, *partition)?;
                        Some(PartitionLag {
                            topic: topic.clone(),
                            partition: *partition,
                            committed: committed.offset,
                            lag: (led.position().high_watermark.0 - committed.offset).max(0),
                        })
                    };
                    samples.push(GroupSample {
                        group: id.to_owned(),
                        state: group.state.name().to_owned(),
                        members: group.members.len(),
                        partitions: group.offsets.iter().filter_map(lag).collect(),
                    });
                }
            });
        }
        samples
    }

    /// Looks for expired offsets, for ever.
    pub async fn run_expiry(self: Arc<Self>, every: std::time::Duration, metrics: Arc<Metrics>) {
        let mut timer = tokio::time::interval(every);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            let before: usize =
                self.shards().iter().map(|shard| shard.look(|coordinator| coordinator.live_records())).sum();
            self.expire();
            let after: usize =
                self.shards().iter().map(|shard| shard.look(|coordinator| coordinator.live_records())).sum();
            metrics.groups_expired_offsets.add(before.saturating_sub(after) as u64);
        }
    }
}

/// Ends coordinators. Who waits for one is told that it is not available, and looks for another.
fn dismiss(shards: &mut BTreeMap<i32, Served>, whom: impl Fn(&Served) -> bool) {
    shards.retain(|_, served| {
        let goes = whom(served);
        if goes {
            served.task.abort();
        }
        !goes
    });
}

fn partitions_of(topic: &Topic) -> i32 {
    i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX)
}
