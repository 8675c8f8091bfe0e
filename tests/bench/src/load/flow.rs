//! Throughput: as much as the client can, for a time, after a warm-up.

use crate::BenchError;
use crate::client::{Producing, producer, reader};
use crate::machine::Window;
use crate::machine::window::Used;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer, PurgeConfig};
use rdkafka::{Offset, TopicPartitionList};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// As clients that care for throughput have it.
pub const LINGER_MS: &str = "5";
/// So many sends between two looks at the clock and at what was delivered.
const LOOK_EVERY: u64 = 1_024;
/// No record comes or goes for so long: something is wrong.
const SILENCE: Duration = Duration::from_secs(30);

/// Whom, and how.
#[derive(Clone, Copy, Debug)]
pub struct Flowing<'a> {
    pub bootstrap: &'a str,
    pub topic: &'a str,
    pub partitions: i32,
    pub warm_up_seconds: f64,
    pub seconds: f64,
    /// The broker's processes, where they can be seen.
    pub pids: &'a [u32],
}

/// What went while it counted.
pub struct Flow {
    pub records: u64,
    pub bytes: u64,
    pub used: Used,
}

impl Flow {
    pub fn records_per_second(&self) -> f64 {
        self.records as f64 / self.used.seconds
    }

    pub fn megabytes_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.used.seconds
    }
}

impl Flowing<'_> {
    fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up_seconds)
    }

    fn span(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// Produces to the partitions in turn.
    pub fn produce(&self, acks: &'static str, size: usize) -> Result<Flow, BenchError> {
        let producer = producer(self.bootstrap, Producing { acks, linger_ms: LINGER_MS }, |_| {})?;
        let delivered = || producer.context().delivered.load(Ordering::Relaxed);
        let payload = vec![b'x'; size];
        let (mut sent, mut window) = (0u64, None);
        let began = Instant::now();
        let (mut last, mut last_at) = (0, began);
        let flow = loop {
            let partition = i32::try_from(sent % self.partitions.max(1) as u64).unwrap_or(0);
            let record = BaseRecord::<(), [u8], usize>::with_opaque_to(self.topic, 0).payload(&payload[..]);
            let full = match producer.send(record.partition(partition)) {
                Ok(()) => {
                    sent += 1;
                    false
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    producer.poll(Duration::from_millis(10));
                    true
                }
                Err((failure, _)) => return Err(failure.into()),
            };
            if !full && sent % LOOK_EVERY != 0 {
                continue;
            }
            producer.poll(Duration::ZERO);
            let (now, failed) = (delivered(), producer.context().failed.load(Ordering::Relaxed));
            if failed > 0 {
                return Err(BenchError::Undelivered { failed, sent });
            }
            if now > last {
                (last, last_at) = (now, Instant::now());
            } else if last_at.elapsed() > SILENCE {
                return Err(BenchError::Silence { doing: "acknowledged", seconds: SILENCE.as_secs() });
            }
            match &window {
                None if began.elapsed() >= self.warm_up() => {
                    window = Some((now, Instant::now(), Window::open(self.pids)))
                }
                Some((before, opened, _)) if opened.elapsed() >= self.span() => {
                    let records = now - before;
                    let Some((_, _, window)) = window.take() else { continue };
                    break Flow { records, bytes: records * size as u64, used: window.close() };
                }
                _ => {}
            }
        };
        // What waits is no matter any more.
        producer.context().ended.store(true, Ordering::Relaxed);
        producer.purge(PurgeConfig::default().queue().inflight());
        producer.flush(SILENCE)?;
        Ok(flow)
    }

    /// Fills the topic with so many records, and waits until all are acknowledged by all.
    pub fn fill(&self, size: usize, records: u64) -> Result<(), BenchError> {
        let turn = crate::produce::turn(self.bootstrap, self.topic, self.partitions, "all", size, records)?;
        debug_assert_eq!(turn.records, records);
        Ok(())
    }

    /// Consumes from the beginning, and from the beginning again when all has been read; `records` are there.
    pub fn consume(&self, records: u64) -> Result<Flow, BenchError> {
        let consumer = reader(self.bootstrap)?;
        let rewind = || -> Result<(), BenchError> {
            let mut from = TopicPartitionList::new();
            for partition in 0..self.partitions {
                from.add_partition_offset(self.topic, partition, Offset::Beginning)?;
            }
            Ok(consumer.assign(&from)?)
        };
        rewind()?;
        let (mut seen, mut bytes, mut window) = (0u64, 0u64, None);
        let mut began = None;
        loop {
            match consumer.poll(SILENCE) {
                Some(Ok(message)) => {
                    // Connecting is not what is measured.
                    began.get_or_insert_with(Instant::now);
                    seen += 1;
                    bytes += message.payload_len() as u64;
                }
                Some(Err(failure)) => return Err(failure.into()),
                None => return Err(BenchError::Silence { doing: "consumed", seconds: SILENCE.as_secs() }),
            }
            if seen.is_multiple_of(records) {
                rewind()?;
            }
            if seen % LOOK_EVERY != 0 {
                continue;
            }
            match &window {
                None if began.is_some_and(|began| began.elapsed() >= self.warm_up()) => {
                    window = Some((seen, bytes, Instant::now(), Window::open(self.pids)));
                }
                Some((before, bytes_before, opened, _)) if opened.elapsed() >= self.span() => {
                    let (records, bytes) = (seen - before, bytes - bytes_before);
                    let Some((.., window)) = window.take() else { continue };
                    return Ok(Flow { records, bytes, used: window.close() });
                }
                _ => {}
            }
        }
    }
}
