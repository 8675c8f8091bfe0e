//! From names in the configuration to parts: the only place that matches on the names of storage engines and transports.

pub mod engines;
pub mod plugin;
pub mod stored;

use crate::config::{ByteSize, Config, Congestion, Grpc, Quic, Raft, Replication, SyncFilesystem as Wanted};
use crate::config::{Tcp, Transport};
use chronik_core::ids::NodeId;
use chronik_core::wal::EngineError;
use chronik_link::Link;
use chronik_link::tls::{Tls, TlsError};
use chronik_link_grpc::GrpcLink;
use chronik_link_quic::QuicLink;
use chronik_link_tcp::TcpLink;
use chronik_storage_segment::{SegmentOptions, StartError, SyncFilesystem, SyncPolicy};
use std::sync::Arc;

/// Where the segment engine keeps its logs, inside the data directory.
const LOGS_DIRECTORY: &str = "logs";

/// Why there is no network layer.
#[derive(Debug, thiserror::Error)]
pub enum LinkSetupError {
    #[error("the certificates of the cluster cannot be used")]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Quic(#[from] chronik_link_quic::SetupError),
}

/// The network layer of the Raft plane.
pub fn raft_link(config: &Config) -> Result<Arc<dyn Link>, LinkSetupError> {
    let Raft { transport, tcp, grpc, quic, .. } = &config.raft;
    link(config, *transport, tcp, grpc, quic)
}

/// The network layer of the replication plane.
pub fn replication_link(config: &Config) -> Result<Arc<dyn Link>, LinkSetupError> {
    let Replication { transport, tcp, grpc, quic, .. } = &config.replication;
    link(config, *transport, tcp, grpc, quic)
}

/// As the configuration calls it, and the layer does itself.
pub fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Grpc => "grpc",
        Transport::Quic => "quic",
    }
}

fn link(
    config: &Config,
    transport: Transport,
    tcp: &Tcp,
    grpc: &Grpc,
    quic: &Quic,
) -> Result<Arc<dyn Link>, LinkSetupError> {
    let node = NodeId(config.node.id);
    let tls = config.cluster.tls.files().map(|(cert, key, ca)| Tls::load(node, cert, key, ca)).transpose()?;
    let bytes = |size: ByteSize| u32::try_from(size.0).unwrap_or(u32::MAX);
    Ok(match transport {
        Transport::Tcp => {
            let options = chronik_link_tcp::Options {
                send_buffer_bytes: bytes(tcp.send_buffer_bytes),
                receive_buffer_bytes: bytes(tcp.receive_buffer_bytes),
            };
            Arc::new(TcpLink::new(tls, options))
        }
        Transport::Grpc => {
            let options = chronik_link_grpc::Options {
                stream_window_bytes: bytes(grpc.stream_window_bytes),
                connection_window_bytes: bytes(grpc.connection_window_bytes),
                frame_bytes: bytes(grpc.frame_bytes),
            };
            Arc::new(GrpcLink::new(tls, options))
        }
        Transport::Quic => {
            let options = chronik_link_quic::Options {
                mtu_bytes: u16::try_from(quic.mtu_bytes).unwrap_or(chronik_link_quic::MTU_BYTES_MIN),
                segmentation_offload: quic.segmentation_offload,
                congestion: match quic.congestion {
                    Congestion::Cubic => chronik_link_quic::Congestion::Cubic,
                    Congestion::NewReno => chronik_link_quic::Congestion::NewReno,
                    Congestion::Bbr => chronik_link_quic::Congestion::Bbr,
                },
                stream_window_bytes: bytes(quic.stream_window_bytes),
                connection_window_bytes: bytes(quic.connection_window_bytes),
                initial_rtt_ms: u32::try_from(quic.initial_rtt_ms.0).unwrap_or(1),
                socket_buffer_bytes: bytes(quic.socket_buffer_bytes),
            };
            Arc::new(QuicLink::new(tls, options)?)
        }
    })
}

/// Why there is no storage.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error(transparent)]
    Segment(#[from] StartError),
    #[error("the storage plug-in {name} cannot be used")]
    Plugin { name: String, source: plugin::PluginStartError },
    #[error(
        "topics.durability is \"fsync\", but what the storage engine {name} keeps {survives}: write durability = \"replicated\""
    )]
    Durability { name: String, survives: &'static str },
    #[error(
        "topics.retention_bytes is set, but the storage engine {name} keeps no segments, so that only age can be a reason to \
         delete: write retention_bytes = -1"
    )]
    Retention { name: String },
    #[error(
        "topics.cleanup_policy names compaction, but the storage engine {name} keeps no segments, which is what compaction \
         replaces: write cleanup_policy = \"delete\""
    )]
    Compaction { name: String },
    #[error("the logs that are there cannot be listed")]
    List(#[source] EngineError),
}

fn segment_options(config: &Config) -> SegmentOptions {
    let given = &config.storage.segment;
    SegmentOptions {
        tail_cache_bytes: given.tail_cache_bytes.as_u64(),
        unwritten_bytes_max: given.unwritten_bytes.as_u64(),
        open_files_max: given.open_files as usize,
        free_bytes_min: given.free_bytes_min.as_u64(),
        checkpoint_bytes: given.checkpoint_bytes.as_u64(),
        read_threads: given.read_threads as usize,
        send_from_files: given.send_from_files,
        sync: SyncPolicy {
            threads: given.sync_threads as usize,
            filesystem_from_logs: given.sync_filesystem_from_logs as usize,
            filesystem: match given.sync_filesystem {
                Wanted::Never => SyncFilesystem::Never,
                Wanted::IfOwn => SyncFilesystem::IfOwn,
                Wanted::Always => SyncFilesystem::Always,
            },
            journal_bytes: given.sync_journal_bytes.as_u64(),
            gather_wait: std::time::Duration::from_micros(given.sync_gather_us.into()),
        },
        ..SegmentOptions::default()
    }
}
