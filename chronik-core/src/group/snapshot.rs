//! Keeping a coordinator's log short: when most of it is dead, everything live is appended again, and what lies before is
//! dropped.
//!
//! The copy is made in parts, each when the one before it is committed, so it neither holds the groups up nor fills the
//! queue to the log:
//!
//! ```text
//!            begins                                           the last part is committed: drop what is before `begins`
//!   ─ dead ─┬┴ part 1 ─ commit ─ part 2 ─ commit ─ commit ─ part 3 ┤
//! ```
//!
//! **Why nothing is lost.** A part holds each of its keys as the newest decision has it, also one that is still on its
//! way; later decisions come behind it in the log. So from `begins` on the log has every key that was live when the copy
//! began: in its part, or in a later record of its own, a tombstone included. A crash before the last part is committed
//! leaves the whole log, in which the parts only say again what is so; after it, both forms say the same.

use super::coordinator::{Coordinator, Effect};
use super::journal::{BATCH_BYTES, Then};
use super::records::Change;
use crate::ids::Offset;
use std::collections::BTreeMap;
use std::ops::Bound;

/// When copies are made, and in what parts.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// A log that is smaller is left alone: it is read back in some ten milliseconds.
    pub log_bytes_min: u64,
    /// About the bytes of a part: little enough to be held twice for a moment.
    pub part_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { log_bytes_min: 4 << 20, part_bytes: BATCH_BYTES }
    }
}

/// A copy is worthwhile when the log has so many times the live bytes: then it costs a quarter of what was written since.
const LOG_PER_LIVE: u64 = 4;

/// A record's key, in the order of the copy: a group, then its offsets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    group: String,
    /// `None`: the group's generation.
    offset: Option<(String, i32)>,
}

impl Place {
    fn of(change: &Change) -> Self {
        match change {
            Change::Generation { group, .. } => Self { group: group.clone(), offset: None },
            Change::Offset { group, topic, partition, .. } => {
                Self { group: group.clone(), offset: Some((topic.clone(), *partition)) }
            }
        }
    }
}

#[derive(Debug)]
enum Phase {
    /// A part is on its way that ends with this place; `None`: it is the last.
    Copying { upto: Option<Place> },
    /// What lies before is being dropped.
    Trimming,
}

#[derive(Debug)]
struct Snapshot {
    phase: Phase,
    /// Where its first part lies, once that is committed.
    begins: Option<Offset>,
    /// What the log had when it began.
    bytes_before: u64,
}

/// The copy that is under way, if any.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    current: Option<Snapshot>,
    /// After a failure the log must have grown to this before it is tried again.
    not_below_bytes: u64,
}

impl<K> Coordinator<K> {
    pub(super) fn snapshot_if_worthwhile(&mut self) {
        let (log_bytes, live_bytes) = self.log_bytes();
        let threshold = self
            .settings
            .snapshot
            .log_bytes_min
            .max(live_bytes.saturating_mul(LOG_PER_LIVE))
            .max(self.snapshots.not_below_bytes);
        if self.snapshots.current.is_none() && log_bytes > threshold {
            self.snapshots.current =
                Some(Snapshot { phase: Phase::Copying { upto: None }, begins: None, bytes_before: log_bytes });
            self.copy_part(None);
        }
    }

    /// The part on its way is committed; its first record at this offset.
    pub(super) fn snapshot_goes_on(&mut self, at: Offset) {
        let Some(snapshot) = &mut self.snapshots.current else { return };
        let begins = *snapshot.begins.get_or_insert(at);
        match std::mem::replace(&mut snapshot.phase, Phase::Trimming) {
            Phase::Copying { upto: Some(place) } => self.copy_part(Some(place)),
            Phase::Copying { upto: None } | Phase::Trimming => self.effects.push_back(Effect::Trim { upto: begins }),
        }
    }

    pub(super) fn snapshot_failed(&mut self) {
        self.snapshots.current = None;
        self.snapshots.not_below_bytes = self.journal.log_bytes + self.settings.snapshot.log_bytes_min;
    }

    /// What lay before the snapshot has been dropped, or could not be.
    pub fn trimmed(&mut self, dropped: bool) {
        match self.snapshots.current.take() {
            Some(snapshot) if dropped => {
                self.journal.log_bytes = self.journal.log_bytes.saturating_sub(snapshot.bytes_before);
                self.snapshots.not_below_bytes = 0;
            }
            _ => self.snapshot_failed(),
        }
    }

    /// Sends the part behind `after` to the log.
    fn copy_part(&mut self, after: Option<Place>) {
        let mut part: BTreeMap<Place, Change> = BTreeMap::new();
        let mut bytes = 0;
        let mut upto = None;
        for change in self.committed_after(after.as_ref()) {
            let place = Place::of(&change);
            bytes += change.weight_bytes();
            part.insert(place.clone(), change);
            if bytes >= self.settings.snapshot.part_bytes {
                upto = Some(place);
                break;
            }
        }
        let behind = |place: &Place| after.as_ref().is_none_or(|after| place > after);
        let within = |place: &Place| upto.as_ref().is_none_or(|upto| place <= upto);
        for change in self.journal.in_flight() {
            let place = Place::of(change);
            if behind(&place) && within(&place) {
                // The newest decides; where it forgets, its own tombstone says so.
                match change {
                    Change::Offset { committed: None, .. } | Change::Generation { stored: None, .. } => {
                        part.remove(&place);
                    }
                    _ => drop(part.insert(place, change.clone())),
                }
            }
        }
        if let Some(snapshot) = &mut self.snapshots.current {
            snapshot.phase = Phase::Copying { upto };
        }
        // A part may be empty, as that of a coordinator which has nothing live: its batch cannot, so a tombstone of
        // something that never was stands in for it.
        let mut changes: Vec<Change> = part.into_values().collect();
        if changes.is_empty() {
            changes.push(Change::Generation { group: String::new(), stored: None });
        }
        self.write(None, changes, Then::Snapshot);
    }

    /// What is committed, behind a place.
    fn committed_after(&self, after: Option<&Place>) -> impl Iterator<Item = Change> {
        let first = after.map_or(Bound::Unbounded, |place| Bound::Included(place.group.as_str()));
        self.groups.range::<str, _>((first, Bound::Unbounded)).flat_map(move |(id, group)| {
            let within = after.filter(|place| place.group == *id);
            let stored = group.stored.as_ref().filter(|_| within.is_none());
            let stored =
                stored.map(|stored| Change::Generation { group: id.clone(), stored: Some(Box::new(stored.clone())) });
            let from = within.and_then(|place| place.offset.as_ref()).map(|(topic, partition)| (&**topic, *partition));
            let offsets = group.offsets.iter_after(from).map(move |(topic, partition, committed)| Change::Offset {
                group: id.clone(),
                topic: topic.to_owned(),
                partition,
                committed: Some(committed.clone()),
            });
            stored.into_iter().chain(offsets)
        })
    }
}
