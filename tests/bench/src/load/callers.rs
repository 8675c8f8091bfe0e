//! Many callers that each wait for their record before they send the next: what unbatched requests cost.

use crate::BenchError;
use crate::contest::{Figure, Observation};
use crate::machine::Window;
use std::time::Duration;

const RATE: Figure = Figure::higher("throughput", "records/s");
const CPU: Figure = Figure::lower("broker CPU, per million records", "s");
const SWITCHES: Figure = Figure::lower("broker context switches, per record", "1");
const PEAK: Figure = Figure::lower("broker memory at its peak", "MB");

/// One turn; the topic has one partition or more.
pub fn observe(
    bootstrap: &str,
    topic: &str,
    acks: &'static str,
    size: usize,
    callers: usize,
    seconds: f64,
    pids: &[u32],
) -> Result<Observation, BenchError> {
    let window = Window::open(pids);
    let (rate, latencies) =
        crate::concurrent::turn(bootstrap, topic, acks, size, callers, Duration::from_secs_f64(seconds), &[])?;
    let used = window.close();
    let (together, records) = (used.together(), rate * used.seconds);
    let shown = Observation::default()
        .figure(RATE, rate)
        .perhaps(CPU, together.map(|spent| spent.cpu_seconds * 1e6 / records))
        .perhaps(SWITCHES, together.map(|spent| spent.context_switches as f64 / records))
        .perhaps(PEAK, together.map(|spent| spent.peak_bytes as f64 / 1e6));
    let shown = used.busy(shown);
    Ok(Observation { latencies: vec![("acknowledged (closed loop)", latencies)], ..shown })
}
