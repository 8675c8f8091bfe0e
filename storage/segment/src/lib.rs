//! Logs in segment files: the storage engine that a broker uses unless it is told otherwise.
//!
//! A data directory holds a lock file and a directory per log, named by the log's id. A log is a sequence of segment files
//! named by their first offset, each a sequence of frames (`frame`): a header of 64 bytes, then a run's bytes as they came.
//! Beside a segment there may be an index file (`index`), and in the log's directory a control file (`control`).
//!
//! ```text
//! data/LOCK
//! data/journal-0  journal-1
//! data/<topic>-<partition>/control
//! data/<topic>-<partition>/00000000000000000000.log  .index
//! data/<topic>-<partition>/00000000000000004711.log
//! ```
//!
//! The map: [`SegmentEngine`] (`engine`) opens logs (`recover`) and deletes them. A log (`log`) orders what is asked of it
//! under a short lock and keeps its end in memory (`tail`, bounded by `cache`); a writer (`log/write`) brings what was
//! ordered to the files; rounds (`log/sync`, `syncer`) make it durable, many small
//! ones together through a `journal`. [`disk`] and [`threads`] are the seams behind which
//! a simulator stands.
//!
//! **What must stay true.**
//! - What was promised as durable is found again, or its loss is reported; it is never silently cut.
//! - What fails its checksum is never served: a read checks all it gives, and what is told to lie in files, for the kernel to
//!   send, was checked before and has been in memory since, as far as can be seen.
//! - A batch is never parsed: the engine knows of a run what `append` said.
//! - Memory and open files are bounded by [`SegmentOptions`], whatever the number of logs.

#![forbid(unsafe_code)]

mod cache;
mod control;
pub mod disk;
mod engine;
pub mod frame;
mod gate;
mod handles;
mod index;
mod journal;
mod log;
mod options;
mod recover;
mod room;
mod segment;
mod shared;
mod syncer;
mod tail;
pub mod threads;

pub use engine::{SegmentEngine, StartError};
pub use options::{OptionsError, SegmentOptions, SyncFilesystem, SyncPolicy};
