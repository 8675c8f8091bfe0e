//! A call on its way into the plug-in: what it asked, who waits for it, and what it has lent.
//!
//! What must stay true: what a call lends lives until the call has completed, even if that is never; and its waiter is
//! answered once, outside all locks.

use super::{Closing, Log};
use crate::judge;
use bytes::Bytes;
use chronik_core::ids::Offset;
use chronik_core::payload::Payload;
use chronik_core::pending::Done;
use chronik_core::wal::{Appended, Cause, Chunk, ReadRange, Run, WalError};
use chronik_plugin_abi as abi;
use chronik_plugin_abi::{ck_meta, ck_result, ck_slice};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a call asked, as far as its answer is judged by it.
#[derive(Clone, Copy)]
pub(crate) enum Asked {
    Append { next_offset: Offset, bytes: u64 },
    Sync { at_least: i64 },
    Read(ReadRange),
    Truncate,
    Find,
    Put,
    Get,
    Close,
}

impl Asked {
    pub fn name(self) -> &'static str {
        match self {
            Asked::Append { .. } => "append",
            Asked::Sync { .. } => "sync",
            Asked::Read(_) => "read",
            Asked::Truncate => "truncate or reset",
            Asked::Find => "offset_for_timestamp",
            Asked::Put => "meta_put",
            Asked::Get => "meta_get",
            Asked::Close => "log_close",
        }
    }
}

/// Who waits for a call.
pub(crate) enum Waiter {
    Nobody,
    Append(Done<Result<Appended, WalError>>),
    Offset(Done<Result<Offset, WalError>>),
    Chunk(Done<Result<Chunk, WalError>>),
    Unit(Done<Result<(), WalError>>),
    Found(Done<Result<Option<Offset>, WalError>>),
    Value(Done<Result<Option<Bytes>, WalError>>),
    Close(Done<Result<(), WalError>>),
}

/// What the plug-in may look at until the call has completed. The pointers point into what lies beside them, on the heap.
pub(super) enum Lent {
    Nothing,
    Run { run: Run, _slices: Vec<ck_slice> },
    Key { _key: String, _slices: Vec<ck_slice> },
    Entries { _entries: Vec<(String, Option<Bytes>)>, _metas: Vec<ck_meta> },
}

/// A call on its way.
pub(crate) struct Op {
    pub log: Arc<Log>,
    pub asked: Asked,
    pub(super) waiter: Waiter,
    pub(super) lent: Lent,
    /// [`Log::changes`] when it began.
    pub(super) changes: u64,
    pub(super) tick: u64,
}

// SAFETY: the pointers it lends point at what it owns beside them, which is Send; nobody but the plug-in follows them.
unsafe impl Send for Op {}

/// Why we answer in the plug-in's stead.
pub(crate) enum Blame {
    Late(Asked),
    Distrusted(Cause),
}

impl Waiter {
    /// Answers with a failure. Outside all locks.
    pub fn fail(self, log: &Arc<Log>, blame: &Blame) {
        let cause = match blame {
            Blame::Late(asked) => {
                if matches!(self, Waiter::Close(_)) {
                    log.set_closing(Closing::Stuck);
                }
                let waited = log.terms.patience(*asked);
                log.fail_for(&format!("has not completed `{}` within {waited:?}", asked.name()))
            }
            Blame::Distrusted(cause) => cause.clone(),
        };
        let error = WalError::Failed(cause);
        match self {
            Waiter::Nobody => {}
            Waiter::Append(done) => done.complete(Err(error)),
            Waiter::Offset(done) => done.complete(Err(error)),
            Waiter::Chunk(done) => done.complete(Err(error)),
            Waiter::Unit(done) | Waiter::Close(done) => done.complete(Err(error)),
            Waiter::Found(done) => done.complete(Err(error)),
            Waiter::Value(done) => done.complete(Err(error)),
        }
    }
}

impl Op {
    pub fn stop_waiting(&mut self) -> Waiter {
        std::mem::replace(&mut self.waiter, Waiter::Nobody)
    }

    pub fn overdue(&self, tick: u64) -> Option<Blame> {
        (tick.saturating_sub(self.tick) > self.log.terms.ticks(self.asked)).then_some(Blame::Late(self.asked))
    }

    /// A callback came for it; `None` if what came with it is no result.
    pub fn completed(self: Box<Self>, result: Option<&ck_result>) {
        let mut op = self;
        let waiter = op.stop_waiting();
        let Some(result) = result else {
            let cause = op.log.fail_for("completed a call with something that is not a result");
            op.landed();
            return waiter.fail(&op.log, &Blame::Distrusted(cause));
        };
        let status = result.status;
        let status = if status == abi::PENDING { abi::INVALID } else { status };
        op.landed();
        // Whether a close has begun is seen without a lock.
        if !matches!(op.asked, Asked::Close | Asked::Read(_) | Asked::Get) && op.log.is_closing() && op.log.closed() {
            op.log.complain(&format!("completes `{}` after it has closed the log", op.asked.name()));
        }
        match waiter {
            Waiter::Nobody => {}
            Waiter::Append(done) => done.complete(judge::appended(&op, status, result)),
            Waiter::Offset(done) => done.complete(judge::synced(&op, status, result)),
            Waiter::Chunk(done) => done.complete(judge::chunk(&op, status, result)),
            Waiter::Unit(done) => done.complete(judge::unit(&op, status, result)),
            Waiter::Found(done) => done.complete(judge::found(&op, status, result)),
            Waiter::Value(done) => done.complete(judge::value(&op, status, result)),
            Waiter::Close(done) => {
                let outcome = judge::unit(&op, status, result);
                op.log.set_closing(Closing::Closed);
                done.complete(outcome);
            }
        }
    }

    /// What an append appends.
    pub fn run_bytes(&self) -> Option<&Payload> {
        match &self.lent {
            Lent::Run { run, .. } => Some(&run.bytes),
            _ => None,
        }
    }

    /// The same, and the call has them no more.
    pub fn leave_run_bytes(&mut self) -> Option<Payload> {
        match &mut self.lent {
            Lent::Run { run, .. } => Some(std::mem::take(&mut run.bytes)),
            _ => None,
        }
    }

    /// No longer in flight.
    pub(super) fn landed(&self) {
        if let Asked::Append { bytes, .. } = self.asked {
            self.log.in_flight.fetch_sub(1, Ordering::AcqRel);
            if self.log.bounds_append_bytes() {
                self.log.in_flight_bytes.fetch_sub(bytes, Ordering::AcqRel);
            }
        }
    }

    /// Whether nothing has been truncated or reset since the call began.
    pub fn undisturbed(&self) -> bool {
        self.log.changes.load(Ordering::Acquire) == self.changes
    }
}
