//! One small sync for many logs: what each was given since its last round goes, all of it together, to a file of their own.
//!
//! **Why it exists.** A sync costs the same, in time and in work, for a hundred bytes as for a hundred kilobytes, and every
//! partition is a file. Where many of them get a little at a time, that price is paid once for each, again and again. So
//! when several small rounds wait at once, their bytes are copied into one batch of the journal, and one sync of that makes
//! all of them durable where they are *not at home*. Their own files are synced when the journal is full, once for the many
//! rounds in between. Large rounds go to their own files as ever: nothing is gained there. A round that waits alone does go
//! to the journal, for the blocks of that are there already, while a file that has grown takes the file system's own
//! journal along; and syncs of the one kind slow down those of the other.
//!
//! **How it is read.** Only at the start, before any log is opened: what the journal holds is written again to where it
//! belongs, and synced. It is a copy of bytes and places, so that doing it twice is doing it once, and recovery need not
//! know of it. A log that failed, and is opened again within the process, gets its part of it in the same way.
//!
//! **What must stay true.**
//! - Bytes enter the journal as they stand in a file whose name is durable, while no cut of the log is under way, and which was
//!   not cut off before; so what is written again at the start is what the log held there.
//! - Before bytes of a log are cut off, or its directory goes, its files are synced and a line in the journal says that
//!   what came before does not count any more. Both happen under the journal's lock, under which bytes enter; so none that
//!   were cut off come after that line.
//! - A file is used again only when all that it holds is at home, and never both files at once; so a line that voids
//!   entries is there as long as they are.
//! - Nothing is written to a block that was durable before, but by a new generation.
//! - Once a write or a sync of it has failed, nobody knows what it holds: it goes before bytes of any log are cut off.

mod format;
mod replay;

use crate::disk::{Disk, DiskFile, Wait, read_full, remove_if_there, write_all};
use crate::log::{Round, SegmentLog, write_zeros};
use crate::shared::Shared;
use crate::threads::Lane;
use chronik_core::ids::LogId;
use format::{BLOCK_BYTES, Draft, ENTRY_BYTES};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// Their names, in the root of the data directory.
const FILES: [&str; 2] = ["journal-0", "journal-1"];

/// The largest round that is copied: beyond it, copying costs more than a sync.
pub const PART_BYTES_MAX: u64 = 64 << 10;

/// A batch is put together in memory, and written in one piece.
const BATCH_BYTES_MAX: u64 = 1 << 20;

/// Logs with bytes in one file: each holds its own file open until that is synced.
const LOGS_MAX: usize = 256;

/// How often several small rounds wait at once before the journal is made: a broker that never has that needs none.
const WISHES: u32 = 64;

/// The part of the device's free room that the files may take.
const ROOM_PART: u64 = 32;

/// A round that is on its way, and its log.
pub struct Gathered {
    pub log: Arc<SegmentLog>,
    pub round: Round,
}

impl Gathered {
    pub fn begin(log: Arc<SegmentLog>) -> Self {
        let round = log.begin_round();
        Self { log, round }
    }
}

/// What became of rounds that were to go to the journal.
#[derive(Default)]
pub struct Carried {
    /// Durable.
    pub durable: Vec<Gathered>,
    /// To be synced in their own files.
    pub left: Vec<Gathered>,
}

pub struct Journal {
    /// Of each of the two files; zero for no journal.
    file_bytes: u64,
    batch_bytes_max: u64,
    ready: AtomicBool,
    wishes: AtomicU32,
    state: Mutex<State>,
}

struct State {
    slots: [Slot; 2],
    active: usize,
    next_generation: u64,
    /// A write or a sync of it failed: nothing more goes in.
    failed: bool,
}

#[derive(Default)]
struct Slot {
    file: Option<Arc<dyn DiskFile>>,
    generation: u64,
    position: u64,
    sequence: u64,
    /// Whose bytes the file holds, and that no later line has voided.
    logs: BTreeMap<LogId, Homeless>,
}

struct Homeless {
    log: Weak<SegmentLog>,
    /// By segment number; kept open so that a failure to write them back is heard of.
    files: BTreeMap<u64, Arc<dyn DiskFile>>,
    /// All of it is durable in the log's own files too.
    at_home: bool,
}

impl Homeless {
    /// Whether a sync of the files may have failed unheard: a device tells of that once, and then calls lost what it calls
    /// written. Where nobody holds the log any more, nobody can say.
    fn is_doubtful(&self) -> bool {
        self.log.upgrade().is_none_or(|log| log.is_doubtful())
    }

    fn sync(&self) -> io::Result<()> {
        self.files.values().try_for_each(|file| file.sync_data())
    }

    /// What is to be believed of the files after they were synced with this outcome: if there is doubt, they get the bytes
    /// again. A log whose sync failed must not go on as if all were well, though nothing is lost.
    fn settle(&mut self, disk: &dyn Disk, id: LogId, synced: io::Result<()>) -> io::Result<()> {
        let failed = synced.is_err();
        if let (Err(error), Some(log)) = (synced, self.log.upgrade()) {
            log.fail_for(error);
        }
        if failed || self.is_doubtful() {
            let left = replay::read(disk, &FILES)?;
            left.map_or(Ok(()), |left| replay::apply(disk, &left, Some(id)))?;
        }
        self.at_home = true;
        self.files.clear();
        Ok(())
    }

    fn bring_home(&mut self, disk: &dyn Disk, id: LogId) -> io::Result<()> {
        if self.at_home {
            return Ok(());
        }
        let synced = self.sync();
        self.settle(disk, id, synced)
    }
}

impl Slot {
    fn is_at_home(&self) -> bool {
        self.logs.values().all(|log| log.at_home)
    }

    fn bring_home(&mut self, disk: &dyn Disk) -> io::Result<()> {
        self.logs.iter_mut().try_for_each(|(&id, homeless)| homeless.bring_home(disk, id))
    }

    fn begin(&mut self, generation: u64) {
        self.generation = generation;
        self.position = 0;
        self.sequence = 0;
        self.logs.clear();
    }
}

/// Why what the journal holds of a log is to count no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    Cut,
    Removal,
}

/// Why a batch was not written.
enum NotWritten {
    /// Neither file has room until what the other holds is at home.
    Full,
    Failed,
}

impl Journal {
    /// Looks for what an earlier process left, and writes it to where it belongs. No log is open yet.
    pub fn open(disk: &dyn Disk, file_bytes: u64) -> io::Result<Self> {
        let file_bytes = file_bytes.next_multiple_of(BLOCK_BYTES);
        let left = replay::read(disk, &FILES)?;
        let mut state = State { slots: Default::default(), active: 0, next_generation: 1, failed: false };
        if let Some(left) = &left {
            let came_home = left.is_empty() || replay::apply(disk, left, None).map(|()| false)?;
            state.next_generation = left.highest_generation() + 1;
            for (slot, generation) in state.slots.iter_mut().zip(left.generations()) {
                slot.generation = generation.unwrap_or(0);
            }
            if left.sizes() == [file_bytes; FILES.len()] {
                for (slot, name) in state.slots.iter_mut().zip(FILES) {
                    slot.file = Some(disk.open(Path::new(name))?);
                }
                if came_home {
                    state.go_on_after_nothing();
                } else {
                    state.empty()?;
                }
            } else {
                // Of another size, or not all there: made anew when they are wanted. What they held has come home.
                let [first, second] = left.generations();
                remove_files(disk, if first <= second { [0, 1] } else { [1, 0] })?;
            }
        }
        let batch_bytes_max = BATCH_BYTES_MAX.min(file_bytes / 2);
        let ready = AtomicBool::new(state.has_room(file_bytes, batch_bytes_max));
        Ok(Self { file_bytes, batch_bytes_max, ready, wishes: AtomicU32::new(0), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| {
            // Somebody panicked halfway: what is in the files still counts, and nothing more goes in.
            let mut state = poisoned.into_inner();
            state.failed = true;
            self.ready.store(false, Ordering::Relaxed);
            state
        })
    }

    fn note_ready(&self, state: &State) {
        self.ready.store(!state.failed && state.has_room(self.file_bytes, self.batch_bytes_max), Ordering::Relaxed);
    }

    /// Whether rounds may go to the journal now.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Several small rounds wait at once, and there is no journal: if that happens often, one is made.
    pub fn wish(&self, shared: &Arc<Shared>) {
        if self.file_bytes > 0 && self.wishes.fetch_add(1, Ordering::Relaxed) == WISHES {
            let shared = shared.clone();
            shared.clone().threads.run(Lane::Work, Box::new(move || shared.journal.make(&*shared.disk)));
        }
    }

    /// Makes the files, of blocks that are written, so that syncs of them need not make blocks durable too. Where they
    /// cannot be made there is no journal, and every log is synced by itself.
    fn make(&self, disk: &dyn Disk) {
        let free = disk.space().map_or(0, |space| space.free);
        if free / ROOM_PART < 2 * self.file_bytes {
            return;
        }
        let make = |name: &str| -> io::Result<Arc<dyn DiskFile>> {
            remove_if_there(disk, Path::new(name))?;
            let file = disk.create(Path::new(name))?;
            write_zeros(&*file, 0..self.file_bytes)?;
            file.sync_data()?;
            Ok(file)
        };
        if !self.state().slots.iter().all(|slot| slot.file.is_none() && slot.logs.is_empty()) {
            return;
        }
        let made = make(FILES[0]).and_then(|first| Ok([first, make(FILES[1])?]));
        match made.and_then(|made| disk.sync_dir(Path::new("")).map(|()| made)) {
            Ok([first, second]) => {
                let mut state = self.state();
                for (index, file) in [first, second].into_iter().enumerate() {
                    state.slots[index].file = Some(file);
                    state.begin(index);
                }
                state.active = 0;
                self.note_ready(&state);
            }
            Err(_) => {
                for name in FILES {
                    let _an_empty_journal_harms_nobody = remove_if_there(disk, Path::new(name));
                }
            }
        }
    }

    /// Makes rounds durable, as many as it can take.
    pub fn write(&self, shared: &Arc<Shared>, gathered: Vec<Gathered>) -> Carried {
        let mut carried = Carried::default();
        let mut parts = Vec::new();
        let wanted: u64 = gathered.iter().map(|one| ENTRY_BYTES as u64 + one.round.bytes()).sum();
        let mut draft = Draft::with_room(wanted.min(self.batch_bytes_max) as usize);
        let mut state = self.state();
        for one in gathered {
            let log = one.log.id();
            let part = one.log.part_of(&one.round).filter(|part| {
                draft.file_bytes(ENTRY_BYTES + part.bytes()) <= self.batch_bytes_max && state.may_hold(log)
            });
            let taken = part.filter(|part| {
                let read = |buffer: &mut [u8]| match read_full(&*part.file, buffer, part.range.start, Wait::Yes) {
                    Ok(read) if read == buffer.len() => Ok(()),
                    // The log's own sync tells what is wrong with the file.
                    _ => Err(()),
                };
                draft.push_bytes(log, part.segment.base, part.range.start, part.bytes(), read).is_ok()
            });
            match taken {
                Some(part) => {
                    carried.durable.push(one);
                    parts.push(part);
                }
                None => carried.left.push(one),
            }
        }
        if draft.is_empty() {
            return carried;
        }
        match self.append(shared, &mut state, draft) {
            Ok(()) => {
                let active = state.active;
                let logs = &mut state.slots[active].logs;
                for (one, part) in carried.durable.iter().zip(parts) {
                    let fresh = || Homeless { log: Weak::new(), files: BTreeMap::new(), at_home: false };
                    let homeless = logs.entry(one.log.id()).or_insert_with(fresh);
                    homeless.log = Arc::downgrade(&one.log);
                    homeless.at_home = false;
                    homeless.files.insert(part.segment.number, part.file);
                }
            }
            Err(_) => carried.left.append(&mut carried.durable),
        }
        carried
    }

    /// Writes a batch and syncs it, going on to the other file where this one is full.
    fn append(&self, shared: &Arc<Shared>, state: &mut State, draft: Draft) -> Result<(), NotWritten> {
        if state.failed {
            return Err(NotWritten::Failed);
        }
        let bytes = draft.file_bytes(0);
        let mut overwritten = None;
        if state.slots[state.active].position + bytes > self.file_bytes {
            let (full, other) = (state.active, 1 - state.active);
            if state.slots[other].file.is_none() || !state.slots[other].is_at_home() {
                self.ready.store(false, Ordering::Relaxed);
                return Err(NotWritten::Full);
            }
            overwritten = Some(std::mem::take(&mut state.slots[other].logs));
            state.begin(other);
            state.active = other;
            let generation = state.slots[full].generation;
            let shared = shared.clone();
            shared
                .clone()
                .threads
                .run(Lane::Work, Box::new(move || shared.journal.bring_home(&*shared.disk, full, generation)));
        }
        let active = state.active;
        let slot = &mut state.slots[active];
        let Some(file) = slot.file.clone() else { return Err(NotWritten::Full) };
        let batch = draft.finish(slot.generation, slot.sequence);
        match write_all(&*file, &batch, slot.position).and_then(|()| file.sync_data()) {
            Ok(()) => {
                slot.position += bytes;
                slot.sequence += 1;
                Ok(())
            }
            // Whoever came with it has its own files to sync, which tell what is wrong with the device.
            Err(_) => {
                // What was to be overwritten may be there still, and is not voided.
                slot.logs.extend(overwritten.into_iter().flatten());
                state.failed = true;
                self.ready.store(false, Ordering::Relaxed);
                Err(NotWritten::Failed)
            }
        }
    }

    /// Syncs the files of the logs that a full file speaks for, so that it can be used again.
    fn bring_home(&self, disk: &dyn Disk, index: usize, generation: u64) {
        let waiting: Vec<_> = {
            let state = self.state();
            let slot = &state.slots[index];
            if slot.generation != generation {
                return;
            }
            let away = slot.logs.iter().filter(|(_, log)| !log.at_home);
            away.map(|(&id, log)| (id, log.files.values().cloned().collect::<Vec<_>>())).collect()
        };
        // The slow part, and without the lock: rounds go on in the other file.
        let sync = |files: Vec<Arc<dyn DiskFile>>| files.iter().try_for_each(|file| file.sync_data());
        let synced: Vec<_> = waiting.into_iter().map(|(id, files)| (id, sync(files))).collect();
        let mut state = self.state();
        let slot = &mut state.slots[index];
        if slot.generation == generation {
            for (id, synced) in synced {
                if let Some(homeless) = slot.logs.get_mut(&id).filter(|homeless| !homeless.at_home) {
                    // What does not come home keeps its place here, and the file is not used again.
                    let _kept = homeless.settle(disk, id, synced);
                }
            }
        }
        self.note_ready(&state);
    }

    /// What the journal holds of a log counts no more: its files are synced, and a line says so. Called before bytes of it
    /// are cut off, or its directory goes; in the latter case files that cannot be synced are no hindrance.
    pub fn void(&self, shared: &Arc<Shared>, log: LogId, before: Before) -> io::Result<()> {
        let mut state = self.state();
        if !state.may_speak_of(log) {
            return Ok(());
        }
        for homeless in state.slots.iter_mut().filter_map(|slot| slot.logs.get_mut(&log)) {
            match homeless.bring_home(&*shared.disk, log) {
                Err(error) if before == Before::Cut => return Err(error),
                _ => homeless.at_home = true,
            }
        }
        let line = || {
            let mut draft = Draft::new();
            draft.push_void(log);
            draft
        };
        let written = match self.append(shared, &mut state, line()) {
            Err(NotWritten::Full) => {
                // Rare: the other file is being brought home just now. Done here once more, and then there is room.
                let other = 1 - state.active;
                state.slots[other].bring_home(&*shared.disk)?;
                self.append(shared, &mut state, line())
            }
            outcome => outcome,
        };
        match written {
            Ok(()) => {
                state.slots.iter_mut().for_each(|slot| drop(slot.logs.remove(&log)));
                self.note_ready(&state);
                Ok(())
            }
            // No line can be written any more: so the files go, once nothing needs them.
            Err(NotWritten::Full | NotWritten::Failed) => state.give_up(&*shared.disk),
        }
    }

    /// Writes again what the journal holds of a log whose own files are not to be trusted. It is not open.
    pub fn redo(&self, shared: &Shared, log: LogId) -> io::Result<()> {
        let mut state = self.state();
        if !state.slots.iter().any(|slot| slot.logs.contains_key(&log)) {
            return Ok(());
        }
        if let Some(left) = replay::read(&*shared.disk, &FILES)? {
            replay::apply(&*shared.disk, &left, Some(log))?;
        }
        for slot in &mut state.slots {
            if let Some(homeless) = slot.logs.get_mut(&log) {
                homeless.at_home = true;
                homeless.files.clear();
            }
        }
        self.note_ready(&state);
        Ok(())
    }

    /// Leaves nothing to be written again at the next start. All logs are closed. What fails now is done then.
    pub fn close(&self, disk: &dyn Disk) {
        let mut state = self.state();
        self.ready.store(false, Ordering::Relaxed);
        let home = state.slots.iter_mut().try_for_each(|slot| slot.bring_home(disk));
        if home.is_ok() && !state.failed {
            let _read_at_the_next_start = state.empty();
        }
        state.failed = true;
    }
}

/// Removes the files, durably, one after the other: the older first, for the newer one may void what is in it.
fn remove_files(disk: &dyn Disk, order: [usize; 2]) -> io::Result<()> {
    order.into_iter().try_for_each(|index| {
        remove_if_there(disk, Path::new(FILES[index]))?;
        disk.sync_dir(Path::new(""))
    })
}

impl State {
    fn begin(&mut self, index: usize) {
        let generation = self.next_generation;
        self.next_generation += 1;
        self.slots[index].begin(generation);
    }

    fn has_room(&self, file_bytes: u64, batch_bytes_max: u64) -> bool {
        let (active, other) = (&self.slots[self.active], &self.slots[1 - self.active]);
        let fits = active.position + batch_bytes_max <= file_bytes;
        active.file.is_some() && (fits || other.file.is_some() && other.is_at_home())
    }

    fn may_hold(&self, log: LogId) -> bool {
        let logs = &self.slots[self.active].logs;
        logs.len() < LOGS_MAX || logs.contains_key(&log)
    }

    /// The files begin with empty batches, and nothing follows.
    fn go_on_after_nothing(&mut self) {
        for slot in &mut self.slots {
            slot.position = BLOCK_BYTES;
            slot.sequence = 1;
        }
    }

    /// Puts an empty batch of a new generation at the beginning of each file: what follows counts no more. The older file
    /// first, for the newer one may void what is in it.
    fn empty(&mut self) -> io::Result<()> {
        let mut indexes = [0, 1];
        indexes.sort_by_key(|&index| self.slots[index].generation);
        for index in indexes {
            self.begin(index);
            let slot = &mut self.slots[index];
            let Some(file) = &slot.file else { continue };
            write_all(&**file, &Draft::new().finish(slot.generation, 0), 0)?;
            file.sync_data()?;
            slot.position = BLOCK_BYTES;
            slot.sequence = 1;
        }
        self.active = 0;
        Ok(())
    }

    /// Whether the files may hold bytes of a log that no line voids. Of the batch whose write or sync failed nobody knows
    /// whether it is there.
    fn may_speak_of(&self, log: LogId) -> bool {
        let there = |slot: &Slot| slot.logs.contains_key(&log) || self.failed && slot.file.is_some();
        self.slots.iter().any(there)
    }

    /// Brings everything home and removes the files.
    fn give_up(&mut self, disk: &dyn Disk) -> io::Result<()> {
        self.failed = true;
        self.slots.iter_mut().try_for_each(|slot| slot.bring_home(disk))?;
        // Where nothing of the active file's generation was written, it holds one before the other's.
        let first = if self.slots[self.active].sequence == 0 { self.active } else { 1 - self.active };
        remove_files(disk, [first, 1 - first])?;
        for slot in &mut self.slots {
            *slot = Slot::default();
        }
        Ok(())
    }
}
