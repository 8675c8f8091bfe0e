//! The suite is worth something only if it catches who breaks the contract: engines that are wrong in one way each, and
//! the rules that must notice.

use async_trait::async_trait;
use bytes::Bytes;
use chronik_conformance::wal::{Store, check};
use chronik_core::ids::{LeaderEpoch, LogId, Offset};
use chronik_core::pending::{Done, Started};
use chronik_core::time::Timestamp;
use chronik_core::wal::{
    Appended, Capabilities, Chunk, EngineError, LogState, OpenMode, OpenOptions, ReadRange, Refused, Rejected, Run,
    SegmentInfo, Segmented, Survives, Usage, Wal, WalEngine, WalError,
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
    SetsNothingAside,
    SpoilsWhatItCannotSetAside,
    MakesWhatIsMissing,
    OpensTwice,
    RefusesWhatIsThere,
    OpensApart,
    ListsBackwards,
    DeletesWhatIsMissing,
    ListsWhenClosed,
    CountsNoBytes,
    DeniesItsSegments,
    TellsATimeOfNothing,
    HidesTheLastRun,
    CompletesBeforeItIsWritten,
    RefusesGaps,
    TakesRunsOfNothing,
    DoesNotTellHowMuch,
    ChangesOnRefusal,
    IsBusySoon,
    HasNoEnd,
    GivesNothingInsideRuns,
    MovesTheStartPastTheEnd,
    ForgetsTheEpochBeforeTheStart,
    RollsNothing,
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
    (SetsNothingAside, "e12_set_aside"),
    (SpoilsWhatItCannotSetAside, "e12_set_aside"),
    (MakesWhatIsMissing, "e01_missing_log"),
    (OpensTwice, "e02_create_twice"),
    (RefusesWhatIsThere, "e03_create_if_missing"),
    (OpensApart, "e04_open_is_shared"),
    (ListsBackwards, "e05_list_is_ordered"),
    (DeletesWhatIsMissing, "e07_delete_of_missing"),
    (ListsWhenClosed, "e08_closed_engine"),
    (CountsNoBytes, "e09_usage"),
    (DeniesItsSegments, "e10_capabilities"),
    (TellsATimeOfNothing, "a01_new_log_is_empty"),
    (HidesTheLastRun, "a02_readable_before_written"),
    (CompletesBeforeItIsWritten, "a03_completes_when_written"),
    (RefusesGaps, "a05_gaps"),
    (TakesRunsOfNothing, "a07_empty_range"),
    (DoesNotTellHowMuch, "a08_too_large"),
    (ChangesOnRefusal, "a09_refusal_changes_nothing"),
    (IsBusySoon, "a11_write_carries_all"),
    (HasNoEnd, "r01_at_the_end"),
    (GivesNothingInsideRuns, "r03_middle_of_a_run"),
    (HidesTheLastRun, "r08_old_and_new"),
    (KeepsEpochOnReset, "c03_epoch_after_truncation"),
    (KeepsEpochOnReset, "c04_truncate_to_start"),
    (MovesTheStartPastTheEnd, "c06_truncate_prefix_places"),
    (ForgetsTheEpochBeforeTheStart, "c07_epoch_before_start"),
    (KeepsTheSuffix, "c09_call_order"),
    (ForgetsValues, "c11_values_all_or_none"),
    (RollsNothing, "c12_segments"),
    (KeepsTheStart, "c13_retention"),
    (SyncsNothing, "c14_sync_cut_off"),
    (KeepsTheStart, "c15_any_history"),
    (ForgetsOnReopen, "s02_reopen_changed"),
    (ForgetsOnReopen, "s07_any_history_reopened"),
    (HidesTheLastRun, "t02_readers_beside_writers"),
    (SyncsNothing, "t03_syncs_shared"),
    (SyncsNothing, "t05_sync_writes"),
];

/// Rules that no engine in memory can break, with who proves that they notice.
const CAUGHT_ELSEWHERE: &[(&str, &str)] = &[
    ("e11_close_waits_for_appends", "an engine that completes appends as they come has none to wait for"),
    ("s03_reopen_engine", "`chronik plugin check`, of an engine that forgets on opening"),
    ("s04_killed", "`chronik plugin check`, of an engine that forgets on opening"),
    ("s05_power_cut", "the simulator's disk"),
    ("t01_concurrent_appends", "as e11: nobody finds another at writing"),
];

#[test]
fn every_rule_has_an_engine_that_breaks_it() {
    for rule in chronik_conformance::wal::rules() {
        let is_caught = CAUGHT_BY.iter().any(|(_, name)| *name == rule.name);
        let is_elsewhere = CAUGHT_ELSEWHERE.iter().any(|(name, _)| *name == rule.name);
        assert!(is_caught != is_elsewhere, "who breaks {}?", rule.name);
    }
}

#[test]
fn every_mistake_is_noticed_by_its_rule() {
    let unnoticed = |(wrong, rule): &&(Wrong, &'static str)| {
        let (wrong, rule) = (*wrong, *rule);
        catch_unwind(|| check(rule, move || Box::new(WrongStore(wrong)))).is_ok()
    };
    let unnoticed: Vec<_> = CAUGHT_BY.iter().filter(unnoticed).collect();
    assert!(unnoticed.is_empty(), "engines that their rules do not notice: {unnoticed:?}");
}

struct WrongStore(Wrong);

impl Store for WrongStore {
    fn start(&self) -> Arc<dyn WalEngine> {
        // A run that is too large for it is compared byte by byte: not by hundreds of millions.
        let engine = MemoryEngine::new(if self.0 == DoesNotTellHowMuch { 1 << 20 } else { 1 << 28 });
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
        Capabilities { survives: Survives::Nothing, segments: self.wrong != DeniesItsSegments, ..right }
    }

    async fn open(&self, mut id: LogId, mut options: OpenOptions) -> Result<Arc<dyn Wal>, EngineError> {
        options.mode = match (self.wrong, options.mode) {
            (MakesWhatIsMissing, OpenMode::Existing) | (OpensTwice, OpenMode::CreateNew) => OpenMode::CreateIfMissing,
            (RefusesWhatIsThere, OpenMode::CreateIfMissing) => OpenMode::CreateNew,
            (_, mode) => mode,
        };
        if self.wrong == OpensApart && self.open.lock().is_ok_and(|open| open.contains_key(&id)) {
            id.partition += 1000;
        }
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
        match self.engine.list().await {
            Err(EngineError::Closed) if self.wrong == ListsWhenClosed => Ok(Vec::new()),
            Ok(mut logs) if self.wrong == ListsBackwards => {
                logs.reverse();
                Ok(logs)
            }
            listed => listed,
        }
    }

    async fn delete(&self, id: LogId) -> Result<(), EngineError> {
        match self.wrong {
            DeletesNothing => Ok(()),
            DeletesWhatIsMissing => self.engine.delete(id).await.or(Ok(())),
            _ => self.engine.delete(id).await,
        }
    }

    async fn set_aside(&self, id: LogId) -> Result<(), EngineError> {
        if self.wrong == SetsNothingAside {
            return Ok(());
        }
        if self.wrong == SpoilsWhatItCannotSetAside {
            self.engine.delete(id).await?;
        }
        self.engine.set_aside(id).await
    }

    fn usage(&self) -> Usage {
        let usage = self.engine.usage();
        if self.wrong == CountsNoBytes { Usage { bytes: 0, ..usage } } else { usage }
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
            TellsATimeOfNothing => LogState { max_timestamp: state.max_timestamp.max(Timestamp(0)), ..state },
            ForgetsTheEpochBeforeTheStart if state.start == state.end => {
                LogState { last_epoch: LeaderEpoch(0), ..state }
            }
            _ => state,
        }
    }

    fn append(
        &self,
        mut run: Run,
        done: Done<Result<Appended, WalError>>,
    ) -> Result<Started<Result<Appended, WalError>>, Box<Rejected>> {
        let state = self.wal.state();
        if self.is(KeepsEpochOnReset) {
            let mut epoch = self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
            *epoch = run.epoch.max(*epoch);
        }
        if self.is(LetsOldEpochsIn) {
            run.epoch = run.epoch.max(state.last_epoch);
        }
        if self.is(SpoilsBytes) && run.bytes.len() == 65 {
            let mut bytes = run.bytes.to_bytes().to_vec();
            bytes[64] ^= 1;
            run.bytes = Bytes::from(bytes).into();
        }
        let (outcome, base) = (Appended { written_end: run.next_offset }, run.base);
        let why = match self.wrong {
            RefusesGaps if run.base > state.end => Some(Refused::OutOfOrder { expected: state.end }),
            IsBusySoon if state.end >= Offset(500) => Some(Refused::Busy),
            TakesRunsOfNothing if run.next_offset <= run.base => return Ok(Started::Now(Ok(outcome))),
            _ => None,
        };
        if let Some(why) = why {
            return Err(Box::new(Rejected { why, run }));
        }
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
        let started = started.map(|started| match started {
            Started::Now(Ok(_)) if self.is(CompletesBeforeItIsWritten) => {
                Started::Now(Ok(Appended { written_end: base }))
            }
            started => started,
        });
        started.map_err(|mut rejected| {
            match (self.wrong, rejected.why) {
                (DoesNotTellHowMuch, Refused::TooLarge { .. }) => rejected.why = Refused::Full,
                (ChangesOnRefusal, _) => {
                    let nobody = Done::new(Arc::new(Nobody), 0);
                    let _moved = self.wal.truncate_prefix(state.end, nobody);
                }
                _ => {}
            }
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
            HidesTheLastRun => {
                let end = self.wal.state().end;
                range.upto = range.upto.min(Offset(end.0 - 1));
            }
            HasNoEnd if range.from == self.wal.state().end => {
                let LogState { start, end, .. } = self.wal.state();
                return Started::Now(Err(WalError::OutOfRange { start, end }));
            }
            _ => {}
        }
        match self.wal.read(range, done) {
            Started::Now(Ok(chunk)) if self.is(GivesNothingInsideRuns) && chunk.base < range.from => {
                Started::Now(Ok(Chunk { base: range.from, next_offset: range.from, ..Chunk::default() }))
            }
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
        match self.wrong {
            KeepsTheStart => Started::Now(Ok(())),
            MovesTheStartPastTheEnd if upto > self.wal.state().end => Started::Now(Ok(())),
            _ => self.wal.truncate_prefix(upto, done),
        }
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
        if self.is(RollsNothing) { Some(self) } else { self.wal.segmented() }
    }

    fn close(&self, done: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        if self.is(AnswersWhenClosed) { Started::Now(Ok(())) } else { self.wal.close(done) }
    }
}

impl Segmented for WrongLog {
    fn segments(&self) -> Vec<SegmentInfo> {
        self.wal.segmented().map(Segmented::segments).unwrap_or_default()
    }

    fn roll(&self) {}

    fn set_segment_bytes(&self, segment_bytes: u64) {
        if let Some(segmented) = self.wal.segmented() {
            segmented.set_segment_bytes(segment_bytes);
        }
    }
}
