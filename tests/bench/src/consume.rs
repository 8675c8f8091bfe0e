//! How many records a second are consumed, and what that costs the broker: from the page cache, the broker having been
//! restarted after the records were produced.

use crate::client::{To, consumer, create_topic};
use crate::report::{Report, Row, median};
use crate::{BenchError, Common, Target, produce};
use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};
use std::time::{Duration, Instant};

/// So long without a record means that none is coming.
const SILENCE: Duration = Duration::from_secs(20);

fn turn(bootstrap: &str, topic: &str, partitions: i32, expected: u64) -> Result<f64, BenchError> {
    let consumer = consumer(bootstrap)?;
    let mut from = TopicPartitionList::new();
    for partition in 0..partitions {
        from.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&from)?;
    let mut seen = 0;
    let mut bytes = 0;
    let mut began = None;
    while seen < expected {
        match consumer.poll(SILENCE) {
            // Connecting is not what is measured: the clock starts with the first record.
            Some(Ok(message)) => {
                began.get_or_insert_with(Instant::now);
                seen += 1;
                bytes += message.payload_len();
            }
            Some(Err(failure)) => return Err(failure.into()),
            None => return Err(BenchError::Unread { seen, expected }),
        }
    }
    std::hint::black_box(bytes);
    Ok(began.map_or(0.0, |began| began.elapsed().as_secs_f64()))
}

pub fn run(common: &Common) -> Result<(), BenchError> {
    let mut target = Target::from(common)?;
    let mut report = Report::new(
        "consume: one consumer, from the page cache",
        vec![
            ("broker", target.bootstrap().to_owned()),
            ("partitions", common.partitions.to_string()),
            ("rounds", common.rounds.to_string()),
        ],
    );
    let topic = |size: usize| format!("bench-consume-{size}");
    let count = |size: usize| (common.bytes / size as u64).clamp(1, 5_000_000);
    for size in &common.size {
        create_topic(target.bootstrap(), &topic(*size), common.partitions)?;
        produce::turn(To::Broker(target.bootstrap()), &topic(*size), "all", *size, count(*size))?;
    }
    if let Target::Local(local) = &mut target {
        local.restart()?;
    }
    let mut figures: Vec<(Vec<f64>, Vec<f64>)> = common.size.iter().map(|_| Default::default()).collect();
    for _ in 0..common.rounds {
        for (size, (per_second, cpu)) in common.size.iter().zip(&mut figures) {
            let records = count(*size);
            let before = target.cpu_seconds();
            let seconds = turn(target.bootstrap(), &topic(*size), common.partitions, records)?;
            per_second.push(records as f64 / seconds);
            if let (Some(before), Some(after)) = (before, target.cpu_seconds()) {
                cpu.push((after - before) * 1e6 / records as f64);
            }
        }
    }
    for (size, (per_second, cpu)) in common.size.iter().zip(&figures) {
        let rate = median(per_second);
        report.rows.push(Row {
            variant: format!("{size} B"),
            figures: vec![
                ("records/s", Some(rate)),
                ("MB/s", Some(rate * *size as f64 / 1e6)),
                ("broker CPU s per million", (!cpu.is_empty()).then(|| median(cpu))),
            ],
        });
    }
    report.print(common.json);
    Ok(())
}
