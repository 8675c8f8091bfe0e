//! Benchmarks of any Kafka-compatible broker through librdkafka, with librdkafka's own in-process mock as the client's
//! ceiling in the same run; and comparisons of network layers, of storage engines and of brokers.
//!
//! Client and broker share the machine, so figures mean something only beside each other. `produce`, `consume`, `latency`,
//! `concurrent` and `start` tell medians of variants that take turns within a round. `transports`, `storage` and `compare` tell
//! whether candidates differ, and by how much:
//!
//! - [`stats`] says who has a turn when, and what several rounds say; [`contest`] makes the rounds.
//! - [`machine`] tells what processes and the machine have used; a [`part`] is a part of this program in a process of its own.
//! - [`load`] is what a client does to a broker for a time.
//! - [`comparison`] makes reports.
//!
//! `chronik bench …` runs this program.

mod admin;
mod anatomy;
mod broker;
mod client;
mod compare;
mod comparison;
mod concurrent;
mod consume;
mod contest;
mod latency;
mod load;
mod machine;
mod memory;
mod network;
mod part;
mod produce;
mod report;
mod start;
mod stats;
mod storage;
mod topic;
mod transports;

use broker::{BrokerError, Local};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// The broker's: ends of links and engines are measured as parts of it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "chronik-bench", about = "Benchmarks a Kafka-compatible broker through librdkafka")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Throughput of batched producing, with acks=1 and acks=all.
    Produce(Common),
    /// Throughput of consuming, from the tail and from the page cache.
    Consume(Common),
    /// Latency of single records at a fixed rate: to the acknowledgement, and to a consumer.
    Latency(Common),
    /// Many callers of one client, each of whom waits for its record before it sends the next.
    Concurrent(Common),
    /// Time from start to ready, memory and file handles, empty and with many partitions. Needs a local broker.
    Start(Common),
    /// The network layers between nodes side by side: bare links, and clusters of three.
    Transports(Box<transports::TransportsArgs>),
    /// The storage engines side by side: appends, syncs and reads.
    Storage(Box<storage::StorageArgs>),
    /// Brokers that speak Kafka's protocol side by side, chronik among them.
    Compare(Box<compare::CompareArgs>),
    /// An end of a link, for `transports`.
    #[command(name = transports::pair::COMMAND, hide = true)]
    LinkEnd,
    /// An engine at work, for `storage`.
    #[command(name = storage::COMMAND, hide = true)]
    StorageEngine,
}

#[derive(Args, Clone)]
struct Common {
    /// A running broker, instead of a local one that is started for the run.
    #[arg(long)]
    bootstrap: Option<String>,
    /// The broker to start; by default the `chronik` beside this program.
    #[arg(long)]
    broker_binary: Option<PathBuf>,
    /// A setting for the local broker, as for `chronik serve --set`.
    #[arg(long = "broker-set", value_name = "KEY=VALUE")]
    broker_set: Vec<String>,
    /// A setting for the client, as librdkafka names it, for concurrent.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    client_set: Vec<(String, String)>,
    /// Where the local broker's data goes; by default the system's temporary directory.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Rounds; each variant has its turn in every one.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Bytes of payload that one turn produces at most.
    #[arg(long, default_value_t = 1_000_000_000)]
    bytes: u64,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,
    /// Replicas of each partition; more than one needs a running cluster.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
    replicas: i32,
    /// Callers, for concurrent.
    #[arg(long, default_value_t = 128)]
    callers: usize,
    /// How long a turn of concurrent lasts.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Payload bytes of a record; several may be given.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1024])]
    size: Vec<usize>,
    /// What the producer waits for; several may be given.
    #[arg(long, value_delimiter = ',', default_values_t = [Acks::One, Acks::All])]
    acks: Vec<Acks>,
    /// One long turn of each variant instead of rounds, for produce.
    #[arg(long)]
    sustained: bool,
    /// Records a second, for latency.
    #[arg(long, default_value_t = 1000)]
    rate: u64,
    /// A short look instead of a measurement: few rounds, little data.
    #[arg(long)]
    quick: bool,
    /// The results as JSON.
    #[arg(long)]
    json: bool,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a setting is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// What a producer waits for: the leader's page cache, or what the topic calls durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Acks {
    #[value(name = "1")]
    One,
    All,
}

impl Acks {
    fn as_str(self) -> &'static str {
        match self {
            Acks::One => "1",
            Acks::All => "all",
        }
    }
}

impl std::fmt::Display for Acks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Common {
    fn shortened(mut self) -> Self {
        if self.quick {
            self.rounds = self.rounds.min(3);
            self.bytes = self.bytes.min(200_000_000);
        }
        self
    }
}

/// Why a benchmark did not come to its end.
#[derive(Debug, thiserror::Error)]
enum BenchError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("the client failed: {0}")]
    Client(#[from] rdkafka::error::KafkaError),
    #[error("{failed} of {sent} records were not delivered")]
    Undelivered { failed: u64, sent: u64 },
    #[error("only {seen} of {expected} records were read")]
    Unread { seen: u64, expected: u64 },
    #[error("{0} needs a local broker: leave --bootstrap out")]
    NeedsLocal(&'static str),
    #[error("cannot {doing} {}: {source}", path.display())]
    File { doing: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{} is no report of this program (`--json FILE` makes one): {why}", path.display())]
    NoReport { path: PathBuf, why: String },
    #[error("the report cannot be written: {0}")]
    Report(serde_json::Error),
    #[error("nothing was {doing} for {seconds} s")]
    Silence { doing: &'static str, seconds: u64 },
    #[error("{name}: cannot {doing}: {source}")]
    Part { name: &'static str, doing: &'static str, source: std::io::Error },
    #[error("{name}: {why}")]
    PartFailed { name: &'static str, why: String },
    #[error(transparent)]
    Certs(#[from] transports::certs::CertsError),
    #[error(transparent)]
    Network(#[from] network::NetworkError),
    #[error(transparent)]
    Compare(#[from] compare::CompareError),
    #[error(transparent)]
    Transports(#[from] transports::TransportsError),
    #[error("--engine-options is no JSON object")]
    NoObject,
    #[error("the broker's process has ended")]
    BrokerGone,
}

/// The broker under test.
enum Target {
    Remote(String),
    Local(Local),
}

impl Target {
    fn from(common: &Common) -> Result<Self, BrokerError> {
        match &common.bootstrap {
            Some(bootstrap) => Ok(Target::Remote(bootstrap.clone())),
            None => Local::start(common.broker_binary.as_deref(), common.data_dir.as_deref(), &common.broker_set)
                .map(Target::Local),
        }
    }

    fn bootstrap(&self) -> &str {
        match self {
            Target::Remote(bootstrap) => bootstrap,
            Target::Local(local) => local.bootstrap(),
        }
    }

    /// CPU seconds that the broker has used, where that can be seen.
    fn cpu_seconds(&self) -> Option<f64> {
        match self {
            Target::Remote(_) => None,
            Target::Local(local) => local.usage().map(|usage| usage.cpu_seconds),
        }
    }

    fn peak_memory_bytes(&self) -> Option<u64> {
        match self {
            Target::Remote(_) => None,
            Target::Local(local) => local.usage().map(|usage| usage.peak_bytes),
        }
    }
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Produce(common) => produce::run(&common.shortened()),
        Command::Consume(common) => consume::run(&common.shortened()),
        Command::Latency(common) => latency::run(&common.shortened()),
        Command::Concurrent(common) => concurrent::run(&common.shortened()),
        Command::Start(common) => start::run(&common.shortened()),
        Command::Transports(args) => transports::run(&args),
        Command::Storage(args) => storage::run(&args),
        Command::Compare(args) => compare::run(&args),
        // What went wrong has been said already, to whom it concerns.
        Command::LinkEnd => return transports::end::run().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
        Command::StorageEngine => return storage::engine::run().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("chronik-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}
