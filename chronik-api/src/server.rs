//! A broker's life: start the parts in their order, serve, and stop them in the reverse one.
//!
//! Order matters: listeners are bound first (a taken port must cost nothing), the metadata is read and this start
//! registered before any log is opened, and clients are let in last. On the way down no request is read any more, those
//! under way are answered, and then everything is synced and closed.

use crate::admin::{Admin, AdminState, Readiness};
use crate::assemble;
use crate::broker::{Broker, FollowMetadata};
use crate::clock::Clock;
use crate::config::reach::{self, Advertised};
use crate::config::{Config, Listener};
use crate::groups::Groups;
use crate::kafka::connection::{Limits, MemoryBudget};
use crate::kafka::context::{AllowAll, ConnectionContext, ListenerContext};
use crate::kafka::dispatch::Dispatcher;
use crate::kafka::fetch_sessions::FetchSessions;
use crate::kafka::handlers;
use crate::kafka::listener::{self, Admission, Shared};
use crate::metadata::{self, MetadataLog, ProducerIds};
use crate::metrics::Metrics;
use crate::metrics::exposition::{Exposition, Names};
use crate::partitions::stall::StallWatch;
use crate::partitions::{PartitionTable, upkeep};
use chronik_core::ids::NodeId;
use chronik_proto_kafka::ErrorCode;
use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Why a broker did not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("{name} cannot listen on {address}")]
    Listen { name: String, address: String, source: std::io::Error },
    #[error("the storage engine does not start")]
    Engine(#[from] chronik_storage_segment::StartError),
    #[error("the metadata cannot be opened")]
    Metadata(#[from] metadata::OpenError),
    #[error("this start cannot be registered: {0}")]
    Register(String),
    #[error("the broker stops, because its metadata log failed: {0}")]
    MetadataFailed(String),
    #[error("a thread cannot be started")]
    Thread(#[source] std::io::Error),
    #[error("the logs could not be closed in order")]
    Close(#[from] chronik_core::wal::EngineError),
}

/// What is up, for whoever announces it.
pub struct Up {
    /// Each listener with the address it got and the one it advertises; never empty.
    pub listeners: Vec<(Listener, SocketAddr, Advertised)>,
    /// `None` if it is switched off.
    pub admin: Option<SocketAddr>,
}

/// Runs a broker until `shutdown`. `announce` is called once, when clients are served.
pub async fn run(
    config: Config,
    shutdown: impl Future<Output = ()>,
    announce: impl FnOnce(&Config, &Up),
) -> Result<(), ServeError> {
    let clock = Clock::start();
    let (stop, stopping) = watch::channel(false);
    let mut listeners = Vec::new();
    for wanted in config.listeners() {
        let bind = TcpListener::bind(wanted.listen.pair()).await;
        let (socket, bound) =
            bind.and_then(|socket| Ok((socket.local_addr()?, socket))).map(|(a, s)| (s, a)).map_err(|source| {
                ServeError::Listen {
                    name: format!("listener {}", wanted.name),
                    address: format!("{}:{}", wanted.listen.host, wanted.listen.port),
                    source,
                }
            })?;
        let advertised = reach::advertised(&wanted, bound);
        listeners.push((wanted, socket, bound, advertised));
    }
    let admin = Admin::bind(&config.admin).await.map_err(|source| ServeError::Listen {
        name: "the admin endpoint".into(),
        address: format!("{}:{}", config.admin.listen.host, config.admin.listen.port),
        source,
    })?;
    let admin_address = admin.as_ref().and_then(|admin| admin.local_address().ok());

    let engine = assemble::storage(&config)?;
    let node = NodeId(config.node.id);
    let options = metadata::Options::new(node, metadata::settings::cluster_defaults(&config));
    let metadata = MetadataLog::open(&*engine, options, clock).await?;
    let registered = listeners.iter().map(|(wanted, _, _, advertised)| chronik_core::metadata::Listener {
        name: wanted.name.clone(),
        host: advertised.host.clone(),
        port: advertised.port,
    });
    metadata
        .register(config.node.rack.clone(), registered.collect(), false, Vec::new())
        .await
        .map_err(|why| ServeError::Register(why.to_string()))?;

    let metrics = Arc::new(Metrics::default());
    let stalls = StallWatch::start(tokio::runtime::Handle::current()).map_err(ServeError::Thread)?;
    let partitions = Arc::new(PartitionTable::new(engine, stalls));
    let follow = Arc::new(FollowMetadata {
        node,
        clock,
        partitions: partitions.clone(),
        metrics: metrics.clone(),
        groups: OnceLock::new(),
    });
    let image = metadata.listen(follow.clone()).await.ok_or_else(|| ServeError::MetadataFailed(String::new()))?;
    follow.open_all(&image).await;

    let groups = Groups::start(&config, clock, metadata.clone(), partitions.clone()).await;
    // Nobody else sets it.
    let _ = follow.groups.set(groups.clone());

    let sessions = FetchSessions::new(
        config.limits.fetch_sessions as usize,
        config.limits.fetch_session_partitions as usize,
        seed(),
    );
    let broker = Arc::new(Broker {
        node,
        clock,
        producer_ids: ProducerIds::new(metadata.clone()),
        metadata,
        partitions: partitions.clone(),
        groups: groups.clone(),
        sessions,
        metrics: metrics.clone(),
        authorizer: Box::new(AllowAll),
        // Requests draw on the other half, so that neither can starve the other.
        answer_memory: MemoryBudget::new(config.limits.memory_bytes.as_usize() / 2),
        config,
    });
    let config = &broker.config;

    let readiness = Readiness::not_yet("starting");
    let admin = admin.map(|admin| {
        let names = Names { api: api_name, error: |code| ErrorCode(code).to_string() };
        let exposition = Exposition::new(metrics.clone(), broker.clone(), names);
        let state = Arc::new(AdminState::new(readiness.clone(), exposition));
        tokio::spawn(admin.serve(state, stopped(stopping.clone())))
    });
    let upkeep = tokio::spawn({
        let (broker, partitions) = (broker.clone(), partitions.clone());
        let limits = &broker.config.limits;
        let settings = upkeep::Settings {
            every: broker.config.topics.retention_check_interval_ms.duration().min(UPKEEP_EVERY_MAX),
            producer_expiration_ms: i64::from(limits.producer_id_expiration_ms.as_i32()),
            producers_per_partition_max: limits.producers_per_partition as usize,
        };
        async move { upkeep::run(partitions, clock, settings, move |topic| broker.upkeep_rules(topic)).await }
    });

    let expiry_every = config.groups.offsets_retention_check_interval_ms.duration();
    let expiry = tokio::spawn(groups.clone().run_expiry(expiry_every, metrics.clone()));

    let shared = Shared {
        limits: limits(config),
        memory: MemoryBudget::new(config.limits.memory_bytes.as_usize() / 2),
        metrics: metrics.clone(),
        admission: Admission::new(config.limits.connections as usize, config.limits.connections_per_ip as usize),
        shutdown: stopping.clone(),
    };
    let connections = Arc::new(AtomicU64::new(0));
    let mut up = Vec::new();
    let mut accepting = Vec::new();
    for (wanted, socket, bound, advertised) in listeners {
        let context = Arc::new(ListenerContext {
            config: wanted.clone(),
            advertised_host: advertised.host.clone(),
            advertised_port: advertised.port,
        });
        let (broker, connections) = (broker.clone(), connections.clone());
        let dispatcher = move |peer| {
            let number = connections.fetch_add(1, Ordering::Relaxed);
            let connection = Arc::new(ConnectionContext::new(context.clone(), peer, number));
            Dispatcher { broker: broker.clone(), connection }
        };
        accepting.push(tokio::spawn(listener::run(socket, shared.clone(), dispatcher)));
        up.push((wanted, bound, advertised));
    }
    readiness.set_ready();
    announce(config, &Up { listeners: up.clone(), admin: admin_address });
    tokio::spawn(async move {
        for (wanted, _, advertised) in up {
            for doubt in reach::doubts(&wanted, &advertised).await {
                tracing::warn!("{doubt}");
            }
        }
    });

    let failed = tokio::select! {
        () = shutdown => None,
        why = broker.metadata.failed() => Some(why),
    };
    readiness.set_not_ready("stopping");
    // Every receiver may be gone only if nothing serves any more.
    let _ = stop.send(true);
    for task in accepting {
        let _ = task.await;
    }
    let deadline = tokio::time::Instant::now() + config.limits.shutdown_ms.duration();
    while shared.admission.total() > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(CONNECTIONS_LOOK_EVERY).await;
    }
    upkeep.abort();
    expiry.abort();
    groups.stop().await;
    broker.metadata.close().await;
    partitions.shut_down().await?;
    if let Some(admin) = admin {
        let _ = admin.await;
    }
    match failed {
        None => Ok(()),
        Some(why) => Err(ServeError::MetadataFailed(why)),
    }
}

/// Checkpoints want looking after more often than Kafka looks at retention.
const UPKEEP_EVERY_MAX: Duration = Duration::from_secs(10);
/// How often a stopping broker looks whether its connections are gone.
const CONNECTIONS_LOOK_EVERY: Duration = Duration::from_millis(10);

async fn stopped(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

fn api_name(key: i16) -> String {
    handlers::find(key).map_or_else(|| key.to_string(), |api| api.name.to_owned())
}

fn limits(config: &Config) -> Limits {
    let limits = &config.limits;
    Limits {
        request_bytes_max: limits.request_bytes.as_usize(),
        pending_requests_max: limits.pending_requests_per_connection as usize,
        pending_bytes_max: limits.pending_bytes_per_connection.as_usize(),
        idle: limits.connection_idle_ms.duration(),
        frame_within: limits.partial_request_ms.duration(),
        receive_bytes_per_second: limits.receive_bytes_per_second.as_u64(),
        send_stall: limits.stalled_send_ms.duration(),
    }
}

/// A number that differs from start to start; guessing it gains nobody anything.
fn seed() -> u32 {
    RandomState::new().build_hasher().finish() as u32
}
