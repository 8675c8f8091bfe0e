//! `chronik bench …`: hands over to `chronik-bench`, which holds the C client that the broker itself does without.

use super::output::Failure;
use clap::Args;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

const PROGRAM: &str = "chronik-bench";

#[derive(Args, Debug)]
pub(super) struct BenchArgs {
    /// Arguments for chronik-bench; try `chronik bench --help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(super) fn run(args: BenchArgs) -> Result<(), Failure> {
    // Beside this executable first: what was built with it fits it.
    let beside: Option<PathBuf> = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(PROGRAM)));
    let program = beside.filter(|path| path.is_file()).unwrap_or_else(|| PROGRAM.into());
    // Returns only if it failed: the process becomes the other program.
    let why = Command::new(&program).args(args.arguments).exec();
    Err(match why.kind() {
        std::io::ErrorKind::NotFound => Failure::failed(format!(
            "{PROGRAM} is neither beside this executable nor in PATH.\n  Build it with: cargo build --release -p {PROGRAM}"
        )),
        _ => Failure::failed(format!("cannot run {}: {why}", program.display())),
    })
}
