//! The options as quinn wants them, and the socket below.

use crate::{Congestion, MTU_BYTES_MIN, Options, SetupError};
use chronik_link::tls::Tls;
use quinn::congestion::{BbrConfig, CubicConfig, NewRenoConfig};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// What the two ends agree on before anything else is said.
const PROTOCOL: &[u8] = b"chronik";
/// A connection that has heard nothing for so long is given up: sessions look for silence by themselves, and sooner.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// How often a connection without anything to say says so.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Lanes of one connection: a few sessions' worth, should one begin while another ends.
const LANES_MAX: u32 = 256;

/// Both sides' configuration.
pub fn configs(tls: &Tls, options: &Options) -> Result<(quinn::ClientConfig, quinn::ServerConfig), SetupError> {
    let unusable = |why: &dyn std::fmt::Display| SetupError::Tls(why.to_string());
    let transport = Arc::new(transport(options));
    let mut client = (*tls.client).clone();
    client.alpn_protocols = vec![PROTOCOL.to_vec()];
    let client = QuicClientConfig::try_from(client).map_err(|why| unusable(&why))?;
    let mut client = quinn::ClientConfig::new(Arc::new(client));
    client.transport_config(transport.clone());
    let mut server = (*tls.server).clone();
    server.alpn_protocols = vec![PROTOCOL.to_vec()];
    let server = QuicServerConfig::try_from(server).map_err(|why| unusable(&why))?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(server));
    server.transport_config(transport);
    // Nodes stay where they are.
    server.migration(false);
    Ok((client, server))
}

fn transport(options: &Options) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mtu = options.mtu_bytes.max(MTU_BYTES_MIN);
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(mtu);
    transport
        .max_concurrent_bidi_streams(LANES_MAX.into())
        .max_concurrent_uni_streams(0u32.into())
        .datagram_receive_buffer_size(None)
        .stream_receive_window(options.stream_window_bytes.into())
        .receive_window(options.connection_window_bytes.into())
        .send_window(options.connection_window_bytes.into())
        .initial_rtt(Duration::from_millis(options.initial_rtt_ms.max(1).into()))
        .initial_mtu(mtu)
        .min_mtu(MTU_BYTES_MIN)
        .mtu_discovery_config(Some(discovery))
        .enable_segmentation_offload(options.segmentation_offload)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MAX.as_millis() as u32))));
    match options.congestion {
        Congestion::Cubic => transport.congestion_controller_factory(Arc::new(CubicConfig::default())),
        Congestion::NewReno => transport.congestion_controller_factory(Arc::new(NewRenoConfig::default())),
        Congestion::Bbr => transport.congestion_controller_factory(Arc::new(BbrConfig::default())),
    };
    transport
}

/// A socket, which listens if there is a server's configuration. Must be called inside the runtime that is to drive it.
pub fn endpoint(
    at: SocketAddr,
    server: Option<quinn::ServerConfig>,
    options: &Options,
) -> std::io::Result<quinn::Endpoint> {
    let socket = UdpSocket::bind(at)?;
    let bytes = options.socket_buffer_bytes as usize;
    if bytes > 0 {
        // The system gives what it may.
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, bytes)?;
        rustix::net::sockopt::set_socket_send_buffer_size(&socket, bytes)?;
    }
    let mut config = EndpointConfig::default();
    let largest = config.max_udp_payload_size(options.mtu_bytes.max(DATAGRAM_BYTES));
    largest.map_err(std::io::Error::other)?;
    quinn::Endpoint::new(config, server, socket, Arc::new(quinn::TokioRuntime))
}

/// What is taken in any case: a datagram on Ethernet.
const DATAGRAM_BYTES: u16 = 1_472;
