//! How long partitions cannot be written to, for a real client with acks=all, when one of three nodes dies or is stopped.
//!
//! What is measured is printed, and nothing but a hang fails: the figures mean something on a machine that does nothing else,
//! with the optimised broker. `CHRONIK_FAILOVERS` says how many nodes are killed, and as many are stopped (default: a few);
//! `CHRONIK_CLUSTER_TRANSPORT` and `CHRONIK_CHAOS_SEED` as in `chaos.rs`.

use chronik_e2e::cluster::Cluster;
use chronik_e2e::workload::replicas::replicas_are_the_same;
use chronik_e2e::workload::writer::Writer;
use chronik_e2e::workload::{Dice, check, create_topic, number};
use std::time::Duration;

/// The middle, what at most one in a hundred is above, and the highest.
fn print(what: &str, mut durations: Vec<Duration>) {
    durations.sort_unstable();
    let at = |per_mille: usize| durations[((durations.len() - 1) * per_mille).div_ceil(1_000)].as_millis();
    eprintln!("{what} (n={}): p50 {} ms, p99 {} ms, max {} ms", durations.len(), at(500), at(990), at(1_000));
}

#[test]
#[ignore = "run by tests/run"]
fn partitions_are_writable_again_after_a_node_was_killed_or_stopped() {
    let times = number("CHRONIK_FAILOVERS", 3);
    let mut dice = Dice::of(11);
    let mut cluster = Cluster::start(3, &[]);
    create_topic(&cluster);
    let writer = Writer::start(&cluster);
    let (mut last_after_kill, mut each_after_kill) = (Vec::new(), Vec::new());
    let (mut last_of_stop, mut each_of_stop) = (Vec::new(), Vec::new());
    for time in 0..times * 2 {
        cluster.wait("all are in sync", Cluster::is_whole);
        writer.goes_on("between");
        let id = 1 + dice.roll(3);
        if time % 2 == 0 {
            cluster.kill(id);
            let pauses = writer.pauses("with one node killed");
            last_after_kill.extend(pauses.values().max());
            each_after_kill.extend(pauses.into_values());
        } else {
            // It is in order that it serves for a while yet: what counts is how long nobody did.
            let from = std::time::Instant::now();
            cluster.terminate(id);
            writer.goes_on("with one node stopped");
            let gaps = writer.gaps(from);
            last_of_stop.extend(gaps.values().max());
            each_of_stop.extend(gaps.into_values());
        }
        cluster.restart(id);
    }
    print("from a kill until the last partition is written to", last_after_kill);
    print("from a kill until a partition is written to", each_after_kill);
    print("longest pause of any partition around a stop", last_of_stop);
    print("longest pause of a partition around a stop", each_of_stop);
    cluster.wait("all are in sync in the end", Cluster::is_whole);
    check(&cluster, &[writer.finish()]);
    replicas_are_the_same(&mut cluster);
}
