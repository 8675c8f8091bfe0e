//! The story of a seed: a hash of all of it, and the last lines in words, where somebody wants them.
//!
//! **What must stay true.** The hash depends on what happens and on nothing else, so that the same seed twice gives the same
//! one, whether or not anybody reads the words. Words are made only for whoever does: nearly all stories end well, and one
//! that does not is told again.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::time::Duration;

/// Lines kept for whoever wants to know how it came to that.
const TAIL_LINES: usize = 400;

/// Who listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Telling {
    #[default]
    Silent,
    /// The last lines are kept.
    Kept,
    /// Besides, every line is printed as it comes, and so is each fact in whose words this is.
    Loud { about: Option<String> },
}

/// Characters of a fact that are printed: some hold the whole of the metadata.
const FACT_CHARACTERS_MAX: usize = 400;

#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    lines: u64,
    tail: VecDeque<String>,
    telling: Telling,
}

impl Trace {
    pub fn new(telling: Telling) -> Self {
        Self { telling, ..Self::default() }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn mark(&mut self, what: u64) {
        // FNV's prime over words: order matters, and nothing is lost of what is mixed in.
        self.hash = (self.hash ^ what).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }

    pub fn tell(&mut self, at: Duration, line: impl FnOnce() -> String) {
        self.lines += 1;
        self.mark(u64::try_from(at.as_micros()).unwrap_or(u64::MAX) ^ self.lines << 40);
        if self.telling == Telling::Silent {
            return;
        }
        let line = format!("{:>10.3} ms  {}", at.as_secs_f64() * 1_000.0, line());
        if matches!(self.telling, Telling::Loud { .. }) {
            println!("{line}");
        }
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    /// Prints a fact, where somebody wants those. It is no line of the story: whether it is printed changes no hash.
    pub fn hear(&self, at: Duration, fact: &impl Debug) {
        if let Telling::Loud { about: Some(about) } = &self.telling {
            let words = format!("{fact:?}");
            if words.contains(about.as_str()) {
                let words: String = words.chars().take(FACT_CHARACTERS_MAX).collect();
                println!("{:>10.3} ms    {words}", at.as_secs_f64() * 1_000.0);
            }
        }
    }

    pub fn tail(&self) -> impl Iterator<Item = &str> {
        self.tail.iter().map(String::as_str)
    }
}
