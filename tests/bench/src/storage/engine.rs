//! An engine at work, in a process of its own.

use super::work::{Engine, Order, Seen, Work};
use crate::part::{self, Said};
use crate::stats::Latencies;
use chronik_core::wal::{Survives, WalEngine};
use chronik_plugin_check::bench::Bench;
use chronik_plugin_check::{Subject, whole};
use chronik_storage_memory::MemoryEngine;
use chronik_storage_segment::{SegmentEngine, SegmentOptions};
use std::path::Path;
use std::time::{Duration, Instant};

/// What the memory engine may take: twice what a log holds before it is emptied.
const MEMORY_BYTES: u64 = 512 << 20;
/// What is there to be read.
const READABLE_BYTES: u64 = 64 << 20;
/// … in batches of this.
const READABLE_BATCH_BYTES: usize = 64 << 10;

/// Does what it is told.
pub fn run() -> Result<(), String> {
    let done = part::order().and_then(|order| measured(&order));
    match &done {
        Ok(seen) => part::say(&Said::Ended(seen.clone())),
        Err(why) => part::say::<Seen>(&Said::Failed(why.clone())),
    }
    // Until then it can be looked at from outside.
    part::until_over();
    done.map(drop)
}

fn started(engine: &Engine, directory: &Path) -> Result<Box<dyn WalEngine>, String> {
    Ok(match engine {
        Engine::Segment => {
            Box::new(SegmentEngine::start(directory.to_owned(), SegmentOptions::default()).map_err(|why| whole(&why))?)
        }
        Engine::Memory => Box::new(MemoryEngine::new(MEMORY_BYTES)),
        Engine::Plugin { library, options } => {
            let subject = Subject { library: library.clone(), options: options.clone() };
            Box::new(subject.start(directory).map_err(|why| whole(&why))?)
        }
    })
}

fn measured(order: &Order) -> Result<Seen, String> {
    let engine = started(&order.engine, &order.directory)?;
    let survives = match engine.capabilities().survives {
        Survives::Nothing => "nothing",
        Survives::Process => "the end of the process",
        Survives::PowerLoss => "a power cut, once synced",
    };
    let survives = survives.to_owned();
    let mut bench = Bench::open(&*engine)?;
    if let Work::Read { .. } = order.work {
        for _ in 0..READABLE_BYTES / READABLE_BATCH_BYTES as u64 {
            bench.append(READABLE_BATCH_BYTES)?;
        }
    }
    let mut once = || match order.work {
        Work::Append { bytes } => bench.append(bytes).map(|()| bytes as u64),
        Work::AppendAndSync { bytes } => bench.append(bytes).and_then(|()| bench.sync()).map(|()| bytes as u64),
        Work::Read { bytes } => bench.read(bytes),
    };
    let until = Instant::now() + Duration::from_secs_f64(order.warm_up_seconds);
    while Instant::now() < until {
        once()?;
    }
    part::say::<Seen>(&Said::Begun);
    let mut latencies = Latencies::new();
    let (mut count, mut bytes, began) = (0, 0, Instant::now());
    let mut last = began;
    while last.duration_since(began).as_secs_f64() < order.seconds {
        bytes += once()?;
        count += 1;
        // One look at the clock for each.
        let now = Instant::now();
        latencies.record(now.duration_since(last));
        last = now;
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(Seen { seconds, count, bytes, latencies: latencies.counts(), survives })
}
