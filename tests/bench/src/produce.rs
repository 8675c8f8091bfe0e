//! How many records a second are produced, batched as clients do, and what that costs the broker.

use crate::client::{Mock, Producing, producer};
use crate::report::{Report, Row};
use crate::stats::median;
use crate::topic::Topics;
use crate::{BenchError, Common, Target, memory};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer};
use std::iter;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Records of one turn at most: small ones would otherwise take long.
const RECORDS_MAX: u64 = 5_000_000;
const LINGER_MS: &str = "5";
/// No turn takes this long.
const FLUSH_WITHIN: Duration = Duration::from_secs(300);
/// A sustained run writes so many times the bytes of a turn.
const SUSTAINED_TURNS: u64 = 8;

/// What one turn showed.
pub struct Turn {
    pub records: u64,
    pub seconds: f64,
    /// Records acknowledged in the slowest second but the last, which is seldom a whole one.
    pub slowest_second: Option<u64>,
}

/// Produces to each partition in turn as fast as the client can, and waits until all is acknowledged.
pub fn turn(
    bootstrap: &str,
    topic: &str,
    partitions: i32,
    acks: &'static str,
    size: usize,
    records: u64,
) -> Result<Turn, BenchError> {
    let producer = producer(bootstrap, Producing { acks, linger_ms: LINGER_MS }, |_| {})?;
    let delivered = || producer.context().delivered.load(Ordering::Relaxed);
    let payload = vec![b'x'; size];
    let began = Instant::now();
    let mut seconds = Vec::new();
    let (mut sent, mut partition) = (0, 0);
    while sent < records {
        let record = BaseRecord::<(), [u8], usize>::with_opaque_to(topic, 0).payload(&payload[..]);
        match producer.send(record.partition(partition)) {
            Ok(()) => {
                sent += 1;
                partition = (partition + 1) % partitions;
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                producer.poll(Duration::from_millis(10));
            }
            Err((failure, _)) => return Err(failure.into()),
        }
        if sent % 4096 == 0 {
            producer.poll(Duration::ZERO);
            if began.elapsed().as_secs() > seconds.len() as u64 {
                seconds.push(delivered());
            }
        }
    }
    producer.flush(FLUSH_WITHIN)?;
    let elapsed = began.elapsed().as_secs_f64();
    if delivered() != records {
        return Err(BenchError::Undelivered { failed: records - delivered(), sent: records });
    }
    // The first second includes connecting.
    let slowest_second = seconds.windows(2).map(|pair| pair[1] - pair[0]).min();
    Ok(Turn { records, seconds: elapsed, slowest_second })
}

/// How many records of a size make up a turn.
pub fn records(common: &Common, size: usize) -> u64 {
    (common.bytes / size as u64).clamp(1, RECORDS_MAX)
}

#[derive(Default)]
struct Series {
    per_second: Vec<f64>,
    cpu_per_million: Vec<f64>,
}

pub fn run(common: &Common) -> Result<(), BenchError> {
    let target = Target::from(common)?;
    if common.sustained {
        return sustained(common, &target);
    }
    let mut topics = Topics::new("produce", common);
    let turns = || iter::once("mock").chain(common.acks.iter().map(|acks| acks.as_str()));
    let variants: Vec<(usize, &'static str)> =
        common.size.iter().flat_map(|size| turns().map(|acks| (*size, acks))).collect();
    let mut series: Vec<Series> = variants.iter().map(|_| Series::default()).collect();
    for round in 0..common.rounds {
        for ((size, acks), series) in variants.iter().zip(&mut series) {
            let records = records(common, *size);
            if *acks == "mock" {
                memory::touch(common.bytes);
                let mock = Mock::with_topic("mock", common.partitions)?;
                let turn = turn(&mock.bootstrap(), "mock", common.partitions, "1", *size, records)?;
                series.per_second.push(turn.records as f64 / turn.seconds);
                continue;
            }
            let topic = topics.next(&target, common.bytes)?;
            let before = target.cpu_seconds();
            let turn = turn(target.bootstrap(), &topic, common.partitions, acks, *size, records)?;
            series.per_second.push(turn.records as f64 / turn.seconds);
            if let (Some(before), Some(after)) = (before, target.cpu_seconds()) {
                series.cpu_per_million.push((after - before) * 1e6 / turn.records as f64);
            }
        }
        eprintln!("round {} of {}", round + 1, common.rounds);
    }
    topics.clear(&target)?;
    let mut report = Report::new("produce: batched, one producer", settings(common, &target));
    let mut ceiling = f64::NAN;
    for ((size, acks), series) in variants.iter().zip(&series) {
        let per_second = median(&series.per_second);
        if *acks == "mock" {
            ceiling = per_second;
        }
        let cpu = (!series.cpu_per_million.is_empty()).then(|| median(&series.cpu_per_million));
        report.rows.push(Row {
            variant: if *acks == "mock" {
                format!("{size} B, the client's mock")
            } else {
                format!("{size} B, acks={acks}")
            },
            figures: vec![
                ("records/s", Some(per_second)),
                ("MB/s", Some(per_second * *size as f64 / 1e6)),
                ("of the mock", (*acks != "mock").then_some(per_second / ceiling)),
                ("broker CPU s per million", cpu),
            ],
        });
    }
    report.rows.push(memory(&target));
    report.print(common.json);
    Ok(())
}

/// One long turn each, which no buffer can hold: what the disk lets through.
fn sustained(common: &Common, target: &Target) -> Result<(), BenchError> {
    let mut topics = Topics::new("sustained", common);
    let mut report = Report::new("produce, sustained: one long turn", settings(common, target));
    for size in &common.size {
        for acks in common.acks.iter().map(|acks| acks.as_str()) {
            let records = common.bytes * SUSTAINED_TURNS / *size as u64;
            let topic = topics.next(target, common.bytes)?;
            let before = target.cpu_seconds();
            let turn = turn(target.bootstrap(), &topic, common.partitions, acks, *size, records)?;
            let cpu = before.zip(target.cpu_seconds()).map(|(before, after)| (after - before) * 1e6 / records as f64);
            let megabytes = |records: f64| records * *size as f64 / 1e6;
            report.rows.push(Row {
                variant: format!("{size} B, acks={acks}"),
                figures: vec![
                    ("records/s", Some(records as f64 / turn.seconds)),
                    ("MB/s", Some(megabytes(records as f64 / turn.seconds))),
                    ("MB in the slowest second", turn.slowest_second.map(|least| megabytes(least as f64))),
                    ("broker CPU s per million", cpu),
                ],
            });
        }
    }
    topics.clear(target)?;
    report.rows.push(memory(target));
    report.print(common.json);
    Ok(())
}

fn settings(common: &Common, target: &Target) -> Vec<(&'static str, String)> {
    vec![
        ("broker", target.bootstrap().to_owned()),
        ("partitions", common.partitions.to_string()),
        ("rounds", common.rounds.to_string()),
        ("linger.ms", LINGER_MS.to_owned()),
        ("broker settings", common.broker_set.join(" ")),
    ]
}

fn memory(target: &Target) -> Row {
    let peak = target.peak_memory_bytes().map(|bytes| bytes as f64 / 1e6);
    Row { variant: "broker".into(), figures: vec![("MB memory at its peak", peak)] }
}
