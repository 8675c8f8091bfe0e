//! A node: the production machines, with what the broker puts around them done in turns of one thread.
//!
//! What decides anything is production code: the Raft machine, the image, the controller, the partition driver with its
//! leader and follower, and the segment engine under all logs. What is here is the glue that the broker has in its tasks and
//! threads, kept as close to the broker's as it can be, so that a mistake in its order shows here too.

pub mod asks;
pub mod group;
pub mod groups;
pub mod life;
pub mod partition;
pub mod raft_disk;
pub mod table;
pub mod watched;

use crate::check::Judges;
use crate::disk::SimDisk;
use crate::facts::Fact;
use crate::net::Net;
use crate::rt::{Process, Sim};
use asks::Asks;
use chronik_core::ids::{NodeId, Offset};
use chronik_core::metadata::ClusterDefaults;
use chronik_core::metadata::controller::{self, Registration};
use chronik_core::metadata::raft::{Member, Members, Recovered, Settings};
use chronik_core::time::Now;
use chronik_storage_segment::{SegmentEngine, SegmentOptions};
use group::{Group, Parts};
use groups::Groups;
use raft_disk::RaftDisk;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use table::Table;

/// What everything of one process shares.
#[derive(Clone)]
pub struct Around {
    pub sim: Sim,
    pub net: Rc<Net>,
    pub judges: Rc<RefCell<Judges>>,
    pub node: NodeId,
    pub process: Process,
    pub segment_bytes: u64,
    /// Set by a process that cannot go on; the world then ends it.
    pub gave_up: Rc<RefCell<Option<String>>>,
}

impl Around {
    pub fn now(&self) -> Now {
        self.sim.now(self.process)
    }

    pub fn tell(&self, fact: Fact) {
        self.judges.borrow_mut().hear(&self.sim, &fact);
    }

    pub fn give_up(&self, why: &str) {
        self.sim.tell(|| format!("n{} cannot go on: {why}", self.node));
        self.gave_up.borrow_mut().get_or_insert_with(|| why.to_owned());
    }
}

/// How nodes are run in this story.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    pub raft: Settings,
    pub session: Duration,
    pub lag_max: Duration,
    pub heartbeat: Duration,
    pub checkpoint_every: Duration,
    pub segment_bytes: u64,
    pub engine: SegmentOptions,
}

/// A node's two disks.
#[derive(Clone, Debug, Default)]
pub struct Disks {
    pub metadata: SimDisk,
    pub records: SimDisk,
}

/// How a node comes into its cluster.
#[derive(Clone, Debug)]
pub enum Beginning {
    /// With these voters, if its disk is blank.
    With(Members),
    /// With a new disk, into a cluster that is there.
    Join,
}

/// A running process of a node.
pub struct Node {
    pub around: Around,
    group: RefCell<Option<Rc<Group>>>,
    table: RefCell<Option<Rc<Table>>>,
    groups: RefCell<Option<Rc<Groups>>>,
    broker_epoch: Cell<Option<Offset>>,
}

impl Node {
    /// Starts a process over what the disks hold; it comes up by itself.
    pub fn start(
        around: Around,
        disks: Disks,
        settings: NodeSettings,
        beginning: Beginning,
        peers: Vec<NodeId>,
    ) -> Rc<Self> {
        let node = Rc::new(Self {
            around,
            group: RefCell::default(),
            table: RefCell::default(),
            groups: RefCell::default(),
            broker_epoch: Cell::new(None),
        });
        let (sim, process) = (node.around.sim.clone(), node.around.process);
        let starting = node.clone();
        sim.spawn(process, async move {
            if let Err(why) = starting.clone().run(disks, settings, beginning, peers).await {
                starting.around.give_up(&why);
            }
        });
        node
    }

    pub fn group(&self) -> Option<Rc<Group>> {
        self.group.borrow().clone()
    }

    /// The replicas, once the process is registered.
    pub fn table(&self) -> Option<Rc<Table>> {
        self.table.borrow().clone()
    }

    /// The coordinators of groups, once the process is registered.
    pub fn groups(&self) -> Option<Rc<Groups>> {
        self.groups.borrow().clone()
    }

    pub fn broker_epoch(&self) -> Option<Offset> {
        self.broker_epoch.get()
    }

    async fn run(
        self: Rc<Self>,
        disks: Disks,
        settings: NodeSettings,
        beginning: Beginning,
        peers: Vec<NodeId>,
    ) -> Result<(), String> {
        let around = self.around.clone();
        let (sim, node, process) = (around.sim.clone(), around.node, around.process);
        let voters = match &beginning {
            Beginning::With(voters) => Some(voters),
            Beginning::Join => None,
        };
        let given = voters.and_then(|voters| voters.iter().find(|member| member.node() == node)).cloned();
        let given_id = given.as_ref().map(|member| *member.directory_id());
        let opened = RaftDisk::open(around.clone(), disks.metadata, settings.engine.clone(), given_id).await;
        let (disk, directory_id, mut recovered) = opened.map_err(|why| why.0)?;
        let own = Member::new(node, directory_id, format!("n{node}:9093")).ok_or("no member")?;
        let mut joining = false;
        if recovered.snapshot.is_none() {
            match voters {
                Some(voters) => {
                    let persist = Recovered::genesis_persist(voters);
                    disk.persist(&persist, around.now().wall).await.map_err(|why| why.0)?;
                    recovered = Recovered::genesis(voters);
                }
                None => joining = true,
            }
        }
        let group = Group::open(Parts {
            around: around.clone(),
            own,
            settings: settings.raft,
            session: settings.session,
            disk,
            recovered,
            defaults: ClusterDefaults::default(),
            peers,
            joining,
            seed: sim.roll(|dice| dice.draw()),
        })?;
        let asks = Asks::new(around.clone(), group.clone());
        group.set_asks(&asks);
        let take = {
            let group = group.clone();
            Rc::new(move |event| group.take(event))
        };
        around.net.join(node, process, take);
        *self.group.borrow_mut() = Some(group.clone());

        let engine = SegmentEngine::over(Arc::new(disks.records), sim.lanes(process), settings.engine)
            .map_err(|why| why.to_string())?;
        let table = Table::new(around.clone(), engine, settings.lag_max);
        let mut lost = table.open_idle(&group.image()).await;
        let broker_epoch = loop {
            let registration = Registration {
                node,
                incarnation: sim.roll(|dice| dice.identity()),
                directory_id,
                rack: None,
                listeners: Vec::new(),
                clean: false,
                lost: lost.clone(),
                replication_address: Some(format!("n{node}:9192")),
                features: controller::supported_features(),
                after: group.image().broker(node).map(|before| before.epoch),
            };
            let registered = life::register(&around, &asks, &group, registration).await;
            let broker_epoch = registered.ok_or("it is not let in")?;
            sim.tell(|| format!("n{node} is registered in epoch {broker_epoch}"));
            let found = table.open_idle(&group.image()).await;
            if found == lost {
                break broker_epoch;
            }
            lost = found;
        };
        let groups = Groups::new(around.clone(), group.clone(), table.clone());
        table.begin(&group, &groups).await;
        *self.groups.borrow_mut() = Some(groups);
        let admits = {
            let group = group.clone();
            Rc::new(move |peer, epoch| group.image().broker(peer).is_some_and(|broker| broker.epoch == epoch))
        };
        let take = {
            let table = table.clone();
            Rc::new(move |event| table.take(event))
        };
        around.net.replicate(node, broker_epoch, admits, take);
        self.broker_epoch.set(Some(broker_epoch));
        *self.table.borrow_mut() = Some(table.clone());
        let beat =
            life::beat(around.clone(), asks.clone(), group.clone(), table.clone(), broker_epoch, settings.heartbeat);
        sim.spawn(process, beat);
        sim.spawn(process, life::wish(around.clone(), asks, group, table.clone(), broker_epoch));
        let every = settings.checkpoint_every;
        loop {
            sim.sleep(process, sim.roll(|dice| dice.span(every / 2, every * 2))).await;
            for partition in table.all() {
                let _tried_again_later = partition.save_checkpoint().await;
            }
        }
    }
}
