//! Judges a storage plug-in by the contract that the built-in engines are judged by.
//!
//! **Why it exists.** An author must be able to tell whether an engine is correct, and who runs one must be able to ask. The
//! rules are those of [`chronik_conformance::wal`], and besides what only a process of its own can show: what is left when
//! it is killed, what the plug-in does to its process, and what it makes of files that are damaged.
//!
//! **What must stay true.** Every rule is judged in a process of its own: a plug-in that crashes, exits or hangs has broken
//! that rule, and the others are judged all the same. What is not checked is said ([`NOT_CHECKED`]), and a rule that the
//! engine does not promise to keep is told apart from one that it keeps.
//!
//! A program that judges calls [`trial::all`], and must be able to be started again as a judge of one rule
//! ([`judge::one`]) and as a writer that is killed ([`writer::serve`]); [`Again`] says how.

#![forbid(unsafe_code)]

pub mod bench;
mod damage;
mod device;
pub mod judge;
mod killed;
mod process;
pub mod rules;
mod snapshot;
mod subject;
pub mod trial;
pub mod writer;

pub use rules::{Needs, Rule, rules};
pub use subject::{Again, Subject, whole};

/// What this kit cannot tell, each a sentence.
pub const NOT_CHECKED: &[&str] = &[
    "A power cut, where this user may mount no disk of its own (root may): what is synced is taken to be on the disk then. Rule \
     k06 needs such a disk, which forgets what was not synced.",
    "A device without room, where this user may mount none of its own: rule d03 makes writes fail by a limit on the size of \
     files, which an engine may see as another error. Rule d05 needs such a device.",
    "Whether every call returns within a millisecond: rule p09 finds those that never do. Whether memory leaks: no rule runs long \
     enough to tell.",
    "What a plug-in does to memory that is not its own: run it under AddressSanitizer.",
];
