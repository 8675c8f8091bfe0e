//! A world of five brokers with logs, in which everything happens in any order: crashes, silence, failed and damaged disks,
//! requests that come late or twice, exchanges of replicas, other configurations.
//!
//! The logs are as simple as can be, but leaders count as real ones do: over the set that their own image shows, together
//! with the one that they have asked for. Their images lag. So what is asserted after every step is the purpose of all the
//! rules: **whoever leads holds everything that was ever committed**, unless the election was marked unclean; and nobody
//! is cut below what was committed without that mark.

use super::*;
use crate::dice::{Dice, Seed};
use crate::metadata::topic_config::Durability;

/// A record is told apart by its number, and remembers its leader epoch.
type Log = Vec<(LeaderEpoch, u64)>;

/// A broker's process and its disk.
#[derive(Default)]
struct Node {
    /// Of the process that runs, if one does.
    epoch: Option<Offset>,
    /// As far as the process has applied.
    image: Option<Image>,
    logs: BTreeMap<LogId, Log>,
    /// How much of each survives anything.
    synced: BTreeMap<LogId, usize>,
    leads: BTreeMap<LogId, Leads>,
}

/// A leader's memory of one partition in one epoch.
struct Leads {
    epoch: LeaderEpoch,
    epoch_start: usize,
    high_watermark: usize,
    /// How far each replica has come, in which broker epoch: what it said in this leader epoch.
    ends: BTreeMap<NodeId, End>,
    asked: Option<Asked>,
}

struct Asked {
    seq: i64,
    set: BTreeSet<NodeId>,
    /// That all is synced, which only stays true if nothing else counts from now on.
    synced: bool,
}

#[derive(Clone, Copy)]
struct End {
    broker_epoch: Offset,
    written: usize,
    synced: usize,
}

impl End {
    fn counts(&self, unsynced: bool) -> usize {
        if unsynced { self.written } else { self.synced }
    }
}

struct World {
    cluster: Cluster,
    dice: Dice,
    nodes: BTreeMap<i32, Node>,
    /// What was committed, and the last unclean election when it was.
    committed: BTreeMap<LogId, (Option<LeaderEpoch>, Log)>,
    /// Requests on their way, some of them for long.
    posted: Vec<(NodeId, AlterPartitions)>,
    records: u64,
    incarnations: u8,
}

const BROKERS: [i32; 5] = [1, 2, 3, 4, 5];

impl World {
    fn new(seed: u64) -> Self {
        let mut world = World {
            cluster: Cluster::of(&[]),
            dice: Dice(seed),
            nodes: BROKERS.iter().map(|id| (*id, Node::default())).collect(),
            committed: BTreeMap::new(),
            posted: Vec::new(),
            records: 0,
            incarnations: 100,
        };
        for id in BROKERS {
            world.start(id);
            world.catch_up(id);
        }
        world.cluster.unfence(&BROKERS);
        let min_2 = ("min.insync.replicas", "2");
        world.cluster.topic("t0", &[&[1, 2, 3]], &[min_2]);
        world.cluster.topic("t1", &[&[2, 3]], &[]);
        world.cluster.topic("t2", &[&[3, 4, 5]], &[min_2, ("chronik.durability", "replicated")]);
        world.cluster.topic("t3", &[&[5, 1, 2]], &[min_2, ("unclean.leader.election.enable", "true")]);
        world
    }

    fn logs(&self) -> Vec<LogId> {
        self.cluster.image.topics().map(|topic| LogId { topic: topic.id, partition: 0 }).collect()
    }

    fn any_log(&mut self) -> LogId {
        let logs = self.logs();
        logs[self.dice.roll(logs.len() as u64) as usize]
    }

    fn any_broker(&mut self) -> i32 {
        BROKERS[self.dice.roll(5) as usize]
    }

    /// Up to three different ones.
    fn any_brokers(&mut self) -> Vec<i32> {
        let count = 1 + self.dice.roll(3) as usize;
        let mut some: Vec<i32> = Vec::new();
        while some.len() < count {
            let id = self.any_broker();
            if !some.contains(&id) {
                some.push(id);
            }
        }
        some
    }

    fn topic_of(&self, log: LogId) -> String {
        self.cluster.image.topic_by_id(log.topic).expect("there").name.to_string()
    }

    /// The process starts anew, after an orderly stop or a crash, perhaps with a disk that has suffered.
    fn start(&mut self, id: i32) {
        let running = self.nodes[&id].epoch.is_some();
        let clean = !running || self.dice.once_in(3);
        let new_disk = self.dice.once_in(25);
        let damaged_disk = self.dice.once_in(12);
        let node = self.nodes.get_mut(&id).expect("one of five");
        let (mut damaged, mut missing) = (Vec::new(), Vec::new());
        for (log, records) in &mut node.logs {
            let synced = node.synced.get(log).copied().unwrap_or(0);
            if running && !clean && records.len() > synced {
                records.truncate(synced + self.dice.roll((records.len() - synced) as u64 + 1) as usize);
            }
            if damaged_disk && self.dice.once_in(2) {
                records.truncate(self.dice.roll(records.len() as u64 + 1) as usize);
                // Where nobody else has it, a log that was taken away cannot be told from one that was never made.
                let state = self.cluster.state(*log);
                let others = [&state.isr[..], &state.elr].concat().iter().any(|other| *other != NodeId(id));
                if records.is_empty() && others && self.dice.once_in(2) {
                    missing.push(*log);
                } else {
                    damaged.push(*log);
                }
            }
            if new_disk {
                records.clear();
            }
            let end = records.len();
            node.synced.insert(*log, end);
        }
        node.leads.clear();
        node.image = None;
        node.epoch = None;
        let mut directory = self.cluster.image.broker(NodeId(id)).map_or(id as u8, |broker| broker.directory_id[0]);
        if new_disk {
            self.incarnations = self.incarnations.wrapping_add(1).max(100);
            directory = self.incarnations;
            // The machine is known to be gone before another one takes its place.
            if self.cluster.image.broker(NodeId(id)).is_some() {
                self.cluster.fence(&[id]);
            }
        }
        self.cluster
            .start(id, Start { clean, lost: Lost { damaged, missing }, directory, rack: None })
            .expect("admitted");
        let node = self.nodes.get_mut(&id).expect("one of five");
        node.epoch = Some(self.cluster.at(id).1);
    }

    /// Applies all that there is.
    fn catch_up(&mut self, id: i32) {
        let image = self.cluster.image.clone();
        let node = self.nodes.get_mut(&id).expect("one of five");
        let Some(epoch) = node.epoch else { return };
        if image.broker(NodeId(id)).is_none_or(|broker| broker.epoch != epoch) {
            // It learns that it is not what it was, and stops.
            node.leads.clear();
            node.image = None;
            node.epoch = None;
            return;
        }
        for topic in image.topics() {
            let log = LogId { topic: topic.id, partition: 0 };
            let state = &topic.partitions[0];
            if state.leader == Some(NodeId(id)) {
                let end = node.logs.entry(log).or_default().len();
                let fresh = Leads {
                    epoch: state.leader_epoch,
                    epoch_start: end,
                    high_watermark: 0,
                    ends: BTreeMap::new(),
                    asked: None,
                };
                let leads = node.leads.entry(log).or_insert(fresh);
                if leads.epoch != state.leader_epoch {
                    *leads = Leads {
                        epoch: state.leader_epoch,
                        epoch_start: end,
                        high_watermark: 0,
                        ends: BTreeMap::new(),
                        asked: None,
                    };
                }
                // A record of the partition, or the number of the request, says that it is decided.
                let before = node.image.as_ref().and_then(|image| image.partition(topic.id, 0));
                let last_seq = image.broker(NodeId(id)).map_or(0, |broker| broker.last_seq);
                let changed = before.is_none_or(|before| before.partition_epoch != state.partition_epoch);
                if changed || leads.asked.as_ref().is_some_and(|asked| asked.seq <= last_seq) {
                    leads.asked = None;
                }
            } else {
                node.leads.remove(&log);
            }
            if !state.replicas.contains(&NodeId(id)) {
                node.logs.remove(&log);
                node.synced.remove(&log);
            }
        }
        node.image = Some(image);
    }

    /// A leader takes a record; it may have been succeeded already, and not know it.
    fn produce(&mut self, id: i32, log: LogId) {
        let node = self.nodes.get_mut(&id).expect("one of five");
        let Some(leads) = node.leads.get(&log) else { return };
        self.records += 1;
        node.logs.entry(log).or_default().push((leads.epoch, self.records));
    }

    /// A follower takes what its leader has, if both know the same epoch.
    fn replicate(&mut self, leader: i32, follower: i32, log: LogId) {
        let Some(theirs) = self.nodes[&leader].logs.get(&log).cloned() else { return };
        let Some(epoch) = self.nodes[&leader].leads.get(&log).map(|leads| leads.epoch) else { return };
        let upto = self.dice.roll(theirs.len() as u64 + 1) as usize;
        let sync = self.dice.once_in(2);
        let replica = self.nodes.get_mut(&follower).expect("one of five");
        let (Some(broker_epoch), Some(image)) = (replica.epoch, &replica.image) else { return };
        let Some(state) = image.partition(log.topic, 0) else { return };
        if state.leader != Some(NodeId(leader))
            || state.leader_epoch != epoch
            || !state.replicas.contains(&NodeId(follower))
        {
            return;
        }
        let unclean = state.unclean_epoch;
        let ours = replica.logs.entry(log).or_default();
        let common = ours.iter().zip(&theirs).take_while(|(a, b)| a == b).count();
        if common < ours.len() {
            // The purpose of the mark: whoever is cut below what was committed has been told that it may be.
            let (mark, committed) = self.committed.get(&log).cloned().unwrap_or_default();
            let cut: Vec<_> = ours[common..].iter().filter(|record| committed.contains(record)).collect();
            assert!(cut.is_empty() || unclean > mark, "{log}: {follower} is cut below what was committed: {cut:?}");
            ours.truncate(common);
        }
        let upto = upto.max(ours.len());
        ours.extend_from_slice(&theirs[ours.len()..upto]);
        let written = ours.len();
        let synced = replica.synced.entry(log).or_default();
        *synced = (*synced).min(written);
        if sync {
            *synced = written;
        }
        let end = End { broker_epoch, written, synced: *synced };
        let leads = self.nodes.get_mut(&leader).expect("one of five").leads.get_mut(&log).expect("it leads");
        leads.ends.insert(NodeId(follower), end);
        self.count(leader, log);
    }

    /// The leader's watermark over the maximal set.
    fn count(&mut self, id: i32, log: LogId) {
        let node = self.nodes.get_mut(&id).expect("one of five");
        let (Some(image), Some(records)) = (&node.image, node.logs.get(&log)) else { return };
        let Some(topic) = image.topic_by_id(log.topic) else { return };
        let state = &topic.partitions[0];
        let Some(leads) = node.leads.get_mut(&log) else { return };
        if state.isr.len() < state.in_sync_min(&topic.config) {
            return;
        }
        let asked = leads.asked.iter().flat_map(|asked| &asked.set);
        let unsynced = state.is_unsynced(&topic.config) && !leads.asked.as_ref().is_some_and(|asked| asked.synced);
        let own = if unsynced { records.len() } else { *node.synced.get(&log).unwrap_or(&0) };
        let ends = &leads.ends;
        let end = |member: &NodeId| {
            let end = ends.get(member)?;
            // A session belongs to one process of the follower, as the leader's own image knows it.
            image.broker(*member).filter(|broker| broker.epoch == end.broker_epoch).map(|_| end.counts(unsynced))
        };
        let others = state.isr.iter().chain(asked).filter(|member| **member != NodeId(id));
        let least = others.map(|member| end(member).unwrap_or(0)).min().unwrap_or(own).min(own);
        if least <= leads.high_watermark {
            return;
        }
        leads.high_watermark = least;
        let mark = state.unclean_epoch;
        let (known_mark, committed) = self.committed.entry(log).or_default();
        if mark < *known_mark {
            // Committed by a leader that an unclean election has overtaken: that is what the mark is for.
            return;
        }
        let now = records[..least].to_vec();
        if mark == *known_mark {
            let both = committed.len().min(now.len());
            assert_eq!(committed[..both], now[..both], "{log}: committed twice at one offset");
        }
        if now.len() > committed.len() || mark > *known_mark {
            *committed = now;
        }
        *known_mark = mark;
    }

    fn sync(&mut self, id: i32, log: LogId) {
        let node = self.nodes.get_mut(&id).expect("one of five");
        if node.epoch.is_some()
            && let Some(records) = node.logs.get(&log)
        {
            node.synced.insert(log, records.len());
        }
        self.count(id, log);
    }

    /// The leader asks for the set that it would like, or any smaller one.
    fn ask(&mut self, id: i32, log: LogId) {
        let some = self.any_brokers();
        let node = self.nodes.get_mut(&id).expect("one of five");
        let (Some(broker_epoch), Some(image)) = (node.epoch, &node.image) else { return };
        let Some(leads) = node.leads.get_mut(&log).filter(|leads| leads.asked.is_none()) else { return };
        let Some(topic) = image.topic_by_id(log.topic) else { return };
        let state = &topic.partitions[0];
        let floor = leads.high_watermark.max(leads.epoch_start);
        let own_synced = node.synced.get(&log).copied().unwrap_or(0);
        let mut all_synced = topic.config.durability == Durability::Fsync && own_synced >= floor;
        let mut isr = vec![(NodeId(id), broker_epoch)];
        for member in state.replicas.iter().filter(|member| member.0 != id) {
            let Some(end) = leads.ends.get(member) else { continue };
            let known = image.broker(*member).is_some_and(|broker| broker.epoch == end.broker_epoch);
            let may_join = state.isr.contains(member) || end.counts(state.is_unsynced(&topic.config)) >= floor;
            if known && may_join && some.contains(&member.0) {
                isr.push((*member, end.broker_epoch));
                all_synced &= end.synced >= floor;
            }
        }
        let synced = state.unsynced && all_synced;
        let same = isr.len() == state.isr.len() && isr.iter().all(|(member, _)| state.isr.contains(member));
        if same && !synced {
            return;
        }
        let seq = image.broker(NodeId(id)).map_or(0, |broker| broker.last_seq) + 1;
        let (leader_epoch, partition_epoch) = (state.leader_epoch, state.partition_epoch);
        leads.asked = Some(Asked { seq, set: isr.iter().map(|(member, _)| *member).collect(), synced });
        let wanted = WantedInSync { log, leader_epoch, partition_epoch, isr, synced };
        self.posted.push((NodeId(id), AlterPartitions { broker_epoch, seq, partitions: vec![wanted] }));
    }

    /// One of the requests on their way arrives; it may arrive again.
    fn deliver(&mut self) {
        if self.posted.is_empty() {
            return;
        }
        let at = self.dice.roll(self.posted.len() as u64) as usize;
        let (node, asked) = if self.dice.once_in(3) { self.posted[at].clone() } else { self.posted.swap_remove(at) };
        if let Ok(decision) = alter_partitions(&self.cluster.image, node, &asked) {
            self.cluster.carry_out(decision);
        }
    }

    fn step(&mut self) {
        let (id, log) = (self.any_broker(), self.any_log());
        let leader = self.cluster.state(log).leader.map(|leader| leader.0);
        match self.dice.roll(100) {
            0..=15 => (0..3).for_each(|_| self.produce(leader.unwrap_or(id), log)),
            16..=20 => self.produce(id, log),
            21..=40 => self.replicate(leader.unwrap_or(id), id, log),
            41..=45 => {
                let other = self.any_broker();
                self.replicate(other, id, log);
            }
            46..=53 => self.sync(leader.unwrap_or(id), log),
            54..=66 => self.catch_up(id),
            67..=73 => self.ask(leader.unwrap_or(id), log),
            74..=80 => self.deliver(),
            81..=83 => {
                let running: Vec<i32> = self.any_brokers();
                self.cluster.fence(&running);
            }
            84..=88 if self.nodes[&id].epoch == self.cluster.image.broker(NodeId(id)).map(|broker| broker.epoch) => {
                self.catch_up(id);
                self.cluster.unfence(&[id]);
            }
            89..=91 => {
                self.start(id);
                if self.dice.once_in(2) {
                    self.catch_up(id);
                    self.cluster.unfence(&[id]);
                }
            }
            92 => {
                let (at, offline) = (self.cluster.at(id), if self.dice.once_in(2) { vec![log] } else { Vec::new() });
                let verdict = Verdict { offline: vec![(at, offline)], ..Verdict::default() };
                self.cluster.carry_out(act_on_heartbeats(&self.cluster.image, &verdict));
            }
            93 => {
                let at = self.cluster.at(id);
                let stopping = Verdict { stopping: vec![at], ..Verdict::default() };
                self.cluster.carry_out(act_on_heartbeats(&self.cluster.image, &stopping));
                if self.dice.once_in(2) {
                    let may_stop = Verdict { may_stop: vec![at], ..Verdict::default() };
                    self.cluster.carry_out(act_on_heartbeats(&self.cluster.image, &may_stop));
                }
            }
            94 => drop(self.cluster.carry_out(balance_leaders(&self.cluster.image, 2))),
            95 => {
                let goal = self.any_brokers();
                let goal = (!self.dice.once_in(4)).then_some(&goal[..]);
                let topic = self.topic_of(log);
                let _ = self.cluster.reassign(&topic, goal);
            }
            96 => {
                let value = ["1", "2", "3"][self.dice.roll(3) as usize];
                let topic = self.topic_of(log);
                self.cluster.configure(&topic, "min.insync.replicas", value);
            }
            97 => {
                let topic = self.topic_of(log);
                let unclean = self.dice.once_in(6);
                let kind = if unclean { ElectionKind::Unclean } else { ElectionKind::Preferred };
                let _ = self.cluster.elect(kind, &topic);
            }
            98 => {
                let topic = self.topic_of(log);
                let value = ["fsync", "replicated"][self.dice.roll(2) as usize];
                self.cluster.configure(&topic, "chronik.durability", value);
            }
            _ => {}
        }
        self.check_leaders();
    }

    /// See the module's head.
    fn check_leaders(&self) {
        for (log, (mark, committed)) in &self.committed {
            let state = self.cluster.state(*log);
            let Some(leader) = state.leader.filter(|_| state.unclean_epoch == *mark) else { continue };
            let empty = Log::new();
            let records = self.nodes[&leader.0].logs.get(log).unwrap_or(&empty);
            assert!(
                records.starts_with(committed),
                "{log}: {leader} leads with {} records of {} that are committed, in {state:?}",
                records.iter().zip(committed).take_while(|(a, b)| a == b).count(),
                committed.len()
            );
        }
    }
}

/// Plays some thousand steps, and says how many records were committed and how many elections there were.
fn play(seed: u64, steps: usize) -> (usize, i32) {
    let _seed = Seed(seed);
    let mut world = World::new(seed);
    let mut snapshot = None;
    for step in 0..steps {
        world.step();
        if step == steps / 2 {
            snapshot = Some((world.cluster.image.clone(), world.cluster.entries.len()));
        }
    }
    world.cluster.check_replay(None);
    let snapshot = snapshot.as_ref().map(|(image, from)| (image, *from));
    world.cluster.check_replay(snapshot);
    let elections = world.logs().iter().map(|log| world.cluster.state(*log).leader_epoch.0).sum();
    (world.committed.values().map(|(_, log)| log.len()).sum(), elections)
}

#[test]
fn whoever_leads_holds_everything_that_was_committed() {
    let (mut committed, mut elections) = (0, 0);
    for seed in 0..150 {
        let (records, epochs) = play(seed, 1_500);
        committed += records;
        elections += epochs;
    }
    // A world in which nothing happens would prove nothing.
    assert!(committed > 1_000 && elections > 1_000, "{committed} records and {elections} elections");
}
