//! The log in memory, as Raft reads it: every entry since the last cut, and the snapshot that stands for what was cut.
//!
//! Bounded, since a snapshot is asked for once entries have come to a few megabytes, and what is not committed is bounded
//! too. What is here need not be durable yet: the machine does not tell anyone before it is.

use super::configuration::Configuration;
use super::snapshot::Snapshot;
use bytes::Bytes;
use raft::eraftpb::{self, EntryType};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::cell::Cell;
use std::collections::VecDeque;

/// An entry's place: its index and the term it was written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    pub index: u64,
    pub term: u64,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A new leader's first entry, or one whose content Raft refused.
    Empty,
    /// A proposer's bytes; never empty.
    Data(Bytes),
    /// A change of the configuration; empty to leave a joint one.
    Membership(Bytes),
}

impl Content {
    pub fn bytes_len(&self) -> usize {
        match self {
            Content::Empty => 0,
            Content::Data(bytes) | Content::Membership(bytes) => bytes.len(),
        }
    }
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub at: Mark,
    pub content: Content,
}

impl Entry {
    pub(super) fn to_raft(&self) -> eraftpb::Entry {
        let mut entry = eraftpb::Entry { index: self.at.index, term: self.at.term, ..eraftpb::Entry::default() };
        match &self.content {
            Content::Empty => {}
            Content::Data(bytes) => entry.data = bytes.clone(),
            Content::Membership(bytes) => {
                entry.set_entry_type(EntryType::EntryConfChangeV2);
                entry.data = bytes.clone();
            }
        }
        entry
    }

    /// What else a Raft entry could hold has been refused at the door (see `check`).
    pub(super) fn from_raft(entry: &eraftpb::Entry) -> Entry {
        let content = match entry.get_entry_type() {
            EntryType::EntryNormal if entry.data.is_empty() => Content::Empty,
            EntryType::EntryNormal => Content::Data(entry.data.clone()),
            EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => Content::Membership(entry.data.clone()),
        };
        Entry { at: Mark { index: entry.index, term: entry.term }, content }
    }
}

/// Bytes that an entry is reckoned at, its fields included.
pub(super) fn cost_bytes(entry: &eraftpb::Entry) -> usize {
    // Two numbers, lengths and tags.
    entry.data.len() + entry.context.len() + 32
}

/// See the module's head.
pub(super) struct Entries {
    /// The last entry that was cut off; index zero if none was.
    cut: Mark,
    entries: VecDeque<eraftpb::Entry>,
    bytes: usize,
    snapshot: Option<Snapshot>,
    initial: RaftState,
    /// Somebody needs a snapshot that names them, and this one does not.
    wanted: Cell<bool>,
}

impl Entries {
    /// The caller has checked that entries follow on the cut, and reach to the snapshot.
    pub(super) fn new(
        hard_state: eraftpb::HardState,
        snapshot: Option<Snapshot>,
        cut: Mark,
        entries: impl IntoIterator<Item = eraftpb::Entry>,
    ) -> Self {
        let configuration = snapshot.as_ref().map(|snapshot| snapshot.configuration.clone()).unwrap_or_default();
        let entries: VecDeque<_> = entries.into_iter().collect();
        let bytes = entries.iter().map(cost_bytes).sum();
        let initial = RaftState { hard_state, conf_state: configuration.to_raft() };
        Self { cut, entries, bytes, snapshot, initial, wanted: Cell::new(false) }
    }

    pub(super) fn cut(&self) -> Mark {
        self.cut
    }

    pub(super) fn last_index(&self) -> u64 {
        self.cut.index + self.entries.len() as u64
    }

    pub(super) fn snapshot_index(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.at.index)
    }

    /// Bytes and number of all entries held.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.bytes, self.entries.len())
    }

    pub(super) fn take_wanted(&self) -> bool {
        self.wanted.take()
    }

    pub(super) fn term_at(&self, index: u64) -> Option<u64> {
        match index.checked_sub(self.cut.index)? {
            0 => Some(self.cut.term),
            place => self.entries.get(place as usize - 1).map(|entry| entry.term),
        }
    }

    /// Takes entries in, over what was at their places and after. Raft gives them in order and without gaps.
    pub(super) fn append(&mut self, entries: &[eraftpb::Entry]) {
        let Some(first) = entries.first() else { return };
        while self.last_index() >= first.index {
            let Some(last) = self.entries.pop_back() else { break };
            self.bytes -= cost_bytes(&last);
        }
        for entry in entries {
            self.bytes += cost_bytes(entry);
            self.entries.push_back(entry.clone());
        }
    }

    /// Begins anew from a leader's snapshot.
    pub(super) fn restore(&mut self, snapshot: Snapshot) {
        self.entries.clear();
        self.bytes = 0;
        self.cut = snapshot.at;
        self.snapshot = Some(snapshot);
    }

    /// Takes a snapshot of our own, and forgets entries up to `cut`, which it stands for.
    pub(super) fn compact(&mut self, snapshot: Snapshot, cut: Mark) {
        if snapshot.at.index <= self.snapshot_index() {
            return;
        }
        while self.cut.index < cut.index.min(snapshot.at.index) {
            let Some(first) = self.entries.pop_front() else { break };
            self.bytes -= cost_bytes(&first);
            self.cut = Mark { index: first.index, term: first.term };
        }
        self.snapshot = Some(snapshot);
    }
}

impl Storage for Entries {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<eraftpb::Entry>> {
        if low <= self.cut.index {
            return Err(StorageError::Compacted.into());
        }
        if high > self.last_index() + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let max_bytes = max_size.into().unwrap_or(u64::MAX);
        let mut bytes = 0u64;
        let range = (low - self.cut.index - 1) as usize..(high.max(low) - self.cut.index - 1) as usize;
        let fits = |entry: &&eraftpb::Entry| {
            let first = bytes == 0;
            bytes += cost_bytes(entry) as u64;
            first || bytes <= max_bytes
        };
        Ok(self.entries.range(range).take_while(fits).cloned().collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match self.term_at(index) {
            Some(term) => Ok(term),
            None if index < self.cut.index => Err(StorageError::Compacted.into()),
            None => Err(StorageError::Unavailable.into()),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.cut.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last_index())
    }

    /// A snapshot that does not name whom it is for is of no use to them: Raft would drop it there and ask again. So one
    /// is asked for that does.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<eraftpb::Snapshot> {
        let names = |configuration: &Configuration| configuration.all().iter().any(|id| id.get() == to);
        match &self.snapshot {
            Some(snapshot) if snapshot.at.index >= request_index && names(&snapshot.configuration) => {
                Ok(snapshot.to_raft())
            }
            _ => {
                self.wanted.set(true);
                Err(StorageError::SnapshotTemporarilyUnavailable.into())
            }
        }
    }
}
