//! Stories that chance tells.

use super::{Flaw, Seen, World};
use crate::dice::Seed;

/// A few, quickly; or as many as `CHRONIK_SEEDS` asks for.
fn seeds(few: u64) -> std::ops::Range<u64> {
    0..std::env::var("CHRONIK_SEEDS").ok().and_then(|many| many.parse().ok()).unwrap_or(few)
}

fn run(seed: u64, (voters, blank): (i32, i32), steps: usize, flaw: Flaw) -> World {
    let _seed = Seed(seed);
    let mut world = World::new(seed, voters, blank, flaw);
    for _ in 0..steps {
        world.step(blank > 0);
    }
    world.heal();
    world
}

#[test]
fn three_voters_keep_what_they_committed() {
    let mut seen = Seen::default();
    for seed in seeds(15) {
        seen.add(&run(seed, (3, 0), 5_000, Flaw::None).seen);
    }
    assert!(seen.commits > 700 && seen.reads > 200 && seen.installs > 0 && seen.crashes > 80, "{seen:?}");
}

#[test]
fn five_voters_keep_what_they_committed() {
    let mut seen = Seen::default();
    for seed in seeds(8) {
        seen.add(&run(seed, (5, 0), 6_000, Flaw::None).seen);
    }
    assert!(seen.commits > 300 && seen.reads > 100 && seen.crashes > 100, "{seen:?}");
}

#[test]
fn nodes_come_and_go_and_lose_their_disks_and_what_was_committed_stays() {
    let mut seen = Seen::default();
    for seed in seeds(12) {
        seen.add(&run(seed, (3, 2), 8_000, Flaw::None).seen);
    }
    assert!(seen.changes > 100 && seen.joint > 30 && seen.installs > 15 && seen.replaced > 5, "{seen:?}");
}

#[test]
fn a_lone_voter_grows_into_a_group() {
    let mut seen = Seen::default();
    for seed in seeds(10) {
        seen.add(&run(seed, (1, 3), 5_000, Flaw::None).seen);
    }
    assert!(seen.changes > 60 && seen.joint > 5 && seen.installs > 10, "{seen:?}");
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let [one, two, other] = [5, 5, 6].map(|seed| run(seed, (3, 2), 4_000, Flaw::None));
    assert_eq!(one.trace, two.trace);
    assert_ne!(one.trace, other.trace);
}

/// Whether some story goes wrong.
fn is_found_out(flaw: Flaw, size: (i32, i32)) -> bool {
    (0..30).any(|seed| std::panic::catch_unwind(|| run(seed, size, 5_000, flaw)).is_err())
}

#[test]
fn a_driver_that_reports_too_early_is_found_out() {
    assert!(is_found_out(Flaw::ReportsEarly, (3, 0)));
}

#[test]
fn a_disk_without_votes_is_found_out() {
    assert!(is_found_out(Flaw::ForgetsVotes, (3, 0)));
}

#[test]
fn a_replaced_disk_under_the_old_name_is_found_out() {
    assert!(is_found_out(Flaw::KeepsName, (3, 2)));
}
