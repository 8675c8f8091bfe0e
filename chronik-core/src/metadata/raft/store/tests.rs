//! Whatever step a crash comes at, what was promised is there.

use super::*;
use crate::ids::NodeId;
use crate::metadata::raft::world::Disk;
use crate::metadata::raft::{Change, Member, MetadataRaft, Settings};
use crate::time::Monotonic;

fn member(node: u8) -> Member {
    Member::new(NodeId(node.into()), [node; 16], "host:9093").expect("well formed")
}

fn voters() -> Members {
    (1..=3).map(member).collect()
}

fn entry(index: u64, term: u64) -> Entry {
    let content = match index % 3 {
        0 => Content::Empty,
        1 => Content::Data(Bytes::from(format!("{index} of {term}"))),
        _ => {
            let now = Configuration::of_voters(voters().iter().map(Member::id));
            let change = Change { learners: vec![member(9)], ..Change::default() };
            Content::Membership(change.encode(member(1).id(), &now).expect("makes sense").into())
        }
    };
    Entry { at: Mark { index, term }, content }
}

fn entries(number: u64, indexes: std::ops::RangeInclusive<u64>, term: u64) -> Persist {
    let entries: Vec<Entry> = indexes.map(|index| entry(index, term)).collect();
    Persist { number, hard_state: None, snapshot: None, truncate_from: None, entries }
}

fn snapshot(index: u64, term: u64, bytes: usize) -> Snapshot {
    Snapshot { at: Mark { index, term }, image: vec![7; bytes].into(), ..Snapshot::genesis(&voters()) }
}

fn hard_state(term: u64, vote: u8, commit: u64) -> Option<HardState> {
    Some(HardState { term, vote: Some(member(vote).id()), commit })
}

/// A life with everything in it.
fn life() -> Vec<Persist> {
    let taken = SnapshotChange::Taken { snapshot: snapshot(5, 2, 3 << 20), cut: Mark { index: 3, term: 2 } };
    vec![
        Recovered::genesis_persist(&voters()),
        Persist { hard_state: hard_state(2, 1, 1), ..entries(1, 2..=6, 2) },
        Persist { truncate_from: Some(6), hard_state: hard_state(4, 2, 5), ..entries(2, 6..=8, 3) },
        Persist { snapshot: Some(taken), entries: Vec::new(), ..entries(3, 9..=9, 4) },
        entries(4, 9..=10, 4),
        Persist {
            hard_state: hard_state(6, 3, 8),
            snapshot: Some(SnapshotChange::Received(snapshot(20, 5, 10))),
            ..entries(5, 21..=22, 6)
        },
        entries(6, 23..=24, 6),
    ]
}

#[test]
fn what_is_written_reads_back() {
    let mut disk = Disk::default();
    assert_eq!(disk.recover(), Recovered::default(), "a blank disk");
    let mut lives = life().into_iter();
    let mut next = |disk: &mut Disk| {
        let persist = lives.next().expect("goes on");
        plan(&persist, disk.snapshots_end(), Timestamp(1_000)).iter().for_each(|step| disk.carry_out(step));
        disk.recover()
    };
    assert_eq!(next(&mut disk), Recovered::genesis(&voters()));
    assert_eq!(next(&mut disk).entries, (2..=6).map(|index| entry(index, 2)).collect::<Vec<_>>());
    let replaced = next(&mut disk);
    assert_eq!(replaced.hard_state, hard_state(4, 2, 5).expect("it has one"));
    let marks: Vec<_> = replaced.entries.iter().map(|entry| (entry.at.index, entry.at.term)).collect();
    assert_eq!(marks, [(2, 2), (3, 2), (4, 2), (5, 2), (6, 3), (7, 3), (8, 3)]);
    let cut = next(&mut disk);
    assert_eq!((cut.snapshot, cut.cut), (Some(snapshot(5, 2, 3 << 20)), Mark { index: 3, term: 2 }));
    assert_eq!(cut.entries.first().map(|entry| entry.at.index), Some(4));
    next(&mut disk);
    let anew = next(&mut disk);
    assert_eq!((anew.snapshot, anew.entries.len()), (Some(snapshot(20, 5, 10)), 2));
}

/// Every step of every life, with what was appended and not synced lost, and again with all of it there.
#[test]
fn a_crash_at_any_step_takes_back_nothing_that_was_promised() {
    let mut crashes = 0;
    let mut disk = Disk::default();
    let mut promised = Recovered::default();
    for persist in life() {
        for step in plan(&persist, disk.snapshots_end(), Timestamp(1_000)) {
            disk.carry_out(&step);
            for after in [disk.durably(), disk.clone().recover()] {
                check(&promised, &persist, &after);
                crashes += 1;
            }
        }
        promised = disk.durably();
        assert_eq!(promised, disk.recover(), "what is reported durable is");
    }
    assert!(crashes > 60, "only {crashes}");
}

fn check(promised: &Recovered, under_way: &Persist, after: &Recovered) {
    let Recovered { hard_state, .. } = after;
    let old = promised.hard_state;
    let same = hard_state.term == old.term && (old.vote.is_none() || hard_state.vote == old.vote);
    assert!(hard_state.term > old.term || same, "{old:?} became {hard_state:?}");
    assert!(hard_state.commit >= old.commit);
    // Entries of a term only once the term is known.
    assert!(after.entries.iter().all(|entry| entry.at.term <= hard_state.term));
    let begun = promised.snapshot.as_ref().map_or(0, |snapshot| snapshot.at.index);
    let begins = after.snapshot.as_ref().map_or(0, |snapshot| snapshot.at.index);
    assert!(begins >= begun, "a snapshot was lost");
    // All that was there is there, or in the snapshot, or what another leader replaced.
    let keep = under_way.truncate_from.unwrap_or(u64::MAX);
    for entry in promised.entries.iter().filter(|entry| entry.at.index < keep && entry.at.index > begins) {
        assert!(after.entries.contains(entry), "{entry:?} was lost");
    }
    let own = after.clone();
    let opened = MetadataRaft::open(Monotonic::default(), member(1), Settings::default(), 1, own, Members::default());
    assert!(opened.is_ok(), "it opens: {:?}", opened.err());
}

#[test]
fn what_no_crash_leaves_is_damage() {
    let mut disk = Disk::default();
    for persist in life() {
        plan(&persist, disk.snapshots_end(), Timestamp(0)).iter().for_each(|step| disk.carry_out(step));
    }
    let (values, entries, snapshots) = disk.parts();
    let look = |entries: &LogState, snapshots: &LogState| {
        let value = |key| values.get(key).map(|value| &value[..]);
        survey(value(HARD_STATE), value(SNAPSHOT), entries, snapshots)
    };
    let good = look(&entries.0, &snapshots.0).expect("nothing is wrong yet");
    let mut flipped = entries.1.to_bytes().to_vec();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    assert!(good.recover(&snapshots.1, &Bytes::from(flipped).into()).is_err(), "a byte of an entry is another");
    let good = || look(&entries.0, &snapshots.0).expect("nothing is wrong yet");
    assert!(good().recover(&snapshots.1, &Payload::new()).is_err(), "the entries cannot be read");
    assert!(good().recover(&Payload::new(), &entries.1).is_err(), "the image cannot be read");
    assert!(good().recover(&snapshots.1, &entries.1).is_ok());
    let gone = LogState { start: snapshots.0.end, ..snapshots.0 };
    assert!(look(&entries.0, &gone).is_err(), "the image is gone");
    assert!(survey(None, None, &entries.0, &snapshots.0).is_err(), "the values are gone");
    assert!(survey(Some(&[0xff]), None, &LogState::default(), &snapshots.0).is_err(), "a value is unreadable");
}
