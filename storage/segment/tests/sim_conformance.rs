//! The segment engine keeps the contract on a disk that can lose its power.

mod sim;

use chronik_conformance::wal::Store;
use chronik_core::wal::WalEngine;
use chronik_storage_segment::threads::ThreadPools;
use chronik_storage_segment::{SegmentEngine, SegmentOptions};
use sim::{Dice, SimDisk};
use std::sync::Arc;

struct Simulated(SimDisk);

impl Store for Simulated {
    fn start(&self) -> Arc<dyn WalEngine> {
        let options = SegmentOptions {
            tail_cache_bytes: 4096,
            open_files_max: 8,
            write_ahead_bytes: 1000,
            ..SegmentOptions::default()
        };
        let threads = Arc::new(ThreadPools::new(2, 2));
        Arc::new(SegmentEngine::over(Arc::new(self.0.clone()), threads, options).expect("the disk is sound"))
    }

    fn after_kill(&self) -> Option<Box<dyn Store>> {
        Some(Box::new(Self(self.0.after_kill())))
    }

    fn after_power_cut(&self) -> Option<Box<dyn Store>> {
        let seed = self.0.operations();
        let left = if seed.is_multiple_of(2) { None } else { Some(Dice(seed)) };
        Some(Box::new(Self(self.0.after_power_cut(left))))
    }
}

chronik_conformance::wal_suite!(Simulated(SimDisk::new()));

/// Every sync that is small enough goes through the journal.
mod through_the_journal {
    use super::*;

    struct Journaled(SimDisk);

    impl Journaled {
        fn new() -> Self {
            let disk = SimDisk::new();
            for name in ["journal-0", "journal-1"] {
                disk.put_file(name.as_ref(), vec![0; JOURNAL_BYTES as usize]);
            }
            Self(disk)
        }
    }

    const JOURNAL_BYTES: u64 = 64 << 10;

    impl Store for Journaled {
        fn start(&self) -> Arc<dyn WalEngine> {
            let mut options = SegmentOptions { tail_cache_bytes: 4096, open_files_max: 8, ..SegmentOptions::default() };
            options.sync.journal_bytes = JOURNAL_BYTES;
            let threads = Arc::new(ThreadPools::new(2, 2));
            Arc::new(SegmentEngine::over(Arc::new(self.0.clone()), threads, options).expect("the disk is sound"))
        }

        fn after_kill(&self) -> Option<Box<dyn Store>> {
            Some(Box::new(Self(self.0.after_kill())))
        }

        fn after_power_cut(&self) -> Option<Box<dyn Store>> {
            let seed = self.0.operations();
            let left = if seed.is_multiple_of(2) { None } else { Some(Dice(seed)) };
            Some(Box::new(Self(self.0.after_power_cut(left))))
        }
    }

    chronik_conformance::wal_suite!(Journaled::new());
}
