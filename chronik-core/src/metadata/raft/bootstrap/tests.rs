//! Beginnings, and what must not become two of them.

use super::*;
use crate::dice::{Dice, Seed};

fn member(node: u8, disk: u8) -> Member {
    Member::new(NodeId(node.into()), [disk; 16], format!("node-{node}:9093")).expect("well formed")
}

fn nodes() -> [NodeId; 3] {
    [NodeId(1), NodeId(2), NodeId(3)]
}

fn node(number: u8, begin: Option<&str>, found: Found) -> Bootstrap {
    let begin = begin.map(str::to_owned);
    Bootstrap::new(Monotonic::default(), member(number, number), nodes(), begin, found).expect("a good configuration")
}

fn effects(machine: &mut Bootstrap) -> Vec<FirstEffect> {
    std::iter::from_fn(|| machine.poll_effect()).collect()
}

fn hear(machine: &mut Bootstrap, report: Report) -> Vec<FirstEffect> {
    let from = report.member().node();
    machine.handle(Monotonic::default(), FirstInput::Heard { from, report });
    effects(machine)
}

fn blank(number: u8, disk: u8, token: Option<&str>) -> Report {
    Report::Blank { member: member(number, disk), token: token.map(str::to_owned) }
}

fn plan() -> Plan {
    Plan { token: "t".into(), voters: (1..=3).map(|number| member(number, number)).collect() }
}

fn prepared(number: u8, plan: Plan) -> Report {
    Report::Prepared { member: member(number, number), plan }
}

#[test]
fn a_cluster_begins_when_all_have_written_the_same() {
    let mut one = node(1, Some("t"), Found::Blank);
    one.handle(Monotonic::default(), FirstInput::Tick);
    assert_eq!(effects(&mut one), [FirstEffect::Ask { node: NodeId(2) }, FirstEffect::Ask { node: NodeId(3) }]);
    assert_eq!(hear(&mut one, blank(2, 2, Some("t"))), []);
    let value = plan().to_bytes().into();
    assert_eq!(hear(&mut one, blank(3, 3, Some("t"))), [FirstEffect::Persist { value }]);
    assert!(matches!(one.report(), Report::Blank { .. }), "it is not written yet");
    one.handle(Monotonic::default(), FirstInput::Persisted);
    assert_eq!(one.report(), prepared(1, plan()));
    assert_eq!(hear(&mut one, prepared(2, plan())), []);
    assert_eq!(hear(&mut one, prepared(3, plan())), [FirstEffect::Begin { voters: plan().voters }]);
}

#[test]
fn one_that_nobody_told_to_begin_holds_the_others_up() {
    let mut one = node(1, Some("t"), Found::Blank);
    hear(&mut one, blank(2, 2, Some("t")));
    assert_eq!(hear(&mut one, blank(3, 3, None)), []);
    let mut three = node(3, None, Found::Blank);
    hear(&mut three, blank(1, 1, Some("t")));
    assert_eq!(hear(&mut three, blank(2, 2, Some("t"))), []);
}

#[test]
fn a_blank_disk_joins_what_has_begun_and_a_prepared_one_begins_with_the_others() {
    let started = |members: Members| Report::Started { member: member(2, 2), members };
    let mut one = node(1, Some("t"), Found::Blank);
    let others: Members = [member(2, 2), member(3, 3)].into_iter().collect();
    assert_eq!(hear(&mut one, started(others.clone())), [FirstEffect::Join { members: others }]);
    let mut one = node(1, Some("t"), Found::Prepared(plan()));
    assert_eq!(hear(&mut one, started(plan().voters)), [FirstEffect::Begin { voters: plan().voters }]);
    assert_eq!(hear(&mut one, started(plan().voters)), [], "once");
}

#[test]
fn what_needs_an_operator_is_said_once() {
    let is_stuck = |effects: &[FirstEffect]| matches!(effects, [FirstEffect::Stuck { .. }]);
    let mut one = node(1, Some("t"), Found::Prepared(plan()));
    assert!(is_stuck(&hear(&mut one, blank(2, 9, Some("t")))), "its disk was replaced before it began");
    assert_eq!(hear(&mut one, blank(2, 9, Some("t"))), []);
    let mut one = node(1, Some("t"), Found::Blank);
    hear(&mut one, blank(2, 2, Some("t")));
    assert!(is_stuck(&hear(&mut one, blank(3, 3, Some("another")))), "two tokens");
    let mut one = node(1, Some("t"), Found::Blank);
    hear(&mut one, blank(2, 2, Some("t")));
    assert!(is_stuck(&hear(&mut one, blank(3, 2, Some("t")))), "a directory was copied");
    let other = Plan { token: "t".into(), voters: [member(1, 8), member(2, 2), member(3, 3)].into_iter().collect() };
    let mut one = node(1, Some("t"), Found::Blank);
    hear(&mut one, blank(2, 2, Some("t")));
    assert!(is_stuck(&hear(&mut one, prepared(3, other))), "prepared with our former disk");
    let own = Bootstrap::new(Monotonic::default(), member(7, 7), nodes(), Some("t".into()), Found::Blank);
    assert_eq!(own.err(), Some(BadBootstrap::NotAVoter(NodeId(7))));
}

#[test]
fn reports_read_back_and_each_speaks_for_itself() {
    let started = Report::Started { member: member(1, 1), members: plan().voters };
    for report in [blank(1, 1, None), blank(1, 1, Some("t")), prepared(1, plan()), started] {
        assert_eq!(Report::from_bytes(&report.to_bytes()), Some(report));
    }
    assert_eq!(Report::from_bytes(&[0xff]), None);
    let mut one = node(1, Some("t"), Found::Blank);
    hear(&mut one, blank(2, 2, Some("t")));
    one.handle(Monotonic::default(), FirstInput::Heard { from: NodeId(2), report: blank(3, 3, Some("t")) });
    assert_eq!(effects(&mut one), [], "node 2 said it, not node 3");
}

/// Nodes that restart before and after they have written, and lose their disks: whoever begins, begins the same.
#[test]
fn there_is_one_beginning_whatever_happens() {
    let mut begun_by_all = 0;
    for seed in 0..300 {
        let _seed = Seed(seed);
        let mut dice = Dice(seed);
        let mut disks: [(u8, Option<Plan>, bool); 3] = [(1, None, false), (2, None, false), (3, None, false)];
        let begin = |place: usize, (disk, plan, _): &(u8, Option<Plan>, bool)| {
            let found = plan.clone().map_or(Found::Blank, Found::Prepared);
            let own = member(place as u8 + 1, *disk);
            Bootstrap::new(Monotonic::default(), own, nodes(), Some("t".into()), found).expect("good")
        };
        let mut machines: Vec<Bootstrap> = disks.iter().enumerate().map(|(place, disk)| begin(place, disk)).collect();
        let mut writing: [Option<Plan>; 3] = [None, None, None];
        let mut beginnings: Vec<Members> = Vec::new();
        let mut next_disk = 10;
        let report = |machine: &Bootstrap, started: bool, members: &[Members]| match started {
            true => Report::Started { member: machine.own.clone(), members: members[0].clone() },
            false => machine.report(),
        };
        for _ in 0..200 {
            let (place, other) = (dice.roll(3) as usize, dice.roll(3) as usize);
            match dice.roll(40) {
                0 if !disks[place].2 => machines[place] = begin(place, &disks[place]),
                1 if !disks[place].2 => {
                    disks[place] = (next_disk, None, false);
                    next_disk += 1;
                    machines[place] = begin(place, &disks[place]);
                    writing[place] = None;
                }
                2..=12 => {
                    if let Some(plan) = writing[place].take() {
                        disks[place].1 = Some(plan);
                        machines[place].handle(Monotonic::default(), FirstInput::Persisted);
                    }
                }
                _ if place != other && !disks[place].2 => {
                    let report = report(&machines[other], disks[other].2, &beginnings);
                    let from = NodeId(other as i32 + 1);
                    machines[place].handle(Monotonic::default(), FirstInput::Heard { from, report });
                }
                _ => {}
            }
            for effect in effects(&mut machines[place]) {
                match effect {
                    FirstEffect::Persist { value } => writing[place] = Plan::from_bytes(&value),
                    FirstEffect::Begin { voters } => {
                        disks[place].2 = true;
                        assert!(beginnings.iter().all(|one| *one == voters), "two beginnings");
                        beginnings.push(voters);
                    }
                    FirstEffect::Ask { .. } | FirstEffect::Join { .. } | FirstEffect::Stuck { .. } => {}
                }
            }
        }
        begun_by_all += u64::from(beginnings.len() == 3);
    }
    assert!(begun_by_all > 20, "only {begun_by_all} clusters began");
}
