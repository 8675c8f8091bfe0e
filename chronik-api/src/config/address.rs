//! Addresses as configuration names them: a host that may be a name, and a port. Nothing is resolved here.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Where to listen: `host:port`, `[ipv6]:port`. Port 0 asks the operating system for a free one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    pub host: String,
    pub port: u16,
}

impl ListenAddress {
    /// All of the machine's addresses.
    pub fn is_wildcard(&self) -> bool {
        is_wildcard(&self.host)
    }

    /// Reachable from this machine only.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// As `tokio::net::lookup_host` and `TcpListener::bind` take it.
    pub fn pair(&self) -> (&str, u16) {
        (&self.host, self.port)
    }
}

/// What clients are told to connect to: `host:port`, or a host alone, which means the port that is listened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdvertisedAddress {
    pub host: String,
    pub port: Option<u16>,
}

/// Text that is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnAddress {
    #[error("there is no host before the port")]
    NoHost,
    #[error("there is no port: write host:port")]
    NoPort,
    #[error("the port is not a number from 0 to 65535")]
    BadPort,
    #[error("an IPv6 address is written in brackets, like [::1]:9092")]
    Unbracketed,
    #[error("only host:port is wanted, without a scheme like PLAINTEXT://")]
    Scheme,
    #[error("the host is neither an IP address nor a name")]
    BadHost,
}

impl FromStr for ListenAddress {
    type Err = NotAnAddress;
    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let (host, port) = split(text)?;
        Ok(Self { host, port: port.ok_or(NotAnAddress::NoPort)? })
    }
}

impl FromStr for AdvertisedAddress {
    type Err = NotAnAddress;
    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let (host, port) = split(text)?;
        if port == Some(0) { Err(NotAnAddress::BadPort) } else { Ok(Self { host, port }) }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_host(f, &self.host)?;
        write!(f, ":{}", self.port)
    }
}

impl fmt::Display for AdvertisedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_host(f, &self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

pub fn is_wildcard(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

pub fn is_loopback(host: &str) -> bool {
    host.parse::<IpAddr>().map_or(host.eq_ignore_ascii_case("localhost"), |ip| ip.to_canonical().is_loopback())
}

fn write_host(f: &mut fmt::Formatter<'_>, host: &str) -> fmt::Result {
    if host.contains(':') { write!(f, "[{host}]") } else { f.write_str(host) }
}

fn split(text: &str) -> Result<(String, Option<u16>), NotAnAddress> {
    /// RFC 1035, 2.3.4.
    const NAME_BYTES_MAX: usize = 253;
    let text = text.trim();
    if text.contains("://") {
        return Err(NotAnAddress::Scheme);
    }
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(NotAnAddress::BadHost)?;
        if !host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
            return Err(NotAnAddress::BadHost);
        }
        let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or(NotAnAddress::BadPort)?) };
        (host, port)
    } else {
        match text.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err(NotAnAddress::Unbracketed),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.is_empty() {
        return Err(NotAnAddress::NoHost);
    }
    let in_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if host.parse::<IpAddr>().is_err() && (host.len() > NAME_BYTES_MAX || !host.chars().all(in_a_name)) {
        return Err(NotAnAddress::BadHost);
    }
    let port = port.map(|port| port.parse().map_err(|_| NotAnAddress::BadPort)).transpose()?;
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_the_same() {
        for text in ["127.0.0.1:9092", "[::1]:9092", "broker-1.example.org:0"] {
            assert_eq!(text.parse::<ListenAddress>().map(|a| a.to_string()).as_deref(), Ok(text));
        }
        assert_eq!("broker".parse(), Ok(AdvertisedAddress { host: "broker".into(), port: None }));
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        let refused = |text: &str| text.parse::<ListenAddress>().expect_err(text);
        assert_eq!(refused(":9092"), NotAnAddress::NoHost);
        assert_eq!(refused("localhost"), NotAnAddress::NoPort);
        assert_eq!(refused("localhost:99999"), NotAnAddress::BadPort);
        assert_eq!(refused("::1:9092"), NotAnAddress::Unbracketed);
        assert_eq!(refused("PLAINTEXT://localhost:9092"), NotAnAddress::Scheme);
        assert_eq!(refused("local host:9092"), NotAnAddress::BadHost);
        assert_eq!("broker:0".parse::<AdvertisedAddress>(), Err(NotAnAddress::BadPort));
    }

    #[test]
    fn wildcards_and_loopback_are_told_apart() {
        assert!(is_wildcard("0.0.0.0") && is_wildcard("::") && !is_wildcard("10.0.0.1"));
        assert!(is_loopback("127.1.2.3") && is_loopback("::1") && is_loopback("localhost") && !is_loopback("10.0.0.1"));
    }
}
