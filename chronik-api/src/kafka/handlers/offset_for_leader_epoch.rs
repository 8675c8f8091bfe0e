//! OffsetForLeaderEpoch (23): where a leader epoch ended, so that a consumer can tell whether what it read is still there
//! (KIP-101, KIP-320).

pub use chronik_proto_kafka::api::offset_for_leader_epoch::OffsetForLeaderEpochRequest;

use crate::kafka::context::{Operation, Resource};
use crate::kafka::fetch_sessions::TopicRef;
use crate::kafka::handler::{Call, Handler, Reply};
use crate::kafka::resolve;
use chronik_core::ids::LeaderEpoch;
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::offset_for_leader_epoch::*;

impl Handler for OffsetForLeaderEpochRequest {
    fn handle(self, call: Call) -> Reply<OffsetForLeaderEpochResponse> {
        let topics = self.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                find(&call, &topic.topic, asked).unwrap_or_else(|code| EpochEndOffset {
                    error_code: code.0,
                    partition: asked.partition,
                    ..Default::default()
                })
            });
            OffsetForLeaderTopicResult { partitions: partitions.collect(), topic: topic.topic }
        });
        Reply::Now(OffsetForLeaderEpochResponse { topics: topics.collect(), ..Default::default() })
    }
}

fn find(call: &Call, topic: &str, asked: &OffsetForLeaderPartition) -> Result<EpochEndOffset, ErrorCode> {
    let image = call.broker.metadata.image();
    let topic = resolve::topic(&image, &TopicRef::Name(topic.into()))?;
    if !call.broker.authorizer.allows(&call.context, Operation::Describe, Resource::Topic(&topic.name)) {
        return Err(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
    }
    let partition = resolve::leader(&call.broker, topic, asked.partition)?;
    let ends = partition.with_leader(|leader| {
        // The leader's own epoch ends where the log does, whether or not it has written yet.
        let own = (asked.leader_epoch == leader.epoch().0).then_some((leader.epoch(), leader.log_end()));
        let end = own.or_else(|| leader.epochs().end_of(LeaderEpoch(asked.leader_epoch), leader.log_end()));
        (leader.epoch().0, end)
    });
    let (current, end) = ends.ok_or(ErrorCode::NOT_LEADER_OR_FOLLOWER)?;
    resolve::check_leader_epoch(asked.current_leader_epoch, current)?;
    let (leader_epoch, end_offset) = end.map_or((-1, -1), |(epoch, end)| (epoch.0, end.0));
    Ok(EpochEndOffset { error_code: 0, partition: asked.partition, leader_epoch, end_offset })
}
