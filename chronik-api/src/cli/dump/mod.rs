//! `chronik log dump`: what lies in a data directory, a log or a segment file, frame by frame.
//!
//! It only reads, takes no lock and repairs nothing, so it may look at a running broker's files: what is being written
//! then shows as an unfinished end. It tells such an end, which is normal, from damage, which is not.

mod segment;
mod show;

use super::output::{Failure, Table, print_json, printable};
use chronik_core::ids::{LogId, Offset, TopicId};
use chronik_proto_kafka::Uuid;
use clap::{Args, Subcommand};
use segment::{End, Segment};
use serde_json::json;
use show::Show;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(super) enum LogCommand {
    /// Print the batches of a log's directory or of a segment file; the logs of a data directory
    Dump(DumpArgs),
}

#[derive(Args, Debug)]
pub(super) struct DumpArgs {
    /// A data directory, a log's directory, or a .log file
    path: PathBuf,
    /// Print the records too
    #[arg(long, short)]
    records: bool,
    /// Begin with the batch that holds this offset
    #[arg(long, value_name = "OFFSET", default_value_t = 0, hide_default_value = true)]
    from: i64,
    /// Stop after so many batches
    #[arg(long, short = 'n')]
    max_batches: Option<u64>,
    /// Which log the files belong to, TOPICID-PARTITION, where their directory is not called so
    #[arg(long, value_name = "LOG")]
    log: Option<String>,
    /// Print JSON, an object for each batch
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: LogCommand) -> Result<(), Failure> {
    let LogCommand::Dump(args) = command;
    let unreadable = |why: io::Error| Failure::failed(format!("cannot read {}: {why}", args.path.display()));
    let path = std::fs::canonicalize(&args.path).map_err(unreadable)?;
    if path.is_file() {
        let segment = Segment::at(&path).ok_or_else(|| {
            Failure::usage(format!("{} is no segment: its name is not an offset and .log", path.display()))
        })?;
        let log = log_of(&args, path.parent())?;
        return dump(&args, log, vec![segment]);
    }
    let segments = Segment::of_log(&path).map_err(unreadable)?;
    let is_log = path.file_name().is_some_and(|name| log_named(&name.to_string_lossy()).is_some());
    if is_log || !segments.is_empty() {
        let log = log_of(&args, Some(&path))?;
        return dump(&args, log, segments);
    }
    let logs = logs_in(&path).map_err(unreadable)?;
    if logs.is_empty() {
        let what = "holds neither segments nor logs; the data directory is what node.data_dir says";
        return Err(Failure::failed(format!("{} {what}", path.display())));
    }
    list(&args, &logs)
}

/// The log that the files belong to, without which their checksums mean nothing.
fn log_of(args: &DumpArgs, dir: Option<&Path>) -> Result<LogId, Failure> {
    let name = match &args.log {
        Some(name) => name.clone(),
        None => dir.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
    };
    log_named(&name).ok_or_else(|| {
        let name = printable(&name);
        Failure::usage(format!("{name:?} is no log (32 hexadecimal digits, -, partition). Say which with --log."))
    })
}

fn log_named(name: &str) -> Option<LogId> {
    let (topic, partition) = name.rsplit_once('-')?;
    Some(LogId { topic: topic.parse().ok()?, partition: partition.parse().ok()? })
}

/// Every log in a data directory, or in the one below it that holds them, with its directory.
fn logs_in(dir: &Path) -> io::Result<Vec<(LogId, PathBuf)>> {
    let mut logs = Vec::new();
    let mut below = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        match log_named(&entry.file_name().to_string_lossy()) {
            Some(log) => logs.push((log, entry.path())),
            None if entry.file_type()?.is_dir() => below.push(entry.path()),
            None => {}
        }
    }
    if logs.is_empty() {
        for dir in below {
            for entry in std::fs::read_dir(dir)? {
                let entry = entry?;
                logs.extend(log_named(&entry.file_name().to_string_lossy()).map(|log| (log, entry.path())));
            }
        }
    }
    logs.sort();
    Ok(logs)
}

/// A topic's id as Kafka's tools show it, next to our directories' names.
fn kafka_id(topic: TopicId) -> Uuid {
    Uuid(topic.0)
}

fn list(args: &DumpArgs, logs: &[(LogId, PathBuf)]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let mut table = Table::new(&["TOPIC ID", "#PARTITION", "#SEGMENTS", "#BYTES", "#FROM", "DIRECTORY"]);
    let mut shown = Vec::new();
    for (log, dir) in logs {
        let segments =
            Segment::of_log(dir).map_err(|why| Failure::failed(format!("cannot read {}: {why}", dir.display())))?;
        let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
        let from = segments.first().map_or(Offset::ZERO, |segment| segment.base);
        if args.json {
            shown.push(json!({
                "topic_id": kafka_id(log.topic).to_string(),
                "partition": log.partition,
                "segments": segments.len(),
                "bytes": bytes,
                "first_segment": from.0,
                "directory": dir.to_string_lossy(),
            }));
        } else {
            table.row([&kafka_id(log.topic), &log.partition, &segments.len(), &bytes, &from, &dir.display()]);
        }
    }
    if args.json {
        return Ok(print_json(&mut out, &shown.into())?);
    }
    Ok(table.print(&mut out)?)
}

fn dump(args: &DumpArgs, log: LogId, segments: Vec<Segment>) -> Result<(), Failure> {
    let out = BufWriter::new(io::stdout().lock());
    let mut show = Show { out, records: args.records, json: args.json };
    let mut left = args.max_batches.unwrap_or(u64::MAX);
    let mut damaged = Vec::new();
    let last = segments.len().saturating_sub(1);
    if segments.is_empty() {
        writeln!(io::stderr(), "The log is empty: it has no segments.")?;
    }
    for (index, segment) in segments.iter().enumerate() {
        let next_base = segments.get(index + 1).map(|next| next.base.0);
        if next_base.is_some_and(|base| base <= args.from) {
            continue;
        }
        show.segment(log, segment)?;
        let unreadable = |why: io::Error| Failure::failed(format!("cannot read {}: {why}", segment.path.display()));
        let mut frames = segment.frames(log).map_err(unreadable)?;
        while left > 0 {
            let Some(frame) = frames.next().map_err(unreadable)? else { break };
            if frame.header.next_offset.0 > args.from {
                show.frame(&frame)?;
                left -= 1;
            }
            if !frame.intact {
                damaged.push(format!("{} byte {}", segment.path.display(), frame.position));
            }
        }
        if left == 0 {
            break;
        }
        let end = frames.end().map_err(unreadable)?;
        show.end(segment, &end)?;
        // Only the last segment is written to, so only there may the end be unfinished.
        if let (End::Unfinished { position, .. }, true) | (End::Damaged { position, .. }, _) = (&end, index < last) {
            damaged.push(format!("{} byte {position}", segment.path.display()));
        }
    }
    show.out.flush()?;
    if damaged.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(format!("the log is damaged:\n  {}", damaged.join("\n  "))))
}

#[cfg(test)]
mod tests;
