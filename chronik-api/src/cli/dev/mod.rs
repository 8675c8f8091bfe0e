//! `chronik dev`: a cluster on this machine in one command, for trying things out.
//!
//! Each node is a process of its own with a configuration file of its own, in one directory, so that a node can be killed,
//! looked at and started again by hand with the very command that started it. What happens in the cluster is told as it
//! happens: leaders, topics, in-sync sets, nodes that end. Stopping the command stops the nodes.

mod nodes;
mod watch;

use super::client::{Client, ClientError};
use super::output::Failure;
use super::signals::Asked;
use clap::Args;
use nodes::{Nodes, Plan};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use watch::Watch;

/// Nodes that one machine is asked to run: more show nothing that fewer do not.
const NODES_MAX: i64 = 9;
/// How long the nodes may take until all of them serve.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How often what happened is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[derive(Args, Debug)]
pub(super) struct DevArgs {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=NODES_MAX))]
    nodes: u8,
    /// The network layer between nodes, for metadata and for records: tcp, grpc or quic (which is always encrypted)
    #[arg(long, default_value = "tcp", value_parser = ["tcp", "grpc", "quic"])]
    transport: String,
    /// Encrypt between nodes, with certificates made for the occasion
    #[arg(long)]
    tls: bool,
    /// Where to keep everything; made if need be, and kept. Without it, a new directory that goes at the end
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
    /// Port of the first node's Kafka listener; the others follow ten apart. 0 takes free ones
    #[arg(long, default_value_t = 9092, value_name = "PORT")]
    port: u16,
    /// Override one key on every node, like --set topics.default_partitions=12; may be given many times
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

pub(super) fn run(args: DevArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|why| Failure::failed(format!("cannot start: {why}")))?;
    // From here on Ctrl-C reaches us; the nodes are in process groups of their own.
    let mut asked = runtime
        .block_on(async { Asked::listen() })
        .map_err(|why| Failure::failed(format!("cannot listen for signals: {why}")))?;
    let plan = Plan::new(args.nodes, args.transport, args.tls, args.dir, args.port, args.set)?;
    let mut nodes = Nodes::start(plan)?;
    let mut told = nodes.wait_until_ready(READY_WITHIN)?;
    let mut out = io::stdout();
    writeln!(out, "{} nodes are up; their files are in {}\n", args.nodes, nodes.dir().display())?;
    writeln!(out, "  bootstrap   {}", nodes.bootstrap())?;
    writeln!(out, "  transport   {}\n", nodes.transport())?;
    writeln!(out, "Try it, in another terminal:\n")?;
    writeln!(out, "  export CHRONIK_BOOTSTRAP={}", nodes.bootstrap())?;
    writeln!(out, "  chronik topic create hello --partitions 3")?;
    writeln!(out, "  chronik cluster status --admin {}\n", nodes.admin())?;
    writeln!(out, "Ctrl-C stops all of them. What happens:\n")?;
    let mut watch = Watch::new(nodes.bootstrap());
    loop {
        for line in told.drain(..).chain(nodes.ended()).chain(watch.look()) {
            writeln!(out, "  {line}")?;
        }
        let signal = runtime.block_on(async { tokio::time::timeout(LOOK_EVERY, asked.once()).await });
        if signal.is_ok() {
            break;
        }
        if nodes.is_empty() {
            return Err(Failure::failed("no node is left"));
        }
    }
    writeln!(out, "\nstopping")?;
    nodes.stop()
}

/// Asks again until it works or the time is over.
fn until<T>(deadline: Instant, mut attempt: impl FnMut() -> Result<T, ClientError>) -> Result<T, ClientError> {
    loop {
        match attempt() {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
            done => return done,
        }
    }
}

/// Connects to one node, soon.
fn connect(address: &str) -> Result<Client, ClientError> {
    Client::connect(address, Duration::from_secs(2))
}

/// How a node is started, as a person would type it.
fn command(config: &std::path::Path) -> String {
    format!("chronik serve --config {}", config.display())
}

/// The arguments of [`command`] for `serve`, in the form in which it takes them.
#[cfg(test)]
fn parsed(line: &str) -> super::ServeArgs {
    use clap::Parser;
    match super::Cli::parse_from(line.split_whitespace()).command {
        Some(super::Command::Serve(args)) => args,
        other => panic!("{line} is {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_started_by_a_command_that_can_be_typed() {
        let args = parsed(&command("/tmp/x/node-1.toml".as_ref()));
        assert_eq!(args.config.config.as_deref(), Some("/tmp/x/node-1.toml".as_ref()));
    }
}
