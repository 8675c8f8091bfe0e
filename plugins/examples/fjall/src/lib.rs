//! A storage engine on an embedded database, fjall, as a plug-in: what it takes to make a store that knows nothing of logs keep
//! the whole contract.
//!
//! **Why fjall.** What the contract asks most often is an append that outlives the process, and no sync. Measured against it, on
//! a virtual machine with 2 cores and other work, ext4, medians of three rounds in which the stores took turns, one writer that
//! waits for every call; 64 KiB and 200 B are the values' sizes:
//!
//! | store | append 64 KiB | append 200 B | append 200 B and sync | 64 × 4 KiB and one sync |
//! |---|---|---|---|---|
//! | fjall 3.1, values in files of their own | 158 MiB/s | 144 k/s | 233/s | 12.2 k/s |
//! | fjall 3.1 | 145 MiB/s | 156 k/s | 212/s | 9.3 k/s |
//! | SQLite 3 (rusqlite 0.43, bundled), write-ahead log | 52 MiB/s | 17 k/s | 249/s | 8.1 k/s |
//! | redb 4.6 | 13 MiB/s | 0.27 k/s | 250/s | 7.4 k/s |
//! | a plain file, for scale | 716 MiB/s | 434 k/s | | 14.3 k/s |
//!
//! redb commits to the disk or, until another commit does, not so that a killed process leaves it: it has nothing in between, so its
//! appends wait for syncs. fjall has a journal that is handed to the operating system by each write and synced when asked. It takes
//! more room for that: after 64 MiB of values were dropped and 64 MiB written, 482 MiB against redb's 259 and SQLite's 174; it gives
//! space back when it compacts. All three build with cargo and a C compiler alone; RocksDB needs libclang and a C++ compiler.
//!
//! - [`store`]: what lies in the database, and how; the only file that knows fjall.
//! - [`index`]: what a log holds, as far as it is in memory: every change takes effect there, at the call.
//! - [`log`], [`engine`]: the two traits.
//! - [`writer`], [`reader`]: the threads that wait for the device.
//!
//! **What lasts.** An append completes when its batch is in the database's journal, handed to the operating system; a sync is
//! the journal's. **What it costs:** a copy of every run into the database, which writes it twice, to its journal and to its
//! tables; a line of some 100 bytes in memory for every run (counted in its usage); reading all those lines when a log is
//! opened. **A write that fails** fails the database as a whole: all its logs take no more until the engine is started again.
//!
//! Options: `{"cache_bytes": 33554432, "unwritten_bytes": 33554432}`.

pub mod engine;
pub mod index;
pub mod log;
mod reader;
pub mod shared;
pub mod store;
mod writer;

use chronik_plugin_sdk::{Author, export_engine};
use engine::{FjallEngine, Limits};
use serde_json::Value;
use std::path::Path;

/// Less than a batch that every broker takes is of no use.
const UNWRITTEN_BYTES_MIN: u64 = 1 << 10;

struct Fjall;

fn limits(options: &str) -> Result<Limits, String> {
    let Ok(Value::Object(options)) = serde_json::from_str(options) else {
        return Err("the options are no JSON object".into());
    };
    let mut limits = Limits::default();
    for (name, value) in &options {
        let bytes = value.as_u64().ok_or_else(|| format!("the option {name} is no number of bytes"))?;
        match name.as_str() {
            "cache_bytes" => limits.cache_bytes = bytes,
            "unwritten_bytes" => limits.unwritten_bytes = bytes.max(UNWRITTEN_BYTES_MIN),
            _ => return Err(format!("there is no option {name}: write cache_bytes or unwritten_bytes")),
        }
    }
    Ok(limits)
}

impl Author for Fjall {
    const NAME: &'static str = "fjall";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SEGMENTS: bool = false;
    const SETS_ASIDE: bool = true;
    type Engine = FjallEngine;

    fn start(directory: &Path, options: &str) -> Result<FjallEngine, String> {
        FjallEngine::start(directory, limits(options)?).map_err(|error| error.to_string())
    }
}

export_engine!(Fjall);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_what_is_unknown_is_told() {
        assert_eq!(limits("{}"), Ok(Limits::default()));
        let set = limits("{\"cache_bytes\": 0, \"unwritten_bytes\": 65536}").expect("right");
        assert_eq!((set.cache_bytes, set.unwritten_bytes), (0, 65536));
        for (options, words) in
            [("[]", "no JSON object"), ("{\"cash_bytes\": 1}", "cash_bytes"), ("{\"cache_bytes\": \"1\"}", "no number")]
        {
            let why = limits(options).expect_err("it is wrong");
            assert!(why.contains(words), "{why}");
        }
    }
}
