//! What all logs of one engine share.

use crate::cache::TailCache;
use crate::disk::{Disk, DiskFile, Wait, read_full, read_small};
use crate::handles::{Handle, Handles};
use crate::index::{self, Entry};
use crate::journal::Journal;
use crate::log::AheadLogs;
use crate::options::{SegmentOptions, SyncFilesystem};
use crate::room::Room;
use crate::segment::SegmentFile;
use crate::syncer::Syncer;
use crate::threads::{Lane, Threads};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How long after finding the device full to look again.
const FULL_RETRY: Duration = Duration::from_millis(100);

/// An index file larger than this is none: 4 GiB of runs in blocks, twice over.
const INDEX_BYTES_MAX: usize = 4 << 20;

pub struct Shared {
    pub disk: Arc<dyn Disk>,
    pub threads: Arc<dyn Threads>,
    pub options: SegmentOptions,
    pub handles: Handles,
    pub cache: TailCache,
    pub room: Room,
    pub syncer: Syncer,
    pub journal: Journal,
    pub ahead_logs: AheadLogs,
    segment_numbers: AtomicU64,
    probing: AtomicBool,
}

impl Shared {
    /// Writes what the journal holds to where it belongs.
    pub fn new(disk: Arc<dyn Disk>, threads: Arc<dyn Threads>, options: SegmentOptions) -> io::Result<Self> {
        let journal = Journal::open(&*disk, options.sync.journal_bytes)?;
        let filesystem = match options.sync.filesystem {
            SyncFilesystem::Never => false,
            SyncFilesystem::IfOwn => disk.owns_filesystem(),
            SyncFilesystem::Always => true,
        };
        let filesystem = filesystem && disk.sync_filesystem_tells();
        let room = Room::new(options.unwritten_bytes_max, options.free_bytes_min);
        room.sample(&*disk);
        Ok(Self {
            handles: Handles::new(options.open_files_max),
            cache: TailCache::new(options.tail_cache_bytes),
            room,
            syncer: Syncer::new(
                options.sync.threads,
                options.sync.gather_wait,
                filesystem.then_some(options.sync.filesystem_from_logs),
            ),
            journal,
            ahead_logs: AheadLogs::default(),
            segment_numbers: AtomicU64::new(0),
            probing: AtomicBool::new(false),
            disk,
            threads,
            options,
        })
    }

    /// A number no segment had before.
    pub fn next_segment_number(&self) -> u64 {
        self.segment_numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// The segment's open file. Opening one waits for the device at most for its metadata.
    pub fn open_segment(&self, segment: &SegmentFile) -> io::Result<Arc<Handle>> {
        match self.handles.get(segment.number) {
            Some(handle) => Ok(handle),
            None => Ok(self.handles.put(segment.number, self.disk.open(&segment.path())?)),
        }
    }

    /// The entries of the segment's index file.
    pub fn entries(&self, segment: &SegmentFile, handle: &Handle, wait: Wait) -> io::Result<Arc<[Entry]>> {
        if let Some(entries) = handle.entries() {
            return Ok(entries.clone());
        }
        if wait == Wait::No {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes = read_small(&*self.disk, &segment.index_path(), INDEX_BYTES_MAX)?;
        let (_, entries) = bytes
            .and_then(|bytes| index::decode(&bytes))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an index file is missing or damaged"))?;
        Ok(self.handles.put_entries(segment.number, entries.into()))
    }

    /// Looks, a little later, whether the device has room again.
    pub fn probe_room(self: &Arc<Self>) {
        if !self.probing.swap(true, Ordering::Relaxed) {
            let shared = self.clone();
            self.threads.run_after(
                FULL_RETRY,
                Lane::Work,
                Box::new(move || {
                    shared.probing.store(false, Ordering::Relaxed);
                    shared.room.sample(&*shared.disk);
                }),
            );
        }
    }

    /// Runs `job` when a device that was full may have room again.
    pub fn when_full_is_over(&self, job: impl FnOnce() + Send + 'static) {
        self.threads.run_after(FULL_RETRY, Lane::Work, Box::new(job));
    }
}

/// Reads into a fresh buffer, as far as the file, or with [`Wait::No`] memory, reaches.
pub fn read_buffer(file: &dyn DiskFile, bytes: usize, position: u64, wait: Wait) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; bytes];
    let read = read_full(file, &mut buffer, position, wait)?;
    buffer.truncate(read);
    Ok(buffer)
}
