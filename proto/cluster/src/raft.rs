//! Raft's messages. They mean the same on the wire to the `raft` crate, whose own codec is never given a peer's bytes: ours
//! shares entries' data with the frame that they came in, and refuses what the other would let pass.

use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use raft::eraftpb;

#[derive(Clone, PartialEq, prost::Message)]
pub struct Message {
    #[prost(int32, tag = "1")]
    msg_type: i32,
    #[prost(uint64, tag = "2")]
    to: u64,
    #[prost(uint64, tag = "3")]
    from: u64,
    #[prost(uint64, tag = "4")]
    term: u64,
    #[prost(uint64, tag = "5")]
    log_term: u64,
    #[prost(uint64, tag = "6")]
    index: u64,
    #[prost(message, repeated, tag = "7")]
    entries: Vec<Entry>,
    #[prost(uint64, tag = "8")]
    commit: u64,
    #[prost(uint64, tag = "15")]
    commit_term: u64,
    #[prost(message, optional, tag = "9")]
    snapshot: Option<Snapshot>,
    #[prost(uint64, tag = "13")]
    request_snapshot: u64,
    #[prost(bool, tag = "10")]
    reject: bool,
    #[prost(uint64, tag = "11")]
    reject_hint: u64,
    #[prost(bytes = "bytes", tag = "12")]
    context: Bytes,
    #[prost(uint64, tag = "14")]
    deprecated_priority: u64,
    #[prost(int64, tag = "16")]
    priority: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    #[prost(int32, tag = "1")]
    entry_type: i32,
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(uint64, tag = "3")]
    index: u64,
    #[prost(bytes = "bytes", tag = "4")]
    data: Bytes,
    #[prost(bytes = "bytes", tag = "6")]
    context: Bytes,
    #[prost(bool, tag = "5")]
    sync_log: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Snapshot {
    #[prost(bytes = "bytes", tag = "1")]
    data: Bytes,
    #[prost(message, optional, tag = "2")]
    metadata: Option<SnapshotMetadata>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SnapshotMetadata {
    #[prost(message, optional, tag = "1")]
    conf_state: Option<ConfState>,
    #[prost(uint64, tag = "2")]
    index: u64,
    #[prost(uint64, tag = "3")]
    term: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ConfState {
    #[prost(uint64, repeated, tag = "1")]
    voters: Vec<u64>,
    #[prost(uint64, repeated, tag = "2")]
    learners: Vec<u64>,
    #[prost(uint64, repeated, tag = "3")]
    voters_outgoing: Vec<u64>,
    #[prost(uint64, repeated, tag = "4")]
    learners_next: Vec<u64>,
    #[prost(bool, tag = "5")]
    auto_leave: bool,
}

/// Entries in one message. A node puts 1 MiB of them into one, and none is written in less than four bytes. An empty one
/// comes in two and takes hundreds in memory: a frame of nothing else would take many times its size.
pub const ENTRIES_MAX: usize = (1 << 20) / 4;

/// Why bytes are no message of Raft's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAMessage {
    Malformed(String),
    /// More than [`ENTRIES_MAX`].
    Entries(usize),
    /// A kind of message or entry that nodes do not send each other.
    Kind(i32),
}

impl std::fmt::Display for NotAMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "it cannot be read: {why}"),
            Self::Entries(count) => write!(f, "it has {count} entries, more than {ENTRIES_MAX}"),
            Self::Kind(kind) => write!(f, "its kind {kind} is none that nodes send"),
        }
    }
}

impl std::error::Error for NotAMessage {}

/// The bytes of a message. **Copies** the entries' data.
pub fn encode(message: &eraftpb::Message) -> Bytes {
    Message::from(message).encode_to_vec().into()
}

/// A message of a peer's bytes; entries share them.
pub fn decode(bytes: Bytes) -> Result<eraftpb::Message, NotAMessage> {
    let malformed = |why: prost::DecodeError| NotAMessage::Malformed(why.to_string());
    let entries = count_entries(bytes.clone()).map_err(malformed)?;
    if entries > ENTRIES_MAX {
        return Err(NotAMessage::Entries(entries));
    }
    Message::decode(bytes).map_err(malformed)?.try_into()
}

/// How many entries a message holds, before anything is made of them.
fn count_entries(mut bytes: Bytes) -> Result<usize, prost::DecodeError> {
    const ENTRIES: u32 = 7;
    let mut count = 0;
    while !bytes.is_empty() {
        let (tag, kind) = decode_key(&mut bytes)?;
        count += usize::from(tag == ENTRIES);
        skip_field(kind, tag, &mut bytes, DecodeContext::default())?;
    }
    Ok(count)
}

impl From<&eraftpb::Message> for Message {
    fn from(message: &eraftpb::Message) -> Self {
        let entry = |entry: &eraftpb::Entry| Entry {
            entry_type: entry.entry_type as i32,
            term: entry.term,
            index: entry.index,
            data: entry.data.clone(),
            context: entry.context.clone(),
            sync_log: entry.sync_log,
        };
        Self {
            msg_type: message.msg_type as i32,
            to: message.to,
            from: message.from,
            term: message.term,
            log_term: message.log_term,
            index: message.index,
            entries: message.entries.iter().map(entry).collect(),
            commit: message.commit,
            commit_term: message.commit_term,
            snapshot: message.snapshot.as_ref().map(snapshot_out),
            request_snapshot: message.request_snapshot,
            reject: message.reject,
            reject_hint: message.reject_hint,
            context: message.context.clone(),
            deprecated_priority: message.deprecated_priority,
            priority: message.priority,
        }
    }
}

fn snapshot_out(snapshot: &eraftpb::Snapshot) -> Snapshot {
    let metadata = snapshot.metadata.as_ref().map(|metadata| SnapshotMetadata {
        conf_state: metadata.conf_state.as_ref().map(|state| ConfState {
            voters: state.voters.clone(),
            learners: state.learners.clone(),
            voters_outgoing: state.voters_outgoing.clone(),
            learners_next: state.learners_next.clone(),
            auto_leave: state.auto_leave,
        }),
        index: metadata.index,
        term: metadata.term,
    });
    Snapshot { data: snapshot.data.clone(), metadata }
}

fn snapshot_in(snapshot: Snapshot) -> eraftpb::Snapshot {
    let mut made = eraftpb::Snapshot { data: snapshot.data, ..eraftpb::Snapshot::default() };
    if let Some(metadata) = snapshot.metadata {
        let to = made.mut_metadata();
        (to.index, to.term) = (metadata.index, metadata.term);
        if let Some(state) = metadata.conf_state {
            let to = to.mut_conf_state();
            to.voters = state.voters;
            to.learners = state.learners;
            to.voters_outgoing = state.voters_outgoing;
            to.learners_next = state.learners_next;
            to.auto_leave = state.auto_leave;
        }
    }
    made
}

/// The kinds that nodes send each other; the others are a node's own, and a peer that sends one means no good.
fn kind(number: i32) -> Option<eraftpb::MessageType> {
    use eraftpb::MessageType::*;
    [
        MsgAppend,
        MsgAppendResponse,
        MsgRequestVote,
        MsgRequestVoteResponse,
        MsgSnapshot,
        MsgHeartbeat,
        MsgHeartbeatResponse,
        MsgTransferLeader,
        MsgTimeoutNow,
        MsgReadIndex,
        MsgReadIndexResp,
        MsgRequestPreVote,
        MsgRequestPreVoteResponse,
    ]
    .into_iter()
    .find(|kind| *kind as i32 == number)
}

impl TryFrom<Message> for eraftpb::Message {
    type Error = NotAMessage;
    fn try_from(message: Message) -> Result<Self, NotAMessage> {
        let mut made = eraftpb::Message::default();
        made.set_msg_type(kind(message.msg_type).ok_or(NotAMessage::Kind(message.msg_type))?);
        made.to = message.to;
        made.from = message.from;
        made.term = message.term;
        made.log_term = message.log_term;
        made.index = message.index;
        made.commit = message.commit;
        made.commit_term = message.commit_term;
        made.request_snapshot = message.request_snapshot;
        made.reject = message.reject;
        made.reject_hint = message.reject_hint;
        made.context = message.context;
        made.priority = message.priority;
        made.deprecated_priority = message.deprecated_priority;
        let mut entries = Vec::with_capacity(message.entries.len());
        for entry in message.entries {
            use eraftpb::EntryType::*;
            let kinds = [EntryNormal, EntryConfChange, EntryConfChangeV2];
            let kind = kinds.into_iter().find(|kind| *kind as i32 == entry.entry_type);
            let mut one = eraftpb::Entry::default();
            one.set_entry_type(kind.ok_or(NotAMessage::Kind(entry.entry_type))?);
            (one.term, one.index, one.sync_log) = (entry.term, entry.index, entry.sync_log);
            (one.data, one.context) = (entry.data, entry.context);
            entries.push(one);
        }
        made.set_entries(entries.into());
        if let Some(snapshot) = message.snapshot {
            made.set_snapshot(snapshot_in(snapshot));
        }
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eraftpb::MessageType;

    fn full() -> eraftpb::Message {
        let mut message = eraftpb::Message::default();
        message.set_msg_type(MessageType::MsgAppend);
        (message.to, message.from, message.term, message.log_term, message.index) = (2, 3, 4, 5, 6);
        (message.commit, message.commit_term, message.request_snapshot) = (7, 8, 9);
        (message.reject, message.reject_hint, message.priority) = (true, 10, -11);
        message.context = Bytes::from_static(b"context");
        let mut entry = eraftpb::Entry::default();
        entry.set_entry_type(eraftpb::EntryType::EntryConfChangeV2);
        (entry.term, entry.index) = (4, 7);
        entry.data = Bytes::from(vec![9; 1000]);
        entry.context = Bytes::from_static(b"c");
        message.set_entries(vec![entry.clone(), entry].into());
        let snapshot = message.mut_snapshot();
        snapshot.data = Bytes::from_static(b"data");
        (snapshot.mut_metadata().index, snapshot.mut_metadata().term) = (12, 13);
        snapshot.mut_metadata().mut_conf_state().voters = vec![1, 2, u64::MAX];
        snapshot.mut_metadata().mut_conf_state().learners_next = vec![4];
        snapshot.mut_metadata().mut_conf_state().auto_leave = true;
        message
    }

    #[test]
    fn a_message_means_the_same_to_rafts_own_codec_and_reads_back_sharing_its_data() {
        use protobuf::Message as _;
        let message = full();
        let bytes = encode(&message);
        let by_raft = eraftpb::Message::parse_from_bytes(&bytes);
        assert!(by_raft.is_ok_and(|read| read == message), "raft's own codec reads ours");
        let theirs = Bytes::from(message.write_to_bytes().expect("it can be written"));
        assert!(decode(theirs) == Ok(message.clone()), "and ours reads its");
        let back = decode(bytes.clone()).expect("it can be read");
        assert!(back == message, "and its own");
        assert!(bytes.as_ptr_range().contains(&back.entries[0].data.as_ptr()), "shared");
    }

    #[test]
    fn a_message_of_empty_entries_is_refused_before_anything_is_made_of_them() {
        let empty = |count: usize| Bytes::from([0x3a, 0x00].repeat(count));
        assert_eq!(decode(empty(ENTRIES_MAX + 1)), Err(NotAMessage::Entries(ENTRIES_MAX + 1)));
        // Of no kind that nodes send, but read.
        assert_eq!(decode(empty(ENTRIES_MAX)), Err(NotAMessage::Kind(0)));
    }

    #[test]
    fn what_no_node_sends_is_refused() {
        for own in [MessageType::MsgHup, MessageType::MsgPropose, MessageType::MsgCheckQuorum] {
            let mut message = full();
            message.set_msg_type(own);
            assert_eq!(decode(encode(&message)), Err(NotAMessage::Kind(own as i32)));
        }
        let mut odd = Message::from(&full());
        odd.entries[1].entry_type = 77;
        assert_eq!(decode(odd.encode_to_vec().into()), Err(NotAMessage::Kind(77)));
        let bytes = encode(&full());
        assert!(matches!(decode(bytes.slice(..bytes.len() - 1)), Err(NotAMessage::Malformed(_))));
    }
}
