//! `chronik-fuzz`: feeds whatever reads bytes from outside.
//!
//! ```text
//! chronik-fuzz                                all targets, a million executions each, from a seed that is drawn and printed
//! chronik-fuzz kafka --executions 10000000    one of them, for longer
//! chronik-fuzz --seconds 60                   all of them, in that time together
//! chronik-fuzz kafka --reproduce FILE|HEX     one input again, with the whole panic
//! ```

use chronik_fuzz::corpus::{from_hex, to_hex};
use chronik_fuzz::memory::Counting;
use chronik_fuzz::run::{Bounds, Finding, Report, Wrong, execute, run};
use chronik_fuzz::target::Target;
use chronik_fuzz::watch::{Desk, HUNG, LOOK_EVERY, TELL_EVERY};
use chronik_fuzz::{corpus, targets};
use clap::Parser;
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

#[global_allocator]
static COUNTING: Counting = Counting;

/// Feeds whatever reads bytes from outside with mutated messages, and looks whether what must hold does.
#[derive(Debug, Parser)]
#[command(name = "chronik-fuzz", version)]
struct Arguments {
    /// Only this target; all of them unless it is given.
    target: Option<String>,
    /// How many inputs each target is fed.
    #[arg(long, default_value_t = 1_000_000)]
    executions: u64,
    /// Stop after so many seconds, shared evenly among the targets.
    #[arg(long)]
    seconds: Option<u64>,
    /// Where chance begins; drawn from the clock unless it is given. With one job, the same seed feeds the same inputs.
    #[arg(long)]
    seed: Option<u64>,
    /// Inputs fed at the same time; as many as there are processors unless it is given.
    #[arg(long)]
    jobs: Option<usize>,
    /// One input, from a file or in hexadecimal; needs a target.
    #[arg(long, requires = "target")]
    reproduce: Option<String>,
    /// Write the shortest of the inputs that were kept into this directory, a file for each target, to begin with next time.
    #[arg(long)]
    write_corpus: Option<PathBuf>,
    /// Say the targets' names.
    #[arg(long)]
    list: bool,
}

/// What a target's corpus file may hold: the whole is part of the repository.
const CORPUS_BYTES_MAX: usize = 16 * 1024;
/// Longer findings are named by their file only.
const SHOWN_BYTES_MAX: usize = 2048;
/// Where findings are written, below the directory that this is started in.
const FINDINGS: &str = "target/fuzz";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let all = targets::all();
    if arguments.list {
        all.iter().for_each(|target| println!("{}", target.name()));
        return ExitCode::SUCCESS;
    }
    let is_asked_for = |target: &&dyn Target| arguments.target.as_ref().is_none_or(|name| target.name() == name);
    let chosen: Vec<_> = all.iter().map(|target| &**target).filter(is_asked_for).collect();
    if chosen.is_empty() {
        eprintln!("there is no such target; --list says which there are");
        return ExitCode::from(2);
    }
    if let Some(what) = &arguments.reproduce {
        return chosen.iter().map(|target| reproduce(*target, what)).next().unwrap_or(ExitCode::FAILURE);
    }
    match feed_all(&arguments, &chosen) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn reproduce(target: &dyn Target, what: &str) -> ExitCode {
    let input = match std::fs::read(what) {
        Ok(bytes) => bytes,
        Err(error) => match from_hex(what) {
            Some(bytes) => bytes,
            None => {
                eprintln!("{what} is neither hexadecimal nor a file that can be read: {error}");
                return ExitCode::from(2);
            }
        },
    };
    match execute(target, &input) {
        Ok((seen, peak)) => {
            let verdict = if seen.is_taken { "taken" } else { "refused" };
            println!("{} bytes were {verdict}, and took {peak} bytes of memory", input.len());
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            println!("{wrong}");
            ExitCode::FAILURE
        }
    }
}

/// All the chosen targets, one after the other; was nothing wrong?
fn feed_all(arguments: &Arguments, chosen: &[&dyn Target]) -> io::Result<bool> {
    let drawn = || SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64 % 1_000_000_000_000;
    let seed = arguments.seed.unwrap_or_else(drawn);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = arguments.jobs.unwrap_or(processors).max(1);
    println!("{} targets from seed {seed}; --seed {seed} --jobs {jobs} begins there again", chosen.len());
    let desks: &'static [Desk] = (0..jobs).map(|_| Desk::default()).collect::<Vec<_>>().leak();
    std::thread::spawn(move || watch(desks));

    let began = Instant::now();
    let whole = arguments.seconds.map(Duration::from_secs);
    let mut is_well = true;
    for (index, target) in chosen.iter().enumerate() {
        // What one does not need of its share the others get.
        let share = whole.map(|whole| whole.saturating_sub(began.elapsed()) / (chosen.len() - index) as u32);
        let since = Instant::now();
        let bounds = Bounds { executions: arguments.executions, until: share.map(|share| since + share) };
        let report = run(*target, bounds, seed, &starts(*target)?, desks);
        print(*target, &report, since.elapsed());
        if let Some(finding) = &report.finding {
            is_well = false;
            tell(*target, finding)?;
        }
        if let Some(directory) = &arguments.write_corpus {
            write_corpus(*target, report.kept, directory)?;
        }
    }
    Ok(is_well)
}

/// The target's own encoders' messages, and the corpus of the repository.
fn starts(target: &dyn Target) -> io::Result<Vec<Vec<u8>>> {
    let mut starts = target.seeds();
    let text = targets::corpus(target.name());
    let kept = corpus::parse(text).map_err(|line| io::Error::other(format!("the corpus' line {line} is none")))?;
    starts.extend(kept);
    Ok(starts)
}

fn print(target: &dyn Target, report: &Report, took: Duration) {
    println!(
        "{:12} {:>11} executions, {:>7.0} per second, {:>4.1} % taken, {:>5} kept, at most {} KiB held: {}",
        target.name(),
        report.executions,
        report.executions as f64 / took.as_secs_f64().max(0.001),
        report.taken as f64 * 100.0 / report.executions.max(1) as f64,
        report.kept.len(),
        report.peak_bytes.div_ceil(1024),
        if report.finding.is_none() { "well" } else { "WRONG" },
    );
}

/// Prints a finding, and writes it where `--reproduce` finds it.
fn tell(target: &dyn Target, finding: &Finding) -> io::Result<()> {
    let path = write_input(target.name(), &finding.input)?;
    println!("  {}: {}", target.name(), finding.wrong.to_string().replace('\n', "\n  "));
    if finding.input.len() <= SHOWN_BYTES_MAX {
        println!("  the input: {}", to_hex(&finding.input));
    }
    println!("  again: chronik-fuzz {} --reproduce {}", target.name(), path.display());
    Ok(())
}

fn write_input(target: &str, input: &[u8]) -> io::Result<PathBuf> {
    std::fs::create_dir_all(FINDINGS)?;
    let name = input.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        // FNV-1a: a name that the same input gets again.
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let path = Path::new(FINDINGS).join(format!("{target}-{name:016x}"));
    std::fs::write(&path, input)?;
    Ok(path)
}

/// The shortest inputs of those kept, first those that were taken, as many as a corpus file may hold.
fn write_corpus(target: &dyn Target, mut kept: Vec<Vec<u8>>, directory: &Path) -> io::Result<()> {
    let own: HashSet<_> = target.seeds().into_iter().collect();
    kept.retain(|input| !own.contains(input));
    kept.sort_by_cached_key(|input| {
        let is_refused = !execute(target, input).is_ok_and(|(seen, _)| seen.is_taken);
        (is_refused, input.len(), input.clone())
    });
    kept.dedup();
    let mut text = format!("# Inputs that told something new to `{}`, kept by --write-corpus.\n", target.name());
    for input in kept {
        if text.len() + input.len() * 2 + 1 > CORPUS_BYTES_MAX {
            break;
        }
        if !input.is_empty() {
            text.push_str(&to_hex(&input));
            text.push('\n');
        }
    }
    std::fs::write(directory.join(format!("{}.txt", target.name())), text)
}

/// Ends the process if an execution does not come back: a thread cannot be stopped from outside. Tells how far it is, too.
fn watch(desks: &[Desk]) {
    let mut told = Instant::now();
    loop {
        std::thread::sleep(LOOK_EVERY);
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            let begun: Vec<_> = desks.iter().filter_map(Desk::begun).collect();
            if let Some((name, _)) = begun.first() {
                println!("  {name}: {} executions so far", begun.iter().map(|(_, begun)| begun).sum::<u64>());
            }
        }
        if let Some((name, input)) = desks.iter().find_map(Desk::look) {
            println!("{name:12} WRONG\n  {}", Wrong::Slow(HUNG));
            match write_input(name, &input) {
                Ok(path) => println!("  again: chronik-fuzz {name} --reproduce {}", path.display()),
                Err(error) => println!("  the input: {} ({error})", to_hex(&input)),
            }
            std::process::exit(1);
        }
    }
}
