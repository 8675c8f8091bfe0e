//! What it costs to follow batches (`chronik_api::partitions::anatomy`): appends to a log in memory with and without a request
//! that may be followed, in turns, and how long following one takes.
//!
//! `cargo run --release -p chronik --example following`

use chronik_api::assemble::engines::Engines;
use chronik_api::clock::Clock;
use chronik_api::metrics::Metrics;
use chronik_api::metrics::stages::AckStages;
use chronik_api::partitions::anatomy::{Arrival, Sampling, Ticket};
use chronik_api::partitions::partition::Surroundings;
use chronik_api::partitions::stall::StallWatch;
use chronik_api::partitions::table::Assignment;
use chronik_api::partitions::throttle::Throttling;
use chronik_api::partitions::{NoPeers, Partition, PartitionTable};
use chronik_core::batch::{Builder, CheckedBatch, RecordOut};
use chronik_core::driver::{Assumption, Part};
use chronik_core::ids::{LeaderEpoch, LogId, NodeId, TopicId};
use chronik_core::partition::leader::{Acks, Durability};
use chronik_core::partition::replicas::Membership;
use chronik_core::time::Timestamp;
use chronik_storage_memory::MemoryEngine;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROUNDS: usize = 200;
/// Of each kind in a round: some milliseconds.
const BATCHES: usize = 4_000;
/// Batches that are timed one by one, each followed.
const FOLLOWED: usize = 1_000;
const LOG: LogId = LogId { topic: TopicId([7; 16]), partition: 0 };

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (stages, clock) = (Arc::new(AckStages::default()), Clock::start());
    let around = Surroundings {
        node: NodeId(1),
        clock,
        stalls: StallWatch::start(tokio::runtime::Handle::current())?,
        channel: Arc::new(NoPeers),
        throttling: Throttling::default(),
        sampling: Arc::new(Sampling::new(stages.clone())),
        runtime: tokio::runtime::Handle::current(),
    };
    let engines = Engines::only("memory", Arc::new(MemoryEngine::new(8 << 30)));
    let table = PartitionTable::new(Arc::new(engines), around);
    let alone = || [NodeId(1)].into_iter().collect();
    let membership = Membership { replicas: alone(), in_sync: alone(), in_sync_min: 1, partition_epoch: 1 };
    let part = Part::Lead { membership, lag_max: Duration::from_secs(600) };
    let failures = table
        .assign(vec![Assignment {
            id: LOG,
            topic: "t".into(),
            storage: "memory".into(),
            metrics: Metrics::default().topic("t"),
            assumption: Assumption {
                epoch: LeaderEpoch(0),
                durability: Durability::Replicated,
                throttled: false,
                part,
            },
            segment_bytes: 1 << 20,
            is_replaceable: false,
            may_begin: true,
        }])
        .await;
    if let Some(failure) = failures.into_iter().next() {
        return Err(failure.into());
    }
    let partition = table.get(LOG.topic, LOG.partition).ok_or("it is not there")?;
    let one = |request| append(&partition, clock, request);

    let mut ratios = Vec::new();
    let mut costs = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        let mut took = [0.0; 2];
        for kind in [round % 2, (round + 1) % 2] {
            let began = Instant::now();
            for _ in 0..BATCHES {
                // As a connection has it anyway.
                let request = (kind == 1).then_some(Arrival { first_byte: began, last_byte: began });
                one(request)?.into_iter().for_each(Ticket::replied);
            }
            took[kind] = began.elapsed().as_secs_f64() * 1e9 / BATCHES as f64;
            costs[kind].push(took[kind]);
        }
        ratios.push(took[1] / took[0]);
    }
    let [without, with] = costs.map(median);
    println!("an append of a request that is not followed: {without:.0} ns");
    println!("of one that may be, 500 a second are:        {with:.0} ns");
    println!("ratio, median of {ROUNDS} pairs:                {:.4}", median(ratios));

    let mut took = [Vec::new(), Vec::new()];
    while took[1].len() < FOLLOWED {
        // Until the next one is due; with cold caches, as where a broker has done something else meanwhile.
        std::thread::sleep(Duration::from_micros(2_100));
        for kind in [took[1].len() % 2, (took[1].len() + 1) % 2] {
            let arrival = Arrival::now();
            let began = Instant::now();
            let ticket = one((kind == 1).then_some(arrival))?;
            let followed = ticket.is_some();
            ticket.into_iter().for_each(Ticket::replied);
            if followed == (kind == 1) {
                took[kind].push(began.elapsed().as_nanos() as f64);
            }
        }
    }
    let [plain, followed] = took.map(median);
    println!("one that is followed takes {:.0} ns more: {followed:.0} instead of {plain:.0}", followed - plain);
    println!("500 a second of them are {:.3} % of a processor", (followed - plain) * 500.0 / 1e9 * 100.0);
    Ok(())
}

fn append(
    partition: &Arc<Partition>,
    clock: Clock,
    request: Option<Arrival>,
) -> Result<Option<Ticket>, Box<dyn Error>> {
    let mut builder = Builder::new(Timestamp(1));
    builder.push(&RecordOut { value: Some(b"a record"), ..RecordOut::default() });
    let batch = CheckedBatch::trusted(builder.build());
    let (_, _, ticket) = partition.append_from(request, batch, Acks::All, clock.now())?;
    partition.write();
    Ok(ticket)
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}
