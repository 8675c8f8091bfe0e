//! A fuzzer of our own: mutated messages for everything that reads bytes from outside, in-process, on stable Rust.
//!
//! - [`target`]: what is fed, and what a feeding tells. [`targets`]: one file each.
//! - [`mutate`]: how an input becomes another. [`dice`]: where chance comes from: a seed.
//! - [`run`]: the loop: draw, mutate, feed, judge, keep what was new. [`watch`]: executions that do not end.
//! - [`memory`]: what an execution held at most. [`corpus`]: the inputs that a target starts from.
//! - [`disk`]: files in memory, for what is read from a disk.
//!
//! An execution fails if it panics (a target asserts what must hold, such as that what was decoded is encoded and decoded
//! to the same), if it holds more memory than [`memory::allowed`], or if it takes more than a second. What is "new" is told
//! by the targets (the kind of outcome, the error, the sizes reached), not by instrumented code: a build for coverage
//! (`-C instrument-coverage`) would be possible on stable, but would slow every execution down to the pace of reading its
//! counters, and these formats are shallow: their errors say where they gave up.

pub mod corpus;
pub mod dice;
pub mod disk;
pub mod memory;
pub mod mutate;
pub mod run;
pub mod target;
pub mod targets;
pub mod watch;
