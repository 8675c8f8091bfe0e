//! The sections of a cluster of several nodes: who votes, and how nodes reach each other.
//!
//! There are two planes, each with its own listener and its own transport: Raft (the metadata, and what brokers ask of the
//! controller) and replication (records). So the network layer of each is chosen, and measured, apart from the other.

use super::address::{AdvertisedAddress, ListenAddress};
use super::setting::{Leaf, choice, section};
use super::units::{ByteSize, Millis};
use figment::value::Value;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

const I32_MAX: i64 = i32::MAX as i64;

section! {
    /// A cluster of several nodes. Without voters the node is alone, and needs nothing of this.
    pub struct Cluster {
        /// The nodes that vote on the metadata when the cluster is created, with their Raft addresses:
        /// `["1@host:9093", "2@host:9093", "3@host:9093"]`. The same on every node.
        voters: Voters = Voters(Vec::new());
        /// Certificates for the connections between nodes. Without them only loopback may be listened on.
        tls: Tls = Tls::default();
        /// Lets nodes of other machines connect without certificates: anyone who reaches these ports may then read and
        /// change everything. Only for networks that nobody else is on.
        unsafe_plaintext_beyond_loopback: bool = false;
        /// A broker that the controller has not heard of for so long is fenced, and others take over what it leads.
        session_timeout_ms: Millis = Millis(1_500), 200..=600_000;
        /// How often a broker lets the controller hear of it.
        heartbeat_ms: Millis = Millis(250), 20..=60_000;
    }
}

section! {
    /// Certificates and keys as PEM files. A node's certificate names its id as the URI `urn:chronik:node:ID`;
    /// `chronik cluster certs` makes such.
    pub struct Tls {
        /// The node's certificate, with those that lead to the authority's.
        cert: Option<PathBuf> = None;
        /// Its private key.
        key: Option<PathBuf> = None;
        /// The authority whose certificates the nodes trust.
        ca: Option<PathBuf> = None;
    }
}

impl Tls {
    /// All three files, if there is to be TLS.
    pub fn files(&self) -> Option<(&PathBuf, &PathBuf, &PathBuf)> {
        Some((self.cert.as_ref()?, self.key.as_ref()?, self.ca.as_ref()?))
    }
}

choice! {
    /// A network layer.
    pub enum Transport {
        /// A connection per lane.
        Tcp = "tcp",
        /// A bidirectional stream of HTTP/2 per lane.
        Grpc = "grpc",
        /// A stream per lane of one connection; always encrypted.
        Quic = "quic",
    }
}

section! {
    /// The Raft plane: the metadata, and what brokers ask of the controller.
    pub struct Raft {
        /// Address to listen on.
        listen: ListenAddress = ListenAddress { host: "127.0.0.1".into(), port: 9093 };
        /// Address that other nodes connect to, if not the one listened on.
        advertise: Option<AdvertisedAddress> = None;
        /// The network layer, the same on every node: "tcp", "grpc" or "quic".
        transport: Transport = Transport::Tcp;
        /// Options of the transport "tcp".
        tcp: Tcp = Tcp::default();
        /// Options of the transport "grpc".
        grpc: Grpc = Grpc::default();
        /// Options of the transport "quic".
        quic: Quic = Quic::default();
        /// How often the leader of the metadata lets the others hear of it.
        heartbeat_ms: Millis = Millis(100), 10..=10_000;
        /// A voter that has not heard of a leader for so long, and up to twice as long, asks to be elected.
        election_timeout_ms: Millis = Millis(1_000), 50..=60_000;
    }
}

section! {
    /// The replication plane: records on their way from leaders to followers.
    pub struct Replication {
        /// Address to listen on.
        listen: ListenAddress = ListenAddress { host: "127.0.0.1".into(), port: 9094 };
        /// Address that other nodes connect to, if not the one listened on.
        advertise: Option<AdvertisedAddress> = None;
        /// The network layer, the same on every node: "tcp", "grpc" or "quic".
        transport: Transport = Transport::Tcp;
        /// Lanes to each other node, over which its partitions are spread: one fills what a core can send.
        lanes: u32 = 2, 1..=64;
        /// For how long a replica in sync may lack records before it is not in sync any more.
        replica_lag_max_ms: Millis = Millis::seconds(10), 100..=I32_MAX;
        /// Options of the transport "tcp".
        tcp: Tcp = Tcp::default();
        /// Options of the transport "grpc".
        grpc: Grpc = Grpc::default();
        /// Options of the transport "quic".
        quic: Quic = Quic::default();
    }
}

section! {
    /// Options of the transport "tcp".
    pub struct Tcp {
        /// Bytes that the operating system holds for sending, on each connection; 0 leaves it to the system, which adapts.
        send_buffer_bytes: ByteSize = ByteSize(0), 0..=ByteSize::GIB;
        /// The same for receiving.
        receive_buffer_bytes: ByteSize = ByteSize(0), 0..=ByteSize::GIB;
    }
}

/// A node that votes on the metadata, and where its Raft plane is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    pub node: i32,
    pub address: ListenAddress,
}

impl FromStr for Voter {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (node, address) = text.trim().split_once('@').ok_or("there is no node id: write id@host:port")?;
        let node = node.parse().ok().filter(|node| *node >= 0).ok_or("the node id is not a number")?;
        let address: ListenAddress = address.parse().map_err(|why: super::NotAnAddress| why.to_string())?;
        if address.port == 0 {
            return Err("the port is not a number from 1 to 65535".into());
        }
        Ok(Self { node, address })
    }
}

impl fmt::Display for Voter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.node, self.address)
    }
}

/// A list of [`Voter`]s: a list of texts in a file, one text with commas elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Voters(pub Vec<Voter>);

impl Leaf for Voters {
    fn wanted() -> String {
        "a list like [\"1@host:9093\", \"2@host:9093\", \"3@host:9093\"]".into()
    }
    fn parse(text: &str) -> Result<Self, Option<String>> {
        let read =
            |one: &str| one.parse().map_err(|why| Some(format!("must be {}, but in {one:?} {why}", Self::wanted())));
        let texts = text.split(',').map(str::trim).filter(|one| !one.is_empty());
        texts.map(read).collect::<Result<_, _>>().map(Self)
    }
    fn json(&self) -> serde_json::Value {
        self.0.iter().map(ToString::to_string).collect()
    }
    fn text_of(value: &Value) -> Option<String> {
        match value {
            Value::Array(_, items) => {
                let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
                texts.map(|texts| texts.join(","))
            }
            other => other.as_str().map(str::to_owned),
        }
    }
}

section! {
    /// Options of the transport "grpc".
    pub struct Grpc {
        /// Bytes that may be on their way on one lane: HTTP/2's own default of 64 KiB stalls on every round trip.
        stream_window_bytes: ByteSize = ByteSize::mib(16), ByteSize::KIB * 64..=ByteSize::GIB;
        /// On all lanes of one connection.
        connection_window_bytes: ByteSize = ByteSize::mib(32), ByteSize::KIB * 64..=ByteSize::GIB;
        /// The largest frame of HTTP/2; fewer and larger ones cost less.
        frame_bytes: ByteSize = ByteSize::mib(1), ByteSize::KIB * 16..=(ByteSize::MIB * 16) - 1;
    }
}

choice! {
    /// How QUIC notices that the network is full.
    pub enum Congestion {
        Cubic = "cubic",
        NewReno = "new-reno",
        Bbr = "bbr",
    }
}

section! {
    /// Options of the transport "quic".
    pub struct Quic {
        /// The largest datagram that is tried, where the path takes it. Ten of them must fit into 64 KiB, or segmentation
        /// offload breaks.
        mtu_bytes: u32 = 6_000, 1_200..=6_500;
        /// Lets the operating system cut large buffers into datagrams; without it each costs a system call.
        segmentation_offload: bool = true;
        /// "cubic", "new-reno" or "bbr".
        congestion: Congestion = Congestion::Cubic;
        /// Bytes that may be on their way on one lane.
        stream_window_bytes: ByteSize = ByteSize::mib(16), ByteSize::KIB * 64..=ByteSize::GIB;
        /// On all lanes of one connection.
        connection_window_bytes: ByteSize = ByteSize::mib(64), ByteSize::KIB * 64..=ByteSize::GIB;
        /// The round trip that is assumed before one was measured: nodes of a cluster are near each other.
        initial_rtt_ms: Millis = Millis(2), 1..=10_000;
        /// Bytes that the operating system holds for the socket, each way.
        socket_buffer_bytes: ByteSize = ByteSize::mib(8), ByteSize::KIB * 64..=ByteSize::GIB;
    }
}
