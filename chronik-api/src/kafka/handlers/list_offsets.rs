//! ListOffsets (2): finds an offset by time, or one of a log's ends by a negative pseudo-time.
//!
//! | pseudo-time | since | gives |
//! |---|---|---|
//! | −1 | 1 | the end that a consumer may read to |
//! | −2 | 1 | the log start |
//! | −3 | 7 | the first record with the greatest timestamp (KIP-734) |
//! | −4 | 8 | the start of what is on local disk (KIP-405): all of it, as there are no tiers |
//! | −5 | 9 | the end of what is in a remote tier (KIP-1005): nothing |
//! | −6 | 11 | the start of what waits to be moved to one (KIP-1023): nothing |
//!
//! Look-ups by time are exact to the record: the log finds the batch, which is then looked into.

pub use chronik_proto_kafka::api::list_offsets::ListOffsetsRequest;

use super::fetch::read_error;
use crate::compression::inflate;
use crate::kafka::context::{Operation, Resource};
use crate::kafka::fetch_sessions::TopicRef;
use crate::kafka::handler::{Call, Handler, Reply};
use crate::kafka::resolve;
use crate::partitions::Partition;
use chronik_core::batch::{self, Batch, Records};
use chronik_core::driver::Standing;
use chronik_core::ids::Offset;
use chronik_core::partition::leader::Leader;
use chronik_core::pending::Pending;
use chronik_core::time::Timestamp;
use chronik_core::wal::ReadRange;
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::list_offsets::*;
use std::sync::Arc;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

impl Handler for ListOffsetsRequest {
    fn handle(self, call: Call) -> Reply<ListOffsetsResponse> {
        Reply::later(async move {
            let mut topics = Vec::with_capacity(self.topics.len());
            for topic in self.topics {
                let mut partitions = Vec::with_capacity(topic.partitions.len());
                for asked in topic.partitions {
                    let answer = match find(&call, &topic.name, &asked).await {
                        Ok(found) => ListOffsetsPartitionResponse {
                            partition_index: asked.partition_index,
                            timestamp: found.timestamp,
                            offset: found.offset,
                            leader_epoch: found.leader_epoch,
                            ..Default::default()
                        },
                        Err(code) => ListOffsetsPartitionResponse {
                            partition_index: asked.partition_index,
                            error_code: code.0,
                            ..Default::default()
                        },
                    };
                    partitions.push(answer);
                }
                topics.push(ListOffsetsTopicResponse { name: topic.name, partitions });
            }
            ListOffsetsResponse { topics, ..Default::default() }
        })
    }
}

struct Found {
    timestamp: i64,
    offset: i64,
    leader_epoch: i32,
}

impl Found {
    const NOTHING: Found = Found { timestamp: -1, offset: -1, leader_epoch: -1 };
}

async fn find(call: &Call, topic: &str, asked: &ListOffsetsPartition) -> Result<Found, ErrorCode> {
    let partition = {
        let image = call.broker.metadata.image();
        let topic = resolve::topic(&image, &TopicRef::Name(topic.into()))?;
        if !call.broker.authorizer.allows(&call.context, Operation::Describe, Resource::Topic(&topic.name)) {
            return Err(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
        }
        resolve::leader(&call.broker, topic, asked.partition_index)?
    };
    let standing = partition.standing();
    resolve::check_leader_epoch(asked.current_leader_epoch, standing.epoch.0)?;
    let at = |offset: Offset| Found {
        timestamp: Timestamp::NONE.0,
        offset: offset.0,
        leader_epoch: partition.with_epochs(|epochs, _| epochs.at(offset)).map_or(standing.epoch.0, |epoch| epoch.0),
    };
    let version = call.version();
    match asked.timestamp {
        // Until then it may be less than what an earlier leader showed (KIP-207).
        LATEST if partition.with_leader(Leader::shows_all_that_was_shown) != Some(true) => {
            let code = if version >= 5 { ErrorCode::OFFSET_NOT_AVAILABLE } else { ErrorCode::LEADER_NOT_AVAILABLE };
            Err(code)
        }
        LATEST => Ok(Found { leader_epoch: standing.epoch.0, ..at(standing.high_watermark) }),
        EARLIEST => Ok(at(standing.log_start)),
        MAX_TIMESTAMP if version >= 7 => {
            let newest = partition.log_state().max_timestamp;
            if newest == Timestamp::NONE {
                Ok(Found::NOTHING)
            } else {
                by_time(call, &partition, standing, newest).await
            }
        }
        EARLIEST_LOCAL if version >= 8 => Ok(at(standing.log_start)),
        LATEST_TIERED if version >= 9 => Ok(Found::NOTHING),
        EARLIEST_PENDING_UPLOAD if version >= 11 => Ok(Found::NOTHING),
        ..0 => Err(ErrorCode::UNSUPPORTED_VERSION),
        time => by_time(call, &partition, standing, Timestamp(time)).await,
    }
}

/// The first readable record at or after `time`.
async fn by_time(
    call: &Call,
    partition: &Arc<Partition>,
    standing: Standing,
    time: Timestamp,
) -> Result<Found, ErrorCode> {
    let log = partition.log();
    let base = Pending::start(|done| log.offset_for_timestamp(time, done))
        .await
        .map_err(|failure| read_error(partition, failure))?;
    let Some(mut from) = base else { return Ok(Found::NOTHING) };
    // The batch that the log found holds such a record, unless its header promised more than its records keep; then the
    // search goes on behind it.
    while from < standing.high_watermark {
        let range = ReadRange { from, upto: standing.high_watermark, max_bytes: 0, min_one: true };
        let chunk = partition.read(range).await.map_err(|failure| read_error(partition, failure))?;
        for batch in batch::batches(&chunk.bytes) {
            let batch = batch.map_err(|_| ErrorCode::CORRUPT_MESSAGE)?;
            if let Some(found) = first_at_or_after(call, &batch, standing.log_start, time)? {
                return Ok(found);
            }
        }
        if chunk.bytes.is_empty() {
            break;
        }
        from = chunk.next_offset;
    }
    Ok(Found::NOTHING)
}

fn first_at_or_after(call: &Call, batch: &Batch, start: Offset, time: Timestamp) -> Result<Option<Found>, ErrorCode> {
    let header = &batch.header;
    if header.max_timestamp < time {
        return Ok(None);
    }
    let found = |offset: Offset, timestamp: Timestamp| Found {
        timestamp: timestamp.0,
        offset: offset.0,
        leader_epoch: header.leader_epoch.0,
    };
    if header.attributes.is_log_append_time() {
        return Ok(Some(found(header.base_offset.max(start), header.max_timestamp)));
    }
    let codec = header.attributes.compression().ok_or(ErrorCode::CORRUPT_MESSAGE)?;
    let max_bytes = call.broker.config.limits.inflated_batch_bytes.as_usize();
    let records = inflate(codec, &batch.records, max_bytes).map_err(|_| ErrorCode::CORRUPT_MESSAGE)?;
    for record in Records::new(&records) {
        let record = record.map_err(|_| ErrorCode::CORRUPT_MESSAGE)?;
        let timestamp = Timestamp(header.base_timestamp.0.saturating_add(record.timestamp_delta));
        let offset = header.base_offset + i64::from(record.offset_delta);
        if timestamp >= time && offset >= start {
            return Ok(Some(found(offset, timestamp)));
        }
    }
    Ok(None)
}
