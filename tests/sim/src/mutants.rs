//! Proof that the simulator can fail: guards of the production code are taken away, one at a time, and must be missed.
//!
//! A mutant is a text in `tests/sim/mutants`: which guard, why it is there, in which file, and what is written in place of
//! what. It is applied to a copy of the sources, never to the sources; so the production crates know nothing of it, and a
//! guard that was rewritten is said to be, since its text is not found any more.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Violations that the median is taken over.
const VIOLATIONS: usize = 5;

struct Mutant {
    name: String,
    guard: String,
    file: PathBuf,
    from: String,
    to: String,
}

/// Reads `guard: …`, `why: …`, `file: …`, then the text after a line `--- has` and that after `+++ has`.
fn parse(name: &str, text: &str) -> Option<Mutant> {
    let (head, changes) = text.split_once("--- has\n")?;
    let (from, to) = changes.split_once("+++ has\n")?;
    let field = |key: &str| head.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim().to_owned());
    let (guard, _why, file) = (field("guard:")?, field("why:")?, field("file:")?);
    Some(Mutant { name: name.to_owned(), guard, file: file.into(), from: from.into(), to: to.into() })
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new(".")).to_owned()
}

/// Sources only.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let hidden = name.to_string_lossy().starts_with('.');
        if hidden || name == OsStr::new("target") || name == OsStr::new("node_modules") {
            continue;
        }
        let (there, here) = (to.join(&name), entry.path());
        if entry.file_type()?.is_dir() {
            copy(&here, &there)?;
        } else if fs::read(&there).ok() != fs::read(&here).ok() {
            // Times of files that are the same stay, so that not everything is built again.
            fs::copy(&here, &there)?;
        }
    }
    Ok(())
}

fn all() -> io::Result<Vec<Mutant>> {
    let mut texts = BTreeMap::new();
    for entry in fs::read_dir(root().join("tests/sim/mutants"))? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        texts.insert(name, fs::read_to_string(&path)?);
    }
    let read = |(name, text): (&String, &String)| {
        parse(name, text).ok_or_else(|| io::Error::other(format!("mutant {name} cannot be read")))
    };
    texts.iter().map(read).collect()
}

/// What became of one.
enum Found {
    /// After so many stories, by these rules.
    After {
        median: u64,
        rules: Vec<String>,
    },
    Never,
    /// The guard's text is not there, or the mutant does not compile.
    Not(String),
}

fn try_one(mutant: &Mutant, scratch: &Path, seeds: u64, seconds: u64) -> io::Result<Found> {
    let path = scratch.join("source").join(&mutant.file);
    let original = fs::read_to_string(&path)?;
    if original.matches(&mutant.from).count() != 1 {
        return Ok(Found::Not(format!("its text is not found once in {}", mutant.file.display())));
    }
    fs::write(&path, original.replace(&mutant.from, &mutant.to))?;
    let outcome = run(scratch, seeds, seconds);
    fs::write(&path, original)?;
    outcome
}

fn run(scratch: &Path, seeds: u64, seconds: u64) -> io::Result<Found> {
    let target = scratch.join("target");
    let built = Command::new("cargo")
        .args(["build", "--release", "--quiet", "--locked", "-p", "chronik-sim"])
        .current_dir(scratch.join("source"))
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_INCREMENTAL", "0")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .env("RUSTFLAGS", "-Awarnings")
        .output()?;
    if !built.status.success() {
        return Ok(Found::Not(String::from_utf8_lossy(&built.stderr).into_owned()));
    }
    let told = Command::new(target.join("release/chronik-sim"))
        .args(["--terse", &VIOLATIONS.to_string(), "--from", "0", "--seeds", &seeds.to_string()])
        .args(["--seconds", &seconds.to_string()])
        .output()?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let mut gaps = Vec::new();
    let mut rules: Vec<String> = Vec::new();
    for line in told.lines() {
        if let Some((gap, rule)) = line.split_once(' ')
            && let Ok(gap) = gap.parse::<u64>()
        {
            gaps.push(gap);
            if !rules.iter().any(|known| known == rule) {
                rules.push(rule.to_owned());
            }
        }
    }
    gaps.sort_unstable();
    Ok(match gaps.get(gaps.len() / 2) {
        Some(median) => Found::After { median: *median, rules },
        None => Found::Never,
    })
}

/// Tries them all, or the one of that name; prints a table as it stands in the tests' README.
pub fn prove(only: &str, seeds: u64, seconds: u64) -> ExitCode {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let scratch = target.join("mutants");
    let prepared = copy(&root(), &scratch.join("source")).and_then(|()| all());
    let mutants = match prepared {
        Ok(mutants) => mutants,
        Err(why) => {
            eprintln!("the mutants cannot be prepared: {why}");
            return ExitCode::FAILURE;
        }
    };
    println!("| guard | stories until it is missed (median of {VIOLATIONS}) | by the rule |\n|---|---|---|");
    let mut missed = 0;
    for mutant in mutants.iter().filter(|mutant| only.is_empty() || mutant.name.contains(only)) {
        let (stories, rules) = match try_one(mutant, &scratch, seeds, seconds) {
            Ok(Found::After { median, rules }) => (median.to_string(), rules.join("; ")),
            Ok(Found::Never) => {
                missed += 1;
                (format!("not within {seeds}, nor {seconds} s"), String::new())
            }
            Ok(Found::Not(why)) => {
                missed += 1;
                ("—".into(), why)
            }
            Err(why) => {
                missed += 1;
                ("—".into(), why.to_string())
            }
        };
        println!("| {} (`{}`) | {stories} | {rules} |", mutant.guard, mutant.name);
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
