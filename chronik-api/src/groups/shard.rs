//! One coordinator behind its lock.
//!
//! What the machine decides is appended in the order of its effects, under the lock; the write follows outside it. One
//! task per shard waits for the appends in that same order, and tells the machine when each is committed, which gives the
//! answers. Several commits on their way share one sync.
//!
//! **Why a lock.** Most commands are heartbeats and commits, which take a microsecond; handing each to a task would cost
//! the connection two wake-ups. Nothing is awaited under it, and it is taken before a partition's, never after.

use super::loading::{self, LoadError};
use crate::clock::Clock;
use crate::partitions::Partition;
use crate::partitions::partition::AckReceiver;
use chronik_core::batch::{Builder, CheckedBatch, RecordOut};
use chronik_core::group::records::{CommittedOffset, RawRecord};
use chronik_core::group::{Coordinator, Effect, Reply, Settings};
use chronik_core::ids::Offset;
use chronik_core::partition::leader::Acks;
use chronik_core::time::Now;
use chronik_core::wal::WalError;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

/// How long until groups that could not be read back are read again; twice as long each time, up to the latter: what is
/// wrong with a disk may be over in a moment, or not before somebody mends it.
const LOAD_AGAIN_FIRST: Duration = Duration::from_millis(500);
const LOAD_AGAIN_MAX: Duration = Duration::from_secs(30);

/// What a waiting request is answered through.
pub type Key = oneshot::Sender<Reply>;

/// A coordinator and its partition.
pub struct Shard {
    partition: Arc<Partition>,
    settings: Settings,
    clock: Clock,
    /// Changed under the lock of `state`.
    loaded: AtomicBool,
    state: Mutex<State>,
    /// There is something to wait for, or an earlier deadline.
    changed: Notify,
}

struct State {
    coordinator: Coordinator<Key>,
    /// Appends on their way, in order.
    awaiting: VecDeque<Appended>,
    /// What is to be dropped from the log.
    trim: Option<Offset>,
}

/// An append on its way: whose it is, where it lies, and how its fate is learnt.
struct Appended {
    ticket: u64,
    at: Offset,
    ack: Option<AckReceiver>,
}

/// What a turn of the shard's task has waited for.
enum Turn {
    Stored(bool),
    Trimmed(bool),
    /// Something has changed, or time has passed.
    Look,
}

impl Shard {
    pub fn new(partition: Arc<Partition>, settings: Settings, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            partition,
            clock,
            loaded: AtomicBool::new(false),
            state: Mutex::new(State {
                coordinator: Coordinator::new(settings.clone()),
                awaiting: VecDeque::new(),
                trim: None,
            }),
            changed: Notify::new(),
            settings,
        })
    }

    /// Until then nothing is known of its groups.
    pub fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A look at the groups: keep it short.
    pub fn look<R>(&self, look: impl FnOnce(&Coordinator<Key>) -> R) -> R {
        look(&self.lock().coordinator)
    }

    /// Gives the coordinator a command, and carries out what it decides.
    pub fn with<R>(&self, command: impl FnOnce(&mut Coordinator<Key>, Now) -> R) -> R {
        let now = self.clock.now();
        let (result, appended) = {
            let mut state = self.lock();
            let before = state.coordinator.deadline();
            let result = command(&mut state.coordinator, now);
            let appended = self.carry_out(&mut state, now);
            let earlier = state.coordinator.deadline().is_some_and(|at| before.is_none_or(|before| at < before));
            if appended || earlier {
                self.changed.notify_one();
            }
            (result, appended)
        };
        if appended {
            self.partition.write();
        }
        result
    }

    /// A command whose answer comes later.
    pub fn ask(&self, command: impl FnOnce(&mut Coordinator<Key>, Now, Key)) -> oneshot::Receiver<Reply> {
        let (key, answer) = oneshot::channel();
        self.with(|coordinator, now| command(coordinator, now, key));
        answer
    }

    /// As [`Shard::with`], unless the groups are not loaded yet.
    pub fn if_loaded<R>(&self, command: impl FnOnce(&mut Coordinator<Key>, Now) -> R) -> Option<R> {
        self.with(|coordinator, now| self.is_loaded().then(|| command(coordinator, now)))
    }

    /// Sends replies and appends records, in order; whether anything was appended or is to be dropped.
    fn carry_out(&self, state: &mut State, now: Now) -> bool {
        let mut active = false;
        let mut refused = false;
        while let Some(effect) = state.coordinator.poll_effect() {
            match effect {
                // Whoever asked may be gone.
                Effect::Reply { key, reply } => drop(key.send(reply)),
                Effect::Write { ticket, records } => match self.append(&records, now, refused) {
                    Some((at, ack)) => {
                        state.awaiting.push_back(Appended { ticket, at, ack });
                        active = true;
                    }
                    None => {
                        refused = true;
                        state.coordinator.failed(ticket, now);
                    }
                },
                Effect::Trim { upto } => {
                    state.trim = Some(upto);
                    active = true;
                }
            }
        }
        active
    }

    /// Orders records at the log's end, unless those before them were refused.
    fn append(&self, records: &[RawRecord], now: Now, refused: bool) -> Option<(Offset, Option<AckReceiver>)> {
        if refused {
            return None;
        }
        let mut builder = Builder::new(now.wall);
        for (key, value) in records {
            builder.push(&RecordOut { key: Some(key), value: value.as_deref(), ..RecordOut::default() });
        }
        match self.partition.append(CheckedBatch::trusted(builder.build()), Acks::All, now) {
            Ok((placed, ack)) => Some((placed.base_offset, ack)),
            Err(refused) => {
                tracing::warn!(partition = self.partition.index(), %refused, "groups' records cannot be stored");
                None
            }
        }
    }

    /// Reads the groups back, again and again until that succeeds, or until somebody else leads and this task is ended.
    async fn load(&self) {
        let mut pause = LOAD_AGAIN_FIRST;
        loop {
            let replay = |key, value| self.lock().coordinator.replay(key, value);
            let Err(failure) = loading::load(&self.partition, replay).await else { return };
            tracing::error!(
                partition = self.partition.index(),
                error = &failure as &dyn std::error::Error,
                again_in_ms = pause.as_millis() as u64,
                "groups cannot be read back: they are unavailable until that succeeds, here or where another replica leads"
            );
            if let LoadError::Log(WalError::Corrupt { offset }) = failure {
                // Another replica leads then, if there is one.
                self.partition.found_damaged(offset);
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(LOAD_AGAIN_MAX);
            // It begins anew: what was read before it failed would be there twice.
            self.lock().coordinator = Coordinator::new(self.settings.clone());
        }
    }

    /// Loads the groups, then waits for commits and deadlines, for ever. `is_gone` gives, when the groups are loaded, a
    /// judgement on whether an offset's topic, by its name and the id that it was committed with, is there no more.
    pub async fn run<G: Fn(&str, &CommittedOffset) -> bool>(self: Arc<Self>, is_gone: impl FnOnce() -> G) {
        self.load().await;
        self.with(|coordinator, now| {
            coordinator.loaded(now, is_gone());
            self.loaded.store(true, Ordering::Release);
        });
        let mut storing: Option<Appended> = None;
        let mut trimming: Option<Pin<Box<dyn Future<Output = bool> + Send + '_>>> = None;
        loop {
            let deadline = {
                let mut state = self.lock();
                storing = storing.or_else(|| state.awaiting.pop_front());
                if trimming.is_none() {
                    trimming = state.trim.take().map(|upto| Box::pin(self.trim(upto)) as _);
                }
                state.coordinator.deadline()
            };
            let stored = async {
                match storing.as_mut().map(|appended| appended.ack.as_mut()) {
                    Some(Some(ack)) => matches!(ack.await, Ok(Ok(()))),
                    Some(None) => true,
                    None => std::future::pending().await,
                }
            };
            let trimmed = async {
                match &mut trimming {
                    Some(trimming) => trimming.await,
                    None => std::future::pending().await,
                }
            };
            let time = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(self.clock.instant(at)).await,
                    None => std::future::pending().await,
                }
            };
            let turn = tokio::select! {
                biased;
                stored = stored => Turn::Stored(stored),
                trimmed = trimmed => Turn::Trimmed(trimmed),
                () = self.changed.notified() => Turn::Look,
                () = time => Turn::Look,
            };
            match turn {
                Turn::Stored(stored) => {
                    if let Some(Appended { ticket, at, .. }) = storing.take() {
                        self.with(|coordinator, now| match stored {
                            true => coordinator.committed(ticket, at, now),
                            false => coordinator.failed(ticket, now),
                        });
                    }
                }
                Turn::Trimmed(dropped) => {
                    trimming = None;
                    self.with(|coordinator, _| coordinator.trimmed(dropped));
                }
                Turn::Look => {}
            }
            self.tick();
        }
    }

    fn tick(&self) {
        let due = self.look(Coordinator::deadline).is_some_and(|at| at <= self.clock.now().monotonic);
        if due {
            self.with(|coordinator, now| coordinator.tick(now));
        }
    }

    /// Drops the log below an offset; whether it could be.
    async fn trim(&self, upto: Offset) -> bool {
        match self.partition.trim(upto).await {
            Ok(_) => true,
            Err(failure) => {
                tracing::warn!(
                    partition = self.partition.index(),
                    error = &failure as &dyn std::error::Error,
                    "what a snapshot of the groups made superfluous could not be dropped"
                );
                false
            }
        }
    }
}
