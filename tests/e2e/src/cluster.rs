//! Several brokers as one cluster, each a process that may be killed, paused, stopped and started again.

use crate::broker::{binary, free_port};
use crate::disk::Disk;
use crate::relay::{Network, Ports};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Far above what any of these take, so that only a hang meets it; also on a machine that stops all of this for a minute.
pub const PATIENCE: Duration = Duration::from_secs(600);
/// The end of each log that a failed test shows.
const LOG_SHOWN_BYTES: usize = 6 * 1024;

/// **Invariant:** no process outlives it.
pub struct Cluster {
    nodes: Vec<Node>,
    network: Option<Network>,
    /// Each node's own, if there are.
    disks: Vec<Disk>,
    home: TempDir,
}

struct Node {
    kafka: u16,
    admin: u16,
    planes: Ports,
    process: Option<Child>,
}

/// Certificates for nodes, "1,2,3", and the authority that they are of.
pub fn make_certs(directory: &Path, nodes: &str) {
    let mut certs = Command::new(binary());
    certs.args(["cluster", "certs"]).arg(directory).args(["--nodes", nodes]);
    let made = certs.output().expect("it runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// What `CHRONIK_CLUSTER_TRANSPORT` says.
pub fn transport() -> String {
    std::env::var("CHRONIK_CLUSTER_TRANSPORT").unwrap_or_else(|_| "tcp".into())
}

impl Cluster {
    /// Blank nodes, started together, with settings of the form `key=value` on each; returns when all of them serve. They
    /// reach each other over what `CHRONIK_CLUSTER_TRANSPORT` says: "tcp", "grpc" or "quic", all with TLS.
    pub fn start(count: usize, settings: &[&str]) -> Self {
        Self::start_with(count, |_| settings.iter().map(ToString::to_string).collect())
    }

    /// With each node's own settings.
    pub fn start_with(count: usize, settings: impl Fn(usize) -> Vec<String>) -> Self {
        Self::begin(count, settings, |_| Ok(Vec::new()), false).expect("there is nothing to lack")
    }

    /// With relays between the nodes: see [`Cluster::network`].
    pub fn start_on_relays(count: usize, settings: &[&str]) -> Self {
        let settings = |_| settings.iter().map(ToString::to_string).collect();
        Self::begin(count, settings, |_| Ok(Vec::new()), true).expect("there is nothing to lack")
    }

    /// With disks whose power can be cut: see [`Cluster::cut_power_and_restart`]. None where this machine, or this user, may
    /// not have them, which is said.
    pub fn start_on_disks(count: usize, settings: &[&str]) -> Option<Self> {
        let disks = |home: &Path| {
            let disk = |id| Disk::mounted(home.join(format!("disk-{id}.img")), home.join(format!("node-{id}")));
            (1..=count).map(disk).collect()
        };
        match Self::begin(count, |_| settings.iter().map(ToString::to_string).collect(), disks, false) {
            Ok(cluster) => Some(cluster),
            Err(why) => {
                assert!(std::env::var_os("CI").is_none(), "disks of their own cannot be mounted here: {why}");
                eprintln!("NOT RUN: it takes python3, mkfs.ext4 and the right to mount it: {why}");
                None
            }
        }
    }

    fn begin(
        count: usize,
        settings: impl Fn(usize) -> Vec<String>,
        disks: impl FnOnce(&Path) -> Result<Vec<Disk>, String>,
        relays: bool,
    ) -> Result<Self, String> {
        let home = tempfile::Builder::new().prefix("chronik-e2e-").tempdir().expect("a temporary directory");
        let node = |_| Node {
            kafka: free_port(),
            admin: free_port(),
            planes: Ports {
                raft: free_port(),
                replication: free_port(),
                raft_relay: free_port(),
                replication_relay: free_port(),
            },
            process: None,
        };
        let nodes: Vec<Node> = (0..count).map(node).collect();
        let planes: Vec<Ports> = nodes.iter().map(|node| node.planes).collect();
        let network = relays.then(|| Network::start(&planes, transport() == "quic"));
        let disks = disks(home.path())?;
        let mut cluster = Self { nodes, network, disks, home };
        let ids: Vec<String> = cluster.ids().map(|id| id.to_string()).collect();
        make_certs(&cluster.certs(), &ids.join(","));
        for id in cluster.ids() {
            fs::write(cluster.config_path(id), cluster.config(id, &settings(id)))
                .expect("the configuration is written");
            cluster.spawn(id);
        }
        cluster.wait("all nodes serve", |cluster| cluster.ids().all(|id| cluster.is_ready(id)));
        Ok(cluster)
    }

    /// What is between the nodes, if there are relays.
    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("it was started on relays")
    }

    /// Where a node's planes listen and are reached.
    pub fn planes(&self, id: usize) -> Ports {
        self.nodes[id - 1].planes
    }

    /// The node's process.
    fn runs(&self, id: usize) {
        if let Some(network) = &self.network {
            network.runs(id, self.nodes[id - 1].process.as_ref().map(Child::id));
        }
    }

    pub fn ids(&self) -> impl Iterator<Item = usize> + use<> {
        1..=self.nodes.len()
    }

    fn config_path(&self, id: usize) -> PathBuf {
        self.home.path().join(format!("node-{id}.toml"))
    }

    fn log_path(&self, id: usize) -> PathBuf {
        self.home.path().join(format!("node-{id}.log"))
    }

    pub fn data(&self, id: usize) -> PathBuf {
        self.home.path().join(format!("node-{id}"))
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Where the nodes' certificates are, and their authority's.
    pub fn certs(&self) -> PathBuf {
        self.home.path().join("certs")
    }

    fn config(&self, id: usize, settings: &[String]) -> String {
        let own = &self.nodes[id - 1];
        let raft = |planes: Ports| if self.network.is_some() { planes.raft_relay } else { planes.raft };
        let voters: Vec<String> =
            self.ids().map(|id| format!("\"{id}@127.0.0.1:{}\"", raft(self.planes(id)))).collect();
        let mut text = format!(
            "node.id = {id}\nnode.data_dir = \"{}\"\nkafka.listen = \"127.0.0.1:{}\"\nadmin.listen = \"127.0.0.1:{}\"\n\
             cluster.voters = [{}]\nraft.listen = \"127.0.0.1:{}\"\nreplication.listen = \"127.0.0.1:{}\"\n",
            self.data(id).display(),
            own.kafka,
            own.admin,
            voters.join(", "),
            own.planes.raft,
            own.planes.replication
        );
        if self.network.is_some() {
            text += &format!("replication.advertise = \"127.0.0.1:{}\"\n", own.planes.replication_relay);
        }
        let transport = transport();
        for plane in ["raft", "replication"] {
            text += &format!("{plane}.transport = \"{transport}\"\n");
        }
        let files = [("cert", format!("node-{id}.pem")), ("key", format!("node-{id}.key")), ("ca", "ca.pem".into())];
        for (key, file) in files {
            text += &format!("cluster.tls.{key} = \"{}\"\n", self.certs().join(file).display());
        }
        for setting in settings {
            let (key, value) = setting.split_once('=').expect("key=value");
            let bare = value.parse::<i64>().is_ok() || value == "true" || value == "false";
            text += &if bare { format!("{key} = {value}\n") } else { format!("{key} = \"{value}\"\n") };
        }
        text
    }

    fn spawn(&mut self, id: usize) {
        let log = File::options().create(true).append(true).open(self.log_path(id)).expect("the log's file");
        let mut command = Command::new(binary());
        command.args(["serve", "--bootstrap", "--config"]).arg(self.config_path(id));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        let node = &mut self.nodes[id - 1];
        assert!(node.process.is_none(), "node {id} runs");
        node.process = Some(command.spawn().expect("the node starts"));
        self.runs(id);
    }

    /// Starts a node that was killed or stopped; does not wait for it.
    pub fn restart(&mut self, id: usize) {
        self.spawn(id);
    }

    pub fn bootstrap(&self) -> String {
        self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.kafka)).collect::<Vec<_>>().join(",")
    }

    pub fn bootstrap_of(&self, id: usize) -> String {
        format!("127.0.0.1:{}", self.nodes[id - 1].kafka)
    }

    pub fn is_running(&self, id: usize) -> bool {
        self.nodes[id - 1].process.is_some()
    }

    /// Whether its process has ended by itself; then it may be started again.
    pub fn has_ended(&mut self, id: usize) -> bool {
        let process = self.nodes[id - 1].process.as_mut();
        let ended = process.is_none_or(|process| process.try_wait().is_ok_and(|status| status.is_some()));
        if ended {
            self.nodes[id - 1].process = None;
            self.runs(id);
        }
        ended
    }

    /// `kill -9`.
    pub fn kill(&mut self, id: usize) {
        let mut process = self.nodes[id - 1].process.take().expect("a running node");
        process.kill().expect("a node can be killed");
        process.wait().expect("a killed process ends");
        self.runs(id);
    }

    /// `kill -9` of all nodes, then all of them start again; does not wait for them.
    pub fn kill_all_and_restart(&mut self) {
        for id in self.ids() {
            self.kill(id);
        }
        for id in self.ids() {
            self.restart(id);
        }
    }

    /// The power of all nodes is cut at one moment, and what they had not synced is gone; then all of them start again, which
    /// is not waited for. Gives how many bytes are gone.
    pub fn cut_power_and_restart(&mut self) -> u64 {
        // None writes because another one is gone, and none answers a client meanwhile.
        let running: Vec<usize> = self.ids().filter(|id| self.is_running(*id)).collect();
        running.iter().for_each(|id| self.pause(*id));
        running.iter().for_each(|id| self.kill(*id));
        let written: Vec<_> = self.disks.iter().map(Disk::written).collect();
        Disk::cut_power(&self.disks);
        let gone = self.disks.iter().zip(&written).map(|(disk, written)| disk.come_back(written)).sum();
        for id in self.ids() {
            self.restart(id);
        }
        gone
    }

    /// SIGSTOP: it is there, and does nothing.
    pub fn pause(&self, id: usize) {
        self.signal(id, Signal::STOP);
    }

    pub fn resume(&self, id: usize) {
        self.signal(id, Signal::CONT);
    }

    fn signal(&self, id: usize, signal: Signal) {
        let process = self.nodes[id - 1].process.as_ref().expect("a running node");
        kill_process(Pid::from_child(process), signal).expect("a node can be signalled");
    }

    /// SIGTERM; returns when it has ended in order.
    pub fn terminate(&mut self, id: usize) {
        self.signal(id, Signal::TERM);
        let mut process = self.nodes[id - 1].process.take().expect("a running node");
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = process.try_wait().expect("the node's status") {
                assert!(status.success(), "node {id} ended with {status}");
                self.runs(id);
                return;
            }
            assert!(Instant::now() < end, "node {id} does not stop");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// An answer of a node's admin port, head and body; none where it does not answer.
    pub fn http(&self, id: usize, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.nodes[id - 1].admin)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    pub fn is_ready(&self, id: usize) -> bool {
        self.http(id, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// What a node knows of the cluster.
    pub fn status(&self, id: usize) -> Option<Value> {
        let answer = self.http(id, "/cluster")?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    /// Every node serves, none is fenced, every replica is in sync, and every node has its vote with the disk that it has, as
    /// every node sees it: what holds where any one of three may be lost.
    pub fn is_whole(&self) -> bool {
        self.ids().all(|id| {
            self.is_ready(id)
                && self.status(id).is_some_and(|status| {
                    let list = |key: &str| status[key].as_array().cloned().unwrap_or_default();
                    let empty = status["not_in_sync"].as_array().is_some_and(Vec::is_empty);
                    let active = list("nodes").iter().filter(|node| node["fenced"] == false).count();
                    let raft = list("raft");
                    let vote = raft.iter().all(|member| member["role"] != "learner" && member["former_disk"] == false);
                    empty && active == self.nodes.len() && raft.len() == self.nodes.len() && vote
                })
        })
    }

    pub fn wait(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < end, "{what}: it does not come to that");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn log(&self, id: usize) -> String {
        fs::read(self.log_path(id)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for id in self.ids().filter(|id| self.is_running(*id)) {
                let status = self.status(id).unwrap_or_default();
                for key in ["term", "controller", "nodes", "not_in_sync", "not_following", "waiting_to_be_committed"] {
                    eprintln!("-- node {id}: {key}: {}", status[key]);
                }
            }
        }
        for node in &mut self.nodes {
            if let Some(mut process) = node.process.take() {
                let _ = process.kill();
                let _ = process.wait();
            }
        }
        if std::thread::panicking() {
            for id in self.ids() {
                let log = self.log(id);
                let from = log.len().saturating_sub(LOG_SHOWN_BYTES);
                let from = (from..=log.len()).find(|&at| log.is_char_boundary(at)).unwrap_or(0);
                eprintln!("-- the log of node {id}:\n{}\n-- end", &log[from..]);
            }
            self.home.disable_cleanup(true);
            eprintln!("-- all of it stays in {}", self.home.path().display());
        }
    }
}
