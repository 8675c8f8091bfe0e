//! The executable itself on a free port, and a client that sends whatever bytes it likes.

#![allow(dead_code, reason = "each story uses its own part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// No answer takes this long; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Broker {
    child: Child,
    pub address: SocketAddr,
}

impl Broker {
    pub fn start(dir: &Path, settings: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chronik"));
        command.args(["serve", "--set", "kafka.listen=127.0.0.1:0", "--set", "admin.enabled=false"]);
        command.args(["--set", "storage.engine=memory"]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        let mut child = command
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let address = lines.find_map(|line| line.expect("text").trim().strip_prefix("kafka")?.trim().parse().ok());
        // What follows is read and dropped, so that the broker never blocks on it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address: address.expect("it says where it listens") }
    }

    pub fn connect(&self) -> Connection {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
        Connection(stream)
    }

    /// Bytes of memory that the process has now.
    pub fn resident_bytes(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most that it ever had.
    pub fn peak_bytes(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, which: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(which)).expect("a process has memory");
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024
    }

    /// An ordinary client, on a connection of its own, is served.
    pub fn serves(&self) {
        let mut client = self.connect();
        client.send(&api_versions());
        assert!(client.answer().is_some_and(|answer| answer.len() > 100), "others are served");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Connection(pub TcpStream);

impl Connection {
    /// Sends bytes as they are; the broker may close before they are all gone.
    pub fn raw(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    pub fn send(&mut self, frame: &[u8]) {
        // At once, or the system would wait for more after the first four bytes.
        self.raw(&[&(frame.len() as i32).to_be_bytes(), frame].concat());
    }

    pub fn answer(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).ok()?;
        let mut body = vec![0; usize::try_from(i32::from_be_bytes(length)).ok()?];
        self.0.read_exact(&mut body).ok()?;
        Some(body)
    }

    /// The broker closes without a byte of answer.
    pub fn is_closed(&mut self) -> bool {
        let began = Instant::now();
        let mut byte = [0];
        let read = self.0.read(&mut byte);
        assert!(began.elapsed() < PATIENCE, "neither answered nor closed");
        !matches!(read, Ok(1))
    }
}

pub fn header(key: i16, version: i16) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend_from_slice(&key.to_be_bytes());
    frame.extend_from_slice(&version.to_be_bytes());
    frame.extend_from_slice(&7i32.to_be_bytes());
    frame.extend_from_slice(&[0, 1, b'x']);
    frame
}

pub fn api_versions() -> Vec<u8> {
    header(18, 0)
}
