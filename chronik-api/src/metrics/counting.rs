//! Handles for the paths that count: relaxed atomics without labels or look-ups.
//!
//! A reader may see one counter of a request before another; each alone is exact.

use super::stages::AckStages;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

/// A total that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub fn one(&self) {
        self.add(1);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that comes and goes.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    pub fn add(&self, amount: i64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the buckets of every latency, in microseconds: from what a loopback request takes to what a client
/// gives up after.
pub const LATENCY_BOUNDS_US: [u64; 19] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// How long something took, as a histogram.
#[derive(Debug, Default)]
pub struct Latency {
    /// One per bound, and one for what is beyond them; each counts its own bucket only.
    buckets: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Latency {
    pub fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < us);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    pub fn sum_seconds(&self) -> f64 {
        self.sum_us.load(Ordering::Relaxed) as f64 / 1e6
    }

    /// Count of each bucket with its upper bound in seconds; the last one's is beyond every number.
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = LATENCY_BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::MAX]);
        bounds.zip(self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed))).collect()
    }
}

/// Kafka's error codes run from −1 to about 130; what is beyond is counted as −1, the unknown server error.
const ERROR_CODES: usize = 160;

/// What one API has been asked and has answered.
#[derive(Debug, Default)]
pub struct ApiMetrics {
    pub requests: Count,
    /// From the frame's last byte to the answer's being handed to the socket; a parked fetch includes its wait.
    pub latency: Latency,
    pub request_bytes: Count,
    pub response_bytes: Count,
    /// Made when the first error occurs: most APIs never answer one.
    errors: OnceLock<Box<[Count]>>,
}

impl ApiMetrics {
    /// An answer, or a part of one, that carries this error code; 0 is none and counts nothing.
    pub fn error(&self, code: i16) {
        if code != 0 {
            let errors = self.errors.get_or_init(|| (0..ERROR_CODES).map(|_| Count::default()).collect());
            let slot = usize::try_from(i32::from(code) + 1).unwrap_or(0);
            if let Some(count) = errors.get(slot).or_else(|| errors.first()) {
                count.one();
            }
        }
    }

    /// Each error that occurred, and how often.
    pub fn errors(&self) -> impl Iterator<Item = (i16, u64)> + '_ {
        let counts = self.errors.get().map_or(&[][..], |counts| counts);
        (-1i16..).zip(counts.iter().map(Count::get)).filter(|(_, count)| *count > 0)
    }
}

/// Totals of one topic. A partition keeps the handle of its topic.
#[derive(Debug, Default)]
pub struct TopicMetrics {
    pub produced_records: Count,
    pub produced_bytes: Count,
    pub produced_batches: Count,
    pub fetched_bytes: Count,
}

/// Topics that have totals of their own; each is five series.
const TOPICS_MAX: usize = 5_000;

/// The name under which all other topics are counted; no topic can be called so (KIP: legal topic names).
pub const OTHER_TOPICS: &str = "(other)";

/// API keys from 0 up to this one have a place; Kafka's highest is below 100.
const API_KEYS: usize = 128;

/// All handles. One per broker, shared by reference count.
#[derive(Debug)]
pub struct Metrics {
    apis: Box<[ApiMetrics]>,
    topics: RwLock<BTreeMap<String, Arc<TopicMetrics>>>,
    other_topics: Arc<TopicMetrics>,

    pub connections: Gauge,
    pub connections_accepted: Count,
    /// Closed at once, since `limits.connections` was reached.
    pub connections_refused_total_limit: Count,
    /// Closed at once, since `limits.connections_per_ip` was reached.
    pub connections_refused_address_limit: Count,
    /// Closed since the client sent what is no request, or sent or took it too slowly.
    pub connections_broken: Count,
    /// Closed since nothing came for `limits.connection_idle_ms`.
    pub connections_idle: Count,
    pub received_bytes: Count,
    pub sent_bytes: Count,
    /// Those of them that the kernel sent from log files, without their being read.
    pub sent_from_files_bytes: Count,
    pub groups_expired_offsets: Count,
    pub fetch_sessions: Gauge,
    /// Partitions keep the handles of their engines.
    pub ack_stages: Arc<AckStages>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            apis: (0..API_KEYS).map(|_| ApiMetrics::default()).collect(),
            topics: RwLock::default(),
            other_topics: Arc::default(),
            connections: Gauge::default(),
            connections_accepted: Count::default(),
            connections_refused_total_limit: Count::default(),
            connections_refused_address_limit: Count::default(),
            connections_broken: Count::default(),
            connections_idle: Count::default(),
            received_bytes: Count::default(),
            sent_bytes: Count::default(),
            sent_from_files_bytes: Count::default(),
            groups_expired_offsets: Count::default(),
            fetch_sessions: Gauge::default(),
            ack_stages: Arc::default(),
        }
    }
}

impl Metrics {
    /// The handle of an API key; a key that no API has shares the last place.
    pub fn api(&self, key: i16) -> &ApiMetrics {
        let place = usize::try_from(key).map_or(API_KEYS - 1, |key| key.min(API_KEYS - 1));
        &self.apis[place]
    }

    /// Each API that was asked something.
    pub fn apis(&self) -> impl Iterator<Item = (i16, &ApiMetrics)> {
        (0i16..).zip(self.apis.iter()).filter(|(_, api)| api.requests.get() > 0)
    }

    /// The handle of a topic, to be kept by who counts. Beyond the bound, the one that all other topics share.
    pub fn topic(&self, name: &str) -> Arc<TopicMetrics> {
        if let Some(known) = self.topics.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return known.clone();
        }
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        if topics.len() >= TOPICS_MAX && !topics.contains_key(name) {
            return self.other_topics.clone();
        }
        topics.entry(name.to_owned()).or_default().clone()
    }

    /// Lets go of a deleted topic's series.
    pub fn forget_topic(&self, name: &str) {
        self.topics.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Every topic with its totals, and what all others share if there are any.
    pub fn topics(&self) -> Vec<(String, Arc<TopicMetrics>)> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = topics.iter().map(|(name, totals)| (name.clone(), totals.clone())).collect();
        if topics.len() >= TOPICS_MAX {
            all.push((OTHER_TOPICS.to_owned(), self.other_topics.clone()));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_falls_into_the_bucket_whose_bound_it_does_not_exceed() {
        let latency = Latency::default();
        for us in [0, 50, 51, 1_000, 120_000_000] {
            latency.observe(Duration::from_micros(us));
        }
        let counts: Vec<u64> = latency.buckets().into_iter().map(|(_, count)| count).collect();
        assert_eq!((counts[0], counts[1], counts[4], counts[19]), (2, 1, 1, 1));
        assert_eq!(latency.count(), 5);
    }

    #[test]
    fn errors_are_counted_by_code_and_strange_codes_as_unknown() {
        let api = ApiMetrics::default();
        for code in [0, 3, 3, -1, 30_000, -20_000] {
            api.error(code);
        }
        assert_eq!(api.errors().collect::<Vec<_>>(), [(-1, 3), (3, 2)]);
    }

    #[test]
    fn topics_beyond_the_bound_share_one_place() {
        let metrics = Metrics::default();
        for index in 0..TOPICS_MAX {
            metrics.topic(&format!("topic-{index}"));
        }
        metrics.topic("one-too-many").produced_records.add(7);
        metrics.topic("topic-0").produced_records.add(1);
        let topics = metrics.topics();
        assert_eq!(topics.len(), TOPICS_MAX + 1);
        let other = topics.iter().find(|(name, _)| name == OTHER_TOPICS).expect("there are others");
        assert_eq!(other.1.produced_records.get(), 7);
        metrics.forget_topic("topic-0");
        assert!(metrics.topics().iter().all(|(name, _)| name != "topic-0"));
    }

    #[test]
    fn any_api_key_has_a_place() {
        let metrics = Metrics::default();
        for key in [0, 18, 127, 5_000, -3] {
            metrics.api(key).requests.one();
        }
        assert_eq!(
            metrics.apis().map(|(key, api)| (key, api.requests.get())).collect::<Vec<_>>(),
            [(0, 1), (18, 1), (127, 3)]
        );
    }
}
