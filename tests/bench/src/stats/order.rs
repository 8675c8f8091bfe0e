//! Who has a turn when: all candidates in every round, in an order that is random and balanced.
//!
//! What a turn leaves behind (a warm cache, dirty pages, a hot processor) falls to whoever comes next, and a machine drifts. So
//! rounds come in blocks that are Latin squares after Williams: within a block everybody has every place, and comes after
//! everybody else, equally often. Which candidate has which row, and the order of the rounds, are drawn.

use crate::stats::Dice;
use std::collections::VecDeque;

/// See the module's head.
pub struct Order {
    candidates: usize,
    dice: Dice,
    ahead: VecDeque<Vec<usize>>,
}

impl Order {
    pub fn new(candidates: usize, seed: u64) -> Self {
        Self { candidates, dice: Dice(seed), ahead: VecDeque::new() }
    }

    /// The next round's turns.
    pub fn next_round(&mut self) -> Vec<usize> {
        if self.ahead.is_empty() {
            self.draw_block();
        }
        self.ahead.pop_front().unwrap_or_default()
    }

    fn draw_block(&mut self) {
        let count = self.candidates;
        let mut names: Vec<usize> = (0..count).collect();
        shuffle(&mut names, &mut self.dice);
        // 0, 1, n-1, 2, n-2, …: the steps between neighbours are all different.
        let first: Vec<usize> =
            (0..count).map(|at| if at % 2 == 1 { at.div_ceil(2) } else { (count - at / 2) % count.max(1) }).collect();
        let mut square: Vec<Vec<usize>> =
            (0..count).map(|row| first.iter().map(|place| names[(place + row) % count]).collect()).collect();
        shuffle(&mut square, &mut self.dice);
        // With an odd number everybody's neighbours are only balanced together with the mirrored square.
        if count % 2 == 1 && count > 1 {
            let mut mirrored: Vec<Vec<usize>> =
                square.iter().map(|round| round.iter().rev().copied().collect()).collect();
            shuffle(&mut mirrored, &mut self.dice);
            square.extend(mirrored);
        }
        self.ahead.extend(square);
    }
}

fn shuffle<T>(items: &mut [T], dice: &mut Dice) {
    for last in (1..items.len()).rev() {
        let other = usize::try_from(dice.roll(last as u64 + 1)).unwrap_or(0);
        items.swap(last, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn rounds(candidates: usize, count: usize, seed: u64) -> Vec<Vec<usize>> {
        let mut order = Order::new(candidates, seed);
        (0..count).map(|_| order.next_round()).collect()
    }

    #[test]
    fn every_round_has_everybody_once() {
        for candidates in 1..8 {
            for mut round in rounds(candidates, 30, 7) {
                round.sort_unstable();
                assert_eq!(round, (0..candidates).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn within_a_block_every_place_and_every_neighbour_is_had_equally_often() {
        for candidates in 2..8 {
            let block = if candidates % 2 == 0 { candidates } else { 2 * candidates };
            for seed in 0..20 {
                let (mut places, mut after) = (BTreeMap::new(), BTreeMap::new());
                for round in rounds(candidates, block, seed) {
                    for (place, who) in round.iter().enumerate() {
                        *places.entry((place, *who)).or_insert(0) += 1;
                    }
                    for pair in round.windows(2) {
                        *after.entry((pair[0], pair[1])).or_insert(0) += 1;
                    }
                }
                assert_eq!(places.len(), candidates * candidates);
                assert!(places.values().all(|times| *times == block / candidates), "seed {seed}: {places:?}");
                assert_eq!(after.len(), candidates * (candidates - 1));
                assert!(after.values().all(|times| *times == block / candidates), "seed {seed}: {after:?}");
            }
        }
    }

    #[test]
    fn the_order_is_the_seeds() {
        assert_eq!(rounds(5, 40, 1), rounds(5, 40, 1));
        assert_ne!(rounds(5, 40, 1), rounds(5, 40, 2));
        let first: std::collections::BTreeSet<_> = (0..40).map(|seed| rounds(3, 1, seed)).collect();
        assert!(first.len() > 3, "it is drawn who begins");
    }
}
