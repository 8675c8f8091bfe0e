//! The broker as a process: started as an operator would, killed as the kernel would.
//!
//! **Invariant:** no test leaves a process behind; every one is ended by its own id when its [`Broker`] is dropped. When
//! the test has failed, the broker's log goes to its output.

use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Far above what any start takes, so that only a hang meets it.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// A broker that was asked to stop has this long before it counts as hanging.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// The end of the log that a failed test shows.
const LOG_SHOWN_BYTES: usize = 16 * 1024;

pub struct Broker {
    process: Option<Child>,
    port: u16,
    admin_port: u16,
    settings: Vec<String>,
    data: PathBuf,
    home: TempDir,
}

/// One for a broker, or for a relay before it.
pub fn free_port() -> u16 {
    chronik_ports::free_port().expect("some port of 127.0.0.1 is free")
}

/// The built broker: `CHRONIK_BIN`, or else what cargo built beside this test.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("CHRONIK_BIN") {
        return path.into();
    }
    let this = std::env::current_exe().expect("a running program has a path");
    let profile = this.parent().and_then(Path::parent).expect("tests are in target/PROFILE/deps");
    let found = ["../release/chronik", "chronik"].map(|name| profile.join(name)).into_iter().find(|path| path.exists());
    found.expect("build the broker first (cargo build), or name it in CHRONIK_BIN")
}

impl Broker {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a broker with settings of the form `key=value`, and waits until it is ready.
    pub fn with(settings: &[&str]) -> Self {
        Self::in_directory(settings, None)
    }

    /// Starts a broker whose data directory is given, on another filesystem for example.
    pub fn in_directory(settings: &[&str], data: Option<&Path>) -> Self {
        let home = tempfile::Builder::new().prefix("chronik-e2e-").tempdir().expect("a temporary directory");
        let mut broker = Self {
            process: None,
            port: free_port(),
            admin_port: free_port(),
            settings: settings.iter().map(ToString::to_string).collect(),
            data: data.map_or_else(|| home.path().join("data"), Path::to_path_buf),
            home,
        };
        broker.restart();
        broker
    }

    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("log")
    }

    pub fn log(&self) -> String {
        fs::read(self.log_path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Starts the broker in the same directory and on the same port, after it was killed or stopped.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "stop the broker first");
        let log = File::options().create(true).append(true).open(self.log_path()).expect("the log's file");
        let mut command = Command::new(binary());
        command.arg("--set").arg(format!("kafka.listen=127.0.0.1:{}", self.port));
        command.arg("--set").arg(format!("admin.listen=127.0.0.1:{}", self.admin_port));
        command.arg("--set").arg(format!("node.data_dir={}", self.data.display()));
        for setting in &self.settings {
            command.arg("--set").arg(setting);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        self.process = Some(command.spawn().expect("the broker starts"));
        let end = Instant::now() + READY_LIMIT;
        while self.http("/readyz").is_none_or(|answer| !answer.starts_with("HTTP/1.1 200")) {
            let process = self.process.as_mut().expect("started above");
            if let Some(status) = process.try_wait().expect("the broker's status") {
                self.process = None;
                panic!("the broker ended with {status}:\n{}", self.log());
            }
            assert!(Instant::now() < end, "the broker does not get ready:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// An answer of the admin port, head and body; none where it does not listen.
    pub fn http(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin_port)).ok()?;
        stream.set_read_timeout(Some(READY_LIMIT)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("a running broker");
        process.kill().expect("the broker can be killed");
        process.wait().expect("a killed process ends");
    }

    /// SIGTERM, and what the broker ends with.
    pub fn terminate(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("a running broker");
        kill_process(Pid::from_child(&process), Signal::TERM).expect("the broker can be told to stop");
        let end = Instant::now() + STOP_LIMIT;
        loop {
            if let Some(status) = process.try_wait().expect("the broker's status") {
                return status;
            }
            if Instant::now() > end {
                let _ = process.kill();
                let _ = process.wait();
                panic!("the broker does not stop:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("a running broker").id()
    }

    fn memory_bytes(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process runs");
        let line = status.lines().find(|line| line.starts_with(field)).expect("Linux reports it");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number of KiB") * 1024
    }

    /// Memory that the broker holds now.
    pub fn resident_bytes(&self) -> u64 {
        self.memory_bytes("VmRSS:")
    }

    /// The most that it ever held.
    pub fn resident_bytes_peak(&self) -> u64 {
        self.memory_bytes("VmHWM:")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(LOG_SHOWN_BYTES);
            let from = (from..=log.len()).find(|&at| log.is_char_boundary(at)).unwrap_or(0);
            eprintln!("-- the broker's log:\n{}\n-- end of the broker's log", &log[from..]);
        }
    }
}
