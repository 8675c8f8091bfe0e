//! Who decides: voters and learners, and how that changes.
//!
//! Changes come as entries of the log, so their bytes come from peers: they are read here, with every count checked, and
//! never by Raft's own codec. **What cannot be read changes nothing**, on every node alike.
//!
//! A node joins as a learner first and is promoted when it has caught up, so that a majority never waits for a log that is
//! still on its way. Changes of several at once pass through a joint configuration, which needs majorities of both
//! (Ongaro, "Consensus: Bridging Theory and Practice", section 4.3); leaving it is a change of its own.

use super::members::{Member, Members, RaftId};
use prost::Message;
use raft::eraftpb;
use std::collections::BTreeSet;

/// Nodes that one change may name.
pub const CHANGES_MAX: usize = 32;
/// Voters and learners together: what a table may name.
const PARTICIPANTS_MAX: usize = super::members::MEMBERS_MAX;

/// Who votes and who listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    pub voters: BTreeSet<RaftId>,
    pub learners: BTreeSet<RaftId>,
    /// The voters before, while both sets decide together; else empty.
    pub outgoing: BTreeSet<RaftId>,
    /// Voters before, who will be learners once `outgoing` is left behind.
    pub learners_next: BTreeSet<RaftId>,
}

impl Configuration {
    pub fn of_voters(voters: impl IntoIterator<Item = RaftId>) -> Self {
        Self { voters: voters.into_iter().collect(), ..Self::default() }
    }

    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Votes in one of the sets that decide.
    pub fn is_voter(&self, id: RaftId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    pub fn contains(&self, id: RaftId) -> bool {
        self.is_voter(id) || self.learners.contains(&id)
    }

    /// Everyone who takes part.
    pub fn all(&self) -> BTreeSet<RaftId> {
        self.voters.iter().chain(&self.outgoing).chain(&self.learners).copied().collect()
    }

    /// Whether Raft can be in it; one that it cannot be in would end the process on restoring it.
    pub fn is_sound(&self) -> bool {
        let apart = self.learners.is_disjoint(&self.voters) && self.learners.is_disjoint(&self.outgoing);
        let staged = self.learners_next.is_subset(&self.outgoing) && self.learners_next.is_disjoint(&self.voters);
        !self.voters.is_empty() && apart && staged && self.all().len() <= PARTICIPANTS_MAX
    }

    pub(super) fn to_raft(&self) -> eraftpb::ConfState {
        let numbers = |ids: &BTreeSet<RaftId>| ids.iter().map(|id| id.get()).collect();
        eraftpb::ConfState {
            voters: numbers(&self.voters),
            learners: numbers(&self.learners),
            voters_outgoing: numbers(&self.outgoing),
            learners_next: numbers(&self.learners_next),
            ..eraftpb::ConfState::default()
        }
    }

    /// `None` for one that is not sound, that leaves a joint configuration by itself (ours are left explicitly), or names
    /// one node twice.
    pub(super) fn from_raft(state: &eraftpb::ConfState) -> Option<Self> {
        let set = |numbers: &[u64]| {
            let ids: Option<BTreeSet<RaftId>> = numbers.iter().map(|id| RaftId::new(*id)).collect();
            ids.filter(|ids| ids.len() == numbers.len())
        };
        let configuration = Configuration {
            voters: set(&state.voters)?,
            learners: set(&state.learners)?,
            outgoing: set(&state.voters_outgoing)?,
            learners_next: set(&state.learners_next)?,
        };
        (configuration.is_sound() && !state.auto_leave).then_some(configuration)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let numbers = |ids: &BTreeSet<RaftId>| ids.iter().map(|id| id.get()).collect();
        ConfigurationRecord {
            voters: numbers(&self.voters),
            learners: numbers(&self.learners),
            outgoing: numbers(&self.outgoing),
            learners_next: numbers(&self.learners_next),
        }
        .encode_to_vec()
    }

    /// `None` for bytes that are no sound configuration.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let record = ConfigurationRecord::decode(bytes).ok()?;
        Self::from_raft(&eraftpb::ConfState {
            voters: record.voters,
            learners: record.learners,
            voters_outgoing: record.outgoing,
            learners_next: record.learners_next,
            ..eraftpb::ConfState::default()
        })
    }
}

#[derive(Clone, PartialEq, Eq, Message)]
struct ConfigurationRecord {
    #[prost(uint64, repeated, tag = "1")]
    voters: Vec<u64>,
    #[prost(uint64, repeated, tag = "2")]
    learners: Vec<u64>,
    #[prost(uint64, repeated, tag = "3")]
    outgoing: Vec<u64>,
    #[prost(uint64, repeated, tag = "4")]
    learners_next: Vec<u64>,
}

/// What a leader is asked to change, all of it or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Take part from now on, without a vote.
    pub learners: Vec<Member>,
    /// Learners that get a vote.
    pub promote: Vec<RaftId>,
    /// Voters that become learners.
    pub demote: Vec<RaftId>,
    /// Take no part any more.
    pub remove: Vec<RaftId>,
}

/// Why a change of the configuration makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadChange {
    #[error("the change names nobody")]
    Empty,
    #[error("the change names more than {CHANGES_MAX} nodes, or more than there may be")]
    TooLarge,
    #[error("{0} is named twice")]
    Twice(RaftId),
    #[error("{0} takes part already")]
    Present(RaftId),
    #[error("{0} takes no part")]
    Absent(RaftId),
    #[error("{0} is not a learner; a node joins as a learner first")]
    NotALearner(RaftId),
    #[error("{0} is not a voter")]
    NotAVoter(RaftId),
    #[error("{0} leads; leadership must be handed over first")]
    Leads(RaftId),
    #[error("no voter would be left")]
    NoVoters,
}

impl Change {
    /// The entry's bytes, for a leader with this id in this configuration.
    pub(super) fn encode(&self, leader: RaftId, now: &Configuration) -> Result<Vec<u8>, BadChange> {
        let mut seen = BTreeSet::new();
        let named = self.learners.iter().map(Member::id);
        let named = named.chain(self.promote.iter().chain(&self.demote).chain(&self.remove).copied());
        for id in named {
            if !seen.insert(id) {
                return Err(BadChange::Twice(id));
            }
        }
        match seen.len() {
            0 => return Err(BadChange::Empty),
            len if len > CHANGES_MAX || now.all().len() + self.learners.len() > PARTICIPANTS_MAX => {
                return Err(BadChange::TooLarge);
            }
            _ => {}
        }
        if let Some(known) = self.learners.iter().find(|member| now.contains(member.id())) {
            return Err(BadChange::Present(known.id()));
        }
        if let Some(id) = self.promote.iter().find(|id| !now.learners.contains(id)) {
            return Err(BadChange::NotALearner(*id));
        }
        if let Some(id) = self.demote.iter().find(|id| !now.voters.contains(id)) {
            return Err(BadChange::NotAVoter(*id));
        }
        if let Some(id) = self.remove.iter().find(|id| !now.contains(**id)) {
            return Err(BadChange::Absent(*id));
        }
        if self.demote.iter().chain(&self.remove).any(|id| *id == leader) {
            return Err(BadChange::Leads(leader));
        }
        let leave = |id: &&RaftId| now.voters.contains(id);
        let leaving = self.demote.iter().chain(&self.remove).filter(leave).count();
        if now.voters.len() + self.promote.len() <= leaving {
            return Err(BadChange::NoVoters);
        }
        let single = |kind: Kind| move |id: RaftId| SingleRecord { kind: kind as i32, id: id.get() };
        let changes: Vec<SingleRecord> = (self.learners.iter().map(|member| single(Kind::Learner)(member.id())))
            .chain(self.promote.iter().map(|id| single(Kind::Voter)(*id)))
            .chain(self.demote.iter().map(|id| single(Kind::Learner)(*id)))
            .chain(self.remove.iter().map(|id| single(Kind::Remove)(*id)))
            .collect();
        let transition = if changes.len() > 1 { Transition::Explicit } else { Transition::Auto };
        let context = self.learners.iter().cloned().collect::<Members>().to_bytes();
        Ok(ChangeRecord { transition: transition as i32, changes, context }.encode_to_vec())
    }
}

/// A change as an entry holds it: Raft's `ConfChangeV2`, with new members in its context.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Decoded {
    pub(super) change: eraftpb::ConfChangeV2,
    pub(super) joining: Members,
}

/// Reads an entry's bytes; empty ones leave a joint configuration.
pub(super) fn decode(bytes: &[u8]) -> Option<Decoded> {
    let record = ChangeRecord::decode(bytes).ok()?;
    // What was dropped in reading shows in the length: a later release may mean more than we would do.
    if record.encoded_len() != bytes.len() || record.changes.len() > CHANGES_MAX {
        return None;
    }
    let transition = match record.transition {
        0 => eraftpb::ConfChangeTransition::Auto,
        // Left when the leader says so, never by itself.
        2 => eraftpb::ConfChangeTransition::Explicit,
        _ => return None,
    };
    if (transition == eraftpb::ConfChangeTransition::Explicit) != (record.changes.len() > 1) {
        return None;
    }
    let mut change = eraftpb::ConfChangeV2::default();
    change.set_transition(transition);
    let joining = Members::from_bytes(&record.context)?;
    for single in record.changes {
        let id = RaftId::new(single.id)?;
        let kind = match single.kind {
            0 => eraftpb::ConfChangeType::AddNode,
            1 => eraftpb::ConfChangeType::RemoveNode,
            2 => eraftpb::ConfChangeType::AddLearnerNode,
            _ => return None,
        };
        let mut one = eraftpb::ConfChangeSingle::default();
        one.set_change_type(kind);
        one.node_id = id.get();
        change.mut_changes().push(one);
    }
    Some(Decoded { change, joining })
}

#[derive(Clone, Copy)]
enum Kind {
    Voter = 0,
    Remove = 1,
    Learner = 2,
}

#[derive(Clone, Copy)]
enum Transition {
    Auto = 0,
    Explicit = 2,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct SingleRecord {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(uint64, tag = "2")]
    id: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct ChangeRecord {
    #[prost(int32, tag = "1")]
    transition: i32,
    #[prost(message, repeated, tag = "2")]
    changes: Vec<SingleRecord>,
    #[prost(bytes = "vec", tag = "3")]
    context: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;

    fn id(number: u64) -> RaftId {
        RaftId::new(number).expect("not zero")
    }

    fn member(disk: u8) -> Member {
        Member::new(NodeId(disk.into()), [disk; 16], "host:1").expect("well formed")
    }

    #[test]
    fn a_configuration_reads_back_and_unsound_ones_are_refused() {
        let joint = Configuration {
            voters: [id(1), id(2), id(3)].into(),
            learners: [id(5)].into(),
            outgoing: [id(1), id(2), id(4)].into(),
            learners_next: [id(4)].into(),
        };
        assert_eq!(Configuration::from_bytes(&joint.to_bytes()), Some(joint.clone()));
        let both = Configuration { learners: [id(1)].into(), ..joint.clone() };
        assert_eq!(Configuration::from_bytes(&both.to_bytes()), None, "a voter that is a learner");
        let staged = Configuration { outgoing: [].into(), ..joint };
        assert_eq!(Configuration::from_bytes(&staged.to_bytes()), None, "staged outside a joint configuration");
        assert_eq!(Configuration::from_bytes(&[]), None, "nobody votes");
    }

    #[test]
    fn a_change_reads_back_with_those_who_join() {
        let now = Configuration::of_voters([id(1), id(2), id(3)]);
        let change = Change { learners: vec![member(9)], remove: vec![id(3)], ..Change::default() };
        let bytes = change.encode(id(1), &now).expect("makes sense");
        let decoded = decode(&bytes).expect("reads back");
        assert_eq!(decoded.joining.iter().next(), Some(&member(9)));
        assert_eq!(decoded.change.changes.len(), 2);
        assert_eq!(decoded.change.enter_joint(), Some(false), "left explicitly");
        let leave = decode(&[]).expect("an empty change");
        assert!(leave.change.leave_joint());
    }

    #[test]
    fn changes_that_make_no_sense_are_refused() {
        let now = Configuration { learners: [id(4)].into(), ..Configuration::of_voters([id(1), id(2)]) };
        let refusal = |change: Change| change.encode(id(1), &now).expect_err("refused");
        assert_eq!(refusal(Change::default()), BadChange::Empty);
        assert_eq!(refusal(Change { promote: vec![id(2)], ..Change::default() }), BadChange::NotALearner(id(2)));
        assert_eq!(refusal(Change { demote: vec![id(4)], ..Change::default() }), BadChange::NotAVoter(id(4)));
        assert_eq!(refusal(Change { remove: vec![id(1)], ..Change::default() }), BadChange::Leads(id(1)));
        assert_eq!(refusal(Change { remove: vec![id(7)], ..Change::default() }), BadChange::Absent(id(7)));
        let twice = Change { promote: vec![id(4)], remove: vec![id(4)], ..Change::default() };
        assert_eq!(refusal(twice), BadChange::Twice(id(4)));
    }

    #[test]
    fn bytes_that_are_no_change_are_refused() {
        // A node's number of zero; an unknown kind; a field from the future; a joint change that leaves by itself.
        for bytes in [&[0x12, 0x00][..], &[0x12, 0x04, 0x08, 0x07, 0x10, 0x01], &[0x78, 0x01], &[0x08, 0x01], &[0xff]] {
            assert_eq!(decode(bytes), None, "{bytes:?}");
        }
    }
}
