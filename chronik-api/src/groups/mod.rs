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
use crate::metadata::{Creation, MetadataLog};
use crate::metrics::{GroupSample, Metrics, PartitionLag};
use crate::partitions::PartitionTable;
use chronik_core::group::records::CommittedOffset;
use chronik_core::group::{Settings, coordinator_partition, snapshot};
use chronik_core::ids::{LeaderEpoch, NodeId, TopicId};
use chronik_core::metadata::controller::NewTopic;
use chronik_core::metadata::names::CONSUMER_OFFSETS;
use chronik_core::metadata::{Image, Topic};
use chronik_proto_kafka::ErrorCode;
use shard::Shard;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::task::{AbortHandle, JoinSet};

/// All coordinators of this broker.
pub struct Groups {
    settings: Settings,
    wanted: NewTopic,
    /// Replicas of `__consumer_offsets`, if there are so many brokers when it is made.
    replicas_wanted: i16,
    node: NodeId,
    clock: Clock,
    metadata: MetadataLog,
    creation: Creation,
    partitions: Arc<PartitionTable>,
    shards: RwLock<BTreeMap<i32, Served>>,
    adopted: tokio::sync::Mutex<Adopted>,
}

/// A coordinator at work.
struct Served {
    /// The `__consumer_offsets` that its partition is one of: the topic may be deleted, and made again under its name.
    topic: TopicId,
    /// In which this broker leads the partition: in another one, others may have coordinated meanwhile.
    epoch: LeaderEpoch,
    shard: Arc<Shard>,
    task: AbortHandle,
}

/// What [`Groups::adopt`] goes by.
struct Adopted {
    /// The coordinators'.
    tasks: JoinSet<()>,
    newest: Arc<Image>,
}

impl Groups {
    /// Takes up the coordination of what `__consumer_offsets` holds, if there is one. Groups are read back in the
    /// background; until then they answer that they are loading.
    pub async fn start(
        config: &Config,
        clock: Clock,
        metadata: MetadataLog,
        creation: Creation,
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
        let newest = metadata.image();
        let groups = Arc::new(Self {
            settings,
            wanted,
            replicas_wanted: i16::try_from(groups.offsets_replication_factor).unwrap_or(i16::MAX),
            node: NodeId(config.node.id),
            clock,
            metadata,
            creation,
            partitions,
            shards: RwLock::default(),
            adopted: tokio::sync::Mutex::new(Adopted { tasks: JoinSet::new(), newest }),
        });
        groups.adopt(groups.metadata.image()).await;
        groups
    }

    /// Makes a coordinator for every partition of `__consumer_offsets` that this broker leads and that has none yet, and ends
    /// those of others. `image` may be newer than the one that is published: who acts on a change is told of it before.
    pub async fn adopt(&self, image: Arc<Image>) {
        let mut adopted = self.adopted.lock().await;
        let Adopted { tasks, newest } = &mut *adopted;
        while tasks.try_join_next().is_some() {}
        // Kept under the lock, so that what a later look has found is not undone by an earlier one.
        if newest.position().next < image.position().next {
            *newest = image;
        }
        let image = newest.clone();
        let Some(topic) = image.topic(CONSUMER_OFFSETS) else { return };
        let mut shards = self.shards.write().unwrap_or_else(PoisonError::into_inner);
        dismiss(&mut shards, |served| served.topic != topic.id);
        for index in 0..partitions_of(topic) {
            let partition = self.partitions.get(topic.id, index).filter(|partition| partition.standing().leads);
            let epoch = partition.as_ref().map(|partition| partition.standing().epoch);
            if shards.get(&index).is_some_and(|served| Some(served.epoch) != epoch) {
                dismiss_one(&mut shards, index);
            }
            let (Some(partition), Some(epoch)) = (partition, epoch) else { continue };
            shards.entry(index).or_insert_with(|| {
                let shard = Shard::new(partition, self.settings.clone(), self.clock);
                let task = tasks.spawn(shard.clone().run(topics_that_are_gone(self.metadata.clone())));
                Served { topic: topic.id, epoch, shard, task }
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
                self.adopt(self.metadata.image()).await;
                self.find(group)
            }
            found => found,
        }
    }

    async fn create(&self) -> Result<(), ErrorCode> {
        let brokers = self.metadata.image().brokers().values().filter(|broker| broker.is_active()).count();
        let replicas = self.replicas_wanted.min(i16::try_from(brokers).unwrap_or(i16::MAX)).max(1);
        let wanted = NewTopic { replication_factor: replicas, ..self.wanted.clone() };
        match self.creation.create(vec![wanted]).await.first() {
            None => Ok(()),
            Some((_, why)) => {
                tracing::warn!(%why, "the topic of the groups' offsets cannot be created now");
                Err(ErrorCode::COORDINATOR_NOT_AVAILABLE)
            }
        }
    }

    /// The node that coordinates a group, creating `__consumer_offsets` if there is none.
    pub async fn coordinator(&self, group: &str) -> Result<NodeId, ErrorCode> {
        if !self.exist() {
            self.create().await?;
            self.adopt(self.metadata.image()).await;
        }
        let image = self.metadata.image();
        let topic = image.topic(CONSUMER_OFFSETS).ok_or(ErrorCode::COORDINATOR_NOT_AVAILABLE)?;
        let index = coordinator_partition(group, partitions_of(topic));
        let leader = topic.partition(index).and_then(|facts| facts.leader);
        let leader = leader.ok_or(ErrorCode::COORDINATOR_NOT_AVAILABLE)?;
        if leader == self.node {
            // It is not led here before it is open.
            self.find_or_create(group).await?;
        }
        Ok(leader)
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
        match served {
            Some(served) => Ok(served.shard.clone()),
            None if topic.partition(index).is_some_and(|facts| facts.leader != Some(self.node)) => {
                Err(ErrorCode::NOT_COORDINATOR)
            }
            None => Err(ErrorCode::COORDINATOR_NOT_AVAILABLE),
        }
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
        self.adopted.lock().await.tasks.shutdown().await;
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
                        partition.lag = (led.standing().high_watermark.0 - partition.committed).max(0);
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

fn dismiss_one(shards: &mut BTreeMap<i32, Served>, index: i32) {
    if let Some(served) = shards.remove(&index) {
        served.task.abort();
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
