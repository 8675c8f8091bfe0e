//! A cluster of three under three idempotent clients at once (librdkafka, Java, franz-go), while its nodes are killed, killed and
//! back at once, and paused, and the network between them is cut, slowed, garbled and broken off. In the end everything that was
//! acknowledged is there, once and in order, and the replicas are the same.
//!
//! - `CHRONIK_CLUSTER_TRANSPORT`: tcp, grpc or quic. `CHRONIK_CHAOS_ROUNDS`: how many (default: a few).
//! - `CHRONIK_CHAOS_SEED`: tells a story again; it is printed, and so is each round.
//! - `CHRONIK_CHAOS_ONLY`: names of rounds with commas between; only these are chosen from.

use chronik_e2e::cluster::Cluster;
use chronik_e2e::relay::{PLANES, Plane, Rule};
use chronik_e2e::workload::replicas::replicas_are_the_same;
use chronik_e2e::workload::writer::Writer;
use chronik_e2e::workload::{Dice, check, create_topic, number, others};
use std::time::Instant;

/// What may happen to a node. Those with a `true` leave writing possible on every partition, which is waited for now and then;
/// where only records, or only some, do not come through, leaders stay where they are and wait.
const ROUNDS: [(&str, bool); 13] = [
    ("kill", true),
    ("kill-and-back", false),
    ("pause", true),
    ("isolate", true),
    ("isolate-raft", true),
    ("isolate-replication", false),
    ("deaf", true),
    ("mute", true),
    ("cut-pair", false),
    ("slow", true),
    ("lossy", true),
    ("garbled", false),
    ("close", false),
];

const CUT: Rule = Rule {
    cut: true,
    close: false,
    delay_ms: 0,
    bytes_per_s: 0,
    corrupt_every_bytes: 0,
    drop_per_mille: 0,
    reorder_per_mille: 0,
};

/// Makes it happen to the node.
fn hurt(cluster: &mut Cluster, dice: &mut Dice, what: &str, id: usize) {
    let none = Rule { cut: false, ..CUT };
    match what {
        "kill" => cluster.kill(id),
        "kill-and-back" => {
            cluster.kill(id);
            dice.sleep_up_to(800);
            cluster.restart(id);
        }
        "pause" => cluster.pause(id),
        "isolate" => around(cluster, &PLANES, id, CUT),
        "isolate-raft" => around(cluster, &[Plane::Raft], id, CUT),
        "isolate-replication" => around(cluster, &[Plane::Replication], id, CUT),
        "deaf" => cluster.network().set_inbound(&PLANES, id, CUT),
        "mute" => cluster.network().set_outbound(&PLANES, id, CUT),
        "cut-pair" => {
            let other = 1 + (id + dice.roll(2)) % 3;
            for plane in PLANES {
                cluster.network().set(plane, id, other, CUT);
                cluster.network().set(plane, other, id, CUT);
            }
        }
        "slow" => {
            let (delay_ms, bytes_per_s) = (1 + dice.roll(60) as u64, 1_000_000);
            around(cluster, &PLANES, id, Rule { delay_ms, bytes_per_s, ..none });
        }
        "lossy" => {
            let (drop_per_mille, reorder_per_mille) = (1 + dice.roll(50) as u64, dice.roll(100) as u64);
            around(cluster, &PLANES, id, Rule { drop_per_mille, reorder_per_mille, ..none });
        }
        "garbled" => {
            let corrupt_every_bytes = 5_000 + dice.roll(50_000) as u64;
            around(cluster, &PLANES, id, Rule { corrupt_every_bytes, ..none });
        }
        "close" => around(cluster, &PLANES, id, Rule { close: true, ..none }),
        other => panic!("there is no such round: {other}"),
    }
}

fn around(cluster: &Cluster, planes: &[Plane], id: usize, rule: Rule) {
    cluster.network().set_inbound(planes, id, rule);
    cluster.network().set_outbound(planes, id, rule);
}

/// Makes it end.
fn mend(cluster: &mut Cluster, what: &str, id: usize) {
    match what {
        "kill" => cluster.restart(id),
        "pause" => cluster.resume(id),
        _ => cluster.network().heal(),
    }
}

#[test]
#[ignore = "run by tests/run"]
fn what_was_acknowledged_survives_kills_pauses_and_cuts() {
    let rounds = number("CHRONIK_CHAOS_ROUNDS", 10);
    let mut dice = Dice::of(7);
    let only = std::env::var("CHRONIK_CHAOS_ONLY").unwrap_or_default();
    let only: Vec<&str> = only.split(',').filter(|name| !name.is_empty()).collect();
    let choice: Vec<_> = ROUNDS.into_iter().filter(|(name, _)| only.is_empty() || only.contains(name)).collect();
    let mut cluster = Cluster::start_on_relays(3, &[]);
    create_topic(&cluster);
    let writer = Writer::start(&cluster);
    let others = others::start(&cluster);
    let began = Instant::now();
    for round in 0..rounds {
        writer.goes_on("between two rounds");
        let (what, goes_on) = choice[dice.roll(choice.len())];
        let id = 1 + dice.roll(3);
        let waits = dice.roll(2) == 0;
        let at = began.elapsed();
        hurt(&mut cluster, &mut dice, what, id);
        // Before and after it is noticed.
        dice.sleep_up_to(3_000);
        let pause = (goes_on && waits).then(|| writer.goes_on(what));
        mend(&mut cluster, what, id);
        let whole = dice.roll(2) == 0;
        match whole {
            true => cluster.wait("all are in sync again", Cluster::is_whole),
            false => cluster.wait("it serves again", |cluster| cluster.is_ready(id)),
        }
        eprintln!(
            "round {round} at {at:.1?}: {what} node {id}, writing went on after {pause:?}, waited for all: {whole}"
        );
    }
    writer.goes_on("in the end");
    cluster.wait("all are in sync in the end", Cluster::is_whole);
    let mut written = vec![writer.finish()];
    written.extend(others.into_iter().map(others::Other::finish));
    check(&cluster, &written);
    replicas_are_the_same(&mut cluster);
}
