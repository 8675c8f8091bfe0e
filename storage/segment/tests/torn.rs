//! What a crash leaves at the end of a log, and what rots in the middle of one.

mod sim;

use chronik_core::ids::Offset;
use chronik_core::wal::{EngineError, WalError};
use sim::SimDisk;
use sim::bench::{Bench, bytes_of, path};
use std::path::Path;

const SEGMENT: &str = "00000000000000000000.log";

/// A header before each run's bytes.
const HEADER_BYTES: usize = 64;

#[test]
fn a_tail_cut_at_any_byte_is_repaired_to_the_whole_runs_before_it() {
    let disk = SimDisk::new();
    let bench = Bench::open(&disk, 1).expect("an empty disk can be used");
    let runs = bench.fill(9);
    let whole = disk.file(&path(SEGMENT)).expect("the segment was written");
    let ends: Vec<_> = runs
        .iter()
        .scan(0, |end, run| {
            *end += HEADER_BYTES + run.bytes.len();
            Some(*end)
        })
        .collect();
    assert_eq!(ends.last(), Some(&whole.len()));

    for cut in 0..=whole.len() {
        // The file ends there; or its blocks were never written; or they hold something else.
        let mut zeros = whole[..cut].to_vec();
        zeros.resize(whole.len() + 100, 0);
        let mut rubbish = whole[..cut].to_vec();
        rubbish.extend(whole.iter().rev().take(90).map(|byte| byte ^ 0x5a));
        for left in [whole[..cut].to_vec(), zeros, rubbish] {
            // A header ends in zeros, so some cuts cut nothing off.
            let kept = ends.iter().filter(|&&end| left.len() >= end && left[..end] == whole[..end]).count();
            let disk = SimDisk::new();
            disk.put_file(&path(SEGMENT), left);
            let first = Bench::open(&disk, 2).expect("a torn tail is repaired");
            let end = runs[..kept].last().map_or(Offset(0), |run| run.next_offset);
            assert_eq!((first.log.state().end, first.log.state().durable_end), (end, end), "cut at {cut}");
            let (bytes, _, error) = first.read_from(Offset(0));
            assert!(error.is_none() && bytes == bytes_of(&runs[..kept]), "cut at {cut}");

            let repaired = disk.after_power_cut(None);
            let second = Bench::open(&repaired, 3).expect("what was repaired can be opened");
            assert_eq!(second.log.state(), first.log.state(), "a second repair finds nothing to do, cut at {cut}");
            assert_eq!(repaired.file(&path(SEGMENT)), disk.file(&path(SEGMENT)));
        }
    }
}

/// Opens, and reads everything: either it is refused, or a read is, or all is as it was, or, where `may_lose` says so, a
/// whole number of runs is there. Never anything else.
fn never_served_wrong(disk: &SimDisk, what: &str, whole: &[u8], may_lose: bool) {
    let bench = match Bench::open(disk, 4) {
        Ok(bench) => bench,
        Err(EngineError::Corrupt { .. }) => return,
        Err(error) => panic!("{what}: {error:?}"),
    };
    let (bytes, _, error) = bench.read_from(bench.log.state().start);
    match error {
        None if !may_lose => assert!(bytes.to_bytes() == whole, "{what}: not what was written"),
        None => assert!(whole.starts_with(&bytes.to_bytes()), "{what}: not what was written"),
        Some(WalError::Corrupt { .. }) => {
            assert!(whole.starts_with(&bytes.to_bytes()), "{what}: a wrong byte before it")
        }
        Some(error) => panic!("{what}: {error:?}"),
    }
}

fn flip_every_byte(disk: &SimDisk, name: &Path, may_lose: bool, whole: &[u8]) {
    let sound = disk.file(name).expect("the file is there");
    for at in 0..sound.len() {
        let damaged = disk.after_kill();
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (at % 8);
        damaged.put_file(name, bytes);
        never_served_wrong(&damaged, &format!("{} flipped at {at}", name.display()), whole, may_lose);
    }
}

#[test]
fn a_flipped_bit_in_a_closed_log_is_never_served_and_costs_nothing_silently() {
    let disk = SimDisk::new();
    let bench = Bench::open(&disk, 1).expect("an empty disk can be used");
    let runs = bench.fill(24);
    bench.truncate_prefix(1).expect("the disk is sound");
    bench.close().expect("the disk is sound");
    let whole = bytes_of(&runs[1..]).to_bytes();
    let files: Vec<_> = disk.files();
    assert!(files.len() >= 7, "several segments, their indexes, and the control file: {files:?}");
    for name in files {
        // The last frame of all is trusted by nobody but its index file: with both gone it looks like a torn tail, which
        // is why brokers keep a watermark beside the log.
        let is_last = disk.files().iter().rfind(|other| other.extension() == name.extension()) == Some(&name);
        flip_every_byte(&disk, &name, is_last, &whole);
    }
}

#[test]
fn damage_before_what_knows_it_was_durable_is_refused_not_cut() {
    let disk = SimDisk::new();
    let bench = Bench::open(&disk, 1).expect("an empty disk can be used");
    let mut runs = bench.fill(4);
    bench.sync().expect("the disk is sound");
    let durable = disk.file(&path(SEGMENT)).expect("the segment was written").len();
    runs.extend(bench.fill(2));
    // Killed: nothing covers the segment, so opening reads it whole.
    let killed = disk.after_kill();
    let sound = killed.file(&path(SEGMENT)).expect("the segment was written");
    for at in 0..sound.len() {
        let damaged = killed.after_kill();
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        damaged.put_file(&path(SEGMENT), bytes);
        match Bench::open(&damaged, 5) {
            Err(EngineError::Corrupt { .. }) => assert!(at < durable, "a torn tail is repaired, flipped at {at}"),
            Err(error) => panic!("flipped at {at}: {error:?}"),
            Ok(bench) => {
                assert!(at >= durable, "what was durable is cut silently, flipped at {at}");
                let (bytes, _, error) = bench.read_from(Offset(0));
                assert!(error.is_none() && bytes_of(&runs).to_bytes().starts_with(&bytes.to_bytes()));
            }
        }
    }
}

#[test]
fn a_segment_that_vanished_is_noticed() {
    let disk = SimDisk::new();
    let bench = Bench::open(&disk, 1).expect("an empty disk can be used");
    bench.fill(30);
    bench.close().expect("the disk is sound");
    let segments: Vec<_> =
        disk.files().into_iter().filter(|name| name.extension().is_some_and(|kind| kind == "log")).collect();
    assert!(segments.len() > 3);
    for gone in &segments[1..segments.len() - 1] {
        let left = SimDisk::new();
        for name in disk.files().into_iter().filter(|name| name.with_extension("log") != *gone) {
            left.put_file(&name, disk.file(&name).expect("it was listed"));
        }
        let opened = Bench::open(&left, 6);
        assert!(matches!(opened.err(), Some(EngineError::Corrupt { .. })), "{}", gone.display());
    }
}

#[test]
fn damage_in_a_segment_whose_index_is_damaged_too_is_called_damage() {
    let disk = SimDisk::new();
    let bench = Bench::open(&disk, 1).expect("an empty disk can be used");
    bench.fill(24);
    bench.close().expect("the disk is sound");
    let bench = Bench::open(&disk, 7).expect("the disk is sound");
    // While the log is open: what the index said would now be read off the frames.
    let segment = disk.files().into_iter().find(|name| name.extension().is_some_and(|kind| kind == "log"));
    let segment = segment.expect("several segments were written");
    for name in [segment.with_extension("index"), segment] {
        let mut bytes = disk.file(&name).expect("a closed segment has an index");
        let middle = bytes.len() / 2;
        bytes[..middle].iter_mut().for_each(|byte| *byte ^= 0x5a);
        disk.put_file(&name, bytes);
    }
    let (bytes, _, error) = bench.read_from(Offset(0));
    assert!(matches!(error, Some(WalError::Corrupt { .. })), "{error:?}");
    assert!(bytes.is_empty());
}

#[test]
fn an_index_whose_segment_has_vanished_tells_of_the_loss() {
    let disk = SimDisk::new();
    let bench = Bench::open(&disk, 1).expect("an empty disk can be used");
    bench.fill(9);
    bench.sync().expect("the disk is sound");
    bench.close().expect("the disk is sound");
    let index = Path::new(SEGMENT).with_extension("index");
    let index = path(index.to_str().expect("a name"));
    let left = SimDisk::new();
    left.put_file(&index, disk.file(&index).expect("a log that is closed in order has one"));
    match Bench::open(&left, 2) {
        Err(EngineError::Corrupt { what, .. }) => assert!(what.contains("is missing"), "{what}"),
        other => panic!("what was durable there is taken for nothing: {:?}", other.map(|bench| bench.log.state())),
    }
}

/// Of a log of three runs, its index there, the second's header says something else, under a sound checksum.
fn with_a_lie_in_the_second_header(lie: impl FnOnce(&mut chronik_storage_segment::frame::FrameHeader)) {
    use chronik_storage_segment::frame::{FrameHeader, salt};
    let disk = SimDisk::new();
    let bench = Bench::open(&disk, 1).expect("an empty disk can be used");
    let runs = bench.fill(3);
    bench.sync().expect("the disk is sound");
    bench.close().expect("the disk is sound");
    let mut bytes = disk.file(&path(SEGMENT)).expect("the segment was written");
    let second = HEADER_BYTES + runs[0].bytes.len();
    let salt = salt(sim::bench::LOG, Offset(0));
    let mut header = FrameHeader::decode(&bytes[second..], salt).expect("it is sound");
    lie(&mut header);
    bytes[second..second + HEADER_BYTES].copy_from_slice(&header.encode(salt));
    disk.put_file(&path(SEGMENT), bytes);
    let again = Bench::open(&disk, 2).expect("its index covers it");
    let (read, at, error) = again.read_from(Offset(0));
    assert_eq!((read, at), (bytes_of(&runs[..1]), runs[1].base));
    assert!(matches!(error, Some(WalError::Corrupt { offset }) if offset == runs[1].base), "{error:?}");
}

#[test]
fn a_frame_that_claims_to_reach_beyond_its_log_is_damage_and_hides_nothing() {
    with_a_lie_in_the_second_header(|header| header.next_offset = Offset(1_000_000));
}

#[test]
fn a_frame_that_claims_more_bytes_than_its_file_has_is_damage() {
    with_a_lie_in_the_second_header(|header| header.payload_bytes = u32::MAX);
}
