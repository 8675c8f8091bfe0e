//! The world: nodes, what happens to them, and how a story ends.
//!
//! First everything may go wrong that the story has; then all is mended, and within a bounded time all replicas must be in
//! sync, with the same in their logs, all of it committed, and every producer's batches stored.

use crate::check::{Judges, Violation};
use crate::dice::Dice;
use crate::facts::Fact;
use crate::less::Less;
use crate::net::{Net, Weather};
use crate::node::{Around, Beginning, Disks, Node};
use crate::rt::{DiskPace, Process, Sim, WORLD};
use crate::story::Story;
use crate::trace::{Telling, Trace};
use chronik_core::ids::{LogId, NodeId, TopicId};
use chronik_core::metadata::Image;
use chronik_core::metadata::raft::{Member, Members};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// After everything is mended, so long at most until all is well.
const CONVERGE_WITHIN: Duration = Duration::from_secs(90);
/// For so long something that began before everything was mended may fail.
const FAILS_YET: Duration = Duration::from_secs(5);
/// More turns in one instant than that, on average over a second, means that something spins.
const TURNS_PER_SECOND_MAX: u64 = 3_000_000;
/// As many while no time passes at all: a timer that is due, and sets itself to be due, would stop the clock for ever.
const TURNS_PER_INSTANT_MAX: u64 = 200_000;

/// A node's place, with or without a process.
struct Slot {
    disks: Disks,
    beginning: Beginning,
    node: Option<Rc<Node>>,
    /// It is not started again by itself.
    is_held: bool,
    /// Its disk is new, and has no vote yet.
    is_new: bool,
}

/// See the module's head.
pub struct World {
    pub sim: Sim,
    pub net: Rc<Net>,
    pub judges: Rc<RefCell<Judges>>,
    pub story: Story,
    slots: RefCell<BTreeMap<NodeId, Slot>>,
    lives: Cell<u64>,
    clients: Cell<u64>,
    is_ending: Cell<bool>,
    faults: RefCell<BTreeMap<&'static str, u64>>,
    producing: Cell<u64>,
}

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub violation: Option<Violation>,
    pub trace_hash: u64,
    pub tail: Vec<String>,
    pub described: String,
    pub simulated: Duration,
    pub turns: u64,
    pub faults: BTreeMap<&'static str, u64>,
    pub seen: BTreeMap<&'static str, u64>,
}

impl World {
    fn new(seed: u64, telling: Telling, less: &Less) -> Rc<Self> {
        let mut dice = Dice::new(seed);
        let mut story = Story::of(&mut dice);
        less.apply(&mut story);
        let sim = Sim::new(dice.fork(), Trace::new(telling));
        let net = Net::new(sim.clone(), story.weather);
        let members: Vec<(NodeId, Member)> = (1..=story.nodes)
            .filter_map(|id| {
                let directory = chronik_core::metadata::raft::directory_id(|| dice.identity());
                Some((NodeId(id), Member::new(NodeId(id), directory, format!("n{id}:9093"))?))
            })
            .collect();
        let voters: Members = members.iter().map(|(_, member)| member.clone()).collect();
        let slot = |id: NodeId| {
            let beginning = Beginning::With(voters.clone());
            (id, Slot { disks: Disks::default(), beginning, node: None, is_held: false, is_new: false })
        };
        let world = Rc::new(Self {
            sim,
            net,
            judges: Rc::default(),
            story,
            slots: RefCell::new(members.iter().map(|(id, _)| slot(*id)).collect()),
            lives: Cell::new(0),
            clients: Cell::new(0),
            is_ending: Cell::new(false),
            faults: RefCell::default(),
            producing: Cell::new(0),
        });
        world.sim.tell(|| format!("seed {seed}: {}", world.story.describe()));
        world
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.slots.borrow().keys().copied().collect()
    }

    pub fn next_client(&self) -> u64 {
        self.clients.set(self.clients.get() + 1);
        self.clients.get()
    }

    pub fn is_ending(&self) -> bool {
        self.is_ending.get()
    }

    pub fn node(&self, id: NodeId) -> Option<Rc<Node>> {
        self.slots.borrow().get(&id)?.node.clone()
    }

    pub fn running(&self) -> Vec<Rc<Node>> {
        self.slots.borrow().values().filter_map(|slot| slot.node.clone()).collect()
    }

    pub fn count_fault(&self, name: &'static str) {
        *self.faults.borrow_mut().entry(name).or_default() += 1;
    }

    /// Starts a process, if there is none.
    pub fn start(&self, id: NodeId) {
        let peers = self.ids();
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(&id).filter(|slot| slot.node.is_none()) else { return };
        slot.is_held = false;
        self.lives.set(self.lives.get() + 1);
        let process = Process(self.lives.get());
        let drift = self.story.drift_ppm;
        let (drift, wall) = self.sim.roll(|dice| {
            let sign = |dice: &mut Dice, value: u64| {
                let value = i64::try_from(value).unwrap_or(0);
                if dice.once_in(2) { -value } else { value }
            };
            let drift = dice.below(drift + 1);
            let wall = dice.below(2_000);
            (sign(dice, drift), sign(dice, wall))
        });
        self.sim.begin(process, drift, wall);
        self.sim.set_pace(process, DiskPace { least: Duration::from_micros(50), most: self.story.disk_most });
        let around = Around {
            sim: self.sim.clone(),
            net: self.net.clone(),
            judges: self.judges.clone(),
            node: id,
            process,
            segment_bytes: self.story.node.segment_bytes,
            gave_up: Rc::default(),
        };
        self.sim.tell(|| format!("n{id} starts (life {})", process.0));
        let settings = self.story.node.clone();
        slot.node = Some(Node::start(around, slot.disks.clone(), settings, slot.beginning.clone(), peers));
    }

    /// Ends a process. With `power`, what was not synced may be gone; with `wipe`, so is everything else.
    pub fn end(&self, id: NodeId, power: bool, wipe: bool, is_held: bool) {
        let (node, disks) = {
            let mut slots = self.slots.borrow_mut();
            let Some(slot) = slots.get_mut(&id) else { return };
            slot.is_held |= is_held;
            (slot.node.take(), slot.disks.clone())
        };
        if let Some(node) = &node {
            self.net.leave(id, !power && !wipe);
            self.sim.end(node.around.process);
        }
        let left = if wipe {
            Disks::default()
        } else if power {
            self.sim.roll(|dice| Disks {
                metadata: disks.metadata.after_power_cut(dice),
                records: disks.records.after_power_cut(dice),
            })
        } else {
            Disks { metadata: disks.metadata.after_kill(), records: disks.records.after_kill() }
        };
        if let Some(slot) = self.slots.borrow_mut().get_mut(&id) {
            slot.disks = left;
            if wipe {
                slot.beginning = Beginning::Join;
                slot.is_new = true;
            }
        }
        if node.is_some() || wipe {
            let fact = Fact::Ended { node: id, power, disk: wipe };
            self.judges.borrow_mut().hear(&self.sim, &fact);
        }
    }

    pub fn with_disks(&self, id: NodeId, act: impl FnOnce(&Disks)) {
        if let Some(slot) = self.slots.borrow().get(&id) {
            act(&slot.disks);
        }
    }

    /// Whether all disks that were replaced have taken over the votes of those before them, and nobody counts on what those
    /// had.
    pub fn new_disks_vote(&self) -> bool {
        let groups: Vec<_> = self.running().iter().filter_map(|node| node.group()).collect();
        let Some(controller) = groups.iter().find(|group| group.controls()) else { return false };
        let voters = controller.raft().membership().configuration.voters.clone();
        let has_vote = |group: &Rc<crate::node::group::Group>| voters.contains(&group.raft().own().id());
        let mut slots = self.slots.borrow_mut();
        for (id, slot) in slots.iter_mut().filter(|(_, slot)| slot.is_new) {
            // Until it is registered, the metadata counts on what the former disk had.
            let is_registered = slot.node.as_ref().is_some_and(|node| node.broker_epoch().is_some());
            slot.is_new = !(is_registered && groups.iter().any(|group| group.node() == *id && has_vote(group)));
        }
        slots.values().all(|slot| !slot.is_new)
    }

    pub fn is_held(&self, id: NodeId) -> bool {
        self.slots.borrow().get(&id).is_some_and(|slot| slot.is_held)
    }

    /// Processes that could not go on are ended, and all that nobody holds down are started again.
    async fn watch_over(self: Rc<Self>) {
        loop {
            let pause = self.sim.roll(|dice| dice.span(Duration::from_millis(50), Duration::from_millis(1_500)));
            self.sim.sleep(WORLD, pause).await;
            for id in self.ids() {
                let gave_up = self.node(id).and_then(|node| node.around.gave_up.borrow().clone());
                if gave_up.is_some() {
                    self.judges.borrow_mut().count("process gave up");
                    self.end(id, false, false, false);
                }
                if !self.is_held(id) {
                    self.start(id);
                }
            }
        }
    }

    /// The newest image that anybody has applied.
    pub fn image(&self) -> Option<Arc<Image>> {
        self.judges.borrow().picture.image.clone()
    }

    pub fn producing(&self, change: i64) {
        self.producing.set(self.producing.get().saturating_add_signed(change));
    }

    fn begin_clients(self: &Rc<Self>, log: LogId, producers: u64, consumers: u64) {
        for _ in 0..producers {
            let world = self.clone();
            self.producing(1);
            self.sim.spawn(WORLD, async move {
                world.clone().produce(log).await;
                world.producing(-1);
            });
        }
        self.sim.spawn(WORLD, self.clone().produce_carelessly(log));
        for _ in 0..consumers {
            self.sim.spawn(WORLD, self.clone().consume(log));
        }
    }

    /// Clients for the partitions of a topic that was made.
    pub fn use_topic(self: &Rc<Self>, topic: TopicId, partitions: i32) {
        for partition in 0..partitions {
            let log = LogId { topic, partition };
            let producers = self.sim.roll(|dice| dice.between(1, self.story.producers));
            let consumers = self.sim.roll(|dice| dice.between(0, self.story.consumers));
            self.begin_clients(log, producers, consumers);
        }
    }

    /// Runs until then; false where something was broken, or nothing can go on.
    fn run_until(&self, until: Duration) -> bool {
        let began = self.sim.turns();
        let span = until.saturating_sub(self.sim.elapsed()).as_secs() + 1;
        let mut instant = (self.sim.elapsed(), began);
        loop {
            if !self.sim.step(until) {
                return true;
            }
            if self.judges.borrow().verdict.is_some() {
                return false;
            }
            if self.sim.elapsed() != instant.0 {
                instant = (self.sim.elapsed(), self.sim.turns());
            }
            let stands_still = self.sim.turns() - instant.1 > TURNS_PER_INSTANT_MAX;
            if stands_still || self.sim.turns() - began > span * TURNS_PER_SECOND_MAX {
                let what = "too much happens in too little time".to_owned();
                self.judges.borrow_mut().verdict = Some(Violation { rule: "nothing spins", what });
                return false;
            }
        }
    }

    fn heal(&self) {
        self.is_ending.set(true);
        self.net.mend_all();
        self.net.set_weather(Weather::fair());
        for id in self.ids() {
            self.with_disks(id, |disks| {
                for disk in [&disks.metadata, &disks.records] {
                    disk.set_fails_syncs(false);
                    disk.set_full(false);
                    disk.set_trouble(None);
                }
            });
            if let Some(node) = self.node(id) {
                self.sim.resume(node.around.process);
                self.sim.set_pace(
                    node.around.process,
                    DiskPace { least: Duration::from_micros(50), most: Duration::from_millis(1) },
                );
                // A log that has failed stays so until its process starts again; that is an operator's part.
                if node.table().is_some_and(|table| !table.offline().is_empty()) {
                    self.end(id, false, false, false);
                }
            }
            self.start(id);
        }
        self.judges.borrow_mut().hear(&self.sim, &Fact::Healed);
        self.sim.tell(|| "everything is mended".into());
    }

    /// What operators do about logs that are damaged, or failed: they throw the former away, and start the process again.
    fn repair(&self) {
        for node in self.running() {
            let (Some(table), id) = (node.table(), node.around.node) else { continue };
            let corrupt = table.corrupt();
            for log in &corrupt {
                self.sim.tell(|| format!("n{id}'s damaged log {log} is thrown away"));
                self.judges.borrow_mut().count("damaged log made anew from others");
                self.with_disks(id, |disks| disks.records.throw_away(&log.to_string()));
                self.spoiled(id, &log.to_string());
            }
            // A write that was on its way when everything was mended may fail yet.
            let has_failed = self.sim.elapsed() < self.story.span + FAILS_YET && !table.offline().is_empty();
            if !corrupt.is_empty() || has_failed {
                self.end(id, false, false, false);
                self.start(id);
            }
        }
    }

    /// What is not well yet, in words.
    fn what_is_wrong(&self) -> Option<String> {
        let Some(image) = self.image() else { return Some("there is no metadata".into()) };
        for node in self.running() {
            let behind = node.group().is_none_or(|group| group.image().position() != image.position());
            if behind {
                return Some(format!("n{} is behind in the metadata", node.around.node));
            }
        }
        for topic in image.topics() {
            for (number, partition) in (0..).zip(&topic.partitions) {
                let log = LogId { topic: topic.id, partition: number };
                let mut in_sync = partition.isr.clone();
                in_sync.sort_unstable();
                let mut replicas = partition.replicas.clone();
                replicas.sort_unstable();
                if in_sync != replicas || partition.leader.is_none() || partition.is_reassigning() {
                    return Some(format!("{log} of {} is {partition:?}; {}", topic.name, self.stands(log)));
                }
                let ends: Vec<_> = replicas
                    .iter()
                    .map(|node| {
                        let standing = self.node(*node)?.table()?.get(log)?.standing();
                        Some((standing.log_end, standing.high_watermark))
                    })
                    .collect();
                let first = ends.first().copied().flatten();
                let is_whole = first.is_some_and(|(end, watermark)| end == watermark);
                if !is_whole || ends.iter().any(|end| *end != first) {
                    return Some(format!("{log} of {} has the ends {ends:?}; {}", topic.name, self.stands(log)));
                }
            }
        }
        if self.producing.get() > 0 {
            return Some(format!("{} producers wait to have their batches stored", self.producing.get()));
        }
        if self.story.members > 0 { self.group_lacks() } else { None }
    }

    fn stands(&self, log: LogId) -> String {
        let one = |node: Rc<Node>| {
            let Some(partition) = node.table().and_then(|table| table.get(log)) else {
                return format!("n{} has none", node.around.node);
            };
            let followers = partition.with_leader(|leader| {
                let replicas = leader.replicas();
                format!(" asked {:?}, followers {:?}", replicas.asked(), replicas.followers().collect::<Vec<_>>())
            });
            let log = chronik_core::wal::Wal::state(&**partition.log());
            format!(
                "n{}: {:?} {:?}{} durable {}",
                node.around.node,
                partition.standing(),
                partition.phase(),
                followers.unwrap_or_default(),
                log.durable_end
            )
        };
        self.running().into_iter().map(one).collect::<Vec<_>>().join("; ")
    }

    fn same_logs(&self) -> Option<Violation> {
        let judges = self.judges.borrow();
        let image = judges.picture.image.as_ref()?;
        for topic in image.topics() {
            for (number, partition) in (0..).zip(&topic.partitions) {
                let log = LogId { topic: topic.id, partition: number };
                let Some(story) = judges.picture.stories.get(&log) else { continue };
                for node in &partition.replicas {
                    let Some(known) = judges.picture.replicas.get(&(*node, log)) else { continue };
                    for (base, batch) in story.batches.range(known.content.start.max(story.start)..) {
                        if known.content.batches.get(base).is_none_or(|own| own.crc != batch.crc) {
                            let what = format!("n{node} lacks {batch:?} of {log}, which was committed");
                            return Some(Violation { rule: "committed records stay", what });
                        }
                    }
                }
            }
        }
        None
    }

    fn finish(self: Rc<Self>) -> Outcome {
        let (violation, seen) = {
            let judges = self.judges.borrow();
            (judges.verdict.clone(), judges.seen.clone())
        };
        let (trace_hash, tail) = {
            let trace = self.sim.trace();
            (trace.hash(), trace.tail().map(str::to_owned).collect())
        };
        let outcome = Outcome {
            violation,
            trace_hash,
            tail,
            described: self.story.describe(),
            simulated: self.sim.elapsed(),
            turns: self.sim.turns(),
            faults: self.faults.borrow().clone(),
            seen,
        };
        // What holds each other is let go by hand.
        for id in self.ids() {
            if let Some(slot) = self.slots.borrow_mut().get_mut(&id)
                && let Some(node) = slot.node.take()
            {
                self.sim.end(node.around.process);
            }
        }
        self.net.close();
        self.sim.end(WORLD);
        self.sim.forget();
        outcome
    }
}

/// Tells the story of a seed.
pub fn run(seed: u64, telling: Telling) -> Outcome {
    run_less(seed, telling, &Less::default())
}

/// The same, with something left out.
pub fn run_less(seed: u64, telling: Telling, less: &Less) -> Outcome {
    let world = World::new(seed, telling, less);
    world.ids().into_iter().for_each(|id| world.start(id));
    world.sim.spawn(WORLD, world.clone().watch_over());
    world.sim.spawn(WORLD, world.clone().administer());
    world.sim.spawn(WORLD, world.clone().harm());
    let span = world.story.span;
    if !world.run_until(span) {
        return world.finish();
    }
    world.heal();
    let deadline = span + CONVERGE_WITHIN;
    loop {
        let next = world.sim.elapsed() + Duration::from_millis(500);
        if !world.run_until(next) {
            return world.finish();
        }
        world.repair();
        let Some(wrong) = world.what_is_wrong() else { break };
        if next >= deadline {
            let violation = Violation { rule: "all is well again in time", what: wrong };
            world.sim.tell(|| format!("!! {}: {}", violation.rule, violation.what));
            world.judges.borrow_mut().verdict = Some(violation);
            return world.finish();
        }
    }
    if let Some(violation) = world.same_logs() {
        world.judges.borrow_mut().verdict = Some(violation);
    }
    world.finish()
}
