//! The facts that the metadata log holds, one [`Record`] each.
//!
//! Encoded as Protocol Buffers (declared by derive, no compiler needed), one message per record of a Kafka record batch,
//! so that the same tools read this log and any other. Tags are never used again for something else.
//!
//! **Gate.** [`Record::since`] names the `metadata.version` from which on a record may be written; [`super::apply`] refuses
//! one above the finalized level. So a cluster whose members still differ writes nothing that the oldest cannot read.
//!
//! **Nothing is skipped.** [`Record::from_bytes`] refuses kinds *and fields* that it does not know: what Protocol Buffers drops
//! in silence shows in the length.

use prost::Message;

/// Kafka's own number for the level that this release writes (4.3-IV0).
pub const METADATA_VERSION_LATEST: i16 = 30;
/// The oldest level that this release can read: there has been none before.
pub const METADATA_VERSION_MIN: i16 = 30;
/// The feature that gates record formats.
pub const METADATA_VERSION: &str = "metadata.version";

/// The cluster's identity; the first record of all.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ClusterRecord {
    /// 22 characters, base64url.
    #[prost(string, tag = "1")]
    pub cluster_id: String,
}

/// A feature's finalized level (KIP-584).
#[derive(Clone, PartialEq, Eq, Message)]
pub struct FeatureLevelRecord {
    #[prost(string, tag = "1")]
    pub name: String,
    /// Zero removes the feature.
    #[prost(int32, tag = "2")]
    pub level: i32,
    /// Only in snapshots: the epoch of the finalized features so far. Elsewhere the record's own offset is it.
    #[prost(int64, optional, tag = "3")]
    pub features_epoch: Option<i64>,
}

/// Where a broker can be reached by clients.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ListenerRecord {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub host: String,
    #[prost(uint32, tag = "3")]
    pub port: u32,
}

/// Names a partition's log.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LogRecord {
    #[prost(bytes = "vec", tag = "1")]
    pub topic_id: Vec<u8>,
    #[prost(int32, tag = "2")]
    pub partition: i32,
}

/// The levels of a feature that a broker's release can work with (KIP-584).
#[derive(Clone, PartialEq, Eq, Message)]
pub struct FeatureRangeRecord {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(int32, tag = "2")]
    pub min: i32,
    #[prost(int32, tag = "3")]
    pub max: i32,
}

/// A broker's process has started. Applying it bumps the leader epoch of every partition that the broker leads.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RegisterBrokerRecord {
    #[prost(int32, tag = "1")]
    pub node_id: i32,
    /// Drawn at each start of the process.
    #[prost(bytes = "vec", tag = "2")]
    pub incarnation: Vec<u8>,
    /// Drawn once for each data directory.
    #[prost(bytes = "vec", tag = "3")]
    pub directory_id: Vec<u8>,
    #[prost(string, optional, tag = "4")]
    pub rack: Option<String>,
    #[prost(message, repeated, tag = "5")]
    pub listeners: Vec<ListenerRecord>,
    /// The process before it stopped in order, with everything synced.
    #[prost(bool, tag = "6")]
    pub clean: bool,
    /// Logs that came back with less than they had.
    #[prost(message, repeated, tag = "7")]
    pub damaged: Vec<LogRecord>,
    /// Only in snapshots: elsewhere the record's own offset is the broker's epoch.
    #[prost(int64, optional, tag = "8")]
    pub broker_epoch: Option<i64>,
    /// It takes no part until a [`BrokerStateRecord`] says that it has caught up.
    #[prost(bool, tag = "9")]
    pub fenced: bool,
    /// Where other brokers open their sessions with it, `host:port`; absent for a broker that is alone.
    #[prost(string, optional, tag = "10")]
    pub replication_address: Option<String>,
    /// None: `metadata.version` at [`METADATA_VERSION_MIN`] alone.
    #[prost(message, repeated, tag = "11")]
    pub features: Vec<FeatureRangeRecord>,
    /// Only in snapshots: the last request of this process that was decided; elsewhere there has been none.
    #[prost(int64, optional, tag = "12")]
    pub last_seq: Option<i64>,
}

/// What a registered broker is fit for now; all of it, whatever has changed.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct BrokerStateRecord {
    #[prost(int32, tag = "1")]
    pub node_id: i32,
    #[prost(int64, tag = "2")]
    pub broker_epoch: i64,
    /// It leads nothing, and is in no in-sync set.
    #[prost(bool, tag = "3")]
    pub fenced: bool,
    /// It is about to stop: it gets no lead, and joins no in-sync set.
    #[prost(bool, tag = "4")]
    pub in_controlled_shutdown: bool,
    /// Logs that have failed there.
    #[prost(message, repeated, tag = "5")]
    pub offline: Vec<LogRecord>,
}

/// A broker is no part of the cluster any more, until it registers anew.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct BrokerUnregisteredRecord {
    #[prost(int32, tag = "1")]
    pub node_id: i32,
    #[prost(int64, tag = "2")]
    pub broker_epoch: i64,
}

/// A broker's request was decided by the records that follow in the same entry. Applying refuses the whole entry if that
/// request, or a later one of the broker, was decided before, or if the broker has registered anew since.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RequestRecord {
    #[prost(int32, tag = "1")]
    pub node_id: i32,
    #[prost(int64, tag = "2")]
    pub broker_epoch: i64,
    #[prost(int64, tag = "3")]
    pub seq: i64,
}

/// A topic exists; its partitions follow.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TopicRecord {
    #[prost(bytes = "vec", tag = "1")]
    pub topic_id: Vec<u8>,
    #[prost(string, tag = "2")]
    pub name: String,
}

/// A partition's whole state; the first one for its number adds it to the topic, the next number in turn.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PartitionRecord {
    #[prost(bytes = "vec", tag = "1")]
    pub topic_id: Vec<u8>,
    #[prost(int32, tag = "2")]
    pub partition: i32,
    /// In order of preference.
    #[prost(int32, repeated, tag = "3")]
    pub replicas: Vec<i32>,
    #[prost(int32, repeated, tag = "4")]
    pub isr: Vec<i32>,
    /// −1: none.
    #[prost(sint32, tag = "5")]
    pub leader: i32,
    #[prost(int32, tag = "6")]
    pub leader_epoch: i32,
    #[prost(int32, tag = "7")]
    pub partition_epoch: i32,
    /// Eligible leader replicas (KIP-966).
    #[prost(int32, repeated, tag = "8")]
    pub elr: Vec<i32>,
    /// Once in either of the two sets, since the in-sync set became too small (KIP-966).
    #[prost(int32, repeated, tag = "9")]
    pub last_known_elr: Vec<i32>,
    /// While there is no leader: who led last.
    #[prost(int32, optional, tag = "10")]
    pub last_known_leader: Option<i32>,
    /// Replicas that a reassignment adds (KIP-455).
    #[prost(int32, repeated, tag = "11")]
    pub adding_replicas: Vec<i32>,
    /// Replicas that go as soon as those are in sync.
    #[prost(int32, repeated, tag = "12")]
    pub removing_replicas: Vec<i32>,
    /// The last leader epoch whose leader may lack what was committed before. Absent: there has been none.
    #[prost(int32, optional, tag = "13")]
    pub unclean_epoch: Option<i32>,
    /// Acknowledged under another durability, and not known to be synced.
    #[prost(bool, tag = "14")]
    pub unsynced: bool,
}

/// A topic, its partitions and its configuration are gone.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TopicDeletedRecord {
    #[prost(bytes = "vec", tag = "1")]
    pub topic_id: Vec<u8>,
}

/// One configuration of one resource.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ConfigRecord {
    /// Kafka's number for the kind of resource: 2 topic, 4 broker.
    #[prost(int32, tag = "1")]
    pub resource_type: i32,
    /// A topic's name, a broker's id, or empty for all brokers.
    #[prost(string, tag = "2")]
    pub resource_name: String,
    #[prost(string, tag = "3")]
    pub name: String,
    /// Absent: removed.
    #[prost(string, optional, tag = "4")]
    pub value: Option<String>,
}

/// Producer ids below `next` have been handed to brokers.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ProducerIdsRecord {
    #[prost(int64, tag = "1")]
    pub next: i64,
}

/// A fact.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Record {
    #[prost(message, tag = "1")]
    Cluster(ClusterRecord),
    #[prost(message, tag = "2")]
    FeatureLevel(FeatureLevelRecord),
    #[prost(message, tag = "3")]
    RegisterBroker(RegisterBrokerRecord),
    #[prost(message, tag = "4")]
    Topic(TopicRecord),
    #[prost(message, tag = "5")]
    Partition(PartitionRecord),
    #[prost(message, tag = "6")]
    TopicDeleted(TopicDeletedRecord),
    #[prost(message, tag = "7")]
    Config(ConfigRecord),
    #[prost(message, tag = "8")]
    ProducerIds(ProducerIdsRecord),
    #[prost(message, tag = "9")]
    BrokerState(BrokerStateRecord),
    #[prost(message, tag = "10")]
    BrokerUnregistered(BrokerUnregisteredRecord),
    #[prost(message, tag = "11")]
    Request(RequestRecord),
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Envelope {
    #[prost(oneof = "Record", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11")]
    record: Option<Record>,
}

/// What one entry of the Raft log says: records that take effect together, or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The term in which they were decided. They rest on what the controller of that term knew, so in an entry of any other
    /// term they count for nothing.
    pub term: u64,
    pub records: Vec<Record>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct FactsEnvelope {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(message, repeated, tag = "2")]
    records: Vec<Envelope>,
}

impl Facts {
    pub fn to_bytes(&self) -> Vec<u8> {
        let records = self.records.iter().map(|record| Envelope { record: Some(record.clone()) });
        FactsEnvelope { term: self.term, records: records.collect() }.encode_to_vec()
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Facts, NotARecord> {
        let envelope = FactsEnvelope::decode(bytes).map_err(|cause| NotARecord::Malformed(cause.to_string()))?;
        // As for one record.
        let encoded_bytes = envelope.encoded_len();
        let records = envelope.records.into_iter().map(|envelope| envelope.record.ok_or(NotARecord::UnknownKind));
        let facts = Facts { term: envelope.term, records: records.collect::<Result<_, _>>()? };
        if encoded_bytes != bytes.len() {
            return Err(NotARecord::UnknownFields);
        }
        Ok(facts)
    }
}

/// Why bytes are no record that this release knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotARecord {
    #[error("it cannot be read: {0}")]
    Malformed(String),
    #[error("its kind is not known to this release; a later one has written it")]
    UnknownKind,
    #[error("it has fields that are not known to this release; a later one has written it")]
    UnknownFields,
}

impl Record {
    /// The `metadata.version` from which on this may be written.
    pub fn since(&self) -> i16 {
        match self {
            Record::Cluster(_)
            | Record::FeatureLevel(_)
            | Record::RegisterBroker(_)
            | Record::Topic(_)
            | Record::Partition(_)
            | Record::TopicDeleted(_)
            | Record::Config(_)
            | Record::ProducerIds(_)
            | Record::BrokerState(_)
            | Record::BrokerUnregistered(_)
            | Record::Request(_) => 30,
        }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        Envelope { record: Some(self.clone()) }.encode_to_vec()
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Record, NotARecord> {
        let envelope = Envelope::decode(bytes).map_err(|cause| NotARecord::Malformed(cause.to_string()))?;
        let encoded_bytes = envelope.encoded_len();
        let record = envelope.record.ok_or(NotARecord::UnknownKind)?;
        // We write every field in one way only, so a difference is something that was dropped while reading.
        if encoded_bytes != bytes.len() {
            return Err(NotARecord::UnknownFields);
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back() {
        let record = Record::Partition(PartitionRecord {
            topic_id: vec![7; 16],
            partition: 3,
            replicas: vec![1, 2],
            isr: vec![1],
            leader: -1,
            leader_epoch: 4,
            partition_epoch: 9,
            elr: vec![2],
            last_known_elr: vec![3],
            last_known_leader: Some(1),
            adding_replicas: vec![4],
            removing_replicas: vec![1],
            unclean_epoch: Some(0),
            unsynced: true,
        });
        assert_eq!(Record::from_bytes(&record.to_bytes()), Ok(record));
    }

    #[test]
    fn an_entry_reads_back_and_is_refused_if_any_of_it_is_not_known() {
        let facts = Facts {
            term: 7,
            records: vec![
                Record::ProducerIds(ProducerIdsRecord { next: 0 }),
                Record::Cluster(ClusterRecord { cluster_id: "c".into() }),
            ],
        };
        let bytes = facts.to_bytes();
        assert_eq!(Facts::from_bytes(&bytes), Ok(facts));
        // One more record, of a kind from the future; and a field 15 beside them.
        let with = |more: &[u8]| [&bytes[..], more].concat();
        assert_eq!(Facts::from_bytes(&with(&[0x12, 0x03, 0x9a, 0x06, 0x00])), Err(NotARecord::UnknownKind));
        assert_eq!(Facts::from_bytes(&with(&[0x78, 0x01])), Err(NotARecord::UnknownFields));
    }

    #[test]
    fn what_a_later_release_wrote_is_refused_and_never_skipped() {
        assert_eq!(Record::from_bytes(&[]), Err(NotARecord::UnknownKind));
        // Field 99, an empty message: a kind of record from the future.
        assert_eq!(Record::from_bytes(&[0x9a, 0x06, 0x00]), Err(NotARecord::UnknownKind));
        // A known kind with field 15, a varint, inside.
        let mut with_more = Record::Cluster(ClusterRecord { cluster_id: "c".into() }).to_bytes();
        with_more.extend([0x78, 0x01]);
        with_more[1] += 2;
        assert_eq!(Record::from_bytes(&with_more), Err(NotARecord::UnknownFields));
        assert!(matches!(Record::from_bytes(&[0x0a, 0x7f, 0x01]), Err(NotARecord::Malformed(_))));
    }
}
