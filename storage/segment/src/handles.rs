//! Which segment files are open: a bounded number for all logs together, those used last.
//!
//! A handle also holds the entries of the segment's index file once a reader has needed them, so one bound covers both.
//! Files with unsynced data are held open by their log as well, whatever happens here: closing one could lose the report
//! that writing it back failed.

use crate::disk::DiskFile;
use crate::index::Entry;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Entries of index files in memory: 16 MiB of them, the indexes of 64 GiB of segments read at random.
const ENTRIES_MAX: usize = (16 << 20) / size_of::<Entry>();

pub struct Handle {
    pub file: Arc<dyn DiskFile>,
    entries: OnceLock<Arc<[Entry]>>,
}

impl Handle {
    pub fn new(file: Arc<dyn DiskFile>) -> Self {
        Self { file, entries: OnceLock::new() }
    }

    /// The index file's entries, if a reader has fetched them.
    pub fn entries(&self) -> Option<&Arc<[Entry]>> {
        self.entries.get()
    }
}

/// Open segment files by the number that their segment got when it was made or found; numbers are not used twice.
pub struct Handles {
    files_max: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    by_number: BTreeMap<u64, Slot>,
    uses: u64,
    entries: usize,
}

struct Slot {
    handle: Arc<Handle>,
    last_use: u64,
}

impl Handles {
    pub fn new(files_max: usize) -> Self {
        Self { files_max, open: Mutex::default() }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Single inserts and removals; counts are mended by the next insert.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, number: u64) -> Option<Arc<Handle>> {
        let mut open = self.open();
        open.uses += 1;
        let now = open.uses;
        let slot = open.by_number.get_mut(&number)?;
        slot.last_use = now;
        Some(slot.handle.clone())
    }

    /// Adds an open file, unless another caller was first, and gives the one to use.
    pub fn put(&self, number: u64, file: Arc<dyn DiskFile>) -> Arc<Handle> {
        let mut open = self.open();
        open.uses += 1;
        let last_use = open.uses;
        let slot =
            open.by_number.entry(number).or_insert_with(|| Slot { handle: Arc::new(Handle::new(file)), last_use });
        let handle = slot.handle.clone();
        let closed = open.shrink(self.files_max);
        drop(open);
        // Files are closed here, after the lock: closing may wait for the device.
        drop(closed);
        handle
    }

    /// Keeps the entries of a segment's index file with its handle, unless that has been closed meanwhile.
    pub fn put_entries(&self, number: u64, entries: Arc<[Entry]>) -> Arc<[Entry]> {
        let mut open = self.open();
        let Some(slot) = open.by_number.get(&number) else { return entries };
        let handle = slot.handle.clone();
        if handle.entries.set(entries.clone()).is_err() {
            return entries;
        }
        open.entries += entries.len();
        let closed = open.shrink(self.files_max);
        drop(open);
        drop(closed);
        entries
    }

    pub fn forget(&self, number: u64) {
        let slot = self.open().remove(number);
        drop(slot);
    }

    pub fn len(&self) -> usize {
        self.open().by_number.len()
    }

    pub fn entries_bytes(&self) -> u64 {
        (self.open().entries * size_of::<Entry>()) as u64
    }
}

impl Open {
    fn remove(&mut self, number: u64) -> Option<Slot> {
        let slot = self.by_number.remove(&number)?;
        self.entries = self.entries.saturating_sub(slot.handle.entries().map_or(0, |entries| entries.len()));
        Some(slot)
    }

    fn shrink(&mut self, files_max: usize) -> Vec<Slot> {
        let mut closed = Vec::new();
        while self.by_number.len() > files_max || self.entries > ENTRIES_MAX && self.by_number.len() > 1 {
            let oldest = self.by_number.iter().min_by_key(|(_, slot)| slot.last_use).map(|(&number, _)| number);
            match oldest.and_then(|number| self.remove(number)) {
                Some(slot) => closed.push(slot),
                None => break,
            }
        }
        closed
    }
}
