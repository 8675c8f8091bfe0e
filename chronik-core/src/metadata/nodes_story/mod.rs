//! Stories of several nodes: brokers come and go, and partitions with them. [`world`] plays what nobody thought of.

mod rules;
mod world;

use super::controller::*;
use super::image::{ClusterDefaults, Image, Partition, Topic};
use super::records::Record;
use super::{Delta, Entry};
use crate::ids::{LeaderEpoch, LogId, NodeId, Offset, TopicId};
use std::collections::{BTreeMap, BTreeSet};

/// A cluster as its controller sees it. Whatever is decided is written as one entry, and what must always hold is asserted
/// after each.
struct Cluster {
    image: Image,
    entries: Vec<Vec<Record>>,
    /// The last request of each process.
    seqs: BTreeMap<NodeId, i64>,
    starts: u64,
    topics: u8,
}

/// How a process comes up.
#[derive(Clone)]
struct Start {
    clean: bool,
    lost: Lost,
    /// Of the data directory; the node's own if zero.
    directory: u8,
    rack: Option<String>,
}

const IN_ORDER: Start = Start { clean: true, lost: Lost::NOTHING, directory: 0, rack: None };
const CRASHED: Start = Start { clean: false, lost: Lost::NOTHING, directory: 0, rack: None };

fn nodes(ids: &[i32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

impl Cluster {
    fn of(ids: &[i32]) -> Self {
        let image = Image::empty(ClusterDefaults::default());
        let mut cluster = Cluster { image, entries: Vec::new(), seqs: BTreeMap::new(), starts: 0, topics: 0 };
        cluster.carry_out(bootstrap(&cluster.image, FirstStart { cluster_id: [9; 16] }));
        for id in ids {
            cluster.up(*id, IN_ORDER);
        }
        cluster
    }

    fn carry_out<R>(&mut self, decision: Decision<R>) -> R {
        let Decision { records, reply } = decision;
        for record in &records {
            assert_eq!(Record::from_bytes(&record.to_bytes()).as_ref(), Ok(record), "what is written is what is read");
        }
        let before = self.image.clone();
        // Entries of Raft's own lie between.
        let index = before.position().next + 1;
        let outcome = self.image.apply_entry(index, LeaderEpoch(1), &records, &mut Delta::default());
        assert_eq!(outcome, Ok(Entry::Applied), "a decision can be applied");
        check(&before, &self.image, &records);
        self.entries.push(records);
        reply
    }

    /// What a process that starts now asks.
    fn registration(&mut self, id: i32, how: Start) -> Registration {
        self.starts += 1;
        let mut incarnation = [0; 16];
        incarnation[..8].copy_from_slice(&self.starts.to_be_bytes());
        Registration {
            node: NodeId(id),
            incarnation,
            directory_id: [if how.directory == 0 { id as u8 } else { how.directory }; 16],
            rack: how.rack,
            listeners: Vec::new(),
            clean: how.clean,
            lost: how.lost,
            replication_address: Some(format!("b{id}:1")),
            features: supported_features(),
            after: self.image.broker(NodeId(id)).map(|before| before.epoch),
        }
    }

    fn start(&mut self, id: i32, how: Start) -> Result<(), AdmitError> {
        let registration = self.registration(id, how);
        let incarnation = registration.incarnation;
        self.carry_out(admit_broker(&self.image, &registration)?);
        self.seqs.remove(&NodeId(id));
        assert!(self.image.broker(NodeId(id)).expect("registered").fenced);
        assert!(registered_epoch(&self.image, NodeId(id), incarnation).is_some());
        let again = admit_broker(&self.image, &registration).expect("the same process");
        assert_eq!(again.records, [], "asked again, decided once");
        Ok(())
    }

    /// Starts, and is heard to have caught up.
    fn up(&mut self, id: i32, how: Start) {
        self.start(id, how).expect("admitted");
        self.unfence(&[id]);
    }

    fn at(&self, id: i32) -> (NodeId, Offset) {
        (NodeId(id), self.image.broker(NodeId(id)).expect("registered").epoch)
    }

    fn fence(&mut self, ids: &[i32]) {
        let fence = ids.iter().map(|id| self.at(*id)).collect();
        self.carry_out(act_on_heartbeats(&self.image, &Verdict { fence, ..Verdict::default() }));
    }

    fn unfence(&mut self, ids: &[i32]) {
        let unfence = ids.iter().map(|id| self.at(*id)).collect();
        self.carry_out(act_on_heartbeats(&self.image, &Verdict { unfence, ..Verdict::default() }));
    }

    /// A topic whose partitions have these replicas.
    fn topic(&mut self, name: &str, replicas: &[&[i32]], configs: &[(&str, &str)]) -> TopicId {
        self.topics += 1;
        let id = TopicId([self.topics; 16]);
        let topic = NewTopic {
            assignments: (0..).zip(replicas).map(|(number, ids)| (number, nodes(ids))).collect(),
            configs: configs.iter().map(|(name, value)| ((*name).into(), Some((*value).into()))).collect(),
            ..NewTopic::with_defaults(name)
        };
        let reply = self.carry_out(create_topics(&self.image, &[topic], || id));
        reply[0].1.as_ref().expect("created").id
    }

    /// A topic of one partition.
    fn one(&mut self, replicas: &[i32], configs: &[(&str, &str)]) -> LogId {
        let name = format!("t{}", self.topics);
        LogId { topic: self.topic(&name, &[replicas], configs), partition: 0 }
    }

    fn state(&self, log: LogId) -> &Partition {
        self.image.partition(log.topic, log.partition).expect("it is there")
    }

    /// What the partition's leader would ask for.
    fn wanted(&self, log: LogId, isr: &[i32]) -> WantedInSync {
        let state = self.state(log);
        let isr = isr.iter().map(|id| self.at(*id)).collect();
        let (leader_epoch, partition_epoch) = (state.leader_epoch, state.partition_epoch);
        WantedInSync { log, leader_epoch, partition_epoch, isr, synced: false }
    }

    fn ask(&mut self, node: i32, wanted: WantedInSync) -> Result<AlteredPartition, AlterPartitionError> {
        let (node, broker_epoch) = self.at(node);
        let seq = self.seqs.entry(node).or_default();
        *seq += 1;
        let asked = AlterPartitions { broker_epoch, seq: *seq, partitions: vec![wanted] };
        let mut reply = self.carry_out(alter_partitions(&self.image, node, &asked)?);
        let repeated = alter_partitions(&self.image, node, &asked);
        assert_eq!(repeated, Err(AlterPartitionError::Decided), "refused or not, its number is used up");
        reply.remove(0).1
    }

    /// The leader asks for this set and gets it.
    fn in_sync(&mut self, log: LogId, isr: &[i32]) {
        let leader = self.state(log).leader.expect("led");
        let wanted = self.wanted(log, isr);
        self.ask(leader.0, wanted).expect("nothing is against it");
    }

    fn configure(&mut self, topic: &str, name: &str, value: &str) {
        let alteration = ResourceAlteration {
            resource: AlterResource { kind: 2, name: topic.into() },
            configs: vec![(name.into(), AlterOp::Set(Some(value.into())))],
        };
        let reply = self.carry_out(alter_configs(&self.image, &[alteration]));
        assert_eq!(reply[0].1, Ok(()));
    }

    fn reassign(&mut self, topic: &str, replicas: Option<&[i32]>) -> Result<(), ReassignError> {
        let wanted = Reassignment { topic: topic.into(), partition: 0, replicas: replicas.map(nodes) };
        self.carry_out(reassign_partitions(&self.image, &[wanted], true)).remove(0).2
    }

    fn elect(&mut self, kind: ElectionKind, topic: &str) -> Result<(), ElectLeaderError> {
        let decision = elect_leaders(&self.image, kind, &[(topic.to_owned(), 0), (topic.to_owned(), 0)]);
        self.carry_out(decision).remove(0).2
    }

    /// The image as the entries make it, from the first or from a snapshot on.
    fn check_replay(&self, snapshot: Option<(&Image, usize)>) {
        let blank = Image::empty(ClusterDefaults::default());
        let (mut image, from) = match snapshot {
            None => (blank, 0),
            Some((taken, from)) => {
                let mut image = blank;
                let first = Offset(0);
                image
                    .apply_entry(first, LeaderEpoch(1), &taken.to_records(), &mut Delta::default())
                    .expect("a snapshot");
                let image = image.at(taken.position());
                assert_eq!(&image, taken, "a snapshot says what the image says");
                (image, from)
            }
        };
        for records in &self.entries[from..] {
            let index = image.position().next + 1;
            let outcome = image.apply_entry(index, LeaderEpoch(1), records, &mut Delta::default());
            assert_eq!(outcome, Ok(Entry::Applied));
        }
        assert_eq!(image, self.image, "the same entries, the same image");
    }
}

/// What must hold after every entry.
fn check(before: &Image, after: &Image, records: &[Record]) {
    let excused = records.iter().any(|record| matches!(record, Record::RegisterBroker(_) | Record::Config(_)));
    for topic in after.topics() {
        for (number, is) in (0..).zip(&topic.partitions) {
            let log = LogId { topic: topic.id, partition: number };
            check_partition(after, log, is);
            let Some(was) = before.partition(topic.id, number) else { continue };
            if is == was {
                continue;
            }
            assert!(is.partition_epoch > was.partition_epoch, "{log}: {was:?} became {is:?}");
            assert!(is.leader == was.leader || is.leader_epoch > was.leader_epoch, "{log}: {was:?} became {is:?}");
            for member in is.isr.iter().filter(|member| !was.isr.contains(member)) {
                let active = after.broker(*member).is_some_and(|broker| broker.is_active());
                assert!(active || is.leader == Some(*member), "{log}: {member} joined, and is not active");
            }
            if let Some(leader) =
                is.leader.filter(|leader| is.leader_epoch > was.leader_epoch && !was.isr.contains(leader))
            {
                let marked = is.unclean_epoch == Some(is.leader_epoch);
                // The leader before has seen it catch up, and has counted it since it asked.
                let vouched_for = records.iter().any(|record| matches!(record, Record::Request(_)));
                assert!(marked || vouched_for || was.elr.contains(&leader), "{log}: {leader} was elected from nowhere");
            }
            let replicas_changed = is.replicas != was.replicas;
            if !excused && !replicas_changed && is.unclean_epoch == was.unclean_epoch {
                assert!(
                    holders(is).len() >= holders(was).len().min(min_of(topic, was)),
                    "{log}: fewer hold what is committed: {was:?} became {is:?}"
                );
            }
        }
    }
}

/// KIP-966: these hold everything committed.
fn holders(partition: &Partition) -> BTreeSet<NodeId> {
    partition.isr.iter().chain(&partition.elr).copied().collect()
}

fn min_of(topic: &Topic, partition: &Partition) -> usize {
    partition.in_sync_min(&topic.config)
}

fn check_partition(image: &Image, log: LogId, is: &Partition) {
    assert!(is.leader.is_none_or(|leader| is.isr.contains(&leader)), "{log}: {is:?}");
    assert!(is.leader.is_some() || is.isr.is_empty(), "{log}: somebody in sync could lead: {is:?}");
    for member in &is.isr {
        assert!(is.replicas.contains(member), "{log}: {is:?}");
        assert!(image.broker(*member).is_some_and(|broker| broker.serves(log)), "{log}: {member} cannot serve: {is:?}");
    }
    assert!(is.elr.iter().all(|node| is.replicas.contains(node) && !is.isr.contains(node)), "{log}: {is:?}");
    assert!(is.last_known_elr.iter().all(|node| !holders(is).contains(node)), "{log}: {is:?}");
    let moving = is.adding.iter().chain(&is.removing);
    assert!(moving.clone().all(|node| is.replicas.contains(node)), "{log}: {is:?}");
    assert_eq!(moving.collect::<BTreeSet<_>>().len(), is.adding.len() + is.removing.len(), "{log}: {is:?}");
    let min = image.topic_by_id(log.topic).map_or(1, |topic| is.in_sync_min(&topic.config));
    assert!(is.isr.len() < min || is.elr.is_empty(), "{log}: eligible while enough are in sync: {is:?}");
}
