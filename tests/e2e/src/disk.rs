//! A node's disk with a file system of its own, from which the power can be cut: what was not synced is gone.
//!
//! It is ext4 in a file, mounted through a loop device. What was synced is in the file; what was only written is in the
//! kernel's memory, and some of it has found its way. `EXT4_IOC_SHUTDOWN` without a flush (what file systems' own tests take for
//! a power cut) ends all of that at one moment: nothing reaches the file any more, and unmounting throws away what memory
//! holds. Mounted again it is what a machine finds that comes up after a power cut, its journal included.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

/// Sparse, and far above what any story writes.
const DISK_BYTES: u64 = 8 << 30;
/// After so many seconds ext4 writes its journal, whether or not anybody syncs: in no story's time, since what nobody syncs
/// would otherwise be there after most cuts.
const COMMIT_EVERY_S: u64 = 300;
/// A file that has not been written to for so long has nothing unsynced: the kernel writes its bytes within half a minute.
const SETTLED_AFTER: Duration = Duration::from_secs(COMMIT_EVERY_S + 60);
/// The file systems whose mount points are its arguments stop: `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`.
const SHUT_DOWN: &str = "import fcntl, os, struct, sys
opened = [os.open(path, os.O_RDONLY) for path in sys.argv[1:]]
for one in opened:
    fcntl.ioctl(one, 0x8004587D, struct.pack('I', 2))
";

/// See the module's head. Unmounted when it is dropped.
pub struct Disk {
    image: PathBuf,
    at: PathBuf,
}

/// What files held that may not have been synced.
pub struct Written(BTreeMap<PathBuf, Vec<u8>>);

fn run(program: &str, arguments: &[&str], paths: &[&Path]) -> Result<(), String> {
    let outcome = Command::new(program).args(arguments).args(paths).output();
    let Output { status, stderr, .. } = outcome.map_err(|why| format!("{program}: {why}"))?;
    if status.success() { Ok(()) } else { Err(format!("{program}: {}", String::from_utf8_lossy(&stderr).trim())) }
}

impl Disk {
    /// A blank one, mounted there; the error says what this machine or this user lacks.
    pub fn mounted(image: PathBuf, at: PathBuf) -> Result<Self, String> {
        fs::create_dir_all(&at).expect("the mount point");
        File::create(&image).and_then(|file| file.set_len(DISK_BYTES)).expect("the disk's file");
        // Nothing is left to be written in the background, where it would be written by nobody's wish.
        let options = ["-q", "-F", "-m", "0", "-J", "size=16", "-E", "nodiscard,lazy_itable_init=1"];
        run("mkfs.ext4", &options, &[&image])?;
        let disk = Self { image, at };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), String> {
        let options = format!("loop,noinit_itable,commit={COMMIT_EVERY_S}");
        run("mount", &["-t", "ext4", "-o", &options], &[&self.image, &self.at])
    }

    /// What lies in its files now, as far as it may not have been synced. Nobody writes any more.
    pub fn written(&self) -> Written {
        let mut written = BTreeMap::new();
        let mut directories = vec![self.at.clone()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).expect("a directory").flatten() {
                let known = entry.metadata().expect("what it is");
                let age = SystemTime::now().duration_since(known.modified().expect("its age")).unwrap_or_default();
                if known.is_dir() {
                    directories.push(entry.path());
                } else if age < SETTLED_AFTER {
                    written.insert(entry.path(), fs::read(entry.path()).expect("its bytes"));
                }
            }
        }
        Written(written)
    }

    /// The power of all of them is cut at one moment.
    pub fn cut_power(disks: &[Disk]) {
        let mounts: Vec<&Path> = disks.iter().map(|disk| &*disk.at).collect();
        run("python3", &["-c", SHUT_DOWN], &mounts).expect("the file systems shut down");
        for disk in disks {
            run("umount", &[], &[&disk.at]).expect("nobody has files open there any more");
        }
    }

    /// The power is back; gives how many bytes of those are not there any more. Zeros do not count: many are written ahead.
    pub fn come_back(&self, written: &Written) -> u64 {
        self.mount().expect("a file system that can be mounted again");
        let lost = |(path, before): (&PathBuf, &Vec<u8>)| {
            let now = fs::read(path).unwrap_or_default();
            before.iter().enumerate().filter(|(at, byte)| **byte != 0 && now.get(*at) != Some(byte)).count()
        };
        written.0.iter().map(lost).sum::<usize>() as u64
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--lazy", "--quiet"]).arg(&self.at).status();
    }
}
