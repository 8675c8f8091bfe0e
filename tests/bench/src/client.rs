//! librdkafka as it is used here: settings that let it run as fast as it can, and a count of what was delivered.

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, DefaultProducerContext, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Message};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Counts deliveries, and hears of each by the number that its sender gave it.
pub struct Deliveries<F: Fn(usize) + Send + Sync + 'static> {
    pub delivered: AtomicU64,
    pub failed: AtomicU64,
    /// Whatever becomes of the rest is no matter.
    pub ended: AtomicBool,
    heard: F,
}

impl<F: Fn(usize) + Send + Sync + 'static> ClientContext for Deliveries<F> {}

impl<F: Fn(usize) + Send + Sync + 'static> ProducerContext for Deliveries<F> {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        match result {
            Ok(_) => {
                self.delivered.fetch_add(1, Ordering::Relaxed);
                (self.heard)(number);
            }
            Err(_) if self.ended.load(Ordering::Relaxed) => {}
            Err((failure, message)) => {
                // One is enough to know what is wrong.
                if self.failed.fetch_add(1, Ordering::Relaxed) == 0 {
                    eprintln!("a record for partition {} was not delivered: {failure}", message.partition());
                }
            }
        }
    }
}

/// A producer's settings besides the broker's address.
#[derive(Clone, Copy, Debug)]
pub struct Producing {
    pub acks: &'static str,
    pub linger_ms: &'static str,
}

/// librdkafka's own mock of a broker, in this process: as fast as the client can ever be.
pub struct Mock(MockCluster<'static, DefaultProducerContext>);

impl Mock {
    pub fn with_topic(name: &str, partitions: i32) -> Result<Self, KafkaError> {
        let mock = MockCluster::new(1)?;
        mock.create_topic(name, partitions, 1)?;
        Ok(Self(mock))
    }

    pub fn bootstrap(&self) -> String {
        self.0.bootstrap_servers()
    }
}

/// A client's setting, as librdkafka names it.
pub type Setting<'a> = (&'a str, &'a str);

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config
}

pub fn producer<F: Fn(usize) + Send + Sync + 'static>(
    bootstrap: &str,
    producing: Producing,
    heard: F,
) -> Result<BaseProducer<Deliveries<F>>, KafkaError> {
    with_settings(bootstrap, producing, &[], heard)
}

/// One that does not wait long before it asks again who leads a partition, so that what is measured is the broker's part.
pub fn eager_producer<F: Fn(usize) + Send + Sync + 'static>(
    bootstrap: &str,
    producing: Producing,
    heard: F,
) -> Result<BaseProducer<Deliveries<F>>, KafkaError> {
    let settings = [
        ("retry.backoff.ms", "5"),
        ("retry.backoff.max.ms", "10"),
        ("reconnect.backoff.ms", "5"),
        ("reconnect.backoff.max.ms", "10"),
        ("topic.metadata.refresh.fast.interval.ms", "10"),
    ];
    with_settings(bootstrap, producing, &settings, heard)
}

/// One with settings of its caller's.
pub fn with_settings<F: Fn(usize) + Send + Sync + 'static>(
    bootstrap: &str,
    producing: Producing,
    settings: &[Setting<'_>],
    heard: F,
) -> Result<BaseProducer<Deliveries<F>>, KafkaError> {
    let mut config = config(bootstrap);
    config
        .set("acks", producing.acks)
        .set("linger.ms", producing.linger_ms)
        .set("queue.buffering.max.messages", "2000000")
        .set("queue.buffering.max.kbytes", "1048576")
        .set("batch.num.messages", "100000");
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config.create_with_context(Deliveries {
        delivered: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        ended: AtomicBool::new(false),
        heard,
    })
}

/// Consumes what comes: a fetch at the end of a log waits there, and records that come are told at once.
pub fn consumer(bootstrap: &str) -> Result<rdkafka::consumer::BaseConsumer, KafkaError> {
    consuming(bootstrap).create()
}

/// Reads a topic as fast as it can, and again. A client of librdkafka asks each broker for one thing at a time, so that who begins
/// anew waits until the broker has given up on the end of the log; and one whose queue is full does not ask again for a
/// second. With 100 ms and that second up to half of the time went into waiting, whoever the broker was.
pub fn reader(bootstrap: &str) -> Result<rdkafka::consumer::BaseConsumer, KafkaError> {
    consuming(bootstrap).set("fetch.wait.max.ms", "5").set("fetch.queue.backoff.ms", "1").create()
}

fn consuming(bootstrap: &str) -> ClientConfig {
    let mut config = config(bootstrap);
    config
        .set("group.id", "chronik-bench")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "100")
        .set("queued.min.messages", "1000000");
    config
}

/// An election after a topic's creation takes less.
const SERVED_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Creates a topic, or does nothing if it is there; returns when all its partitions are served. A node that is told to lead one
/// may take a moment until it does, and what is sent to it before is refused for good. Gives the nodes that lead them.
pub fn create_topic(bootstrap: &str, name: &str, partitions: i32, replicas: i32) -> Result<Vec<i32>, KafkaError> {
    let admin: AdminClient<DefaultClientContext> = config(bootstrap).create()?;
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    let results = wait(admin.create_topics(&[topic], &options))?;
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(KafkaError::AdminOp(code)),
        }
    }
    let leaders = leaders_of(bootstrap, name, partitions)?;
    let client: rdkafka::consumer::BaseConsumer = config(bootstrap).create()?;
    let began = Instant::now();
    for partition in 0..partitions {
        while let Err(why) = client.fetch_watermarks(name, partition, SERVED_WITHIN) {
            if began.elapsed() > SERVED_WITHIN {
                return Err(why);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
    Ok(leaders)
}

/// Deletes a topic.
pub fn delete_topic(bootstrap: &str, name: &str) -> Result<(), KafkaError> {
    let admin: AdminClient<DefaultClientContext> = config(bootstrap).create()?;
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    for result in wait(admin.delete_topics(&[name], &options))? {
        result.map_err(|(_, code)| KafkaError::AdminOp(code))?;
    }
    Ok(())
}

/// The nodes that lead a topic's partitions, once all of them are led: a topic that was just created is not, everywhere.
fn leaders_of(bootstrap: &str, topic: &str, partitions: i32) -> Result<Vec<i32>, KafkaError> {
    let began = Instant::now();
    let client: rdkafka::consumer::BaseConsumer = config(bootstrap).create()?;
    loop {
        // That nobody leads yet may be told as an error of the whole.
        let metadata = match client.fetch_metadata(Some(topic), SERVED_WITHIN) {
            Err(why) if began.elapsed() > SERVED_WITHIN => return Err(why),
            metadata => metadata.ok(),
        };
        let found = metadata.as_ref().and_then(|all| all.topics().iter().find(|found| found.name() == topic));
        let mut led: Vec<(i32, i32)> = found
            .map(|found| found.partitions().iter().map(|partition| (partition.id(), partition.leader())).collect())
            .unwrap_or_default();
        led.retain(|(_, leader)| *leader >= 0);
        led.sort_unstable();
        if i32::try_from(led.len()).is_ok_and(|count| count >= partitions) {
            return Ok(led.into_iter().map(|(_, leader)| leader).collect());
        }
        if began.elapsed() > SERVED_WITHIN {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Whether there is a broker.
pub fn answers(bootstrap: &str) -> Result<(), KafkaError> {
    let client: rdkafka::consumer::BaseConsumer = config(bootstrap).create()?;
    client.fetch_metadata(None, Duration::from_secs(10)).map(drop)
}

/// Waits for a future of librdkafka's, which its own threads complete: there is no runtime here.
fn wait<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}
