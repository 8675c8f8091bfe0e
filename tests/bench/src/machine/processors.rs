//! What all processors together did: busy with whatever it was, idle, or taken away by a hypervisor.

use super::read;

/// /proc/stat counts in hundredths of a second, whatever the kernel's own tick is.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of all processors together, since the machine started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Processors {
    pub busy_seconds: f64,
    pub idle_seconds: f64,
    /// Wanted, and given to another machine.
    pub stolen_seconds: f64,
}

impl Processors {
    pub fn now() -> Self {
        Self::of(&read("/proc/stat"))
    }

    fn of(stat: &str) -> Self {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
        let ticks: Vec<f64> = line.split_whitespace().map(|ticks| ticks.parse().unwrap_or(0.0)).collect();
        let at = |place: usize| ticks.get(place).copied().unwrap_or(0.0) / TICKS_PER_SECOND;
        // user nice system idle iowait irq softirq steal; guests are in user and nice already.
        Self { busy_seconds: at(0) + at(1) + at(2) + at(5) + at(6), idle_seconds: at(3) + at(4), stolen_seconds: at(7) }
    }

    pub fn since(&self, before: &Self) -> Self {
        Self {
            busy_seconds: (self.busy_seconds - before.busy_seconds).max(0.0),
            idle_seconds: (self.idle_seconds - before.idle_seconds).max(0.0),
            stolen_seconds: (self.stolen_seconds - before.stolen_seconds).max(0.0),
        }
    }

    /// The part of the processors' time that was taken away.
    pub fn stolen_share(&self) -> f64 {
        let all = self.busy_seconds + self.idle_seconds + self.stolen_seconds;
        if all > 0.0 { self.stolen_seconds / all } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read() {
        let before = Processors::of("cpu  100 200 300 4000 50 6 7 80 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n");
        assert_eq!(before, Processors { busy_seconds: 6.13, idle_seconds: 40.5, stolen_seconds: 0.8 });
        let after = Processors::of("cpu  200 200 300 4000 50 6 7 180 0 0\n");
        assert_eq!(after.since(&before).stolen_share(), 0.5);
        assert_eq!(Processors::of("nothing of the kind").stolen_share(), 0.0);
    }
}
