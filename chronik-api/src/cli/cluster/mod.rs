//! `chronik cluster certs|status`.

pub(super) mod certs;
mod status;

use super::output::Failure;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Make an authority and certificates for the connections between nodes
    Certs(certs::CertsArgs),
    /// Show nodes, Raft, and partitions that are not fully in sync, as one node sees them
    Status(status::StatusArgs),
}

pub(super) fn run(command: ClusterCommand) -> Result<(), Failure> {
    match command {
        ClusterCommand::Certs(args) => certs::run(&args),
        ClusterCommand::Status(args) => status::run(&args),
    }
}
