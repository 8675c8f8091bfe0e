//! A network layer as it is compared: with its encryption, and with what it is told.

use chronik_core::ids::NodeId;
use chronik_link::Link;
use chronik_link::tls::{Tls, TlsError};
use chronik_link_grpc::GrpcLink;
use chronik_link_quic::{QuicLink, SetupError};
use chronik_link_tcp::TcpLink;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

/// The datagrams of QUIC that Ethernet carries, also within IPv6 and the like: what other networks than loopback can be asked for.
pub const ETHERNET_MTU_BYTES: u16 = 1_452;
/// Ten datagrams must fit into what the kernel takes at once, or segmentation offload breaks.
const MTU_BYTES_MAX: u16 = 6_500;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Tcp,
    Grpc,
    Quic,
}

impl Transport {
    /// As the configuration calls it.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Grpc => "grpc",
            Transport::Quic => "quic",
        }
    }
}

/// See the module's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    pub transport: Transport,
    pub tls: bool,
    /// Of QUIC's datagrams.
    pub mtu_bytes: u16,
}

/// Why there is no such layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("the certificates made for the run cannot be used: {0}")]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Quic(#[from] SetupError),
}

impl Layer {
    /// The layer as node `node` has it, with certificates from a directory.
    pub fn link(&self, node: i32, certs: &Path) -> Result<Arc<dyn Link>, LayerError> {
        let file = |name: String| certs.join(name);
        let load = || {
            let (cert, key) = (file(format!("node-{node}.pem")), file(format!("node-{node}.key")));
            Tls::load(NodeId(node), &cert, &key, &file("ca.pem".into()))
        };
        let tls = self.tls.then(load).transpose()?;
        Ok(match self.transport {
            Transport::Tcp => Arc::new(TcpLink::new(tls, chronik_link_tcp::Options::default())),
            Transport::Grpc => Arc::new(GrpcLink::new(tls, chronik_link_grpc::Options::default())),
            Transport::Quic => {
                let options = chronik_link_quic::Options { mtu_bytes: self.mtu_bytes, ..Default::default() };
                Arc::new(QuicLink::new(tls, options)?)
            }
        })
    }

    /// How large QUIC's datagrams are, and what carries them.
    pub fn datagrams(&self) -> Option<String> {
        let carried =
            if self.needs_jumbo() { "only loopback and jumbo frames carry them" } else { "Ethernet carries them" };
        (self.transport == Transport::Quic).then(|| format!("{} B, {carried}", self.mtu_bytes))
    }

    /// What this layer needs more than a network of Ethernet's frames.
    pub fn needs_jumbo(&self) -> bool {
        self.transport == Transport::Quic && self.mtu_bytes > ETHERNET_MTU_BYTES
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.transport.name())?;
        match self.transport {
            Transport::Quic if self.mtu_bytes == ETHERNET_MTU_BYTES => Ok(()),
            Transport::Quic => write!(f, "@{}", self.mtu_bytes),
            Transport::Tcp | Transport::Grpc if self.tls => f.write_str("+tls"),
            Transport::Tcp | Transport::Grpc => Ok(()),
        }
    }
}

impl FromStr for Layer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let of = |transport, tls, mtu_bytes| Ok(Self { transport, tls, mtu_bytes });
        match text {
            "tcp" => of(Transport::Tcp, false, ETHERNET_MTU_BYTES),
            "tcp+tls" => of(Transport::Tcp, true, ETHERNET_MTU_BYTES),
            "grpc" => of(Transport::Grpc, false, ETHERNET_MTU_BYTES),
            "grpc+tls" => of(Transport::Grpc, true, ETHERNET_MTU_BYTES),
            "quic" => of(Transport::Quic, true, ETHERNET_MTU_BYTES),
            other => {
                let bytes = other.strip_prefix("quic@").and_then(|bytes| bytes.parse::<u16>().ok());
                let fits = |bytes: &u16| (chronik_link_quic::MTU_BYTES_MIN..=MTU_BYTES_MAX).contains(bytes);
                let bytes = bytes.filter(fits).ok_or_else(|| {
                    format!(
                        "one of tcp, tcp+tls, grpc, grpc+tls, quic (datagrams of {ETHERNET_MTU_BYTES} bytes) and quic@BYTES, {} to \
                         {MTU_BYTES_MAX}",
                        chronik_link_quic::MTU_BYTES_MIN
                    )
                })?;
                of(Transport::Quic, true, bytes)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layers_name_is_what_it_is_asked_for_by() {
        for name in ["tcp", "tcp+tls", "grpc", "grpc+tls", "quic", "quic@6000"] {
            let layer: Layer = name.parse().expect("there is one");
            assert_eq!(layer.to_string(), name);
            assert_eq!(layer.needs_jumbo(), name == "quic@6000");
        }
        assert_eq!("quic@1452".parse::<Layer>().map(|layer| layer.to_string()), Ok("quic".into()));
        for wrong in ["udp", "quic@65000", "quic@", "quic+tls"] {
            assert!(wrong.parse::<Layer>().is_err_and(|why| why.contains("1200 to 6500")), "{wrong}");
        }
    }
}
