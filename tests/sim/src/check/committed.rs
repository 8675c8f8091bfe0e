//! Rules about what is committed: one value at each offset, on every replica, and on disk where that was promised.

use super::picture::{Known, Picture};
use super::{Judge, Violation, broken};
use crate::facts::{Fact, Replica};
use chronik_core::ids::{LogId, NodeId, Offset};
use chronik_core::metadata::Topic;
use chronik_core::partition::leader::Durability;
use std::collections::BTreeMap;

/// Below its watermark every replica has what was committed, and nothing else.
#[derive(Default)]
pub struct Committed {
    /// Up to where a replica's log was compared and has not been changed since.
    compared: BTreeMap<(NodeId, LogId), Offset>,
}

impl Judge for Committed {
    fn hear(&mut self, fact: &Fact, picture: &Picture) -> Result<(), Violation> {
        let (replica, standing) = match fact {
            Fact::Stands { replica, standing } => (replica, standing),
            Fact::Appended { replica, run } => return self.changed(replica, run.base),
            Fact::Cut { replica, from } => return self.changed(replica, *from),
            Fact::Opened { replica, .. } | Fact::Reset { replica, .. } => {
                return self.changed(replica, Offset::ZERO);
            }
            _ => return Ok(()),
        };
        let (Some(content), Some(story)) = (picture.content(replica), picture.stories.get(&replica.log)) else {
            return Ok(());
        };
        if picture.is_unsettled(replica) || story.is_void(standing.epoch) {
            return Ok(());
        }
        let watermark = standing.high_watermark.min(content.end);
        if watermark > story.end && standing.epoch.0 >= 0 {
            return broken(
                "nobody shows more than was committed",
                format!("n{} {} shows up to {watermark}, and {} is committed", replica.node, replica.log, story.end),
            );
        }
        let compared = self.compared.entry((replica.node, replica.log)).or_insert(Offset::ZERO);
        if *compared >= watermark {
            return Ok(());
        }
        for (base, own) in content.batches.range(*compared..watermark) {
            if own.next > watermark {
                // It will be passed as a whole.
                *compared = *base;
                return Ok(());
            }
            if story.batches.get(base).is_none_or(|batch| !Picture::is_same(own, batch)) && *base >= story.start {
                return broken(
                    "no offset has two values",
                    format!(
                        "n{} {} has {own:?} below its watermark {watermark}; committed is {:?}",
                        replica.node,
                        replica.log,
                        story.batches.get(base)
                    ),
                );
            }
        }
        *compared = watermark;
        Ok(())
    }
}

impl Committed {
    /// What lies there has to be compared again.
    fn changed(&mut self, replica: &Replica, from: Offset) -> Result<(), Violation> {
        if let Some(compared) = self.compared.get_mut(&(replica.node, replica.log)) {
            *compared = from.min(*compared);
        }
        Ok(())
    }
}

/// Where the topic promises it, what is committed is durable on enough replicas at that moment.
pub struct Durable;

impl Judge for Durable {
    fn hear(&mut self, fact: &Fact, picture: &Picture) -> Result<(), Violation> {
        let Fact::Stands { replica, standing } = fact else { return Ok(()) };
        if !standing.leads {
            return Ok(());
        }
        let Some((_, upto)) = picture.just_committed else { return Ok(()) };
        let LogId { topic, partition: number } = replica.log;
        let Some(topic) = picture.image.as_ref().and_then(|image| image.topic_by_id(topic)) else { return Ok(()) };
        let Some(partition) = topic.partition(number) else { return Ok(()) };
        if topic.config.durability != Durability::Fsync || partition.unsynced {
            return Ok(());
        }
        let others =
            partition.isr.iter().filter(|node| partition.leader_epoch == standing.epoch || **node == replica.node);
        for member in others {
            let Some(known) = picture.replicas.get(&(*member, replica.log)).filter(|known| known.is_open) else {
                continue;
            };
            let registered = picture.image.as_ref().and_then(|image| image.broker(*member));
            // The disk has lost it after it was told that it is there, and nobody can know yet.
            let is_untold = known.is_spoiled && registered.map(|broker| broker.epoch) == known.opened_under;
            if known.content.durable_end < upto && !is_untold {
                return broken(
                    "what is committed is durable on all in sync",
                    format!(
                        "n{} commits {} up to {upto}, and on n{member} {} is durable",
                        replica.node, replica.log, known.content.durable_end
                    ),
                );
            }
        }
        Ok(())
    }
}

/// Every member of an in-sync set, or of those eligible besides (KIP-966), has everything that was committed.
pub struct InSync;

impl Judge for InSync {
    fn hear(&mut self, fact: &Fact, picture: &Picture) -> Result<(), Violation> {
        match fact {
            Fact::Stands { replica, standing } if standing.leads => Self::look(picture, replica.log),
            // Whoever joins may be elected in the next moment.
            Fact::Applied { index, image, .. } | Fact::Installed { index, image, .. }
                if *index == picture.image_index =>
            {
                let of = |topic: &Topic| {
                    let (topic, count) = (topic.id, i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX));
                    (0..count).map(move |partition| LogId { topic, partition })
                };
                image.topics().flat_map(|topic| of(topic)).try_for_each(|log| Self::look(picture, log))
            }
            _ => Ok(()),
        }
    }
}

impl InSync {
    fn look(picture: &Picture, log: LogId) -> Result<(), Violation> {
        let (Some(image), Some(story)) = (&picture.image, picture.stories.get(&log)) else { return Ok(()) };
        let Some(partition) = image.partition(log.topic, log.partition) else { return Ok(()) };
        if story.reconciled != story.unclean {
            return Ok(());
        }
        // One that comes back may have lost what was not synced, or its disk; it leaves the sets when it registers, and has no
        // role before.
        let is_idle = |known: &Known| known.standing.is_none_or(|standing| standing.epoch.0 < 0);
        for member in partition.isr.iter().chain(&partition.elr) {
            let Some(known) = picture.replicas.get(&(*member, log)).filter(|known| known.is_open) else { continue };
            if is_idle(known) {
                continue;
            }
            if known.content.end < story.end {
                return broken(
                    "who is in sync has what was committed",
                    format!(
                        "n{member} is in sync or eligible for {log}, ends at {}, and {} is committed: {partition:?}",
                        known.content.end, story.end
                    ),
                );
            }
        }
        Ok(())
    }
}
