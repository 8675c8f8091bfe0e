//! The broker as a library.

pub mod admin;
pub mod cli;
pub mod clock;
pub mod compression;
pub mod config;
pub mod kafka;
pub mod metadata;
pub mod metrics;
pub mod partitions;
