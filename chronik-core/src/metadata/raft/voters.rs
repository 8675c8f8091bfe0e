//! Giving a vote, and taking one away, as an operator wishes it (KIP-853).
//!
//! A wish takes effect by entries, and its leader may change on the way. So it is asked again until it holds, and each time
//! the next step is decided from what is in effect then: **asking twice does no harm**.
//!
//! **The group stays able to decide.** Who gets a vote has nearly all entries, and is heard of; and no change is begun after
//! which those voters that are heard of would be no majority. Who loses its vote goes on as a learner, since its broker goes on
//! needing the metadata; only a disk whose node has another one by now goes altogether.

use super::Membership;
use super::configuration::Change;
use super::members::RaftId;
use super::node::{MetadataRaft, Progress};
use crate::ids::NodeId;

/// Entries that a learner may be behind what is committed when it gets a vote: what is under way while a leader looks.
pub const CAUGHT_UP_ENTRIES: u64 = 10;

/// What an operator wants, of a node with this disk: with another one it would be another participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoterWish {
    pub node: NodeId,
    pub directory_id: [u8; 16],
    /// Whether it is to have a vote.
    pub votes: bool,
}

/// How far a wish has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoterStep {
    /// It is so, and committed.
    Holds,
    /// What leads there has begun.
    UnderWay,
    /// It cannot be begun now; later it may.
    NotYet(VoterWaits),
    Refused(VoterRefusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VoterWaits {
    #[error("no node with this number and directory takes part in the quorum; start it first")]
    Absent,
    #[error("it has not caught up with the metadata, or is not heard of")]
    Behind,
    #[error("another change of the voters is not finished")]
    Busy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VoterRefusal {
    #[error("the node votes already, with another directory")]
    OtherDirectory,
    #[error("it is the last voter")]
    LastVoter,
    #[error("the voters that are at work would be no majority; nothing could be decided any more")]
    NoMajority,
}

/// What a leader does next for a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VoterNext {
    /// Nothing but to say how far it has come.
    Say(VoterStep),
    /// To propose it.
    Change(Change),
    /// Its own vote is to go: another must lead before that, and goes on with the wish.
    HandOver(NodeId),
}

impl MetadataRaft {
    /// Only a leader knows.
    pub fn voter_next(&self, wish: &VoterWish) -> VoterNext {
        next(self.membership(), &self.progress(), self.own().id(), self.committed(), wish)
    }
}

fn next(membership: &Membership, progress: &[Progress], own: RaftId, committed: u64, wish: &VoterWish) -> VoterNext {
    let Membership { configuration, members } = membership;
    let say = |step| VoterNext::Say(step);
    let id = members.iter().find(|member| member.node() == wish.node && *member.directory_id() == wish.directory_id);
    let id = id.map(super::Member::id).filter(|id| configuration.contains(*id));
    if configuration.is_joint() {
        return say(VoterStep::NotYet(VoterWaits::Busy));
    }
    let votes = id.is_some_and(|id| configuration.is_voter(id));
    if votes == wish.votes {
        return say(VoterStep::Holds);
    }
    let Some(id) = id else { return say(VoterStep::NotYet(VoterWaits::Absent)) };
    let of = |id: &RaftId| progress.iter().find(|progress| progress.id == *id);
    let mut voters = configuration.voters.clone();
    let change = if wish.votes {
        if members.ids_of(wish.node).any(|id| configuration.is_voter(id)) {
            return say(VoterStep::Refused(VoterRefusal::OtherDirectory));
        }
        let near = |progress: &Progress| progress.matched.saturating_add(CAUGHT_UP_ENTRIES) >= committed;
        if !of(&id).is_some_and(|progress| progress.is_active && near(progress)) {
            return say(VoterStep::NotYet(VoterWaits::Behind));
        }
        voters.insert(id);
        Change { promote: vec![id], ..Change::default() }
    } else {
        voters.remove(&id);
        if voters.is_empty() {
            return say(VoterStep::Refused(VoterRefusal::LastVoter));
        }
        match members.ids_of(wish.node).any(|other| other != id && configuration.contains(other)) {
            true => Change { remove: vec![id], ..Change::default() },
            false => Change { demote: vec![id], ..Change::default() },
        }
    };
    let at_work: Vec<&Progress> = voters.iter().filter_map(of).filter(|progress| progress.is_active).collect();
    if at_work.len() <= voters.len() / 2 {
        return say(VoterStep::Refused(VoterRefusal::NoMajority));
    }
    if id == own && !wish.votes {
        let best = at_work.into_iter().max_by_key(|progress| (progress.matched, progress.id));
        let to = best.and_then(|progress| members.get(progress.id));
        return to.map_or(say(VoterStep::NotYet(VoterWaits::Behind)), |to| VoterNext::HandOver(to.node()));
    }
    VoterNext::Change(change)
}

#[cfg(test)]
mod tests {
    use super::super::{Configuration, Member};
    use super::*;

    const COMMITTED: u64 = 1_000;

    fn member(node: i32, disk: u8) -> Member {
        Member::new(NodeId(node), [disk; 16], "host:1").expect("well formed")
    }

    fn id(disk: u8) -> RaftId {
        RaftId::of(&[disk; 16]).expect("not zero")
    }

    /// Nodes with disks of their own numbers.
    fn group(voters: &[u8], learners: &[u8]) -> Membership {
        let ids = |disks: &[u8]| disks.iter().map(|disk| id(*disk)).collect();
        Membership {
            configuration: Configuration { voters: ids(voters), learners: ids(learners), ..Configuration::default() },
            members: voters.iter().chain(learners).map(|disk| member((*disk).into(), *disk)).collect(),
        }
    }

    /// Everyone is at work and has everything, but for these.
    fn progress(membership: &Membership, silent: &[u8], behind: &[u8]) -> Vec<Progress> {
        let one = |each: RaftId| Progress {
            id: each,
            is_voter: membership.configuration.is_voter(each),
            matched: if behind.iter().any(|disk| id(*disk) == each) { 1 } else { COMMITTED },
            is_active: silent.iter().all(|disk| id(*disk) != each),
        };
        membership.configuration.all().into_iter().map(one).collect()
    }

    fn wish(node: i32, disk: u8, votes: bool) -> VoterWish {
        VoterWish { node: NodeId(node), directory_id: [disk; 16], votes }
    }

    /// What node 1 does, as the leader.
    fn asked(membership: &Membership, silent: &[u8], behind: &[u8], wish: VoterWish) -> VoterNext {
        next(membership, &progress(membership, silent, behind), id(1), COMMITTED, &wish)
    }

    fn refused(why: VoterRefusal) -> VoterNext {
        VoterNext::Say(VoterStep::Refused(why))
    }

    fn not_yet(why: VoterWaits) -> VoterNext {
        VoterNext::Say(VoterStep::NotYet(why))
    }

    #[test]
    fn a_learner_gets_a_vote_when_it_has_caught_up() {
        let now = group(&[1, 2, 3], &[4]);
        let change = Change { promote: vec![id(4)], ..Change::default() };
        assert_eq!(asked(&now, &[], &[], wish(4, 4, true)), VoterNext::Change(change));
        assert_eq!(asked(&now, &[], &[4], wish(4, 4, true)), not_yet(VoterWaits::Behind));
        assert_eq!(asked(&now, &[4], &[], wish(4, 4, true)), not_yet(VoterWaits::Behind), "it is not heard of");
        assert_eq!(asked(&now, &[], &[], wish(4, 9, true)), not_yet(VoterWaits::Absent), "that is another disk");
        assert_eq!(asked(&now, &[], &[], wish(5, 4, true)), not_yet(VoterWaits::Absent), "that is another's disk");
    }

    #[test]
    fn what_holds_is_not_done_again() {
        let now = group(&[1, 2, 3], &[4]);
        assert_eq!(asked(&now, &[], &[], wish(2, 2, true)), VoterNext::Say(VoterStep::Holds));
        assert_eq!(asked(&now, &[], &[], wish(4, 4, false)), VoterNext::Say(VoterStep::Holds));
        assert_eq!(asked(&now, &[], &[], wish(9, 9, false)), VoterNext::Say(VoterStep::Holds), "nobody has no vote");
    }

    #[test]
    fn who_loses_its_vote_goes_on_as_a_learner() {
        let change = Change { demote: vec![id(3)], ..Change::default() };
        assert_eq!(asked(&group(&[1, 2, 3], &[]), &[], &[], wish(3, 3, false)), VoterNext::Change(change.clone()));
        assert_eq!(
            asked(&group(&[1, 2, 3], &[]), &[3], &[], wish(3, 3, false)),
            VoterNext::Change(change),
            "also a dead one"
        );
    }

    #[test]
    fn a_disk_that_was_replaced_goes_altogether_and_its_vote_is_its_own() {
        let mut now = group(&[1, 2, 3], &[]);
        now.configuration.learners.insert(id(7));
        now.members.insert(member(3, 7));
        let change = Change { remove: vec![id(3)], ..Change::default() };
        assert_eq!(asked(&now, &[3], &[], wish(3, 3, false)), VoterNext::Change(change));
        assert_eq!(asked(&now, &[], &[], wish(3, 7, true)), refused(VoterRefusal::OtherDirectory));
    }

    #[test]
    fn a_group_is_never_left_without_those_who_can_decide() {
        assert_eq!(asked(&group(&[1], &[2]), &[], &[], wish(1, 1, false)), refused(VoterRefusal::LastVoter));
        let now = group(&[1, 2, 3], &[4]);
        assert_eq!(asked(&now, &[3], &[], wish(2, 2, false)), refused(VoterRefusal::NoMajority), "1 of two is none");
        let even = group(&[1, 2], &[3]);
        assert_eq!(
            asked(&even, &[2], &[], wish(2, 2, false)),
            VoterNext::Change(Change { demote: vec![id(2)], ..Change::default() })
        );
        let promote = Change { promote: vec![id(4)], ..Change::default() };
        assert_eq!(asked(&now, &[3], &[], wish(4, 4, true)), VoterNext::Change(promote), "3 of four are one");
    }

    #[test]
    fn a_leader_hands_over_before_it_loses_its_vote() {
        let now = group(&[1, 2, 3], &[]);
        assert_eq!(
            asked(&now, &[], &[3], wish(1, 1, false)),
            VoterNext::HandOver(NodeId(2)),
            "to the one that has most"
        );
        assert_eq!(asked(&now, &[2], &[], wish(1, 1, false)), refused(VoterRefusal::NoMajority));
    }

    #[test]
    fn one_change_is_finished_before_the_next_is_begun() {
        let mut now = group(&[1, 2, 3], &[4]);
        now.configuration.outgoing = [id(1), id(2)].into();
        assert_eq!(asked(&now, &[], &[], wish(4, 4, true)), not_yet(VoterWaits::Busy));
        assert_eq!(asked(&now, &[], &[], wish(3, 3, true)), not_yet(VoterWaits::Busy), "it may yet be taken back");
    }
}
