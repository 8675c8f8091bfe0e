//! Proposals that are decided together and become one entry.

use crate::metadata::ProposeError;
use crate::metadata::writer::{CHANGE_BYTES_MAX, Outcome, Proposal, RECORD_OVERHEAD_BYTES, TURN_BYTES};
use chronik_core::ids::{LeaderEpoch, Offset};
use chronik_core::metadata::{Delta, Entry, Image, Position, Record};

/// See the module's head.
pub struct Turn {
    /// With everything decided so far.
    pub image: Image,
    pub records: Vec<Record>,
    pub decided: Vec<(Box<dyn Proposal>, Outcome)>,
    at: (Offset, LeaderEpoch),
    bytes: usize,
}

impl Turn {
    /// For the entry at this place.
    pub fn new(image: &Image, at: (Offset, LeaderEpoch)) -> Self {
        Self { image: image.clone(), records: Vec::new(), decided: Vec::new(), at, bytes: 0 }
    }

    pub fn len(&self) -> usize {
        self.decided.len()
    }

    pub fn is_full(&self) -> bool {
        self.bytes >= TURN_BYTES
    }

    /// Decides one proposal. One with too many records is refused, and so is one that contradicts the image.
    pub fn take(&mut self, mut proposal: Box<dyn Proposal>) {
        let records = proposal.decide(&self.image);
        let bytes: usize = records.iter().map(|record| record.to_bytes().len() + RECORD_OVERHEAD_BYTES).sum();
        let outcome = if bytes > CHANGE_BYTES_MAX {
            Err(ProposeError::TooLarge { bytes, max: CHANGE_BYTES_MAX })
        } else {
            self.speculate(&records)
        };
        if outcome.is_ok() {
            self.bytes += bytes;
            self.records.extend(records);
        }
        self.decided.push((proposal, outcome));
    }

    /// Applies to what the next decision will see; all of the records or none. All are of the same entry.
    fn speculate(&mut self, records: &[Record]) -> Outcome {
        if records.is_empty() {
            return Ok(());
        }
        let (next, epoch) = self.at;
        let mut image = self.image.clone().at(Position { next, epoch });
        match image.apply_entry(next, epoch, records, &mut Delta::default()) {
            Ok(Entry::Applied) => {
                self.image = image;
                Ok(())
            }
            Ok(Entry::Discarded(_)) => Err(ProposeError::Unknown),
            Err(why) => Err(ProposeError::Flawed(why)),
        }
    }
}
