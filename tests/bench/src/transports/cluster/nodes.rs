//! Three nodes of the broker on this machine, over one layer: blank, for one turn.

use crate::admin::get;
use crate::broker::{self, BrokerError};
use crate::network::{self, Ends};
use crate::transports::layer::{Layer, Transport};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long nodes may take to be ready, to come back, to be in sync again.
const WITHIN: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Of a node's log, what is shown when it does not come up.
const LOG_SHOWN_BYTES: usize = 2_048;

struct Node {
    id: i32,
    kafka: u16,
    raft: u16,
    replication: u16,
    admin: u16,
    process: Option<Child>,
}

impl Node {
    fn admin(&self) -> String {
        format!("127.0.0.1:{}", self.admin)
    }
}

/// **Invariant:** no process outlives it.
pub struct Nodes {
    binary: PathBuf,
    layer: Layer,
    certs: PathBuf,
    settings: Vec<String>,
    home: tempfile::TempDir,
    nodes: Vec<Node>,
}

impl Nodes {
    /// Starts them, and returns when all serve and know each other.
    pub fn start(
        binary: &Path,
        layer: Layer,
        certs: &Path,
        parent: Option<&Path>,
        settings: &[String],
        ids: &[i32],
    ) -> Result<Self, BrokerError> {
        let home = broker::directory(parent)?;
        let node = |id: &i32| -> Result<Node, BrokerError> {
            let port = || chronik_ports::free_port().ok_or(BrokerError::NoPort);
            Ok(Node { id: *id, kafka: port()?, raft: port()?, replication: port()?, admin: port()?, process: None })
        };
        let nodes = ids.iter().map(node).collect::<Result<_, _>>()?;
        let (certs, settings) = (certs.to_owned(), settings.to_vec());
        let mut all = Self { binary: binary.to_owned(), layer, certs, settings, home, nodes };
        for &id in ids {
            all.spawn(id)?;
        }
        all.until_whole()?;
        Ok(all)
    }

    fn node(&self, id: i32) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }

    fn arguments(&self, node: &Node) -> Vec<String> {
        let Ends { listen, dial } = network::ends();
        let at = |port: u16| format!("127.0.0.1:{port}");
        let voters: Vec<String> = self.nodes.iter().map(|node| format!("{}@{dial}:{}", node.id, node.raft)).collect();
        let mut settings = vec![
            format!("node.id={}", node.id),
            format!("node.data_dir={}", self.home.path().join(format!("node-{}", node.id)).display()),
            format!("kafka.listen={}", at(node.kafka)),
            format!("admin.listen={}", at(node.admin)),
            format!("raft.listen={listen}:{}", node.raft),
            format!("replication.listen={listen}:{}", node.replication),
            format!("replication.advertise={dial}:{}", node.replication),
            format!("cluster.voters={}", voters.join(",")),
        ];
        if !listen.is_loopback() && !self.layer.tls {
            // The network is this run's own.
            settings.push("cluster.unsafe_plaintext_beyond_loopback=true".to_owned());
        }
        for plane in ["raft", "replication"] {
            settings.push(format!("{plane}.transport={}", self.layer.transport.name()));
            if self.layer.transport == Transport::Quic {
                settings.push(format!("{plane}.quic.mtu_bytes={}", self.layer.mtu_bytes));
            }
        }
        if self.layer.tls {
            let files = [
                ("cert", format!("node-{}.pem", node.id)),
                ("key", format!("node-{}.key", node.id)),
                ("ca", "ca.pem".into()),
            ];
            settings.extend(files.map(|(key, file)| format!("cluster.tls.{key}={}", self.certs.join(file).display())));
        }
        settings.extend(self.settings.iter().cloned());
        let pairs = settings.into_iter().flat_map(|setting| ["--set".to_owned(), setting]);
        ["serve", "--bootstrap"].map(str::to_owned).into_iter().chain(pairs).collect()
    }

    /// Starts a node; does not wait for it.
    pub fn spawn(&mut self, id: i32) -> Result<(), BrokerError> {
        let Some(node) = self.node(id) else { return Ok(()) };
        let log = self.home.path().join(format!("node-{id}.log"));
        let log =
            std::fs::File::options().create(true).append(true).open(log).map_err(broker::io("write a node's log"))?;
        let errors = log.try_clone().map_err(broker::io("write a node's log"))?;
        let mut command = Command::new(&self.binary);
        command.args(self.arguments(node)).stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = command.spawn().map_err(|source| BrokerError::Start { path: self.binary.clone(), source })?;
        if let Some(node) = self.nodes.iter_mut().find(|node| node.id == id) {
            node.process = Some(child);
        }
        Ok(())
    }

    /// Addresses of the admin ports.
    pub fn admins(&self) -> Vec<String> {
        self.nodes.iter().map(Node::admin).collect()
    }

    pub fn bootstrap(&self) -> String {
        self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.kafka)).collect::<Vec<_>>().join(",")
    }

    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| Some(node.process.as_ref()?.id())).collect()
    }

    /// `kill -9`.
    pub fn kill(&mut self, id: i32) {
        if let Some(mut process) = self.nodes.iter_mut().find(|node| node.id == id).and_then(|node| node.process.take())
        {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// SIGTERM; returns when it has ended.
    pub fn stop(&mut self, id: i32) {
        if let Some(mut process) = self.nodes.iter_mut().find(|node| node.id == id).and_then(|node| node.process.take())
        {
            let _ = kill_process(Pid::from_child(&process), Signal::TERM);
            let _ = process.wait();
        }
    }

    /// Every node serves, none is fenced, and every replica is in sync, as every node sees it.
    fn is_whole(&self) -> bool {
        self.nodes.iter().all(|node| {
            let is_ready = get(&node.admin(), "/readyz").is_some_and(|(status, _)| status == 200);
            is_ready && self.status(node).is_some_and(|status| is_whole(&status, self.nodes.len()))
        })
    }

    fn status(&self, node: &Node) -> Option<Value> {
        serde_json::from_str(&get(&node.admin(), "/cluster")?.1).ok()
    }

    pub fn until_whole(&mut self) -> Result<(), BrokerError> {
        let until = Instant::now() + WITHIN;
        while !self.is_whole() {
            let ended = |node: &mut Node| {
                let status = node.process.as_mut().and_then(|process| process.try_wait().ok().flatten());
                status.map(|_| node.id)
            };
            if let Some(id) = self.nodes.iter_mut().find_map(ended) {
                return Err(BrokerError::Ended(self.log(id)));
            }
            if Instant::now() > until {
                return Err(BrokerError::NotReady);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Waits until the nodes that live, other than the one that is gone, see that it is.
    pub fn until_missed(&self, id: i32) -> Result<(), BrokerError> {
        let until = Instant::now() + WITHIN;
        let missed = |node: &Node| {
            let status = self.status(node)?;
            let nodes = status["nodes"].as_array()?;
            Some(nodes.iter().any(|other| other["node"] == id && other["fenced"] == true))
        };
        while !self.nodes.iter().filter(|node| node.process.is_some()).all(|node| missed(node) == Some(true)) {
            if Instant::now() > until {
                return Err(BrokerError::NotReady);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    fn log(&self, id: i32) -> String {
        let log = std::fs::read(self.home.path().join(format!("node-{id}.log"))).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_SHOWN_BYTES)..]).into_owned()
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        let ids: Vec<i32> = self.nodes.iter().map(|node| node.id).collect();
        ids.into_iter().for_each(|id| self.kill(id));
    }
}

fn is_whole(status: &Value, nodes: usize) -> bool {
    let all_in_sync = status["not_in_sync"].as_array().is_some_and(Vec::is_empty);
    let known = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    all_in_sync && known.iter().filter(|node| node["fenced"] == false).count() == nodes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_cluster_is_whole_when_all_nodes_are_there_and_in_sync() {
        let node = |fenced: bool| json!({ "node": 1, "fenced": fenced });
        let status = |nodes: Vec<Value>, behind: Vec<Value>| json!({ "nodes": nodes, "not_in_sync": behind });
        assert!(is_whole(&status(vec![node(false), node(false)], vec![]), 2));
        assert!(!is_whole(&status(vec![node(false), node(true)], vec![]), 2));
        assert!(!is_whole(&status(vec![node(false)], vec![]), 2));
        assert!(!is_whole(&status(vec![node(false), node(false)], vec![json!({})]), 2));
        assert!(!is_whole(&json!({ "alone": true }), 1));
    }
}
