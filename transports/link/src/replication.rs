//! The one replication channel: lanes to each peer over which partitions are spread by their ids.
//!
//! All of one partition goes over one lane, so that it stays in order. Records are the leader's own slices, sent as they lie
//! in its log: whole batches, behind a few fixed fields; the receiver's are slices of the frame. Progress, and news without
//! records, take the place of earlier ones that still wait.
//!
//! **Reliable, or over**: where more waits than the bound allows the session ends, and both sides begin anew from their logs.

use crate::handshake::{Identity, Peer, Plane};
use crate::lane::{Bound, Order};
use crate::link::{Endpoint, Frame, Incoming, Link};
use crate::session::{Hub, Owner, PeerStatus, Session, Settings};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use chronik_core::batch::Batch;
use chronik_core::ids::{LeaderEpoch, LogId, NodeId, Offset, TopicId};
use chronik_core::replication::{Attach, Attached, Event, Message, Progress, Records, ReplicationChannel};
use std::sync::Arc;

const ATTACH: u8 = 32;
const ATTACHED: u8 = 33;
const RECORDS: u8 = 34;
const PROGRESS: u8 = 35;

/// How sessions of the replication plane are kept.
pub fn settings(lanes: u32) -> Settings {
    Settings {
        lanes,
        // A batch travels in one piece, and may be as large as a request.
        frame_bytes_max: 128 << 20,
        // Credit bounds what partitions send; this is for thousands of them at once.
        bound: Bound { frames: 1 << 20, bytes: 1 << 30 },
        ..Settings::default()
    }
}

/// What events are handed to, in the tasks that read: must not block.
pub trait Events: Send + Sync + 'static {
    fn take(&self, event: Event);

    /// Whether a peer may replicate: it must be one of the cluster's brokers. Else why not.
    fn admits(&self, peer: NodeId, broker_epoch: Offset) -> Result<(), String>;
}

/// See the module's head.
pub struct ReplicationLanes {
    hub: Arc<Hub>,
}

impl ReplicationLanes {
    /// Must be called inside the plane's runtime.
    pub fn start(
        link: Arc<dyn Link>,
        incoming: Box<dyn Incoming>,
        own: Identity,
        settings: Settings,
        events: Arc<dyn Events>,
    ) -> Arc<Self> {
        debug_assert_eq!(own.plane, Plane::Replication);
        Arc::new(Self { hub: Hub::start(link, incoming, own, settings, Arc::new(Inbox(events))) })
    }

    /// Keeps sessions with these nodes, and no others.
    pub fn set_peers(&self, endpoints: Vec<Endpoint>) {
        self.hub.set_peers(endpoints);
    }

    pub fn status(&self) -> Vec<PeerStatus> {
        self.hub.status()
    }

    pub fn stop(&self) {
        self.hub.stop();
    }
}

impl ReplicationChannel for ReplicationLanes {
    fn send(&self, to: NodeId, log: LogId, message: Message) {
        let Some(session) = self.hub.session(to) else { return };
        let order = match &message {
            Message::Progress(_) => Order::Latest(log, PROGRESS),
            Message::Records(records) if records.batches.is_empty() => Order::Latest(log, RECORDS),
            Message::Records(_) => Order::Joined(log, RECORDS),
            _ => Order::Each(log),
        };
        if let Err(why) = session.send(lane_of(&log), encode(&log, message), order) {
            tracing::warn!(node = to.0, "the session with node {to} ends: {why}");
            session.end();
        }
    }
}

/// Any two nodes agree on it.
fn lane_of(log: &LogId) -> usize {
    let [.., a, b, c, d] = log.topic.0;
    (u32::from_be_bytes([a, b, c, d]).wrapping_add(log.partition as u32)) as usize
}

struct Inbox(Arc<dyn Events>);

impl Owner for Inbox {
    fn admits(&self, peer: &Peer) -> Result<(), String> {
        self.0.admits(peer.node, peer.broker_epoch)
    }

    fn up(&self, session: &Arc<Session>) {
        let node = session.peer.node;
        tracing::info!(plane = "replication", node = node.0, "a session with node {node} is up");
        self.0.take(Event::Up { peer: node, broker_epoch: session.peer.broker_epoch });
    }

    fn frame(&self, session: &Arc<Session>, _: usize, frame: Frame) {
        let from = session.peer.node;
        let kind = frame.kind;
        match decode(kind, frame.into_body()) {
            Some((log, message)) => self.0.take(Event::Message { from, log, message }),
            None => {
                tracing::warn!(node = from.0, kind, "what came from node {from} cannot be read: its session ends");
                session.end();
            }
        }
    }

    fn down(&self, session: &Arc<Session>) {
        self.0.take(Event::Down { peer: session.peer.node });
    }
}

/// Bytes of what stands before batches, and of every other message at most.
const FIELDS_BYTES: usize = 80;

/// A message as it goes on a lane. Batches' records are shared.
pub fn encode(log: &LogId, message: Message) -> Frame {
    let mut fields = BytesMut::with_capacity(FIELDS_BYTES);
    fields.put_slice(&log.topic.0);
    fields.put_i32(log.partition);
    let kind = match &message {
        Message::Attach(attach) => {
            fields.put_i32(attach.epoch.0);
            fields.put_i64(attach.log_start.0);
            fields.put_i64(attach.log_end.0);
            fields.put_i32(attach.last_epoch.map_or(-1, |epoch| epoch.0));
            fields.put_u64(attach.credit_bytes);
            ATTACH
        }
        Message::Progress(progress) => {
            fields.put_i32(progress.epoch.0);
            fields.put_i64(progress.log_start.0);
            fields.put_i64(progress.written_end.0);
            fields.put_i64(progress.durable_end.0);
            fields.put_u64(progress.credit_bytes);
            PROGRESS
        }
        Message::Attached(attached) => {
            let none = LeaderEpoch(-1);
            let (kind, epoch, last_epoch, offset) = match attached {
                Attached::Stream { epoch, high_watermark } => (0, *epoch, none, *high_watermark),
                Attached::Diverged { epoch, last_epoch, end } => (1, *epoch, *last_epoch, *end),
                Attached::Reset { epoch, start, .. } => (2, *epoch, none, *start),
                Attached::Fenced { current } => (3, *current, none, Offset(-1)),
                Attached::NotYet { epoch } => (4, *epoch, none, Offset(-1)),
            };
            fields.put_u8(kind);
            fields.put_i32(epoch.0);
            fields.put_i32(last_epoch.0);
            fields.put_i64(offset.0);
            ATTACHED
        }
        Message::Records(records) => {
            fields.put_i32(records.epoch.0);
            fields.put_i64(records.high_watermark.0);
            fields.put_i64(records.log_start.0);
            RECORDS
        }
    };
    let mut frame = Frame::new(kind, 0).with(fields.freeze());
    match message {
        Message::Records(records) => {
            records.batches.into_iter().for_each(|batch| frame.body.extend(batch.to_payload()))
        }
        Message::Attached(Attached::Reset { known, .. }) => frame = frame.with(known),
        _ => {}
    }
    frame
}

/// What a peer has sent, as a frame of this kind; `None` where it cannot be read. Batches are slices of the body, and nothing
/// of them is checked but where they end.
pub fn decode(kind: u8, mut body: Bytes) -> Option<(LogId, Message)> {
    let mut topic = [0; 16];
    body.try_copy_to_slice(&mut topic).ok()?;
    let log = LogId { topic: TopicId(topic), partition: body.try_get_i32().ok()? };
    let message = match kind {
        ATTACH => Message::Attach(Attach {
            epoch: LeaderEpoch(body.try_get_i32().ok()?),
            log_start: Offset(body.try_get_i64().ok()?),
            log_end: Offset(body.try_get_i64().ok()?),
            last_epoch: Some(body.try_get_i32().ok()?).filter(|epoch| *epoch >= 0).map(LeaderEpoch),
            credit_bytes: body.try_get_u64().ok()?,
        }),
        PROGRESS => Message::Progress(Progress {
            epoch: LeaderEpoch(body.try_get_i32().ok()?),
            log_start: Offset(body.try_get_i64().ok()?),
            written_end: Offset(body.try_get_i64().ok()?),
            durable_end: Offset(body.try_get_i64().ok()?),
            credit_bytes: body.try_get_u64().ok()?,
        }),
        ATTACHED => {
            let kind = body.try_get_u8().ok()?;
            let epoch = LeaderEpoch(body.try_get_i32().ok()?);
            let last_epoch = LeaderEpoch(body.try_get_i32().ok()?);
            let offset = Offset(body.try_get_i64().ok()?);
            Message::Attached(match kind {
                0 => Attached::Stream { epoch, high_watermark: offset },
                1 => Attached::Diverged { epoch, last_epoch, end: offset },
                // Whether it can be read is for those who need it to see.
                2 => return Some((log, Message::Attached(Attached::Reset { epoch, start: offset, known: body }))),
                3 => Attached::Fenced { current: epoch },
                4 => Attached::NotYet { epoch },
                _ => return None,
            })
        }
        RECORDS => {
            let mut records = Records {
                epoch: LeaderEpoch(body.try_get_i32().ok()?),
                high_watermark: Offset(body.try_get_i64().ok()?),
                log_start: Offset(body.try_get_i64().ok()?),
                batches: Vec::new(),
            };
            while !body.is_empty() {
                records.batches.push(Batch::split_from(&mut body).ok()?);
            }
            return Some((log, Message::Records(records)));
        }
        _ => return None,
    };
    // Nothing follows: more would mean something that is not understood.
    body.is_empty().then_some((log, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronik_core::batch::{Builder, RecordOut};
    use chronik_core::time::Timestamp;

    const LOG: LogId = LogId { topic: TopicId([7; 16]), partition: 12 };

    fn batch(value: &[u8]) -> Batch {
        let mut builder = Builder::new(Timestamp(1));
        builder.push(&RecordOut { value: Some(value), ..RecordOut::default() });
        builder.build()
    }

    fn messages() -> Vec<Message> {
        let (epoch, end) = (LeaderEpoch(3), Offset(40));
        let attach = Attach { epoch, log_start: Offset(1), log_end: end, last_epoch: None, credit_bytes: 77 };
        let progress =
            Progress { epoch, log_start: Offset(1), written_end: end, durable_end: Offset(39), credit_bytes: 5 };
        let records = |batches| Records { epoch, high_watermark: end, log_start: Offset(2), batches };
        vec![
            Message::Attach(attach),
            Message::Attach(Attach { last_epoch: Some(LeaderEpoch(0)), ..attach }),
            Message::Progress(progress),
            Message::Attached(Attached::Stream { epoch, high_watermark: end }),
            Message::Attached(Attached::Diverged { epoch, last_epoch: LeaderEpoch(2), end }),
            Message::Attached(Attached::Reset { epoch, start: end, known: Bytes::from_static(b"known") }),
            Message::Attached(Attached::Fenced { current: epoch }),
            Message::Attached(Attached::NotYet { epoch }),
            Message::Records(records(Vec::new())),
            Message::Records(records(vec![batch(b"one"), batch(b"another")])),
        ]
    }

    #[test]
    fn every_message_reads_back_and_records_are_slices_of_their_frame() {
        for message in messages() {
            let frame = encode(&LOG, message.clone());
            let (kind, body) = (frame.kind, frame.into_body());
            let (log, back) = decode(kind, body.clone()).expect("it can be read");
            assert_eq!((log, &back), (LOG, &message));
            if let Message::Records(records) = back {
                for batch in &records.batches {
                    assert!(body.as_ptr_range().contains(&batch.records.as_ptr()), "shared");
                }
            }
        }
    }

    #[test]
    fn what_is_cut_short_or_goes_on_is_refused() {
        for message in messages() {
            let frame = encode(&LOG, message.clone());
            let (kind, body) = (frame.kind, frame.into_body());
            let opaque = if let Message::Attached(Attached::Reset { known, .. }) = &message { known.len() } else { 0 };
            if opaque == 0 {
                let with_more = [body.as_ref(), b"x"].concat();
                assert_eq!(decode(kind, with_more.into()), None, "{message:?}");
            }
            let shorter = decode(kind, body.slice(..body.len() - opaque - 1));
            assert_eq!(shorter, None, "{message:?}");
        }
        assert_eq!(decode(99, Bytes::from_static(&[0; 40])), None);
    }
}
