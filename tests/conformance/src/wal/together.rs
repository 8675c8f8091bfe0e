//! T: many callers at once. The host serialises appends and changes of a log; reads, syncs and writing overlap them.

use super::declare_rules;
use super::driver::{Log, everything, options, run_of};
use chronik_core::ids::Offset;
use chronik_core::pending::Pending;
use chronik_core::wal::{OpenMode, ReadRange, Refused, WalError};
use futures::executor::block_on;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const APPENDERS: usize = 4;
const APPENDS: usize = 500;

/// Appends from several threads; the lock is the host's, and covers ordering only.
fn append_from_many(log: &Log, payload_bytes: usize) {
    let host = Mutex::new(());
    thread::scope(|scope| {
        for _ in 0..APPENDERS {
            scope.spawn(|| {
                for _ in 0..APPENDS {
                    let ordered = loop {
                        let turn = host.lock();
                        let ordered = log.order(run_of(log.state().end.0, 1, 0, 0, payload_bytes));
                        drop(turn);
                        match ordered {
                            Ok(ordered) => break ordered,
                            Err(Refused::Busy) => thread::yield_now(),
                            Err(why) => panic!("refused: {why}"),
                        }
                    };
                    log.wal.write_queued();
                    assert!(block_on(ordered).is_ok());
                }
            });
        }
    });
}

declare_rules! {
    t01_concurrent_appends: "an append whose caller finds another at writing is written, too", |store| {
        let (_engine, log) = Log::fresh(store).await;
        append_from_many(&log, 100);
        let count = (APPENDERS * APPENDS) as i64;
        assert_eq!((log.state().end, log.state().written_end), (Offset(count), Offset(count)));
        for base in (0..count).step_by(97) {
            let range = ReadRange { max_bytes: 1, ..everything(Offset(base)) };
            assert_eq!(log.read(range).await.bytes, run_of(base, 1, 0, 0, 100).bytes);
        }
    }

    t02_readers_beside_writers: "a reader beside writers sees every run once, whole and in order", |store| {
        let (_engine, log) = Log::fresh(store).await;
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for max_bytes in [1, 1000, 100_000] {
                let (log, over) = (&log, &over);
                scope.spawn(move || {
                    let mut from = Offset(0);
                    loop {
                        let was_over = over.load(Ordering::Acquire);
                        let range = ReadRange { max_bytes, ..everything(from) };
                        let outcome = block_on(log.try_read(range));
                        let Ok(chunk) = outcome else { panic!("{outcome:?}") };
                        let mut bytes = chunk.bytes.to_bytes();
                        for base in chunk.base.0..chunk.next_offset.0 {
                            assert_eq!(bytes.split_to(300), run_of(base, 1, 0, 0, 300).bytes.to_bytes());
                        }
                        if chunk.next_offset == from && was_over {
                            assert_eq!(from, log.state().end);
                            return;
                        }
                        from = chunk.next_offset;
                    }
                });
            }
            append_from_many(&log, 300);
            over.store(true, Ordering::Release);
        });
    }

    t03_syncs_shared: "many may wait for syncs at once, while others append", |store| {
        let (_engine, log) = Log::fresh(store).await;
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut last = Offset(0);
                    while !over.load(Ordering::Acquire) {
                        let end = log.state().end;
                        let outcome = block_on(log.try_sync(end));
                        let Ok(durable_end) = outcome else { panic!("{outcome:?}") };
                        assert!(durable_end >= end && durable_end >= last);
                        last = durable_end;
                    }
                });
            }
            append_from_many(&log, 100);
            over.store(true, Ordering::Release);
        });
        log.sync().await;
    }

    t04_closed_log: "a closed log completes what was ordered before and answers Closed after", |store| {
        let (engine, log) = Log::fresh(store).await;
        let ordered: Vec<_> = (0..100).filter_map(|base| log.order(run_of(base, 1, 0, 0, 100)).ok()).collect();
        let sync = Pending::start(|done| log.wal.sync(Offset(100), done));
        assert!(log.close().await.is_ok());
        for append in ordered {
            assert!(append.await.is_ok());
        }
        assert!(sync.await.is_ok());
        assert_eq!(log.refused(run_of(100, 1, 0, 0, 10)), Refused::Closed);
        assert!(matches!(log.try_read(everything(Offset(0))).await, Err(WalError::Closed)));
        assert!(matches!(log.try_sync(Offset(0)).await, Err(WalError::Closed)));
        assert!(matches!(log.truncate_suffix(0).await, Err(WalError::Closed)));
        assert!(matches!(log.truncate_prefix(0).await, Err(WalError::Closed)));
        assert!(matches!(log.reset(0).await, Err(WalError::Closed)));
        assert!(matches!(log.put(&[("key", None)]).await, Err(WalError::Closed)));
        assert!(matches!(log.close().await, Err(WalError::Closed)));
        let again = engine.open(log_id(), options(OpenMode::Existing)).await;
        assert!(again.is_ok_and(|again| again.state().end == Offset(100)));
    }

    t05_sync_writes: "a sync writes what is ordered, also if nobody else does", |store| {
        let (_engine, log) = Log::fresh(store).await;
        let host = Mutex::new(());
        thread::scope(|scope| {
            for _ in 0..APPENDERS {
                scope.spawn(|| {
                    for _ in 0..APPENDS / 5 {
                        let turn = host.lock();
                        let base = log.state().end;
                        let ordered = log.order(run_of(base.0, 1, 0, 0, 100));
                        drop(turn);
                        assert!(block_on(log.try_sync(base + 1)).is_ok_and(|durable_end| durable_end > base));
                        assert!(block_on(ordered.unwrap_or_else(|why| panic!("refused: {why}"))).is_ok());
                    }
                });
            }
        });
    }
}

fn log_id() -> chronik_core::ids::LogId {
    super::driver::id(1)
}
