//! Chance from a seed: the same seed, the same run of one worker.

/// Xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled"), started through
/// SplitMix64 so that neighbouring seeds differ at once.
#[derive(Clone, Debug)]
pub struct Dice(u64);

/// SplitMix64's step: a good mix of 64 bits.
pub fn mix(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Dice {
    pub fn new(seed: u64) -> Self {
        // Zero is the one state that never changes.
        Self(mix(seed).max(1))
    }

    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn byte(&mut self) -> u8 {
        (self.number() >> 56) as u8
    }

    /// Below `end`; 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.number()) * end as u128) >> 64) as usize
    }

    /// Once in `times`.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Small numbers often, those near `max` seldom; at least 1.
    pub fn small(&mut self, max: usize) -> usize {
        let magnitude = self.below(max.max(1).ilog2() as usize + 1);
        (1 + self.below(1 << magnitude)).min(max.max(1))
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_all_that_are_asked_for() {
        let draw = |seed| {
            let mut dice = Dice::new(seed);
            [dice.number(), dice.number()]
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let mut dice = Dice::new(7);
        let mut seen = [false; 6];
        (0..200).for_each(|_| seen[dice.below(6)] = true);
        assert_eq!(seen, [true; 6]);
        assert!((0..200).all(|_| (1..=5).contains(&dice.small(5))));
    }
}
