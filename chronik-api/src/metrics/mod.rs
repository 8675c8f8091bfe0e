//! What the broker counts about itself, and how it is shown to Prometheus.
//!
//! - [`counting`]: the handles that request paths hold: plain atomics, resolved once, never looked up per request.
//! - [`snapshot`]: what is asked for only when somebody looks: partitions, groups, storage, the process.
//! - [`stages`]: how long the stages of acknowledgements took.
//! - [`exposition`]: both together as text.
//!
//! **Invariant: the number of series is bounded.** Clients choose names of topics and groups, so each kind of label has
//! a bound beyond which totals are kept under one common name or left out, and the omission is itself a metric.

pub mod counting;
pub mod exposition;
pub mod process;
pub mod snapshot;
pub mod stages;

pub use counting::{ApiMetrics, Count, Gauge, Latency, Metrics, TopicMetrics};
pub use snapshot::{GroupSample, MetricsSource, PartitionLag, PartitionSample, Snapshot};
