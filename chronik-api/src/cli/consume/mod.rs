//! `chronik consume TOPIC`: prints records, alone or as a member of a consumer group.
//!
//! - [`format`](self::format): how a record is printed.
//! - [`reader`]: fetching from the leaders, batch by batch.
//! - [`member`]: joining a group, and committing what was printed.
//!
//! In a group, an offset is committed only after its record has been handed to standard output: whoever reads there may
//! see a record twice after a crash, and misses none.

mod format;
mod member;
mod reader;

use super::ClientArgs;
use super::client::{Client, EARLIEST, LATEST, Topic};
use super::output::Failure;
use super::signals::Asked;
use clap::Args;
use format::Format;
use member::Member;
use reader::Reader;
use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Args, Debug)]
pub(super) struct ConsumeArgs {
    topic: String,
    /// Begin with the oldest record
    #[arg(long, conflicts_with_all = ["offset", "timestamp"])]
    from_beginning: bool,
    /// Begin at this offset of each partition; a negative one counts from the end
    #[arg(long, short, allow_negative_numbers = true, conflicts_with = "timestamp")]
    offset: Option<i64>,
    /// Begin with the first record at or after this time: milliseconds since 1970, or how long ago, like 10m
    #[arg(long, short, value_name = "TIME")]
    timestamp: Option<String>,
    /// Only this partition
    #[arg(long, short, conflicts_with = "group")]
    partition: Option<i32>,
    /// Read as a member of this group, which shares the partitions, and commit what was printed
    #[arg(long, short)]
    group: Option<String>,
    /// Stop after so many records
    #[arg(long, short = 'n')]
    max_messages: Option<u64>,
    /// Stop at what is the end now, instead of waiting for more
    #[arg(long, short)]
    exit_at_end: bool,
    /// How to print a record: %t topic, %p partition, %o offset, %T timestamp, %k key, %v value, %h headers, \n, \t
    #[arg(long, short, default_value = "%v\\n", conflicts_with = "json")]
    format: String,
    #[command(flatten)]
    client: ClientArgs,
}

/// Where to begin in a partition that has no committed offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    Earliest,
    Latest,
    At(i64),
    /// So many records before the end.
    BeforeEnd(i64),
    /// The first record at or after this time, in milliseconds since 1970.
    Time(i64),
}

impl ConsumeArgs {
    fn begin(&self, now_ms: i64) -> Result<Begin, Failure> {
        if self.from_beginning {
            return Ok(Begin::Earliest);
        }
        match (self.offset, &self.timestamp) {
            (Some(offset @ 0..), _) => Ok(Begin::At(offset)),
            (Some(offset), _) => Ok(Begin::BeforeEnd(offset.saturating_neg())),
            (None, None) => Ok(Begin::Latest),
            (None, Some(text)) => match (text.parse::<i64>(), crate::config::Millis::parse(text)) {
                (Ok(time @ 0..), _) => Ok(Begin::Time(time)),
                (Err(_), Ok(ago)) if ago.0 >= 0 => Ok(Begin::Time(now_ms.saturating_sub(ago.0))),
                _ => Err(Failure::usage(format!(
                    "--timestamp {text} is neither a number of milliseconds since 1970 nor a span like 10m"
                ))),
            },
        }
    }
}

pub(super) fn run(args: ConsumeArgs) -> Result<(), Failure> {
    let format = if args.client.json { Format::Json } else { Format::template(&args.format)? };
    let begin = args.begin(crate::clock::Clock::start().wall().0)?;
    let stop = stop_when_asked()?;
    let mut client = args.client.connect()?;
    let mut topic = client.topic(&args.topic, false)?;
    if let Some(partition) = args.partition {
        if !topic.leaders.contains_key(&partition) {
            let last = topic.leaders.len().saturating_sub(1);
            return Err(Failure::usage(format!("topic {} has no partition {partition}, only 0 to {last}", args.topic)));
        }
        topic.leaders.retain(|index, _| *index == partition);
    }
    let out = Output { out: BufWriter::with_capacity(64 << 10, io::stdout().lock()), format, left: args.max_messages };
    let ends = if args.exit_at_end { Some(client.offsets(&topic, LATEST)?) } else { None };
    match args.group {
        None => alone(client, topic, begin, ends, out, &stop),
        Some(group) => in_group(client, topic, begin, ends, out, &stop, &group),
    }
}

/// Becomes true when the process is asked to stop, so that a member leaves its group instead of being missed. Whoever
/// insists ends the process at once.
fn stop_when_asked() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    let failed = |why: io::Error| Failure::failed(format!("cannot listen for signals: {why}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let mut asked = {
        let _entered = runtime.enter();
        Asked::listen().map_err(failed)?
    };
    std::thread::spawn(move || {
        runtime.block_on(async move {
            asked.once().await;
            seen.store(true, Ordering::Relaxed);
            let (_, code) = asked.again().await;
            std::process::exit(code);
        });
    });
    Ok(stop)
}

/// Standard output, until enough was printed.
struct Output<'o> {
    out: BufWriter<io::StdoutLock<'o>>,
    format: Format,
    /// Records that may still be printed; `None` if there is no bound.
    left: Option<u64>,
}

impl Output<'_> {
    fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    fn print(&mut self, record: &reader::Read<'_>) -> io::Result<()> {
        self.format.print(&mut self.out, record)?;
        self.left = self.left.map(|left| left.saturating_sub(1));
        Ok(())
    }
}

/// The offset of each partition that `begin` means.
fn begin_offsets(client: &mut Client, topic: &Topic, begin: Begin) -> Result<BTreeMap<i32, i64>, Failure> {
    let everywhere = |offset: i64| topic.leaders.keys().map(|partition| (*partition, offset)).collect();
    Ok(match begin {
        Begin::Earliest => client.offsets(topic, EARLIEST)?,
        Begin::Latest => client.offsets(topic, LATEST)?,
        Begin::At(offset) => everywhere(offset),
        Begin::BeforeEnd(count) => {
            let (starts, ends) = (client.offsets(topic, EARLIEST)?, client.offsets(topic, LATEST)?);
            let start = |partition: &i32| starts.get(partition).copied().unwrap_or(0);
            ends.iter().map(|(at, end)| (*at, end.saturating_sub(count).max(start(at)))).collect()
        }
        Begin::Time(time) => {
            let (found, ends) = (client.offsets(topic, time)?, client.offsets(topic, LATEST)?);
            // −1: nothing is as young as that, so what comes next is the first.
            let end = |partition: &i32| ends.get(partition).copied().unwrap_or(0);
            found.iter().map(|(at, offset)| (*at, if *offset < 0 { end(at) } else { *offset })).collect()
        }
    })
}

/// Whether every partition has been read up to where it ended.
fn at_end(ends: Option<&BTreeMap<i32, i64>>, positions: &BTreeMap<i32, i64>) -> bool {
    let reached = |(partition, position): (&i32, &i64)| {
        ends.and_then(|ends| ends.get(partition)).is_some_and(|end| position >= end)
    };
    ends.is_some() && positions.iter().all(reached)
}

fn alone(
    mut client: Client,
    topic: Topic,
    begin: Begin,
    ends: Option<BTreeMap<i32, i64>>,
    mut out: Output<'_>,
    stop: &AtomicBool,
) -> Result<(), Failure> {
    let positions = begin_offsets(&mut client, &topic, begin)?;
    let mut reader = Reader::new(topic, positions);
    while !stop.load(Ordering::Relaxed) && !out.is_full() && !at_end(ends.as_ref(), &reader.positions) {
        reader.poll(&mut client, |record| {
            let wanted = !out.is_full();
            if wanted {
                out.print(record)?;
            }
            Ok(wanted)
        })?;
        out.out.flush()?;
    }
    Ok(())
}

/// Reads as a member, and leaves the group however it ends, so that the others need not wait for our session.
fn in_group(
    mut client: Client,
    topic: Topic,
    begin: Begin,
    ends: Option<BTreeMap<i32, i64>>,
    mut out: Output<'_>,
    stop: &AtomicBool,
    group: &str,
) -> Result<(), Failure> {
    let mut member = Member::new(group, &topic);
    let mut begins: Option<BTreeMap<i32, i64>> = None;
    let over = |out: &Output<'_>| stop.load(Ordering::Relaxed) || out.is_full();
    let mut read_as_member = || -> Result<(), Failure> {
        'joined: while !over(&out) {
            let assigned = member.join(&mut client)?;
            let committed = super::group::committed(&mut client, group, Some(&topic))?;
            let mut positions = BTreeMap::new();
            for partition in assigned {
                let offset = match committed.get(&(topic.name.clone(), partition)) {
                    Some(offset) => *offset,
                    None => {
                        let begins = match &mut begins {
                            Some(begins) => begins,
                            none => none.insert(begin_offsets(&mut client, &topic, begin)?),
                        };
                        begins.get(&partition).copied().unwrap_or(0)
                    }
                };
                positions.insert(partition, offset);
            }
            let mut reader = Reader::new(topic.clone(), positions);
            while !over(&out) && !at_end(ends.as_ref(), &reader.positions) {
                let before = reader.positions.clone();
                let read = reader.poll(&mut client, |record| {
                    let wanted = !out.is_full();
                    if wanted {
                        out.print(record)?;
                    }
                    Ok(wanted)
                });
                out.out.flush()?;
                read?;
                let moved = reader.positions.iter().filter(|(at, position)| before.get(at) != Some(*position));
                let moved: BTreeMap<i32, i64> = moved.map(|(at, position)| (*at, *position)).collect();
                if !member.commit(&mut client, &moved)? || !member.heartbeat(&mut client)? {
                    continue 'joined;
                }
            }
            break;
        }
        Ok(())
    };
    let done = read_as_member();
    let left = member.leave(&mut client);
    // What went wrong first is what matters.
    done.and(left.map_err(Failure::from))
}
