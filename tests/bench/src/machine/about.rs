//! What figures depend on besides the programs, for every report.

use super::{number_after, read};

/// Names and values, in the order in which they are shown.
pub fn machine() -> Vec<(&'static str, String)> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let info = read("/proc/cpuinfo");
    let field = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim_start_matches(|c: char| c == ':' || c.is_whitespace()).to_owned()
    };
    let mut model = field("model name");
    if model.is_empty() {
        model = format!("{} of unknown model", std::env::consts::ARCH);
    }
    let is_virtual = field("flags").split_whitespace().any(|flag| flag == "hypervisor");
    let memory = number_after(&read("/proc/meminfo"), "MemTotal:") / (1 << 20);
    let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
    let load = read("/proc/loadavg").split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    let clock = read("/sys/devices/system/clocksource/clocksource0/current_clocksource").trim().to_owned();
    vec![
        ("processors", format!("{cores}, {model}{}", if is_virtual { ", virtual" } else { "" })),
        ("memory", format!("{memory} GiB")),
        ("kernel", format!("{} {kernel}", std::env::consts::OS)),
        ("clock", clock),
        ("load before", load),
        ("chronik-bench", format!("{}{}", env!("CARGO_PKG_VERSION"), build())),
        ("librdkafka", rdkafka::util::get_rdkafka_version().1),
    ]
}

/// What makes this build another than one for releases.
fn build() -> &'static str {
    if cfg!(debug_assertions) { ", unoptimised: its figures mean nothing" } else { "" }
}
