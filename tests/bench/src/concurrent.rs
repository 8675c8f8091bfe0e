//! Many callers, each of whom sends its next record when the last one is acknowledged: a closed loop over one client, which
//! does not wait to make batches. What it shows is what the round trips cost, to the broker and, with acks=all, on from it.

use crate::client::{Producing, Setting, with_settings};
use crate::report::{Report, Row};
use crate::stats::Latencies;
use crate::topic::Topics;
use crate::{BenchError, Common, Target};
use rdkafka::producer::{BaseRecord, Producer};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub fn run(common: &Common) -> Result<(), BenchError> {
    let target = Target::from(common)?;
    let (callers, span) = (common.callers.max(1), Duration::from_secs(common.seconds));
    let client: Vec<Setting<'_>> =
        common.client_set.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let settings = vec![
        ("client settings", client.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")),
        ("callers", callers.to_string()),
        ("seconds", common.seconds.to_string()),
        ("partitions", common.partitions.to_string()),
        ("replicas", common.replicas.to_string()),
    ];
    let mut report = Report::new("concurrent: each caller waits for its record", settings);
    let mut topics = Topics::new("concurrent", common);
    for &size in &common.size {
        for &acks in &common.acks {
            let topic = topics.next(&target, 0)?;
            let (rate, latencies) = turn(target.bootstrap(), &topic, acks.as_str(), size, callers, span, &client)?;
            let at = |quantile: f64| Some(latencies.micros(quantile) / 1_000.0);
            report.rows.push(Row {
                variant: format!("{size} B, acks={acks}"),
                figures: vec![("records/s", Some(rate)), ("ms p50", at(0.5)), ("ms p99", at(0.99))],
            });
        }
    }
    topics.clear(&target)?;
    report.print(common.json);
    Ok(())
}

/// What a caller does when its record is acknowledged; set once there is a producer to do it with.
type Again = Arc<OnceLock<Box<dyn Fn(usize) + Send + Sync>>>;

/// Records a second, and how long they took.
///
/// Callers are numbers: each sends its next record from where its last one's acknowledgement is heard of. So the client has
/// no thread that waits in a loop, nor one that hands over to another, and leaves the machine to the broker.
pub fn turn(
    bootstrap: &str,
    topic: &str,
    acks: &'static str,
    size: usize,
    callers: usize,
    span: Duration,
    client: &[Setting<'_>],
) -> Result<(f64, Latencies), BenchError> {
    let began = Instant::now();
    let answered = Arc::new(AtomicU64::new(0));
    let latencies = Arc::new(Mutex::new(Latencies::new()));
    let sent: Arc<Vec<AtomicU64>> = Arc::new((0..callers).map(|_| AtomicU64::new(0)).collect());
    let again: Again = Arc::default();
    let heard = {
        let (answered, latencies, sent, again) = (answered.clone(), latencies.clone(), sent.clone(), again.clone());
        move |caller: usize| {
            answered.fetch_add(1, Ordering::Relaxed);
            let took = micros(began.elapsed()).saturating_sub(sent[caller].load(Ordering::Relaxed));
            latencies.lock().unwrap_or_else(PoisonError::into_inner).record(Duration::from_micros(took));
            if let Some(again) = again.get() {
                again(caller);
            }
        }
    };
    let producer = Arc::new(with_settings(bootstrap, Producing { acks, linger_ms: "0" }, client, heard)?);
    let refused = Arc::new(Mutex::new(None));
    let send = {
        // The producer holds this, and must not hold itself.
        let (producer, refused, topic) = (Arc::downgrade(&producer), refused.clone(), topic.to_owned());
        let payload = vec![b'x'; size];
        move |caller: usize| {
            let Some(producer) = producer.upgrade().filter(|_| began.elapsed() < span) else { return };
            sent[caller].store(micros(began.elapsed()), Ordering::Relaxed);
            let next = BaseRecord::<(), [u8], usize>::with_opaque_to(&topic, caller).payload(&payload[..]);
            if let Err((failure, _)) = producer.send(next) {
                *refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
            }
        }
    };
    (0..callers).for_each(&send);
    // Nothing is acknowledged before the first poll.
    let _ = again.set(Box::new(send));
    while began.elapsed() < span {
        producer.poll(Duration::from_millis(50));
        if let Some(failure) = refused.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(failure.into());
        }
        let failed = producer.context().failed.load(Ordering::Relaxed);
        if failed > 0 {
            return Err(BenchError::Undelivered { failed, sent: answered.load(Ordering::Relaxed) + callers as u64 });
        }
    }
    let rate = answered.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    producer.flush(Duration::from_secs(60))?;
    drop(producer);
    let latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok((rate, latencies))
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
