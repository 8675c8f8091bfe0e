//! A broker that is started for a run, watched through /proc, and stopped.

use crate::machine::Usage;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a broker may take to be ready before the run is given up.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Why there is no broker to measure.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error(
        "{path} cannot be started: {source} (build it with `cargo build --release`, or name one with --broker-binary)"
    )]
    Start { path: PathBuf, source: std::io::Error },
    #[error("the broker was not ready within {} s", READY_WITHIN.as_secs())]
    NotReady,
    #[error("the broker ended at once; it said: {0}")]
    Ended(String),
    #[error("127.0.0.1 has no free port for it")]
    NoPort,
    #[error("cannot {doing}: {source}")]
    Io { doing: &'static str, source: std::io::Error },
}

pub fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> BrokerError {
    move |source| BrokerError::Io { doing, source }
}

fn path(named: Option<&Path>) -> Result<PathBuf, BrokerError> {
    match named {
        Some(named) => Ok(named.to_owned()),
        None => Ok(std::env::current_exe().map_err(io("find this program"))?.with_file_name("chronik")),
    }
}

/// The broker's program, and the version that it says it is.
pub fn binary(named: Option<&Path>) -> Result<(PathBuf, String), BrokerError> {
    let path = path(named)?;
    let said = Command::new(&path).arg("--version").output();
    let said = said.map_err(|source| BrokerError::Start { path: path.clone(), source })?;
    Ok((path, String::from_utf8_lossy(&said.stdout).trim().to_owned()))
}

/// A directory for data, which goes when the value does.
pub fn directory(parent: Option<&Path>) -> Result<tempfile::TempDir, BrokerError> {
    let made = match parent {
        Some(parent) => tempfile::tempdir_in(parent),
        None => tempfile::tempdir(),
    };
    made.map_err(io("make a data directory"))
}

/// A local broker on free ports, with its data in a directory that goes when it does.
pub struct Local {
    child: Child,
    binary: PathBuf,
    settings: Vec<String>,
    data: tempfile::TempDir,
    kafka: String,
    admin: String,
    pub ready_after: Duration,
}

impl Local {
    pub fn start(binary: Option<&Path>, parent: Option<&Path>, settings: &[String]) -> Result<Self, BrokerError> {
        let binary = path(binary)?;
        let data = directory(parent)?;
        let (child, kafka, admin, ready_after) = spawn(&binary, data.path(), settings)?;
        Ok(Self { child, binary, settings: settings.to_vec(), data, kafka, admin, ready_after })
    }

    /// Stops the broker in order and starts it again on the same data.
    pub fn restart(&mut self) -> Result<(), BrokerError> {
        self.stop();
        let (child, kafka, admin, ready_after) = spawn(&self.binary, self.data.path(), &self.settings)?;
        (self.child, self.kafka, self.admin, self.ready_after) = (child, kafka, admin, ready_after);
        Ok(())
    }

    pub fn bootstrap(&self) -> &str {
        &self.kafka
    }

    /// The address of its admin port.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// Bytes that its data takes on the disk.
    pub fn disk_bytes(&self) -> u64 {
        disk_bytes(self.data.path())
    }

    /// None once it has ended.
    pub fn usage(&self) -> Option<Usage> {
        Usage::of(self.pid())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn stop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.stop();
    }
}

fn disk_bytes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => disk_bytes(&entry.path()),
            Ok(data) => data.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

type Spawned = (Child, String, String, Duration);

fn spawn(binary: &Path, data: &Path, settings: &[String]) -> Result<Spawned, BrokerError> {
    let began = Instant::now();
    let mut command = Command::new(binary);
    command.args(["serve", "--set", "kafka.listen=127.0.0.1:0", "--set", "admin.listen=127.0.0.1:0", "--set"]);
    command.arg(format!("node.data_dir={}", data.display()));
    for setting in settings {
        command.args(["--set", setting]);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|source| BrokerError::Start { path: binary.to_owned(), source })?;
    let Some(stdout) = child.stdout.take() else { return Err(BrokerError::NotReady) };
    let mut lines = BufReader::new(stdout).lines();
    let (mut kafka, mut admin, mut said) = (None, None, String::new());
    while kafka.is_none() || admin.is_none() {
        let Some(Ok(line)) = lines.next() else {
            let _ = child.wait();
            return Err(BrokerError::Ended(said));
        };
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("kafka"), Some(address)) => kafka = Some(address.to_owned()),
            (Some("admin"), Some(url)) => {
                admin = Some(url.trim_start_matches("http://").trim_end_matches('/').to_owned());
            }
            _ => {}
        }
        said.push_str(&line);
    }
    // What else it prints is dropped, so that it never blocks on it.
    std::thread::spawn(move || lines.for_each(drop));
    let (kafka, admin) = (kafka.unwrap_or_default(), admin.unwrap_or_default());
    while !is_ready(&admin) {
        if began.elapsed() > READY_WITHIN {
            let _ = child.kill();
            return Err(BrokerError::NotReady);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok((child, kafka, admin, began.elapsed()))
}

fn is_ready(admin: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(admin) else { return false };
    let mut answer = String::new();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n\r\n").is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 200")
}
