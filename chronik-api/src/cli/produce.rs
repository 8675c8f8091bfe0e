//! `chronik produce TOPIC`: a record for each line of standard input or of a file.
//!
//! Lines gather into a batch per partition until it is large enough or no more input is waiting, so that a pipe is sent
//! in large requests and what is typed is sent at once. A batch is sent again only after an answer that says it was not
//! appended: an answer that never came could mean either, and nothing is silently doubled.

use super::ClientArgs;
use super::client::{Client, ClientError, To, Topic, check};
use super::output::{Failure, print_json};
use crate::compression::deflate;
use chronik_core::batch::{Batch, Builder, Compression, HEADER_BYTES, LENGTH_PREFIX_BYTES, RecordOut};
use chronik_core::time::Timestamp;
use chronik_proto_kafka::api::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use chronik_proto_kafka::{ErrorCode, Records};
use clap::Args;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::path::PathBuf;

/// Uncompressed bytes at which a partition's batch is sent: well below Kafka's default of `max.message.bytes`.
const BATCH_BYTES: usize = 512 << 10;

/// Bytes of all partitions' batches together at which they are sent, however many partitions there are.
const REQUEST_BYTES: usize = 4 << 20;

/// The longest line: what a broker lets through at most by default, and more.
const LINE_BYTES_MAX: u64 = 64 << 20;

#[derive(Args, Debug)]
pub(super) struct ProduceArgs {
    topic: String,
    /// Read lines from a file instead of standard input
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Text between a record's key and its value; lines without it have no key
    #[arg(long, short, value_name = "TEXT")]
    key_separator: Option<String>,
    /// How to compress batches
    #[arg(long, short, value_enum, default_value_t = Codec::None)]
    compression: Codec,
    /// Whom to wait for
    #[arg(long, short, value_enum, default_value_t = Acks::All)]
    acks: Acks,
    /// Send everything to this partition
    #[arg(long, short)]
    partition: Option<i32>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    fn compression(self) -> Compression {
        match self {
            Self::None => Compression::None,
            Self::Gzip => Compression::Gzip,
            Self::Snappy => Compression::Snappy,
            Self::Lz4 => Compression::Lz4,
            Self::Zstd => Compression::Zstd,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Acks {
    /// Nobody: records may be lost and nobody would know
    #[value(name = "0")]
    None,
    /// The leader
    #[value(name = "1")]
    Leader,
    /// All in-sync replicas
    #[value(name = "all")]
    All,
}

impl Acks {
    fn wire(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

pub(super) fn run(args: ProduceArgs) -> Result<(), Failure> {
    let mut client = args.client.connect()?;
    let topic = client.topic(&args.topic, true)?;
    if let Some(partition) = args.partition.filter(|partition| !topic.leaders.contains_key(partition)) {
        let last = topic.leaders.len().saturating_sub(1);
        return Err(Failure::usage(format!("topic {} has no partition {partition}, only 0 to {last}", args.topic)));
    }
    let input: Box<dyn Read> = match &args.file {
        Some(path) => {
            let file =
                File::open(path).map_err(|why| Failure::failed(format!("cannot read {}: {why}", path.display())))?;
            Box::new(file)
        }
        None => {
            if io::stdin().is_terminal() {
                writeln!(io::stderr(), "Each line is a record; end with Ctrl-D.")?;
            }
            Box::new(io::stdin())
        }
    };
    let (compression, acks) = (args.compression.compression(), args.acks);
    let timeout_ms = args.client.timeout_ms();
    let sender = Sender { client: &mut client, topic, compression, acks, timeout_ms };
    let mut producing = Producing {
        sender,
        waiting: BTreeMap::new(),
        waiting_bytes: 0,
        fixed: args.partition,
        unkeyed_partition: 0,
        records: 0,
        bytes: 0,
        batches: 0,
        partitions: BTreeMap::new(),
    };
    producing.lines(BufReader::with_capacity(256 << 10, input), args.key_separator.as_deref().map(str::as_bytes))?;
    if args.client.json {
        let partitions = producing.partitions.iter().map(|(partition, offset)| {
            let offset = (acks != Acks::None).then_some(offset);
            json!({ "partition": partition, "last_base_offset": offset })
        });
        let summary = json!({
            "topic": args.topic,
            "records": producing.records,
            "bytes": producing.bytes,
            "batches": producing.batches,
            "partitions": partitions.collect::<Vec<_>>(),
        });
        print_json(&mut io::stdout().lock(), &summary)?;
    } else {
        // Standard error, so that a pipeline's output stays its own.
        writeln!(io::stderr(), "topic {}: records {}, batches {}", args.topic, producing.records, producing.batches)?;
    }
    Ok(())
}

/// Lines on their way.
struct Producing<'c> {
    sender: Sender<'c>,
    /// The batch of each partition that is not sent yet.
    waiting: BTreeMap<i32, Builder>,
    waiting_bytes: usize,
    fixed: Option<i32>,
    /// Where records without a key go, until the batch is sent: spreading them one by one makes batches of one.
    unkeyed_partition: i32,
    records: u64,
    bytes: u64,
    batches: u64,
    /// Partition → base offset of the last batch it took.
    partitions: BTreeMap<i32, i64>,
}

impl Producing<'_> {
    fn lines(&mut self, mut input: BufReader<impl Read>, separator: Option<&[u8]>) -> Result<(), Failure> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = Read::by_ref(&mut input).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            let read = read.map_err(|why| Failure::failed(format!("reading input failed: {why}")))?;
            if read == 0 {
                return self.flush();
            }
            if line.last() == Some(&b'\n') {
                line.pop();
            } else if read as u64 == LINE_BYTES_MAX {
                return Err(Failure::failed(format!("a line is longer than {} MiB", LINE_BYTES_MAX >> 20)));
            }
            self.record(&line, separator)?;
            if input.buffer().is_empty() {
                // The next read may wait for somebody to type.
                self.flush()?;
            }
        }
    }

    fn record(&mut self, line: &[u8], separator: Option<&[u8]>) -> Result<(), Failure> {
        let (key, value) = match separator.and_then(|separator| split_once(line, separator)) {
            Some((key, value)) => (Some(key), value),
            None => (None, line),
        };
        let count = i32::try_from(self.sender.topic.leaders.len()).unwrap_or(i32::MAX).max(1);
        let partition = match (self.fixed, key) {
            (Some(fixed), _) => fixed,
            (None, Some(key)) => partition_of_key(key, count),
            (None, None) => self.unkeyed_partition % count,
        };
        let batch = self.waiting.entry(partition).or_insert_with(|| Builder::new(now()));
        batch.push(&RecordOut { timestamp: Some(now()), key, value: Some(value), headers: &[] });
        self.records += 1;
        self.bytes += line.len() as u64;
        self.waiting_bytes += line.len();
        if batch.size_bytes() >= BATCH_BYTES || self.waiting_bytes >= REQUEST_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let batches: BTreeMap<i32, Batch> = std::mem::take(&mut self.waiting)
            .into_iter()
            .map(|(partition, batch)| (partition, batch.build()))
            .collect();
        self.waiting_bytes = 0;
        self.batches += batches.len() as u64;
        self.unkeyed_partition = self.unkeyed_partition.wrapping_add(1) & i32::MAX;
        let appended = self.sender.send(batches)?;
        self.partitions.extend(appended);
        Ok(())
    }
}

fn now() -> Timestamp {
    crate::clock::Clock::start().wall()
}

/// Sends batches to the leaders of their partitions.
struct Sender<'c> {
    client: &'c mut Client,
    topic: Topic,
    compression: Compression,
    acks: Acks,
    timeout_ms: i32,
}

impl Sender<'_> {
    /// Gives the base offset that each partition's batch got; −1 where nobody answers.
    fn send(&mut self, batches: BTreeMap<i32, Batch>) -> Result<BTreeMap<i32, i64>, Failure> {
        let mut compressed = BTreeMap::new();
        for (partition, batch) in batches {
            let batch = compress(batch, self.compression)
                .map_err(|why| Failure::failed(format!("compressing a batch failed: {why}")))?;
            compressed.insert(partition, batch);
        }
        let mut offsets = BTreeMap::new();
        let (acks, timeout_ms) = (self.acks, self.timeout_ms);
        let topic = &mut self.topic;
        self.client.retry(|client| {
            let mut by_leader: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
            for partition in compressed.keys() {
                by_leader.entry(topic.leaders.get(partition).copied().unwrap_or(-1)).or_default().push(*partition);
            }
            let mut refused = None;
            for (leader, partitions) in by_leader {
                let request = produce_request(topic, acks, timeout_ms, &partitions, &compressed);
                if acks == Acks::None {
                    client.tell(To::Node(leader), &request)?;
                    offsets.extend(partitions.iter().map(|partition| (*partition, -1)));
                    compressed.retain(|partition, _| !partitions.contains(partition));
                    continue;
                }
                let wait = std::time::Duration::from_millis(timeout_ms.unsigned_abs().into());
                let answer = client.ask_waiting(To::Node(leader), &request, i16::MAX, wait)?;
                for at in answer.responses.iter().flat_map(|topic| &topic.partition_responses) {
                    let doing = || format!("producing to {} partition {}", topic.name, at.index);
                    match check(at.error_code, at.error_message.as_ref(), doing) {
                        Ok(()) => {
                            offsets.insert(at.index, at.base_offset);
                            compressed.remove(&at.index);
                        }
                        Err(why) if was_not_appended(at.error_code) => refused = Some(why),
                        Err(ClientError::Refused { doing, code, message }) => {
                            // Perhaps appended: saying so is all that can be done without doubling it.
                            let message = message.unwrap_or_default();
                            let message = Some(format!("{message} (given up: the batch may have been appended)"));
                            let code = if code.is_retriable() { ErrorCode::UNKNOWN_SERVER_ERROR } else { code };
                            return Err(ClientError::Refused { doing, code, message });
                        }
                        Err(why) => return Err(why),
                    }
                }
            }
            match refused {
                None => Ok(()),
                Some(why) => {
                    if why.code().is_some_and(ErrorCode::is_retriable) {
                        *topic = client.topic(&topic.name, false)?;
                    }
                    Err(why)
                }
            }
        })?;
        Ok(offsets)
    }
}

/// Errors after which the batch is certainly in no log.
fn was_not_appended(code: i16) -> bool {
    !matches!(
        ErrorCode(code),
        ErrorCode::REQUEST_TIMED_OUT
            | ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND
            | ErrorCode::UNKNOWN_SERVER_ERROR
            | ErrorCode::NETWORK_EXCEPTION
    )
}

fn produce_request(
    topic: &Topic,
    acks: Acks,
    timeout_ms: i32,
    partitions: &[i32],
    batches: &BTreeMap<i32, Batch>,
) -> ProduceRequest {
    let data = partitions.iter().filter_map(|index| Some((index, batches.get(index)?))).map(|(index, batch)| {
        let parts = [bytes::Bytes::copy_from_slice(&batch.header.to_bytes()), batch.records.clone()];
        PartitionProduceData { index: *index, records: Some(Records::from_iter(parts)) }
    });
    ProduceRequest {
        transactional_id: None,
        acks: acks.wire(),
        timeout_ms,
        topic_data: vec![TopicProduceData {
            name: topic.name.as_str().into(),
            topic_id: topic.id,
            partition_data: data.collect(),
        }],
    }
}

/// The same batch with its records compressed, and the header that fits.
fn compress(mut batch: Batch, codec: Compression) -> io::Result<Batch> {
    batch.records = deflate(codec, &batch.records, None)?;
    let header = &mut batch.header;
    header.attributes = header.attributes.with_compression(codec);
    header.batch_length = i32::try_from(HEADER_BYTES - LENGTH_PREFIX_BYTES + batch.records.len())
        .map_err(|_| io::Error::other("the batch is too long"))?;
    header.crc = header.checksum(&batch.records);
    Ok(batch)
}

fn split_once<'l>(line: &'l [u8], separator: &[u8]) -> Option<(&'l [u8], &'l [u8])> {
    let at = line.windows(separator.len().max(1)).position(|window| window == separator)?;
    Some((&line[..at], &line[at + separator.len()..]))
}

/// Where Kafka's own producers put a key, so that records of one key meet whoever sends them.
fn partition_of_key(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & 0x7fff_ffff) as i32 % partitions
}

/// MurmurHash2 in 32 bits, with the seed that Kafka's clients agree on.
fn murmur2(bytes: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let mut hash = SEED ^ bytes.len() as u32;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ (k >> R)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    if !rest.is_empty() {
        for (place, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_where_kafkas_own_producers_put_them() {
        // From the tests of Kafka's client library.
        let known: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in known {
            assert_eq!(murmur2(key) as i32, hash, "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn a_line_is_parted_at_the_first_separator() {
        assert_eq!(split_once(b"a::b::c", b"::"), Some((&b"a"[..], &b"b::c"[..])));
        assert_eq!(split_once(b"abc", b"::"), None);
        assert_eq!(split_once(b":", b":"), Some((&b""[..], &b""[..])));
    }

    #[test]
    fn a_compressed_batch_is_intact_and_holds_the_same() {
        let mut builder = Builder::new(Timestamp(5));
        builder.push(&RecordOut { timestamp: None, key: None, value: Some(&[b'x'; 4_000]), headers: &[] });
        let plain = builder.build();
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd].map(Codec::compression) {
            let batch = compress(plain.clone(), codec).expect("memory takes it");
            assert!(batch.is_intact());
            assert_eq!(batch.header.attributes.compression(), Some(codec));
            let inflated = crate::compression::inflate(codec, &batch.records, 1 << 20).expect("it is whole");
            assert_eq!(inflated, plain.records);
        }
    }
}
