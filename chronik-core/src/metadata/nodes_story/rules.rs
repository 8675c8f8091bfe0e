//! One story per rule.

use super::*;
use crate::metadata::records::METADATA_VERSION;
use crate::time::Monotonic;
use std::time::Duration;

const MIN_2: &[(&str, &str)] = &[("min.insync.replicas", "2")];
const REPLICATED: &[(&str, &str)] = &[("chronik.durability", "replicated")];

fn ms(ms: u64) -> Monotonic {
    Monotonic(Duration::from_millis(ms))
}

#[test]
fn a_leader_that_falls_silent_is_succeeded_by_one_in_sync() {
    let mut cluster = Cluster::of(&[1, 2, 3]);
    let log = cluster.one(&[1, 2, 3], &[]);
    cluster.in_sync(log, &[1, 3]);
    let epoch = cluster.state(log).leader_epoch;
    cluster.fence(&[1]);
    let state = cluster.state(log);
    assert_eq!((state.leader, &state.isr[..]), (Some(NodeId(3)), &nodes(&[3])[..]), "2 is preferred, but not in sync");
    assert!(state.leader_epoch > epoch && state.elr.is_empty());
    cluster.unfence(&[1]);
    assert_eq!(cluster.state(log).leader, Some(NodeId(3)), "who comes back waits until it has caught up");
    assert_eq!(cluster.state(log).isr, nodes(&[3]));
}

#[test]
fn the_last_one_in_sync_goes_without_the_partition_losing_anything() {
    // Last replica standing (KIP-966): 3 in sync, then 2, then 1, then none.
    let mut cluster = Cluster::of(&[1, 2, 3]);
    let log = cluster.one(&[1, 2, 3], MIN_2);
    cluster.fence(&[3]);
    assert_eq!(cluster.state(log).elr, [], "two are enough, and go on without it");
    cluster.fence(&[2]);
    assert_eq!((&cluster.state(log).isr, &cluster.state(log).elr), (&nodes(&[1]), &nodes(&[2])));
    cluster.fence(&[1]);
    let state = cluster.state(log).clone();
    assert_eq!((state.leader, &state.elr, state.last_known_leader), (None, &nodes(&[1, 2]), Some(NodeId(1))));
    cluster.unfence(&[3]);
    assert_eq!(cluster.state(log).leader, None, "3 may lack records");
    cluster.unfence(&[2]);
    let state = cluster.state(log);
    assert_eq!((state.leader, &state.isr, &state.elr), (Some(NodeId(2)), &nodes(&[2]), &nodes(&[1])));
    assert_eq!((state.unclean_epoch, state.last_known_leader), (None, None));
    cluster.in_sync(log, &[2, 3]);
    assert_eq!(cluster.state(log).elr, [], "more is committed now than 1 holds");
}

#[test]
fn all_at_once_leave_all_of_them_eligible() {
    let mut cluster = Cluster::of(&[1, 2]);
    let log = cluster.one(&[1, 2], &[]);
    cluster.fence(&[1, 2]);
    assert_eq!(cluster.state(log).elr, nodes(&[1, 2]));
    cluster.unfence(&[2]);
    assert_eq!(cluster.state(log).leader, Some(NodeId(2)));
}

#[test]
fn a_crash_costs_nobody_its_place_where_records_are_synced() {
    let mut cluster = Cluster::of(&[1, 2]);
    let log = cluster.one(&[1, 2], MIN_2);
    cluster.start(1, CRASHED).expect("admitted");
    let state = cluster.state(log);
    assert_eq!((state.leader, &state.isr, &state.elr), (Some(NodeId(2)), &nodes(&[2]), &nodes(&[1])));
    cluster.fence(&[2]);
    cluster.unfence(&[1]);
    assert_eq!(cluster.state(log).leader, Some(NodeId(1)));
    assert_eq!(cluster.state(log).unclean_epoch, None);
}

#[test]
fn who_comes_back_without_a_log_is_eligible_no_more_unless_nobody_else_is() {
    let mut cluster = Cluster::of(&[1, 2, 3]);
    let log = cluster.one(&[1, 2], MIN_2);
    cluster.start(1, Start { lost: Lost { missing: vec![log], ..Lost::NOTHING }, ..CRASHED }).expect("admitted");
    let state = cluster.state(log);
    assert_eq!((&state.isr, &state.elr, &state.last_known_elr), (&nodes(&[2]), &vec![], &nodes(&[1])));
    // All were killed before they had made the log: nothing can have been in it, and it must not be gone for ever.
    cluster.start(2, Start { lost: Lost { missing: vec![log], ..Lost::NOTHING }, ..CRASHED }).expect("admitted");
    cluster.unfence(&[1, 2]);
    let state = cluster.state(log);
    assert_eq!((state.leader, state.unclean_epoch), (Some(NodeId(2)), None));
}

#[test]
fn who_has_lost_records_is_eligible_no_more() {
    let mut cluster = Cluster::of(&[1, 2, 3]);
    let log = cluster.one(&[1, 2], MIN_2);
    let other = cluster.one(&[1, 2], MIN_2);
    cluster.start(1, Start { lost: Lost { damaged: vec![log], ..Lost::NOTHING }, ..CRASHED }).expect("admitted");
    assert_eq!((&cluster.state(log).elr, &cluster.state(log).last_known_elr), (&vec![], &nodes(&[1])));
    assert_eq!(cluster.state(other).elr, nodes(&[1]), "the other log is whole");
    cluster.start(2, Start { lost: Lost { damaged: vec![log], ..Lost::NOTHING }, ..CRASHED }).expect("admitted");
    assert_eq!(holders(cluster.state(log)).len(), 0);
    cluster.unfence(&[1, 2]);
    assert_eq!(
        cluster.state(log).leader,
        None,
        "nobody holds what was promised, and somebody has to say that it may go"
    );
    assert_eq!(cluster.state(other).leader, Some(NodeId(1)));
    let epoch = cluster.state(log).leader_epoch;
    assert_eq!(cluster.elect(ElectionKind::Unclean, "t0"), Ok(()));
    let state = cluster.state(log);
    assert_eq!(state.leader, Some(NodeId(2)), "the last leader has most of it, most likely");
    assert_eq!(state.unclean_epoch, Some(state.leader_epoch));
    assert!(state.was_unclean_since(epoch) && !state.was_unclean_since(state.leader_epoch));
    assert!(state.elr.is_empty() && state.last_known_elr.is_empty());
}

#[test]
fn an_empty_disk_joins_nothing_by_its_former_name() {
    let mut cluster = Cluster::of(&[1, 2, 3]);
    let log = cluster.one(&[1, 2, 3], MIN_2);
    // While 1's request that 2 stay is on its way, 2 comes back with a new disk.
    let wanted = cluster.wanted(log, &[1, 2]);
    cluster.fence(&[2]);
    cluster.start(2, Start { directory: 77, ..IN_ORDER }).expect("its former process is known to be gone");
    cluster.unfence(&[2]);
    let late = cluster.ask(1, wanted.clone());
    assert_eq!(late, Err(AlterPartitionError::InvalidUpdateVersion));
    let late = WantedInSync { partition_epoch: cluster.state(log).partition_epoch, ..wanted };
    assert_eq!(cluster.ask(1, late), Err(AlterPartitionError::IneligibleReplica(NodeId(2))), "of the old process");
    cluster.fence(&[3]);
    assert_eq!(cluster.state(log).elr, nodes(&[3]), "2 is not in it");
    // A second machine that is configured as a node that lives.
    let second = cluster.start(1, Start { directory: 78, ..IN_ORDER });
    assert_eq!(second, Err(AdmitError::Duplicate(NodeId(1))));
}

#[test]
fn without_syncs_a_crash_takes_a_replica_out_and_the_last_leader_comes_back_marked() {
    let mut cluster = Cluster::of(&[1, 2]);
    let log = cluster.one(&[1, 2], REPLICATED);
    cluster.start(1, CRASHED).expect("admitted");
    assert_eq!(cluster.state(log).isr, nodes(&[2]));
    cluster.start(2, IN_ORDER).expect("admitted");
    assert_eq!(cluster.state(log).elr, nodes(&[2]), "it stopped in order");
    cluster.start(2, CRASHED).expect("admitted");
    assert_eq!(cluster.state(log).elr, []);
    cluster.unfence(&[1]);
    assert_eq!(cluster.state(log).leader, None, "1 was out of sync before");
    cluster.unfence(&[2]);
    let state = cluster.state(log);
    assert_eq!((state.leader, state.unclean_epoch), (Some(NodeId(2)), Some(state.leader_epoch)));

    let mut cluster = Cluster::of(&[1, 2]);
    let log = cluster.one(&[1, 2], REPLICATED);
    cluster.fence(&[1, 2]);
    cluster.start(1, CRASHED).expect("admitted");
    cluster.unfence(&[1]);
    assert_eq!(cluster.state(log).leader, None, "1 led last, but 2 may still have it all");
    cluster.unfence(&[2]);
    assert_eq!((cluster.state(log).leader, cluster.state(log).unclean_epoch), (Some(NodeId(2)), None));
}

#[test]
fn records_that_were_never_synced_stay_so_until_the_leader_says_otherwise() {
    let mut cluster = Cluster::of(&[1, 2]);
    let log = cluster.one(&[1, 2], REPLICATED);
    cluster.configure("t0", "chronik.durability", "fsync");
    assert!(cluster.state(log).unsynced);
    cluster.start(1, CRASHED).expect("admitted");
    assert_eq!(cluster.state(log).isr, nodes(&[2]));
    cluster.unfence(&[1]);
    cluster.configure("t0", "min.insync.replicas", "2");
    let wanted = WantedInSync { synced: true, ..cluster.wanted(log, &[2]) };
    cluster.ask(2, wanted).expect("nothing is against it");
    assert!(cluster.state(log).unsynced, "others may be eligible, of whom the leader says nothing");
    cluster.configure("t0", "min.insync.replicas", "1");
    let wanted = WantedInSync { synced: true, ..cluster.wanted(log, &[2, 1]) };
    cluster.ask(2, wanted).expect("nothing is against it");
    assert!(!cluster.state(log).unsynced);
    cluster.start(1, CRASHED).expect("admitted");
    cluster.start(2, CRASHED).expect("admitted");
    assert_eq!(cluster.state(log).elr, nodes(&[2]), "synced: the last one in sync holds everything");
}

#[test]
fn an_unclean_election_is_only_for_topics_that_want_it() {
    let mut cluster = Cluster::of(&[1, 2]);
    let careful = cluster.one(&[1, 2], &[]);
    let careless = cluster.one(&[1, 2], &[("unclean.leader.election.enable", "true")]);
    for log in [careful, careless] {
        cluster.in_sync(log, &[1]);
    }
    cluster.fence(&[1]);
    assert_eq!(cluster.state(careful).leader, None);
    let state = cluster.state(careless);
    assert_eq!((state.leader, state.unclean_epoch), (Some(NodeId(2)), Some(state.leader_epoch)));
    cluster.configure("t0", "unclean.leader.election.enable", "true");
    assert_eq!(cluster.state(careful).leader, Some(NodeId(2)), "as soon as it is allowed");
}

#[test]
fn a_leaders_wish_is_refused_when_its_reasons_are_over() {
    let mut cluster = Cluster::of(&[1, 2, 3, 4]);
    let log = cluster.one(&[1, 2, 3], &[]);
    cluster.in_sync(log, &[1]);
    let wanted = cluster.wanted(log, &[1, 2]);
    use AlterPartitionError::*;
    let missing = LogId { topic: TopicId([99; 16]), partition: 0 };
    assert_eq!(cluster.ask(1, WantedInSync { log: missing, ..wanted.clone() }), Err(UnknownTopicOrPartition));
    let epoch = LeaderEpoch(7);
    assert_eq!(cluster.ask(1, WantedInSync { leader_epoch: epoch, ..wanted.clone() }), Err(FencedLeaderEpoch));
    assert_eq!(cluster.ask(2, wanted.clone()), Err(InvalidRequest), "2 does not lead");
    let old = WantedInSync { partition_epoch: wanted.partition_epoch - 1, ..wanted.clone() };
    assert_eq!(cluster.ask(1, old), Err(InvalidUpdateVersion));
    for set in [&[2][..], &[1, 4], &[1, 2, 2]] {
        let set = cluster.wanted(log, set);
        assert_eq!(cluster.ask(1, set), Err(InvalidRequest));
    }
    cluster.fence(&[2]);
    let wanted = cluster.wanted(log, &[1, 2]);
    assert_eq!(cluster.ask(1, wanted), Err(IneligibleReplica(NodeId(2))), "fenced");
    let stopping = vec![cluster.at(3)];
    cluster.carry_out(act_on_heartbeats(&cluster.image, &Verdict { stopping, ..Verdict::default() }));
    let wanted = cluster.wanted(log, &[1, 3]);
    assert_eq!(cluster.ask(1, wanted), Err(IneligibleReplica(NodeId(3))), "about to stop");
    let stale = AlterPartitions { broker_epoch: Offset(0), seq: 99, partitions: Vec::new() };
    assert_eq!(alter_partitions(&cluster.image, NodeId(1), &stale), Err(StaleBrokerEpoch));
}

#[test]
fn a_request_that_was_written_twice_is_carried_out_once() {
    let mut cluster = Cluster::of(&[1, 2]);
    let log = cluster.one(&[1, 2], &[]);
    let asked = AlterPartitions { broker_epoch: cluster.at(1).1, seq: 1, partitions: vec![cluster.wanted(log, &[1])] };
    // Two controllers decide the same request, one after the other, and both entries are committed.
    let decision = alter_partitions(&cluster.image, NodeId(1), &asked).expect("decided");
    cluster.carry_out(decision.clone());
    let index = cluster.image.position().next;
    let before = cluster.image.clone();
    let second = cluster.image.apply_entry(index, LeaderEpoch(2), &decision.records, &mut Delta::default());
    assert!(matches!(second, Ok(Entry::Discarded(_))));
    assert!(cluster.image.says_the_same_as(&before));
}

#[test]
fn who_is_eligible_follows_how_many_must_be_in_sync() {
    let mut cluster = Cluster::of(&[1, 2, 3]);
    let log = cluster.one(&[1, 2, 3], MIN_2);
    cluster.in_sync(log, &[1]);
    assert_eq!(cluster.state(log).elr, nodes(&[2, 3]));
    cluster.configure("t0", "min.insync.replicas", "3");
    assert_eq!(cluster.state(log).elr, nodes(&[2, 3]), "nothing is committed without them still");
    cluster.configure("t0", "min.insync.replicas", "1");
    assert_eq!(cluster.state(log).elr, [], "from this record on 1 commits alone");
    cluster.configure("t0", "min.insync.replicas", "2");
    assert_eq!(cluster.state(log).elr, []);

    let led_by_nobody = cluster.one(&[1, 2], MIN_2);
    cluster.fence(&[1, 2]);
    let all_brokers = ResourceAlteration {
        resource: AlterResource { kind: 4, name: String::new() },
        configs: vec![("min.insync.replicas".to_owned(), AlterOp::Set(Some("1".into())))],
    };
    cluster.carry_out(alter_configs(&cluster.image, &[all_brokers]));
    cluster.configure("t1", "min.insync.replicas", "1");
    assert_eq!(cluster.state(led_by_nobody).elr, nodes(&[1, 2]), "nobody commits anything meanwhile");
}

#[test]
fn cluster_wide_numbers_reach_the_eligible_too() {
    let mut cluster = Cluster::of(&[1, 2]);
    let set = |value: &str| ResourceAlteration {
        resource: AlterResource { kind: 4, name: String::new() },
        configs: vec![("min.insync.replicas".to_owned(), AlterOp::Set(Some(value.into())))],
    };
    cluster.carry_out(alter_configs(&cluster.image, &[set("2")]));
    let log = cluster.one(&[1, 2], &[]);
    cluster.in_sync(log, &[1]);
    assert_eq!(cluster.state(log).elr, nodes(&[2]));
    cluster.carry_out(alter_configs(&cluster.image, &[set("1")]));
    assert_eq!(cluster.state(log).elr, []);
}

#[test]
fn a_broker_whose_process_has_ended_is_not_waited_for_and_counts_again_once_it_is_heard() {
    let mut cluster = Cluster::of(&[1, 2]);
    let log = cluster.one(&[1, 2], &[]);
    let mut liveness = Liveness::new(ms(0), SESSION_DEFAULT, &cluster.image, None);
    assert!(liveness.verdict(ms(1), &cluster.image).is_empty());
    liveness.gone(ms(1), NodeId(1));
    liveness.gone(ms(1), NodeId(9));
    let verdict = liveness.verdict(ms(1), &cluster.image);
    assert_eq!(verdict, Verdict { fence: vec![cluster.at(1)], ..Verdict::default() });
    let (node, broker_epoch) = cluster.at(1);
    let applied = cluster.image.position().next;
    let heartbeat = Heartbeat { broker_epoch, applied, offline: Vec::new(), wants_shutdown: false };
    liveness.heartbeat(ms(2), node, heartbeat, &cluster.image).expect("known");
    assert!(liveness.verdict(ms(2), &cluster.image).is_empty(), "it was said to be gone, and is not");
    liveness.gone(ms(3), NodeId(1));
    let verdict = liveness.verdict(ms(3), &cluster.image);
    cluster.carry_out(act_on_heartbeats(&cluster.image, &verdict));
    assert_eq!(cluster.state(log).leader, Some(NodeId(2)));
}

#[test]
fn a_broker_that_stops_in_order_hands_over_first() {
    let mut cluster = Cluster::of(&[1, 2, 3]);
    let shared = cluster.one(&[1, 2], &[]);
    let alone = cluster.one(&[1, 2], &[]);
    cluster.in_sync(alone, &[1]);
    let mut liveness = Liveness::new(ms(0), SESSION_DEFAULT, &cluster.image, None);
    let hear = |cluster: &Cluster, liveness: &mut Liveness, at, id, wants_shutdown, applied| {
        let (node, broker_epoch) = cluster.at(id);
        let heartbeat = Heartbeat { broker_epoch, applied, offline: Vec::new(), wants_shutdown };
        liveness.heartbeat(ms(at), node, heartbeat, &cluster.image).expect("known")
    };
    let old = cluster.image.position().next;
    for id in [2, 3] {
        hear(&cluster, &mut liveness, 0, id, false, old);
    }
    assert!(!hear(&cluster, &mut liveness, 0, 1, true, old).may_stop);
    let verdict = liveness.verdict(ms(0), &cluster.image);
    assert_eq!(verdict, Verdict { stopping: vec![cluster.at(1)], ..Verdict::default() });
    cluster.carry_out(act_on_heartbeats(&cluster.image, &verdict));
    assert_eq!((cluster.state(shared).leader, &cluster.state(shared).isr), (Some(NodeId(2)), &nodes(&[2])));
    assert_eq!(cluster.state(alone).leader, Some(NodeId(1)), "nobody else could");
    assert!(liveness.verdict(ms(1), &cluster.image).is_empty(), "the others do not know yet");
    let new = cluster.image.position().next;
    hear(&cluster, &mut liveness, 2, 2, false, new);
    assert!(liveness.verdict(ms(2), &cluster.image).is_empty(), "3 does not know yet");
    hear(&cluster, &mut liveness, 3, 3, false, new);
    cluster.in_sync(alone, &[1, 2]);
    assert_eq!(cluster.state(alone).leader, Some(NodeId(2)), "as soon as somebody can");
    let verdict = liveness.verdict(ms(3), &cluster.image);
    assert_eq!(verdict.may_stop, [cluster.at(1)]);
    cluster.carry_out(act_on_heartbeats(&cluster.image, &verdict));
    assert!(hear(&cluster, &mut liveness, 4, 1, true, old).may_stop);
    assert!(liveness.verdict(ms(4), &cluster.image).is_empty());
    cluster.up(1, IN_ORDER);
    assert!(cluster.image.broker(NodeId(1)).expect("registered").is_active(), "a new start is a new beginning");
}

#[test]
fn who_is_silent_is_fenced_and_who_has_caught_up_is_not() {
    let mut cluster = Cluster::of(&[1, 2]);
    cluster.start(3, IN_ORDER).expect("admitted");
    let session = SESSION_DEFAULT.as_millis() as u64;
    let mut liveness = Liveness::new(ms(100), SESSION_DEFAULT, &cluster.image, None);
    assert_eq!(
        liveness.deadline(&cluster.image),
        Some(ms(100 + session)),
        "a new controller gives everyone the full time"
    );
    assert!(liveness.verdict(ms(99 + session), &cluster.image).is_empty());
    let hear = |cluster: &Cluster, liveness: &mut Liveness, at, id, applied| {
        let (node, broker_epoch) = cluster.at(id);
        let heartbeat = Heartbeat { broker_epoch, applied, ..Heartbeat::default() };
        liveness.heartbeat(ms(at), node, heartbeat, &cluster.image)
    };
    hear(&cluster, &mut liveness, 1_000, 1, Offset(0)).expect("known");
    let epoch = cluster.at(3).1;
    hear(&cluster, &mut liveness, 1_000, 3, epoch).expect("known");
    let verdict = liveness.verdict(ms(100 + session), &cluster.image);
    assert_eq!(verdict, Verdict { fence: vec![cluster.at(2)], ..Verdict::default() }, "3 does not know itself yet");
    hear(&cluster, &mut liveness, 1_500, 3, epoch + 1).expect("known");
    let verdict = liveness.verdict(ms(1_500), &cluster.image);
    assert_eq!(verdict.unfence, [cluster.at(3)]);
    cluster.carry_out(act_on_heartbeats(&cluster.image, &verdict));
    assert!(cluster.image.broker(NodeId(3)).expect("registered").is_active());

    let late = Heartbeat { broker_epoch: epoch + -1, ..Heartbeat::default() };
    let refused = liveness.heartbeat(ms(1_500), NodeId(3), late.clone(), &cluster.image);
    assert_eq!(refused, Err(HeartbeatError::StaleBrokerEpoch { current: epoch }));
    let unknown = liveness.heartbeat(ms(1_500), NodeId(9), late, &cluster.image);
    assert_eq!(unknown, Err(HeartbeatError::NotRegistered));
    // What is meant for a process that is gone does not hit the next.
    let verdict = Verdict { fence: vec![cluster.at(3)], ..Verdict::default() };
    cluster.up(3, IN_ORDER);
    assert_eq!(act_on_heartbeats(&cluster.image, &verdict).records, []);
}

#[test]
fn the_controller_before_is_not_waited_for_twice() {
    let cluster = Cluster::of(&[1, 2]);
    let mut liveness = Liveness::new(ms(5), SESSION_DEFAULT, &cluster.image, Some(NodeId(1)));
    assert_eq!(liveness.verdict(ms(5), &cluster.image).fence, [cluster.at(1)]);
    let (node, broker_epoch) = cluster.at(1);
    let heartbeat = Heartbeat { broker_epoch, ..Heartbeat::default() };
    liveness.heartbeat(ms(5), node, heartbeat, &cluster.image).expect("known");
    assert!(liveness.verdict(ms(5), &cluster.image).is_empty(), "unless it is there after all");
}

#[test]
fn a_log_that_failed_is_led_elsewhere_until_it_is_open_again() {
    let mut cluster = Cluster::of(&[1, 2]);
    let (log, other) = (cluster.one(&[1, 2], &[]), cluster.one(&[1, 2], &[]));
    let report = |cluster: &mut Cluster, id, offline: &[LogId]| {
        let mut liveness = Liveness::new(ms(0), SESSION_DEFAULT, &cluster.image, None);
        let (node, broker_epoch) = cluster.at(id);
        let heartbeat = Heartbeat { broker_epoch, offline: offline.to_vec(), ..Heartbeat::default() };
        liveness.heartbeat(ms(0), node, heartbeat, &cluster.image).expect("known");
        let verdict = liveness.verdict(ms(0), &cluster.image);
        cluster.carry_out(act_on_heartbeats(&cluster.image, &verdict));
        assert!(liveness.verdict(ms(0), &cluster.image).is_empty(), "said once, decided once");
    };
    report(&mut cluster, 1, &[log]);
    assert_eq!((cluster.state(log).leader, cluster.state(other).leader), (Some(NodeId(2)), Some(NodeId(1))));
    let wanted = cluster.wanted(log, &[2, 1]);
    assert_eq!(cluster.ask(2, wanted), Err(AlterPartitionError::IneligibleReplica(NodeId(1))));
    report(&mut cluster, 2, &[log]);
    assert_eq!(
        (cluster.state(log).leader, &cluster.state(log).elr),
        (None, &nodes(&[2])),
        "alive, but not with this log"
    );
    report(&mut cluster, 1, &[]);
    assert_eq!(cluster.state(log).leader, None, "1 was out of sync");
    report(&mut cluster, 2, &[]);
    assert_eq!(cluster.state(log).leader, Some(NodeId(2)));
}

#[test]
fn leads_go_back_to_their_preferred_replicas_a_few_at_a_time() {
    let mut cluster = Cluster::of(&[1, 2]);
    let topic = cluster.topic("t", &[&[1, 2], &[1, 2], &[2, 1], &[1, 2]], &[]);
    cluster.fence(&[1]);
    cluster.unfence(&[1]);
    let log = |partition| LogId { topic, partition };
    assert_eq!(cluster.carry_out(balance_leaders(&cluster.image, 10)), 0, "1 is in sync with nothing yet");
    for partition in [0, 1, 2] {
        cluster.in_sync(log(partition), &[2, 1]);
    }
    assert_eq!(cluster.carry_out(balance_leaders(&cluster.image, 1)), 1);
    let leaders = |cluster: &Cluster| (0..4).map(|p| cluster.state(log(p)).leader.expect("led").0).collect::<Vec<_>>();
    assert_eq!(leaders(&cluster), [1, 2, 2, 2]);
    assert_eq!(cluster.carry_out(balance_leaders(&cluster.image, 10)), 1);
    assert_eq!(leaders(&cluster), [1, 1, 2, 2], "0 and 1 are back, 2 is at home, 3 is not in sync");
    assert_eq!(cluster.elect(ElectionKind::Preferred, "t"), Err(ElectLeaderError::NotNeeded));
    let all = elect_all_leaders(&cluster.image, ElectionKind::Preferred);
    assert_eq!(all.reply, [("t".to_owned(), 3, Err(ElectLeaderError::PreferredNotAvailable))]);
    cluster.in_sync(log(3), &[2, 1]);
    let all = elect_all_leaders(&cluster.image, ElectionKind::Preferred);
    assert_eq!(cluster.carry_out(all), [("t".to_owned(), 3, Ok(()))]);
}

#[test]
fn an_election_needs_somebody_to_elect() {
    let mut cluster = Cluster::of(&[1, 2]);
    let log = cluster.one(&[1, 2], &[]);
    assert_eq!(cluster.elect(ElectionKind::Unclean, "t0"), Err(ElectLeaderError::NotNeeded));
    cluster.fence(&[1]);
    assert_eq!(cluster.elect(ElectionKind::Preferred, "t0"), Err(ElectLeaderError::PreferredNotAvailable));
    cluster.fence(&[2]);
    assert_eq!(cluster.elect(ElectionKind::Unclean, "t0"), Err(ElectLeaderError::NoneEligible));
    cluster.unfence(&[1]);
    assert_eq!(cluster.state(log).leader, None);
    assert_eq!(cluster.elect(ElectionKind::Unclean, "t0"), Ok(()));
    assert_eq!(cluster.state(log).leader, Some(NodeId(1)));
}

#[test]
fn replicas_are_exchanged_once_the_new_ones_are_in_sync() {
    let mut cluster = Cluster::of(&[1, 2, 3, 4]);
    let log = cluster.one(&[1, 2], MIN_2);
    assert_eq!(cluster.reassign("t0", None), Err(ReassignError::NoneInProgress));
    assert_eq!(cluster.reassign("nothing", Some(&[1])), Err(ReassignError::UnknownTopicOrPartition));
    for bad in [&[][..], &[3, 3], &[9]] {
        assert!(matches!(cluster.reassign("t0", Some(bad)), Err(ReassignError::BadAssignment(_))));
    }
    let narrower = Reassignment { topic: "t0".into(), partition: 0, replicas: Some(nodes(&[1])) };
    let refused = reassign_partitions(&cluster.image, &[narrower], false).reply.remove(0).2;
    assert_eq!(refused, Err(ReassignError::ReplicationFactorChanged { has: 2, wanted: 1 }));

    cluster.reassign("t0", Some(&[3, 4])).expect("begun");
    let state = cluster.state(log);
    assert_eq!(
        (&state.replicas, &state.adding, &state.removing),
        (&nodes(&[3, 4, 1, 2]), &nodes(&[3, 4]), &nodes(&[1, 2]))
    );
    assert_eq!((state.leader, &state.isr), (Some(NodeId(1)), &nodes(&[1, 2])));
    let listed = reassignments(&cluster.image, None);
    assert_eq!((listed.len(), &listed[0].adding, &listed[0].topic[..]), (1, &nodes(&[3, 4]), "t0"));
    assert_eq!(reassignments(&cluster.image, Some(&[("t0".into(), 0), ("t0".into(), 0), ("x".into(), 1)])), listed);
    cluster.in_sync(log, &[1, 2, 3]);
    assert!(cluster.state(log).is_reassigning(), "4 is missing");
    cluster.in_sync(log, &[1, 2, 3, 4]);
    let state = cluster.state(log);
    assert_eq!((&state.replicas, &state.isr, state.leader), (&nodes(&[3, 4]), &nodes(&[3, 4]), Some(NodeId(3))));
    assert!(!state.is_reassigning());
    assert_eq!(reassignments(&cluster.image, None), []);

    cluster.reassign("t0", Some(&[4, 3])).expect("another order");
    assert_eq!((&cluster.state(log).replicas, cluster.state(log).is_reassigning()), (&nodes(&[4, 3]), false));
}

#[test]
fn an_exchange_waits_until_enough_of_those_who_stay_are_in_sync() {
    let mut cluster = Cluster::of(&[1, 2, 3]);
    let log = cluster.one(&[1, 2], MIN_2);
    cluster.in_sync(log, &[1]);
    cluster.reassign("t0", Some(&[2, 3])).expect("begun");
    cluster.in_sync(log, &[1, 3]);
    assert!(cluster.state(log).is_reassigning(), "3 alone would be too few");
    cluster.in_sync(log, &[1, 2, 3]);
    assert_eq!((&cluster.state(log).replicas, cluster.state(log).leader), (&nodes(&[2, 3]), Some(NodeId(2))));
}

#[test]
fn an_exchange_can_be_called_off_or_sent_elsewhere() {
    let mut cluster = Cluster::of(&[1, 2, 3, 4]);
    let log = cluster.one(&[1, 2], &[]);
    cluster.reassign("t0", Some(&[3, 2])).expect("begun");
    let epoch = cluster.state(log).leader_epoch;
    cluster.reassign("t0", Some(&[4, 2])).expect("elsewhere");
    let state = cluster.state(log);
    assert!(state.leader_epoch > epoch, "3 deletes its log, and what the leader knew of it must not outlive that");
    assert_eq!((&state.replicas, &state.adding, &state.removing), (&nodes(&[4, 2, 1]), &nodes(&[4]), &nodes(&[1])));
    cluster.reassign("t0", None).expect("called off");
    assert_eq!((&cluster.state(log).replicas, cluster.state(log).is_reassigning()), (&nodes(&[2, 1]), false));

    cluster.reassign("t0", Some(&[3, 4])).expect("begun");
    cluster.in_sync(log, &[1, 3]);
    cluster.fence(&[1]);
    assert_eq!(cluster.state(log).leader, Some(NodeId(3)), "which is still on its way");
    assert_eq!(cluster.reassign("t0", None), Err(ReassignError::NobodyInSync));
    assert_eq!(cluster.reassign("t0", Some(&[1, 2])), Err(ReassignError::NobodyInSync));
    cluster.reassign("t0", Some(&[3, 1])).expect("a goal that keeps it");
    cluster.check_replay(None);
}

#[test]
fn new_replicas_are_spread_over_racks_and_leaders_over_brokers() {
    let mut cluster = Cluster::of(&[]);
    for (id, rack) in [(1, "a"), (2, "a"), (3, "b"), (4, "b"), (5, "c"), (6, "c")] {
        cluster.up(id, Start { rack: Some(rack.into()), ..IN_ORDER });
    }
    let wide = NewTopic { partitions: 60, replication_factor: 3, ..NewTopic::with_defaults("wide") };
    let id = cluster.carry_out(create_topics(&cluster.image, &[wide], || TopicId([50; 16])))[0]
        .1
        .as_ref()
        .expect("created")
        .id;
    let (mut leads, mut has) = (BTreeMap::new(), BTreeMap::new());
    for partition in &cluster.image.topic_by_id(id).expect("there").partitions {
        *leads.entry(partition.leader).or_insert(0) += 1;
        let rack = |node: &NodeId| cluster.image.broker(*node).expect("registered").rack.clone();
        assert_eq!(partition.replicas.iter().map(rack).collect::<BTreeSet<_>>().len(), 3, "one in each rack");
        for node in &partition.replicas {
            *has.entry(*node).or_insert(0) += 1;
        }
    }
    assert_eq!(leads.into_values().collect::<Vec<_>>(), [10; 6]);
    assert!(has.values().all(|count| (25..=35).contains(count)), "{has:?}");
}

#[test]
fn who_cannot_lead_gets_new_replicas_only_where_there_is_nobody_else() {
    let mut cluster = Cluster::of(&[1, 2, 3]);
    cluster.fence(&[2]);
    let stopping = vec![cluster.at(3)];
    cluster.carry_out(act_on_heartbeats(&cluster.image, &Verdict { stopping, ..Verdict::default() }));
    let topic =
        |partitions, replication_factor| NewTopic { partitions, replication_factor, ..NewTopic::with_defaults("t") };
    let made = create_topics(&cluster.image, &[topic(4, 1)], || TopicId([60; 16]));
    assert_eq!(made.records.len(), 5);
    for (factor, isr) in [(1, nodes(&[1])), (3, nodes(&[1]))] {
        let mut cluster =
            Cluster { image: cluster.image.clone(), entries: Vec::new(), seqs: BTreeMap::new(), starts: 0, topics: 0 };
        cluster.carry_out(create_topics(&cluster.image, &[topic(4, factor)], || TopicId([60; 16])));
        for partition in &cluster.image.topic("t").expect("created").partitions {
            assert_eq!((partition.replicas[0], &partition.isr), (NodeId(1), &isr));
            assert_eq!(partition.replicas.len(), factor as usize);
        }
    }
    let by_hand = NewTopic { assignments: vec![(0, nodes(&[2, 3]))], ..NewTopic::with_defaults("hand") };
    let refused = create_topics(&cluster.image, &[by_hand], || TopicId([61; 16])).reply.remove(0).1.unwrap_err();
    assert!(refused.to_string().contains("fenced or in controlled shutdown"), "{refused}");
    cluster.fence(&[1]);
    let refused = create_topics(&cluster.image, &[topic(1, 1)], || TopicId([62; 16])).reply.remove(0).1.unwrap_err();
    assert!(refused.to_string().contains("All brokers are currently fenced"), "{refused}");
}

#[test]
fn a_registration_that_comes_late_does_not_end_the_process_that_runs_now() {
    let mut cluster = Cluster::of(&[1, 2]);
    let log = cluster.one(&[1, 2], MIN_2);
    let another_disk = Start { directory: 71, ..CRASHED };
    // Both are killed before anybody has heard them; the second one's disk is thrown away as well.
    let late = [cluster.registration(1, CRASHED), cluster.registration(1, another_disk)];
    cluster.fence(&[1]);
    cluster.start(1, CRASHED).expect("admitted");
    let since = Err(AdmitError::RegisteredSince { present: Some(cluster.at(1).1) });
    // Fenced, which is when another directory could take its place, and not.
    assert!(late.iter().all(|late| admit_broker(&cluster.image, late) == since));
    cluster.unfence(&[1]);
    cluster.carry_out(
        alter_partitions(
            &cluster.image,
            NodeId(2),
            &AlterPartitions { broker_epoch: cluster.at(2).1, seq: 1, partitions: vec![cluster.wanted(log, &[1, 2])] },
        )
        .expect("decided"),
    );
    assert_eq!(admit_broker(&cluster.image, &late[0]), since);
    assert_eq!(admit_broker(&cluster.image, &late[1]), Err(AdmitError::Duplicate(NodeId(1))));
    assert!(cluster.state(log).isr.contains(&NodeId(1)));

    // Whoever lives asks again, after what it has learnt of.
    let mut asks = Registration { after: None, ..cluster.registration(1, CRASHED) };
    let Err(AdmitError::RegisteredSince { present }) = admit_broker(&cluster.image, &asks) else { panic!("admitted") };
    asks.after = present;
    cluster.carry_out(admit_broker(&cluster.image, &asks).expect("admitted"));
    assert!(registered_epoch(&cluster.image, NodeId(1), asks.incarnation).is_some());
    cluster.check_replay(None);
}

#[test]
fn a_broker_that_is_taken_out_leaves_its_replicas_behind_and_comes_back_as_nobody() {
    let mut cluster = Cluster::of(&[1, 2]);
    let log = cluster.one(&[1, 2], MIN_2);
    assert_eq!(unregister_broker(&cluster.image, NodeId(7)), Err(NotRegistered(NodeId(7))));
    cluster.carry_out(unregister_broker(&cluster.image, NodeId(1)).expect("registered"));
    let state = cluster.state(log);
    assert_eq!((state.leader, &state.replicas, &state.elr), (Some(NodeId(2)), &nodes(&[1, 2]), &nodes(&[1])));
    cluster.up(1, IN_ORDER);
    assert_eq!(cluster.state(log).elr, [], "nobody knows what became of its disk");
    cluster.check_replay(None);
}

#[test]
fn a_level_is_finalized_only_if_every_broker_can_work_with_it() {
    let mut cluster = Cluster::of(&[1, 2]);
    let update = |level, kind| FeatureUpdate { name: METADATA_VERSION.into(), level, kind };
    let refusal = |updates: &[FeatureUpdate]| update_features(&cluster.image, updates).unwrap_err();
    use UpdateFeaturesError::*;
    assert!(matches!(refusal(&[update(31, UpdateKind::Upgrade)]), OutOfRange { .. }));
    assert!(matches!(refusal(&[update(0, UpdateKind::UnsafeDowngrade)]), OutOfRange { .. }));
    assert!(matches!(refusal(&[update(-1, UpdateKind::Upgrade)]), Negative { .. }));
    let same = update(30, UpdateKind::Upgrade);
    assert!(matches!(refusal(&[same.clone(), same.clone()]), Repeated(_)));
    let other = FeatureUpdate { name: "share.version".into(), ..same.clone() };
    assert!(matches!(refusal(&[same.clone(), other]), Unsupported { .. }));
    assert_eq!(update_features(&cluster.image, std::slice::from_ref(&same)).expect("nothing to do").records, []);

    let old = Registration {
        node: NodeId(3),
        incarnation: [3; 16],
        directory_id: [3; 16],
        rack: None,
        listeners: Vec::new(),
        clean: true,
        lost: Lost::NOTHING,
        replication_address: None,
        features: BTreeMap::from([(METADATA_VERSION.to_owned(), 20..=29)]),
        after: None,
    };
    let refused = admit_broker(&cluster.image, &old);
    assert_eq!(refused, Err(AdmitError::UnsupportedVersion { level: 30, min: 20, max: 29 }));
    cluster.carry_out(register_broker(&old));
    assert!(matches!(update_features(&cluster.image, &[same]), Err(Broker { broker: NodeId(3), .. })));
}
