//! The form of requests and answers on the wire: Protocol Buffers, declared by derive.
//!
//! Tags are never used again for something else. Node ids are `sint32`, so that what stands for "none" is short.

use super::{Answer, FORWARD_BYTES_MAX, NotARequest, REQUEST_BYTES_MAX, Refusal, Request};
use crate::ids::{LeaderEpoch, LogId, NodeId, Offset, ProducerId, TopicId};
use crate::metadata::controller::{
    AlterPartitionError, AlterPartitions, AlteredPartition, Heartbeat, HeartbeatAnswer, Lost, ProducerIdBlock,
    Registration, WantedInSync,
};
use crate::metadata::image::Listener;
use crate::metadata::raft::{VoterRefusal, VoterStep, VoterWaits, VoterWish};
use crate::metadata::records::{FeatureRangeRecord, ListenerRecord, LogRecord};
use crate::metadata::snapshot::{feature_records, listener_records, log_record};
use bytes::Bytes;
use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(super) struct RequestEnvelope {
    #[prost(oneof = "Ask", tags = "1, 2, 3, 4, 5, 6")]
    ask: Option<Ask>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Ask {
    #[prost(message, tag = "1")]
    Register(RegisterAsk),
    #[prost(message, tag = "2")]
    Heartbeat(HeartbeatAsk),
    #[prost(message, tag = "3")]
    AlterPartitions(AlterPartitionsAsk),
    #[prost(int64, tag = "4")]
    AllocateProducerIds(i64),
    #[prost(message, tag = "5")]
    Forward(ForwardAsk),
    #[prost(message, tag = "6")]
    Voter(VoterAsk),
}

#[derive(Clone, PartialEq, Message)]
struct RegisterAsk {
    #[prost(sint32, tag = "1")]
    node: i32,
    #[prost(bytes = "vec", tag = "2")]
    incarnation: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    directory_id: Vec<u8>,
    #[prost(string, optional, tag = "4")]
    rack: Option<String>,
    #[prost(message, repeated, tag = "5")]
    listeners: Vec<ListenerRecord>,
    #[prost(bool, tag = "6")]
    clean: bool,
    #[prost(message, repeated, tag = "7")]
    damaged: Vec<LogRecord>,
    #[prost(string, optional, tag = "8")]
    replication_address: Option<String>,
    #[prost(message, repeated, tag = "9")]
    features: Vec<FeatureRangeRecord>,
    /// The broker epoch of the registration before it.
    #[prost(int64, optional, tag = "10")]
    after: Option<i64>,
    #[prost(message, repeated, tag = "11")]
    missing: Vec<LogRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct HeartbeatAsk {
    #[prost(int64, tag = "1")]
    broker_epoch: i64,
    #[prost(int64, tag = "2")]
    applied: i64,
    #[prost(message, repeated, tag = "3")]
    offline: Vec<LogRecord>,
    #[prost(bool, tag = "4")]
    wants_shutdown: bool,
}

#[derive(Clone, PartialEq, Message)]
struct AlterPartitionsAsk {
    #[prost(int64, tag = "1")]
    broker_epoch: i64,
    #[prost(int64, tag = "2")]
    seq: i64,
    #[prost(message, repeated, tag = "3")]
    partitions: Vec<WantedAsk>,
}

#[derive(Clone, PartialEq, Message)]
struct WantedAsk {
    #[prost(message, optional, tag = "1")]
    log: Option<LogRecord>,
    #[prost(int32, tag = "2")]
    leader_epoch: i32,
    #[prost(int32, tag = "3")]
    partition_epoch: i32,
    #[prost(message, repeated, tag = "4")]
    isr: Vec<MemberAsk>,
    #[prost(bool, tag = "5")]
    synced: bool,
}

#[derive(Clone, PartialEq, Message)]
struct MemberAsk {
    #[prost(sint32, tag = "1")]
    node: i32,
    #[prost(int64, tag = "2")]
    broker_epoch: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ForwardAsk {
    #[prost(string, tag = "1")]
    listener: String,
    #[prost(bytes = "bytes", tag = "2")]
    frame: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct VoterAsk {
    #[prost(sint32, tag = "1")]
    node: i32,
    #[prost(bytes = "vec", tag = "2")]
    directory_id: Vec<u8>,
    #[prost(bool, tag = "3")]
    votes: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AnswerEnvelope {
    #[prost(oneof = "Said", tags = "1, 2, 3, 4, 5, 6, 7")]
    said: Option<Said>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Said {
    #[prost(message, tag = "1")]
    Refused(RefusedAnswer),
    #[prost(int64, tag = "2")]
    Registered(i64),
    #[prost(message, tag = "3")]
    Heartbeat(HeartbeatSaid),
    #[prost(message, tag = "4")]
    AlterPartitions(AlterPartitionsAnswer),
    #[prost(bytes = "bytes", tag = "5")]
    Forwarded(Bytes),
    #[prost(message, tag = "6")]
    ProducerIds(ProducerIdsAnswer),
    #[prost(enumeration = "VoterCode", tag = "7")]
    Voter(i32),
}

#[derive(Clone, PartialEq, Message)]
struct RefusedAnswer {
    #[prost(enumeration = "RefusalCode", tag = "1")]
    code: i32,
    #[prost(sint32, optional, tag = "2")]
    leader: Option<i32>,
    #[prost(string, tag = "3")]
    why: String,
    /// The present registration's.
    #[prost(int64, optional, tag = "4")]
    broker_epoch: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
enum RefusalCode {
    None = 0,
    NotController = 1,
    NotRegistered = 2,
    StaleBrokerEpoch = 3,
    NotAdmitted = 4,
    Decided = 5,
    Unknown = 6,
    Invalid = 7,
    ProducerIdsExhausted = 8,
    RegisteredSince = 9,
}

#[derive(Clone, PartialEq, Message)]
struct HeartbeatSaid {
    #[prost(bool, tag = "1")]
    fenced: bool,
    #[prost(bool, tag = "2")]
    may_stop: bool,
}

#[derive(Clone, PartialEq, Message)]
struct ProducerIdsAnswer {
    #[prost(int64, tag = "1")]
    first: i64,
    #[prost(int64, tag = "2")]
    count: i64,
}

#[derive(Clone, PartialEq, Message)]
struct AlterPartitionsAnswer {
    #[prost(message, repeated, tag = "1")]
    partitions: Vec<AlteredAnswer>,
}

#[derive(Clone, PartialEq, Message)]
struct AlteredAnswer {
    #[prost(message, optional, tag = "1")]
    log: Option<LogRecord>,
    #[prost(enumeration = "AlterCode", tag = "2")]
    code: i32,
    /// The leader, or who is not eligible.
    #[prost(sint32, optional, tag = "3")]
    node: Option<i32>,
    #[prost(int32, tag = "4")]
    leader_epoch: i32,
    #[prost(int32, tag = "5")]
    partition_epoch: i32,
    #[prost(int32, repeated, tag = "6")]
    isr: Vec<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
enum AlterCode {
    Done = 0,
    StaleBrokerEpoch = 1,
    Decided = 2,
    UnknownTopicOrPartition = 3,
    FencedLeaderEpoch = 4,
    InvalidRequest = 5,
    InvalidUpdateVersion = 6,
    IneligibleReplica = 7,
    UnknownBrokerEpoch = 8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
enum VoterCode {
    Holds = 0,
    UnderWay = 1,
    Absent = 2,
    Behind = 3,
    Busy = 4,
    OtherDirectory = 5,
    LastVoter = 6,
    NoMajority = 7,
}

pub(super) fn encode(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

/// The kinds that carry a client's bytes say so in their first byte: field 5, with a length.
const FORWARD: u8 = 0x2a;

pub(super) fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, NotARequest> {
    let had = bytes.len();
    let max = REQUEST_BYTES_MAX + if bytes.first() == Some(&FORWARD) { FORWARD_BYTES_MAX } else { 0 };
    if had > max {
        return Err(NotARequest::TooLarge { bytes: had, max });
    }
    let envelope = M::decode(bytes.clone()).map_err(|why| NotARequest::Malformed(why.to_string()))?;
    // There is one way to write it, so a difference is something that was dropped or bent while reading.
    match envelope.encode_to_vec() {
        written if written.is_empty() => Err(NotARequest::UnknownKind),
        written if written == bytes => Ok(envelope),
        _ => Err(NotARequest::UnknownFields),
    }
}

fn sixteen(bytes: &[u8], what: &'static str) -> Result<[u8; 16], NotARequest> {
    bytes.try_into().map_err(|_| NotARequest::BadField(what))
}

fn log_id(log: &LogRecord) -> Result<LogId, NotARequest> {
    Ok(LogId { topic: TopicId(sixteen(&log.topic_id, "a topic's id")?), partition: log.partition })
}

fn named_log(log: Option<&LogRecord>) -> Result<LogId, NotARequest> {
    log_id(log.ok_or(NotARequest::BadField("a partition"))?)
}

impl From<&Request> for RequestEnvelope {
    fn from(request: &Request) -> Self {
        let ask = match request {
            Request::Register(registration) => Ask::Register(registration.into()),
            Request::Heartbeat(heartbeat) => Ask::Heartbeat(HeartbeatAsk {
                broker_epoch: heartbeat.broker_epoch.0,
                applied: heartbeat.applied.0,
                offline: heartbeat.offline.iter().map(log_record).collect(),
                wants_shutdown: heartbeat.wants_shutdown,
            }),
            Request::AlterPartitions(asked) => Ask::AlterPartitions(AlterPartitionsAsk {
                broker_epoch: asked.broker_epoch.0,
                seq: asked.seq,
                partitions: asked.partitions.iter().map(WantedAsk::from).collect(),
            }),
            Request::AllocateProducerIds { broker_epoch } => Ask::AllocateProducerIds(broker_epoch.0),
            Request::Forward { listener, frame } => {
                Ask::Forward(ForwardAsk { listener: listener.clone(), frame: frame.clone() })
            }
            Request::Voter(VoterWish { node, directory_id, votes }) => {
                Ask::Voter(VoterAsk { node: node.0, directory_id: directory_id.to_vec(), votes: *votes })
            }
        };
        RequestEnvelope { ask: Some(ask) }
    }
}

impl TryFrom<RequestEnvelope> for Request {
    type Error = NotARequest;
    fn try_from(envelope: RequestEnvelope) -> Result<Self, NotARequest> {
        Ok(match envelope.ask.ok_or(NotARequest::UnknownKind)? {
            Ask::Register(registration) => Request::Register(registration.try_into()?),
            Ask::Heartbeat(asked) => Request::Heartbeat(Heartbeat {
                broker_epoch: Offset(asked.broker_epoch),
                applied: Offset(asked.applied),
                offline: asked.offline.iter().map(log_id).collect::<Result<_, _>>()?,
                wants_shutdown: asked.wants_shutdown,
            }),
            Ask::AlterPartitions(asked) => Request::AlterPartitions(AlterPartitions {
                broker_epoch: Offset(asked.broker_epoch),
                seq: asked.seq,
                partitions: asked.partitions.into_iter().map(WantedInSync::try_from).collect::<Result<_, _>>()?,
            }),
            Ask::AllocateProducerIds(epoch) => Request::AllocateProducerIds { broker_epoch: Offset(epoch) },
            Ask::Forward(ForwardAsk { listener, frame }) => Request::Forward { listener, frame },
            Ask::Voter(VoterAsk { node, directory_id, votes }) => Request::Voter(VoterWish {
                node: NodeId(node),
                directory_id: sixteen(&directory_id, "a directory's id")?,
                votes,
            }),
        })
    }
}

impl From<&Registration> for RegisterAsk {
    fn from(registration: &Registration) -> Self {
        RegisterAsk {
            node: registration.node.0,
            incarnation: registration.incarnation.to_vec(),
            directory_id: registration.directory_id.to_vec(),
            rack: registration.rack.clone(),
            listeners: listener_records(&registration.listeners),
            clean: registration.clean,
            damaged: registration.lost.damaged.iter().map(log_record).collect(),
            missing: registration.lost.missing.iter().map(log_record).collect(),
            replication_address: registration.replication_address.clone(),
            features: feature_records(&registration.features),
            after: registration.after.map(|epoch| epoch.0),
        }
    }
}

impl TryFrom<RegisterAsk> for Registration {
    type Error = NotARequest;
    fn try_from(asked: RegisterAsk) -> Result<Self, NotARequest> {
        let listener = |listener: ListenerRecord| -> Result<Listener, NotARequest> {
            let port = u16::try_from(listener.port).map_err(|_| NotARequest::BadField("a listener's port"))?;
            Ok(Listener { name: listener.name, host: listener.host, port })
        };
        let level = |level: i32| i16::try_from(level).map_err(|_| NotARequest::BadField("a feature's level"));
        let mut features = std::collections::BTreeMap::new();
        for range in asked.features {
            // In their order, as they are written.
            if features.last_key_value().is_some_and(|(last, _)| *last >= range.name) {
                return Err(NotARequest::BadField("the features' order"));
            }
            features.insert(range.name, level(range.min)?..=level(range.max)?);
        }
        Ok(Registration {
            node: NodeId(asked.node),
            incarnation: sixteen(&asked.incarnation, "an incarnation")?,
            directory_id: sixteen(&asked.directory_id, "a directory's id")?,
            rack: asked.rack,
            listeners: asked.listeners.into_iter().map(listener).collect::<Result<_, _>>()?,
            clean: asked.clean,
            lost: Lost {
                damaged: asked.damaged.iter().map(log_id).collect::<Result<_, _>>()?,
                missing: asked.missing.iter().map(log_id).collect::<Result<_, _>>()?,
            },
            replication_address: asked.replication_address,
            features,
            after: asked.after.map(Offset),
        })
    }
}

impl From<&WantedInSync> for WantedAsk {
    fn from(wanted: &WantedInSync) -> Self {
        let member = |(node, epoch): &(NodeId, Offset)| MemberAsk { node: node.0, broker_epoch: epoch.0 };
        WantedAsk {
            log: Some(log_record(&wanted.log)),
            leader_epoch: wanted.leader_epoch.0,
            partition_epoch: wanted.partition_epoch,
            isr: wanted.isr.iter().map(member).collect(),
            synced: wanted.synced,
        }
    }
}

impl TryFrom<WantedAsk> for WantedInSync {
    type Error = NotARequest;
    fn try_from(asked: WantedAsk) -> Result<Self, NotARequest> {
        Ok(WantedInSync {
            log: named_log(asked.log.as_ref())?,
            leader_epoch: LeaderEpoch(asked.leader_epoch),
            partition_epoch: asked.partition_epoch,
            isr: asked.isr.iter().map(|member| (NodeId(member.node), Offset(member.broker_epoch))).collect(),
            synced: asked.synced,
        })
    }
}

impl From<&Answer> for AnswerEnvelope {
    fn from(answer: &Answer) -> Self {
        let said = match answer {
            Answer::Refused(refusal) => Said::Refused(refusal.into()),
            Answer::Registered { broker_epoch } => Said::Registered(broker_epoch.0),
            Answer::Heartbeat(HeartbeatAnswer { fenced, may_stop }) => {
                Said::Heartbeat(HeartbeatSaid { fenced: *fenced, may_stop: *may_stop })
            }
            Answer::AlterPartitions(partitions) => Said::AlterPartitions(AlterPartitionsAnswer {
                partitions: partitions.iter().map(|(log, outcome)| altered_answer(log, outcome)).collect(),
            }),
            Answer::ProducerIds(block) => {
                Said::ProducerIds(ProducerIdsAnswer { first: block.first.0, count: block.count })
            }
            Answer::Forwarded { frame } => Said::Forwarded(frame.clone()),
            Answer::Voter(step) => Said::Voter(VoterCode::from(*step).into()),
        };
        AnswerEnvelope { said: Some(said) }
    }
}

impl TryFrom<AnswerEnvelope> for Answer {
    type Error = NotARequest;
    fn try_from(envelope: AnswerEnvelope) -> Result<Self, NotARequest> {
        Ok(match envelope.said.ok_or(NotARequest::UnknownKind)? {
            Said::Refused(refusal) => Answer::Refused(refusal.try_into()?),
            Said::Registered(epoch) => Answer::Registered { broker_epoch: Offset(epoch) },
            Said::Heartbeat(HeartbeatSaid { fenced, may_stop }) => {
                Answer::Heartbeat(HeartbeatAnswer { fenced, may_stop })
            }
            Said::AlterPartitions(answer) => {
                Answer::AlterPartitions(answer.partitions.into_iter().map(altered).collect::<Result<_, _>>()?)
            }
            Said::Forwarded(frame) => Answer::Forwarded { frame },
            Said::Voter(code) => {
                let code = VoterCode::try_from(code).map_err(|_| NotARequest::BadField("how far a wish has come"))?;
                Answer::Voter(code.into())
            }
            Said::ProducerIds(ProducerIdsAnswer { first, count }) => {
                Answer::ProducerIds(ProducerIdBlock { first: ProducerId(first), count })
            }
        })
    }
}

impl From<VoterStep> for VoterCode {
    fn from(step: VoterStep) -> Self {
        match step {
            VoterStep::Holds => VoterCode::Holds,
            VoterStep::UnderWay => VoterCode::UnderWay,
            VoterStep::NotYet(VoterWaits::Absent) => VoterCode::Absent,
            VoterStep::NotYet(VoterWaits::Behind) => VoterCode::Behind,
            VoterStep::NotYet(VoterWaits::Busy) => VoterCode::Busy,
            VoterStep::Refused(VoterRefusal::OtherDirectory) => VoterCode::OtherDirectory,
            VoterStep::Refused(VoterRefusal::LastVoter) => VoterCode::LastVoter,
            VoterStep::Refused(VoterRefusal::NoMajority) => VoterCode::NoMajority,
        }
    }
}

impl From<VoterCode> for VoterStep {
    fn from(code: VoterCode) -> Self {
        match code {
            VoterCode::Holds => VoterStep::Holds,
            VoterCode::UnderWay => VoterStep::UnderWay,
            VoterCode::Absent => VoterStep::NotYet(VoterWaits::Absent),
            VoterCode::Behind => VoterStep::NotYet(VoterWaits::Behind),
            VoterCode::Busy => VoterStep::NotYet(VoterWaits::Busy),
            VoterCode::OtherDirectory => VoterStep::Refused(VoterRefusal::OtherDirectory),
            VoterCode::LastVoter => VoterStep::Refused(VoterRefusal::LastVoter),
            VoterCode::NoMajority => VoterStep::Refused(VoterRefusal::NoMajority),
        }
    }
}

impl From<&Refusal> for RefusedAnswer {
    fn from(refusal: &Refusal) -> Self {
        let mut broker_epoch = None;
        let (code, leader, why) = match refusal {
            Refusal::NotController { leader } => (RefusalCode::NotController, leader.map(|node| node.0), ""),
            Refusal::NotRegistered => (RefusalCode::NotRegistered, None, ""),
            Refusal::StaleBrokerEpoch => (RefusalCode::StaleBrokerEpoch, None, ""),
            Refusal::NotAdmitted(why) => (RefusalCode::NotAdmitted, None, why.as_str()),
            Refusal::RegisteredSince { present } => {
                broker_epoch = present.map(|epoch| epoch.0);
                (RefusalCode::RegisteredSince, None, "")
            }
            Refusal::Decided => (RefusalCode::Decided, None, ""),
            Refusal::Unknown => (RefusalCode::Unknown, None, ""),
            Refusal::Invalid(why) => (RefusalCode::Invalid, None, why.as_str()),
            Refusal::ProducerIdsExhausted => (RefusalCode::ProducerIdsExhausted, None, ""),
        };
        RefusedAnswer { code: code.into(), leader, why: why.to_owned(), broker_epoch }
    }
}

impl TryFrom<RefusedAnswer> for Refusal {
    type Error = NotARequest;
    fn try_from(answer: RefusedAnswer) -> Result<Self, NotARequest> {
        let RefusedAnswer { code, leader, why, broker_epoch } = answer;
        let refusal = match RefusalCode::try_from(code) {
            Ok(RefusalCode::NotController) => Refusal::NotController { leader: leader.map(NodeId) },
            Ok(RefusalCode::NotRegistered) => Refusal::NotRegistered,
            Ok(RefusalCode::StaleBrokerEpoch) => Refusal::StaleBrokerEpoch,
            Ok(RefusalCode::NotAdmitted) => Refusal::NotAdmitted(why.clone()),
            Ok(RefusalCode::RegisteredSince) => Refusal::RegisteredSince { present: broker_epoch.map(Offset) },
            Ok(RefusalCode::Decided) => Refusal::Decided,
            Ok(RefusalCode::Unknown) => Refusal::Unknown,
            Ok(RefusalCode::Invalid) => Refusal::Invalid(why.clone()),
            Ok(RefusalCode::ProducerIdsExhausted) => Refusal::ProducerIdsExhausted,
            Ok(RefusalCode::None) | Err(_) => return Err(NotARequest::BadField("a refusal's code")),
        };
        // A field that does not belong to this refusal would be dropped in silence.
        if RefusedAnswer::from(&refusal) != (RefusedAnswer { code, leader, why, broker_epoch }) {
            return Err(NotARequest::UnknownFields);
        }
        Ok(refusal)
    }
}

fn altered_answer(log: &LogId, outcome: &Result<AlteredPartition, AlterPartitionError>) -> AlteredAnswer {
    let refused = |code: AlterCode, node: Option<NodeId>| AlteredAnswer {
        log: Some(log_record(log)),
        code: code.into(),
        node: node.map(|node| node.0),
        ..AlteredAnswer::default()
    };
    match outcome {
        Ok(done) => AlteredAnswer {
            leader_epoch: done.leader_epoch.0,
            partition_epoch: done.partition_epoch,
            isr: done.isr.iter().map(|node| node.0).collect(),
            ..refused(AlterCode::Done, done.leader)
        },
        Err(AlterPartitionError::StaleBrokerEpoch) => refused(AlterCode::StaleBrokerEpoch, None),
        Err(AlterPartitionError::UnknownBrokerEpoch) => refused(AlterCode::UnknownBrokerEpoch, None),
        Err(AlterPartitionError::Decided) => refused(AlterCode::Decided, None),
        Err(AlterPartitionError::UnknownTopicOrPartition) => refused(AlterCode::UnknownTopicOrPartition, None),
        Err(AlterPartitionError::FencedLeaderEpoch) => refused(AlterCode::FencedLeaderEpoch, None),
        Err(AlterPartitionError::InvalidRequest) => refused(AlterCode::InvalidRequest, None),
        Err(AlterPartitionError::InvalidUpdateVersion) => refused(AlterCode::InvalidUpdateVersion, None),
        Err(AlterPartitionError::IneligibleReplica(node)) => refused(AlterCode::IneligibleReplica, Some(*node)),
    }
}

fn altered(answer: AlteredAnswer) -> Result<(LogId, Result<AlteredPartition, AlterPartitionError>), NotARequest> {
    let log = named_log(answer.log.as_ref())?;
    let refusal = match AlterCode::try_from(answer.code).map_err(|_| NotARequest::BadField("an outcome's code"))? {
        AlterCode::Done => None,
        AlterCode::StaleBrokerEpoch => Some(AlterPartitionError::StaleBrokerEpoch),
        AlterCode::UnknownBrokerEpoch => Some(AlterPartitionError::UnknownBrokerEpoch),
        AlterCode::Decided => Some(AlterPartitionError::Decided),
        AlterCode::UnknownTopicOrPartition => Some(AlterPartitionError::UnknownTopicOrPartition),
        AlterCode::FencedLeaderEpoch => Some(AlterPartitionError::FencedLeaderEpoch),
        AlterCode::InvalidRequest => Some(AlterPartitionError::InvalidRequest),
        AlterCode::InvalidUpdateVersion => Some(AlterPartitionError::InvalidUpdateVersion),
        AlterCode::IneligibleReplica => {
            let node = answer.node.ok_or(NotARequest::BadField("who is not eligible"))?;
            Some(AlterPartitionError::IneligibleReplica(NodeId(node)))
        }
    };
    let done = AlteredPartition {
        leader: answer.node.map(NodeId),
        leader_epoch: LeaderEpoch(answer.leader_epoch),
        partition_epoch: answer.partition_epoch,
        isr: answer.isr.iter().copied().map(NodeId).collect(),
    };
    let outcome = refusal.map_or(Ok(done), Err);
    if altered_answer(&log, &outcome) != answer {
        return Err(NotARequest::UnknownFields);
    }
    Ok((log, outcome))
}
