//! DescribeProducers (61): the idempotent producers that partitions remember (KIP-664). None is in a transaction.

pub use chronik_proto_kafka::api::describe_producers::DescribeProducersRequest;

use crate::kafka::context::{Operation, Resource};
use crate::kafka::fetch_sessions::TopicRef;
use crate::kafka::handler::{Call, Handler, Reply};
use crate::kafka::resolve;
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::describe_producers::*;

impl Handler for DescribeProducersRequest {
    fn handle(self, call: Call) -> Reply<DescribeProducersResponse> {
        let topics = resolve::once(self.topics, |topic| topic.name.clone()).into_iter().map(|topic| {
            let named = resolve::once(topic.partition_indexes, |index| *index);
            let partitions = named.iter().map(|index| {
                let found = producers(&call, &topic.name, *index);
                let code = found.as_ref().err().copied().unwrap_or_default();
                PartitionResponse {
                    partition_index: *index,
                    error_code: code.0,
                    error_message: None,
                    active_producers: found.unwrap_or_default(),
                }
            });
            TopicResponse { partitions: partitions.collect(), name: topic.name }
        });
        Reply::Now(DescribeProducersResponse { topics: topics.collect(), ..Default::default() })
    }
}

fn producers(call: &Call, topic: &str, index: i32) -> Result<Vec<ProducerState>, ErrorCode> {
    let image = call.broker.metadata.image();
    let topic = resolve::topic(&image, &TopicRef::Name(topic.into()))?;
    if !call.broker.authorizer.allows(&call.context, Operation::Read, Resource::Topic(&topic.name)) {
        return Err(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
    }
    let partition = resolve::leader(&call.broker, topic, index)?;
    let known = partition.with_leader(|leader| {
        let state = |(id, producer): (chronik_core::ids::ProducerId, &chronik_core::partition::producers::Producer)| {
            ProducerState {
                producer_id: id.0,
                producer_epoch: i32::from(producer.epoch),
                last_sequence: producer.last_sequence(),
                last_timestamp: producer.batches.back().map_or(-1, |batch| batch.max_timestamp.0),
                coordinator_epoch: -1,
                current_txn_start_offset: -1,
            }
        };
        leader.producers().iter().map(state).collect()
    });
    known.ok_or(ErrorCode::NOT_LEADER_OR_FOLLOWER)
}
