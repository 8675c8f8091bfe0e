//! `compare`: brokers that speak Kafka's protocol side by side, chronik among them, each under the same client.
//!
//! - [`peer`]: whom that is, and what it is known by.
//! - [`cases`]: what is done to each.
//! - [`warm`]: before the rounds, until it makes no difference any more.
//!
//! The first `--against` is what ratios are to.

mod cases;
mod peer;
mod warm;

use crate::broker::Local;
use crate::comparison::Fact;
use crate::comparison::options::{Comparing, Subject};
use crate::{Acks, BenchError, memory};
use cases::{Kind, Turns};
use clap::Args;
use peer::{About, Against, Peer};
use std::path::PathBuf;

/// What the own broker is called.
const OWN: &str = "chronik";

#[derive(Args, Clone, Debug)]
pub struct CompareArgs {
    #[command(flatten)]
    comparing: Comparing,
    /// A broker that runs; several addresses of one cluster with commas. May be given many times.
    #[arg(long, value_name = "NAME=HOST:PORT", required = true)]
    against: Vec<Against>,
    /// What a broker is, for the report: its version, durability, memory. May be given once for each.
    #[arg(long, value_name = "NAME=TEXT")]
    about: Vec<About>,
    /// Starts no broker: only those of --against are compared.
    #[arg(long)]
    only_against: bool,
    /// The broker that is started; by default the `chronik` beside this program.
    #[arg(long, value_name = "FILE", conflicts_with = "only_against")]
    broker_binary: Option<PathBuf>,
    /// A setting of the broker that is started, as for `chronik serve --set`.
    #[arg(long = "broker-set", value_name = "KEY=VALUE", conflicts_with = "only_against")]
    broker_set: Vec<String>,
    /// Where the broker that is started keeps its data; by default the system's temporary directory.
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "only_against")]
    data_dir: Option<PathBuf>,
    /// What is measured; several may be given.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Produce, Kind::Consume, Kind::Callers, Kind::Latency])]
    cases: Vec<Kind>,
    /// Payload bytes of a record where throughput is measured; several may be given.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1024], value_parser = payload)]
    size: Vec<usize>,
    /// What producers wait for; several may be given.
    #[arg(long, value_delimiter = ',', default_values_t = [Acks::One, Acks::All])]
    acks: Vec<Acks>,
    /// Partitions of the topics where throughput is measured.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: i32,
    /// Replicas of each partition; more than one needs clusters.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=9))]
    replicas: i32,
    /// Callers that each wait for their record.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    callers: u16,
    /// Records a second where latencies are measured: the same for all.
    #[arg(long, default_value_t = 1000.0, value_parser = crate::transports::rate)]
    rate: f64,
}

fn payload(text: &str) -> Result<usize, String> {
    /// What a broker takes by default is a megabyte with its frame.
    const MAX: usize = 900_000;
    let bytes = text.parse().ok().filter(|bytes| (8..=MAX).contains(bytes));
    bytes.ok_or_else(|| format!("a whole number from 8 to {MAX}"))
}

/// Why brokers cannot be compared as asked for.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    #[error("--about {0}=… is about no broker of --against")]
    NobodysAbout(String),
    #[error("the broker that is started is alone: compare --replicas {0} on clusters that run, with --only-against")]
    Alone(i32),
    #[error("{name} ({bootstrap}) does not answer: {why}")]
    Silent { name: String, bootstrap: String, why: Box<rdkafka::error::KafkaError> },
}

impl CompareArgs {
    fn peers(&self) -> Result<Vec<Peer>, CompareError> {
        let known = |name: &str| self.against.iter().any(|against| against.name == name) || name == OWN;
        if let Some(about) = self.about.iter().find(|about| !known(&about.name)) {
            return Err(CompareError::NobodysAbout(about.name.clone()));
        }
        if !self.only_against && self.replicas > 1 {
            return Err(CompareError::Alone(self.replicas));
        }
        let about = |name: &str| self.about.iter().find(|about| about.name == name).map(|about| about.text.clone());
        self.against.iter().map(|against| Peer::new(&against.name, &against.bootstrap, about(&against.name))).collect()
    }
}

pub fn run(args: &CompareArgs) -> Result<(), BenchError> {
    let mut peers = args.peers()?;
    let own = (!args.only_against)
        .then(|| Local::start(args.broker_binary.as_deref(), args.data_dir.as_deref(), &args.broker_set))
        .transpose()?;
    if let Some(own) = &own {
        let (_, version) = crate::broker::binary(args.broker_binary.as_deref())?;
        let durability = args.broker_set.iter().rev().find_map(|set| set.strip_prefix("topics.durability="));
        let about = format!("{version}, durability {}, {}", durability.unwrap_or("fsync"), args.broker_set.join(" "));
        let about = about.trim_end_matches([' ', ',']).to_owned();
        peers.push(Peer::of_process(OWN, own.bootstrap(), own.admin(), own.pid(), about));
    }
    let seconds = args.comparing.seconds();
    let turns = Turns {
        sizes: if args.comparing.quick { args.size.iter().take(1).copied().collect() } else { args.size.clone() },
        acks: args.acks.clone(),
        kinds: args.cases.clone(),
        partitions: args.partitions,
        replicas: args.replicas,
        callers: args.callers.into(),
        per_second: args.rate,
        seconds,
    };
    let warmed = warm::all(&peers, &turns, args.comparing.quick)?;
    let mut conditions: Vec<Fact> = peers.iter().map(|peer| Fact::new(peer.name.clone(), peer.words())).collect();
    conditions.extend(warmed);
    conditions.push(Fact::new("clients", "librdkafka, on the same machine, not encrypted"));
    conditions.push(Fact::new("topics", format!("{} partitions of {} replicas", args.partitions, args.replicas)));
    let bouts = turns.bouts();
    let subject = Subject {
        benchmark: "compare",
        candidates: peers.iter().map(|peer| peer.name.clone()).collect(),
        bouts: bouts.iter().map(|(bout, _)| bout.clone()).collect(),
        conditions,
        notes: vec![
            "Durability is each broker's own affair: compare those that promise the same (see what they are)."
                .to_owned(),
        ],
    };
    let mut readable = cases::Readable::default();
    let done = args.comparing.compare(subject, |bout, candidate| {
        memory::touch(0);
        Ok(vec![turns.turn(bouts[bout].1, candidate, &peers[candidate], &mut readable)?])
    });
    // What was made to be read goes, also where something went wrong; that is then the failure that is told.
    let cleared = readable.clear();
    done.and(cleared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: CompareArgs,
    }

    fn args(words: &[&str]) -> CompareArgs {
        let words = std::iter::once("compare").chain(words.iter().copied());
        Line::try_parse_from(words).unwrap_or_else(|why| panic!("{why}")).args
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_words() {
        let about = args(&["--against", "kafka=127.0.0.1:1", "--about", "kafak=a slip"]);
        assert!(matches!(about.peers(), Err(CompareError::NobodysAbout(name)) if name == "kafak"));
        let alone = args(&["--against", "kafka=127.0.0.1:1", "--replicas", "3"]);
        assert!(matches!(alone.peers(), Err(CompareError::Alone(3))));
        assert!(payload("7").is_err() && payload("900001").is_err() && payload("1024") == Ok(1024));
    }
}
