//! What other nodes say to a partition's replica, fed to the machine that leads or follows, over a log in memory.
//!
//! The first byte chooses the role and what an acknowledgement promises; the rest is a story in pieces: messages as they lie
//! in frames, from either of two nodes, sessions that come and go, time, records of this node's own, the next epoch. A peer
//! may say what it likes: nothing panics, the watermark stays within the log and falls only with a cut that was asked for, or once
//! when a leader was elected that may lack what was committed,
//! and the log holds whole batches whose checksums are right, each where the one before it ends.

use super::frames::replication_messages;
use crate::target::{Seen, Target, about};
use bytes::Bytes;
use chronik_core::batch::{self, Builder, CheckedBatch, RecordOut};
use chronik_core::driver::{Assumption, Completion, Cut, Environment, Inboxes, Outward, Part, PartitionDriver};
use chronik_core::ids::{LeaderEpoch, LogId, NodeId, Offset, TopicId};
use chronik_core::partition::follower::Phase;
use chronik_core::partition::leader::{Acks, Durability};
use chronik_core::partition::recovery::{Recovered, Recovering};
use chronik_core::partition::replicas::Membership;
use chronik_core::pending::{Inbox, Pending};
use chronik_core::replication::Message;
use chronik_core::throttle::Throttles;
use chronik_core::time::{Monotonic, Now, Timestamp};
use chronik_core::wal::{Appended, Chunk, OpenMode, OpenOptions, ReadRange, Wal, WalEngine, WalError};
use chronik_link::replication;
use chronik_storage_memory::MemoryEngine;
use futures::executor::block_on;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// See the module's head.
pub struct Replication;

const LOG: LogId = LogId { topic: TopicId([7; 16]), partition: 12 };
/// Bytes that name the log in a frame: every piece has it.
const NAME_BYTES: usize = 20;
const OWN: NodeId = NodeId(1);
const OTHERS: [NodeId; 2] = [NodeId(2), NodeId(3)];
const EPOCH: LeaderEpoch = LeaderEpoch(3);
/// What is there before the story begins, in two epochs.
const RECORDS_BEFORE: i64 = 4;
/// A log of this size takes what the longest input brings, and little more.
const LOG_BYTES_MAX: u64 = 1 << 20;

#[derive(Default)]
struct Completions(Mutex<Vec<Completion>>);

impl Completions {
    fn push(&self, completion: Completion) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(completion);
    }

    fn take(&self) -> Vec<Completion> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Written(Arc<Completions>);
struct Durable(Arc<Completions>);
struct Read(Arc<Completions>);

impl Inbox<Result<Appended, WalError>> for Written {
    fn deliver(&self, token: u64, outcome: Result<Appended, WalError>) {
        self.0.push(Completion::Written(token, outcome));
    }
}

impl Inbox<Result<Offset, WalError>> for Durable {
    fn deliver(&self, token: u64, outcome: Result<Offset, WalError>) {
        self.0.push(Completion::Durable(token, outcome));
    }
}

impl Inbox<Result<Chunk, WalError>> for Read {
    fn deliver(&self, token: u64, outcome: Result<Chunk, WalError>) {
        self.0.push(Completion::Read(token, outcome));
    }
}

fn one_batch(base: i64, epoch: i32, records: usize) -> batch::Batch {
    let mut builder = Builder::new(Timestamp(1));
    (0..records).for_each(|_| builder.push(&RecordOut { value: Some(b"value"), ..RecordOut::default() }));
    let mut batch = builder.build();
    (batch.header.base_offset, batch.header.leader_epoch) = (Offset(base), LeaderEpoch(epoch));
    batch
}

fn recover(log: &dyn Wal) -> Recovered {
    let state = log.state();
    let mut recovering = Recovering::new(state, None);
    while let Some(from) = recovering.next_read() {
        let range = ReadRange { from, upto: state.end, max_bytes: 1 << 20, min_one: true };
        match block_on(Pending::start(|done| log.read(range, done))) {
            Ok(chunk) => {
                for found in batch::batches(&chunk.bytes) {
                    match found {
                        Ok(batch) => recovering.replay(&batch.header),
                        Err(why) => panic!("the log holds what is no batch: {why}"),
                    }
                }
                recovering.skip_to(if chunk.bytes.is_empty() { state.end } else { chunk.next_offset });
            }
            Err(why) => panic!("the log cannot be read at {from}: {why}"),
        }
    }
    recovering.finish(Timestamp(1))
}

/// A replica, and the little of a host that it needs.
struct Node {
    driver: PartitionDriver<u32>,
    log: Arc<dyn Wal>,
    completions: Arc<Completions>,
    now: Now,
    watermark: Offset,
    /// The leader may lack what was committed, and has not said yet what is.
    may_fall: bool,
    epoch: LeaderEpoch,
    said: u32,
}

impl Node {
    fn new(choice: u8) -> Self {
        let engine = MemoryEngine::new(LOG_BYTES_MAX);
        let options = OpenOptions { mode: OpenMode::CreateNew, segment_bytes: 1 << 16 };
        let log = match block_on(engine.open(LOG, options)) {
            Ok(log) => log,
            Err(why) => panic!("a new log cannot be made: {why}"),
        };
        let mut at = 0;
        for (epoch, records) in [(1, 1), (2, RECORDS_BEFORE as usize - 1)] {
            let batch = one_batch(at, epoch, records);
            let run = chronik_core::wal::Run {
                base: batch.header.base_offset,
                next_offset: batch.header.next_offset(),
                epoch: batch.header.leader_epoch,
                max_timestamp: batch.header.max_timestamp,
                bytes: batch.to_payload(),
            };
            at = run.next_offset.0;
            if block_on(Pending::start(|done| log.append(run, done).unwrap_or_else(|why| panic!("{why:?}")))).is_err() {
                panic!("a new log takes nothing");
            }
        }
        let completions = Arc::<Completions>::default();
        let inboxes = Inboxes {
            written: Arc::new(Written(completions.clone())),
            durable: Arc::new(Durable(completions.clone())),
            read: Arc::new(Read(completions.clone())),
        };
        let now = Now { monotonic: Monotonic(Duration::from_secs(1)), wall: Timestamp(1_000) };
        let mut recovered = recover(&*log);
        recovered.checkpoint.high_watermark = Offset(1);
        let sessions = BTreeSet::from(OTHERS);
        let first = assumption(choice, EPOCH);
        let environment = Environment { node: OWN, log: log.clone(), inboxes, throttles: Throttles::unlimited() };
        let may_fall = is_unclean(&first);
        let driver = PartitionDriver::new(environment, recovered, first, sessions, now);
        let watermark = driver.standing().high_watermark;
        let mut node = Self { driver, log, completions, now, watermark, may_fall, epoch: EPOCH, said: 0 };
        node.carry_out();
        node
    }

    /// Does what has become due, until nothing more does.
    fn carry_out(&mut self) {
        // Every cut or trim makes another answer; there are as many as messages came.
        for _ in 0..64 {
            let completions = self.completions.take();
            let outward = self.driver.take_outward();
            if completions.is_empty() && outward.is_empty() {
                break;
            }
            for completion in completions {
                self.driver.complete(completion, self.now);
            }
            for effect in outward {
                self.act(effect);
            }
        }
        self.look();
    }

    fn act(&mut self, effect: Outward<u32>) {
        match effect {
            Outward::Cut(cut) => {
                self.said |= 1;
                let done = match cut {
                    Cut::From(from) => block_on(Pending::start(|done| self.log.truncate_suffix(from, done))),
                    Cut::All { start, .. } => block_on(Pending::start(|done| self.log.reset(start, done))),
                };
                match done {
                    Ok(()) => {
                        let recovered = recover(&*self.log);
                        // What was committed and is cut was allowed to be, or the replica would have gone offline.
                        let state = self.log.state();
                        self.watermark = self.watermark.min(state.end).max(state.start);
                        self.driver.cut(recovered, self.now);
                    }
                    Err(why) => self.driver.cut_failed(why, self.now),
                }
            }
            Outward::Trim { upto } => {
                self.said |= 2;
                if block_on(Pending::start(|done| self.log.truncate_prefix(upto, done))).is_ok() {
                    self.driver.trimmed(self.log.state().start, self.now);
                }
            }
            Outward::Send { message, .. } => {
                self.said |= match &message {
                    Message::Attach(_) => 4,
                    Message::Attached(_) => 8,
                    Message::Records(records) if records.batches.is_empty() => 16,
                    Message::Records(_) => 32,
                    Message::Progress(_) => 64,
                };
                let frame = replication::encode(&LOG, message);
                assert!(replication::decode(frame.kind, frame.into_body()).is_some(), "what is said cannot be read");
            }
            Outward::Acknowledge { .. } => self.said |= 128,
            Outward::Abandon { .. } => self.said |= 256,
            Outward::WatermarkAdvanced { .. } => self.said |= 512,
            Outward::Failed { .. } => self.said |= 1024,
            Outward::Offline(_) => self.said |= 2048,
        }
    }

    /// What must hold whatever was said.
    fn look(&mut self) {
        let (standing, state) = (self.driver.standing(), self.log.state());
        assert!(standing.log_start >= Offset::ZERO, "the log starts at {}", standing.log_start);
        assert!(
            standing.log_start <= standing.high_watermark && standing.high_watermark <= standing.log_end,
            "the watermark is not within the log: {standing:?}"
        );
        let fell = standing.high_watermark < self.watermark;
        let may_fall = fell && std::mem::take(&mut self.may_fall);
        assert!(!fell || may_fall, "the watermark fell from {} to {standing:?}", self.watermark);
        self.watermark = standing.high_watermark;
        if !self.driver.has_failed() && self.phase() != Some(Phase::Cutting) {
            assert_eq!((standing.log_start, standing.log_end), (state.start, state.end), "machine and log differ");
        }
    }

    fn phase(&self) -> Option<Phase> {
        self.driver.follower().map(|follower| follower.phase())
    }

    /// Reads all of the log: whole batches, intact, and no two over one offset.
    fn read(&self) -> usize {
        let state = self.log.state();
        let (mut from, mut count) = (state.start, 0);
        while from < state.end {
            let range = ReadRange { from, upto: state.end, max_bytes: 1 << 20, min_one: true };
            let chunk = match block_on(Pending::start(|done| self.log.read(range, done))) {
                Ok(chunk) => chunk,
                Err(why) => panic!("what the log has cannot be read: {why}"),
            };
            assert!(chunk.next_offset > from, "nothing comes at {from} of {state:?}");
            for found in batch::batches(&chunk.bytes) {
                let Ok(batch) = found else { panic!("the log holds what is no batch") };
                assert!(batch.is_intact(), "the log holds a batch whose checksum is wrong");
                let header = &batch.header;
                assert!(header.base_offset < header.next_offset(), "the log holds a batch of no records");
                let is_next = header.base_offset == from || (count == 0 && header.base_offset < from);
                assert!(is_next, "a batch at {} follows {from}", header.base_offset);
                from = header.next_offset();
                count += 1;
            }
        }
        count
    }
}

fn is_unclean(assumption: &Assumption) -> bool {
    matches!(assumption.part, Part::Follow { unclean_epoch: Some(_), .. })
}

fn assumption(choice: u8, epoch: LeaderEpoch) -> Assumption {
    let membership = Membership {
        replicas: BTreeSet::from([OWN, OTHERS[0], OTHERS[1]]),
        in_sync: if choice & 4 == 0 { BTreeSet::from([OWN, OTHERS[0]]) } else { BTreeSet::from([OWN]) },
        in_sync_min: 1,
        partition_epoch: 1,
    };
    let part = if choice & 1 == 0 {
        Part::Follow { leader: Some(OTHERS[0]), unclean_epoch: (choice & 4 != 0).then_some(epoch) }
    } else {
        Part::Lead { membership, lag_max: Duration::from_secs(10) }
    };
    let durability = if choice & 2 == 0 { Durability::Fsync } else { Durability::Replicated };
    Assumption { epoch, durability, throttled: false, part }
}

/// What a piece is; messages, from either node, are told by their kind in a frame, which is above all of these.
const SESSION_UP: u8 = 1;
const SESSION_DOWN: u8 = 2;
const TICK: u8 = 3;
const APPEND: u8 = 4;
const NEXT_EPOCH: u8 = 5;
const ASK_IN_SYNC: u8 = 6;
/// Set in a piece's kind: of the second of the others.
const SECOND: u8 = 0x80;

fn piece(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut piece = vec![kind];
    piece.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    piece.extend_from_slice(bytes);
    piece
}

fn message_piece(message: Message) -> Vec<u8> {
    let frame = replication::encode(&LOG, message);
    let kind = frame.kind;
    piece(kind, &frame.into_body()[NAME_BYTES..])
}

impl Target for Replication {
    fn name(&self) -> &'static str {
        "replication"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let mut seeds = Vec::new();
        let messages: Vec<_> = replication_messages().into_iter().map(message_piece).collect();
        // `Stream`, then records that follow; a follower that attaches, and its progress.
        let mut first = replication_messages();
        let Some(Message::Records(records)) = first.pop() else { return seeds };
        let next = |base: i64| {
            let batches = vec![one_batch(base, 3, 2)];
            message_piece(Message::Records(chronik_core::replication::Records {
                high_watermark: Offset(base),
                batches,
                ..records.clone()
            }))
        };
        let told = [messages[3].clone(), next(RECORDS_BEFORE), next(RECORDS_BEFORE + 2)].concat();
        for choice in [0, 2, 4, 6] {
            seeds.push([vec![choice], told.clone()].concat());
            for message in &messages {
                seeds.push([vec![choice], message.clone()].concat());
                seeds.push([vec![choice], told.clone(), message.clone(), piece(TICK, &[200])].concat());
                seeds.push([vec![choice], message.clone(), piece(TICK, &[200]), told.clone()].concat());
            }
        }
        for choice in [1, 3, 5, 7] {
            let began = [messages[1].clone(), piece(APPEND, b"value"), messages[0].clone()].concat();
            seeds.push([vec![choice], began.clone()].concat());
            for message in &messages {
                let ends = [piece(SESSION_DOWN, &[]), piece(SESSION_UP, &[]), piece(NEXT_EPOCH, &[0])].concat();
                seeds.push([vec![choice], began.clone(), message.clone(), piece(ASK_IN_SYNC, &[])].concat());
                seeds.push([vec![choice], message.clone(), began.clone(), ends, message.clone()].concat());
            }
        }
        seeds
    }

    fn feed(&self, input: &[u8]) -> Seen {
        let Some((choice, mut rest)) = input.split_first() else { return Seen::refused("short", None) };
        let mut node = Node::new(*choice);
        let (mut told, mut bad) = (0, 0);
        while let Some((kind, after)) = rest.split_first() {
            let Some((length, after)) = after.split_first_chunk() else { break };
            let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
            let (piece, after) = after.split_at(length);
            rest = after;
            let from = OTHERS[usize::from(kind & SECOND != 0)];
            match kind & !SECOND {
                SESSION_UP => node.driver.session_up(from, node.now),
                SESSION_DOWN => node.driver.session_down(from, node.now),
                TICK => {
                    let passed = Duration::from_millis(10 * u64::from(piece.first().copied().unwrap_or(1)));
                    node.now.monotonic = node.now.monotonic + passed;
                    node.driver.tick(node.now);
                }
                APPEND => {
                    let acks = [Acks::None, Acks::Leader, Acks::All][piece.len() % 3];
                    let batch = CheckedBatch::trusted(one_batch(0, 0, 1));
                    let _refused_where_it_follows = node.driver.append(batch, acks, Some(1), node.now);
                }
                NEXT_EPOCH => {
                    node.epoch.0 += 1;
                    let next = assumption(piece.first().copied().unwrap_or(*choice), node.epoch);
                    node.may_fall = is_unclean(&next);
                    node.driver.assume(next, node.now);
                }
                ASK_IN_SYNC => {
                    if let Some(question) = node.driver.ask_in_sync(node.now) {
                        node.driver.question_refused(&question, node.now);
                    }
                }
                kind => {
                    let mut body = Vec::with_capacity(NAME_BYTES + piece.len());
                    body.extend_from_slice(&LOG.topic.0);
                    body.extend_from_slice(&LOG.partition.to_be_bytes());
                    body.extend_from_slice(piece);
                    match replication::decode(kind, Bytes::from(body)) {
                        Some((_, message)) => {
                            told += 1;
                            node.driver.received(from, message, node.now);
                        }
                        None => bad += 1,
                    }
                }
            }
            node.carry_out();
        }
        let batches = node.read();
        let phase = node.phase().map(|phase| std::mem::discriminant(&phase));
        let mark = (choice & 7, node.said, phase, about(batches), node.driver.has_failed());
        if told > 0 && bad == 0 { Seen::taken(mark) } else { Seen::refused((mark, bad.min(2)), None) }
    }

    /// The last piece ends where the input does, and batches get their checksums.
    fn mend(&self, input: &mut Vec<u8>) {
        let mut at = 1;
        while let Some(length) = input.get(at + 1..).and_then(|rest| rest.first_chunk::<2>()) {
            let left = input.len() - at - 3;
            let length = usize::from(u16::from_be_bytes(*length)).min(left);
            input[at + 1..at + 3].copy_from_slice(&(length as u16).to_be_bytes());
            // Records: epoch, watermark and start stand before the batches.
            let (from, end) = (at + 3 + 20, at + 3 + length);
            if input[at] & !SECOND == 34 && from < end {
                mend_batches(&mut input[from..end]);
            }
            at += 3 + length;
        }
    }

    /// Short, since all of the log is looked at in the end.
    fn input_bytes_max(&self) -> usize {
        2 * 1024
    }

    /// The log itself: a piece of three bytes appends a batch.
    fn more_memory_bytes(&self) -> usize {
        LOG_BYTES_MAX as usize
    }
}

fn mend_batches(mut bytes: &mut [u8]) {
    while bytes.len() >= batch::HEADER_BYTES {
        let claimed = i32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        let least = batch::HEADER_BYTES - batch::LENGTH_PREFIX_BYTES;
        let size = usize::try_from(claimed).unwrap_or(0).max(least) + batch::LENGTH_PREFIX_BYTES;
        let size = size.min(bytes.len());
        let (one, rest) = bytes.split_at_mut(size);
        one[8..12].copy_from_slice(&((size - batch::LENGTH_PREFIX_BYTES) as i32).to_be_bytes());
        one[16] = batch::MAGIC as u8;
        if let Ok(mut header) = batch::Header::parse(one) {
            header.crc = header.checksum(&one[batch::HEADER_BYTES..]);
            one[..batch::HEADER_BYTES].copy_from_slice(&header.to_bytes());
        }
        bytes = rest;
    }
}
