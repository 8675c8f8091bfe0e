//! Between turns: what the last one left to be written back is written back before the next begins, or it would pay for it.

use super::{number_after, read};
use std::time::{Duration, Instant};

/// A machine that does nothing has a little of it all the time.
const DIRTY_BYTES_MAX: u64 = 32 << 20;
/// A disk that has not done it in this time is busy with something else, which the report says.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until little is left to be written back; false if that took too long.
pub fn wait_until_written_back() -> bool {
    if dirty_bytes() <= DIRTY_BYTES_MAX {
        return true;
    }
    // By itself the kernel would wait for half a minute. It returns when the disk has it all, so it has a thread of its own.
    let syncing = std::thread::spawn(rustix::fs::sync);
    let began = Instant::now();
    while dirty_bytes() > DIRTY_BYTES_MAX || !syncing.is_finished() {
        if began.elapsed() > WAIT_MAX {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    true
}

fn dirty_bytes() -> u64 {
    dirty_in(&read("/proc/meminfo"))
}

fn dirty_in(info: &str) -> u64 {
    (number_after(info, "Dirty:") + number_after(info, "Writeback:")) * 1024
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_dirty_and_what_is_on_its_way_count() {
        let info = "MemTotal: 5 kB\nDirty:              12 kB\nWriteback:           3 kB\nWritebackTmp:        9 kB\n";
        assert_eq!(super::dirty_in(info), 15 * 1024);
    }
}
