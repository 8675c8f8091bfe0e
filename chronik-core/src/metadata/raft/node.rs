//! The machine: what comes in. What goes out is in `outgoing`.

use super::check::{self, Dropped, INDEX_MAX, TERM_MAX, View};
use super::configuration::Configuration;
use super::entries::{Entries, Entry, Mark};
use super::members::{Member, Members, RaftId};
use super::outgoing::Outgoing;
use super::requests::Read;
use super::snapshot::Snapshot;
use super::store::Recovered;
use super::timeouts::Timeouts;
use super::{Effect, Input, Membership, Refusal, Role, Settings};
use crate::ids::NodeId;
use crate::time::Monotonic;
use bytes::Bytes;
use raft::eraftpb;
use raft::{ProgressState, RawNode, SnapshotStatus, StateRole};
use slog::Logger;
use std::collections::BTreeMap;

/// What may be uncommitted on a leader; further proposals are refused.
const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
/// Entries of one message, unless a single one is larger.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Messages of entries on their way to one follower.
const INFLIGHT_MAX: usize = 256;
/// Entries handed out for applying at once.
const APPLY_BYTES_MAX: u64 = 16 << 20;
/// Ticks until a snapshot that could not be taken is asked for again.
const SNAPSHOT_RETRY_TICKS: u32 = 100;

/// Why a node cannot start from what its disk holds. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("the settings contradict themselves: {0}")]
    Settings(String),
    /// More is missing than a crash can take.
    #[error("the Raft log is damaged: {0}")]
    Damaged(&'static str),
}

/// How far a leader knows a participant to have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub id: RaftId,
    pub is_voter: bool,
    /// Entries up to this are durable there.
    pub matched: u64,
    /// Has been heard of within the last election time.
    pub is_active: bool,
}

/// One participant of the metadata's Raft group. See the parent module for the contract with its driver.
pub struct MetadataRaft {
    pub(super) raft: RawNode<Entries>,
    pub(super) own: Member,
    pub(super) settings: Settings,
    /// Everyone whose node is known, whether or not they take part.
    pub(super) known: Members,
    /// The configuration in effect, and its members.
    pub(super) membership: Membership,
    /// By the index at which each took effect, from the snapshot on.
    pub(super) memberships: BTreeMap<u64, Membership>,
    pub(super) out: Outgoing,
    timeouts: Timeouts,
    next_tick: Monotonic,
    pub(super) reads: BTreeMap<u64, Read>,
    pub(super) next_read: u64,
    /// Ticks that a snapshot has been on its way, by participant.
    snapshots_sent: BTreeMap<u64, u32>,
    ticks: u64,
    pub(super) snapshot_hold_ticks: u32,
    pub(super) dropped: BTreeMap<Dropped, u64>,
}

impl MetadataRaft {
    /// Starts from what was recovered. The image of [`Recovered::snapshot`] is what has been applied so far; without one
    /// the node is blank, and waits until it is sent one. `known` are nodes that the driver has heard of besides.
    pub fn open(
        now: Monotonic,
        own: Member,
        settings: Settings,
        seed: u64,
        recovered: Recovered,
        known: Members,
    ) -> Result<MetadataRaft, OpenError> {
        let Recovered { hard_state, snapshot, cut, entries } = recovered;
        let applied = check_recovered(&hard_state, snapshot.as_ref(), cut, &entries)?;
        let state = eraftpb::HardState {
            term: hard_state.term,
            vote: hard_state.vote.map_or(0, RaftId::get),
            commit: hard_state.commit.max(applied),
            ..eraftpb::HardState::default()
        };
        let membership = snapshot.as_ref().map(membership_of).unwrap_or_default();
        let mut known = known;
        membership.members.iter().chain([&own]).for_each(|member| {
            known.insert(member.clone());
        });
        let saved = super::HardState { commit: state.commit, ..hard_state };
        let entries = Entries::new(state, snapshot, cut, entries.iter().map(Entry::to_raft));
        let config = raft::Config {
            id: own.id().get(),
            election_tick: settings.election_ticks,
            heartbeat_tick: settings.heartbeat_ticks,
            applied,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: INFLIGHT_MAX,
            check_quorum: true,
            pre_vote: true,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            max_committed_size_per_ready: APPLY_BYTES_MAX,
            ..raft::Config::default()
        };
        // What the crate would say, this machine says by its effects.
        let logger = Logger::root(slog::Discard, slog::o!());
        let raft = RawNode::new(&config, entries, &logger).map_err(|why| OpenError::Settings(why.to_string()))?;
        let timeouts = Timeouts::new(seed, own.id(), settings.election_ticks);
        let mut node = MetadataRaft {
            raft,
            memberships: BTreeMap::from([(applied, membership.clone())]),
            membership,
            known,
            out: Outgoing::new(saved, applied),
            timeouts,
            next_tick: now + settings.tick,
            reads: BTreeMap::new(),
            next_read: 0,
            snapshots_sent: BTreeMap::new(),
            ticks: 0,
            snapshot_hold_ticks: 0,
            dropped: BTreeMap::new(),
            own,
            settings,
        };
        node.settle();
        Ok(node)
    }

    /// When [`Input::Tick`] is due.
    pub fn deadline(&self) -> Monotonic {
        self.next_tick
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.out.effects.pop_front()
    }

    pub fn own(&self) -> &Member {
        &self.own
    }

    pub fn role(&self) -> Role {
        self.out.role
    }

    /// The configuration in effect, and its members.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Everyone whose node is known.
    pub fn known(&self) -> &Members {
        &self.known
    }

    /// The last entry, durable or not.
    pub fn last_index(&self) -> u64 {
        self.raft.raft.raft_log.last_index()
    }

    pub fn committed(&self) -> u64 {
        self.raft.raft.raft_log.committed
    }

    /// The entry that the newest snapshot stands for, and the bytes and number of entries in memory.
    pub fn held(&self) -> (u64, usize, usize) {
        let (bytes, entries) = self.raft.store().held();
        (self.raft.store().snapshot_index(), bytes, entries)
    }

    /// Messages dropped so far, by reason.
    pub fn dropped(&self) -> &BTreeMap<Dropped, u64> {
        &self.dropped
    }

    /// Of everyone who takes part, on a leader; else empty.
    pub fn progress(&self) -> Vec<Progress> {
        if !self.is_leader() {
            return Vec::new();
        }
        let mut all: Vec<Progress> = (self.raft.raft.prs().iter())
            .filter_map(|(id, progress)| {
                let id = RaftId::new(*id)?;
                Some(Progress {
                    id,
                    is_voter: self.membership.configuration.is_voter(id),
                    matched: progress.matched,
                    is_active: progress.recent_active || id == self.own.id(),
                })
            })
            .collect();
        all.sort_by_key(|progress| progress.id);
        all
    }

    pub(super) fn is_leader(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }

    pub fn handle(&mut self, now: Monotonic, input: Input) {
        match input {
            Input::Tick => self.tick(now),
            Input::Message { from, message } => self.message(from, *message),
            Input::Introduced(member) => {
                self.known.insert(member);
            }
            Input::Unreachable { node } => self.unreachable(node),
            Input::Gone { node } => self.gone(node),
            Input::Propose { number, data } => self.propose(number, data),
            Input::Change { number, change } => self.change(number, &change),
            Input::Read { number } => self.read(number),
            Input::Persisted { number } => self.persisted(number),
            Input::Applied { index } => self.applied(index),
            Input::SnapshotTaken { index, image } => self.snapshot_taken(index, image),
            Input::SnapshotFailed => {
                self.out.snapshot_asked = false;
                self.snapshot_hold_ticks = SNAPSHOT_RETRY_TICKS;
            }
            Input::TransferLeader { to } => self.transfer(to),
            Input::Campaign => {
                if !self.is_leader() && self.raft.raft.promotable() && self.may_campaign() {
                    // Raft may refuse it: it is not time yet.
                    let _ = self.raft.campaign();
                }
            }
        }
        self.settle();
    }

    /// Carries on until nothing more follows from what came in.
    fn settle(&mut self) {
        self.pump();
        let raft = &self.raft.raft;
        self.timeouts.observe(raft.term, raft.state, raft.leader_id);
        if !self.is_leader() && !self.reads.is_empty() {
            let why = Refusal::NotLeader { leader: self.leader() };
            for read in std::mem::take(&mut self.reads).into_values() {
                self.out.refuse(read.number, why);
            }
        }
    }

    /// One at most: a driver that was held up must not make an election out of having been late.
    fn tick(&mut self, now: Monotonic) {
        if now < self.next_tick {
            return;
        }
        let next = self.next_tick + self.settings.tick;
        self.next_tick = if next > now { next } else { now + self.settings.tick };
        self.ticks += 1;
        if self.ticks.is_multiple_of(self.settings.election_ticks as u64) {
            self.out.ask_again();
        }
        let ticks = self.timeouts.ticks();
        let raft = &mut self.raft.raft;
        raft.set_randomized_election_timeout(ticks);
        let would_campaign = raft.state != StateRole::Leader && raft.election_elapsed + 1 >= ticks;
        if !would_campaign || self.may_campaign() {
            self.raft.tick();
        }
        self.snapshot_hold_ticks = self.snapshot_hold_ticks.saturating_sub(1);
        if self.is_leader() {
            self.leave_joint();
            self.watch_snapshots();
        }
        let late: Vec<u64> = (self.reads.iter_mut())
            .filter_map(|(context, read)| {
                read.ticks_left = read.ticks_left.saturating_sub(1);
                (read.ticks_left == 0).then_some(*context)
            })
            .collect();
        for read in late.into_iter().filter_map(|context| self.reads.remove(&context)) {
            self.out.refuse(read.number, Refusal::TimedOut);
        }
    }

    /// Raft takes it for granted that whoever stands for election has everything durable and every known change of the
    /// configuration applied; with asynchronous disks and snapshots that is not so at every moment.
    pub(super) fn may_campaign(&self) -> bool {
        let log = &self.raft.raft.raft_log;
        log.persisted == log.last_index()
            && !self.out.is_vote_pending()
            && log.applied + 1 >= log.first_index()
            && self.raft.raft.term < TERM_MAX
    }

    fn message(&mut self, from: NodeId, message: eraftpb::Message) {
        let sender = RaftId::new(message.from).filter(|id| self.known.belongs(*id, from));
        if sender.is_none() {
            self.count(Dropped::Stranger);
            // Whoever speaks to our former self is answered when it comes to know better.
            if message.to == self.own.id().get() {
                self.out.ask_who(from);
            }
            return;
        }
        let view = View {
            id: self.own.id(),
            term: self.raft.raft.term,
            leader: self.raft.raft.leader_id,
            last_index: self.last_index(),
            entry_bytes_max: self.settings.entry_bytes_max + 1_024,
            // Members travel with the image.
            snapshot_bytes_max: self.settings.snapshot_bytes_max + (1 << 20),
            may_campaign: self.may_campaign(),
            is_full: self.out.unpersisted_bytes >= self.settings.unpersisted_bytes_max,
        };
        match check::check(&view, &message) {
            // Raft's own refusals are of messages from those that take no part any more.
            Ok(()) => drop(self.raft.step(message)),
            Err(why) => self.count(why),
        }
    }

    pub(super) fn count(&mut self, why: Dropped) {
        *self.dropped.entry(why).or_default() += 1;
    }

    fn unreachable(&mut self, node: NodeId) {
        let ids: Vec<RaftId> = self.known.ids_of(node).collect();
        for id in ids {
            self.raft.report_unreachable(id.get());
            if self.snapshots_sent.remove(&id.get()).is_some() {
                self.raft.report_snapshot(id.get(), SnapshotStatus::Failure);
            }
        }
    }

    fn gone(&mut self, node: NodeId) {
        let led = self.role().leader == Some(node) && !self.is_leader();
        let raft = &mut self.raft.raft;
        if led {
            raft.election_elapsed = raft.election_elapsed.max(raft.election_timeout());
        }
    }

    /// A snapshot is sent once, and if it is lost Raft waits for an answer forever.
    fn watch_snapshots(&mut self) {
        let under_way: Vec<u64> = (self.raft.raft.prs().iter())
            .filter(|(_, progress)| progress.state == ProgressState::Snapshot)
            .map(|(id, _)| *id)
            .collect();
        self.snapshots_sent.retain(|id, _| under_way.contains(id));
        for id in under_way {
            let ticks = self.snapshots_sent.entry(id).or_default();
            *ticks += 1;
            if *ticks > self.settings.snapshot_ticks {
                self.snapshots_sent.remove(&id);
                self.raft.report_snapshot(id, SnapshotStatus::Failure);
            }
        }
    }

    fn applied(&mut self, index: u64) {
        // Only what was handed out, and forwards: Raft ends the process over anything else.
        if index <= self.raft.raft.raft_log.applied || index > self.out.handed_out {
            return;
        }
        self.raft.advance_apply_to(index);
        if self.is_leader() {
            self.leave_joint();
        }
    }

    fn snapshot_taken(&mut self, index: u64, image: Bytes) {
        self.out.snapshot_asked = false;
        if image.len() > self.settings.snapshot_bytes_max {
            self.snapshot_hold_ticks = SNAPSHOT_RETRY_TICKS;
            let (bytes, max) = (image.len(), self.settings.snapshot_bytes_max);
            self.out.effects.push_back(Effect::SnapshotTooLarge { bytes, max });
            return;
        }
        let store = self.raft.store();
        let is_news = index > store.snapshot_index() && index <= self.raft.raft.raft_log.applied;
        let membership = self.memberships.range(..=index).next_back().map(|(_, membership)| membership.clone());
        let (true, Some(term), Some(membership)) = (is_news, store.term_at(index), membership) else { return };
        let snapshot = Snapshot {
            at: Mark { index, term },
            configuration: membership.configuration,
            members: membership.members,
            image,
        };
        let cut = index.saturating_sub(self.settings.keep_entries as u64).max(store.cut().index);
        let Some(term) = store.term_at(cut) else { return };
        self.persist_snapshot(snapshot, Mark { index: cut, term });
    }

    pub(super) fn leader(&self) -> Option<NodeId> {
        let id = RaftId::new(self.raft.raft.leader_id)?;
        Some(self.known.get(id)?.node())
    }
}

/// The configuration that a snapshot brings, with its members and no others.
pub(super) fn membership_of(snapshot: &Snapshot) -> Membership {
    Membership { configuration: snapshot.configuration.clone(), members: snapshot.members.clone() }
}

/// What Raft would take for granted. Gives what has been applied.
fn check_recovered(
    hard_state: &super::HardState,
    snapshot: Option<&Snapshot>,
    cut: Mark,
    entries: &[Entry],
) -> Result<u64, OpenError> {
    let damaged = |what| Err(OpenError::Damaged(what));
    let mut last = cut;
    for entry in entries {
        if entry.at.index != last.index + 1 {
            return damaged("its entries do not follow on each other");
        }
        if entry.at.term < last.term || entry.at.term == 0 {
            return damaged("an entry's term is lower than that before it");
        }
        last = entry.at;
    }
    if last.index > INDEX_MAX || hard_state.term > TERM_MAX {
        return damaged("its numbers are impossible");
    }
    if last.term > hard_state.term {
        return damaged("it holds entries of a term that this node does not know of");
    }
    let at = match snapshot {
        None if cut != Mark::default() || !entries.is_empty() => return damaged("the snapshot before it is missing"),
        None if hard_state.commit > 0 => return damaged("the snapshot before it is missing"),
        None => return Ok(0),
        Some(snapshot) if !snapshot.is_sound() => return damaged("its snapshot makes no sense"),
        Some(snapshot) => snapshot.at,
    };
    let place = at.index.checked_sub(cut.index);
    let term = match place {
        Some(0) => Some(cut.term),
        Some(place) => entries.get(place as usize - 1).map(|entry| entry.at.term),
        None => None,
    };
    if term != Some(at.term) {
        return damaged("its entries do not reach to the snapshot");
    }
    if hard_state.commit > last.index {
        return damaged("it ends before an entry that is known to be committed");
    }
    Ok(at.index)
}

impl Configuration {
    /// Raft's own idea of the configuration in effect.
    pub(super) fn in_effect(state: &eraftpb::ConfState) -> Configuration {
        Configuration::from_raft(state).unwrap_or_default()
    }
}
