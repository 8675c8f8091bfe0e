//! The machine: what goes out, and what must be durable before it may.
//!
//! Raft hands out its work in portions ("Ready"), asynchronously: entries are in memory at once, their portion waits in a
//! queue until its persist effect is durable, and only then are its messages created as effects. Portions that need
//! nothing of the disk wait behind those that do, since what they say may rest on them: a second copy of entries is
//! acknowledged when the first copy is durable. That a follower hears its leader rests on nothing but the term, and waits for
//! no more than that.

use super::check::Dropped;
use super::configuration::Configuration;
use super::entries::{Content, Entry, Mark, cost_bytes};
use super::members::RaftId;
use super::node::{MetadataRaft, membership_of};
use super::requests::read_change;
use super::snapshot::Snapshot;
use super::{Committed, Effect, HardState, Kind, Membership, Persist, Refusal, Role, SnapshotChange};
use crate::ids::NodeId;
use raft::eraftpb;
use std::collections::{BTreeSet, VecDeque};

/// Nodes that may be asked who they are before one has answered: a bound, not a limit that matters.
const STRANGERS_MAX: usize = 64;

/// A portion that waits for the disk, or behind one that does.
#[derive(Debug)]
struct Waiting {
    persist: Option<u64>,
    /// Raft's own number of it.
    ready: Option<u64>,
    messages: Vec<eraftpb::Message>,
    then: Then,
    bytes: usize,
}

#[derive(Debug)]
enum Then {
    Nothing,
    Install(Box<Snapshot>),
    Compact { snapshot: Box<Snapshot>, cut: Mark },
}

/// What has been given to the driver, and what it has reported.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) effects: VecDeque<Effect>,
    pub(super) role: Role,
    waiting: VecDeque<Waiting>,
    /// Persist effects given out and reported durable.
    given: u64,
    durable: u64,
    /// As it stands on disk once everything given out is durable, and the number of the effect that has it.
    saved: HardState,
    saved_by: u64,
    /// The last one that carried a term or vote.
    vote_by: u64,
    /// Committed, and not handed out yet.
    committed: VecDeque<eraftpb::Entry>,
    /// What the driver has been given to apply.
    pub(super) handed_out: u64,
    applied_bytes: usize,
    pub(super) unpersisted_bytes: usize,
    pub(super) snapshot_asked: bool,
    snapshot_wanted: bool,
    strangers: BTreeSet<NodeId>,
}

impl Outgoing {
    pub(super) fn new(saved: HardState, applied: u64) -> Self {
        Self {
            effects: VecDeque::new(),
            role: Role::default(),
            waiting: VecDeque::new(),
            given: 0,
            durable: 0,
            saved,
            saved_by: 0,
            vote_by: 0,
            committed: VecDeque::new(),
            handed_out: applied,
            applied_bytes: 0,
            unpersisted_bytes: 0,
            snapshot_asked: false,
            snapshot_wanted: false,
            strangers: BTreeSet::new(),
        }
    }

    pub(super) fn refuse(&mut self, number: u64, why: Refusal) {
        self.effects.push_back(Effect::Refused { number, why });
    }

    /// Asks once in an election time.
    pub(super) fn ask_who(&mut self, node: NodeId) {
        if self.strangers.len() >= STRANGERS_MAX {
            self.strangers.clear();
        }
        if self.strangers.insert(node) {
            self.effects.push_back(Effect::Stranger { node });
        }
    }

    pub(super) fn ask_again(&mut self) {
        self.strangers.clear();
    }

    /// A term or vote is not durable yet.
    pub(super) fn is_vote_pending(&self) -> bool {
        self.vote_by > self.durable
    }

    fn is_commit_durable(&self, index: u64) -> bool {
        self.saved.commit >= index && self.saved_by <= self.durable
    }

    fn persist(&mut self, persist: Persist, waiting: Waiting) {
        self.given += 1;
        if let Some(hard_state) = persist.hard_state {
            if (hard_state.term, hard_state.vote) != (self.saved.term, self.saved.vote) {
                self.vote_by = self.given;
            }
            self.saved = hard_state;
            self.saved_by = self.given;
        }
        self.unpersisted_bytes += waiting.bytes;
        self.waiting.push_back(Waiting { persist: Some(self.given), ..waiting });
        self.effects.push_back(Effect::Persist(Box::new(Persist { number: self.given, ..persist })));
    }
}

fn nothing() -> Persist {
    Persist { number: 0, hard_state: None, snapshot: None, truncate_from: None, entries: Vec::new() }
}

fn waiting(then: Then) -> Waiting {
    Waiting { persist: None, ready: None, messages: Vec::new(), then, bytes: 0 }
}

/// To a leader whose term is durable here, that it is heard, which promises nothing of the log. Where the disks of followers
/// are slow for longer than an election takes, their leader would be lost if this waited for them; and no other could be
/// elected, since votes do wait.
fn only_says_that_it_hears(message: &eraftpb::Message) -> bool {
    message.get_msg_type() == eraftpb::MessageType::MsgHeartbeatResponse
}

impl MetadataRaft {
    /// Takes what Raft has to say until it falls silent.
    pub(super) fn pump(&mut self) {
        loop {
            while self.raft.has_ready() {
                self.take_ready();
            }
            self.release();
            if !self.raft.has_ready() && !self.hand_out() {
                break;
            }
        }
        self.show_role();
        self.ask_for_snapshot();
    }

    fn take_ready(&mut self) {
        let mut ready = self.raft.ready();
        let mut persist = nothing();
        let mut portion = waiting(Then::Nothing);
        if !ready.snapshot().is_empty() {
            let snapshot =
                Snapshot::from_raft(ready.snapshot()).expect("Raft sees only snapshots that read back, see `check`");
            self.take_over(&snapshot);
            portion.bytes += snapshot.image.len();
            portion.then = Then::Install(Box::new(snapshot.clone()));
            persist.snapshot = Some(SnapshotChange::Received(snapshot));
        }
        let entries = ready.take_entries();
        if let Some(first) = entries.first() {
            let store = self.raft.mut_store();
            persist.truncate_from = (first.index <= store.last_index()).then_some(first.index);
            store.append(&entries);
            portion.bytes += entries.iter().map(cost_bytes).sum::<usize>();
            persist.entries = entries.iter().map(Entry::from_raft).collect();
        }
        if let Some(state) = ready.hs() {
            let (term, vote) = (state.term, RaftId::new(state.vote));
            if (term, vote) != (self.out.saved.term, self.out.saved.vote) {
                persist.hard_state = Some(HardState { term, vote, commit: self.durable_commit() });
            }
        }
        for read in ready.take_read_states() {
            self.read_confirmed(&read.request_ctx, read.index);
        }
        self.out.committed.extend(ready.take_committed_entries());
        // A leader's are free to go before its own disk has written, a follower's are not.
        let free = ready.take_messages();
        portion.messages = ready.take_persisted_messages();
        portion.ready = Some(ready.number());
        self.raft.advance_append_async(ready);
        // Even a leader's: where it elects itself alone, its term is not durable yet, and after a crash it would write
        // other entries in that term.
        let is_held = persist.hard_state.is_some() || self.out.is_vote_pending();
        if is_held {
            portion.messages.extend(free);
        } else {
            let (heard, held) = std::mem::take(&mut portion.messages).into_iter().partition(only_says_that_it_hears);
            portion.messages = held;
            free.into_iter().chain::<Vec<_>>(heard).for_each(|message| self.send(message));
        }
        if persist == nothing() {
            self.out.waiting.push_back(portion);
        } else {
            self.out.persist(persist, portion);
        }
    }

    /// What is committed and on this disk: a commit index must not come back without its entries.
    fn durable_commit(&self) -> u64 {
        let log = &self.raft.raft.raft_log;
        log.committed.min(log.persisted).max(self.out.saved.commit)
    }

    /// Takes a leader's snapshot in place of the log.
    fn take_over(&mut self, snapshot: &Snapshot) {
        // Whatever was not handed out yet is part of the snapshot.
        self.out.committed.clear();
        self.membership = membership_of(snapshot);
        self.memberships.clear();
        self.memberships.insert(snapshot.at.index, self.membership.clone());
        for member in snapshot.members.iter() {
            self.known.insert(member.clone());
        }
        self.raft.mut_store().restore(snapshot.clone());
    }

    /// Our own snapshot, in place of the log's beginning.
    pub(super) fn persist_snapshot(&mut self, snapshot: Snapshot, cut: Mark) {
        let then = Then::Compact { snapshot: Box::new(snapshot.clone()), cut };
        // Not given out a second time while this one is being written.
        self.out.snapshot_asked = true;
        let persist = Persist { snapshot: Some(SnapshotChange::Taken { snapshot, cut }), ..nothing() };
        self.out.persist(persist, waiting(then));
    }

    pub(super) fn persisted(&mut self, number: u64) {
        if number <= self.out.given {
            self.out.durable = self.out.durable.max(number);
        }
    }

    /// Lets go what has become durable, and what waited behind it.
    fn release(&mut self) {
        let is_free = |waiting: &mut Waiting, durable: u64| waiting.persist.is_none_or(|number| number <= durable);
        while let Some(portion) = self.out.waiting.pop_front_if(|waiting| is_free(waiting, self.out.durable)) {
            if portion.persist.is_some() {
                self.out.unpersisted_bytes -= portion.bytes;
            }
            if let Some(number) = portion.ready {
                self.raft.on_persist_ready(number);
            }
            match portion.then {
                Then::Nothing => {}
                Then::Install(snapshot) => {
                    self.out.handed_out = snapshot.at.index;
                    self.out.applied_bytes = 0;
                    self.out.effects.push_back(Effect::Install(snapshot));
                }
                Then::Compact { snapshot, cut } => {
                    self.out.snapshot_asked = false;
                    self.out.snapshot_wanted = false;
                    self.out.applied_bytes = 0;
                    let from = snapshot.at.index;
                    self.raft.mut_store().compact(*snapshot, cut);
                    // Kept is what was in effect at the snapshot, and what came after.
                    let before = self.memberships.range(..=from).next_back().map(|(index, _)| *index);
                    self.memberships.retain(|index, _| before.is_none_or(|before| *index >= before));
                }
            }
            portion.messages.into_iter().for_each(|message| self.send(message));
        }
    }

    fn send(&mut self, message: eraftpb::Message) {
        let to = RaftId::new(message.to).and_then(|id| self.known.get(id)).map(|member| member.node());
        match to {
            Some(to) => self.out.effects.push_back(Effect::Send { to, message: Box::new(message) }),
            None => self.count(Dropped::NoAddress),
        }
    }

    /// Hands committed entries out, up to a change of the configuration that the disk does not know to be committed yet.
    /// Whether the configuration changed, from which more may follow.
    fn hand_out(&mut self) -> bool {
        let mut batch = Vec::new();
        let mut changed = false;
        while let Some(entry) = self.out.committed.front().map(Entry::from_raft) {
            let kind = match entry.content {
                Content::Empty => Kind::Empty,
                Content::Data(data) => Kind::Data(data),
                Content::Membership(bytes) => {
                    if !self.out.is_commit_durable(entry.at.index) {
                        self.save_commit(entry.at.index);
                        break;
                    }
                    changed = true;
                    Kind::Membership(self.apply_change(entry.at.index, &bytes).map(Box::new))
                }
            };
            if let Some(entry) = self.out.committed.pop_front() {
                self.out.applied_bytes += cost_bytes(&entry);
            }
            self.out.handed_out = entry.at.index;
            batch.push(Committed { at: entry.at, kind });
            if changed {
                break;
            }
        }
        if !batch.is_empty() {
            self.out.effects.push_back(Effect::Apply(batch));
        }
        changed
    }

    fn save_commit(&mut self, index: u64) {
        // If it is on its way there is nothing to do but wait.
        if self.out.saved.commit < index {
            let commit = self.durable_commit();
            let hard_state = Some(HardState { commit, ..self.out.saved });
            self.out.persist(Persist { hard_state, ..nothing() }, waiting(Then::Nothing));
        }
    }

    fn apply_change(&mut self, index: u64, bytes: &[u8]) -> Option<Membership> {
        let decoded = read_change(bytes, &self.membership)?;
        let state = self.raft.apply_conf_change(&decoded.change).ok()?;
        let mut members = std::mem::take(&mut self.membership.members);
        for member in decoded.joining.iter() {
            members.insert(member.clone());
            self.known.insert(member.clone());
        }
        let configuration = Configuration::in_effect(&state);
        let all = configuration.all();
        let members = members.iter().filter(|member| all.contains(&member.id())).cloned().collect();
        self.membership = Membership { configuration, members };
        self.memberships.insert(index, self.membership.clone());
        let raft = &mut self.raft.raft;
        if raft.state == raft::StateRole::Leader && !self.membership.configuration.is_voter(self.own.id()) {
            // Raft would go on leading, and fail on looking itself up among the members.
            let term = raft.term;
            raft.become_follower(term, raft::INVALID_ID);
        }
        Some(self.membership.clone())
    }

    fn show_role(&mut self) {
        let raft = &self.raft.raft;
        let is_leader = self.is_leader();
        let role = Role {
            term: raft.term,
            leader: self.leader(),
            is_leader,
            applied_own_term: is_leader && raft.apply_to_current_term(),
        };
        if role != self.out.role {
            self.out.role = role;
            self.out.effects.push_back(Effect::Role(role));
        }
    }

    fn ask_for_snapshot(&mut self) {
        self.out.snapshot_wanted |= self.raft.store().take_wanted();
        let applied = self.raft.raft.raft_log.applied;
        let since = applied.saturating_sub(self.raft.store().snapshot_index());
        let last_change = self.memberships.keys().next_back().copied().unwrap_or(0);
        let is_wanted = self.out.snapshot_wanted && applied >= last_change;
        let is_long = self.out.applied_bytes >= self.settings.snapshot_after_bytes
            || since >= self.settings.snapshot_after_entries as u64;
        if since > 0 && (is_wanted || is_long) && !self.out.snapshot_asked && self.snapshot_hold_ticks == 0 {
            self.out.snapshot_asked = true;
            self.out.effects.push_back(Effect::TakeSnapshot);
        }
    }
}
