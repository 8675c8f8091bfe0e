//! What the boundary costs: the segment engine compiled in, and the same engine as a plug-in, in turns within one run.
//!
//! ```sh
//! cargo run --release -p chronik-plugin-segment --example boundary
//! cargo run --release -p chronik-plugin-segment --example boundary 'append 64'    # only calls with that in their name
//! ```
//!
//! They take turns in short windows, and of each kind of call what is compared is the calling thread's processor time, which
//! other work on the machine disturbs least; of appends that are waited for until they are durable, as a broker acknowledges
//! them unless it is told otherwise, it is the time that passes, since others do the most of it. The engine compiled in has two turns in each round, over logs of its own: how far
//! it differs from itself says how much the rest means. A tail that is kept in memory answers the reads, so that what is
//! measured is the call.

use bytes::Bytes;
use chronik_conformance::wal::{Log, id, run_of};
use chronik_core::batch::HEADER_BYTES;
use chronik_core::ids::Offset;
use chronik_core::wal::{OpenMode, OpenOptions, ReadRange, Run, WalEngine};
use chronik_plugin_host::{PluginEngine, PluginOptions};
use chronik_storage_segment::{SegmentEngine, SegmentOptions};
use futures::executor::block_on;
use rustix::time::{ClockId, clock_gettime};
use std::cell::Cell;
use std::env;
use std::hint::black_box;
use std::time::{Duration, Instant};

// As in the broker.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One engine's turn at one kind of call.
const WINDOW: Duration = Duration::from_millis(15);
const ROUNDS: usize = 180;
/// A log is emptied when it holds so much.
const LOG_BYTES_MAX: u64 = 128 << 20;

type Call<'a> = dyn Fn(&Side) + 'a;

struct Side {
    engine: Box<dyn WalEngine>,
    log: Log,
    /// Known here, so that an append is measured without asking where it goes.
    end: Cell<i64>,
    bytes: Cell<u64>,
}

impl Side {
    fn over(engine: impl WalEngine + 'static) -> Self {
        let options = OpenOptions { mode: OpenMode::CreateNew, segment_bytes: 64 << 20 };
        let wal = block_on(engine.open(id(1), options)).expect("it opens");
        Self { log: Log { wal }, engine: Box::new(engine), end: Cell::new(0), bytes: Cell::new(0) }
    }

    fn append(&self, run: &Run) {
        let end = Offset(self.end.get());
        let ordered = self.log.order(Run { base: end, next_offset: end + 1, ..run.clone() }).expect("it takes it");
        self.log.wal.write_queued();
        block_on(ordered).expect("it is written");
        self.end.set(end.0 + 1);
        self.bytes.set(self.bytes.get() + run.bytes.len() as u64);
    }

    fn append_durably(&self, run: &Run) {
        self.append(run);
        block_on(self.log.sync());
    }

    fn empty(&self) {
        block_on(self.log.reset(0)).expect("it empties");
        self.end.set(0);
        self.bytes.set(0);
    }

    fn read(&self, bytes: usize) {
        let end = Offset(self.end.get());
        let range = ReadRange { from: Offset(end.0 - 1), upto: end, max_bytes: bytes, min_one: true };
        black_box(block_on(self.log.try_read(range)).expect("it reads"));
    }

    /// Nanoseconds per call.
    fn window(&self, clock: Clock, call: &Call<'_>) -> f64 {
        if self.bytes.get() > LOG_BYTES_MAX {
            self.empty();
            self.append(&batch_of(64 << 10));
        }
        let (began, mut calls) = (Instant::now(), 0u32);
        let before = clock.now();
        while began.elapsed() < WINDOW {
            call(self);
            calls += 1;
        }
        (clock.now() - before).as_nanos() as f64 / f64::from(calls)
    }
}

/// A run as leaders append it: the header of its batch, which they have stamped, and the records as they came.
fn batch_of(bytes: usize) -> Run {
    let content = run_of(0, 1, 0, 0, bytes).bytes.to_bytes();
    let parts = [Bytes::copy_from_slice(&content[..HEADER_BYTES]), content.slice(HEADER_BYTES..)];
    Run { bytes: parts.into_iter().collect(), ..run_of(0, 1, 0, 0, 0) }
}

/// What of a call is compared.
#[derive(Clone, Copy)]
enum Clock {
    /// Processor time of this thread, which does all of an uncontended append and of a read from memory.
    Busy,
    Wall,
}

impl Clock {
    fn now(self) -> Duration {
        let time = clock_gettime(match self {
            Clock::Busy => ClockId::ThreadCPUTime,
            Clock::Wall => ClockId::Monotonic,
        });
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
}

/// The median, and between which values it lies with 95 % (order statistics, by the normal approximation).
fn median(mut of: Vec<f64>) -> (f64, f64, f64) {
    of.sort_unstable_by(f64::total_cmp);
    let (half, far) = (of.len() as f64 / 2.0, 0.98 * (of.len() as f64).sqrt());
    let at = |place: f64| of[(place.max(0.0) as usize).min(of.len() - 1)];
    (at(half), at(half - far), at(half + far))
}

/// How one side's windows compare to the other's of the same rounds.
fn compared(one: &[f64], other: &[f64]) -> String {
    let (adds, ..) = median(one.iter().zip(other).map(|(one, other)| one - other).collect());
    let (ratio, low, high) = median(one.iter().zip(other).map(|(one, other)| one / other).collect());
    format!("{adds:>6.0} ns  {ratio:.3} ({low:.3} to {high:.3})")
}

fn main() {
    let place = tempfile::tempdir().expect("a directory");
    let program = env::current_exe().expect("a program has a file");
    // Cargo builds it for the example, and leaves it there.
    let library = program
        .ancestors()
        .nth(2)
        .expect("in target")
        .join("deps")
        .join(format!("libchronik_plugin_segment{}", env::consts::DLL_SUFFIX));
    assert!(library.exists(), "{} is built", library.display());
    let at = |name: &str| place.path().join(name);
    let built_in = |name: &str| SegmentEngine::start(at(name), SegmentOptions::default()).expect("it starts");
    let plugin = PluginEngine::start(PluginOptions::new(library, at("plug-in"))).expect("it starts");
    let sides = [Side::over(built_in("built-in")), Side::over(built_in("again")), Side::over(plugin)];
    let (large, small) = (batch_of(64 << 10), batch_of(200));
    let calls: [(&str, Clock, &Call<'_>); 7] = [
        ("append 64 KiB, written", Clock::Busy, &|side| side.append(&large)),
        ("append 64 KiB, durable", Clock::Wall, &|side| side.append_durably(&large)),
        ("read 64 KiB of the tail", Clock::Busy, &|side| side.read(64 << 10)),
        ("append 200 B, written", Clock::Busy, &|side| side.append(&small)),
        ("append 200 B, durable", Clock::Wall, &|side| side.append_durably(&small)),
        ("read 200 B of the tail", Clock::Busy, &|side| side.read(200)),
        ("state", Clock::Busy, &|side| _ = black_box(side.log.state())),
    ];
    println!("{:<24} {:>11}   {:<38} {:<38}", "", "compiled in", "the same again adds", "as a plug-in adds");
    sides.iter().for_each(|side| side.append(&large));
    let wanted = env::args().nth(1).unwrap_or_default();
    for (name, clock, call) in calls.into_iter().filter(|(name, ..)| name.contains(&wanted)) {
        let mut took = [const { Vec::new() }; 3];
        for round in 0..ROUNDS {
            // Every order as often as every other.
            let first = round % 3;
            let (second, third) = ((first + 1) % 3, (first + 2) % 3);
            let order = if round / 3 % 2 == 0 { [first, second, third] } else { [first, third, second] };
            for side in order {
                took[side].push(sides[side].window(clock, call));
            }
        }
        let [direct, again, through] = took;
        let (again, through) = (compared(&again, &direct), compared(&through, &direct));
        println!("{name:<24} {:>8.0} ns   {again:<38} {through:<38}", median(direct).0);
    }
    // Before the process ends, and with it what the plug-in's library has.
    sides.iter().for_each(|side| block_on(side.engine.close()).expect("it closes"));
}
