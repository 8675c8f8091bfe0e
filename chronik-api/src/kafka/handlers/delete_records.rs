//! DeleteRecords (21): moves partitions' log start forward; −1 stands for the high watermark (KIP-107).

pub use chronik_proto_kafka::api::delete_records::DeleteRecordsRequest;

use super::fetch::read_error;
use crate::kafka::context::{Operation, Resource};
use crate::kafka::fetch_sessions::TopicRef;
use crate::kafka::handler::{Call, Handler, Reply};
use crate::kafka::resolve;
use chronik_core::ids::Offset;
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::delete_records::*;

const HIGH_WATERMARK: i64 = -1;

impl Handler for DeleteRecordsRequest {
    fn handle(self, call: Call) -> Reply<DeleteRecordsResponse> {
        Reply::exclusive(async move {
            let mut topics = Vec::with_capacity(self.topics.len());
            for topic in self.topics {
                let mut partitions = Vec::with_capacity(topic.partitions.len());
                for asked in &topic.partitions {
                    let (low_watermark, code) = match delete(&call, &topic.name, asked).await {
                        Ok(start) => (start.0, ErrorCode::NONE),
                        Err(code) => (-1, code),
                    };
                    partitions.push(DeleteRecordsPartitionResult {
                        partition_index: asked.partition_index,
                        low_watermark,
                        error_code: code.0,
                    });
                }
                topics.push(DeleteRecordsTopicResult { name: topic.name, partitions });
            }
            DeleteRecordsResponse { topics, ..Default::default() }
        })
    }
}

async fn delete(call: &Call, topic: &str, asked: &DeleteRecordsPartition) -> Result<Offset, ErrorCode> {
    let partition = {
        let image = call.broker.metadata.image();
        let topic = resolve::topic(&image, &TopicRef::Name(topic.into()))?;
        if !call.broker.authorizer.allows(&call.context, Operation::Delete, Resource::Topic(&topic.name)) {
            return Err(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
        }
        // Groups and transactions live in these; and what is only compacted is not to be cut by hand.
        if topic.internal {
            return Err(ErrorCode::INVALID_TOPIC_EXCEPTION);
        }
        if !topic.config.cleanup_policy.delete {
            return Err(ErrorCode::POLICY_VIOLATION);
        }
        resolve::leader(&call.broker, topic, asked.partition_index)?
    };
    let position = partition.standing();
    let upto = match asked.offset {
        HIGH_WATERMARK => position.high_watermark,
        offset if offset < 0 || offset > position.high_watermark.0 => return Err(ErrorCode::OFFSET_OUT_OF_RANGE),
        offset => Offset(offset),
    };
    if upto <= position.log_start {
        return Ok(position.log_start);
    }
    partition.trim(upto).await.map_err(|failure| read_error(&partition, failure))
}
