//! The broker as a library.
//!
//! - [`config`], [`cli`]: what it is told. [`assemble`], [`server`]: how its parts are put together, started and stopped.
//! - [`kafka`]: connections, requests, one handler per API. [`broker`]: what the handlers share.
//! - [`metadata`], [`partitions`], [`groups`]: hosts of the machines in `chronik-core`.
//! - [`cluster`]: a node among others: Raft's driver, the controller, replication between brokers.
//! - [`admin`], [`metrics`]: health and numbers over HTTP.
//! - [`clock`], [`compression`]: the edges that the above need.

pub mod admin;
pub mod assemble;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod compression;
pub mod config;
pub mod groups;
pub mod kafka;
pub mod metadata;
pub mod metrics;
pub mod partitions;
pub mod server;
