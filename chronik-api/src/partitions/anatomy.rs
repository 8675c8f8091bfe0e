//! Where an acknowledged record's time goes: one batch of a partition at a time is followed from its request's first byte to
//! its answer's last, and on followers from its arrival to its sync; what each stage took goes into
//! [`crate::metrics::stages`].
//!
//! **Sampled**, so that it may stay on: a node begins to follow at most one batch in [`SAMPLE_EVERY`], of whichever partition
//! comes first then and follows none, and for all others pays a few atomic loads and a comparison. Following one costs two
//! microseconds (measured: `examples/following.rs`), and a little more where there are followers: that is less than a quarter
//! of a percent of one processor, however busy the node is.
//!
//! **Only what was acknowledged counts**, and all its stages together, when its answer has gone out: a batch that was
//! refused, timed out, or whose client has gone away counts nowhere. Batches that are there already, that are compressed anew
//! here, that ask for no acknowledgement, or that the broker itself writes are not followed.
//!
//! **The clock is this node's alone.** A leader cannot tell its followers' writing from the network: they time that
//! themselves, of whichever frames come when they look.

use crate::metrics::stages::{AckStages, Awaited, EngineStages, Stage};
use chronik_core::batch::Batch;
use chronik_core::ids::{NodeId, Offset};
use chronik_core::partition::leader::{Acks, Durability, Leader};
use chronik_core::time::Monotonic;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a node begins to follow a batch, as a leader and as a follower each. 500 a second show a median within a second
/// and a hundredth within ten, and cost a quarter of a percent of a processor even at five microseconds each.
const SAMPLE_EVERY: Duration = Duration::from_millis(2);

/// What a follower has not written or synced after this long it never will, or not for that frame: its log was cut, or it
/// leads. No sync of a disk that works takes so long.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(30);

/// When the bytes of a request came.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub first_byte: Instant,
    pub last_byte: Instant,
}

impl Arrival {
    pub fn now() -> Self {
        let now = Instant::now();
        Self { first_byte: now, last_byte: now }
    }
}

/// What all partitions of a node share.
#[derive(Debug, Default)]
pub struct Sampling {
    stages: Arc<AckStages>,
    /// When the next batch may be followed, on the broker's monotonic clock in microseconds.
    next_led_us: AtomicU64,
    next_followed_us: AtomicU64,
}

impl Sampling {
    pub fn new(stages: Arc<AckStages>) -> Self {
        Self { stages, ..Self::default() }
    }
}

fn us(at: Monotonic) -> u64 {
    u64::try_from(at.0.as_micros()).unwrap_or(u64::MAX)
}

fn is_due(next_us: &AtomicU64, now: Monotonic) -> bool {
    us(now) >= next_us.load(Ordering::Relaxed)
}

/// Of those who find it due, one.
fn claim(next_us: &AtomicU64, now: Monotonic) -> bool {
    let (now, next) = (us(now), next_us.load(Ordering::Relaxed));
    let then = now.saturating_add(SAMPLE_EVERY.as_micros() as u64);
    now >= next && next_us.compare_exchange(next, then, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind the locks here is replaced whole: valid whatever a panicking holder left.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A moment that is noted once, by whoever comes first, as nanoseconds after the request's first byte.
#[derive(Debug, Default)]
struct Mark(AtomicU64);

impl Mark {
    fn note(&self, since: Instant, at: Instant) {
        let ns = at.saturating_duration_since(since).as_nanos();
        let ns = u64::try_from(ns).unwrap_or(u64::MAX).max(1);
        // Who is later has seen the same thing later.
        let _ = self.0.compare_exchange(0, ns, Ordering::Release, Ordering::Relaxed);
    }

    fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Acquire)).filter(|ns| *ns > 0)
    }
}

/// A batch that is followed.
#[derive(Debug)]
struct Followed {
    base: Offset,
    next_offset: Offset,
    awaited: Awaited,
    durability: Durability,
    /// Others count besides the leader.
    is_replicated: bool,
    arrival: Arrival,
    checked: Instant,
    ordered: Instant,
    asked_to_write: Mark,
    written: Mark,
    durable: Mark,
    /// Latest of those that took it, until all have it.
    sent_ns: AtomicU64,
    replicated: Mark,
    committed: Mark,
}

/// Where a batch that is to be followed stands when it has its place in the log.
pub struct Ordered {
    pub arrival: Arrival,
    pub checked: Instant,
    pub base: Offset,
    pub next_offset: Offset,
    pub acks: Acks,
}

impl Followed {
    fn note(&self, mark: &Mark, at: Instant) {
        mark.note(self.arrival.first_byte, at);
    }

    /// Adds all stages, if it was acknowledged as it asked.
    fn count(&self, stages: &EngineStages, replied: Instant) {
        let since = |at: Instant| {
            u64::try_from(at.saturating_duration_since(self.arrival.first_byte).as_nanos()).unwrap_or(u64::MAX)
        };
        let Some(written) = self.written.get() else { return };
        // The clock of one thread may be read before, and noted after, that of another: each stage ends where the next one
        // begins, so that no time is counted twice and none is lost.
        let last_byte = since(self.arrival.last_byte);
        let checked = since(self.checked).max(last_byte);
        let written = written.max(checked);
        let asked = self.asked_to_write.get().unwrap_or(checked).clamp(checked, written);
        let observe = |stage: Stage, ns: u64| stages.of(self.awaited, stage).observe(Duration::from_nanos(ns));
        let mut answerable = written;
        if self.awaited == Awaited::All {
            let Some(committed) = self.committed.get() else { return };
            let committed = committed.max(written);
            let local = match self.durability {
                Durability::Fsync => self.durable.get().unwrap_or(committed).clamp(written, committed),
                Durability::Replicated => written,
            };
            let mut all = local;
            if self.is_replicated {
                let ordered = since(self.ordered);
                let replicated = self.replicated.get().unwrap_or(committed).clamp(ordered, committed.max(ordered));
                let sent = self.sent_ns.load(Ordering::Acquire).clamp(ordered, replicated);
                observe(Stage::Send, sent - ordered);
                observe(Stage::RoundTrip, replicated - sent);
                all = replicated.clamp(local, committed);
                observe(Stage::Followers, all - local);
            }
            if self.durability == Durability::Fsync {
                observe(Stage::LocalSync, local - written);
            }
            observe(Stage::Watermark, committed - all);
            answerable = committed;
        }
        observe(Stage::Read, last_byte);
        observe(Stage::Decode, checked - last_byte);
        observe(Stage::Queue, asked - checked);
        observe(Stage::Append, written - asked);
        observe(Stage::Reply, since(replied).saturating_sub(answerable));
    }
}

/// A frame of a leader that is followed here.
#[derive(Clone, Copy, Debug)]
struct Arrived {
    end: Offset,
    at: Instant,
    written: Option<Instant>,
}

/// What a partition follows: at most one batch that it leads, and one frame that came to it.
#[derive(Debug)]
pub struct Watch {
    sampling: Arc<Sampling>,
    stages: Arc<EngineStages>,
    /// A batch is followed, and something is still to be noted of it here.
    is_open: AtomicBool,
    current: Mutex<Option<Arc<Followed>>>,
    /// Its request is not answered yet, and its client is there.
    is_awaited: AtomicBool,
    awaits_frame: AtomicBool,
    frame: Mutex<Option<Arrived>>,
    /// A follower's sync is part of what its leader waits for.
    syncs: AtomicBool,
}

impl Watch {
    pub fn new(sampling: Arc<Sampling>, engine: &str) -> Arc<Self> {
        let stages = sampling.stages.engine(engine);
        Arc::new(Self {
            sampling,
            stages,
            is_open: AtomicBool::new(false),
            current: Mutex::new(None),
            is_awaited: AtomicBool::new(false),
            awaits_frame: AtomicBool::new(false),
            frame: Mutex::new(None),
            syncs: AtomicBool::new(true),
        })
    }

    pub fn set_durability(&self, durability: Durability) {
        self.syncs.store(durability == Durability::Fsync, Ordering::Relaxed);
    }

    /// Whether the next batch that is appended should be followed.
    pub fn is_due(&self, now: Monotonic) -> bool {
        is_due(&self.sampling.next_led_us, now) && !self.is_awaited.load(Ordering::Acquire)
    }

    /// Follows a batch that has just got its place. Under the partition's lock.
    pub fn begin<K>(
        self: &Arc<Self>,
        now: Monotonic,
        ordered: Ordered,
        leader: &Leader<K>,
        me: NodeId,
    ) -> Option<Ticket> {
        let Ordered { arrival, checked, base, next_offset, acks } = ordered;
        let awaited = match acks {
            Acks::None => return None,
            Acks::Leader => Awaited::Leader,
            Acks::All => Awaited::All,
        };
        if !claim(&self.sampling.next_led_us, now) || self.is_awaited.swap(true, Ordering::AcqRel) {
            return None;
        }
        let at = Instant::now();
        let followed = Arc::new(Followed {
            base,
            next_offset,
            awaited,
            durability: leader.durability(),
            is_replicated: leader.replicas().in_sync().iter().any(|node| *node != me),
            arrival,
            checked,
            ordered: at,
            asked_to_write: Mark::default(),
            written: Mark::default(),
            durable: Mark::default(),
            sent_ns: AtomicU64::new(0),
            replicated: Mark::default(),
            committed: Mark::default(),
        });
        *lock(&self.current) = Some(followed.clone());
        self.is_open.store(true, Ordering::Release);
        // An engine may have done all of it already.
        self.look(leader, me, at);
        Some(Ticket { watch: self.clone(), followed })
    }

    fn open(&self) -> Option<Arc<Followed>> {
        if !self.is_open.load(Ordering::Acquire) {
            return None;
        }
        lock(&self.current).clone()
    }

    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// The log is asked to write what was ordered.
    pub fn writes(&self) {
        if let Some(followed) = self.open() {
            followed.note(&followed.asked_to_write, Instant::now());
        }
    }

    /// The log reports what it has written.
    pub fn written(&self, end: Offset) {
        if let Some(followed) = self.open().filter(|followed| end >= followed.next_offset) {
            followed.note(&followed.written, Instant::now());
        }
        self.frame_written(end);
    }

    /// The log reports what it has synced.
    pub fn durable(&self, end: Offset) {
        if let Some(followed) = self.open().filter(|followed| end >= followed.next_offset) {
            followed.note(&followed.durable, Instant::now());
        }
        self.frame_durable(end);
    }

    /// Records are handed to the lane to a follower.
    pub fn sends(&self, batches: &[Batch]) {
        let Some(followed) = self.open() else { return };
        let (Some(first), Some(last)) = (batches.first(), batches.last()) else { return };
        if first.header.base_offset <= followed.base
            && followed.base < last.header.next_offset()
            && followed.replicated.get().is_none()
        {
            let ns = Instant::now().saturating_duration_since(followed.arrival.first_byte).as_nanos();
            followed.sent_ns.fetch_max(u64::try_from(ns).unwrap_or(u64::MAX), Ordering::Release);
        }
    }

    /// Looks what the leader knows now, after something that came `since`. Under the partition's lock.
    pub fn look<K>(&self, leader: &Leader<K>, me: NodeId, since: Instant) {
        let Some(followed) = self.open() else { return };
        let next = followed.next_offset;
        let (written, durable) = leader.own_ends();
        if written >= next {
            followed.note(&followed.written, since);
        }
        if durable >= next {
            followed.note(&followed.durable, since);
        }
        if followed.awaited != Awaited::All {
            if written >= next {
                self.is_open.store(false, Ordering::Release);
            }
            return;
        }
        let is_committed = leader.high_watermark() >= next;
        if followed.is_replicated && (is_committed || all_have(leader, me, followed.durability, next)) {
            followed.note(&followed.replicated, since);
        }
        if is_committed {
            followed.note(&followed.committed, Instant::now());
            self.is_open.store(false, Ordering::Release);
        }
    }

    /// A leader's records have come.
    pub fn arrived(&self, now: Monotonic, batches: &[Batch]) {
        if !is_due(&self.sampling.next_followed_us, now) {
            return;
        }
        let Some(last) = batches.last() else { return };
        let at = Instant::now();
        if self.awaits_frame.load(Ordering::Acquire)
            && lock(&self.frame).is_some_and(|frame| at.saturating_duration_since(frame.at) < GIVEN_UP_AFTER)
        {
            return;
        }
        if claim(&self.sampling.next_followed_us, now) {
            *lock(&self.frame) = Some(Arrived { end: last.header.next_offset(), at, written: None });
            self.awaits_frame.store(true, Ordering::Release);
        }
    }

    pub fn awaits_frame(&self) -> bool {
        self.awaits_frame.load(Ordering::Acquire)
    }

    fn frame_written(&self, end: Offset) {
        if !self.awaits_frame() {
            return;
        }
        let mut frame = lock(&self.frame);
        if let Some(arrived) = frame.as_mut().filter(|arrived| end >= arrived.end && arrived.written.is_none()) {
            let at = Instant::now();
            let took = at.saturating_duration_since(arrived.at);
            self.stages.of(Awaited::Unknown, Stage::FollowerAppend).observe(took);
            arrived.written = Some(at);
            if !self.syncs.load(Ordering::Relaxed) {
                *frame = None;
                self.awaits_frame.store(false, Ordering::Release);
            }
        }
    }

    fn frame_durable(&self, end: Offset) {
        // What is synced was written, whether that was reported or not.
        self.frame_written(end);
        if !self.awaits_frame() {
            return;
        }
        let mut frame = lock(&self.frame);
        if let Some(written) = frame.filter(|arrived| end >= arrived.end).and_then(|arrived| arrived.written) {
            let took = Instant::now().saturating_duration_since(written);
            self.stages.of(Awaited::Unknown, Stage::FollowerSync).observe(took);
            *frame = None;
            self.awaits_frame.store(false, Ordering::Release);
        }
    }
}

fn all_have<K>(leader: &Leader<K>, me: NodeId, durability: Durability, next: Offset) -> bool {
    let replicas = leader.replicas();
    replicas.in_sync().iter().filter(|node| **node != me).all(|node| {
        replicas.followers().any(|(follower, written, durable, _)| {
            let end = if durability == Durability::Fsync { durable } else { written };
            follower == *node && end >= next
        })
    })
}

/// Held by the request whose batch is followed, until its answer has gone out. Dropped before that, it counts nothing.
#[derive(Debug)]
pub struct Ticket {
    watch: Arc<Watch>,
    followed: Arc<Followed>,
}

impl Ticket {
    /// The answer is with the operating system.
    pub fn replied(self) {
        self.followed.count(&self.watch.stages, Instant::now());
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.watch.is_open.store(false, Ordering::Release);
        self.watch.is_awaited.store(false, Ordering::Release);
    }
}

/// Where a ticket waits for the connection to take it along, from the handler that was given it.
#[derive(Debug, Default)]
pub struct TicketPlace {
    is_taken: AtomicBool,
    ticket: Mutex<Option<Ticket>>,
}

impl TicketPlace {
    pub fn put(&self, ticket: Ticket) {
        *lock(&self.ticket) = Some(ticket);
        self.is_taken.store(true, Ordering::Release);
    }

    pub fn take(&self) -> Option<Ticket> {
        if !self.is_taken.load(Ordering::Acquire) {
            return None;
        }
        self.is_taken.store(false, Ordering::Relaxed);
        lock(&self.ticket).take()
    }
}
