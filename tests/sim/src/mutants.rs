//! Proof that the simulator can fail: guards of the production code are taken away, one at a time, and must be missed.
//!
//! A mutant is a text in `tests/sim/mutants`: which guard, why it is there, in which file, and what is written in place of
//! what. `MUTANT` in it is true in the runs that this mutant is tried in. All are applied to one copy of the sources, never
//! to the sources; so the production crates know nothing of it, and a guard that was rewritten is said to be, since its text
//! is not found any more. Of two that change the same text the second waits for a second copy.
//!
//! Each is looked for several times, from seeds that have nothing to do with each other, and the median counts: the stories
//! until somebody misses a guard differ widely. One that stands `beside` others, which do its work when it is gone, need not
//! be missed; its text says which those are.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Between the first seeds of two searches: more than any search tells stories.
const APART: u64 = 1_000_000;
/// Stories in which nothing may be wrong while no guard is taken away.
const STORIES_WITHOUT: u64 = 50;
/// Where the copy of the executable reads which mutant it is.
const CHOSEN: &str = "CHRONIK_MUTANT";

struct Mutant {
    name: String,
    guard: String,
    /// What else guards against the same.
    beside: Option<String>,
    file: PathBuf,
    from: String,
    to: String,
}

/// Reads `guard: …`, `why: …`, `file: …` and, if it is there, `beside: …`, then the text after a line `--- has` and that after `+++ has`.
fn parse(name: &str, text: &str) -> Option<Mutant> {
    let (head, changes) = text.split_once("--- has\n")?;
    let (from, to) = changes.split_once("+++ has\n")?;
    let field = |key: &str| head.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim().to_owned());
    let (guard, _why, file) = (field("guard:")?, field("why:")?, field("file:")?);
    to.contains("MUTANT").then(|| Mutant {
        name: name.to_owned(),
        guard,
        beside: field("beside:"),
        file: file.into(),
        from: from.trim_end().into(),
        to: to.trim_end().into(),
    })
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new(".")).to_owned()
}

/// Sources only; what is there and is no source any more goes.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(to)? {
        let path = entry?.path();
        let is_source = path.file_name().is_some_and(|name| from.join(name).exists());
        match is_source {
            true => {}
            false if path.is_dir() => fs::remove_dir_all(&path)?,
            false => fs::remove_file(&path)?,
        }
    }
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
        } else {
            write(&there, &fs::read(&here)?)?;
        }
    }
    Ok(())
}

/// Times of files that are the same stay, so that not everything is built again.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|known| known == text) { Ok(()) } else { fs::write(path, text) }
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
    /// After so many stories, by these rules; a search that ended in vain is `None`.
    After { searches: Vec<Option<u64>>, rules: Vec<String> },
    /// The guard's text is not there.
    Not,
}

/// A copy of the sources, and where it is built.
struct Scratch {
    source: PathBuf,
    target: PathBuf,
}

impl Scratch {
    /// Writes the copy anew, with those mutants that go together; gives their numbers, and the others.
    fn apply<'a>(&self, mutants: Vec<&'a Mutant>) -> io::Result<(Vec<&'a Mutant>, Vec<&'a Mutant>)> {
        let mut texts: BTreeMap<&Path, String> = BTreeMap::new();
        let (mut applied, mut waiting) = (Vec::new(), Vec::new());
        for mutant in mutants {
            let text = match texts.get(&*mutant.file) {
                Some(text) => text.clone(),
                None => fs::read_to_string(root().join(&mutant.file))?,
            };
            if text.matches(&mutant.from).count() != 1 {
                waiting.push(mutant);
                continue;
            }
            applied.push(mutant);
            let of = if mutant.file.starts_with("chronik-core") { "crate" } else { "chronik_core" };
            let to = mutant.to.replace("MUTANT", &format!("{of}::mutant::is({})", applied.len()));
            texts.insert(&mutant.file, text.replace(&mutant.from, &to));
        }
        copy(&root(), &self.source)?;
        for (file, text) in texts {
            write(&self.source.join(file), text.as_bytes())?;
        }
        let head = self.source.join("chronik-core/src/lib.rs");
        let text = format!("{}\npub mod mutant;\n", fs::read_to_string(root().join("chronik-core/src/lib.rs"))?);
        write(&head, text.as_bytes())?;
        let switch = format!(
            "static CHOSEN: std::sync::LazyLock<u32> =\n    std::sync::LazyLock::new(|| std::env::var(\"{CHOSEN}\")\
             .ok().and_then(|which| which.parse().ok()).unwrap_or(0));\n\
             pub fn is(which: u32) -> bool {{ *CHOSEN == which }}\n"
        );
        write(&self.source.join("chronik-core/src/mutant.rs"), switch.as_bytes())?;
        Ok((applied, waiting))
    }

    fn build(&self) -> io::Result<()> {
        let built = Command::new("cargo")
            .args(["build", "--release", "--quiet", "--locked", "-p", "chronik-sim"])
            .current_dir(&self.source)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .output()?;
        if built.status.success() {
            return Ok(());
        }
        Err(io::Error::other(String::from_utf8_lossy(&built.stderr).into_owned()))
    }

    /// Looks for a mutant, by its number from one on, or for anything with none: from that seed on, in so many stories.
    /// Gives in which one of them which rule was broken.
    fn search(&self, which: usize, from: u64, most: Most) -> io::Result<Option<(u64, String)>> {
        let mut stories = Command::new(self.target.join("release/chronik-sim"));
        stories
            .args(["--terse", "1", "--from", &from.to_string(), "--seeds", &most.stories.to_string()])
            .env(CHOSEN, which.to_string());
        if let Some(seconds) = most.seconds {
            stories.args(["--seconds", &seconds.to_string()]);
        }
        if let Some(jobs) = most.jobs {
            stories.args(["--jobs", &jobs.to_string()]);
        }
        // What panics says so; that is a rule, too, and is told of in one line.
        let told = stories.stderr(std::process::Stdio::null()).output()?;
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        let one =
            |line: &str| line.split_once(' ').and_then(|(after, rule)| Some((after.parse().ok()?, rule.to_owned())));
        Ok(told.lines().find_map(one))
    }

    /// Searches until it is known what the median is.
    fn look_for(&self, which: usize, most: Most) -> io::Result<Found> {
        let mut searches = Vec::new();
        let mut rules: BTreeMap<String, usize> = BTreeMap::new();
        for start in 0..most.starts {
            let in_vain = searches.iter().filter(|search: &&Option<u64>| search.is_none()).count() as u64;
            if in_vain > most.starts / 2 {
                break;
            }
            let found = self.search(which, start * APART, most)?;
            searches.push(found.as_ref().map(|(after, _)| *after));
            if let Some((_, rule)) = found {
                *rules.entry(rule).or_default() += 1;
            }
        }
        Ok(Found::After { searches, rules: rules.into_keys().collect() })
    }
}

/// The bounds of a search.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    /// Searches that the median is taken over; an odd number.
    pub starts: u64,
    pub stories: u64,
    pub seconds: Option<u64>,
    pub jobs: Option<usize>,
}

/// Of an odd number of searches; those in vain took longest.
fn median(searches: &[Option<u64>], starts: u64) -> Option<u64> {
    let mut sorted: Vec<u64> = searches.iter().map(|after| after.unwrap_or(u64::MAX)).collect();
    sorted.sort_unstable();
    // Where it is known before all searches are made, those that are left out do not count.
    sorted.get(usize::try_from(starts / 2).unwrap_or(0)).copied().filter(|median| *median != u64::MAX)
}

/// Tries them all, or those with that in their name; prints a table as it stands in the tests' README.
pub fn prove(only: &str, most: Most) -> ExitCode {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let target = if target.is_absolute() { target } else { root().join(target) };
    let scratch = target.join("mutants");
    let scratch = Scratch { source: scratch.join("source"), target: scratch.join("target") };
    match all().and_then(|mutants| prove_all(&scratch, &mutants, only, most)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(missed) => {
            println!("{missed} not found, and nothing stands beside them");
            ExitCode::FAILURE
        }
        Err(why) => {
            eprintln!("the mutants cannot be tried: {why}");
            ExitCode::FAILURE
        }
    }
}

fn prove_all(scratch: &Scratch, mutants: &[Mutant], only: &str, most: Most) -> io::Result<usize> {
    println!("| guard | stories until it is missed (median of {}) | by the rule |\n|---|---|---|", most.starts);
    let wanted = |mutant: &&Mutant| only.split(',').any(|only| mutant.name.contains(only));
    let mut left: Vec<&Mutant> = mutants.iter().filter(wanted).collect();
    let mut missed = 0;
    let mut say = |mutant: &Mutant, found: Found| {
        let (stories, rules) = match found {
            Found::After { searches, rules } => match median(&searches, most.starts) {
                Some(median) => {
                    let all: Vec<String> =
                        searches.iter().map(|after| after.map_or("–".into(), |after| after.to_string())).collect();
                    (format!("{median} ({})", all.join(", ")), rules.join("; "))
                }
                None => {
                    let told = searches.iter().flatten().count();
                    let beside = mutant.beside.as_ref().map(|beside| format!("not needed: {beside}"));
                    missed += usize::from(beside.is_none());
                    let some = if told > 0 { format!("{told} times: {}", rules.join("; ")) } else { String::new() };
                    (format!("more than {}", most.stories), beside.unwrap_or(some))
                }
            },
            Found::Not => {
                missed += 1;
                ("—".into(), format!("its text is not found once in {}", mutant.file.display()))
            }
        };
        println!("| {} (`{}`) | {stories} | {rules} |", mutant.guard, mutant.name);
    };
    while !left.is_empty() {
        let (applied, waiting) = scratch.apply(left)?;
        if applied.is_empty() {
            waiting.into_iter().for_each(|mutant| say(mutant, Found::Not));
            break;
        }
        scratch.build()?;
        let few = Most { stories: most.stories.min(STORIES_WITHOUT), ..most };
        if let Some((after, rule)) = scratch.search(0, 0, few)? {
            return Err(io::Error::other(format!("without any of them, after {after}: {rule}")));
        }
        for (number, mutant) in (1..).zip(applied) {
            say(mutant, scratch.look_for(number, most)?);
        }
        left = waiting;
    }
    Ok(missed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guard_is_there() {
        for mutant in all().expect("they can be read") {
            let text = fs::read_to_string(root().join(&mutant.file)).expect("a source");
            assert_eq!(text.matches(&mutant.from).count(), 1, "{}: the guard was rewritten", mutant.name);
        }
    }
}
