//! The first facts of a cluster, the start of a broker, and the numbers that are never given out twice.

use super::Decision;
use crate::ids::{LogId, NodeId, Offset, ProducerId};
use crate::metadata::image::{Image, Listener};
use crate::metadata::names;
use crate::metadata::records::{
    ClusterRecord, FeatureLevelRecord, METADATA_VERSION, METADATA_VERSION_LATEST, METADATA_VERSION_MIN,
    ProducerIdsRecord, Record, RegisterBrokerRecord,
};
use crate::metadata::snapshot::{feature_records, listener_records, log_record};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// How many producer ids a broker reserves at a time: as many as Kafka's, so that a restart wastes few of the 2^63.
pub const PRODUCER_ID_BLOCK: i64 = 1_000;

/// What a new cluster needs from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstStart {
    /// Random; becomes the cluster's id.
    pub cluster_id: [u8; 16],
}

/// The facts of a cluster's first start; none where the log has them.
///
/// Only `metadata.version` is finalized: the other features that Kafka has stand for protocols that are not served.
pub fn bootstrap(image: &Image, first: FirstStart) -> Decision<()> {
    let mut records = Vec::new();
    if image.cluster_id().is_empty() {
        records.push(Record::Cluster(ClusterRecord { cluster_id: names::cluster_id_text(first.cluster_id) }));
    }
    if image.metadata_version() == 0 {
        records.push(Record::FeatureLevel(FeatureLevelRecord {
            name: METADATA_VERSION.into(),
            level: i32::from(METADATA_VERSION_LATEST),
            features_epoch: None,
        }));
    }
    Decision::new(records, ())
}

/// What a broker's logs are not any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Those that came back with less than they had, which are all that are in an engine of which nothing outlives the
    /// process.
    pub damaged: Vec<LogId>,
    /// Those that are assigned to it and are not there: nothing was ever in them, or somebody has taken them away.
    pub missing: Vec<LogId>,
}

impl Lost {
    pub const NOTHING: Self = Self { damaged: Vec::new(), missing: Vec::new() };
}

/// A start of a broker's process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub node: NodeId,
    /// Random, drawn at this start.
    pub incarnation: [u8; 16],
    /// Random, drawn once for the data directory.
    pub directory_id: [u8; 16],
    pub rack: Option<String>,
    pub listeners: Vec<Listener>,
    /// The process before stopped in order, with everything synced.
    pub clean: bool,
    pub lost: Lost,
    /// Where other brokers open their sessions with it, `host:port`; `None` for a node that is alone.
    pub replication_address: Option<String>,
    /// What this release can work with, by feature ([`supported_features`]).
    pub features: BTreeMap<String, RangeInclusive<i16>>,
    /// The broker's registration that this one comes after, as far as the process knows; `None`: there has been none. It is
    /// the request's alone: where another one lies between, the request is late, or does not know yet.
    pub after: Option<Offset>,
}

/// What this release can work with.
pub fn supported_features() -> BTreeMap<String, RangeInclusive<i16>> {
    BTreeMap::from([(METADATA_VERSION.to_owned(), METADATA_VERSION_MIN..=METADATA_VERSION_LATEST)])
}

/// A node that is alone has started: it is not fenced, since there is nobody who could take over from it. Every start
/// registers anew; applying it begins a new epoch of whatever the broker leads.
pub fn register_broker(registration: &Registration) -> Decision<()> {
    Decision::new(vec![Record::RegisterBroker(registration_record(registration))], ())
}

/// Not fenced.
pub(super) fn registration_record(registration: &Registration) -> RegisterBrokerRecord {
    RegisterBrokerRecord {
        node_id: registration.node.0,
        incarnation: registration.incarnation.to_vec(),
        directory_id: registration.directory_id.to_vec(),
        rack: registration.rack.clone(),
        listeners: listener_records(&registration.listeners),
        clean: registration.clean,
        damaged: registration.lost.damaged.iter().map(log_record).collect(),
        broker_epoch: None,
        fenced: false,
        replication_address: registration.replication_address.clone(),
        features: feature_records(&registration.features),
        last_seq: None,
    }
}

/// Producer ids that are the asker's alone, used or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdBlock {
    pub first: ProducerId,
    pub count: i64,
}

/// All 2^63 are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are no producer ids left")]
pub struct ProducerIdsExhausted;

/// The next [`PRODUCER_ID_BLOCK`] of them.
pub fn reserve_producer_ids(image: &Image) -> Result<Decision<ProducerIdBlock>, ProducerIdsExhausted> {
    let first = image.next_producer_id();
    let next = first.checked_add(PRODUCER_ID_BLOCK).ok_or(ProducerIdsExhausted)?;
    let block = ProducerIdBlock { first: ProducerId(first), count: PRODUCER_ID_BLOCK };
    Ok(Decision::new(vec![Record::ProducerIds(ProducerIdsRecord { next })], block))
}
