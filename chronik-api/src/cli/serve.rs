//! `chronik serve`: the broker as a process: logs, the system's limits, signals.

use super::ServeArgs;
use super::greeting;
use super::output::Failure;
use super::signals::Asked;
use crate::config::{Config, Log, LogFormat};
use std::fmt::Write;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// File handles besides those of connections: logs, their indexes, the runtime.
const OTHER_FILES: u64 = 1_000;

pub(super) fn run(args: ServeArgs) -> Result<(), Failure> {
    let config = args.config.load()?.config;
    log_to_standard_error(&config.log)?;
    raise_file_limit(&config);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.enable_all().thread_name("chronik");
    if let threads @ 1.. = config.node.worker_threads {
        runtime.worker_threads(usize::try_from(threads).unwrap_or(1));
    }
    let runtime = runtime.build().map_err(|why| Failure::failed(format!("cannot start threads: {why}")))?;
    let served = runtime.block_on(async {
        let asked = Asked::listen().map_err(|why| Failure::failed(format!("cannot listen for signals: {why}")))?;
        crate::server::run(config, args.bootstrap, asked_to_stop(asked), greeting::announce)
            .await
            .map_err(|why| told(&why))
    });
    // Whatever still runs in the background has had its time: blocking work must not hold up the exit.
    runtime.shutdown_background();
    served
}

/// An error with all its causes, and what to do where that is known.
fn told(error: &dyn std::error::Error) -> Failure {
    let mut text = error.to_string();
    let mut hint = "";
    let mut cause = error.source();
    while let Some(why) = cause {
        let _ = write!(text, ": {why}");
        match why.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
            Some(std::io::ErrorKind::AddrInUse) => {
                hint = "\n  Another program listens there, perhaps another chronik. Choose another address with \
                        --set kafka.listen=… or --set admin.listen=…";
            }
            Some(std::io::ErrorKind::AddrNotAvailable) => {
                hint = "\n  It is no address of this machine. To listen on all of its addresses: --set kafka.listen=0.0.0.0:9092";
            }
            Some(std::io::ErrorKind::PermissionDenied) => {
                hint = "\n  This user may not do that. Choose another port (above 1023) or directory.";
            }
            _ => {}
        }
        cause = why.source();
    }
    Failure::failed(text + hint)
}

fn log_to_standard_error(log: &Log) -> Result<(), Failure> {
    let filter = EnvFilter::builder().parse(&log.level).map_err(|why| Failure::usage(format!("log.level: {why}")))?;
    // A closed standard error must not end the broker, which is what complaining about it there would do.
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .log_internal_errors(false);
    let set = match log.format {
        LogFormat::Human => subscriber.try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
    set.map_err(|why| Failure::failed(format!("cannot set up logging: {why}")))
}

/// Raises the soft limit of file handles to what the hard one allows: distributions leave it at 1,024, which is a few
/// hundred clients.
fn raise_file_limit(config: &Config) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = u64::from(config.limits.connections) + OTHER_FILES;
    // Both `None` mean "no limit".
    let Some(now) = current.filter(|now| *now < wanted) else { return };
    let raised = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let got = match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
        Ok(()) => raised,
        Err(_) => now,
    };
    if got < wanted {
        tracing::warn!(
            "this process may open {got} files, but limits.connections = {} may need {wanted}: \
             raise the limit (ulimit -n, LimitNOFILE=) or lower the setting",
            config.limits.connections
        );
    }
}

/// Ends at the first signal. Another one ends the process on the spot: who insists does not want to wait.
async fn asked_to_stop(mut asked: Asked) {
    let name = asked.once().await;
    tracing::info!("{name}: stopping; once more to stop without waiting");
    tokio::spawn(async move {
        let (name, code) = asked.again().await;
        tracing::warn!("{name} again: gone without finishing");
        std::process::exit(code);
    });
}
