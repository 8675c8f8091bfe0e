//! Stories of a leader's followers.

use super::*;
use crate::partition::stream::{GATHER_BYTES, GATHER_MAX, NEWS_ALONE_EVERY, News};
use std::sync::LazyLock;

const ME: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);
const EPOCH: LeaderEpoch = LeaderEpoch(4);

fn set(nodes: &[NodeId]) -> BTreeSet<NodeId> {
    nodes.iter().copied().collect()
}

fn at(ms: u64) -> Monotonic {
    Monotonic(Duration::from_millis(ms))
}

fn membership(in_sync: &[NodeId], in_sync_min: usize) -> Membership {
    versioned(in_sync, in_sync_min, 1)
}

fn versioned(in_sync: &[NodeId], in_sync_min: usize, partition_epoch: i32) -> Membership {
    Membership { replicas: set(&[ME, B, C]), in_sync: set(in_sync), in_sync_min, partition_epoch }
}

/// The leader's log: epochs 1 from 0 and 4 from 10, ending at 20.
fn epochs() -> Epochs {
    Epochs::from_starts([(LeaderEpoch(1), Offset(0)), (EPOCH, Offset(10))])
}

static NOBODY: LazyLock<Producers> = LazyLock::new(Producers::default);

fn log(epochs: &Epochs) -> LeaderLog<'_> {
    LeaderLog { epochs, producers: &NOBODY, start: Offset(5), end: Offset(20), high_watermark: Offset(12) }
}

fn attach(log_end: i64, last_epoch: Option<i32>) -> Attach {
    let last_epoch = last_epoch.map(LeaderEpoch);
    Attach { epoch: EPOCH, log_start: Offset(0), log_end: Offset(log_end), last_epoch, credit_bytes: 100 }
}

fn progress(written: i64, durable: i64) -> Progress {
    let (written_end, durable_end) = (Offset(written), Offset(durable));
    Progress { epoch: EPOCH, log_start: Offset(0), written_end, durable_end, credit_bytes: 100 }
}

fn source(log_end: i64, news: News) -> Source {
    Source { log_end: Offset(log_end), news, is_awaited: false }
}

fn replicas(in_sync: &[NodeId], in_sync_min: usize) -> Replicas {
    Replicas::new(ME, EPOCH, Offset(10), Duration::from_secs(1), membership(in_sync, in_sync_min), at(0))
}

#[test]
fn a_follower_is_told_where_the_logs_part() {
    let epochs = epochs();
    let mut replicas = replicas(&[ME, B], 1);
    let mut told = |attach| replicas.attach(at(0), B, attach, log(&epochs));
    let stream = Attached::Stream { epoch: EPOCH, high_watermark: Offset(12) };
    assert_eq!(told(attach(20, Some(4))), stream.clone());
    assert_eq!(told(attach(10, Some(1))), stream.clone(), "all of an earlier epoch, and no more");
    assert_eq!(told(attach(7, None)), stream, "a log that was reset and has no records yet");
    let diverged = |last, end| Attached::Diverged { epoch: EPOCH, last_epoch: LeaderEpoch(last), end: Offset(end) };
    assert_eq!(told(attach(11, Some(1))), diverged(1, 10), "more of an earlier epoch than there was");
    assert_eq!(told(attach(21, Some(4))), diverged(4, 20));
    assert_eq!(told(attach(15, Some(3))), diverged(1, 10), "an epoch that the leader never saw");
    let known = Checkpoint { upto: Offset(5), ..Checkpoint::default() }.encode();
    let reset = Attached::Reset { epoch: EPOCH, start: Offset(5), known: known.into() };
    assert_eq!(told(attach(4, Some(1))), reset.clone(), "what follows is deleted");
    assert_eq!(told(attach(15, Some(0))), reset, "older than everything that is known");
    assert_eq!(told(Attach { epoch: LeaderEpoch(3), ..attach(20, Some(4)) }), Attached::Fenced { current: EPOCH });
    assert_eq!(told(Attach { epoch: LeaderEpoch(5), ..attach(20, Some(4)) }), Attached::NotYet { epoch: EPOCH });
    let stranger = replicas.attach(at(0), NodeId(9), attach(20, Some(4)), log(&epochs));
    assert_eq!(stranger, Attached::NotYet { epoch: EPOCH });
}

#[test]
fn whoever_may_be_in_the_set_counts_until_a_record_decides() {
    let epochs = epochs();
    let mut replicas = replicas(&[ME, B], 1);
    for (node, end) in [(B, 20), (C, 14)] {
        replicas.attach(at(0), node, attach(end, Some(4)), log(&epochs));
        replicas.progress(at(0), node, progress(end, end - 1), Offset(20));
    }
    let committed = |replicas: &Replicas, durability| replicas.committed(durability, Offset(20)).map(|end| end.0);
    assert_eq!(committed(&replicas, Durability::Fsync), Some(19));
    assert_eq!(committed(&replicas, Durability::Replicated), Some(20));
    let wanted = replicas.wanted_in_sync(at(0), log(&epochs), Durability::Fsync);
    assert_eq!(wanted, Some(set(&[ME, B, C])), "C has all that is committed, and a part in this epoch");
    replicas.ask(set(&[ME, B, C]));
    assert_eq!(committed(&replicas, Durability::Fsync), Some(13), "C may be elected as soon as the record is there");
    assert_eq!(replicas.wanted_in_sync(at(0), log(&epochs), Durability::Fsync), None, "one question at a time");
    replicas.applied(membership(&[ME, B], 1), at(0));
    assert_eq!(committed(&replicas, Durability::Fsync), Some(13), "something else has changed; that is no answer");
    replicas.applied(versioned(&[ME, B], 1, 2), at(0));
    assert_eq!(committed(&replicas, Durability::Fsync), Some(19), "it is about a state that is no more");
    let question = replicas.ask(set(&[ME, B, C]));
    replicas.refused(&InSyncQuestion { partition_epoch: 1, ..question.clone() });
    assert_eq!(committed(&replicas, Durability::Fsync), Some(13), "an answer to an earlier question");
    replicas.refused(&question);
    assert_eq!(committed(&replicas, Durability::Fsync), Some(19), "refused");
    replicas.ask(set(&[ME]));
    assert_eq!(committed(&replicas, Durability::Fsync), Some(19), "and who is to go counts until it is out");
    replicas.applied(versioned(&[ME], 1, 3), at(0));
    assert_eq!(committed(&replicas, Durability::Fsync), Some(20));
    replicas.applied(versioned(&[ME], 2, 4), at(0));
    assert_eq!(committed(&replicas, Durability::Fsync), None, "too few");
}

#[test]
fn who_lags_too_long_goes_and_who_is_quiet_with_everything_stays() {
    let epochs = epochs();
    let mut replicas = replicas(&[ME, B, C], 1);
    for (node, end) in [(B, 20), (C, 14)] {
        replicas.attach(at(0), node, attach(end, Some(4)), log(&epochs));
        replicas.progress(at(0), node, progress(end, end), Offset(20));
    }
    let wanted = |replicas: &Replicas, ms| replicas.wanted_in_sync(at(ms), log(&epochs), Durability::Fsync);
    assert_eq!(wanted(&replicas, 1_000), None);
    assert_eq!(wanted(&replicas, 1_001), Some(set(&[ME, B])));
    replicas.session_down(B);
    assert_eq!(wanted(&replicas, 1_001), Some(set(&[ME])), "without a session nobody knows what it has");
}

#[test]
fn a_follower_joins_only_with_a_part_in_this_epoch() {
    let epochs = epochs();
    let mut replicas = replicas(&[ME], 1);
    let log = LeaderLog { high_watermark: Offset(8), ..log(&epochs) };
    replicas.attach(at(0), B, attach(9, Some(1)), log);
    replicas.progress(at(0), B, progress(9, 9), Offset(20));
    assert_eq!(
        replicas.wanted_in_sync(at(0), log, Durability::Fsync),
        None,
        "past the watermark, not yet in the epoch"
    );
    replicas.sent(at(0), B, Offset(10), 50, source(20, News::default()));
    replicas.progress(at(0), B, progress(10, 10), Offset(20));
    assert_eq!(replicas.wanted_in_sync(at(0), log, Durability::Fsync), Some(set(&[ME, B])));
}

#[test]
fn no_more_is_sent_than_there_is_credit_for_but_news_always_are() {
    let epochs = epochs();
    let mut replicas = replicas(&[ME, B], 1);
    let news = News { high_watermark: Offset(12), log_start: Offset(0) };
    replicas.attach(at(0), B, attach(15, Some(4)), log(&epochs));
    let due = |replicas: &Replicas, news| replicas.due(at(1), B, source(20, news));
    assert_eq!(due(&replicas, news), Some(Due { from: Offset(15), bytes_max: 100 }));
    replicas.sent(at(1), B, Offset(17), 130, source(20, news));
    assert_eq!(due(&replicas, news), None, "no credit");
    let later = News { high_watermark: Offset(15), ..news };
    assert_eq!(due(&replicas, later), Some(Due { from: Offset(17), bytes_max: 0 }));
    replicas.sent(at(1), B, Offset(17), 0, source(20, later));
    replicas.progress(at(0), B, Progress { credit_bytes: 150, ..progress(17, 17) }, Offset(20));
    assert_eq!(due(&replicas, later), Some(Due { from: Offset(17), bytes_max: 20 }));
    replicas.session_down(B);
    assert_eq!(due(&replicas, news), None);
}

#[test]
fn who_is_held_gets_news_and_no_records_until_its_time_or_until_it_counts() {
    let epochs = epochs();
    let mut replicas = replicas(&[ME, C], 1);
    for node in [B, C] {
        replicas.attach(at(0), node, attach(15, Some(4)), log(&epochs));
    }
    let news = |to| News { high_watermark: Offset(to), log_start: Offset(0) };
    let due = |replicas: &Replicas, ms, node| replicas.due(at(ms), node, source(20, news(12)));
    let records = Some(Due { from: Offset(15), bytes_max: 100 });
    replicas.sent(at(0), B, Offset(15), 0, source(20, news(12)));
    replicas.sent(at(0), C, Offset(15), 0, source(20, news(12)));
    replicas.hold(B, at(500));
    replicas.hold(C, at(500));
    assert!(replicas.is_catching_up(B) && !replicas.is_catching_up(C));
    assert_eq!(due(&replicas, 499, C), records, "others wait for what it lacks");
    assert_eq!(due(&replicas, 499, B), None);
    assert_eq!(replicas.due_at(source(20, news(12)), |node| node == C), Some(at(500)));
    assert_eq!(replicas.due_at(source(15, news(12)), |_| false), None, "there is nothing to be sent then");
    let told = replicas.due(at(499), B, source(20, news(13)));
    assert_eq!(told, Some(Due { from: Offset(15), bytes_max: 0 }), "it hears of the watermark");
    assert_eq!(due(&replicas, 500, B), records);
    replicas.hold(B, at(1_000));
    replicas.ask(set(&[ME, B, C]));
    assert_eq!(due(&replicas, 501, B), records, "it may be elected: the watermark waits for it");
    replicas.applied(versioned(&[ME, C], 1, 2), at(501));
    assert_eq!(due(&replicas, 501, B), None);
    replicas.release();
    assert_eq!(due(&replicas, 501, B), records);
}

#[test]
fn news_that_follow_each_other_closely_are_told_once_or_with_the_next_records() {
    let epochs = epochs();
    let mut replicas = replicas(&[ME, B], 1);
    replicas.attach(at(0), B, attach(20, Some(4)), log(&epochs));
    let news = |to| News { high_watermark: Offset(to), log_start: Offset(0) };
    let alone = Some(Due { from: Offset(20), bytes_max: 0 });
    assert_eq!(replicas.due(at(7), B, source(20, news(13))), alone, "the first at once");
    replicas.sent(at(7), B, Offset(20), 0, source(20, news(13)));
    assert_eq!(replicas.due_at(source(20, news(13)), |_| false), None, "nothing is new");
    assert_eq!(replicas.due(at(8), B, source(20, news(14))), None);
    assert_eq!(replicas.due_at(source(20, news(14)), |_| false), Some(at(7) + NEWS_ALONE_EVERY));
    assert_eq!(replicas.due_at(source(20, news(14)), |to| to == B), None, "its next message tells it");
    let with_records = Some(Due { from: Offset(20), bytes_max: 100 });
    assert_eq!(replicas.due(at(9), B, source(21, news(14))), with_records, "records do not wait for them");
    replicas.sent(at(9), B, Offset(21), 50, source(21, news(14)));
    let last = Some(Due { from: Offset(21), bytes_max: 0 });
    assert_eq!(replicas.due(at(7) + NEWS_ALONE_EVERY, B, source(21, news(15))), last, "and nothing is left untold");
}

#[test]
fn what_comes_while_little_is_on_its_way_goes_together_when_that_is_answered_or_after_a_while_or_when_it_is_much() {
    let epochs = epochs();
    let mut replicas = replicas(&[ME, B], 1);
    let attached = Attach { credit_bytes: 1 << 20, ..attach(20, Some(4)) };
    replicas.attach(at(0), B, attached, log(&epochs));
    let news = News { high_watermark: Offset(12), log_start: Offset(0) };
    replicas.sent(at(0), B, Offset(20), 0, source(20, news));
    let answer = |to| Progress { credit_bytes: 1 << 20, ..progress(to, to) };
    let from = |due: Option<Due>| due.filter(|due| due.bytes_max > 0).map(|due| due.from.0);
    replicas.ordered(100);
    assert_eq!(from(replicas.due(at(1), B, source(21, news))), Some(20), "nothing is on its way");
    replicas.sent(at(1), B, Offset(21), 100, source(21, news));
    assert_eq!(replicas.due_at(source(21, news), |_| false), None, "there is nothing to be sent");
    replicas.ordered(100);
    let later = News { high_watermark: Offset(20), ..news };
    assert_eq!(replicas.due(at(1), B, source(22, later)), None, "the records will tell the news, too");
    assert_eq!(replicas.due_at(source(22, later), |_| false), Some(at(1) + GATHER_MAX));
    let awaited = Source { is_awaited: true, ..source(22, later) };
    assert_eq!(from(replicas.due(at(1), B, awaited)), Some(21), "a producer waits for it");
    assert_eq!(from(replicas.due(at(1) + GATHER_MAX, B, source(22, news))), Some(21), "it takes its time");
    replicas.ordered(100);
    replicas.progress(at(2), B, answer(21), Offset(23));
    assert_eq!(from(replicas.due(at(2), B, source(23, news))), Some(21), "it has answered");
    replicas.sent(at(2), B, Offset(23), 200, source(23, news));
    replicas.ordered(GATHER_BYTES - 1);
    assert_eq!(replicas.due(at(2), B, source(24, news)), None);
    replicas.ordered(1);
    assert_eq!(from(replicas.due(at(2), B, source(25, news))), Some(23), "that is much");
    replicas.sent(at(2), B, Offset(24), GATHER_BYTES - 1, source(25, news));
    assert_eq!(replicas.due(at(2), B, source(25, news)), None, "what is left is little");
}

#[test]
fn who_lacks_much_is_sent_it_without_waiting_for_answers_and_who_may_be_sent_nothing_is_not_looked_at() {
    let epochs = epochs();
    let mut replicas = replicas(&[ME, B], 1);
    replicas.attach(at(0), B, attach(15, Some(4)), log(&epochs));
    let news = News { high_watermark: Offset(12), log_start: Offset(0) };
    replicas.sent(at(0), B, Offset(17), 60, source(20, news));
    assert_eq!(replicas.due(at(0), B, source(20, news)), Some(Due { from: Offset(17), bytes_max: 40 }));
    replicas.sent(at(0), B, Offset(20), 60, source(20, news));
    replicas.ordered(100);
    assert_eq!(replicas.due(at(9), B, source(21, news)), None, "no credit");
    assert_eq!(replicas.due_at(source(21, news), |_| false), None, "and time does not give any");
}
