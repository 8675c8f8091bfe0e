//! From decisions to the log and back: the one place where committed state changes.
//!
//! A command's changes are written ([`Coordinator::write`]) and wait in the journal; when the log reports them committed
//! they are applied, by the same function that applies the records of a log that is read back. So a rebuilt coordinator
//! cannot differ from the one that wrote the log.
//!
//! **What is decided meanwhile** must know what is on its way. A decision to forget (an expiry, a deletion) covers the
//! offsets that are applied and those that wait here, since the log's order is the order of decisions.

use super::coordinator::{Coordinator, Effect, GroupError, Joined, Reply};
use super::records::{Change, CommittedOffset, NotARecord};
use crate::ids::Offset;
use crate::time::Now;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Bytes of records that one command may store as a unit: a batch is written, and read back, in one piece.
pub const COMMAND_BYTES_MAX: u64 = 16 << 20;
/// Bytes of records in one batch where nothing asks for a unit: little enough to be held twice for a moment.
pub const BATCH_BYTES: u64 = 1 << 20;
/// A batch's header, as it counts in the log.
const BATCH_WEIGHT: u64 = 61;

/// What follows when records are committed.
#[derive(Debug)]
pub(super) enum Then<K> {
    Nothing,
    Answer(K),
    /// The members may have the assignments of this generation.
    Assign {
        generation: i32,
    },
    AnswerJoin {
        key: K,
        joined: Box<Joined>,
    },
    /// The snapshot goes on.
    Snapshot,
}

#[derive(Debug)]
struct InFlight<K> {
    /// Whose changes they are; `None`: a snapshot's.
    group: Option<String>,
    changes: Vec<Change>,
    then: Then<K>,
}

/// A group's writes on their way: how many, and the last of them.
#[derive(Debug)]
struct Busy {
    writes: usize,
    last: u64,
}

/// What is on its way to the log, and how much lies there.
#[derive(Debug)]
pub(super) struct Journal<K> {
    in_flight: BTreeMap<u64, InFlight<K>>,
    next_ticket: u64,
    /// Groups with changes on their way.
    busy: BTreeMap<String, Busy>,
    /// Who reads what is written by a ticket or one before it, once that is decided.
    readers: BTreeMap<u64, Vec<K>>,
    /// About the bytes of the log, and of those in it that are live.
    pub log_bytes: u64,
    pub live_bytes: u64,
    live_records: usize,
}

impl<K> Default for Journal<K> {
    fn default() -> Self {
        Self {
            in_flight: BTreeMap::new(),
            next_ticket: 0,
            busy: BTreeMap::new(),
            readers: BTreeMap::new(),
            log_bytes: 0,
            live_bytes: 0,
            live_records: 0,
        }
    }
}

impl<K> Journal<K> {
    /// Whether changes of the group are on their way.
    pub fn is_busy(&self, group: &str) -> bool {
        self.busy.contains_key(group)
    }

    /// All changes on their way, in the log's order; a snapshot's own are none.
    pub fn in_flight(&self) -> impl Iterator<Item = &Change> {
        self.in_flight.values().filter(|in_flight| in_flight.group.is_some()).flat_map(|in_flight| &in_flight.changes)
    }

    /// Offsets of the group that are on their way to be committed or forgotten: topic and partition.
    pub fn offsets_in_flight<'a>(&'a self, group: &'a str) -> impl Iterator<Item = (&'a str, i32)> {
        let changes = self.in_flight.values().filter(move |in_flight| in_flight.group.as_deref() == Some(group));
        changes.flat_map(|in_flight| &in_flight.changes).filter_map(|change| match change {
            Change::Offset { topic, partition, .. } => Some((topic.as_str(), *partition)),
            Change::Generation { .. } => None,
        })
    }

    fn live(&mut self, change: &Change) {
        self.live_bytes += change.weight_bytes();
        self.live_records += 1;
    }

    fn dead(&mut self, change: &Change) {
        self.live_bytes = self.live_bytes.saturating_sub(change.weight_bytes());
        self.live_records = self.live_records.saturating_sub(1);
    }
}

impl<K> Coordinator<K> {
    /// Sends changes to the log as one batch.
    pub(super) fn write(&mut self, group: Option<&str>, changes: Vec<Change>, then: Then<K>) {
        let journal = &mut self.journal;
        let ticket = journal.next_ticket;
        journal.next_ticket += 1;
        journal.log_bytes += BATCH_WEIGHT + changes.iter().map(Change::weight_bytes).sum::<u64>();
        if let Some(group) = group {
            match journal.busy.get_mut(group) {
                Some(busy) => *busy = Busy { writes: busy.writes + 1, last: ticket },
                None => drop(journal.busy.insert(group.to_owned(), Busy { writes: 1, last: ticket })),
            }
        }
        let records = changes.iter().map(Change::encode).collect();
        journal.in_flight.insert(ticket, InFlight { group: group.map(str::to_owned), changes, then });
        self.effects.push_back(Effect::Write { ticket, records });
    }

    /// As [`Coordinator::write`], in several batches if they are many; what follows follows the last.
    pub(super) fn write_in_parts(&mut self, group: &str, changes: Vec<Change>, then: Then<K>) {
        let mut part = Vec::new();
        let mut bytes = 0;
        for change in changes {
            let weight = change.weight_bytes();
            if bytes + weight > BATCH_BYTES && !part.is_empty() {
                self.write(Some(group), std::mem::take(&mut part), Then::Nothing);
                bytes = 0;
            }
            bytes += weight;
            part.push(change);
        }
        self.write(Some(group), part, then);
    }

    /// The records of a ticket are committed; the first of them at this offset.
    pub fn committed(&mut self, ticket: u64, at: Offset, now: Now) {
        let Some(InFlight { group, changes, then }) = self.take(ticket) else { return };
        if group.is_some() {
            changes.into_iter().for_each(|change| self.apply(change));
        }
        match then {
            Then::Nothing => {}
            Then::Answer(key) => self.reply(key, Reply::Stored(Ok(()))),
            Then::AnswerJoin { key, joined } => self.reply(key, Reply::Joined(*joined)),
            Then::Assign { generation } => {
                let id = group.as_deref().unwrap_or_default();
                self.with_group(id, |this, id, group| this.generation_stored(now, id, group, generation));
            }
            Then::Snapshot => self.snapshot_goes_on(at),
        }
        if let Some(group) = group {
            self.settle(&group);
        }
        self.answer_readers(ticket);
        self.snapshot_if_worthwhile();
    }

    /// The records of a ticket could not be stored, or perhaps not.
    pub fn failed(&mut self, ticket: u64, now: Now) {
        let Some(InFlight { group, then, .. }) = self.take(ticket) else { return };
        match then {
            Then::Nothing => {}
            Then::Answer(key) => self.reply(key, Reply::Stored(Err(GroupError::NotAvailable))),
            Then::AnswerJoin { key, joined } => {
                let error = Some(GroupError::NotAvailable);
                self.reply(key, Reply::Joined(Joined { error, ..*joined }));
            }
            Then::Assign { generation } => {
                let id = group.as_deref().unwrap_or_default();
                self.with_group(id, |this, id, group| this.generation_not_stored(now, id, group, generation));
            }
            Then::Snapshot => self.snapshot_failed(),
        }
        if let Some(group) = group {
            self.settle(&group);
        }
        self.answer_readers(ticket);
    }

    fn take(&mut self, ticket: u64) -> Option<InFlight<K>> {
        let in_flight = self.journal.in_flight.remove(&ticket)?;
        if let Some(group) = &in_flight.group
            && let Some(busy) = self.journal.busy.get_mut(group)
        {
            busy.writes -= 1;
            if busy.writes == 0 {
                self.journal.busy.remove(group);
            }
        }
        Some(in_flight)
    }

    /// Answers `key` when the group's writes that are on their way are decided: whoever reads then reads what was asked for
    /// before. `key` comes back if there are none.
    pub fn when_settled(&mut self, group: &str, key: K) -> Option<K> {
        match self.journal.busy.get(group) {
            Some(busy) => self.journal.readers.entry(busy.last).or_default().push(key),
            None => return Some(key),
        }
        None
    }

    fn answer_readers(&mut self, ticket: u64) {
        for key in self.journal.readers.remove(&ticket).into_iter().flatten() {
            self.reply(key, Reply::Stored(Ok(())));
        }
    }

    /// Makes a committed change. The only place where committed offsets and generations change.
    fn apply(&mut self, change: Change) {
        match &change {
            Change::Offset { committed: None, .. } | Change::Generation { stored: None, .. } => {}
            live => self.journal.live(live),
        }
        match change {
            Change::Offset { group, topic, partition, committed } => {
                let before = match committed {
                    Some(committed) => match self.groups.get_mut(&group) {
                        Some(group) => group.offsets.insert(&topic, partition, committed),
                        None => {
                            self.groups.entry(group.clone()).or_default().offsets.insert(&topic, partition, committed)
                        }
                    },
                    None => self.groups.get_mut(&group).and_then(|group| group.offsets.remove(&topic, partition)),
                };
                if let Some(before) = before {
                    self.journal.dead(&Change::Offset { group, topic, partition, committed: Some(before) });
                }
            }
            Change::Generation { group, stored } => {
                let before = match stored {
                    Some(stored) => self.groups.entry(group.clone()).or_default().stored.replace(*stored),
                    None => self.groups.get_mut(&group).and_then(|known| known.stored.take()),
                };
                if let Some(before) = before {
                    self.journal.dead(&Change::Generation { group, stored: Some(Box::new(before)) });
                }
            }
        }
    }

    /// Takes a record that was read back from the log. Call [`Coordinator::loaded`] when all have been.
    pub fn replay(&mut self, key: Bytes, value: Option<Bytes>) -> Result<(), NotARecord> {
        let change = Change::decode(key, value)?;
        self.journal.log_bytes += BATCH_WEIGHT + change.weight_bytes();
        self.apply(change);
        Ok(())
    }

    /// All records have been replayed: the groups take up their last generation, and members their sessions. Offsets of
    /// topics for which `is_gone` (its name, and its id if the record tells) are forgotten: a crash may have come
    /// between a topic's deletion and theirs.
    pub fn loaded(&mut self, now: Now, is_gone: impl Fn(&str, &CommittedOffset) -> bool) {
        self.groups.retain(|_, group| !group.is_unrecorded());
        let ids: Vec<String> = self.groups.keys().cloned().collect();
        for id in ids {
            self.with_group(&id, |this, id, group| {
                group.restore(now.monotonic);
                this.arm_for(id, group);
            });
            let gone = |(topic, partition, committed): (&str, i32, &CommittedOffset)| {
                is_gone(topic, committed).then(|| (topic.to_owned(), partition))
            };
            let gone: Vec<_> = self.groups[&id].offsets.iter().filter_map(gone).collect();
            if !gone.is_empty() {
                self.forget_offsets(&id, gone, Then::Nothing);
            }
        }
        self.snapshot_if_worthwhile();
    }

    /// How many offsets and generations are committed.
    pub fn live_records(&self) -> usize {
        self.journal.live_records
    }

    /// About the bytes of the log since it was last trimmed, and of those in it that are live.
    pub fn log_bytes(&self) -> (u64, u64) {
        (self.journal.log_bytes, self.journal.live_bytes)
    }
}
