//! What the boundary costs: the segment engine compiled in, and the same engine as a plug-in, in turns within one run.
//!
//! ```sh
//! cargo run --release -p chronik-plugin-segment --example boundary
//! ```
//!
//! The two take turns in short windows, and of each kind of call the medians are compared: of the calling thread's processor
//! time, which other work on the machine disturbs least, and by the clock. A tail that is kept in memory answers the reads, so
//! that what is measured is the call.

use chronik_conformance::wal::{Log, id, run_of};
use chronik_core::ids::Offset;
use chronik_core::wal::{OpenMode, OpenOptions, ReadRange, Run, WalEngine};
use chronik_plugin_host::{PluginEngine, PluginOptions};
use chronik_storage_segment::{SegmentEngine, SegmentOptions};
use futures::executor::block_on;
use rustix::time::{ClockId, clock_gettime};
use std::env;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// One engine's turn at one kind of call.
const WINDOW: Duration = Duration::from_millis(60);
const ROUNDS: usize = 40;
/// A log is emptied when it holds so much.
const LOG_BYTES_MAX: u64 = 128 << 20;

type Call<'a> = dyn Fn(&Side) + 'a;

struct Side {
    _engine: Box<dyn WalEngine>,
    log: Log,
}

impl Side {
    fn over(engine: impl WalEngine + 'static) -> Self {
        let options = OpenOptions { mode: OpenMode::CreateNew, segment_bytes: 64 << 20 };
        let wal = block_on(engine.open(id(1), options)).expect("it opens");
        Self { log: Log { wal }, _engine: Box::new(engine) }
    }

    fn append(&self, run: &Run) {
        let state = self.log.state();
        if state.bytes > LOG_BYTES_MAX {
            block_on(self.log.reset(0)).expect("it empties");
        }
        let end = self.log.state().end;
        let ordered = self.log.order(Run { base: end, next_offset: end + 1, ..run.clone() }).expect("it takes it");
        self.log.wal.write_queued();
        block_on(ordered).expect("it is written");
    }

    fn read(&self, bytes: usize) {
        let end = self.log.state().end;
        let range = ReadRange { from: Offset(end.0 - 1), upto: end, max_bytes: bytes, min_one: true };
        black_box(block_on(self.log.try_read(range)).expect("it reads"));
    }

    /// Nanoseconds per call, by the clock and of this thread's processor time.
    fn window(&self, call: &Call<'_>) -> (f64, f64) {
        let (began, busy_before, mut calls) = (Instant::now(), busy(), 0u32);
        while began.elapsed() < WINDOW {
            call(self);
            calls += 1;
        }
        let per_call = |time: Duration| time.as_nanos() as f64 / f64::from(calls);
        (per_call(began.elapsed()), per_call(busy() - busy_before))
    }
}

/// Processor time of this thread, which does all of an uncontended append and of a read from memory.
fn busy() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_unstable_by(f64::total_cmp);
    of[of.len() / 2]
}

fn main() {
    let place = tempfile::tempdir().expect("a directory");
    let program = env::current_exe().expect("a program has a file");
    let library = program
        .ancestors()
        .nth(2)
        .expect("in target")
        .join(format!("libchronik_plugin_segment{}", env::consts::DLL_SUFFIX));
    assert!(library.exists(), "{} is built", library.display());
    let built_in = SegmentEngine::start(place.path().join("built-in"), SegmentOptions::default()).expect("it starts");
    let plugin = PluginEngine::start(PluginOptions::new(library, place.path().join("plug-in"))).expect("it starts");
    let (built_in, plugin) = (Side::over(built_in), Side::over(plugin));
    let (large, small) = (run_of(0, 1, 0, 0, 64 << 10), run_of(0, 1, 0, 0, 200));
    let calls: [(&str, &Call<'_>); 5] = [
        ("append 64 KiB, written", &|side| side.append(&large)),
        ("read 64 KiB of the tail", &|side| side.read(64 << 10)),
        ("append 200 B, written", &|side| side.append(&small)),
        ("read 200 B of the tail", &|side| side.read(200)),
        ("state", &|side| _ = black_box(side.log.state())),
    ];
    println!(
        "{:<26} {:>12} {:>12} {:>10}   {:>8} {:>12}",
        "", "compiled in", "plug-in", "adds", "ratio", "by the clock"
    );
    for (name, call) in calls {
        let (mut direct, mut through) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            // Neither is always the one that comes second.
            let order = if round % 2 == 0 { [true, false] } else { [false, true] };
            for is_direct in order {
                if is_direct {
                    direct.push(built_in.window(call));
                } else {
                    through.push(plugin.window(call));
                }
            }
        }
        let of = |side: &[(f64, f64)], which: fn(&(f64, f64)) -> f64| median(side.iter().map(which).collect());
        let (direct_busy, through_busy) = (of(&direct, |(_, busy)| *busy), of(&through, |(_, busy)| *busy));
        let by_clock = of(&through, |(clock, _)| *clock) / of(&direct, |(clock, _)| *clock);
        let (adds, ratio) = (through_busy - direct_busy, through_busy / direct_busy);
        println!(
            "{name:<26} {direct_busy:>9.0} ns {through_busy:>9.0} ns {adds:>7.0} ns   {ratio:>8.3} {by_clock:>12.3}"
        );
    }
}
