//! The signals that ask a process to stop: the first asks, a later one insists.

use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// A second signal within this span is taken for the first one's echo: `timeout` and other supervisors signal a process
/// and then its group, which is to say the same process twice. A person who insists takes longer.
const ECHO: Duration = Duration::from_millis(500);

/// SIGTERM and SIGINT, from now on no longer deadly.
pub(super) struct Asked {
    terminate: Signal,
    interrupt: Signal,
}

impl Asked {
    /// Must be called inside a runtime.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next signal, and the exit code that says so by convention: 128 and its number.
    async fn next(&mut self) -> (&'static str, i32) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", 143),
            _ = self.interrupt.recv() => ("SIGINT", 130),
        }
    }

    /// Waits for the first signal and gives its name.
    pub async fn once(&mut self) -> &'static str {
        self.next().await.0
    }

    /// Waits for another one that is no echo of the first, which came just now.
    pub async fn again(&mut self) -> (&'static str, i32) {
        let first = Instant::now();
        loop {
            let next = self.next().await;
            if first.elapsed() >= ECHO {
                return next;
            }
        }
    }
}
