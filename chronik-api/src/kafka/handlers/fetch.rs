//! Fetch (1): reads record batches, waiting for them if need be.
//!
//! - The first partition that has anything gives at least one batch, whatever the limits say; an error in any partition
//!   answers at once; `min_bytes` counts what can be read.
//! - A waiting fetch is woken by the watermark, by a deletion, or by its deadline, never by polling.
//! - Sessions (KIP-227) are in [`crate::kafka::fetch_sessions`]; from version 13 topics are named by id.
//! - What was written or read before and is still in memory is not read: the kernel sends it from its file
//!   ([`chronik_core::wal::InFile`]).
//! - A fetch pays for memory before it reads. It waits for it while it holds nothing; what it cannot pay for beside what
//!   it holds is left for the next fetch. So no fetch ever waits for memory that another one holds while waiting.
//! - There are no transactions, so the last stable offset is the watermark and nothing is aborted.

pub use chronik_proto_kafka::api::fetch::FetchRequest;

use crate::broker::Broker;
use crate::kafka::connection::Paid;
use crate::kafka::context::{Operation, Resource};
use crate::kafka::fetch_sessions::{Asked, Fetch, SessionError, Target, Told, TopicRef, Wanted};
use crate::kafka::handler::{Call, Handler, Reply};
use crate::kafka::resolve;
use crate::partitions::Partition;
use bytes::Bytes;
use chronik_core::ids::{LeaderEpoch, NodeId, Offset, TopicId};
use chronik_core::metadata::names;
use chronik_core::partition::leader::Leader;
use chronik_core::payload::Payload;
use chronik_core::wal::{ReadRange, WalError};
use chronik_proto_kafka::api::fetch::*;
use chronik_proto_kafka::{ErrorCode, InFile, Records, Str};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

const TOPIC_IDS_SINCE: i16 = 13;
/// Consumers that know of reading from followers (KIP-392); earlier ones would not look for the leader again.
const FOLLOWERS_SERVE_SINCE: i16 = 11;
const READ_COMMITTED: i8 = 1;
/// "Not a replica": an ordinary consumer.
const CONSUMER: i32 = -1;

/// What a partition is answered with.
struct Outcome {
    code: ErrorCode,
    high_watermark: i64,
    log_start: i64,
    diverging: Option<(LeaderEpoch, Offset)>,
    /// A replica nearer to the consumer, which is to be read from instead (KIP-392).
    nearer: Option<NodeId>,
    records: Records,
}

impl Outcome {
    fn error(code: ErrorCode) -> Self {
        Self { code, high_watermark: -1, log_start: -1, diverging: None, nearer: None, records: Records::default() }
    }

    fn must_send(&self) -> bool {
        self.is_news() || !self.records.is_empty()
    }

    /// It must be told at once, however little there is to read.
    fn is_news(&self) -> bool {
        self.code.is_error() || self.diverging.is_some() || self.nearer.is_some()
    }
}

/// What a fetch goes by, besides its partitions.
struct Terms {
    min_bytes: usize,
    max_bytes: usize,
    deadline: Instant,
    read_committed: bool,
    by_topic_id: bool,
    /// The consumer's; empty if it does not say.
    rack: String,
}

impl Handler for FetchRequest {
    fn handle(self, call: Call) -> Reply<FetchResponse> {
        let limits = &call.broker.config.limits;
        let wait =
            Duration::from_millis(self.max_wait_ms.max(0).unsigned_abs().into()).min(limits.fetch_wait_ms.duration());
        let terms = Terms {
            min_bytes: usize::try_from(self.min_bytes).unwrap_or(0),
            max_bytes: usize::try_from(self.max_bytes).unwrap_or(0).min(limits.fetch_bytes.as_usize()),
            deadline: Instant::now() + wait,
            read_committed: self.isolation_level == READ_COMMITTED,
            by_topic_id: call.version() >= TOPIC_IDS_SINCE,
            rack: self.rack_id.to_string(),
        };
        let replica = if call.version() >= 15 { self.replica_state.replica_id } else { self.replica_id };
        if replica > CONSUMER {
            // This node has no followers that speak Kafka's protocol; whoever claims to be one is not.
            return Reply::Now(whole(ErrorCode::CLUSTER_AUTHORIZATION_FAILED));
        }
        if self.topics.iter().map(|topic| &topic.topic).any(is_too_long)
            || self.forgotten_topics_data.iter().map(|topic| &topic.topic).any(is_too_long)
        {
            // It would be looked up once for each of its partitions.
            return Reply::Now(whole(ErrorCode::INVALID_TOPIC_EXCEPTION));
        }
        let asked = asked(self, terms.by_topic_id);
        let fetch = match call.broker.sessions.begin(asked, call.broker.clock.wall()) {
            Ok(fetch) => fetch,
            Err(refused) => return Reply::Now(whole(session_error(refused))),
        };
        Reply::in_turn(async move {
            let outcomes = collect(&call, &fetch, &terms).await;
            respond(&call.broker, fetch, outcomes, &terms)
        })
    }
}

/// No topic has such a name.
fn is_too_long(name: &Str) -> bool {
    name.len() > names::TOPIC_NAME_BYTES_MAX
}

fn session_error(refused: SessionError) -> ErrorCode {
    match refused {
        SessionError::NotFound => ErrorCode::FETCH_SESSION_ID_NOT_FOUND,
        SessionError::InvalidEpoch => ErrorCode::INVALID_FETCH_SESSION_EPOCH,
        SessionError::TopicIds => ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR,
    }
}

fn whole(code: ErrorCode) -> FetchResponse {
    FetchResponse { error_code: code.0, ..Default::default() }
}

fn topic_ref(name: &str, id: chronik_proto_kafka::Uuid, by_topic_id: bool) -> TopicRef {
    if by_topic_id { TopicRef::Id(resolve::topic_id(id)) } else { TopicRef::Name(name.into()) }
}

fn asked(request: FetchRequest, by_topic_id: bool) -> Asked {
    let targets = request.topics.iter().flat_map(|topic| {
        let name = topic_ref(&topic.topic, topic.topic_id, by_topic_id);
        topic.partitions.iter().map(move |partition| Target {
            topic: name.clone(),
            partition: partition.partition,
            wanted: Wanted {
                fetch_offset: partition.fetch_offset,
                current_leader_epoch: partition.current_leader_epoch,
                last_fetched_epoch: partition.last_fetched_epoch,
                max_bytes: partition.partition_max_bytes,
            },
        })
    });
    let forgotten = request.forgotten_topics_data.iter().flat_map(|topic| {
        let name = topic_ref(&topic.topic, topic.topic_id, by_topic_id);
        topic.partitions.iter().map(move |partition| (name.clone(), *partition))
    });
    Asked {
        session_id: request.session_id,
        session_epoch: request.session_epoch,
        by_topic_id,
        targets: targets.collect(),
        forgotten: forgotten.collect(),
    }
}

/// Reads until there is enough, something must be told, or the deadline has come.
async fn collect(call: &Call, fetch: &Fetch, terms: &Terms) -> Vec<Outcome> {
    let mut wake: Option<Arc<Notify>> = None;
    loop {
        // Whoever waits registers before it looks, so that what comes in between wakes it.
        if let Some(wake) = &wake {
            watch(&call.broker, fetch, wake);
        }
        let outcomes = look(call, fetch, terms).await;
        let bytes: usize = outcomes.iter().map(|outcome| outcome.records.len()).sum();
        let told = outcomes.iter().any(Outcome::is_news);
        let expired = Instant::now() >= terms.deadline;
        if told || bytes >= terms.min_bytes || expired || fetch.targets.is_empty() {
            return outcomes;
        }
        // Nobody holds memory while waiting for more.
        drop(outcomes);
        match &wake {
            None => wake = Some(Arc::default()),
            Some(wake) => {
                // The deadline is looked at above; being woken by it is all that is needed here.
                let _ = tokio::time::timeout_at(terms.deadline, wake.notified()).await;
            }
        }
    }
}

fn watch(broker: &Broker, fetch: &Fetch, wake: &Arc<Notify>) {
    let image = broker.metadata.image();
    for target in &fetch.targets {
        if let Ok(topic) = resolve::topic(&image, &target.topic)
            && let Ok(partition) = resolve::replica(broker, topic, target.partition)
        {
            partition.watch(wake);
        }
    }
}

/// Reads every partition once, in the fetch's order, within its limits.
async fn look(call: &Call, fetch: &Fetch, terms: &Terms) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(fetch.targets.len());
    let mut bytes = 0;
    for target in &fetch.targets {
        let room = terms.max_bytes.saturating_sub(bytes);
        let outcome = match read(call, target, terms, room, bytes == 0).await {
            Ok(outcome) => outcome,
            Err(code) => Outcome::error(code),
        };
        bytes += outcome.records.len();
        outcomes.push(outcome);
    }
    outcomes
}

fn find(call: &Call, target: &Target) -> Result<Arc<Partition>, ErrorCode> {
    let image = call.broker.metadata.image();
    let topic = resolve::topic(&image, &target.topic)?;
    if !call.broker.authorizer.allows(&call.context, Operation::Read, Resource::Topic(&topic.name)) {
        return Err(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
    }
    resolve::replica(&call.broker, topic, target.partition)
}

/// The replica in the consumer's rack that is to be read from instead of this leader, if this one is elsewhere: in sync, at
/// work, and with what comes next; of several the one that has most (KIP-392).
fn nearer(call: &Call, partition: &Partition, from: Offset, rack: &str) -> Option<NodeId> {
    let image = call.broker.metadata.image();
    let is_there =
        |node: &NodeId| image.broker(*node).is_some_and(|it| it.is_active() && it.rack.as_deref() == Some(rack));
    if rack.is_empty() || call.version() < FOLLOWERS_SERVE_SINCE || is_there(&call.broker.node) {
        return None;
    }
    let id = partition.id();
    let in_sync = &image.partition(id.topic, id.partition)?.isr;
    let candidates = |leader: &Leader<_>| {
        let all = leader.replicas().followers();
        let near = all.filter(|(node, written, ..)| in_sync.contains(node) && *written >= from && is_there(node));
        near.max_by_key(|(node, written, ..)| (*written, std::cmp::Reverse(*node))).map(|(node, ..)| node)
    };
    partition.with_leader(candidates)?
}

async fn read(call: &Call, target: &Target, terms: &Terms, room: usize, min_one: bool) -> Result<Outcome, ErrorCode> {
    let partition = find(call, target)?;
    let standing = partition.standing();
    if !standing.leads && call.version() < FOLLOWERS_SERVE_SINCE {
        return Err(ErrorCode::NOT_LEADER_OR_FOLLOWER);
    }
    resolve::check_leader_epoch(target.wanted.current_leader_epoch, standing.epoch.0)?;
    let mut outcome = Outcome {
        code: ErrorCode::NONE,
        high_watermark: standing.high_watermark.0,
        log_start: standing.log_start.0,
        diverging: None,
        nearer: None,
        records: Records::default(),
    };
    let from = Offset(target.wanted.fetch_offset);
    if target.wanted.last_fetched_epoch >= 0 {
        let asked = LeaderEpoch(target.wanted.last_fetched_epoch);
        let end = partition.with_epochs(|epochs, log_end| epochs.end_of(asked, log_end));
        outcome.diverging = end.filter(|(epoch, end)| *epoch < asked || *end < from);
        if outcome.diverging.is_some() {
            return Ok(outcome);
        }
    }
    if from < standing.log_start || from > standing.log_end {
        outcome.code = ErrorCode::OFFSET_OUT_OF_RANGE;
        return Ok(outcome);
    }
    outcome.nearer = nearer(call, &partition, from, &terms.rack);
    if outcome.nearer.is_some() {
        return Ok(outcome);
    }
    if from >= standing.high_watermark || (room == 0 && !min_one) {
        return Ok(outcome);
    }
    let wanted = usize::try_from(target.wanted.max_bytes).unwrap_or(0);
    let range = ReadRange { from, upto: standing.high_watermark, max_bytes: wanted.min(room), min_one };
    if let Some(records) = in_files(&partition, range, terms) {
        partition.metrics().fetched_bytes.add(records.len() as u64);
        outcome.records = records;
        return Ok(outcome);
    }
    // Paid for before it is read, and until its last slice has been sent.
    let memory = &call.broker.answer_memory;
    let paid = if min_one { memory.take(range.max_bytes).await } else { memory.try_take(range.max_bytes) };
    let Some(paid) = paid else { return Ok(outcome) };
    match partition.read(range).await {
        Ok(chunk) => {
            if !chunk.bytes.is_empty() {
                partition.metrics().fetched_bytes.add(chunk.bytes.len() as u64);
            }
            outcome.records = with_payment(chunk.bytes, paid);
            Ok(outcome)
        }
        Err(failure) => Err(read_error(&partition, failure)),
    }
}

/// What needs no reading. It may end early, where a read would give more: if that is less than the consumer waits for, it is
/// left to be read, for who has too little waits though more is there.
fn in_files(partition: &Partition, range: ReadRange, terms: &Terms) -> Option<Records> {
    let chunk = partition.in_files(range)?;
    let sent_from = |part| {
        let chronik_core::wal::InFile { file, position, bytes } = part;
        InFile { file, position, bytes }
    };
    let records: Records = chunk.parts.into_iter().map(sent_from).collect();
    (records.len() >= terms.min_bytes || chunk.next_offset >= range.upto).then_some(records)
}

/// Ties a payment to the last slice of what it was made for.
fn with_payment(records: Payload, mut paid: Paid) -> Records {
    struct Owner {
        bytes: Bytes,
        /// Given back when the last slice is dropped, which is when it has been sent.
        _paid: Paid,
    }
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    paid.shrink_to(records.len());
    let last = records.parts().len().saturating_sub(1);
    let mut paid = Some(paid);
    let tie = |(at, part)| match paid.take_if(|_| at == last) {
        Some(paid) => Bytes::from_owner(Owner { bytes: part, _paid: paid }),
        None => part,
    };
    records.into_iter().enumerate().map(tie).collect()
}

/// What a client is told of a failed read; what an operator must know is logged.
pub fn read_error(partition: &Arc<Partition>, failure: WalError) -> ErrorCode {
    if let WalError::Corrupt { offset } = &failure {
        partition.found_damaged(*offset);
    }
    match failure {
        WalError::OutOfRange { .. } => ErrorCode::OFFSET_OUT_OF_RANGE,
        WalError::Closed => ErrorCode::NOT_LEADER_OR_FOLLOWER,
        WalError::Corrupt { .. } | WalError::Failed(_) | WalError::Full | WalError::Io(_) => {
            tracing::error!(
                topic = partition.topic(),
                partition = partition.index(),
                error = &failure as &dyn std::error::Error,
                "a read failed"
            );
            ErrorCode::KAFKA_STORAGE_ERROR
        }
    }
}

fn respond(broker: &Broker, fetch: Fetch, outcomes: Vec<Outcome>, terms: &Terms) -> FetchResponse {
    let told = outcomes.iter().map(|outcome| Told {
        high_watermark: outcome.high_watermark,
        log_start: outcome.log_start,
        must_send: outcome.must_send(),
    });
    let send = broker.sessions.finish(&fetch, told);
    let mut responses: Vec<FetchableTopicResponse> = Vec::new();
    for ((target, outcome), send) in fetch.targets.into_iter().zip(outcomes).zip(send) {
        if !send {
            continue;
        }
        if outcome.code.is_error() {
            broker.metrics.api(1).error(outcome.code.0);
        }
        let (name, id) = match &target.topic {
            TopicRef::Name(name) => (&**name, TopicId::NONE),
            TopicRef::Id(id) => ("", *id),
        };
        let same = |last: &&mut FetchableTopicResponse| {
            last.topic_id == resolve::uuid(id) && (terms.by_topic_id || last.topic == name)
        };
        let data = partition_data(target.partition, outcome, terms);
        match responses.last_mut().filter(same) {
            Some(topic) => topic.partitions.push(data),
            None => responses.push(FetchableTopicResponse {
                topic: name.into(),
                topic_id: resolve::uuid(id),
                partitions: vec![data],
            }),
        }
    }
    FetchResponse { session_id: fetch.session_id, responses, ..Default::default() }
}

fn partition_data(partition_index: i32, outcome: Outcome, terms: &Terms) -> PartitionData {
    let diverging_epoch = match outcome.diverging {
        Some((epoch, end)) => EpochEndOffset { epoch: epoch.0, end_offset: end.0 },
        None => EpochEndOffset::default(),
    };
    PartitionData {
        partition_index,
        error_code: outcome.code.0,
        high_watermark: outcome.high_watermark,
        last_stable_offset: outcome.high_watermark,
        log_start_offset: outcome.log_start,
        aborted_transactions: terms.read_committed.then(Vec::new),
        records: Some(outcome.records),
        diverging_epoch,
        preferred_read_replica: outcome.nearer.map_or(-1, |node| node.0),
        ..Default::default()
    }
}
