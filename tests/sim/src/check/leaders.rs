//! Rules about leaders: one per epoch, watermarks that never fall, and nobody who leads without what was committed.

use super::picture::{Epoch, Picture};
use super::{Judge, Violation, broken};
use crate::facts::Fact;
use chronik_core::ids::{LeaderEpoch, LogId, NodeId, Offset};
use std::collections::BTreeMap;

/// In one epoch of a partition only one process leads.
#[derive(Default)]
pub struct OneLeader {
    leaders: BTreeMap<Epoch, (NodeId, u64)>,
}

impl Judge for OneLeader {
    fn hear(&mut self, fact: &Fact, _: &Picture) -> Result<(), Violation> {
        let Fact::Stands { replica, standing } = fact else { return Ok(()) };
        if !standing.leads {
            return Ok(());
        }
        let own = (replica.node, replica.life);
        let known = *self.leaders.entry((replica.log, standing.epoch)).or_insert(own);
        if known == own {
            return Ok(());
        }
        let (log, epoch) = (replica.log, standing.epoch);
        broken("one leader per epoch", format!("{log} in epoch {epoch} is led by {known:?} and by {own:?}"))
    }
}

/// A replica's watermark never falls while its process lives, and neither does its epoch.
#[derive(Default)]
pub struct Watermarks {
    known: BTreeMap<(NodeId, u64, LogId), (Offset, LeaderEpoch)>,
}

impl Judge for Watermarks {
    fn hear(&mut self, fact: &Fact, picture: &Picture) -> Result<(), Violation> {
        match fact {
            Fact::Stands { replica, standing } => {
                let key = (replica.node, replica.life, replica.log);
                let now = (standing.high_watermark, standing.epoch);
                let before = self.known.insert(key, now).unwrap_or((Offset(-1), LeaderEpoch(-1)));
                if now.0 < before.0 && !picture.is_unsettled(replica) {
                    return broken(
                        "watermarks never fall",
                        format!("n{} {}: from {} to {}", replica.node, replica.log, before.0, now.0),
                    );
                }
                if now.1 < before.1 {
                    return broken(
                        "leader epochs never fall",
                        format!("n{} {}: from {} to {}", replica.node, replica.log, before.1, now.1),
                    );
                }
                if standing.high_watermark > standing.log_end && standing.epoch.0 >= 0 && standing.leads {
                    return broken(
                        "a watermark lies in its log",
                        format!("n{} {}: {standing:?}", replica.node, replica.log),
                    );
                }
            }
            Fact::Deleted { replica } | Fact::Opened { replica, .. } => {
                self.known.remove(&(replica.node, replica.life, replica.log));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whoever takes up the lead has everything that was ever committed.
#[derive(Default)]
pub struct Complete {
    taken_up: BTreeMap<(NodeId, LogId), LeaderEpoch>,
}

impl Judge for Complete {
    fn hear(&mut self, fact: &Fact, picture: &Picture) -> Result<(), Violation> {
        let Fact::Stands { replica, standing } = fact else { return Ok(()) };
        let key = (replica.node, replica.log);
        if !standing.leads || self.taken_up.insert(key, standing.epoch) == Some(standing.epoch) {
            return Ok(());
        }
        // An earlier epoch's leader may be late to hear that it was elected, and may lack what later ones committed.
        let is_late = picture.image.as_ref().is_some_and(|image| {
            image
                .partition(replica.log.topic, replica.log.partition)
                .is_none_or(|partition| partition.leader_epoch > standing.epoch)
        });
        let (Some(content), Some(story)) = (picture.content(replica), picture.stories.get(&replica.log)) else {
            return Ok(());
        };
        if is_late || story.is_void(standing.epoch) {
            return Ok(());
        }
        for (base, batch) in story.batches.range(content.start.max(story.start)..) {
            if !content.batches.get(base).is_some_and(|own| Picture::is_same(own, batch)) {
                return broken(
                    "leaders have what was committed",
                    format!(
                        "n{} leads {} in epoch {} from {} to {} and lacks {batch:?} of {} committed",
                        replica.node, replica.log, standing.epoch, content.start, content.end, story.end
                    ),
                );
            }
        }
        Ok(())
    }
}
