//! The numbers by which plug-ins name pending calls and logs: a slot and a generation, never a pointer.
//!
//! A slot holds what a call points at until the plug-in has completed it, also when nobody waits any more: a plug-in that
//! never completes makes us keep that memory, but can never touch freed memory. Of an append whose bytes the plug-in keeps
//! for longer they stay in its slot, under its number, until it releases them: the way of an append through this table is
//! what the boundary costs most. A number that is used a second time finds its slot in a later generation, or without a
//! call.

use crate::log::{Blame, Log, Op};
use chronik_core::payload::Payload;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Enough that threads rarely meet in one.
const SHARDS: usize = 16;
const SHARD_BITS: u32 = SHARDS.trailing_zeros();
/// Never given out: a context of zero is always made up.
const NOBODY: u64 = 0;
/// Of so many numbers that are over it is known whose they were, for those who use them a second time.
const OVER: usize = 64;

enum Held {
    Nothing,
    /// A log, for `ready`.
    Log(Weak<Log>),
    Call(Box<Op>),
    /// Nobody waits for it any more, but the plug-in may still use what it points at.
    GivenUp(Box<Op>),
    /// Bytes of an append that the plug-in uses beyond its completion.
    Kept {
        _bytes: Payload,
    },
}

/// As large and as aligned as two lines of a processor's cache: one whose bytes were kept is far away when they go.
#[repr(align(128))]
struct Slot {
    generation: u32,
    /// How often the plug-in has kept the append's bytes and not released them.
    kept: u32,
    held: Held,
    /// The number of the log whose it is, for blame.
    whose: u64,
    /// Where it is in [`Shard::watched`], if it is.
    place: u32,
}

/// A number that is over, and that of the log whose it was.
#[derive(Clone, Copy)]
struct Over {
    number: u64,
    whose: u64,
}

struct Shard {
    slots: Vec<Slot>,
    /// The last numbers that are over, and where the next one goes.
    over: [Over; OVER],
    over_next: usize,
    /// Free; used from the end, where they were in use a moment ago and are near.
    free: Vec<u32>,
    /// Those with logs and with calls that somebody waits for. What is overdue is looked for among them: of bytes that are
    /// kept there may be many thousands.
    watched: Vec<u32>,
}

static TABLE: [Mutex<Shard>; SHARDS] = [const { Mutex::new(Shard::EMPTY) }; SHARDS];

impl Shard {
    const EMPTY: Self = Self {
        slots: Vec::new(),
        over: [Over { number: NOBODY, whose: NOBODY }; OVER],
        over_next: 0,
        free: Vec::new(),
        watched: Vec::new(),
    };

    fn watch(&mut self, index: usize) {
        self.slots[index].place = self.watched.len() as u32;
        self.watched.push(index as u32);
    }

    fn watch_no_more(&mut self, index: usize) {
        let place = self.slots[index].place as usize;
        if self.watched.get(place) != Some(&(index as u32)) {
            return;
        }
        self.watched.swap_remove(place);
        if let Some(&moved) = self.watched.get(place) {
            self.slots[moved as usize].place = place as u32;
        }
    }

    fn unused(&mut self) -> usize {
        if let Some(index) = self.free.pop() {
            return index as usize;
        }
        self.slots.push(Slot { generation: 1, kept: 0, held: Held::Nothing, whose: NOBODY, place: 0 });
        self.slots.len() - 1
    }

    /// The slot's number is over.
    fn vacate(&mut self, number: u64) -> Held {
        let (_, index, _) = split(number);
        self.watch_no_more(index);
        let slot = &mut self.slots[index];
        self.over[self.over_next % OVER] = Over { number, whose: slot.whose };
        self.over_next = (self.over_next + 1) % OVER;
        let held = std::mem::replace(&mut slot.held, Held::Nothing);
        slot.kept = 0;
        // Never zero: see [`NOBODY`].
        slot.generation = slot.generation.checked_add(1).unwrap_or(1);
        self.free.push(index as u32);
        held
    }

    /// Nothing is pending under this number.
    fn stray(&self, number: u64) -> Stray {
        let known = self.over.iter().find(|over| over.number == number);
        Stray(known.map_or(NOBODY, |over| over.whose))
    }
}

fn shard(number: usize) -> MutexGuard<'static, Shard> {
    // Changes under the lock are single assignments and pushes: valid after each.
    TABLE[number % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
}

/// Each thread has its own shard to put calls into.
fn mine() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    MINE.with(|mine| *mine)
}

/// Takes in what is to be watched.
fn put(held: Held, whose: u64) -> u64 {
    let number = mine() % SHARDS;
    let mut shard = shard(number);
    let index = shard.unused();
    shard.watch(index);
    let slot = &mut shard.slots[index];
    slot.held = held;
    slot.whose = whose;
    u64::from(slot.generation) << 32 | (index as u64) << SHARD_BITS | number as u64
}

/// Takes a call in; its number goes to the plug-in.
pub(crate) fn call(op: Box<Op>) -> u64 {
    let whose = op.log.context();
    put(Held::Call(op), whose)
}

/// A number for a log that is about to be opened; [`name_log`] says which it is.
pub(crate) fn new_log() -> u64 {
    put(Held::Log(Weak::new()), NOBODY)
}

pub(crate) fn name_log(context: u64, log: &Arc<Log>) {
    let (number, index, generation) = split(context);
    if let Some(slot) = shard(number).slots.get_mut(index)
        && slot.generation == generation
    {
        slot.held = Held::Log(Arc::downgrade(log));
    }
}

fn split(context: u64) -> (usize, usize, u32) {
    let slot = context as u32;
    (slot as usize % SHARDS, (slot >> SHARD_BITS) as usize, (context >> 32) as u32)
}

/// What a number stands for that a plug-in has used.
pub(crate) enum Named {
    Call(Box<Op>),
    /// The broker had given up on it: what it points at may go now.
    GivenUp(Box<Op>),
    /// No pending call.
    Stray(Stray),
}

/// The log whose call a number was, if that can be told.
pub(crate) struct Stray(u64);

impl Stray {
    pub(crate) fn log(&self) -> Option<Arc<Log>> {
        find_log(self.0)
    }
}

/// Takes a call out again, since a callback has completed it.
pub(crate) fn take_completed(context: u64) -> Named {
    take(context, Op::leave_run_bytes)
}

/// Takes a call out again, since it was answered at once: what it has lent may be given back to whoever made it.
pub(crate) fn take_answered(context: u64) -> Named {
    take(context, |op| op.run_bytes().cloned())
}

/// Of an append whose bytes the plug-in keeps they stay, and so does the slot.
fn take(context: u64, bytes: impl FnOnce(&mut Op) -> Option<Payload>) -> Named {
    let (number, index, generation) = split(context);
    let mut shard = shard(number);
    let Some(slot) = shard.slots.get_mut(index).filter(|slot| slot.generation == generation) else {
        return Named::Stray(shard.stray(context));
    };
    match &mut slot.held {
        Held::Call(op) | Held::GivenUp(op) => {
            let kept = if slot.kept == 0 { None } else { bytes(op) };
            let held = match kept {
                Some(bytes) => {
                    let held = std::mem::replace(&mut slot.held, Held::Kept { _bytes: bytes });
                    shard.watch_no_more(index);
                    held
                }
                None => shard.vacate(context),
            };
            match held {
                Held::Call(op) => Named::Call(op),
                Held::GivenUp(op) => Named::GivenUp(op),
                Held::Nothing | Held::Log(_) | Held::Kept { .. } => unreachable!("it was a call, under the same lock"),
            }
        }
        Held::Kept { .. } => Named::Stray(Stray(slot.whose)),
        Held::Nothing | Held::Log(_) => Named::Stray(Stray(NOBODY)),
    }
}

/// Keeps the bytes of a pending append for longer than it; the number gives them back, once for each time. Zero if there is
/// no such append.
pub(crate) fn keep(context: u64) -> u64 {
    let (number, index, generation) = split(context);
    let mut shard = shard(number);
    let Some(slot) = shard.slots.get_mut(index) else { return NOBODY };
    let keeps = match &slot.held {
        Held::Call(op) | Held::GivenUp(op) => slot.generation == generation && op.run_bytes().is_some(),
        _ => false,
    };
    match slot.kept.checked_add(1).filter(|_| keeps) {
        Some(kept) => {
            slot.kept = kept;
            context
        }
        None => NOBODY,
    }
}

/// Whether there was something to give back.
pub(crate) fn release(kept: u64) -> bool {
    let (number, index, generation) = split(kept);
    let mut shard = shard(number);
    let Some(slot) = shard.slots.get_mut(index).filter(|slot| slot.generation == generation && slot.kept > 0) else {
        return false;
    };
    slot.kept -= 1;
    let over = slot.kept == 0 && matches!(slot.held, Held::Kept { .. });
    let held = over.then(|| shard.vacate(kept));
    drop(shard);
    // Outside the lock: whose bytes they are may have something to do when they go.
    drop(held);
    true
}

/// The log that a number stands for.
pub(crate) fn find_log(context: u64) -> Option<Arc<Log>> {
    let (number, index, generation) = split(context);
    let shard = shard(number);
    match shard.slots.get(index) {
        Some(Slot { generation: current, held: Held::Log(log), .. }) if *current == generation => log.upgrade(),
        _ => None,
    }
}

pub(crate) fn forget_log(context: u64) {
    let (number, index, generation) = split(context);
    let mut shard = shard(number);
    let known = shard.slots.get(index).is_some_and(|slot| slot.generation == generation);
    if known {
        drop(shard.vacate(context));
    }
}

/// Nobody waits any more for the calls that `which` picks: they are answered with a failure, and what they point at stays
/// for the plug-in.
pub(crate) fn give_up(which: impl Fn(&Op) -> Option<Blame>) {
    for number in 0..SHARDS {
        let mut given_up = Vec::new();
        let mut shard = shard(number);
        let blamed = |&index: &u32| match &shard.slots[index as usize].held {
            Held::Call(op) => which(op).map(|blame| (index as usize, blame)),
            _ => None,
        };
        let blamed: Vec<_> = shard.watched.iter().filter_map(blamed).collect();
        for (index, blame) in blamed {
            shard.watch_no_more(index);
            let slot = &mut shard.slots[index];
            if let Held::Call(mut op) = std::mem::replace(&mut slot.held, Held::Nothing) {
                given_up.push((op.log.clone(), op.stop_waiting(), blame));
                slot.held = Held::GivenUp(op);
            }
        }
        drop(shard);
        // Outside the lock: who is told may drop what it has.
        for (log, waiter, blame) in given_up {
            waiter.fail(&log, &blame);
        }
    }
}

/// Calls whose time is over at this tick, and logs that owe a `ready` for too long.
pub(crate) fn give_up_overdue(tick: u64) {
    give_up(|op| op.overdue(tick));
    for number in 0..SHARDS {
        let shard = shard(number);
        let named = |&index: &u32| match &shard.slots[index as usize].held {
            Held::Log(log) => log.upgrade(),
            _ => None,
        };
        let logs: Vec<_> = shard.watched.iter().filter_map(named).collect();
        drop(shard);
        // Outside the lock: the last of whoever names a log may be this.
        logs.iter().for_each(|log| log.give_up_ready(tick));
    }
}
