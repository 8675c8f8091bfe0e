//! Who takes part in the metadata's group, and where they are.

use super::{ASK_WHO, Node, place};
use bytes::Bytes;
use chronik_core::ids::NodeId;
use chronik_core::metadata::raft::{
    CAUGHT_UP_ENTRIES, Change, Input, Member, RaftId, VoterNext, VoterStep, VoterWaits, VoterWish,
};
use chronik_core::metadata::{Image, Position};
use chronik_core::raft_transport::{Message, Peer, RaftTransport};
use std::collections::BTreeMap;

impl Node {
    pub(super) fn ask_who(&self, node: NodeId) {
        self.transport.send(node, Message::Ask { number: 0, body: Bytes::from_static(&[ASK_WHO]) });
    }

    /// A node with a blank disk wants to take part: without a vote at first.
    pub(super) fn join(&mut self, from: NodeId, body: &[u8]) -> bool {
        let Some(member) = Member::from_bytes(body).filter(|member| member.node() == from) else { return false };
        if self.lead.is_none() {
            return false;
        }
        if self.raft.membership().configuration.contains(member.id()) {
            return true;
        }
        tracing::info!(node = from.0, "node {from} joins with another disk: it is filled before it gets a vote");
        let change = Change { learners: vec![member], ..Change::default() };
        self.change(change)
    }

    pub(super) fn change(&mut self, change: Change) -> bool {
        let number = self.next_number;
        self.next_number += 1;
        self.raft.handle(self.now(), Input::Change { number, change });
        match self.outcome(number) {
            Ok(at) => {
                // Decisions to come are for the places behind it.
                if let Some(lead) = &mut self.lead {
                    let (next, epoch) = place(at);
                    let image = std::mem::replace(&mut lead.image, Image::empty(self.defaults.clone()));
                    lead.image = image.at(Position { next: next + 1, epoch });
                }
                true
            }
            Err(why) => {
                tracing::debug!(%why, "a change of the voters was refused");
                false
            }
        }
    }

    /// The next step towards what an operator wishes.
    pub(super) fn wished(&mut self, wish: &VoterWish) -> VoterStep {
        let change = match self.raft.voter_next(wish) {
            VoterNext::Say(step) => return step,
            VoterNext::Change(change) => change,
            VoterNext::HandOver(to) => {
                tracing::info!(node = to.0, "this node is to lose its vote: node {to} shall control the cluster");
                self.raft.handle(self.now(), Input::TransferLeader { to });
                return VoterStep::UnderWay;
            }
        };
        if !self.change(change) {
            return VoterStep::NotYet(VoterWaits::Busy);
        }
        let what = if wish.votes { "gets a vote" } else { "loses its vote" };
        tracing::info!(node = wish.node.0, "node {} {what} in the metadata's quorum, as an operator wishes", wish.node);
        VoterStep::UnderWay
    }

    /// A learner that has another node's number, and everything, takes over the vote of that node's former disk.
    pub(super) fn promote(&mut self) {
        if self.lead.is_none() || self.raft.membership().configuration.is_joint() {
            return;
        }
        let (configuration, members) = (&self.raft.membership().configuration, &self.raft.membership().members);
        let committed = self.raft.committed();
        let ready = self.raft.progress().into_iter().find_map(|progress| {
            let learner = members.get(progress.id).filter(|_| configuration.learners.contains(&progress.id))?;
            let caught_up = progress.is_active && progress.matched.saturating_add(CAUGHT_UP_ENTRIES) >= committed;
            let former: Vec<RaftId> = members.ids_of(learner.node()).filter(|id| configuration.is_voter(*id)).collect();
            (caught_up && !former.is_empty()).then_some((progress.id, learner.node(), former))
        });
        if let Some((learner, node, former)) = ready {
            tracing::info!(node = node.0, "node {node} has caught up: it votes again, and its former disk does not");
            self.change(Change { promote: vec![learner], remove: former, ..Change::default() });
        }
    }

    /// Sessions are kept with everyone who takes part, and with those who are configured to.
    pub(super) fn set_peers(&self) {
        let mut peers: BTreeMap<NodeId, String> =
            self.configured.iter().map(|peer| (peer.node, peer.address.clone())).collect();
        // Where the group says something else, that is newer.
        for member in self.raft.membership().members.iter() {
            peers.insert(member.node(), member.address().to_owned());
        }
        peers.remove(&self.raft.own().node());
        let peers = peers.into_iter().map(|(node, address)| Peer { node, address }).collect();
        self.transport.set_peers(peers);
    }
}
