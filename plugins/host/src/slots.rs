//! The numbers by which plug-ins name pending calls and logs: a slot and a generation, never a pointer.
//!
//! A slot holds what a call points at until the plug-in has completed it, also when nobody waits any more: a plug-in that
//! never completes makes us keep that memory, but can never touch freed memory. A number that is used a second time finds
//! its slot in a later generation.

use crate::log::{Blame, Log, Op};
use chronik_core::payload::Payload;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Enough that threads rarely meet in one.
const SHARDS: usize = 16;
const SHARD_BITS: u32 = SHARDS.trailing_zeros();
/// So many freed slots rest before the first of them is used again: until then a stray completion tells whose it was.
const REST: usize = 64;

enum Held {
    Nothing,
    /// A log, for `ready`.
    Log(Weak<Log>),
    Call(Box<Op>),
    /// Bytes of an append that the plug-in uses beyond its completion.
    Kept {
        _bytes: Payload,
    },
    /// Nobody waits for it any more, but the plug-in may still use what it points at.
    GivenUp(Box<Op>),
}

struct Slot {
    generation: u32,
    held: Held,
    /// Whose it was last, for blame.
    last: Weak<Log>,
}

#[derive(Default)]
struct Shard {
    slots: Vec<Slot>,
    free: VecDeque<u32>,
}

static TABLE: [Mutex<Shard>; SHARDS] =
    [const { Mutex::new(Shard { slots: Vec::new(), free: VecDeque::new() }) }; SHARDS];

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

fn put(held: Held, last: Weak<Log>) -> u64 {
    let number = mine() % SHARDS;
    let mut shard = shard(number);
    let index = if shard.free.len() > REST { shard.free.pop_front() } else { None };
    let index = index.unwrap_or_else(|| {
        shard.slots.push(Slot { generation: 1, held: Held::Nothing, last: Weak::new() });
        (shard.slots.len() - 1) as u32
    });
    let slot = &mut shard.slots[index as usize];
    slot.held = held;
    slot.last = last;
    u64::from(slot.generation) << 32 | u64::from(index) << SHARD_BITS | number as u64
}

/// Takes a call in; its number goes to the plug-in.
pub(crate) fn call(op: Box<Op>) -> u64 {
    let last = Arc::downgrade(&op.log);
    put(Held::Call(op), last)
}

/// A number for a log that is about to be opened; [`name_log`] says which it is.
pub(crate) fn new_log() -> u64 {
    put(Held::Log(Weak::new()), Weak::new())
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

fn vacate(shard: &mut Shard, index: usize) -> Held {
    let slot = &mut shard.slots[index];
    let held = std::mem::replace(&mut slot.held, Held::Nothing);
    // Zero is never given out: a context of zero is always made up.
    slot.generation = slot.generation.checked_add(1).unwrap_or(1);
    shard.free.push_back(index as u32);
    held
}

/// What a number stands for that a plug-in has used.
pub(crate) enum Named {
    Call(Box<Op>),
    /// The broker had given up on it: what it points at may go now.
    GivenUp(Box<Op>),
    /// No pending call; the log whose call it was, if that can be told.
    Stray(Weak<Log>),
}

/// Takes a call out again, since it has completed.
pub(crate) fn take(context: u64) -> Named {
    let (number, index, generation) = split(context);
    let mut shard = shard(number);
    let Some(slot) = shard.slots.get(index) else { return Named::Stray(Weak::new()) };
    match &slot.held {
        Held::Call(_) | Held::GivenUp(_) if slot.generation == generation => match vacate(&mut shard, index) {
            Held::Call(op) => Named::Call(op),
            Held::GivenUp(op) => Named::GivenUp(op),
            Held::Nothing | Held::Log(_) | Held::Kept { .. } => Named::Stray(Weak::new()),
        },
        Held::Nothing if slot.generation.wrapping_sub(generation) == 1 => Named::Stray(slot.last.clone()),
        _ => Named::Stray(Weak::new()),
    }
}

/// Keeps the bytes of a pending append for longer than it; the number gives them back. Zero if there is no such append.
pub(crate) fn keep(context: u64) -> u64 {
    let (number, index, generation) = split(context);
    let (bytes, log) = match shard(number).slots.get(index) {
        Some(Slot { generation: current, held: Held::Call(op) | Held::GivenUp(op), last })
            if *current == generation =>
        {
            (op.run_bytes(), last.clone())
        }
        _ => return 0,
    };
    bytes.map_or(0, |bytes| put(Held::Kept { _bytes: bytes }, log))
}

/// Whether there was something to give back.
pub(crate) fn release(kept: u64) -> bool {
    let (number, index, generation) = split(kept);
    let mut shard = shard(number);
    let known = matches!(shard.slots.get(index), Some(Slot { generation: current, held: Held::Kept { .. }, .. }) if *current == generation);
    let held = known.then(|| vacate(&mut shard, index));
    drop(shard);
    held.is_some()
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
        drop(vacate(&mut shard, index));
    }
}

/// Nobody waits any more for the calls that `which` picks: they are answered with a failure, and what they point at stays
/// for the plug-in.
pub(crate) fn give_up(which: impl Fn(&Op) -> Option<Blame>) {
    for number in 0..SHARDS {
        let mut given_up = Vec::new();
        for slot in &mut shard(number).slots {
            let blame = match &slot.held {
                Held::Call(op) => which(op),
                _ => None,
            };
            if let Some(blame) = blame
                && let Held::Call(mut op) = std::mem::replace(&mut slot.held, Held::Nothing)
            {
                given_up.push((op.log.clone(), op.stop_waiting(), blame));
                slot.held = Held::GivenUp(op);
            }
        }
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
        let named = |slot: &Slot| match &slot.held {
            Held::Log(log) => log.upgrade(),
            _ => None,
        };
        let logs: Vec<_> = shard(number).slots.iter().filter_map(named).collect();
        // Outside the lock: the last of whoever names a log may be this.
        logs.iter().for_each(|log| log.give_up_ready(tick));
    }
}
