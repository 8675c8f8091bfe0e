//! When to stand for election: drawn from our seed, so that a story can be told again.
//!
//! The `raft` crate draws from a generator of the thread, at every reset. Its draw is replaced before each tick, which is
//! the only time it is looked at, by one that depends on the seed, the node, the term and the count of resets. A reset
//! cannot be seen directly, but every one changes the term, the role or the leader.

use super::members::RaftId;
use raft::StateRole;

#[derive(Debug)]
pub(super) struct Timeouts {
    seed: u64,
    id: RaftId,
    /// At least, in ticks; less than twice as many at most.
    base: usize,
    last: (u64, u8, u64),
    resets: u64,
}

impl Timeouts {
    pub(super) fn new(seed: u64, id: RaftId, base: usize) -> Self {
        Self { seed, id, base, last: (0, 0, 0), resets: 0 }
    }

    /// Looks whether there was a reset.
    pub(super) fn observe(&mut self, term: u64, role: StateRole, leader: u64) {
        let role = match role {
            StateRole::Follower => 0,
            StateRole::PreCandidate => 1,
            StateRole::Candidate => 2,
            StateRole::Leader => 3,
        };
        if self.last != (term, role, leader) {
            self.last = (term, role, leader);
            self.resets += 1;
        }
    }

    /// Ticks, the same until the next reset.
    pub(super) fn ticks(&self) -> usize {
        let mut mixed = self.seed;
        for part in [self.id.get(), self.last.0, self.resets] {
            mixed = mix(mixed ^ part);
        }
        self.base + (mixed % self.base as u64) as usize
    }
}

/// Splitmix64's step (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators").
fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
