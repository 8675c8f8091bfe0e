//! A log fails at something that is not the driver's, or reports what is true no more: what the driver makes of it.

use super::{AppendError, Assumption, Completion, Environment, Inboxes, Outward, Part, PartitionDriver};
use crate::batch::{Builder, CheckedBatch, RecordOut};
use crate::ids::{LeaderEpoch, NodeId, Offset};
use crate::partition::leader::{Acks, Durability};
use crate::partition::recovery::Recovered;
use crate::partition::replicas::Membership;
use crate::pending::{Done, Inbox, Started};
use crate::replication::{Attach, Message};
use crate::throttle::Throttles;
use crate::time::{Monotonic, Now, Timestamp};
use crate::wal::{Appended, Chunk, LogState, ReadRange, Refused, Rejected, Run, Wal, WalError};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// It failed while it was trimmed, say; and tells nobody who does not ask. Or it has not failed, and takes everything.
#[derive(Default)]
struct FailedLog {
    takes_more: bool,
    /// What it has taken, and reports when the story says so.
    calls: Arc<Calls>,
}

#[derive(Default)]
struct Calls {
    appends: Mutex<Vec<Done<Result<Appended, WalError>>>>,
    syncs: Mutex<Vec<Done<Result<Offset, WalError>>>>,
    /// What it says when it is asked.
    state: Mutex<LogState>,
}

fn taking() -> FailedLog {
    FailedLog { takes_more: true, ..FailedLog::default() }
}

impl Wal for FailedLog {
    fn state(&self) -> LogState {
        *self.calls.state.lock().expect("one thread")
    }
    fn append(
        &self,
        run: Run,
        done: Done<Result<Appended, WalError>>,
    ) -> Result<Started<Result<Appended, WalError>>, Box<Rejected>> {
        if self.takes_more {
            self.calls.appends.lock().expect("one thread").push(done);
            return Ok(Started::Later);
        }
        Err(Box::new(Rejected { why: Refused::Failed, run }))
    }
    fn sync(&self, _: Offset, done: Done<Result<Offset, WalError>>) -> Started<Result<Offset, WalError>> {
        self.calls.syncs.lock().expect("one thread").push(done);
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

/// Where reports lie until the story has the driver read them.
#[derive(Default)]
struct Reports(Mutex<Vec<Completion>>);

struct Nobody;
struct OfWritten(Arc<Reports>);
struct OfDurable(Arc<Reports>);

impl<T> Inbox<T> for Nobody {
    fn deliver(&self, _: u64, _: T) {}
}
impl Inbox<Result<Appended, WalError>> for OfWritten {
    fn deliver(&self, token: u64, outcome: Result<Appended, WalError>) {
        self.0.0.lock().expect("one thread").push(Completion::Written(token, outcome));
    }
}
impl Inbox<Result<Offset, WalError>> for OfDurable {
    fn deliver(&self, token: u64, outcome: Result<Offset, WalError>) {
        self.0.0.lock().expect("one thread").push(Completion::Durable(token, outcome));
    }
}

fn driver_over(log: FailedLog, part: Part, epoch: i32, now: Now) -> PartitionDriver<()> {
    driver_with(log, part, epoch, now, &Arc::default())
}

fn driver_with(log: FailedLog, part: Part, epoch: i32, now: Now, reports: &Arc<Reports>) -> PartitionDriver<()> {
    let first = Assumption { epoch: LeaderEpoch(epoch), durability: Durability::Fsync, throttled: false, part };
    let (written, durable) = (Arc::new(OfWritten(reports.clone())), Arc::new(OfDurable(reports.clone())));
    let inboxes = Inboxes { written, durable, read: Arc::new(Nobody) };
    let environment = Environment { node: ME, log: Arc::new(log), inboxes, throttles: Throttles::unlimited() };
    PartitionDriver::new(environment, Recovered::empty(LogState::default()), first, BTreeSet::new(), now)
}

fn lead() -> Part {
    let membership = Membership {
        replicas: BTreeSet::from([ME, NodeId(2)]),
        in_sync: BTreeSet::from([ME, NodeId(2)]),
        in_sync_min: 1,
        partition_epoch: 0,
    };
    Part::Lead { membership, lag_max: Duration::from_secs(1) }
}

fn batch() -> CheckedBatch {
    let mut builder = Builder::new(Timestamp(1));
    builder.push(&RecordOut { value: Some(b"one"), ..RecordOut::default() });
    CheckedBatch::trusted(builder.build())
}

const ME: NodeId = NodeId(1);
const NOW: Now = Now { monotonic: Monotonic(Duration::ZERO), wall: Timestamp(1) };

#[test]
fn a_replica_whose_log_could_not_be_cut_takes_nothing_when_it_is_made_the_leader_before_the_controller_knows() {
    let follow = Part::Follow { leader: Some(NodeId(2)), unclean_epoch: None };
    let mut driver = driver_over(taking(), follow, 0, NOW);
    // What it believes of its log is more than there is: a batch written after that would leave a hole before it.
    driver.cut_failed(WalError::Full, NOW);
    let next = Assumption { epoch: LeaderEpoch(1), durability: Durability::Fsync, throttled: false, part: lead() };
    driver.assume(next, NOW);
    assert!(driver.leader().is_some() && driver.has_failed());
    let refused = driver.append(batch(), Acks::Leader, Some(()), NOW);
    assert!(matches!(refused, Err(AppendError::Log(Refused::Failed))), "{refused:?}");
}

#[test]
fn a_leader_whose_log_has_failed_behind_its_back_goes_offline_with_the_first_batch_that_is_refused() {
    let mut driver = driver_over(FailedLog::default(), lead(), 0, NOW);
    let refused = driver.append(batch(), Acks::All, Some(()), NOW);
    assert!(matches!(refused, Err(AppendError::Log(Refused::Failed))), "{refused:?}");
    // So the controller hears of it, and another replica leads.
    assert!(driver.has_failed());
    assert!(driver.take_outward().iter().any(|effect| matches!(effect, Outward::Failed { .. })));
}

#[test]
fn a_follower_that_is_behind_a_trim_which_nobody_has_reported_is_told_where_the_log_begins_now() {
    let Part::Lead { mut membership, lag_max } = lead() else { unreachable!("it leads") };
    membership.in_sync = BTreeSet::from([ME]);
    let mut driver = driver_over(taking(), Part::Lead { membership, lag_max }, 0, NOW);
    for _ in 0..2 {
        driver.append(batch(), Acks::Leader, Some(()), NOW).expect("it takes all");
    }
    driver.complete(Completion::Durable(0, Ok(Offset(2))), NOW);
    driver.session_up(NodeId(2), NOW);
    let attach = Attach {
        epoch: LeaderEpoch(0),
        log_start: Offset(0),
        log_end: Offset(0),
        last_epoch: None,
        credit_bytes: 1 << 20,
    };
    driver.received(NodeId(2), Message::Attach(attach), NOW);
    driver.take_outward();
    // Its first read finds that the log has been cut at its front, though that was reported to nobody, and may never be.
    let gone = WalError::OutOfRange { start: Offset(1), end: Offset(2) };
    driver.complete(Completion::Read(1, Err(gone)), NOW);
    let told = driver.take_outward();
    let starts: Vec<Offset> = told
        .iter()
        .filter_map(|effect| match effect {
            Outward::Send { to: NodeId(2), message: Message::Records(records) } => Some(records.log_start),
            _ => None,
        })
        .collect();
    assert_eq!(starts, [Offset(1)], "news of an earlier start would leave it waiting: {told:?}");
}

/// A leader of a log that takes everything, and reports when the story says so.
struct Reporting {
    driver: PartitionDriver<()>,
    calls: Arc<Calls>,
    reports: Arc<Reports>,
}

impl Reporting {
    fn new() -> Self {
        let (log, reports) = (taking(), Arc::<Reports>::default());
        let calls = log.calls.clone();
        Self { driver: driver_with(log, lead(), 0, NOW, &reports), calls, reports }
    }

    fn append(&mut self) {
        self.driver.append(batch(), Acks::Leader, Some(()), NOW).expect("it takes all");
    }

    fn assume(&mut self, epoch: i32, part: Part) {
        let (epoch, durability) = (LeaderEpoch(epoch), Durability::Fsync);
        self.driver.assume(Assumption { epoch, durability, throttled: false, part }, NOW);
    }

    /// Another leads from that epoch on.
    fn follow(&mut self, epoch: i32) {
        self.assume(epoch, Part::Follow { leader: Some(NodeId(2)), unclean_epoch: None });
    }

    /// All appends under way have been written, up to there.
    fn write(&self, end: i64) {
        let appends = std::mem::take(&mut *self.calls.appends.lock().expect("one thread"));
        appends.into_iter().for_each(|done| done.complete(Ok(Appended { written_end: Offset(end) })));
    }

    /// All syncs under way have come to there. How many those were.
    fn sync(&self, end: i64) -> usize {
        let syncs = std::mem::take(&mut *self.calls.syncs.lock().expect("one thread"));
        syncs.into_iter().map(|done| done.complete(Ok(Offset(end)))).count()
    }

    /// The driver hears what the log has reported.
    fn hear(&mut self) {
        let heard = std::mem::take(&mut *self.reports.0.lock().expect("one thread"));
        heard.into_iter().for_each(|report| self.driver.complete(report, NOW));
    }

    fn ends(&self) -> (i64, i64) {
        let (written, durable) = self.driver.leader().expect("it leads").own_ends();
        (written.0, durable.0)
    }
}

#[test]
fn what_a_log_has_reported_before_it_was_cut_counts_no_more_when_it_is_heard_of_after_that() {
    let mut story = Reporting::new();
    (0..3).for_each(|_| story.append());
    story.write(2);
    story.hear();
    story.sync(2);
    // Another leads, who has none of it; nobody has heard of the sync yet, nor of the third batch, which waited for room.
    story.follow(1);
    story.write(3);
    story.driver.cut(Recovered::empty(LogState::default()), NOW);
    story.assume(2, lead());
    story.append();
    story.hear();
    assert_eq!(story.ends(), (0, 0), "of the only batch that it has, nothing is reported");
    story.write(1);
    story.hear();
    story.sync(1);
    story.hear();
    assert_eq!(story.ends(), (1, 1));
}

#[test]
fn what_was_appended_before_a_cut_and_not_cut_off_is_heard_of_after_it() {
    let mut story = Reporting::new();
    (0..3).for_each(|_| story.append());
    // The third goes, and the two before it still wait for room.
    story.follow(1);
    let left = LogState { end: Offset(2), ..LogState::default() };
    story.driver.cut(Recovered::empty(left), NOW);
    story.assume(2, lead());
    assert_eq!(story.ends(), (0, 0));
    *story.calls.state.lock().expect("one thread") = LogState { written_end: Offset(2), ..left };
    story.write(3);
    story.hear();
    assert_eq!(story.ends(), (2, 0), "as far as the log says, not the report");
    assert_eq!(story.sync(2), 1);
    story.hear();
    assert_eq!(story.ends(), (2, 2));
}
