//! The end of a link that dials: bulk that is never let go idle, and probes that leave at their times.
//!
//! Probes are sent by a thread that does nothing else, and count from when they were meant to leave: a link that stalls delays all
//! that were to leave meanwhile, and each of them tells so. How late the thread itself was is told beside.

use super::end::{Over, say};
use super::far::words;
use super::work::{ACKNOWLEDGED, ANSWER, BULK, Bulk, FRAME_BYTES_MAX, Near, Order, PROBE, Probes, Seen};
use crate::machine::sockets;
use crate::network;
use crate::part::Said;
use crate::stats::Latencies;
use bytes::Bytes;
use chronik_core::ids::NodeId;
use chronik_link::lane::{Bound, Order as Place, Outbox};
use chronik_link::{Endpoint, Frame, Lane, LaneClass, Link};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How long lanes may take to be made.
const DIAL_WITHIN: Duration = Duration::from_secs(30);
/// How long answers may take that are missing at the end; then they count as if they had come now.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// What all lanes share.
struct Counting {
    frames: AtomicU64,
    bytes: AtomicU64,
    stopped: AtomicBool,
    /// Something went wrong; the first to say so is heard.
    failed: mpsc::UnboundedSender<String>,
}

struct LaneEnds {
    outbox: Arc<Outbox<u8>>,
    bulk: Option<Bulk>,
    payload: Bytes,
    probes: Option<Arc<Timetable>>,
}

/// When probes are to leave, and what became of them.
struct Timetable {
    began: Instant,
    interval: Duration,
    /// The first that counts, and how many do.
    first: u64,
    count: u64,
    seen: Mutex<Answers>,
}

#[derive(Default)]
struct Answers {
    round_trips: Latencies,
    lag: Latencies,
    answered: Vec<bool>,
}

impl Timetable {
    fn due(&self, number: u64) -> Instant {
        self.began + self.interval.mul_f64(number as f64)
    }

    fn counts(&self, number: u64) -> Option<usize> {
        let place = number.checked_sub(self.first)?;
        usize::try_from(place).ok().filter(|_| place < self.count)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self, number: u64) {
        let took = self.due(number).elapsed();
        if let Some(place) = self.counts(number) {
            let mut seen = self.seen();
            seen.round_trips.record(took);
            if let Some(answered) = seen.answered.get_mut(place) {
                *answered = true;
            }
        }
    }

    fn missing(&self) -> u64 {
        self.seen().answered.iter().filter(|answered| !**answered).count() as u64
    }
}

pub async fn drive(order: Order, near: Near, mut over: Over) -> Result<(), String> {
    let link = order.layer.link(super::NEAR, &order.certs).map_err(|why| why.to_string())?;
    tokio::select! {
        done = measure(&*link, near) => done?,
        _ = &mut over => return Ok(()),
    }
    // Until then it is looked at from outside: what it has used, and its sockets.
    let _ = over.await;
    Ok(())
}

async fn measure(link: &dyn Link, near: Near) -> Result<(), String> {
    let to = Endpoint { node: NodeId(super::FAR), host: network::ends().dial.to_string(), port: near.port };
    let (failed, mut failures) = mpsc::unbounded_channel();
    let counting = Arc::new(Counting {
        frames: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        stopped: AtomicBool::new(false),
        failed,
    });
    let timetable = near.work.probes.map(|probes| Arc::new(timetable(&probes, &near)));
    let bulk_lanes = near.work.bulk.map_or(0, |bulk| bulk.lanes);
    let probes_on_bulk = near.work.probes.is_some_and(|probes| probes.on_bulk_lane) && bulk_lanes > 0;
    let mut outbox_of_probes = None;
    for lane in 0..bulk_lanes {
        let payload = near.work.bulk.map_or(0, |bulk| bulk.frame_bytes);
        let probes = timetable.clone().filter(|_| probes_on_bulk && lane == 0);
        let ends = ends(near.work.bulk, payload, probes);
        if ends.probes.is_some() {
            outbox_of_probes = Some(ends.outbox.clone());
        }
        start(dial(link, &to, LaneClass::Replication(lane)).await?, ends, counting.clone());
    }
    if timetable.is_some() && !probes_on_bulk {
        let ends = ends(None, 0, timetable.clone());
        outbox_of_probes = Some(ends.outbox.clone());
        start(dial(link, &to, LaneClass::Control).await?, ends, counting.clone());
    }
    let generator =
        timetable.clone().zip(near.work.probes).zip(outbox_of_probes).map(|((timetable, probes), outbox)| {
            let counting = counting.clone();
            std::thread::spawn(move || generate(&timetable, &probes, &outbox, &counting))
        });
    let begins = timetable.as_ref().map_or_else(
        || Instant::now() + Duration::from_secs_f64(near.warm_up_seconds),
        |timetable| timetable.due(timetable.first),
    );
    let sleep = |until: Instant| tokio::time::sleep_until(until.into());
    let failure = |why: Option<String>| Err(why.unwrap_or_else(|| "a lane has ended".into()));
    tokio::select! {
        () = sleep(begins) => {}
        why = failures.recv() => return failure(why),
    }
    say(&Said::Begun);
    // Seen from here, so that it is of the very same span as what is counted.
    let carried = || sockets::carried(std::process::id(), network::device());
    let before = carried();
    let (began, frames, bytes) =
        (Instant::now(), counting.frames.load(Ordering::Relaxed), counting.bytes.load(Ordering::Relaxed));
    tokio::select! {
        () = sleep(began + Duration::from_secs_f64(near.seconds)) => {}
        why = failures.recv() => return failure(why),
    }
    let mut seen = Seen {
        seconds: began.elapsed().as_secs_f64(),
        frames: counting.frames.load(Ordering::Relaxed) - frames,
        bytes: counting.bytes.load(Ordering::Relaxed) - bytes,
        carried: before.zip(carried()).map(|(before, after)| (after.0 - before.0, after.1 - before.1)),
        ..Seen::default()
    };
    if let Some(timetable) = &timetable {
        let until = Instant::now() + ANSWERS_WITHIN;
        while timetable.missing() > 0 && Instant::now() < until && failures.try_recv().is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tell(timetable, &mut seen);
    }
    counting.stopped.store(true, Ordering::Relaxed);
    say(&Said::Ended(seen));
    if let Some(generator) = generator {
        let _ = tokio::task::spawn_blocking(move || generator.join()).await;
    }
    Ok(())
}

/// Tells what became of the probes; those that were not answered took at least until now.
fn tell(timetable: &Timetable, into: &mut Seen) {
    let mut seen = timetable.seen();
    let missing: Vec<u64> = (0..)
        .zip(&seen.answered)
        .filter(|(_, answered)| !**answered)
        .map(|(place, _)| timetable.first + place)
        .collect();
    for number in &missing {
        let took = timetable.due(*number).elapsed();
        seen.round_trips.record(took);
    }
    into.probes = timetable.count;
    into.unanswered = missing.len() as u64;
    into.round_trips = seen.round_trips.counts();
    into.lag = seen.lag.counts();
}

fn timetable(probes: &Probes, near: &Near) -> Timetable {
    let interval = Duration::from_secs_f64(1.0 / probes.per_second);
    let number = |seconds: f64| (seconds * probes.per_second).ceil() as u64;
    let count = number(near.seconds).max(1);
    let answered = vec![false; usize::try_from(count).unwrap_or(0)];
    Timetable {
        // Until then the lanes are made.
        began: Instant::now() + Duration::from_millis(500),
        interval,
        first: number(near.warm_up_seconds),
        count,
        seen: Mutex::new(Answers { answered, ..Answers::default() }),
    }
}

fn ends(bulk: Option<Bulk>, payload_bytes: usize, probes: Option<Arc<Timetable>>) -> LaneEnds {
    // The window bounds the bulk, and the timetable the probes: whatever may wait here is less than both together.
    let waiting = probes.as_ref().map_or(0, |timetable| timetable.first + timetable.count);
    let frames = bulk.map_or(0, |bulk| bulk.window) + usize::try_from(waiting).unwrap_or(0) + 1;
    let bound = Bound { frames, bytes: usize::MAX };
    LaneEnds {
        outbox: Arc::new(Outbox::new(bound, FRAME_BYTES_MAX)),
        bulk,
        payload: Bytes::from(vec![b'x'; payload_bytes]),
        probes,
    }
}

async fn dial(link: &dyn Link, to: &Endpoint, class: LaneClass) -> Result<Lane, String> {
    match tokio::time::timeout(DIAL_WITHIN, link.dial(to, class)).await {
        Ok(dialled) => dialled.map_err(words),
        Err(_) => Err(format!("no lane within {} s", DIAL_WITHIN.as_secs())),
    }
}

/// Begins a lane: a task that sends, a task that receives, and the first window.
fn start(lane: Lane, ends: LaneEnds, counting: Arc<Counting>) {
    let Lane { mut sender, receiver, .. } = lane;
    let (outbox, of_sending) = (ends.outbox.clone(), counting.clone());
    tokio::spawn(async move {
        if let Err(why) = outbox.send_all(&mut *sender).await {
            let _ = of_sending.failed.send(words(why));
        }
    });
    if let Some(bulk) = ends.bulk {
        (0..bulk.window as u64).for_each(|number| ends.send_bulk(number));
    }
    tokio::spawn(async move {
        let why = ends.receive(receiver, &counting).await;
        let _ = counting.failed.send(why);
    });
}

impl LaneEnds {
    fn send_bulk(&self, number: u64) {
        // There is room for the whole window, and no more is ever on its way.
        let _ = self.outbox.push(Frame::new(BULK, number).with(self.payload.clone()), Place::Alone);
    }

    /// Until the lane ends; gives why.
    async fn receive(&self, mut receiver: Box<dyn chronik_link::LaneReceiver>, counting: &Counting) -> String {
        receiver.set_frame_bytes_max(FRAME_BYTES_MAX);
        let mut acknowledged = 0;
        loop {
            let frame = match receiver.receive().await {
                Ok(Some(frame)) => frame,
                Ok(None) => return "the far end has ended".into(),
                Err(why) => return words(why),
            };
            match (frame.kind, self.bulk, &self.probes) {
                (ACKNOWLEDGED, Some(bulk), _) if frame.number > acknowledged => {
                    let newly = frame.number - acknowledged;
                    counting.frames.fetch_add(newly, Ordering::Relaxed);
                    counting.bytes.fetch_add(newly * bulk.frame_bytes as u64, Ordering::Relaxed);
                    if !counting.stopped.load(Ordering::Relaxed) {
                        let sent = acknowledged + bulk.window as u64;
                        (sent..sent + newly).for_each(|number| self.send_bulk(number));
                    }
                    acknowledged = frame.number;
                }
                (ANSWER, _, Some(timetable)) => timetable.answered(frame.number),
                (kind, ..) => return format!("a frame of kind {kind} came, which nobody waits for"),
            }
        }
    }
}

/// Sends each probe when it is due, or as soon after that as this thread gets to it.
fn generate(timetable: &Timetable, probes: &Probes, outbox: &Outbox<u8>, counting: &Counting) {
    // The kernel otherwise lets a thread sleep 50 µs longer than it asks, to wake others together with it.
    let exact = std::num::NonZeroU64::new(1);
    let _ = rustix::thread::set_current_timer_slack(exact);
    let payload = Bytes::from(vec![b'p'; probes.frame_bytes]);
    for number in 0..timetable.first + timetable.count {
        let due = timetable.due(number);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if counting.stopped.load(Ordering::Relaxed) {
            return;
        }
        if timetable.counts(number).is_some() {
            timetable.seen().lag.record(due.elapsed());
        }
        if let Err(why) = outbox.push(Frame::new(PROBE, number).with(payload.clone()), Place::Alone) {
            let _ = counting.failed.send(why.to_string());
            return;
        }
    }
}
