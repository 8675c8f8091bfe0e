//! One machine, told step by step what happens to it.

use super::*;
use crate::dice::{Dice, Seed};
use crate::time::Monotonic;
use ::raft::eraftpb::{ConfState, Entry as RaftEntry, EntryType, Message, MessageType, Snapshot as RaftSnapshot};

fn member(node: u8) -> Member {
    Member::new(NodeId(node.into()), [node; 16], format!("node-{node}:9093")).expect("well formed")
}

fn id(node: u8) -> u64 {
    member(node).id().get()
}

fn group(voters: u8) -> Members {
    (1..=voters).map(member).collect()
}

/// Node 1 of a group, and the time.
struct Story {
    raft: MetadataRaft,
    now: Monotonic,
}

impl Story {
    fn new(voters: u8) -> Story {
        Story::of(Recovered::genesis(&group(voters)))
    }

    fn of(recovered: Recovered) -> Story {
        let now = Monotonic::default();
        let raft = MetadataRaft::open(now, member(1), Settings::default(), 1, recovered, Members::default());
        let mut story = Story { raft: raft.expect("opens"), now };
        // What it says of itself at first.
        story.effects();
        story
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::iter::from_fn(|| self.raft.poll_effect()).collect()
    }

    fn tell(&mut self, input: Input) -> Vec<Effect> {
        self.raft.handle(self.now, input);
        self.effects()
    }

    fn hear(&mut self, from: u8, change: impl FnOnce(&mut Message)) -> Vec<Effect> {
        let mut message = Message { from: id(from), to: id(1), term: 2, ..Message::default() };
        change(&mut message);
        self.tell(Input::Message { from: NodeId(from.into()), message: Box::new(message) })
    }

    /// Until something is sent, or has to be written.
    fn wait(&mut self) -> Vec<Effect> {
        for _ in 0..100 {
            self.now = self.raft.deadline();
            let effects = self.tell(Input::Tick);
            if !effects.is_empty() {
                return effects;
            }
        }
        Vec::new()
    }

    /// The disk and the application keep up, until nothing more follows.
    fn keep_up(&mut self, mut effects: Vec<Effect>) -> Vec<Effect> {
        let mut all = Vec::new();
        while !effects.is_empty() {
            let mut next = Vec::new();
            for effect in &effects {
                let input = match effect {
                    Effect::Persist(persist) => Input::Persisted { number: persist.number },
                    Effect::Apply(entries) => Input::Applied { index: entries.last().expect("some").at.index },
                    Effect::Install(snapshot) => Input::Applied { index: snapshot.at.index },
                    _ => continue,
                };
                next.extend(self.tell(input));
            }
            all.append(&mut effects);
            effects = next;
        }
        all
    }

    /// Elected by nodes 1 and 2 in term 2, with its first entry, at index 2, committed.
    fn leader(voters: u8) -> Story {
        let mut story = Story::new(voters);
        let effects = story.wait();
        story.keep_up(effects);
        if voters > 1 {
            for kind in [MessageType::MsgRequestPreVoteResponse, MessageType::MsgRequestVoteResponse] {
                let effects = story.hear(2, |message| message.set_msg_type(kind));
                story.keep_up(effects);
            }
        }
        story.acknowledge(2);
        assert!(story.raft.role().applied_own_term, "{:?}", story.raft.role());
        story
    }

    /// Node 2 has everything up to this entry.
    fn acknowledge(&mut self, index: u64) -> Vec<Effect> {
        let effects = self.hear(2, |message| {
            message.set_msg_type(MessageType::MsgAppendResponse);
            message.index = index;
        });
        self.keep_up(effects)
    }
}

fn sent(effects: &[Effect]) -> Vec<MessageType> {
    let kind = |effect: &Effect| match effect {
        Effect::Send { message, .. } => Some(message.get_msg_type()),
        _ => None,
    };
    effects.iter().filter_map(kind).collect()
}

fn persists(effects: &[Effect]) -> Vec<Persist> {
    let persist = |effect: &Effect| match effect {
        Effect::Persist(persist) => Some((**persist).clone()),
        _ => None,
    };
    effects.iter().filter_map(persist).collect()
}

fn applied(effects: &[Effect]) -> Vec<Committed> {
    let apply = |effect: &Effect| match effect {
        Effect::Apply(entries) => Some(entries.clone()),
        _ => None,
    };
    effects.iter().filter_map(apply).flatten().collect()
}

fn entry(index: u64, term: u64, data: &'static [u8]) -> RaftEntry {
    RaftEntry { index, term, data: Bytes::from_static(data), ..RaftEntry::default() }
}

fn append(message: &mut Message, after: (u64, u64), entries: Vec<RaftEntry>) {
    message.set_msg_type(MessageType::MsgAppend);
    (message.index, message.log_term) = after;
    message.set_entries(entries.into());
}

#[test]
fn a_vote_is_not_spoken_before_it_is_written() {
    let mut story = Story::new(3);
    let effects = story.hear(2, |message| {
        message.set_msg_type(MessageType::MsgRequestVote);
        (message.index, message.log_term) = (1, 1);
    });
    let [persist] = &persists(&effects)[..] else { panic!("one thing to write: {effects:?}") };
    let vote = HardState { term: 2, vote: RaftId::new(id(2)), commit: 1 };
    assert_eq!((persist.hard_state, sent(&effects)), (Some(vote), vec![]));
    let effects = story.tell(Input::Persisted { number: persist.number });
    assert_eq!(sent(&effects), [MessageType::MsgRequestVoteResponse]);
}

#[test]
fn entries_are_acknowledged_when_they_are_written_and_a_second_copy_not_earlier() {
    let mut story = Story::new(3);
    let entries = || vec![entry(2, 2, b"a"), entry(3, 2, b"b")];
    let first = persists(&story.hear(2, |message| append(message, (1, 1), entries())));
    assert_eq!(first[0].entries.len(), 2);
    let again = story.hear(2, |message| append(message, (1, 1), entries()));
    assert_eq!((persists(&again), sent(&again)), (vec![], vec![]), "the first copy is not written yet");
    let effects = story.tell(Input::Persisted { number: first[0].number });
    assert_eq!(sent(&effects), [MessageType::MsgAppendResponse; 2]);
    // Another leader replaces the second.
    let effects = story.hear(3, |message| {
        message.term = 3;
        append(message, (2, 2), vec![entry(3, 3, b"c")]);
    });
    let replaced = &persists(&effects)[0];
    assert_eq!((replaced.truncate_from, replaced.hard_state.map(|state| state.term)), (Some(3), Some(3)));
}

#[test]
fn a_leader_is_heard_while_the_disk_writes_entries_and_not_while_it_writes_the_term() {
    let mut story = Story::new(3);
    let beat = |message: &mut Message| message.set_msg_type(MessageType::MsgHeartbeat);
    let effects = story.hear(2, beat);
    let [term] = &persists(&effects)[..] else { panic!("one thing to write: {effects:?}") };
    assert_eq!(sent(&effects), [], "after a crash it would not know of this term");
    let effects = story.tell(Input::Persisted { number: term.number });
    assert_eq!(sent(&effects), [MessageType::MsgHeartbeatResponse]);

    let written = persists(&story.hear(2, |message| append(message, (1, 1), vec![entry(2, 2, b"a")])));
    assert_eq!(sent(&story.hear(2, beat)), [MessageType::MsgHeartbeatResponse], "its disk is slow, and it hears");
    let effects = story.tell(Input::Persisted { number: written[0].number });
    assert_eq!(sent(&effects), [MessageType::MsgAppendResponse]);
}

#[test]
fn a_leader_counts_itself_when_its_disk_has_written() {
    let mut story = Story::leader(3);
    let effects = story.tell(Input::Propose { number: 7, data: Bytes::from_static(b"fact") });
    let at = Mark { index: 3, term: 2 };
    assert!(effects.contains(&Effect::Proposed { number: 7, at }), "{effects:?}");
    assert!(sent(&effects).contains(&MessageType::MsgAppend), "followers need not wait for it");
    let [persist] = &persists(&effects)[..] else { panic!("one thing to write") };
    let acknowledged = story.hear(2, |message| {
        message.set_msg_type(MessageType::MsgAppendResponse);
        message.index = 3;
    });
    assert_eq!(applied(&acknowledged), [], "one of three has it");
    let effects = story.tell(Input::Persisted { number: persist.number });
    assert_eq!(applied(&effects), [Committed { at, kind: Kind::Data(Bytes::from_static(b"fact")) }]);
}

#[test]
fn a_lone_voter_tells_learners_nothing_of_a_term_that_is_not_written() {
    let mut begin = Recovered::genesis(&group(2));
    let snapshot = begin.snapshot.as_mut().expect("it begins with one");
    snapshot.configuration.voters.remove(&member(2).id());
    snapshot.configuration.learners.insert(member(2).id());
    let mut story = Story::of(begin);
    let effects = story.wait();
    assert!(story.raft.role().is_leader, "nobody else was asked");
    assert_eq!(sent(&effects), [], "after a crash it would write other entries in this term");
    let effects = story.keep_up(effects);
    assert!(sent(&effects).contains(&MessageType::MsgAppend));
}

#[test]
fn a_change_of_the_configuration_waits_until_the_disk_knows_that_it_is_committed() {
    let mut story = Story::leader(3);
    let change = Change { learners: vec![member(4)], ..Change::default() };
    let effects = story.tell(Input::Change { number: 1, change });
    let written = persists(&effects);
    story.tell(Input::Persisted { number: written[0].number });
    let effects = story.hear(2, |message| {
        message.set_msg_type(MessageType::MsgAppendResponse);
        message.index = 3;
    });
    let [commit] = &persists(&effects)[..] else { panic!("the commit is written: {effects:?}") };
    assert_eq!(commit.hard_state.map(|state| (state.term, state.commit)), Some((2, 3)));
    assert_eq!(applied(&effects), []);
    assert!(!story.raft.membership().configuration.contains(member(4).id()));
    let effects = story.tell(Input::Persisted { number: commit.number });
    assert!(matches!(&applied(&effects)[..], [Committed { kind: Kind::Membership(Some(_)), .. }]), "{effects:?}");
    assert!(story.raft.membership().configuration.learners.contains(&member(4).id()));
    assert_eq!(story.raft.membership().members.get(member(4).id()), Some(&member(4)));
}

#[test]
fn one_change_at_a_time_and_a_joint_configuration_is_left_by_whoever_leads() {
    let mut story = Story::leader(3);
    let learner = |node| Change { learners: vec![member(node)], ..Change::default() };
    let effects = story.tell(Input::Change { number: 1, change: learner(4) });
    story.keep_up(effects);
    let effects = story.tell(Input::Change { number: 2, change: learner(5) });
    assert_eq!(effects, [Effect::Refused { number: 2, why: Refusal::ChangePending }]);
    story.acknowledge(3);
    // Three at once, by way of a joint configuration.
    let change = Change { promote: vec![member(4).id()], remove: vec![member(3).id()], ..Change::default() };
    let effects = story.tell(Input::Change { number: 3, change });
    story.keep_up(effects);
    story.acknowledge(4);
    assert!(story.raft.membership().configuration.is_joint());
    assert_eq!(story.raft.last_index(), 5, "the entry that leaves it is proposed at once");
    story.acknowledge(5);
    let effects = story.hear(4, |message| {
        message.set_msg_type(MessageType::MsgAppendResponse);
        message.index = 5;
    });
    story.keep_up(effects);
    let now = &story.raft.membership().configuration;
    assert_eq!(now.voters, [member(1).id(), member(2).id(), member(4).id()].into());
    assert!(!now.is_joint());
}

#[test]
fn a_leader_that_an_earlier_leader_has_removed_steps_down() {
    let now = Configuration::of_voters(group(3).iter().map(Member::id));
    let bytes = Change { remove: vec![member(1).id()], ..Change::default() }
        .encode(member(2).id(), &now)
        .expect("node 2 may remove node 1");
    let mut story = Story::new(3);
    let effects = story.hear(2, |message| {
        let mut change = RaftEntry { index: 2, term: 2, data: bytes.into(), ..RaftEntry::default() };
        change.set_entry_type(EntryType::EntryConfChangeV2);
        append(message, (1, 1), vec![change]);
    });
    story.keep_up(effects);
    // Node 2 falls silent, and node 1, which has the entry and does not know it to be committed, is elected.
    let effects = story.wait();
    story.keep_up(effects);
    for kind in [MessageType::MsgRequestPreVoteResponse, MessageType::MsgRequestVoteResponse] {
        let effects = story.hear(3, |message| {
            message.term = 3;
            message.set_msg_type(kind);
        });
        story.keep_up(effects);
    }
    assert!(story.raft.role().is_leader);
    let effects = story.hear(3, |message| {
        (message.term, message.index) = (3, 3);
        message.set_msg_type(MessageType::MsgAppendResponse);
    });
    story.keep_up(effects);
    assert!(!story.raft.role().is_leader && !story.raft.membership().configuration.contains(member(1).id()));
    assert_eq!(sent(&story.wait()), [], "and does not stand for election any more");
}

#[test]
fn nobody_stands_for_election_between_a_snapshot_and_its_being_applied() {
    let mut story = Story::new(3);
    let snapshot = Snapshot { at: Mark { index: 9, term: 2 }, ..Snapshot::genesis(&group(3)) };
    let effects = story.hear(2, |message| {
        message.set_msg_type(MessageType::MsgSnapshot);
        message.set_snapshot(snapshot.to_raft());
    });
    let [persist] = &persists(&effects)[..] else { panic!("one thing to write: {effects:?}") };
    assert_eq!(persist.snapshot, Some(SnapshotChange::Received(snapshot.clone())));
    assert_eq!(sent(&story.wait()), [], "it is not written");
    let effects = story.tell(Input::Persisted { number: persist.number });
    assert!(effects.contains(&Effect::Install(Box::new(snapshot))), "{effects:?}");
    assert_eq!(sent(&effects), [MessageType::MsgAppendResponse]);
    assert_eq!(sent(&story.wait()), [], "it is not applied");
    let effects = story.hear(2, |message| message.set_msg_type(MessageType::MsgTimeoutNow));
    assert_eq!((sent(&effects), story.raft.dropped()[&Dropped::DiskBehind]), (vec![], 1));
    story.tell(Input::Applied { index: 9 });
    let effects = story.wait();
    assert_eq!(sent(&effects), [MessageType::MsgRequestPreVote; 2]);
}

/// It needs nobody's vote but its own, and would lead at once.
#[test]
fn a_lone_voter_waits_for_its_disk_before_it_stands_for_election() {
    let mut story = Story::new(1);
    story.tell(Input::Introduced(member(2)));
    let effects = story.hear(2, |message| message.set_msg_type(MessageType::MsgHeartbeat));
    story.keep_up(effects);
    let effects = story.hear(2, |message| append(message, (1, 1), vec![entry(2, 2, b"from a leader before")]));
    let [persist] = &persists(&effects)[..] else { panic!("one thing to write: {effects:?}") };
    assert_eq!(story.wait(), []);
    story.tell(Input::Persisted { number: persist.number });
    let effects = story.wait();
    story.keep_up(effects);
    assert!(story.raft.role().applied_own_term);
}

#[test]
fn a_read_is_confirmed_by_a_majority_or_refused() {
    let mut story = Story::leader(3);
    let effects = story.tell(Input::Read { number: 1 });
    let context = effects.iter().find_map(|effect| match effect {
        Effect::Send { message, .. } => Some(message.context.clone()),
        _ => None,
    });
    let effects = story.hear(2, |message| {
        message.set_msg_type(MessageType::MsgHeartbeatResponse);
        message.context = context.expect("a heartbeat asks");
    });
    assert_eq!(effects, [Effect::ReadReady { number: 1, index: 2 }]);
    // Nobody answers the second; the leader steps down, or the time is over.
    story.tell(Input::Read { number: 2 });
    let refused = (0..60).flat_map(|_| story.wait()).find(|effect| matches!(effect, Effect::Refused { number: 2, .. }));
    assert!(refused.is_some());
    let effects = Story::new(3).tell(Input::Read { number: 3 });
    assert_eq!(effects, [Effect::Refused { number: 3, why: Refusal::NotLeader { leader: None } }]);
}

#[test]
fn what_cannot_be_proposed_is_refused() {
    let refusal = |story: &mut Story, data: Bytes| {
        let effects = story.tell(Input::Propose { number: 1, data });
        match effects.iter().find(|effect| matches!(effect, Effect::Refused { .. })) {
            Some(Effect::Refused { why, .. }) => Some(*why),
            _ => None,
        }
    };
    let small = Bytes::from_static(b"fact");
    assert_eq!(refusal(&mut Story::new(3), small.clone()), Some(Refusal::NotLeader { leader: None }));
    let mut story = Story::leader(3);
    assert_eq!(refusal(&mut story, Bytes::new()), Some(Refusal::Empty));
    let max = Settings::default().entry_bytes_max;
    let bytes = max + 1;
    assert_eq!(refusal(&mut story, vec![0; bytes].into()), Some(Refusal::TooLarge { bytes, max }));
    let large = Bytes::from(vec![0; max]);
    assert!((0..20).any(|_| refusal(&mut story, large.clone()) == Some(Refusal::Busy)), "there is no bound");
    story.tell(Input::TransferLeader { to: NodeId(2) });
    assert_eq!(refusal(&mut story, small), Some(Refusal::Busy), "while leadership is handed over");
}

#[test]
fn a_leader_asks_for_a_snapshot_that_names_who_needs_it() {
    let mut story = Story::leader(3);
    let effects =
        story.tell(Input::Change { number: 1, change: Change { learners: vec![member(4)], ..Change::default() } });
    story.keep_up(effects);
    story.acknowledge(3);
    // Node 4 is blank, and says that it has nothing.
    let nothing = |story: &mut Story| {
        story.hear(4, |message| {
            message.set_msg_type(MessageType::MsgAppendResponse);
            (message.reject, message.index) = (true, 2);
        })
    };
    let effects = nothing(&mut story);
    assert!(effects.contains(&Effect::TakeSnapshot), "{effects:?}");
    let too_large = Bytes::from(vec![0; Settings::default().snapshot_bytes_max + 1]);
    let effects = story.tell(Input::SnapshotTaken { index: 3, image: too_large });
    assert!(matches!(effects[..], [Effect::SnapshotTooLarge { .. }]), "{effects:?}");
    let effects = story.tell(Input::SnapshotTaken { index: 3, image: Bytes::from_static(b"image") });
    story.keep_up(effects);
    assert_eq!(story.raft.held().0, 3);
    // The next heartbeat's answer has it sent.
    let effects = story.hear(4, |message| message.set_msg_type(MessageType::MsgHeartbeatResponse));
    assert_eq!(sent(&effects), [MessageType::MsgSnapshot]);
}

#[test]
fn a_late_driver_makes_no_election() {
    let mut story = Story::new(3);
    story.now = Monotonic(Duration::from_secs(3_600));
    assert_eq!(story.tell(Input::Tick), []);
    assert!(story.raft.deadline() > story.now, "one tick at most");
}

#[test]
fn where_the_leader_is_gone_the_next_one_is_not_waited_for_as_long() {
    let ticks_to_campaign = |gone: Option<u16>| {
        let mut story = Story::new(3);
        let effects = story.hear(2, |message| message.set_msg_type(MessageType::MsgHeartbeat));
        story.keep_up(effects);
        assert_eq!(story.raft.role().leader, Some(NodeId(2)));
        if let Some(node) = gone {
            assert_eq!(story.tell(Input::Gone { node: NodeId(node.into()) }), []);
        }
        let began = story.now;
        loop {
            let effects = story.wait();
            let asks = sent(&story.keep_up(effects)).contains(&MessageType::MsgRequestPreVote);
            if asks {
                break;
            }
            assert!(story.now.0 < Duration::from_secs(60), "it never asks to be elected");
        }
        story.now.0 - began.0
    };
    let settings = Settings::default();
    let election = settings.tick * u32::try_from(settings.election_ticks).expect("few");
    assert_eq!(ticks_to_campaign(None) - ticks_to_campaign(Some(2)), election, "as if it had been silent so long");
    assert_eq!(ticks_to_campaign(Some(3)), ticks_to_campaign(None), "another one's end changes nothing");
}

#[test]
fn damage_is_not_started_from() {
    let open = |change: fn(&mut Recovered)| {
        let mut recovered = Recovered::genesis(&group(3));
        recovered.hard_state.term = 3;
        let at = |index, term| Entry { at: Mark { index, term }, content: Content::Empty };
        recovered.entries = vec![at(2, 2), at(3, 3)];
        change(&mut recovered);
        let now = Monotonic::default();
        MetadataRaft::open(now, member(1), Settings::default(), 1, recovered, Members::default()).map(drop)
    };
    assert_eq!(open(|_| ()), Ok(()));
    let damages: [fn(&mut Recovered); 8] = [
        |recovered| drop(recovered.entries.remove(0)),
        |recovered| recovered.entries[0].at.term = 4,
        |recovered| recovered.entries[1].at.term = 9,
        |recovered| recovered.hard_state.commit = 4,
        |recovered| recovered.hard_state.term = 2,
        |recovered| recovered.snapshot = None,
        |recovered| recovered.cut.index = 2,
        |recovered| recovered.snapshot.as_mut().expect("there is one").members = Members::default(),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        assert!(matches!(open(damage), Err(OpenError::Damaged(_))), "damage {number}");
    }
}

#[test]
fn a_stranger_is_asked_who_it_is_and_a_former_self_is_not_answered() {
    let mut story = Story::new(3);
    let heartbeat = |message: &mut Message| message.set_msg_type(MessageType::MsgHeartbeat);
    assert_eq!(story.hear(4, heartbeat), [Effect::Stranger { node: NodeId(4) }]);
    assert_eq!(story.hear(4, heartbeat), [], "asked once");
    story.tell(Input::Introduced(member(4)));
    assert!(!story.hear(4, heartbeat).is_empty());
    // A member that speaks with another's id.
    let message = Box::new(Message { from: id(3), to: id(1), term: 9, ..Message::default() });
    story.tell(Input::Message { from: NodeId(2), message });
    story.hear(2, |message| {
        heartbeat(message);
        message.to = id(9);
    });
    assert_eq!((story.raft.dropped()[&Dropped::Stranger], story.raft.dropped()[&Dropped::Misaddressed]), (3, 1));
    assert_eq!(story.raft.role().term, 2);
}

/// Numbers that are likely to be at some edge.
fn number(dice: &mut Dice) -> u64 {
    match dice.roll(8) {
        0 => u64::MAX - dice.roll(2),
        1 => 0,
        2 => TERM_MAX - 1 + dice.roll(3),
        _ => dice.roll(9),
    }
}

fn anything(dice: &mut Dice) -> Message {
    const KINDS: [MessageType; 19] = [
        MessageType::MsgHup,
        MessageType::MsgBeat,
        MessageType::MsgPropose,
        MessageType::MsgAppend,
        MessageType::MsgAppendResponse,
        MessageType::MsgRequestVote,
        MessageType::MsgRequestVoteResponse,
        MessageType::MsgSnapshot,
        MessageType::MsgHeartbeat,
        MessageType::MsgHeartbeatResponse,
        MessageType::MsgUnreachable,
        MessageType::MsgSnapStatus,
        MessageType::MsgCheckQuorum,
        MessageType::MsgTransferLeader,
        MessageType::MsgTimeoutNow,
        MessageType::MsgReadIndex,
        MessageType::MsgReadIndexResp,
        MessageType::MsgRequestPreVote,
        MessageType::MsgRequestPreVoteResponse,
    ];
    let mut message = Message { to: id(1), ..Message::default() };
    message.set_msg_type(KINDS[dice.roll(19) as usize]);
    message.term = number(dice);
    message.log_term = number(dice);
    message.index = number(dice);
    message.commit = number(dice);
    message.commit_term = number(dice);
    message.reject = dice.once_in(2);
    message.reject_hint = number(dice);
    message.request_snapshot = if dice.once_in(20) { number(dice) } else { 0 };
    message.context = if dice.once_in(5) { Bytes::from_static(b"CampaignTransfer") } else { Bytes::new() };
    if message.get_msg_type() == MessageType::MsgAppend || dice.once_in(20) {
        let plausible = dice.roll(4) > 0;
        for place in 0..dice.roll(4) {
            let index = if plausible { message.index.wrapping_add(1 + place) } else { number(dice) };
            let term = if plausible { message.log_term.max(message.term) } else { number(dice) };
            let mut entry = entry(index, term, b"data");
            match dice.roll(6) {
                0 => entry.set_entry_type(EntryType::EntryConfChange),
                1 => entry.set_entry_type(EntryType::EntryConfChangeV2),
                2 => entry = RaftEntry { data: Bytes::new(), ..entry },
                3 => {
                    entry.set_entry_type(EntryType::EntryConfChangeV2);
                    entry.data = Bytes::new();
                }
                _ => {}
            }
            message.mut_entries().push(entry);
        }
    }
    if message.get_msg_type() == MessageType::MsgSnapshot || dice.once_in(20) {
        let mut snapshot = RaftSnapshot::default();
        if dice.roll(3) > 0 {
            snapshot = Snapshot::genesis(&group(3)).to_raft();
        }
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (number(dice), number(dice));
        if dice.once_in(3) {
            let numbers = |dice: &mut Dice| (0..dice.roll(3)).map(|_| id(1 + dice.roll(4) as u8)).collect();
            metadata.set_conf_state(ConfState {
                voters: numbers(dice),
                learners: numbers(dice),
                voters_outgoing: numbers(dice),
                learners_next: numbers(dice),
                auto_leave: dice.once_in(3),
                ..ConfState::default()
            });
        }
        message.set_snapshot(snapshot);
    }
    message
}

/// Sixty thousand messages of any kind from a member, to nodes in any role, with a disk and an application that keep
/// up or do not.
#[test]
fn no_message_ends_the_process() {
    let mut taken = 0;
    for seed in 0..60 {
        let _seed = Seed(seed);
        let mut dice = Dice(seed);
        let voters = 1 + 2 * dice.roll(2) as u8;
        let mut story = match dice.roll(4) {
            0 => Story::of(Recovered::default()),
            1 => Story::new(voters),
            _ => Story::leader(voters),
        };
        story.tell(Input::Introduced(member(2)));
        for _ in 0..1_000 {
            let mut message = anything(&mut dice);
            let from = 2 + dice.roll(2) as u8;
            message.from = id(from);
            let before: u64 = story.raft.dropped().values().sum();
            let message = Box::new(message);
            let mut effects = story.tell(Input::Message { from: NodeId(from.into()), message });
            taken += u64::from(story.raft.dropped().values().sum::<u64>() == before);
            if dice.once_in(3) {
                effects.extend(story.wait());
            }
            if dice.roll(4) > 0 {
                story.keep_up(effects);
            }
        }
    }
    assert!(taken > 1_000, "only {taken} were worth a thought");
}
