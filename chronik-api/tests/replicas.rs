//! Replicas of one partition on several nodes, over memory logs and a channel that hands messages over in order: what the
//! network layers and the metadata have to provide is done by hand here.

use bytes::Bytes;
use chronik_api::assemble::engines::Engines;
use chronik_api::clock::Clock;
use chronik_api::metrics::Metrics;
use chronik_api::partitions::partition::Surroundings;
use chronik_api::partitions::stall::StallWatch;
use chronik_api::partitions::table::{Assignment, OpenError};
use chronik_api::partitions::throttle::{ThrottleSample, Throttling};
use chronik_api::partitions::{Partition, PartitionTable};
use chronik_core::batch::{self, Builder, CheckedBatch, RecordOut, Records};
use chronik_core::driver::{AppendError, Assumption, Part};
use chronik_core::ids::{LeaderEpoch, LogId, NodeId, Offset, TopicId};
use chronik_core::metadata::dynamic_broker_config::DynamicBrokerConfig;
use chronik_core::partition::checkpoint::{Checkpoint, META_KEY};
use chronik_core::partition::leader::{Abandoned, Acks, Durability, Refused};
use chronik_core::partition::replicas::Membership;
use chronik_core::pending::Pending;
use chronik_core::replication::{Attached, Event, Message, ReplicationChannel};
use chronik_core::wal::{OpenMode, OpenOptions, ReadRange, WalEngine};
use chronik_storage_memory::MemoryEngine;
use chronik_storage_segment::{SegmentEngine, SegmentOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

const LOG: LogId = LogId { topic: TopicId([7; 16]), partition: 0 };
/// No step takes this long; a story that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What all nodes' channels share: which sessions there are, and where each node's events go.
#[derive(Default)]
struct Network {
    inboxes: Mutex<BTreeMap<NodeId, mpsc::UnboundedSender<Event>>>,
    sessions: Mutex<BTreeSet<(NodeId, NodeId)>>,
}

struct Channel {
    me: NodeId,
    network: Arc<Network>,
}

/// An engine that topics call `segment`, whatever it is.
fn one_engine(engine: impl WalEngine + 'static) -> Arc<Engines> {
    Arc::new(Engines::only("segment", Arc::new(engine)))
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}

impl Network {
    fn tell(&self, node: NodeId, event: Event) {
        let inboxes = self.inboxes.lock().expect("no test panics in here");
        let _ = inboxes[&node].send(event);
    }

    fn connect(&self, a: NodeId, b: NodeId) {
        if self.sessions.lock().expect("no test panics in here").insert(pair(a, b)) {
            self.tell(a, Event::Up { peer: b, broker_epoch: Offset(1) });
            self.tell(b, Event::Up { peer: a, broker_epoch: Offset(1) });
        }
    }

    fn cut(&self, a: NodeId, b: NodeId) {
        if self.sessions.lock().expect("no test panics in here").remove(&pair(a, b)) {
            self.tell(a, Event::Down { peer: b });
            self.tell(b, Event::Down { peer: a });
        }
    }
}

impl ReplicationChannel for Channel {
    fn send(&self, to: NodeId, log: LogId, message: Message) {
        let sessions = self.network.sessions.lock().expect("no test panics in here");
        if sessions.contains(&pair(self.me, to)) {
            self.network.tell(to, Event::Message { from: self.me, log, message });
        }
    }
}

struct Cluster {
    network: Arc<Network>,
    clock: Clock,
    nodes: BTreeMap<NodeId, Arc<PartitionTable>>,
    version: i32,
    /// Nodes whose replicas the topic says are throttled, at either end.
    throttled: BTreeSet<i32>,
}

/// What the metadata would say.
#[derive(Clone, Copy)]
struct Facts<'a> {
    epoch: i32,
    leader: i32,
    in_sync: &'a [i32],
    in_sync_min: usize,
}

impl Cluster {
    fn new(nodes: i32) -> Self {
        let mut cluster = Self {
            network: Arc::default(),
            clock: Clock::start(),
            nodes: BTreeMap::new(),
            version: 0,
            throttled: BTreeSet::new(),
        };
        for id in 1..=nodes {
            cluster.start(id, Arc::new(MemoryEngine::new(1 << 30)));
        }
        cluster
    }

    /// A process of a node, over what keeps its logs.
    fn start(&mut self, id: i32, engine: Arc<dyn WalEngine>) {
        let (id, network) = (NodeId(id), &self.network);
        let (sender, mut inbox) = mpsc::unbounded_channel();
        network.inboxes.lock().expect("no test panics in here").insert(id, sender);
        let around = Surroundings {
            node: id,
            clock: self.clock,
            stalls: StallWatch::start(tokio::runtime::Handle::current()).expect("a thread"),
            channel: Arc::new(Channel { me: id, network: network.clone() }),
            throttling: Throttling::default(),
            sampling: Arc::default(),
            runtime: tokio::runtime::Handle::current(),
        };
        let table = Arc::new(PartitionTable::new(Arc::new(Engines::only("segment", engine)), around));
        let of_node = table.clone();
        tokio::spawn(async move {
            while let Some(event) = inbox.recv().await {
                of_node.take(event);
            }
        });
        self.nodes.insert(id, table);
    }

    fn connect_all(&self) {
        for a in self.nodes.keys() {
            for b in self.nodes.keys().filter(|b| *b > a) {
                self.network.connect(*a, *b);
            }
        }
    }

    /// Tells these nodes what is so now.
    async fn tell(&mut self, nodes: &[i32], facts: Facts<'_>) {
        let failures = self.tell_and_hear(nodes, facts).await;
        assert!(failures.is_empty(), "it opens: {failures:?}");
    }

    async fn tell_and_hear(&mut self, nodes: &[i32], facts: Facts<'_>) -> Vec<OpenError> {
        self.version += 1;
        let mut failures = Vec::new();
        for node in nodes.iter().copied().map(NodeId) {
            let membership = Membership {
                replicas: self.nodes.keys().copied().collect(),
                in_sync: facts.in_sync.iter().copied().map(NodeId).collect(),
                in_sync_min: facts.in_sync_min,
                partition_epoch: self.version,
            };
            let part = if NodeId(facts.leader) == node {
                Part::Lead { membership, lag_max: Duration::from_secs(600) }
            } else {
                Part::Follow { leader: Some(NodeId(facts.leader)), unclean_epoch: None }
            };
            let is_in_sync = facts.in_sync.contains(&node.0) && facts.leader != node.0;
            let throttled = self.throttled.contains(&node.0) && !is_in_sync;
            let assumption =
                Assumption { epoch: LeaderEpoch(facts.epoch), durability: Durability::Fsync, throttled, part };
            let assignment = Assignment {
                id: LOG,
                topic: "t".into(),
                storage: "segment".into(),
                metrics: Metrics::default().topic("t"),
                assumption,
                segment_bytes: 1 << 20,
                is_replaceable: NodeId(facts.leader) != node && !facts.in_sync.contains(&node.0),
                may_begin: true,
            };
            failures.extend(self.nodes[&node].assign(vec![assignment]).await);
        }
        failures
    }

    fn replica(&self, node: i32) -> Arc<Partition> {
        self.nodes[&NodeId(node)].get(LOG.topic, LOG.partition).expect("it was told of it")
    }

    /// Appends on a node; how it ended.
    async fn append(&self, node: i32, value: &str, acks: Acks) -> Result<(), String> {
        let replica = self.replica(node);
        let (_, ack) = replica.append(record(value), acks, self.clock.now()).map_err(|why| why.to_string())?;
        replica.write();
        let told = tokio::time::timeout(PATIENCE, ack.expect("an acknowledgement was asked for")).await;
        told.expect("it is told in time").expect("it is told").map_err(|why| why.to_string())
    }

    async fn values(&self, node: i32) -> Vec<String> {
        let replica = self.replica(node);
        let standing = replica.standing();
        let (from, upto) = (standing.log_start, standing.log_end);
        let chunk = replica.read(ReadRange { from, upto, max_bytes: usize::MAX, min_one: true }).await.expect("read");
        let of = |batch: &batch::Batch| {
            let values = Records::new(&batch.records)
                .map(|record| String::from_utf8_lossy(record.expect("a record").value.expect("a value")).into_owned());
            values.collect::<Vec<_>>()
        };
        batch::batches(&chunk.bytes).flat_map(|batch| of(&batch.expect("whole"))).collect()
    }

    /// The very bytes of a node's log.
    async fn bytes(&self, node: i32) -> Bytes {
        let replica = self.replica(node);
        let (from, upto) = (replica.standing().log_start, replica.standing().log_end);
        let range = ReadRange { from, upto, max_bytes: usize::MAX, min_one: true };
        replica.read(range).await.expect("read").bytes.to_bytes()
    }

    /// Waits until a node's log ends, and is committed, at an offset.
    async fn reaches(&self, node: i32, end: i64) {
        let reached = async {
            loop {
                let standing = self.replica(node).standing();
                if (standing.log_end, standing.high_watermark) == (Offset(end), Offset(end)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, reached).await;
        in_time.unwrap_or_else(|_| panic!("node {node} stands at {:?}", self.replica(node).standing()));
    }
}

impl Cluster {
    /// What a node may send, or take, a second.
    fn limit(&self, node: i32, side: &str, rate: Option<u64>) {
        let config = match side {
            "leader" => DynamicBrokerConfig { leader_throttled_rate: rate, ..DynamicBrokerConfig::default() },
            _ => DynamicBrokerConfig { follower_throttled_rate: rate, ..DynamicBrokerConfig::default() },
        };
        self.nodes[&NodeId(node)].throttling().configure(self.clock, config);
    }

    fn limited(&self, node: i32, side: &str) -> ThrottleSample {
        let samples = self.nodes[&NodeId(node)].throttling().samples();
        samples.into_iter().find(|sample| sample.side == side).expect("there are two")
    }

    async fn somebody_waits(&self, node: i32, side: &str) {
        let waits = async {
            while self.limited(node, side).waits == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waits).await.unwrap_or_else(|_| panic!("nobody waits at the {side}"));
    }
}

fn record(value: &str) -> CheckedBatch {
    let mut builder = Builder::new(chronik_core::time::Timestamp(1));
    builder.push(&RecordOut { value: Some(value.as_bytes()), ..RecordOut::default() });
    CheckedBatch::trusted(builder.build())
}

#[tokio::test]
async fn what_a_leader_takes_comes_to_all_and_is_acknowledged_then() {
    let mut cluster = Cluster::new(3);
    cluster.connect_all();
    cluster.tell(&[1, 2, 3], Facts { epoch: 0, leader: 1, in_sync: &[1, 2, 3], in_sync_min: 2 }).await;
    for value in ["a", "b", "c"] {
        cluster.append(1, value, Acks::All).await.expect("all have it");
    }
    for node in [1, 2, 3] {
        cluster.reaches(node, 3).await;
        assert_eq!(cluster.values(node).await, ["a", "b", "c"]);
        assert_eq!(cluster.bytes(node).await, cluster.bytes(1).await);
    }
    let refused = cluster.replica(2).append(record("x"), Acks::Leader, cluster.clock.now());
    assert_eq!(refused.map(|_| ()), Err(AppendError::NotLeader));
}

#[tokio::test]
async fn nothing_is_committed_without_a_replica_that_counts_and_it_catches_up_from_where_it_stood() {
    let mut cluster = Cluster::new(2);
    let both = Facts { epoch: 0, leader: 1, in_sync: &[1, 2], in_sync_min: 1 };
    cluster.tell(&[1, 2], both).await;
    cluster.append(1, "a", Acks::Leader).await.expect("the leader has it");
    let waiting = cluster.replica(1).append(record("b"), Acks::All, cluster.clock.now()).expect("taken").1;
    cluster.replica(1).write();
    assert_eq!(cluster.replica(1).standing().high_watermark, Offset(0), "the other has nothing");
    cluster.connect_all();
    let told = tokio::time::timeout(PATIENCE, waiting.expect("asked for")).await.expect("in time").expect("told");
    assert_eq!(told, Ok(()));
    cluster.reaches(2, 2).await;
    // Away for a while, and out of the set.
    cluster.network.cut(NodeId(1), NodeId(2));
    cluster.tell(&[1], Facts { in_sync: &[1], ..both }).await;
    cluster.append(1, "c", Acks::All).await.expect("who is out does not count");
    cluster.connect_all();
    cluster.reaches(2, 3).await;
    let asked = cluster.replica(1).ask_in_sync().expect("it has everything again");
    assert_eq!(asked.in_sync, BTreeSet::from([NodeId(1), NodeId(2)]));
}

#[tokio::test]
async fn who_led_and_comes_back_cuts_what_nobody_else_has() {
    let mut cluster = Cluster::new(3);
    cluster.connect_all();
    let first = Facts { epoch: 0, leader: 1, in_sync: &[1, 2, 3], in_sync_min: 2 };
    cluster.tell(&[1, 2, 3], first).await;
    cluster.append(1, "kept", Acks::All).await.expect("all have it");
    for node in [2, 3] {
        cluster.reaches(node, 1).await;
        cluster.network.cut(NodeId(1), NodeId(node));
    }
    let lost = cluster.replica(1).append(record("lost"), Acks::All, cluster.clock.now()).expect("taken").1;
    cluster.append(1, "lost too", Acks::Leader).await.expect("the leader has it, and that was all it promised");
    let second = Facts { epoch: 1, leader: 2, in_sync: &[2, 3], ..first };
    cluster.tell(&[2, 3], second).await;
    cluster.append(2, "instead", Acks::All).await.expect("both have it");
    cluster.connect_all();
    cluster.tell(&[1], second).await;
    let told = tokio::time::timeout(PATIENCE, lost.expect("asked for")).await.expect("in time").expect("told");
    assert_eq!(told, Err(Abandoned::Resigned));
    cluster.reaches(1, 2).await;
    for node in [1, 2, 3] {
        cluster.reaches(node, 2).await;
        assert_eq!(cluster.values(node).await, ["kept", "instead"]);
        assert_eq!(cluster.bytes(node).await, cluster.bytes(2).await);
    }
}

#[tokio::test]
async fn who_is_behind_the_start_of_its_leaders_log_begins_anew_there() {
    let mut cluster = Cluster::new(2);
    cluster.connect_all();
    let facts = Facts { epoch: 0, leader: 1, in_sync: &[1], in_sync_min: 1 };
    cluster.tell(&[1, 2], facts).await;
    cluster.append(1, "a", Acks::All).await.expect("stored");
    cluster.reaches(2, 1).await;
    cluster.network.cut(NodeId(1), NodeId(2));
    for value in ["b", "c", "d"] {
        cluster.append(1, value, Acks::All).await.expect("stored");
    }
    cluster.replica(1).trim(Offset(3)).await.expect("the log can be trimmed");
    cluster.connect_all();
    cluster.reaches(2, 4).await;
    assert_eq!(cluster.replica(2).standing().log_start, Offset(3));
    assert_eq!(cluster.values(2).await, ["d"]);
    // And what the leader drops later, its follower drops too.
    cluster.replica(1).trim(Offset(4)).await.expect("the log can be trimmed");
    let dropped = async {
        while cluster.replica(2).standing().log_start != Offset(4) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, dropped).await.expect("it is told of it");
}

#[tokio::test]
async fn with_too_few_in_sync_all_is_refused_and_one_is_not() {
    let mut cluster = Cluster::new(2);
    cluster.connect_all();
    cluster.tell(&[1, 2], Facts { epoch: 0, leader: 1, in_sync: &[1], in_sync_min: 2 }).await;
    let refused = cluster.replica(1).append(record("x"), Acks::All, cluster.clock.now()).map(|_| ());
    assert_eq!(refused, Err(AppendError::Leader(Refused::TooFewInSync { in_sync: 1, wanted: 2 })));
    cluster.append(1, "a", Acks::Leader).await.expect("the leader has it");
    assert_eq!(cluster.replica(1).standing().high_watermark, Offset(0));
    cluster.tell(&[1, 2], Facts { epoch: 0, leader: 1, in_sync: &[1, 2], in_sync_min: 2 }).await;
    cluster.append(1, "b", Acks::All).await.expect("both have it");
    cluster.reaches(2, 2).await;
}

/// A leader so near that its answer is there while the question is still being sent.
#[derive(Default)]
struct NearLeader {
    follower: OnceLock<Weak<PartitionTable>>,
    attached: AtomicUsize,
    progress: Notify,
}

impl ReplicationChannel for NearLeader {
    fn send(&self, to: NodeId, log: LogId, message: Message) {
        match message {
            Message::Attach(attach) => {
                self.attached.fetch_add(1, Ordering::SeqCst);
                let Some(table) = self.follower.get().and_then(Weak::upgrade) else { return };
                let answer = Attached::Stream { epoch: attach.epoch, high_watermark: Offset(0) };
                let (sender, taken) = std::sync::mpsc::channel();
                std::thread::spawn(move || {
                    table.take(Event::Message { from: to, log, message: Message::Attached(answer) });
                    let _ = sender.send(());
                });
                // Taken at once if it is not made to wait; either way the question is sent then.
                let _ = taken.recv_timeout(Duration::from_millis(100));
            }
            Message::Progress(_) => self.progress.notify_one(),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_opened_once_and_an_answer_that_comes_meanwhile_finds_it() {
    let channel = Arc::new(NearLeader::default());
    let around = Surroundings {
        node: NodeId(2),
        clock: Clock::start(),
        stalls: StallWatch::start(tokio::runtime::Handle::current()).expect("a thread"),
        channel: channel.clone(),
        throttling: Throttling::default(),
        sampling: Arc::default(),
        runtime: tokio::runtime::Handle::current(),
    };
    let table = Arc::new(PartitionTable::new(one_engine(MemoryEngine::new(1 << 30)), around));
    let _ = channel.follower.set(Arc::downgrade(&table));
    table.take(Event::Up { peer: NodeId(1), broker_epoch: Offset(1) });
    let part = Part::Follow { leader: Some(NodeId(1)), unclean_epoch: None };
    let assignment = Assignment {
        id: LOG,
        topic: "t".into(),
        storage: "segment".into(),
        metrics: Metrics::default().topic("t"),
        assumption: Assumption { epoch: LeaderEpoch(0), durability: Durability::Fsync, throttled: false, part },
        segment_bytes: 1 << 20,
        is_replaceable: false,
        may_begin: true,
    };
    // A topic's creation and its first settings speak of the same replica; two of them over one log would be a disaster.
    assert!(table.assign(vec![assignment.clone(), assignment]).await.is_empty(), "it opens");
    assert_eq!(channel.attached.load(Ordering::SeqCst), 1);
    // Whoever was told to stream says how far it is; one that missed the answer waits for it for ever.
    tokio::time::timeout(PATIENCE, channel.progress.notified()).await.expect("it follows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_opened_counts_as_failed_until_it_can() {
    let around = Surroundings {
        node: NodeId(2),
        clock: Clock::start(),
        stalls: StallWatch::start(tokio::runtime::Handle::current()).expect("a thread"),
        channel: Arc::new(NearLeader::default()),
        throttling: Throttling::default(),
        sampling: Arc::default(),
        runtime: tokio::runtime::Handle::current(),
    };
    let home = tempfile::tempdir().expect("a directory");
    let engine = SegmentEngine::start(home.path().to_owned(), SegmentOptions::default()).expect("starts");
    let in_the_way = home.path().join(LOG.to_string());
    std::fs::write(&in_the_way, "no directory").expect("written");
    let table = PartitionTable::new(one_engine(engine), around);
    let assignment = Assignment {
        id: LOG,
        topic: "t".into(),
        storage: "segment".into(),
        metrics: Metrics::default().topic("t"),
        assumption: Assumption {
            epoch: LeaderEpoch(1),
            durability: Durability::Fsync,
            throttled: false,
            part: Part::Follow { leader: None, unclean_epoch: None },
        },
        segment_bytes: 1 << 20,
        is_replaceable: false,
        may_begin: true,
    };
    assert_eq!(table.assign(vec![assignment.clone()]).await.len(), 1);
    assert_eq!(table.offline(), [LOG], "nobody may make it a leader");
    std::fs::remove_file(&in_the_way).expect("removed");
    assert!(table.assign(vec![assignment]).await.is_empty(), "it opens");
    assert_eq!(table.offline(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_engine_is_not_configured_here_is_offline_and_begun_nowhere_else() {
    let around = Surroundings {
        node: NodeId(2),
        clock: Clock::start(),
        stalls: StallWatch::start(tokio::runtime::Handle::current()).expect("a thread"),
        channel: Arc::new(NearLeader::default()),
        throttling: Throttling::default(),
        sampling: Arc::default(),
        runtime: tokio::runtime::Handle::current(),
    };
    let engines = one_engine(MemoryEngine::new(1 << 30));
    let table = PartitionTable::new(engines.clone(), around);
    let assignment = |partition, storage: &str| Assignment {
        id: LogId { partition, ..LOG },
        topic: "t".into(),
        storage: storage.into(),
        metrics: Metrics::default().topic("t"),
        assumption: Assumption {
            epoch: LeaderEpoch(1),
            durability: Durability::Fsync,
            throttled: false,
            part: Part::Follow { leader: None, unclean_epoch: None },
        },
        segment_bytes: 1 << 20,
        is_replaceable: false,
        may_begin: true,
    };
    let failures = table.assign(vec![assignment(0, "cold-store"), assignment(1, "segment")]).await;
    let mut said = failures.iter().map(|failure| failure as &dyn std::error::Error);
    let source = said.next().and_then(std::error::Error::source).map(ToString::to_string).unwrap_or_default();
    assert!(
        source.contains("chronik.storage=cold-store, and no storage engine of that name is configured"),
        "{source}"
    );
    assert!(said.next().is_none(), "the other one opens");
    assert_eq!(table.offline(), [LogId { partition: 0, ..LOG }], "the controller is told");
    assert_eq!(engines.for_metadata().list().await.expect("listed"), [LogId { partition: 1, ..LOG }]);
    assert!(
        table.delete("cold-store", [LogId { partition: 0, ..LOG }]).await.is_err(),
        "nobody can say that it is gone"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_role_that_comes_while_a_log_is_opened_is_not_lost() {
    let around = Surroundings {
        node: NodeId(2),
        clock: Clock::start(),
        stalls: StallWatch::start(tokio::runtime::Handle::current()).expect("a thread"),
        channel: Arc::new(NearLeader::default()),
        throttling: Throttling::default(),
        sampling: Arc::default(),
        runtime: tokio::runtime::Handle::current(),
    };
    // Opening takes a while here: it goes to a thread.
    let home = tempfile::tempdir().expect("a directory");
    let engine = SegmentEngine::start(home.path().to_owned(), SegmentOptions::default()).expect("starts");
    let table = PartitionTable::new(one_engine(engine), around);
    let role = |partition, epoch| Assignment {
        id: LogId { partition, ..LOG },
        topic: "t".into(),
        storage: "segment".into(),
        metrics: Metrics::default().topic("t"),
        assumption: Assumption {
            epoch: LeaderEpoch(epoch),
            durability: Durability::Fsync,
            throttled: false,
            part: Part::Follow { leader: None, unclean_epoch: None },
        },
        segment_bytes: 1 << 20,
        is_replaceable: false,
        may_begin: true,
    };
    // In either order: two of one log would stand side by side, and the one that is found may be the older.
    for (partition, [first, second]) in (0..40).zip([[1, 2], [2, 1]].into_iter().cycle()) {
        let both =
            tokio::join!(table.assign(vec![role(partition, first)]), table.assign(vec![role(partition, second)]));
        assert!(both.0.is_empty() && both.1.is_empty(), "it opens");
        let replica = table.get(LOG.topic, partition).expect("it is there");
        assert_eq!(replica.standing().epoch, LeaderEpoch(2), "partition {partition}");
    }
}

/// A byte of the last of three equal records in a log's only segment is another one.
fn damage(home: &std::path::Path) -> std::path::PathBuf {
    let segment = home.join(LOG.to_string()).join("00000000000000000000.log");
    let mut bytes = std::fs::read(&segment).expect("the segment");
    // In the engine's own header before it, which is looked at when the log is opened.
    let at = bytes.len() - bytes.len() / 3 + 10;
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).expect("written");
    segment
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_begins_anew_once_nobody_counts_on_it_and_what_is_left_of_it_is_kept() {
    let home = tempfile::tempdir().expect("a directory");
    let engine = || SegmentEngine::start(home.path().to_owned(), SegmentOptions::default()).expect("starts");
    let mut cluster = Cluster::new(3);
    cluster.start(2, Arc::new(engine()));
    cluster.connect_all();
    let all = Facts { epoch: 0, leader: 1, in_sync: &[1, 2, 3], in_sync_min: 1 };
    cluster.tell(&[1, 2, 3], all).await;
    for value in ["a", "b", "c"] {
        cluster.append(1, value, Acks::All).await.expect("all have it");
    }
    cluster.reaches(2, 3).await;
    // Its process ends, and a bit changes on its disk.
    let ended = cluster.nodes.remove(&NodeId(2)).expect("it ran");
    cluster.network.cut(NodeId(1), NodeId(2));
    cluster.network.cut(NodeId(2), NodeId(3));
    ended.shut_down().await.expect("closed");
    drop(ended);
    let segment = damage(home.path());
    let damaged = std::fs::read(&segment).expect("there");
    cluster.start(2, Arc::new(engine()));
    cluster.connect_all();

    // Those in sync are elected: what may be the last copy of something is left as it is.
    let failures = cluster.tell_and_hear(&[2], all).await;
    assert!(matches!(failures[..], [OpenError::Engine { .. }]), "{failures:?}");
    assert_eq!(cluster.nodes[&NodeId(2)].offline(), [LOG]);
    assert_eq!(std::fs::read(&segment).expect("there"), damaged);

    cluster.tell(&[1, 2, 3], Facts { in_sync: &[1, 3], ..all }).await;
    cluster.reaches(2, 3).await;
    assert_eq!(cluster.values(2).await, ["a", "b", "c"]);
    assert_eq!(cluster.bytes(2).await, cluster.bytes(1).await);
    assert_eq!(cluster.nodes[&NodeId(2)].offline(), []);
    let aside = home.path().join(format!("{LOG}.damaged")).join("00000000000000000000.log");
    assert_eq!(std::fs::read(aside).expect("kept"), damaged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_found_late_to_lack_what_was_committed_is_offline_until_nobody_counts_on_it() {
    let home = tempfile::tempdir().expect("a directory");
    let engine = || SegmentEngine::start(home.path().to_owned(), SegmentOptions::default()).expect("starts");
    // Its process knew of two records that were committed, and neither is left.
    let before = engine();
    let how = OpenOptions { mode: OpenMode::CreateIfMissing, segment_bytes: 1 << 20 };
    let log = before.open(LOG, how).await.expect("opened");
    let known = Checkpoint { high_watermark: Offset(2), ..Checkpoint::default() };
    let value = vec![(META_KEY.to_owned(), Some(Bytes::from(known.encode())))];
    Pending::start(|done| log.meta_put(value, done)).await.expect("kept");
    drop(log);
    before.close().await.expect("closed");

    let mut cluster = Cluster::new(3);
    cluster.start(2, Arc::new(engine()));
    cluster.connect_all();
    let all = Facts { epoch: 0, leader: 1, in_sync: &[1, 2, 3], in_sync_min: 1 };
    // As after a registration that said nothing of it, since the log could not be opened then.
    let failures = cluster.tell_and_hear(&[2], all).await;
    assert!(matches!(failures[..], [OpenError::Lost { .. }]), "{failures:?}");
    assert_eq!(cluster.nodes[&NodeId(2)].offline(), [LOG], "nobody may be led by it");

    cluster.tell(&[1, 2, 3], Facts { in_sync: &[1, 3], ..all }).await;
    cluster.append(1, "a", Acks::All).await.expect("the others have it");
    cluster.reaches(2, 1).await;
    assert_eq!(cluster.nodes[&NodeId(2)].offline(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_reads_damage_gives_up_and_is_filled_again_by_the_next_one() {
    let home = tempfile::tempdir().expect("a directory");
    let engine = SegmentEngine::start(home.path().to_owned(), SegmentOptions::default()).expect("starts");
    let mut cluster = Cluster::new(3);
    cluster.start(2, Arc::new(engine));
    cluster.connect_all();
    let first = Facts { epoch: 0, leader: 2, in_sync: &[1, 2, 3], in_sync_min: 1 };
    cluster.tell(&[1, 2, 3], first).await;
    for value in ["a", "b", "c"] {
        cluster.append(2, value, Acks::All).await.expect("all have it");
    }
    // As a client's read does that finds a batch whose checksum is wrong.
    cluster.replica(2).found_damaged(Offset(1));
    assert_eq!(cluster.nodes[&NodeId(2)].offline(), [LOG], "another one has to lead");
    let refused = cluster.append(2, "d", Acks::All).await;
    assert!(refused.is_err(), "{refused:?}");
    // What it believes of its log may not be so, and cannot be saved before something of it is dropped.
    assert!(cluster.replica(2).trim(Offset(1)).await.is_err());
    assert_eq!(cluster.replica(2).log_state().start, Offset(0));
    // While it counts as in sync it stays as it is.
    let second = Facts { epoch: 1, leader: 1, ..first };
    cluster.tell(&[1, 2, 3], second).await;
    assert_eq!(cluster.nodes[&NodeId(2)].offline(), [LOG]);
    cluster.tell(&[1, 2, 3], Facts { in_sync: &[1, 3], ..second }).await;
    cluster.append(1, "d", Acks::All).await.expect("others have it");
    cluster.reaches(2, 4).await;
    assert_eq!(cluster.values(2).await, ["a", "b", "c", "d"]);
    assert_eq!(cluster.nodes[&NodeId(2)].offline(), []);

    // Nobody else has it: what is sound goes on being served.
    cluster.tell(&[1, 2, 3], Facts { epoch: 2, leader: 2, in_sync: &[2], ..first }).await;
    cluster.replica(2).found_damaged(Offset(1));
    cluster.append(2, "e", Acks::All).await.expect("it goes on");
}

/// Node 1 leads, node 2 is in sync, and node 3, which is throttled, has nothing of what is committed. The node whose rate it
/// is, at either side.
const SIDES: [(&str, i32); 2] = [("leader", 1), ("follower", 3)];

async fn catching_up(side: &str, node: i32, rate: u64) -> (Cluster, Facts<'static>) {
    let mut cluster = Cluster::new(3);
    cluster.throttled.insert(node);
    cluster.limit(node, side, Some(rate));
    let facts = Facts { epoch: 0, leader: 1, in_sync: &[1, 2], in_sync_min: 2 };
    cluster.tell(&[1, 2, 3], facts).await;
    cluster.network.connect(NodeId(1), NodeId(2));
    for value in ["a", "b", "c"] {
        cluster.append(1, value, Acks::All).await.expect("both have it");
    }
    (cluster, facts)
}

#[tokio::test]
async fn who_catches_up_waits_for_its_throttle_and_who_is_in_sync_for_none() {
    for (side, node) in SIDES {
        let (cluster, _) = catching_up(side, node, 0).await;
        cluster.connect_all();
        cluster.somebody_waits(node, side).await;
        cluster.append(1, "d", Acks::All).await.expect("nobody who is in sync waits");
        cluster.reaches(2, 4).await;
        assert_eq!(cluster.replica(3).standing().log_end, Offset(0), "{side}: nothing a second is nothing");
        assert_eq!(cluster.limited(node, side).bytes, 0);
        // A limit is also changed while somebody waits for it.
        cluster.limit(node, side, None);
        cluster.reaches(3, 4).await;
        assert_eq!(cluster.bytes(3).await, cluster.bytes(1).await);
    }
}

#[tokio::test]
async fn who_comes_to_count_is_throttled_no_longer() {
    for (side, node) in SIDES {
        let (mut cluster, facts) = catching_up(side, node, 0).await;
        cluster.connect_all();
        cluster.somebody_waits(node, side).await;
        cluster.tell(&[1, 2, 3], Facts { in_sync: &[1, 2, 3], ..facts }).await;
        cluster.append(1, "d", Acks::All).await.expect("all have it");
        cluster.reaches(3, 4).await;
        // And a topic that names nobody any more throttles nobody.
        let (mut cluster, facts) = catching_up(side, node, 0).await;
        cluster.connect_all();
        cluster.somebody_waits(node, side).await;
        cluster.throttled.clear();
        cluster.tell(&[1, 2, 3], facts).await;
        cluster.reaches(3, 3).await;
    }
}

#[tokio::test]
async fn no_more_comes_over_than_the_rate_allows() {
    const RATE: u64 = 1_000_000;
    const COUNT: usize = 50;
    let value = "x".repeat(50_000);
    for (side, node) in SIDES {
        let (cluster, _) = catching_up(side, node, RATE).await;
        for _ in 0..COUNT {
            cluster.append(1, &value, Acks::All).await.expect("both have it");
        }
        let begun = std::time::Instant::now();
        // The bucket is full: the limit was there before.
        cluster.connect_all();
        cluster.reaches(3, 3 + COUNT as i64).await;
        let took = begun.elapsed();
        let total = (COUNT * value.len()) as u64;
        // Of the last ones a follower knows that nothing committed is missing, and takes them at once; a message's worth.
        let at_least = Duration::from_micros(total - RATE - (1 << 20));
        assert!(took >= at_least, "{side}: {total} bytes in {took:?}");
        let limited = cluster.limited(node, side);
        assert!(limited.bytes > RATE && limited.waits > 0, "{limited:?}");
    }
}
