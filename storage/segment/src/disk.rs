//! The seam between the engine and a disk: every file operation the engine makes is a call here.
//!
//! **Why it exists.** A fault is worth nothing as a test unless it can be put at each single operation; so a simulator
//! may stand a disk under the production engine that tears writes, forgets what was not synced, fills up, or fails.
//!
//! **What must stay true.** Paths are relative to the data directory. Nothing here is durable until the matching sync has
//! returned: [`DiskFile::sync_data`] for a file's bytes and length, [`Disk::sync_dir`] for the names in a directory.

mod host;

pub use host::HostDisk;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

/// Whether a read may wait for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Only what is in memory already; otherwise [`io::ErrorKind::WouldBlock`], or fewer bytes than asked for.
    No,
    Yes,
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Writes some of `parts` at `position`, and says how many bytes; fewer than all is no error.
    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize>;

    /// Reads some bytes from `position`, and says how many; zero is the end of the file.
    fn read_at(&self, buffer: &mut [u8], position: u64, wait: Wait) -> io::Result<usize>;

    /// Makes the file's bytes and its length durable.
    fn sync_data(&self) -> io::Result<()>;

    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Lets go of what memory holds of the file, so that reads tell what the device holds. Best effort.
    fn forget_cached(&self) {}

    /// The file as the kernel knows it, if it does.
    fn descriptor(self: Arc<Self>) -> Option<Arc<dyn AsFd + Send + Sync>> {
        None
    }
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskEntry {
    pub name: String,
    pub is_dir: bool,
    /// Of a file; zero for a directory.
    pub bytes: u64,
}

/// Room on the device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    pub total: u64,
    /// What this process may still use.
    pub free: u64,
}

/// A directory of files on some device.
pub trait Disk: Send + Sync {
    /// Opens a file that exists, for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates a file that must not exist.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, in no particular order. Names that are not UTF-8 are none of ours and are left out.
    fn entries(&self, path: &Path) -> io::Result<Vec<DiskEntry>>;

    /// Atomic: `to`, if it exists, is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove_file(&self, path: &Path) -> io::Result<()>;

    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes everything on the directory's file system durable.
    fn sync_filesystem(&self) -> io::Result<()>;

    /// Whether the directory is a file system of its own, so that syncing that whole costs nobody else.
    fn owns_filesystem(&self) -> bool;

    /// Whether [`Disk::sync_filesystem`] fails if something could not be written. Where it does not say, it is not used.
    fn sync_filesystem_tells(&self) -> bool;

    fn space(&self) -> io::Result<DiskSpace>;

    /// Lets others have the directory; nothing is called after it but by mistake.
    fn release(&self) {}
}

/// Writes all of `bytes` at `position`.
pub fn write_all(file: &dyn DiskFile, mut bytes: &[u8], mut position: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(&[IoSlice::new(bytes)], position)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => {
                bytes = &bytes[written..];
                position += written as u64;
            }
        }
    }
    Ok(())
}

/// Fills `buffer` from `position` as far as the file, or with [`Wait::No`] memory, reaches; says how far.
pub fn read_full(file: &dyn DiskFile, buffer: &mut [u8], position: u64, wait: Wait) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], position + filled as u64, wait) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && filled > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The whole of a small file; `None` if there is none.
pub fn read_small(disk: &dyn Disk, path: &Path, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut contents = Vec::new();
    // Most are a few hundred bytes: begin small, and double.
    let mut window = 1024;
    loop {
        let from = contents.len();
        contents.resize((from + window).min(bytes_max + 1), 0);
        let read = read_full(&*file, &mut contents[from..], from as u64, Wait::Yes)?;
        contents.truncate(from + read);
        if contents.len() > bytes_max {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a small file is far too large"));
        }
        if read < window {
            return Ok(Some(contents));
        }
        window *= 2;
    }
}

/// Whether a replaced file must outlive a power cut before the call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durable {
    Now,
    /// After a power cut there may be the old file, the new one, or one that its checksum exposes.
    Eventually,
}

/// Puts `contents` in place of the file `name` in `dir`: whoever looks sees the old or the new, never a mixture.
pub fn replace(disk: &dyn Disk, dir: &Path, name: &str, contents: &[u8], durable: Durable) -> io::Result<()> {
    let (path, draft) = (dir.join(name), dir.join(format!("{name}.draft")));
    match disk.remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(&draft)?;
    write_all(&*file, contents, 0)?;
    if durable == Durable::Now {
        file.sync_data()?;
    }
    disk.rename(&draft, &path)?;
    if durable == Durable::Now { disk.sync_dir(dir) } else { Ok(()) }
}

/// Removes a file; that there is none is as good.
pub fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}
