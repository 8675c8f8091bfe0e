//! How many records a second are consumed, and what that costs the broker: from the page cache, the broker having been
//! restarted after the records were produced; and from the tail, while they are produced.

use crate::client::reader;
use crate::produce;
use crate::report::{Report, Row};
use crate::stats::median;
use crate::topic::Topics;
use crate::{BenchError, Common, Target};
use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};
use std::time::{Duration, Instant};

/// So long without a record means that none is coming.
const SILENCE: Duration = Duration::from_secs(20);
/// What producers wait for while others read from the tail.
const ACKS: &str = "1";

fn turn(bootstrap: &str, topic: &str, partitions: i32, expected: u64) -> Result<f64, BenchError> {
    let consumer = reader(bootstrap)?;
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

/// What several turns of one kind showed: records a second, and the broker's CPU seconds per million of them.
#[derive(Default)]
struct Series {
    per_second: Vec<f64>,
    cpu_per_million: Vec<f64>,
}

impl Series {
    fn measure(
        &mut self,
        target: &Target,
        records: u64,
        what: impl FnOnce() -> Result<f64, BenchError>,
    ) -> Result<(), BenchError> {
        let before = target.cpu_seconds();
        let seconds = what()?;
        self.per_second.push(records as f64 / seconds);
        if let (Some(before), Some(after)) = (before, target.cpu_seconds()) {
            self.cpu_per_million.push((after - before) * 1e6 / records as f64);
        }
        Ok(())
    }

    fn cpu(&self) -> Option<f64> {
        (!self.cpu_per_million.is_empty()).then(|| median(&self.cpu_per_million))
    }

    fn row(&self, variant: String, size: usize, cpu: Option<f64>) -> Row {
        let rate = median(&self.per_second);
        Row {
            variant,
            figures: vec![
                ("records/s", Some(rate)),
                ("MB/s", Some(rate * size as f64 / 1e6)),
                ("broker CPU s per million", cpu),
            ],
        }
    }
}

pub fn run(common: &Common) -> Result<(), BenchError> {
    let mut target = Target::from(common)?;
    let mut report = Report::new(
        "consume: one consumer",
        vec![
            ("broker", target.bootstrap().to_owned()),
            ("partitions", common.partitions.to_string()),
            ("rounds", common.rounds.to_string()),
            ("from the tail", "what producing alone took is deducted from the broker's CPU seconds".to_owned()),
        ],
    );
    let partitions = common.partitions;
    for size in &common.size {
        let records = produce::records(common, *size);
        let mut topics = Topics::new("consume", common);
        let (mut alone, mut tail, mut cache) = (Series::default(), Series::default(), Series::default());
        for _ in 0..common.rounds {
            let topic = topics.next(&target, common.bytes)?;
            let produce = || produce::turn(target.bootstrap(), &topic, partitions, ACKS, *size, records);
            alone.measure(&target, records, || Ok(produce()?.seconds))?;
            let topic = topics.next(&target, common.bytes)?;
            let produce = || produce::turn(target.bootstrap(), &topic, partitions, ACKS, *size, records);
            tail.measure(&target, records, || {
                std::thread::scope(|scope| {
                    let reader = scope.spawn(|| turn(target.bootstrap(), &topic, partitions, records));
                    produce()?;
                    reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
            })?;
        }
        let topic = topics.next(&target, common.bytes)?;
        produce::turn(target.bootstrap(), &topic, partitions, "all", *size, records)?;
        if let Target::Local(local) = &mut target {
            local.restart()?;
        }
        for _ in 0..common.rounds {
            cache.measure(&target, records, || turn(target.bootstrap(), &topic, partitions, records))?;
        }
        topics.clear(&target)?;
        let net = tail.cpu().zip(alone.cpu()).map(|(both, produced)| both - produced);
        report.rows.push(tail.row(format!("{size} B, from the tail"), *size, net));
        report.rows.push(cache.row(format!("{size} B, from the page cache"), *size, cache.cpu()));
    }
    report.print(common.json);
    Ok(())
}
