//! A log fails at something that is not the driver's: what the driver makes of it when it notices.

use super::{AppendError, Assumption, Environment, Inboxes, Outward, Part, PartitionDriver};
use crate::batch::{Builder, CheckedBatch, RecordOut};
use crate::ids::{LeaderEpoch, NodeId, Offset};
use crate::partition::leader::{Acks, Durability};
use crate::partition::recovery::Recovered;
use crate::partition::replicas::Membership;
use crate::pending::{Done, Inbox, Started};
use crate::throttle::Throttles;
use crate::time::{Monotonic, Now, Timestamp};
use crate::wal::{Appended, Chunk, LogState, ReadRange, Refused, Rejected, Run, Wal, WalError};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// It failed while it was trimmed, say; and tells nobody who does not ask.
struct FailedLog;

impl Wal for FailedLog {
    fn state(&self) -> LogState {
        LogState::default()
    }
    fn append(
        &self,
        run: Run,
        _: Done<Result<Appended, WalError>>,
    ) -> Result<Started<Result<Appended, WalError>>, Box<Rejected>> {
        Err(Box::new(Rejected { why: Refused::Failed, run }))
    }
    fn sync(&self, _: Offset, _: Done<Result<Offset, WalError>>) -> Started<Result<Offset, WalError>> {
        Started::Later
    }
    fn read(&self, _: ReadRange, _: Done<Result<Chunk, WalError>>) -> Started<Result<Chunk, WalError>> {
        Started::Later
    }
    fn truncate_suffix(&self, _: Offset, _: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        Started::Later
    }
    fn truncate_prefix(&self, _: Offset, _: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        Started::Later
    }
    fn reset(&self, _: Offset, _: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        Started::Later
    }
    fn offset_for_timestamp(
        &self,
        _: Timestamp,
        _: Done<Result<Option<Offset>, WalError>>,
    ) -> Started<Result<Option<Offset>, WalError>> {
        Started::Later
    }
    fn meta_put(
        &self,
        _: Vec<(String, Option<Bytes>)>,
        _: Done<Result<(), WalError>>,
    ) -> Started<Result<(), WalError>> {
        Started::Later
    }
    fn meta_get(&self, _: &str, _: Done<Result<Option<Bytes>, WalError>>) -> Started<Result<Option<Bytes>, WalError>> {
        Started::Later
    }
    fn close(&self, _: Done<Result<(), WalError>>) -> Started<Result<(), WalError>> {
        Started::Later
    }
}

struct Nobody;

impl<T> Inbox<T> for Nobody {
    fn deliver(&self, _: u64, _: T) {}
}

#[test]
fn a_leader_whose_log_has_failed_behind_its_back_goes_offline_with_the_first_batch_that_is_refused() {
    let me = NodeId(1);
    let now = Now { monotonic: Monotonic(Duration::ZERO), wall: Timestamp(1) };
    let membership = Membership {
        replicas: BTreeSet::from([me, NodeId(2)]),
        in_sync: BTreeSet::from([me, NodeId(2)]),
        in_sync_min: 1,
        partition_epoch: 0,
    };
    let lead = Assumption {
        epoch: LeaderEpoch(0),
        durability: Durability::Fsync,
        throttled: false,
        part: Part::Lead { membership, lag_max: Duration::from_secs(1) },
    };
    let inboxes = Inboxes { written: Arc::new(Nobody), durable: Arc::new(Nobody), read: Arc::new(Nobody) };
    let recovered = Recovered::empty(LogState::default());
    let environment = Environment { node: me, log: Arc::new(FailedLog), inboxes, throttles: Throttles::unlimited() };
    let mut driver: PartitionDriver<()> = PartitionDriver::new(environment, recovered, lead, BTreeSet::new(), now);
    let mut builder = Builder::new(Timestamp(1));
    builder.push(&RecordOut { value: Some(b"one"), ..RecordOut::default() });
    let refused = driver.append(CheckedBatch::trusted(builder.build()), Acks::All, Some(()), now);
    assert!(matches!(refused, Err(AppendError::Log(Refused::Failed))), "{refused:?}");
    // So the controller hears of it, and another replica leads.
    assert!(driver.has_failed());
    assert!(driver.take_outward().iter().any(|effect| matches!(effect, Outward::Failed { .. })));
}
