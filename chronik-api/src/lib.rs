//! The broker as a library.

pub mod clock;
pub mod compression;
pub mod config;
pub mod kafka;
pub mod partitions;
