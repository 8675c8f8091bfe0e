//! From what the core refuses, and why, to Kafka's codes. The words are the refusal's own.

use crate::metadata::ProposeError;
use chronik_core::metadata::controller::{
    AlterConfigError, CreatePartitionsError, CreateTopicError, DeleteTopicError, ElectLeaderError,
    ProducerIdsExhausted, ReassignError, UpdateFeaturesError,
};
use chronik_proto_kafka::{ErrorCode, Str};
use std::convert::Infallible;
use std::fmt::Display;

/// A reason that Kafka has a code for.
pub trait Refusal: Display {
    fn code(&self) -> ErrorCode;

    /// Code and words, as most responses have them side by side.
    fn pair(&self) -> (i16, Option<Str>) {
        (self.code().0, Some(self.to_string().into()))
    }
}

/// Code and words of an outcome; no words where all went well.
pub fn pair<T, E: Refusal>(outcome: &Result<T, E>) -> (i16, Option<Str>) {
    match outcome {
        Ok(_) => (ErrorCode::NONE.0, None),
        Err(why) => why.pair(),
    }
}

impl Refusal for Infallible {
    fn code(&self) -> ErrorCode {
        match *self {}
    }
}

impl<E: Refusal> Refusal for ProposeError<E> {
    fn code(&self) -> ErrorCode {
        match self {
            ProposeError::Refused(why) => why.code(),
            // Retriable both: there may be room later, and a restarted broker knows.
            ProposeError::Unavailable(_) => ErrorCode::KAFKA_STORAGE_ERROR,
            ProposeError::NotController { .. } => ErrorCode::NOT_CONTROLLER,
            ProposeError::Stopped | ProposeError::NotNow(_) | ProposeError::Unknown => ErrorCode::REQUEST_TIMED_OUT,
            ProposeError::TooLarge { .. } => ErrorCode::POLICY_VIOLATION,
            ProposeError::Flawed(_) => ErrorCode::UNKNOWN_SERVER_ERROR,
        }
    }
}

impl Refusal for CreateTopicError {
    fn code(&self) -> ErrorCode {
        match self {
            CreateTopicError::BadName(_) | CreateTopicError::Collides { .. } => ErrorCode::INVALID_TOPIC_EXCEPTION,
            CreateTopicError::Duplicate
            | CreateTopicError::Prohibited(_)
            | CreateTopicError::AssignmentAndNumber(_) => ErrorCode::INVALID_REQUEST,
            CreateTopicError::Exists(_) => ErrorCode::TOPIC_ALREADY_EXISTS,
            CreateTopicError::BadPartitions => ErrorCode::INVALID_PARTITIONS,
            CreateTopicError::TooManyPartitions(_) => ErrorCode::POLICY_VIOLATION,
            CreateTopicError::BadReplication(_) => ErrorCode::INVALID_REPLICATION_FACTOR,
            CreateTopicError::BadAssignment(_) => ErrorCode::INVALID_REPLICA_ASSIGNMENT,
            CreateTopicError::InvalidConfig(_) => ErrorCode::INVALID_CONFIG,
        }
    }
}

impl Refusal for DeleteTopicError {
    fn code(&self) -> ErrorCode {
        match self {
            DeleteTopicError::UnknownName => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            DeleteTopicError::UnknownId => ErrorCode::UNKNOWN_TOPIC_ID,
            DeleteTopicError::NameAndId | DeleteTopicError::NeitherNameNorId | DeleteTopicError::Duplicate => {
                ErrorCode::INVALID_REQUEST
            }
        }
    }
}

impl Refusal for CreatePartitionsError {
    fn code(&self) -> ErrorCode {
        match self {
            CreatePartitionsError::UnknownTopic => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            CreatePartitionsError::Duplicate => ErrorCode::INVALID_REQUEST,
            CreatePartitionsError::NoIncrease { .. }
            | CreatePartitionsError::HasThem(_)
            | CreatePartitionsError::Fixed(_) => ErrorCode::INVALID_PARTITIONS,
            CreatePartitionsError::TooMany(_) => ErrorCode::POLICY_VIOLATION,
            CreatePartitionsError::BadReplication(_) => ErrorCode::INVALID_REPLICATION_FACTOR,
            CreatePartitionsError::BadAssignment(_) => ErrorCode::INVALID_REPLICA_ASSIGNMENT,
        }
    }
}

impl Refusal for AlterConfigError {
    fn code(&self) -> ErrorCode {
        match self {
            AlterConfigError::UnknownTopic(_) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            AlterConfigError::BadTopicName(_) => ErrorCode::INVALID_TOPIC_EXCEPTION,
            AlterConfigError::UnknownBroker(_) => ErrorCode::BROKER_ID_NOT_REGISTERED,
            AlterConfigError::Invalid(_)
            | AlterConfigError::NotAList { .. }
            | AlterConfigError::UnknownBrokerConfig(_) => ErrorCode::INVALID_CONFIG,
            AlterConfigError::DuplicateResource
            | AlterConfigError::DuplicateKeys
            | AlterConfigError::NullValue(_)
            | AlterConfigError::NotANode(_)
            | AlterConfigError::OneBrokerOnly { .. }
            | AlterConfigError::ReadOnly { .. }
            | AlterConfigError::UnknownOperation(_)
            | AlterConfigError::Unsupported(_)
            | AlterConfigError::UnknownResource(_) => ErrorCode::INVALID_REQUEST,
        }
    }
}

impl Refusal for ElectLeaderError {
    fn code(&self) -> ErrorCode {
        match self {
            ElectLeaderError::UnknownTopic(_) | ElectLeaderError::UnknownPartition { .. } => {
                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
            }
            ElectLeaderError::NotNeeded => ErrorCode::ELECTION_NOT_NEEDED,
            ElectLeaderError::PreferredNotAvailable => ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE,
            ElectLeaderError::NoneEligible => ErrorCode::ELIGIBLE_LEADERS_NOT_AVAILABLE,
        }
    }
}

impl Refusal for ReassignError {
    fn code(&self) -> ErrorCode {
        match self {
            ReassignError::UnknownTopicOrPartition => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            ReassignError::NoneInProgress => ErrorCode::NO_REASSIGNMENT_IN_PROGRESS,
            ReassignError::BadAssignment(_) | ReassignError::NobodyInSync => ErrorCode::INVALID_REPLICA_ASSIGNMENT,
            ReassignError::ReplicationFactorChanged { .. } => ErrorCode::INVALID_REPLICATION_FACTOR,
        }
    }
}

impl Refusal for UpdateFeaturesError {
    fn code(&self) -> ErrorCode {
        match self {
            UpdateFeaturesError::Repeated(_) => ErrorCode::INVALID_REQUEST,
            _ => ErrorCode::INVALID_UPDATE_VERSION,
        }
    }
}

impl Refusal for ProducerIdsExhausted {
    fn code(&self) -> ErrorCode {
        ErrorCode::UNKNOWN_SERVER_ERROR
    }
}
