//! Rules about what clients were told: what was promised stays, once and in order, and what was read was committed.

use super::picture::Picture;
use super::{Judge, Violation, broken};
use crate::facts::{Fact, Placed};
use chronik_core::ids::{LogId, Offset};
use std::collections::BTreeMap;

/// What a producer was told is stored on all in sync is committed where it was told; each batch once, in its order.
#[derive(Default)]
pub struct Promises {
    /// By log: the offset up to which the order of producers was looked at, and each producer's last sequence.
    looked: BTreeMap<LogId, (Offset, BTreeMap<i64, i32>)>,
}

impl Judge for Promises {
    fn hear(&mut self, fact: &Fact, picture: &Picture) -> Result<(), Violation> {
        match fact {
            Fact::Acknowledged { log, producer, sequence, base, crc, .. } => {
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
            Fact::Stands { replica, standing } if standing.leads => {
                let Some(story) = picture.stories.get(&replica.log) else { return Ok(()) };
                let (upto, last) = self.looked.entry(replica.log).or_default();
                if story.end <= *upto {
                    return Ok(());
                }
                for batch in story.batches.range(*upto..).map(|(_, batch)| batch).filter(|batch| batch.producer >= 0) {
                    in_order(&replica.log, batch, last)?;
                }
                *upto = story.end;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn in_order(log: &LogId, batch: &Placed, last: &mut BTreeMap<i64, i32>) -> Result<(), Violation> {
    let before = last.insert(batch.producer, batch.last_sequence);
    match before {
        Some(before) if batch.sequence <= before => broken(
            "each batch is stored once",
            format!("{log}: producer {} has {} at {} after {before}", batch.producer, batch.sequence, batch.base),
        ),
        None if batch.sequence != 0 => broken(
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
        let Fact::Read { consumer, node, log, from, batches } = fact else { return Ok(()) };
        let Some(story) = picture.stories.get(log) else { return Ok(()) };
        let mut position = *from;
        let known = self.positions.entry((*consumer, *log)).or_insert(*from);
        if *from < *known {
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
    ends: BTreeMap<LogId, Offset>,
}

impl Judge for Shown {
    fn hear(&mut self, fact: &Fact, picture: &Picture) -> Result<(), Violation> {
        let Fact::Latest { node, log, epoch, high_watermark } = fact else { return Ok(()) };
        let newest = picture.image.as_ref().and_then(|image| image.partition(log.topic, log.partition));
        if newest.is_none_or(|partition| partition.leader_epoch != *epoch) {
            // It does not know yet that another one leads; a client that does refuses its answer by the epoch.
            return Ok(());
        }
        let known = self.ends.entry(*log).or_insert(*high_watermark);
        if *high_watermark < *known {
            return broken(
                "the end that is shown never falls",
                format!("n{node} shows {log} up to {high_watermark}, and {known} was shown"),
            );
        }
        *known = *high_watermark;
        Ok(())
    }
}
