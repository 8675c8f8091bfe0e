//! Clients: idempotent producers that never give up, producers that ask for little, and consumers.
//!
//! They reach nodes over a network of their own, which delays and loses requests and answers, and which keeps the requests
//! of one connection in order: what comes behind a lost one is lost too. Whatever is told to them is a promise, and those who
//! judge hear of it.

pub mod members;

use crate::facts::Fact;
use crate::node::partition::Partition;
use crate::node::watched::placed;
use crate::rt::WORLD;
use crate::world::World;
use chronik_core::batch::{Builder, CheckedBatch, RecordOut};
use chronik_core::driver::{AppendError, Found};
use chronik_core::ids::{LeaderEpoch, LogId, NodeId, Offset, ProducerId};
use chronik_core::partition::leader::{Acks, Refused};
use chronik_core::partition::producers;
use chronik_core::time::Timestamp;
use chronik_core::wal::{ReadRange, WalError};
use futures::channel::oneshot;
use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a broker waits for the promise to come true.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// As many as a broker remembers.
const IN_FLIGHT_MAX: usize = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Stored,
    /// But so long ago that nobody knows where.
    Somewhere,
    /// Ask again, perhaps elsewhere.
    Not,
    /// Its sequence does not follow on what the broker knows.
    OutOfOrder,
}

/// What a broker answers to a fetch.
enum Fetched {
    /// Read by this node, in that epoch, from the offset that was asked, or from where the log begins.
    Read { node: NodeId, epoch: LeaderEpoch, start: Offset, bytes: chronik_core::payload::Payload },
    /// What was read before is not in the log any more; it may go on from there.
    Diverged(Offset),
}

impl World {
    /// Somebody's idea of who leads.
    fn leader_of(&self, log: LogId) -> Option<NodeId> {
        let nodes = self.running();
        let asked = self.sim.roll(|dice| dice.pick(&nodes).cloned())?;
        let image = asked.group()?.image();
        let known = image.partition(log.topic, log.partition)?.leader;
        // A client's metadata may be anyhow old.
        if self.sim.roll(|dice| dice.once_in(20)) {
            return self.sim.roll(|dice| dice.pick(&nodes).map(|node| node.around.node));
        }
        known
    }

    /// Whether there was an election that may have lost what was committed.
    pub fn may_have_lost(&self, log: LogId) -> bool {
        self.judges.borrow().picture.stories.get(&log).is_some_and(|story| story.unclean.is_some())
    }

    fn is_deleted(&self, log: LogId) -> bool {
        self.judges
            .borrow()
            .picture
            .image
            .as_ref()
            .is_some_and(|image| image.position().next.0 > 0 && image.partition(log.topic, log.partition).is_none())
    }

    /// Carries a request to a node and its answer back; `None` where either is lost.
    async fn call<T: 'static, F: Future<Output = T> + 'static>(
        self: &Rc<Self>,
        to: NodeId,
        order: &Rc<Cell<Duration>>,
        act: impl FnOnce(Rc<crate::node::Node>) -> F + 'static,
    ) -> Option<T> {
        let node = self.node(to)?;
        let (there, back) = self.sim.roll(|dice| {
            let most = self.story.weather.delay_most;
            (dice.span(Duration::from_micros(100), most), dice.span(Duration::from_micros(100), most))
        });
        // Requests of one connection arrive in order.
        let arrives = (self.sim.elapsed() + there).max(order.get() + Duration::from_micros(1));
        order.set(arrives);
        let lost = self.story.weather.lost;
        let (answer, answered) = oneshot::channel();
        let process = node.around.process;
        let sim = self.sim.clone();
        self.sim.after(process, arrives.saturating_sub(self.sim.elapsed()), move || {
            let work = act(node);
            let own = sim.clone();
            sim.spawn(process, async move {
                let outcome = work.await;
                own.sleep(process, back).await;
                if !own.roll(|dice| dice.per_mille(lost)) {
                    let _ = answer.send(outcome);
                }
            });
        });
        self.sim.within(WORLD, PATIENCE, answered).await?.ok()
    }

    /// Writes to one partition until the story ends: idempotent, on all in sync, with retries for as long as it takes.
    pub async fn produce(self: Rc<Self>, log: LogId) {
        let mut id = self.next_client();
        let mut sequence = 0;
        let mut is_known = false;
        let mut waiting: VecDeque<CheckedBatch> = VecDeque::new();
        let in_flight = usize::try_from(self.story.in_flight).unwrap_or(1).min(IN_FLIGHT_MAX);
        loop {
            if self.is_deleted(log) {
                return;
            }
            // The first batch goes alone: as with Kafka, a broker that knows nothing of a producer takes any batch as its
            // first, so that a second one that overtakes it would shut it out.
            let in_flight = if is_known { in_flight } else { 1 };
            while waiting.len() < in_flight && !self.is_ending() {
                let count = self.sim.roll(|dice| dice.between(1, 3));
                let value = format!("{id}:{sequence}:{}", "x".repeat(self.sim.roll(|dice| dice.below(200)) as usize));
                let mut builder = Builder::new(Timestamp(1)).idempotent(
                    ProducerId(i64::try_from(id).unwrap_or(i64::MAX)),
                    0,
                    sequence,
                );
                for number in 0..count {
                    let value = format!("{value}:{number}");
                    builder.push(&RecordOut { value: Some(value.as_bytes()), ..RecordOut::default() });
                }
                sequence += i32::try_from(count).unwrap_or(1);
                waiting.push_back(CheckedBatch::trusted(builder.build()));
                if self.sim.roll(|dice| dice.once_in(3)) {
                    break;
                }
            }
            if waiting.is_empty() {
                return;
            }
            let Some(leader) = self.leader_of(log) else {
                self.sim.sleep(WORLD, Duration::from_millis(100)).await;
                continue;
            };
            // One connection: all that waits, in order; where one is lost, so is what follows.
            let order = Rc::new(Cell::new(Duration::ZERO));
            let mut arriving = waiting.len();
            for at in 0..waiting.len() {
                if self.sim.roll(|dice| dice.per_mille(self.story.weather.lost)) {
                    arriving = at;
                    break;
                }
            }
            let calls = waiting.iter().take(arriving).map(|batch| {
                let (batch, judged) = (batch.clone(), self.clone());
                self.call(leader, &order, move |node| judged.store(node, log, batch, Acks::All))
            });
            let answers = futures::future::join_all(calls).await;
            let mut all_stored = !answers.is_empty();
            for answer in answers {
                match answer {
                    Some(stored @ (Answer::Stored | Answer::Somewhere)) if all_stored => {
                        let batch = waiting.pop_front();
                        is_known = true;
                        // There are no more on their way than a broker remembers, so it can say where each of them is.
                        if let Some(header) = batch.filter(|_| stored == Answer::Somewhere).map(|batch| *batch.header())
                        {
                            let (producer, sequence) = (header.producer_id.0, header.base_sequence);
                            let fact = Fact::ToldNoPlace { log, producer, sequence };
                            self.judges.borrow_mut().hear(&self.sim, &fact);
                        }
                    }
                    // Where records may be lost, what it had stored may be: it tells its application, and begins anew.
                    Some(Answer::OutOfOrder) if all_stored && self.may_have_lost(log) => {
                        waiting.clear();
                        (id, sequence, is_known) = (self.next_client(), 0, false);
                        all_stored = false;
                    }
                    _ => all_stored = false,
                }
            }
            let pause = if all_stored { self.story.produce_every } else { Duration::from_millis(150) };
            let pause = self.sim.roll(|dice| dice.span(Duration::ZERO, pause));
            self.sim.sleep(WORLD, pause).await;
        }
    }

    /// Writes to one partition, content with the leader's word, and never asks twice.
    pub async fn produce_carelessly(self: Rc<Self>, log: LogId) {
        let id = self.next_client();
        let mut number = 0;
        while !self.is_ending() && !self.is_deleted(log) {
            let pause = self.sim.roll(|dice| dice.span(Duration::ZERO, self.story.careless_every));
            self.sim.sleep(WORLD, pause).await;
            let Some(leader) = self.leader_of(log) else { continue };
            let mut builder = Builder::new(Timestamp(1));
            let value = format!("{id}:{number}");
            number += 1;
            builder.push(&RecordOut { value: Some(value.as_bytes()), ..RecordOut::default() });
            let (batch, judged) = (CheckedBatch::trusted(builder.build()), self.clone());
            let order = Rc::default();
            self.call(leader, &order, move |node| judged.store(node, log, batch, Acks::Leader)).await;
        }
    }

    /// A broker's part of a produce request.
    async fn store(self: Rc<Self>, node: Rc<crate::node::Node>, log: LogId, batch: CheckedBatch, acks: Acks) -> Answer {
        let header = *batch.header();
        let Some(partition) = replica(&node, log) else { return Answer::Not };
        if !partition.standing().leads {
            return Answer::Not;
        }
        let epoch = partition.standing().epoch;
        let (placed, receiver) = match partition.append(batch, acks) {
            Ok(placed) => placed,
            Err(why) => {
                match why {
                    AppendError::Leader(Refused::Producer(producers::Refused::OutOfOrder { .. })) => {
                        self.judges.borrow_mut().count("sequence refused");
                        return Answer::OutOfOrder;
                    }
                    AppendError::Leader(Refused::TooFewInSync { .. }) => {
                        self.judges.borrow_mut().count("refused: too few in sync");
                    }
                    _ => {}
                }
                return Answer::Not;
            }
        };
        match placed.found {
            Found::New => {}
            Found::Duplicate => self.judges.borrow_mut().count("duplicate recognised"),
            Found::Forgotten => self.judges.borrow_mut().count("long stored duplicate recognised"),
        }
        let stored = if placed.found == Found::Forgotten { Answer::Somewhere } else { Answer::Stored };
        let Some(receiver) = receiver else { return stored };
        match self.sim.within(node.around.process, REQUEST_TIMEOUT, receiver).await {
            Some(Ok(Ok(()))) => {
                if acks == Acks::All && placed.found != Found::Forgotten {
                    let fact = Fact::Acknowledged {
                        log,
                        epoch,
                        producer: header.producer_id.0,
                        sequence: header.base_sequence,
                        base: placed.base_offset,
                        crc: header.crc,
                    };
                    node.around.tell(fact);
                }
                stored
            }
            _ => Answer::Not,
        }
    }

    /// Reads one partition from its beginning, as far as it is shown, for as long as the story goes on; now and then from
    /// another replica than the leader (KIP-392).
    pub async fn consume(self: Rc<Self>, log: LogId) {
        let id = self.next_client();
        let mut position = Offset::ZERO;
        let mut last_epoch = None;
        let mut leader_epoch = LeaderEpoch(-1);
        loop {
            let pause = self.sim.roll(|dice| dice.span(Duration::ZERO, self.story.consume_every));
            self.sim.sleep(WORLD, pause).await;
            if self.is_deleted(log) {
                return;
            }
            let anybody = self.sim.roll(|dice| dice.once_in(4));
            let nodes = if anybody { self.ids() } else { Vec::new() };
            let asked = match self.sim.roll(|dice| dice.pick(&nodes).copied()) {
                Some(anybody) => Some(anybody),
                None => self.leader_of(log),
            };
            let Some(asked) = asked else { continue };
            let order = Rc::default();
            let (from, judged) = (position, self.clone());
            let outcome =
                self.call(asked, &order, move |node| judged.fetch(node, log, from, last_epoch, leader_epoch)).await;
            match outcome.flatten() {
                None => {}
                Some(Fetched::Diverged(end)) => {
                    self.sim.tell(|| {
                        format!("reader {id} of {log} at {position} is told that {last_epoch:?} ends at {end}")
                    });
                    self.judges.borrow_mut().count("reader told of lost records");
                    position = position.min(end);
                    last_epoch = None;
                }
                Some(Fetched::Read { node, epoch, start, bytes }) => {
                    leader_epoch = epoch.max(leader_epoch);
                    if start > position {
                        // As a client that begins where the log does, and knows nothing of what was before.
                        (position, last_epoch) = (start, None);
                    }
                    let Some(batches) = placed(&bytes) else { continue };
                    let next = batches.last().map_or(position, |batch| batch.next);
                    last_epoch = batches.last().map(|batch| batch.epoch).or(last_epoch);
                    if anybody && !batches.is_empty() {
                        self.judges.borrow_mut().count("read from any replica");
                    }
                    let fact = Fact::Read { consumer: id, node, epoch, log, from: position, batches };
                    self.judges.borrow_mut().hear(&self.sim, &fact);
                    position = position.max(next);
                }
            }
        }
    }

    /// A broker's part of a fetch, and of asking where the log ends.
    async fn fetch(
        self: Rc<Self>,
        node: Rc<crate::node::Node>,
        log: LogId,
        from: Offset,
        last_epoch: Option<LeaderEpoch>,
        leader_epoch: LeaderEpoch,
    ) -> Option<Fetched> {
        let partition = replica(&node, log)?;
        let standing = partition.standing();
        // Who does not know the epoch that the client knows is not asked again (KIP-320).
        if leader_epoch > standing.epoch {
            return None;
        }
        let shows = partition.with_leader(|leader| leader.shows_all_that_was_shown());
        if shows == Some(true) {
            node.around.tell(Fact::Latest {
                node: node.around.node,
                log,
                epoch: standing.epoch,
                high_watermark: standing.high_watermark,
            });
        }
        // What a replica that follows says of the past may be about to change.
        if let Some(asked) = last_epoch.filter(|_| standing.leads)
            && let Some((known, end)) = partition.end_of_epoch(asked)
            && (known < asked || end < from)
        {
            return Some(Fetched::Diverged(end));
        }
        let read =
            |bytes| Fetched::Read { node: node.around.node, epoch: standing.epoch, start: standing.log_start, bytes };
        if from < standing.log_start {
            return Some(read(chronik_core::payload::Payload::new()));
        }
        if from > standing.log_end || from >= standing.high_watermark {
            return None;
        }
        let range = ReadRange { from, upto: standing.high_watermark, max_bytes: 4_096, min_one: true };
        match partition.read(range).await {
            Ok(chunk) => Some(read(chunk.bytes)),
            Err(WalError::Corrupt { offset }) => {
                partition.found_damaged(offset);
                None
            }
            Err(_) => None,
        }
    }
}

/// The replica, if there is one, as requests find it.
fn replica(node: &crate::node::Node, log: LogId) -> Option<Rc<Partition>> {
    let image = node.group()?.image();
    image.partition(log.topic, log.partition)?;
    node.table()?.get(log).filter(|partition| !partition.is_closed())
}
