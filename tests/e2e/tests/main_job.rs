//! The main job: a real corpus through the broker, which is killed in the middle.
//!
//! Two clients write it, idempotent and each with a codec of its own, into a topic of several partitions, while groups in
//! three languages read it and members come and go. What holds at the end:
//!
//! - the log holds as many records as there are lines, and every group has read all of them: the multiset of lines is equal;
//! - so nothing that was acknowledged is missing, and nothing that was sent again is there twice;
//! - an offset that is delivered twice is the same record both times;
//! - every member of every group has read a part, and so has read while its group rebalanced.
//!
//! The clients read the corpus from pipes, through which it comes as far as the story has come: nothing here depends on who is
//! faster.

use chronik_e2e::broker::{Broker, binary};
use chronik_e2e::client::{self, Client, Running, client};
use chronik_e2e::corpus::Corpus;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;
use std::collections::HashMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const TOPIC: &str = "corpus";
const PARTITIONS: usize = 6;
/// The whole job takes a minute or two; this is for a machine that does other things as well.
const JOB_LIMIT: Duration = Duration::from_secs(900);

fn hash(line: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    line.hash(&mut hasher);
    hasher.finish()
}

/// Each line, by its hash, with how often it is in the corpus.
fn written(corpus: &Corpus) -> HashMap<u64, i64> {
    let mut counts = HashMap::new();
    for part in &corpus.parts {
        for line in BufReader::new(File::open(part).expect("the corpus")).split(b'\n') {
            *counts.entry(hash(&line.expect("the corpus"))).or_default() += 1;
        }
    }
    counts
}

/// The file to which a member of a group writes what it reads.
struct MemberFile {
    path: PathBuf,
    file: Option<BufReader<File>>,
    /// The last line as far as it is there.
    line: Vec<u8>,
    records: usize,
}

/// What the members of one group have read so far, by partition and offset.
struct Group {
    client: Client,
    files: Vec<MemberFile>,
    members: Vec<Running>,
    seen: Vec<Vec<Option<u64>>>,
    distinct: usize,
    again: usize,
}

impl Group {
    fn new(client: Client) -> Self {
        Self {
            client,
            files: Vec::new(),
            members: Vec::new(),
            seen: vec![Vec::new(); PARTITIONS],
            distinct: 0,
            again: 0,
        }
    }

    fn join(&mut self, broker: &Broker, folder: &Path, strategy: &str) {
        let path = folder.join(format!("{}-{}", self.client.name, self.files.len()));
        let (group, out) = (format!("readers-{}", self.client.name), path.display().to_string());
        let options = [("group", group.as_str()), ("topics", TOPIC), ("strategy", strategy), ("out", out.as_str())];
        self.members.push(self.client.start("group", &broker.bootstrap(), &options));
        self.files.push(MemberFile { path, file: None, line: Vec::new(), records: 0 });
    }

    /// Takes in what the members have written to their files since the last call.
    fn catch_up(&mut self) {
        for MemberFile { path, file, line, records } in &mut self.files {
            if file.is_none() {
                *file = File::open(&*path).ok().map(|file| BufReader::with_capacity(1 << 20, file));
            }
            let Some(file) = file else { continue };
            // The last line may be there in part: it stays in `line` until its end comes.
            while file.read_until(b'\n', line).expect("a readable file") > 0 && line.ends_with(b"\n") {
                let mut fields = line[..line.len() - 1].splitn(3, |&byte| byte == b'\t');
                let mut number = || -> usize {
                    let field = fields.next().and_then(|field| std::str::from_utf8(field).ok());
                    field.and_then(|field| field.parse().ok()).expect("a partition and an offset")
                };
                let (partition, offset) = (number(), number());
                *records += 1;
                let value = hash(fields.next().expect("a value"));
                let seen = &mut self.seen[partition];
                if seen.len() <= offset {
                    seen.resize(offset + 1, None);
                }
                match seen[offset] {
                    None => {
                        seen[offset] = Some(value);
                        self.distinct += 1;
                    }
                    Some(before) => {
                        let name = self.client.name;
                        assert_eq!(before, value, "{name}: another record at {partition}/{offset} than before");
                        self.again += 1;
                    }
                }
                line.clear();
            }
        }
    }
}

/// How much of the corpus the writers get to see, in fifths.
#[derive(Clone, Default)]
struct Released(Arc<AtomicUsize>);

impl Released {
    fn up_to(&self, fifths: usize) {
        self.0.store(fifths, Ordering::Relaxed);
    }

    /// Writes `part` to the pipe `to`, as far as it is released, until all of it is.
    fn pour(&self, part: &Path, lines: usize, to: PathBuf) -> JoinHandle<std::io::Result<()>> {
        let (released, part) = (self.0.clone(), part.to_owned());
        std::thread::spawn(move || {
            let mut pipe = BufWriter::new(File::options().write(true).open(to)?);
            for (number, line) in BufReader::new(File::open(part)?).split(b'\n').enumerate() {
                let fifth = number * 5 / lines;
                if released.load(Ordering::Relaxed) <= fifth {
                    pipe.flush()?;
                    while released.load(Ordering::Relaxed) <= fifth {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
                pipe.write_all(&line?)?;
                pipe.write_all(b"\n")?;
            }
            pipe.flush()
        })
    }
}

fn acked(producer: &Running) -> u64 {
    producer.events().iter().filter_map(|event| event["acked"].as_u64()).max().unwrap_or(0)
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + JOB_LIMIT;
    while !done() {
        assert!(Instant::now() < end, "waiting for {what}, which does not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What the broker's own command line says about the topic.
fn topic(broker: &Broker, words: &[&str]) -> String {
    let chronik = binary().display().to_string();
    let bootstrap = broker.bootstrap();
    let mut all = vec![chronik.as_str(), "topic", words[0], TOPIC, "--bootstrap", &bootstrap];
    all.extend(&words[1..]);
    let output = client::run(&all.into_iter().map(String::from).collect::<Vec<_>>(), b"");
    assert!(output.ok, "{}", output.stderr);
    output.stdout
}

fn records_in_log(broker: &Broker) -> u64 {
    let told: Value = serde_json::from_str(&topic(broker, &["describe", "--json"])).expect("JSON");
    let partitions = told["partitions"].as_array().expect("partitions");
    partitions.iter().map(|partition| partition["high_watermark"].as_u64().expect("an offset")).sum()
}

#[test]
#[ignore = "run by tests/run"]
fn a_corpus_survives_two_kills_of_the_broker_and_rebalancing_readers() {
    let corpus = Corpus::in_directory(&client::cache().join("corpus")).expect("a corpus");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut broker = Broker::with(&["groups.initial_rebalance_delay_ms=0"]);
    let bootstrap = broker.bootstrap();
    topic(&broker, &["create", "--partitions", &PARTITIONS.to_string()]);
    let began = Instant::now();

    // The first member of each group has every partition before anything is written.
    let strategies = [("java", "cooperative-sticky"), ("franz-go", "cooperative-sticky"), ("confluent-kafka", "range")];
    let mut groups: Vec<_> =
        strategies.into_iter().filter_map(|(name, strategy)| Some((Group::new(client(name)?), strategy))).collect();
    for (group, strategy) in &mut groups {
        group.join(&broker, folder.path(), strategy);
    }
    for (group, _) in &groups {
        group.members[0].wait_for_partitions(PARTITIONS);
    }

    // Two clients write, and the readers read.
    let writers: Vec<_> = [("librdkafka", "lz4"), ("java", "zstd"), ("franz-go", "snappy")]
        .into_iter()
        .filter_map(|(name, codec)| Some((client(name)?, codec)))
        .take(corpus.parts.len())
        .collect();
    assert_eq!(writers.len(), corpus.parts.len(), "two clients to write with");
    let released = Released::default();
    released.up_to(1);
    let (mut producers, mut pipes) = (Vec::new(), Vec::new());
    for ((client, codec), part) in writers.iter().zip(&corpus.parts) {
        let pipe = folder.path().join(format!("lines-{}", client.name));
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        let file = pipe.display().to_string();
        let options = [("topic", TOPIC), ("codec", *codec), ("file", file.as_str()), ("idempotent", "true")];
        producers.push(client.start("lines", &bootstrap, &options));
        pipes.push(released.pour(part, corpus.lines.div_ceil(corpus.parts.len()), pipe));
    }
    for (group, _) in &mut groups {
        wait_until("the first records", || {
            group.catch_up();
            group.distinct > 0
        });
    }

    // A second member comes to each group, while both sides are at work.
    for (group, strategy) in &mut groups {
        group.join(&broker, folder.path(), strategy);
    }
    released.up_to(2);
    for (group, _) in &groups {
        wait_until("a share of the partitions", || !group.members[1].partitions().is_empty());
    }

    // The broker is killed twice in the middle. What is released is not the end, and more than has come by then: there are
    // requests on their way.
    released.up_to(4);
    let lines = corpus.lines as u64;
    for killed_at in [lines / 2, lines * 3 / 5] {
        wait_until("lines that are safe", || producers.iter().map(acked).sum::<u64>() >= killed_at);
        broker.kill();
        broker.restart();
    }

    // The first members leave; what is written now, only the second ones can read.
    for (group, _) in &mut groups {
        group.members.remove(0).leave();
    }
    released.up_to(5);
    for pipe in pipes {
        pipe.join().expect("no panic in it").expect("the clients read to the end");
    }
    for producer in producers {
        let name = producer.name.clone();
        let events = producer.finish();
        let end = events.last().cloned().unwrap_or_default();
        assert!(end["refused"].as_u64() == Some(0), "{name}: {end}");
    }
    println!("written in {:.0?}: {} lines", began.elapsed(), corpus.lines);
    assert_eq!(records_in_log(&broker), lines, "as many records as lines: none lost, none doubled");

    while groups.iter().any(|(group, _)| group.distinct < corpus.lines) {
        for (group, _) in &mut groups {
            group.catch_up();
        }
        let read: Vec<_> = groups.iter().map(|(group, _)| (group.client.name, group.distinct)).collect();
        assert!(began.elapsed() < JOB_LIMIT, "not everything is read of {}: {read:?}", corpus.lines);
        std::thread::sleep(Duration::from_millis(200));
    }
    let written = written(&corpus);
    for (mut group, _) in groups {
        group.members.drain(..).for_each(|member| _ = member.leave());
        group.catch_up();
        assert_eq!(group.distinct, corpus.lines, "{}: as many records as lines", group.client.name);
        let mut counts = written.clone();
        for value in group.seen.iter().flatten() {
            *counts.entry(value.expect("no offset is left out")).or_default() -= 1;
        }
        let wrong = counts.values().filter(|&&left| left != 0).count();
        assert_eq!(wrong, 0, "{}: lines that were lost or doubled", group.client.name);
        let read_by: Vec<_> = group.files.iter().map(|member| member.records).collect();
        assert!(
            read_by.iter().all(|&records| records > 0),
            "{}: a member read nothing: {read_by:?}",
            group.client.name
        );
        println!(
            "{}: {} lines by members {read_by:?}, {} delivered again",
            group.client.name, group.distinct, group.again
        );
    }
    println!("done in {:.0?}", began.elapsed());
}
