//! AddRaftVoter (80) and RemoveRaftVoter (81): who decides about the metadata (KIP-853).
//!
//! A node takes part without a vote first, which it does by itself when it is started; then it is given one. The broker that is
//! asked asks whoever controls the cluster, step by step, until the wish holds: the controller may be the one that is to lose
//! its vote, and another then goes on.

pub use chronik_proto_kafka::api::add_raft_voter::AddRaftVoterRequest;
pub use chronik_proto_kafka::api::remove_raft_voter::RemoveRaftVoterRequest;

use crate::broker::InCluster;
use crate::kafka::context::{Operation, Resource};
use crate::kafka::handler::{Call, Handler, Reply};
use crate::kafka::refusal::{Refusal, pair};
use chronik_core::ids::NodeId;
use chronik_core::metadata::raft::{VoterRefusal, VoterStep, VoterWaits, VoterWish};
use chronik_core::metadata::requests::{Answer, Request};
use chronik_link::Endpoint;
use chronik_proto_kafka::api::add_raft_voter::{AddRaftVoterResponse, Listener};
use chronik_proto_kafka::api::remove_raft_voter::RemoveRaftVoterResponse;
use chronik_proto_kafka::{ErrorCode, Str};
use std::time::Duration;
use tokio::time::Instant;

/// What the listeners of the Raft plane are called.
pub const RAFT: &str = "RAFT";
/// How long a wish may take, whatever the client would allow: as what is handed on to the controller.
const WITHIN: Duration = Duration::from_secs(30);
/// A change is written to a majority's disks meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Why a wish does not hold.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum VoterError {
    #[error("not allowed to change the cluster")]
    NotAllowed,
    #[error("the cluster's id is {0}")]
    OtherCluster(String),
    #[error("this broker is alone; others can take part only where [cluster] is configured from the beginning")]
    Alone,
    #[error("the listeners do not include {RAFT}")]
    NoListener,
    #[error("node {node} is reached at {address}, as it says itself")]
    OtherAddress { node: NodeId, address: String },
    #[error("node {0} votes already")]
    Votes(NodeId),
    #[error("node {0} with that directory has no vote")]
    VotesNot(NodeId),
    #[error(transparent)]
    Refused(#[from] VoterRefusal),
    #[error("not in time: {0}")]
    Waits(VoterWaits),
    #[error("it has begun, and was not finished in time")]
    Begun,
    #[error("there is no controller, or it has not answered in time")]
    NoAnswer,
}

impl Refusal for VoterError {
    fn code(&self) -> ErrorCode {
        match self {
            VoterError::NotAllowed => ErrorCode::CLUSTER_AUTHORIZATION_FAILED,
            VoterError::OtherCluster(_) => ErrorCode::INCONSISTENT_CLUSTER_ID,
            // As Kafka answers where the voters are fixed.
            VoterError::Alone => ErrorCode::UNSUPPORTED_VERSION,
            VoterError::Votes(_) | VoterError::Refused(VoterRefusal::OtherDirectory) => ErrorCode::DUPLICATE_VOTER,
            VoterError::VotesNot(_) => ErrorCode::VOTER_NOT_FOUND,
            VoterError::NoListener
            | VoterError::OtherAddress { .. }
            | VoterError::Refused(VoterRefusal::LastVoter | VoterRefusal::NoMajority) => ErrorCode::INVALID_REQUEST,
            VoterError::Waits(_) | VoterError::Begun | VoterError::NoAnswer => ErrorCode::REQUEST_TIMED_OUT,
        }
    }
}

impl Handler for AddRaftVoterRequest {
    fn handle(self, call: Call) -> Reply<AddRaftVoterResponse> {
        Reply::exclusive(async move {
            let (error_code, error_message) = pair(&add(&call, &self).await);
            AddRaftVoterResponse { error_code, error_message, ..Default::default() }
        })
    }
}

impl Handler for RemoveRaftVoterRequest {
    fn handle(self, call: Call) -> Reply<RemoveRaftVoterResponse> {
        Reply::exclusive(async move {
            let (error_code, error_message) = pair(&remove(&call, &self).await);
            RemoveRaftVoterResponse { error_code, error_message, ..Default::default() }
        })
    }
}

async fn add(call: &Call, asked: &AddRaftVoterRequest) -> Result<(), VoterError> {
    let cluster = may_change(call, asked.cluster_id.as_ref())?;
    let node = NodeId(asked.voter_id);
    let directory_id = asked.voter_directory_id.0;
    let listener = asked.listeners.iter().find(|listener| listener.name.eq_ignore_ascii_case(RAFT));
    is_where_it_says(cluster, node, &directory_id, listener.ok_or(VoterError::NoListener)?)?;
    let within = Duration::from_millis(asked.timeout_ms.max(0).unsigned_abs().into()).min(WITHIN);
    let wish = VoterWish { node, directory_id, votes: true };
    fulfil(cluster, wish, within, asked.ack_when_committed).await
}

async fn remove(call: &Call, asked: &RemoveRaftVoterRequest) -> Result<(), VoterError> {
    let cluster = may_change(call, asked.cluster_id.as_ref())?;
    let wish = VoterWish { node: NodeId(asked.voter_id), directory_id: asked.voter_directory_id.0, votes: false };
    fulfil(cluster, wish, WITHIN, true).await
}

fn may_change<'a>(call: &'a Call, cluster_id: Option<&Str>) -> Result<&'a InCluster, VoterError> {
    if !call.broker.authorizer.allows(&call.context, Operation::Alter, Resource::Cluster) {
        return Err(VoterError::NotAllowed);
    }
    let image = call.broker.metadata.image();
    if cluster_id.is_some_and(|id| **id != *image.cluster_id()) {
        return Err(VoterError::OtherCluster(image.cluster_id().to_owned()));
    }
    call.broker.cluster.as_ref().ok_or(VoterError::Alone)
}

/// A node says where it is when it joins; nobody else can know better.
fn is_where_it_says(
    cluster: &InCluster,
    node: NodeId,
    directory_id: &[u8; 16],
    listener: &Listener,
) -> Result<(), VoterError> {
    let status = cluster.status.borrow();
    let members = status.members.iter().map(|(member, _)| member);
    let Some(known) = members.into_iter().find(|it| it.node() == node && it.directory_id() == directory_id) else {
        return Ok(());
    };
    let at = Endpoint::parse(node, known.address());
    if at.is_some_and(|at| *at.host == *listener.host && at.port == listener.port) {
        return Ok(());
    }
    Err(VoterError::OtherAddress { node, address: known.address().to_owned() })
}

/// Asks until the wish holds; where it did from the beginning, that is an error.
async fn fulfil(cluster: &InCluster, wish: VoterWish, within: Duration, committed: bool) -> Result<(), VoterError> {
    let deadline = Instant::now() + within;
    let mut begun = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let waits = match cluster.asks.hand_on(&Request::Voter(wish), left).await {
            Ok(Answer::Voter(VoterStep::Holds)) if begun => return Ok(()),
            Ok(Answer::Voter(VoterStep::Holds)) if wish.votes => return Err(VoterError::Votes(wish.node)),
            Ok(Answer::Voter(VoterStep::Holds)) => return Err(VoterError::VotesNot(wish.node)),
            Ok(Answer::Voter(VoterStep::UnderWay)) if !committed => return Ok(()),
            Ok(Answer::Voter(VoterStep::UnderWay)) => {
                begun = true;
                VoterError::Begun
            }
            // The change that was begun is the one that is not finished.
            Ok(Answer::Voter(VoterStep::NotYet(_))) if begun => VoterError::Begun,
            Ok(Answer::Voter(VoterStep::NotYet(why))) => VoterError::Waits(why),
            Ok(Answer::Voter(VoterStep::Refused(why))) => return Err(why.into()),
            Ok(_) | Err(_) => return Err(if begun { VoterError::Begun } else { VoterError::NoAnswer }),
        };
        if Instant::now() + LOOK_AGAIN >= deadline {
            return Err(waits);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
