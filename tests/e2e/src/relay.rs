//! The network between the nodes of a cluster, which tests may break.
//!
//! - [`whose`]: which process a connection comes from.
//! - [`tcp`]: connections. - [`udp`]: datagrams.
//!
//! Each plane of each node has a relay before it, whose address is the one that other nodes know. All dial the same address, so
//! who it is that dials is seen from the process that owns the other end of the socket: what goes from any node to any other
//! has a [`Rule`] of its own, on each plane and in each direction.
//!
//! **What must stay true:** what is cut is silent. Nothing tells either end: no connection is refused, closed or reset across
//! a cut, not even because a process at its other end has died. Bytes of a connection that are held by a cut come when it
//! heals, as they do from a real network that sends again; datagrams are gone. Where a node is down and nothing is cut, its
//! port refuses, as its machine would.

mod tcp;
mod udp;
mod whose;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;

/// Between nodes, the metadata and the records have listeners of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plane {
    Raft,
    Replication,
}

pub const PLANES: [Plane; 2] = [Plane::Raft, Plane::Replication];

/// What becomes of that which one node sends to another on one plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Nothing arrives, and nobody is told.
    pub cut: bool,
    /// Connections end at once, and so does each new one.
    pub close: bool,
    pub delay_ms: u64,
    /// 0: as fast as it goes.
    pub bytes_per_s: u64,
    /// One byte in each so many is another one; 0: none.
    pub corrupt_every_bytes: u64,
    /// Of a thousand datagrams so many are lost.
    pub drop_per_mille: u64,
    /// Of a thousand datagrams so many come after the next one.
    pub reorder_per_mille: u64,
}

/// A way from one node to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way {
    plane: Plane,
    from: usize,
    to: usize,
}

impl Way {
    fn back(self) -> Self {
        Self { plane: self.plane, from: self.to, to: self.from }
    }
}

/// A relay's own address, and the one behind it.
#[derive(Clone, Copy, Debug)]
struct Stop {
    plane: Plane,
    node: usize,
    relay: SocketAddr,
    target: SocketAddr,
}

#[derive(Default)]
struct State {
    rules: BTreeMap<Way, Rule>,
    /// The processes of the nodes that run.
    processes: BTreeMap<usize, u32>,
}

pub(crate) struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of it panics")
    }

    fn rule(&self, way: Way) -> Rule {
        self.state().rules.get(&way).copied().unwrap_or_default()
    }

    fn processes(&self) -> BTreeMap<usize, u32> {
        self.state().processes.clone()
    }

    /// Whether who dials this node finds a port there: it is up, or somebody could not be told that it is not.
    fn answers(&self, node: usize) -> bool {
        let state = self.state();
        let touches = |way: &Way| way.from == node || way.to == node;
        state.processes.contains_key(&node) || state.rules.iter().any(|(way, rule)| touches(way) && rule.cut)
    }

    async fn until(&self, mut is_so: impl FnMut(&Self) -> bool) {
        let mut changed = self.changed.subscribe();
        while !is_so(self) {
            // Its sender is in self.
            let _ = changed.changed().await;
        }
    }

    async fn until_open(&self, way: Way) {
        self.until(|shared| !shared.rule(way).cut).await;
    }

    async fn until_closed(&self, way: Way) {
        self.until(|shared| shared.rule(way).close || shared.rule(way.back()).close).await;
    }
}

/// The relays of a cluster, in a thread of their own.
pub struct Network {
    shared: Arc<Shared>,
    nodes: usize,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// The addresses of one node's planes: where it listens, and where others reach it.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub raft: u16,
    pub replication: u16,
    pub raft_relay: u16,
    pub replication_relay: u16,
}

impl Network {
    /// Relays for nodes 1, 2, … `datagrams`: the nodes reach each other over UDP.
    pub fn start(nodes: &[Ports], datagrams: bool) -> Self {
        let (changed, _) = watch::channel(());
        let shared = Arc::new(Shared { state: Mutex::default(), changed });
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stops = Vec::new();
        for (node, ports) in (1..).zip(nodes) {
            let planes = [
                (Plane::Raft, ports.raft_relay, ports.raft),
                (Plane::Replication, ports.replication_relay, ports.replication),
            ];
            for (plane, relay, target) in planes {
                stops.push(Stop { plane, node, relay: local(relay), target: local(target) });
            }
        }
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let of_thread = shared.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                for stop in stops {
                    match datagrams {
                        true => tokio::spawn(udp::relay(of_thread.clone(), stop)),
                        false => tokio::spawn(tcp::relay(of_thread.clone(), stop)),
                    };
                }
                let _ = stopped.await;
            });
        });
        Self { shared, nodes: nodes.len(), stop: Some(stop), thread: Some(thread) }
    }

    /// A node's process has begun, or ended.
    pub fn runs(&self, node: usize, process: Option<u32>) {
        match process {
            Some(process) => self.shared.state().processes.insert(node, process),
            None => self.shared.state().processes.remove(&node),
        };
        self.shared.changed.send_replace(());
    }

    /// From now on, what `from` sends to `to` on this plane fares so.
    pub fn set(&self, plane: Plane, from: usize, to: usize, rule: Rule) {
        self.shared.state().rules.insert(Way { plane, from, to }, rule);
        self.shared.changed.send_replace(());
    }

    /// All that a node sends on these planes.
    pub fn set_outbound(&self, planes: &[Plane], node: usize, rule: Rule) {
        for other in (1..=self.nodes).filter(|other| *other != node) {
            planes.iter().for_each(|plane| self.set(*plane, node, other, rule));
        }
    }

    /// All that is sent to a node on these planes.
    pub fn set_inbound(&self, planes: &[Plane], node: usize, rule: Rule) {
        for other in (1..=self.nodes).filter(|other| *other != node) {
            planes.iter().for_each(|plane| self.set(*plane, other, node, rule));
        }
    }

    /// Nothing is wrong any more, anywhere.
    pub fn heal(&self) {
        self.shared.state().rules.clear();
        self.shared.changed.send_replace(());
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// How long `bytes` take at this rule's speed.
fn takes(rule: Rule, bytes: usize) -> Duration {
    match rule.bytes_per_s {
        0 => Duration::ZERO,
        speed => Duration::from_micros(bytes as u64 * 1_000_000 / speed),
    }
}

/// Changes one byte of every so many, counted over all that passes.
fn corrupt(rule: Rule, passed: &mut u64, bytes: &mut [u8]) {
    for byte in bytes {
        *passed += 1;
        if rule.corrupt_every_bytes > 0 && passed.is_multiple_of(rule.corrupt_every_bytes) {
            *byte ^= 0x40;
        }
    }
}

#[cfg(test)]
mod tests;
