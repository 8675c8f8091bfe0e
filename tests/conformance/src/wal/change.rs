//! C: truncating, resetting, small values, segments.

use super::declare_rules;
use super::driver::{Log, everything, run_of};
use super::model::{Dice, Model};
use chronik_core::ids::{LeaderEpoch, Offset};
use chronik_core::pending::Pending;
use chronik_core::time::Timestamp;
use chronik_core::wal::{Refused, WalError};

declare_rules! {
    c01_truncate_suffix: "a truncation removes every run that reaches past it", |store| {
        let (_engine, log) = Log::fresh(store).await;
        log.fill(100).await;
        let all = log.read_all(Offset(0)).await.to_bytes();
        for run in (0..100).rev().step_by(7) {
            // `fill` makes runs of 1, 2, 3, 1, 2, 3 … records.
            let from = run / 3 * 6 + [0, 1, 3][run as usize % 3];
            assert!(log.truncate_suffix(from).await.is_ok());
            let state = log.state();
            assert_eq!(state.end, Offset(from));
            assert_eq!(state.max_timestamp, Timestamp(if run == 0 { -1 } else { 1000 + from - [3, 1, 2][run as usize % 3] }));
            let left = log.read_all(Offset(0)).await.to_bytes();
            assert!(all.starts_with(&left));
            assert!(matches!(log.try_read(everything(Offset(from + 1))).await, Err(WalError::OutOfRange { .. })));
        }
    }

    c02_truncate_suffix_places: "a truncation outside the log or inside a run is answered OutOfRange and does nothing", |store| {
        let (_engine, log) = Log::fresh(store).await;
        for base in [0, 10, 30] {
            log.append(run_of(base, 10, 0, base, 50)).await;
        }
        assert!(log.truncate_prefix(5).await.is_ok());
        // An engine may sync of its own accord: nothing is left that could become durable while nothing is to happen.
        log.sync().await;
        let before = log.state();
        for from in [4, 0, 41, 15, 39, 6] {
            let outcome = log.truncate_suffix(from).await;
            assert!(matches!(outcome, Err(WalError::OutOfRange { start: Offset(5), end: Offset(40) })), "{from}");
        }
        assert_eq!(log.state(), before);
        assert!(log.truncate_suffix(40).await.is_ok(), "at the end there is nothing to do");
        assert_eq!(log.state().end, Offset(40));
        assert!(log.truncate_suffix(25).await.is_ok(), "inside a gap");
        assert_eq!(log.state().end, Offset(20), "the end is that of the last run left");
    }

    c03_epoch_after_truncation: "after a truncation the last epoch is that of the last run left", |store| {
        let (_engine, log) = Log::fresh(store).await;
        for base in 0..10 {
            log.append(run_of(base, 1, base as i32 * 2, 0, 700)).await;
        }
        assert!(log.truncate_suffix(4).await.is_ok());
        assert_eq!(log.state().last_epoch, LeaderEpoch(6));
        assert_eq!(log.refused(run_of(4, 1, 5, 0, 10)), Refused::Fenced { current: LeaderEpoch(6) });
        log.append(run_of(4, 1, 7, 0, 10)).await;
    }

    c04_truncate_to_start: "a truncation to the start leaves an empty log there", |store| {
        let (_engine, log) = Log::fresh(store).await;
        log.append(run_of(0, 10, 3, 7, 50)).await;
        log.append(run_of(10, 10, 4, 8, 50)).await;
        assert!(log.truncate_prefix(5).await.is_ok());
        assert!(log.truncate_suffix(5).await.is_ok());
        let state = log.state();
        assert_eq!((state.start, state.end, state.last_epoch), (Offset(5), Offset(5), LeaderEpoch(3)));
        assert_eq!(state.max_timestamp, Timestamp::NONE);
        assert_eq!(log.offset_for_timestamp(0).await, None);
        log.append(run_of(5, 1, 3, 1, 10)).await;
        assert_eq!(log.read(everything(Offset(5))).await.bytes.len(), 10);
    }

    c05_truncate_prefix: "moving the start drops what lies below it, and keeps the rest", |store| {
        let (_engine, log) = Log::fresh(store).await;
        log.fill(100).await;
        let end = log.state().end;
        let all = log.read_all(Offset(0)).await.to_bytes();
        for upto in (1..=end.0).step_by(11) {
            assert!(log.truncate_prefix(upto).await.is_ok());
            assert_eq!((log.state().start, log.state().end), (Offset(upto), end));
            assert!(matches!(log.try_read(everything(Offset(upto - 1))).await, Err(WalError::OutOfRange { .. })));
            if upto < end.0 {
                let chunk = log.read(everything(Offset(upto))).await;
                assert!(chunk.base <= Offset(upto), "the run that holds the start is still whole");
                assert!(all.ends_with(&chunk.bytes.to_bytes()));
            }
        }
        assert!(log.truncate_prefix(end.0).await.is_ok());
        assert_eq!((log.state().start, log.state().end, log.state().max_timestamp), (end, end, Timestamp::NONE));
        log.fill(3).await;
    }

    c06_truncate_prefix_places: "the start never moves back, nor past the end", |store| {
        let (_engine, log) = Log::fresh(store).await;
        log.fill(30).await;
        let end = log.state().end;
        assert!(log.truncate_prefix(10).await.is_ok());
        for upto in [10, 9, 0, -5] {
            assert!(log.truncate_prefix(upto).await.is_ok());
            assert_eq!(log.state().start, Offset(10));
        }
        assert!(matches!(log.truncate_prefix(end.0 + 1).await, Err(WalError::OutOfRange { .. })));
        assert_eq!((log.state().start, log.state().end), (Offset(10), end));
    }

    c07_epoch_before_start: "an empty log remembers the epoch of the last run before its start", |store| {
        let (_engine, log) = Log::fresh(store).await;
        for base in 0..10 {
            log.append(run_of(base * 2, 2, base as i32, 0, 700)).await;
        }
        assert!(log.truncate_prefix(20).await.is_ok());
        assert_eq!(log.state().last_epoch, LeaderEpoch(9));
        assert_eq!(log.refused(run_of(20, 1, 8, 0, 10)), Refused::Fenced { current: LeaderEpoch(9) });
    }

    c08_reset: "a reset empties the log and begins again anywhere, in any epoch", |store| {
        let (_engine, log) = Log::fresh(store).await;
        for start in [1000, 5, 5, 0, 70] {
            log.append(run_of(log.state().end.0, 3, 8, 99, 100)).await;
            log.fill(40).await;
            assert!(log.reset(start).await.is_ok());
            let state = log.state();
            let at = Offset(start);
            assert_eq!((state.start, state.end, state.written_end, state.durable_end), (at, at, at, at));
            assert_eq!((state.last_epoch, state.max_timestamp), (LeaderEpoch(0), Timestamp::NONE));
            assert_eq!(log.read(everything(at)).await.bytes.len(), 0);
            log.append(run_of(start, 1, 0, 0, 10)).await;
        }
    }

    c09_call_order: "appends, truncations and resets take effect in the order of the calls", |store| {
        let (_engine, log) = Log::fresh(store).await;
        let mut started = Vec::new();
        let mut expected = Vec::new();
        for round in 0..30 {
            let base = log.state().end.0;
            let ordered: Vec<_> = (0..4).map(|more| log.order(run_of(base + more, 1, 0, 0, 300))).collect();
            assert!(ordered.iter().all(Result::is_ok));
            started.push(Pending::start(|done| log.wal.truncate_suffix(Offset(base + 1), done)));
            assert_eq!(log.state().end, Offset(base + 1));
            let kept = run_of(base + 1, 1, 0, round, 200);
            assert!(log.order(kept.clone()).is_ok());
            expected.push((run_of(base, 1, 0, 0, 300), kept));
            if round % 3 == 0 {
                log.wal.write_queued();
            }
            if round == 10 {
                started.push(Pending::start(|done| log.wal.reset(Offset(500), done)));
                expected.clear();
            }
        }
        log.wal.write_queued();
        for change in started {
            assert!(change.await.is_ok());
        }
        log.sync().await;
        let bytes: Vec<_> = expected.into_iter().flat_map(|(first, kept)| [first.bytes, kept.bytes]).collect();
        let bytes: chronik_core::payload::Payload = bytes.into_iter().flatten().collect();
        assert_eq!(log.read_all(Offset(500)).await, bytes);
    }

    c10_values: "small values are kept until they are replaced or removed", |store| {
        let (engine, log) = Log::fresh(store).await;
        assert_eq!(log.get("vote").await, None);
        assert!(log.put(&[("vote", Some("1")), ("term", Some(""))]).await.is_ok());
        assert_eq!(log.get("vote").await.as_deref(), Some("1"));
        assert_eq!(log.get("term").await.as_deref(), Some(""));
        assert!(log.put(&[("vote", Some("2")), ("term", None)]).await.is_ok());
        log.fill(3).await;
        assert!(log.truncate_prefix(2).await.is_ok());
        let log = log.reopen(&*engine, 1).await;
        assert_eq!(log.get("vote").await.as_deref(), Some("2"));
        assert_eq!(log.get("term").await, None);
        assert!(log.reset(0).await.is_ok());
        assert_eq!(log.get("vote").await.as_deref(), Some("2"), "a reset is about runs");
    }

    c11_values_all_or_none: "concurrent puts are applied whole, in the order of their calls", |store| {
        let (_engine, log) = Log::fresh(store).await;
        let puts: Vec<_> = (0..50)
            .map(|number: i32| {
                let value = bytes::Bytes::from(number.to_string());
                let entries = ["a", "b"].map(|key| (key.to_owned(), Some(value.clone()))).to_vec();
                Pending::start(|done| log.wal.meta_put(entries, done))
            })
            .collect();
        for put in puts {
            assert!(put.await.is_ok());
        }
        assert_eq!((log.get("a").await.as_deref(), log.get("b").await.as_deref()), (Some("49"), Some("49")));
    }

    c12_segments: "segments follow one another and hold the log; rolling begins another", |store| {
        let (_engine, log) = Log::fresh(store).await;
        let Some(segmented) = log.segmented() else { return };
        assert_eq!(segmented.segments().len(), 1);
        segmented.roll();
        assert_eq!(segmented.segments().len(), 1, "an empty one is not sealed");
        log.fill(100).await;
        let segments = segmented.segments();
        assert!(segments.len() > 3, "segments of 4 KiB for about 20 KiB");
        for pair in segments.windows(2) {
            assert!(pair[0].sealed && pair[0].end <= pair[1].base && pair[0].base < pair[0].end);
        }
        assert!(segments.last().is_some_and(|last| !last.sealed && last.end == log.state().end));
        assert_eq!(segments.iter().map(|segment| segment.bytes).sum::<u64>(), log.state().bytes);
        let greatest = segments.iter().map(|segment| segment.max_timestamp).max();
        assert_eq!(greatest, Some(log.state().max_timestamp));

        segmented.roll();
        let rolled = segmented.segments();
        let end = log.state().end;
        assert!(rolled.last().is_some_and(|last| !last.sealed && (last.base, last.end, last.bytes) == (end, end, 0)));
        assert_eq!(rolled.len(), segments.len() + 1);
        segmented.set_segment_bytes(1 << 20);
        log.fill(100).await;
        assert_eq!(segmented.segments().len(), segments.len() + 1, "segments are larger now");
    }

    c13_retention: "a start at a segment's base gives the segments before it back", |store| {
        let (engine, log) = Log::fresh(store).await;
        let Some(segmented) = log.segmented() else { return };
        log.fill(200).await;
        let segments = segmented.segments();
        let keep = segments[segments.len() / 2];
        assert!(log.truncate_prefix(keep.base.0).await.is_ok());
        assert_eq!(segmented.segments(), &segments[segments.len() / 2..]);
        let left = segments[segments.len() / 2..].iter().map(|segment| segment.bytes).sum::<u64>();
        assert_eq!((log.state().bytes, engine.usage().bytes), (left, left));
        let log = log.reopen(&*engine, 1).await;
        assert_eq!(log.state().start, keep.base);
        assert_eq!(log.state().bytes, left);
    }

    c14_sync_cut_off: "a sync whose records a truncation cuts off completes with what is left", |store| {
        let (_engine, log) = Log::fresh(store).await;
        for round in 0..20 {
            let base = log.state().end.0;
            let ordered: Vec<_> = (0..10).map(|more| log.order(run_of(base + more, 1, 0, round, 500))).collect();
            assert!(ordered.iter().all(Result::is_ok));
            let sync = Pending::start(|done| log.wal.sync(Offset(base + 10), done));
            let cut = Pending::start(|done| log.wal.truncate_suffix(Offset(base + 1), done));
            log.wal.write_queued();
            assert!(sync.await.is_ok());
            assert!(cut.await.is_ok());
            assert!(log.try_sync(Offset(base + 1)).await.is_ok_and(|durable_end| durable_end == Offset(base + 1)));
        }
    }

    c15_any_history: "after any history a log is what a list of runs would be", |store| {
        let engine = store.start();
        for seed in 0..20 {
            let mut dice = Dice(seed);
            let log = Log::open(&*engine, seed as u8).await;
            let mut model = Model::default();
            for _ in 0..60 {
                model.step(&log, &mut dice).await;
                model.compare(&log, &mut dice).await;
            }
        }
    }
}
