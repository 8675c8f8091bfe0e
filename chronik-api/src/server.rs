//! A broker's life: start the parts in their order, serve, and stop them in the reverse one.
//!
//! Order matters: listeners are bound first (a taken port must cost nothing), the metadata is read and this start
//! registered before any replica leads or follows, and clients are let in last. On the way down no request is read any
//! more, those under way are answered, and then everything is synced and closed. In a cluster others take over what this
//! broker leads before that.

use crate::admin::{Admin, AdminState, Readiness};
use crate::assemble;
use crate::assemble::engines::Engines;
use crate::broker::{Broker, FollowMetadata, InCluster};
use crate::clock::Clock;
use crate::cluster::forward::Serve;
use crate::cluster::life::{self, Heart, LifeError};
use crate::cluster::replicate::{self, Replication};
use crate::cluster::{self, in_sync, status};
use crate::config::reach::{self, Advertised};
use crate::config::{Config, Listener};
use crate::groups::Groups;
use crate::kafka::connection::{Limits, MemoryBudget};
use crate::kafka::context::{AllowAll, ConnectionContext, ListenerContext};
use crate::kafka::dispatch::Dispatcher;
use crate::kafka::fetch_sessions::FetchSessions;
use crate::kafka::handlers;
use crate::kafka::listener::{self, Admission, Shared};
use crate::metadata::{self, Creation, MetadataLog, ProducerIds};
use crate::metrics::Metrics;
use crate::metrics::exposition::{Exposition, Names};
use crate::partitions::anatomy::Sampling;
use crate::partitions::partition::Surroundings;
use crate::partitions::stall::StallWatch;
use crate::partitions::throttle::Throttling;
use crate::partitions::{NoPeers, PartitionTable, upkeep};
use chronik_core::ids::NodeId;
use chronik_core::metadata::controller::{self, Registration};
use chronik_proto_kafka::ErrorCode;
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;
use std::pin::pin;
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
    Engine(#[from] assemble::StorageError),
    #[error("the metadata cannot be opened")]
    Metadata(#[from] metadata::OpenError),
    #[error("this start cannot be registered: {0}")]
    Register(String),
    #[error("the broker stops, because its metadata log failed: {0}")]
    MetadataFailed(String),
    #[error("this node cannot take part in the cluster")]
    Cluster(#[from] cluster::ClusterError),
    #[error("this broker cannot go on")]
    Life(#[from] LifeError),
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
    /// What keeps the records.
    pub engines: Arc<Engines>,
}

/// Runs a broker until `shutdown`. `bootstrap`: it is to create the cluster that the configuration names. `announce` is called
/// once, when clients are served.
pub async fn run(
    config: Config,
    bootstrap: bool,
    shutdown: impl Future<Output = ()>,
    announce: impl FnOnce(&Config, &Up),
) -> Result<(), ServeError> {
    let mut shutdown = pin!(shutdown);
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

    let engines = Arc::new(Engines::start(&config).await?);
    let defaults = metadata::settings::cluster_defaults(&config, &engines);
    let node = NodeId(config.node.id);
    let known_as = listeners.iter().map(|(wanted, _, _, advertised)| chronik_core::metadata::Listener {
        name: wanted.name.clone(),
        host: advertised.host.clone(),
        port: advertised.port,
    });
    let known_as: Vec<_> = known_as.collect();
    let (mut joined, mut bound) = (None, None);
    if config.is_cluster() {
        bound = Some(replicate::bind(&config).await?);
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            cluster = cluster::start(&config, defaults.clone(), clock, bootstrap) => joined = Some(cluster?),
        }
    }
    let metadata = match &joined {
        Some(cluster) => cluster.metadata.clone(),
        None => {
            let options = metadata::Options::new(node, defaults);
            let metadata = MetadataLog::open(&**engines.for_metadata(), options, clock).await?;
            metadata
                .register(config.node.rack.clone(), known_as.clone(), false, Vec::new())
                .await
                .map_err(|why| ServeError::Register(why.to_string()))?;
            metadata
        }
    };

    let metrics = Arc::new(Metrics::default());
    if joined.is_some() {
        metrics.ack_stages.set_transport(assemble::transport_name(config.replication.transport));
    }
    let stalls = StallWatch::start(tokio::runtime::Handle::current()).map_err(ServeError::Thread)?;
    let channel = Arc::new(replicate::Channel::default());
    let around = Surroundings {
        node,
        clock,
        stalls,
        channel: match &joined {
            Some(_) => channel.clone(),
            None => Arc::new(NoPeers),
        },
        throttling: Throttling::default(),
        sampling: Arc::new(Sampling::new(metrics.ack_stages.clone())),
        runtime: tokio::runtime::Handle::current(),
    };
    let partitions = Arc::new(PartitionTable::new(engines, around));
    let follow = Arc::new(FollowMetadata {
        node,
        clock,
        replica_lag_max: config.replication.replica_lag_max_ms.duration(),
        partitions: partitions.clone(),
        metrics: metrics.clone(),
        groups: OnceLock::new(),
    });
    let mut registered = None;
    let replication_address = bound.as_ref().map(|bound| bound.advertised.clone());
    if let Some(cluster) = &joined {
        let mut lost = follow.open_idle(&metadata.image()).await;
        loop {
            let registration = Registration {
                node,
                incarnation: metadata::random::identity(),
                directory_id: cluster.directory_id,
                rack: config.node.rack.clone(),
                listeners: known_as.clone(),
                clean: cluster.clean,
                lost: lost.clone(),
                replication_address: replication_address.clone(),
                features: controller::supported_features(),
                after: metadata.image().broker(node).map(|before| before.epoch),
            };
            tokio::select! {
                () = &mut shutdown => return Ok(()),
                epoch = life::register(&cluster.asks, &metadata, registration) => registered = Some(epoch?),
            }
            // Only now is this node's metadata as new as its registration: before, it may know of few of its logs, or of
            // none. What they turn out to have lost must be said before anybody counts on them, and until its first
            // heartbeat nobody does.
            let found = follow.open_idle(&metadata.image()).await;
            if found == lost {
                break;
            }
            lost = found;
        }
    }
    metadata.listen(follow.clone()).await.ok_or_else(|| ServeError::MetadataFailed(String::new()))?;
    let asks = joined.as_ref().map(|cluster| cluster.asks.clone());
    let creation = Creation::new(metadata.clone(), asks.clone());
    let mut cluster = None;
    let mut in_cluster = None;
    if let (Some(joined), Some(bound), Some(broker_epoch)) = (joined, bound.take(), registered) {
        let id = joined.directory_id;
        let replication = Replication::start(bound, &config, id, broker_epoch, &metadata, partitions.clone(), &channel);
        let told = metadata.listen(replication.clone()).await;
        told.ok_or_else(|| ServeError::MetadataFailed(String::new()))?;
        in_cluster = Some(InCluster {
            asks: joined.asks.clone(),
            status: joined.status.clone(),
            raft: joined.transport.clone(),
            replication,
        });
        cluster = Some((joined, broker_epoch));
    }

    let groups = Groups::start(&config, clock, metadata.clone(), creation.clone(), partitions.clone()).await;
    // Nobody else sets it.
    let _ = follow.groups.set(groups.clone());
    // What moved before that was told to nobody.
    groups.adopt(metadata.image()).await;

    let sessions = FetchSessions::new(
        config.limits.fetch_sessions as usize,
        config.limits.fetch_session_partitions as usize,
        seed(),
    );
    let broker = Arc::new(Broker {
        node,
        clock,
        producer_ids: ProducerIds::new(metadata.clone(), asks.zip(registered)),
        creation,
        cluster: in_cluster,
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
        let state = Arc::new({
            let broker = broker.clone();
            AdminState::new(readiness.clone(), exposition).with_cluster(move || status::status(&broker))
        });
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
    let elements_max = ELEMENTS_PER_PARTITION * (config.limits.partitions as usize).max(PARTITIONS_MIN);
    let contexts: BTreeMap<_, _> = listeners
        .iter()
        .map(|(wanted, _, _, advertised)| {
            let context = ListenerContext {
                config: wanted.clone(),
                advertised_host: advertised.host.clone(),
                advertised_port: advertised.port,
            };
            (wanted.name.clone(), Arc::new(context))
        })
        .collect();
    let (want_shutdown, wants_shutdown) = watch::channel(false);
    let (may_stop, may_stop_seen) = watch::channel(false);
    let mut life = None;
    let mut wishes = None;
    if let Some((cluster, broker_epoch)) = &cluster {
        cluster.serve_forwarded(Arc::new(Serve { broker: broker.clone(), listeners: contexts.clone(), elements_max }));
        let heart = Heart {
            asks: cluster.asks.clone(),
            metadata: broker.metadata.clone(),
            partitions: partitions.clone(),
            clock,
            node,
            broker_epoch: *broker_epoch,
            every: config.cluster.heartbeat_ms.duration(),
            wants_shutdown,
            may_stop,
        };
        life = Some(tokio::spawn(heart.beat()));
        let (asks, metadata) = (cluster.asks.clone(), broker.metadata.clone());
        wishes = Some(tokio::spawn(in_sync::run(node, *broker_epoch, asks, metadata, partitions.clone())));
    }
    let mut stops_early = false;
    if cluster.is_some() {
        // A client that comes earlier is told of a cluster without this broker, perhaps without any, and may not ask again
        // for minutes. Connections wait in the sockets' queues meanwhile.
        let mut images = broker.metadata.subscribe();
        tokio::select! {
            () = &mut shutdown => stops_early = true,
            // It ends only with the metadata, which is looked at below.
            _ = images.wait_for(|image| image.is_active(node)) => {}
        }
    }
    let mut up = Vec::new();
    let mut accepting = Vec::new();
    for (wanted, socket, bound, advertised) in listeners {
        let context = contexts[&wanted.name].clone();
        let (broker, connections) = (broker.clone(), connections.clone());
        let dispatcher = move |peer| {
            let number = connections.fetch_add(1, Ordering::Relaxed);
            let connection = Arc::new(ConnectionContext::new(context.clone(), peer, number));
            Dispatcher { broker: broker.clone(), connection, elements_max, hands_on: true }
        };
        accepting.push(tokio::spawn(listener::run(socket, shared.clone(), dispatcher)));
        up.push((wanted, bound, advertised));
    }
    readiness.set_ready();
    announce(config, &Up { listeners: up.clone(), admin: admin_address, engines: partitions.engines().clone() });
    tokio::spawn(async move {
        for (wanted, _, advertised) in up {
            for doubt in reach::doubts(&wanted, &advertised).await {
                tracing::warn!("{doubt}");
            }
        }
    });

    let replaced = async {
        match &mut life {
            Some(life) => life.await.ok(),
            None => std::future::pending().await,
        }
    };
    let failed = tokio::select! {
        () = std::future::ready(()), if stops_early => None,
        () = &mut shutdown, if !stops_early => None,
        why = broker.metadata.failed() => Some(ServeError::MetadataFailed(why)),
        why = replaced => why.map(ServeError::Life),
    };
    readiness.set_not_ready("stopping");
    if cluster.is_some() && failed.is_none() {
        // Others take over first; clients find them while this broker still answers.
        want_shutdown.send_replace(true);
        let mut may_stop = may_stop_seen;
        let handed_over = may_stop.wait_for(|may_stop| *may_stop);
        if tokio::time::timeout(config.limits.shutdown_ms.duration(), handed_over).await.is_err() {
            tracing::warn!("the cluster has not taken over everything that this broker leads; it stops all the same");
        }
    }
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
    if let Some(wishes) = wishes {
        wishes.abort();
    }
    if let Some(in_cluster) = &broker.cluster {
        in_cluster.replication.stop();
    }
    match cluster {
        None => {
            broker.metadata.close().await;
            partitions.shut_down().await?;
        }
        Some((cluster, _)) => {
            let closed = partitions.shut_down().await;
            cluster.stop(closed.is_ok() && failed.is_none()).await;
            closed?;
        }
    }
    if let Some(admin) = admin {
        let _ = admin.await;
    }
    match failed {
        None => Ok(()),
        Some(why) => Err(why),
    }
}

/// Checkpoints want looking after more often than Kafka looks at retention.
const UPKEEP_EVERY_MAX: Duration = Duration::from_secs(10);
/// A request may name every partition there may be, with its topic and its replica; nobody needs more …
const ELEMENTS_PER_PARTITION: usize = 3;
/// … but on a broker of few partitions there may still be groups with many members.
const PARTITIONS_MIN: usize = 20_000;
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
