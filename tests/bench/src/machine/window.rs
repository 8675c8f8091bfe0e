//! A span of time that is measured, and what was used in it: by the processes that matter, and by the machine as a whole.

use super::{Processors, Usage};
use crate::contest::{Figure, Observation};
use std::time::Instant;

/// How busy all processors together were.
const BUSY: Figure = Figure::neither("machine busy", "CPU s/s");
/// … with what is neither measured nor the one who measures.
pub const OTHERS: Figure = Figure::neither("others busy", "CPU s/s");

/// Begun when what is to be measured is under way.
pub struct Window {
    pids: Vec<u32>,
    began: Instant,
    processors: Processors,
    before: Vec<Option<Usage>>,
    /// This process.
    own: Option<Usage>,
}

/// What was used in a window.
#[derive(Clone, Debug)]
pub struct Used {
    pub seconds: f64,
    /// CPU seconds that all processors together were busy for in each second, whoever with.
    pub machine_busy: f64,
    /// The part of it that neither these processes nor this program used; what the kernel does for them on its own is in it.
    pub others_busy: f64,
    /// In the order of the processes; None for one that is gone.
    pub processes: Vec<Option<Spent>>,
}

/// What one process used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spent {
    pub cpu_seconds: f64,
    pub context_switches: u64,
    /// Not only in the window, but up to its end.
    pub peak_bytes: u64,
}

impl Window {
    pub fn open(pids: &[u32]) -> Self {
        let before = pids.iter().map(|pid| Usage::of(*pid)).collect();
        let own = Usage::of(std::process::id());
        Self { pids: pids.to_vec(), before, own, processors: Processors::now(), began: Instant::now() }
    }

    pub fn close(self) -> Used {
        let seconds = self.began.elapsed().as_secs_f64();
        let processors = Processors::now().since(&self.processors);
        let spent = |(pid, before): (&u32, &Option<Usage>)| {
            let (before, after) = ((*before)?, Usage::of(*pid)?);
            Some(Spent {
                cpu_seconds: (after.cpu_seconds - before.cpu_seconds).max(0.0),
                context_switches: after.context_switches.saturating_sub(before.context_switches),
                peak_bytes: after.peak_bytes,
            })
        };
        let processes: Vec<Option<Spent>> = self.pids.iter().zip(&self.before).map(spent).collect();
        let this = self.own.zip(Usage::of(std::process::id()));
        let this = this.map_or(0.0, |(before, after)| (after.cpu_seconds - before.cpu_seconds).max(0.0));
        let known = this + processes.iter().flatten().map(|spent| spent.cpu_seconds).sum::<f64>();
        Used {
            seconds,
            machine_busy: processors.busy_seconds / seconds.max(1e-9),
            others_busy: (processors.busy_seconds - known).max(0.0) / seconds.max(1e-9),
            processes,
        }
    }
}

impl Used {
    /// Adds how busy the machine was to what a turn showed.
    pub fn busy(&self, shown: Observation) -> Observation {
        shown.figure(BUSY, self.machine_busy).figure(OTHERS, self.others_busy)
    }

    /// Of all its processes together; None if one is gone, or there is none.
    pub fn together(&self) -> Option<Spent> {
        let mut all = self.processes.iter().copied();
        let first = all.next()??;
        all.try_fold(first, |sum, one| {
            let one = one?;
            Some(Spent {
                cpu_seconds: sum.cpu_seconds + one.cpu_seconds,
                context_switches: sum.context_switches + one.context_switches,
                peak_bytes: sum.peak_bytes + one.peak_bytes,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_of_this_process_is_seen() {
        let window = Window::open(&[std::process::id()]);
        let began = Instant::now();
        let mut sum = 0u64;
        while began.elapsed().as_millis() < 50 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let used = window.close();
        let spent = used.together().expect("it is there");
        assert!(spent.cpu_seconds > 0.0, "{used:?}");
        assert!(used.seconds >= 0.05);
        assert!(Window::open(&[std::process::id(), u32::MAX]).close().together().is_none());
    }
}
