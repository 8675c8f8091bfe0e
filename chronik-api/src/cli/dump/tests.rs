//! Dumps of files that the segment engine wrote, whole, cut off and damaged.

use super::*;
use chronik_core::batch::{Builder, RecordOut};
use chronik_core::ids::LeaderEpoch;
use chronik_core::pending::Pending;
use chronik_core::time::Timestamp;
use chronik_core::wal::{OpenMode, OpenOptions, Run, WalEngine};
use chronik_storage_segment::{SegmentEngine, SegmentOptions};

const LOG: LogId = LogId { topic: TopicId([7; 16]), partition: 2 };

/// A data directory with one log of `batches` batches of two records each, synced.
async fn data_with(batches: i64) -> tempfile::TempDir {
    let data = tempfile::tempdir().expect("a temporary directory");
    let engine = SegmentEngine::start(data.path().to_owned(), SegmentOptions::default()).expect("it starts");
    let options = OpenOptions { mode: OpenMode::CreateNew, segment_bytes: 1 << 20 };
    let log = engine.open(LOG, options).await.expect("it opens");
    for index in 0..batches {
        let mut builder = Builder::new(Timestamp(1_000 + index));
        for value in ["first", "second"] {
            let headers: &[(&[u8], Option<&[u8]>)] = &[(b"n", Some(b"\xff"))];
            builder.push(&RecordOut { timestamp: None, key: None, value: Some(value.as_bytes()), headers });
        }
        let mut batch = builder.build();
        batch.header.base_offset = Offset(index * 2);
        let run = Run {
            base: Offset(index * 2),
            next_offset: Offset(index * 2 + 2),
            epoch: LeaderEpoch(4),
            max_timestamp: batch.header.max_timestamp,
            bytes: batch.to_payload(),
        };
        let appended = Pending::start(|done| log.append(run, done).expect("there is room"));
        log.write_queued();
        appended.await.expect("written");
        Pending::start(|done| log.sync(Offset(index * 2 + 2), done)).await.expect("durable");
    }
    engine.close().await.expect("it closes");
    data
}

/// The output of a dump of the log, and how each segment ended.
fn dumped(data: &tempfile::TempDir, records: bool, json: bool) -> (String, Vec<End>) {
    let (log, dir) = logs_in(data.path()).expect("readable").remove(0);
    assert_eq!(log, LOG);
    let mut show = Show { out: Vec::new(), records, json };
    let mut ends = Vec::new();
    for segment in Segment::of_log(&dir).expect("readable") {
        let mut frames = segment.frames(log).expect("readable");
        while let Some(frame) = frames.next().expect("readable") {
            show.frame(&frame).expect("memory takes it");
        }
        ends.push(frames.end().expect("readable"));
    }
    (String::from_utf8(show.out).expect("text"), ends)
}

fn segment_file(data: &tempfile::TempDir) -> PathBuf {
    let (_, dir) = logs_in(data.path()).expect("readable").remove(0);
    Segment::of_log(&dir).expect("readable").remove(0).path
}

#[tokio::test]
async fn batches_and_records_are_shown_with_their_offsets() {
    let data = data_with(3).await;
    let (text, ends) = dumped(&data, true, false);
    assert!(text.contains("  4–5  records 2  epoch 4  none  bytes "), "{text}");
    assert!(text.contains("      5  time 1002  key null  value \"second\"  n=0xff"), "{text}");
    assert!(matches!(ends[..], [End::Clean | End::Reserved { .. }]), "{ends:?}");
    let (lines, _) = dumped(&data, true, true);
    let last: serde_json::Value = serde_json::from_str(lines.lines().last().expect("three")).expect("JSON");
    assert_eq!((&last["base_offset"], &last["records"][1]["value"]), (&json!(4), &json!("second")));
}

#[tokio::test]
async fn a_cut_off_end_is_told_from_damage_in_the_middle() {
    let data = data_with(3).await;
    let path = segment_file(&data);
    let whole = std::fs::read(&path).expect("readable");
    let frame_bytes = {
        let mut frames = Segment::at(&path).expect("a segment").frames(LOG).expect("readable");
        frames.next().expect("readable").expect("one").header.frame_bytes() as usize
    };
    std::fs::write(&path, &whole[..frame_bytes * 3 - 10]).expect("written");
    let (text, ends) = dumped(&data, false, false);
    assert_eq!(text.lines().count(), 2);
    assert!(matches!(ends[..], [End::Unfinished { .. }]), "{ends:?}");

    let mut damaged = whole.clone();
    damaged[frame_bytes + 20] ^= 1;
    std::fs::write(&path, &damaged).expect("written");
    let (text, ends) = dumped(&data, false, false);
    assert_eq!(text.lines().count(), 1);
    let (position, witness) = (frame_bytes as u64, frame_bytes as u64 * 2);
    assert_eq!(ends, [End::Damaged { position, witness }]);

    let mut damaged = whole;
    damaged[frame_bytes * 2 - 1] ^= 1;
    std::fs::write(&path, &damaged).expect("written");
    let (text, _) = dumped(&data, false, false);
    assert!(text.contains("DAMAGED at byte"), "{text}");
}

#[test]
fn a_log_is_known_by_its_directorys_name() {
    assert_eq!(log_named(&LOG.to_string()), Some(LOG));
    assert_eq!(log_named("orders-0"), None);
    assert_eq!(Segment::at(Path::new("/tmp/17.log")), None);
}
