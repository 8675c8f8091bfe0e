//! What a peer's message must be before Raft sees it.
//!
//! The `raft` crate trusts its peers: a commit index beyond the log, an entry out of place, a configuration that cannot be
//! restored end the process ("fatal"). Whoever can send could stop a majority that way, with one message each. So
//! everything that can be checked is checked here, and what fails is dropped and counted, which Raft takes for a lost
//! message.
//!
//! **What cannot be checked**: a lie that is well formed. A peer that acknowledges what it did not keep, votes twice, or
//! passes other entries off as committed breaks Raft's promises, not its process; Raft presumes that members do not lie.

use super::entries::cost_bytes;
use super::members::RaftId;
use super::snapshot::Snapshot;
use raft::eraftpb::{EntryType, Message, MessageType};

/// Terms are leader epochs in the stored log, which has 32 bits for them: 68 years of an election a second.
pub const TERM_MAX: u64 = i32::MAX as u64;
/// Beyond what any log reaches, and far from where adding a few overflows.
pub const INDEX_MAX: u64 = 1 << 62;

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dropped {
    /// The sender's node is not known to have this Raft id.
    Stranger,
    /// For another: for us with a former disk, most likely.
    Misaddressed,
    /// Of a kind that members do not send each other here: proposals and reads go to the leader by request.
    Kind,
    /// Impossible numbers, entries out of place, a snapshot that cannot be restored.
    Malformed,
    /// Speaks of what this log does not have.
    OutOfRange,
    /// Claims to lead a term that another leads.
    SecondLeader,
    /// Good, but this node's disk is behind, and must not take more or act on it now.
    DiskBehind,
    /// For someone whose node is not known.
    NoAddress,
}

/// What a message is held against.
pub(super) struct View {
    pub(super) id: RaftId,
    pub(super) term: u64,
    /// Zero: none known.
    pub(super) leader: u64,
    pub(super) last_index: u64,
    pub(super) entry_bytes_max: usize,
    pub(super) snapshot_bytes_max: usize,
    /// Everything is durable and applied as far as an election needs it.
    pub(super) may_campaign: bool,
    /// So many bytes wait to become durable that more would not be bounded.
    pub(super) is_full: bool,
}

/// Whether Raft may see it. That its sender is who it claims has been checked.
pub(super) fn check(view: &View, message: &Message) -> Result<(), Dropped> {
    if message.to != view.id.get() {
        return Err(Dropped::Misaddressed);
    }
    let numbers = [message.index, message.commit, message.reject_hint];
    let terms = [message.term, message.log_term, message.commit_term];
    let in_range = numbers.iter().all(|n| *n <= INDEX_MAX) && terms.iter().all(|term| *term <= TERM_MAX);
    // A term of zero would make Raft take it for our own, and nobody here asks for snapshots.
    if message.term == 0 || !in_range || message.request_snapshot != 0 {
        return Err(Dropped::Malformed);
    }
    let kind = message.get_msg_type();
    if kind != MessageType::MsgSnapshot && message.snapshot.is_some()
        || kind != MessageType::MsgAppend && !message.entries.is_empty()
    {
        return Err(Dropped::Malformed);
    }
    match kind {
        MessageType::MsgAppend => {
            check_leader(view, message)?;
            check_append(view, message)
        }
        MessageType::MsgHeartbeat => {
            check_leader(view, message)?;
            in_log(message.commit <= view.last_index)
        }
        MessageType::MsgSnapshot => {
            check_leader(view, message)?;
            check_snapshot(view, message)
        }
        MessageType::MsgAppendResponse => {
            // A log may be longer than its leader's, but not where it answers the leader.
            let hint = !message.reject || message.reject_hint <= message.index;
            in_log(message.index <= view.last_index && hint)
        }
        MessageType::MsgHeartbeatResponse => Ok(()),
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => Ok(()),
        // A vote can only answer what we asked, and we ask only when all before it is durable. A refusal tells of a later
        // term and is always heard.
        MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse => {
            if view.may_campaign || message.reject { Ok(()) } else { Err(Dropped::DiskBehind) }
        }
        MessageType::MsgTimeoutNow => {
            check_leader(view, message)?;
            if view.may_campaign { Ok(()) } else { Err(Dropped::DiskBehind) }
        }
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader
        | MessageType::MsgReadIndex
        | MessageType::MsgReadIndexResp => Err(Dropped::Kind),
    }
}

fn in_log(is_in: bool) -> Result<(), Dropped> {
    if is_in { Ok(()) } else { Err(Dropped::OutOfRange) }
}

/// A term has one leader.
fn check_leader(view: &View, message: &Message) -> Result<(), Dropped> {
    if message.term == view.term && view.leader != 0 && view.leader != message.from {
        return Err(Dropped::SecondLeader);
    }
    Ok(())
}

fn check_append(view: &View, message: &Message) -> Result<(), Dropped> {
    // Only "before the first entry" is without a term: any other place without one would seem to match beyond the log's
    // end, where Raft has no term either.
    let place = (message.index == 0) == (message.log_term == 0) && message.log_term <= message.term;
    let mut before = (message.index, message.log_term);
    let in_order = message.entries.iter().all(|entry| {
        let follows = entry.index == before.0 + 1 && entry.term >= before.1.max(1) && entry.term <= message.term;
        before = (entry.index, entry.term);
        // What would not come back from the log as it was, and the older form of changes, which nobody here writes.
        let plain = entry.context.is_empty() && entry.get_entry_type() != EntryType::EntryConfChange;
        follows && plain && cost_bytes(entry) <= view.entry_bytes_max
    });
    match (place && in_order, view.is_full && !message.entries.is_empty()) {
        (false, _) => Err(Dropped::Malformed),
        (true, true) => Err(Dropped::DiskBehind),
        (true, false) => Ok(()),
    }
}

fn check_snapshot(view: &View, message: &Message) -> Result<(), Dropped> {
    let snapshot = message.get_snapshot();
    let metadata = snapshot.get_metadata();
    let in_range = metadata.index <= INDEX_MAX && metadata.term <= message.term;
    if !in_range || snapshot.data.len() > view.snapshot_bytes_max || Snapshot::from_raft(snapshot).is_none() {
        return Err(Dropped::Malformed);
    }
    if view.is_full { Err(Dropped::DiskBehind) } else { Ok(()) }
}
