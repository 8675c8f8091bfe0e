//! The memory engine holds no more than it may.

use chronik_conformance::wal::{Log, run_of};
use chronik_core::wal::{Refused, WalEngine};
use chronik_storage_memory::MemoryEngine;
use futures::executor::block_on;

#[test]
fn a_full_engine_refuses_appends_until_something_is_dropped() {
    const BYTES_MAX: u64 = 100_000;
    let engine = MemoryEngine::new(BYTES_MAX);
    block_on(async {
        let (one, other) = (Log::open(&engine, 1).await, Log::open(&engine, 2).await);
        let mut base = 0;
        while let Ok(ordered) = one.order(run_of(base, 1, 0, 0, 1000)) {
            assert!(ordered.await.is_ok());
            base += 1;
        }
        assert!(base > 80, "most of it can be used");
        assert_eq!(other.refused(run_of(0, 1, 0, 0, 1000)), Refused::Full, "the bound is for all logs together");
        assert!(engine.usage().bytes <= BYTES_MAX);
        assert_eq!(one.read_all(chronik_core::ids::Offset(0)).await.len() as i64, base * 1000, "reads go on");

        assert!(one.truncate_prefix(base / 2).await.is_ok());
        other.append(run_of(0, 1, 0, 0, 1000)).await;
        assert!(
            engine
                .delete(chronik_core::ids::LogId { topic: chronik_core::ids::TopicId([1; 16]), partition: 1 })
                .await
                .is_ok()
        );
        assert_eq!(engine.usage().bytes, other.state().bytes);
    });
}
