//! What brokers ask of the controller, and what it answers, as bytes for [`crate::raft_transport::Message`].
//!
//! **At least once.** A message may be lost or come twice, so an asker asks again until it hears, and every request may be
//! decided twice without harm: a registration is known by its incarnation, and by the one that it comes after; a wish for
//! another in-sync set by its number; a heartbeat says the same again; producer ids that nobody received are never used; the
//! next step of a wish for a vote follows from what is in effect; and a client's request that is handed on is what the client
//! itself would send again.
//!
//! **Nothing is guessed.** As for records, bytes that this release would have written otherwise are refused, and so is
//! what is larger than any request of its kind may be.

mod decide;
mod wire;

pub use decide::Outcome;

use super::controller::{
    AlterPartitions, AlterPartitionsReply, Heartbeat, HeartbeatAnswer, ProducerIdBlock, Registration,
};
use super::raft::{VoterStep, VoterWish};
use crate::ids::{NodeId, Offset};
use bytes::Bytes;

/// The largest client's request or answer that is handed on; larger ones are refused where they come in.
pub const FORWARD_BYTES_MAX: usize = 8 << 20;
/// The largest of all others: ten thousand partitions with their sets are well below.
pub const REQUEST_BYTES_MAX: usize = 2 << 20;

/// Asked by a broker; by which one the transport says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The process has started. `node` must be the asker.
    Register(Registration),
    /// Several times in a session.
    Heartbeat(Heartbeat),
    /// As the leader of these partitions.
    AlterPartitions(AlterPartitions),
    /// A block of producer ids (KIP-730).
    AllocateProducerIds { broker_epoch: Offset },
    /// What a client asked of a broker, and the controller decides (KIP-590): the request as it came in on a listener, header
    /// included, without the length before it.
    Forward { listener: String, frame: Bytes },
    /// As an operator wishes; asked again until it holds.
    Voter(VoterWish),
}

/// To one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// None of it was decided, or it is not known to be.
    Refused(Refusal),
    Registered {
        broker_epoch: Offset,
    },
    Heartbeat(HeartbeatAnswer),
    AlterPartitions(AlterPartitionsReply),
    ProducerIds(ProducerIdBlock),
    /// The response as the client is to get it, header included, without the length before it.
    Forwarded {
        frame: Bytes,
    },
    Voter(VoterStep),
}

/// Why a request was not carried out as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Ask that one, or anyone later.
    #[error("this node is not the controller")]
    NotController { leader: Option<NodeId> },
    #[error("the broker is not registered")]
    NotRegistered,
    /// A later process of the broker has registered: this one must not go on.
    #[error("the broker has registered anew since")]
    StaleBrokerEpoch,
    /// With the controller's words.
    #[error("{0}")]
    NotAdmitted(String),
    /// A registration does not come after the present one: ask again, after that.
    #[error("the broker's present registration is another one")]
    RegisteredSince { present: Option<Offset> },
    /// This request or a later one: the image shows how.
    #[error("the request was decided before")]
    Decided,
    /// Whether it takes effect shows in the metadata; ask again.
    #[error("the controller cannot say what became of the request")]
    Unknown,
    #[error("the request makes no sense: {0}")]
    Invalid(String),
    #[error("there are no producer ids left")]
    ProducerIdsExhausted,
}

/// Why bytes are no request or answer of this release.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotARequest {
    #[error("it has {bytes} bytes, more than {max}")]
    TooLarge { bytes: usize, max: usize },
    #[error("it cannot be read: {0}")]
    Malformed(String),
    #[error("its kind is not known to this release")]
    UnknownKind,
    #[error("it has fields that are not known to this release")]
    UnknownFields,
    #[error("a field makes no sense: {0}")]
    BadField(&'static str),
}

impl Request {
    pub fn to_bytes(&self) -> Bytes {
        wire::encode(&wire::RequestEnvelope::from(self))
    }

    pub fn from_bytes(bytes: Bytes) -> Result<Request, NotARequest> {
        wire::decode::<wire::RequestEnvelope>(bytes)?.try_into()
    }
}

impl Answer {
    pub fn to_bytes(&self) -> Bytes {
        wire::encode(&wire::AnswerEnvelope::from(self))
    }

    pub fn from_bytes(bytes: Bytes) -> Result<Answer, NotARequest> {
        wire::decode::<wire::AnswerEnvelope>(bytes)?.try_into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{LeaderEpoch, LogId, ProducerId, TopicId};
    use crate::metadata::controller::{AlterPartitionError, AlteredPartition, Lost, WantedInSync, supported_features};
    use crate::metadata::image::Listener;
    use crate::metadata::raft::{VoterRefusal, VoterWaits};

    const LOG: LogId = LogId { topic: TopicId([7; 16]), partition: 3 };

    fn requests() -> Vec<Request> {
        let wanted = WantedInSync {
            log: LOG,
            leader_epoch: LeaderEpoch(0),
            partition_epoch: 9,
            isr: vec![(NodeId(1), Offset(0)), (NodeId(0), Offset(44))],
            synced: true,
        };
        vec![
            Request::Register(Registration {
                node: NodeId(0),
                incarnation: [1; 16],
                directory_id: [2; 16],
                rack: Some(String::new()),
                listeners: vec![Listener { name: "main".into(), host: "h".into(), port: 9092 }],
                clean: true,
                lost: Lost { damaged: vec![LOG, LogId::default()], missing: vec![LogId::default()] },
                replication_address: Some("h:9192".into()),
                features: supported_features(),
                after: Some(Offset(0)),
            }),
            Request::Heartbeat(Heartbeat {
                broker_epoch: Offset(5),
                applied: Offset(0),
                offline: vec![LOG],
                wants_shutdown: true,
            }),
            Request::Heartbeat(Heartbeat::default()),
            Request::AlterPartitions(AlterPartitions { broker_epoch: Offset(5), seq: 1, partitions: vec![wanted] }),
            Request::AllocateProducerIds { broker_epoch: Offset(0) },
            Request::Forward { listener: "main".into(), frame: Bytes::from_static(b"\x00\x13") },
            Request::Voter(VoterWish { node: NodeId(0), directory_id: [4; 16], votes: true }),
            Request::Voter(VoterWish { node: NodeId(-1), directory_id: [0; 16], votes: false }),
        ]
    }

    fn answers() -> Vec<Answer> {
        let altered = AlteredPartition {
            leader: None,
            leader_epoch: LeaderEpoch(2),
            partition_epoch: 10,
            isr: vec![NodeId(0), NodeId(2)],
        };
        let refusals = [
            Refusal::NotController { leader: None },
            Refusal::NotController { leader: Some(NodeId(0)) },
            Refusal::NotRegistered,
            Refusal::StaleBrokerEpoch,
            Refusal::NotAdmitted("why".into()),
            Refusal::RegisteredSince { present: None },
            Refusal::RegisteredSince { present: Some(Offset(0)) },
            Refusal::Decided,
            Refusal::Unknown,
            Refusal::Invalid("what".into()),
            Refusal::ProducerIdsExhausted,
        ];
        let errors = [
            AlterPartitionError::StaleBrokerEpoch,
            AlterPartitionError::UnknownBrokerEpoch,
            AlterPartitionError::Decided,
            AlterPartitionError::UnknownTopicOrPartition,
            AlterPartitionError::FencedLeaderEpoch,
            AlterPartitionError::InvalidRequest,
            AlterPartitionError::InvalidUpdateVersion,
            AlterPartitionError::IneligibleReplica(NodeId(0)),
        ];
        let outcomes = errors.into_iter().map(Err).chain([Ok(altered)]).map(|outcome| (LOG, outcome));
        let others = [
            Answer::Registered { broker_epoch: Offset(0) },
            Answer::Heartbeat(HeartbeatAnswer::default()),
            Answer::Heartbeat(HeartbeatAnswer { fenced: true, may_stop: true }),
            Answer::AlterPartitions(outcomes.collect()),
            Answer::ProducerIds(ProducerIdBlock { first: ProducerId(0), count: 1_000 }),
            Answer::Forwarded { frame: Bytes::from_static(b"answer") },
        ];
        let steps = [
            VoterStep::Holds,
            VoterStep::UnderWay,
            VoterStep::NotYet(VoterWaits::Absent),
            VoterStep::NotYet(VoterWaits::Behind),
            VoterStep::NotYet(VoterWaits::Busy),
            VoterStep::Refused(VoterRefusal::OtherDirectory),
            VoterStep::Refused(VoterRefusal::LastVoter),
            VoterStep::Refused(VoterRefusal::NoMajority),
        ];
        let others = others.into_iter().chain(steps.map(Answer::Voter));
        refusals.into_iter().map(Answer::Refused).chain(others).collect()
    }

    #[test]
    fn what_is_asked_and_answered_reads_back() {
        for request in requests() {
            assert_eq!(Request::from_bytes(request.to_bytes()), Ok(request));
        }
        for answer in answers() {
            assert_eq!(Answer::from_bytes(answer.to_bytes()), Ok(answer));
        }
    }

    #[test]
    fn what_a_later_release_asks_is_refused_and_never_guessed() {
        assert_eq!(Request::from_bytes(Bytes::new()), Err(NotARequest::UnknownKind));
        assert_eq!(Request::from_bytes(Bytes::from_static(&[0x9a, 0x06, 0])), Err(NotARequest::UnknownKind));
        // A heartbeat with a field 15.
        let later = Bytes::from_static(&[0x12, 0x02, 0x78, 0x01]);
        assert_eq!(Request::from_bytes(later), Err(NotARequest::UnknownFields));
        // A registration without an incarnation.
        let bare = Bytes::from_static(&[0x0a, 0x00]);
        assert!(matches!(Request::from_bytes(bare), Err(NotARequest::BadField(_))));
        assert!(matches!(Request::from_bytes(Bytes::from_static(&[0x0a, 0x7f])), Err(NotARequest::Malformed(_))));
    }

    #[test]
    fn only_what_is_handed_on_may_be_large() {
        let sized = |bytes: usize| Bytes::from(vec![0; bytes]);
        let forward = |bytes| Request::Forward { listener: "main".into(), frame: sized(bytes) }.to_bytes();
        assert!(Request::from_bytes(forward(FORWARD_BYTES_MAX)).is_ok());
        let large = Request::from_bytes(forward(FORWARD_BYTES_MAX + REQUEST_BYTES_MAX));
        assert!(matches!(large, Err(NotARequest::TooLarge { .. })));
        let answer = Answer::Forwarded { frame: sized(FORWARD_BYTES_MAX) };
        assert!(Answer::from_bytes(answer.to_bytes()).is_ok());
        // Many empty logs: few bytes on the wire each, many in memory.
        let offline = vec![LogId::default(); 200_000];
        let heartbeat = Request::Heartbeat(Heartbeat { offline, ..Heartbeat::default() }).to_bytes();
        let max = REQUEST_BYTES_MAX;
        assert_eq!(Request::from_bytes(heartbeat.clone()), Err(NotARequest::TooLarge { bytes: heartbeat.len(), max }));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut dice = crate::dice::Dice(11);
        let good: Vec<Bytes> =
            requests().iter().map(Request::to_bytes).chain(answers().iter().map(Answer::to_bytes)).collect();
        for _ in 0..20_000 {
            let mut bytes = good[dice.roll(good.len() as u64) as usize].to_vec();
            for _ in 0..=dice.roll(3) {
                let at = dice.roll(bytes.len() as u64) as usize;
                bytes[at] = dice.roll(256) as u8;
            }
            let bytes = Bytes::from(bytes);
            if let Ok(request) = Request::from_bytes(bytes.clone()) {
                assert_eq!(request.to_bytes(), bytes, "one way to write it");
            }
            if let Ok(answer) = Answer::from_bytes(bytes.clone()) {
                assert_eq!(answer.to_bytes(), bytes, "one way to write it");
            }
        }
    }
}
