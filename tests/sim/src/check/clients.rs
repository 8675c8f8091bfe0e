//! Rules about what clients were told: what was promised stays, once and in order, and what was read was committed.

use super::picture::Picture;
use super::{Judge, Violation, broken};
use crate::facts::{Fact, Placed};
use chronik_core::ids::{LeaderEpoch, LogId, Offset};
use std::collections::BTreeMap;

/// What a producer was told is stored on all in sync is committed where it was told; each batch once, in its order.
#[derive(Default)]
pub struct Promises {
    looked: BTreeMap<LogId, Looked>,
}

#[derive(Default)]
struct Looked {
    /// Up to where the order of producers was looked at.
    upto: Offset,
    /// Each producer's last sequence.
    last: BTreeMap<i64, i32>,
    /// The last unclean election that is taken into account.
    reconciled: Option<LeaderEpoch>,
}

impl Judge for Promises {
    fn hear(&mut self, fact: &Fact, picture: &Picture) -> Result<(), Violation> {
        match fact {
            Fact::Acknowledged { log, epoch, producer, sequence, base, crc } => {
                if picture.stories.get(log).is_some_and(|story| story.is_void(*epoch)) {
                    return Ok(());
                }
                let found = picture.stories.get(log).and_then(|story| story.batches.get(base));
                if found
                    .is_none_or(|batch| batch.crc != *crc || batch.producer != *producer || batch.sequence != *sequence)
                {
                    return broken(
                        "what is acknowledged is committed",
                        format!("{log}: producer {producer} was told that {sequence} is at {base}, where {found:?} is"),
                    );
                }
                Ok(())
            }
            // Where records may be lost, what is known of a producer may be lost with them.
            Fact::ToldNoPlace { log, producer, sequence }
                if picture.stories.get(log).is_none_or(|story| story.unclean.is_none()) =>
            {
                broken(
                    "a retry of what is on its way is told its place",
                    format!("{log}: producer {producer} asks again for {sequence}, which is known to be old"),
                )
            }
            Fact::Stands { replica, standing } if standing.leads => {
                let Some(story) = picture.stories.get(&replica.log) else { return Ok(()) };
                let Looked { upto, last, reconciled } = self.looked.entry(replica.log).or_default();
                if *reconciled != story.reconciled {
                    // What is left is what was looked at, and has not been dropped since; what follows may begin anywhere.
                    *reconciled = story.reconciled;
                    *upto = story.end.min(*upto);
                    let left =
                        story.batches.range(story.start.min(*upto)..*upto).filter(|(_, batch)| batch.producer >= 0);
                    *last = left.map(|(_, batch)| (batch.producer, batch.last_sequence)).collect();
                }
                if story.end <= *upto {
                    return Ok(());
                }
                for batch in story.batches.range(*upto..).map(|(_, batch)| batch).filter(|batch| batch.producer >= 0) {
                    in_order(&replica.log, batch, last, reconciled.is_some())?;
                }
                *upto = story.end;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// `has_lost`: records were lost in order, and a producer of whom nothing is left may go on anywhere.
fn in_order(log: &LogId, batch: &Placed, last: &mut BTreeMap<i64, i32>, has_lost: bool) -> Result<(), Violation> {
    let before = last.insert(batch.producer, batch.last_sequence);
    match before {
        Some(before) if batch.sequence <= before => broken(
            "each batch is stored once",
            format!("{log}: producer {} has {} at {} after {before}", batch.producer, batch.sequence, batch.base),
        ),
        None if batch.sequence != 0 && !has_lost => broken(
            "a producer's batches lie in its order",
            format!("{log}: producer {} has {} at {} as its first", batch.producer, batch.sequence, batch.base),
        ),
        Some(before) if batch.sequence != before + 1 => broken(
            "a producer's batches lie in its order",
            format!("{log}: producer {} has {} at {} after {before}", batch.producer, batch.sequence, batch.base),
        ),
        _ => Ok(()),
    }
}

/// What a consumer reads is what was committed there; it skips nothing and goes back nowhere.
#[derive(Default)]
pub struct Reads {
    positions: BTreeMap<(u64, LogId), Offset>,
}

impl Judge for Reads {
    fn hear(&mut self, fact: &Fact, picture: &Picture) -> Result<(), Violation> {
        let Fact::Read { consumer, node, epoch, log, from, batches } = fact else { return Ok(()) };
        let Some(story) = picture.stories.get(log) else { return Ok(()) };
        let mut position = *from;
        let known = self.positions.entry((*consumer, *log)).or_insert(Offset::ZERO);
        let unsettled = picture.replicas.get(&(*node, *log)).is_none_or(|known| known.agreed != story.unclean);
        if story.unclean.is_some() && (story.is_void(*epoch) || unsettled) {
            // It may read what is lost; its position says then what it has come to.
            *known = batches.last().map_or(*from, |batch| batch.next);
            return Ok(());
        }
        if *from > *known && *from > story.start && story.unclean.is_none() {
            return broken(
                "reading skips nothing",
                format!("consumer {consumer} of {log} is at {known} and is sent on to {from} of {}", story.start),
            );
        }
        if *from < *known && story.unclean.is_none() {
            return broken("reading goes on", format!("consumer {consumer} of {log} is at {known} and asks {from}"));
        }
        for batch in batches.iter().filter(|batch| batch.next > *from) {
            if batch.base > position && batch.base > story.start {
                return broken(
                    "reading skips nothing",
                    format!("consumer {consumer} of {log} at {position} is given {batch:?} by n{node}"),
                );
            }
            if story.batches.get(&batch.base).is_none_or(|known| !Picture::is_same(known, batch)) {
                return broken(
                    "what is read was committed",
                    format!(
                        "consumer {consumer} of {log} is given {batch:?} by n{node}; committed is {:?}",
                        story.batches.get(&batch.base)
                    ),
                );
            }
            position = batch.next;
        }
        *known = position;
        Ok(())
    }
}

/// The end that consumers are told never falls, whoever leads (KIP-207).
#[derive(Default)]
pub struct Shown {
    ends: BTreeMap<LogId, (Offset, Option<LeaderEpoch>)>,
}

impl Judge for Shown {
    fn hear(&mut self, fact: &Fact, picture: &Picture) -> Result<(), Violation> {
        let Fact::Latest { node, log, epoch, high_watermark } = fact else { return Ok(()) };
        let newest = picture.image.as_ref().and_then(|image| image.partition(log.topic, log.partition));
        if newest.is_none_or(|partition| partition.leader_epoch != *epoch) {
            // It does not know yet that another one leads; a client that does refuses its answer by the epoch.
            return Ok(());
        }
        let unclean = picture.stories.get(log).and_then(|story| story.unclean);
        let (known, before) = self.ends.entry(*log).or_insert((*high_watermark, unclean));
        if *high_watermark < *known && *before == unclean {
            return broken(
                "the end that is shown never falls",
                format!("n{node} shows {log} up to {high_watermark}, and {known} was shown"),
            );
        }
        (*known, *before) = (*high_watermark, unclean);
        Ok(())
    }
}
