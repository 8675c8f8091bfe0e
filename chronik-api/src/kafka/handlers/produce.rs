//! Produce (0): appends one record batch per partition.
//!
//! Versions 0 to 2 are advertised and refused: librdkafka takes their absence for an old broker and stops compressing.
//! From version 13 topics are named by id.
//!
//! **Hot path.** Batches are checked and ordered in the task that read them, then written by it; with acks=1 the answer
//! exists when the write returns. Only a topic that wants batches looked into or compressed otherwise takes the slow
//! path ([`crate::kafka::recode`]), for which the connection's next request waits.

pub use chronik_proto_kafka::api::produce::ProduceRequest;

use crate::kafka::connection::Close;
use crate::kafka::context::{Operation, Resource};
use crate::kafka::fetch_sessions::TopicRef;
use crate::kafka::handler::{Call, Handler, Reply};
use crate::kafka::recode::{self, Recode};
use crate::kafka::resolve;
use crate::partitions::Partition;
use crate::partitions::anatomy::{Arrival, Ticket};
use crate::partitions::partition::AckReceiver;
use bytes::Bytes;
use chronik_core::batch::{self, Checked, CheckedBatch, Rejection, Rules};
use chronik_core::driver::{AppendError, Found};
use chronik_core::metadata::{Topic, TopicConfig};
use chronik_core::partition::leader::{self, Abandoned, Acks};
use chronik_core::partition::producers;
use chronik_core::time::{Now, Timestamp};
use chronik_core::wal::Refused;
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::produce::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot::error::TryRecvError;

/// First version that knows zstd (KIP-110), and the first with topic ids.
const ZSTD_SINCE: i16 = 7;
const TOPIC_IDS_SINCE: i16 = 13;

/// Why a partition's batch was not stored, as the client is told.
struct Refusal {
    code: ErrorCode,
    words: Option<String>,
    records: Vec<(i32, String)>,
}

impl Refusal {
    fn new(code: ErrorCode, words: impl Into<String>) -> Self {
        Self { code, words: Some(words.into()), records: Vec::new() }
    }

    fn bare(code: ErrorCode) -> Self {
        Self { code, words: None, records: Vec::new() }
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        let words = rejection.to_string();
        match rejection {
            Rejection::Corrupt(_) => Refusal::new(ErrorCode::CORRUPT_MESSAGE, words),
            Rejection::TooLarge { .. } => Refusal::new(ErrorCode::MESSAGE_TOO_LARGE, words),
            Rejection::Invalid { what, records } => {
                Refusal { code: ErrorCode::INVALID_RECORD, words: Some(what), records }
            }
            Rejection::InvalidTimestamp { what, records } => {
                Refusal { code: ErrorCode::INVALID_TIMESTAMP, words: Some(what), records }
            }
            Rejection::UnsupportedCompression(_) => Refusal::new(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE, words),
        }
    }
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Self {
        let code = match &error {
            AppendError::NotLeader => ErrorCode::NOT_LEADER_OR_FOLLOWER,
            AppendError::Leader(leader::Refused::TooFewInSync { .. }) => ErrorCode::NOT_ENOUGH_REPLICAS,
            AppendError::Leader(leader::Refused::Producer(refused)) => match refused {
                producers::Refused::StaleEpoch { .. } => ErrorCode::INVALID_PRODUCER_EPOCH,
                producers::Refused::OutOfOrder { .. } => ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
            },
            AppendError::Log(Refused::Busy) => ErrorCode::REQUEST_TIMED_OUT,
            AppendError::Log(Refused::TooLarge { .. }) => ErrorCode::RECORD_LIST_TOO_LARGE,
            AppendError::Log(Refused::Full | Refused::Failed) => ErrorCode::KAFKA_STORAGE_ERROR,
            AppendError::Log(Refused::OutOfOrder { .. } | Refused::Fenced { .. } | Refused::Closed) => {
                ErrorCode::NOT_LEADER_OR_FOLLOWER
            }
        };
        Refusal::new(code, error.to_string())
    }
}

/// A batch that was ordered, or was there already.
struct Stored {
    base_offset: i64,
    log_append_time_ms: i64,
    log_start: i64,
    /// Whether its place is known: of a duplicate it may be forgotten.
    has_place: bool,
    ack: Option<AckReceiver>,
}

/// One partition of the request on its way.
enum Slot {
    /// Checked, and ready to be appended.
    Ready(Arc<Partition>, CheckedBatch),
    /// Must be looked into or compressed otherwise first.
    Recode(Arc<Partition>, Recode),
    Done(Result<Stored, Refusal>),
}

struct Entry {
    topic: usize,
    index: i32,
    slot: Slot,
}

/// The request's topics in order, for the response.
struct Names(Vec<(chronik_proto_kafka::Str, chronik_proto_kafka::Uuid)>);

impl Handler for ProduceRequest {
    const ADVERTISED_FROM: i16 = 0;

    fn handle(self, call: Call) -> Reply<ProduceResponse> {
        let acks = match self.acks {
            0 => Acks::None,
            1 => Acks::Leader,
            -1 => Acks::All,
            _ => return Reply::Now(refuse_all(&self, ErrorCode::INVALID_REQUIRED_ACKS)),
        };
        if self.transactional_id.is_some() {
            // No id was ever given out for a transaction, so there is none that this could belong to.
            if acks == Acks::None {
                return Reply::Close(Close("produce with acks=0 in a transaction, which there are none of".to_owned()));
            }
            return Reply::Now(refuse_all(&self, ErrorCode::INVALID_TXN_STATE));
        }
        let timeout = Duration::from_millis(self.timeout_ms.max(0).unsigned_abs().into());
        let now = call.broker.clock.now();
        let (names, entries) = check(&self, &call, now.wall);
        if entries.iter().any(|entry| matches!(entry.slot, Slot::Recode(..))) {
            let recoded = async move {
                let entries = recode_all(entries, now.wall).await;
                let (entries, _) = append(entries, None, acks, now);
                (names, entries)
            };
            return if acks == Acks::None {
                Reply::ExclusiveNothing(Box::pin(async move {
                    let (_, entries) = recoded.await;
                    close_on_error(&entries)
                }))
            } else {
                Reply::exclusive(async move {
                    let (names, entries) = recoded.await;
                    answer_when_stored(names, entries, timeout, &call).await
                })
            };
        }
        let (mut entries, ticket) = append(entries, Some(call.arrival), acks, now);
        if let Some(ticket) = ticket {
            call.context.connection.ticket.put(ticket);
        }
        if acks == Acks::None {
            return match close_on_error(&entries) {
                Ok(()) => Reply::Nothing,
                Err(close) => Reply::Close(close),
            };
        }
        if take_acks(&mut entries) {
            return Reply::Now(respond(names, entries, &call));
        }
        Reply::later(async move { answer_when_stored(names, entries, timeout, &call).await })
    }
}

/// Resolves and checks every partition's batch; nothing is stored yet.
fn check(request: &ProduceRequest, call: &Call, now: Timestamp) -> (Names, Vec<Entry>) {
    let image = call.broker.metadata.image();
    let mut names = Names(Vec::with_capacity(request.topic_data.len()));
    let mut entries = Vec::with_capacity(request.topic_data.len());
    for (at, data) in request.topic_data.iter().enumerate() {
        names.0.push((data.name.clone(), data.topic_id));
        let wanted = if call.version() >= TOPIC_IDS_SINCE {
            TopicRef::Id(resolve::topic_id(data.topic_id))
        } else {
            TopicRef::Name((&*data.name).into())
        };
        let topic = resolve::topic(&image, &wanted).and_then(|topic| authorize(call, topic));
        for partition in &data.partition_data {
            let slot = match &topic {
                Ok(topic) => check_partition(topic, partition, call, now),
                Err(code) => Slot::Done(Err(Refusal::bare(*code))),
            };
            entries.push(Entry { topic: at, index: partition.index, slot });
        }
    }
    (names, entries)
}

fn authorize<'a>(call: &Call, topic: &'a Arc<Topic>) -> Result<&'a Arc<Topic>, ErrorCode> {
    if call.broker.authorizer.allows(&call.context, Operation::Write, Resource::Topic(&topic.name)) {
        Ok(topic)
    } else {
        Err(ErrorCode::TOPIC_AUTHORIZATION_FAILED)
    }
}

fn check_partition(topic: &Topic, sent: &PartitionProduceData, call: &Call, now: Timestamp) -> Slot {
    let checked = || -> Result<Slot, Refusal> {
        if topic.internal {
            let words = "only the broker itself writes to its internal topics";
            return Err(Refusal::new(ErrorCode::INVALID_TOPIC_EXCEPTION, words));
        }
        let partition = resolve::leader(&call.broker, topic, sent.index).map_err(Refusal::bare)?;
        let bytes = sent.records.as_ref().map(|records| records.to_bytes()).unwrap_or_default();
        let rules = rules(&topic.config, call.version());
        Ok(match check_batch(&bytes, &rules, &topic.config, now)? {
            Checkup::Good(batch) => Slot::Ready(partition, batch),
            Checkup::Recode(batch) => {
                let inflated_bytes_max = call.broker.config.limits.inflated_batch_bytes.as_usize();
                let recode = Recode { batch, rules, policy: topic.config.compression_type, inflated_bytes_max };
                Slot::Recode(partition, recode)
            }
        })
    };
    checked().unwrap_or_else(|refusal| Slot::Done(Err(refusal)))
}

enum Checkup {
    Good(CheckedBatch),
    Recode(batch::Batch),
}

fn check_batch(bytes: &Bytes, rules: &Rules, config: &TopicConfig, now: Timestamp) -> Result<Checkup, Refusal> {
    let batch = match batch::check(bytes, rules, now)? {
        Checked::Inflate(batch) => return Ok(Checkup::Recode(batch)),
        Checked::Good(batch) => batch,
    };
    let sent = batch.header().attributes.compression();
    if recode::is_as_wanted(sent, config.compression_type) {
        Ok(Checkup::Good(batch))
    } else {
        Ok(Checkup::Recode(batch.into_batch()))
    }
}

fn rules(config: &TopicConfig, version: i16) -> Rules {
    Rules {
        max_message_bytes: config.max_message_bytes,
        timestamp_type: config.message_timestamp_type,
        timestamp_before_max_ms: config.message_timestamp_before_max_ms,
        timestamp_after_max_ms: config.message_timestamp_after_max_ms,
        keys_required: config.cleanup_policy.compact,
        validation: config.validation,
        zstd_allowed: version >= ZSTD_SINCE,
    }
}

async fn recode_all(entries: Vec<Entry>, now: Timestamp) -> Vec<Entry> {
    let mut recoded = Vec::with_capacity(entries.len());
    for entry in entries {
        let Entry { topic, index, slot } = entry;
        let slot = match slot {
            Slot::Recode(partition, recode) => match recode::run(recode, now).await {
                Ok(batch) => Slot::Ready(partition, batch),
                Err(rejection) => Slot::Done(Err(rejection.into())),
            },
            other => other,
        };
        recoded.push(Entry { topic, index, slot });
    }
    recoded
}

/// Orders every checked batch, then writes what was ordered. Of a request with an arrival one batch may be followed.
fn append(entries: Vec<Entry>, arrival: Option<Arrival>, acks: Acks, now: Now) -> (Vec<Entry>, Option<Ticket>) {
    let mut ticket = None;
    let mut ordered: Vec<Arc<Partition>> = Vec::with_capacity(entries.len());
    let entries = entries
        .into_iter()
        .map(|Entry { topic, index, slot }| {
            let slot = match slot {
                Slot::Ready(partition, batch) => {
                    let stored = append_one(&partition, arrival, batch, acks, now, &mut ticket);
                    if stored.is_ok() {
                        ordered.push(partition);
                    }
                    Slot::Done(stored)
                }
                other => other,
            };
            Entry { topic, index, slot }
        })
        .collect();
    for partition in ordered {
        partition.write();
    }
    (entries, ticket)
}

fn append_one(
    partition: &Arc<Partition>,
    arrival: Option<Arrival>,
    batch: CheckedBatch,
    acks: Acks,
    now: Now,
    ticket: &mut Option<Ticket>,
) -> Result<Stored, Refusal> {
    let arrival = arrival.filter(|_| ticket.is_none());
    let log_append_time = batch.header().attributes.is_log_append_time();
    let log_append_time_ms = if log_append_time { batch.header().max_timestamp.0 } else { Timestamp::NONE.0 };
    let appended = match partition.append_from(arrival, batch.clone(), acks, now) {
        Err(AppendError::Log(Refused::Busy)) => {
            // Too much waits to be written: help writing before giving up.
            partition.write();
            partition.append_from(arrival, batch, acks, now)
        }
        other => other,
    };
    if let Err(AppendError::Log(Refused::Full)) = &appended {
        warn_of_full_disk(partition, now.wall);
    }
    let (placed, ack, followed) = appended?;
    if followed.is_some() {
        *ticket = followed;
    }
    Ok(Stored {
        base_offset: placed.base_offset.0,
        log_append_time_ms,
        log_start: partition.standing().log_start.0,
        has_place: placed.found != Found::Forgotten,
        ack,
    })
}

/// Tells the operator, but not for every refused batch: producers try again, and often.
fn warn_of_full_disk(partition: &Partition, now: Timestamp) {
    const EVERY_MS: i64 = 10_000;
    static LAST: AtomicI64 = AtomicI64::new(0);
    let last = LAST.load(Ordering::Relaxed);
    let due = now.0.saturating_sub(last) >= EVERY_MS;
    if due && LAST.compare_exchange(last, now.0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        tracing::error!(
            topic = partition.topic(),
            partition = partition.index(),
            "the disk is full: records are refused until there is room; make some, shorten a topic's retention, or delete one"
        );
    }
}

/// acks=0 has no answer to carry an error: closing the connection is how the client learns of it.
fn close_on_error(entries: &[Entry]) -> Result<(), Close> {
    let failed = entries.iter().find_map(|entry| match &entry.slot {
        Slot::Done(Err(refusal)) => Some((entry, refusal)),
        _ => None,
    });
    match failed {
        Some((entry, refusal)) => Err(Close(format!(
            "produce with acks=0 to partition {} failed: {} {}",
            entry.index,
            refusal.code,
            refusal.words.as_deref().unwrap_or_default()
        ))),
        None => Ok(()),
    }
}

/// Takes the acknowledgements that have come; true when none is outstanding.
fn take_acks(entries: &mut [Entry]) -> bool {
    let mut all = true;
    for entry in entries {
        let Slot::Done(outcome) = &mut entry.slot else { continue };
        let Ok(Stored { ack: Some(ack), .. }) = outcome else { continue };
        match ack.try_recv() {
            Ok(Ok(())) => {
                if let Ok(stored) = outcome {
                    stored.ack = None;
                }
            }
            Ok(Err(why)) => *outcome = Err(why.into()),
            Err(TryRecvError::Empty) => all = false,
            Err(TryRecvError::Closed) => *outcome = Err(Abandoned::LogFailed.into()),
        }
    }
    all
}

impl From<Abandoned> for Refusal {
    fn from(why: Abandoned) -> Self {
        let code = match why {
            Abandoned::LogFailed => ErrorCode::KAFKA_STORAGE_ERROR,
            Abandoned::Resigned => ErrorCode::NOT_LEADER_OR_FOLLOWER,
            Abandoned::TooFewInSync => ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        };
        Refusal::new(code, why.to_string())
    }
}

async fn answer_when_stored(names: Names, mut entries: Vec<Entry>, timeout: Duration, call: &Call) -> ProduceResponse {
    let all = async {
        for entry in &mut entries {
            let Slot::Done(outcome) = &mut entry.slot else { continue };
            let Ok(Stored { ack: Some(ack), .. }) = outcome else { continue };
            match ack.await.unwrap_or(Err(Abandoned::LogFailed)) {
                Err(why) => *outcome = Err(why.into()),
                Ok(()) => {
                    if let Ok(stored) = outcome {
                        stored.ack = None;
                    }
                }
            }
        }
    };
    if tokio::time::timeout(timeout, all).await.is_err() {
        for entry in &mut entries {
            if let Slot::Done(outcome @ Ok(Stored { ack: Some(_), .. })) = &mut entry.slot {
                let words = "the records are appended but were not committed in the time that the request allows";
                *outcome = Err(Refusal::new(ErrorCode::REQUEST_TIMED_OUT, words));
            }
        }
    }
    respond(names, entries, call)
}

fn respond(names: Names, entries: Vec<Entry>, call: &Call) -> ProduceResponse {
    let mut responses: Vec<TopicProduceResponse> = names
        .0
        .into_iter()
        .map(|(name, topic_id)| TopicProduceResponse { name, topic_id, partition_responses: Vec::new() })
        .collect();
    for Entry { topic, index, slot } in entries {
        let mut response = PartitionProduceResponse { index, base_offset: -1, ..Default::default() };
        match slot {
            Slot::Done(Ok(stored)) => {
                if !stored.has_place {
                    // For clients this is success, with an offset that nobody knows any more.
                    response.error_code = ErrorCode::DUPLICATE_SEQUENCE_NUMBER.0;
                }
                response.base_offset = stored.base_offset;
                response.log_append_time_ms = stored.log_append_time_ms;
                response.log_start_offset = stored.log_start;
            }
            Slot::Done(Err(refusal)) => {
                call.broker.metrics.api(0).error(refusal.code.0);
                response.error_code = refusal.code.0;
                response.error_message = refusal.words.map(Into::into);
                response.record_errors = refusal.records.into_iter().map(record_error).collect();
            }
            // Every slot is done before a response is made of it.
            Slot::Ready(..) | Slot::Recode(..) => response.error_code = ErrorCode::UNKNOWN_SERVER_ERROR.0,
        }
        responses[topic].partition_responses.push(response);
    }
    ProduceResponse { responses, ..Default::default() }
}

fn record_error((batch_index, words): (i32, String)) -> BatchIndexAndErrorMessage {
    BatchIndexAndErrorMessage { batch_index, batch_index_error_message: Some(words.into()) }
}

fn refuse_all(request: &ProduceRequest, code: ErrorCode) -> ProduceResponse {
    let topic = |data: &TopicProduceData| TopicProduceResponse {
        name: data.name.clone(),
        topic_id: data.topic_id,
        partition_responses: data
            .partition_data
            .iter()
            .map(|partition| PartitionProduceResponse {
                index: partition.index,
                error_code: code.0,
                base_offset: -1,
                ..Default::default()
            })
            .collect(),
    };
    ProduceResponse { responses: request.topic_data.iter().map(topic).collect(), ..Default::default() }
}
