//! `chronik config check|print`: what would hold, without starting anything.

use super::ConfigArgs;
use super::output::{Failure, print_json};
use crate::config::Entry;
use clap::Subcommand;
use std::io::{self, Write};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say whether the broker would start with it, and if not, everything that is wrong
    Check {
        #[command(flatten)]
        source: ConfigArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show every key with its effective value and its origin, as a file that would give the same
    Print {
        #[command(flatten)]
        source: ConfigArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Add what each key is for
        #[arg(long, short)]
        verbose: bool,
    },
}

pub(super) fn run(command: ConfigCommand) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match command {
        ConfigCommand::Check { source, json: false } => {
            source.load()?;
            writeln!(out, "The configuration is right.")?;
        }
        ConfigCommand::Check { source, json: true } => {
            let sources = crate::config::Sources::of_process(source.config, source.set);
            let problems = crate::config::load(&sources).err().map(|error| error.problems).unwrap_or_default();
            let shown: Vec<_> = problems.iter().map(problem_json).collect();
            print_json(&mut out, &serde_json::json!({ "ok": shown.is_empty(), "problems": shown }))?;
            if let count @ 1.. = problems.len() {
                return Err(Failure::usage(format!("problems in the configuration: {count}")));
            }
        }
        ConfigCommand::Print { source, json: true, .. } => {
            let entries = source.load()?.entries();
            let shown: Vec<_> = entries.iter().map(entry_json).collect();
            print_json(&mut out, &shown.into())?;
        }
        ConfigCommand::Print { source, verbose, .. } => print(&source.load()?.entries(), verbose, &mut out)?,
    }
    Ok(())
}

fn problem_json(problem: &crate::config::Problem) -> serde_json::Value {
    serde_json::json!({
        "key": problem.key,
        "origin": problem.origin,
        "problem": problem.what,
        "suggestion": problem.suggestion,
    })
}

fn entry_json(entry: &Entry) -> serde_json::Value {
    serde_json::json!({
        "key": entry.key,
        "value": entry.value,
        "origin": entry.origin,
        "documentation": entry.documentation,
    })
}

/// TOML, with dotted keys so that each line stands alone, and the origin behind it.
fn print(entries: &[Entry], verbose: bool, out: &mut dyn Write) -> io::Result<()> {
    let line = |entry: &Entry| match &entry.toml {
        Some(value) => format!("{} = {value}", entry.key),
        None => format!("# {} is not set", entry.key),
    };
    // One very long value should not push all origins out of sight.
    let width = entries.iter().map(|entry| line(entry).chars().count()).filter(|width| *width < 70).max().unwrap_or(0);
    for entry in entries {
        if verbose {
            writeln!(out, "\n# {}", entry.documentation)?;
        }
        match &entry.toml {
            Some(_) => writeln!(out, "{:width$}  # {}", line(entry), entry.origin)?,
            None => writeln!(out, "{}", line(entry))?,
        }
    }
    Ok(())
}
