//! What the metadata is made of, as bytes: Raft's messages to the machine that takes them, records and whole entries to the
//! image, what brokers ask the controller, and what a node's own Raft log holds.
//!
//! The first byte says which. A Raft input is a story: messages of two peers, with ticks and proposals of this node's own
//! between them. Nothing that a peer can send may end the process; what is decoded is encoded to what decodes to the same;
//! what the controller decides can be applied; and an image that was changed is the same again when it is read from its
//! own records.

use crate::target::{Seen, Target, about};
use bytes::Bytes;
use chronik_core::ids::{LeaderEpoch, LogId, NodeId, Offset, ProducerId, TopicId};
use chronik_core::metadata::controller::{
    self, AlterPartitionError, AlterPartitions, FirstStart, Heartbeat, HeartbeatAnswer, Lost, NewTopic,
    ProducerIdBlock, Registration, WantedInSync, supported_features,
};
use chronik_core::metadata::image::Listener;
use chronik_core::metadata::raft::store::survey;
use chronik_core::metadata::raft::{
    Configuration, Effect, Input, Member, Members, MetadataRaft, Plan, Recovered, Report, Settings, VoterStep,
    VoterWish,
};
use chronik_core::metadata::records::{BrokerStateRecord, Facts, Record};
use chronik_core::metadata::requests::{Answer, Refusal, Request};
use chronik_core::metadata::{ClusterDefaults, Delta, Entry, Image};
use chronik_core::payload::Payload;
use chronik_core::time::Monotonic;
use chronik_core::wal::LogState;
use raft::eraftpb::{self, MessageType};
use std::sync::OnceLock;
use std::time::Duration;

/// See the module's head.
pub struct Raft;

/// What many empty elements of an input may come to: two bytes each make a record or an entry of some hundred bytes, twice
/// while their array moves. How many may come is bounded where they do (`ENTRIES_MAX`, `REQUEST_BYTES_MAX`).
pub const ELEMENTS_BYTES_MAX: usize = crate::target::INPUT_BYTES_MAX / 2 * 1024;

const TOPIC: TopicId = TopicId([7; 16]);
const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

fn members() -> Members {
    NODES.into_iter().zip(1u8..).filter_map(|(node, n)| Member::new(node, [n; 16], format!("host-{n}:9093"))).collect()
}

fn registration(node: NodeId) -> Registration {
    Registration {
        node,
        incarnation: [node.0 as u8; 16],
        directory_id: [node.0 as u8; 16],
        rack: Some("rack".into()),
        listeners: vec![Listener { name: "main".into(), host: "h".into(), port: 9092 }],
        clean: true,
        lost: Lost::NOTHING,
        replication_address: Some("h:9192".into()),
        features: supported_features(),
        after: None,
    }
}

/// Applies a decision's records, as the next entry.
fn write(image: &mut Image, records: Vec<Record>) {
    let at = image.position().next;
    if let Err(why) = image.apply_entry(at, LeaderEpoch(1), &records, &mut Delta::default()) {
        panic!("what was decided cannot be applied: {why}: {records:?}");
    }
}

/// A cluster of three brokers with a topic.
fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let mut image = Image::empty(ClusterDefaults::default());
        let first = controller::bootstrap(&image, FirstStart { cluster_id: [9; 16] });
        write(&mut image, first.records);
        for node in NODES {
            match controller::admit_broker(&image, &registration(node)) {
                Ok(decision) => write(&mut image, decision.records),
                Err(why) => panic!("broker {node} is not admitted: {why}"),
            }
            let epoch = image.broker(node).map_or(0, |broker| broker.epoch.0);
            let able = BrokerStateRecord { node_id: node.0, broker_epoch: epoch, ..BrokerStateRecord::default() };
            write(&mut image, vec![Record::BrokerState(able)]);
        }
        let topic = NewTopic { name: "topic".into(), partitions: 2, replication_factor: 3, ..NewTopic::default() };
        let created = controller::create_topics(&image, &[topic], || TOPIC);
        write(&mut image, created.records);
        image
    })
}

fn broker_epoch(node: NodeId) -> Offset {
    image().broker(node).map_or(Offset(0), |broker| broker.epoch)
}

/// What brokers ask.
pub(super) fn requests() -> Vec<Request> {
    let log = LogId { topic: TOPIC, partition: 1 };
    let partition = image().partition(TOPIC, 1).cloned();
    let (leader, leader_epoch, partition_epoch) =
        partition.map_or((None, LeaderEpoch(0), 0), |of| (of.leader, of.leader_epoch, of.partition_epoch));
    let epoch = broker_epoch(leader.unwrap_or(NODES[0]));
    let isr = NODES.map(|node| (node, broker_epoch(node)));
    let wanted =
        |count: usize| WantedInSync { log, leader_epoch, partition_epoch, isr: isr[..count].to_vec(), synced: true };
    let asked = |count| AlterPartitions { broker_epoch: epoch, seq: 1, partitions: vec![wanted(count)] };
    vec![
        Request::Register(Registration {
            incarnation: [5; 16],
            lost: Lost { damaged: vec![log], missing: vec![log] },
            after: Some(broker_epoch(NODES[1])),
            ..registration(NODES[1])
        }),
        Request::Register(registration(NodeId(4))),
        Request::Heartbeat(Heartbeat {
            broker_epoch: epoch,
            applied: Offset(9),
            offline: vec![log],
            wants_shutdown: true,
        }),
        Request::AlterPartitions(asked(2)),
        Request::AlterPartitions(asked(3)),
        Request::AllocateProducerIds { broker_epoch: epoch },
        Request::Forward { listener: "main".into(), frame: Bytes::from_static(b"\0\x13\0\x07\0\0\0\x01") },
        Request::Voter(VoterWish { node: NODES[1], directory_id: [2; 16], votes: true }),
    ]
}

/// What they are told.
pub(super) fn answers() -> Vec<Answer> {
    let log = LogId { topic: TOPIC, partition: 1 };
    vec![
        Answer::Refused(Refusal::NotController { leader: Some(NODES[2]) }),
        Answer::Refused(Refusal::NotAdmitted("why".into())),
        Answer::Refused(Refusal::RegisteredSince { present: Some(Offset(5)) }),
        Answer::Registered { broker_epoch: Offset(5) },
        Answer::Heartbeat(HeartbeatAnswer { fenced: true, may_stop: false }),
        Answer::AlterPartitions(vec![(log, Err(AlterPartitionError::IneligibleReplica(NODES[1])))]),
        Answer::ProducerIds(ProducerIdBlock { first: ProducerId(0), count: 1_000 }),
        Answer::Forwarded { frame: Bytes::from_static(b"answer") },
        Answer::Voter(VoterStep::UnderWay),
    ]
}

fn id(node: usize) -> u64 {
    members().ids_of(NODES[node]).next().map_or(0, |id| id.get())
}

/// What members say to the first of them.
pub(super) fn messages() -> Vec<eraftpb::Message> {
    let of = |kind: MessageType, term: u64| {
        let mut message = eraftpb::Message { to: id(0), from: id(1), term, ..eraftpb::Message::default() };
        message.set_msg_type(kind);
        message
    };
    let entry = |index: u64, data: &'static [u8]| eraftpb::Entry {
        term: 2,
        index,
        data: Bytes::from_static(data),
        ..eraftpb::Entry::default()
    };
    let mut append = of(MessageType::MsgAppend, 2);
    (append.index, append.log_term, append.commit) = (1, 1, 1);
    append.set_entries(vec![entry(2, b""), entry(3, b"data")].into());
    let mut further = append.clone();
    (further.index, further.log_term, further.commit) = (3, 2, 3);
    further.set_entries(vec![entry(4, b"more")].into());
    let mut heartbeat = of(MessageType::MsgHeartbeat, 2);
    heartbeat.commit = 1;
    let mut vote = of(MessageType::MsgRequestVote, 3);
    (vote.index, vote.log_term) = (9, 2);
    let mut asked_before = of(MessageType::MsgRequestPreVote, 3);
    (asked_before.index, asked_before.log_term) = (9, 2);
    let mut taken = of(MessageType::MsgAppendResponse, 2);
    taken.index = 2;
    let mut refused = taken.clone();
    (refused.reject, refused.reject_hint) = (true, 1);
    let genesis = Recovered::genesis(&members());
    let mut snapshot = of(MessageType::MsgSnapshot, 2);
    if let Some(given) = snapshot_of(&genesis) {
        snapshot.set_snapshot(given);
    }
    vec![
        append,
        further,
        heartbeat,
        vote,
        asked_before,
        taken,
        refused,
        snapshot,
        of(MessageType::MsgRequestVoteResponse, 2),
        of(MessageType::MsgRequestPreVoteResponse, 2),
        of(MessageType::MsgHeartbeatResponse, 2),
        of(MessageType::MsgTimeoutNow, 2),
    ]
}

/// A snapshot as a leader sends it: what its machine makes of one that it was given.
fn snapshot_of(genesis: &Recovered) -> Option<eraftpb::Snapshot> {
    let snapshot = genesis.snapshot.as_ref()?;
    let mut given = eraftpb::Snapshot::default();
    // Its first field is the members.
    let known = snapshot.members.to_bytes();
    let mut data = vec![0x0a];
    prost::encoding::encode_varint(known.len() as u64, &mut data);
    data.extend(known);
    given.data = data.into();
    let metadata = given.mut_metadata();
    (metadata.index, metadata.term) = (40, 2);
    metadata.mut_conf_state().voters = snapshot.configuration.voters.iter().map(|id| id.get()).collect();
    Some(given)
}

/// What an input may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Story,
    Entries,
    Record,
    Request,
    Answer,
    FirstStart,
    Membership,
    Stored,
}

const KINDS: [Kind; 8] = [
    Kind::Story,
    Kind::Entries,
    Kind::Record,
    Kind::Request,
    Kind::Answer,
    Kind::FirstStart,
    Kind::Membership,
    Kind::Stored,
];

/// Pieces of an input: a byte that says what it is, its length in two, and its bytes.
fn pieces(mut rest: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (kind, after) = rest.split_first()?;
        let (length, after) = after.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
        let (piece, after) = after.split_at(length);
        rest = after;
        Some((*kind, piece))
    })
}

fn piece(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut piece = vec![kind];
    piece.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    piece.extend_from_slice(bytes);
    piece
}

/// A member whose disk does at once what it is asked.
struct Node {
    machine: MetadataRaft,
    now: Monotonic,
    /// The last entry that was applied, and its term.
    applied: (u64, u64),
    said: u32,
}

impl Node {
    fn new() -> Self {
        let members = members();
        let Some(own) = members.iter().find(|member| member.node() == NODES[0]).cloned() else { panic!("it has none") };
        let settings = Settings { snapshot_after_entries: 8, keep_entries: 2, ..Settings::default() };
        let now = Monotonic(Duration::ZERO);
        let genesis = Recovered::genesis(&members);
        match MetadataRaft::open(now, own, settings, 7, genesis, members) {
            Ok(machine) => {
                let mut node = Self { machine, now, applied: (1, 1), said: 0 };
                node.carry_out();
                node
            }
            Err(why) => panic!("it does not start: {why}"),
        }
    }

    fn handle(&mut self, input: Input) {
        self.machine.handle(self.now, input);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.machine.poll_effect() {
            let next = match effect {
                Effect::Persist(persist) => Some(Input::Persisted { number: persist.number }),
                Effect::Apply(entries) => {
                    for entry in &entries {
                        assert_eq!(entry.at.index, self.applied.0 + 1, "an entry is applied out of turn");
                        assert!(entry.at.term >= self.applied.1, "an entry of an earlier term is applied");
                        self.applied = (entry.at.index, entry.at.term);
                    }
                    Some(Input::Applied { index: self.applied.0 })
                }
                Effect::Install(snapshot) => {
                    assert!(snapshot.at.index > self.applied.0, "a snapshot takes back what was applied");
                    self.applied = (snapshot.at.index, snapshot.at.term);
                    Some(Input::Applied { index: self.applied.0 })
                }
                Effect::TakeSnapshot => {
                    Some(Input::SnapshotTaken { index: self.applied.0, image: Bytes::from_static(b"image") })
                }
                Effect::Send { message, .. } => {
                    self.said |= 1 << (message.get_msg_type() as u32);
                    None
                }
                _ => None,
            };
            if let Some(input) = next {
                self.machine.handle(self.now, input);
            }
        }
        assert!(self.machine.committed() <= self.machine.last_index(), "more is committed than there is");
    }
}

fn story(input: &[u8]) -> Seen {
    let mut node = Node::new();
    let (mut messages, mut bad) = (0usize, 0usize);
    for (kind, piece) in pieces(input) {
        match kind {
            0..=1 => {
                let from = NODES[1 + usize::from(kind)];
                match chronik_proto_cluster::raft::decode(Bytes::copy_from_slice(piece)) {
                    Ok(message) => {
                        messages += 1;
                        node.handle(Input::Message { from, message: Box::new(message) });
                    }
                    Err(_) => bad += 1,
                }
            }
            2 => {
                for _ in 0..piece.len().min(64) {
                    node.now = node.machine.deadline();
                    node.handle(Input::Tick);
                }
            }
            3 => node.handle(Input::Campaign),
            4 => node.handle(Input::Propose { number: 1, data: Bytes::copy_from_slice(piece) }),
            5 => node.handle(Input::Read { number: 2 }),
            6 => node.handle(Input::TransferLeader { to: NODES[1] }),
            7 => node.handle(Input::Unreachable { node: NODES[1] }),
            8 => node.handle(Input::Gone { node: NODES[1] }),
            _ => bad += 1,
        }
    }
    let dropped: Vec<_> = node.machine.dropped().keys().copied().map(|why| format!("{why:?}")).collect();
    let role = node.machine.role();
    let mark = (role.is_leader, role.leader, about(node.applied.0 as usize), node.said, dropped, about(messages));
    if messages > 0 && bad == 0 { Seen::taken(mark) } else { Seen::refused((mark, bad.min(2)), None) }
}

/// Entries of the metadata log, one after the other.
fn entries(input: &[u8]) -> Seen {
    let mut image = image().clone();
    let mut marks: Vec<String> = Vec::new();
    let mut is_taken = false;
    for (_, piece) in pieces(input) {
        let facts = match Facts::from_bytes(piece) {
            Ok(facts) => facts,
            Err(why) => {
                marks.push(format!("{why:?}").chars().take(20).collect());
                continue;
            }
        };
        assert_eq!(Facts::from_bytes(&facts.to_bytes()).as_ref(), Ok(&facts), "it is read otherwise from its encoding");
        let before = image.clone();
        let at = image.position().next;
        let mut delta = Delta::default();
        match image.apply_facts(at, 1, &facts, &mut delta) {
            Ok(Entry::Applied) => {
                is_taken = true;
                for record in &facts.records {
                    let kind = format!("{record:?}");
                    marks.push(kind.chars().take_while(char::is_ascii_alphabetic).collect());
                }
                look_at(&image);
            }
            Ok(Entry::Discarded(_)) => marks.push("discarded".into()),
            Err(why) => {
                assert_eq!(image, before, "a refused entry has changed something");
                marks.push(format!("{why:?}").chars().take_while(char::is_ascii_alphabetic).collect());
            }
        }
    }
    marks.truncate(4);
    marks.sort();
    if is_taken { Seen::taken(marks) } else { Seen::refused(marks, None) }
}

/// An image is the same again from its own records.
fn look_at(image: &Image) {
    let mut again = Image::empty(ClusterDefaults::default());
    for record in image.to_records() {
        let at = again.position().next;
        let bytes = record.to_bytes();
        assert_eq!(Record::from_bytes(&bytes).as_ref(), Ok(&record), "a record is read otherwise from its encoding");
        if let Err(why) = again.apply(at, LeaderEpoch(1), &record, &mut Delta::default()) {
            panic!("a snapshot's record cannot be applied: {why}: {record:?}");
        }
    }
    assert!(again.says_the_same_as(image), "a snapshot says something else: {again:?} instead of {image:?}");
}

fn request(input: &[u8]) -> Seen {
    let Some((from, bytes)) = input.split_first() else { return Seen::refused("short", None) };
    let request = match Request::from_bytes(Bytes::copy_from_slice(bytes)) {
        Ok(request) => request,
        Err(why) => return Seen::refused(format!("{why:?}").chars().take(40).collect::<String>(), None),
    };
    assert_eq!(Request::from_bytes(request.to_bytes()).as_ref(), Ok(&request));
    let from = NODES[usize::from(*from) % NODES.len()];
    let kind: String = format!("{request:?}").chars().take_while(char::is_ascii_alphabetic).collect();
    match request.decide(image(), from) {
        None => Seen::taken((kind, "no records")),
        Some(Err(why)) => Seen::taken((kind, why.to_string().chars().take(30).collect::<String>())),
        Some(Ok(decision)) => {
            let mut next = image().clone();
            let records = decision.records.len();
            write(&mut next, decision.records);
            look_at(&next);
            let answer = decision.reply.answer(&next);
            assert_eq!(Answer::from_bytes(answer.to_bytes()).as_ref(), Ok(&answer));
            let outcome: String = format!("{answer:?}").chars().filter(|c| !c.is_ascii_digit()).take(80).collect();
            Seen::taken((kind, about(records), outcome))
        }
    }
}

/// What a restart of the node reads of its own disk: both values, the snapshot's pieces, the entries.
fn stored(input: &[u8]) -> Seen {
    let mut parts = [None; 4];
    for (kind, piece) in pieces(input) {
        parts[usize::from(kind) % 4] = Some(piece);
    }
    let [hard_state, snapshot, image, entries] = parts;
    let log = |bytes: Option<&[u8]>| {
        let payload = Payload::from(Bytes::copy_from_slice(bytes.unwrap_or_default()));
        let headers: Vec<_> =
            chronik_core::batch::batches(&payload).map_while(Result::ok).map(|batch| batch.header).collect();
        let first = headers.first().map_or(Offset(0), |header| header.base_offset);
        let end = headers.last().map_or(first, |header| header.next_offset());
        let state = LogState { start: first, end, written_end: end, durable_end: end, ..LogState::default() };
        (payload, state)
    };
    let ((image, image_log), (entries, entries_log)) = (log(image), log(entries));
    match survey(hard_state, snapshot, &entries_log, &image_log) {
        Err(why) => Seen::refused(why.to_string().chars().filter(|c| !c.is_ascii_digit()).collect::<String>(), None),
        Ok(found) => match found.recover(&image, &entries) {
            Err(why) => {
                Seen::refused(why.to_string().chars().filter(|c| !c.is_ascii_digit()).collect::<String>(), None)
            }
            Ok(recovered) => {
                let entries = recovered.entries.len();
                let known = recovered.snapshot.as_ref().map(|snapshot| snapshot.members.clone()).unwrap_or_default();
                let Some(own) = Member::new(NODES[0], [1; 16], "host-1:9093") else { panic!("it has an id") };
                let now = Monotonic(Duration::ZERO);
                let opened = MetadataRaft::open(now, own, Settings::default(), 7, recovered, known);
                Seen::taken((about(entries), opened.err().map(|why| why.to_string())))
            }
        },
    }
}

fn same<T: PartialEq + std::fmt::Debug>(read: Option<T>, again: impl Fn(&T) -> Option<T>) -> Seen {
    match read {
        None => Seen::refused((), None),
        Some(read) => {
            assert_eq!(again(&read).as_ref(), Some(&read), "it is read otherwise from its own encoding");
            Seen::taken(std::any::type_name::<T>())
        }
    }
}

impl Target for Raft {
    fn name(&self) -> &'static str {
        "raft"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let of = |kind: Kind, bytes: Vec<u8>| {
            let number = KINDS.iter().position(|other| *other == kind).unwrap_or_default();
            [vec![number as u8], bytes].concat()
        };
        let mut seeds = Vec::new();
        let encoded: Vec<_> = messages().iter().map(chronik_proto_cluster::raft::encode).collect();
        for message in &encoded {
            seeds.push(of(Kind::Story, piece(0, message)));
            // A candidate, and then a leader: an election's time passes, both others give their votes.
            let mut led = piece(2, &[0; 50]);
            for answer in [&encoded[9], &encoded[8], message] {
                led.extend(piece(0, answer));
            }
            led.extend(piece(4, b"proposal"));
            led.extend(piece(0, message));
            seeds.push(of(Kind::Story, led));
        }
        seeds.push(of(Kind::Story, [piece(0, &encoded[0]), piece(0, &encoded[1]), piece(0, &encoded[2])].concat()));
        let records = image().to_records();
        for record in &records {
            let facts = Facts { term: 1, records: vec![record.clone()] };
            // Some of them contradict the image that is there, which is what a mutation begins from as well.
            if matches!(entries(&piece(0, &facts.to_bytes())), Seen { is_taken: true, .. }) {
                seeds.push(of(Kind::Entries, piece(0, &facts.to_bytes())));
            }
            seeds.push(of(Kind::Record, record.to_bytes()));
        }
        for request in requests() {
            let decided = NODES.iter().find_map(|node| request.decide(image(), *node)?.ok());
            if let Some(decision) = decided {
                let facts = Facts { term: 1, records: decision.records }.to_bytes();
                seeds.push(of(Kind::Entries, [piece(0, &facts), piece(0, &facts)].concat()));
            }
            for from in 0..3 {
                seeds.push(of(Kind::Request, [vec![from], request.to_bytes().to_vec()].concat()));
            }
        }
        seeds.extend(answers().iter().map(|answer| of(Kind::Answer, answer.to_bytes().to_vec())));
        if let Some(member) = members().iter().next().cloned() {
            let blank = Report::Blank { member: member.clone(), token: Some("token".into()) };
            let started = Report::Started { member: member.clone(), members: members() };
            for report in [blank, started] {
                seeds.push(of(Kind::FirstStart, [vec![0], report.to_bytes()].concat()));
            }
            seeds.push(of(Kind::Membership, [vec![0], member.to_bytes()].concat()));
        }
        seeds.push(of(Kind::Membership, [vec![1], members().to_bytes()].concat()));
        let configuration = Configuration::of_voters(members().iter().map(Member::id));
        seeds.push(of(Kind::Membership, [vec![2], configuration.to_bytes()].concat()));
        seeds.push(of(Kind::Stored, stored_seed()));
        seeds
    }

    fn feed(&self, input: &[u8]) -> Seen {
        let Some((choice, rest)) = input.split_first() else { return Seen::refused("short", None) };
        let kind = KINDS[usize::from(*choice) % KINDS.len()];
        let seen = match kind {
            Kind::Story => story(rest),
            Kind::Entries => entries(rest),
            Kind::Record => same(Record::from_bytes(rest).ok(), |read| Record::from_bytes(&read.to_bytes()).ok()),
            Kind::Request => request(rest),
            Kind::Answer => {
                let read = Answer::from_bytes(Bytes::copy_from_slice(rest)).ok();
                same(read, |read| Answer::from_bytes(read.to_bytes()).ok())
            }
            Kind::FirstStart => match rest.split_first() {
                Some((0, bytes)) => same(Report::from_bytes(bytes), |read| Report::from_bytes(&read.to_bytes())),
                Some((_, bytes)) => same(Plan::from_bytes(bytes), |read| Plan::from_bytes(&read.to_bytes())),
                None => Seen::refused("short", None),
            },
            Kind::Membership => match rest.split_first() {
                Some((0, bytes)) => same(Member::from_bytes(bytes), |read| Member::from_bytes(&read.to_bytes())),
                Some((1, bytes)) => same(Members::from_bytes(bytes), |read| Members::from_bytes(&read.to_bytes())),
                Some((_, bytes)) => {
                    same(Configuration::from_bytes(bytes), |read| Configuration::from_bytes(&read.to_bytes()))
                }
                None => Seen::refused("short", None),
            },
            Kind::Stored => stored(rest),
        };
        Seen {
            mark: seen.mark ^ (kind as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            at: seen.at.map(|at| at + 1),
            ..seen
        }
    }

    /// Where a story or a log is told in pieces, the last one ends where the input does.
    fn mend(&self, input: &mut Vec<u8>) {
        let is_in_pieces = |kind| matches!(kind, Kind::Story | Kind::Entries | Kind::Stored);
        let kind = input.first().map(|choice| KINDS[usize::from(*choice) % KINDS.len()]);
        if !kind.is_some_and(is_in_pieces) {
            return;
        }
        let mut at = 1;
        while let Some(length) = input.get(at + 1..).and_then(|rest| rest.first_chunk::<2>()) {
            let (length, left) = (usize::from(u16::from_be_bytes(*length)), input.len() - at - 3);
            if length > left {
                input[at + 1..at + 3].copy_from_slice(&(left as u16).to_be_bytes());
                return;
            }
            at += 3 + length;
        }
    }

    fn words(&self) -> &[&'static [u8]] {
        &[
            b"main",
            b"topic",
            b"metadata.version",
            b"min.insync.replicas",
            b"\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07",
        ]
    }

    fn more_memory_bytes(&self) -> usize {
        ELEMENTS_BYTES_MAX
    }
}

/// What a fresh voter's disk holds.
fn stored_seed() -> Vec<u8> {
    use chronik_core::metadata::raft::store::{HARD_STATE, Log, SNAPSHOT, Step, plan};
    let mut seed = Vec::new();
    let persist = Recovered::genesis_persist(&members());
    for step in plan(&persist, Offset(0), chronik_core::time::Timestamp(1)) {
        match step {
            Step::Put { key: HARD_STATE, value } => seed.extend(piece(0, &value)),
            Step::Put { key: SNAPSHOT, value } => seed.extend(piece(1, &value)),
            Step::Append(Log::Snapshots, run) => seed.extend(piece(2, &run.bytes.to_bytes())),
            _ => {}
        }
    }
    seed
}
