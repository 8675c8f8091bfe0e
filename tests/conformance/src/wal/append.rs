//! A: appending.

use super::declare_rules;
use super::driver::{Log, everything, run_of};
use bytes::Bytes;
use chronik_core::ids::{LeaderEpoch, Offset};
use chronik_core::payload::Payload;
use chronik_core::pending::{Done, Inbox, Started};
use chronik_core::time::Timestamp;
use chronik_core::wal::{Appended, LogState, ReadRange, Refused, Run, WalError};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts what is delivered, by token.
#[derive(Default)]
struct Counter(Mutex<Vec<u64>>);

impl<T> Inbox<T> for Counter {
    fn deliver(&self, token: u64, _outcome: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(token);
    }
}

declare_rules! {
    a01_new_log_is_empty: "a new log is empty and begins at zero", |store| {
        let (_engine, log) = Log::fresh(store).await;
        let none = LogState { max_timestamp: Timestamp::NONE, ..LogState::default() };
        assert_eq!(LogState { bytes: 0, ..log.state() }, none);
    }

    a02_readable_before_written: "a run is readable as soon as append has returned", |store| {
        let (_engine, log) = Log::fresh(store).await;
        let run = run_of(0, 3, 0, 5, 100);
        let Ok(ordered) = log.order(run.clone()) else { panic!("refused") };
        assert_eq!(log.state().end, Offset(3));
        assert_eq!(log.read(everything(Offset(0))).await.bytes, run.bytes);
        log.wal.write_queued();
        assert!(ordered.await.is_ok());
    }

    a03_completes_when_written: "an append completes when it is written, and says how far", |store| {
        let (_engine, log) = Log::fresh(store).await;
        for base in 0..10 {
            log.append(run_of(base, 1, 0, 0, 50)).await;
            assert!(log.state().written_end >= Offset(base + 1));
        }
    }

    a04_out_of_order: "a run that begins before the end is refused, and told where the end is", |store| {
        let (_engine, log) = Log::fresh(store).await;
        log.append(run_of(0, 5, 0, 0, 10)).await;
        for base in [0, 4] {
            assert_eq!(log.refused(run_of(base, 9, 0, 0, 10)), Refused::OutOfOrder { expected: Offset(5) });
        }
    }

    a05_gaps: "a run may leave a gap, and a read inside the gap gives the next run", |store| {
        let (_engine, log) = Log::fresh(store).await;
        log.append(run_of(0, 2, 0, 0, 10)).await;
        log.append(run_of(10, 2, 0, 0, 20)).await;
        for from in 2..10 {
            let chunk = log.read(everything(Offset(from))).await;
            assert_eq!((chunk.base, chunk.next_offset, chunk.bytes.len()), (Offset(10), Offset(12), 20));
        }
        assert_eq!(log.read(everything(Offset(0))).await.bytes.len(), 30);
    }

    a06_fenced: "a run of an epoch before the last one is refused, and told the last one", |store| {
        let (_engine, log) = Log::fresh(store).await;
        log.append(run_of(0, 1, 4, 0, 10)).await;
        assert_eq!(log.refused(run_of(1, 1, 3, 0, 10)), Refused::Fenced { current: LeaderEpoch(4) });
        log.append(run_of(1, 1, 4, 0, 10)).await;
        log.append(run_of(2, 1, 9, 0, 10)).await;
        assert_eq!(log.state().last_epoch, LeaderEpoch(9));
    }

    a07_empty_range: "a run of no offsets is refused", |store| {
        let (_engine, log) = Log::fresh(store).await;
        log.append(run_of(0, 3, 0, 0, 10)).await;
        for next_offset in [3, 2, 0] {
            let run = Run { next_offset: Offset(next_offset), ..run_of(3, 1, 0, 0, 10) };
            assert_eq!(log.refused(run), Refused::OutOfOrder { expected: Offset(3) });
        }
    }

    a08_too_large: "a run larger than the engine takes is refused, and told how much it takes", |store| {
        let (engine, log) = Log::fresh(store).await;
        let max = engine.capabilities().run_bytes_max;
        // One mebibyte, many times over: a large rope over little memory.
        let brick = Bytes::from(vec![7; 1 << 20]);
        let bytes: Payload = (0..=max >> 20).map(|_| brick.clone()).collect();
        let run = Run { bytes, ..run_of(0, 1, 0, 0, 0) };
        assert_eq!(log.refused(run), Refused::TooLarge { max });
    }

    a09_refusal_changes_nothing: "a refused append changes nothing", |store| {
        let (_engine, log) = Log::fresh(store).await;
        log.append(run_of(0, 5, 3, 7, 10)).await;
        log.sync().await;
        let before = log.state();
        log.refused(run_of(4, 9, 3, 0, 10));
        log.refused(run_of(5, 9, 2, 0, 10));
        log.wal.write_queued();
        assert_eq!(log.state(), before);
        log.append(run_of(5, 1, 3, 0, 10)).await;
    }

    a10_bytes_come_back: "what is read is what was appended, however it was cut", |store| {
        let (_engine, log) = Log::fresh(store).await;
        let mut all = Payload::new();
        for (base, bytes) in [0, 1, 2, 63, 64, 65, 4095, 4096, 4097, 70_000, 1, 300_000].into_iter().enumerate() {
            let run = run_of(base as i64, 1, 0, 0, bytes);
            let many: Payload = run.bytes.to_bytes().chunks(777).map(Bytes::copy_from_slice).collect();
            all.append(many.clone());
            log.append(Run { bytes: many, ..run }).await;
        }
        assert_eq!(log.read_all(Offset(0)).await, all);
        assert_eq!(log.read(everything(Offset(0))).await.bytes, all);
    }

    a11_write_carries_all: "write_queued writes what others have ordered, too", |store| {
        let (_engine, log) = Log::fresh(store).await;
        let ordered: Vec<_> = (0..1000).filter_map(|base| log.order(run_of(base, 1, 0, 0, 100)).ok()).collect();
        assert_eq!(ordered.len(), 1000);
        log.wal.write_queued();
        for append in ordered {
            assert!(append.await.is_ok());
        }
        assert_eq!(log.state().written_end, Offset(1000));
    }

    a12_every_done_once: "every Done is completed exactly once, unless the call was answered at once", |store| {
        let (engine, log) = Log::fresh(store).await;
        let counter = Arc::new(Counter::default());
        let mut later = 0;
        let mut count = |is_later: bool| later += u64::from(is_later);
        let started = |started: &Started<Result<Appended, WalError>>| matches!(started, Started::Later);
        for base in 0..50 {
            let done = Done::new(counter.clone(), 1);
            count(log.wal.append(run_of(base, 1, 0, 0, 100), done).is_ok_and(|call| started(&call)));
            let refused = log.wal.append(run_of(base, 1, 0, 0, 100), Done::new(counter.clone(), 2));
            assert!(refused.is_err());
            count(matches!(log.wal.sync(Offset(base), Done::new(counter.clone(), 3)), Started::Later));
            count(matches!(log.wal.read(everything(Offset(0)), Done::new(counter.clone(), 4)), Started::Later));
            if base % 10 == 9 {
                count(matches!(log.wal.truncate_prefix(Offset(base / 2), Done::new(counter.clone(), 5)), Started::Later));
                count(matches!(log.wal.truncate_suffix(Offset(base + 1), Done::new(counter.clone(), 6)), Started::Later));
                let put = vec![("key".to_owned(), Some(Bytes::new()))];
                count(matches!(log.wal.meta_put(put, Done::new(counter.clone(), 7)), Started::Later));
                count(matches!(log.wal.meta_get("key", Done::new(counter.clone(), 8)), Started::Later));
                count(matches!(log.wal.offset_for_timestamp(Timestamp(0), Done::new(counter.clone(), 9)), Started::Later));
            }
        }
        log.wal.write_queued();
        count(matches!(log.wal.sync(Offset(50), Done::new(counter.clone(), 10)), Started::Later));
        assert!(engine.close().await.is_ok());
        drop((engine, log));
        // Closing waits for appends and changes; a read or a small value on its way may take a moment longer.
        while Arc::strong_count(&counter) > 1 {
            std::thread::yield_now();
        }
        let delivered = counter.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(delivered.len() as u64, later);
        assert!(!delivered.contains(&2), "a refused append completes nothing");
    }

    a13_state_follows: "state tells the end, the last epoch and the greatest timestamp", |store| {
        let (_engine, log) = Log::fresh(store).await;
        for (base, timestamp, greatest) in [(0, 50, 50), (1, -1, 50), (2, 70, 70), (3, 60, 70)] {
            log.append(run_of(base, 1, base as i32, timestamp, 10)).await;
            let state = log.state();
            assert_eq!(state.end, Offset(base + 1));
            assert_eq!(state.last_epoch, LeaderEpoch(base as i32));
            assert_eq!(state.max_timestamp, Timestamp(greatest));
            assert!(state.bytes >= 10 * (base as u64 + 1));
        }
        let range = ReadRange { from: Offset(4), upto: Offset(4), max_bytes: 0, min_one: false };
        assert_eq!(log.read(range).await.bytes.len(), 0);
    }
}
