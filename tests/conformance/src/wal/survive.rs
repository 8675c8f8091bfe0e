//! S: what is still there afterwards.

use super::driver::{Log, everything, id, run_of};
use super::model::{Dice, Model};
use super::{Store, declare_rules};
use chronik_core::ids::Offset;
use chronik_core::wal::{LogState, Survives};
use std::sync::Arc;

/// What closing may change: everything is written and durable after it.
fn settled(state: LogState) -> LogState {
    LogState { written_end: state.end, durable_end: state.end, ..state }
}

/// An engine over what is left, if that can be had and the engine promises that something is.
fn after(
    left: Option<Box<dyn Store>>,
    promised: bool,
) -> Option<(Box<dyn Store>, Arc<dyn chronik_core::wal::WalEngine>)> {
    let store = left.filter(|_| promised)?;
    let engine = store.start();
    Some((store, engine))
}

declare_rules! {
    s01_reopen: "a log that is closed and opened again is the same", |store| {
        let (engine, mut log) = Log::fresh(store).await;
        for _ in 0..5 {
            log.fill(37).await;
            let (state, all) = (log.state(), log.read_all(Offset(0)).await);
            log = log.reopen(&*engine, 1).await;
            assert_eq!(log.state(), settled(state));
            assert_eq!(log.read_all(Offset(0)).await, all);
        }
    }

    s02_reopen_changed: "a log that was truncated or reset stays so", |store| {
        let (engine, log) = Log::fresh(store).await;
        log.fill(100).await;
        assert!(log.truncate_suffix(60).await.is_ok());
        assert!(log.truncate_prefix(20).await.is_ok());
        let (state, all) = (log.state(), log.read_all(Offset(20)).await);
        let log = log.reopen(&*engine, 1).await;
        assert_eq!(log.state(), settled(state));
        assert_eq!(log.read_all(Offset(20)).await, all);
        assert!(log.truncate_prefix(60).await.is_ok());
        let log = log.reopen(&*engine, 1).await;
        assert_eq!((log.state().start, log.state().end), (Offset(60), Offset(60)));
        assert!(log.reset(7).await.is_ok());
        let log = log.reopen(&*engine, 1).await;
        assert_eq!((log.state().start, log.state().end), (Offset(7), Offset(7)));
        log.append(run_of(7, 1, 0, 0, 10)).await;
    }

    s03_reopen_engine: "what outlives the process is there when another engine starts over the store", |store| {
        let (engine, log) = Log::fresh(store).await;
        let promised = engine.capabilities().survives > Survives::Nothing;
        log.fill(100).await;
        let other = Log::open(&*engine, 2).await;
        other.fill(3).await;
        let (state, all) = (log.state(), log.read_all(Offset(0)).await);
        assert!(engine.close().await.is_ok());
        let again = store.start();
        if promised {
            assert_eq!(again.list().await.unwrap_or_default(), [id(1), id(2)]);
            let log = Log::open(&*again, 1).await;
            assert_eq!(log.state(), settled(state));
            assert_eq!(log.read_all(Offset(0)).await, all);
            log.fill(10).await;
        }
    }

    s04_killed: "what is written outlives the process, as far as promised", |store| {
        let (engine, log) = Log::fresh(store).await;
        log.fill(100).await;
        let (state, all) = (log.state(), log.read_all(Offset(0)).await);
        let promised = engine.capabilities().survives >= Survives::Process;
        let Some((_left, again)) = after(store.after_kill(), promised) else { return };
        let log = Log::open(&*again, 1).await;
        assert_eq!(log.state(), settled(state));
        assert_eq!(log.read_all(Offset(0)).await, all);
        log.fill(10).await;
    }

    s05_power_cut: "what is durable outlives a power cut, as far as promised", |store| {
        let (engine, log) = Log::fresh(store).await;
        let promised = engine.capabilities().survives >= Survives::PowerLoss;
        for round in 0..12 {
            log.fill(9).await;
            if round % 3 == 1 {
                log.sync().await;
            }
            if round % 4 == 3 {
                let end = log.state().end;
                assert!(log.truncate_suffix(end.0 / 6 * 6 - 6).await.is_ok());
            }
            if round == 8 {
                assert!(log.truncate_prefix(20).await.is_ok());
            }
            let (state, all) = (log.state(), log.read_all(log.state().start).await.to_bytes());
            let Some((_left, again)) = after(store.after_power_cut(), promised) else { return };
            let found = Log::open(&*again, 1).await;
            let there = found.state();
            assert_eq!(there.start, state.start);
            assert!(there.end >= state.durable_end && there.end <= state.end, "{there:?} after {state:?}");
            assert!(all.starts_with(&found.read_all(there.start).await.to_bytes()));
            found.fill(3).await;
        }
    }

    s06_durable_end_stays: "the durable end never falls, also not by opening the log again", |store| {
        let (engine, mut log) = Log::fresh(store).await;
        let mut durable_end = Offset(0);
        for round in 0..10 {
            log.fill(5).await;
            if round % 2 == 0 {
                assert!(log.sync().await >= durable_end);
            }
            if round % 3 == 0 {
                log = log.reopen(&*engine, 1).await;
            }
            assert!(log.state().durable_end >= durable_end);
            durable_end = log.state().durable_end;
        }
        assert_eq!(log.read(everything(log.state().end)).await.bytes.len(), 0);
    }

    s07_any_history_reopened: "after any history with reopenings a log is what a list of runs would be", |store| {
        let engine = store.start();
        for seed in 100..115 {
            let mut dice = Dice(seed);
            let mut log = Log::open(&*engine, seed as u8).await;
            let mut model = Model::default();
            for _ in 0..12 {
                for _ in 0..dice.below(12) {
                    model.step(&log, &mut dice).await;
                }
                log = log.reopen(&*engine, seed as u8).await;
                model.compare(&log, &mut dice).await;
            }
        }
    }
}
