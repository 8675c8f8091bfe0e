//! `chronik-sim`: thousands of hours of a cluster's trouble, from seeds.
//!
//! ```text
//! chronik-sim --seeds 1000            as many stories, from a seed that is drawn and printed
//! chronik-sim --seed 4711 --trace     one of them, told aloud
//! ```

mod mutants;

use chronik_sim::less::{Less, shrink};
use chronik_sim::trace::Telling;
use chronik_sim::world::{Outcome, run_less};
use clap::Parser;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

// As in the broker; a story is millions of small blocks.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Tells stories of a cluster under faults, and looks whether what must hold does.
#[derive(Debug, Parser)]
#[command(name = "chronik-sim", version)]
struct Arguments {
    /// How many stories to tell.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// Stop after so many seconds, however many stories that were.
    #[arg(long)]
    seconds: Option<u64>,
    /// The first seed; drawn from the clock unless it is given.
    #[arg(long)]
    from: Option<u64>,
    /// Only this one.
    #[arg(long)]
    seed: Option<u64>,
    /// What that story is told without, as a violation says it; with --seed.
    #[arg(long, requires = "seed")]
    without: Option<Less>,
    /// Every line of the story, as it happens; with --seed.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// The facts that those who judge are told, too, if this is in their words: a topic's id, for one; with --trace.
    #[arg(long, requires = "trace")]
    about: Option<String>,
    /// Tell each story twice, and compare.
    #[arg(long)]
    twice: bool,
    /// Stories told at the same time; as many as there are processors unless it is given.
    #[arg(long)]
    jobs: Option<usize>,
    /// Go on after a violation.
    #[arg(long)]
    keep_going: bool,
    /// Stop after so many violations, and print only how many stories each took: what the proof by mutants reads.
    #[arg(long)]
    terse: Option<usize>,
    /// Switch off one guard of the production code after the other, in a copy of it, and look whether it is missed; with a
    /// name, only that one. Each is looked for several times; --seeds and --seconds bound one such search.
    #[arg(long, num_args = 0..=1, default_missing_value = "")]
    mutants: Option<String>,
    /// How often each missing guard is looked for, an odd number; with --mutants.
    #[arg(long, default_value_t = 5)]
    starts: u64,
}

/// Lines of a story that are shown for a violation.
const TAIL_LINES: usize = 60;
/// How often it is looked for stories that do not end.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A story that is still being told at so many looks has no end: most take less than a second. Looks are counted, not time, in
/// which this process may have been stopped.
const LOOKS_MAX: u32 = 300;

#[derive(Default)]
struct Sum {
    stories: u64,
    simulated: Duration,
    turns: u64,
    faults: BTreeMap<&'static str, u64>,
    seen: BTreeMap<&'static str, u64>,
    violations: Vec<(u64, u64, Outcome)>,
}

impl Sum {
    fn add(&mut self, seed: u64, place: u64, outcome: Outcome) {
        self.stories += 1;
        self.simulated += outcome.simulated;
        self.turns += outcome.turns;
        outcome.faults.iter().for_each(|(name, count)| *self.faults.entry(name).or_default() += count);
        outcome.seen.iter().for_each(|(name, count)| *self.seen.entry(name).or_default() += count);
        if outcome.violation.is_some() {
            self.violations.push((place, seed, outcome));
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(only) = &arguments.mutants {
        let Arguments { seeds: stories, seconds, jobs, starts, .. } = arguments;
        return mutants::prove(only, mutants::Most { starts: starts | 1, stories, seconds, jobs });
    }
    if let Some(seed) = arguments.seed {
        let telling = match arguments.trace {
            true => Telling::Loud { about: arguments.about },
            false => Telling::Kept,
        };
        return one(seed, telling, arguments.without.as_ref());
    }
    let drawn = || {
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        since.as_millis() as u64 % 1_000_000_000 * 1_000
    };
    let first = arguments.from.unwrap_or_else(drawn);
    if arguments.terse.is_none() {
        println!("stories from seed {first} on; --from {first} tells the same again");
    }
    let (sum, took) = many(&arguments, first);
    if arguments.terse.is_some() {
        let mut before = 0;
        let mut places: Vec<_> = sum.violations.iter().collect();
        places.sort_by_key(|(place, ..)| *place);
        for (place, _, outcome) in places {
            let rule = outcome.violation.as_ref().map_or("", |violation| violation.rule);
            println!("{} {rule}", place + 1 - before);
            before = place + 1;
        }
    } else {
        print(&sum, took);
    }
    if sum.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(seed: u64, telling: Telling, less: Option<&Less>) -> ExitCode {
    let less = less.cloned().unwrap_or_default();
    let is_loud = telling != Telling::Kept;
    let outcome = attempt(seed, telling, &less);
    match &outcome.violation {
        Some(_) => {
            if is_loud {
                println!("the trace's hash is {:016x}", outcome.trace_hash);
            } else {
                tell(seed, &outcome);
            }
            ExitCode::FAILURE
        }
        None => {
            let Outcome { described, trace_hash, simulated, turns, .. } = &outcome;
            println!(
                "seed {seed}: {described}\nall well after {simulated:?} and {turns} turns; hash {trace_hash:016x}"
            );
            ExitCode::SUCCESS
        }
    }
}

fn tell(seed: u64, outcome: &Outcome) {
    let Some(violation) = &outcome.violation else { return };
    println!("\nseed {seed} breaks a rule: {}\n  {}", violation.rule, violation.what);
    println!("  the story: {}", outcome.described);
    let (less, outcome) = &shrink(seed, outcome, violation);
    if !less.0.is_empty() {
        println!("  the same rule is broken without {less}:\n  {}", outcome.described);
    }
    println!("  faults: {}", {
        let faults: Vec<_> = outcome.faults.iter().map(|(name, count)| format!("{name} {count} times")).collect();
        if faults.is_empty() { "none".to_owned() } else { faults.join(", ") }
    });
    println!("  how it ended:");
    let skipped = outcome.tail.len().saturating_sub(TAIL_LINES);
    outcome.tail.iter().skip(skipped).for_each(|line| println!("    {line}"));
    println!("  again, and all of it: chronik-sim --seed {seed} --trace");
    if !less.0.is_empty() {
        println!("  and with less in it:  chronik-sim --seed {seed} --without {less} --trace");
    }
}

/// A story; a machine that panics has broken a rule, too.
fn attempt(seed: u64, telling: Telling, less: &Less) -> Outcome {
    std::panic::catch_unwind(|| run_less(seed, telling, less)).unwrap_or_else(|panicked| {
        let words = panicked.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panicked.downcast_ref::<&str>().map(|words| (*words).to_owned()));
        Outcome {
            violation: Some(chronik_sim::check::Violation {
                rule: "nothing panics",
                what: words.unwrap_or_else(|| "without words".into()),
            }),
            trace_hash: 0,
            tail: Vec::new(),
            described: "see the panic".into(),
            simulated: Duration::ZERO,
            turns: 0,
            faults: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    })
}

fn many(arguments: &Arguments, first: u64) -> (Sum, Duration) {
    let (began, all) = (Instant::now(), Less::default());
    let jobs = arguments.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let (next, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let sum = Mutex::new(Sum::default());
    let (told, speaker) = (Mutex::new(Instant::now()), Mutex::new(()));
    let limit = arguments.seconds.map(Duration::from_secs);
    let told_now: Mutex<BTreeMap<u64, u32>> = Mutex::default();
    let work = || {
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let late = limit.is_some_and(|limit| began.elapsed() >= limit);
            if place >= arguments.seeds || late || is_over.load(Ordering::Relaxed) {
                return;
            }
            let seed = first + place;
            lock(&told_now).insert(seed, 0);
            let mut outcome = attempt(seed, Telling::Silent, &all);
            if arguments.twice {
                let again = attempt(seed, Telling::Silent, &all);
                if again.trace_hash != outcome.trace_hash {
                    outcome.violation = Some(chronik_sim::check::Violation {
                        rule: "the same seed tells the same story",
                        what: format!("hashes {:016x} and {:016x}", outcome.trace_hash, again.trace_hash),
                    });
                }
            }
            lock(&told_now).remove(&seed);
            if outcome.violation.is_some() && arguments.terse.is_none() {
                // Again, for the words; which takes a while, in which others go on.
                let _one_at_a_time = lock(&speaker);
                tell(seed, &attempt(seed, Telling::Kept, &all));
            }
            let mut sum = lock(&sum);
            if outcome.violation.is_some() {
                let is_enough = match arguments.terse {
                    Some(most) => sum.violations.len() + 1 >= most,
                    None => !arguments.keep_going,
                };
                is_over.fetch_or(is_enough, Ordering::Relaxed);
            }
            sum.add(seed, place, outcome);
            let mut told = lock(&told);
            if arguments.terse.is_none() && told.elapsed() > Duration::from_secs(10) {
                *told = Instant::now();
                let hours = sum.simulated.as_secs_f64() / 3_600.0;
                let memory = resident_mib("VmRSS:").map_or_else(String::new, |mib| format!(", {mib} MiB"));
                println!("  {} stories, {hours:.2} hours, {} violations{memory}", sum.stories, sum.violations.len());
            }
        }
    };
    std::thread::scope(|scope| {
        let (at_work, all_done) = mpsc::channel::<()>();
        for _ in 0..jobs.max(1) {
            let at_work = at_work.clone();
            scope.spawn(move || {
                work();
                drop(at_work);
            });
        }
        drop(at_work);
        while all_done.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
            let endless = lock(&told_now).iter_mut().find_map(|(seed, looks)| {
                *looks += 1;
                (*looks > LOOKS_MAX).then_some(*seed)
            });
            if let Some(seed) = endless {
                // Its thread cannot be ended, and the others would have to wait for it.
                println!(
                    "\nseed {seed} breaks a rule: a story ends\n  again, and all of it: chronik-sim --seed {seed} --trace"
                );
                std::process::exit(1);
            }
        }
    });
    (sum.into_inner().unwrap_or_else(PoisonError::into_inner), began.elapsed())
}

/// What stands under these locks is whole whatever a panicking holder left behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What this process holds in memory, or has held at most, where the system says so.
fn resident_mib(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().next()?;
    Some(kib.parse::<u64>().ok()? / 1_024)
}

fn print(sum: &Sum, took: Duration) {
    let (hours, seconds) = (sum.simulated.as_secs_f64() / 3_600.0, took.as_secs_f64().max(0.001));
    println!("\nwhat happened");
    sum.seen.iter().for_each(|(name, count)| println!("  {count:>9}  {name}"));
    println!("faults");
    sum.faults.iter().for_each(|(name, count)| println!("  {count:>9}  {name}"));
    println!("  {:>9}  in all", sum.faults.values().sum::<u64>());
    println!(
        "\n{} stories, {hours:.2} simulated hours in {seconds:.0} s: {:.2} stories and {:.4} hours per second, {:.0} times real time, {} turns{}",
        sum.stories,
        sum.stories as f64 / seconds,
        hours / seconds,
        sum.simulated.as_secs_f64() / seconds,
        sum.turns,
        resident_mib("VmHWM:").map_or_else(String::new, |mib| format!(", {mib} MiB at most")),
    );
    let mut rules: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (_, seed, outcome) in &sum.violations {
        let rule = outcome.violation.as_ref().map_or("", |violation| violation.rule);
        rules.entry(rule).or_default().push(*seed);
    }
    for (rule, seeds) in &mut rules {
        seeds.sort_unstable();
        let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
        println!("{} times {rule}: seeds {}", seeds.len(), seeds.join(", "));
    }
    println!("{} violations", sum.violations.len());
}
