//! A disk that keeps what was synced, and of the rest what chance leaves: the twin of the engine's host disk.
//!
//! It holds two of everything: what is there now, and what is durable. A killed process leaves the former; a power cut goes
//! back to the latter, with pieces of what was not synced, whole, torn or not at all. **Faults stay within what a file system
//! may do**: a rename is atomic, a synced file is whole, names made in one directory do not overtake each other.

mod inode;
mod trouble;

pub use trouble::Trouble;

use crate::dice::Dice;
use chronik_storage_segment::disk::{Disk, DiskEntry, DiskFile, DiskSpace, Wait};
use inode::Inode;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use trouble::Asks;

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
    /// Names that are other ones in `durable`, by directory.
    unsynced: BTreeMap<String, BTreeSet<String>>,
    /// Syncs fail from now on, as with a device that has gone bad.
    fails_syncs: bool,
    /// No more bytes may be taken.
    is_full: bool,
    trouble: Option<Trouble>,
    /// The next write to an index of that log goes into this file, to that place.
    misdirected: Option<(String, u64, usize)>,
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

    pub fn set_trouble(&self, trouble: Option<Trouble>) {
        self.state().trouble = trouble;
    }

    pub fn set_full(&self, is_full: bool) {
        self.state().is_full = is_full;
    }

    /// The disk as the next process finds it. Handles of the one before lead nowhere from here on.
    pub fn after_kill(&self) -> SimDisk {
        let mut state = std::mem::take(&mut *self.state());
        state.fails_syncs = false;
        state.is_full = false;
        state.misdirected = None;
        let names = state.now.values().chain(state.durable.values());
        let known: BTreeSet<u64> = names.flat_map(|names| names.values().copied()).collect();
        state.inodes.retain(|number, _| known.contains(number));
        SimDisk(Arc::new(Mutex::new(state)))
    }

    /// Likewise, after the power was cut.
    pub fn after_power_cut(&self, dice: &mut Dice) -> SimDisk {
        let left = self.after_kill();
        {
            let mut state = left.state();
            state.inodes.values_mut().for_each(|inode| inode.cut_power(dice));
            if dice.once_in(2) {
                state.now = state.durable.clone();
            }
            state.durable = state.now.clone();
            state.unsynced.clear();
        }
        left
    }
}

impl State {
    /// A call that may fail.
    fn trip(&mut self, asks: Asks) -> io::Result<()> {
        if asks == Asks::Sync && self.fails_syncs {
            return Err(io::Error::other("the device has failed"));
        }
        self.trouble.as_mut().map_or(Ok(()), |trouble| trouble.trip(asks))
    }

    /// A name has come, gone, or come to be another file's.
    fn name_changed(&mut self, dir: &str, name: &str) {
        match self.unsynced.get_mut(dir) {
            Some(names) => drop(names.insert(name.to_owned())),
            None => drop(self.unsynced.insert(dir.to_owned(), BTreeSet::from([name.to_owned()]))),
        }
    }

    fn find(&self, path: &Path) -> Option<u64> {
        let (dir, name) = split(path);
        self.now.get(dir)?.get(name).copied()
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.trip(Asks::Look)?;
        let number = state.find(path).ok_or_else(missing)?;
        Ok(SimFile::open(self, path, number))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.trip(Asks::Take)?;
        if state.find(path).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.next += 1;
        let (number, (dir, name)) = (state.next, split(path));
        state.now.get_mut(dir).ok_or_else(missing)?.insert(name.to_owned(), number);
        state.name_changed(dir, name);
        state.inodes.insert(number, Inode::default());
        Ok(SimFile::open(self, path, number))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let (_, name) = split(path);
        let mut state = self.state();
        state.trip(Asks::Take)?;
        if state.now.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.now.insert(name.to_owned(), BTreeMap::new());
        // One of that name may have been there before, and may still be durable.
        let former: BTreeSet<String> =
            state.durable.get(name).map(|names| names.keys().cloned().collect()).unwrap_or_default();
        state.unsynced.insert(name.to_owned(), former);
        Ok(())
    }

    fn entries(&self, path: &Path) -> io::Result<Vec<DiskEntry>> {
        let mut state = self.state();
        state.trip(Asks::Look)?;
        let dir = path.to_str().unwrap_or_default();
        let files = state.now.get(dir).ok_or_else(missing)?;
        let bytes = |number: &u64| state.inodes.get(number).map_or(0, |inode| inode.len() as u64);
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
        state.trip(Asks::Change)?;
        let ((from_dir, from_name), (to_dir, to_name)) = (split(from), split(to));
        if from_dir.is_empty() && to_dir.is_empty() && state.now.contains_key(from_name) {
            let files = state.now.remove(from_name).ok_or_else(missing)?;
            state.unsynced.remove(from_name);
            state.unsynced.insert(to_name.to_owned(), files.keys().cloned().collect());
            state.now.insert(to_name.to_owned(), files);
            return Ok(());
        }
        if !state.now.contains_key(to_dir) {
            return Err(missing());
        }
        let number = state.now.get_mut(from_dir).and_then(|files| files.remove(from_name)).ok_or_else(missing)?;
        state.now.entry(to_dir.to_owned()).or_default().insert(to_name.to_owned(), number);
        state.name_changed(from_dir, from_name);
        state.name_changed(to_dir, to_name);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let (dir, name) = split(path);
        let mut state = self.state();
        state.trip(Asks::Change)?;
        state.now.get_mut(dir).and_then(|files| files.remove(name)).ok_or_else(missing)?;
        state.name_changed(dir, name);
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let (_, name) = split(path);
        let mut state = self.state();
        state.trip(Asks::Change)?;
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
        state.trip(Asks::Sync)?;
        let State { now, durable, unsynced, .. } = &mut *state;
        let files = now.get(dir).ok_or_else(missing)?;
        if dir.is_empty() {
            // Directories are names of the root: those that are gone take along what was in them, and new ones are empty
            // until they are synced themselves.
            durable.retain(|name, _| now.contains_key(name));
            unsynced.retain(|name, _| now.contains_key(name));
            for name in now.keys().filter(|name| !durable.contains_key(*name)).cloned().collect::<Vec<_>>() {
                durable.insert(name, BTreeMap::new());
            }
        }
        // Where its own name is not durable yet, what is in it goes with it.
        if let Some(kept) = durable.get_mut(dir) {
            for name in unsynced.remove(dir).into_iter().flatten() {
                match files.get(&name) {
                    Some(number) => drop(kept.insert(name, *number)),
                    None => drop(kept.remove(&name)),
                }
            }
        }
        Ok(())
    }

    fn sync_filesystem(&self) -> io::Result<()> {
        let mut state = self.state();
        state.trip(Asks::Sync)?;
        state.durable = state.now.clone();
        state.unsynced.clear();
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
    /// The directory, if this is an index in it.
    index_of: Option<String>,
}

impl SimFile {
    fn open(disk: &SimDisk, path: &Path, number: u64) -> Arc<dyn DiskFile> {
        let (dir, name) = split(path);
        let index_of = name.ends_with(".index").then(|| dir.to_owned());
        Arc::new(Self { disk: disk.clone(), number, index_of })
    }

    fn with<R>(&self, asks: Asks, act: impl FnOnce(&mut Inode, bool) -> R) -> io::Result<R> {
        let mut state = self.disk.state();
        state.trip(asks)?;
        let is_full = state.is_full;
        // A handle of a process that is gone: the machine is off.
        state.inodes.get_mut(&self.number).map(|inode| act(inode, is_full)).ok_or_else(missing)
    }

    /// Where a write that was to come here goes, once.
    fn goes_elsewhere(&self) -> Option<(u64, usize)> {
        let index_of = self.index_of.as_ref()?;
        self.disk.state().misdirected.take_if(|(log, ..)| log == index_of).map(|(_, number, at)| (number, at))
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let at = usize::try_from(position).map_err(io::Error::other)?;
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        if let Some((number, at)) = self.goes_elsewhere() {
            if let Some(inode) = self.disk.state().inodes.get_mut(&number) {
                inode.write(parts.iter().map(|part| &**part), at);
                inode.sync();
            }
            return Ok(bytes);
        }
        self.with(Asks::Take, |inode, is_full| {
            if is_full && at + bytes > inode.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(inode.write(parts.iter().map(|part| &**part), at))
        })?
    }

    fn read_at(&self, buffer: &mut [u8], position: u64, _: Wait) -> io::Result<usize> {
        let position = usize::try_from(position).map_err(io::Error::other)?;
        self.with(Asks::Look, |inode, _| inode.read(buffer, position))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(Asks::Sync, |inode, _| inode.sync())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let length = usize::try_from(bytes).map_err(io::Error::other)?;
        let asks = if length > 0 { Asks::Take } else { Asks::Change };
        self.with(asks, |inode, _| inode.set_len(length))
    }

    /// After a failed sync a kernel may count what it could not write as clean; letting go of it then loses it.
    fn forget_cached(&self) {
        if let Some(inode) = self.disk.state().inodes.get_mut(&self.number) {
            inode.forget_unsynced();
        }
    }
}
