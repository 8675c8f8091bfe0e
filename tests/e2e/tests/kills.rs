//! `kill -9`, again and again: of one node, of one after the other, of all, under a real client that writes with acks=all and
//! idempotence. What was acknowledged is there in the end, once and in order, and the replicas are the same.
//!
//! `CHRONIK_KILLS` says how many processes are killed (default: a few); `CHRONIK_CHAOS_SEED` and `CHRONIK_CLUSTER_TRANSPORT` as
//! in `chaos.rs`.

use chronik_e2e::cluster::Cluster;
use chronik_e2e::workload::replicas::replicas_are_the_same;
use chronik_e2e::workload::writer::Writer;
use chronik_e2e::workload::{Dice, check, create_topic, number};
use std::time::Duration;

/// Some hundred values in a second: each of them is looked for in the end, on every replica.
const WRITE_EVERY: Duration = Duration::from_millis(80);
/// After so many a cluster has had enough: all that was written is read, and another one begins.
const OF_ONE_CLUSTER: u64 = 50;

#[test]
#[ignore = "run by tests/run"]
fn what_was_acknowledged_survives_kill_after_kill() {
    let kills = number("CHRONIK_KILLS", 10);
    let mut dice = Dice::of(51);
    let mut done = 0;
    while done < kills {
        let mut cluster = Cluster::start(3, &[]);
        create_topic(&cluster);
        let writer = Writer::start_with_pause(&cluster, WRITE_EVERY);
        let upto = kills.min(done + OF_ONE_CLUSTER);
        while done < upto {
            writer.goes_on("between two rounds");
            let first = dice.roll(3);
            let order: Vec<usize> = (0..3).map(|next| 1 + (first + next) % 3).collect();
            let what = dice.roll(10);
            let (name, killed) = match what {
                // Before anybody else leads, or just afterwards.
                0..=4 => ("one, back at once", 1),
                5 | 6 => ("one, back when the others write", 1),
                7 | 8 => ("two", 2),
                _ => ("all", 3),
            };
            for id in &order[..killed] {
                cluster.kill(*id);
                if what == 5 || what == 6 {
                    writer.goes_on("with one node less");
                } else if killed < 3 {
                    dice.sleep_up_to(800);
                }
            }
            for id in &order[..killed] {
                cluster.restart(*id);
            }
            done += killed as u64;
            let whole = dice.roll(3) == 0;
            match whole {
                true => cluster.wait("all are in sync again", Cluster::is_whole),
                false => cluster.wait("they serve again", |cluster| order.iter().all(|id| cluster.is_ready(*id))),
            }
            eprintln!("{done} kills: {name}, from node {} on, waited for all: {whole}", order[0]);
        }
        writer.goes_on("in the end");
        cluster.wait("all are in sync in the end", Cluster::is_whole);
        check(&cluster, &[writer.finish()]);
        replicas_are_the_same(&mut cluster);
    }
    eprintln!("{done} processes killed, nothing lost that was acknowledged");
}
