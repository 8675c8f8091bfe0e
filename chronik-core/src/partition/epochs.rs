//! Which leader epoch wrote which offsets (KIP-101): what truncation and OffsetForLeaderEpoch rest on.

use crate::ids::{LeaderEpoch, Offset};

/// The start of each epoch that has written to a log, in order; both epochs and offsets rise strictly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    starts: Vec<(LeaderEpoch, Offset)>,
}

impl Epochs {
    /// Builds the list from `(epoch, start offset)` pairs, dropping those that do not rise.
    pub fn from_starts(starts: impl IntoIterator<Item = (LeaderEpoch, Offset)>) -> Self {
        let mut epochs = Self::default();
        starts.into_iter().for_each(|(epoch, start)| epochs.note(epoch, start));
        epochs
    }

    /// The pairs, in order.
    pub fn starts(&self) -> &[(LeaderEpoch, Offset)] {
        &self.starts
    }

    /// The last epoch that has written.
    pub fn latest(&self) -> Option<LeaderEpoch> {
        self.starts.last().map(|(epoch, _)| *epoch)
    }

    /// Notes that a batch of `epoch` begins at `base`. Only the first batch of an epoch makes a difference.
    pub fn note(&mut self, epoch: LeaderEpoch, base: Offset) {
        if self.starts.last().is_none_or(|(last, start)| *last < epoch && *start < base) {
            self.starts.push((epoch, base));
        } else if self.starts.last().is_some_and(|(last, start)| *last < epoch && *start == base) {
            // The earlier epoch wrote nothing that is still there.
            self.starts.pop();
            self.note(epoch, base);
        }
    }

    /// The epoch that wrote `offset`.
    pub fn at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.starts.partition_point(|(_, start)| *start <= offset);
        after.checked_sub(1).map(|last| self.starts[last].0)
    }

    /// For a client or follower whose last epoch is `asked`: the greatest epoch here that is not later, and the offset it
    /// ends at, which for the latest epoch is `log_end`. `None` if all epochs here are later, or there are none.
    pub fn end_of(&self, asked: LeaderEpoch, log_end: Offset) -> Option<(LeaderEpoch, Offset)> {
        let after = self.starts.partition_point(|(epoch, _)| *epoch <= asked);
        let epoch = self.starts[after.checked_sub(1)?].0;
        let end = self.starts.get(after).map_or(log_end, |(_, start)| *start);
        Some((epoch, end))
    }

    /// Forgets what lies at and behind `end`.
    pub fn truncate_suffix(&mut self, end: Offset) {
        self.starts.truncate(self.starts.partition_point(|(_, begins)| *begins < end));
    }

    /// Forgets what lies below `start`; the epoch in force there then begins at it.
    pub fn truncate_prefix(&mut self, start: Offset) {
        let after = self.starts.partition_point(|(_, begins)| *begins <= start);
        if after > 0 {
            self.starts.drain(..after - 1);
            self.starts[0].1 = start;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(starts: &[(i32, i64)]) -> Epochs {
        Epochs::from_starts(starts.iter().map(|(epoch, start)| (LeaderEpoch(*epoch), Offset(*start))))
    }

    #[test]
    fn an_epoch_ends_where_the_next_begins() {
        let history = epochs(&[(1, 0), (3, 10), (4, 25)]);
        let end = |asked| history.end_of(LeaderEpoch(asked), Offset(40)).map(|(e, o)| (e.0, o.0));
        assert_eq!(end(0), None);
        assert_eq!(end(1), Some((1, 10)));
        assert_eq!(end(2), Some((1, 10)));
        assert_eq!(end(3), Some((3, 25)));
        assert_eq!(end(9), Some((4, 40)));
        assert_eq!(history.at(Offset(24)), Some(LeaderEpoch(3)));
    }

    #[test]
    fn an_epoch_that_wrote_nothing_leaves_no_trace() {
        assert_eq!(epochs(&[(1, 0), (2, 10), (3, 10)]), epochs(&[(1, 0), (3, 10)]));
        assert_eq!(epochs(&[(1, 0), (2, 0)]), epochs(&[(2, 0)]));
    }

    #[test]
    fn a_cut_suffix_takes_the_epochs_that_began_in_it() {
        let mut history = epochs(&[(1, 0), (3, 10), (4, 25)]);
        history.truncate_suffix(Offset(26));
        assert_eq!(history, epochs(&[(1, 0), (3, 10), (4, 25)]));
        history.truncate_suffix(Offset(25));
        assert_eq!(history, epochs(&[(1, 0), (3, 10)]));
    }

    #[test]
    fn a_cut_prefix_keeps_the_epoch_in_force() {
        let mut history = epochs(&[(1, 0), (3, 10), (4, 25)]);
        history.truncate_prefix(Offset(12));
        assert_eq!(history, epochs(&[(3, 12), (4, 25)]));
    }
}
