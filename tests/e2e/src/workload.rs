//! Real clients that write while a cluster is being hurt, and what must be true of what they wrote.
//!
//! - [`writer`]: librdkafka in this process, watched value by value.
//! - [`others`]: the clients in other languages, each writing as its own self.
//! - [`replicas`]: what each node has on its disk in the end.
//!
//! Each writer has a name, and writes numbered values `name:number` to the partitions in turn, under keys that keep to one
//! partition each, with acks=all and idempotence.
//!
//! **What is checked:** a value that was acknowledged is there, at the place that was told, once; no value is there twice; and
//! each key's values are in the order in which they were written.

pub mod others;
pub mod replicas;
pub mod writer;

use crate::cluster::{Cluster, PATIENCE};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

pub const TOPIC: &str = "t";
pub const PARTITIONS: i32 = 12;
/// Of each writer; every partition has as many as every other.
pub const KEYS: u64 = 24;

/// A partition, and an offset in it; less than 0 where the client was not told the offset: what comes before an acknowledged
/// batch of the same producer is taken for acknowledged by librdkafka, though that answer was lost with its connection.
pub type Place = (i32, i64);

/// What a writer was told, value by value.
pub type Acknowledged = BTreeMap<u64, Place>;

/// A writer, after its end.
pub struct Written {
    pub name: &'static str,
    pub acknowledged: Acknowledged,
    /// How often the client has begun to number its values anew, in another producer epoch. librdkafka does where a broker
    /// refuses a batch because the one before it was refused (its issue 4953), and sends what was under way again: such
    /// values no broker can tell from new ones. It is the only one here that does.
    pub renumbered: u64,
}

/// The partition that a value is written to.
pub fn partition_of(value: u64) -> i32 {
    (value % KEYS) as i32 % PARTITIONS
}

/// What every client here is set to.
pub fn client(cluster: &Cluster) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.bootstrap());
    config.set("reconnect.backoff.max.ms", "500").set("topic.metadata.refresh.interval.ms", "1000");
    // A node that is paused answers nothing and closes nothing: what was sent to it is sent elsewhere after this.
    config.set("socket.timeout.ms", "10000");
    config
}

/// On all three nodes, writable as long as two of them are in sync.
pub fn create_topic(cluster: &Cluster) {
    let admin: AdminClient<DefaultClientContext> = client(cluster).create().expect("a client");
    let topic = NewTopic::new(TOPIC, PARTITIONS, TopicReplication::Fixed(3)).set("min.insync.replicas", "2");
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
    let created = futures::executor::block_on(admin.create_topics([&topic], &options)).expect("an answer");
    assert!(created.iter().all(Result::is_ok), "{created:?}");
    cluster.wait("every node knows the topic", |cluster| {
        cluster.ids().all(|id| cluster.status(id).is_some_and(|status| status["partitions"].as_i64() >= Some(12)))
    });
}

/// The leader of each partition, as a node tells clients.
pub fn leaders(cluster: &Cluster) -> BTreeMap<i32, usize> {
    let consumer: BaseConsumer = client(cluster).create().expect("a client");
    let metadata = consumer.fetch_metadata(Some(TOPIC), PATIENCE).expect("an answer");
    let partitions = metadata.topics()[0].partitions().iter();
    partitions.filter_map(|one| Some((one.id(), usize::try_from(one.leader()).ok()?))).collect()
}

/// All that is there: by partition, offset and value.
fn read_all(cluster: &Cluster) -> BTreeMap<i32, Vec<(i64, String)>> {
    let mut config = client(cluster);
    config.set("group.id", "reader").set("enable.auto.commit", "false").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(TOPIC, partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&all).expect("assigned");
    let mut read: BTreeMap<i32, Vec<(i64, String)>> = BTreeMap::new();
    let mut ended = BTreeSet::new();
    let mut end = Instant::now() + PATIENCE;
    while ended.len() < PARTITIONS as usize {
        assert!(Instant::now() < end, "only {ended:?} were read to their end");
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                let text = std::str::from_utf8(message.payload().expect("a value")).expect("text");
                read.entry(message.partition()).or_default().push((message.offset(), text.to_owned()));
                end = Instant::now() + PATIENCE;
            }
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(partition))) => drop(ended.insert(partition)),
            Some(Err(_)) | None => {}
        }
    }
    read
}

/// See the module's head. The writers are those of the topic, all of them.
pub fn check(cluster: &Cluster, writers: &[Written]) {
    let read = read_all(cluster);
    let mut places: BTreeMap<(&str, u64), Vec<Place>> = BTreeMap::new();
    for (partition, records) in &read {
        let mut last: BTreeMap<(&str, u64), u64> = BTreeMap::new();
        for (offset, text) in records {
            let (name, number) = text.split_once(':').expect("name:number");
            let value: u64 = number.parse().expect("a number");
            let writer = writers.iter().find(|writer| writer.name == name);
            let writer = writer.unwrap_or_else(|| panic!("nobody here wrote {text:?}"));
            let all = places.entry((name, value)).or_default();
            all.push((*partition, *offset));
            if all.len() > 1 {
                assert!(writer.renumbered > 0, "value {text} is there more than once: {all:?}");
                continue;
            }
            let before = last.insert((name, value % KEYS), value);
            assert!(
                before.is_none_or(|before| before < value),
                "partition {partition} at {offset}: {text} after {before:?}"
            );
        }
    }
    for Written { name, acknowledged, renumbered } in writers {
        let doubled = places.iter().filter(|((of, _), places)| of == name && places.len() > 1).count();
        eprintln!(
            "{name}: {} values acknowledged; numbered anew {renumbered} times, {doubled} doubled",
            acknowledged.len()
        );
        let is_at = |there: &Place, told: &Place| there.0 == told.0 && (told.1 < 0 || there.1 == told.1);
        let of = |value: &u64| places.get(&(*name, *value)).map(Vec::as_slice).unwrap_or_default();
        let is_lost = |(value, told): &(&u64, &Place)| !of(value).iter().any(|there| is_at(there, told));
        let lost: Vec<_> = acknowledged.iter().filter(is_lost).take(10).collect();
        let there: Vec<_> = lost.iter().map(|(value, _)| of(value)).collect();
        assert!(lost.is_empty(), "{name}: acknowledged and not there: {lost:?}, but {there:?}");
    }
}

/// A small generator, so that a story can be told again.
pub struct Dice(pub u64);

impl Dice {
    /// The seed that an environment variable names, or this one.
    pub fn of(seed: u64) -> Self {
        let seed = number("CHRONIK_CHAOS_SEED", seed);
        eprintln!("CHRONIK_CHAOS_SEED={seed}");
        Self(seed)
    }

    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    /// Lets as much time pass as comes up, less than that many milliseconds.
    pub fn sleep_up_to(&mut self, ms: usize) {
        std::thread::sleep(Duration::from_millis(self.roll(ms) as u64));
    }
}

/// What an environment variable says, or else this.
pub fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}
