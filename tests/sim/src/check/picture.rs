//! What there is, as facts have it: each replica's log, and what was ever committed.

use super::Violation;
use crate::facts::{Fact, Placed, Replica};
use chronik_core::ids::{LeaderEpoch, LogId, NodeId, Offset};
use chronik_core::metadata::Image;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A log's content, by the offset at which each batch begins.
#[derive(Clone, Debug, Default)]
pub struct Content {
    pub start: Offset,
    pub end: Offset,
    pub durable_end: Offset,
    pub batches: BTreeMap<Offset, Placed>,
}

impl Content {
    /// The batch that holds this offset.
    pub fn at(&self, offset: Offset) -> Option<&Placed> {
        self.batches.range(..=offset).next_back().map(|(_, batch)| batch).filter(|batch| batch.next > offset)
    }

    /// What a log that begins there has to have after a restart.
    fn durable_batches(&self, start: Offset) -> impl Iterator<Item = &Placed> {
        let below = start.min(self.durable_end)..self.durable_end;
        self.batches.range(below).map(|(_, batch)| batch).filter(|batch| batch.next <= self.durable_end)
    }

    fn has(&self, batch: &Placed) -> bool {
        self.batches.get(&batch.base).is_some_and(|own| Picture::is_same(own, batch))
    }

    fn cut(&mut self, from: Offset) {
        while let Some(last) = self.batches.last_entry().filter(|last| last.get().next > from) {
            last.remove();
        }
        self.end = self.batches.values().next_back().map_or(self.start, |batch| batch.next).max(self.start);
        self.durable_end = self.durable_end.min(self.end);
    }
}

/// A replica, and what it is known to be.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub content: Content,
    pub standing: Option<chronik_core::driver::Standing>,
    pub life: u64,
    /// Something was taken away from it, or written into it, by no process.
    pub is_spoiled: bool,
    /// Its broker's registration when it was opened: until there is another one nobody has been told what it has lost.
    pub opened_under: Option<Offset>,
    /// Its process is running.
    pub is_open: bool,
    /// The last unclean election after which it is known to have what its leader has.
    pub agreed: Option<LeaderEpoch>,
}

/// What has been committed of a log: what any leader's watermark ever passed.
#[derive(Clone, Debug, Default)]
pub struct Story {
    pub batches: BTreeMap<Offset, Placed>,
    pub end: Offset,
    /// Below this records may be gone: somebody has dropped them in order.
    pub start: Offset,
    /// The last epoch whose leader was elected without regard to what was committed, because the topic allows it. What
    /// leaders of earlier epochs do and say is no part of the story any more.
    pub unclean: Option<LeaderEpoch>,
    /// The last one whose loss is counted.
    pub reconciled: Option<LeaderEpoch>,
}

impl Story {
    /// Whether what happens in that epoch is no part of the story any more.
    pub fn is_void(&self, epoch: LeaderEpoch) -> bool {
        self.unclean.is_some_and(|unclean| epoch < unclean)
    }

    /// A leader was elected that may lack what was committed: the story is now what it has. Gives how many records are lost.
    fn reconcile(&mut self, content: &Content) -> u64 {
        self.reconciled = self.unclean;
        let lacks = |(_, batch): &(&Offset, &Placed)| !content.has(batch);
        // Also what was dropped elsewhere counts: it may be all that this one has. Its log may start inside a batch.
        let mut here = self.batches.iter().filter(|(_, batch)| batch.next > content.start);
        let Some(first) = here.find(lacks).map(|(base, _)| *base) else { return 0 };
        let fork = first.max(content.start);
        let lost = self.end.0 - fork.max(self.start).0;
        self.batches.split_off(&first);
        self.end = fork;
        // What lies before its log's start it may have had otherwise: nobody has that any more, as far as it goes.
        self.start = self.start.max(content.start).min(fork);
        lost.unsigned_abs()
    }
}

/// See the module's head.
#[derive(Default)]
pub struct Picture {
    pub replicas: BTreeMap<(NodeId, LogId), Known>,
    pub stories: BTreeMap<LogId, Story>,
    /// The newest image that anybody has applied.
    pub image: Option<Arc<Image>>,
    pub image_index: u64,
    pub is_healed: bool,
    /// What the last fact has committed, and by whom: from where to where.
    pub just_committed: Option<(Offset, Offset)>,
    /// The group's, as last acknowledged.
    pub committed_offsets: BTreeMap<LogId, Offset>,
    /// Records that were committed and are lost by unclean elections.
    pub lost: u64,
    happened: Vec<&'static str>,
}

impl Picture {
    pub fn take_happened(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.happened)
    }

    pub fn content(&self, replica: &Replica) -> Option<&Content> {
        self.replicas.get(&(replica.node, replica.log)).map(|known| &known.content)
    }

    /// Whether a replica may still have what an unclean election has made void.
    pub fn is_unsettled(&self, replica: &Replica) -> bool {
        let unclean = self.stories.get(&replica.log).and_then(|story| story.unclean);
        unclean.is_some() && self.replicas.get(&(replica.node, replica.log)).is_none_or(|known| known.agreed != unclean)
    }

    fn known(&mut self, replica: &Replica) -> &mut Known {
        self.replicas.entry((replica.node, replica.log)).or_default()
    }

    /// Draws a fact in. What contradicts the picture itself is a violation too.
    pub fn learn(&mut self, fact: &Fact) -> Result<(), Violation> {
        self.just_committed = None;
        match fact {
            Fact::Opened { replica, start, end, runs, unreadable_from } => {
                self.happened.push("log opened");
                let registered = self.image.as_ref().and_then(|image| image.broker(replica.node));
                let opened_under = registered.map(|broker| broker.epoch);
                let known = self.known(replica);
                known.opened_under = opened_under;
                let before = std::mem::take(&mut known.content);
                let is_spoiled = known.is_spoiled;
                known.life = replica.life;
                known.is_open = true;
                known.standing = None;
                known.agreed = None;
                known.content.start = *start;
                known.content.batches = runs.iter().map(|batch| (batch.base, *batch)).collect();
                // What cannot be read is there nevertheless, as far as anybody can say.
                if let Some(from) = unreadable_from {
                    let there = before.batches.range(*from..).filter(|(_, batch)| batch.next <= *end);
                    known.content.batches.extend(there.map(|(base, batch)| (*base, *batch)));
                    self.happened.push("damage found at the start");
                }
                let known = self.known(replica);
                known.content.end =
                    if unreadable_from.is_some() { *end } else { runs.last().map_or(*start, |batch| batch.next) };
                known.content.durable_end = *start;
                let lost = before.durable_batches(*start).find(|batch| !known.content.has(batch)).copied();
                if before.end > known.content.end {
                    self.happened.push("log opened with less than it had");
                }
                if let Some(lost) = lost.filter(|_| !is_spoiled) {
                    let content = &self.known(replica).content;
                    let (there, end) = (content.batches.range(..lost.next).next_back(), content.end);
                    let what = format!(
                        "n{} {} was durable up to {}, and has come back up to {end} without {lost:?}; there is {there:?}",
                        replica.node, replica.log, before.durable_end
                    );
                    return Err(Violation { rule: "what was durable is there when a log is opened again", what });
                }
            }
            Fact::Appended { replica, run } => {
                let unclean = self.stories.get(&replica.log).and_then(|story| story.unclean);
                let known = self.known(replica);
                known.content.batches.insert(run.base, *run);
                known.content.end = run.next;
                if unclean.is_some_and(|unclean| run.epoch >= unclean) {
                    known.agreed = unclean;
                }
            }
            Fact::Cut { replica, from } => {
                let content = &mut self.known(replica).content;
                if content.end > *from {
                    content.cut(*from);
                    self.happened.push("follower's log cut");
                }
            }
            Fact::Reset { replica, start } => {
                self.known(replica).content =
                    Content { start: *start, end: *start, durable_end: *start, batches: BTreeMap::new() };
                self.happened.push("follower's log reset");
            }
            Fact::Trimmed { replica, start } => {
                let content = &mut self.known(replica).content;
                content.start = content.start.max(*start);
                while let Some(first) = content.batches.first_entry().filter(|first| first.get().next <= *start) {
                    first.remove();
                }
                self.happened.push("log trimmed");
                let unsettled = self.is_unsettled(replica);
                let story = self.stories.entry(replica.log).or_default();
                if *start > story.end && !unsettled {
                    let what = format!("n{} drops {} up to {start} of {}", replica.node, replica.log, story.end);
                    return Err(Violation { rule: "only what is committed is dropped", what });
                }
                story.start = story.start.max((*start).min(story.end));
            }
            Fact::Durable { replica, end } => self.known(replica).content.durable_end = *end,
            Fact::Stands { replica, standing } => {
                let known = self.known(replica);
                let before = known.standing.replace(*standing);
                if standing.leads && before.is_none_or(|before| !before.leads || before.epoch != standing.epoch) {
                    self.happened.push("leader begins");
                }
                let is_void = self.stories.get(&replica.log).is_some_and(|story| story.is_void(standing.epoch));
                if standing.leads && !is_void {
                    self.reconcile(replica);
                    self.commit(replica, standing.high_watermark)?;
                }
            }
            Fact::Deleted { replica } => {
                self.replicas.remove(&(replica.node, replica.log));
                self.happened.push("replica deleted");
            }
            Fact::Spoiled { node, log } => {
                let is_it = |(of, id): &(NodeId, LogId)| of == node && id.to_string() == *log;
                self.replicas.iter_mut().filter(|(id, _)| is_it(id)).for_each(|(_, known)| known.is_spoiled = true);
            }
            Fact::Ended { node, power, disk } => {
                self.happened.push(if *disk {
                    "process ended with its disk"
                } else if *power {
                    "process ended by a power cut"
                } else {
                    "process ended"
                });
                if *disk {
                    self.replicas.retain(|(of, _), _| of != node);
                }
                for (_, known) in self.replicas.iter_mut().filter(|((of, _), _)| of == node) {
                    known.is_open = false;
                    known.standing = None;
                }
            }
            Fact::Applied { index, image, .. } => {
                if *index > self.image_index {
                    self.see_changes(image);
                    self.image_index = *index;
                    self.image = Some(image.clone());
                }
            }
            Fact::Installed { index, image, .. } => {
                self.happened.push("metadata snapshot installed");
                if *index > self.image_index {
                    self.see_changes(image);
                    self.image_index = *index;
                    self.image = Some(image.clone());
                }
            }
            Fact::Acknowledged { .. } => self.happened.push("acknowledged with acks=all"),
            Fact::Read { batches, .. } if !batches.is_empty() => self.happened.push("read"),
            Fact::Controls { .. } => self.happened.push("controller begins"),
            Fact::Healed => self.is_healed = true,
            Fact::OffsetCommitted { log, offset, .. } => {
                self.committed_offsets.insert(*log, *offset);
                self.happened.push("offset of a group committed");
            }
            Fact::OffsetFetched { log, offset, .. } => {
                // A commit may have been stored by a coordinator that did not live to say so.
                if let Some(offset) = offset {
                    self.committed_offsets.insert(*log, Offset(*offset));
                }
                self.happened.push("offset of a group fetched");
            }
            Fact::Read { .. } | Fact::Latest { .. } | Fact::Assigned { .. } | Fact::ToldNoPlace { .. } => {}
        }
        Ok(())
    }

    fn see_changes(&mut self, image: &Arc<Image>) {
        let Some(before) = &self.image else { return };
        let (mut happened, mut unclean) = (Vec::new(), Vec::new());
        for topic in image.topics() {
            for (number, is) in (0..).zip(&topic.partitions) {
                let Some(was) = before.partition(topic.id, number) else { continue };
                if std::ptr::eq(is, was) || is == was {
                    continue;
                }
                if is.isr.len() < was.isr.len() {
                    happened.push("in-sync set shrank");
                }
                if is.isr.len() > was.isr.len() {
                    happened.push("in-sync set grew");
                }
                if is.leader != was.leader {
                    happened.push(if is.leader.is_none() { "partition without leader" } else { "leader elected" });
                }
                if is.elr.len() > was.elr.len() {
                    happened.push("replica eligible (KIP-966)");
                }
                if is.is_reassigning() && !was.is_reassigning() {
                    happened.push("reassignment begins");
                }
                if !is.is_reassigning() && was.is_reassigning() {
                    happened.push("reassignment ends");
                }
                if is.unclean_epoch != was.unclean_epoch {
                    happened.push("unclean election");
                    unclean.push((LogId { topic: topic.id, partition: number }, is.unclean_epoch));
                }
            }
        }
        let fenced = |image: &Image| image.brokers().values().filter(|broker| broker.fenced).count();
        if fenced(image) > fenced(before) {
            happened.push("broker fenced");
        }
        self.happened.extend(happened);
        for (log, epoch) in unclean {
            self.stories.entry(log).or_default().unclean = epoch;
        }
    }

    /// The first leader after an unclean election says what there is.
    fn reconcile(&mut self, replica: &Replica) {
        let Some(story) = self.stories.get_mut(&replica.log).filter(|story| story.unclean.is_some()) else { return };
        let Some(known) = self.replicas.get_mut(&(replica.node, replica.log)) else { return };
        known.agreed = story.unclean;
        if story.reconciled != story.unclean {
            let lost = story.reconcile(&known.content);
            self.lost += lost;
            if lost > 0 {
                self.happened.push("unclean election that lost records");
            }
        }
    }

    /// A leader's watermark is there: what lies below is committed, once and for all.
    fn commit(&mut self, replica: &Replica, upto: Offset) -> Result<(), Violation> {
        let Some(known) = self.replicas.get(&(replica.node, replica.log)) else { return Ok(()) };
        let story = self.stories.entry(replica.log).or_default();
        if upto <= story.end {
            return Ok(());
        }
        let from = story.end.max(known.content.start);
        let mut at = from;
        while at < upto {
            let Some(batch) = known.content.at(at) else {
                return Err(Violation {
                    rule: "committed records are there",
                    what: format!("n{} commits {} up to {upto} and has nothing at {at}", replica.node, replica.log),
                });
            };
            story.batches.insert(batch.base, *batch);
            at = batch.next;
        }
        self.just_committed = Some((story.end, upto));
        story.end = upto;
        self.happened.push("committed");
        Ok(())
    }

    /// Whether two replicas, or a replica and what is committed, have the same batch there.
    pub fn is_same(one: &Placed, other: &Placed) -> bool {
        one.base == other.base && one.crc == other.crc && one.epoch == other.epoch
    }
}

/// A leader epoch of a log.
pub type Epoch = (LogId, LeaderEpoch);
