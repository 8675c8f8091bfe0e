//! One log of a plug-in: whether it is in service, and what is known of it.
//!
//! Each call becomes an [`Op`] in a slot and is answered once: by the call's own return, by its callback, or, when the
//! plug-in breaks the contract or lets its time pass, by us. After a breach the log is *distrusted*: it answers `Failed`
//! with the reason and the plug-in is not asked again, until the log has been closed and opened. Calls are made in
//! [`calls`]; what is on its way is in [`op`].

mod calls;
mod op;

pub(crate) use calls::PluginLog;
pub(crate) use op::{Asked, Blame, Op};

use crate::buffer;
use crate::engine::Terms;
use crate::judge;
use crate::plugin::Functions;
use crate::reaper;
use crate::slots::{self, Named};
use chronik_core::ids::{LogId, Offset};
use chronik_core::payload::Payload;
use chronik_core::wal::{Cause, LogState, WalError};
use chronik_plugin_abi as abi;
use chronik_plugin_abi::{EMPTY_RESULT, ck_result};
use std::ffi::c_void;
use std::mem::size_of;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

/// In [`Log::gate`]: no call may enter any more.
const CLOSING: u64 = 1 << 63;
/// In [`Log::end_known`]: a truncation or reset has moved it, and no append has told since.
const UNKNOWN: i64 = i64::MIN;

/// How far closing has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    Open,
    Closed,
    /// The plug-in did not close it in time: what it still does with it nobody knows.
    Stuck,
}

pub(crate) struct Log {
    terms: Arc<Terms>,
    id: LogId,
    handle: *mut c_void,
    context: u64,
    appends_max: u64,
    append_bytes_max: u64,
    /// Calls that are inside the plug-in now, and [`CLOSING`]. The last one out starts the close, so that no call ever
    /// runs beside or after it.
    gate: AtomicU64,
    close_op: Mutex<Option<Box<Op>>>,
    closing: Mutex<Closing>,
    closing_changed: Condvar,
    failed: OnceLock<Cause>,
    distrusted: AtomicBool,
    /// Counts what may move ends backwards: checks that assume they only grow hold while it stands still.
    changes: AtomicU64,
    /// Nothing the plug-in says may lie beyond what was ever ordered.
    highest: AtomicI64,
    end_known: AtomicI64,
    in_flight: AtomicU64,
    /// Counted where the plug-in bounds it.
    in_flight_bytes: AtomicU64,
    /// `BUSY` answers that no `ready` has followed yet. Below zero while one has come before the answer that it follows has
    /// been seen: the plug-in may say `ready` on another thread before its `BUSY` has returned.
    ready_owed: AtomicI64,
    /// The tick of the first `BUSY` that is owed a `ready`, or of the last `ready` since, if more are owed.
    busy_since: AtomicU64,
    /// An append is inside the plug-in: the host makes one at a time.
    appending: AtomicBool,
    last_state: Mutex<LogState>,
}

// SAFETY: the handle is a token that only the plug-in interprets, and the contract lets every function be called from any
// thread, at the same time as others.
unsafe impl Send for Log {}
// SAFETY: as above.
unsafe impl Sync for Log {}

/// What [`Log`] is made of.
pub(crate) struct Opened {
    pub terms: Arc<Terms>,
    pub id: LogId,
    pub handle: *mut c_void,
    pub context: u64,
    pub appends_max: u32,
    pub append_bytes_max: u64,
}

impl Log {
    /// `None` if the log that was opened makes no sense; it is then closed again as far as that goes.
    pub fn new(opened: Opened) -> Arc<Self> {
        let unlimited = |max: u64| if max == 0 { u64::MAX } else { max };
        let log = Arc::new(Self {
            terms: opened.terms,
            id: opened.id,
            handle: opened.handle,
            context: opened.context,
            appends_max: unlimited(u64::from(opened.appends_max)),
            append_bytes_max: unlimited(opened.append_bytes_max),
            gate: AtomicU64::new(0),
            close_op: Mutex::default(),
            closing: Mutex::new(Closing::Open),
            closing_changed: Condvar::new(),
            failed: OnceLock::new(),
            distrusted: AtomicBool::new(false),
            changes: AtomicU64::new(0),
            highest: AtomicI64::new(i64::MAX),
            end_known: AtomicI64::new(UNKNOWN),
            in_flight: AtomicU64::new(0),
            in_flight_bytes: AtomicU64::new(0),
            ready_owed: AtomicI64::new(0),
            busy_since: AtomicU64::new(0),
            appending: AtomicBool::new(false),
            last_state: Mutex::default(),
        });
        slots::name_log(opened.context, &log);
        let state = log.state();
        log.highest.store(state.end.0, Ordering::Release);
        log.end_known.store(state.end.0, Ordering::Release);
        log
    }

    /// The number by which the plug-in names it.
    pub fn context(&self) -> u64 {
        self.context
    }

    pub fn highest(&self) -> i64 {
        self.highest.load(Ordering::Acquire)
    }

    /// Something up to there is about to be ordered. Whatever moves it is called one after the other.
    fn may_reach(&self, end: Offset) {
        if self.highest() < end.0 {
            self.highest.store(end.0, Ordering::Release);
        }
    }

    /// Whether the plug-in bounds the bytes of appends that are on their way.
    fn bounds_append_bytes(&self) -> bool {
        self.append_bytes_max != u64::MAX
    }

    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// What a buffer of a result holds.
    pub fn payload(&self, result: &ck_result) -> Result<Payload, WalError> {
        // SAFETY: the plug-in handed out this buffer in a result, as the contract says.
        unsafe { buffer::payload(&result.buf, &self.terms.retained_bytes) }
            .map_err(|why| WalError::Failed(self.fail_for(&why)))
    }

    pub fn set_closing(&self, to: Closing) {
        *self.closing.lock().unwrap_or_else(PoisonError::into_inner) = to;
        self.closing_changed.notify_all();
        // After it is so: whoever finds it there looks once.
        if to == Closing::Closed {
            self.terms.closed.lock().unwrap_or_else(PoisonError::into_inner).push(self.id);
        }
    }

    pub fn closed(&self) -> bool {
        *self.closing.lock().unwrap_or_else(PoisonError::into_inner) == Closing::Closed
    }

    /// Whether a close has begun.
    pub fn is_closing(&self) -> bool {
        self.gate.load(Ordering::Acquire) & CLOSING != 0
    }

    /// Waits until a close that has begun is over.
    pub fn wait_closed(&self) -> Closing {
        let mut closing = self.closing.lock().unwrap_or_else(PoisonError::into_inner);
        while *closing == Closing::Open {
            closing = self.closing_changed.wait(closing).unwrap_or_else(PoisonError::into_inner);
        }
        *closing
    }

    /// The log has failed, as the plug-in says itself. Gives the first reason there was.
    pub fn fail(&self, why: &str) -> Cause {
        let mut first = false;
        let cause = self.failed.get_or_init(|| {
            first = true;
            Cause::new(format!("the storage plug-in {} {why}", self.terms.label))
        });
        if first {
            tracing::error!(log = %self.id, plugin = %self.terms.label, "a storage plug-in {why}; the log is out of service");
        }
        cause.clone()
    }

    /// The plug-in broke the contract: nothing it says about this log is believed any more.
    pub fn fail_for(self: &Log, why: &str) -> Cause {
        let cause = self.fail(why);
        if !self.distrusted.swap(true, Ordering::AcqRel) {
            slots::give_up(|op| {
                let mine = std::ptr::eq(Arc::as_ptr(&op.log), self) && !matches!(op.asked, Asked::Close);
                mine.then(|| Blame::Distrusted(cause.clone()))
            });
        }
        cause
    }

    /// A breach after which there is nothing left to take out of service.
    pub fn complain(&self, what: &str) {
        tracing::error!(log = %self.id, plugin = %self.terms.label, "a storage plug-in {what}");
    }

    pub fn ready(&self) {
        self.busy_since.store(reaper::tick(), Ordering::Release);
        let owed = self.ready_owed.fetch_sub(1, Ordering::AcqRel) - 1;
        let early = owed == -1 && self.appending.load(Ordering::Acquire);
        // The answer may have come between the two looks; it is counted before the append ends.
        if owed < 0 && !early && self.ready_owed.load(Ordering::Acquire) < 0 {
            self.fail_for("said `ready` without having said BUSY");
        }
    }

    /// Counts a `BUSY`, and ends an append. Whether no `ready` has come that it does not account for.
    pub fn append_returned(&self, busy: bool) -> bool {
        if busy && self.ready_owed.load(Ordering::Acquire) <= 0 {
            // Before it is owed, or it would be overdue from the first moment on. Nobody else makes it owed meanwhile.
            self.busy_since.store(reaper::tick(), Ordering::Release);
        }
        let owed = match busy {
            true => self.ready_owed.fetch_add(1, Ordering::AcqRel) + 1,
            false => self.ready_owed.load(Ordering::Acquire),
        };
        self.appending.store(false, Ordering::Release);
        owed >= 0
    }

    /// Takes the log out of service if a `BUSY` has not been followed by its `ready` in the time that calls have: nobody may
    /// be kept waiting for ever.
    pub fn give_up_ready(&self, tick: u64) {
        let late = self.ready_owed.load(Ordering::Acquire) > 0
            && tick.saturating_sub(self.busy_since.load(Ordering::Acquire)) > self.terms.call_ticks();
        if late && self.failed.get().is_none() {
            let waited = self.terms.call_timeout();
            self.fail_for(&format!("said BUSY, and has not said `ready` within {waited:?}"));
        }
    }

    fn functions(&self) -> &Functions {
        &self.terms.functions
    }

    fn leave(&self) {
        if self.gate.fetch_sub(1, Ordering::AcqRel) == CLOSING | 1 {
            self.start_close();
        }
    }

    fn start_close(&self) {
        let Some(op) = self.close_op.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let context = slots::call(op);
        let mut result = EMPTY_RESULT;
        // SAFETY: the handle is the plug-in's, not released while `self` is there; no other call is inside or follows.
        let status = unsafe { (self.functions().log_close)(self.handle, context, &raw mut result) };
        if status != abi::PENDING {
            result.status = status;
            match slots::take_answered(context) {
                Named::Call(op) => op.completed(Some(&result)),
                Named::GivenUp(op) => op.log.set_closing(Closing::Closed),
                Named::Stray(_) => drop(self.fail_for("completed a call that it also answered at once")),
            }
        }
    }

    fn state(&self) -> LogState {
        let last = || *self.last_state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.distrusted.load(Ordering::Acquire) {
            return last();
        }
        let changes = self.changes.load(Ordering::Acquire);
        let at_least = self.end_known.load(Ordering::Acquire);
        let mut given = abi::ck_state {
            struct_size: size_of::<abi::ck_state>() as u32,
            last_epoch: 0,
            start: 0,
            end: 0,
            written_end: 0,
            durable_end: 0,
            bytes: 0,
            max_timestamp: abi::NONE,
        };
        // SAFETY: the handle is not released while `self` is there, and a log's state may be asked for until then.
        unsafe { (self.functions().log_state)(self.handle, &raw mut given) };
        let undisturbed = self.changes.load(Ordering::Acquire) == changes;
        match judge::state(&given, self.highest(), if undisturbed { at_least } else { UNKNOWN }) {
            Ok(state) => {
                *self.last_state.lock().unwrap_or_else(PoisonError::into_inner) = state;
                state
            }
            Err(why) => {
                self.fail_for(&why);
                last()
            }
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        slots::forget_log(self.context);
        let closed = self.closed();
        // One that is not closed may still be in use over there: it is never released.
        if closed {
            // SAFETY: closed, and nobody here can name it any more; this runs once.
            unsafe { reaper::hand_back(self.functions().log_release, self.handle) };
        }
    }
}
