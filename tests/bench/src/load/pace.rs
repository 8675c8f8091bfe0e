//! Latency at a fixed rate: single records leave at their times, whether or not earlier ones have been answered, and count from
//! when they were meant to leave; to the acknowledgement, and to a consumer that waits at the end of the log.

use crate::BenchError;
use crate::client::{Producing, consumer, producer};
use crate::contest::{Figure, Observation, lag};
use crate::machine::Window;
use crate::stats::Latencies;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, Producer};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const ANSWERED: Figure = Figure::neither("sent", "1/s");
const LAG: Figure = Figure::neither("generator late, p99", "µs");
const CPU: Figure = Figure::lower("broker CPU, per million records", "s");

/// How long what was sent may take to come.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
const SILENCE: Duration = Duration::from_secs(30);
/// Until then the clients have connected.
const BEGIN_AFTER: Duration = Duration::from_millis(500);

/// Whom, and how.
#[derive(Clone, Copy, Debug)]
pub struct Pacing<'a> {
    pub bootstrap: &'a str,
    /// Of one partition.
    pub topic: &'a str,
    pub acks: &'static str,
    pub size: usize,
    pub per_second: f64,
    pub warm_up_seconds: f64,
    pub seconds: f64,
    pub pids: &'a [u32],
}

/// When each record is to leave.
#[derive(Clone, Copy)]
struct Timetable {
    began: Instant,
    interval: Duration,
    total: u64,
}

impl Timetable {
    fn due(&self, number: u64) -> Instant {
        self.began + self.interval.mul_f64(number as f64)
    }
}

fn record(into: &Mutex<Latencies>, took: Duration) {
    into.lock().unwrap_or_else(PoisonError::into_inner).record(took);
}

fn taken(from: &Mutex<Latencies>) -> Latencies {
    std::mem::take(&mut *from.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Where the log ends; asks again while the broker that is asked has not heard of the topic.
fn end_of(consumer: &BaseConsumer, topic: &str) -> Result<i64, BenchError> {
    let began = Instant::now();
    loop {
        match consumer.fetch_watermarks(topic, 0, SILENCE) {
            Ok((_, end)) => return Ok(end),
            Err(why) if began.elapsed() > SILENCE => return Err(why.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

impl Pacing<'_> {
    pub fn observe(&self) -> Result<Observation, BenchError> {
        let number = |seconds: f64| (seconds * self.per_second).ceil() as u64;
        let (first, count) = (number(self.warm_up_seconds), number(self.seconds).max(1));
        // The payload begins with the record's number.
        let size = self.size.max(8);
        let consumer = consumer(self.bootstrap)?;
        let end = end_of(&consumer, self.topic)?;
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(self.topic, 0, Offset::Offset(end))?;
        consumer.assign(&from)?;
        consumer.poll(Duration::from_millis(200));
        let timetable = Timetable {
            began: Instant::now() + BEGIN_AFTER,
            interval: Duration::from_secs_f64(1.0 / self.per_second),
            total: first + count,
        };
        let acknowledged = Arc::<Mutex<Latencies>>::default();
        let (consumed, late) = (Mutex::<Latencies>::default(), Mutex::<Latencies>::default());
        let heard = acknowledged.clone();
        let producer = producer(self.bootstrap, Producing { acks: self.acks, linger_ms: "0" }, move |number| {
            if number as u64 >= first {
                record(&heard, timetable.due(number as u64).elapsed());
            }
        })?;
        let done = AtomicBool::new(false);
        let failure = Mutex::new(None);
        let mut used = None;
        let done_all = std::thread::scope(|scope| {
            let polling = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    producer.poll(Duration::from_millis(20));
                }
            });
            let sending = scope.spawn(|| {
                let exact = std::num::NonZeroU64::new(1);
                let _ = rustix::thread::set_current_timer_slack(exact);
                let mut payload = vec![b'x'; size];
                let mut window = None;
                for number in 0..timetable.total {
                    let due = timetable.due(number);
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    if number >= first {
                        window.get_or_insert_with(|| Window::open(self.pids));
                        record(&late, due.elapsed());
                    }
                    payload[..8].copy_from_slice(&number.to_be_bytes());
                    let next = BaseRecord::<(), [u8], usize>::with_opaque_to(self.topic, number as usize);
                    if let Err((why, _)) = producer.send(next.partition(0).payload(&payload[..])) {
                        *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
                        break;
                    }
                }
                window.map(Window::close)
            });
            let mut seen = 0;
            let read = loop {
                if seen == timetable.total {
                    break Ok(());
                }
                match consumer.poll(SILENCE) {
                    Some(Ok(message)) => {
                        let number = message.payload().and_then(|payload| payload.first_chunk::<8>());
                        if let Some(number) = number.map(|number| u64::from_be_bytes(*number))
                            && number >= first
                            && number < timetable.total
                        {
                            record(&consumed, timetable.due(number).elapsed());
                        }
                        seen += 1;
                    }
                    Some(Err(why)) => break Err(why.into()),
                    None => break Err(BenchError::Unread { seen, expected: timetable.total }),
                }
            };
            used = sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let flushed = producer.flush(ANSWERS_WITHIN);
            done.store(true, Ordering::Relaxed);
            let _ = polling.join();
            read.and_then(|()| Ok(flushed?))
        });
        if let Some(why) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(why.into());
        }
        done_all?;
        let failed = producer.context().failed.load(Ordering::Relaxed);
        if failed > 0 {
            return Err(BenchError::Undelivered { failed, sent: timetable.total });
        }
        let late = taken(&late);
        let mut shown = Observation::default();
        if let Some(used) = used {
            let cpu = used.together().map(|spent| spent.cpu_seconds * 1e6 / count as f64);
            shown = used.busy(shown.figure(ANSWERED, count as f64 / used.seconds).perhaps(CPU, cpu));
        }
        shown = shown.figure(LAG, late.micros(0.99));
        shown.invalid = lag::judge(&late, self.per_second);
        shown.latencies = vec![("acknowledged", taken(&acknowledged)), ("consumed", taken(&consumed))];
        Ok(shown)
    }
}
