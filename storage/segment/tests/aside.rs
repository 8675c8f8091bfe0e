//! What is set aside is found by a person, and by nobody else.

use bytes::Bytes;
use chronik_core::ids::{LeaderEpoch, LogId, Offset, TopicId};
use chronik_core::payload::Payload;
use chronik_core::pending::Pending;
use chronik_core::time::Timestamp;
use chronik_core::wal::{EngineError, OpenMode, OpenOptions, Run, Wal, WalEngine};
use chronik_storage_segment::{SegmentEngine, SegmentOptions};
use futures::executor::block_on;
use std::path::Path;
use std::sync::Arc;

const LOG: LogId = LogId { topic: TopicId([9; 16]), partition: 3 };
const NEW: OpenOptions = OpenOptions { mode: OpenMode::CreateNew, segment_bytes: 1 << 20 };

fn fill(log: &Arc<dyn Wal>, text: &'static str) {
    let run = Run {
        base: Offset(0),
        next_offset: Offset(1),
        epoch: LeaderEpoch(0),
        max_timestamp: Timestamp(1),
        bytes: Payload::from(Bytes::from_static(text.as_bytes())),
    };
    let appended = Pending::start(|done| log.append(run, done).expect("ordered"));
    log.write_queued();
    block_on(appended).expect("written");
    block_on(Pending::start(|done| log.sync(Offset(1), done))).expect("durable");
}

fn directories(home: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(home)
        .expect("the home")
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().expect("a name"))
        // What is being removed has a number.
        .filter(|name| !name.ends_with(".deleted"))
        .collect();
    names.sort();
    names
}

fn holds(home: &Path, directory: &str, text: &str) -> bool {
    let segment = home.join(directory).join("00000000000000000000.log");
    let bytes = std::fs::read(segment).expect("a segment");
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn a_log_that_is_set_aside_can_be_created_again_and_the_last_of_its_former_selves_is_kept() {
    let home = tempfile::tempdir().expect("a directory");
    let start = || SegmentEngine::start(home.path().to_owned(), SegmentOptions::default()).expect("starts");
    let (name, aside) = (LOG.to_string(), format!("{LOG}.damaged"));
    let engine = start();
    assert!(matches!(block_on(engine.set_aside(LOG)), Err(EngineError::NotFound(LOG))));
    for text in ["the first life", "the second life"] {
        let log = block_on(engine.open(LOG, NEW)).expect("it is new");
        fill(&log, text);
        block_on(engine.set_aside(LOG)).expect("set aside");
        assert_eq!(block_on(engine.list()).expect("a list"), []);
        assert_eq!(directories(home.path()), [&*aside]);
        assert!(holds(home.path(), &aside, text));
    }
    let log = block_on(engine.open(LOG, NEW)).expect("it is new once more");
    assert_eq!(log.state().end, Offset(0));
    fill(&log, "the third life");
    block_on(engine.close()).expect("closed");
    drop((log, engine));

    let engine = start();
    assert_eq!(block_on(engine.list()).expect("a list"), [LOG], "what is set aside is no log");
    assert_eq!(directories(home.path()), [&*name, &*aside]);
    assert!(holds(home.path(), &name, "the third life") && holds(home.path(), &aside, "the second life"));
    block_on(engine.delete(LOG)).expect("deleted");
    assert_eq!(directories(home.path()), Vec::<String>::new(), "with all that was left of it");
}

#[test]
fn deleting_a_log_that_was_only_set_aside_removes_that() {
    let home = tempfile::tempdir().expect("a directory");
    let engine = SegmentEngine::start(home.path().to_owned(), SegmentOptions::default()).expect("starts");
    let log = block_on(engine.open(LOG, NEW)).expect("it is new");
    fill(&log, "a life");
    block_on(engine.set_aside(LOG)).expect("set aside");
    assert!(matches!(block_on(engine.delete(LOG)), Err(EngineError::NotFound(LOG))));
    assert_eq!(directories(home.path()), Vec::<String>::new());
}
