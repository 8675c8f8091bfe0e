//! What is measured of bare links, and what a turn shows of it.

use super::pair::Measured;
use super::work::{Bulk, Probes, Work};
use crate::contest::{Bout, Figure, Observation};
use crate::stats::Latencies;

const THROUGHPUT: Figure = Figure::higher("throughput", "MB/s");
const FRAMES: Figure = Figure::higher("frames", "1/s");
const CPU: Figure = Figure::lower("CPU, both ends", "s/GB");
const CPU_SENDS: Figure = Figure::lower("CPU, who sends", "s/GB");
const CPU_RECEIVES: Figure = Figure::lower("CPU, who receives", "s/GB");
const CPU_PROBES: Figure = Figure::lower("CPU, both ends, per million round trips", "s");
const SWITCHES: Figure = Figure::lower("context switches", "1/MB");
const SWITCHES_PROBES: Figure = Figure::lower("context switches, per round trip", "1");
const WIRE: Figure = Figure::lower("bytes on the wire, per byte of payload", "1");
const PACKETS: Figure = Figure::neither("packets, per MB", "1/MB");
const ANSWERED: Figure = Figure::neither("answered", "1/s");
const LAG: Figure = Figure::neither("generator late, p99", "µs");
const PEAK: Figure = Figure::lower("memory at its peak, both ends", "MB");

/// One kind of work.
#[derive(Clone, Debug)]
pub struct LinkCase {
    pub name: String,
    pub about: String,
    pub work: Work,
}

/// What the cases are made of.
#[derive(Clone, Debug)]
pub struct Extent {
    pub frame_bytes: Vec<usize>,
    pub windows: Vec<usize>,
    pub lanes: u8,
    pub per_second: f64,
    pub quick: bool,
}

/// A heartbeat of Raft is about as long.
const HEARTBEAT_BYTES: usize = 64;
/// What goes beside heartbeats, and over many lanes: an append of the replication.
const APPEND_BYTES: usize = 64 << 10;
const APPEND_WINDOW: usize = 16;
/// The sizes of single round trips: an acknowledgement, and a small append.
const PROBE_BYTES: [usize; 2] = [256, 64 << 10];

/// All cases.
pub fn cases(extent: &Extent) -> Vec<LinkCase> {
    let mut cases = Vec::new();
    let bulk = |frame_bytes, window, lanes| Bulk { frame_bytes, window, lanes };
    let mut add = |name: String, about: String, bulk: Option<Bulk>, probes: Option<Probes>| {
        cases.push(LinkCase { name: format!("link: {name}"), about, work: Work { bulk, probes } });
    };
    let (sizes, windows, probe_sizes) = if extent.quick {
        (vec![APPEND_BYTES], vec![APPEND_WINDOW], &PROBE_BYTES[..1])
    } else {
        (extent.frame_bytes.clone(), extent.windows.clone(), &PROBE_BYTES[..])
    };
    for &size in &sizes {
        for &window in &windows {
            let about = format!(
                "One lane, frames of {} one way, {window} on their way at a time, cumulative acknowledgements the other way.",
                bytes(size)
            );
            add(format!("{} × {window}", bytes(size)), about, Some(bulk(size, window, 1)), None);
        }
    }
    if extent.lanes > 1 {
        let about = format!(
            "{} lanes at once, frames of {}, {APPEND_WINDOW} on their way on each.",
            extent.lanes,
            bytes(APPEND_BYTES)
        );
        let name = format!("{} × {APPEND_WINDOW} on {} lanes", bytes(APPEND_BYTES), extent.lanes);
        add(name, about, Some(bulk(APPEND_BYTES, APPEND_WINDOW, extent.lanes)), None);
    }
    let probes = |frame_bytes, on_bulk_lane| Probes { frame_bytes, per_second: extent.per_second, on_bulk_lane };
    let rate = extent.per_second;
    for &size in probe_sizes {
        let about =
            format!("Frames of {} at {rate} a second, each sent back; from when each was meant to leave.", bytes(size));
        add(format!("round trips of {}", bytes(size)), about, None, Some(probes(size, false)));
    }
    let beside = format!(
        "{HEARTBEAT_BYTES} B at {rate} a second, while {} × {APPEND_WINDOW} goes as fast as it can",
        bytes(APPEND_BYTES)
    );
    let appends = Some(bulk(APPEND_BYTES, APPEND_WINDOW, 1));
    add(
        "heartbeats beside bulk".into(),
        format!("{beside} on another lane: what the layer lets bulk hold up."),
        appends,
        Some(probes(HEARTBEAT_BYTES, false)),
    );
    if !extent.quick {
        add(
            "heartbeats alone".into(),
            format!("{HEARTBEAT_BYTES} B at {rate} a second and nothing else: to compare those beside bulk with."),
            None,
            Some(probes(HEARTBEAT_BYTES, false)),
        );
        add(
            "heartbeats within bulk".into(),
            format!("{beside} on the same lane: what lanes spare them."),
            appends,
            Some(probes(HEARTBEAT_BYTES, true)),
        );
    }
    cases
}

impl LinkCase {
    pub fn bout(&self) -> Bout {
        Bout::of(self.name.clone(), self.about.clone())
    }

    /// What a turn showed. `own_network`: nobody else is on the device that was counted.
    pub fn observed(&self, measured: Measured, own_network: bool) -> Observation {
        let Measured { seen, used, sockets } = measured;
        let both = used.together();
        let mut shown = Observation::default();
        let (near, far) = (used.processes.first().copied().flatten(), used.processes.get(1).copied().flatten());
        if self.work.bulk.is_some() && seen.seconds > 0.0 {
            let (megabytes, gigabytes) = (seen.bytes as f64 / 1e6, seen.bytes as f64 / 1e9);
            shown =
                shown.figure(THROUGHPUT, megabytes / seen.seconds).figure(FRAMES, seen.frames as f64 / seen.seconds);
            if seen.bytes > 0 && self.work.probes.is_none() {
                shown = shown
                    .perhaps(CPU, both.map(|both| both.cpu_seconds / gigabytes))
                    .perhaps(CPU_SENDS, near.map(|near| near.cpu_seconds / gigabytes))
                    .perhaps(CPU_RECEIVES, far.map(|far| far.cpu_seconds / gigabytes))
                    .perhaps(SWITCHES, both.map(|both| both.context_switches as f64 / megabytes));
                if own_network {
                    shown = shown
                        .perhaps(WIRE, seen.carried.map(|(bytes, _)| bytes as f64 / seen.bytes as f64))
                        .perhaps(PACKETS, seen.carried.map(|(_, packets)| packets as f64 / megabytes));
                }
            }
        }
        if let Some(probes) = &self.work.probes {
            let lag = Latencies::from(seen.lag.clone());
            let answered = seen.probes - seen.unanswered;
            shown = shown.figure(ANSWERED, answered as f64 / seen.seconds).figure(LAG, lag.micros(0.99));
            if self.work.bulk.is_none() && answered > 0 {
                shown = shown
                    .perhaps(CPU_PROBES, both.map(|both| both.cpu_seconds * 1e6 / answered as f64))
                    .perhaps(SWITCHES_PROBES, both.map(|both| both.context_switches as f64 / answered as f64));
            }
            shown.invalid = crate::contest::lag::judge(&lag, probes.per_second);
            shown.latencies.push(("round trip", Latencies::from(seen.round_trips)));
        }
        shown = used.busy(shown.perhaps(PEAK, both.map(|both| both.peak_bytes as f64 / 1e6)));
        shown.facts.push(("sockets", format!("{} at who dials, {} at who listens", sockets[0], sockets[1])));
        shown
    }
}

/// A number of bytes as it is read.
pub fn bytes(count: usize) -> String {
    match count {
        mib if mib >= 1 << 20 && mib % (1 << 20) == 0 => format!("{} MiB", mib >> 20),
        kib if kib >= 1 << 10 && kib % (1 << 10) == 0 => format!("{} KiB", kib >> 10),
        bytes => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(quick: bool) -> Extent {
        Extent { frame_bytes: vec![1024, 1 << 20], windows: vec![4, 64], lanes: 16, per_second: 1000.0, quick }
    }

    #[test]
    fn a_measurement_has_all_cases_and_a_short_look_few() {
        let names = |quick| cases(&extent(quick)).into_iter().map(|case| case.name).collect::<Vec<_>>();
        let all = names(false);
        for name in
            ["1 KiB × 4", "1 MiB × 64", "64 KiB × 16 on 16 lanes", "round trips of 64 KiB", "heartbeats within bulk"]
        {
            assert!(all.contains(&format!("link: {name}")), "{name} is not in {all:?}");
        }
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert!(names(true).len() <= 4);
    }
}
