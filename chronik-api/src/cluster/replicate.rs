//! Sessions with other brokers, and what comes on them.

use super::{ClusterError, advertised_text, resolve};
use crate::assemble;
use crate::config::Config;
use crate::metadata::{Applied, MetadataLog};
use crate::partitions::PartitionTable;
use async_trait::async_trait;
use chronik_core::ids::{LogId, NodeId, Offset};
use chronik_core::metadata::{Change, Delta, Image};
use chronik_core::replication::{Event, Message, ReplicationChannel};
use chronik_link::handshake::{Identity, Plane};
use chronik_link::replication::{Events, ReplicationLanes};
use chronik_link::session::PeerStatus;
use chronik_link::{Endpoint, Incoming, Link};
use std::sync::{Arc, OnceLock};

/// The channel that partitions are made with, before there is one to send on: nothing can be sent until this broker is
/// registered, and nothing has to be.
#[derive(Default)]
pub struct Channel(OnceLock<Arc<ReplicationLanes>>);

impl ReplicationChannel for Channel {
    fn send(&self, to: NodeId, log: LogId, message: Message) {
        if let Some(lanes) = self.0.get() {
            lanes.send(to, log, message);
        }
    }
}

/// The replication plane's listener, bound and not yet served.
pub struct Bound {
    link: Arc<dyn Link>,
    incoming: Box<dyn Incoming>,
    /// Where other brokers reach it.
    pub advertised: String,
}

/// Listens.
pub async fn bind(config: &Config) -> Result<Bound, ClusterError> {
    let (link, at) = (assemble::replication_link(config)?, resolve(&config.replication.listen).await?);
    let address = at.to_string();
    let failed = |source| ClusterError::Listen { plane: "replication", address: address.clone(), source };
    let incoming = link.listen(at).await.map_err(failed)?;
    let bound = incoming.local_address().map_err(failed)?;
    let advertised = match &config.replication.advertise {
        Some(advertised) => advertised_text(advertised, bound.port()),
        None => crate::config::ListenAddress { host: config.replication.listen.host.clone(), port: bound.port() }
            .to_string(),
    };
    Ok(Bound { link, incoming, advertised })
}

/// The plane at work.
pub struct Replication {
    node: NodeId,
    lanes: Arc<ReplicationLanes>,
}

impl Replication {
    /// Ready for sessions, which come and go once it listens to the metadata. `broker_epoch` is this process's registration.
    pub fn start(
        bound: Bound,
        config: &Config,
        directory_id: [u8; 16],
        broker_epoch: Offset,
        metadata: &MetadataLog,
        partitions: Arc<PartitionTable>,
        channel: &Channel,
    ) -> Arc<Self> {
        let node = NodeId(config.node.id);
        let image = metadata.image();
        let Bound { link, incoming, .. } = bound;
        let cluster_id = image.cluster_id().to_owned();
        let own = Identity::new(node, directory_id, Plane::Replication, link.name(), cluster_id, Some(broker_epoch))
            .beside(assemble::transport_name(config.raft.transport));
        let settings = chronik_link::replication::settings(config.replication.lanes);
        let events = Arc::new(Host { metadata: metadata.clone(), partitions });
        let lanes = ReplicationLanes::start(link, incoming, own, settings, events);
        // Set once, here.
        let _ = channel.0.set(lanes.clone());
        Arc::new(Self { node, lanes })
    }

    /// Keeps sessions with all brokers that the image knows.
    fn follow(&self, image: &Image) {
        let others = image.brokers().values().filter(|broker| broker.id != self.node);
        let endpoint = |address: &str, node| Endpoint::parse(node, address);
        let endpoints = others.filter_map(|broker| endpoint(broker.replication_address.as_deref()?, broker.id));
        self.lanes.set_peers(endpoints.collect());
    }

    pub fn status(&self) -> Vec<PeerStatus> {
        self.lanes.status()
    }

    pub fn stop(&self) {
        self.lanes.stop();
    }
}

#[async_trait]
impl Applied for Replication {
    async fn begin(&self, image: &Arc<Image>) {
        self.follow(image);
    }

    async fn applied(&self, image: &Arc<Image>, delta: &Delta) {
        let about_brokers =
            |change: &Change| matches!(change, Change::BrokerRegistered(_) | Change::BrokerUnregistered(_));
        if delta.changes.iter().any(about_brokers) {
            self.follow(image);
        }
    }
}

struct Host {
    metadata: MetadataLog,
    partitions: Arc<PartitionTable>,
}

impl Events for Host {
    fn take(&self, event: Event) {
        self.partitions.take(event);
    }

    fn admits(&self, peer: NodeId, broker_epoch: Offset) -> Result<(), String> {
        let image = self.metadata.image();
        match image.broker(peer) {
            None => Err(format!("node {peer} is no broker of this cluster, as far as is known here yet")),
            Some(broker) if broker.epoch > broker_epoch => {
                Err(format!("node {peer} has registered anew since, in epoch {}", broker.epoch))
            }
            Some(broker) if broker.epoch < broker_epoch => {
                Err(format!("the registration of node {peer} in epoch {broker_epoch} is not known here yet"))
            }
            Some(_) => Ok(()),
        }
    }
}
