//! Where the time of acknowledged records goes, as a broker tells it: of a broker alone over the wire, and of three replicas of
//! one partition, between which messages are handed over by hand.

mod broker;

use broker::*;
use chronik_api::assemble::engines::Engines;
use chronik_api::clock::Clock;
use chronik_api::config::{Config, Engine};
use chronik_api::metrics::Metrics;
use chronik_api::metrics::stages::{AckStages, Awaited, Stage};
use chronik_api::partitions::anatomy::{Arrival, Sampling, Ticket};
use chronik_api::partitions::partition::{AckReceiver, Surroundings};
use chronik_api::partitions::stall::StallWatch;
use chronik_api::partitions::table::Assignment;
use chronik_api::partitions::throttle::Throttling;
use chronik_api::partitions::{Partition, PartitionTable};
use chronik_core::batch::CheckedBatch;
use chronik_core::driver::{Assumption, Part};
use chronik_core::ids::{LeaderEpoch, LogId, NodeId, Offset, TopicId};
use chronik_core::partition::leader::{Acks, Durability};
use chronik_core::partition::replicas::Membership;
use chronik_core::replication::{Event, Message, ReplicationChannel};
use chronik_core::wal::WalEngine;
use chronik_storage_memory::MemoryEngine;
use chronik_storage_segment::{SegmentEngine, SegmentOptions};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

/// No step takes this long; a story that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than a node waits between two batches that it follows.
const DUE_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// Lines of the metrics that tell of stages, but for their buckets.
async fn told(broker: &Running) -> BTreeMap<String, f64> {
    let answer = broker.metrics().await;
    let lines = answer.lines().filter(|line| line.starts_with("chronik_ack_stage_seconds_"));
    let lines = lines.filter(|line| !line.contains("_bucket{")).filter_map(|line| line.rsplit_once(' '));
    lines.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect()
}

/// How often each stage of requests with these acks has counted, and their sum in seconds.
fn stages(told: &BTreeMap<String, f64>, acks: &str) -> (BTreeMap<String, f64>, f64) {
    let of_acks = || told.iter().filter(|(name, _)| name.contains(&format!("acks=\"{acks}\"")));
    let counts = of_acks().filter(|(name, _)| name.contains("_count{"));
    let stage = |name: &str| name.split("stage=\"").nth(1).and_then(|rest| rest.split('"').next()).map(str::to_owned);
    let counts = counts.filter_map(|(name, count)| Some((stage(name)?, *count))).collect();
    (counts, of_acks().filter(|(name, _)| name.contains("_sum{")).map(|(_, sum)| sum).sum())
}

async fn on_disk() -> (Running, tempfile::TempDir) {
    let home = tempfile::tempdir().expect("a directory");
    let data_dir = home.path().to_owned();
    let broker = start(|config: &mut Config| {
        config.storage.engine = Engine::Segment;
        config.node.data_dir = data_dir;
        config.admin.enabled = true;
        config.admin.listen.port = 0;
    })
    .await;
    (broker, home)
}

/// Produces until a batch with these acks has been followed; gives what is told then, and what all of it took.
async fn until_followed(broker: &Running, client: &mut Client, acks: i16) -> (BTreeMap<String, f64>, Duration) {
    let (began, word) = (Instant::now(), if acks == 1 { "1" } else { "all" });
    let end = began + PATIENCE;
    loop {
        assert_eq!(client.produce("t", acks, sealed(batch(&["a"]))).await.error_code, 0);
        // The client may have its answer before the broker has counted that it is out.
        tokio::time::sleep(DUE_AGAIN_AFTER).await;
        let told = told(broker).await;
        if stages(&told, word).0.contains_key("reply") {
            return (told, began.elapsed());
        }
        assert!(Instant::now() < end, "nothing is followed: {told:?}");
    }
}

#[tokio::test]
async fn a_broker_alone_tells_every_stage_of_an_acknowledgement_and_no_more_than_its_time() {
    let (broker, _home) = on_disk().await;
    let mut client = Client::to(&broker).await;
    client.create_topic("t", 1, &[]).await;
    client.create_topic("idle", 1, &[]).await;
    assert_eq!(told(&broker).await, BTreeMap::new(), "nothing was produced");
    let (of_all, took) = until_followed(&broker, &mut client, -1).await;
    let (counts, sum) = stages(&of_all, "all");
    let names: Vec<&str> = counts.keys().map(String::as_str).collect();
    assert_eq!(names, ["append", "decode", "local_sync", "queue", "read", "reply", "watermark"]);
    assert!(counts.values().all(|count| *count == counts["reply"]), "all stages of a batch, or none: {counts:?}");
    assert!(sum > 0.0 && sum <= took.as_secs_f64(), "{sum} s of {took:?}");
    assert!(of_all.keys().all(|name| name.contains("engine=\"segment\",transport=\"none\"")), "{of_all:?}");

    let (of_both, took) = until_followed(&broker, &mut client, 1).await;
    let (counts, sum) = stages(&of_both, "1");
    let names: Vec<&str> = counts.keys().map(String::as_str).collect();
    assert_eq!(names, ["append", "decode", "queue", "read", "reply"], "it waits for no more than the write");
    assert!(counts.values().all(|count| *count == counts["reply"]) && sum <= took.as_secs_f64());
    broker.stop().await;
}

#[tokio::test]
async fn what_is_not_acknowledged_counts_nothing_and_nothing_counts_without_traffic() {
    let (broker, _home) = on_disk().await;
    let mut client = Client::to(&broker).await;
    client.create_topic("t", 1, &[]).await;
    for _ in 0..3 {
        client.send(NAMED_PRODUCE, 1, &produce_to("t", 0, sealed(batch(&["quiet"])))).await;
        let corrupt = client.produce("t", -1, sealed(batch(&["a"])).slice(..62)).await;
        let nowhere = client.produce("nowhere", -1, sealed(batch(&["a"]))).await;
        assert!(corrupt.error_code != 0 && nowhere.error_code != 0);
        tokio::time::sleep(DUE_AGAIN_AFTER).await;
    }
    assert_eq!(told(&broker).await, BTreeMap::new());
    let (before, _) = until_followed(&broker, &mut client, -1).await;
    tokio::time::sleep(DUE_AGAIN_AFTER).await;
    client.fetch("t", 0, 1_000).await;
    assert_eq!(told(&broker).await, before);
    broker.stop().await;
}

const LOG: LogId = LogId { topic: TopicId([7; 16]), partition: 0 };

/// Hands each message to its receiver's inbox.
#[derive(Default)]
struct Network(Mutex<BTreeMap<NodeId, mpsc::UnboundedSender<Event>>>);

struct Channel(NodeId, Arc<Network>);

impl ReplicationChannel for Channel {
    fn send(&self, to: NodeId, log: LogId, message: Message) {
        let inboxes = self.1.0.lock().expect("no test panics in here");
        let _ = inboxes[&to].send(Event::Message { from: self.0, log, message });
    }
}

/// Three replicas of one partition, all in sync; the first leads.
struct Three {
    clock: Clock,
    nodes: BTreeMap<i32, (Arc<PartitionTable>, Arc<AckStages>)>,
}

impl Three {
    async fn over(durability: Durability, engine: impl Fn(i32) -> Arc<dyn WalEngine>) -> Self {
        let (network, clock) = (Arc::new(Network::default()), Clock::start());
        let mut nodes = BTreeMap::new();
        let ids = || (1..=3).map(NodeId);
        for id in ids() {
            let (sender, mut inbox) = mpsc::unbounded_channel();
            network.0.lock().expect("no test panics in here").insert(id, sender);
            let stages = Arc::new(AckStages::default());
            let around = Surroundings {
                node: id,
                clock,
                stalls: StallWatch::start(tokio::runtime::Handle::current()).expect("a thread"),
                channel: Arc::new(Channel(id, network.clone())),
                throttling: Throttling::default(),
                sampling: Arc::new(Sampling::new(stages.clone())),
                runtime: tokio::runtime::Handle::current(),
            };
            let engines = Arc::new(Engines::only("segment", engine(id.0)));
            let table = Arc::new(PartitionTable::new(engines, around));
            let of_node = table.clone();
            tokio::spawn(async move {
                while let Some(event) = inbox.recv().await {
                    of_node.take(event);
                }
            });
            nodes.insert(id.0, (table, stages));
        }
        for id in ids() {
            for peer in ids().filter(|peer| *peer != id) {
                nodes[&id.0].0.take(Event::Up { peer, broker_epoch: Offset(1) });
            }
        }
        for id in ids() {
            let membership =
                Membership { replicas: ids().collect(), in_sync: ids().collect(), in_sync_min: 2, partition_epoch: 1 };
            let part = match id.0 {
                1 => Part::Lead { membership, lag_max: Duration::from_secs(600) },
                _ => Part::Follow { leader: Some(NodeId(1)), unclean_epoch: None },
            };
            let assignment = Assignment {
                id: LOG,
                topic: "t".into(),
                storage: "segment".into(),
                metrics: Metrics::default().topic("t"),
                assumption: Assumption { epoch: LeaderEpoch(0), durability, throttled: false, part },
                segment_bytes: 1 << 20,
                is_replaceable: false,
                may_begin: true,
            };
            let failures = nodes[&id.0].0.assign(vec![assignment]).await;
            assert!(failures.is_empty(), "it opens: {failures:?}");
        }
        Self { clock, nodes }
    }

    fn leader(&self) -> Arc<Partition> {
        self.nodes[&1].0.get(LOG.topic, LOG.partition).expect("it is there")
    }

    fn append(&self) -> (AckReceiver, Option<Ticket>) {
        let batch = CheckedBatch::trusted(batch(&["a"]));
        let leader = self.leader();
        let taken = leader.append_from(Some(Arrival::now()), batch, Acks::All, self.clock.now());
        let (_, ack, ticket) = taken.expect("it is taken");
        leader.write();
        (ack.expect("it was asked for"), ticket)
    }

    async fn acknowledged(ack: AckReceiver) {
        let told = tokio::time::timeout(PATIENCE, ack).await.expect("in time").expect("it is told");
        assert_eq!(told, Ok(()));
    }

    /// Of a node: each stage that has counted, how often, and seconds.
    fn counted(&self, node: i32) -> Vec<(Stage, u64, f64)> {
        let engine = self.nodes[&node].1.engine("segment");
        let both = [Awaited::All, Awaited::Unknown].into_iter().flat_map(|awaited| {
            let of = |stage| (stage, engine.of(awaited, stage).count(), engine.of(awaited, stage).sum_seconds());
            Stage::ALL.map(of)
        });
        both.filter(|(_, count, _)| *count > 0).collect()
    }

    fn sum(&self, node: i32, path: &str) -> f64 {
        let of_path = self.counted(node).into_iter().filter(|(stage, ..)| stage.path() == path);
        of_path.map(|(.., seconds)| seconds).sum()
    }

    fn names(&self, node: i32) -> Vec<&'static str> {
        self.counted(node).into_iter().map(|(stage, ..)| stage.name()).collect()
    }
}

#[tokio::test]
async fn three_replicas_tell_every_stage_each_what_it_did_itself() {
    let home = tempfile::tempdir().expect("a directory");
    let three = Three::over(Durability::Fsync, |id| {
        let started = SegmentEngine::start(home.path().join(id.to_string()), SegmentOptions::default());
        Arc::new(started.expect("it starts"))
    })
    .await;
    let began = Instant::now();
    let (ack, ticket) = three.append();
    Three::acknowledged(ack).await;
    assert_eq!(three.names(1), [""; 0], "nothing counts before the answer is out");
    ticket.expect("the first one is followed").replied();
    let took = began.elapsed().as_secs_f64();
    let of_requests = ["read", "decode", "queue", "append", "local_sync", "followers", "watermark", "reply"];
    assert_eq!(three.names(1), [&of_requests[..], &["send", "round_trip"]].concat());
    for follower in [2, 3] {
        assert_eq!(three.names(follower), ["follower_append", "follower_sync"]);
        assert!(three.sum(follower, "follower") <= took);
    }
    assert!((1..=3).flat_map(|node| three.counted(node)).all(|(_, count, _)| count == 1));
    let (request, meanwhile) = (three.sum(1, "request"), three.sum(1, "replication"));
    assert!(request > 0.0 && request <= took, "{request} of {took}");
    assert!(meanwhile > 0.0 && meanwhile <= request, "{meanwhile} of {request}: it ends before the watermark passes");
}

#[tokio::test]
async fn an_engine_that_does_all_at_once_is_told_of_too_and_without_syncs_none_is_told() {
    let in_memory = |_| -> Arc<dyn WalEngine> { Arc::new(MemoryEngine::new(1 << 30)) };
    for (durability, syncs) in [(Durability::Fsync, true), (Durability::Replicated, false)] {
        let three = Three::over(durability, in_memory).await;
        let (ack, ticket) = three.append();
        Three::acknowledged(ack).await;
        ticket.expect("the first one is followed").replied();
        assert_eq!(three.names(1).contains(&"local_sync"), syncs, "{durability:?}");
        for stage in ["append", "followers", "reply", "round_trip"] {
            assert!(three.names(1).contains(&stage), "{durability:?}: {stage}");
        }
        // A follower may have said what it has before it counts it.
        let end = Instant::now() + PATIENCE;
        let wanted: &[&str] = if syncs { &["follower_append", "follower_sync"] } else { &["follower_append"] };
        while three.names(2) != wanted || three.names(3) != wanted {
            assert!(Instant::now() < end, "{durability:?}: {:?} {:?}", three.names(2), three.names(3));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test]
async fn one_batch_is_followed_at_a_time_and_who_goes_away_makes_room_for_the_next() {
    let three = Three::over(Durability::Fsync, |_| Arc::new(MemoryEngine::new(1 << 30))).await;
    let (ack, first) = three.append();
    Three::acknowledged(ack).await;
    let first = first.expect("it is followed");
    tokio::time::sleep(DUE_AGAIN_AFTER).await;
    assert!(three.append().1.is_none(), "the first is not answered yet");
    drop(first);
    let (ack, next) = three.append();
    Three::acknowledged(ack).await;
    let next = next.expect("it is its turn");
    assert_eq!(three.names(1), [""; 0], "whose client has gone away counts nowhere");
    next.replied();
    assert!(three.counted(1).iter().all(|(_, count, _)| *count == 1));
}
