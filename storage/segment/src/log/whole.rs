//! Which bytes of a log's files are known to be whole: written in this life of the log from memory that was checked, or
//! read since and found to have their checksums.
//!
//! What the device does to bytes that memory has let go of is not known here: who goes by this looks whether memory still
//! holds them. A segment that a cut shortens goes by another number from then on, so that nothing known of what was cut can
//! be taken for what is written in its place; a cut forgets all of it.

use std::ops::Range;

/// A range per segment is the rule, and two while somebody reads what an earlier life has written. With more, the shortest
/// is forgotten, and read once more when it is asked for.
const RANGES_MAX: usize = 16;

/// By the numbers of their segments; no two ranges of one segment touch.
#[derive(Debug, Default)]
pub(super) struct Whole(Vec<(u64, Range<u64>)>);

impl Whole {
    pub fn add(&mut self, segment: u64, range: Range<u64>) {
        let mut range = range;
        self.0.retain(|(number, known)| {
            let touches = *number == segment && known.start <= range.end && range.start <= known.end;
            if touches {
                range = range.start.min(known.start)..range.end.max(known.end);
            }
            !touches
        });
        self.0.push((segment, range));
        if self.0.len() > RANGES_MAX {
            let bytes = |(_, range): &(u64, Range<u64>)| range.end - range.start;
            let shortest = (0..self.0.len()).min_by_key(|place| bytes(&self.0[*place]));
            shortest.map(|place| self.0.swap_remove(place));
        }
    }

    /// How far the bytes from `position` on are known to be whole.
    pub fn reach(&self, segment: u64, position: u64) -> u64 {
        let known = self.0.iter().find(|(number, range)| *number == segment && range.contains(&position));
        known.map_or(position, |(_, range)| range.end)
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_become_one_and_others_stay_apart() {
        let mut whole = Whole::default();
        whole.add(1, 0..10);
        whole.add(1, 20..30);
        whole.add(2, 10..20);
        assert_eq!((whole.reach(1, 0), whole.reach(1, 10), whole.reach(2, 12)), (10, 10, 20));
        whole.add(1, 10..20);
        assert_eq!((whole.reach(1, 0), whole.reach(1, 29), whole.reach(1, 30)), (30, 30, 30));
        assert_eq!(whole.0.len(), 2);
        whole.clear();
        assert_eq!(whole.reach(1, 5), 5);
    }

    #[test]
    fn of_too_many_ranges_the_shortest_is_forgotten() {
        let mut whole = Whole::default();
        for segment in 0..RANGES_MAX as u64 {
            whole.add(segment, 0..10 + segment);
        }
        whole.add(100, 0..1000);
        assert_eq!(whole.0.len(), RANGES_MAX);
        assert_eq!((whole.reach(0, 0), whole.reach(1, 0), whole.reach(100, 0)), (0, 11, 1000));
    }
}
