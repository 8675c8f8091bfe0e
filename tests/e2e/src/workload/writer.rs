//! librdkafka, writing for as long as it is let.

use super::{Acknowledged, KEYS, PARTITIONS, Place, TOPIC, Written, client, partition_of};
use crate::cluster::{Cluster, PATIENCE};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Message};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Values that may be on their way: on a machine that keeps the cluster waiting others would lie in a queue until they are
/// given up. A partition that takes nothing for half a minute holds up no other.
const UNDER_WAY_MAX: u64 = 20_000;
const BEHIND_PAUSE: Duration = Duration::from_millis(200);
/// Its name in the values.
pub const NAME: &str = "librdkafka";

#[derive(Clone, Default)]
struct Told {
    /// Each value's place, and when that was told.
    acknowledged: Arc<Mutex<BTreeMap<u64, (Place, Instant)>>>,
    refused: Arc<AtomicU64>,
    /// See [`super::Written::renumbered`].
    renumbered: Arc<AtomicU64>,
}

impl ClientContext for Told {
    /// Told: that it numbers its values anew, and each refusal that made it.
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        let renumbers = message.contains("epoch bump");
        if renumbers {
            self.renumbered.fetch_add(1, Ordering::SeqCst);
        }
        if renumbers || facility == "ERRSEQ" {
            eprintln!("{NAME}: {facility}: {message}");
        }
    }
}

impl ProducerContext for Told {
    type DeliveryOpaque = Box<u64>;
    fn delivery(&self, result: &DeliveryResult<'_>, value: Box<u64>) {
        match result {
            Ok(message) => {
                let place = (message.partition(), message.offset());
                self.acknowledged.lock().expect("no callback panics").insert(*value, (place, Instant::now()));
            }
            Err((why, _)) => {
                eprintln!("{NAME}: {value} was refused: {why}");
                self.refused.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

/// See the module's head.
pub struct Writer {
    told: Told,
    /// The value that is written next.
    next: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl Writer {
    /// As much as keeps every partition at work at every moment.
    pub fn start(cluster: &Cluster) -> Self {
        Self::start_with_pause(cluster, Duration::from_millis(4))
    }

    /// With that pause whenever each key has had a value: for stories that are long, since all of it is looked at in the end.
    pub fn start_with_pause(cluster: &Cluster, pause: Duration) -> Self {
        let told = Told::default();
        let mut config = client(cluster);
        config.set("enable.idempotence", "true").set("acks", "all");
        config.set("message.timeout.ms", PATIENCE.as_millis().to_string());
        config.set("linger.ms", "2").set("retry.backoff.ms", "50").set("debug", "eos");
        config.set_log_level(RDKafkaLogLevel::Debug);
        let producer: ThreadedProducer<Told> = config.create_with_context(told.clone()).expect("a producer");
        let stop = Arc::new(AtomicBool::new(false));
        let next = Arc::new(AtomicU64::new(0));
        let (until, now, answered) = (stop.clone(), next.clone(), told.clone());
        let thread = std::thread::spawn(move || {
            let mut value = 0u64;
            while !until.load(Ordering::SeqCst) {
                let (key, text) = (format!("{NAME}-{}", value % KEYS), format!("{NAME}:{value}"));
                let record = BaseRecord::with_opaque_to(TOPIC, Box::new(value));
                match producer.send(record.key(&key).payload(&text).partition(partition_of(value))) {
                    Ok(()) => {
                        value += 1;
                        now.store(value, Ordering::SeqCst);
                    }
                    // Its queue is full: the cluster is busy dying.
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
                if value.is_multiple_of(KEYS) {
                    let answered = answered.acknowledged.lock().expect("no callback panics").len() as u64;
                    let is_behind = value > answered + UNDER_WAY_MAX;
                    std::thread::sleep(if is_behind { BEHIND_PAUSE } else { pause });
                }
            }
            producer.flush(PATIENCE).expect("all is answered in the end");
            value
        });
        Self { told, next, stop, thread }
    }

    /// For each partition, how long after now it first acknowledged something that was written from now on.
    pub fn pauses(&self, what: &str) -> BTreeMap<i32, Duration> {
        let (began, from) = (Instant::now(), self.next.load(Ordering::SeqCst));
        let mut pauses: BTreeMap<i32, Duration> = BTreeMap::new();
        let mut late: BTreeSet<i32> = (0..PARTITIONS).collect();
        while !late.is_empty() {
            for ((partition, _), at) in
                self.told.acknowledged.lock().expect("no callback panics").range(from..).map(|of| of.1)
            {
                let pause = at.saturating_duration_since(began);
                let first = pauses.entry(*partition).or_insert(pause);
                *first = pause.min(*first);
                late.remove(partition);
            }
            assert!(began.elapsed() < PATIENCE, "{what}: partitions {late:?} acknowledge nothing any more");
            std::thread::sleep(Duration::from_millis(5));
        }
        pauses
    }

    /// For each partition, the longest time since `from` in which it acknowledged nothing.
    pub fn gaps(&self, from: Instant) -> BTreeMap<i32, Duration> {
        let mut told: Vec<(Instant, i32)> = Vec::new();
        for ((partition, _), at) in self.told.acknowledged.lock().expect("no callback panics").values() {
            if *at >= from {
                told.push((*at, *partition));
            }
        }
        told.sort_unstable();
        let mut last: BTreeMap<i32, (Instant, Duration)> =
            (0..PARTITIONS).map(|one| (one, (from, Duration::ZERO))).collect();
        for (at, partition) in told {
            let (before, longest) = last.entry(partition).or_insert((from, Duration::ZERO));
            *longest = at.saturating_duration_since(*before).max(*longest);
            *before = at;
        }
        last.into_iter().map(|(partition, (_, longest))| (partition, longest)).collect()
    }

    /// Waits until something that is written from now on is acknowledged by every partition.
    pub fn goes_on(&self, what: &str) -> Duration {
        self.pauses(what).into_values().max().unwrap_or_default()
    }

    /// What was acknowledged by now.
    pub fn acknowledged(&self) -> Acknowledged {
        let told = self.told.acknowledged.lock().expect("no callback panics");
        told.iter().map(|(value, (place, _))| (*value, *place)).collect()
    }

    /// Writes no more, and waits until all is answered.
    pub fn finish(self) -> Written {
        self.stop.store(true, Ordering::SeqCst);
        let outcome = self.told.clone();
        let sent = self.thread.join().expect("the writer ends");
        assert_eq!(outcome.refused.load(Ordering::SeqCst), 0, "refused, though there was time enough");
        let told = outcome.acknowledged.lock().expect("no callback panics");
        assert_eq!(told.len() as u64, sent, "all is answered");
        let renumbered = outcome.renumbered.load(Ordering::SeqCst);
        let acknowledged = told.iter().map(|(value, (place, _))| (*value, *place)).collect();
        Written { name: NAME, acknowledged, renumbered }
    }
}
