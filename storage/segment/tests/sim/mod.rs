//! A disk and threads that do as a test says: the twins of `src/disk/host.rs` and of the thread pools.
//!
//! The disk keeps two of everything: what is there now, and what is durable. A power cut goes back to the latter, and
//! where a seed says so keeps some of what was not synced, in pieces. Faults stay within what a file system may do: a
//! rename is atomic, a synced file is whole, names made in one directory do not overtake each other.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod bench;

use chronik_storage_segment::disk::{Disk, DiskEntry, DiskFile, DiskSpace, Wait};
use chronik_storage_segment::threads::{Job, Lane, Threads};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A seeded sequence of numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}

/// What a file operation is, for faults to be aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Open,
    Create,
    Read,
    Write,
    SetLen,
    SyncData,
    SyncDir,
    SyncFilesystem,
    Rename,
    Remove,
}

#[derive(Clone, Debug)]
enum Change {
    Write { at: u64, bytes: Vec<u8> },
    SetLen(u64),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// From `durable` to `now`.
    changes: Vec<Change>,
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { at, bytes: new } => {
            let end = *at as usize + new.len();
            bytes.resize(bytes.len().max(end), 0);
            bytes[*at as usize..end].copy_from_slice(new);
        }
        Change::SetLen(length) => bytes.resize(*length as usize, 0),
    }
}

/// A name: a directory, or the number of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Dir,
    File(usize),
}

type Names = BTreeMap<PathBuf, Named>;

#[derive(Clone, Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    now: Names,
    durable: Names,
    operations: u64,
    log: Vec<Kind>,
    /// Fail every operation from this one on, as a machine does that has lost its power.
    stop_at: Option<u64>,
    /// Fail the operations for which this says how.
    faults: Vec<(Kind, io::ErrorKind)>,
    capacity: Option<u64>,
    /// Reads that must not wait find nothing in memory.
    nothing_cached: bool,
    owns_filesystem: bool,
}

/// What happens elsewhere while an operation is under way.
type Meanwhile = Option<(Kind, Box<dyn FnOnce() + Send>)>;

#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>, Arc<Mutex<Meanwhile>>);

impl SimDisk {
    pub fn new() -> Self {
        let disk = Self::default();
        disk.state().now.insert(PathBuf::new(), Named::Dir);
        disk.state().durable.insert(PathBuf::new(), Named::Dir);
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics inside the disk")
    }

    /// Counts an operation; whether it happens.
    fn operate(&self, kind: Kind) -> io::Result<MutexGuard<'_, State>> {
        let due = {
            let mut meanwhile = self.1.lock().expect("nothing panics under this lock");
            meanwhile.take_if(|(at, _)| *at == kind)
        };
        if let Some((_, act)) = due {
            act();
        }
        let mut state = self.state();
        state.operations += 1;
        state.log.push(kind);
        if state.stop_at.is_some_and(|stop| state.operations >= stop) {
            return Err(io::Error::other("the power is out"));
        }
        match state.faults.iter().find(|(at, _)| *at == kind) {
            Some(&(_, error)) => Err(error.into()),
            None => Ok(state),
        }
    }

    /// Does something in the middle of the next operation of the kind, before that has had its effect.
    pub fn meanwhile(&self, kind: Kind, act: impl FnOnce() + Send + 'static) {
        *self.1.lock().expect("nothing panics under this lock") = Some((kind, Box::new(act)));
    }

    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    pub fn count(&self, kind: Kind) -> usize {
        self.state().log.iter().filter(|&&other| other == kind).count()
    }

    pub fn stop_at(&self, operation: Option<u64>) {
        self.state().stop_at = operation;
    }

    /// From now on every operation of the kind fails so; `None`: none does.
    pub fn fail(&self, kind: Kind, error: Option<io::ErrorKind>) {
        let mut state = self.state();
        state.faults.retain(|(other, _)| *other != kind);
        state.faults.extend(error.map(|error| (kind, error)));
    }

    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    pub fn set_nothing_cached(&self, nothing: bool) {
        self.state().nothing_cached = nothing;
    }

    pub fn set_owns_filesystem(&self, owns: bool) {
        self.state().owns_filesystem = owns;
    }

    /// The disk as a killed process leaves it: everything written is there.
    pub fn after_kill(&self) -> Self {
        let state = self.state().clone();
        let state = State { stop_at: None, faults: Vec::new(), operations: 0, log: Vec::new(), ..state };
        Self(Arc::new(Mutex::new(state)), Arc::default())
    }

    /// The disk as a power cut leaves it: what was synced is there; of the rest, with `dice`, some.
    pub fn after_power_cut(&self, mut dice: Option<Dice>) -> Self {
        let left = self.after_kill();
        let mut state = left.state();
        for inode in &mut state.inodes {
            let mut bytes = std::mem::take(&mut inode.durable);
            if let Some(dice) = &mut dice {
                for change in &inode.changes {
                    match (dice.below(4), change) {
                        (0, _) => {}
                        (1, Change::Write { at, bytes: new }) => {
                            // Torn: a part of it, the length with it or not.
                            let part = new[..dice.below(new.len() as u64 + 1) as usize].to_vec();
                            apply(&mut bytes, &Change::Write { at: *at, bytes: part });
                        }
                        (_, change) => apply(&mut bytes, change),
                    }
                }
            }
            *inode = Inode { now: bytes.clone(), durable: bytes, changes: Vec::new() };
        }
        let keep_names = dice.is_some_and(|mut dice| dice.below(2) == 0);
        if !keep_names {
            state.now = state.durable.clone();
        }
        // What is in a directory that is gone is gone.
        let names = state.now.clone();
        state.now.retain(|path, _| path.ancestors().skip(1).all(|dir| names.get(dir) == Some(&Named::Dir)));
        state.durable = state.now.clone();
        drop(state);
        left
    }

    /// The contents of a file.
    pub fn file(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        match state.now.get(path) {
            Some(&Named::File(number)) => Some(state.inodes[number].now.clone()),
            _ => None,
        }
    }

    /// Puts a file there, durably.
    pub fn put_file(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state();
        let number = state.inodes.len();
        state.inodes.push(Inode { now: bytes.clone(), durable: bytes, changes: Vec::new() });
        for dir in path.ancestors().skip(1) {
            state.now.insert(dir.into(), Named::Dir);
            state.durable.insert(dir.into(), Named::Dir);
        }
        state.now.insert(path.into(), Named::File(number));
        state.durable.insert(path.into(), Named::File(number));
    }

    pub fn files(&self) -> Vec<PathBuf> {
        let state = self.state();
        state.now.iter().filter(|(_, named)| **named != Named::Dir).map(|(path, _)| path.clone()).collect()
    }

    fn handle(&self, number: usize) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { disk: self.clone(), number })
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for SimDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.operate(Kind::Open)?;
        match state.now.get(path) {
            Some(&Named::File(number)) => {
                drop(state);
                Ok(self.handle(number))
            }
            _ => Err(missing()),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.operate(Kind::Create)?;
        if state.now.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !path.parent().is_some_and(|dir| state.now.get(dir) == Some(&Named::Dir)) {
            return Err(missing());
        }
        let number = state.inodes.len();
        state.inodes.push(Inode::default());
        state.now.insert(path.into(), Named::File(number));
        drop(state);
        Ok(self.handle(number))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.operate(Kind::Create)?;
        if state.now.insert(path.into(), Named::Dir).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(())
    }

    fn entries(&self, path: &Path) -> io::Result<Vec<DiskEntry>> {
        let state = self.operate(Kind::Open)?;
        if state.now.get(path) != Some(&Named::Dir) {
            return Err(missing());
        }
        let inside = state.now.iter().filter(|(other, _)| other.parent() == Some(path));
        let entry = |(path, named): (&PathBuf, &Named)| DiskEntry {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            is_dir: *named == Named::Dir,
            bytes: match named {
                Named::Dir => 0,
                Named::File(number) => state.inodes[*number].now.len() as u64,
            },
        };
        Ok(inside.map(entry).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.operate(Kind::Rename)?;
        let moved: Vec<_> = state.now.keys().filter(|path| path.starts_with(from)).cloned().collect();
        if moved.is_empty() {
            return Err(missing());
        }
        for path in moved {
            let Some(named) = state.now.remove(&path) else { continue };
            let rest = path.strip_prefix(from).unwrap_or(Path::new(""));
            let to = if rest.as_os_str().is_empty() { to.to_path_buf() } else { to.join(rest) };
            state.now.insert(to, named);
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.operate(Kind::Remove)?;
        match state.now.get(path) {
            Some(Named::File(_)) => state.now.remove(path).map(|_| ()).ok_or_else(missing),
            _ => Err(missing()),
        }
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.operate(Kind::Remove)?;
        if state.now.keys().any(|other| other.parent() == Some(path)) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        state.now.remove(path).map(|_| ()).ok_or_else(missing)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.operate(Kind::SyncDir)?;
        if state.now.get(path) != Some(&Named::Dir) {
            return Err(missing());
        }
        let inside = |other: &Path| other.parent() == Some(path);
        let gone: BTreeSet<PathBuf> =
            state.durable.keys().filter(|other| inside(other) && !state.now.contains_key(*other)).cloned().collect();
        // A directory that is renamed or removed takes along what is in it.
        state.durable.retain(|other, _| !gone.iter().any(|gone| other.starts_with(gone)));
        let State { now, durable, .. } = &mut *state;
        for (other, named) in now.iter().filter(|(other, _)| inside(other)) {
            durable.insert(other.clone(), *named);
        }
        Ok(())
    }

    fn sync_filesystem(&self) -> io::Result<()> {
        let mut state = self.operate(Kind::SyncFilesystem)?;
        state.durable = state.now.clone();
        for inode in &mut state.inodes {
            inode.durable = inode.now.clone();
            inode.changes.clear();
        }
        Ok(())
    }

    fn owns_filesystem(&self) -> bool {
        self.state().owns_filesystem
    }

    fn sync_filesystem_tells(&self) -> bool {
        true
    }

    fn space(&self) -> io::Result<DiskSpace> {
        let state = self.state();
        let total = state.capacity.unwrap_or(1 << 40);
        Ok(DiskSpace { total, free: total.saturating_sub(state.used()) })
    }
}

impl State {
    fn used(&self) -> u64 {
        let file = |named: &Named| match named {
            Named::File(number) => self.inodes[*number].now.len() as u64,
            Named::Dir => 0,
        };
        self.now.values().map(file).sum()
    }
}

struct SimFile {
    disk: SimDisk,
    number: usize,
}

impl DiskFile for SimFile {
    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let mut state = self.disk.operate(Kind::Write)?;
        let mut bytes = parts.iter().flat_map(|part| part.iter().copied()).collect::<Vec<u8>>();
        let grows = (position + bytes.len() as u64).saturating_sub(state.inodes[self.number].now.len() as u64);
        let free = state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used()));
        if grows > free {
            // A device that fills up takes what fits.
            bytes.truncate(bytes.len() - (grows - free) as usize);
            if bytes.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let written = bytes.len();
        let change = Change::Write { at: position, bytes };
        let inode = &mut state.inodes[self.number];
        apply(&mut inode.now, &change);
        inode.changes.push(change);
        Ok(written)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64, wait: Wait) -> io::Result<usize> {
        let state = self.disk.operate(Kind::Read)?;
        if wait == Wait::No && state.nothing_cached {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes = &state.inodes[self.number].now;
        let from = (position as usize).min(bytes.len());
        let read = buffer.len().min(bytes.len() - from);
        buffer[..read].copy_from_slice(&bytes[from..from + read]);
        Ok(read)
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.disk.operate(Kind::SyncData) {
            Ok(mut state) => {
                let inode = &mut state.inodes[self.number];
                let Inode { durable, changes, .. } = inode;
                changes.drain(..).for_each(|change| apply(durable, &change));
                Ok(())
            }
            Err(error) => {
                // What could not be written counts as clean from now on: the next sync says that all is well.
                self.disk.state().inodes[self.number].changes.clear();
                Err(error)
            }
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.operate(Kind::SetLen)?;
        let change = Change::SetLen(bytes);
        let inode = &mut state.inodes[self.number];
        apply(&mut inode.now, &change);
        inode.changes.push(change);
        Ok(())
    }

    /// After a failed sync a kernel may count what it could not write as clean; letting go of it then loses it.
    fn forget_cached(&self) {
        let mut state = self.disk.state();
        let inode = &mut state.inodes[self.number];
        inode.now = inode.durable.clone();
        inode.changes.clear();
    }
}

/// Jobs that run when the test says, one at a time, in an order that the seed picks.
#[derive(Clone)]
pub struct SimThreads(Arc<Mutex<Jobs>>);

struct Jobs {
    due: VecDeque<Job>,
    later: VecDeque<Job>,
    dice: Dice,
}

impl SimThreads {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Jobs { due: VecDeque::new(), later: VecDeque::new(), dice: Dice(seed) })))
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.0.lock().expect("no job runs under this lock")
    }

    /// Runs one job; whether there was one. Those that wait for time come when there is nothing else.
    pub fn step(&self) -> bool {
        let job = {
            let mut jobs = self.jobs();
            let count = jobs.due.len() as u64;
            let pick = jobs.dice.below(count) as usize;
            jobs.due.remove(pick).or_else(|| jobs.later.pop_front())
        };
        job.map(|job| job()).is_some()
    }

    /// Runs what is due, but nothing that waits for time.
    pub fn settle(&self) {
        while !self.jobs().due.is_empty() {
            self.step();
        }
    }

    /// Drives `future` to its end, running jobs while it waits.
    pub fn drive<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        for _ in 0..1_000_000 {
            if let Poll::Ready(outcome) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return outcome;
            }
            assert!(self.step(), "nothing is left to do, and the future still waits");
        }
        panic!("a million jobs did not complete the future");
    }
}

impl Threads for SimThreads {
    fn run(&self, _lane: Lane, job: Job) {
        self.jobs().due.push_back(job);
    }

    fn run_after(&self, _wait: Duration, _lane: Lane, job: Job) {
        self.jobs().later.push_back(job);
    }
}
