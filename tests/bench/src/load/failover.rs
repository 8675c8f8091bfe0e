//! How long nobody can write to a partition when what leads it is killed: by a client that goes on writing.

use crate::BenchError;
use crate::client::{Producing, eager_producer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between two records.
const EVERY: Duration = Duration::from_millis(5);
/// Before the leader is killed.
const BEFORE: Duration = Duration::from_millis(500);
/// Nothing takes over within this: it is broken.
const WITHIN: Duration = Duration::from_secs(60);

/// From the kill until the first acknowledgement of a record that was sent after it. The topic has one partition.
pub fn until_writable_again(
    bootstrap: &str,
    topic: &str,
    kill: impl FnOnce() -> Result<(), BenchError>,
) -> Result<Duration, BenchError> {
    let newest = Arc::new(AtomicU64::new(0));
    let heard = newest.clone();
    let producer = eager_producer(bootstrap, Producing { acks: "all", linger_ms: "0" }, move |number| {
        heard.fetch_max(number as u64, Ordering::Relaxed);
    })?;
    let (mut number, began) = (0usize, Instant::now());
    let mut kill = Some(kill);
    let mut killed: Option<(usize, Instant)> = None;
    loop {
        number += 1;
        let next = BaseRecord::<(), [u8], usize>::with_opaque_to(topic, number).partition(0).payload(b"still there?");
        match producer.send(next) {
            Ok(()) | Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {}
            Err((why, _)) => return Err(why.into()),
        }
        let until = Instant::now() + EVERY;
        while Instant::now() < until {
            producer.poll(until.saturating_duration_since(Instant::now()));
            if let Some((last_before, at)) = killed
                && newest.load(Ordering::Relaxed) > last_before as u64
            {
                producer.context().ended.store(true, Ordering::Relaxed);
                return Ok(at.elapsed());
            }
        }
        if began.elapsed() >= BEFORE
            && newest.load(Ordering::Relaxed) > 0
            && let Some(kill) = kill.take()
        {
            let at = Instant::now();
            kill()?;
            killed = Some((number, at));
        }
        if began.elapsed() > WITHIN {
            return Err(BenchError::Silence { doing: "acknowledged", seconds: WITHIN.as_secs() });
        }
    }
}
