//! What goes wrong, and what operators do meanwhile.

use crate::disk::Trouble;
use crate::facts::Fact;
use crate::rt::{DiskPace, WORLD};
use crate::story::Fault;
use crate::world::World;
use chronik_core::ids::{NodeId, TopicId};
use chronik_core::metadata::controller::{
    self, AlterOp, AlterResource, ElectionKind, NewTopic, Reassignment, ResourceAlteration, TopicRef,
};
use chronik_core::metadata::names::CONSUMER_OFFSETS;
use chronik_core::partition::retention::{Retention, start_after_retention};
use std::rc::Rc;
use std::time::Duration;

/// How often, and how many times, the right moment for a power cut is looked for.
const MOMENT_LOOK_EVERY: Duration = Duration::from_micros(500);
const MOMENT_LOOKS: usize = 2_000;

impl World {
    /// Faults, one after the other, as long as the story has them.
    pub async fn harm(self: Rc<Self>) {
        // A cluster first has to be one.
        self.sim.sleep(WORLD, Duration::from_secs(3)).await;
        while !self.is_ending() {
            let pause = self.sim.roll(|dice| dice.span(Duration::ZERO, self.story.fault_every * 3));
            self.sim.sleep(WORLD, pause).await;
            if self.is_ending() {
                return;
            }
            let (fault, nodes) = (self.sim.roll(|dice| dice.pick(&self.story.faults).copied()), self.ids());
            let (Some(fault), Some(node)) = (fault, self.sim.roll(|dice| dice.pick(&nodes).copied())) else { return };
            if matches!(fault, Fault::PowerCut | Fault::PowerCutAll) && self.sim.roll(|dice| dice.once_in(2)) {
                self.until_metadata_is_on_its_way().await;
                if self.is_ending() {
                    return;
                }
            }
            if self.sim.elapsed() >= self.story.quiet_until {
                self.do_harm(fault, node);
            }
        }
    }

    /// Until a node that does not control writes something of the metadata, which takes milliseconds and happens a few times
    /// in a second: by chance hardly any power cut would come while what was said rests on what is not durable yet.
    async fn until_metadata_is_on_its_way(&self) {
        for _ in 0..MOMENT_LOOKS {
            let writes = |group: &Rc<crate::node::group::Group>| group.is_persisting() && !group.controls();
            if self.running().iter().filter_map(|node| node.group()).any(|group| writes(&group)) {
                break;
            }
            self.sim.sleep(WORLD, MOMENT_LOOK_EVERY).await;
        }
        let span = self.sim.roll(|dice| dice.span(Duration::ZERO, self.story.disk_most));
        self.sim.sleep(WORLD, span).await;
    }

    fn span(&self) -> Duration {
        self.sim.roll(|dice| dice.span(Duration::from_millis(50), self.story.broken_most))
    }

    fn later(self: &Rc<Self>, span: Duration, act: impl FnOnce(&Rc<World>) + 'static) {
        let world = self.clone();
        self.sim.after(WORLD, span, move || {
            if !world.is_ending() {
                act(&world);
            }
        });
    }

    fn do_harm(self: &Rc<Self>, fault: Fault, node: NodeId) {
        let span = self.span();
        match fault {
            Fault::Wipe => return self.wipe(node),
            Fault::Shorten => return self.shorten(span),
            Fault::Rot | Fault::Misdirect => return self.spoil(fault),
            _ => {}
        }
        self.count_fault(fault.name());
        self.sim.tell(|| format!("-- {}: n{node} for {span:?}", fault.name()));
        match fault {
            Fault::Kill => self.end_for(node, span, false),
            Fault::PowerCut => self.end_for(node, span, true),
            Fault::PowerCutAll => self.ids().into_iter().for_each(|id| {
                let span = self.span();
                self.end_for(id, span, true);
            }),
            Fault::Pause => {
                let Some(node) = self.node(node) else { return };
                self.sim.pause(node.around.process);
                self.later(span, move |world| world.sim.resume(node.around.process));
            }
            Fault::CutOneWay | Fault::CutPair | Fault::Clog => {
                let others: Vec<NodeId> = self.ids().into_iter().filter(|id| *id != node).collect();
                let Some(other) = self.sim.roll(|dice| dice.pick(&others).copied()) else { return };
                let mut links = vec![(node, other)];
                if fault != Fault::CutOneWay {
                    links.push((other, node));
                }
                for (from, to) in links {
                    if fault == Fault::Clog {
                        self.net.clog(from, to, self.sim.roll(|dice| dice.span(Duration::ZERO, span / 4)));
                    } else {
                        self.net.cut(from, to);
                    }
                    self.later(span, move |world| world.net.mend(from, to));
                }
            }
            Fault::Isolate => {
                for other in self.ids().into_iter().filter(|id| *id != node) {
                    self.net.cut(node, other);
                    self.net.cut(other, node);
                    self.later(span, move |world| {
                        world.net.mend(node, other);
                        world.net.mend(other, node);
                    });
                }
            }
            Fault::Split => {
                let side: Vec<(NodeId, bool)> =
                    self.ids().into_iter().map(|id| (id, self.sim.roll(|dice| dice.once_in(2)))).collect();
                for (a, one) in &side {
                    for (b, other) in side.iter().filter(|(_, other)| other != one) {
                        let (a, b, _) = (*a, *b, other);
                        self.net.cut(a, b);
                        self.later(span, move |world| world.net.mend(a, b));
                    }
                }
            }
            Fault::JumpClock => {
                let by = self.sim.roll(|dice| i64::try_from(dice.below(7_200_000)).unwrap_or(0) - 3_600_000);
                if let Some(node) = self.node(node) {
                    self.sim.jump_wall(node.around.process, by);
                }
            }
            Fault::SlowDisk => {
                let Some(node) = self.node(node) else { return };
                let process = node.around.process;
                let slow = self.sim.roll(|dice| dice.span(Duration::from_millis(20), Duration::from_millis(1_500)));
                self.sim.set_pace(process, DiskPace { least: slow / 4, most: slow });
                let most = self.story.disk_most;
                self.later(span, move |world| {
                    world.sim.set_pace(process, DiskPace { least: Duration::from_micros(50), most });
                });
            }
            Fault::FailSyncs => {
                let metadata = self.sim.roll(|dice| dice.once_in(3));
                self.with_disks(node, |disks| {
                    let disk = if metadata { &disks.metadata } else { &disks.records };
                    disk.set_fails_syncs(true);
                });
                // Somebody replaces the cable, with the power on or off, and starts the broker again.
                let power = self.sim.roll(|dice| dice.once_in(2));
                self.later(span, move |world| {
                    world.with_disks(node, |disks| {
                        disks.metadata.set_fails_syncs(false);
                        disks.records.set_fails_syncs(false);
                    });
                    world.end(node, power, false, false);
                });
            }
            Fault::FillDisk => {
                self.with_disks(node, |disks| disks.records.set_full(true));
                self.later(span, move |world| world.with_disks(node, |disks| disks.records.set_full(false)));
            }
            Fault::FailCalls | Fault::LackRoom => {
                let is_about_room = fault == Fault::LackRoom;
                let metadata = self.sim.roll(|dice| dice.once_in(4));
                let trouble = self.sim.roll(|dice| Trouble {
                    per_mille: dice.between(1, if is_about_room { 200 } else { 20 }),
                    is_about_room,
                    dice: dice.fork(),
                });
                self.with_disks(node, |disks| {
                    let disk = if metadata { &disks.metadata } else { &disks.records };
                    disk.set_trouble(Some(trouble));
                });
                self.later(span, move |world| {
                    world.with_disks(node, |disks| {
                        disks.metadata.set_trouble(None);
                        disks.records.set_trouble(None);
                    });
                    let is_hurt =
                        world.node(node).and_then(|node| node.table()).is_none_or(|table| !table.offline().is_empty());
                    if is_hurt {
                        world.end(node, false, false, false);
                    }
                });
            }
            Fault::Wipe | Fault::Shorten | Fault::Rot | Fault::Misdirect => {}
        }
    }

    /// What one node has may be lost: everything of it that counts is somewhere else, too.
    fn is_survived_without(&self, id: NodeId) -> bool {
        self.image().is_some_and(|image| {
            image.topics().all(|topic| {
                topic.partitions.iter().all(|partition| {
                    // Where one copy is enough, this node may be left alone in sync before anybody knows of its loss.
                    let holders = partition.isr.iter().chain(&partition.elr).filter(|holder| **holder != id).count();
                    holders > 0 && partition.in_sync_min(&topic.config) > 1
                })
            })
        })
    }

    /// A bit of a log turns over, or an index is written over a part of it. In one story only one node has such a disk.
    fn spoil(self: &Rc<Self>, fault: Fault) {
        let Some(id) = self.ids().first().copied().filter(|id| self.is_survived_without(*id)) else { return };
        let Some(table) = self.node(id).and_then(|node| node.table()) else { return };
        let logs: Vec<_> = table.all().iter().map(|log| (log.id.to_string(), log.checkpointed_watermark())).collect();
        let Some((log, watermark)) = self.sim.roll(|dice| dice.pick(&logs).cloned()) else { return };
        self.with_disks(id, |disks| {
            let mut dice = self.sim.roll(crate::dice::Dice::fork);
            let what = match fault {
                Fault::Rot => disks.records.rot(&log, watermark.0, &mut dice),
                _ => disks.records.misdirect(&log, watermark.0, &mut dice).then(|| "an index".to_owned()),
            };
            if let Some(what) = what {
                self.spoiled(id, &log);
                self.count_fault(fault.name());
                self.sim.tell(|| format!("-- {}: {what}, {log} of n{id}", fault.name()));
            }
        });
    }

    /// No process has done that to the log.
    pub fn spoiled(&self, node: NodeId, log: &str) {
        self.judges.borrow_mut().hear(&self.sim, &Fact::Spoiled { node, log: log.to_owned() });
    }

    fn end_for(self: &Rc<Self>, node: NodeId, span: Duration, power: bool) {
        self.end(node, power, false, true);
        self.later(span, move |world| world.start(node));
    }

    /// A disk is replaced only as far as the cluster promises to survive it: no other voter's disk is new, and either others
    /// have what it has, or the node is down and nobody counts on it any more.
    fn wipe(self: &Rc<Self>, node: NodeId) {
        let Some(image) = self.image() else { return };
        let nobody_counts = image.topics().all(|topic| {
            topic.partitions.iter().all(|partition| {
                !partition.replicas.contains(&node)
                    || (!partition.isr.contains(&node) && partition.isr.len() >= partition.in_sync_min(&topic.config))
            })
        });
        let is_fenced = image.broker(node).is_some_and(|broker| broker.fenced);
        if !self.all_vote_with_their_disks() {
            return;
        }
        // Somebody who makes one copy be enough, before it is known that this one is gone, would lose the others.
        let all_at_once = !self.story.administers && self.sim.roll(|dice| dice.once_in(2));
        if all_at_once && self.is_survived_without(node) {
            // It comes back before anybody has missed it, or long after.
            self.count_fault(Fault::Wipe.name());
            self.sim.tell(|| format!("-- {}: n{node}, all at once", Fault::Wipe.name()));
            self.end(node, false, true, true);
            let span = self.span();
            self.later(span, move |world| world.start(node));
        } else if self.node(node).is_some() {
            self.end(node, false, false, true);
            let span = self.span() + Duration::from_secs(4);
            self.later(Duration::from_secs(4), move |world| world.wipe(node));
            self.later(span, move |world| world.start(node));
        } else if nobody_counts && is_fenced && self.is_held(node) {
            self.count_fault(Fault::Wipe.name());
            self.sim.tell(|| format!("-- {}: n{node}", Fault::Wipe.name()));
            self.end(node, false, true, true);
            // It is still to be started by whoever held it.
            self.later(Duration::from_secs(5), move |world| world.start(node));
        }
    }

    /// The last part of a log is gone when its process starts again: a disk that lied about what was synced, or a restored
    /// copy. What is beside the log says that more was committed. In one story only one node has such a disk, and others
    /// must have what it had.
    fn shorten(self: &Rc<Self>, span: Duration) {
        let Some(id) = self.ids().first().copied().filter(|id| self.is_survived_without(*id)) else { return };
        let Some(table) = self.node(id).and_then(|node| node.table()) else { return };
        let logs: Vec<_> = table.all().iter().map(|log| (log.id.to_string(), log.checkpointed_watermark())).collect();
        let Some((log, watermark)) = self.sim.roll(|dice| dice.pick(&logs).cloned()) else { return };
        self.end(id, false, false, true);
        self.with_disks(id, |disks| {
            if disks.records.empty_last_segment(&log, watermark.0) {
                self.spoiled(id, &log);
                self.count_fault(Fault::Shorten.name());
                self.sim.tell(|| format!("-- {}: {log} of n{id}", Fault::Shorten.name()));
            }
        });
        self.later(span, move |world| world.start(id));
    }

    /// Every node votes, and with the disk that it has.
    fn all_vote_with_their_disks(&self) -> bool {
        let nodes = self.ids().len();
        if !self.new_disks_vote() {
            return false;
        }
        self.running().into_iter().filter_map(|node| node.group()).any(|group| {
            let raft = group.raft();
            let membership = raft.membership();
            group.controls()
                && !membership.configuration.is_joint()
                && membership.configuration.voters.len() == nodes
                && membership.configuration.learners.is_empty()
        })
    }

    /// Makes topics at the beginning; changes them and moves their replicas as long as the story does so.
    pub async fn administer(self: Rc<Self>) {
        let mut names = 0;
        let first = self.sim.roll(|dice| dice.between(1, 3));
        while names < first {
            self.sim.sleep(WORLD, Duration::from_millis(300)).await;
            let is_up = self.image().is_some_and(|image| {
                image.brokers().values().filter(|broker| broker.is_active()).count() >= self.ids().len()
            });
            if is_up && self.new_disks_vote() && self.create(names) {
                names += 1;
            }
        }
        if self.story.members > 0 {
            while !self.create_offsets() {
                self.sim.sleep(WORLD, Duration::from_millis(300)).await;
            }
            self.sim.spawn(WORLD, self.clone().begin_group(self.story.members));
        }
        if self.story.trims {
            self.sim.spawn(WORLD, self.clone().trim_now_and_then());
        }
        while self.story.administers && !self.is_ending() {
            let pause = self.sim.roll(|dice| dice.span(Duration::from_millis(200), Duration::from_secs(4)));
            self.sim.sleep(WORLD, pause).await;
            if self.is_ending() {
                return;
            }
            match self.sim.roll(|dice| dice.below(10)) {
                0 if names < 8 => names += u64::from(self.create(names)),
                1 => self.delete_any(names),
                2..=3 => self.configure_any(names),
                4..=6 => self.reassign_any(names),
                7 => self.cancel_any(names),
                _ => self.elect_any(names),
            }
        }
    }

    fn controller(&self) -> Option<Rc<crate::node::group::Group>> {
        let able = self.running().into_iter().filter(|node| self.sim.is_running(node.around.process));
        able.filter_map(|node| node.group()).filter(|group| group.controls()).last()
    }

    fn any_topic(&self, names: u64) -> String {
        format!("topic-{}", self.sim.roll(|dice| dice.below(names)))
    }

    /// Likewise, or that of the groups' offsets.
    fn any_topic_at_all(&self, names: u64) -> String {
        match self.story.members > 0 && self.sim.roll(|dice| dice.once_in(4)) {
            true => CONSUMER_OFFSETS.to_owned(),
            false => self.any_topic(names),
        }
    }

    /// The topic of the groups' offsets is asked for; whether there is one.
    fn create_offsets(&self) -> bool {
        if self.image().is_some_and(|image| image.topic(CONSUMER_OFFSETS).is_some()) {
            return true;
        }
        let (Some(group), mut ids) = (self.controller(), self.sim.roll(crate::dice::Dice::fork)) else { return false };
        let config = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
        let topic = NewTopic {
            partitions: 2,
            replication_factor: 3,
            configs: vec![config("cleanup.policy", "compact"), config("min.insync.replicas", "2")],
            ..NewTopic::with_defaults(CONSUMER_OFFSETS)
        };
        group.decide(
            |image| Ok::<_, ()>(controller::create_topics(image, &[topic], || TopicId(ids.identity()))),
            |_| {},
        );
        false
    }

    /// Retention, and operators who drop records (DeleteRecords).
    async fn trim_now_and_then(self: Rc<Self>) {
        while !self.is_ending() {
            let pause = self.sim.roll(|dice| dice.span(Duration::from_millis(500), Duration::from_secs(5)));
            self.sim.sleep(WORLD, pause).await;
            let nodes = self.running();
            let Some(node) = self.sim.roll(|dice| dice.pick(&nodes).cloned()) else { continue };
            let (Some(table), Some(group)) = (node.table(), node.group()) else { continue };
            let image = group.image();
            let is_plain = |log: chronik_core::ids::LogId| {
                image.topic_by_id(log.topic).is_some_and(|topic| &*topic.name != CONSUMER_OFFSETS)
            };
            let led: Vec<_> = table.all().into_iter().filter(|log| log.standing().leads && is_plain(log.id)).collect();
            let Some(log) = self.sim.roll(|dice| dice.pick(&led).cloned()) else { continue };
            let standing = log.standing();
            let by_size = self.sim.roll(|dice| dice.once_in(2));
            let upto = match chronik_core::wal::Wal::segmented(&**log.log()) {
                Some(segmented) if by_size => {
                    let bytes_max = Some(self.sim.roll(|dice| dice.below(32 << 10)));
                    let retention = Retention { age_ms_max: None, bytes_max };
                    let now = self.sim.now(node.around.process).wall;
                    start_after_retention(&segmented.segments(), standing.high_watermark, &retention, now)
                }
                _ => {
                    let most = (standing.high_watermark.0 - standing.log_start.0).max(0).unsigned_abs();
                    let more = i64::try_from(self.sim.roll(|dice| dice.below(most + 1))).unwrap_or(0);
                    Some(standing.log_start + more)
                }
            };
            let Some(upto) = upto.filter(|upto| *upto > standing.log_start) else { continue };
            self.sim.tell(|| format!("n{} is to drop {} below {upto}", node.around.node, log.id));
            self.judges.borrow_mut().count(if by_size { "retention" } else { "records deleted" });
            self.sim.spawn(node.around.process, async move {
                let _tried_again_another_time = log.trim(upto).await;
            });
        }
    }

    fn create(self: &Rc<Self>, number: u64) -> bool {
        let Some(group) = self.controller() else { return false };
        let (partitions, min, mut ids) =
            self.sim.roll(|dice| (dice.between(1, 2), if dice.once_in(4) { "1" } else { "2" }, dice.fork()));
        let mut configs = vec![("min.insync.replicas".into(), Some(min.into()))];
        if self.story.may_lose && self.sim.roll(|dice| dice.once_in(2)) {
            configs.push(("unclean.leader.election.enable".into(), Some("true".into())));
        }
        if self.story.unsynced && self.sim.roll(|dice| dice.once_in(2)) {
            configs.push(("chronik.durability".into(), Some("replicated".into())));
        }
        // What lies on one node only is promised to be there when that node is, and nothing else takes its place.
        let is_single = self.story.singles && self.sim.roll(|dice| dice.once_in(2));
        let topic = NewTopic {
            partitions: i32::try_from(partitions).unwrap_or(1),
            replication_factor: if is_single { 1 } else { 3 },
            configs,
            ..NewTopic::with_defaults(format!("topic-{number}"))
        };
        let world = self.clone();
        group.decide(
            |image| Ok::<_, ()>(controller::create_topics(image, &[topic], || TopicId(ids.identity()))),
            move |outcome| {
                if let Ok(Ok(reply)) = outcome
                    && let Some((_, Ok(created))) = reply.into_iter().next()
                {
                    world.judges.borrow_mut().count("topic created");
                    world.sim.tell(|| format!("topic {number} is {}", created.id));
                    world.use_topic(created.id, created.partitions);
                }
            },
        );
        true
    }

    fn delete_any(&self, names: u64) {
        let Some(group) = self.controller() else { return };
        let name = self.any_topic(names);
        self.sim.tell(|| format!("{name} is to be deleted"));
        self.judges.borrow_mut().count("topic to be deleted");
        let wanted = [TopicRef { name: Some(name), id: TopicId::NONE }];
        group.decide(|image| Ok::<_, ()>(controller::delete_topics(image, &wanted)), |_| {});
    }

    fn configure_any(&self, names: u64) {
        let Some(group) = self.controller() else { return };
        let (name, min) = (self.any_topic_at_all(names), self.sim.roll(|dice| dice.between(1, 2)));
        let mut config = ("min.insync.replicas".to_owned(), min.to_string());
        // Of the groups' offsets nothing may be lost: that is what groups are judged by.
        if self.story.unsynced && name != CONSUMER_OFFSETS && self.sim.roll(|dice| dice.once_in(3)) {
            config = ("chronik.durability".into(), if min == 1 { "fsync" } else { "replicated" }.into());
        } else if self.story.may_lose && name != CONSUMER_OFFSETS && self.sim.roll(|dice| dice.once_in(3)) {
            config = ("unclean.leader.election.enable".into(), if min == 1 { "true" } else { "false" }.into());
        }
        let (key, value) = config;
        self.sim.tell(|| format!("{name} is to have {key}={value}"));
        self.judges.borrow_mut().count("topic configured");
        let alteration = ResourceAlteration {
            resource: AlterResource { kind: 2, name },
            configs: vec![(key, AlterOp::Set(Some(value)))],
        };
        group.decide(|image| Ok::<_, ()>(controller::alter_configs(image, &[alteration])), |_| {});
    }

    fn reassign_any(&self, names: u64) {
        let Some(group) = self.controller() else { return };
        let name = self.any_topic_at_all(names);
        let mut replicas = self.ids();
        // As many as before, in any order; on five nodes, others.
        let count = 3.min(replicas.len());
        self.sim.roll(|dice| {
            for at in (1..replicas.len()).rev() {
                replicas.swap(at, usize::try_from(dice.below(at as u64 + 1)).unwrap_or(0));
            }
        });
        let fewer = self.sim.roll(|dice| dice.once_in(4));
        replicas.truncate(if fewer { count - 1 } else { count });
        self.sim.tell(|| format!("{name} is to move to {replicas:?}"));
        self.judges.borrow_mut().count("reassignment asked for");
        let wanted = [Reassignment { topic: name, partition: 0, replicas: Some(replicas) }];
        group.decide(|image| Ok::<_, ()>(controller::reassign_partitions(image, &wanted, true)), |_| {});
    }

    fn cancel_any(&self, names: u64) {
        let Some(group) = self.controller() else { return };
        let wanted = [Reassignment { topic: self.any_topic(names), partition: 0, replicas: None }];
        group.decide(|image| Ok::<_, ()>(controller::reassign_partitions(image, &wanted, true)), |_| {});
    }

    fn elect_any(&self, names: u64) {
        let Some(group) = self.controller() else { return };
        let wanted = [(self.any_topic_at_all(names), 0)];
        group.decide(|image| Ok::<_, ()>(controller::elect_leaders(image, ElectionKind::Preferred, &wanted)), |_| {});
    }
}
