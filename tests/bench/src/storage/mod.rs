//! `storage`: the storage engines side by side, plug-ins among them. A turn is a fresh engine in an empty directory and a process
//! of its own.

pub mod engine;
mod work;

use crate::comparison::Fact;
use crate::comparison::options::{Comparing, Subject};
use crate::contest::{Bout, Figure, Observation};
use crate::machine::Window;
use crate::part::{PATIENCE, Part, Said};
use crate::stats::Latencies;
use crate::{BenchError, broker, memory};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::time::Duration;
use work::{Engine, Order, Seen, Work};

/// How the part is called that is an engine.
pub const COMMAND: &str = "storage-engine";

const THROUGHPUT: Figure = Figure::higher("throughput", "MB/s");
const RATE: Figure = Figure::higher("operations", "1/s");
const CPU: Figure = Figure::lower("CPU", "s/GB");
const CPU_SYNC: Figure = Figure::lower("CPU, per thousand", "s");
const SWITCHES: Figure = Figure::lower("context switches, per operation", "1");
const PEAK: Figure = Figure::lower("memory at its peak", "MB");

const WARM_UP_SECONDS: f64 = 0.2;
/// A batch of one small record, of some, of many, and as large as a busy producer's can be.
const APPEND_BYTES: [usize; 4] = [200, 4 << 10, 64 << 10, 1 << 20];
/// What a consumer asks for, and what a large fetch does.
const READ_BYTES: [usize; 2] = [64 << 10, 1 << 20];

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum BuiltIn {
    Segment,
    Memory,
}

#[derive(Args, Clone, Debug)]
pub struct StorageArgs {
    #[command(flatten)]
    comparing: Comparing,
    /// Built-in engines; the first is what ratios are to.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [BuiltIn::Segment, BuiltIn::Memory])]
    engines: Vec<BuiltIn>,
    /// A plug-in's library; may be given many times.
    #[arg(long, value_name = "FILE")]
    plugin: Vec<PathBuf>,
    /// What the plug-ins' engines are told, a JSON object.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    engine_options: String,
    /// Where engines keep their data; by default the system's temporary directory, which may be on another disk or none.
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
}

fn cases(quick: bool) -> Vec<(Bout, Work)> {
    let size = crate::transports::bytes;
    let mut cases = Vec::new();
    for bytes in APPEND_BYTES.into_iter().filter(|bytes| !quick || *bytes == 64 << 10) {
        let about = format!("Batches of {}, one after the other, each waited for until it is written.", size(bytes));
        cases.push((Bout::of(format!("append {}", size(bytes)), about), Work::Append { bytes }));
    }
    for bytes in APPEND_BYTES.into_iter().filter(|bytes| !quick || *bytes == 4 << 10) {
        let about = format!("A batch of {} and a sync, one after the other, each waited for.", size(bytes));
        cases.push((Bout::of(format!("append and sync {}", size(bytes)), about), Work::AppendAndSync { bytes }));
    }
    for bytes in READ_BYTES.into_iter().filter(|bytes| !quick || *bytes == 1 << 20) {
        let about = format!(
            "A log of 64 MiB, which has just been written, in reads of {} at most, again and again.",
            size(bytes)
        );
        cases.push((Bout::of(format!("read {}", size(bytes)), about), Work::Read { bytes }));
    }
    cases
}

/// The engines by their names, in the order in which they were asked for.
fn engines(args: &StorageArgs) -> Result<Vec<(String, Engine)>, BenchError> {
    let built_in = args.engines.iter().map(|engine| match engine {
        BuiltIn::Segment => ("segment".to_owned(), Engine::Segment),
        BuiltIn::Memory => ("memory".to_owned(), Engine::Memory),
    });
    let mut engines: Vec<_> = built_in.collect();
    for path in &args.plugin {
        let failed = |source| BenchError::File { doing: "find the plug-in", path: path.clone(), source };
        let library = path.canonicalize().map_err(failed)?;
        let name = library.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        engines.push((format!("plugin {name}"), Engine::Plugin { library, options: args.engine_options.clone() }));
    }
    Ok(engines)
}

pub fn run(args: &StorageArgs) -> Result<(), BenchError> {
    if !serde_json::from_str::<serde_json::Value>(&args.engine_options).is_ok_and(|options| options.is_object()) {
        return Err(BenchError::NoObject);
    }
    let (engines, cases) = (engines(args)?, cases(args.comparing.quick));
    let seconds = args.comparing.seconds();
    let place = args.data_dir.clone().unwrap_or_else(std::env::temp_dir);
    let conditions = vec![
        Fact::new("data in", format!("{}, {}", place.display(), filesystem(&place))),
        Fact::new("durability", "each engine's own, see what its records survive"),
        Fact::new("encryption", "none"),
    ];
    let subject = Subject {
        benchmark: "storage",
        candidates: engines.iter().map(|(name, _)| name.clone()).collect(),
        bouts: cases.iter().map(|(bout, _)| bout.clone()).collect(),
        conditions,
        notes: vec![
            "One caller that waits (a closed loop): latencies are those of a log that nobody else writes to."
                .to_owned(),
        ],
    };
    args.comparing.compare(subject, |bout, candidate| {
        memory::touch(0);
        let directory = broker::directory(args.data_dir.as_deref())?;
        Ok(vec![turn(&engines[candidate].1, &directory.path().join("data"), cases[bout].1, seconds)?])
    })
}

fn turn(engine: &Engine, directory: &Path, work: Work, seconds: f64) -> Result<Observation, BenchError> {
    let order = Order {
        engine: engine.clone(),
        directory: directory.to_owned(),
        work,
        warm_up_seconds: WARM_UP_SECONDS,
        seconds,
    };
    let mut part = Part::start("the engine", COMMAND, &order)?;
    let Said::<Seen>::Begun = part.says(PATIENCE)? else { return Err(part.failed("it does not begin")) };
    let window = Window::open(&[part.pid()]);
    let ended = part.says(PATIENCE + Duration::from_secs_f64(seconds))?;
    let used = window.close();
    let Said::Ended(seen) = ended else { return Err(part.failed("it does not end")) };
    Ok(observed(&seen, work, &used))
}

fn observed(seen: &Seen, work: Work, used: &crate::machine::window::Used) -> Observation {
    let (rate, spent) = (seen.count as f64 / seen.seconds, used.together());
    let megabytes_per_second = seen.bytes as f64 / 1e6 / seen.seconds;
    let operations = rate * used.seconds;
    let shown = Observation::default();
    let mut shown = match work {
        Work::AppendAndSync { .. } => {
            shown.figure(RATE, rate).perhaps(CPU_SYNC, spent.map(|spent| spent.cpu_seconds * 1e3 / operations))
        }
        Work::Append { .. } | Work::Read { .. } => shown
            .figure(THROUGHPUT, megabytes_per_second)
            .figure(RATE, rate)
            .perhaps(CPU, spent.map(|spent| spent.cpu_seconds * 1e3 / (megabytes_per_second * used.seconds))),
    };
    shown = shown
        .perhaps(SWITCHES, spent.map(|spent| spent.context_switches as f64 / operations))
        .perhaps(PEAK, spent.map(|spent| spent.peak_bytes as f64 / 1e6));
    shown = used.busy(shown);
    shown.latencies.push(("each", Latencies::from(seen.latencies.clone())));
    shown.facts.push(("records survive", seen.survives.clone()));
    shown
}

/// The kind of filesystem of a directory, as /proc/mounts has it.
fn filesystem(directory: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let found = mounts.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (_, place, kind) = (words.next()?, words.next()?, words.next()?);
        directory.starts_with(place).then(|| (place.len(), kind.to_owned()))
    });
    found.max().map_or_else(|| "of unknown kind".to_owned(), |(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filesystem_is_that_of_the_innermost_mount() {
        assert_eq!(filesystem(Path::new("/proc/self")), "proc");
        assert_ne!(filesystem(&std::env::temp_dir()), "of unknown kind");
    }

    #[test]
    fn a_short_look_has_one_case_of_each_kind() {
        assert_eq!(cases(true).len(), 3);
        assert_eq!(cases(false).len(), 2 * APPEND_BYTES.len() + READ_BYTES.len());
    }
}
