//! What is judged, and how this program is started again to judge one rule of it.

use chronik_conformance::wal::Directory;
use chronik_core::wal::WalEngine;
use chronik_plugin_host::{HostMinor, PluginEngine, PluginOptions, StartError};
use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// No call of a rule takes so long on any machine; one that never completes does.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// A plug-in, and what its engines are told.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Absolute.
    pub library: PathBuf,
    /// A JSON object.
    pub options: String,
}

impl Subject {
    fn options(&self, directory: &Path) -> PluginOptions {
        PluginOptions {
            options: self.options.clone(),
            lifecycle_timeout: CALL_TIMEOUT,
            call_timeout: CALL_TIMEOUT,
            ..PluginOptions::new(self.library.clone(), directory.to_owned())
        }
    }

    /// An engine over a directory.
    ///
    /// # Errors
    /// What keeps the broker from using the plug-in.
    pub fn start(&self, directory: &Path) -> Result<PluginEngine, StartError> {
        PluginEngine::start(self.options(directory))
    }

    /// As [`Self::start`], by a host that poses as one of another minor version.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub fn start_by(&self, minor: HostMinor, directory: &Path) -> Result<PluginEngine, StartError> {
        PluginEngine::start(PluginOptions { minor, ..self.options(directory) })
    }

    /// A store for the suite. It panics, in words, where an engine does not start.
    pub(crate) fn store(&self) -> Directory {
        let subject = self.clone();
        Directory::new(move |directory| -> Arc<dyn WalEngine> {
            Arc::new(
                subject.start(directory).unwrap_or_else(|error| panic!("the engine does not start: {}", whole(&error))),
            )
        })
    }
}

/// Where a process may mount devices that nobody else sees, and that go with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Apart {
    /// Devices in memory: in a user namespace any user may.
    Memory,
    /// Disks in files: only root may.
    Disk,
}

impl Apart {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Apart::Memory => &["--user", "--map-root-user", "--mount", "--"],
            Apart::Disk => &["--mount", "--"],
        }
    }
}

/// Whether this system lets this user mount a device of its own.
pub(crate) fn may_mount(apart: Apart) -> bool {
    let Ok(place) = tempfile::tempdir() else { return false };
    let mut command = Command::new("unshare");
    command.args(apart.arguments());
    match apart {
        Apart::Memory => {
            command.args(["mount", "-t", "tmpfs", "-o", "size=64k", "chronik-may-mount"]).arg(place.path())
        }
        Apart::Disk => command
            .args([
                "sh",
                "-ec",
                "truncate -s 16M $0/image; mkfs.ext4 -q -F $0/image; mount -t ext4 -o loop $0/image $0",
            ])
            .arg(place.path()),
    };
    command.output().is_ok_and(|output| output.status.success())
}

/// An error with its causes, in one line.
pub fn whole(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// How this program is started again, to judge one rule of the subject or to write for a judge.
#[derive(Clone, Debug)]
pub struct Again {
    pub program: PathBuf,
    /// Before the part.
    pub arguments: Vec<OsString>,
}

impl Again {
    pub(crate) fn command(&self, part: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).arg(part);
        command
    }

    /// The same where it may mount a device that nobody else sees, and that goes with it.
    pub(crate) fn apart(&self, apart: Apart, part: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(apart.arguments()).arg(&self.program).args(&self.arguments).arg(part);
        command
    }

    /// The same with a limit on how large files may become: a write beyond fails, and sends no signal that would end the
    /// process. Through a shell, since only a process that becomes another can be limited from the start.
    pub(crate) fn limited(&self, part: &str, file_blocks: u32) -> Command {
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!("trap '' XFSZ; ulimit -f {file_blocks}; exec \"$@\""))
            .arg("sh")
            .arg(&self.program)
            .args(&self.arguments)
            .arg(part);
        command
    }
}
