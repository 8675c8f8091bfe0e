//! The task that owns the metadata log.
//!
//! A turn takes all proposals that wait, decides each against what those before it decided, and writes their records as
//! one run with one sync: so a burst of proposals costs one. Only when the run is durable is it applied, told to the
//! listeners, published, and answered, in this order.
//!
//! **A failed log ends the process.** After a failed write or sync nobody knows what the disk holds. The task reports it
//! ([`super::MetadataLog::failed`]) and stops; what was proposed is answered as unknown.

use super::log::{Applied, ProposeError};
use super::runs;
use crate::clock::Clock;
use chronik_core::ids::{LeaderEpoch, Offset};
use chronik_core::metadata::controller::Decision;
use chronik_core::metadata::{ApplyError, Delta, Image, Record};
use chronik_core::pending::Pending;
use chronik_core::wal::{Refused, Run, Wal, WalError};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// A turn is closed when its records have about this size, so that nobody waits for the whole queue.
pub const TURN_BYTES: usize = 1 << 20;
/// The largest change there may be: ten thousand partitions of a few replicas are a tenth of it.
pub const CHANGE_BYTES_MAX: usize = 8 << 20;
/// The one leader that a log on a single node has.
const EPOCH: LeaderEpoch = LeaderEpoch(0);

/// What became of a proposal, apart from its own reply.
pub type Outcome = Result<(), ProposeError<Infallible>>;

/// What the task is asked to do.
pub enum Command {
    Propose(Box<dyn Proposal>),
    Listen(Arc<dyn Applied>, oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

/// A proposal whose types only its maker knows.
pub trait Proposal: Send {
    /// Called once; the records to be written, none if it is refused.
    fn decide(&mut self, image: &Image) -> Vec<Record>;
    /// Called last: it has happened, or why not.
    fn answer(self: Box<Self>, outcome: Outcome);
}

/// A proposal in three states: to be decided, decided, answered.
pub struct Ask<D, R, E> {
    decide: Option<D>,
    decided: Option<Result<R, E>>,
    reply: oneshot::Sender<Result<R, ProposeError<E>>>,
}

impl<D, R, E> Ask<D, R, E> {
    pub fn new(decide: D, reply: oneshot::Sender<Result<R, ProposeError<E>>>) -> Self {
        Self { decide: Some(decide), decided: None, reply }
    }
}

impl<D, R, E> Proposal for Ask<D, R, E>
where
    D: FnOnce(&Image) -> Result<Decision<R>, E> + Send,
    R: Send,
    E: Send,
{
    fn decide(&mut self, image: &Image) -> Vec<Record> {
        match self.decide.take().map(|decide| decide(image)) {
            Some(Ok(decision)) => {
                self.decided = Some(Ok(decision.reply));
                decision.records
            }
            Some(Err(refusal)) => {
                self.decided = Some(Err(refusal));
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    fn answer(self: Box<Self>, outcome: Outcome) {
        let answer = match (outcome, self.decided) {
            (Err(why), _) => Err(ProposeError::widen(why)),
            (Ok(()), Some(decided)) => decided.map_err(ProposeError::Refused),
            (Ok(()), None) => Err(ProposeError::Stopped),
        };
        // The asker may have gone; what it asked for has happened all the same.
        let _ = self.reply.send(answer);
    }
}

/// How a turn ended.
enum TurnError {
    /// Nothing was written.
    Refused(Refused),
    /// Nothing is known any more.
    Failed(String),
}

/// See the module's head.
pub(super) struct Writer {
    wal: Arc<dyn Wal>,
    clock: Clock,
    inbox: mpsc::Receiver<Command>,
    publish: watch::Sender<Arc<Image>>,
    fail: watch::Sender<Option<String>>,
    listeners: Vec<Arc<dyn Applied>>,
    image: Arc<Image>,
    change_bytes_max: usize,
    turn_bytes: usize,
    snapshot_after_facts: u64,
    facts: u64,
}

impl Writer {
    #[expect(clippy::too_many_arguments, reason = "built in one place, from parts that have nothing in common")]
    pub fn new(
        wal: Arc<dyn Wal>,
        clock: Clock,
        inbox: mpsc::Receiver<Command>,
        publish: watch::Sender<Arc<Image>>,
        fail: watch::Sender<Option<String>>,
        run_bytes_max: usize,
        snapshot_after_facts: u64,
        facts: u64,
    ) -> Self {
        let image = publish.borrow().clone();
        // A turn that is all but closed still takes one change more, and all of it is one run.
        let turn_bytes = TURN_BYTES.min(run_bytes_max / 2);
        let change_bytes_max = CHANGE_BYTES_MAX.min(run_bytes_max - turn_bytes);
        Self {
            wal,
            clock,
            inbox,
            publish,
            fail,
            listeners: Vec::new(),
            image,
            change_bytes_max,
            turn_bytes,
            snapshot_after_facts,
            facts,
        }
    }

    /// Until it is closed, or every handle is gone, or the log fails.
    pub async fn run(mut self) {
        let why = match self.serve().await {
            Ok(()) => return,
            Err(why) => why,
        };
        let why = format!("the metadata log has failed ({why}); restart the broker once its disk is in order");
        tracing::error!("{why}");
        self.fail.send_replace(Some(why));
    }

    async fn serve(&mut self) -> Result<(), String> {
        self.snapshot_if_due().await?;
        let mut held_over = None;
        loop {
            let command = match held_over.take() {
                Some(command) => Some(command),
                None => self.inbox.recv().await,
            };
            match command {
                None => return Ok(()),
                Some(Command::Close(reply)) => {
                    let _ = reply.send(());
                    return Ok(());
                }
                Some(Command::Listen(listener, reply)) => {
                    listener.begin(&self.image).await;
                    self.listeners.push(listener);
                    let _ = reply.send(());
                }
                Some(Command::Propose(proposal)) => {
                    held_over = self.turn(proposal).await?;
                    self.snapshot_if_due().await?;
                }
            }
        }
    }

    /// Carries out this proposal and what waits behind it; gives back a command that must come after.
    async fn turn(&mut self, first: Box<dyn Proposal>) -> Result<Option<Command>, String> {
        let mut turn = Turn::new(&self.image);
        turn.take(first, self.change_bytes_max);
        let held_over = loop {
            if turn.bytes >= self.turn_bytes {
                break None;
            }
            match self.inbox.try_recv() {
                Ok(Command::Propose(next)) => turn.take(next, self.change_bytes_max),
                Ok(other) => break Some(other),
                Err(_) => break None,
            }
        };
        if !turn.records.is_empty() {
            let run = runs::facts(self.image.position().next, EPOCH, self.clock.wall(), &turn.records);
            match self.write(vec![run]).await {
                Ok(()) => {}
                Err(TurnError::Refused(why)) => {
                    tracing::warn!(reason = %why, "a change of metadata was refused");
                    turn.answer(|| Err(ProposeError::Unavailable(why)));
                    return Ok(held_over);
                }
                Err(TurnError::Failed(why)) => {
                    turn.answer(|| Err(ProposeError::Stopped));
                    return Err(why);
                }
            }
            self.facts += turn.records.len() as u64;
            self.image = Arc::new(turn.image.clone());
            for listener in &self.listeners {
                listener.applied(&self.image, &turn.delta).await;
            }
            self.publish.send_replace(self.image.clone());
        }
        turn.answer(|| Ok(()));
        Ok(held_over)
    }

    /// Appends and syncs.
    async fn write(&self, runs: Vec<Run>) -> Result<(), TurnError> {
        let Some(upto) = runs.last().map(|run| run.next_offset) else { return Ok(()) };
        let failed = |why: WalError| TurnError::Failed(with_causes(&why));
        for (number, run) in runs.into_iter().enumerate() {
            let mut refused = None;
            let written = Pending::start(|done| match self.wal.append(run, done) {
                Ok(started) => started,
                Err(rejected) => {
                    refused = Some(rejected.why);
                    chronik_core::pending::Started::Later
                }
            });
            match refused {
                None => {}
                // Of a snapshot's runs the first may be there; it is skipped when the log is read back.
                Some(why @ (Refused::Full | Refused::Busy | Refused::TooLarge { .. })) => {
                    return Err(TurnError::Refused(why));
                }
                Some(why) => return Err(TurnError::Failed(format!("run {number} was not taken: {why}"))),
            }
            // The sync below writes what is ordered, but where writing is the caller's own work it is done apart, since it
            // may block.
            let wal = self.wal.clone();
            let queued = tokio::task::spawn_blocking(move || wal.write_queued()).await;
            queued.map_err(|why| TurnError::Failed(why.to_string()))?;
            written.await.map_err(failed)?;
        }
        let durable = Pending::start(|done| self.wal.sync(upto, done)).await.map_err(failed)?;
        if durable < upto {
            return Err(TurnError::Failed(format!("a sync up to {upto} reached {durable} only")));
        }
        Ok(())
    }

    /// Cuts the log down to a snapshot once there is more of it than the image is worth.
    ///
    /// The snapshot is whole and durable before anything before it goes; a crash in between leaves it in the log, where it
    /// is skipped.
    async fn snapshot_if_due(&mut self) -> Result<(), String> {
        let image_facts = self.image.topics_count() + self.image.partitions_count();
        if self.facts < self.snapshot_after_facts.max(2 * image_facts as u64) {
            return Ok(());
        }
        let from = self.image.position().next;
        let snapshot = runs::snapshot(&self.image, self.clock.wall());
        if !runs::restores(&self.image, &snapshot) {
            // A mistake of ours. The log is as good as it was, only longer than it need be.
            tracing::error!("a snapshot of the metadata does not restore what it was taken of; it is not used");
            self.facts = 0;
            return Ok(());
        }
        let upto = snapshot.last().map_or(from, |run| run.next_offset);
        match self.write(snapshot).await {
            Ok(()) => {}
            Err(TurnError::Refused(why)) => {
                tracing::warn!(reason = %why, "a snapshot of the metadata was refused; the log stays long for now");
                // Its beginning may be in the log: facts go on after it. Another is due after as many facts again.
                self.facts = 0;
                self.move_on(self.wal.state().end);
                return Ok(());
            }
            Err(TurnError::Failed(why)) => return Err(why),
        }
        self.facts = 0;
        self.move_on(upto);
        let cut = Pending::start(|done| self.wal.truncate_prefix(from, done)).await;
        cut.map_err(|why| with_causes(&why))
    }

    /// The image says the same, at a later place of the log.
    fn move_on(&mut self, next: Offset) {
        let mut position = self.image.position();
        position.next = next;
        self.image = Arc::new(Image::clone(&self.image).at(position));
        self.publish.send_replace(self.image.clone());
    }
}

/// Proposals that are decided and not yet answered.
struct Turn {
    /// With everything decided so far.
    image: Image,
    records: Vec<Record>,
    bytes: usize,
    delta: Delta,
    decided: Vec<(Box<dyn Proposal>, Outcome)>,
}

impl Turn {
    fn new(image: &Image) -> Self {
        Turn { image: image.clone(), records: Vec::new(), bytes: 0, delta: Delta::default(), decided: Vec::new() }
    }

    /// Decides one proposal. One with too many records is refused, and so is one that contradicts the image.
    fn take(&mut self, mut proposal: Box<dyn Proposal>, bytes_max: usize) {
        let records = proposal.decide(&self.image);
        let bytes: usize = records.iter().map(|record| record.to_bytes().len() + RECORD_OVERHEAD_BYTES).sum();
        let outcome = if bytes > bytes_max {
            Err(ProposeError::TooLarge { bytes, max: bytes_max })
        } else {
            self.speculate(&records).map_err(ProposeError::Flawed)
        };
        if outcome.is_ok() {
            self.bytes += bytes;
            self.records.extend(records);
        }
        self.decided.push((proposal, outcome));
    }

    /// Applies to what the next decision will see; all of the records or none.
    fn speculate(&mut self, records: &[Record]) -> Result<(), ApplyError> {
        let mut image = self.image.clone();
        let mut delta = Delta::default();
        for record in records {
            let at = image.position().next;
            image.apply(at, EPOCH, record, &mut delta)?;
        }
        self.image = image;
        self.delta.changes.append(&mut delta.changes);
        Ok(())
    }

    /// Answers all: those that were refused by themselves with their own reason.
    fn answer(self, outcome: impl Fn() -> Outcome) {
        for (proposal, own) in self.decided {
            proposal.answer(own.and_then(|()| outcome()));
        }
    }
}

/// A record's frame in a batch, at most.
pub const RECORD_OVERHEAD_BYTES: usize = 24;

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        words.push_str(": ");
        words.push_str(&deeper.to_string());
        cause = deeper.source();
    }
    words
}
