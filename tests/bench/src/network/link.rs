//! What a link is to be like: as slow and as lossy as it was asked to be, and what the kernel is told for it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Ethernet's, where the link is not loopback's own: the same for every layer.
pub(super) const MTU_BYTES: u32 = 1_500;
/// Packets that may be on their way on a slow link: at Ethernet's MTU a second of a gigabit.
pub(super) const PACKETS_MAX: u32 = 100_000;
const DELAY_MAX: Duration = Duration::from_secs(10);

/// What the link between the ends is made like.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Link {
    pub delay: Option<Delay>,
    pub loss: Option<Loss>,
}

/// How long each packet takes, each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay(pub(super) Duration);

/// The part of packets that are lost, in percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss(pub(super) f64);

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
    pub(super) fn script(&self) -> String {
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
