//! A partition over a log that fails.

use super::failing::FailingEngine;
use super::partition::Surroundings;
use super::stall::StallWatch;
use super::throttle::Throttling;
use super::{NoPeers, Partition};
use crate::clock::Clock;
use crate::metrics::Metrics;
use chronik_core::batch::{Builder, CheckedBatch, RecordOut};
use chronik_core::driver::{Assumption, Part};
use chronik_core::ids::{LeaderEpoch, LogId, NodeId, Offset};
use chronik_core::partition::leader::{Acks, Durability};
use chronik_core::partition::recovery::Recovered;
use chronik_core::partition::replicas::Membership;
use chronik_core::wal::{OpenMode, OpenOptions, WalEngine, WalError};
use chronik_storage_memory::MemoryEngine;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[tokio::test]
async fn where_a_log_begins_is_known_also_when_dropping_its_front_failed_halfway() {
    let (me, clock) = (NodeId(1), Clock::start());
    let runtime = tokio::runtime::Handle::current();
    let engine = FailingEngine::over(Arc::new(MemoryEngine::new(1 << 20)));
    let id = LogId::default();
    let options = OpenOptions { mode: OpenMode::CreateNew, segment_bytes: 1 << 20 };
    let log = engine.open(id, options).await.expect("it opens");
    let around = Surroundings {
        node: me,
        clock,
        stalls: StallWatch::start(runtime.clone()).expect("a thread"),
        channel: Arc::new(NoPeers),
        throttling: Throttling::default(),
        sampling: Arc::default(),
        runtime,
    };
    let membership = Membership {
        replicas: BTreeSet::from([me]),
        in_sync: BTreeSet::from([me]),
        in_sync_min: 1,
        partition_epoch: 0,
    };
    let part = Part::Lead { membership, lag_max: Duration::from_secs(1) };
    let first = Assumption { epoch: LeaderEpoch(0), durability: Durability::Replicated, throttled: false, part };
    let recovered = Recovered::empty(log.state());
    let named = ("t".to_owned(), "memory".to_owned(), Metrics::default().topic("t"));
    let partition = Partition::open(id, named, log, recovered, first, BTreeSet::new(), around);
    for value in [b"one", b"two"] {
        let mut builder = Builder::new(clock.wall());
        builder.push(&RecordOut { value: Some(value), ..RecordOut::default() });
        let batch = CheckedBatch::trusted(builder.build());
        let (_, ack) = partition.append(batch, Acks::All, clock.now()).expect("it takes it");
        partition.write();
        ack.expect("it was asked for").await.expect("it is told").expect("it is stored");
    }
    engine.failures.trims_said.store(true, Ordering::Relaxed);
    let trimmed = partition.trim(Offset(1)).await;
    assert!(matches!(trimmed, Err(WalError::Full)), "{trimmed:?}");
    // Whoever reads from the start, as groups do when they are loaded, must find something there.
    assert_eq!(partition.standing().log_start, Offset(1));
}
