//! E: logs come and go.

use super::declare_rules;
use super::driver::{Log, everything, id, options, run_of};
use chronik_core::ids::Offset;
use chronik_core::wal::{EngineError, LogState, OpenMode, Survives, WalError};

declare_rules! {
    e01_missing_log: "opening a log that must exist and does not is answered NotFound", |store| {
        let engine = store.start();
        let opened = engine.open(id(1), options(OpenMode::Existing)).await;
        assert!(matches!(opened.err(), Some(EngineError::NotFound(log)) if log == id(1)));
        assert!(engine.list().await.is_ok_and(|logs| logs.is_empty()), "and makes none");
    }

    e02_create_twice: "opening a log that must not exist and does is answered AlreadyExists", |store| {
        let engine = store.start();
        assert!(engine.open(id(1), options(OpenMode::CreateNew)).await.is_ok());
        let again = engine.open(id(1), options(OpenMode::CreateNew)).await;
        assert!(matches!(again.err(), Some(EngineError::AlreadyExists(log)) if log == id(1)));
    }

    e03_create_if_missing: "CreateIfMissing opens either", |store| {
        let (engine, log) = Log::fresh(store).await;
        log.fill(3).await;
        let again = log.reopen(&*engine, 1).await;
        assert_eq!(again.state().end, log.state().end);
    }

    e04_open_is_shared: "opening a log that is open gives the same", |store| {
        let (engine, log) = Log::fresh(store).await;
        let other = Log::open(&*engine, 1).await;
        log.append(run_of(0, 2, 0, 0, 10)).await;
        assert_eq!(other.state(), log.state());
        other.append(run_of(2, 1, 0, 0, 10)).await;
        assert_eq!(log.state().end, Offset(3));
    }

    e05_list_is_ordered: "list gives every log, in order", |store| {
        let engine = store.start();
        for number in [7, 1, 200, 3] {
            Log::open(&*engine, number).await;
        }
        let logs = engine.list().await.unwrap_or_default();
        assert_eq!(logs, [1, 3, 7, 200].map(id));
    }

    e06_delete_is_for_good: "a deleted log is closed and gone, and its name may be used again", |store| {
        let (engine, log) = Log::fresh(store).await;
        log.fill(40).await;
        assert!(log.put(&[("key", Some("value"))]).await.is_ok());
        assert!(engine.delete(id(1)).await.is_ok());
        assert!(matches!(log.try_read(everything(Offset(0))).await, Err(WalError::Closed)));
        assert!(engine.list().await.is_ok_and(|logs| logs.is_empty()));
        assert!(matches!(engine.open(id(1), options(OpenMode::Existing)).await.err(), Some(EngineError::NotFound(_))));
        let fresh = Log::open(&*engine, 1).await;
        assert_eq!(fresh.state().end, Offset(0));
        assert_eq!(fresh.get("key").await, None);
        fresh.fill(3).await;
        assert_eq!(fresh.read_all(Offset(0)).await.len(), fresh.read(everything(Offset(0))).await.bytes.len());
    }

    e07_delete_of_missing: "deleting a log that does not exist is answered NotFound", |store| {
        let engine = store.start();
        assert!(matches!(engine.delete(id(9)).await, Err(EngineError::NotFound(log)) if log == id(9)));
    }

    e08_closed_engine: "a closed engine answers Closed, and so do its logs", |store| {
        let (engine, log) = Log::fresh(store).await;
        log.fill(2).await;
        assert!(engine.close().await.is_ok());
        assert!(matches!(engine.open(id(1), options(OpenMode::Existing)).await.err(), Some(EngineError::Closed)));
        assert!(matches!(engine.list().await, Err(EngineError::Closed)));
        assert!(matches!(engine.delete(id(1)).await, Err(EngineError::Closed)));
        assert!(matches!(log.try_read(everything(Offset(0))).await, Err(WalError::Closed)));
    }

    e09_usage: "usage counts the logs and grows and shrinks with what they hold", |store| {
        let (engine, log) = Log::fresh(store).await;
        assert_eq!(engine.usage().logs, 1);
        log.fill(100).await;
        let full = engine.usage().bytes;
        assert!(full >= log.read_all(Offset(0)).await.len() as u64);
        assert_eq!(full, log.state().bytes);
        assert!(log.truncate_suffix(0).await.is_ok());
        assert!(engine.usage().bytes < full);
        assert!(engine.delete(id(1)).await.is_ok());
        assert_eq!((engine.usage().logs, engine.usage().bytes), (0, 0));
    }

    e10_capabilities: "capabilities say whether there are segments, and an engine that keeps nothing durable says so", |store| {
        let (engine, log) = Log::fresh(store).await;
        let capabilities = engine.capabilities();
        assert_eq!(log.segmented().is_some(), capabilities.segments);
        assert!(capabilities.run_bytes_max >= 1 << 20, "Kafka's default batches fit");
        if capabilities.survives == Survives::PowerLoss {
            assert_eq!(log.state(), LogState { last_epoch: log.state().last_epoch, ..log.state() });
        }
    }

    e11_close_waits_for_appends: "closing an engine writes what was ordered before", |store| {
        let (engine, log) = Log::fresh(store).await;
        let ordered: Vec<_> = (0..20).filter_map(|base| log.order(run_of(base, 1, 0, 0, 100)).ok()).collect();
        assert!(engine.close().await.is_ok());
        for append in ordered {
            assert!(append.await.is_ok());
        }
    }

    e12_set_aside: "a log that is set aside is closed and there no more, its name may be used again, and nobody but a person finds \
        what it held; an engine that sets nothing aside says so and leaves the log as it is", |store| {
        let (engine, log) = Log::fresh(store).await;
        log.fill(40).await;
        assert!(log.put(&[("key", Some("value"))]).await.is_ok());
        let (state, all) = (log.state(), log.read_all(Offset(0)).await);
        match engine.set_aside(id(1)).await {
            Ok(()) => {}
            Err(EngineError::CannotSetAside) => {
                assert_eq!(log.state(), state);
                assert_eq!(log.read_all(Offset(0)).await, all);
                return;
            }
            Err(error) => panic!("setting a log aside: {error}"),
        }
        assert!(matches!(log.try_read(everything(Offset(0))).await, Err(WalError::Closed)));
        assert!(matches!(engine.set_aside(id(1)).await, Err(EngineError::NotFound(log)) if log == id(1)));
        // Twice: what was set aside before is in nobody's way.
        for round in 0..2 {
            assert_eq!(engine.list().await.unwrap_or_default(), [], "it is listed");
            assert_eq!((engine.usage().logs, engine.usage().bytes), (0, 0));
            let existing = engine.open(id(1), options(OpenMode::Existing)).await;
            assert!(matches!(existing.err(), Some(EngineError::NotFound(_))));
            assert!(engine.open(id(1), options(OpenMode::CreateNew)).await.is_ok());
            let fresh = Log::open(&*engine, 1).await;
            assert_eq!((fresh.state().end, fresh.state().last_epoch), (Offset(0), Default::default()));
            assert_eq!(fresh.get("key").await, None);
            fresh.fill(3 + round).await;
            assert!(fresh.put(&[("key", Some("another"))]).await.is_ok());
            assert!(engine.set_aside(id(1)).await.is_ok());
        }
        let lasts = engine.capabilities().survives > Survives::Nothing;
        let fresh = Log::open(&*engine, 1).await;
        fresh.fill(7).await;
        let (state, all) = (fresh.state(), fresh.read_all(Offset(0)).await);
        assert!(engine.close().await.is_ok());
        let again = store.start();
        if lasts {
            assert_eq!(again.list().await.unwrap_or_default(), [id(1)]);
            let log = Log::open(&*again, 1).await;
            assert_eq!(log.state().end, state.end);
            assert_eq!(log.read_all(Offset(0)).await, all);
        }
        // With all that is left of it; also where there is nothing but what was set aside.
        if lasts {
            assert!(again.delete(id(1)).await.is_ok());
        }
        Log::open(&*again, 2).await;
        assert!(again.set_aside(id(2)).await.is_ok());
        assert!(matches!(again.delete(id(2)).await, Err(EngineError::NotFound(log)) if log == id(2)));
        assert_eq!(again.list().await.unwrap_or_default(), []);
    }
}
