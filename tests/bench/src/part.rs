//! Parts of this program that run as processes of their own, for a turn: so each one's CPU and memory can be told apart, none
//! finds what an earlier one has warmed or worn, and one that crashes takes nobody along.
//!
//! They are told what to do in a line of JSON, say what comes of it in lines, and end with their standard input: none
//! outlives this program, however that ends.

use crate::BenchError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// What a part may take beyond what it measures: to start, to connect, and to wait for the last answers.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long a part may take to end.
const END_WITHIN: Duration = Duration::from_secs(5);
/// An order is some hundred bytes.
const ORDER_BYTES_MAX: u64 = 64 << 10;

/// What a part says, on its standard output.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said<S> {
    /// It is reached at this port.
    Listens(u16),
    /// The warm-up is over: from now on it counts.
    Begun,
    /// It is over, and this is what was seen.
    Ended(S),
    Failed(String),
}

/// A part's process, as the one that started it has it. **Invariant:** it does not outlive this value.
pub struct Part {
    name: &'static str,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Part {
    /// `command` is the part's, hidden among those of this program; `name` is what people call it.
    pub fn start(name: &'static str, command: &'static str, order: &impl Serialize) -> Result<Self, BenchError> {
        let failed = |doing: &'static str| move |source| BenchError::Part { name, doing, source };
        let own = std::env::current_exe().map_err(failed("find this program"))?;
        let mut start = Command::new(own);
        start.arg(command).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = start.spawn().map_err(failed("start it"))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (sender, lines) = channel();
        if let Some(output) = output {
            // Until it ends; who has given it up does not hear it.
            std::thread::spawn(move || {
                BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
            });
        }
        let mut part = Self { name, child, input, lines };
        let order = serde_json::to_string(order).map_err(BenchError::Report)?;
        if let Some(input) = &mut part.input {
            writeln!(input, "{order}").map_err(failed("tell it what to do"))?;
        }
        Ok(part)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next that it says; that it failed is an error.
    pub fn says<S: DeserializeOwned>(&mut self, within: Duration) -> Result<Said<S>, BenchError> {
        let Ok(line) = self.lines.recv_timeout(within) else {
            let status = self.child.try_wait().ok().flatten();
            return Err(self.failed(match status {
                Some(status) => format!("it has ended ({status})"),
                None => format!("it has said nothing for {} s", within.as_secs()),
            }));
        };
        match serde_json::from_str(&line) {
            Ok(Said::Failed(why)) => Err(self.failed(why)),
            Ok(said) => Ok(said),
            Err(why) => Err(self.failed(format!("it said {line:?}: {why}"))),
        }
    }

    pub fn failed(&self, why: impl Into<String>) -> BenchError {
        BenchError::PartFailed { name: self.name, why: why.into() }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        drop(self.input.take());
        let until = Instant::now() + END_WITHIN;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the part itself is told, once.
pub fn order<O: DeserializeOwned>() -> Result<O, String> {
    let mut line = String::new();
    let input = std::io::stdin().lock();
    // Nothing comes behind the line, so that nothing is lost with this buffer.
    BufReader::new(input.take(ORDER_BYTES_MAX)).read_line(&mut line).map_err(|why| why.to_string())?;
    serde_json::from_str(&line).map_err(|why| format!("no order came: {why}"))
}

/// Returns when whoever started this part has no more use for it.
pub fn until_over() {
    let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
}

/// Says something to the one that started this part. One that does not listen any more has ended, and then so does this.
pub fn say<S: Serialize>(said: &Said<S>) {
    let mut out = std::io::stdout().lock();
    if let Ok(line) = serde_json::to_string(said) {
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}
