//! A node among others: how it takes part in the metadata's Raft group, asks the controller, and replicates.
//!
//! - [`node`]: the driver of the group, on a thread of its own, and the controller where this node leads it.
//! - [`disk`], [`turn`]: how its log lies on disk, and how decisions become entries.
//! - [`first`]: how a node comes into a cluster.
//! - [`follow`]: from that thread to those who act on changes.
//! - [`asks`], [`life`], [`in_sync`]: what a broker asks of the controller: to register, to be counted as alive, for other
//!   in-sync sets.
//! - [`replicate`]: sessions with other brokers, and what comes on them.
//! - [`forward`]: clients' requests that the controller decides.
//! - [`status`]: what people may look at.

pub mod asks;
pub mod disk;
pub mod first;
pub mod follow;
pub mod forward;
pub mod in_sync;
pub mod life;
pub mod node;
pub mod replicate;
pub mod status;
mod turn;

use crate::assemble;
use crate::clock::Clock;
use crate::config::{Config, ListenAddress};
use crate::metadata::MetadataLog;
use crate::metadata::writer::Command;
use asks::Asks;
use chronik_core::ids::NodeId;
use chronik_core::metadata::raft::{Member, Recovered, Role, Settings};
use chronik_core::metadata::{ClusterDefaults, Image};
use chronik_core::raft_transport::{Peer, RaftTransport};
use chronik_link::LinkError;
use chronik_link::handshake::{Identity, Plane};
use chronik_link::raft::RaftLanes;
use disk::{Disk, DiskError};
use first::{Beginning, First, FirstError};
use node::{Forwarded, Node, NodeError, Parts, QuorumStatus};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Where the metadata's log lies, in the data directory.
const METADATA_DIRECTORY: &str = "metadata";
/// Messages that wait for the driver: seconds of them; what comes then is dropped, and Raft sends it again.
const EVENTS_MAX: usize = 4_096;
/// Proposals, and requests of this node's own broker, that wait for their turn.
const COMMANDS_MAX: usize = 256;
/// How long a clean stop waits for the driver.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Why a node cannot take part.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(transparent)]
    Link(#[from] assemble::LinkSetupError),
    #[error("{plane} cannot listen on {address}")]
    Listen { plane: &'static str, address: String, source: LinkError },
    #[error("{address} has no address")]
    Resolve { address: String, source: std::io::Error },
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    First(#[from] FirstError),
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error("the address {0} of this node is too long for others to be told")]
    Address(String),
    #[error("a thread cannot be started")]
    Thread(#[from] std::io::Error),
    #[error("the thread of the metadata has ended")]
    Ended,
}

/// A node that takes part.
pub struct Cluster {
    pub metadata: MetadataLog,
    pub asks: Arc<Asks>,
    pub roles: watch::Receiver<Role>,
    pub status: watch::Receiver<QuorumStatus>,
    pub transport: Arc<RaftLanes>,
    pub directory_id: [u8; 16],
    /// The process before stopped in order.
    pub clean: bool,
    forwarded: watch::Sender<Option<Arc<dyn Forwarded>>>,
    stop: mpsc::Sender<Command>,
    disk: Arc<Disk>,
    thread: std::thread::JoinHandle<()>,
}

impl Cluster {
    /// From now on clients' requests that other nodes hand on are served.
    pub fn serve_forwarded(&self, forwarded: Arc<dyn Forwarded>) {
        self.forwarded.send_replace(Some(forwarded));
    }

    /// Ends the driver. `clean`: everything else is closed and synced.
    pub async fn stop(self, clean: bool) {
        let (reply, answer) = oneshot::channel();
        if self.stop.send(Command::Close(reply)).await.is_ok() {
            let _ = tokio::time::timeout(STOP_WITHIN, answer).await;
        }
        self.transport.stop();
        if let Err(why) = self.disk.close(clean).await {
            tracing::warn!(error = &why as &dyn std::error::Error, "the metadata's log could not be closed in order");
        }
        // It holds nothing any more, and the process ends.
        drop(self.thread);
    }
}

/// The addresses of a text; the first that there is.
pub async fn resolve(at: &ListenAddress) -> Result<SocketAddr, ClusterError> {
    let address = || format!("{}:{}", at.host, at.port);
    let found = tokio::net::lookup_host(at.pair()).await;
    let found = found.map_err(|source| ClusterError::Resolve { address: address(), source })?.next();
    found.ok_or_else(|| ClusterError::Resolve { address: address(), source: std::io::ErrorKind::NotFound.into() })
}

/// What the thread hands over when the node takes part.
struct Handed {
    transport: Arc<RaftLanes>,
    directory_id: [u8; 16],
    clean: bool,
    disk: Arc<Disk>,
    asks: Arc<Asks>,
    follow: follow::Follow,
    images: watch::Receiver<Arc<Image>>,
}

/// Takes part in the cluster that the configuration names; returns when this node knows of it, which may take until others
/// are there.
///
/// `defaults` is what this node's configuration says of topics.
pub async fn start(
    config: &Config,
    defaults: ClusterDefaults,
    clock: Clock,
    bootstrap: bool,
) -> Result<Cluster, ClusterError> {
    let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
    let (fail, failures) = watch::channel(None);
    let (roles, roles_seen) = watch::channel(Role::default());
    let (status, status_seen) = watch::channel(QuorumStatus::default());
    let (forwarded, forwarded_seen) = watch::channel(None);
    let (hand, handed) = oneshot::channel();
    let setup = Setup {
        config: config.clone(),
        defaults,
        clock,
        bootstrap,
        commands: inbox,
        roles,
        roles_seen: roles_seen.clone(),
        status,
        forwarded: forwarded_seen,
        runtime: tokio::runtime::Handle::current(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name("chronik-raft".into()).spawn(move || {
        let ended = runtime.block_on(async {
            match set_up(setup).await {
                Err(why) => {
                    let _ = hand.send(Err(why));
                    Ok(())
                }
                Ok((node, parts)) => {
                    let _ = hand.send(Ok(parts));
                    node.run().await
                }
            }
        });
        if let Err(why) = ended {
            let mut words = why.to_string();
            let mut cause = std::error::Error::source(&why);
            while let Some(deeper) = cause {
                words.push_str(": ");
                words.push_str(&deeper.to_string());
                cause = deeper.source();
            }
            tracing::error!("{words}");
            fail.send_replace(Some(words));
        }
        // Connections are given up without waiting for anyone.
        runtime.shutdown_background();
    })?;
    let parts = handed.await.map_err(|_| ClusterError::Ended)??;
    tokio::spawn(parts.follow.run());
    let node = NodeId(config.node.id);
    Ok(Cluster {
        metadata: MetadataLog::of_cluster(node, parts.directory_id, commands.clone(), parts.images, failures),
        asks: parts.asks,
        roles: roles_seen,
        status: status_seen,
        transport: parts.transport,
        directory_id: parts.directory_id,
        clean: parts.clean,
        forwarded,
        stop: commands,
        disk: parts.disk,
        thread,
    })
}

struct Setup {
    config: Config,
    defaults: ClusterDefaults,
    clock: Clock,
    bootstrap: bool,
    commands: mpsc::Receiver<Command>,
    roles: watch::Sender<Role>,
    roles_seen: watch::Receiver<Role>,
    status: watch::Sender<QuorumStatus>,
    forwarded: watch::Receiver<Option<Arc<dyn Forwarded>>>,
    runtime: tokio::runtime::Handle,
}

async fn set_up(setup: Setup) -> Result<(Node, Handed), ClusterError> {
    let Setup { config, defaults, clock, bootstrap, commands, roles, roles_seen, status, forwarded, runtime } = setup;
    let node = NodeId(config.node.id);
    let (link, listen) = (assemble::raft_link(&config)?, resolve(&config.raft.listen).await?);
    let incoming = link.listen(listen).await.map_err(|source| ClusterError::Listen {
        plane: "raft",
        address: listen.to_string(),
        source,
    })?;
    let (disk, start) = Disk::open(&config.node.data_dir.join(METADATA_DIRECTORY)).await?;
    let address = own_address(&config);
    let own = Member::new(node, start.directory_id, address.clone()).ok_or(ClusterError::Address(address))?;
    let cluster_id = String::new();
    let identity = Identity::new(node, start.directory_id, Plane::Raft, link.name(), cluster_id, None)
        .beside(assemble::transport_name(config.replication.transport));
    let (sender, mut events) = mpsc::channel(EVENTS_MAX);
    let transport = RaftLanes::start(link, incoming, identity, chronik_link::raft::settings(), sender);
    let configured: Vec<Peer> = config
        .cluster
        .voters
        .0
        .iter()
        .map(|voter| Peer { node: NodeId(voter.node), address: voter.address.to_string() })
        .collect();
    transport.set_peers(configured.clone());
    let mut joining = false;
    let mut recovered = start.recovered;
    if recovered.snapshot.is_none() {
        let voters = configured.iter().map(|peer| peer.node).collect();
        // The same words on every node that is told to begin: the voters themselves.
        let token =
            bootstrap.then(|| config.cluster.voters.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
        let token = token.map(|token| token.chars().take(200).collect());
        let beginning = Beginning { own: own.clone(), voters, begin: token, found: start.found };
        let came = first::start(clock, &disk, beginning, &transport, &mut events).await?;
        match came {
            First::Begin(voters) => {
                disk.persist(&Recovered::genesis_persist(&voters), clock.wall()).await?;
                recovered = Recovered::genesis(&voters);
            }
            First::Join => joining = true,
        }
    }
    let disk = Arc::new(disk);
    let (locals, locals_inbox) = mpsc::channel(COMMANDS_MAX);
    let asks = Asks::new(node, transport.clone(), roles_seen, locals);
    let (steps, follow, images) = follow::steps(Arc::new(Image::empty(defaults.clone())));
    let driver = Node::open(Parts {
        clock,
        own,
        settings: settings(&config),
        session: config.cluster.session_timeout_ms.duration(),
        disk: disk.clone(),
        recovered,
        defaults,
        transport: transport.clone(),
        events,
        commands,
        locals: locals_inbox,
        asks: asks.clone(),
        steps,
        roles,
        status,
        configured,
        forwarded,
        runtime,
        joining,
    })?;
    let (directory_id, clean) = (start.directory_id, start.clean);
    Ok((driver, Handed { transport, directory_id, clean, disk, asks, follow, images }))
}

/// Where other nodes reach this one's Raft plane.
fn own_address(config: &Config) -> String {
    let configured = config.cluster.voters.0.iter().find(|voter| voter.node == config.node.id);
    match (&config.raft.advertise, configured) {
        (Some(advertised), _) => advertised_text(advertised, config.raft.listen.port),
        (None, Some(voter)) => voter.address.to_string(),
        (None, None) => config.raft.listen.to_string(),
    }
}

/// `host:port`, with the port that is listened on where none is said.
pub fn advertised_text(advertised: &crate::config::AdvertisedAddress, port: u16) -> String {
    ListenAddress { host: advertised.host.clone(), port: advertised.port.unwrap_or(port) }.to_string()
}

/// Raft's own times, in its ticks.
fn settings(config: &Config) -> Settings {
    let heartbeat = config.raft.heartbeat_ms.duration();
    let tick = Settings::default().tick.min(heartbeat);
    let ticks = |span: Duration| (span.as_millis() / tick.as_millis().max(1)).max(1) as usize;
    Settings {
        tick,
        heartbeat_ticks: ticks(heartbeat),
        election_ticks: ticks(config.raft.election_timeout_ms.duration()).max(3),
        ..Settings::default()
    }
}
