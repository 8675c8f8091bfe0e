//! How much of all tails stays in memory: the engine-wide budget, kept by letting go of what was written longest ago.

use crate::log::SegmentLog;
use chronik_core::ids::Offset;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError, Weak};

/// Writes of one log that are let go of together, in bytes: fewer tickets for small writes.
const TICKET_BYTES: u64 = 128 << 10;

/// The right to let go of a log's runs up to an offset.
struct Ticket {
    log: Weak<SegmentLog>,
    upto: Offset,
    bytes: u64,
}

pub struct TailCache {
    budget_bytes: u64,
    /// Signed: a log may let go of a run before its writer has come to count it.
    cached_bytes: AtomicI64,
    tickets: Mutex<VecDeque<Ticket>>,
}

impl TailCache {
    pub fn new(budget_bytes: u64) -> Self {
        Self { budget_bytes, cached_bytes: AtomicI64::new(0), tickets: Mutex::default() }
    }

    pub fn bytes(&self) -> u64 {
        self.cached_bytes.load(Ordering::Relaxed).max(0).cast_unsigned()
    }

    /// Counts what a log has written and keeps, and makes room for it. Takes logs' locks: the caller holds none.
    pub fn add(&self, log: &Weak<SegmentLog>, upto: Offset, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.cached_bytes.fetch_add(bytes.cast_signed(), Ordering::Relaxed);
        self.tickets_with(|tickets| match tickets.back_mut() {
            Some(last) if last.bytes < TICKET_BYTES && last.log.ptr_eq(log) => {
                last.upto = last.upto.max(upto);
                last.bytes += bytes;
            }
            _ => tickets.push_back(Ticket { log: log.clone(), upto, bytes }),
        });
        while self.bytes() > self.budget_bytes {
            let Some(ticket) = self.tickets_with(VecDeque::pop_front) else { break };
            if let Some(log) = ticket.log.upgrade() {
                log.evict_tail(ticket.upto);
            }
        }
    }

    pub fn give_back(&self, bytes: u64) {
        self.cached_bytes.fetch_sub(bytes.cast_signed(), Ordering::Relaxed);
    }

    fn tickets_with<R>(&self, act: impl FnOnce(&mut VecDeque<Ticket>) -> R) -> R {
        // Single pushes and pops leave the queue valid.
        act(&mut self.tickets.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
