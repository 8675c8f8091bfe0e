//! The broker as a library.

pub mod clock;
pub mod compression;
pub mod kafka;
pub mod partitions;
