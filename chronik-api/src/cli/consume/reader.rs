//! Fetches from the leaders of a topic's partitions, and walks what comes record by record.

use super::super::client::{Client, EARLIEST, To, Topic, check};
use super::super::output::{Failure, printable};
use crate::compression::inflate;
use bytes::Bytes;
use chronik_core::batch::{Batch, Record, Records};
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::fetch::{FetchPartition, FetchRequest, FetchTopic, PartitionData};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

/// How long a broker may wait for records: short enough that a signal or a heartbeat is not late.
const WAIT: Duration = Duration::from_millis(500);

/// Bytes of one answer, and of one partition in it: a first batch that is larger comes all the same.
const FETCH_BYTES: i32 = 16 << 20;
const PARTITION_BYTES: i32 = 1 << 20;

/// What a batch may inflate to: far more than producers make, far less than would hurt.
const INFLATED_BYTES_MAX: usize = 256 << 20;

/// A record with its place.
pub(super) struct Read<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: i64,
    pub record: Record<'a>,
}

pub(super) struct Reader {
    topic: Topic,
    /// Partition → offset to read next.
    pub positions: BTreeMap<i32, i64>,
    /// Which leader is asked next, so that a busy one does not starve the others.
    turn: usize,
}

impl Reader {
    pub fn new(topic: Topic, positions: BTreeMap<i32, i64>) -> Self {
        Self { topic, positions, turn: 0 }
    }

    /// Asks one leader once, and gives each record to `each`, which answers whether it took it; none is offered after one
    /// that was not taken.
    pub fn poll(
        &mut self,
        client: &mut Client,
        mut each: impl FnMut(&Read<'_>) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let mut leaders: Vec<i32> =
            self.positions.keys().filter_map(|at| self.topic.leaders.get(at).copied()).collect();
        leaders.sort_unstable();
        leaders.dedup();
        if leaders.is_empty() {
            // A member without partitions only waits.
            std::thread::sleep(WAIT);
            return Ok(());
        }
        let leader = leaders[self.turn % leaders.len()];
        self.turn = self.turn.wrapping_add(1);
        // With several leaders, none may hold up the others' records.
        let wait = if leaders.len() == 1 { WAIT } else { WAIT / 10 };
        let request = self.request(leader, wait);
        let answer = client.ask_waiting(To::Node(leader), &request, i16::MAX, wait)?;
        check(answer.error_code, None, || format!("fetching from {}", self.topic.name))?;
        for partition in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
            self.answered(client, &partition)?;
            let records = partition.records.map(|records| records.to_bytes()).unwrap_or_default();
            if !self.walk(partition.partition_index, records, &mut each)? {
                break;
            }
        }
        Ok(())
    }

    fn request(&self, leader: i32, wait: Duration) -> FetchRequest {
        let mut partitions: Vec<_> = self
            .positions
            .iter()
            .filter(|(at, _)| self.topic.leaders.get(at) == Some(&leader))
            .map(|(partition, position)| FetchPartition {
                partition: *partition,
                fetch_offset: *position,
                partition_max_bytes: PARTITION_BYTES,
                ..Default::default()
            })
            .collect();
        let first = self.turn % partitions.len().max(1);
        partitions.rotate_left(first);
        FetchRequest {
            max_wait_ms: i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: 1,
            max_bytes: FETCH_BYTES,
            topics: vec![FetchTopic { topic: self.topic.name.as_str().into(), topic_id: self.topic.id, partitions }],
            ..Default::default()
        }
    }

    /// Deals with a partition's error; `Ok` if there is none, or if the next poll may do better.
    fn answered(&mut self, client: &mut Client, answer: &PartitionData) -> Result<(), Failure> {
        let index = answer.partition_index;
        let refused =
            match check(answer.error_code, None, || format!("fetching from {} partition {index}", self.topic.name)) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
        match refused.code() {
            Some(ErrorCode::OFFSET_OUT_OF_RANGE) => {
                let earliest = client.offsets(&self.topic, EARLIEST)?.get(&index).copied().unwrap_or(0);
                let position = self.positions.get(&index).copied().unwrap_or(0);
                if position > earliest && answer.high_watermark >= 0 && position > answer.high_watermark {
                    return Err(Failure::failed(format!(
                        "offset {position} of {} partition {index} does not exist yet: it ends at {}",
                        self.topic.name, answer.high_watermark
                    )));
                }
                let name = printable(&self.topic.name);
                writeln!(
                    io::stderr(),
                    "chronik: {name} partition {index} begins at {earliest} now; offset {position} is gone"
                )?;
                self.positions.insert(index, earliest);
                Ok(())
            }
            Some(code) if code.is_retriable() => {
                std::thread::sleep(WAIT / 5);
                self.topic = client.topic(&self.topic.name, false)?;
                Ok(())
            }
            _ => Err(refused.into()),
        }
    }

    /// Offers every record at or after the position; false if one was not taken.
    fn walk(
        &mut self,
        partition: i32,
        mut records: Bytes,
        each: &mut impl FnMut(&Read<'_>) -> Result<bool, Failure>,
    ) -> Result<bool, Failure> {
        let damaged = |why: String| {
            Failure::failed(format!("a batch of {} partition {partition} cannot be read: {why}", self.topic.name))
        };
        let mut position = self.positions.get(&partition).copied().unwrap_or(0);
        // Brokers may cut off the last batch at the byte limit; it comes again, whole.
        while let Ok(batch) = Batch::split_from(&mut records) {
            let header = batch.header;
            if !batch.is_intact() {
                return Err(damaged(format!("its checksum is wrong at offset {}", header.base_offset)));
            }
            if header.next_offset().0 <= position {
                continue;
            }
            // Markers of transactions are for clients, not for people.
            if !header.attributes.is_control() {
                let codec = header.attributes.compression().ok_or_else(|| damaged("unknown compression".into()))?;
                let body =
                    inflate(codec, &batch.records, INFLATED_BYTES_MAX).map_err(|why| damaged(why.to_string()))?;
                for record in Records::new(&body) {
                    let record = record.map_err(|why| damaged(why.to_string()))?;
                    let offset = header.base_offset.0.saturating_add(i64::from(record.offset_delta));
                    if offset < position {
                        continue;
                    }
                    let timestamp_ms = if header.attributes.is_log_append_time() {
                        header.max_timestamp.0
                    } else {
                        header.base_timestamp.0.saturating_add(record.timestamp_delta)
                    };
                    let read = Read { topic: &self.topic.name, partition, offset, timestamp_ms, record };
                    if !each(&read)? {
                        self.positions.insert(partition, position);
                        return Ok(false);
                    }
                    position = offset.saturating_add(1);
                }
            }
            position = header.next_offset().0;
            self.positions.insert(partition, position);
        }
        Ok(true)
    }
}
