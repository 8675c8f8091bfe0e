//! How long single records take at a fixed rate, from the moment each was meant to be sent: to the acknowledgement, and to
//! a consumer that waits for them.
//!
//! An open loop: records leave at their times whether or not earlier ones have been answered, so that a stall shows in
//! all that it delays (no coordinated omission).

use crate::client::{Mock, Producing, consumer, create_topic, producer};
use crate::report::{Report, Row};
use crate::stats::Latencies;
use crate::{BenchError, Common, Target};
use rdkafka::consumer::Consumer;
use rdkafka::producer::{BaseRecord, Producer};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const TOPIC: &str = "bench-latency";
/// Payload of a record.
const SIZE: usize = 1024;
/// Before it is measured, everything has been used once.
const WARM_UP: usize = 500;

type Shared = Arc<Mutex<Latencies>>;

fn record(latencies: &Shared, since: Duration) {
    latencies.lock().unwrap_or_else(PoisonError::into_inner).record(since);
}

/// Sends `count` records at `rate` a second; gives latencies to the acknowledgement.
fn acknowledged(bootstrap: &str, acks: &'static str, rate: u64, count: usize) -> Result<Shared, BenchError> {
    let latencies = Shared::default();
    let heard = latencies.clone();
    let began = Instant::now() + Duration::from_millis(200);
    let interval = Duration::from_secs(1).div_f64(rate as f64);
    let due = move |number: usize| began + interval * u32::try_from(number).unwrap_or(u32::MAX);
    let producer = producer(bootstrap, Producing { acks, linger_ms: "0" }, move |number| {
        if number >= WARM_UP {
            record(&heard, due(number).elapsed());
        }
    })?;
    let mut payload = vec![b'x'; SIZE];
    for number in 0..count + WARM_UP {
        loop {
            let left = due(number).saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            producer.poll(left.min(Duration::from_micros(500)));
        }
        payload[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let sent = producer.send(BaseRecord::<(), [u8], usize>::with_opaque_to(TOPIC, number).payload(&payload[..]));
        sent.map_err(|(failure, _)| failure)?;
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(60))?;
    let failed = producer.context().failed.load(Ordering::Relaxed);
    if failed > 0 {
        return Err(BenchError::Undelivered { failed, sent: (count + WARM_UP) as u64 });
    }
    Ok(latencies)
}

/// As [`acknowledged`], but to a consumer at the end of the log.
fn end_to_end(bootstrap: &str, acks: &'static str, rate: u64, count: usize) -> Result<Shared, BenchError> {
    let latencies = Shared::default();
    let consumer = consumer(bootstrap)?;
    let (_, end) = consumer.fetch_watermarks(TOPIC, 0, Duration::from_secs(30))?;
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(TOPIC, 0, Offset::Offset(end))?;
    consumer.assign(&from)?;
    consumer.poll(Duration::from_millis(300));
    let began = Instant::now() + Duration::from_millis(300);
    let interval = Duration::from_secs(1).div_f64(rate as f64);
    let due = move |number: u64| began + interval.mul_f64(number as f64);
    let total = count + WARM_UP;
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || -> Result<(), BenchError> {
            let producer = producer(bootstrap, Producing { acks, linger_ms: "0" }, |_| {})?;
            let mut payload = vec![b'x'; SIZE];
            for number in 0..total as u64 {
                std::thread::sleep(due(number).saturating_duration_since(Instant::now()));
                payload[..8].copy_from_slice(&number.to_be_bytes());
                let sent = producer.send(BaseRecord::<(), [u8], usize>::with_opaque_to(TOPIC, 0).payload(&payload[..]));
                sent.map_err(|(failure, _)| failure)?;
                producer.poll(Duration::ZERO);
            }
            Ok(producer.flush(Duration::from_secs(60))?)
        });
        let mut seen = 0;
        while seen < total {
            match consumer.poll(Duration::from_secs(20)) {
                Some(Ok(message)) => {
                    let number = message
                        .payload()
                        .and_then(|payload| payload.first_chunk::<8>())
                        .map(|n| u64::from_be_bytes(*n));
                    if let Some(number) = number.filter(|number| *number >= WARM_UP as u64) {
                        record(&latencies, due(number).elapsed());
                    }
                    seen += 1;
                }
                Some(Err(failure)) => return Err(failure.into()),
                None => return Err(BenchError::Unread { seen: seen as u64, expected: total as u64 }),
            }
        }
        match sender.join() {
            Ok(sent) => sent,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    Ok(latencies)
}

pub fn run(common: &Common) -> Result<(), BenchError> {
    let target = Target::from(common)?;
    let bootstrap = target.bootstrap().to_owned();
    create_topic(&bootstrap, TOPIC, 1, common.replicas)?;
    let mock = Mock::with_topic(TOPIC, 1)?;
    let count = if common.quick { 2_000 } else { 10_000 };
    let mut report = Report::new(
        "latency: single records, open loop, in milliseconds",
        vec![
            ("broker", bootstrap.clone()),
            ("rate", format!("{} records/s of {SIZE} B", common.rate)),
            ("rounds", common.rounds.to_string()),
            ("linger.ms", "0".to_owned()),
        ],
    );
    type Measure<'a> = (&'static str, Box<dyn Fn() -> Result<Shared, BenchError> + 'a>);
    let measures: Vec<Measure<'_>> = vec![
        ("acknowledged by the client's mock", Box::new(|| acknowledged(&mock.bootstrap(), "1", common.rate, count))),
        ("acknowledged, acks=1", Box::new(|| acknowledged(&bootstrap, "1", common.rate, count))),
        ("acknowledged, acks=all", Box::new(|| acknowledged(&bootstrap, "all", common.rate, count))),
        ("consumed, acks=1", Box::new(|| end_to_end(&bootstrap, "1", common.rate, count))),
        ("consumed, acks=all", Box::new(|| end_to_end(&bootstrap, "all", common.rate, count))),
    ];
    let sums: Vec<Shared> = measures.iter().map(|_| Shared::default()).collect();
    for _ in 0..common.rounds {
        for ((_, measure), sum) in measures.iter().zip(&sums) {
            let one = measure()?;
            let one = one.lock().unwrap_or_else(PoisonError::into_inner);
            let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            sum.add(&one);
        }
    }
    for ((name, _), sum) in measures.iter().zip(&sums) {
        let sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |quantile: f64| Some(sum.micros(quantile) / 1000.0);
        report.rows.push(Row {
            variant: (*name).to_owned(),
            figures: vec![
                ("p50", at(0.5)),
                ("p90", at(0.9)),
                ("p99", at(0.99)),
                ("p99.9", at(0.999)),
                ("max", Some(sum.max_micros() / 1000.0)),
            ],
        });
    }
    report.print(common.json);
    Ok(())
}
