//! `chronik plugin new|check`: storage engines by others, from an empty directory to a judged library.

mod check;
mod new;

use super::output::Failure;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PluginCommand {
    /// Write a project that builds a storage plug-in and keeps every rule, to begin from
    New(new::NewArgs),
    /// Judge a storage plug-in by the contract, each rule in a process of its own, and measure it beside the built-in engines
    Check(check::CheckArgs),
}

pub(super) fn run(command: PluginCommand) -> Result<(), Failure> {
    match command {
        PluginCommand::New(args) => new::run(&args),
        PluginCommand::Check(args) => check::run(args),
    }
}
