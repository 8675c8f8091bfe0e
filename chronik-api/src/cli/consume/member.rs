//! A member of a consumer group, in the classic protocol: join, learn or make the assignment, commit, leave.
//!
//! The assignment is Kafka's "range", so that the group may have members of any other client too.

use super::super::client::{Client, ClientError, To, Topic, check};
use super::super::group::decode_assignment;
use bytes::{BufMut, Bytes, BytesMut};
use chronik_proto_kafka::api::consumer_protocol::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, ResponseTopicPartition,
};
use chronik_proto_kafka::api::heartbeat::HeartbeatRequest;
use chronik_proto_kafka::api::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponseMember};
use chronik_proto_kafka::api::leave_group::{LeaveGroupRequest, MemberIdentity};
use chronik_proto_kafka::api::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use chronik_proto_kafka::api::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use chronik_proto_kafka::{Decoder, ErrorCode, Message, Str};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Version of the consumers' embedded protocol that we write: the oldest, which every client reads.
const EMBEDDED_VERSION: i16 = 0;
const ASSIGNOR: &str = "range";
const PROTOCOL: &str = "consumer";

/// Kafka's own defaults for consumers.
const SESSION: Duration = Duration::from_secs(45);
const REBALANCE: Duration = Duration::from_secs(60);
const HEARTBEAT_EVERY: Duration = Duration::from_secs(3);

/// A group that does not settle within two rebalances is in trouble that waiting does not mend.
const JOIN_WITHIN: Duration = Duration::from_secs(120);

pub(super) struct Member {
    group: String,
    topic: Topic,
    coordinator: To,
    member_id: Str,
    generation: i32,
    last_heartbeat: Instant,
}

impl Member {
    pub fn new(group: &str, topic: &Topic) -> Self {
        Self {
            group: group.to_owned(),
            topic: topic.clone(),
            coordinator: To::Any,
            member_id: Str::default(),
            generation: -1,
            last_heartbeat: Instant::now(),
        }
    }

    /// Joins, again if need be, and gives the partitions of the topic that are ours now.
    pub fn join(&mut self, client: &mut Client) -> Result<Vec<i32>, ClientError> {
        let until = Instant::now() + JOIN_WITHIN;
        loop {
            self.coordinator = client.coordinator(&self.group)?;
            match self.try_join(client) {
                Ok(Some(partitions)) => return Ok(partitions),
                Ok(None) => {}
                Err(why) if Instant::now() >= until => return Err(why),
                Err(why) => {
                    self.prepare_to_rejoin(why)?;
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }

    /// One attempt; `None` where the coordinator gave us an id to join with (KIP-394).
    fn try_join(&mut self, client: &mut Client) -> Result<Option<Vec<i32>>, ClientError> {
        let subscription =
            ConsumerProtocolSubscription { topics: vec![self.topic.name.as_str().into()], ..Default::default() };
        let request = JoinGroupRequest {
            group_id: self.group.as_str().into(),
            session_timeout_ms: millis(SESSION),
            rebalance_timeout_ms: millis(REBALANCE),
            member_id: self.member_id.clone(),
            protocol_type: PROTOCOL.into(),
            protocols: vec![JoinGroupRequestProtocol { name: ASSIGNOR.into(), metadata: embed(&subscription) }],
            ..Default::default()
        };
        // The newest version lets the broker skip the assignment of a leader that joins again; version 7 does not.
        let joined = client.ask_waiting(self.coordinator, &request, 7, REBALANCE)?;
        if ErrorCode(joined.error_code) == ErrorCode::MEMBER_ID_REQUIRED {
            self.member_id = joined.member_id;
            return Ok(None);
        }
        check(joined.error_code, None, || format!("joining group {}", self.group))?;
        self.member_id = joined.member_id;
        self.generation = joined.generation_id;
        let assignments =
            if joined.leader == self.member_id { self.assign(client, &joined.members)? } else { Vec::new() };
        let request = SyncGroupRequest {
            group_id: self.group.as_str().into(),
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            protocol_type: Some(PROTOCOL.into()),
            protocol_name: Some(ASSIGNOR.into()),
            assignments,
            ..Default::default()
        };
        let synced = client.ask_waiting(self.coordinator, &request, i16::MAX, REBALANCE)?;
        check(synced.error_code, None, || format!("taking part in group {}", self.group))?;
        self.last_heartbeat = Instant::now();
        let assignment = decode_assignment(synced.assignment).unwrap_or_default();
        let ours = assignment.assigned_partitions.iter().filter(|of| of.topic == self.topic.name.as_str());
        Ok(Some(ours.flat_map(|of| of.partitions.iter().copied()).collect()))
    }

    /// As the group's leader: the range of each topic's partitions for each of its subscribers.
    fn assign(
        &self,
        client: &mut Client,
        members: &[JoinGroupResponseMember],
    ) -> Result<Vec<SyncGroupRequestAssignment>, ClientError> {
        let mut subscribers: BTreeMap<Str, BTreeSet<Str>> = BTreeMap::new();
        for member in members {
            for topic in subscription(&member.metadata).topics {
                subscribers.entry(topic).or_default().insert(member.member_id.clone());
            }
        }
        let mut shares: BTreeMap<Str, Vec<ResponseTopicPartition>> = BTreeMap::new();
        for (topic, of_topic) in subscribers {
            let partitions: Vec<i32> = match client.topic(&topic, false) {
                Ok(topic) => topic.leaders.into_keys().collect(),
                // Somebody else's topic that does not exist yet must not keep this group from working.
                Err(why) if why.code() == Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) => continue,
                Err(why) => return Err(why),
            };
            let members: Vec<Str> = of_topic.into_iter().collect();
            for (member, share) in members.iter().zip(ranges(&partitions, members.len())) {
                let share = ResponseTopicPartition { topic: topic.clone(), partitions: share.to_vec() };
                shares.entry(member.clone()).or_default().push(share);
            }
        }
        let assignment = |member: &JoinGroupResponseMember| {
            let assigned_partitions = shares.remove(&member.member_id).unwrap_or_default();
            let assignment = ConsumerProtocolAssignment { assigned_partitions, user_data: None };
            SyncGroupRequestAssignment { member_id: member.member_id.clone(), assignment: embed(&assignment) }
        };
        Ok(members.iter().map(assignment).collect())
    }

    /// Says that we live, if it is time to; false if the group wants us to join again.
    pub fn heartbeat(&mut self, client: &mut Client) -> Result<bool, ClientError> {
        if self.last_heartbeat.elapsed() < HEARTBEAT_EVERY {
            return Ok(true);
        }
        self.last_heartbeat = Instant::now();
        let request = HeartbeatRequest {
            group_id: self.group.as_str().into(),
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            group_instance_id: None,
        };
        let answer = client.ask(self.coordinator, &request)?;
        let done = check(answer.error_code, None, || format!("staying in group {}", self.group));
        self.still_in(done)
    }

    /// Commits offsets to read next; false if the group wants us to join again.
    pub fn commit(&mut self, client: &mut Client, positions: &BTreeMap<i32, i64>) -> Result<bool, ClientError> {
        /// From the next version on topics are named by id.
        const BY_NAME: i16 = 9;
        if positions.is_empty() {
            return Ok(true);
        }
        let partition = |(partition, position): (&i32, &i64)| OffsetCommitRequestPartition {
            partition_index: *partition,
            committed_offset: *position,
            committed_metadata: Some(Str::default()),
            ..Default::default()
        };
        let request = OffsetCommitRequest {
            group_id: self.group.as_str().into(),
            generation_id_or_member_epoch: self.generation,
            member_id: self.member_id.clone(),
            topics: vec![OffsetCommitRequestTopic {
                name: self.topic.name.as_str().into(),
                partitions: positions.iter().map(partition).collect(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let coordinator = self.coordinator;
        let done = client.retry(|client| {
            let answer = client.ask_waiting(coordinator, &request, BY_NAME, Duration::ZERO)?;
            for at in answer.topics.iter().flat_map(|topic| &topic.partitions) {
                check(at.error_code, None, || {
                    format!("committing partition {} in group {}", at.partition_index, self.group)
                })?;
            }
            Ok(())
        });
        self.still_in(done)
    }

    fn still_in(&mut self, done: Result<(), ClientError>) -> Result<bool, ClientError> {
        match done {
            Ok(()) => Ok(true),
            Err(why) => self.prepare_to_rejoin(why).map(|()| false),
        }
    }

    /// Passes on errors that joining again does not mend.
    fn prepare_to_rejoin(&mut self, why: ClientError) -> Result<(), ClientError> {
        match why.code() {
            Some(ErrorCode::UNKNOWN_MEMBER_ID) => {
                self.member_id = Str::default();
                self.generation = -1;
                Ok(())
            }
            Some(
                ErrorCode::REBALANCE_IN_PROGRESS
                | ErrorCode::ILLEGAL_GENERATION
                | ErrorCode::NOT_COORDINATOR
                | ErrorCode::COORDINATOR_NOT_AVAILABLE
                | ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
            ) => Ok(()),
            _ => Err(why),
        }
    }

    /// Leaves, so that the others need not wait for our session to end. If it fails, they wait.
    pub fn leave(&mut self, client: &mut Client) -> Result<(), ClientError> {
        if self.member_id.is_empty() {
            return Ok(());
        }
        let request = LeaveGroupRequest {
            group_id: self.group.as_str().into(),
            member_id: self.member_id.clone(),
            members: vec![MemberIdentity { member_id: self.member_id.clone(), ..Default::default() }],
        };
        let answer = client.ask(self.coordinator, &request)?;
        let doing = || format!("leaving group {}", self.group);
        check(answer.error_code, None, doing)?;
        answer.members.iter().try_for_each(|member| check(member.error_code, None, doing))
    }
}

fn millis(span: Duration) -> i32 {
    i32::try_from(span.as_millis()).unwrap_or(i32::MAX)
}

/// A message of the embedded protocol, behind its version.
fn embed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(EMBEDDED_VERSION);
    bytes.put(message.to_bytes(EMBEDDED_VERSION));
    bytes.freeze()
}

/// The topics that a member asks for; none if its metadata is not the consumers'.
fn subscription(metadata: &Bytes) -> ConsumerProtocolSubscription {
    let Some((version, _)) = metadata.split_first_chunk::<2>() else { return Default::default() };
    // Newer versions only add to the end, which is left unread.
    let known = i16::from_be_bytes(*version).clamp(0, 3);
    let mut input = Decoder::new(metadata.slice(2..));
    chronik_proto_kafka::wire::Wire::get(&mut input, ConsumerProtocolSubscription::form(known)).unwrap_or_default()
}

/// Cuts partitions into one contiguous share for each member; the first shares are one longer where it does not come out
/// even, as Kafka's range assignor has it.
fn ranges(partitions: &[i32], members: usize) -> Vec<&[i32]> {
    let members = members.max(1);
    let (each, longer) = (partitions.len() / members, partitions.len() % members);
    let mut rest = partitions;
    let share = |index: usize| {
        let (share, after) = rest.split_at(each + usize::from(index < longer));
        rest = after;
        share
    };
    (0..members).map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_contiguous_and_the_first_ones_longer() {
        assert_eq!(ranges(&[0, 1, 2, 3, 4, 5, 6], 3), [&[0, 1, 2][..], &[3, 4], &[5, 6]]);
        assert_eq!(ranges(&[0], 2), [&[0][..], &[]]);
    }

    #[test]
    fn the_embedded_messages_are_read_as_they_are_written_and_nonsense_is_nothing() {
        let wanted = ConsumerProtocolSubscription { topics: vec!["a".into(), "b".into()], ..Default::default() };
        assert_eq!(subscription(&embed(&wanted)).topics, wanted.topics);
        assert!(subscription(&Bytes::from_static(b"\x00\x00\xff")).topics.is_empty());
        let given = ConsumerProtocolAssignment {
            assigned_partitions: vec![ResponseTopicPartition { topic: "a".into(), partitions: vec![1, 2] }],
            user_data: None,
        };
        assert_eq!(decode_assignment(embed(&given)), Some(given));
        assert_eq!(decode_assignment(Bytes::from_static(b"x")), None);
    }
}
