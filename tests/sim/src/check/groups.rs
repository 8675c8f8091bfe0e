//! Rules about groups: each partition is one member's in a generation, and what was committed is what is read on from.

use super::picture::Picture;
use super::{Judge, Violation, broken};
use crate::facts::Fact;
use chronik_core::ids::{LeaderEpoch, LogId, Offset};
use std::collections::BTreeMap;

/// In one generation each partition is given to one member.
#[derive(Default)]
pub struct OneOwner {
    owners: BTreeMap<(i32, LogId), String>,
}

impl Judge for OneOwner {
    fn hear(&mut self, fact: &Fact, _: &Picture) -> Result<(), Violation> {
        let Fact::Assigned { generation, member, logs } = fact else { return Ok(()) };
        for log in logs {
            let owner = self.owners.entry((*generation, *log)).or_insert_with(|| member.clone());
            if owner != member {
                return broken(
                    "in a generation a partition is one member's",
                    format!("{log} is {owner}'s in generation {generation}, and given to {member}"),
                );
            }
        }
        Ok(())
    }
}

/// Committed offsets never go back, and whoever asks is told of the last one.
#[derive(Default)]
pub struct CommittedOffsets {
    /// Of each log, as last acknowledged.
    known: BTreeMap<LogId, Offset>,
    generation: i32,
}

/// Whether that coordinator's log has gone on to a later epoch, which it does not know of yet: what it reads to somebody is
/// as old as its epoch, and what it writes is never committed.
fn is_past(picture: &Picture, of: &LogId, epoch: LeaderEpoch) -> bool {
    let newest = picture.image.as_ref().and_then(|image| image.partition(of.topic, of.partition));
    newest.is_none_or(|partition| partition.leader_epoch != epoch)
}

impl Judge for CommittedOffsets {
    fn hear(&mut self, fact: &Fact, picture: &Picture) -> Result<(), Violation> {
        let log = match fact {
            Fact::OffsetCommitted { log, .. } | Fact::OffsetFetched { log, .. } => log,
            _ => return Ok(()),
        };
        // What was read may be lost where the topic says so, and then readers go back.
        let may_go_back = picture.stories.get(log).is_some_and(|story| story.unclean.is_some());
        let is_there = picture.image.as_ref().is_some_and(|image| image.partition(log.topic, log.partition).is_some());
        match fact {
            Fact::OffsetCommitted { of, epoch, offset, .. } if is_past(picture, of, *epoch) => {
                // Stored before others came to lead, and told now: whoever told it was paused, and they have gone on since.
                let known = self.known.entry(*log).or_insert(*offset);
                *known = (*known).max(*offset);
            }
            Fact::OffsetCommitted { generation, offset, .. } => {
                if *generation >= 0 && *generation < self.generation {
                    return broken(
                        "only the present generation commits",
                        format!("{log}: generation {generation} commits {offset} after {} did", self.generation),
                    );
                }
                self.generation = self.generation.max(*generation);
                let known = self.known.insert(*log, *offset);
                if known.is_some_and(|known| known > *offset) && !may_go_back {
                    return broken(
                        "committed offsets never go back",
                        format!("{log}: {offset} is committed after {known:?}"),
                    );
                }
            }
            Fact::OffsetFetched { of, epoch, offset, .. } => {
                if is_past(picture, of, *epoch) || may_go_back || !is_there {
                    return Ok(());
                }
                let Some(known) = self.known.get(log) else { return Ok(()) };
                if offset.is_none_or(|offset| offset < known.0) {
                    return broken(
                        "who asks is told of the last committed offset",
                        format!("{log}: {offset:?} is told, and {known} is committed"),
                    );
                }
            }
            _ => {}
        }
        Ok(())
    }
}
