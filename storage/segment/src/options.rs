//! What an operator may choose, with the reasons for what is chosen otherwise.

use std::time::Duration;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// How the engine shares memory, files and syncs among its logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentOptions {
    /// Bytes of written runs kept in memory to be read again, all logs together. A consumer that keeps up is served from
    /// here without a system call; one that falls behind is served from the page cache, which has them as well. So what is
    /// kept is little: with four times as much nothing that was measured was faster, and the process half as large again.
    pub tail_cache_bytes: u64,
    /// Bytes ordered but not yet with the operating system, all logs together. Beyond it appends are refused as busy: the
    /// disk is slower than the producers, and memory must not pay for it.
    pub unwritten_bytes_max: u64,
    /// Segment files kept open, all logs together. Files with unsynced data stay open beyond it.
    pub open_files_max: usize,
    /// The largest run, in bytes.
    pub run_bytes_max: u32,
    /// Room on the device that appends leave free, for what must be written to go on: truncations, small values,
    /// other files of the broker.
    pub free_bytes_min: u64,
    /// After how many bytes a log is synced and its progress noted though nobody asks. Bounds what opening after a crash
    /// reads, per log.
    pub checkpoint_bytes: u64,
    /// Zeros kept written ahead of a log's end while its syncs carry little, which makes them a third faster; zero for
    /// none. Logs that are not synced often and little have none.
    pub write_ahead_bytes: u64,
    /// Threads for reads that wait for the device.
    pub read_threads: usize,
    /// Whether what is known to be whole and still in memory may be sent from its file, unread and not checked once more.
    pub send_from_files: bool,
    pub sync: SyncPolicy,
}

/// How many waiting logs are made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncPolicy {
    /// Logs synced at the same time, one by one.
    pub threads: usize,
    /// From how many waiting logs on one sync of the whole file system replaces one for each.
    pub filesystem_from_logs: usize,
    pub filesystem: SyncFilesystem,
    /// Bytes of each of the journal's two files; zero for no journal. A full one has its logs synced once, which then
    /// serves some hundreds of rounds. Made when several logs often wait at once, and read at the start after a crash.
    pub journal_bytes: u64,
    /// After a sync of the journal that many logs shared, until the next one: zero for none. Who writes alone never waits.
    pub gather_wait: Duration,
}

/// Whether the whole file system may be synced, which makes everybody's data on it wait. Never done where the kernel does
/// not report failures of it (before Linux 5.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncFilesystem {
    Never,
    /// Where the data directory is a file system of its own.
    #[default]
    IfOwn,
    Always,
}

impl Default for SegmentOptions {
    fn default() -> Self {
        Self {
            tail_cache_bytes: 8 * MIB,
            unwritten_bytes_max: 64 * MIB,
            open_files_max: 512,
            run_bytes_max: 256 << 20,
            free_bytes_min: 16 * MIB,
            checkpoint_bytes: 64 * MIB,
            write_ahead_bytes: 256 * KIB,
            read_threads: 4,
            send_from_files: true,
            sync: SyncPolicy::default(),
        }
    }
}

impl Default for SyncPolicy {
    fn default() -> Self {
        // Measured with 1 KiB per log: 4 logs take 0.28 ms one by one and 0.26 ms together, 8 take 0.41 and 0.34, 64 take
        // 1.9 and 1.0, 1000 take 46 and 25. More than 8 threads gain nothing.
        Self {
            threads: 8,
            filesystem_from_logs: 8,
            filesystem: SyncFilesystem::default(),
            journal_bytes: 16 * MIB,
            gather_wait: Duration::from_millis(1),
        }
    }
}

/// The options contradict each other or the format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    #[error("{name} must be at least {min}")]
    TooSmall { name: &'static str, min: u64 },
    #[error("{name} may be at most {max}")]
    TooLarge { name: &'static str, max: u64 },
}

/// A run must be readable in one piece on any machine, its header included.
const RUN_BYTES_LIMIT: u64 = 1 << 30;

/// One window is one write, and the sync after it carries it.
const WRITE_AHEAD_BYTES_LIMIT: u64 = 4 * MIB;

/// Longer than any sync that could be saved by it.
const GATHER_WAIT_LIMIT: Duration = Duration::from_millis(100);

/// It is read whole at the start after a crash.
const JOURNAL_BYTES_LIMIT: u64 = 256 * MIB;

impl SegmentOptions {
    pub fn validate(&self) -> Result<(), OptionsError> {
        let at_least = |name, value: u64, min| (value >= min).then_some(()).ok_or(OptionsError::TooSmall { name, min });
        at_least("unwritten_bytes_max", self.unwritten_bytes_max, MIB)?;
        at_least("open_files_max", self.open_files_max as u64, 8)?;
        at_least("run_bytes_max", self.run_bytes_max.into(), KIB)?;
        at_least("checkpoint_bytes", self.checkpoint_bytes, MIB)?;
        if self.write_ahead_bytes > WRITE_AHEAD_BYTES_LIMIT {
            return Err(OptionsError::TooLarge { name: "write_ahead_bytes", max: WRITE_AHEAD_BYTES_LIMIT });
        }
        at_least("read_threads", self.read_threads as u64, 1)?;
        at_least("sync.threads", self.sync.threads as u64, 1)?;
        at_least("sync.filesystem_from_logs", self.sync.filesystem_from_logs as u64, 2)?;
        if self.sync.journal_bytes > 0 {
            at_least("sync.journal_bytes", self.sync.journal_bytes, 2 * MIB)?;
        }
        if self.sync.journal_bytes > JOURNAL_BYTES_LIMIT {
            return Err(OptionsError::TooLarge { name: "sync.journal_bytes", max: JOURNAL_BYTES_LIMIT });
        }
        if self.sync.gather_wait > GATHER_WAIT_LIMIT {
            let max = GATHER_WAIT_LIMIT.as_micros() as u64;
            return Err(OptionsError::TooLarge { name: "sync.gather_wait in microseconds", max });
        }
        if u64::from(self.run_bytes_max) > RUN_BYTES_LIMIT {
            return Err(OptionsError::TooLarge { name: "run_bytes_max", max: RUN_BYTES_LIMIT });
        }
        Ok(())
    }
}
