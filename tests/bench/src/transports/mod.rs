//! `transports`: the network layers side by side, as bare links and under a cluster of three nodes.
//!
//! - [`layer`]: what is compared. [`links`]: what is measured of bare links.
//! - [`pair`]: the two ends of a link as processes; [`end`], [`near`], [`far`] are what goes on in them, and [`work`] is how
//!   they are told.
//! - [`cluster`]: three nodes of the broker, and what a client sees of them.
//!
//! Frames, lanes and queues are the broker's own; only the layer differs. Encrypted layers are compared with encrypted ones:
//! the first candidate, which ratios are to, is TCP with TLS.

pub mod certs;
pub mod cluster;
pub mod end;
mod far;
pub mod layer;
mod links;
mod near;
pub mod pair;
mod work;

use crate::comparison::Fact;
use crate::comparison::options::{Comparing, Subject};
use crate::contest::Bout;
use crate::network::{self, Delay, Link, Loss};
use crate::{BenchError, memory};
use clap::{Args, ValueEnum};
use layer::{ETHERNET_MTU_BYTES, Layer, Transport};
pub use links::bytes;
use links::{Extent, LinkCase};
use std::path::PathBuf;
use work::FRAME_BYTES_MAX;

/// The ends' node numbers, in their certificates.
const NEAR: i32 = 1;
const FAR: i32 = 2;
/// Nodes of a cluster.
const NODES: [i32; 3] = [1, 2, 3];
/// Of a bare link: until windows, buffers and congestion control have found their size.
const WARM_UP_SECONDS: f64 = 0.5;
/// What may be on its way on all lanes together.
const ON_ITS_WAY_BYTES_MAX: usize = 512 << 20;
/// The rates at which an open loop makes sense: a thread that sleeps between two sends can keep up with these.
const RATE_MAX: f64 = 20_000.0;

/// At which level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Bare links: frames between two processes.
    Link,
    /// A cluster of three nodes, and a client.
    Cluster,
    Both,
}

#[derive(Args, Clone, Debug)]
pub struct TransportsArgs {
    #[command(flatten)]
    comparing: Comparing,
    /// What is compared, the first is what ratios are to; `quic@BYTES` has datagrams of so many bytes. [default:
    /// tcp+tls,grpc+tls,quic,tcp,grpc,quic@6000]
    #[arg(long, value_delimiter = ',')]
    layers: Option<Vec<Layer>>,
    #[arg(long, value_enum, default_value_t = Level::Both)]
    level: Level,
    /// Bytes of the bulk's frames.
    #[arg(long, value_delimiter = ',', default_value = "1KiB,64KiB,1MiB", value_parser = size)]
    frame_bytes: Vec<usize>,
    /// Frames of the bulk on their way at a time.
    #[arg(long, value_delimiter = ',', default_value = "4,64", value_parser = window)]
    windows: Vec<usize>,
    /// Lanes where there are many; 1 leaves that out.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u8).range(1..=64))]
    lanes: u8,
    /// Frames or records a second where latencies are measured: the same for all.
    #[arg(long, default_value_t = 1000.0, value_parser = rate)]
    rate: f64,
    /// Delays every packet between nodes, each way, like 20ms. By the kernel's netem, and then the clients' packets too; where
    /// it has none, by a network device of this program's own.
    #[arg(long, value_name = "TIME")]
    link_delay: Option<Delay>,
    /// Loses packets, like 0.1%; by the same.
    #[arg(long, value_name = "PERCENT")]
    link_loss: Option<Loss>,
    #[command(flatten)]
    cluster: cluster::ClusterArgs,
}

fn size(text: &str) -> Result<usize, String> {
    let (number, unit) = match (text.strip_suffix("KiB"), text.strip_suffix("MiB")) {
        (Some(number), _) => (number, 1 << 10),
        (_, Some(number)) => (number, 1 << 20),
        _ => (text, 1),
    };
    let bytes = number.trim().parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    let bytes = bytes.filter(|bytes| (1..=FRAME_BYTES_MAX).contains(bytes));
    bytes.ok_or_else(|| format!("a size from 1 to {}, like 64KiB", self::bytes(FRAME_BYTES_MAX)))
}

fn window(text: &str) -> Result<usize, String> {
    let window = text.parse().ok().filter(|window| (1..=65_536).contains(window));
    window.ok_or_else(|| "a whole number from 1 to 65536".to_owned())
}

/// Of an open loop.
pub fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (1.0..=RATE_MAX).contains(rate));
    rate.ok_or_else(|| format!("a number from 1 to {RATE_MAX}"))
}

/// Why layers cannot be compared as asked for.
#[derive(Debug, thiserror::Error)]
pub enum TransportsError {
    #[error(
        "{0} sends datagrams that a link of Ethernet's frames does not carry: leave it out of --layers where --link-delay or \
         --link-loss is given"
    )]
    TooLarge(Layer),
    #[error(
        "{window} frames of {size} on {lanes} lanes are more than the {max} that may be on their way: give fewer --windows"
    )]
    TooMuch { window: usize, size: String, lanes: u8, max: String },
}

impl TransportsArgs {
    fn layers(&self, altered: bool) -> Result<Vec<Layer>, TransportsError> {
        let of = |transport, tls, mtu_bytes| Layer { transport, tls, mtu_bytes };
        let raised = chronik_link_quic::Options::default().mtu_bytes;
        let all = || {
            let mut all = vec![
                of(Transport::Tcp, true, ETHERNET_MTU_BYTES),
                of(Transport::Grpc, true, ETHERNET_MTU_BYTES),
                of(Transport::Quic, true, ETHERNET_MTU_BYTES),
                of(Transport::Tcp, false, ETHERNET_MTU_BYTES),
                of(Transport::Grpc, false, ETHERNET_MTU_BYTES),
            ];
            if !altered {
                all.push(of(Transport::Quic, true, raised));
            }
            all
        };
        let layers = self.layers.clone().unwrap_or_else(all);
        match layers.iter().find(|layer| altered && layer.needs_jumbo()) {
            Some(layer) => Err(TransportsError::TooLarge(*layer)),
            None => Ok(layers),
        }
    }

    fn cases(&self) -> Result<Vec<LinkCase>, TransportsError> {
        for (&window, &size) in
            self.windows.iter().flat_map(|window| self.frame_bytes.iter().map(move |size| (window, size)))
        {
            if window.saturating_mul(size) > ON_ITS_WAY_BYTES_MAX {
                let (size, max) = (bytes(size), bytes(ON_ITS_WAY_BYTES_MAX));
                return Err(TransportsError::TooMuch { window, size, lanes: 1, max });
            }
        }
        let extent = Extent {
            frame_bytes: self.frame_bytes.clone(),
            windows: self.windows.clone(),
            lanes: self.lanes,
            per_second: self.rate,
            quick: self.comparing.quick,
        };
        Ok(if self.level == Level::Cluster { Vec::new() } else { links::cases(&extent) })
    }
}

pub fn run(args: &TransportsArgs) -> Result<(), BenchError> {
    let link = Link { delay: args.link_delay, loss: args.link_loss };
    let (layers, cases) = (args.layers(link.is_altered())?, args.cases()?);
    let seconds = args.comparing.seconds();
    let cluster =
        (args.level != Level::Link).then(|| cluster::Cases::new(&args.cluster, args.rate, seconds)).transpose()?;
    let no_network = network::enter(link, args.comparing.drawn())?;
    let place = tempfile::tempdir().map_err(|source| BenchError::File {
        doing: "make a directory in",
        path: std::env::temp_dir(),
        source,
    })?;
    let certs: PathBuf = place.path().to_owned();
    certs::make(&certs, &NODES)?;
    let mut bouts: Vec<Bout> = cases.iter().map(LinkCase::bout).collect();
    bouts.extend(cluster.as_ref().map(cluster::Cases::bout));
    let subject = Subject {
        benchmark: "transports",
        candidates: layers.iter().map(ToString::to_string).collect(),
        bouts,
        conditions: conditions(&layers, link, cluster.as_ref()),
        notes: notes(&layers, no_network),
    };
    let own_network = network::is_own();
    args.comparing.compare(subject, |bout, candidate| {
        // Whoever comes first is not to pay for memory that the machine has taken back.
        memory::touch(0);
        let layer = layers[candidate];
        match (cases.get(bout), &cluster) {
            (Some(case), _) => {
                let measured = pair::measure(layer, &certs, &case.work, WARM_UP_SECONDS, seconds)?;
                let mut shown = case.observed(measured, own_network);
                shown.facts.extend(layer.datagrams().map(|words| ("datagrams", words)));
                Ok(vec![shown])
            }
            (None, Some(cluster)) => cluster.turn(layer, &certs),
            (None, None) => Ok(Vec::new()),
        }
    })
}

fn conditions(layers: &[Layer], link: Link, cluster: Option<&cluster::Cases>) -> Vec<Fact> {
    let named = |tls: bool, how: &str| {
        let names: Vec<String> = layers.iter().filter(|layer| layer.tls == tls).map(ToString::to_string).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") + how }
    };
    let mut facts = vec![
        Fact::new("encrypted", named(true, " (TLS 1.3, certificates of both ends)")),
        Fact::new("not encrypted", named(false, "")),
        Fact::new("link", if link.is_altered() { format!("{link}, {}", network::by()) } else { link.to_string() }),
        Fact::new(
            "lanes",
            "tcp: a connection each; grpc: a call each, on a connection of its own; quic: a stream each of one connection",
        ),
    ];
    let of_kernel = crate::machine::congestion_control();
    let of_quic = format!("{:?}", chronik_link_quic::Options::default().congestion).to_lowercase();
    facts.push(Fact::new("congestion control", format!("tcp and grpc: the kernel's, {of_kernel}; quic: {of_quic}")));
    facts.extend(cluster.into_iter().flat_map(cluster::Cases::conditions));
    facts
}

fn notes(layers: &[Layer], no_network: Option<String>) -> Vec<String> {
    let mut notes = vec![
        format!(
            "Compare encrypted layers with encrypted ones: QUIC is never without. `quic` has datagrams of {ETHERNET_MTU_BYTES} bytes, \
             which every Ethernet carries."
        ),
        "System calls are not counted: the kernel tells those of sockets to tracers only.".to_owned(),
    ];
    for layer in layers.iter().filter(|layer| layer.needs_jumbo()) {
        notes.push(format!("`{layer}` has datagrams that only loopback and jumbo frames carry."));
    }
    match no_network {
        Some(why) => notes.push(format!(
            "Bytes on the wire are not told: there is no network of the run's own, and others use this loopback too ({why})."
        )),
        None => notes.push(
            "Bytes on the wire are those of the link's device, headers and acknowledgements included; what the kernel would cut \
             into several packets counts as one."
                .to_owned(),
        ),
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_windows_and_rates_are_read_or_refused_in_words() {
        assert_eq!(size("64KiB"), Ok(64 << 10));
        assert_eq!(size("1MiB"), Ok(1 << 20));
        assert_eq!(size("100"), Ok(100));
        for wrong in ["0", "17MiB", "x", "-1", "99999999999999999999MiB"] {
            assert_eq!(size(wrong), Err("a size from 1 to 16 MiB, like 64KiB".into()), "{wrong}");
        }
        assert!(window("0").is_err() && window("70000").is_err() && window("64") == Ok(64));
        assert!(rate("0").is_err() && rate("NaN").is_err() && rate("1000") == Ok(1000.0));
    }
}
