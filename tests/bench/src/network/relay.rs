//! A link of the benchmark's own where the kernel has no netem: a network device (TUN) whose packets this program delays and
//! loses, at IP level and at Ethernet's MTU, the same for TCP and UDP.
//!
//! Both ends have one address on the device, and know each other by another that nobody has: what is sent to that goes
//! through the device. The relay exchanges the two addresses of each packet, and puts it back: to each end it comes from the
//! other's. Sums of headers stay right, for they are sums over both addresses.
//!
//! What must stay true: packets keep their order, as on a wire; a queue that is full loses what comes, as netem's does.

use super::link::{Link, MTU_BYTES, PACKETS_MAX};
use crate::stats::Dice;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::Timespec;
use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use tun_rs::{DeviceBuilder, SyncDevice};

/// What both ends listen on, and dial from.
pub const HERE: Ipv4Addr = Ipv4Addr::new(10, 201, 0, 1);
/// What both ends dial.
pub const THERE: Ipv4Addr = Ipv4Addr::new(10, 201, 0, 2);
/// The device, as the kernel counts its packets.
pub const DEVICE: &str = "chronik0";
const NETWORK_BITS: u8 = 24;

/// Packets that are looked at before what is due is sent on.
const AT_A_TIME: usize = 64;
const IP_VERSION_4: u8 = 4;
const IP_HEADER_BYTES: usize = 20;
/// Where a packet has its source's address; the destination's follows.
const SOURCE_AT: usize = 12;
const ADDRESS_BYTES: usize = 4;
const BILLION: u64 = 1_000_000_000;

/// Makes the device in this network, and relays from now on, for as long as this process lives.
pub fn start(link: Link, seed: u64) -> io::Result<()> {
    let mtu = u16::try_from(MTU_BYTES).unwrap_or(u16::MAX);
    let device = DeviceBuilder::new().name(DEVICE).ipv4(HERE, NETWORK_BITS, None).mtu(mtu).build_sync()?;
    device.set_nonblocking(true)?;
    let relaying = move || {
        let stopped = relay(&device, link, seed);
        // Nothing goes over the link any more, and whoever waits for that gives up by itself.
        eprintln!("the link of this run has stopped: {stopped:?}");
    };
    std::thread::Builder::new().name("link".into()).spawn(relaying)?;
    Ok(())
}

/// What is on its way, oldest first; all of them take the same time.
struct OnItsWay {
    link: Link,
    packets: VecDeque<(Instant, Vec<u8>)>,
    /// Which packets are lost: drawn anew in each run, for a link that loses the same ones each time would favour somebody.
    dice: Dice,
}

impl OnItsWay {
    fn take(&mut self, packet: &[u8], now: Instant) {
        let drawn = self.dice.roll(BILLION) as f64 / BILLION as f64;
        let is_lost = self.link.loss.is_some_and(|loss| drawn * 100.0 < loss.0);
        if is_lost || self.packets.len() >= PACKETS_MAX as usize {
            return;
        }
        if let Some(turned) = turned(packet) {
            let delay = self.link.delay.map_or(Duration::ZERO, |delay| delay.0);
            self.packets.push_back((now + delay, turned));
        }
    }

    /// How long until something is due.
    fn wait(&self, now: Instant) -> Option<Duration> {
        self.packets.front().map(|(due, _)| due.saturating_duration_since(now))
    }
}

/// The packet with its addresses exchanged; none for what is not of this link, as what the kernel says on every device.
fn turned(packet: &[u8]) -> Option<Vec<u8>> {
    if packet.len() < IP_HEADER_BYTES || packet[0] >> 4 != IP_VERSION_4 {
        return None;
    }
    let mut turned = packet.to_vec();
    let (source, destination) = turned[SOURCE_AT..][..2 * ADDRESS_BYTES].split_at_mut(ADDRESS_BYTES);
    if *source != HERE.octets() || *destination != THERE.octets() {
        return None;
    }
    source.swap_with_slice(destination);
    Some(turned)
}

fn relay(device: &SyncDevice, link: Link, seed: u64) -> io::Result<()> {
    let mut on_its_way = OnItsWay { link, packets: VecDeque::new(), dice: Dice(seed) };
    let mut packet = vec![0; MTU_BYTES as usize];
    loop {
        let wait = on_its_way.wait(Instant::now());
        let timeout = wait.map(|wait| Timespec {
            tv_sec: wait.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        });
        match poll(&mut [PollFd::new(device, PollFlags::IN)], timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(why) => return Err(why.into()),
        }
        for _ in 0..AT_A_TIME {
            match device.recv(&mut packet) {
                Ok(len) => on_its_way.take(&packet[..len], Instant::now()),
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => break,
                Err(why) => return Err(why),
            }
        }
        let now = Instant::now();
        while let Some((_, packet)) = on_its_way.packets.pop_front_if(|(due, _)| *due <= now) {
            match device.send(&packet) {
                Ok(_) => {}
                // The kernel has no room for it just now: it is lost, as where a card's queue is full.
                Err(why) if is_full(&why) => {}
                Err(why) => return Err(why),
            }
        }
    }
}

fn is_full(why: &io::Error) -> bool {
    why.kind() == io::ErrorKind::WouldBlock || why.raw_os_error() == Some(Errno::NOBUFS.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let mut packet = vec![0; IP_HEADER_BYTES + 8];
        packet[0] = 0x45;
        packet[SOURCE_AT..][..4].copy_from_slice(&source.octets());
        packet[SOURCE_AT + 4..][..4].copy_from_slice(&destination.octets());
        packet
    }

    #[test]
    fn what_goes_there_comes_back_from_there() {
        assert_eq!(turned(&packet(HERE, THERE)), Some(packet(THERE, HERE)));
        assert_eq!(turned(&packet(HERE, Ipv4Addr::BROADCAST)), None);
        assert_eq!(turned(&[0x60; 40]), None, "IPv6, which the kernel says of itself");
        assert_eq!(turned(&[0x45; 19]), None);
    }

    #[test]
    fn packets_take_their_time_keep_their_order_and_are_lost_as_often_as_asked() {
        let link = Link { delay: "20ms".parse().ok(), loss: "25%".parse().ok() };
        let mut on_its_way = OnItsWay { link, packets: VecDeque::new(), dice: Dice(7) };
        let now = Instant::now();
        for number in 0..10_000_u64 {
            let mut packet = packet(HERE, THERE);
            packet[IP_HEADER_BYTES..].copy_from_slice(&number.to_be_bytes());
            on_its_way.take(&packet, now);
        }
        assert_eq!(on_its_way.wait(now), Some(Duration::from_millis(20)));
        assert!((7_200..7_800).contains(&on_its_way.packets.len()), "{}", on_its_way.packets.len());
        assert!(on_its_way.packets.iter().is_sorted_by_key(|(_, packet)| packet[IP_HEADER_BYTES..].to_vec()));
    }
}
