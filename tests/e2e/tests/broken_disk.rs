//! Disks that do not have any more what was written to them: a leader comes back at once without its unsynced tail, and a node
//! with bits that have changed. Nothing that was acknowledged is lost or has another value, and the replicas are the same again.
//!
//! `CHRONIK_CHAOS_ROUNDS` (how many times, default: a few), `CHRONIK_CHAOS_SEED` and `CHRONIK_CLUSTER_TRANSPORT` as in
//! `chaos.rs`.

use chronik_core::ids::{LogId, Offset, TopicId};
use chronik_e2e::cluster::Cluster;
use chronik_e2e::relay::{Plane, Rule};
use chronik_e2e::workload::replicas::replicas_are_the_same;
use chronik_e2e::workload::writer::Writer;
use chronik_e2e::workload::{Dice, check, create_topic, leaders, number};
use chronik_storage_segment::frame::{FrameHeader, HEADER_BYTES, salt};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The directories of a node's logs of the topic `t`, which has the most partitions that anything was written to.
fn logs(cluster: &Cluster, id: usize) -> BTreeMap<i32, PathBuf> {
    let mut by_topic: BTreeMap<String, BTreeMap<i32, PathBuf>> = BTreeMap::new();
    for entry in fs::read_dir(cluster.data(id).join("logs")).expect("the logs").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some((topic, partition)) = name.split_once('-')
            && newest(&entry.path()).is_some()
        {
            let partition = partition.parse().expect("a partition's number");
            by_topic.entry(topic.to_owned()).or_default().insert(partition, entry.path());
        }
    }
    by_topic.into_values().max_by_key(BTreeMap::len).unwrap_or_default()
}

/// The last segment that has anything in it.
fn newest(log: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(log).ok()?.flatten().map(|entry| entry.path());
    let segments = files.filter(|path| path.extension().is_some_and(|kind| kind == "log"));
    segments.filter(|path| path.metadata().is_ok_and(|data| data.len() > 0)).max()
}

/// Cuts the newest segment somewhere behind the frames below `floor`, often inside a frame; says how many bytes went.
fn cut_tail(log: &Path, floor: Offset, dice: &mut Dice) -> u64 {
    let Some(path) = newest(log) else { return 0 };
    let name = log.file_name().expect("a name").to_string_lossy().into_owned();
    let (topic, partition) = name.split_once('-').expect("topic-partition");
    let topic: TopicId = topic.parse().expect("a topic's id");
    let id = LogId { topic, partition: partition.parse().expect("a number") };
    let base = path.file_stem().expect("a name").to_string_lossy().parse().expect("an offset");
    let salt = salt(id, Offset(base));
    let file = OpenOptions::new().read(true).write(true).open(&path).expect("the segment");
    let length = file.metadata().expect("its length").len();
    let mut keep = 0;
    let mut end = 0;
    let mut head = [0; HEADER_BYTES];
    while file.read_exact_at(&mut head, end).is_ok()
        && let Some(frame) = FrameHeader::decode(&head, salt)
        && end + frame.frame_bytes() <= length
    {
        end += frame.frame_bytes();
        if frame.next_offset <= floor {
            keep = end;
        }
    }
    let cut = keep + dice.roll((end - keep) as usize + 1) as u64;
    file.set_len(cut).expect("it is cut");
    file.sync_all().expect("it is synced");
    end - cut
}

/// A leader's records that no follower has yet, and that it has promised to nobody, are gone with the power: and it is back
/// before anyone else leads, or just afterwards.
#[test]
#[ignore = "run by tests/run"]
fn a_leader_that_is_back_at_once_without_its_unsynced_tail_gives_no_offset_two_values() {
    let rounds = number("CHRONIK_CHAOS_ROUNDS", 4);
    let mut dice = Dice::of(21);
    let mut cluster = Cluster::start_on_relays(3, &[]);
    create_topic(&cluster);
    let writer = Writer::start(&cluster);
    let cut = Rule { cut: true, ..Rule::default() };
    let mut bytes = 0;
    for round in 0..rounds {
        cluster.wait("all are in sync", Cluster::is_whole);
        writer.goes_on("between two rounds");
        let id = 1 + dice.roll(3);
        cluster.network().set_outbound(&[Plane::Replication], id, cut);
        cluster.network().set_inbound(&[Plane::Replication], id, cut);
        // What was committed before is answered by then; what it appends from now on, it keeps to itself.
        std::thread::sleep(Duration::from_millis(400 + dice.roll(400) as u64));
        let leads = leaders(&cluster);
        let mut floors: BTreeMap<i32, i64> = BTreeMap::new();
        for (partition, offset) in writer.acknowledged().into_values() {
            let floor = floors.entry(partition).or_default();
            *floor = (offset + 1).max(*floor);
        }
        cluster.kill(id);
        for (partition, log) in logs(&cluster, id) {
            if leads.get(&partition) == Some(&id) {
                let floor = Offset(floors.get(&partition).copied().unwrap_or_default());
                bytes += cut_tail(&log, floor, &mut dice);
            }
        }
        std::thread::sleep(Duration::from_millis(dice.roll(500) as u64));
        cluster.network().heal();
        cluster.restart(id);
        eprintln!("round {round}: node {id}, {bytes} bytes gone by now");
    }
    assert!(bytes > 0, "there was nothing to lose");
    cluster.wait("all are in sync in the end", Cluster::is_whole);
    writer.goes_on("in the end");
    check(&cluster, &[writer.finish()]);
    replicas_are_the_same(&mut cluster);
}

/// Files of a node in which a bit may change: (what they are, which they are).
fn files(cluster: &Cluster, id: usize) -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    let mut directories: Vec<PathBuf> = logs(cluster, id).into_values().collect();
    let metadata = fs::read_dir(cluster.data(id).join("metadata")).expect("the metadata").flatten();
    directories.extend(metadata.map(|entry| entry.path()).filter(|path| path.is_dir()));
    for directory in directories {
        let of = if directory.starts_with(cluster.data(id).join("metadata")) { "metadata" } else { "records" };
        for entry in fs::read_dir(&directory).expect("a log").flatten() {
            let path = entry.path();
            let kind = path.extension().or(path.file_name()).expect("a name").to_string_lossy().into_owned();
            if path.metadata().is_ok_and(|data| data.len() > 0) {
                files.push((format!("{of} {kind}"), path));
            }
        }
    }
    files.sort();
    files
}

/// One node is down, and when it is back a bit in one of its files is another one. It may mend that, or leave its replica, or
/// refuse to start: what it must not do is serve what is wrong, or hold up the others.
#[test]
#[ignore = "run by tests/run"]
fn a_bit_that_has_changed_on_one_disk_is_never_served() {
    let rounds = number("CHRONIK_CHAOS_ROUNDS", 6);
    let mut dice = Dice::of(31);
    let mut cluster = Cluster::start(3, &[]);
    create_topic(&cluster);
    let writer = Writer::start(&cluster);
    for round in 0..rounds {
        comes_to_be_whole(&mut cluster);
        writer.goes_on("between two rounds");
        let id = 1 + dice.roll(3);
        let in_order = dice.roll(2) == 0;
        match in_order {
            true => cluster.terminate(id),
            false => cluster.kill(id),
        }
        let all = files(&cluster, id);
        let kinds: Vec<&String> =
            all.iter().map(|(kind, _)| kind).collect::<std::collections::BTreeSet<_>>().into_iter().collect();
        let kind = kinds[dice.roll(kinds.len())];
        let of_kind: Vec<&PathBuf> = all.iter().filter(|(one, _)| one == kind).map(|(_, path)| path).collect();
        let path = of_kind[dice.roll(of_kind.len())];
        let length = path.metadata().expect("its length").len();
        let (at, bit) = (dice.roll(length as usize) as u64, dice.roll(8));
        let file = OpenOptions::new().read(true).write(true).open(path).expect("the file");
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("a byte");
        let mut around = [0; 64];
        let count = file.read_at(&mut around, at.saturating_sub(32)).expect("what is around it");
        let unused = around[..count].iter().all(|byte| *byte == 0);
        byte[0] ^= 1 << bit;
        file.write_all_at(&byte, at).expect("another byte");
        drop(file);
        let shown = path.strip_prefix(cluster.home()).expect("it is in there").display().to_string();
        let logged = cluster.log(id).len();
        cluster.restart(id);
        let outcome = comes_back(&mut cluster, id);
        let said = cluster.log(id).split_off(logged);
        let said: Vec<&str> =
            said.lines().filter(|line| line.contains("ERROR") || line.contains("damaged")).take(3).collect();
        eprintln!(
            "round {round}: bit {bit} of byte {at} of {length} of {shown} ({kind}, unused: {unused}), stopped in order: {in_order}: {outcome}"
        );
        eprintln!("    {}", said.join("\n    "));
        writer.goes_on("whatever the node makes of it");
        // Records that a node was stopped in order with are not looked at before they are read: what has changed in them
        // stays, unseen, and one disk at a time is what two others make up for.
        if outcome != "all are in sync" || kind == "records log" {
            empty(&mut cluster, id);
        }
    }
    comes_to_be_whole(&mut cluster);
    let written = [writer.finish()];
    // What lies far back may be found only now that it is read, by whoever leads: then another one leads.
    check(&cluster, &written);
    comes_to_be_whole(&mut cluster);
    check(&cluster, &written);
    replicas_are_the_same(&mut cluster);
}

/// Waits until all are in sync, and empties a node whose log has failed: what has changed far back is found only when it is
/// read, for another node that is filled again, or for a client.
fn comes_to_be_whole(cluster: &mut Cluster) {
    for _ in 0..2_400 {
        if cluster.is_whole() {
            return;
        }
        if let Some(id) = cluster.ids().find(|id| has_failed(cluster, *id)) {
            eprintln!("    node {id} has found what had changed only by now, and is emptied");
            empty(cluster, id);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("not all come to be in sync");
}

/// What an operator does with a node that cannot go on. Until it takes part again, the others still tell of the logs that its
/// former life could not read: whoever asked them then would empty it again.
fn empty(cluster: &mut Cluster, id: usize) {
    if cluster.is_running(id) {
        cluster.kill(id);
    }
    fs::remove_dir_all(cluster.data(id)).expect("its disk is emptied");
    cluster.restart(id);
    cluster.wait("it serves again", |cluster| cluster.is_ready(id) && !has_failed(cluster, id));
}

/// Whether a log of the node's has failed, as another node knows.
fn has_failed(cluster: &Cluster, id: usize) -> bool {
    let other = 1 + id % 3;
    let status = cluster.status(other).unwrap_or_default();
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    nodes.iter().any(|node| node["node"] == id && node["failed_logs"] != 0)
}

/// How the node fares: it is given some time to come back whole.
fn comes_back(cluster: &mut Cluster, id: usize) -> &'static str {
    for _ in 0..200 {
        if cluster.has_ended(id) {
            return "it does not start";
        }
        if cluster.is_whole() {
            return "all are in sync";
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    "it is not in sync again"
}
