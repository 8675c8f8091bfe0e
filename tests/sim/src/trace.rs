//! The story of a seed: a hash of all of it, and the last lines in words.
//!
//! **What must stay true.** The hash depends on what happens and on nothing else, so that the same seed twice gives the same
//! one, whether or not anybody reads the words.

use std::collections::VecDeque;
use std::time::Duration;

/// Lines kept for whoever wants to know how it came to that.
const TAIL_LINES: usize = 400;

#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    tail: VecDeque<String>,
    /// Every line is printed as it comes.
    is_loud: bool,
}

impl Trace {
    pub fn new(is_loud: bool) -> Self {
        Self { is_loud, ..Self::default() }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn mark(&mut self, what: u64) {
        // FNV's prime over words: order matters, and nothing is lost of what is mixed in.
        self.hash = (self.hash ^ what).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }

    pub fn tell(&mut self, at: Duration, line: impl FnOnce() -> String) {
        let line = line();
        self.mark(u64::try_from(at.as_micros()).unwrap_or(u64::MAX));
        line.as_bytes().chunks(8).for_each(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mark(u64::from_le_bytes(word));
        });
        let line = format!("{:>10.3} ms  {line}", at.as_secs_f64() * 1_000.0);
        if self.is_loud {
            println!("{line}");
        }
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    pub fn tail(&self) -> impl Iterator<Item = &str> {
        self.tail.iter().map(String::as_str)
    }
}
