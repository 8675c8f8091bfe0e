//! What a process has used, seen from outside: nothing in it need take part.

use super::{number_after, read};
use std::path::Path;

/// As in /proc/stat.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process has used since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub peak_bytes: u64,
    /// Times that a thread waited, or was made to.
    pub context_switches: u64,
    /// None without the right to look.
    pub open_files: Option<usize>,
}

impl Usage {
    /// None if there is no such process.
    pub fn of(pid: u32) -> Option<Self> {
        Self::at(Path::new(&format!("/proc/{pid}")))
    }

    fn at(directory: &Path) -> Option<Self> {
        let status = std::fs::read_to_string(directory.join("status")).ok()?;
        // Nanoseconds on the CPU, summed over the threads: finer than ticks. Threads that have ended are only in the ticks.
        let (mut cpu_ns, mut context_switches) = (0u64, 0);
        for task in std::fs::read_dir(directory.join("task")).ok()?.flatten() {
            let stat = read(task.path().join("schedstat"));
            cpu_ns += stat.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
            let status = read(task.path().join("status"));
            context_switches += number_after(&status, "voluntary_ctxt_switches:")
                + number_after(&status, "nonvoluntary_ctxt_switches:");
        }
        let ticks = ticks(&read(directory.join("stat"))) / TICKS_PER_SECOND;
        Some(Self {
            cpu_seconds: ticks.max(cpu_ns as f64 / 1e9),
            resident_bytes: number_after(&status, "VmRSS:") * 1024,
            peak_bytes: number_after(&status, "VmHWM:") * 1024,
            context_switches,
            open_files: std::fs::read_dir(directory.join("fd")).ok().map(Iterator::count),
        })
    }
}

/// User and system time, those of threads that have ended included.
fn ticks(stat: &str) -> f64 {
    // The program's name may hold anything, blanks and brackets included; behind its last bracket there are only numbers.
    let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
    let field = |place: usize| behind.split_whitespace().nth(place).and_then(|ticks| ticks.parse::<f64>().ok());
    field(11).unwrap_or(0.0) + field(12).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        assert_eq!(ticks("7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 120 30 0 0 20 0"), 150.0);
        assert_eq!(ticks(""), 0.0);
    }

    #[test]
    fn this_process_is_seen_and_one_that_is_not_there_is_not() {
        let usage = Usage::of(std::process::id()).expect("it is there");
        assert!(usage.resident_bytes > 0 && usage.peak_bytes >= usage.resident_bytes && usage.open_files > Some(2));
        assert_eq!(Usage::of(u32::MAX), None);
    }
}
