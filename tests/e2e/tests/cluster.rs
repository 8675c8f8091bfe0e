//! A cluster of three under a real client, while its nodes are killed, stopped and wiped: what was acknowledged stays, once, in
//! order, and the replicas come to hold the same bytes. Over the transport in `CHRONIK_CLUSTER_TRANSPORT`, with TLS.

use chronik_e2e::cluster::{Cluster, transport};
use chronik_e2e::workload::replicas::replicas_are_the_same;
use chronik_e2e::workload::writer::Writer;
use chronik_e2e::workload::{check, create_topic};

#[test]
#[ignore = "run by tests/run"]
fn three_blank_nodes_take_a_topic_and_a_killed_one_is_missed_for_a_moment_only() {
    let mut cluster = Cluster::start(3, &[]);
    create_topic(&cluster);
    let status = cluster.status(1).expect("a status");
    assert!(status["controller"].is_number(), "{status}");
    let writer = Writer::start(&cluster);
    writer.goes_on("at first");
    for id in cluster.ids() {
        cluster.kill(id);
        let pause = writer.goes_on("with one node less");
        eprintln!("node {id} killed: writing went on after {pause:?}");
        cluster.restart(id);
        cluster.wait("it is back, and in sync", Cluster::is_whole);
    }
    check(&cluster, &[writer.finish()]);
    replicas_are_the_same(&mut cluster);
}

#[test]
#[ignore = "run by tests/run"]
fn where_the_time_of_acknowledgements_goes_is_told_by_all_nodes() {
    let cluster = Cluster::start(3, &[]);
    create_topic(&cluster);
    let writer = Writer::start(&cluster);
    writer.goes_on("to be followed");
    // All lead some of the partitions, and follow others.
    for id in cluster.ids() {
        let counts = |stage: &str| {
            let metrics = cluster.http(id, "/metrics").unwrap_or_default();
            let of_it = |line: &&str| {
                line.starts_with("chronik_ack_stage_seconds_count{")
                    && line.contains(&format!("stage=\"{stage}\""))
                    && line.contains(&format!("transport=\"{}\"", transport()))
            };
            metrics.lines().filter(of_it).any(|line| !line.ends_with(" 0"))
        };
        for stage in [
            "read",
            "decode",
            "queue",
            "append",
            "local_sync",
            "followers",
            "watermark",
            "reply",
            "send",
            "round_trip",
            "follower_append",
            "follower_sync",
        ] {
            cluster.wait(&format!("node {id} counts {stage}"), |_| counts(stage));
        }
    }
    check(&cluster, &[writer.finish()]);
}

#[test]
#[ignore = "run by tests/run"]
fn all_nodes_killed_at_once_lose_nothing_that_was_acknowledged() {
    let mut cluster = Cluster::start(3, &[]);
    create_topic(&cluster);
    let writer = Writer::start(&cluster);
    for _ in 0..3 {
        writer.goes_on("before the lights go out");
        cluster.kill_all_and_restart();
        cluster.wait("all are back", Cluster::is_whole);
    }
    writer.goes_on("in the end");
    check(&cluster, &[writer.finish()]);
    replicas_are_the_same(&mut cluster);
}

#[test]
#[ignore = "run by tests/run"]
fn a_node_whose_disk_was_wiped_is_filled_again() {
    let mut cluster = Cluster::start(3, &[]);
    create_topic(&cluster);
    let writer = Writer::start(&cluster);
    writer.goes_on("at first");
    cluster.kill(2);
    std::fs::remove_dir_all(cluster.data(2)).expect("its disk is wiped");
    cluster.restart(2);
    cluster.wait("it is filled, and in sync", Cluster::is_whole);
    // It counts: with another one gone the cluster goes on.
    cluster.kill(1);
    writer.goes_on("with the wiped node and one other");
    cluster.restart(1);
    cluster.wait("all are back", Cluster::is_whole);
    check(&cluster, &[writer.finish()]);
    replicas_are_the_same(&mut cluster);
}
