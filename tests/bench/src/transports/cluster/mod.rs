//! What a client sees of a cluster of three nodes over a layer. A turn starts blank nodes, and measures everything on them, the
//! failover last: what a start costs is not to be paid for each figure.

mod nodes;

use super::NODES;
use super::layer::Layer;
use crate::BenchError;
use crate::anatomy::Stages;
use crate::broker::binary;
use crate::comparison::Fact;
use crate::contest::{Bout, Case, Figure, Observation};
use crate::load::flow::Flowing;
use crate::load::pace::Pacing;
use crate::load::{Flow, OneTopic, failover};
use clap::Args;
use nodes::Nodes;
use std::path::{Path, PathBuf};
use std::time::Instant;

const THROUGHPUT: Figure = Figure::higher("throughput", "MB/s");
const RECORDS: Figure = Figure::higher("records", "1/s");
const CPU: Figure = Figure::lower("CPU, all brokers", "s/GB");
const SWITCHES: Figure = Figure::lower("context switches, all brokers", "1/MB");
const PEAK: Figure = Figure::lower("memory at its peak, all brokers", "MB");
const CATCH_UP: Figure = Figure::higher("catch-up", "MB/s");
const BACK: Figure = Figure::lower("from its start until it is in sync", "ms");
const FAILOVER: Figure = Figure::lower("until writable again", "ms");

/// Payload of records.
const SIZE: usize = 1024;
const PARTITIONS: i32 = 6;
const REPLICAS: i32 = 3;
/// Until clients have connected and leaders have been elected.
const WARM_UP_SECONDS: f64 = 0.5;
/// A half of what the slowest layer carries at least, so that latencies are not those of queues.
const RATE_MAX: f64 = 1_000.0;

#[derive(Args, Clone, Debug)]
pub struct ClusterArgs {
    /// The broker of the clusters; by default the `chronik` beside this program.
    #[arg(long, value_name = "FILE")]
    broker_binary: Option<PathBuf>,
    /// A setting of each node, as for `chronik serve --set`, like topics.durability=replicated; may be given many times.
    #[arg(long = "broker-set", value_name = "KEY=VALUE")]
    broker_set: Vec<String>,
    /// Where the nodes' data goes; by default the system's temporary directory.
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// Megabytes that a follower which was away lacks.
    #[arg(long, value_name = "MB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    catch_up_mb: u64,
}

/// What is measured, and on what.
pub struct Cases {
    binary: PathBuf,
    version: String,
    settings: Vec<String>,
    data_dir: Option<PathBuf>,
    catch_up_mb: u64,
    per_second: f64,
    seconds: f64,
}

impl Cases {
    /// Looks for the broker before anything is measured.
    pub fn new(args: &ClusterArgs, per_second: f64, seconds: f64) -> Result<Self, BenchError> {
        let (binary, version) = binary(args.broker_binary.as_deref())?;
        Ok(Self {
            binary,
            version,
            settings: args.broker_set.clone(),
            data_dir: args.data_dir.clone(),
            catch_up_mb: args.catch_up_mb,
            per_second: per_second.min(RATE_MAX),
            seconds,
        })
    }

    pub fn bout(&self) -> Bout {
        let case = |name: &str, about: String| Case { name: format!("cluster: {name}"), about };
        let produced = |acks: &str| {
            format!(
                "One producer, batched records of {SIZE} B to {PARTITIONS} partitions of {REPLICAS} replicas on three nodes, acks={acks}."
            )
        };
        Bout {
            cases: vec![
                case("produce, acks=1", produced("1")),
                case("produce, acks=all", produced("all")),
                case(
                    "latency, acks=all",
                    format!(
                        "Single records of {SIZE} B at {} a second, to the acknowledgement by all and to a consumer; from when \
                         each was meant to be sent.",
                        self.per_second
                    ),
                ),
                case(
                    "catch-up",
                    format!("A follower was stopped, {} MB were written, and it is started again.", self.catch_up_mb),
                ),
                case(
                    "failover",
                    "The leader of a partition is killed while a client writes to it with acks=all: from the kill until the \
                     first acknowledgement of a record that was sent after it."
                        .into(),
                ),
            ],
        }
    }

    pub fn conditions(&self) -> Vec<Fact> {
        let durability = self.settings.iter().rev().find_map(|set| set.strip_prefix("topics.durability="));
        let durability = match durability.unwrap_or("fsync") {
            "fsync" => "fsync: acknowledged when synced by all replicas in sync".to_owned(),
            other => format!("{other}: acknowledged when written by all replicas in sync, not synced"),
        };
        let mut facts = vec![
            Fact::new("broker", self.version.clone()),
            Fact::new("durability", durability),
            Fact::new("clients", "not encrypted"),
        ];
        if !self.settings.is_empty() {
            facts.push(Fact::new("broker settings", self.settings.join(" ")));
        }
        facts
    }

    /// All of it on blank nodes.
    pub fn turn(&self, layer: Layer, certs: &Path) -> Result<Vec<Observation>, BenchError> {
        let data_dir = self.data_dir.as_deref();
        let mut nodes = Nodes::start(&self.binary, layer, certs, data_dir, &self.settings, &NODES)?;
        let produce = [self.produce(&nodes, "1")?, self.produce(&nodes, "all")?];
        let latency = self.latency(&nodes)?;
        let catch_up = self.catch_up(&mut nodes)?;
        let failover = failed_over(&mut nodes)?;
        Ok(produce.into_iter().chain([latency, catch_up, failover]).collect())
    }

    fn produce(&self, nodes: &Nodes, acks: &'static str) -> Result<Observation, BenchError> {
        let (bootstrap, pids) = (nodes.bootstrap(), nodes.pids());
        let topic = OneTopic::create(&bootstrap, format!("bench-produce-{acks}"), PARTITIONS, REPLICAS)?;
        let flowing = Flowing {
            bootstrap: &bootstrap,
            topic: &topic.name,
            partitions: PARTITIONS,
            warm_up_seconds: WARM_UP_SECONDS,
            seconds: self.seconds,
            pids: &pids,
        };
        let (flow, stages) = Stages::during(&nodes.admins(), || flowing.produce(acks, SIZE))?;
        topic.delete()?;
        Ok(Observation { stages, ..observed(&flow) })
    }

    fn latency(&self, nodes: &Nodes) -> Result<Observation, BenchError> {
        let (bootstrap, pids) = (nodes.bootstrap(), nodes.pids());
        let topic = OneTopic::create(&bootstrap, "bench-latency".into(), 1, REPLICAS)?;
        let pacing = Pacing {
            bootstrap: &bootstrap,
            topic: &topic.name,
            acks: "all",
            size: SIZE,
            per_second: self.per_second,
            warm_up_seconds: WARM_UP_SECONDS,
            seconds: self.seconds,
            pids: &pids,
        };
        let (shown, stages) = Stages::during(&nodes.admins(), || pacing.observe())?;
        topic.delete()?;
        Ok(Observation { stages, ..shown })
    }

    fn catch_up(&self, nodes: &mut Nodes) -> Result<Observation, BenchError> {
        let bootstrap = nodes.bootstrap();
        let topic = OneTopic::create(&bootstrap, "bench-catch-up".into(), 1, REPLICAS)?;
        let is_leader = |node: &i32| topic.leaders.contains(node);
        let Some(follower) = NODES.into_iter().find(|node| !is_leader(node)) else {
            return Err(BenchError::BrokerGone);
        };
        nodes.stop(follower);
        nodes.until_missed(follower)?;
        let bytes = self.catch_up_mb * 1_000_000;
        let flowing = Flowing {
            bootstrap: &bootstrap,
            topic: &topic.name,
            partitions: 1,
            warm_up_seconds: 0.0,
            seconds: 0.0,
            pids: &[],
        };
        flowing.fill(SIZE, bytes / SIZE as u64)?;
        let began = Instant::now();
        nodes.spawn(follower)?;
        nodes.until_whole()?;
        let took = began.elapsed().as_secs_f64();
        topic.delete()?;
        Ok(Observation::default().figure(CATCH_UP, bytes as f64 / 1e6 / took).figure(BACK, took * 1e3))
    }
}

fn failed_over(nodes: &mut Nodes) -> Result<Observation, BenchError> {
    let bootstrap = nodes.bootstrap();
    let topic = OneTopic::create(&bootstrap, "bench-failover".into(), 1, REPLICAS)?;
    let took = failover::until_writable_again(&bootstrap, &topic.name, || {
        topic.leaders.iter().for_each(|leader| nodes.kill(*leader));
        Ok(())
    })?;
    // The nodes go with everything that is on them.
    Ok(Observation::default().figure(FAILOVER, took.as_secs_f64() * 1e3))
}

fn observed(flow: &Flow) -> Observation {
    let together = flow.used.together().filter(|_| flow.bytes > 0);
    let (megabytes, gigabytes) = (flow.bytes as f64 / 1e6, flow.bytes as f64 / 1e9);
    let shown = Observation::default()
        .figure(THROUGHPUT, flow.megabytes_per_second())
        .figure(RECORDS, flow.records_per_second())
        .perhaps(CPU, together.map(|spent| spent.cpu_seconds / gigabytes))
        .perhaps(SWITCHES, together.map(|spent| spent.context_switches as f64 / megabytes))
        .perhaps(PEAK, together.map(|spent| spent.peak_bytes as f64 / 1e6));
    flow.used.busy(shown)
}
