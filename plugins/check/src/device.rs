//! A disk with a file system of its own, from which the power can be cut: what was not synced is gone.
//!
//! It is ext4 in a file, mounted through a loop device where nobody else sees it. What was synced is in that file; what was
//! only written is in the kernel's memory. So what a power cut leaves is a copy of the file, taken while nobody writes to
//! the disk any more: mounted in its place it is what a machine finds that comes up again, its journal included.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Sparse; room for an engine's preparations.
const DISK_BYTES: u64 = 256 << 20;
/// After so many seconds ext4 writes its journal, whether or not anybody syncs: in no rule's time, since what nobody syncs
/// would otherwise be there after most cuts.
const COMMIT_EVERY_S: u64 = 300;

/// See the module's head. It goes with the process that judges, whose own it is.
pub(crate) struct Device {
    place: TempDir,
    cuts: u32,
}

fn run(program: &str, arguments: &[&str], paths: &[&Path]) -> io::Result<()> {
    let output = Command::new(program).args(arguments).args(paths).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

impl Device {
    /// A blank one, where this process may mount it.
    pub fn mounted() -> io::Result<Self> {
        let device = Self { place: tempfile::tempdir()?, cuts: 0 };
        fs::create_dir(device.at())?;
        File::create(device.image())?.set_len(DISK_BYTES)?;
        // Nothing is left to be written in the background, where it would be written by nobody's wish.
        let options = ["-q", "-F", "-m", "0", "-J", "size=8", "-E", "nodiscard,lazy_itable_init=1"];
        run("mkfs.ext4", &options, &[&device.image()])?;
        device.mount()?;
        Ok(device)
    }

    /// Where files lie that outlive a power cut if they are synced.
    pub fn at(&self) -> PathBuf {
        self.place.path().join("device")
    }

    fn image(&self) -> PathBuf {
        self.place.path().join(format!("image-{}", self.cuts))
    }

    fn mount(&self) -> io::Result<()> {
        let options = format!("loop,noinit_itable,commit={COMMIT_EVERY_S}");
        run("mount", &["-t", "ext4", "-o", &options], &[&self.image(), &self.at()])
    }

    /// The power is cut, and comes back. Nobody has files open there.
    pub fn cut_power(&mut self) -> io::Result<()> {
        let before = self.image();
        self.cuts += 1;
        run("cp", &["--sparse=always"], &[&before, &self.image()])?;
        // This writes what memory holds, to the disk that is gone.
        run("umount", &[], &[&self.at()])?;
        fs::remove_file(before)?;
        self.mount()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _it_goes_with_the_process = run("umount", &["--lazy", "--quiet"], &[&self.at()]);
    }
}
