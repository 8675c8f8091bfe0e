//! A disk that keeps what was synced, and of the rest what chance leaves: the twin of the engine's host disk.
//!
//! It holds two of everything: what is there now, and what is durable. A killed process leaves the former; a power cut goes
//! back to the latter, with pieces of what was not synced, whole, torn or not at all. **Faults stay within what a file system
//! may do**: a rename is atomic, a synced file is whole, names made in one directory do not overtake each other.

use crate::dice::Dice;
use chronik_storage_segment::disk::{Disk, DiskEntry, DiskFile, DiskSpace, Wait};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Clone, Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    SetLen(usize),
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { at, bytes: new } => {
            let end = at + new.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*at..end].copy_from_slice(new);
        }
        Change::SetLen(length) => bytes.resize(*length, 0),
    }
}

#[derive(Clone, Debug, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// From `durable` to `now`.
    changes: Vec<Change>,
}

impl Inode {
    fn change(&mut self, change: Change) {
        apply(&mut self.now, &change);
        self.changes.push(change);
    }

    fn sync(&mut self) {
        for change in self.changes.drain(..) {
            apply(&mut self.durable, &change);
        }
    }
}

/// Names by directory, each with the number of its file. The root's own files are under the empty name; there are no
/// directories within directories.
type Names = BTreeMap<String, BTreeMap<String, u64>>;

/// Directory and name.
fn split(path: &Path) -> (&str, &str) {
    let path = path.to_str().unwrap_or_default();
    path.rsplit_once('/').unwrap_or(("", path))
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    inodes: BTreeMap<u64, Inode>,
    now: Names,
    durable: Names,
    /// Syncs fail from now on, as with a device that has gone bad.
    fails_syncs: bool,
    /// No more bytes may be taken.
    is_full: bool,
}

/// See the module's head. Cheap to clone: all clones are one disk.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<State>>);

impl Default for SimDisk {
    fn default() -> Self {
        let mut state = State::default();
        state.now.entry(String::new()).or_default();
        state.durable.entry(String::new()).or_default();
        Self(Arc::new(Mutex::new(state)))
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl SimDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_fails_syncs(&self, fails: bool) {
        self.state().fails_syncs = fails;
    }

    pub fn set_full(&self, is_full: bool) {
        self.state().is_full = is_full;
    }

    /// The disk as the next process finds it. Handles of the one before lead nowhere from here on.
    pub fn after_kill(&self) -> SimDisk {
        let mut state = std::mem::take(&mut *self.state());
        state.fails_syncs = false;
        state.is_full = false;
        let names = state.now.values().chain(state.durable.values());
        let known: BTreeSet<u64> = names.flat_map(|names| names.values().copied()).collect();
        state.inodes.retain(|number, _| known.contains(number));
        SimDisk(Arc::new(Mutex::new(state)))
    }

    /// The last segment of a log is empty all of a sudden, if it begins below that offset and nothing else says how long it
    /// was. Whether there was such a one.
    pub fn empty_last_segment(&self, log: &str, below: i64) -> bool {
        let mut state = self.state();
        let State { inodes, now, .. } = &mut *state;
        let Some(files) = now.get(log) else { return false };
        let Some((name, number)) = files.iter().rfind(|(name, _)| name.ends_with(".log")) else { return false };
        let base = name.trim_end_matches(".log");
        if files.contains_key(&format!("{base}.index")) || base.parse::<i64>().is_ok_and(|base| base >= below) {
            return false;
        }
        if let Some(inode) = inodes.get_mut(number) {
            *inode = Inode::default();
        }
        true
    }

    /// Likewise, after the power was cut.
    pub fn after_power_cut(&self, dice: &mut Dice) -> SimDisk {
        let left = self.after_kill();
        {
            let mut state = left.state();
            for inode in state.inodes.values_mut() {
                let mut bytes = std::mem::take(&mut inode.durable);
                for change in &inode.changes {
                    match (dice.below(4), change) {
                        (0, _) => {}
                        (1, Change::Write { at, bytes: new }) => {
                            let part = new[..usize::try_from(dice.below(new.len() as u64 + 1)).unwrap_or(0)].to_vec();
                            apply(&mut bytes, &Change::Write { at: *at, bytes: part });
                        }
                        (_, change) => apply(&mut bytes, change),
                    }
                }
                *inode = Inode { now: bytes.clone(), durable: bytes, changes: Vec::new() };
            }
            if dice.once_in(2) {
                state.now = state.durable.clone();
            }
            state.durable = state.now.clone();
        }
        left
    }
}

impl State {
    fn find(&self, path: &Path) -> Option<u64> {
        let (dir, name) = split(path);
        self.now.get(dir)?.get(name).copied()
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let number = self.state().find(path).ok_or_else(missing)?;
        Ok(Arc::new(SimFile { disk: self.clone(), number }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        if state.find(path).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.next += 1;
        let (number, (dir, name)) = (state.next, split(path));
        state.now.get_mut(dir).ok_or_else(missing)?.insert(name.to_owned(), number);
        state.inodes.insert(number, Inode::default());
        Ok(Arc::new(SimFile { disk: self.clone(), number }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let (_, name) = split(path);
        let mut state = self.state();
        if state.now.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.now.insert(name.to_owned(), BTreeMap::new());
        Ok(())
    }

    fn entries(&self, path: &Path) -> io::Result<Vec<DiskEntry>> {
        let state = self.state();
        let dir = path.to_str().unwrap_or_default();
        let files = state.now.get(dir).ok_or_else(missing)?;
        let bytes = |number: &u64| state.inodes.get(number).map_or(0, |inode| inode.now.len() as u64);
        let file =
            |(name, number): (&String, &u64)| DiskEntry { name: name.clone(), is_dir: false, bytes: bytes(number) };
        let mut entries: Vec<_> = files.iter().map(file).collect();
        if dir.is_empty() {
            let dirs = state.now.keys().filter(|name| !name.is_empty());
            entries.extend(dirs.map(|name| DiskEntry { name: name.clone(), is_dir: true, bytes: 0 }));
        }
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let ((from_dir, from_name), (to_dir, to_name)) = (split(from), split(to));
        if from_dir.is_empty() && to_dir.is_empty() && state.now.contains_key(from_name) {
            let files = state.now.remove(from_name).ok_or_else(missing)?;
            state.now.insert(to_name.to_owned(), files);
            return Ok(());
        }
        if !state.now.contains_key(to_dir) {
            return Err(missing());
        }
        let number = state.now.get_mut(from_dir).and_then(|files| files.remove(from_name)).ok_or_else(missing)?;
        state.now.entry(to_dir.to_owned()).or_default().insert(to_name.to_owned(), number);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let (dir, name) = split(path);
        let mut state = self.state();
        state.now.get_mut(dir).and_then(|files| files.remove(name)).map(|_| ()).ok_or_else(missing)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let (_, name) = split(path);
        let mut state = self.state();
        match state.now.get(name) {
            None => Err(missing()),
            Some(files) if !files.is_empty() => Err(io::ErrorKind::DirectoryNotEmpty.into()),
            Some(_) => {
                state.now.remove(name);
                Ok(())
            }
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let dir = path.to_str().unwrap_or_default();
        let mut state = self.state();
        if state.fails_syncs {
            return Err(io::Error::other("the device has failed"));
        }
        let State { now, durable, .. } = &mut *state;
        let files = now.get(dir).ok_or_else(missing)?;
        if dir.is_empty() {
            // Directories are names of the root: those that are gone take along what was in them, and new ones are empty
            // until they are synced themselves.
            durable.retain(|name, _| now.contains_key(name));
            for name in now.keys().filter(|name| !durable.contains_key(*name)).cloned().collect::<Vec<_>>() {
                durable.insert(name, BTreeMap::new());
            }
        }
        // Where its own name is not durable yet, what is in it goes with it.
        if let Some(kept) = durable.get_mut(dir) {
            kept.retain(|name, number| files.get(name) == Some(number));
            for (name, number) in files {
                if !kept.contains_key(name) {
                    kept.insert(name.clone(), *number);
                }
            }
        }
        Ok(())
    }

    fn sync_filesystem(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.fails_syncs {
            return Err(io::Error::other("the device has failed"));
        }
        state.durable = state.now.clone();
        state.inodes.values_mut().for_each(Inode::sync);
        Ok(())
    }

    fn owns_filesystem(&self) -> bool {
        false
    }

    fn sync_filesystem_tells(&self) -> bool {
        true
    }

    fn space(&self) -> io::Result<DiskSpace> {
        let free = if self.state().is_full { 0 } else { 1 << 39 };
        Ok(DiskSpace { total: 1 << 40, free })
    }
}

struct SimFile {
    disk: SimDisk,
    number: u64,
}

impl SimFile {
    fn with<R>(&self, act: impl FnOnce(&mut Inode) -> R) -> io::Result<R> {
        // A handle of a process that is gone: the machine is off.
        self.disk.state().inodes.get_mut(&self.number).map(act).ok_or_else(missing)
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let bytes = parts.iter().flat_map(|part| part.iter().copied()).collect::<Vec<u8>>();
        let at = usize::try_from(position).map_err(io::Error::other)?;
        let is_full = self.disk.state().is_full;
        self.with(|inode| {
            if is_full && at + bytes.len() > inode.now.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let written = bytes.len();
            inode.change(Change::Write { at, bytes });
            Ok(written)
        })?
    }

    fn read_at(&self, buffer: &mut [u8], position: u64, _: Wait) -> io::Result<usize> {
        let position = usize::try_from(position).map_err(io::Error::other)?;
        self.with(|inode| {
            let from = position.min(inode.now.len());
            let read = buffer.len().min(inode.now.len() - from);
            buffer[..read].copy_from_slice(&inode.now[from..from + read]);
            read
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.disk.state().fails_syncs {
            return Err(io::Error::other("the device has failed"));
        }
        self.with(Inode::sync)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let length = usize::try_from(bytes).map_err(io::Error::other)?;
        self.with(|inode| inode.change(Change::SetLen(length)))
    }

    /// After a failed sync a kernel may count what it could not write as clean; letting go of it then loses it.
    fn forget_cached(&self) {
        let _handle_of_a_dead_process = self.with(|inode| {
            inode.now = inode.durable.clone();
            inode.changes.clear();
        });
    }
}
