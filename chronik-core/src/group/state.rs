//! One group: its members, and where its rebalance stands.
//!
//! ```text
//! Empty ── a member joins ──▶ PreparingRebalance ── all have joined, or the time is up ──▶ CompletingRebalance
//!   ▲                          ▲      ▲                                                        │
//!   │ none is left             │      └── a member joins, leaves or dies ──── Stable ◀─────────┘ the leader's
//!   └──────────────────────────┘                                                                 assignment is stored
//! ```
//!
//! Kafka's fifth state, Dead, is that of a group which is not there.

use super::committed::Offsets;
use super::members::{Member, Members, Protocol};
use super::records::{StoredGroup, StoredMember};
use super::subscription;
use crate::time::{Monotonic, Timestamp};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

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

/// What the members of a group consume, as far as their metadata tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subscription {
    /// They are consumers of these topics.
    Topics(BTreeSet<String>),
    /// They are consumers, and do not say it readably: any topic may be theirs.
    Unknown,
    /// They are no consumers.
    NotConsumers,
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
    pub members: Members<K>,
    /// Member ids that were given out and have not joined yet, and until when they may.
    pub pending: BTreeMap<String, Monotonic>,
    /// When the present phase of a rebalance ends at the latest.
    pub phase_ends: Option<Monotonic>,
    /// The first rebalance of an empty group waits for more members, but no longer than until then.
    pub initial_wait_ends: Option<Monotonic>,
    /// Somebody has joined since that wait began, or was last prolonged.
    pub joined_meanwhile: bool,
    /// The generation whose assignment is on its way to the log.
    pub storing: Option<i32>,
    /// Those that are committed.
    pub offsets: Offsets,
    /// The last generation that was committed, as it lies in the log.
    pub stored: Option<StoredGroup>,
    /// Its offsets were deleted one by one. It is there until the next look for what has expired, as in Kafka: whoever
    /// deletes a group's offsets deletes the group next.
    pub emptied: bool,
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
            members: Members::default(),
            pending: BTreeMap::new(),
            phase_ends: None,
            initial_wait_ends: None,
            joined_meanwhile: false,
            storing: None,
            offsets: Offsets::default(),
            stored: None,
            emptied: false,
        }
    }
}

impl<K> Group<K> {
    pub fn enter(&mut self, state: State, now: Timestamp) {
        self.state = state;
        self.state_since = now;
    }

    /// Nobody is in it or about to be.
    pub fn is_deserted(&self) -> bool {
        self.state == State::Empty && self.members.is_empty() && self.pending.is_empty()
    }

    /// Nothing of it is in the log.
    pub fn is_unrecorded(&self) -> bool {
        self.offsets.is_empty() && self.stored.is_none()
    }

    pub fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    /// The longest that any member wants to be waited for.
    pub fn rebalance_timeout_ms(&self) -> i32 {
        self.members.iter().map(|(_, member)| member.rebalance_timeout_ms).max().unwrap_or(0)
    }

    pub fn all_have_joined(&self) -> bool {
        self.pending.is_empty() && self.members.all_are_joining()
    }

    /// Whether somebody who supports these protocols can be a member together with the present ones.
    pub fn is_compatible(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.members.is_empty() {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|protocol| self.members.all_support(&protocol.name))
    }

    pub fn subscription(&self) -> Subscription {
        if self.protocol_type.as_deref() != Some(subscription::CONSUMER) {
            return Subscription::NotConsumers;
        }
        let mut topics = BTreeSet::new();
        for (_, member) in self.members.iter() {
            let first = || member.protocols().first().map(|first| first.name.as_str());
            let metadata = self.protocol.as_deref().or_else(first).map(|protocol| member.metadata(protocol));
            match metadata.and_then(|metadata| subscription::topics(&metadata)) {
                Some(subscribed) => topics.extend(subscribed),
                None => return Subscription::Unknown,
            }
        }
        Subscription::Topics(topics)
    }

    /// This generation as a record, with these assignments in place of the present ones where given.
    pub fn to_stored(&self, assignments: Option<&BTreeMap<String, Bytes>>) -> StoredGroup {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let member = |(id, member): (&str, &Member<K>)| StoredMember {
            member_id: id.to_owned(),
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

    /// Takes the stored generation as the present one: when a coordinator is rebuilt. Sessions begin anew at `now`.
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
            let session = Duration::from_millis(member.session_timeout_ms.max(0).unsigned_abs().into());
            let protocols = vec![Protocol { name: protocol.clone(), metadata: member.subscription }];
            let mut restored = Member::new(member.instance_id, protocols);
            restored.client_id = member.client_id;
            restored.client_host = member.client_host;
            restored.rebalance_timeout_ms = member.rebalance_timeout_ms;
            restored.session_timeout_ms = member.session_timeout_ms;
            restored.assignment = member.assignment;
            restored.session_ends = now + session;
            self.members.insert(member.member_id, restored);
        }
    }

    /// Forgets what a group without members still knew of its last generation.
    pub fn forget_generation(&mut self) {
        let (offsets, pending) = (std::mem::take(&mut self.offsets), std::mem::take(&mut self.pending));
        *self = Self { offsets, pending, emptied: self.emptied, ..Self::default() };
    }
}
