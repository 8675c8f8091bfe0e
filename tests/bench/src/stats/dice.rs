//! Chance from a seed, the same everywhere (splitmix64).

pub struct Dice(pub u64);

impl Dice {
    /// One of so many sides, from zero; none has a chance that is more than a billionth off the others'.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % sides.max(1)
    }
}
