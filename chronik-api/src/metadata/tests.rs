//! The metadata log over an engine in memory: restarts, bursts, crashes between any two runs, and a log that fails.

use super::log::METADATA_LOG;
use super::{Applied, MetadataLog, OpenError, Options, ProducerIds, ProposeError, random};
use crate::clock::Clock;
use crate::partitions::failing::{FailingEngine, Failures};
use async_trait::async_trait;
use chronik_core::ids::{NodeId, Offset, TopicId};
use chronik_core::metadata::controller::{self, CreateTopicError, NewTopic, TopicRef};
use chronik_core::metadata::{Change, ClusterDefaults, Delta, Image};
use chronik_core::pending::Pending;
use chronik_core::time::Timestamp;
use chronik_core::wal::*;
use chronik_storage_memory::MemoryEngine;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

fn engine() -> Arc<dyn WalEngine> {
    Arc::new(MemoryEngine::new(256 << 20))
}

async fn open_with(engine: &dyn WalEngine, snapshot_after_facts: u64) -> MetadataLog {
    let options = Options { snapshot_after_facts, ..Options::new(NodeId(1), ClusterDefaults::default()) };
    MetadataLog::open(engine, options, Clock::start()).await.expect("the log opens")
}

async fn open(engine: &dyn WalEngine) -> MetadataLog {
    open_with(engine, 10_000).await
}

async fn register(log: &MetadataLog) -> Offset {
    log.register(None, Vec::new(), true, Vec::new()).await.expect("registered")
}

async fn create(log: &MetadataLog, topic: NewTopic) -> Result<TopicId, CreateTopicError> {
    let reply = log
        .propose_sure::<_, std::convert::Infallible>(move |image| {
            controller::create_topics(image, &[topic], random::topic_id)
        })
        .await
        .expect("the log works");
    reply.into_iter().next().expect("one answer for one topic").1.map(|created| created.id)
}

fn named(name: &str) -> NewTopic {
    NewTopic::with_defaults(name)
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let engine = engine();
    let log = open(&*engine).await;
    let first_epoch = register(&log).await;
    let id = create(&log, NewTopic { partitions: 3, ..named("orders") }).await.expect("created");
    let before = log.image();
    assert_eq!(before.cluster_id().len(), 22);
    log.close().await;

    let log = open(&*engine).await;
    assert_eq!(*log.image(), *before, "replay gives the image that was there");
    assert!(register(&log).await > first_epoch);
    let image = log.image();
    assert_eq!(image.cluster_id(), before.cluster_id());
    assert!(image.features_epoch() >= before.features_epoch());
    for partition in &image.topic_by_id(id).expect("there").partitions {
        assert_eq!(partition.leader_epoch.0, 1, "a new start is a new epoch of what it leads");
    }
}

#[tokio::test]
async fn a_directory_belongs_to_one_node() {
    let engine = engine();
    let log = open(&*engine).await;
    register(&log).await;
    let directory = log.directory_id();
    log.close().await;
    let other = Options::new(NodeId(2), ClusterDefaults::default());
    let refused = MetadataLog::open(&*engine, other, Clock::start()).await.err().expect("refused");
    assert!(matches!(refused, OpenError::OtherNode { owner: NodeId(1), configured: NodeId(2) }), "{refused}");
    assert_eq!(open(&*engine).await.directory_id(), directory);
}

#[tokio::test]
async fn a_burst_of_proposals_sees_itself_in_order() {
    let engine = engine();
    let log = open(&*engine).await;
    register(&log).await;
    let mut asked = tokio::task::JoinSet::new();
    for number in 0..200 {
        let log = log.clone();
        // Every name twice: exactly one of the two may win.
        asked.spawn(async move { create(&log, named(&format!("topic-{}", number % 100))).await });
    }
    let outcomes = asked.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 100);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(_) | Err(CreateTopicError::Exists(_)))));
    assert_eq!(log.image().topics_count(), 100);
}

/// Remembers what it heard, and whether the change was published already.
struct Hearer {
    heard: Mutex<Vec<Change>>,
    log: MetadataLog,
    published_early: AtomicBool,
}

#[async_trait]
impl Applied for Hearer {
    async fn begin(&self, image: &Arc<Image>) {
        assert_eq!(image.topics_count(), 0, "what there is comes before what changes");
    }

    async fn applied(&self, image: &Arc<Image>, delta: &Delta) {
        tokio::task::yield_now().await;
        if self.log.image().position() >= image.position() {
            self.published_early.store(true, Ordering::Relaxed);
        }
        self.heard.lock().expect("no one panics here").extend(delta.changes.iter().cloned());
    }
}

#[tokio::test]
async fn listeners_have_acted_before_the_answer_comes_and_before_anyone_sees_the_change() {
    let engine = engine();
    let log = open(&*engine).await;
    register(&log).await;
    let hearer =
        Arc::new(Hearer { heard: Mutex::default(), log: log.clone(), published_early: AtomicBool::new(false) });
    log.listen(hearer.clone()).await.expect("the log works");
    let id = create(&log, named("t")).await.expect("created");
    let heard = hearer.heard.lock().expect("no one panics here").clone();
    assert_eq!(heard, [Change::TopicCreated(id), Change::PartitionAdded { topic: id, partition: 0 }]);
    assert!(!hearer.published_early.load(Ordering::Relaxed));
    assert!(log.image().topic("t").is_some());
}

#[tokio::test]
async fn a_proposal_happens_even_if_its_asker_goes_away() {
    let engine = engine();
    let log = open(&*engine).await;
    register(&log).await;
    let asker = log.clone();
    let mut images = log.subscribe();
    // The channel has room, so a single poll puts the proposal in; then the future is dropped.
    let mut gone = Box::pin(async move { create(&asker, named("orphan")).await });
    tokio::select! {
        biased;
        _ = &mut gone => panic!("nothing can have been written yet"),
        () = std::future::ready(()) => {}
    }
    drop(gone);
    images.wait_for(|image| image.topic("orphan").is_some()).await.expect("it comes");
}

#[tokio::test]
async fn producer_ids_survive_restarts_without_repeating() {
    let engine = engine();
    let mut given = BTreeSet::new();
    for _ in 0..3 {
        let log = open(&*engine).await;
        let ids = ProducerIds::new(log.clone(), None);
        for _ in 0..1_500 {
            assert!(given.insert(ids.next().await.expect("there are many")), "given out twice");
        }
        log.close().await;
    }
}

#[tokio::test]
async fn the_log_stays_bounded_and_says_the_same() {
    let engine = engine();
    let log = open_with(&*engine, 50).await;
    register(&log).await;
    for round in 0..60 {
        create(&log, named("churn")).await.expect("created");
        let gone = TopicRef { name: Some("churn".into()), id: TopicId::NONE };
        let deleted = log
            .propose_sure::<_, std::convert::Infallible>(move |image| controller::delete_topics(image, &[gone]))
            .await
            .expect("the log works");
        assert!(deleted[0].is_ok());
        create(&log, named(&format!("kept-{round}"))).await.expect("created");
    }
    let before = log.image();
    log.close().await;
    let wal = engine.open(METADATA_LOG, existing()).await.expect("it is there");
    let held = wal.state().end.since(wal.state().start);
    assert!(held < 500, "{held} records for an image of 60 topics");
    assert!(wal.state().start > Offset::ZERO);
    assert!(open(&*engine).await.image().says_the_same_as(&before));
}

fn existing() -> OpenOptions {
    OpenOptions { mode: OpenMode::Existing, segment_bytes: 8 << 20 }
}

/// Every run that a log holds.
async fn runs_of(wal: &dyn Wal) -> Vec<Run> {
    let LogState { start, end, last_epoch, .. } = wal.state();
    let mut runs = Vec::new();
    let mut from = start;
    while from < end {
        let range = ReadRange { from, upto: end, max_bytes: 1, min_one: true };
        let chunk = Pending::start(|done| wal.read(range, done)).await.expect("readable");
        runs.push(Run {
            base: chunk.base,
            next_offset: chunk.next_offset,
            epoch: last_epoch,
            max_timestamp: Timestamp(0),
            bytes: chunk.bytes,
        });
        from = chunk.next_offset;
    }
    runs
}

/// An engine whose metadata log holds these runs and nothing else.
async fn engine_with(runs: &[Run]) -> Arc<dyn WalEngine> {
    let engine = engine();
    let options = OpenOptions { mode: OpenMode::CreateNew, segment_bytes: 8 << 20 };
    let wal = engine.open(METADATA_LOG, options).await.expect("made");
    if let Some(first) = runs.first() {
        Pending::start(|done| wal.reset(first.base, done)).await.expect("reset");
    }
    for run in runs {
        Pending::start(|done| wal.append(run.clone(), done).expect("room")).await.expect("appended");
    }
    engine
}

#[tokio::test]
async fn a_crash_between_any_two_runs_loses_nothing_that_came_before() {
    // A log with a snapshot of several runs in its middle, as it is before its beginning is cut off.
    let engine = engine();
    let log = open(&*engine).await;
    register(&log).await;
    for number in 0..5 {
        let partitions = 9_000;
        create(&log, NewTopic { partitions, ..named(&format!("before-{number}")) }).await.expect("created");
    }
    let snapshot_of = log.image();
    log.close().await;
    let wal = engine.open(METADATA_LOG, existing()).await.expect("it is there");
    let mut runs = runs_of(&*wal).await;
    let facts = runs.len();
    runs.extend(super::runs::snapshot(&snapshot_of, Timestamp(0)));
    assert!(runs.len() > facts + 1, "the snapshot takes several runs");

    for cut in facts..=runs.len() {
        // Cut short there; then go on, and look that facts after half a snapshot are found again.
        let engine = engine_with(&runs[..cut]).await;
        let log = open(&*engine).await;
        assert!(log.image().says_the_same_as(&snapshot_of), "cut at {cut} of {}", runs.len());
        register(&log).await;
        create(&log, named("after")).await.expect("created");
        let before = log.image();
        log.close().await;
        assert_eq!(*open(&*engine).await.image(), *before, "cut at {cut}");
    }

    let whole = engine_with(&runs[facts..]).await;
    assert!(open(&*whole).await.image().says_the_same_as(&snapshot_of), "the beginning may go once it is whole");
    let half = engine_with(&runs[facts..runs.len() - 1]).await;
    let options = Options::new(NodeId(1), ClusterDefaults::default());
    let refused = MetadataLog::open(&*half, options, Clock::start()).await.err().expect("refused");
    assert!(matches!(refused, OpenError::Replay(_)), "half a snapshot alone is not believed");
}

#[tokio::test]
async fn a_full_disk_refuses_changes_and_a_failed_sync_ends_the_broker() {
    let engine = FailingEngine::over(engine());
    let Failures { syncs: fails, appends: full, .. } = &*engine.failures;
    let log = open(&engine).await;
    register(&log).await;
    let propose = |name: &'static str| {
        let log = log.clone();
        async move {
            log.propose_sure::<_, std::convert::Infallible>(move |image| {
                controller::create_topics(image, &[named(name)], random::topic_id)
            })
            .await
        }
    };
    full.store(true, Ordering::Relaxed);
    assert!(matches!(propose("refused").await, Err(ProposeError::Unavailable(Refused::Full))));
    assert!(log.image().topic("refused").is_none(), "and nothing has changed");
    full.store(false, Ordering::Relaxed);
    assert!(propose("refused").await.is_ok(), "until there is room again");

    fails.store(true, Ordering::Relaxed);
    assert!(matches!(propose("lost").await, Err(ProposeError::Stopped)));
    assert!(log.image().topic("lost").is_none(), "what is not durable is not seen");
    let words = log.failed().await;
    assert!(words.contains("on fire") && words.contains("restart"), "{words}");
    assert!(matches!(propose("later").await, Err(ProposeError::Stopped)));
}

/// What a killed process leaves behind: the files as they are, copied while the engine still holds them.
fn copy_files(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("known").is_dir() {
            std::fs::create_dir_all(&target).expect("made");
            copy_files(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_finds_in_its_files_everything_that_it_answered() {
    use chronik_storage_segment::{SegmentEngine, SegmentOptions};
    let home = tempfile::tempdir().expect("a directory");
    let engine = SegmentEngine::start(home.path().to_owned(), SegmentOptions::default()).expect("starts");
    // So few facts a snapshot that the log is cut down several times on the way.
    let log = open_with(&engine, 20).await;
    register(&log).await;
    for round in 0..30 {
        create(&log, NewTopic { partitions: 4, ..named(&format!("topic-{round}")) }).await.expect("created");
        if round % 10 == 3 {
            let killed = tempfile::tempdir().expect("a directory");
            copy_files(home.path(), killed.path());
            let after = SegmentEngine::start(killed.path().to_owned(), SegmentOptions::default()).expect("starts");
            let reopened = open_with(&after, 20).await;
            assert!(reopened.image().says_the_same_as(&log.image()), "after topic {round}");
            assert_eq!(reopened.directory_id(), log.directory_id());
            reopened.close().await;
            after.close().await.expect("closed");
        }
    }
    log.close().await;
    engine.close().await.expect("closed");
}
