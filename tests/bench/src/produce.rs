//! How many records a second are produced, batched as clients do, and what that costs the broker.

use crate::client::{Producing, To, create_topic, producer};
use crate::report::{Report, Row, median};
use crate::{BenchError, Common, Target};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Records of one turn at most: small ones would otherwise take long.
const RECORDS_MAX: u64 = 5_000_000;
const LINGER_MS: &str = "5";
const TOPIC: &str = "bench-produce";
/// No turn takes this long.
const FLUSH_WITHIN: Duration = Duration::from_secs(300);

/// What one turn showed.
pub struct Turn {
    pub records: u64,
    pub seconds: f64,
}

/// Produces as fast as the client can, and waits until all is acknowledged.
pub fn turn(to: To<'_>, topic: &str, acks: &'static str, size: usize, records: u64) -> Result<Turn, BenchError> {
    let producer = producer(to, Producing { acks, linger_ms: LINGER_MS }, |_| {})?;
    let payload = vec![b'x'; size];
    let began = Instant::now();
    let mut sent = 0;
    while sent < records {
        match producer.send(BaseRecord::<(), [u8], usize>::with_opaque_to(topic, 0).payload(&payload[..])) {
            Ok(()) => sent += 1,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                producer.poll(Duration::from_millis(10));
            }
            Err((failure, _)) => return Err(failure.into()),
        }
        if sent % 4096 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(FLUSH_WITHIN)?;
    let seconds = began.elapsed().as_secs_f64();
    let delivered = producer.context().delivered.load(Ordering::Relaxed);
    if delivered != records {
        return Err(BenchError::Undelivered { failed: records - delivered, sent: records });
    }
    Ok(Turn { records, seconds })
}

#[derive(Default)]
struct Series {
    per_second: Vec<f64>,
    cpu_per_million: Vec<f64>,
}

pub fn run(common: &Common) -> Result<(), BenchError> {
    let target = Target::from(common)?;
    create_topic(target.bootstrap(), TOPIC, common.partitions)?;
    let variants: Vec<(usize, &'static str)> =
        common.size.iter().flat_map(|size| ["mock", "1", "all"].map(|acks| (*size, acks))).collect();
    let mut series: Vec<Series> = variants.iter().map(|_| Series::default()).collect();
    for round in 0..common.rounds {
        for ((size, acks), series) in variants.iter().zip(&mut series) {
            let records = (common.bytes / *size as u64).clamp(1, RECORDS_MAX);
            let before = target.cpu_seconds();
            let (to, acks) = if *acks == "mock" { (To::Mock, "1") } else { (To::Broker(target.bootstrap()), *acks) };
            let turn = turn(to, TOPIC, acks, *size, records)?;
            series.per_second.push(turn.records as f64 / turn.seconds);
            if let (To::Broker(_), Some(before), Some(after)) = (to, before, target.cpu_seconds()) {
                series.cpu_per_million.push((after - before) * 1e6 / turn.records as f64);
            }
        }
        eprintln!("round {} of {}", round + 1, common.rounds);
    }
    let mut report = Report::new(
        "produce: batched, one producer",
        vec![
            ("broker", target.bootstrap().to_owned()),
            ("partitions", common.partitions.to_string()),
            ("rounds", common.rounds.to_string()),
            ("linger.ms", LINGER_MS.to_owned()),
            ("broker settings", common.broker_set.join(" ")),
        ],
    );
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
    let peak = target.peak_memory_bytes().map(|bytes| bytes as f64 / 1e6);
    report.rows.push(Row { variant: "broker".into(), figures: vec![("MB memory at its peak", peak)] });
    report.print(common.json);
    Ok(())
}
