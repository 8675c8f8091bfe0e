//! Reading the journal, and writing what it holds to where it belongs.

use super::format::{BLOCK_BYTES, Batches, Entry};
use crate::disk::{Disk, Wait, read_full, write_all};
use crate::segment::SegmentFile;
use chronik_core::ids::{LogId, Offset};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Larger than any journal file that the options allow.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// What the files hold, each of which may be missing.
pub struct Left {
    files: [Contents; 2],
}

#[derive(Default)]
struct Contents {
    /// Only the beginning, where that tells that there is nothing else.
    read: Vec<u8>,
    file_bytes: u64,
}

impl Left {
    pub fn sizes(&self) -> [u64; 2] {
        self.files.each_ref().map(|file| file.file_bytes)
    }

    /// Whether all files begin with empty batches, and nothing follows.
    pub fn is_empty(&self) -> bool {
        self.files.iter().all(|file| Batches::is_empty(&file.read))
    }

    /// Of each file that begins with a sound batch.
    pub fn generations(&self) -> [Option<u64>; 2] {
        self.files.each_ref().map(|file| Batches::generation(&file.read))
    }

    /// No batch that could ever be read has a higher one.
    pub fn highest_generation(&self) -> u64 {
        self.files.iter().map(|file| Batches::highest_generation(&file.read)).max().unwrap_or(0)
    }

    /// The entries that count, in the order in which they were written.
    fn entries(&self) -> Vec<Entry<'_>> {
        let mut files: Vec<_> = self
            .files
            .iter()
            .filter_map(|file| Some((Batches::generation(&file.read)?, Batches::of(&file.read))))
            .collect();
        files.sort_by_key(|(generation, _)| *generation);
        let entries: Vec<_> = files.into_iter().flat_map(|(_, batches)| batches.flatten()).collect();
        let mut void_before: BTreeMap<LogId, usize> = BTreeMap::new();
        for (at, entry) in entries.iter().enumerate() {
            if let Entry::Void { log } = entry {
                void_before.insert(*log, at);
            }
        }
        let counts = |(at, entry): (usize, Entry<'_>)| void_before.get(&entry.log()).is_none_or(|&void| void < at);
        entries.iter().copied().enumerate().filter(|&one| counts(one)).map(|(_, entry)| entry).collect()
    }
}

/// What there is to read; `None` if there are no files.
pub fn read(disk: &dyn Disk, names: &[&str; 2]) -> io::Result<Option<Left>> {
    let entries = disk.entries(Path::new(""))?;
    let mut left = Left { files: Default::default() };
    let mut any = false;
    for (contents, name) in left.files.iter_mut().zip(names) {
        let Some(entry) = entries.iter().find(|entry| entry.name == *name && !entry.is_dir) else { continue };
        any = true;
        contents.file_bytes = entry.bytes;
        let file = disk.open(Path::new(name))?;
        let whole = entry.bytes.min(FILE_BYTES_MAX) as usize;
        // Two blocks tell whether the file was left empty, as it is after an orderly end.
        contents.read.resize(whole.min(2 * BLOCK_BYTES as usize), 0);
        let read = read_full(&*file, &mut contents.read, 0, Wait::Yes)?;
        if !Batches::is_empty(&contents.read[..read]) {
            contents.read.resize(whole, 0);
            read_full(&*file, &mut contents.read[read..], read as u64, Wait::Yes)?;
        }
    }
    Ok(any.then_some(left))
}

/// Writes what counts to the segments it belongs to, of one log or of all, durably. A segment that is not there was removed
/// since, because the log begins later.
pub fn apply(disk: &dyn Disk, left: &Left, only: Option<LogId>) -> io::Result<()> {
    type Writes<'a> = Vec<(u64, &'a [u8])>;
    let mut places: BTreeMap<(LogId, Offset), Writes<'_>> = BTreeMap::new();
    for entry in left.entries() {
        if let Entry::Bytes { log, segment, position, bytes } = entry
            && only.is_none_or(|only| only == log)
        {
            places.entry((log, segment)).or_default().push((position, bytes));
        }
    }
    for ((log, segment), writes) in places {
        let path = PathBuf::from(log.to_string()).join(SegmentFile::name(segment));
        let file = match disk.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        writes.into_iter().try_for_each(|(position, bytes)| write_all(&*file, bytes, position))?;
        file.sync_data()?;
    }
    Ok(())
}
