//! The broker's [`Wal`], call by call: each becomes an [`Op`] in a slot, enters the plug-in, and is judged by what it asked.

use super::op::{Asked, Lent, Op, Waiter};
use super::{CLOSING, Log, UNKNOWN};
use crate::judge;
use crate::minor::Grown;
use crate::plugin::Functions;
use crate::reaper;
use crate::slots::{self, Named};
use bytes::Bytes;
use chronik_core::ids::Offset;
use chronik_core::pending::{Done, Started};
use chronik_core::time::Timestamp;
use chronik_core::wal::{
    Appended, Chunk, LogState, ReadRange, Refused, Rejected, Run, SegmentInfo, Segmented, Wal, WalError,
};
use chronik_plugin_abi as abi;
use chronik_plugin_abi::{EMPTY_RESULT, ck_append_args, ck_meta, ck_read_args, ck_result, ck_segment, ck_slice};
use std::ffi::c_void;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// Segments are asked for with so much room at first.
const SEGMENTS_ROOM: usize = 64;
/// A log of more segments than this is no log.
const SEGMENTS_MAX: usize = 1 << 22;

/// Inside the plug-in.
struct Inside<'a>(&'a Log);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// A log of a plug-in.
pub(crate) struct PluginLog(pub Arc<Log>);

impl PluginLog {
    /// `None` once a close has begun.
    fn enter(&self) -> Option<Inside<'_>> {
        let was = self.0.gate.fetch_add(1, Ordering::AcqRel);
        let inside = Inside(&self.0);
        (was & CLOSING == 0).then_some(inside)
    }

    /// Enters for a call that a failed log still answers only if the plug-in is believed.
    fn enter_for(&self, changes: bool) -> Result<Inside<'_>, WalError> {
        let inside = self.enter().ok_or(WalError::Closed)?;
        match self.0.failed.get() {
            Some(cause) if changes || self.0.distrusted.load(Ordering::Acquire) => Err(WalError::Failed(cause.clone())),
            _ => Ok(inside),
        }
    }

    fn op(&self, asked: Asked, waiter: Waiter, lent: Lent) -> Box<Op> {
        let changes = self.0.changes.load(Ordering::Acquire);
        Box::new(Op { log: self.0.clone(), asked, waiter, lent, changes, tick: reaper::tick() })
    }

    /// Makes one call; `make` enters the plug-in.
    fn call<T>(
        &self,
        op: Box<Op>,
        judge: fn(&Op, i32, &ck_result) -> Result<T, WalError>,
        make: impl FnOnce(&Functions, *mut c_void, u64, *mut ck_result) -> i32,
    ) -> Started<Result<T, WalError>> {
        let context = slots::call(op);
        let mut result = EMPTY_RESULT;
        let status = make(self.0.functions(), self.0.handle, context, &raw mut result);
        if status == abi::PENDING {
            return Started::Later;
        }
        match slots::take_answered(context) {
            Named::Call(op) => Started::Now(judge(&op, status, &result)),
            // Answered already: by us, or by a callback that should not have come.
            Named::GivenUp(_) => Started::Later,
            Named::Stray(_) => {
                self.0.fail_for("completed a call that it also answered at once");
                Started::Later
            }
        }
    }

    /// A call that only has an offset.
    fn offset_call(
        &self,
        of: fn(&Functions) -> abi::ck_offset_call,
        asked: Asked,
        offset: Offset,
        done: Done<Result<(), WalError>>,
    ) -> Started<Result<(), WalError>> {
        let _inside = match self.enter_for(true) {
            Ok(inside) => inside,
            Err(error) => return Started::Now(Err(error)),
        };
        self.0.end_known.store(UNKNOWN, Ordering::Release);
        self.0.changes.fetch_add(1, Ordering::AcqRel);
        let op = self.op(asked, Waiter::Unit(done), Lent::Nothing);
        self.call(op, judge::unit, |functions, handle, context, result| {
            // SAFETY: the handle is the plug-in's, and not released while we are inside; the result outlives the call.
            unsafe { of(functions)(handle, offset.0, context, result) }
        })
    }

    /// Whether the plug-in may be handed one more append.
    fn has_room(&self, bytes: u64) -> bool {
        let in_flight = self.0.in_flight.load(Ordering::Acquire);
        let queued = self.0.in_flight_bytes.load(Ordering::Acquire);
        // With nothing in flight there would be nothing whose completion says to try again.
        in_flight == 0
            || in_flight < self.0.appends_max
                && queued.saturating_add(bytes) <= self.0.append_bytes_max
                && self.0.ready_owed.load(Ordering::Acquire) <= 0
    }
}

fn slice(bytes: &[u8]) -> ck_slice {
    ck_slice { at: bytes.as_ptr(), len: bytes.len() as u64 }
}

impl Wal for PluginLog {
    fn state(&self) -> LogState {
        self.0.state()
    }

    fn append(
        &self,
        run: Run,
        done: Done<Result<Appended, WalError>>,
    ) -> Result<Started<Result<Appended, WalError>>, Box<Rejected>> {
        let log = &*self.0;
        let bytes = run.bytes.len() as u64;
        let Some(_inside) = self.enter() else { return Err(Box::new(Rejected { why: Refused::Closed, run })) };
        if log.failed.get().is_some() {
            return Err(Box::new(Rejected { why: Refused::Failed, run }));
        }
        if !self.has_room(bytes) {
            return Err(Box::new(Rejected { why: Refused::Busy, run }));
        }
        let next_offset = run.next_offset;
        let slices: Vec<_> = run.bytes.parts().iter().map(|part| slice(part)).collect();
        let args = Grown::new(ck_append_args {
            struct_size: log.terms.minor.size::<ck_append_args>(),
            epoch: run.epoch.0,
            base: run.base.0,
            next_offset: next_offset.0,
            max_timestamp: run.max_timestamp.0,
            slices: slices.as_ptr(),
            slices_len: slices.len() as u64,
            bytes,
        });
        log.in_flight.fetch_add(1, Ordering::AcqRel);
        if log.bounds_append_bytes() {
            log.in_flight_bytes.fetch_add(bytes, Ordering::AcqRel);
        }
        // Before the call: the append may complete, and be judged, before it has returned.
        log.may_reach(next_offset);
        let op =
            self.op(Asked::Append { next_offset, bytes }, Waiter::Append(done), Lent::Run { run, _slices: slices });
        let context = slots::call(op);
        let mut result = EMPTY_RESULT;
        log.appending.store(true, Ordering::Release);
        // SAFETY: the handle is not released while we are inside; what the arguments point at is in the slot until the
        // append completes.
        let status = unsafe { (log.functions().append)(log.handle, &raw const args.known, context, &raw mut result) };
        if !log.append_returned(status == abi::BUSY) {
            log.fail_for("said `ready` without having said BUSY");
        }
        if status >= 0 {
            log.end_known.store(next_offset.0, Ordering::Release);
        }
        if status == abi::PENDING {
            return Ok(Started::Later);
        }
        let op = match slots::take_answered(context) {
            Named::Call(op) => op,
            Named::GivenUp(_) => return Ok(Started::Later),
            Named::Stray(_) => {
                self.0.fail_for("completed a call that it also answered at once");
                return Ok(Started::Later);
            }
        };
        op.landed();
        if status >= 0 {
            return Ok(Started::Now(judge::appended(&op, status, &result)));
        }
        let why = judge::refused(&op, status, &result, &args.known);
        let Op { lent: Lent::Run { run, .. }, .. } = *op else {
            unreachable!("an append's op lends its run, set above")
        };
        Err(Box::new(Rejected { why, run }))
    }

    fn write_queued(&self) {
        let Some(write_queued) = self.0.functions().write_queued else { return };
        let Ok(_inside) = self.enter_for(true) else { return };
        // SAFETY: the handle is not released while we are inside.
        unsafe { write_queued(self.0.handle) };
    }

    fn sync(&self, upto: Offset, done: Done<Result<Offset, WalError>>) -> Started<Result<Offset, WalError>> {
        let _inside = match self.enter_for(true) {
            Ok(inside) => inside,
            Err(error) => return Started::Now(Err(error)),
        };
        let at_least = upto.0.min(self.0.end_known.load(Ordering::Acquire));
        let op = self.op(Asked::Sync { at_least }, Waiter::Offset(done), Lent::Nothing);
        self.call(op, judge::synced, |functions, handle, context, result| {
            // SAFETY: the handle is not released while we are inside; the result outlives the call.
            unsafe { (functions.sync)(handle, upto.0, context, result) }
        })
    }

    fn read(&self, range: ReadRange, done: Done<Result<Chunk, WalError>>) -> Started<Result<Chunk, WalError>> {
        let _inside = match self.enter_for(false) {
            Ok(inside) => inside,
            Err(error) => return Started::Now(Err(error)),
        };
        let args = Grown::new(ck_read_args {
            struct_size: self.0.terms.minor.size::<ck_read_args>(),
            min_one: u32::from(range.min_one),
            from: range.from.0,
            upto: range.upto.0,
            max_bytes: range.max_bytes as u64,
        });
        let op = self.op(Asked::Read(range), Waiter::Chunk(done), Lent::Nothing);
        self.call(op, judge::chunk, |functions, handle, context, result| {
            // SAFETY: the handle is not released while we are inside; arguments and result outlive the call.
            unsafe { (functions.read)(handle, &raw const args.known, context, result) }
        })
    }

    fn truncate_suffix(&self, from: Offset, done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        self.offset_call(|functions| functions.truncate_suffix, Asked::Truncate, from, done)
    }

    fn truncate_prefix(&self, upto: Offset, done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        self.offset_call(|functions| functions.truncate_prefix, Asked::Truncate, upto, done)
    }

    fn reset(&self, start: Offset, done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        self.0.may_reach(start);
        self.offset_call(|functions| functions.reset, Asked::Truncate, start, done)
    }

    fn offset_for_timestamp(
        &self,
        time: Timestamp,
        done: Done<Result<Option<Offset>, WalError>>,
    ) -> Started<Result<Option<Offset>, WalError>> {
        let _inside = match self.enter_for(false) {
            Ok(inside) => inside,
            Err(error) => return Started::Now(Err(error)),
        };
        let op = self.op(Asked::Find, Waiter::Found(done), Lent::Nothing);
        self.call(op, judge::found, |functions, handle, context, result| {
            // SAFETY: the handle is not released while we are inside; the result outlives the call.
            unsafe { (functions.offset_for_timestamp)(handle, time.0, context, result) }
        })
    }

    fn meta_put(
        &self,
        entries: Vec<(String, Option<Bytes>)>,
        done: Done<Result<(), WalError>>,
    ) -> Started<Result<(), WalError>> {
        let _inside = match self.enter_for(true) {
            Ok(inside) => inside,
            Err(error) => return Started::Now(Err(error)),
        };
        let none = ck_slice { at: std::ptr::null(), len: abi::NO_VALUE };
        let metas: Vec<_> = entries
            .iter()
            .map(|(key, value)| ck_meta { key: slice(key.as_bytes()), value: value.as_deref().map_or(none, slice) })
            .collect();
        let (at, len) = (metas.as_ptr(), metas.len() as u64);
        let op = self.op(Asked::Put, Waiter::Unit(done), Lent::Entries { _entries: entries, _metas: metas });
        self.call(op, judge::unit, |functions, handle, context, result| {
            // SAFETY: the handle is not released while we are inside; the entries are in the slot until it completes.
            unsafe { (functions.meta_put)(handle, at, len, context, result) }
        })
    }

    fn meta_get(
        &self,
        key: &str,
        done: Done<Result<Option<Bytes>, WalError>>,
    ) -> Started<Result<Option<Bytes>, WalError>> {
        let _inside = match self.enter_for(false) {
            Ok(inside) => inside,
            Err(error) => return Started::Now(Err(error)),
        };
        let key = key.to_owned();
        let slices = vec![slice(key.as_bytes())];
        let at = slices.as_ptr();
        let op = self.op(Asked::Get, Waiter::Value(done), Lent::Key { _key: key, _slices: slices });
        self.call(op, judge::value, |functions, handle, context, result| {
            // SAFETY: the handle is not released while we are inside; the key is in the slot until it completes.
            unsafe { (functions.meta_get)(handle, at, context, result) }
        })
    }

    fn segmented(&self) -> Option<&dyn Segmented> {
        self.0.functions().segments.is_some().then_some(self)
    }

    fn close(&self, done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        let log = &*self.0;
        let mut close_op = log.close_op.lock().unwrap_or_else(PoisonError::into_inner);
        if log.is_closing() {
            return Started::Now(Err(WalError::Closed));
        }
        *close_op = Some(self.op(Asked::Close, Waiter::Close(done), Lent::Nothing));
        // Like any call, so that whoever leaves last starts the close: perhaps we. Under the lock, so that there is one.
        log.gate.fetch_add(1, Ordering::AcqRel);
        log.gate.fetch_or(CLOSING, Ordering::AcqRel);
        drop(close_op);
        log.leave();
        Started::Later
    }
}

impl Segmented for PluginLog {
    fn segments(&self) -> Vec<SegmentInfo> {
        let (Some(segments), Ok(_inside)) = (self.0.functions().segments, self.enter_for(false)) else {
            return Vec::new();
        };
        let empty = ck_segment { base: 0, end: 0, bytes: 0, max_timestamp: abi::NONE, sealed: 0, reserved: 0 };
        let mut room = SEGMENTS_ROOM;
        loop {
            let mut given = vec![empty; room];
            // SAFETY: the handle is not released while we are inside, and there is room for as many as we say.
            let count = unsafe { segments(self.0.handle, given.as_mut_ptr(), room as u64) };
            let Some(count) = usize::try_from(count).ok().filter(|&count| count <= SEGMENTS_MAX) else {
                self.0.fail_for("says that a log has millions of segments");
                return Vec::new();
            };
            if count <= room {
                given.truncate(count);
                return given.iter().map(judge::segment).collect();
            }
            room = count;
        }
    }

    fn roll(&self) {
        if let (Some(roll), Ok(_inside)) = (self.0.functions().roll, self.enter_for(true)) {
            // SAFETY: the handle is not released while we are inside.
            unsafe { roll(self.0.handle) };
        }
    }

    fn set_segment_bytes(&self, segment_bytes: u64) {
        if let (Some(set), Ok(_inside)) = (self.0.functions().set_segment_bytes, self.enter_for(true)) {
            // SAFETY: the handle is not released while we are inside.
            unsafe { set(self.0.handle, segment_bytes) };
        }
    }
}
