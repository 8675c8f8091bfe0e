//! The disk of the machine we run on.

use super::{Disk, DiskEntry, DiskFile, DiskSpace, Wait};
use rustix::fs::{Advice, FlockOperation};
use rustix::io::ReadWriteFlags;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Slices one `pwritev` takes; more is an error. POSIX lets systems differ, Linux has had this value since 1998.
const IOV_MAX: usize = 1024;

/// The name of the file whose lock says that a process uses the directory.
const LOCK_FILE: &str = "LOCK";

/// The files under one directory, which is ours alone while this value lives.
#[derive(Debug)]
pub struct HostDisk {
    root: PathBuf,
    /// Held open since before the first write: the kernel reports a failed write-back of the file system only to
    /// descriptors that were open when it happened.
    root_dir: File,
    owns_filesystem: bool,
    sync_filesystem_tells: bool,
    lock: File,
}

impl HostDisk {
    /// Takes the directory, creating it if it is missing. [`io::ErrorKind::WouldBlock`] if another process has it.
    pub fn take(root: PathBuf) -> io::Result<Self> {
        let missing: Vec<_> = root.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.is_dir()).collect();
        fs::create_dir_all(&root)?;
        // The new names must not vanish in a power cut while what is stored under them does not.
        for parent in missing.into_iter().filter_map(Path::parent) {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            File::open(parent)?.sync_all()?;
        }
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(root.join(LOCK_FILE))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let root_dir = File::open(&root)?;
        let above = fs::canonicalize(&root)?.parent().map(fs::metadata).transpose()?;
        let owns_filesystem = above.is_none_or(|above| above.dev() != root_dir.metadata().map_or(0, |dir| dir.dev()));
        Ok(Self { root, root_dir, owns_filesystem, sync_filesystem_tells: kernel_is_at_least(5, 8), lock })
    }

    fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }
}

/// Linux 5.8 was the first whose `syncfs` reports failed write-back. `false` where the kernel does not say what it is.
fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|other: char| !other.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(this_major)), Some(Ok(this_minor))) => (this_major, this_minor) >= (major, minor),
        _ => false,
    }
}

impl Disk for HostDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.at(path))?;
        Ok(Arc::new(HostFile::new(file)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(self.at(path))?;
        Ok(Arc::new(HostFile::new(file)))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(self.at(path))
    }

    fn entries(&self, path: &Path) -> io::Result<Vec<DiskEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.at(path))? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let is_dir = entry.file_type()?.is_dir();
            let bytes = if is_dir { 0 } else { entry.metadata()?.len() };
            entries.push(DiskEntry { name, is_dir, bytes });
        }
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(self.at(path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(self.at(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(self.at(path))?.sync_all()
    }

    fn sync_filesystem(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.root_dir)?)
    }

    fn owns_filesystem(&self) -> bool {
        self.owns_filesystem
    }

    fn sync_filesystem_tells(&self) -> bool {
        self.sync_filesystem_tells
    }

    fn space(&self) -> io::Result<DiskSpace> {
        let stat = rustix::fs::fstatvfs(&self.root_dir)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(DiskSpace { total: bytes(stat.f_blocks), free: bytes(stat.f_bavail) })
    }

    fn release(&self) {
        // Closing the file does the same, when the last log is dropped.
        let _ = rustix::fs::flock(&self.lock, FlockOperation::Unlock);
    }
}

#[derive(Debug)]
struct HostFile {
    file: File,
    /// Whether the file system can say "only from memory"; found out by the first try.
    can_refuse_to_wait: AtomicBool,
}

impl HostFile {
    fn new(file: File) -> Self {
        Self { file, can_refuse_to_wait: AtomicBool::new(true) }
    }
}

impl DiskFile for HostFile {
    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::pwritev(&self.file, &parts[..parts.len().min(IOV_MAX)], position))?)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64, wait: Wait) -> io::Result<usize> {
        if wait == Wait::Yes {
            return self.file.read_at(buffer, position);
        }
        if !self.can_refuse_to_wait.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut buffers = [IoSliceMut::new(buffer)];
        match rustix::io::preadv2(&self.file, &mut buffers, position, ReadWriteFlags::NOWAIT) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                self.can_refuse_to_wait.store(false, Ordering::Relaxed);
                Err(io::ErrorKind::WouldBlock.into())
            }
            outcome => Ok(outcome?),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn forget_cached(&self) {
        // Advice; what it cannot do, the reader's checksum makes up for.
        let _ = rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed);
    }

    fn descriptor(self: Arc<Self>) -> Option<Arc<dyn AsFd + Send + Sync>> {
        Some(self)
    }
}

impl AsFd for HostFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
