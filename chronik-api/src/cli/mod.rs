//! The command line: `chronik` alone serves; the rest are Kafka clients and tools for a first try and for trouble.
//!
//! - [`serve`]: the broker as a process: logs, signals, limits of the system.
//! - [`config`], [`bench`]: tools that need no broker.
//! - [`dev`], [`cluster`]: a cluster on this machine; certificates for one, and how it stands.
//! - [`topic`], [`group`], [`produce`], [`consume`]: small clients over [`client`].
//! - [`dump`]: reads a log's files.
//! - [`plugin`]: begins and judges storage engines of one's own.
//!
//! **Conventions.** Results go to standard output, as a table or with `--json` as JSON; everything else goes to standard
//! error. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration. An error says what to do next.

mod bench;
mod client;
mod cluster;
mod config;
mod consume;
mod dev;
mod dump;
pub mod greeting;
mod group;
mod output;
mod plugin;
mod produce;
mod serve;
mod signals;
mod topic;

use clap::{Args, Parser, Subcommand};
use output::Failure;
use std::path::PathBuf;
use std::process::ExitCode;

/// A Kafka-compatible broker in one binary. Without a command it serves.
#[derive(Debug, Parser)]
#[command(name = "chronik", version, args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker
    Serve(ServeArgs),
    /// Run a cluster of several nodes on this machine, for trying things out
    Dev(dev::DevArgs),
    /// Show a cluster, or make certificates for one
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Check or show the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Create, list, describe and delete topics
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    /// List and describe consumer groups
    #[command(subcommand)]
    Group(group::GroupCommand),
    /// Write lines to a topic
    Produce(produce::ProduceArgs),
    /// Print a topic's records
    Consume(consume::ConsumeArgs),
    /// Look into a log's files
    #[command(subcommand)]
    Log(dump::LogCommand),
    /// Begin and judge storage engines of one's own
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Measure a broker: runs chronik-bench with the arguments given
    #[command(disable_help_flag = true)]
    Bench(bench::BenchArgs),
}

/// Where a broker listens unless told otherwise, and so where clients look for one.
const DEFAULT_BOOTSTRAP: &str = "127.0.0.1:9092";

/// Where the configuration comes from.
#[derive(Args, Clone, Debug)]
struct ConfigArgs {
    /// TOML file; without one the defaults hold
    #[arg(long, short, value_name = "FILE", env = "CHRONIK_CONFIG")]
    config: Option<PathBuf>,
    /// Override one key, like --set kafka.listen=0.0.0.0:9092; may be given many times
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// How a broker is started.
#[derive(Args, Clone, Debug)]
struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Create the cluster that the configuration names, once all its voters are started so. Without it a node that knows of
    /// no cluster waits for one that exists
    #[arg(long)]
    bootstrap: bool,
}

/// What every Kafka client of the command line is told.
#[derive(Args, Clone, Debug)]
struct ClientArgs {
    /// Where a broker is; several addresses are parted by commas
    #[arg(long, short, value_name = "HOST:PORT", default_value = DEFAULT_BOOTSTRAP, env = "CHRONIK_BOOTSTRAP")]
    bootstrap: String,
    /// Seconds to wait for a broker
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=3600))]
    timeout: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl ClientArgs {
    fn connect(&self) -> Result<client::Client, Failure> {
        let timeout = std::time::Duration::from_secs(self.timeout.into());
        Ok(client::Client::connect(&self.bootstrap, timeout)?)
    }

    fn timeout_ms(&self) -> i32 {
        i32::from(self.timeout) * 1_000
    }
}

impl ConfigArgs {
    fn load(self) -> Result<crate::config::Loaded, Failure> {
        let sources = crate::config::Sources::of_process(self.config, self.set);
        crate::config::load(&sources).map_err(|error| Failure::usage(error.to_string()))
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        None => serve::run(cli.serve),
        Some(Command::Serve(args)) => serve::run(args),
        Some(Command::Dev(args)) => dev::run(args),
        Some(Command::Cluster(command)) => cluster::run(command),
        Some(Command::Config(command)) => config::run(command),
        Some(Command::Topic(command)) => topic::run(command),
        Some(Command::Group(command)) => group::run(command),
        Some(Command::Produce(args)) => produce::run(args),
        Some(Command::Consume(args)) => consume::run(args),
        Some(Command::Log(command)) => dump::run(command),
        Some(Command::Plugin(command)) => plugin::run(command),
        Some(Command::Bench(args)) => bench::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

#[cfg(test)]
mod tests;
