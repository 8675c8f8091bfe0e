//! The machine under a measurement, as the kernel tells of it: what it is, what it was busy with, what a process has used.

pub mod about;
pub mod listeners;
pub mod process;
pub mod processors;
pub mod quiet;
pub mod sockets;
pub mod window;

pub use process::Usage;
pub use processors::Processors;
pub use window::Window;

/// How the kernel decides how much of a TCP stream is on its way.
pub fn congestion_control() -> String {
    read("/proc/sys/net/ipv4/tcp_congestion_control").trim().to_owned()
}

/// A file of /proc; empty where there is none.
fn read(path: impl AsRef<std::path::Path>) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The number after a name at the beginning of a line, as many files of /proc have them.
fn number_after(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}
