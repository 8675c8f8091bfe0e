//! The main job: a real corpus through the broker, which is killed in the middle.
//!
//! Two clients write it, idempotent and each with a codec of its own, into a topic of several partitions, while groups in
//! three languages read it and members come and go. At the end every group has read exactly the lines that were written: what
//! was acknowledged is there, what was sent again is there once. A record that is delivered twice has the same offset.

use chronik_e2e::broker::Broker;
use chronik_e2e::client::{self, Client, Running, client};
use chronik_e2e::corpus::Corpus;
use std::collections::HashMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
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

/// What the members of one group have read so far, by partition and offset.
struct Group {
    client: Client,
    files: Vec<(PathBuf, Option<BufReader<File>>, Vec<u8>)>,
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
        self.files.push((path, None, Vec::new()));
    }

    /// Takes in what the members have written to their files since the last call.
    fn catch_up(&mut self) {
        for (path, file, line) in &mut self.files {
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

fn acked(producer: &Running) -> u64 {
    producer.events().iter().filter_map(|event| event["acked"].as_u64()).max().unwrap_or(0)
}

/// Waits until the producers have been told that `count` lines are safe, and says whether they are still at work then.
fn wait_for_acked(producers: &[Running], count: u64) -> bool {
    let end = Instant::now() + JOB_LIMIT;
    loop {
        let all: u64 = producers.iter().map(acked).sum();
        let ended = producers.iter().all(|producer| producer.events().iter().any(|event| event["event"] == "produced"));
        if all >= count || ended {
            return !ended;
        }
        assert!(Instant::now() < end, "the producers do not get on: {all} lines of {count}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
#[ignore = "run by tests/run"]
fn a_corpus_survives_two_kills_of_the_broker_and_rebalancing_readers() {
    let corpus = Corpus::in_directory(&client::cache().join("corpus")).expect("a corpus");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let partitions = format!("topics.default_partitions={PARTITIONS}");
    let mut broker = Broker::with(&[&partitions, "groups.initial_rebalance_delay_ms=0"]);
    let bootstrap = broker.bootstrap();
    let began = Instant::now();

    let writers: Vec<_> = [("librdkafka", "lz4"), ("java", "zstd"), ("franz-go", "snappy")]
        .into_iter()
        .filter_map(|(name, codec)| Some((client(name)?, codec)))
        .take(corpus.parts.len())
        .collect();
    assert_eq!(writers.len(), corpus.parts.len(), "two clients to write with");
    let start = |((client, codec), part): (&(Client, &str), &PathBuf)| {
        let part = part.display().to_string();
        let options = [("topic", TOPIC), ("codec", *codec), ("file", part.as_str()), ("idempotent", "true")];
        client.start("lines", &bootstrap, &options)
    };
    let strategies = [("java", "cooperative-sticky"), ("franz-go", "cooperative-sticky"), ("confluent-kafka", "range")];
    let mut groups: Vec<_> =
        strategies.into_iter().filter_map(|(name, strategy)| Some((Group::new(client(name)?), strategy))).collect();
    let producers: Vec<_> = writers.iter().zip(&corpus.parts).map(start).collect();
    for (group, strategy) in &mut groups {
        group.join(&broker, folder.path(), strategy);
    }

    // A second member for each group; two kills while they read and the producers write; the first members leave.
    let part = corpus.lines as u64 / 5;
    wait_for_acked(&producers, part);
    for (group, strategy) in &mut groups {
        group.join(&broker, folder.path(), strategy);
    }
    for killed_at in [2 * part, 3 * part] {
        assert!(wait_for_acked(&producers, killed_at), "the broker is killed in the middle, not afterwards");
        broker.kill();
        broker.restart();
    }
    for (group, _) in &mut groups {
        group.members.remove(0).leave();
    }
    for producer in producers {
        let name = producer.name.clone();
        let events = producer.finish();
        let end = events.last().cloned().unwrap_or_default();
        assert!(end["refused"].as_u64().unwrap_or(0) == 0, "{name}: {end}");
    }
    println!("written in {:.0?}: {} lines", began.elapsed(), corpus.lines);

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
        println!("{}: {} lines, {} of them delivered again", group.client.name, group.distinct, group.again);
    }
    println!("done in {:.0?}", began.elapsed());
}
