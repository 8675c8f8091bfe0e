//! One group: its members, and where its rebalance stands.
//!
//! ```text
//! Empty ── a member joins ──▶ PreparingRebalance ── all have joined, or the time is up ──▶ CompletingRebalance
//!   ▲                          ▲      ▲                                                        │
//!   │ none is left             │      └── a member joins, leaves or dies ──── Stable ◀─────────┘ the leader's
//!   └──────────────────────────┘                                                                 assignment is stored
//! ```

use super::records::{CommittedOffset, StoredGroup, StoredMember};
use super::subscription;
use crate::time::{Monotonic, Timestamp};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Where a group's rebalance stands. The names are Kafka's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    #[default]
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }
}

/// A way of assigning that a member supports, with what it tells the leader about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    pub name: String,
    pub metadata: Bytes,
}

/// A member. `K` is what its waiting requests are answered by.
#[derive(Debug)]
pub struct Member<K> {
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    /// In its order of preference.
    pub protocols: Vec<Protocol>,
    pub assignment: Bytes,
    /// It is dead if nothing is heard of it by then; not while it waits for an answer of ours.
    pub session_ends: Monotonic,
    pub awaiting_join: Option<K>,
    pub awaiting_sync: Option<K>,
    /// It has joined the generation that is being completed, and owes a SyncGroup.
    pub owes_sync: bool,
}

impl<K> Member<K> {
    pub fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|known| known.name == protocol)
            .map(|known| known.metadata.clone())
            .unwrap_or_default()
    }
}

/// A group and its committed offsets.
#[derive(Debug)]
pub struct Group<K> {
    pub state: State,
    pub state_since: Timestamp,
    pub generation: i32,
    /// `None` for a group that has only ever committed offsets.
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    pub members: BTreeMap<String, Member<K>>,
    /// Static members (KIP-345): instance id to member id.
    pub instances: BTreeMap<String, String>,
    /// Member ids that were given out and have not joined yet, and until when they may.
    pub pending: BTreeMap<String, Monotonic>,
    /// When the present phase of a rebalance ends at the latest.
    pub phase_ends: Option<Monotonic>,
    /// The first rebalance of an empty group waits for more members, but no longer than until then.
    pub initial_wait_ends: Option<Monotonic>,
    /// Somebody has joined since that wait began, or was last prolonged.
    pub joined_meanwhile: bool,
    /// The assignment of this generation is on its way to the log.
    pub storing: bool,
    pub offsets: BTreeMap<(String, i32), CommittedOffset>,
    /// The last generation that was committed, as it lies in the log.
    pub stored: Option<StoredGroup>,
}

impl<K> Default for Group<K> {
    fn default() -> Self {
        Self {
            state: State::Empty,
            state_since: Timestamp::NONE,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            pending: BTreeMap::new(),
            phase_ends: None,
            initial_wait_ends: None,
            joined_meanwhile: false,
            storing: false,
            offsets: BTreeMap::new(),
            stored: None,
        }
    }
}

impl<K> Group<K> {
    pub fn enter(&mut self, state: State, now: Timestamp) {
        self.state = state;
        self.state_since = now;
    }

    /// Nobody is in it, and nothing of it was ever stored or is about to be.
    pub fn is_trace_of_nobody(&self) -> bool {
        self.state == State::Empty
            && self.generation == 0
            && self.pending.is_empty()
            && self.members.is_empty()
            && self.offsets.is_empty()
            && self.stored.is_none()
            && self.protocol_type.is_none()
    }

    pub fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    /// The longest that any member wants to be waited for.
    pub fn rebalance_timeout_ms(&self) -> i32 {
        self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0)
    }

    pub fn all_have_joined(&self) -> bool {
        self.pending.is_empty() && self.members.values().all(|member| member.awaiting_join.is_some())
    }

    /// Whether somebody who supports these protocols can be a member together with the present ones.
    pub fn is_compatible(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.members.is_empty() {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && self.candidates().iter().any(|name| protocols.iter().any(|protocol| protocol.name == *name))
    }

    /// Protocols that all members support.
    fn candidates(&self) -> BTreeSet<&str> {
        let mut members = self.members.values();
        let Some(first) = members.next() else { return BTreeSet::new() };
        let mut common: BTreeSet<&str> = first.protocols.iter().map(|protocol| protocol.name.as_str()).collect();
        for member in members {
            common.retain(|name| member.protocols.iter().any(|protocol| protocol.name == *name));
        }
        common
    }

    /// The protocol of the next generation: each member votes for the first in its list that all support.
    pub fn elect_protocol(&self) -> Option<String> {
        let candidates = self.candidates();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let choice = member.protocols.iter().find(|protocol| candidates.contains(protocol.name.as_str()));
            if let Some(choice) = choice {
                *votes.entry(&choice.name).or_default() += 1;
            }
        }
        votes.into_iter().max_by_key(|(_, count)| *count).map(|(name, _)| name.to_owned())
    }

    /// Topics that the members consume; `None` where that cannot be known, because they are no consumers or the metadata
    /// is not readable.
    pub fn subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if self.protocol_type.as_deref() != Some(subscription::CONSUMER) {
            return None;
        }
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            let protocol =
                self.protocol.as_deref().or_else(|| member.protocols.first().map(|first| first.name.as_str()));
            topics.extend(subscription::topics(&member.metadata(protocol?))?);
        }
        Some(topics)
    }

    /// This generation as a record, with these assignments in place of the present ones where given.
    pub fn to_stored(&self, assignments: Option<&BTreeMap<String, Bytes>>) -> StoredGroup {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let member = |(id, member): (&String, &Member<K>)| StoredMember {
            member_id: id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(protocol),
            assignment: match assignments {
                Some(assignments) => assignments.get(id).cloned().unwrap_or_default(),
                None => member.assignment.clone(),
            },
        };
        StoredGroup {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_since: self.state_since,
            members: self.members.iter().map(member).collect(),
        }
    }

    /// Takes a stored generation as the present one: when a coordinator is rebuilt. Sessions begin anew at `now`.
    pub fn restore(&mut self, now: Monotonic) {
        let Some(stored) = self.stored.clone() else { return };
        self.generation = stored.generation;
        self.protocol_type = Some(stored.protocol_type).filter(|text| !text.is_empty());
        self.protocol = stored.protocol;
        self.leader = stored.leader;
        self.state_since = stored.state_since;
        self.state = if stored.members.is_empty() { State::Empty } else { State::Stable };
        let protocol = self.protocol.clone().unwrap_or_default();
        for member in stored.members {
            if let Some(instance) = &member.instance_id {
                self.instances.insert(instance.clone(), member.member_id.clone());
            }
            let session = std::time::Duration::from_millis(member.session_timeout_ms.max(0).unsigned_abs().into());
            self.members.insert(
                member.member_id,
                Member {
                    instance_id: member.instance_id,
                    client_id: member.client_id,
                    client_host: member.client_host,
                    rebalance_timeout_ms: member.rebalance_timeout_ms,
                    session_timeout_ms: member.session_timeout_ms,
                    protocols: vec![Protocol { name: protocol.clone(), metadata: member.subscription }],
                    assignment: member.assignment,
                    session_ends: now + session,
                    awaiting_join: None,
                    awaiting_sync: None,
                    owes_sync: false,
                },
            );
        }
    }
}
