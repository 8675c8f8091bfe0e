//! What the handlers of group APIs share: finding the coordinator, and Kafka's codes for its refusals.

use super::context::{Operation, Resource};
use super::handler::Call;
use crate::groups::shard::Shard;
use chronik_core::group::{GroupError, Reply};
use chronik_proto_kafka::ErrorCode;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Kafka's code for a coordinator's refusal.
pub fn code(error: GroupError) -> ErrorCode {
    match error {
        GroupError::InvalidGroupId => ErrorCode::INVALID_GROUP_ID,
        GroupError::InvalidSessionTimeout => ErrorCode::INVALID_SESSION_TIMEOUT,
        GroupError::InconsistentProtocol => ErrorCode::INCONSISTENT_GROUP_PROTOCOL,
        GroupError::UnknownMember => ErrorCode::UNKNOWN_MEMBER_ID,
        GroupError::MemberIdRequired => ErrorCode::MEMBER_ID_REQUIRED,
        GroupError::GroupFull => ErrorCode::GROUP_MAX_SIZE_REACHED,
        GroupError::FencedInstance => ErrorCode::FENCED_INSTANCE_ID,
        GroupError::IllegalGeneration => ErrorCode::ILLEGAL_GENERATION,
        GroupError::RebalanceInProgress => ErrorCode::REBALANCE_IN_PROGRESS,
        GroupError::NotEmpty => ErrorCode::NON_EMPTY_GROUP,
        GroupError::NotFound => ErrorCode::GROUP_ID_NOT_FOUND,
        GroupError::SubscribedToTopic => ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC,
        GroupError::MetadataTooLarge => ErrorCode::OFFSET_METADATA_TOO_LARGE,
        GroupError::CommitTooLarge => ErrorCode::INVALID_COMMIT_OFFSET_SIZE,
        // Not one that makes a client try the same again.
        GroupError::GroupTooLarge => ErrorCode::UNKNOWN_SERVER_ERROR,
        GroupError::NotAvailable => ErrorCode::COORDINATOR_NOT_AVAILABLE,
    }
}

/// The code of an outcome.
pub fn code_of<T>(outcome: &Result<T, GroupError>) -> ErrorCode {
    outcome.as_ref().err().map_or(ErrorCode::NONE, |error| code(*error))
}

/// The group's coordinator, if the client may do this with the group and the groups are loaded.
pub fn coordinator(call: &Call, group: &str, operation: Operation) -> Result<Arc<Shard>, ErrorCode> {
    if !call.broker.authorizer.allows(&call.context, operation, Resource::Group(group)) {
        return Err(ErrorCode::GROUP_AUTHORIZATION_FAILED);
    }
    let shard = call.broker.groups.find(group)?;
    if shard.is_loaded() { Ok(shard) } else { Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS) }
}

/// As [`coordinator`], for what concerns members: a group without a name has offsets (KIP-289 keeps those of old consumers
/// readable) and can be looked at and deleted, but nobody can be a member of it.
pub fn coordinator_of_members(call: &Call, group: &str, operation: Operation) -> Result<Arc<Shard>, ErrorCode> {
    if group.is_empty() { Err(ErrorCode::INVALID_GROUP_ID) } else { coordinator(call, group, operation) }
}

/// Waits for what was to be stored. An answer that never comes is a coordinator that has stopped.
pub async fn stored(answer: oneshot::Receiver<Reply>) -> ErrorCode {
    match answer.await {
        Ok(Reply::Stored(outcome)) => code_of(&outcome),
        Ok(_) | Err(_) => ErrorCode::COORDINATOR_NOT_AVAILABLE,
    }
}
