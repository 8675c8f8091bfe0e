//! R: reading.

use super::declare_rules;
use super::driver::{Log, everything, run_of};
use chronik_core::ids::Offset;
use chronik_core::payload::Payload;
use chronik_core::wal::{Chunk, ReadRange, WalError};

declare_rules! {
    r01_at_the_end: "a read at the end gives an empty chunk", |store| {
        let (_engine, log) = Log::fresh(store).await;
        for end in [Offset(0), Offset(4)] {
            let empty = Chunk { base: end, next_offset: end, bytes: Payload::new() };
            assert_eq!(log.read(everything(end)).await, empty);
            if end == Offset(0) {
                log.append(run_of(0, 4, 0, 0, 10)).await;
            }
        }
    }

    r02_out_of_range: "a read outside the log is answered with where it is", |store| {
        let (_engine, log) = Log::fresh(store).await;
        log.fill(30).await;
        assert!(log.truncate_prefix(10).await.is_ok());
        let end = log.state().end;
        for from in [Offset(0), Offset(9), end + 1, Offset(-1), Offset(i64::MAX)] {
            let outcome = log.try_read(everything(from)).await;
            let here = matches!(outcome, Err(WalError::OutOfRange { start: Offset(10), end: there }) if there == end);
            assert!(here, "{from}: {outcome:?}");
        }
    }

    r03_middle_of_a_run: "a read from within a run gives the whole run", |store| {
        let (_engine, log) = Log::fresh(store).await;
        log.append(run_of(0, 10, 0, 0, 100)).await;
        log.append(run_of(10, 10, 0, 0, 100)).await;
        for from in 10..20 {
            let chunk = log.read(everything(Offset(from))).await;
            assert_eq!((chunk.base, chunk.next_offset, chunk.bytes.len()), (Offset(10), Offset(20), 100));
        }
    }

    r04_max_bytes: "a read stops before it exceeds max_bytes, but gives the first run if asked to", |store| {
        let (_engine, log) = Log::fresh(store).await;
        for base in 0..10 {
            log.append(run_of(base, 1, 0, 0, 100)).await;
        }
        let range = |max_bytes, min_one| ReadRange { from: Offset(0), upto: Offset(10), max_bytes, min_one };
        assert_eq!(log.read(range(99, true)).await.bytes.len(), 100);
        assert_eq!(log.read(range(0, true)).await.bytes.len(), 100);
        let nothing = log.read(range(99, false)).await;
        assert_eq!((nothing.base, nothing.next_offset, nothing.bytes.len()), (Offset(0), Offset(0), 0));
        assert_eq!(log.read(range(100, false)).await.bytes.len(), 100);
        let some = log.read(range(399, false)).await;
        assert!(some.bytes.len() == 300 && some.next_offset == Offset(3), "{some:?}");
    }

    r05_upto: "a read gives only runs that end at or below upto", |store| {
        let (_engine, log) = Log::fresh(store).await;
        for base in [0, 3, 6] {
            log.append(run_of(base, 3, 0, 0, 100)).await;
        }
        for (upto, runs) in [(0, 0), (2, 0), (3, 1), (5, 1), (6, 2), (8, 2), (9, 3), (100, 3)] {
            let range = ReadRange { upto: Offset(upto), ..everything(Offset(0)) };
            assert_eq!(log.read(range).await.bytes.len(), 100 * runs, "up to {upto}");
        }
    }

    r06_from_every_offset: "a read may begin at any offset of the log, in any order", |store| {
        let (_engine, log) = Log::fresh(store).await;
        log.fill(60).await;
        let end = log.state().end.0;
        let all = log.read(everything(Offset(0))).await.bytes.to_bytes();
        for from in (0..end).rev().chain(0..end) {
            let chunk = log.read(everything(Offset(from))).await;
            assert_eq!(chunk.next_offset, Offset(end));
            // `fill` makes runs of up to three records.
            assert!((0..3).contains(&(from - chunk.base.0)), "from {from} begins at {}", chunk.base);
            assert!(all.ends_with(&chunk.bytes.to_bytes()), "from {from}");
        }
    }

    r07_timestamps: "the offset for a time is the base of the first run at or after it", |store| {
        let (_engine, log) = Log::fresh(store).await;
        assert_eq!(log.offset_for_timestamp(0).await, None);
        let times = [10, 50, 20, -1, 60, 60, 90];
        for (base, time) in times.into_iter().enumerate() {
            log.append(run_of(base as i64 * 2, 2, 0, time, 900)).await;
        }
        let expected = [(0, 0), (10, 0), (11, 2), (50, 2), (51, 8), (60, 8), (61, 12), (90, 12)];
        for (time, base) in expected {
            assert_eq!(log.offset_for_timestamp(time).await, Some(Offset(base)), "time {time}");
        }
        assert_eq!(log.offset_for_timestamp(91).await, None);
        assert!(log.truncate_prefix(5).await.is_ok());
        assert_eq!(log.offset_for_timestamp(0).await, Some(Offset(4)), "a run that reaches past the start counts");
    }

    r08_old_and_new: "one read goes on from what was written long ago to what was ordered just now", |store| {
        let (engine, log) = Log::fresh(store).await;
        log.fill(30).await;
        let log = log.reopen(&*engine, 1).await;
        log.fill(30).await;
        let end = log.state().end;
        let Ok(ordered) = log.order(run_of(end.0, 4, 0, 0, 100)) else { panic!("refused") };
        let chunk = log.read(everything(Offset(0))).await;
        assert_eq!((chunk.base, chunk.next_offset), (Offset(0), end + 4));
        log.wal.write_queued();
        assert!(ordered.await.is_ok());
    }
}
