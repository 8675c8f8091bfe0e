//! What a peer sends on a lane: the handshake, from either side, and then frames of its plane, however they are cut.
//!
//! Two bytes choose: which side greets and which plane it is, and the length of the pieces in which the rest comes. What
//! is read from a frame must be what is read from its own encoding.

use crate::target::{Seen, Target};
use async_trait::async_trait;
use bytes::Bytes;
use chronik_core::batch::{Builder, RecordOut};
use chronik_core::ids::{LeaderEpoch, LogId, NodeId, Offset, TopicId};
use chronik_core::metadata::requests::{Answer, Request};
use chronik_core::replication::{Attach, Attached, Message, Progress, Records};
use chronik_core::time::Timestamp;
use chronik_link::handshake::{HELLO, Identity, Place, Plane, WELCOME, answer, greet};
use chronik_link::pieces::{Pieces, Source, slices_of};
use chronik_link::raft::{ANSWER, ASK, RAFT};
use chronik_link::replication;
use chronik_link::{Endpoint, Frame, Head, Lane, LaneReceiver, LaneSender, LinkError};
use chronik_proto_cluster::greeting::{Hello, PROTOCOL_VERSION, Welcome};
use futures::executor::block_on;
use prost::Message as _;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};

/// See the module's head.
pub struct Frames;

/// Bytes that choose, before those that come.
const CHOICE_BYTES: usize = 2;
/// The node that is fed, and the one that the bytes pretend to come from.
const OWN: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);
const CLUSTER: &str = "mine";
const LANES: u32 = 3;
/// What the handshake's frames have for a number.
const GREETING: u64 = u64::from_be_bytes(*b"CHRONIK\x01");

/// All that comes, in pieces of one length.
struct Cut {
    rest: Bytes,
    length: usize,
}

#[async_trait]
impl Source for Cut {
    async fn next(&mut self) -> Result<Option<Bytes>, LinkError> {
        let piece = self.rest.split_to(self.length.min(self.rest.len()));
        Ok((!piece.is_empty()).then_some(piece))
    }
}

struct Receiver(Pieces<Cut>);

#[async_trait]
impl LaneReceiver for Receiver {
    async fn receive(&mut self) -> Result<Option<Frame>, LinkError> {
        self.0.frame().await
    }

    fn set_frame_bytes_max(&mut self, bytes: usize) {
        self.0.set_frame_bytes_max(bytes);
    }
}

/// Where what the node says goes.
struct Nowhere;

#[async_trait]
impl LaneSender for Nowhere {
    async fn send(&mut self, frames: &mut VecDeque<Frame>) -> Result<(), LinkError> {
        frames.clear();
        Ok(())
    }

    async fn finish(&mut self) {}
}

fn identity(plane: Plane) -> Identity {
    Identity::new(OWN, [1; 16], plane, "tcp", CLUSTER.into(), Some(Offset(5)))
}

/// Reads one frame as its plane does. `None`: it cannot be read.
fn read(plane: Plane, kind: u8, body: Bytes) -> Option<()> {
    match plane {
        Plane::Replication => {
            let (log, message) = replication::decode(kind, body)?;
            let again = replication::encode(&log, message.clone());
            assert_eq!(again.kind, kind);
            let read = replication::decode(kind, again.into_body());
            assert_eq!(read, Some((log, message)), "it is read otherwise from its own encoding");
        }
        Plane::Raft => match kind {
            RAFT => {
                let message = chronik_proto_cluster::raft::decode(body).ok()?;
                let encoded = chronik_proto_cluster::raft::encode(&message);
                let read = chronik_proto_cluster::raft::decode(encoded);
                assert!(read.as_ref() == Ok(&message), "{message:?} is read otherwise from its own encoding: {read:?}");
            }
            ASK => {
                let request = Request::from_bytes(body).ok()?;
                assert_eq!(Request::from_bytes(request.to_bytes()), Ok(request));
            }
            ANSWER => {
                let answer = Answer::from_bytes(body).ok()?;
                assert_eq!(Answer::from_bytes(answer.to_bytes()), Ok(answer));
            }
            _ => return None,
        },
    }
    Some(())
}

async fn feed(choice: [u8; CHOICE_BYTES], bytes: Bytes) -> Seen {
    let plane = if choice[0] & 1 == 0 { Plane::Raft } else { Plane::Replication };
    let dialled = choice[0] & 2 != 0;
    let all = bytes.len();
    let length = usize::from(choice[1]).max(1);
    let mut lane = Lane {
        remote: SocketAddr::from((Ipv4Addr::LOCALHOST, 9)),
        certified: (choice[0] & 4 != 0).then_some(PEER),
        sender: Box::new(Nowhere),
        receiver: Box::new(Receiver(Pieces::new(Cut { rest: bytes, length }))),
    };
    let own = identity(plane);
    let met = if dialled {
        let to = Endpoint { node: PEER, host: "host".into(), port: 9 };
        greet(&mut lane, &own, &to, Place { session: 3, lane: 0, lanes: LANES }).await
    } else {
        answer(&mut lane, &own, |_, place| if place.lanes == LANES { Ok(()) } else { Err("lanes".into()) }).await.map(
            |(peer, place)| {
                assert!(place.lane < place.lanes, "there is no such lane");
                peer
            },
        )
    };
    let peer = match met {
        Ok(peer) => peer,
        Err(why) => {
            let words: String = why.to_string().chars().filter(|c| c.is_ascii_alphabetic()).take(60).collect();
            return Seen::refused((choice[0] & 3, words), None);
        }
    };
    if choice[0] & 4 != 0 || dialled {
        assert_eq!(peer.node, PEER, "somebody else than the certificate or the endpoint says");
    }
    assert!(peer.node != OWN && (peer.cluster_id.is_empty() || peer.cluster_id == CLUSTER));
    lane.receiver.set_frame_bytes_max(chronik_link::raft::settings().frame_bytes_max);
    let mut seen = Vec::new();
    loop {
        match lane.receiver.receive().await {
            Ok(Some(frame)) => {
                let kind = frame.kind;
                assert!(frame.body_bytes() <= all, "more has come than was sent");
                let was = read(plane, kind, frame.into_body());
                let is_over = was.is_none() && kind > 4;
                if seen.len() < 3 {
                    seen.push((kind, was));
                }
                if is_over {
                    return Seen::refused((choice[0] & 3, seen), None);
                }
            }
            Ok(None) => return Seen::taken((choice[0] & 3, seen)),
            Err(why) => return Seen::refused((choice[0] & 3, seen, std::mem::discriminant(&why)), None),
        }
    }
}

fn hello(plane: Plane) -> Frame {
    let hello = Hello {
        protocol_version: PROTOCOL_VERSION,
        cluster_id: CLUSTER.into(),
        node_id: PEER.0,
        directory_id: vec![2; 16],
        broker_epoch: 7,
        plane: plane.name().into(),
        transport: "tcp".into(),
        session: 3,
        lane: 1,
        lanes: LANES,
        to: OWN.0,
        other_transport: "quic".into(),
    };
    Frame::new(HELLO, GREETING).with(hello.encode_to_vec().into())
}

fn welcome() -> Frame {
    let welcome = Welcome {
        refusal: String::new(),
        protocol_version: PROTOCOL_VERSION,
        cluster_id: CLUSTER.into(),
        node_id: PEER.0,
        directory_id: vec![2; 16],
        broker_epoch: 7,
        transport: "tcp".into(),
        other_transport: "quic".into(),
    };
    Frame::new(WELCOME, GREETING).with(welcome.encode_to_vec().into())
}

/// What leader and follower say to each other.
pub(super) fn replication_messages() -> Vec<Message> {
    let mut builder = Builder::new(Timestamp(1));
    builder.push(&RecordOut { value: Some(b"value"), ..RecordOut::default() });
    let batch = builder.build();
    let (epoch, end) = (LeaderEpoch(3), Offset(4));
    let attach = Attach { epoch, log_start: Offset(0), log_end: end, last_epoch: Some(epoch), credit_bytes: 4 << 20 };
    vec![
        Message::Attach(attach),
        Message::Attach(Attach { last_epoch: None, log_end: Offset(0), ..attach }),
        Message::Progress(Progress {
            epoch,
            log_start: Offset(0),
            written_end: end,
            durable_end: end,
            credit_bytes: 5 << 20,
        }),
        Message::Attached(Attached::Stream { epoch, high_watermark: Offset(2) }),
        Message::Attached(Attached::Diverged { epoch, last_epoch: LeaderEpoch(2), end: Offset(3) }),
        Message::Attached(Attached::Reset { epoch, start: Offset(9), known: bytes::Bytes::from_static(b"known") }),
        Message::Attached(Attached::Fenced { current: LeaderEpoch(4) }),
        Message::Attached(Attached::NotYet { epoch }),
        Message::Records(Records { epoch, high_watermark: end, log_start: Offset(1), batches: Vec::new() }),
        Message::Records(Records { epoch, high_watermark: end, log_start: Offset(0), batches: vec![batch] }),
    ]
}

fn frames_of(plane: Plane) -> Vec<Frame> {
    let log = LogId { topic: TopicId([7; 16]), partition: 12 };
    match plane {
        Plane::Replication => {
            replication_messages().into_iter().map(|message| replication::encode(&log, message)).collect()
        }
        Plane::Raft => {
            let mut frames: Vec<_> = (super::raft::messages().iter())
                .map(|message| Frame::new(RAFT, 0).with(chronik_proto_cluster::raft::encode(message)))
                .collect();
            frames
                .extend((1..).zip(super::raft::requests()).map(|(n, asked)| Frame::new(ASK, n).with(asked.to_bytes())));
            frames
                .extend((1..).zip(super::raft::answers()).map(|(n, said)| Frame::new(ANSWER, n).with(said.to_bytes())));
            frames
        }
    }
}

impl Target for Frames {
    fn name(&self) -> &'static str {
        "frames"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let mut seeds = Vec::new();
        for (choice, plane) in [(0, Plane::Raft), (1, Plane::Replication), (4, Plane::Raft)] {
            for frame in frames_of(plane) {
                for (side, greeting) in [(0, hello(plane)), (2, welcome())] {
                    let mut frames = VecDeque::from([greeting, frame.clone(), frame.clone()]);
                    let mut seed = vec![choice | side, 100];
                    seed.extend(slices_of(&mut frames).concat());
                    seeds.push(seed);
                }
            }
        }
        seeds
    }

    fn feed(&self, input: &[u8]) -> Seen {
        match input.split_first_chunk::<CHOICE_BYTES>() {
            Some((choice, bytes)) => block_on(feed(*choice, Bytes::copy_from_slice(bytes))),
            None => Seen::refused("short", None),
        }
    }

    /// A frame that reaches beyond the end ends there; others keep their lengths, so that what follows them stays.
    fn mend(&self, input: &mut Vec<u8>) {
        let mut at = CHOICE_BYTES;
        while let Some(head) = input.get(at..).and_then(|rest| rest.first_chunk()) {
            let mut head = Head::from_bytes(head);
            let rest = input.len() - at - chronik_link::link::HEAD_BYTES;
            head.body_bytes = head.body_bytes.min(rest as u32);
            if at == CHOICE_BYTES {
                head.number = GREETING;
            }
            let head_end = at + chronik_link::link::HEAD_BYTES;
            input[at..head_end].copy_from_slice(&head.to_bytes());
            at = head_end + head.body_bytes as usize;
        }
    }

    fn words(&self) -> &[&'static [u8]] {
        &[b"CHRONIK\x01", b"mine", b"raft", b"replication", b"tcp"]
    }

    /// A long body is put together in steps of 1 MiB, and what Protocol Buffers make of many empty elements is bounded by
    /// their number: see the target `raft`.
    fn more_memory_bytes(&self) -> usize {
        (2 << 20) + super::raft::ELEMENTS_BYTES_MAX
    }
}
