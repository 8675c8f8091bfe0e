//! Everything counted and looked up, as the text that Prometheus scrapes.

use super::counting::{ApiMetrics, Metrics, TopicMetrics};
use super::process::{ProcessSample, unix_seconds};
use super::snapshot::{GroupSample, MetricsSource, PartitionSample, Snapshot};
use crate::partitions::throttle::ThrottleSample;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::fmt::{self, Debug};
use std::sync::Arc;

/// What `/metrics` answers with.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Partitions that are shown one by one, with seven series each: a scrape stays below 10 MB.
const PARTITIONS_MAX: usize = 10_000;

/// Pairs of group and partition that are shown one by one, with two series each.
const GROUP_PARTITIONS_MAX: usize = 20_000;

/// Shows one broker.
pub struct Exposition {
    metrics: Arc<Metrics>,
    source: Arc<dyn MetricsSource>,
    start_seconds: f64,
    /// Kafka's name of an API key, and of an error code.
    names: Names,
}

/// How numbers of the protocol are named in labels.
#[derive(Clone, Copy)]
pub struct Names {
    pub api: fn(i16) -> String,
    pub error: fn(i16) -> String,
}

impl Default for Names {
    fn default() -> Self {
        Self { api: |key| key.to_string(), error: |code| code.to_string() }
    }
}

impl Exposition {
    /// The process's start is taken to be now.
    pub fn new(metrics: Arc<Metrics>, source: Arc<dyn MetricsSource>, names: Names) -> Self {
        Self { metrics, source, start_seconds: unix_seconds(), names }
    }

    /// One scrape.
    pub async fn render(&self, ready: bool) -> Result<String, fmt::Error> {
        let snapshot = self.source.snapshot().await;
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Scrape {
            metrics: self.metrics.clone(),
            snapshot,
            process: ProcessSample::now(),
            start_seconds: self.start_seconds,
            names: self.names,
            ready,
        }));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// A family that every `T` has one series of: name, help, value.
type Series<T, V> = (&'static str, &'static str, fn(&T) -> V);

/// The values of one scrape, on their way into text.
struct Scrape {
    metrics: Arc<Metrics>,
    snapshot: Snapshot,
    process: ProcessSample,
    start_seconds: f64,
    names: Names,
    ready: bool,
}

impl Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").finish_non_exhaustive()
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families { encoder };
        self.process(&mut families)?;
        self.connections(&mut families)?;
        self.requests(&mut families)?;
        self.ack_stages(&mut families)?;
        self.topics(&mut families)?;
        self.storage(&mut families)?;
        self.partitions(&mut families)?;
        self.throttles(&mut families)?;
        self.groups(&mut families)
    }
}

impl Scrape {
    fn process(&self, out: &mut Families<'_>) -> fmt::Result {
        out.family("chronik_build", "The running version", MetricType::Info, |mut m| {
            m.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
        })?;
        out.gauge("chronik_ready", "1 once clients are served", i64::from(self.ready))?;
        out.family_in("process_cpu", "CPU time spent", Unit::Seconds, MetricType::Counter, |mut m| {
            m.encode_counter::<NoLabelSet, f64, f64>(&self.process.cpu_seconds, None)
        })?;
        out.family_in("process_start_time", "Start since 1970", Unit::Seconds, MetricType::Gauge, |mut m| {
            m.encode_gauge(&self.start_seconds)
        })?;
        let of_system = [
            ("process_resident_memory_bytes", "Memory in use", self.process.resident_bytes),
            ("process_open_fds", "Open file handles", self.process.open_fds),
            ("process_max_fds", "File handles the process may open", self.process.max_fds),
        ];
        of_system
            .into_iter()
            .filter_map(|(name, help, value)| Some((name, help, value?)))
            .try_for_each(|(name, help, value)| out.gauge(name, help, i64::try_from(value).unwrap_or(i64::MAX)))
    }

    fn connections(&self, out: &mut Families<'_>) -> fmt::Result {
        let m = &self.metrics;
        out.gauge("chronik_connections", "Open Kafka connections", m.connections.get())?;
        out.counter("chronik_connections_accepted", "Connections that were let in", m.connections_accepted.get())?;
        let refused = [
            ([("limit", "connections")], m.connections_refused_total_limit.get()),
            ([("limit", "connections_per_ip")], m.connections_refused_address_limit.get()),
        ];
        out.counters("chronik_connections_refused", "Connections closed at once, by the limit reached", refused)?;
        let closed = [
            ([("reason", "invalid_or_slow")], m.connections_broken.get()),
            ([("reason", "idle")], m.connections_idle.get()),
        ];
        out.counters("chronik_connections_closed", "Connections that the broker closed", closed)?;
        out.counter("chronik_received_bytes", "Bytes read from Kafka connections", m.received_bytes.get())?;
        out.counter("chronik_sent_bytes", "Bytes written to Kafka connections", m.sent_bytes.get())?;
        let from_files = m.sent_from_files_bytes.get();
        out.counter("chronik_sent_from_files_bytes", "Those that the kernel sent from log files", from_files)?;
        out.gauge("chronik_fetch_sessions", "Fetch sessions kept", m.fetch_sessions.get())
    }

    fn requests(&self, out: &mut Families<'_>) -> fmt::Result {
        let m = &self.metrics;
        let apis: Vec<(String, &ApiMetrics)> = m.apis().map(|(key, api)| ((self.names.api)(key), api)).collect();
        let totals: [Series<ApiMetrics, u64>; 3] = [
            ("chronik_requests", "Requests answered", |api| api.requests.get()),
            ("chronik_request_bytes", "Bytes of requests", |api| api.request_bytes.get()),
            ("chronik_response_bytes", "Bytes of answers", |api| api.response_bytes.get()),
        ];
        for (name, help, value) in totals {
            out.counters(name, help, apis.iter().map(|(name, api)| ([("api", name.as_str())], value(api))))?;
        }
        let errors = apis.iter().flat_map(|(name, api)| {
            api.errors().map(move |(code, count)| ([("api", name.clone()), ("error", (self.names.error)(code))], count))
        });
        out.counters("chronik_request_errors", "Errors in answers, also of parts of them", errors)?;
        let help = "From the request's last byte to the answer's being ready; a parked fetch includes its wait";
        out.family_in("chronik_request_duration", help, Unit::Seconds, MetricType::Histogram, |mut m| {
            apis.iter().try_for_each(|(name, api)| {
                m.encode_family(&[("api", name.as_str())])?.encode_histogram::<NoLabelSet>(
                    api.latency.sum_seconds(),
                    api.latency.count(),
                    &api.latency.buckets(),
                    None,
                )
            })
        })
    }

    fn ack_stages(&self, out: &mut Families<'_>) -> fmt::Result {
        let help = "Where the time of acknowledged records went, of a sample; stages of one path follow each other";
        out.family_in("chronik_ack_stage", help, Unit::Seconds, MetricType::Histogram, |mut m| {
            self.metrics.ack_stages.each(|(labels, times)| {
                m.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                    times.sum_seconds(),
                    times.count(),
                    &times.buckets(),
                    None,
                )
            })
        })
    }

    fn topics(&self, out: &mut Families<'_>) -> fmt::Result {
        let topics = self.metrics.topics();
        let totals: [Series<TopicMetrics, u64>; 4] = [
            ("chronik_topic_produced_records", "Records appended", |topic| topic.produced_records.get()),
            ("chronik_topic_produced_bytes", "Bytes of batches appended", |topic| topic.produced_bytes.get()),
            ("chronik_topic_produced_batches", "Batches appended", |topic| topic.produced_batches.get()),
            ("chronik_topic_fetched_bytes", "Bytes of batches given to consumers", |topic| topic.fetched_bytes.get()),
        ];
        totals.into_iter().try_for_each(|(name, help, value)| {
            out.counters(name, help, topics.iter().map(|(name, topic)| ([("topic", name.as_str())], value(topic))))
        })
    }

    fn storage(&self, out: &mut Families<'_>) -> fmt::Result {
        let Some(usage) = self.snapshot.storage else { return Ok(()) };
        let of_engine = [
            ("chronik_storage_logs", "Logs the engine keeps", Some(usage.logs)),
            ("chronik_storage_bytes", "Bytes the logs occupy", Some(usage.bytes)),
            ("chronik_storage_memory_bytes", "Memory held for logs", Some(usage.memory_bytes)),
            ("chronik_storage_device_bytes", "Size of the device", usage.device_total_bytes),
            ("chronik_storage_device_free_bytes", "Room left on the device", usage.device_free_bytes),
        ];
        of_engine
            .into_iter()
            .filter_map(|(name, help, value)| Some((name, help, value?)))
            .try_for_each(|(name, help, value)| out.gauge(name, help, i64::try_from(value).unwrap_or(i64::MAX)))
    }

    fn partitions(&self, out: &mut Families<'_>) -> fmt::Result {
        let all = &self.snapshot.partitions;
        let count = |which: fn(&&PartitionSample) -> bool| all.iter().filter(which).count() as i64;
        out.gauge("chronik_partitions", "Partitions that this broker leads", count(|sample| sample.leads))?;
        out.gauge("chronik_replicas", "Replicas on this broker, led or not", all.len() as i64)?;
        out.gauge(
            "chronik_under_replicated_partitions",
            "Partitions led here of which not all replicas are in sync",
            count(|sample| sample.under_replicated),
        )?;
        out.gauge(
            "chronik_under_min_isr_partitions",
            "Partitions with fewer in-sync replicas than min.insync.replicas",
            count(|sample| sample.under_min_isr),
        )?;
        out.gauge("chronik_offline_partitions", "Partitions whose log failed", count(|sample| sample.offline))?;
        let omitted = all.len().saturating_sub(PARTITIONS_MAX) as i64;
        out.gauge("chronik_partitions_omitted", "Partitions too many to be shown one by one", omitted)?;
        let values: [Series<PartitionSample, i64>; 9] = [
            ("chronik_partition_log_start_offset", "First offset that can be read", |sample| sample.log_start),
            ("chronik_partition_high_watermark", "Offset below which consumers read", |sample| sample.high_watermark),
            ("chronik_partition_log_end_offset", "Offset of the next record", |sample| sample.log_end),
            ("chronik_partition_durable_end_offset", "Offset below which all is synced", |sample| sample.durable_end),
            ("chronik_partition_log_bytes", "Bytes the log occupies", |sample| {
                i64::try_from(sample.log_bytes).unwrap_or(i64::MAX)
            }),
            ("chronik_partition_under_min_isr", "1 if acks=all is refused", |sample| i64::from(sample.under_min_isr)),
            ("chronik_partition_leader_epoch", "Grows with each leader", |sample| i64::from(sample.leader_epoch)),
            ("chronik_partition_follower_lag", "Records that the slowest follower lacks", |sample| {
                i64::try_from(sample.follower_lag).unwrap_or(i64::MAX)
            }),
            ("chronik_partition_offline", "1 if the log failed", |sample| i64::from(sample.offline)),
        ];
        for (name, help, value) in values {
            let shown = all.iter().take(PARTITIONS_MAX).map(|sample| {
                let labels = [("topic", sample.topic.clone()), ("partition", sample.partition.to_string())];
                (labels, value(sample))
            });
            out.gauges(name, help, shown)?;
        }
        Ok(())
    }

    fn throttles(&self, out: &mut Families<'_>) -> fmt::Result {
        let all = &self.snapshot.throttles;
        let side = |sample: &ThrottleSample| [("side", sample.side)];
        let rates = all.iter().filter_map(|sample| {
            let rate = i64::try_from(sample.rate?).unwrap_or(i64::MAX);
            Some((side(sample), rate))
        });
        let help = "Bytes a second that throttled replicas are kept to; absent where there is no limit";
        out.gauges("chronik_replication_throttle_rate_bytes", help, rates)?;
        let help = "Bytes for replicas that catch up, sent by a leader or asked for by a follower, under a throttle";
        let bytes = all.iter().map(|sample| (side(sample), sample.bytes));
        out.counters("chronik_replication_throttled_bytes", help, bytes)?;
        let help = "How often a replica that catches up had to wait for a throttle";
        let waits = all.iter().map(|sample| (side(sample), sample.waits));
        out.counters("chronik_replication_throttle_waits", help, waits)
    }

    fn groups(&self, out: &mut Families<'_>) -> fmt::Result {
        let groups = &self.snapshot.groups;
        out.gauge("chronik_groups", "Consumer groups", groups.len() as i64)?;
        out.counter(
            "chronik_group_offsets_expired",
            "Committed offsets that were dropped for their age",
            self.metrics.groups_expired_offsets.get(),
        )?;
        let members = groups
            .iter()
            .take(GROUP_PARTITIONS_MAX)
            .map(|sample| ([("group", sample.group.clone()), ("state", sample.state.clone())], sample.members as i64));
        out.gauges("chronik_group_members", "Members of the group, with its state", members)?;
        let pairs = |value: fn(&super::PartitionLag) -> i64| {
            let of_group = move |group: &GroupSample| -> Vec<_> {
                let labels = |lag: &super::PartitionLag| {
                    let partition = lag.partition.to_string();
                    [("group", group.group.clone()), ("topic", lag.topic.clone()), ("partition", partition)]
                };
                group.partitions.iter().map(|lag| (labels(lag), value(lag))).collect()
            };
            groups.iter().flat_map(of_group).take(GROUP_PARTITIONS_MAX)
        };
        out.gauges("chronik_group_lag", "Records the group has still to read", pairs(|lag| lag.lag))?;
        out.gauges("chronik_group_committed_offset", "Offset the group committed", pairs(|lag| lag.committed))?;
        let all: usize = groups.iter().map(|group| group.partitions.len()).sum();
        let omitted = all.saturating_sub(GROUP_PARTITIONS_MAX) as i64;
        out.gauge("chronik_group_partitions_omitted", "Group partitions too many to be shown one by one", omitted)
    }
}

/// Writes families of metrics.
struct Families<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Families<'_> {
    fn family(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        write: impl FnOnce(MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        write(self.encoder.encode_descriptor(name, help, None, kind)?)
    }

    fn family_in(
        &mut self,
        name: &str,
        help: &str,
        unit: Unit,
        kind: MetricType,
        write: impl FnOnce(MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        write(self.encoder.encode_descriptor(name, help, Some(&unit), kind)?)
    }

    fn gauge(&mut self, name: &str, help: &str, value: i64) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, |mut metric| metric.encode_gauge(&value))
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.family(name, help, MetricType::Counter, |mut metric| {
            metric.encode_counter::<NoLabelSet, u64, f64>(&value, None)
        })
    }

    fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, i64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, |mut metric| {
            values.into_iter().try_for_each(|(labels, value)| metric.encode_family(&labels)?.encode_gauge(&value))
        })
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, |mut metric| {
            values.into_iter().try_for_each(|(labels, value)| {
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(&value, None)
            })
        })
    }
}
