//! A disk in memory, and threads that run when they are told to: for an engine over bytes that nobody wrote.
//!
//! Without faults, since the bytes are the fault here; the simulators' disks have those.

use chronik_storage_segment::disk::{Disk, DiskEntry, DiskFile, DiskSpace, Wait};
use chronik_storage_segment::threads::{Job, Lane, Threads};
use std::collections::{BTreeMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::future::Future;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A file grows no further than this: what writes beyond it has believed a number that it should not have.
const FILE_BYTES_MAX: usize = 1 << 20;
/// Jobs that a future may wait for; a log of a few files takes some dozens.
const JOBS_MAX: usize = 100_000;

type Contents = Arc<Mutex<Vec<u8>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Paths as they are written: comparing them component by component would take longer than all else here. `None`: a directory.
type Names = BTreeMap<OsString, Option<Contents>>;

/// See the module's head. Cheap to clone: all clones are one disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Arc<Mutex<Names>>);

fn parent(of: &OsStr) -> Option<&OsStr> {
    Path::new(of).parent().map(Path::as_os_str)
}

impl MemoryDisk {
    pub fn new() -> Self {
        let disk = Self::default();
        lock(&disk.0).insert(OsString::new(), None);
        disk
    }

    /// Puts a file there, and the directories above it.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut names = lock(&self.0);
        for dir in path.ancestors().skip(1) {
            names.insert(dir.into(), None);
        }
        names.insert(path.into(), Some(Arc::new(Mutex::new(bytes))));
    }

    /// All files with their contents, by name.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let names = lock(&self.0);
        let files = names.iter().filter_map(|(path, file)| Some((path.into(), lock(file.as_ref()?).clone())));
        files.collect()
    }

    fn file(&self, path: &Path) -> io::Result<Contents> {
        lock(&self.0).get(path.as_os_str()).cloned().flatten().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

struct MemoryFile(Contents);

impl DiskFile for MemoryFile {
    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let mut file = lock(&self.0);
        let at = usize::try_from(position).ok().filter(|at| *at <= FILE_BYTES_MAX);
        let at = at.ok_or(io::ErrorKind::FileTooLarge)?;
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        if at + bytes.len() > FILE_BYTES_MAX {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let end = at + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[at..end].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64, _: Wait) -> io::Result<usize> {
        let file = lock(&self.0);
        let from = usize::try_from(position).unwrap_or(usize::MAX).min(file.len());
        let read = buffer.len().min(file.len() - from);
        buffer[..read].copy_from_slice(&file[from..from + read]);
        Ok(read)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let length = usize::try_from(bytes).ok().filter(|length| *length <= FILE_BYTES_MAX);
        lock(&self.0).resize(length.ok_or(io::ErrorKind::FileTooLarge)?, 0);
        Ok(())
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(MemoryFile(self.file(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut names = lock(&self.0);
        if names.contains_key(path.as_os_str()) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !parent(path.as_os_str()).is_some_and(|dir| names.get(dir).is_some_and(Option::is_none)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let contents = Contents::default();
        names.insert(path.into(), Some(contents.clone()));
        Ok(Arc::new(MemoryFile(contents)))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match lock(&self.0).insert(path.into(), None) {
            None => Ok(()),
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    fn entries(&self, path: &Path) -> io::Result<Vec<DiskEntry>> {
        let names = lock(&self.0);
        if !names.get(path.as_os_str()).is_some_and(Option::is_none) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = names.iter().filter(|(other, _)| parent(other) == Some(path.as_os_str()));
        let entry = |(path, file): (&OsString, &Option<Contents>)| DiskEntry {
            name: Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned(),
            is_dir: file.is_none(),
            bytes: file.as_ref().map_or(0, |file| lock(file).len() as u64),
        };
        Ok(inside.map(entry).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut names = lock(&self.0);
        let moved: Vec<_> = names.keys().filter(|path| Path::new(path).starts_with(from)).cloned().collect();
        if moved.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        for path in moved {
            let Some(file) = names.remove(&path) else { continue };
            let rest = Path::new(&path).strip_prefix(from).unwrap_or(Path::new(""));
            let to = if rest.as_os_str().is_empty() { to.to_path_buf() } else { to.join(rest) };
            names.insert(to.into(), file);
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.file(path)?;
        lock(&self.0).remove(path.as_os_str());
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut names = lock(&self.0);
        if names.keys().any(|other| parent(other) == Some(path.as_os_str())) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        names.remove(path.as_os_str()).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_filesystem(&self) -> io::Result<()> {
        Ok(())
    }

    fn owns_filesystem(&self) -> bool {
        false
    }

    fn sync_filesystem_tells(&self) -> bool {
        true
    }

    fn space(&self) -> io::Result<DiskSpace> {
        Ok(DiskSpace { total: 1 << 40, free: 1 << 39 })
    }
}

/// Jobs that wait until a future needs them, in the order they came.
#[derive(Clone, Default)]
pub struct Turns(Arc<Mutex<Jobs>>);

#[derive(Default)]
struct Jobs {
    due: VecDeque<Job>,
    /// Waiting for time, which comes when nothing else does.
    later: VecDeque<Job>,
}

impl Turns {
    fn step(&self) -> bool {
        let job = {
            let mut jobs = lock(&self.0);
            jobs.due.pop_front().or_else(|| jobs.later.pop_front())
        };
        job.map(|job| job()).is_some()
    }

    /// Drives a future to its end.
    pub fn drive<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        for _ in 0..JOBS_MAX {
            if let Poll::Ready(outcome) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return outcome;
            }
            assert!(self.step(), "nothing is left to do, and somebody still waits");
        }
        panic!("{JOBS_MAX} jobs were not enough");
    }
}

impl Threads for Turns {
    fn run(&self, _: Lane, job: Job) {
        lock(&self.0).due.push_back(job);
    }

    fn run_after(&self, _: Duration, _: Lane, job: Job) {
        lock(&self.0).later.push_back(job);
    }
}
