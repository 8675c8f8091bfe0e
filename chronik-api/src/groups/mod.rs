//! The host of the group coordinators: one [`shard::Shard`] per partition of `__consumer_offsets`.
//!
//! - [`shard`]: a coordinator behind its lock: appends what it decides, answers when that is committed, keeps its time.
//! - [`loading`]: reading a shard's log back.
//!
//! `__consumer_offsets` comes into being when the first group looks for its coordinator.

pub mod loading;
pub mod shard;

use crate::clock::Clock;
use crate::config::Config;
use crate::metadata::{MetadataLog, random};
use crate::metrics::{GroupSample, Metrics, PartitionLag};
use crate::partitions::PartitionTable;
use chronik_core::group::records::CommittedOffset;
use chronik_core::group::{Settings, coordinator_partition, snapshot};
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
            snapshot: snapshot::Settings::default(),
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
                let task = tasks.spawn(shard.clone().run(topics_that_are_gone(self.metadata.clone())));
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
    pub fn topic_deleted(&self, topic: &str, id: TopicId) {
        if topic == CONSUMER_OFFSETS {
            let mut shards = self.shards.write().unwrap_or_else(PoisonError::into_inner);
            return dismiss(&mut shards, |served| served.topic == id);
        }
        for shard in self.shards() {
            // Those that are still loading look at the topics when they have.
            shard.if_loaded(|coordinator, _| coordinator.topic_deleted(topic, id));
        }
    }

    /// Forgets what nobody has used for long; how many offsets.
    pub fn expire(&self) -> usize {
        let expire = |shard: &Arc<Shard>| shard.if_loaded(|coordinator, now| coordinator.expire_offsets(now.wall));
        self.shards().iter().filter_map(expire).sum()
    }

    /// Ends the coordinators' tasks.
    pub async fn stop(&self) {
        self.tasks.lock().await.shutdown().await;
    }

    /// Every group with its lag, for a scrape.
    pub fn samples(&self, image: &Image) -> Vec<GroupSample> {
        let mut samples = Vec::new();
        for shard in self.shards().iter().filter(|shard| shard.is_loaded()) {
            let of_shard = samples.len();
            // What a partition's end is, is asked for when the groups are let go again.
            shard.look(|coordinator| {
                samples.extend(coordinator.groups().map(|(id, group)| {
                    GroupSample {
                        group: id.to_owned(),
                        state: group.state.name().to_owned(),
                        members: group.members.len(),
                        partitions: group
                            .offsets
                            .iter()
                            .map(|(topic, partition, committed)| PartitionLag {
                                topic: topic.to_owned(),
                                partition,
                                committed: committed.offset,
                                lag: 0,
                            })
                            .collect(),
                    }
                }));
            });
            for sample in &mut samples[of_shard..] {
                sample.partitions.retain_mut(|partition| {
                    let led = image.topic(&partition.topic);
                    let led = led.and_then(|topic| self.partitions.get(topic.id, partition.partition));
                    led.inspect(|led| {
                        partition.lag = (led.position().high_watermark.0 - partition.committed).max(0);
                    })
                    .is_some()
                });
            }
        }
        samples
    }

    /// Looks for expired offsets, for ever.
    pub async fn run_expiry(self: Arc<Self>, every: std::time::Duration, metrics: Arc<Metrics>) {
        let mut timer = tokio::time::interval(every);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            metrics.groups_expired_offsets.add(self.expire() as u64);
        }
    }
}

/// A judgement on offsets, by their topic's name.
type IsGone = Box<dyn Fn(&str, &CommittedOffset) -> bool>;

/// For groups that are being read back: whether an offset's topic has gone since it was committed, also if another has its
/// name by now. The metadata must be as new as the groups' log, as they are where one node has both.
fn topics_that_are_gone(metadata: MetadataLog) -> impl FnOnce() -> IsGone + Send {
    move || {
        let image = metadata.image();
        Box::new(move |name, committed| match image.topic(name) {
            Some(topic) => committed.topic != TopicId::NONE && committed.topic != topic.id,
            None => true,
        })
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
