//! Decisions with several steps: each sees what those before it made of the image.

use super::Decision;
use super::settle::{Lead, settle};
use crate::ids::{LogId, NodeId};
use crate::metadata::apply::Delta;
use crate::metadata::image::{Broker, Image, Partition};
use crate::metadata::records::Record;
use crate::metadata::snapshot::{broker_state_record, partition_record};
use std::collections::BTreeSet;

/// Records so far, and the image as they make it.
pub(super) struct Draft {
    image: Image,
    records: Vec<Record>,
}

impl Draft {
    pub fn new(image: &Image) -> Self {
        Draft { image: image.clone(), records: Vec::new() }
    }

    pub fn image(&self) -> &Image {
        &self.image
    }

    /// A record that cannot be applied stays among the others all the same: whoever proposes them applies them before they
    /// are written, and refuses them all with the reason.
    pub fn push(&mut self, record: Record) {
        let at = self.image.position().next;
        // One that is refused leaves the image as it is.
        let _ = self.image.apply_at(at, &record, &mut Delta::default());
        self.records.push(record);
    }

    /// Changes what a broker is fit for; nothing is written where that is what it was.
    pub fn set_state(&mut self, node: NodeId, change: impl FnOnce(&mut Broker)) {
        let Some(was) = self.image.broker(node) else { return };
        let mut is = Broker::clone(was);
        change(&mut is);
        is.offline.sort_unstable();
        is.offline.dedup();
        if is != **was {
            self.push(broker_state_record(&is));
        }
    }

    /// Every partition with a replica on one of these nodes.
    pub fn partitions_on(&self, nodes: &BTreeSet<NodeId>) -> Vec<LogId> {
        self.partitions(|partition| partition.replicas.iter().any(|node| nodes.contains(node)))
    }

    pub fn partitions(&self, which: impl Fn(&Partition) -> bool) -> Vec<LogId> {
        let mut found = Vec::new();
        for topic in self.image.topics() {
            let of_topic = (0..).zip(&topic.partitions).filter(|(_, state)| which(state));
            found.extend(of_topic.map(|(partition, _)| LogId { topic: topic.id, partition }));
        }
        found
    }

    /// Draws the consequences for one partition of what is known now. Gives whether there were any.
    pub fn settle(&mut self, log: LogId, lost: &BTreeSet<NodeId>, lead: Lead) -> bool {
        match self.image.partition(log.topic, log.partition).cloned() {
            Some(state) => self.settle_as(log, state, lost, lead),
            None => false,
        }
    }

    /// As [`Draft::settle`], from a state that was changed beforehand.
    pub fn settle_as(&mut self, log: LogId, target: Partition, lost: &BTreeSet<NodeId>, lead: Lead) -> bool {
        let Some(settled) = settle(&self.image, log, target, lost, lead) else { return false };
        self.push(partition_record(log.topic, log.partition, &settled));
        true
    }

    pub fn settle_all(&mut self, nodes: &BTreeSet<NodeId>) {
        for log in self.partitions_on(nodes) {
            self.settle(log, &BTreeSet::new(), Lead::Keep);
        }
    }

    pub fn decide<R>(self, reply: R) -> Decision<R> {
        Decision::new(self.records, reply)
    }
}
