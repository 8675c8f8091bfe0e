//! What the one replication channel makes of sessions.

use super::sessions::{bare, patient, say};
use super::{Layer, identity, listener, soon};
use chronik_core::batch::{Batch, Builder, RecordOut};
use chronik_core::ids::{LeaderEpoch, LogId, NodeId, Offset, TopicId};
use chronik_core::replication::{Event, Message, Progress, Records, ReplicationChannel};
use chronik_core::time::Timestamp;
use chronik_link::Endpoint;
use chronik_link::handshake::Plane;
use chronik_link::lane::Bound;
use chronik_link::replication::{Events, ReplicationLanes, encode, settings};
use chronik_link::session::Settings;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const LOG: LogId = LogId { topic: TopicId([5; 16]), partition: 3 };

#[derive(Default)]
pub struct Seen(Mutex<Vec<Event>>);

impl Events for Seen {
    fn take(&self, event: Event) {
        self.0.lock().expect("no rule panics in here").push(event);
    }

    fn admits(&self, _: NodeId, _: Offset) -> Result<(), String> {
        Ok(())
    }
}

impl Seen {
    pub fn all(&self) -> Vec<Event> {
        self.0.lock().expect("no rule panics in here").clone()
    }

    pub async fn until(&self, what: &str, found: impl Fn(&[Event]) -> bool) -> Vec<Event> {
        let look = async {
            loop {
                let all = self.all();
                if found(&all) {
                    return all;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(super::PATIENCE, look).await {
            Ok(all) => all,
            Err(_) => panic!("{what}: only {:?}", self.all()),
        }
    }
}

pub struct Replica {
    pub lanes: Arc<ReplicationLanes>,
    pub seen: Arc<Seen>,
    pub at: Endpoint,
}

pub async fn replica(layer: &Layer, node: i32, settings: Settings) -> Replica {
    let (incoming, at) = listener(layer, node).await;
    let seen = Arc::new(Seen::default());
    let link = (layer.node)(node);
    let own = identity(node, Plane::Replication, link.name(), "c");
    let lanes = ReplicationLanes::start(link, incoming, own, settings, seen.clone());
    Replica { lanes, seen, at }
}

fn records_of(number: i64, value: &[u8]) -> Message {
    let mut builder = Builder::new(Timestamp(1));
    builder.push(&RecordOut { value: Some(value), ..RecordOut::default() });
    let mut batch = builder.build();
    batch.header.base_offset = Offset(number);
    let (epoch, high_watermark) = (LeaderEpoch(1), Offset(number));
    Message::Records(Records { epoch, high_watermark, log_start: Offset(0), batches: vec![batch.clone(), batch] })
}

fn records(number: i64) -> Message {
    records_of(number, &[7; 3_000])
}

fn news(high_watermark: i64) -> Message {
    let (epoch, high_watermark) = (LeaderEpoch(1), Offset(high_watermark));
    Message::Records(Records { epoch, high_watermark, log_start: Offset(0), batches: Vec::new() })
}

pub fn progress(end: i64) -> Message {
    let end = Offset(end);
    let epoch = LeaderEpoch(1);
    Message::Progress(Progress { epoch, log_start: Offset(0), written_end: end, durable_end: end, credit_bytes: 1 })
}

pub async fn is_ordered_and_begins_anew_with_each_session(layer: &Layer) {
    let one = replica(layer, 1, settings(2)).await;
    let two = replica(layer, 2, settings(2)).await;
    one.lanes.send(NodeId(2), LOG, records(0));
    one.lanes.set_peers(vec![two.at.clone()]);
    two.lanes.set_peers(vec![one.at.clone()]);
    let is_up = |node: i32| {
        move |all: &[Event]| {
            all.contains(&Event::Up { peer: NodeId(node), broker_epoch: Offset(100 + i64::from(node)) })
        }
    };
    one.seen.until("node 2 comes up", is_up(2)).await;
    two.seen.until("node 1 comes up", is_up(1)).await;
    for number in 1..=300 {
        one.lanes.send(NodeId(2), LOG, records(number));
        one.lanes.send(NodeId(2), LOG, news(number + 1));
        two.lanes.send(NodeId(1), LOG, progress(number));
    }
    let heard = |message| Event::Message { from: NodeId(1), log: LOG, message };
    let last = heard(news(301));
    let all = two.seen.until("all that was said comes", |all| all.last() == Some(&last)).await;
    // Messages that wait together may come as one: it is the batches that count.
    let batches = |message: &Message| match message {
        Message::Records(records) => records.batches.clone(),
        other => panic!("{other:?}"),
    };
    let came: Vec<Batch> = all[1..]
        .iter()
        .flat_map(|event| match event {
            Event::Message { from: NodeId(1), log: LOG, message } => batches(message),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected: Vec<Batch> = (1..=300).flat_map(|number| batches(&records(number))).collect();
    assert!(came == expected, "what was said before the session is not heard, and all else in order, once");
    let marks = all[1..].iter().map(|event| match event {
        Event::Message { message: Message::Records(records), .. } => records.high_watermark,
        other => panic!("{other:?}"),
    });
    assert!(marks.is_sorted(), "news overtakes no records");
    let last = Event::Message { from: NodeId(2), log: LOG, message: progress(300) };
    let all = one.seen.until("the last progress comes", |all| all.last() == Some(&last)).await;
    assert!(all.len() <= 301, "of progress only the last counts, and nothing comes twice");
    two.lanes.stop();
    let down = Event::Down { peer: NodeId(2) };
    one.seen.until("the end is told", |all| all.last() == Some(&down)).await;
    // And a new one is a new one.
    one.lanes.send(NodeId(2), LOG, records(501));
    let again = replica(layer, 2, settings(2)).await;
    one.lanes.set_peers(vec![again.at.clone()]);
    again.lanes.set_peers(vec![one.at.clone()]);
    again.seen.until("it comes up again", is_up(1)).await;
    one.seen.until("and is told so", |all| matches!(all.last(), Some(Event::Up { .. }))).await;
    one.lanes.send(NodeId(2), LOG, records(502));
    let all = again.seen.until("records come", |all| all.len() > 1).await;
    assert_eq!(all[1], heard(records(502)), "nothing of the old session");
}

/// More than any network layer holds for a peer that does not read.
const MUCH_BYTES: usize = 192 << 20;

pub async fn reads_on_while_its_own_sends_are_blocked(layer: &Layer) {
    let hub = replica(layer, 2, patient(settings(1))).await;
    let mut lane = bare(layer, 1, Plane::Replication, &hub.at, 1, 1).await.remove(0);
    hub.seen.until("the session", |all| !all.is_empty()).await;
    let large = records_of(1, &vec![7; 1 << 20]);
    for _ in 0..MUCH_BYTES / (2 << 20) {
        hub.lanes.send(NodeId(1), LOG, large.clone());
    }
    for number in 1..=300 {
        soon("a frame to one that cannot send", say(&mut lane, encode(&LOG, progress(number))))
            .await
            .expect("it is sent");
    }
    let last = Event::Message { from: NodeId(1), log: LOG, message: progress(300) };
    let all = hub.seen.until("all progress comes", |all| all.last() == Some(&last)).await;
    assert_eq!(all.len(), 301, "a peer's own frames are all delivered");
}

pub async fn ends_the_session_when_too_much_waits(layer: &Layer) {
    let settings = Settings { bound: Bound { frames: 100, bytes: 8 << 20 }, ..settings(1) };
    let hub = replica(layer, 2, patient(settings)).await;
    let _unread = bare(layer, 1, Plane::Replication, &hub.at, 1, 1).await;
    hub.seen.until("the session", |all| !all.is_empty()).await;
    let large = records_of(1, &vec![7; 1 << 20]);
    for _ in 0..MUCH_BYTES / (2 << 20) {
        hub.lanes.send(NodeId(1), LOG, large.clone());
    }
    hub.seen.until("its end", |all| all.last() == Some(&Event::Down { peer: NodeId(1) })).await;
}
