//! A process that does to a log what it is told, line by line, and says when it is done: to be killed at it.
//!
//! Told and done in order: what was told beyond what is done has happened up to some step. A step is one line.

use crate::Subject;
use crate::subject::whole;
use chronik_conformance::wal::{Log, id, run_of};
use chronik_core::wal::{OpenMode, OpenOptions, WalEngine};
use chronik_plugin_host::PluginEngine;
use futures::executor::block_on;
use std::fmt;
use std::io::{self, BufRead, Write};
use std::path::Path;

/// Segments of its logs: small, so that a few dozen runs fill several.
const SEGMENT_BYTES: u64 = 4096;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ordered, but not waited for: what follows is. With base, records, epoch, timestamp, bytes.
    Order(i64, i64, i32, i64, usize),
    /// Waits for all that is ordered.
    Wait,
    Sync,
    Suffix(i64),
    Prefix(i64),
    Reset(i64),
    /// Sets two values at once.
    Put(String, String),
    /// Another log than the first.
    Create(u8),
    Delete(u8),
    Aside(u8),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Order(base, records, epoch, time, bytes) => {
                write!(f, "order {base} {records} {epoch} {time} {bytes}")
            }
            Step::Wait => write!(f, "wait"),
            Step::Sync => write!(f, "sync"),
            Step::Suffix(at) => write!(f, "suffix {at}"),
            Step::Prefix(at) => write!(f, "prefix {at}"),
            Step::Reset(at) => write!(f, "reset {at}"),
            Step::Put(one, other) => write!(f, "put {one} {other}"),
            Step::Create(number) => write!(f, "create {number}"),
            Step::Delete(number) => write!(f, "delete {number}"),
            Step::Aside(number) => write!(f, "aside {number}"),
        }
    }
}

impl Step {
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<_> = line.split(' ').collect();
        Some(match *words.as_slice() {
            ["order", base, records, epoch, time, bytes] => Step::Order(
                base.parse().ok()?,
                records.parse().ok()?,
                epoch.parse().ok()?,
                time.parse().ok()?,
                bytes.parse().ok()?,
            ),
            ["wait"] => Step::Wait,
            ["sync"] => Step::Sync,
            ["suffix", at] => Step::Suffix(at.parse().ok()?),
            ["prefix", at] => Step::Prefix(at.parse().ok()?),
            ["reset", at] => Step::Reset(at.parse().ok()?),
            ["put", one, other] => Step::Put(one.to_owned(), other.to_owned()),
            ["create", number] => Step::Create(number.parse().ok()?),
            ["delete", number] => Step::Delete(number.parse().ok()?),
            ["aside", number] => Step::Aside(number.parse().ok()?),
            _ => return None,
        })
    }
}

/// Does what standard input says, over a directory, and says `done` for every line on standard output.
///
/// # Errors
/// In words, what did not succeed; steps before it did.
pub fn serve(subject: &Subject, directory: &Path) -> Result<(), String> {
    let engine = subject.start(directory).map_err(|error| whole(&error))?;
    let open = OpenOptions { mode: OpenMode::CreateIfMissing, segment_bytes: SEGMENT_BYTES };
    let log = Log { wal: block_on(engine.open(id(1), open)).map_err(|error| whole(&error))? };
    let mut ordered = Vec::new();
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let step = Step::parse(&line).ok_or_else(|| format!("told {line:?}"))?;
        block_on(act(&engine, &log, step, &mut ordered)).map_err(|why| format!("{line}: {why}"))?;
        let mut out = io::stdout().lock();
        out.write_all(b"done\n").and_then(|()| out.flush()).map_err(|error| error.to_string())?;
    }
    Ok(())
}

type Ordered = chronik_core::pending::Pending<Result<chronik_core::wal::Appended, chronik_core::wal::WalError>>;

async fn act(engine: &PluginEngine, log: &Log, step: Step, ordered: &mut Vec<Ordered>) -> Result<(), String> {
    let told = |error: chronik_core::wal::WalError| whole(&error);
    match step {
        Step::Order(base, records, epoch, time, bytes) => {
            let run = run_of(base, records, epoch, time, bytes);
            ordered.push(log.order(run).map_err(|why| format!("refused: {why}"))?);
        }
        Step::Wait => {
            log.wal.write_queued();
            for append in ordered.drain(..) {
                append.await.map_err(told)?;
            }
        }
        Step::Sync => {
            log.try_sync(log.state().end).await.map_err(told)?;
        }
        Step::Suffix(at) => log.truncate_suffix(at).await.map_err(told)?,
        Step::Prefix(at) => log.truncate_prefix(at).await.map_err(told)?,
        Step::Reset(at) => log.reset(at).await.map_err(told)?,
        Step::Put(one, other) => log.put(&[("one", Some(&one)), ("other", Some(&other))]).await.map_err(told)?,
        Step::Create(number) => {
            let open = OpenOptions { mode: OpenMode::CreateNew, segment_bytes: SEGMENT_BYTES };
            engine.open(id(number), open).await.map_err(|error| whole(&error))?;
        }
        Step::Delete(number) => engine.delete(id(number)).await.map_err(|error| whole(&error))?,
        Step::Aside(number) => engine.set_aside(id(number)).await.map_err(|error| whole(&error))?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Step;

    #[test]
    fn a_step_is_told_in_a_line() {
        for step in [
            Step::Order(7, 2, 1, -1, 300),
            Step::Wait,
            Step::Sync,
            Step::Suffix(3),
            Step::Prefix(4),
            Step::Reset(5),
            Step::Put("a".into(), "b".into()),
            Step::Create(9),
            Step::Delete(9),
            Step::Aside(9),
        ] {
            assert_eq!(Step::parse(&step.to_string()), Some(step));
        }
        assert_eq!(Step::parse("order 1"), None);
    }
}
