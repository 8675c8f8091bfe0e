//! A network of the benchmark's own: this program begins again inside one, which goes when the last process in it does.
//!
//! Nobody else is on its loopback, so bytes on it are this benchmark's, and it can be made slow and lossy by the kernel (netem),
//! for everybody alike and below TCP and UDP. Where the kernel has no netem, packets between nodes go through a device whose
//! other end this program is ([`relay`]). A relay of connections could do neither: it would carry bytes of TCP's streams, of
//! which no segment can be lost.

mod relay;

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::str::FromStr;
use std::time::Duration;

/// Says to the program inside that it is inside.
const INSIDE: &str = "CHRONIK_BENCH_NETWORK";
/// That the link is the kernel's own …
const BY_KERNEL: &str = "own";
/// … or a relay of this program's.
const BY_RELAY: &str = "relay";
/// What whoever makes devices opens.
const DEVICES: &str = "/dev/net/tun";
/// Ethernet's, where the link is not loopback's own: the same for every layer.
const MTU_BYTES: u32 = 1_500;
/// Packets that may be on their way on a slow link: at Ethernet's MTU a second of a gigabit.
const PACKETS_MAX: u32 = 100_000;
const DELAY_MAX: Duration = Duration::from_secs(10);

/// What the link between the ends is made like.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Link {
    pub delay: Option<Delay>,
    pub loss: Option<Loss>,
}

/// How long each packet takes, each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay(Duration);

/// The part of packets that are lost, in percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss(f64);

impl FromStr for Delay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse::<f64>().ok();
        let millis = match (text.strip_suffix("ms"), text.strip_suffix("us"), text.strip_suffix('s')) {
            (Some(millis), ..) => number(millis),
            (_, Some(micros), _) => number(micros).map(|micros| micros / 1e3),
            (.., Some(seconds)) => number(seconds).map(|seconds| seconds * 1e3),
            _ => None,
        };
        let millis = millis.filter(|millis| *millis > 0.0 && *millis <= DELAY_MAX.as_secs_f64() * 1e3);
        let millis = millis.ok_or_else(|| format!("a time up to {} s, like 20ms or 500us", DELAY_MAX.as_secs()))?;
        Ok(Self(Duration::from_secs_f64(millis / 1e3)))
    }
}

impl FromStr for Loss {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let percent = text.strip_suffix('%').and_then(|percent| percent.trim().parse::<f64>().ok());
        let percent = percent.filter(|percent| *percent > 0.0 && *percent < 100.0);
        percent.map(Self).ok_or_else(|| "a part of all packets, like 0.1%".to_owned())
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_altered() {
            return f.write_str("loopback");
        }
        write!(f, "MTU {MTU_BYTES}")?;
        if let Some(Delay(delay)) = self.delay {
            write!(f, ", {} ms each way", delay.as_secs_f64() * 1e3)?;
        }
        if let Some(Loss(percent)) = self.loss {
            write!(f, ", {percent} % of packets lost")?;
        }
        Ok(())
    }
}

impl Link {
    pub fn is_altered(&self) -> bool {
        self.delay.is_some() || self.loss.is_some()
    }

    /// What is done in the new network before the program begins again.
    fn script(&self) -> String {
        let mut script = "ip link set lo up".to_owned();
        if self.is_altered() {
            script +=
                &format!(" && ip link set lo mtu {MTU_BYTES} && tc qdisc add dev lo root netem limit {PACKETS_MAX}");
        }
        if let Some(Delay(delay)) = self.delay {
            script += &format!(" delay {}us", delay.as_micros());
        }
        if let Some(Loss(percent)) = self.loss {
            script += &format!(" loss {percent}%");
        }
        script
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_what_the_kernel_is_told() {
        let link = Link { delay: "20ms".parse().ok(), loss: "0.1%".parse().ok() };
        assert!(link.script().ends_with("netem limit 100000 delay 20000us loss 0.1%"), "{}", link.script());
        assert_eq!(link.to_string(), "MTU 1500, 20 ms each way, 0.1 % of packets lost");
        assert_eq!(Link::default().script(), "ip link set lo up");
        assert_eq!("500us".parse::<Delay>(), Ok(Delay(Duration::from_micros(500))));
        assert_eq!("1.5s".parse::<Delay>(), Ok(Delay(Duration::from_millis(1_500))));
        for wrong in ["20", "-1ms", "0ms", "11s", "NaNms"] {
            assert!(wrong.parse::<Delay>().is_err(), "{wrong}");
        }
        for wrong in ["0.1", "0%", "100%", "-1%", "x%"] {
            assert!(wrong.parse::<Loss>().is_err(), "{wrong}");
        }
    }
}
