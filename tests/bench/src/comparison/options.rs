//! What all comparisons can be told, and what becomes of a report.

use super::{FORMAT, Fact, Report, baseline, html, summary, table};
use crate::BenchError;
use crate::contest::progress::Progress;
use crate::contest::rounds::Here;
use crate::contest::{self, Bout, Observation, Outcomes, Plan};
use crate::machine::about;
use crate::machine::window::OTHERS;
use crate::stats::Dice;
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// As many pairs as a difference needs to be judged.
const ROUNDS: usize = crate::stats::PAIRS_MIN;
const ROUNDS_MAX: usize = 1_000;
const ROUNDS_QUICK: usize = 2;
const SECONDS: f64 = 2.0;
const SECONDS_QUICK: f64 = 0.4;
/// A turn of a minute shows nothing that short ones in turns do not show better.
const SECONDS_MAX: f64 = 600.0;
const STEAL_PERCENT: f64 = 2.0;
/// CPU seconds a second that others may use before it is said: the kernel's own threads do a little for whoever is measured.
const OTHERS_MAX: f64 = 0.1;

#[derive(Args, Clone, Debug)]
pub struct Comparing {
    /// Rounds; every candidate has its turn at everything in each. Fewer than 10 judge no difference. [default: 10]
    #[arg(long, value_parser = rounds)]
    rounds: Option<usize>,
    /// How long is measured in each turn, after a warm-up. [default: 2]
    #[arg(long, value_parser = seconds)]
    seconds: Option<f64>,
    /// A short look instead of a measurement: two short rounds of a few cases.
    #[arg(long)]
    pub quick: bool,
    /// Draws the order of the turns; without it one is drawn, and printed.
    #[arg(long)]
    seed: Option<u64>,
    /// A round is made again if more of the processors' time than this was taken away by a hypervisor.
    #[arg(long, value_name = "PERCENT", default_value_t = STEAL_PERCENT, value_parser = percent)]
    steal_max: f64,
    /// Writes the whole report as JSON, what there is after each round; `-` is standard output in the end, instead of the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes the report as one self-contained page with charts, what there is after each round.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// An earlier report (`--json`): says what has changed, and whether that exceeds the noise.
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
}

fn rounds(text: &str) -> Result<usize, String> {
    let rounds = text.parse().ok().filter(|rounds| (1..=ROUNDS_MAX).contains(rounds));
    rounds.ok_or_else(|| format!("a whole number from 1 to {ROUNDS_MAX}"))
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=SECONDS_MAX).contains(seconds));
    seconds.ok_or_else(|| format!("a number from 0.1 to {SECONDS_MAX}"))
}

fn percent(text: &str) -> Result<f64, String> {
    let percent = text.parse().ok().filter(|percent| (0.0..=100.0).contains(percent));
    percent.ok_or_else(|| "a number from 0 to 100".to_owned())
}

/// What is compared.
pub struct Subject {
    pub benchmark: &'static str,
    pub candidates: Vec<String>,
    pub bouts: Vec<Bout>,
    pub conditions: Vec<Fact>,
    pub notes: Vec<String>,
}

impl Comparing {
    pub fn seconds(&self) -> f64 {
        self.seconds.unwrap_or(if self.quick { SECONDS_QUICK } else { SECONDS })
    }

    /// The seed that is given, or one that is drawn now.
    pub fn drawn(&self) -> u64 {
        self.seed.unwrap_or_else(drawn)
    }

    pub fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { ROUNDS_QUICK } else { ROUNDS })
    }

    /// Looks at files before anything is measured: what cannot be read or written is not to be noticed after an hour.
    fn baseline(&self) -> Result<Option<Report>, BenchError> {
        for path in [&self.json, &self.html].into_iter().flatten().filter(|path| *path != Path::new("-")) {
            let file = std::fs::File::options().create(true).append(true).open(path);
            file.map_err(|source| BenchError::File { doing: "write", path: path.clone(), source })?;
        }
        self.baseline.as_deref().map(baseline::read).transpose()
    }

    /// Makes all rounds, and the report.
    pub fn compare(
        &self,
        subject: Subject,
        turn: impl FnMut(usize, usize) -> Result<Vec<Observation>, BenchError>,
    ) -> Result<(), BenchError> {
        let earlier = self.baseline()?;
        let seed = self.drawn();
        let machine = about::machine();
        let plan = Plan {
            candidates: distinct(subject.candidates),
            bouts: subject.bouts,
            rounds: self.rounds(),
            seed,
            stolen_share_max: self.steal_max / 100.0,
        };
        eprintln!("{} of {}; seed {seed}", subject.benchmark, plan.candidates.join(", "));
        let (clock, began) =
            (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
        let mut progress = Progress::new(&plan);
        let report = |rounds: usize, outcomes: Outcomes| {
            let of = |outcome: &contest::Outcome| summary::case(outcome, &plan.candidates, 0, seed);
            let cases: Vec<super::Case> = outcomes.cases.iter().map(of).collect();
            let mut notes = subject.notes.clone();
            notes.extend(outcomes.notes);
            notes.extend(others(&cases));
            if rounds < plan.rounds {
                notes.push(format!("Cut off: {rounds} of {} rounds were made.", plan.rounds));
            }
            if rounds < ROUNDS {
                notes.push(format!("Fewer than {ROUNDS} rounds: figures are a look, and no difference is judged."));
            } else {
                notes.push(
                    "An interval of 95 % misses once in twenty: among many figures some differ by chance alone."
                        .to_owned(),
                );
            }
            Report {
                format: FORMAT,
                benchmark: subject.benchmark.to_owned(),
                command: command(),
                began,
                took_seconds: clock.elapsed().as_secs_f64(),
                seed,
                rounds,
                reference: plan.candidates.first().cloned().unwrap_or_default(),
                candidates: plan.candidates.clone(),
                machine: machine.iter().cloned().map(|(name, value)| Fact::new(name, value)).collect(),
                conditions: subject.conditions.clone(),
                cases,
                notes,
            }
        };
        let keep = |rounds, outcomes| {
            // What cannot be written now is told at the end, if it still cannot.
            let _ = self.write(&report(rounds, outcomes), earlier.as_ref(), seed);
        };
        let outcomes = contest::run(&plan, &mut Here, &mut progress, turn, keep)?;
        self.tell(&report(plan.rounds, outcomes), earlier.as_ref(), seed)
    }

    /// To the terminal, and to files.
    fn tell(&self, report: &Report, earlier: Option<&Report>, seed: u64) -> Result<(), BenchError> {
        if self.json_to_stdout() {
            println!("{}", serde_json::to_string_pretty(report).map_err(BenchError::Report)?);
        } else {
            print!("{}", table::text(report));
            if let Some(earlier) = earlier {
                print!("{}", baseline::text(&baseline::changes(earlier, report, seed)));
            }
        }
        self.write(report, earlier, seed)
    }

    fn json_to_stdout(&self) -> bool {
        self.json.as_deref() == Some(Path::new("-"))
    }

    fn write(&self, report: &Report, earlier: Option<&Report>, seed: u64) -> Result<(), BenchError> {
        let write = |path: &PathBuf, text: &str| {
            let written = std::fs::write(path, text);
            written.map_err(|source| BenchError::File { doing: "write", path: path.clone(), source })
        };
        if let Some(path) = self.json.as_ref().filter(|_| !self.json_to_stdout()) {
            write(path, &serde_json::to_string_pretty(report).map_err(BenchError::Report)?)?;
        }
        if let Some(path) = &self.html {
            let changes = earlier.map(|earlier| baseline::changes(earlier, report, seed));
            write(path, &html::page(report, changes.as_ref()))?;
        }
        Ok(())
    }
}

/// Whether something else was busy meanwhile.
fn others(cases: &[super::Case]) -> Option<String> {
    let figures = cases.iter().flat_map(|case| case.candidates.iter().map(move |candidate| (case, candidate)));
    let busy = figures.filter_map(|(case, candidate)| {
        let others = candidate.figures.iter().find(|figure| figure.name == OTHERS.name)?;
        Some((others.median, case, candidate))
    });
    let (most, case, candidate) = busy.max_by(|one, other| one.0.total_cmp(&other.0))?;
    (most > OTHERS_MAX).then(|| {
        format!(
            "Something else was busy: up to {most:.2} CPU seconds a second ({}, {}) were used by neither what was measured nor its \
             clients.",
            case.name, candidate.name
        )
    })
}

/// The same candidate may be given twice, to see that it does not differ from itself.
fn distinct(names: Vec<String>) -> Vec<String> {
    let mut distinct: Vec<String> = Vec::new();
    for name in names {
        let other = |number: usize| if number == 1 { name.clone() } else { format!("{name} #{number}") };
        let free = (1..).map(other).find(|name| !distinct.contains(name));
        distinct.extend(free);
    }
    distinct
}

fn drawn() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Short enough to be typed.
    Dice(now.as_nanos() as u64 ^ u64::from(std::process::id())).roll(1 << 32)
}

/// What was typed, without the path of the program.
fn command() -> String {
    let quoted = |word: String| if word.contains(char::is_whitespace) { format!("'{word}'") } else { word };
    let words = std::env::args().skip(1).map(quoted);
    std::iter::once("chronik bench".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_candidate_twice_has_two_names() {
        let names = |given: &[&str]| distinct(given.iter().map(ToString::to_string).collect());
        assert_eq!(names(&["tcp", "quic", "tcp", "tcp"]), ["tcp", "quic", "tcp #2", "tcp #3"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_words() {
        assert_eq!(rounds("12"), Ok(12));
        assert_eq!(rounds("0"), Err("a whole number from 1 to 1000".into()));
        assert_eq!(seconds("1e9"), Err("a number from 0.1 to 600".into()));
        assert!(seconds("NaN").is_err() && percent("-1").is_err());
    }
}
