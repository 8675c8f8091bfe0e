//! The suite is worth something only if it catches who breaks the contract: engines that are wrong in one way each, and
//! the rules that must notice.

use async_trait::async_trait;
use bytes::Bytes;
use chronik_conformance::wal::{Store, check};
use chronik_core::ids::{LeaderEpoch, LogId, Offset};
use chronik_core::pending::{Done, Started};
use chronik_core::time::Timestamp;
use chronik_core::wal::{
    Appended, Capabilities, Chunk, EngineError, LogState, OpenOptions, ReadRange, Refused, Rejected, Run, Segmented,
    Survives, Usage, Wal, WalEngine, WalError,
};
use chronik_storage_memory::MemoryEngine;
use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, PoisonError};

/// One way to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    DropsDone,
    CompletesTwice,
    TellsWrongEnd,
    SpoilsRefusedRun,
    LetsOldEpochsIn,
    IgnoresMaxBytes,
    IgnoresUpto,
    IgnoresMinOne,
    ReadsAtTheStart,
    EmptyOutOfRange,
    SpoilsBytes,
    KeepsTheSuffix,
    KeepsTheStart,
    TruncatesInsideRuns,
    ResetsToZero,
    KeepsEpochOnReset,
    FindsLaterTimes,
    ForgetsValues,
    SyncsNothing,
    PromisesTooMuch,
    AnswersWhenClosed,
    DeletesNothing,
    ForgetsOnReopen,
}

use Wrong::*;

/// Every mistake with a rule that must notice it.
const CAUGHT_BY: &[(Wrong, &str)] = &[
    (DropsDone, "a12_every_done_once"),
    (CompletesTwice, "a12_every_done_once"),
    (TellsWrongEnd, "a04_out_of_order"),
    (SpoilsRefusedRun, "a04_out_of_order"),
    (LetsOldEpochsIn, "a06_fenced"),
    (IgnoresMaxBytes, "r04_max_bytes"),
    (IgnoresUpto, "r05_upto"),
    (IgnoresMinOne, "r04_max_bytes"),
    (ReadsAtTheStart, "r06_from_every_offset"),
    (EmptyOutOfRange, "r02_out_of_range"),
    (SpoilsBytes, "a10_bytes_come_back"),
    (KeepsTheSuffix, "c01_truncate_suffix"),
    (KeepsTheStart, "c05_truncate_prefix"),
    (TruncatesInsideRuns, "c02_truncate_suffix_places"),
    (ResetsToZero, "c08_reset"),
    (KeepsEpochOnReset, "c08_reset"),
    (FindsLaterTimes, "r07_timestamps"),
    (ForgetsValues, "c10_values"),
    (SyncsNothing, "s06_durable_end_stays"),
    (PromisesTooMuch, "a13_state_follows"),
    (AnswersWhenClosed, "t04_closed_log"),
    (DeletesNothing, "e06_delete_is_for_good"),
    (ForgetsOnReopen, "s01_reopen"),
];

#[test]
fn every_mistake_is_noticed_by_its_rule() {
    for &(wrong, rule) in CAUGHT_BY {
        let noticed = catch_unwind(|| check(rule, move || Box::new(WrongStore(wrong)))).is_err();
        assert!(noticed, "{rule} does not notice an engine that {wrong:?}");
    }
}

struct WrongStore(Wrong);

impl Store for WrongStore {
    fn start(&self) -> Arc<dyn WalEngine> {
        let engine = MemoryEngine::new(1 << 28);
        Arc::new(WrongEngine { wrong: self.0, engine, open: Mutex::default() })
    }
}

struct WrongEngine {
    wrong: Wrong,
    engine: MemoryEngine,
    open: Mutex<BTreeMap<LogId, Arc<WrongLog>>>,
}

#[async_trait]
impl WalEngine for WrongEngine {
    fn capabilities(&self) -> Capabilities {
        let right = self.engine.capabilities();
        Capabilities { survives: Survives::Nothing, segments: true, ..right }
    }

    async fn open(&self, id: LogId, options: OpenOptions) -> Result<Arc<dyn Wal>, EngineError> {
        let wal = self.engine.open(id, options).await?;
        let log = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            // The one it has, as long as that is open.
            let known = open.get(&id).filter(|log| Arc::ptr_eq(&log.wal, &wal)).cloned();
            let again = open.contains_key(&id) && known.is_none();
            let log = known.unwrap_or_else(|| Arc::new(WrongLog { wrong: self.wrong, wal, epoch: Mutex::default() }));
            open.insert(id, log.clone());
            (log, again)
        };
        if self.wrong == ForgetsOnReopen && log.1 {
            let nobody = Done::new(Arc::new(Nobody), 0);
            let _forgotten = log.0.wal.truncate_suffix(log.0.wal.state().start, nobody);
        }
        Ok(log.0)
    }

    async fn list(&self) -> Result<Vec<LogId>, EngineError> {
        self.engine.list().await
    }

    async fn delete(&self, id: LogId) -> Result<(), EngineError> {
        if self.wrong == DeletesNothing { Ok(()) } else { self.engine.delete(id).await }
    }

    fn usage(&self) -> Usage {
        self.engine.usage()
    }

    async fn close(&self) -> Result<(), EngineError> {
        self.engine.close().await
    }
}

struct Nobody;

impl<T> chronik_core::pending::Inbox<T> for Nobody {
    fn deliver(&self, _token: u64, _outcome: T) {}
}

struct WrongLog {
    wrong: Wrong,
    wal: Arc<dyn Wal>,
    /// The greatest epoch ever, for one that does not forget it.
    epoch: Mutex<LeaderEpoch>,
}

impl WrongLog {
    fn is(&self, wrong: Wrong) -> bool {
        self.wrong == wrong
    }
}

impl Wal for WrongLog {
    fn state(&self) -> LogState {
        let state = self.wal.state();
        match self.wrong {
            PromisesTooMuch => LogState { durable_end: state.end + 1, ..state },
            KeepsEpochOnReset => {
                let mut epoch = self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
                *epoch = state.last_epoch.max(*epoch);
                LogState { last_epoch: *epoch, ..state }
            }
            SyncsNothing => LogState { durable_end: state.start, ..state },
            _ => state,
        }
    }

    fn append(
        &self,
        mut run: Run,
        done: Done<Result<Appended, WalError>>,
    ) -> Result<Started<Result<Appended, WalError>>, Box<Rejected>> {
        let state = self.wal.state();
        if self.is(LetsOldEpochsIn) {
            run.epoch = run.epoch.max(state.last_epoch);
        }
        if self.is(SpoilsBytes) && run.bytes.len() == 65 {
            let mut bytes = run.bytes.to_bytes().to_vec();
            bytes[64] ^= 1;
            run.bytes = Bytes::from(bytes).into();
        }
        let outcome = Appended { written_end: run.next_offset };
        let started = match self.wrong {
            DropsDone | CompletesTwice => {
                let other = Done::new(Arc::new(Nobody), 0);
                self.wal.append(run, other).map(|_| {
                    if self.is(CompletesTwice) {
                        done.complete(Ok(outcome));
                        return Started::Now(Ok(outcome));
                    }
                    Started::Later
                })
            }
            _ => self.wal.append(run, done),
        };
        started.map_err(|mut rejected| {
            match self.wrong {
                TellsWrongEnd => rejected.why = Refused::OutOfOrder { expected: state.end + 1 },
                SpoilsRefusedRun => rejected.run.base = rejected.run.base + 1,
                _ => {}
            }
            rejected
        })
    }

    fn sync(&self, upto: Offset, done: Done<Result<Offset, WalError>>) -> Started<Result<Offset, WalError>> {
        match self.wrong {
            SyncsNothing => Started::Now(Ok(self.wal.state().start)),
            _ => self.wal.sync(upto, done),
        }
    }

    fn read(&self, mut range: ReadRange, done: Done<Result<Chunk, WalError>>) -> Started<Result<Chunk, WalError>> {
        match self.wrong {
            IgnoresMaxBytes => range.max_bytes = usize::MAX >> 1,
            IgnoresUpto => range.upto = Offset(i64::MAX),
            IgnoresMinOne => range.min_one = false,
            ReadsAtTheStart if range.from < self.wal.state().end => range.from = self.wal.state().start,
            _ => {}
        }
        match self.wal.read(range, done) {
            Started::Now(Err(WalError::OutOfRange { .. })) if self.is(EmptyOutOfRange) => {
                Started::Now(Ok(Chunk { base: range.from, next_offset: range.from, ..Chunk::default() }))
            }
            started => started,
        }
    }

    fn truncate_suffix(&self, from: Offset, done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        match self.wrong {
            KeepsTheSuffix => Started::Now(Ok(())),
            TruncatesInsideRuns => match self.wal.truncate_suffix(from, done) {
                Started::Now(Err(WalError::OutOfRange { start, end })) if start < from && from < end => {
                    Started::Now(Ok(()))
                }
                started => started,
            },
            _ => self.wal.truncate_suffix(from, done),
        }
    }

    fn truncate_prefix(&self, upto: Offset, done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        if self.is(KeepsTheStart) { Started::Now(Ok(())) } else { self.wal.truncate_prefix(upto, done) }
    }

    fn reset(&self, start: Offset, done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        self.wal.reset(if self.is(ResetsToZero) { Offset(0) } else { start }, done)
    }

    fn offset_for_timestamp(
        &self,
        time: Timestamp,
        done: Done<Result<Option<Offset>, WalError>>,
    ) -> Started<Result<Option<Offset>, WalError>> {
        let time = if self.is(FindsLaterTimes) { Timestamp(time.0 + 1) } else { time };
        self.wal.offset_for_timestamp(time, done)
    }

    fn meta_put(
        &self,
        mut entries: Vec<(String, Option<Bytes>)>,
        done: Done<Result<(), WalError>>,
    ) -> Started<Result<(), WalError>> {
        if self.is(ForgetsValues) {
            entries.truncate(1);
        }
        self.wal.meta_put(entries, done)
    }

    fn meta_get(
        &self,
        key: &str,
        done: Done<Result<Option<Bytes>, WalError>>,
    ) -> Started<Result<Option<Bytes>, WalError>> {
        self.wal.meta_get(key, done)
    }

    fn segmented(&self) -> Option<&dyn Segmented> {
        self.wal.segmented()
    }

    fn close(&self, done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        if self.is(AnswersWhenClosed) { Started::Now(Ok(())) } else { self.wal.close(done) }
    }
}
