//! Many groups and many commits: what a coordinator's log comes to, and how long it takes to come back.
//!
//! Five million commits in the time of a coffee need optimised code:
//!
//! ```text
//! cargo test --release -p chronik-core --test many_commits -- --ignored --nocapture
//! ```

use chronik_core::group::offsets::{Commit, OffsetToCommit};
use chronik_core::group::records::{CommittedOffset, RawRecord, StoredGroup};
use chronik_core::group::{Coordinator, Effect, Reply, Settings, snapshot};
use chronik_core::ids::{Offset, TopicId};
use chronik_core::time::{Monotonic, Now, Timestamp};
use std::collections::VecDeque;
use std::time::Duration;

const GROUPS: i64 = 10_000;
const TOPIC_ID: TopicId = TopicId([7; 16]);

fn settings() -> Settings {
    Settings {
        session_timeout_ms_min: 6_000,
        session_timeout_ms_max: 1_800_000,
        initial_rebalance_delay: Duration::from_secs(3),
        group_members_max: 3,
        groups_max: 100_000,
        offset_metadata_bytes_max: 8,
        offsets_retention_ms: 1_000_000,
        snapshot: snapshot::Settings::default(),
    }
}

/// What a coordinator holds of a partition in a group.
type Held<'a> = (&'a str, &'a str, i32, &'a CommittedOffset);

fn offsets(coordinator: &Coordinator<u64>) -> impl Iterator<Item = Held<'_>> {
    coordinator.groups().flat_map(|(id, group)| {
        group.offsets.iter().map(move |(topic, partition, committed)| (id, topic, partition, committed))
    })
}

fn generations(coordinator: &Coordinator<u64>) -> impl Iterator<Item = (&str, &StoredGroup)> {
    coordinator.groups().filter_map(|(id, group)| Some((id, group.stored.as_ref()?)))
}

/// A coordinator that reads the log back.
fn rebuild(records: &[RawRecord]) -> Coordinator<u64> {
    let mut coordinator = Coordinator::new(settings());
    for (key, value) in records {
        coordinator.replay(key.clone(), value.clone()).expect("our own records can be read");
    }
    coordinator.loaded(Now::default(), |_, _| false);
    coordinator
}

/// Commits of many groups in turn, a hundred of them on their way at a time. The log is kept as a broker would keep it:
/// cut when the coordinator says so. How many records it has at the end, and the coordinator.
fn commits(count: i64) -> (Vec<RawRecord>, Coordinator<u64>) {
    let mut coordinator: Coordinator<u64> = Coordinator::new(settings());
    let mut log: VecDeque<RawRecord> = VecDeque::new();
    let mut start = 0;
    let mut on_their_way: VecDeque<(u64, i64)> = VecDeque::new();
    let mut answered = 0;
    for nth in 0..count {
        let now = Now { monotonic: Monotonic(Duration::from_micros(nth as u64)), wall: Timestamp(nth / 1_000) };
        let offset = OffsetToCommit {
            topic: "events".into(),
            topic_id: TOPIC_ID,
            partition: (nth / GROUPS % 8) as i32,
            offset: nth,
            ..OffsetToCommit::default()
        };
        let group = format!("group-{}", nth % GROUPS);
        let commit = Commit { group, generation: -1, offsets: vec![offset], ..Commit::default() };
        assert!(coordinator.commit(now, commit, nth as u64).is_ok());
        let last = nth + 1 == count;
        loop {
            while let Some(effect) = coordinator.poll_effect() {
                match effect {
                    Effect::Reply { reply, .. } => answered += i64::from(reply == Reply::Stored(Ok(()))),
                    Effect::Write { ticket, records } => {
                        on_their_way.push_back((ticket, start + log.len() as i64));
                        log.extend(records);
                    }
                    Effect::Trim { upto } => {
                        log.drain(..(upto.0 - start) as usize);
                        start = upto.0;
                        coordinator.trimmed(true);
                    }
                }
            }
            if on_their_way.is_empty() || on_their_way.len() < 100 && !last {
                break;
            }
            let (ticket, at) = on_their_way.pop_front().expect("there is one");
            coordinator.committed(ticket, Offset(at), now);
        }
    }
    assert_eq!(answered, count);
    (log.into(), coordinator)
}

fn check(count: i64) {
    let began = std::time::Instant::now();
    let (log, coordinator) = commits(count);
    let decided = began.elapsed();
    let live = coordinator.live_records();
    assert_eq!(live as i64, count.min(GROUPS * 8));
    // A copy is made at four times the live bytes, and is itself as large as they are.
    assert!(log.len() <= 6 * live + 60_000, "{} records in the log for {live} live ones", log.len());
    let began = std::time::Instant::now();
    let rebuilt = rebuild(&log);
    println!(
        "{count} commits in {decided:?}; {} records in the log, {live} live; read back in {:?}",
        log.len(),
        began.elapsed()
    );
    assert!(offsets(&rebuilt).eq(offsets(&coordinator)), "what was read back differs");
    assert!(generations(&rebuilt).eq(generations(&coordinator)), "what was read back differs");
}

#[test]
fn a_hundred_thousand_commits_of_ten_thousand_groups_leave_a_short_log() {
    check(100_000);
}

#[test]
#[ignore = "needs optimised code: cargo test --release -p chronik-core --test many_commits -- --ignored --nocapture"]
fn five_million_commits_leave_a_short_log() {
    check(5_000_000);
}
