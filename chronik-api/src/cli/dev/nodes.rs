//! The nodes of a `chronik dev` cluster: their files, their processes.

use super::{command, connect, until};
use crate::cli::output::Failure;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a node may take to stop before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(15);
/// Ports lie this far apart from node to node.
const PORTS_APART: u16 = 10;
/// Where free ports are looked for: below the range that systems take for connections, which begins at 32768 on Linux, at 49152
/// on others. A port of that range is lost easily while its node is being started or is down, as to a connection of another
/// node.
const FREE_PORTS: Range<u16> = 12_000..32_000;

/// Where one node listens.
#[derive(Clone, Copy, Debug)]
struct Ports {
    kafka: u16,
    raft: u16,
    replication: u16,
    admin: u16,
}

/// Threads that serve requests in each of so many nodes, which share the machine's cores. With more, the nodes' threads spend
/// more on waking each other than they win: three nodes on two cores, with their client, took 1.4 to 1.8 times as many records
/// in with one thread each as with two, at 0.45 to 0.61 of the processor time.
fn share_of(cores: usize, nodes: usize) -> usize {
    (cores / nodes.max(1)).max(1)
}

/// What is to be started.
pub(super) struct Plan {
    dir: PathBuf,
    is_temporary: bool,
    transport: String,
    tls: bool,
    ports: Vec<Ports>,
    set: Vec<String>,
}

impl Plan {
    pub fn new(
        count: u8,
        transport: String,
        tls: bool,
        dir: Option<PathBuf>,
        first_port: u16,
        set: Vec<String>,
    ) -> Result<Self, Failure> {
        let tls = tls || transport == "quic";
        let is_temporary = dir.is_none();
        let dir = dir.unwrap_or_else(|| std::env::temp_dir().join(format!("chronik-dev-{}", std::process::id())));
        let first_port = if first_port == 0 { free_ports(count)? } else { first_port };
        let ports = (0..u16::from(count)).map(|node| ports(first_port, node)).collect::<Result<_, _>>()?;
        Ok(Self { dir, is_temporary, transport, tls, ports, set })
    }

    fn address(port: u16) -> String {
        format!("127.0.0.1:{port}")
    }

    fn bootstrap(&self) -> String {
        self.ports.iter().map(|ports| Self::address(ports.kafka)).collect::<Vec<_>>().join(",")
    }

    fn config_file(&self, node: usize) -> PathBuf {
        self.dir.join(format!("node-{node}.toml"))
    }

    fn log_file(&self, node: usize) -> PathBuf {
        self.dir.join(format!("node-{node}.log"))
    }

    fn config(&self, node: usize, ports: &Ports) -> String {
        let voters: Vec<String> =
            (1..).zip(&self.ports).map(|(node, ports)| format!("\"{node}@{}\"", Self::address(ports.raft))).collect();
        let replicas = self.ports.len().min(3);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let quoted = |path: PathBuf| toml::Value::String(path.display().to_string());
        let mut text = format!(
            "[node]\nid = {node}\ndata_dir = {}\nworker_threads = {}\n\n[kafka]\nlisten = \"{}\"\n\n[admin]\nlisten = \"{}\"\n\n\
             [cluster]\nvoters = [{}]\n",
            quoted(self.dir.join(format!("node-{node}"))),
            share_of(cores, self.ports.len()),
            Self::address(ports.kafka),
            Self::address(ports.admin),
            voters.join(", "),
        );
        if self.tls {
            let file = |name: String| quoted(self.dir.join("certs").join(name));
            text += &format!(
                "tls = {{ cert = {}, key = {}, ca = {} }}\n",
                file(format!("node-{node}.pem")),
                file(format!("node-{node}.key")),
                file("ca.pem".into()),
            );
        }
        for (plane, port) in [("raft", ports.raft), ("replication", ports.replication)] {
            let (at, transport) = (Self::address(port), &self.transport);
            text += &format!("\n[{plane}]\nlisten = \"{at}\"\ntransport = \"{transport}\"\n");
        }
        text + &format!(
            "\n[topics]\ndefault_replication_factor = {replicas}\nmin_insync_replicas = {}\n",
            replicas.div_ceil(2).max(1)
        )
    }
}

/// The first of the ports of so many nodes on which nobody listens. Somebody else may still be quicker, which then shows.
fn free_ports(nodes: u8) -> Result<u16, Failure> {
    let one_cluster = PORTS_APART * u16::from(nodes).max(1);
    let clusters = (FREE_PORTS.end - FREE_PORTS.start) / one_cluster;
    // Those that are started at once rarely try the same.
    let begin = std::process::id() % u32::from(clusters);
    let mut tried = (0..u32::from(clusters))
        .map(|nth| FREE_PORTS.start + ((begin + nth) % u32::from(clusters)) as u16 * one_cluster);
    let is_free = |first: &u16| {
        (*first..first + one_cluster).all(|port| {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
                && UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
        })
    };
    tried.find(is_free).ok_or_else(|| Failure::failed(format!("there are no free ports in {FREE_PORTS:?}")))
}

fn ports(first: u16, node: u16) -> Result<Ports, Failure> {
    let kafka = first.checked_add(node * PORTS_APART).filter(|port| *port <= u16::MAX - 3);
    let kafka = kafka.ok_or_else(|| Failure::usage("--port leaves no room for the other nodes' ports"))?;
    Ok(Ports { kafka, raft: kafka + 1, replication: kafka + 2, admin: kafka + 3 })
}

/// The processes.
pub(super) struct Nodes {
    plan: Plan,
    running: Vec<(usize, Child)>,
}

impl Nodes {
    pub fn start(plan: Plan) -> Result<Self, Failure> {
        let failed = |what: &str, why: std::io::Error| Failure::failed(format!("cannot {what}: {why}"));
        fs::create_dir_all(&plan.dir).map_err(|why| failed(&format!("make {}", plan.dir.display()), why))?;
        if plan.tls {
            let nodes: Vec<i32> = (1..).take(plan.ports.len()).collect();
            crate::cli::cluster::certs::make(
                &plan.dir.join("certs"),
                &nodes,
                &["127.0.0.1".into(), "localhost".into()],
            )?;
        }
        let executable = std::env::current_exe().map_err(|why| failed("find this program", why))?;
        let mut nodes = Self { running: Vec::new(), plan };
        for (node, ports) in (1..).zip(nodes.plan.ports.clone()) {
            let (config, log) = (nodes.plan.config_file(node), nodes.plan.log_file(node));
            fs::write(&config, nodes.plan.config(node, &ports)).map_err(|why| failed("write a configuration", why))?;
            let log = File::create(&log).map_err(|why| failed("write a log", why))?;
            let errors = log.try_clone().map_err(|why| failed("write a log", why))?;
            let mut start = Command::new(&executable);
            start.args(["serve", "--bootstrap", "--config"]).arg(&config);
            for set in &nodes.plan.set {
                start.args(["--set", set]);
            }
            // A group of its own: Ctrl-C is for this command, which then stops the nodes in order.
            let child = start.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0).spawn();
            nodes.running.push((node, child.map_err(|why| failed("start a node", why))?));
        }
        Ok(nodes)
    }

    pub fn dir(&self) -> &Path {
        &self.plan.dir
    }

    pub fn bootstrap(&self) -> String {
        self.plan.bootstrap()
    }

    /// The network layer, in words.
    pub fn transport(&self) -> String {
        format!("{}{}", self.plan.transport, if self.plan.tls { ", encrypted" } else { "" })
    }

    /// The first node's admin port.
    pub fn admin(&self) -> String {
        self.plan.ports.first().map(|ports| Plan::address(ports.admin)).unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Waits until every node answers and all of them know each other.
    pub fn wait_until_ready(&mut self, within: Duration) -> Result<Vec<String>, Failure> {
        let deadline = Instant::now() + within;
        let count = self.plan.ports.len();
        for ports in self.plan.ports.clone() {
            let all_known = until(deadline, || {
                if let Some(line) = self.ended().into_iter().next() {
                    return Ok(Err(line));
                }
                let mut client = connect(&Plan::address(ports.kafka))?;
                let known = client.metadata(Some(&[]), false)?.brokers.len();
                if known < count {
                    Err(crate::cli::client::ClientError::not_yet("waiting for nodes"))
                } else {
                    Ok(Ok(()))
                }
            });
            let told =
                |line: String| Failure::failed(format!("{line}\n  Its log: {}/node-*.log", self.plan.dir.display()));
            all_known
                .map_err(|why| told(format!("the nodes do not come up: {}", Failure::from(why).text())))?
                .map_err(told)?;
        }
        Ok(vec![format!("{count} nodes know each other")])
    }

    /// Tells of nodes that have ended.
    pub fn ended(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let plan = &self.plan;
        self.running.retain_mut(|(node, child)| match child.try_wait() {
            Ok(Some(status)) => {
                let again = command(&plan.config_file(*node));
                lines.push(format!("node {node} has ended ({}); to start it again: {again}", words(status)));
                false
            }
            _ => true,
        });
        lines
    }

    /// Stops all nodes, and removes what was made for the occasion.
    pub fn stop(mut self) -> Result<(), Failure> {
        for (_, child) in &self.running {
            signal(child, rustix::process::Signal::TERM);
        }
        let deadline = Instant::now() + STOP_WITHIN;
        while self.running.iter_mut().any(|(_, child)| matches!(child.try_wait(), Ok(None)))
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        for (_, child) in &mut self.running {
            if matches!(child.try_wait(), Ok(None)) {
                let _ = child.kill();
            }
            let _ = child.wait();
        }
        self.running.clear();
        if self.plan.is_temporary {
            let failed = |why| Failure::failed(format!("cannot remove {}: {why}", self.plan.dir.display()));
            fs::remove_dir_all(&self.plan.dir).map_err(failed)?;
        }
        Ok(())
    }
}

impl Drop for Nodes {
    /// Where something went wrong: nothing stays behind that nobody looks after.
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    // A child that was not waited for keeps its id, so that nobody else can have it.
    if let Some(id) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(id, signal);
    }
}

fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no one knows how".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_share_the_cores_and_each_has_a_thread() {
        assert_eq!([1, 2, 8, 64].map(|cores| share_of(cores, 3)), [1, 1, 2, 21]);
        assert_eq!(share_of(8, 1), 8);
    }

    #[test]
    fn a_cluster_gets_ports_that_nobody_has() {
        let first = free_ports(3).expect("some are free");
        assert!(FREE_PORTS.contains(&first));
        let last = first + 2 * PORTS_APART + 3;
        assert_eq!(ports(first, 2).map(|ports| ports.admin).ok(), Some(last));
        for taken_by_tcp in [true, false] {
            let at = (Ipv4Addr::LOCALHOST, last);
            let (_tcp, _udp) = match taken_by_tcp {
                true => (Some(TcpListener::bind(at).expect("it is free")), None),
                false => (None, Some(UdpSocket::bind(at).expect("it is free"))),
            };
            assert_ne!(free_ports(3).expect("others are free"), first);
        }
    }
}
