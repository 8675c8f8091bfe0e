//! Leaders on this broker ask for other in-sync sets.
//!
//! One request at a time, with a number that grows: as long as it is not answered it is asked again under that number, and a
//! number is over once it is in the metadata, whoever decided it. Only then do partitions for which nothing changed count
//! the asked-for set no more: so it is the metadata that answers, and no message that came or did not.

use super::asks::Asks;
use crate::metadata::MetadataLog;
use crate::partitions::PartitionTable;
use chronik_core::ids::{LogId, NodeId, Offset};
use chronik_core::metadata::Image;
use chronik_core::metadata::controller::{AlterPartitions, WantedInSync};
use chronik_core::metadata::requests::{Answer, Refusal, Request};
use chronik_core::partition::replicas::InSyncQuestion;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How often leaders are asked what they want.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Wishes of one request; the rest has its turn after it.
const WISHES_MAX: usize = 5_000;
/// How long one question is asked before it is looked at whether it is over.
const ASK_FOR: Duration = Duration::from_secs(2);

/// See the module's head.
pub async fn run(
    node: NodeId,
    broker_epoch: Offset,
    asks: Arc<Asks>,
    metadata: MetadataLog,
    partitions: Arc<PartitionTable>,
) {
    let mut seq = 0;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let mut asked: BTreeMap<LogId, InSyncQuestion> = BTreeMap::new();
        for partition in partitions.all() {
            if asked.len() >= WISHES_MAX {
                break;
            }
            if let Some(question) = partition.ask_in_sync() {
                asked.insert(partition.id(), question);
            }
        }
        if asked.is_empty() {
            continue;
        }
        seq += 1;
        let image = metadata.image();
        let wish = |(log, question): (&LogId, &InSyncQuestion)| {
            let epoch = |member: &NodeId| {
                let known = || image.broker(*member).map(|broker| broker.epoch);
                let epoch =
                    if *member == node { Some(broker_epoch) } else { partitions.session(*member).or_else(known) };
                // One that nobody knows cannot be in sync: the controller says so.
                (*member, epoch.unwrap_or(Offset(-1)))
            };
            WantedInSync {
                log: *log,
                leader_epoch: question.leader_epoch,
                partition_epoch: question.partition_epoch,
                isr: question.in_sync.iter().map(epoch).collect(),
                synced: false,
            }
        };
        let request = AlterPartitions { broker_epoch, seq, partitions: asked.iter().map(wish).collect() };
        let request = Request::AlterPartitions(request);
        let is_over =
            |image: &Image| image.broker(node).is_none_or(|own| own.epoch != broker_epoch || own.last_seq >= seq);
        let mut images = metadata.subscribe();
        loop {
            if let Ok(Answer::Refused(Refusal::StaleBrokerEpoch)) = asks.ask(&request, ASK_FOR).await {
                // Another process has this broker's place; this one's heartbeats tell it so.
                return;
            }
            // An answer has decided it, or the next one does.
            if tokio::time::timeout(ASK_FOR, images.wait_for(|image| is_over(image))).await.is_ok() {
                break;
            }
        }
        let image = metadata.image();
        for (log, question) in asked {
            let now = image.partition(log.topic, log.partition).map(|partition| partition.partition_epoch);
            if now == Some(question.partition_epoch)
                && let Some(partition) = partitions.get(log.topic, log.partition)
            {
                partition.question_refused(&question);
            }
        }
    }
}
