//! The machine: what its own node asks of it: proposals, changes of the configuration, reads, handing leadership over.

use super::configuration::{self, Change};
use super::entries::Mark;
use super::members::RaftId;
use super::node::MetadataRaft;
use super::{BadChange, Effect, Membership, Refusal};
use crate::ids::NodeId;
use bytes::Bytes;
use raft::eraftpb::{self, EntryType, MessageType};

/// A read that waits for a majority.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) number: u64,
    pub(super) ticks_left: usize,
}

impl MetadataRaft {
    pub(super) fn propose(&mut self, number: u64, data: Bytes) {
        let refusal = match data.len() {
            _ if !self.is_leader() => Some(Refusal::NotLeader { leader: self.leader() }),
            0 => Some(Refusal::Empty),
            bytes if bytes > self.settings.entry_bytes_max => {
                Some(Refusal::TooLarge { bytes, max: self.settings.entry_bytes_max })
            }
            _ => None,
        };
        if let Some(why) = refusal {
            return self.out.refuse(number, why);
        }
        let entry = eraftpb::Entry { data, ..eraftpb::Entry::default() };
        match self.step_proposal(entry) {
            Some(at) => self.out.effects.push_back(Effect::Proposed { number, at }),
            None => self.out.refuse(number, Refusal::Busy),
        }
    }

    /// On a leader. `None` where Raft takes no proposals now.
    fn step_proposal(&mut self, entry: eraftpb::Entry) -> Option<Mark> {
        let mut message = eraftpb::Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.own.id().get();
        message.mut_entries().push(entry);
        self.raft.step(message).ok()?;
        Some(Mark { index: self.last_index(), term: self.raft.raft.term })
    }

    pub(super) fn change(&mut self, number: u64, change: &Change) {
        match self.try_change(change) {
            Ok(at) => self.out.effects.push_back(Effect::Proposed { number, at }),
            Err(why) => self.out.refuse(number, why),
        }
    }

    fn try_change(&mut self, change: &Change) -> Result<Mark, Refusal> {
        if !self.is_leader() {
            return Err(Refusal::NotLeader { leader: self.leader() });
        }
        if !self.raft.raft.apply_to_current_term() {
            return Err(Refusal::NotReady);
        }
        let now = &self.membership.configuration;
        if now.is_joint() || self.raft.raft.has_pending_conf() {
            return Err(Refusal::ChangePending);
        }
        let bytes = change.encode(self.own.id(), now).map_err(Refusal::BadChange)?;
        for member in &change.learners {
            if !self.known.insert(member.clone()) {
                return Err(Refusal::BadChange(BadChange::Present(member.id())));
            }
        }
        self.propose_membership(bytes.into())
    }

    /// Raft puts an empty entry in place of a change that it does not take, and says nothing.
    fn propose_membership(&mut self, data: Bytes) -> Result<Mark, Refusal> {
        let mut entry = eraftpb::Entry::default();
        entry.set_entry_type(EntryType::EntryConfChangeV2);
        entry.data = data;
        let at = self.step_proposal(entry).ok_or(Refusal::Busy)?;
        let taken = self.raft.raft.raft_log.unstable_entries().last();
        match taken.map(eraftpb::Entry::get_entry_type) {
            Some(EntryType::EntryConfChangeV2) => Ok(at),
            _ => Err(Refusal::ChangePending),
        }
    }

    /// A joint configuration is entered by one entry and left by another, which a later leader must write if the one that
    /// began is gone.
    pub(super) fn leave_joint(&mut self) {
        let raft = &self.raft.raft;
        if self.membership.configuration.is_joint() && !raft.has_pending_conf() && raft.apply_to_current_term() {
            // Refused while leadership is handed over; the next tick asks again, of whoever leads.
            let _ = self.propose_membership(Bytes::new());
        }
    }

    pub(super) fn read(&mut self, number: u64) {
        if !self.is_leader() {
            return self.out.refuse(number, Refusal::NotLeader { leader: self.leader() });
        }
        if !self.raft.raft.commit_to_current_term() {
            return self.out.refuse(number, Refusal::NotReady);
        }
        if self.reads.len() >= self.settings.reads_max {
            return self.out.refuse(number, Refusal::Busy);
        }
        // The context must be told apart from any other's, also one of a leader before: terms have one leader each.
        let context = self.next_read;
        self.next_read += 1;
        self.reads.insert(context, Read { number, ticks_left: self.settings.election_ticks });
        let bytes = [self.raft.raft.term.to_be_bytes(), context.to_be_bytes()].concat();
        self.raft.read_index(bytes);
    }

    /// A majority has confirmed that this node still led when the read came.
    pub(super) fn read_confirmed(&mut self, context: &[u8], index: u64) {
        let Some((term, context)) = context.split_first_chunk::<8>() else { return };
        let Ok(context) = context.try_into().map(u64::from_be_bytes) else { return };
        if u64::from_be_bytes(*term) != self.raft.raft.term {
            return;
        }
        if let Some(read) = self.reads.remove(&context) {
            self.out.effects.push_back(Effect::ReadReady { number: read.number, index });
        }
    }

    pub(super) fn transfer(&mut self, to: NodeId) {
        let configuration = &self.membership.configuration;
        let id = self.known.ids_of(to).find(|id| configuration.voters.contains(id));
        if let Some(id) = id.filter(|_| self.is_leader()) {
            self.raft.transfer_leader(id.get());
        }
    }
}

/// Decodes and checks a change against what is in effect: the outcome is the same on every node.
pub(super) fn read_change(bytes: &[u8], now: &Membership) -> Option<configuration::Decoded> {
    let decoded = configuration::decode(bytes)?;
    let is_known =
        |id: u64| RaftId::new(id).is_some_and(|id| decoded.joining.get(id).is_some() || now.members.get(id).is_some());
    decoded.change.changes.iter().all(|single| is_known(single.node_id)).then_some(decoded)
}
