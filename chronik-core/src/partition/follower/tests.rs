//! A follower, told what a leader may tell it.

use super::*;
use crate::batch::{Builder, RecordOut};

const EPOCH: LeaderEpoch = LeaderEpoch(4);

fn now(ms: u64) -> Now {
    Now { monotonic: Monotonic(Duration::from_millis(ms)), wall: Timestamp(ms as i64) }
}

/// A log of ten records, of epoch 1 up to 6 and of epoch 2 from there, committed below 4.
fn recovered() -> Recovered {
    let epochs = Epochs::from_starts([(LeaderEpoch(1), Offset(0)), (LeaderEpoch(2), Offset(6))]);
    let end = Offset(10);
    Recovered {
        checkpoint: Checkpoint { upto: end, high_watermark: Offset(4), epochs, ..Checkpoint::default() },
        log: LogState { end, written_end: end, durable_end: end, ..LogState::default() },
        agreed_epoch: None,
    }
}

fn follower(unclean: bool) -> Follower {
    let unclean_epoch = unclean.then_some(EPOCH);
    let mut follower = Follower::new(recovered(), EPOCH, Durability::Fsync, unclean_epoch);
    follower.session_up();
    follower
}

fn effects(follower: &mut Follower) -> String {
    let effects = std::iter::from_fn(|| follower.poll_effect()).map(|effect| match effect {
        Effect::Send(Message::Attach(attach)) => format!("attach at {}", attach.log_end),
        Effect::Send(Message::Progress(Progress { written_end, durable_end, credit_bytes, .. })) => {
            format!("has {written_end}/{durable_end} credit {}", credit_bytes as i64 - CREDIT_BYTES as i64)
        }
        Effect::Send(message) => format!("{message:?}"),
        Effect::Append { batch, .. } => format!("append {}", batch.header.base_offset),
        Effect::Sync { upto } => format!("sync {upto}"),
        Effect::Truncate { from } => format!("cut {from}"),
        Effect::Reset { start, .. } => format!("reset {start}"),
        Effect::Trim { upto } => format!("trim {upto}"),
        Effect::WatermarkAdvanced { to } => format!("hw {to}"),
        Effect::Offline(why) => format!("offline: {why}"),
    });
    effects.collect::<Vec<_>>().join(", ")
}

fn batch(base: i64, epoch: i32) -> Batch {
    let mut builder = Builder::new(Timestamp(1));
    builder.push(&RecordOut::default());
    let mut batch = builder.build();
    (batch.header.base_offset, batch.header.leader_epoch) = (Offset(base), LeaderEpoch(epoch));
    batch.header.crc = batch.header.checksum(&batch.records);
    batch
}

fn records(epoch: LeaderEpoch, high_watermark: i64, batches: Vec<Batch>) -> Records {
    Records { epoch, high_watermark: Offset(high_watermark), log_start: Offset(0), batches }
}

#[test]
fn records_stream_in_and_progress_follows_what_the_log_reports() {
    let mut follower = follower(false);
    assert_eq!(effects(&mut follower), "attach at 10");
    follower.attached(now(0), Attached::Stream { epoch: EPOCH, high_watermark: Offset(9) });
    assert_eq!(effects(&mut follower), "hw 9, has 10/10 credit 0");
    let size = batch(10, 4).header.size_bytes();
    follower.records(now(0), records(EPOCH, 12, vec![batch(10, 4), batch(11, 4)]));
    assert_eq!(effects(&mut follower), "append 10, append 11, hw 10");
    follower.written(Offset(11));
    assert_eq!(effects(&mut follower), "hw 11, sync 11", "a sync tells it all");
    follower.written(Offset(12));
    assert_eq!(effects(&mut follower), "hw 12", "one sync at a time");
    follower.durable(Offset(11));
    assert_eq!(effects(&mut follower), format!("sync 12, has 12/11 credit {}", 2 * size));
    follower.records(now(0), Records { log_start: Offset(3), ..records(EPOCH, 12, Vec::new()) });
    assert_eq!(effects(&mut follower), "trim 3");
    follower.set_durability(Durability::Replicated);
    effects(&mut follower);
    follower.records(now(0), records(EPOCH, 12, vec![batch(12, 4)]));
    follower.written(Offset(13));
    let told = format!("append 12, has 13/11 credit {}", 3 * size);
    assert_eq!(effects(&mut follower), told, "to be written is all that counts, whatever is being synced");
}

#[test]
fn a_leader_never_runs_out_of_credit_while_a_sync_takes_its_time() {
    let mut follower = follower(false);
    effects(&mut follower);
    follower.attached(now(0), Attached::Stream { epoch: EPOCH, high_watermark: Offset(10) });
    let value = vec![7; CREDIT_NEWS_BYTES as usize];
    let mut builder = Builder::new(Timestamp(1));
    builder.push(&RecordOut { value: Some(&value), ..RecordOut::default() });
    let mut large = builder.build();
    (large.header.base_offset, large.header.leader_epoch) = (Offset(11), LeaderEpoch(4));
    large.header.crc = large.header.checksum(&large.records);
    let size = batch(10, 4).header.size_bytes() + large.header.size_bytes();
    follower.records(now(0), records(EPOCH, 10, vec![batch(10, 4), large]));
    follower.written(Offset(11));
    assert_eq!(effects(&mut follower), "hw 10, has 10/10 credit 0, append 10, append 11, sync 11");
    follower.written(Offset(12));
    assert_eq!(effects(&mut follower), format!("has 12/10 credit {size}"));
}

/// One that is to be throttled, with the watermark of the leader that it streams from.
fn throttled(high_watermark: i64) -> Follower {
    let mut follower = Follower::new(recovered(), EPOCH, Durability::Fsync, None);
    follower.set_throttled(true);
    follower.session_up();
    assert_eq!(follower.credit_bytes, 0, "whether it lacks anything the leader tells it first");
    follower.attached(now(0), Attached::Stream { epoch: EPOCH, high_watermark: Offset(high_watermark) });
    follower
}

#[test]
fn a_throttled_follower_gives_credit_as_it_is_granted_while_it_lacks_what_is_committed() {
    let mut follower = throttled(12);
    effects(&mut follower);
    assert_eq!(follower.credit_wanted(now(0).monotonic), Some(CREDIT_BYTES));
    follower.hold(now(500).monotonic);
    assert_eq!(follower.credit_wanted(now(499).monotonic), None);
    assert_eq!(follower.deadline(), Some(now(500).monotonic));
    follower.tick(now(500));
    assert_eq!(follower.phase(), Phase::Streaming, "it was about credit only");
    assert_eq!(follower.credit_wanted(now(500).monotonic), Some(CREDIT_BYTES));
    assert_eq!(follower.deadline(), None, "and it is asked for once");
    follower.grant(100);
    assert_eq!(effects(&mut follower), format!("has 10/10 credit {}", 100 - CREDIT_BYTES as i64));
    follower.records(now(0), records(EPOCH, 12, vec![batch(10, 4)]));
    follower.written(Offset(11));
    follower.durable(Offset(11));
    let told = format!("has 11/11 credit {}", 100 - CREDIT_BYTES as i64);
    assert!(effects(&mut follower).ends_with(&told), "what is written gives nothing back by itself");
    follower.records(now(0), records(EPOCH, 12, vec![batch(11, 4)]));
    assert_eq!(follower.credit_wanted(now(0).monotonic), None, "it lacks nothing that is committed any more");
    follower.written(Offset(12));
    follower.durable(Offset(12));
    let size = 2 * batch(10, 4).header.size_bytes();
    assert!(effects(&mut follower).ends_with(&format!("has 12/12 credit {size}")), "a window, as everybody");
}

#[test]
fn a_follower_that_has_all_that_is_committed_is_not_held_back_and_none_is_that_is_throttled_no_more() {
    let mut follower = throttled(10);
    assert_eq!(effects(&mut follower), "attach at 10, hw 10, has 10/10 credit 0");
    assert_eq!(follower.credit_wanted(now(0).monotonic), None);
    let mut follower = throttled(12);
    effects(&mut follower);
    follower.hold(now(500).monotonic);
    follower.set_throttled(false);
    assert_eq!(effects(&mut follower), "has 10/10 credit 0");
    assert_eq!(follower.deadline(), None);
}

#[test]
fn a_log_that_takes_no_more_shows_no_more_and_its_watermark_does_not_fall() {
    let mut follower = follower(false);
    effects(&mut follower);
    follower.attached(now(0), Attached::Stream { epoch: EPOCH, high_watermark: Offset(10) });
    follower.records(now(0), records(EPOCH, 12, vec![batch(10, 4), batch(11, 4)]));
    assert_eq!(effects(&mut follower), "hw 10, has 10/10 credit 0, append 10, append 11");
    follower.refused(now(0), Offset(10));
    assert_eq!(effects(&mut follower), "cut 10");
    follower.cut(recovered());
    assert_eq!(follower.high_watermark(), Offset(10), "of what the log never took nothing was shown");
    assert_eq!(follower.deadline(), Some(now(0).monotonic + TRY_AGAIN));
}

#[test]
fn what_is_written_while_the_log_is_cut_is_synced_when_that_is_over() {
    let mut follower = follower(false);
    follower.attached(now(0), Attached::Stream { epoch: EPOCH, high_watermark: Offset(10) });
    follower.records(now(0), records(EPOCH, 12, vec![batch(10, 4)]));
    follower.refused(now(0), Offset(11));
    effects(&mut follower);
    follower.written(Offset(11));
    assert_eq!(effects(&mut follower), "hw 11", "it is being cut");
    let mut again = recovered();
    (again.log.end, again.log.written_end) = (Offset(11), Offset(11));
    follower.cut(again);
    assert_eq!(effects(&mut follower), "sync 11", "nothing more may come that would have it synced");
}

#[test]
fn what_the_leader_does_not_have_is_cut_and_asked_about_again() {
    let mut follower = follower(false);
    effects(&mut follower);
    let diverged = |last, end| Attached::Diverged { epoch: EPOCH, last_epoch: LeaderEpoch(last), end: Offset(end) };
    follower.attached(now(0), diverged(1, 9));
    assert_eq!(effects(&mut follower), "cut 6", "of that epoch there is less here than there");
    follower.records(now(0), records(EPOCH, 9, vec![batch(10, 4)]));
    follower.session_down();
    follower.session_up();
    assert_eq!(effects(&mut follower), "", "the cut goes on alone");
    let epochs = Epochs::from_starts([(LeaderEpoch(1), Offset(0))]);
    let end = Offset(6);
    let log = LogState { end, written_end: end, durable_end: end, ..LogState::default() };
    follower.cut(Recovered {
        checkpoint: Checkpoint { upto: end, high_watermark: Offset(4), epochs, ..Checkpoint::default() },
        log,
        agreed_epoch: None,
    });
    assert_eq!(effects(&mut follower), "attach at 6");
    follower.attached(now(0), Attached::Reset { epoch: EPOCH, start: Offset(20), known: Bytes::new() });
    assert_eq!(effects(&mut follower), "reset 20");
}

#[test]
fn what_a_log_failed_to_cut_is_neither_written_nor_durable_for_the_next_epoch() {
    let mut follower = follower(false);
    follower.attached(now(0), Attached::Diverged { epoch: EPOCH, last_epoch: LeaderEpoch(1), end: Offset(9) });
    follower.fail();
    // What was under way before the cut is heard of before it.
    follower.durable(Offset(10));
    let next = follower.into_recovered();
    assert_eq!((next.log.end, next.log.written_end, next.log.durable_end), (Offset(10), Offset(6), Offset(6)));
    assert_eq!(next.checkpoint.high_watermark, Offset(4));
}

#[test]
fn what_was_committed_is_not_cut_unless_the_election_was_unclean() {
    let below = Attached::Diverged { epoch: EPOCH, last_epoch: LeaderEpoch(1), end: Offset(3) };
    let mut kept = follower(false);
    effects(&mut kept);
    kept.attached(now(0), below.clone());
    let why = "the leader does not have records from 3 on, which were committed below 4";
    assert_eq!(effects(&mut kept), format!("offline: {why}"));
    kept.session_down();
    kept.session_up();
    assert_eq!((effects(&mut kept), kept.deadline()), (String::new(), None), "until somebody decides");
    let mut allowed = follower(true);
    effects(&mut allowed);
    allowed.attached(now(0), below);
    assert_eq!(effects(&mut allowed), "cut 3");
}

#[test]
fn after_an_unclean_election_it_is_the_leader_who_says_what_is_committed() {
    let streams = Attached::Stream { epoch: EPOCH, high_watermark: Offset(2) };
    let mut clean = follower(false);
    clean.attached(now(0), streams.clone());
    assert_eq!(clean.high_watermark(), Offset(4), "what was committed stays so");
    let mut unclean = follower(true);
    unclean.attached(now(0), streams);
    assert_eq!(unclean.high_watermark(), Offset(2), "it may have been given up and come back");
    unclean.session_down();
    unclean.session_up();
    unclean.attached(now(0), Attached::Stream { epoch: EPOCH, high_watermark: Offset(1) });
    assert_eq!(unclean.high_watermark(), Offset(2), "of one leader it only rises");
}

#[test]
fn what_was_committed_after_an_unclean_election_is_so_for_later_leaders_too() {
    let mut follower = follower(true);
    follower.attached(now(0), Attached::Stream { epoch: EPOCH, high_watermark: Offset(4) });
    // It has nothing of the epoch that it agreed in, and the next leader, elected in order, knows less of what is committed.
    let next = LeaderEpoch(EPOCH.0 + 1);
    let mut follower = Follower::new(follower.into_recovered(), next, Durability::Fsync, Some(EPOCH));
    follower.session_up();
    effects(&mut follower);
    follower.attached(now(0), Attached::Stream { epoch: next, high_watermark: Offset(2) });
    assert_eq!(follower.high_watermark(), Offset(4));
    follower.session_down();
    follower.session_up();
    effects(&mut follower);
    follower.attached(now(0), Attached::Diverged { epoch: next, last_epoch: LeaderEpoch(1), end: Offset(3) });
    let why = "the leader does not have records from 3 on, which were committed below 4";
    assert_eq!(effects(&mut follower), format!("offline: {why}"));
}

#[test]
fn a_log_that_begins_behind_what_the_leader_has_begins_anew_there() {
    let mut recovered = recovered();
    recovered.log.start = Offset(5);
    recovered.checkpoint.high_watermark = Offset(5);
    let mut follower = Follower::new(recovered, EPOCH, Durability::Fsync, Some(EPOCH));
    follower.session_up();
    effects(&mut follower);
    follower.attached(now(0), Attached::Diverged { epoch: EPOCH, last_epoch: LeaderEpoch(1), end: Offset(3) });
    assert_eq!(effects(&mut follower), "reset 3", "it cannot be cut to before its start");
}

#[test]
fn a_log_whose_records_are_dropped_begins_anew_where_the_leader_knows_nothing_of_their_epoch() {
    let mut recovered = recovered();
    (recovered.log.start, recovered.checkpoint.high_watermark) = (Offset(10), Offset(10));
    recovered.checkpoint.epochs.truncate_prefix(Offset(10));
    for (end, anew) in [(7, "reset 7"), (12, "reset 10")] {
        let mut follower = Follower::new(recovered.clone(), EPOCH, Durability::Fsync, Some(EPOCH));
        follower.session_up();
        effects(&mut follower);
        follower.attached(now(0), Attached::Diverged { epoch: EPOCH, last_epoch: LeaderEpoch(1), end: Offset(end) });
        assert_eq!(effects(&mut follower), anew, "it would ask again and again");
    }
}

#[test]
fn no_log_begins_before_the_first_offset() {
    let (epoch, before) = (EPOCH, Offset(-3));
    for nonsense in [
        Attached::Reset { epoch, start: before, known: Bytes::new() },
        Attached::Diverged { epoch, last_epoch: LeaderEpoch(1), end: before },
    ] {
        let mut follower = follower(true);
        effects(&mut follower);
        follower.attached(now(0), nonsense.clone());
        assert_eq!(effects(&mut follower), "");
        assert_eq!(follower.deadline(), Some(now(0).monotonic + ASK_AGAIN), "{nonsense:?}");
    }
}

#[test]
fn what_belongs_to_another_epoch_or_does_not_follow_is_never_appended() {
    let stream = Attached::Stream { epoch: EPOCH, high_watermark: Offset(4) };
    let mut damaged = batch(10, 4);
    damaged.header.crc ^= 1;
    let of = |records: i32, epoch: i32| {
        let mut batch = batch(10, epoch);
        batch.header.last_offset_delta = records - 1;
        batch.header.crc = batch.header.checksum(&batch.records);
        batch
    };
    let odd = [of(0, 4), of(-7, 4), of(i32::MIN + 1, 4), of(1, -1)];
    for wrong in [batch(11, 4), batch(9, 4), batch(10, 1), batch(10, 5), damaged].into_iter().chain(odd) {
        let mut follower = follower(false);
        follower.attached(now(0), stream.clone());
        effects(&mut follower);
        follower.records(now(0), records(EPOCH, 4, vec![wrong]));
        assert_eq!(effects(&mut follower), "");
        assert_eq!(follower.deadline(), Some(now(0).monotonic + ASK_AGAIN));
        assert_eq!(follower.log_end(), Offset(10), "its end does not go back");
        follower.tick(now(ASK_AGAIN.as_millis() as u64));
        assert_eq!(effects(&mut follower), "attach at 10");
    }
    let mut empty = Follower::new(Recovered::empty(LogState::default()), EPOCH, Durability::Fsync, None);
    empty.session_up();
    empty.attached(now(0), Attached::Stream { epoch: EPOCH, high_watermark: Offset(0) });
    effects(&mut empty);
    empty.records(now(0), records(EPOCH, 0, vec![batch(0, -1)]));
    assert_eq!(effects(&mut empty), "", "of no epoch");
    let mut follower = follower(false);
    effects(&mut follower);
    follower.records(now(0), records(EPOCH, 4, vec![batch(10, 4)]));
    assert_eq!(effects(&mut follower), "", "nothing was agreed on yet");
    follower.attached(now(0), Attached::Stream { epoch: LeaderEpoch(3), high_watermark: Offset(9) });
    follower.records(now(0), records(EPOCH, 4, vec![batch(10, 4)]));
    assert_eq!(effects(&mut follower), "", "an answer of another epoch agrees on nothing");
}
