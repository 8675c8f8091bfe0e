//! A network of the benchmark's own: this program begins again inside one, which goes when the last process in it does.
//!
//! Nobody else is on its loopback, so bytes on it are this benchmark's, and it can be made slow and lossy by the kernel (netem),
//! for everybody alike and below TCP and UDP. Where the kernel has no netem, packets between nodes go through a device whose
//! other end this program is ([`relay`]). A relay of connections could do neither: it would carry bytes of TCP's streams, of
//! which no segment can be lost.

mod link;
mod relay;

pub use link::{Delay, Link, Loss};

use std::ffi::OsString;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

/// Says to the program inside that it is inside.
const INSIDE: &str = "CHRONIK_BENCH_NETWORK";
/// That the link is the kernel's own …
const BY_KERNEL: &str = "own";
/// … or a relay of this program's.
const BY_RELAY: &str = "relay";
/// What whoever makes devices opens.
const DEVICES: &str = "/dev/net/tun";

/// Why the link cannot be made so.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error(
        "--link-delay and --link-loss need a network of the run's own, which cannot be made here: {0}. It takes root or user \
         namespaces, and the programs unshare, ip and tc"
    )]
    NoNetwork(String),
    #[error(
        "--link-delay and --link-loss need netem (CONFIG_NET_SCH_NETEM), which this kernel does not have ({0}), or TUN devices, \
         which cannot be made here either: {1}. Nothing else delays and loses packets for TCP and QUIC alike, so they are refused"
    )]
    NoLink(String, std::io::Error),
    #[error("the link cannot be made")]
    Relay(#[source] std::io::Error),
    #[error("this program cannot begin again: {0}")]
    Again(std::io::Error),
}

/// Whether this is the program inside.
pub fn is_own() -> bool {
    std::env::var_os(INSIDE).is_some()
}

fn is_relayed() -> bool {
    std::env::var_os(INSIDE).is_some_and(|how| how == BY_RELAY)
}

/// Where the ends of the link that is compared listen, and by which address they know each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub listen: Ipv4Addr,
    pub dial: Ipv4Addr,
}

/// Also of the parts of this program that are processes of their own.
pub fn ends() -> Ends {
    if is_relayed() {
        Ends { listen: relay::HERE, dial: relay::THERE }
    } else {
        Ends { listen: Ipv4Addr::LOCALHOST, dial: Ipv4Addr::LOCALHOST }
    }
}

/// The device that the link is, as the kernel calls it.
pub fn device() -> &'static str {
    if is_relayed() { relay::DEVICE } else { "lo" }
}

/// By what an altered link is, for a report.
pub fn by() -> &'static str {
    if is_relayed() {
        "by a TUN device whose packets this program relays, between nodes only: its processor time is not the layers'"
    } else {
        "by netem, clients' packets too"
    }
}

/// Begins the program again in a network of its own, where that can be made: then it does not return. Where it cannot,
/// it returns why, unless the link is to be altered: that is an error.
pub fn enter(link: Link, seed: u64) -> Result<Option<String>, NetworkError> {
    if is_own() {
        if is_relayed() {
            relay::start(link, seed).map_err(NetworkError::Relay)?;
        }
        return Ok(None);
    }
    // Tried first, since there is no way back.
    let (script, how) = match failure(command(&link.script()).arg("true")) {
        None => (link.script(), BY_KERNEL),
        Some(why) if !link.is_altered() => return Ok(Some(why)),
        Some(no_netem) => {
            let plain = Link::default().script();
            if let Some(why) = failure(command(&plain).arg("true")) {
                return Err(NetworkError::NoNetwork(why));
            }
            let devices = File::options().read(true).write(true).open(DEVICES);
            devices.map_err(|no_devices| NetworkError::NoLink(no_netem, no_devices))?;
            (plain, BY_RELAY)
        }
    };
    let own = std::env::current_exe().map_err(NetworkError::Again)?;
    let mut again = command(&script);
    again.arg(own).args(std::env::args_os().skip(1)).env(INSIDE, how);
    // Returns only if it failed: this process becomes the other.
    Err(NetworkError::Again(again.exec()))
}

/// What runs the script in a new network, and then what is added to it.
fn command(script: &str) -> Command {
    let mut words: Vec<OsString> = vec!["--net".into()];
    if !rustix::process::geteuid().is_root() {
        words.push("--map-root-user".into());
    }
    words.extend(["--", "sh", "-c"].map(OsString::from));
    words.push(format!("{script} && exec \"$@\"").into());
    words.push("sh".into());
    let mut command = Command::new("unshare");
    command.args(words);
    command
}

/// Why a command did not work, in its own words; none if it did.
fn failure(command: &mut Command) -> Option<String> {
    match command.output() {
        Ok(Output { status, .. }) if status.success() => None,
        Ok(Output { status, stderr, .. }) => {
            let words = String::from_utf8_lossy(&stderr).trim().trim_end_matches('.').replace('\n', "; ");
            Some(if words.is_empty() { status.to_string() } else { words })
        }
        Err(why) => Some(format!("unshare: {why}")),
    }
}
