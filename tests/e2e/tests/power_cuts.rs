//! The power of a whole cluster is cut at one moment, under a real client that writes: what was not synced is gone from every
//! disk, and what was acknowledged is there when the nodes are back, once and in order, and the replicas are the same.
//!
//! `CHRONIK_POWER_CUTS` says how often (default: a few); `CHRONIK_POWER_CUT_SETTINGS` are settings of the nodes, `key=value` with
//! commas between: with `topics.durability=replicated` nobody promises that anything outlives it. `CHRONIK_CHAOS_SEED` and
//! `CHRONIK_CLUSTER_TRANSPORT` as in `chaos.rs`.

use chronik_e2e::cluster::Cluster;
use chronik_e2e::workload::replicas::replicas_are_the_same;
use chronik_e2e::workload::writer::Writer;
use chronik_e2e::workload::{Dice, check, create_topic, number};

/// After so many a cluster has had enough: all that was written is read, and another one begins.
const OF_ONE_CLUSTER: u64 = 10;

#[test]
#[ignore = "run by tests/run"]
fn what_was_acknowledged_survives_when_the_power_is_cut_everywhere() {
    let cuts = number("CHRONIK_POWER_CUTS", 3);
    let settings = std::env::var("CHRONIK_POWER_CUT_SETTINGS").unwrap_or_default();
    let settings: Vec<&str> = settings.split(',').filter(|setting| !setting.is_empty()).collect();
    let mut dice = Dice::of(41);
    let mut left = cuts;
    let mut gone = 0;
    while left > 0 {
        let Some(mut cluster) = Cluster::start_on_disks(3, &settings) else { return };
        create_topic(&cluster);
        let writer = Writer::start(&cluster);
        for _ in 0..left.min(OF_ONE_CLUSTER) {
            writer.goes_on("before the lights go out");
            // One node less, or one that is being filled: then fewer have what is acknowledged.
            let hurt = 1 + dice.roll(3);
            let how = dice.roll(4);
            if how < 2 {
                cluster.kill(hurt);
                dice.sleep_up_to(2_500);
            }
            if how == 0 {
                cluster.restart(hurt);
            }
            dice.sleep_up_to(600);
            let now = cluster.cut_power_and_restart();
            gone += now;
            left -= 1;
            let whole = dice.roll(3) > 0;
            match whole {
                true => cluster.wait("all are back", Cluster::is_whole),
                false => cluster.wait("all serve again", |cluster| cluster.ids().all(|id| cluster.is_ready(id))),
            }
            eprintln!(
                "power cut {}: {now} bytes gone; node {hurt} {}, waited for all: {whole}",
                cuts - left,
                ["had just been killed and was back", "was down", "was well", "was well"][how]
            );
        }
        writer.goes_on("in the end");
        cluster.wait("all are in sync in the end", Cluster::is_whole);
        check(&cluster, &[writer.finish()]);
        replicas_are_the_same(&mut cluster);
    }
    eprintln!("{cuts} power cuts everywhere, {gone} bytes gone, nothing that was acknowledged");
    assert!(gone > 0, "there was nothing to lose");
}
