//! What is proved of the simulator itself, and a few stories, quickly; thousands are told by the executable.

use chronik_sim::trace::Telling;
use chronik_sim::world::run;

#[test]
fn the_same_seed_tells_the_same_story_and_another_seed_another() {
    let [one, again, other] = [7, 7, 8].map(|seed| run(seed, Telling::Silent));
    assert_eq!((one.trace_hash, one.turns), (again.trace_hash, again.turns));
    assert_ne!(one.trace_hash, other.trace_hash);
}

#[test]
fn a_few_stories_end_well_and_are_worth_telling() {
    let (mut acknowledged, mut faults, mut elections) = (0, 0, 0);
    for seed in 0..8 {
        let outcome = run(seed, Telling::Silent);
        assert_eq!(outcome.violation, None, "seed {seed}: {}", outcome.described);
        let seen = |name| outcome.seen.get(name).copied().unwrap_or(0);
        acknowledged += seen("acknowledged with acks=all");
        elections += seen("leader elected");
        faults += outcome.faults.values().sum::<u64>();
    }
    assert!(acknowledged > 1_000 && faults > 20 && elections > 5, "{acknowledged} {faults} {elections}");
}
