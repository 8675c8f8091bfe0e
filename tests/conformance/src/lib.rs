//! Suites that every implementation of a chronik trait must pass, whoever wrote it.
//!
//! A suite is a list of numbered rules, each a sentence of the trait's contract with a test that fails where the sentence
//! does not hold. An implementation runs a suite with one line in its own tests; see [`wal`] and,
//! with the feature `link`, `link`.

#![forbid(unsafe_code)]

#[cfg(feature = "link")]
pub mod link;
pub mod wal;
