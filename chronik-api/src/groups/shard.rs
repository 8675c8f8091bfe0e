//! One coordinator behind its lock.
//!
//! What the machine decides is appended in the order of its effects, under the lock; the write follows outside it. One
//! task per shard waits for the appends in that same order, and tells the machine when each is committed, which gives the
//! answers. Several commits on their way share one sync.

use super::loading;
use crate::clock::Clock;
use crate::partitions::Partition;
use crate::partitions::partition::AckReceiver;
use chronik_core::batch::{Builder, CheckedBatch, RecordOut};
use chronik_core::group::records::RawRecord;
use chronik_core::group::{Coordinator, Effect, Reply, Settings};
use chronik_core::ids::Offset;
use chronik_core::partition::leader::Acks;
use chronik_core::time::{Now, Timestamp};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot};

/// What a waiting request is answered through.
pub type Key = oneshot::Sender<Reply>;

/// Bytes of one batch of a snapshot: well below what a topic's largest batch may have.
const SNAPSHOT_BATCH_BYTES: usize = 256 * 1024;

/// A coordinator and its partition.
pub struct Shard {
    partition: Arc<Partition>,
    clock: Clock,
    loaded: AtomicBool,
    state: Mutex<State>,
    /// There is something to wait for, or an earlier deadline.
    changed: Notify,
}

struct State {
    coordinator: Coordinator<Key>,
    /// Appends on their way, in order.
    awaiting: VecDeque<(Awaited, Option<AckReceiver>)>,
    /// Records in the log that a snapshot would make superfluous, about.
    records_in_log: usize,
    snapshot_under_way: bool,
}

#[derive(Clone, Copy)]
enum Awaited {
    Ticket(u64),
    /// The end of a snapshot that begins at this offset.
    Snapshot(Offset),
}

impl Shard {
    pub fn new(partition: Arc<Partition>, settings: Settings, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            partition,
            clock,
            loaded: AtomicBool::new(false),
            state: Mutex::new(State {
                coordinator: Coordinator::new(settings),
                awaiting: VecDeque::new(),
                records_in_log: 0,
                snapshot_under_way: false,
            }),
            changed: Notify::new(),
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

    /// Sends replies and appends records, in order; whether anything was appended.
    fn carry_out(&self, state: &mut State, now: Now) -> bool {
        let mut appended = false;
        while let Some(effect) = state.coordinator.poll_effect() {
            match effect {
                // Whoever asked may be gone.
                Effect::Reply { key, reply } => drop(key.send(reply)),
                Effect::Write { ticket, records } => match self.append(&records, now.wall) {
                    Ok((_, ack)) => {
                        state.records_in_log += records.len();
                        state.awaiting.push_back((Awaited::Ticket(ticket), ack));
                        appended = true;
                    }
                    Err(()) => {
                        // Fate is reported in order: behind what is on its way already.
                        let (failed, ack) = oneshot::channel();
                        drop(failed);
                        state.awaiting.push_back((Awaited::Ticket(ticket), Some(ack)));
                        appended = true;
                    }
                },
            }
        }
        appended
    }

    fn append(&self, records: &[RawRecord], now: Timestamp) -> Result<(Offset, Option<AckReceiver>), ()> {
        let mut builder = Builder::new(now);
        for (key, value) in records {
            builder.push(&RecordOut { key: Some(key), value: value.as_deref(), ..RecordOut::default() });
        }
        match self.partition.append(CheckedBatch::trusted(builder.build()), Acks::All, now) {
            Ok((placed, ack)) => Ok((placed.base_offset, ack)),
            Err(refused) => {
                tracing::warn!(partition = self.partition.index(), %refused, "groups' records cannot be stored");
                Err(())
            }
        }
    }

    /// Loads the groups, then waits for commits and deadlines, for ever.
    pub async fn run(self: Arc<Self>) {
        match loading::load(&self.partition, |key, value| {
            let mut state = self.lock();
            state.records_in_log += 1;
            state.coordinator.replay(key, value)
        })
        .await
        {
            Ok(()) => {
                let now = self.clock.now();
                self.lock().coordinator.loaded(now);
                self.loaded.store(true, Ordering::Release);
            }
            Err(failure) => {
                tracing::error!(
                    partition = self.partition.index(),
                    error = &failure as &dyn std::error::Error,
                    "groups cannot be read back: they stay unavailable until the broker is restarted"
                );
                return;
            }
        }
        loop {
            let (next, deadline) = {
                let mut state = self.lock();
                (state.awaiting.pop_front(), state.coordinator.deadline())
            };
            if let Some((awaited, ack)) = next {
                let stored = match ack {
                    Some(ack) => self.ticking_until(ack).await.is_ok(),
                    None => true,
                };
                self.stored(awaited, stored).await;
                continue;
            }
            let wait = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(self.clock.instant(at)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.changed.notified() => {}
                () = wait => {}
            }
            self.tick();
        }
    }

    /// Waits for an append without letting deadlines pass by.
    async fn ticking_until(&self, mut ack: AckReceiver) -> Result<(), oneshot::error::RecvError> {
        loop {
            let deadline = self.look(Coordinator::deadline);
            match deadline {
                None => return ack.await,
                Some(at) => match tokio::time::timeout_at(self.clock.instant(at), &mut ack).await {
                    Ok(stored) => return stored,
                    Err(_) => self.tick(),
                },
            }
        }
    }

    fn tick(&self) {
        let due = self.look(Coordinator::deadline).is_some_and(|at| at <= self.clock.now().monotonic);
        if due {
            self.with(|coordinator, now| coordinator.tick(now));
        }
    }

    async fn stored(&self, awaited: Awaited, stored: bool) {
        match awaited {
            Awaited::Ticket(ticket) if stored => self.with(|coordinator, now| coordinator.committed(ticket, now)),
            Awaited::Ticket(ticket) => self.with(|coordinator, now| coordinator.failed(ticket, now)),
            Awaited::Snapshot(start) => {
                if stored && let Err(failure) = self.partition.trim(start).await {
                    tracing::warn!(
                        partition = self.partition.index(),
                        error = &failure as &dyn std::error::Error,
                        "what a snapshot of the groups made superfluous could not be dropped"
                    );
                }
                self.lock().snapshot_under_way = false;
            }
        }
        self.snapshot_if_worthwhile();
    }

    /// Appends everything that is live again when most of the log is not, so that reading it back stays short.
    fn snapshot_if_worthwhile(&self) {
        let now = self.clock.now();
        {
            let mut state = self.lock();
            if state.snapshot_under_way
                || !loading::snapshot_is_worthwhile(state.records_in_log, state.coordinator.live_records())
            {
                return;
            }
            let live: Vec<RawRecord> =
                state.coordinator.snapshot().into_iter().map(|(key, value)| (key, Some(value))).collect();
            let mut start = None;
            let mut last = None;
            for records in loading::batches_of(&live, SNAPSHOT_BATCH_BYTES) {
                // A snapshot that did not fit whole stands for nothing; what was appended of it does no harm.
                let Ok((base, ack)) = self.append(records, now.wall) else { return };
                start = start.or(Some(base));
                last = ack;
            }
            let start = start.unwrap_or_else(|| self.partition.position().log_end);
            state.records_in_log = live.len();
            state.snapshot_under_way = true;
            state.awaiting.push_back((Awaited::Snapshot(start), last));
        }
        self.changed.notify_one();
        self.partition.write();
    }
}
